//! Error feedback on disk: residuals against the definition, killed runs, reruns, resets.

mod killed;
mod shell;

use crate::harness::{Contents, Dir, Model, Run, Update, fedmill, fedmill_after};
use std::fs;
use std::os::unix::fs::PermissionsExt;

const ROUNDS: usize = 4;

/// A client's delta of a round: a tensor that is encoded, and two that are not.
fn trained(round: usize) -> Vec<f32> {
    (0..700).map(|j| ((j * (2 * round + 3) + round) % 101) as f32 / 500.0 - 0.1).collect()
}

fn update(name: &str, round: usize) -> Update {
    Update::new(name)
        .f32("w", &[70, 10], &trained(round))
        .f32("small", &[4], &trained(round)[..4])
        .i64("n", &[1], &[round as i64])
        .meta("kind", "delta")
        .meta("client_id", "ada")
        .meta("round", &round.to_string())
}

/// One client over several rounds, with the options of all its runs.
struct Client {
    dir: Dir,
    more: Vec<&'static str>,
    /// Whether all rounds write to the same file.
    is_one_output: bool,
}

impl Client {
    fn new(more: &[&'static str]) -> Self {
        let client = Self { dir: Dir::new(), more: more.to_vec(), is_one_output: false };
        for round in 1..=ROUNDS {
            let lr = 0.1 / round as f64;
            update(&format!("in-{round}"), round).meta("local_lr", &lr.to_string()).write(&client.dir);
        }
        client
    }

    fn output(&self, round: usize) -> String {
        if self.is_one_output { "out.safetensors".to_owned() } else { format!("out-{round}.safetensors") }
    }

    fn arguments(&self, round: usize) -> Vec<String> {
        let (input, output) = (format!("in-{round}.safetensors"), self.output(round));
        let fixed = ["compress", "--codec", "u2", "--residual", "e.safetensors", &input, "-o", &output];
        fixed.iter().chain(&self.more).map(ToString::to_string).collect()
    }

    fn try_run(&self, round: usize, setup: &str) -> Run {
        let arguments = self.arguments(round);
        fedmill_after(&self.dir, setup, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Runs a round. Returns what it printed on stderr.
    #[track_caller]
    fn run(&self, round: usize) -> String {
        let run = self.try_run(round, "true");
        assert_eq!(run.code, Some(0), "{run:#?}");
        run.stderr
    }

    fn decoded(&self, round: usize) -> Vec<f32> {
        let args = ["decompress", &self.output(round), "-o", "back.safetensors"];
        assert_eq!(fedmill(&self.dir, &args).code, Some(0));
        let decoded = Model::read(&self.dir, "back.safetensors").f32("w");
        fs::remove_file(self.dir.path("back.safetensors")).unwrap();
        decoded
    }

    fn residual(&self) -> Model {
        Model::read(&self.dir, "e.safetensors")
    }

    /// All files except the temporary ones of a killed run.
    fn contents(&self) -> Contents {
        let mut contents = self.dir.contents();
        contents.retain(|name, _| !name.ends_with(".fedmill-tmp"));
        contents
    }
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The encoded values are `p = u + decay (lr_before / lr) e`; the new residual is `p` minus the decoded values.
#[test]
fn residuals_are_what_was_not_sent() {
    for (more, decay) in [(&[][..], 1.0), (&["--decay", "0.5"], 0.5)] {
        let client = Client::new(more);
        let mut left = vec![0.0f32; 700];
        for round in 1..=ROUNDS {
            client.run(round);
            let lr = |round: usize| (0.1 / round as f64).to_string().parse::<f64>().unwrap();
            let ratio = if round == 1 { 1.0 } else { lr(round - 1) / lr(round) };
            let u = trained(round);
            let p = u.iter().zip(&left).map(|(u, e)| (f64::from(*u) + decay * ratio * f64::from(*e)) as f32);
            left = p.zip(client.decoded(round)).map(|(p, sent)| p - sent).collect();
            let residual = client.residual();
            assert_eq!(residual.f32("w"), left, "round {round}");
            assert_eq!(residual.f32("small"), [0.0; 4]);
            assert_eq!(residual.tensors.len(), 2, "integers leave nothing");
            assert_eq!(residual.tensors["w"].1, [70, 10]);
            let said = |key: &str| residual.metadata[key].clone();
            assert_eq!(said("client_id"), "ada");
            assert_eq!(said("round"), round.to_string());
            assert_eq!(said("fedmill.update_sha256"), sha256(&client.dir.read(&client.output(round))));
            assert_eq!(
                said("fedmill.input_sha256"),
                sha256(&client.dir.read(&format!("in-{round}.safetensors")))
            );
            assert_eq!(said("fedmill.decay"), decay.to_string());
            assert!(said("fedmill.codec_of").starts_with("u2:"));
        }
    }
}

/// The sum of the sent values is the sum of the trained ones, minus the last residual. Without feedback, errors add up.
#[test]
fn errors_do_not_add_up() {
    let client = Client::new(&[]);
    let sum = |of: &dyn Fn(usize) -> Vec<f32>| {
        (1..=12).fold(vec![0.0f64; 700], |sum, round| {
            sum.iter().zip(of(round)).map(|(sum, x)| sum + f64::from(x)).collect::<Vec<f64>>()
        })
    };
    let constant = |name: &str, round: usize| {
        Update::new(name)
            .f32("w", &[700], &trained(3))
            .meta("round", &round.to_string())
            .meta("client_id", "ada")
    };
    let sent = |more: &[&str]| {
        sum(&|round| {
            constant("in", round).write(&client.dir);
            let args =
                [&["compress", "-q", "--codec", "u2", "in.safetensors", "-o", "out-1.safetensors"], more];
            assert_eq!(fedmill(&client.dir, &args.concat()).code, Some(0));
            client.decoded(1)
        })
    };
    let expected = sum(&|_| trained(3));
    let error = |found: Vec<f64>| -> f64 {
        found.iter().zip(&expected).map(|(x, y)| (x - y) * (x - y)).sum::<f64>().sqrt()
    };
    let with = error(sent(&["--residual", "e.safetensors"]));
    let without = error(sent(&[]));
    let left: f64 = client.residual().f32("w").iter().map(|e| f64::from(*e).powi(2)).sum::<f64>().sqrt();
    assert!((with - left).abs() < 1e-4 * left, "{with} is missing, {left} is left");
    assert!(with < without / 4.0, "{with} with, {without} without");
}

#[test]
fn residuals_are_private_and_may_be_halved() {
    let client = Client::new(&["--residual-dtype", "bf16"]);
    client.run(1);
    client.run(2);
    let halved = client.residual();
    assert_eq!((halved.dtype("w"), halved.dtype("small")), ("BF16", "BF16"));
    for name in ["e.safetensors", "e.safetensors.previous"] {
        let mode = fs::metadata(client.dir.path(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let (client, whole) = (Client::new(&["--residual-dtype", "bf16"]), Client::new(&[]));
    [&client, &whole].iter().for_each(|client| drop(client.run(1)));
    let halved: Vec<u16> =
        client.residual().bytes("w").chunks(2).map(|x| u16::from_le_bytes([x[0], x[1]])).collect();
    let rounded = whole.residual().f32("w").into_iter().map(|e| half::bf16::from_f32(e).to_bits());
    assert!(client.dir.read("out-1.safetensors") == whole.dir.read("out-1.safetensors"));
    assert_eq!(halved, rounded.collect::<Vec<_>>());
}

/// An update that is compressed again starts from the same residual as the first time.
#[test]
fn a_rerun_counts_nothing_twice() {
    let client = Client::new(&[]);
    for round in 1..=ROUNDS {
        client.run(round);
        let before = client.contents();
        client.run(round);
        assert!(client.contents() == before, "round {round}");
    }
    let once = Client::new(&[]);
    (1..=ROUNDS).for_each(|round| drop(once.run(round)));
    assert!(client.contents() == once.contents());
}

/// A residual that vanished is not silently taken for a first round.
#[test]
fn a_lost_residual_is_a_warning() {
    let client = Client::new(&[]);
    (1..=2).for_each(|round| assert!(!client.run(round).contains("starts over"), "round {round}"));
    fs::remove_file(client.dir.path("e.safetensors")).unwrap();
    let warning = "e.safetensors: does not exist, though e.safetensors.previous does";
    let stderr = client.run(3);
    assert!(stderr.contains(warning), "{stderr}");
}

/// The output may be none of the files of the residual, and an older round is named.
#[test]
fn the_files_of_a_residual_are_its_own() {
    let client = Client::new(&[]);
    (1..=3).for_each(|round| drop(client.run(round)));
    for output in ["e.safetensors.previous", "e.safetensors.next"] {
        let args =
            ["compress", "--codec", "u2", "--residual", "e.safetensors", "in-4.safetensors", "-o", output];
        let what =
            format!("{output}: is also another output, as fedmill writes or removes it with e.safetensors");
        fedmill(&client.dir, &args).assert_fails(2, &[&what]);
    }
    let warning = "the residual is of round 3, and the update of the earlier round 1";
    let stderr = client.run(1);
    assert!(stderr.contains(warning), "{stderr}");
    let damaged = client.dir.read("e.safetensors.previous").len() - 1;
    let mut bytes = client.dir.read("e.safetensors.previous");
    bytes[damaged] ^= 1;
    client.dir.write("e.safetensors.previous", &bytes);
    let hint = "hint: to start over without a residual, move e.safetensors and it away";
    client.try_run(1, "true").assert_fails(2, &["e.safetensors.previous: the residual cannot be used", hint]);
}

/// A second update of a round replaces the first one.
#[test]
fn an_update_that_is_trained_again_replaces_the_first() {
    let client = Client::new(&[]);
    let straight = Client::new(&[]);
    [&client, &straight].iter().for_each(|client| drop(client.run(1)));
    update("in-2", 9).meta("round", "2").write(&client.dir);
    client.run(2);
    fs::copy(straight.dir.path("in-2.safetensors"), client.dir.path("in-2.safetensors")).unwrap();
    let said = client.run(2);
    assert!(
        said.contains("warning: e.safetensors: another update of round 2 was compressed before"),
        "{said}"
    );
    straight.run(2);
    assert!(client.contents() == straight.contents());
}

/// The same weights are another update if the base has changed.
#[test]
fn a_base_that_moved_makes_another_update() {
    let client = Client::new(&[]);
    Update::new("base-1").f32("w", &[700], &trained(1)).write(&client.dir);
    Update::new("base-2").f32("w", &[700], &trained(2)).write(&client.dir);
    Update::new("weights").f32("w", &[700], &trained(3)).write(&client.dir);
    let run = |base: &str| {
        let args =
            ["--residual", "e.safetensors", "weights.safetensors", "-o", "out.safetensors", "--base", base];
        let run = fedmill(&client.dir, &[&["compress", "-q", "--codec", "u2"], &args[..]].concat());
        assert_eq!(run.code, Some(0), "{run:#?}");
        client.residual().metadata["fedmill.residual"].clone()
    };
    assert_eq!(run("base-1.safetensors"), "1");
    assert_eq!(run("base-2.safetensors"), "2");
    assert_eq!(run("base-2.safetensors"), "2", "the same once more");
}

#[test]
fn residuals_that_are_of_no_use_are_forgotten() {
    let fresh = Client::new(&[]);
    fresh.run(4);
    let client = Client::new(&["--residual-max-age", "2"]);
    client.run(1);
    let said = client.run(4);
    assert!(
        said.contains("warning: e.safetensors: the residual is 3 rounds old, more than 2, and is dropped"),
        "{said}"
    );
    assert_eq!(client.dir.read("out-4.safetensors"), fresh.dir.read("out-4.safetensors"));
    client.run(4);
    assert_eq!(client.dir.read("out-4.safetensors"), fresh.dir.read("out-4.safetensors"), "run again");

    let client = Client::new(&["--residual-max-age", "3"]);
    client.run(1);
    let said = client.run(4);
    assert_eq!(said, summary(&said), "three rounds are not more than three");
    assert_ne!(client.dir.read("out-4.safetensors"), fresh.dir.read("out-4.safetensors"));

    let client = Client::new(&[]);
    Update::new("in-1").f32("w", &[7, 100], &trained(1)).meta("client_id", "ada").write(&client.dir);
    client.run(1);
    let said = client.run(4);
    assert!(
        said.contains("warning: e.safetensors: the residual belongs to another model and is dropped: "),
        "{said}"
    );
    assert_eq!(client.dir.read("out-4.safetensors"), fresh.dir.read("out-4.safetensors"));
}

#[test]
fn what_is_no_residual_of_this_client() {
    let client = Client::new(&[]);
    let dir = &client.dir;
    client.run(1);
    client.run(2);
    update("other", 3).meta("client_id", "bob").write(dir);
    fs::copy(dir.path("e.safetensors"), dir.path("alone.safetensors")).unwrap();
    dir.write("cut.safetensors", &dir.read("e.safetensors")[..90]);
    let before = dir.contents();
    let cases: [(&str, &str, &[&str]); 9] = [
        (
            "other",
            "e.safetensors",
            &["is the residual of client `ada`, expected that of `bob`", "hint: each client"],
        ),
        (
            "in-3",
            "in-1.safetensors",
            &["in-1.safetensors: is no residual: metadata `fedmill.residual` is missing"],
        ),
        (
            "in-3",
            "cut.safetensors",
            &[
                "cut.safetensors: the residual cannot be used: ",
                "hint: copy cut.safetensors.previous over it",
            ],
        ),
        ("in-3", "in-3.safetensors", &["in-3.safetensors: is also an input"]),
        ("in-3", "out.safetensors", &["out.safetensors: is also another output"]),
        ("in-3", "./out.safetensors", &["out.safetensors: is also another output"]),
        ("in-3", "no/folder/e.safetensors", &["directory does not exist"]),
        ("e", "new.safetensors", &["e.safetensors: metadata `fedmill.residual` marks"]),
        (
            "in-2",
            "alone.safetensors",
            &["already includes this update, and alone.safetensors.previous", "hint: to start over"],
        ),
    ];
    for (input, residual, parts) in cases {
        let input = format!("{input}.safetensors");
        let args = ["compress", "--codec", "u2", "--residual", residual, &input, "-o", "out.safetensors"];
        fedmill(dir, &args).assert_fails(2, parts);
        dir.assert_unchanged_since(&before);
    }
    for more in
        [&["--decay", "1.5", "--residual", "e"][..], &["--decay", "0.5"], &["--residual-max-age", "1"]]
    {
        let args =
            [&["compress", "--codec", "u2", "in-3.safetensors", "-o", "out.safetensors"], more].concat();
        assert_eq!(fedmill(dir, &args).code, Some(2), "{more:?}");
    }
}

/// A run leaves the residual alone while another run is working on it.
#[test]
fn two_runs_on_one_residual_are_kept_apart() {
    let client = Client::new(&[]);
    client.run(1);
    let name = ".e.safetensors.next.1-0.fedmill-tmp";
    client.dir.write(name, b"half a residual");
    let other = fs::File::options().write(true).open(client.dir.path(name)).unwrap();
    other.lock().unwrap();
    let before = client.dir.contents();
    client.try_run(2, "true").assert_fails(2, &["e.safetensors: another run is writing it"]);
    client.dir.assert_unchanged_since(&before);
    drop(other);
    client.run(2);
    assert!(!client.dir.exists(name));
}

/// A biased codec without a residual warns once.
#[test]
fn a_biased_codec_wants_a_residual() {
    let client = Client::new(&[]);
    let said = client.run(1);
    assert_eq!(said, summary(&said));
    let args = ["compress", "--codec", "u2", "in-1.safetensors", "-o", "out-1.safetensors"];
    let said = fedmill(&client.dir, &args).stderr;
    assert_eq!(said.matches("is biased").count(), 1, "{said}");
    assert!(said.contains("hint: --residual FILE"), "{said}");
}

/// The values of every sent update, decompressed.
fn summary(said: &str) -> String {
    said.lines().filter(|line| line.contains(" bits per parameter")).map(|line| format!("{line}\n")).collect()
}

/// A delta of independent values around zero.
fn white(name: &str, round: usize, scale: f32) -> Update {
    let mut state = round as u64 + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        scale * ((state >> 40) as f32 / (1 << 24) as f32 - 0.5)
    };
    let values: Vec<f32> = (0..4096).map(|_| next()).collect();
    Update::new(name)
        .f32("w", &[64, 64], &values)
        .meta("kind", "delta")
        .meta("client_id", "ada")
        .meta("round", &round.to_string())
}

/// A codec whose error exceeds the update feeds errors on errors. The same codec at the contracting scale does not.
#[test]
fn codecs_whose_error_exceeds_the_update_are_refused() {
    for (codec, remedy) in [
        (
            "randk:fraction=0.1,scale=inverse",
            "hint: --codec randk:fraction=0.1 sends the values at the scale that",
        ),
        (
            "randk:fraction=0.4,scale=inverse",
            "hint: --codec randk:fraction=0.4 sends the values at the scale that",
        ),
        (
            "u1:block=64,rounding=stochastic",
            "hint: --codec u1:block=64 sends the values at the scale that contracts",
        ),
        ("sketch", "hint: take a codec whose error is below the update, such as topk"),
    ] {
        let dir = Dir::new();
        white("in", 1, 1e-3).write(&dir);
        let before = dir.contents();
        let args = [
            "compress",
            "--codec",
            codec,
            "--residual",
            "e.safetensors",
            "in.safetensors",
            "-o",
            "o.safetensors",
        ];
        let says = [
            "e.safetensors: tensor `w`: the error of",
            "exceeds the update: NMSE",
            "expected at most 1",
            remedy,
        ];
        fedmill(&dir, &args).assert_fails(2, &says);
        dir.assert_unchanged_since(&before);
    }
    for codec in ["randk:fraction=0.1", "randk:fraction=0.6,scale=inverse", "eden1", "sign", "topk"] {
        let dir = Dir::new();
        white("in", 1, 1e-3).write(&dir);
        let args = [
            "compress",
            "--codec",
            codec,
            "--residual",
            "e.safetensors",
            "in.safetensors",
            "-o",
            "o.safetensors",
        ];
        assert_eq!(fedmill(&dir, &args).code, Some(0), "{codec}");
    }
}

/// A residual that grows tenfold over three rounds is refused: in the fourth round, not before.
#[test]
fn residuals_that_grew_tenfold_are_refused() {
    let dir = Dir::new();
    let run = |round: usize| {
        white("in", round, 3f32.powi(round as i32)).write(&dir);
        let args = [
            "compress",
            "-q",
            "--codec",
            "topk",
            "--residual",
            "e.safetensors",
            "in.safetensors",
            "-o",
            "o.safetensors",
        ];
        fedmill(&dir, &args)
    };
    for round in 1..=3 {
        let run = run(round);
        assert_eq!(run.code, Some(0), "{round}: {run:#?}");
    }
    let kept = dir.read("e.safetensors");
    let says =
        ["e.safetensors: the norm of the residual would grow from", "over three rounds", "hint: ", "--decay"];
    run(4).assert_fails(2, &says);
    assert!(dir.read("e.safetensors") == kept);
    let norms = Model::read(&dir, "e.safetensors").metadata["fedmill.residual_norms"].clone();
    assert_eq!(norms.split_whitespace().count(), 3, "{norms}");
}

/// What is wrong with a residual is not blamed on the update.
#[test]
fn a_residual_that_is_not_finite_is_blamed() {
    let client = Client::new(&[]);
    client.run(1);
    let metadata = client.residual().metadata;
    let mut broken = Update::new("e").f32("small", &[4], &[0.0; 4]).f32("w", &[70, 10], &[f32::NAN; 700]);
    for (key, value) in
        metadata.iter().filter(|(key, _)| *key != "fedmill.digest" && *key != "fedmill.sealed")
    {
        broken = broken.meta(key, value);
    }
    broken.write(&client.dir);
    let says =
        ["error: e.safetensors: the residual holds NaN in tensor `w` at flat index 0", "hint: to start over"];
    client.try_run(2, "true").assert_fails(2, &says);
    let client = Client { more: vec!["--nonfinite", "zero"], ..client };
    client.try_run(2, "true").assert_fails(2, &says);
}

/// A run that reads and rewrites a residual holds its lock; another run is refused and changes nothing.
#[test]
fn a_residual_is_locked() {
    let client = Client::new(&[]);
    client.run(1);
    let held = client.dir.path(".e.safetensors.next.1-0.fedmill-tmp");
    let lock = fs::File::create(&held).unwrap();
    lock.lock().unwrap();
    let before = client.dir.contents();
    client.try_run(2, "true").assert_fails(2, &["e.safetensors: "]);
    client.dir.assert_unchanged_since(&before);
    drop(lock);
    client.run(2);
    assert!(!held.exists());
}
