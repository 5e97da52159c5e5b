//! Trees of aggregators give the bytes of one merge of all updates, with any grouping of clients.
//!
//! Updates and options that sums do not support are refused with the reason.

use crate::harness::{Dir, Model, Update, fedmill, without_digest};
use half::{bf16, f16};
use std::fs;

/// A small deterministic generator (xorshift64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }

    /// Between -1 and 1, with all bits of f64.
    fn value(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }
}

/// Writes updates of this number of clients: every dtype, values of many orders of magnitude, ties, and an attacker
/// with huge values.
fn write_round(dir: &Dir, clients: usize, seed: u64) -> Vec<String> {
    let mut random = Random(seed * 2 + 1);
    let write = |i: usize| {
        let plain: Vec<f32> = (0..700).map(|_| random.value() as f32).collect();
        let wide: Vec<f32> =
            (0..90).map(|j| (random.value() * f64::exp2(f64::from(j % 45) - 30.0)) as f32).collect();
        let scaled: Vec<f32> =
            (0..90).map(|_| (random.value() * f64::exp2(random.below(40) as f64 - 30.0)) as f32).collect();
        let hostile: Vec<f32> = (0..90)
            .map(|_| if i == 1 { random.value() as f32 * 1e30 } else { random.value() as f32 })
            .collect();
        let ties: Vec<f32> = (0..90).map(|_| random.below(3) as f32 - 1.0).collect();
        let doubles: Vec<f64> = (0..77).map(|_| random.value()).collect();
        let halves: Vec<u16> = (0..66).map(|_| bf16::from_f64(random.value()).to_bits()).collect();
        let f16s: Vec<u16> = (0..66).map(|_| f16::from_f64(random.value() * 100.0).to_bits()).collect();
        let counts: Vec<i64> = (0..33).map(|_| random.below(1 << 20) as i64 - 1000).collect();
        let name = format!("in/c{i:02}");
        Update::new(&name)
            .f32("plain", &[7, 100], &plain)
            .f32("wide", &[90], &wide)
            .f32("scaled", &[90], &scaled)
            .f32("hostile", &[90], &hostile)
            .f32("ties", &[90], &ties)
            .f64("doubles", &[77], &doubles)
            .half("halves", "BF16", &[66], &halves)
            .half("f16s", "F16", &[66], &f16s)
            .i64("counts", &[33], &counts)
            .f32("none", &[0], &[])
            .f32("scalar", &[], &plain[..1])
            .meta("num_examples", &format!("{}", 13 * i + 7))
            .meta("format", "pt")
            .write(dir);
        format!("{name}.safetensors")
    };
    (0..clients).map(write).collect()
}

/// Weights that are fractions.
fn write_weights(dir: &Dir, clients: usize) {
    let line = |i: usize| format!("c{i:02} {}\n", 0.1 + 1.0 / (i + 3) as f64);
    dir.write("weights.txt", (0..clients).map(line).collect::<String>());
}

/// The arguments for some inputs: updates stand in a folder, partials do not.
fn inputs_of<'a>(inputs: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let (updates, partials): (Vec<&str>, Vec<&str>) =
        inputs.into_iter().partition(|input| input.contains('/'));
    if partials.is_empty() { updates } else { [updates, vec!["--partials"], partials].concat() }
}

#[track_caller]
fn run(dir: &Dir, inputs: &[String], output: &str, args: &[&str]) {
    let inputs = inputs_of(inputs.iter().map(String::as_str));
    fedmill(dir, &[&["aggregate", "-q", "-o", output], args, &inputs].concat()).assert_merged(output);
}

/// Returns the root's inputs for a random tree: partials of partials down to `depth`, and some updates.
fn grown(dir: &Dir, files: &[String], depth: usize, random: &mut Random, args: &[&str]) -> Vec<String> {
    if depth == 0 {
        return files.to_vec();
    }
    let mut groups = vec![Vec::new(); 1 + random.below(4)];
    for file in files {
        let group = random.below(groups.len());
        groups[group].push(file.clone());
    }
    let mut inputs = Vec::new();
    for group in groups.into_iter().filter(|group| !group.is_empty()) {
        // Sometimes a node passes updates on.
        if random.below(6) == 0 {
            inputs.extend(group);
            continue;
        }
        let below = grown(dir, &group, depth - 1, random, args);
        let name = format!("part-{}.safetensors", random.next());
        run(dir, &below, &name, &[args, &["--partial"]].concat());
        inputs.push(name);
    }
    inputs
}

/// Trees of every depth give the bytes of the flat merge.
#[track_caller]
fn agrees(dir: &Dir, files: &[String], args: &[&str], seed: u64) {
    run(dir, files, "flat.safetensors", args);
    let want = dir.read("flat.safetensors");
    let mut random = Random(seed | 1);
    for depth in 1..=3 {
        let inputs = grown(dir, files, depth, &mut random, args);
        run(dir, &inputs, "tree.safetensors", args);
        if dir.read("tree.safetensors") != want {
            let (flat, tree) = (Model::read(dir, "flat.safetensors"), Model::read(dir, "tree.safetensors"));
            assert_eq!(tree.metadata, flat.metadata, "{args:?}, depth {depth}");
            let differing: Vec<&String> = flat
                .tensors
                .iter()
                .filter(|(name, tensor)| tree.tensors[*name] != **tensor)
                .map(|t| t.0)
                .collect();
            panic!("{args:?}, depth {depth}, inputs {inputs:?}: differ in {differing:?}");
        }
    }
}

#[test]
fn trees_of_means_give_the_flat_bytes() {
    for (seed, clients) in [(11, 2), (12, 9), (13, 17)] {
        let dir = Dir::new();
        let files = write_round(&dir, clients, seed);
        write_weights(&dir, clients);
        for weights in ["uniform", "examples", "weights.txt"] {
            agrees(&dir, &files, &["--weights", weights], seed * 31);
        }
    }
}

#[test]
fn trees_of_trimmed_means_give_the_flat_bytes() {
    for (seed, clients) in [(21, 5), (22, 11), (23, 16)] {
        let dir = Dir::new();
        let files = write_round(&dir, clients, seed);
        for cut in (0..=5).filter(|cut| 2 * cut < clients) {
            agrees(&dir, &files, &["--rule", &format!("trimmed-mean:cut={cut}")], seed * 37 + cut as u64);
        }
    }
}

/// Updates of a few values, weights or deltas.
fn write_small(dir: &Dir, client: &str, kind: &str, values: &[f32]) -> String {
    let name = format!("small/{client}");
    let update = Update::new(&name).f32("w", &[values.len()], values).meta("num_examples", "3");
    update.meta("kind", kind).write(dir);
    format!("{name}.safetensors")
}

#[test]
fn trees_merge_onto_a_base() {
    let dir = Dir::new();
    Update::new("base").f32("w", &[3], &[0.1, 0.2, 1e-9]).write(&dir);
    let base = ["--base", "base.safetensors"];
    let kinds =
        [["delta", "delta", "delta", "delta"], ["weights"; 4], ["delta", "weights", "delta", "weights"]];
    for kinds in kinds {
        let values = |i: usize| [0.3 * i as f32, 1e-5 / (i + 1) as f32, -7.0];
        let file = |(i, kind): (usize, &&str)| write_small(&dir, &format!("c{i}"), kind, &values(i));
        let files: Vec<String> = kinds.iter().enumerate().map(file).collect();
        for rule in ["mean", "trimmed-mean:cut=1"] {
            let args = [&base[..], &["--rule", rule]].concat();
            run(&dir, &files, "flat.safetensors", &args);
            // A node whose inputs are deltas, or include a delta, makes a partial of deltas.
            run(&dir, &files[..2], "one.safetensors", &[&args[..], &["--partial"]].concat());
            run(&dir, &files[2..], "two.safetensors", &[&args[..], &["--partial"]].concat());
            let inputs = ["one.safetensors".to_owned(), "two.safetensors".to_owned()];
            run(&dir, &inputs, "tree.safetensors", &args);
            assert!(dir.read("tree.safetensors") == dir.read("flat.safetensors"), "{kinds:?} {rule}");
        }
    }
}

#[test]
fn the_server_steps_at_the_root() {
    let dir = Dir::new();
    Update::new("base").f32("w", &[3], &[0.1, 0.2, 0.3]).write(&dir);
    let files: Vec<String> =
        (0..4).map(|i| write_small(&dir, &format!("c{i}"), "delta", &[0.5, i as f32, -0.01])).collect();
    let base = ["--base", "base.safetensors"];
    for part in [&files[..1], &files[1..]] {
        let name = format!("part{}.safetensors", part.len());
        run(&dir, part, &name, &[&base[..], &["--partial"]].concat());
    }
    let parts = ["part1.safetensors".to_owned(), "part3.safetensors".to_owned()];
    for strategy in ["fedavg:lr=0.5", "fedavgm", "fedadam", "fedyogi", "fedadagrad"] {
        let step = |inputs: &[String], output: &str| {
            let state = format!("{output}.state.safetensors");
            let mut args = [&base[..], &["--strategy", strategy]].concat();
            if !strategy.starts_with("fedavg:") {
                args.extend(["--state", &state]);
            }
            run(&dir, inputs, output, &args);
            dir.read(output)
        };
        let flat = step(&files, &format!("{strategy}-flat.safetensors"));
        assert!(step(&parts, &format!("{strategy}-tree.safetensors")) == flat, "{strategy}");
    }
}

#[test]
fn reports_list_every_client() {
    let dir = Dir::new();
    let files = write_round(&dir, 5, 3);
    run(&dir, &files[1..3], "part.safetensors", &["--partial", "--report", "part.json"]);
    let part = dir.json("part.json");
    assert_eq!(part["clients"][1]["id"], "c02");
    assert_eq!(part["clients"][1]["reason"], "its values are in the partial");
    let inputs = ["part.safetensors", "in/c00.safetensors", "in/c04.safetensors", "in/c03.safetensors"];
    let inputs = inputs.map(str::to_owned);
    run(&dir, &inputs, "tree.safetensors", &["--report", "tree.json", "--min-clients", "5"]);
    let tree = dir.json("tree.json");
    for (i, client) in tree["clients"].as_array().unwrap().iter().enumerate() {
        assert_eq!(client["id"], format!("c{i:02}"));
        let file = if [1, 2].contains(&i) { "part.safetensors".to_owned() } else { files[i].clone() };
        assert_eq!(client["file"], file);
        assert_eq!(client["kept"], true);
        let weight = (13 * i + 7) as f64 / (13 * 10 + 7 * 5) as f64;
        assert!((client["weight"].as_f64().unwrap() - weight).abs() < 1e-12);
    }
    assert!(tree["metrics"].is_null());
    assert!(tree["warnings"].to_string().contains("partials hold sums"));
    // Clients count, not files.
    let refused = fedmill(
        &dir,
        &["aggregate", "--partials", "part.safetensors", "-o", "m.safetensors", "--min-clients", "3"],
    );
    refused.assert_fails(1, &["2 usable updates"]);
    assert!(!dir.exists("m.safetensors"));
}

#[test]
fn what_sums_do_not_tell_is_refused() {
    let dir = Dir::new();
    let files = write_round(&dir, 6, 5);
    run(&dir, &files[..3], "part.safetensors", &["--partial"]);
    let inputs = ["in/c04.safetensors", "--partials", "part.safetensors"];
    let needs_all = "cannot be done with partials: it needs every client's values";
    for (args, what) in [
        (&["--rule", "median"][..], &["median", needs_all, "fedmill gram"][..]),
        (&["--rule", "krum", "--byzantine", "0"], &["krum", needs_all]),
        (&["--rule", "trimmed-mean:cut=0.2"], &["the cut is a fraction of all clients", "cut=2"]),
        (&["--rule", "trimmed-mean", "--byzantine", "1"], &["without a count"]),
        (&["--pre", "nnm"], &["--pre nnm", needs_all]),
        (&["--shadow-rules", "krum", "--report", "r.json"], &["--shadow-rules krum", needs_all]),
        (&["--metrics", "geometry", "--report", "r.json"], &["--metrics", needs_all]),
        (
            &["--strategy", "fednova", "--base", "base.safetensors"],
            &["fednova", "it needs each client's report"],
        ),
        (&["--backend", "gpu"], &["--backend gpu", "need f64"]),
    ] {
        Update::new("base").f32("w", &[1], &[0.0]).write(&dir);
        let before = dir.contents();
        for partial in [&[][..], &["--partial"]] {
            let inputs = if partial.is_empty() { &inputs[..] } else { &inputs[..1] };
            let args = [&["aggregate", "-o", "m.safetensors"], inputs, args, partial].concat();
            let got = fedmill(&dir, &args);
            got.assert_fails(2, what);
            if args.contains(&"r.json") {
                assert_eq!(dir.json("r.json")["published"], false);
                fs::remove_file(dir.path("r.json")).unwrap();
            }
        }
        dir.assert_unchanged_since(&before);
    }
    let step = ["aggregate", "-o", "m.safetensors", "in", "--partial", "--strategy", "fedavg:lr=0.5"];
    fedmill(&dir, &step).assert_fails(2, &["the server steps once, at the root"]);
}

/// A partial of some clients in `<name>.safetensors`.
fn part(dir: &Dir, name: &str, files: &[String], args: &[&str]) -> String {
    let output = format!("{name}.safetensors");
    run(dir, files, &output, &[args, &["--partial"]].concat());
    output
}

#[test]
fn partials_that_do_not_go_together_are_refused() {
    let dir = Dir::new();
    let small = |client: &str, kind: &str| write_small(&dir, client, kind, &[1.0, 2.0]);
    let (a, b, c) = (small("a", "weights"), small("b", "weights"), small("c", "delta"));
    let one = part(&dir, "one", std::slice::from_ref(&a), &[]);
    let both = part(&dir, "both", &[a.clone(), b.clone()], &[]);
    let uniform = part(&dir, "uniform", std::slice::from_ref(&b), &["--weights", "uniform"]);
    let delta = part(&dir, "delta", std::slice::from_ref(&c), &[]);
    let trimmed = part(&dir, "trimmed", std::slice::from_ref(&b), &["--rule", "trimmed-mean:cut=1"]);
    write_small(&dir, "long", "weights", &[1.0, 2.0, 3.0]);
    let long = part(&dir, "longer", &["small/long.safetensors".to_owned()], &[]);
    for (files, args, what) in [
        (
            [&one, &trimmed],
            &[][..],
            &["trimmed.safetensors", "rule `trimmed-mean:cut=1`, expected `mean`"][..],
        ),
        ([&trimmed, &c], &["--rule", "trimmed-mean:cut=2"], &["cut=1`, expected `trimmed-mean:cut=2`"]),
        ([&one, &delta], &[], &["delta.safetensors", "kind delta, expected weights, as in one.safetensors"]),
        ([&one, &c], &[], &["one.safetensors", "kind weights, expected delta, as in small/c.safetensors"]),
        (
            [&one, &both],
            &[],
            &[
                "one.safetensors: its client `a` is also in both.safetensors",
                "both.safetensors: its client `a` is also in one.safetensors",
            ],
        ),
        ([&one, &a], &[], &["one.safetensors: its client `a` is also in small/a.safetensors"]),
        (
            [&one, &uniform],
            &[],
            &["uniform.safetensors", "weights uniform, expected examples, as in one.safetensors"],
        ),
        ([&uniform, &a], &[], &["weighs clients by uniform, expected examples"]),
        ([&one, &long], &[], &["longer.safetensors", "sum.w", "[3], expected [2]"]),
    ] {
        let inputs = inputs_of(files.map(String::as_str));
        let got = fedmill(&dir, &[&["aggregate", "-o", "m.safetensors"], &inputs[..], args].concat());
        got.assert_fails(2, what);
        assert!(!dir.exists("m.safetensors"));
    }
    // With skip the partial is left out like any bad update.
    let skip = ["aggregate", "-o", "m.safetensors", "--partials", &one, &uniform, "--on-bad-update", "skip"];
    let got = fedmill(&dir, &skip);
    got.assert_merged("m.safetensors");
    assert!(got.stderr.contains("skipped uniform.safetensors"), "{}", got.stderr);
}

#[test]
fn broken_partials_are_bad_updates() {
    let dir = Dir::new();
    let files = write_round(&dir, 4, 9);
    let good = part(&dir, "good", &files[..2], &[]);
    let bytes = without_digest(&dir.read(&good));
    let data = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut nan = bytes.clone();
    nan[data..data + 8].copy_from_slice(&f64::NAN.to_le_bytes());
    let text = String::from_utf8_lossy(&bytes[8..data]).into_owned();
    let mut other_schema = bytes.clone();
    let at = 8 + text.find("fedmill.partial/1").unwrap();
    other_schema[at + 16] = b'9';
    for (broken, what) in [
        (bytes[..bytes.len() - 5].to_vec(), "broken.safetensors"),
        (nan, "tensor `plain` holds NaN at flat index 0"),
        (other_schema, "schema is `fedmill.partial/9`, expected `fedmill.partial/1`"),
    ] {
        dir.write("broken.safetensors", broken);
        let args =
            ["aggregate", "-o", "m.safetensors", &files[2], &files[3], "--partials", "broken.safetensors"];
        fedmill(&dir, &args).assert_fails(2, &[what]);
        assert!(!dir.exists("m.safetensors"));
        run(
            &dir,
            &["broken.safetensors".to_owned(), files[2].clone(), files[3].clone()],
            "skipped.safetensors",
            &["--on-bad-update", "skip"],
        );
        run(&dir, &files[2..], "without.safetensors", &[]);
        assert!(dir.read("skipped.safetensors") == dir.read("without.safetensors"), "{what}");
    }
}

/// The negative control: a partial that is off by the last bit of one sum does not give the flat bytes.
#[test]
fn a_wrong_partial_is_noticed() {
    let dir = Dir::new();
    let files = write_round(&dir, 4, 15);
    run(&dir, &files, "flat.safetensors", &["--weights", "uniform"]);
    let name = part(&dir, "part", &files, &["--weights", "uniform"]);
    run(&dir, std::slice::from_ref(&name), "tree.safetensors", &["--weights", "uniform"]);
    assert!(dir.read("tree.safetensors") == dir.read("flat.safetensors"));
    let mut bytes = without_digest(&dir.read(&name));
    let (header, found) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let at = 8 + header + found.info("sum.doubles").unwrap().data_offsets.0;
    bytes[at] ^= 1;
    dir.write(&name, bytes);
    run(&dir, &[name], "tree.safetensors", &["--weights", "uniform"]);
    assert!(dir.read("tree.safetensors") != dir.read("flat.safetensors"));
}

/// A partial in `name` that no program of ours wrote.
struct Forged {
    rule: &'static str,
    weights: &'static str,
    clients: Vec<(&'static str, f64)>,
    sum: f64,
    error: f64,
    /// The smallest values, then as many largest ones.
    edges: Vec<f32>,
}

impl Forged {
    fn write(&self, dir: &Dir, name: &str) {
        let cut = self.edges.len() / 2;
        let clients: Vec<_> = self
            .clients
            .iter()
            .map(|(id, weight)| serde_json::json!({ "id": id, "weight": weight }))
            .collect();
        let description = serde_json::json!({
            "schema": "fedmill.partial/1", "version": "0.1.0", "rule": self.rule, "kind": "weights",
            "weights": self.weights, "low": cut, "high": cut, "dtypes": { "w": "F32" }, "clients": clients,
        });
        let update = Update::new(name).meta("fedmill.partial", &description.to_string());
        let update = update.f64("sum.w", &[2], &[self.sum; 2]).f64("error.w", &[2], &[self.error; 2]);
        let edge = |update: Update, (i, edge): (usize, &f32)| {
            let side = if i < cut { format!("low.{i}.w") } else { format!("high.{}.w", i - cut) };
            update.f32(&side, &[2], &[*edge; 2])
        };
        self.edges.iter().enumerate().fold(update, edge).write(dir);
    }
}

const FIVE: [(&str, f64); 5] = [("x0", 1.0), ("x1", 1.0), ("x2", 1.0), ("x3", 1.0), ("x4", 1.0)];

fn trimmed(sum: f64, error: f64, edges: [f32; 2]) -> Forged {
    let (rule, weights, clients) = ("trimmed-mean:cut=1", "uniform", FIVE.to_vec());
    Forged { rule, weights, clients, sum, error, edges: edges.to_vec() }
}

fn mean(weights: &'static str, clients: &[(&'static str, f64)], sum: f64) -> Forged {
    Forged { rule: "mean", weights, clients: clients.to_vec(), sum, error: 0.0, edges: Vec::new() }
}

/// Three honest updates of the same model.
fn write_honest(dir: &Dir) {
    for (name, value) in [("a", 1.0), ("b", 2.0), ("c", 3.0)] {
        write_small(dir, name, "weights", &[value, value]);
    }
}

#[test]
fn partials_hold_only_what_their_clients_can_send() {
    let dir = Dir::new();
    write_honest(&dir);
    let edges = [1.0, 3.0];
    for (forged, what) in [
        (trimmed(1e6, 0.0, edges), "the sum is 1000000 at flat index 0, expected 3 to 9 for its clients"),
        (trimmed(2.9, 0.0, edges), "the sum is 2.9"),
        (trimmed(1e300, -1e300, edges), "the rounding error of the sum is -1"),
        (trimmed(6.0, 0.0, [3.0, 1.0]), "not in order at flat index 0: 3 stands below 1"),
        (Forged { edges: Vec::new(), ..trimmed(6.0, 0.0, edges) }, "expected 1 smallest and 1 largest"),
        (Forged { clients: FIVE[..2].to_vec(), ..trimmed(1.0, 0.0, edges) }, "the sum is 1"),
        (Forged { weights: "words", ..trimmed(6.0, 0.0, edges) }, "weights is `words`"),
        (mean("uniform", &FIVE, 1e300), "the sum is 1"),
        (mean("uniform", &[("x", 2.0)], 2.0), "the weight of `x` is 2, expected 1 for uniform"),
        (mean("examples", &[("x", 0.0)], 2.0), "add up to 0, expected above 0"),
        (mean("examples", &[("x", 1.7e308), ("y", 1.7e308)], 1.0), "the weight of `x` is 17"),
        (mean("file", &[("x", 1.7e308), ("y", 1.7e308)], 1.0), "add up to inf"),
    ] {
        forged.write(&dir, "forged");
        let rule = ["--rule", forged.rule];
        let weights = if forged.rule == "mean" { &["--weights", "uniform"][..] } else { &[] };
        let args = [&["aggregate", "small", "-o", "m.safetensors"], &rule[..], weights].concat();
        let with = [&args[..], &["--partials", "forged.safetensors"]].concat();
        fedmill(&dir, &with).assert_fails(2, &["forged.safetensors: ", what]);
        let skipped = fedmill(&dir, &[&with[..], &["--on-bad-update", "skip"]].concat());
        skipped.assert_merged("m.safetensors");
        assert!(skipped.stderr.contains("skipped forged.safetensors"), "{}", skipped.stderr);
        assert_eq!(Model::read(&dir, "m.safetensors").f32("w"), [2.0, 2.0]);
    }
    for sound in [trimmed(6.0, 0.0, edges), trimmed(3.0, 0.0, edges), trimmed(9.0, 1e-16, edges)] {
        sound.write(&dir, "forged");
        let args = ["small", "--rule", sound.rule, "--partials", "forged.safetensors"];
        fedmill(&dir, &[&["aggregate", "-o", "m.safetensors"], &args[..]].concat())
            .assert_merged("m.safetensors");
    }
}

/// Only the operator makes a file a partial.
#[test]
fn an_update_that_says_it_is_a_partial_is_a_bad_update() {
    let dir = Dir::new();
    write_honest(&dir);
    trimmed(6.0, 0.0, [1.0, 3.0]).write(&dir, "small/forged");
    let key = Update::new("small/keyed").f32("w", &[2], &[9.0; 2]).meta("num_examples", "3");
    for (key, purpose) in [
        ("fedmill.partial", "a partial of a tree"),
        ("fedmill.shard", "a shard file"),
        ("fedmill.run.rule", "a shard file"),
        ("fedmill.privacy.sum", "a sum of clipped updates"),
        ("fedmill.state", "a state file"),
        ("fedmill.residual", "a residual file"),
    ]
    .map(|(name, purpose)| ((name, key.clone().meta(name, "x")), purpose))
    {
        key.1.write(&dir);
        let fault = format!("small/keyed.safetensors: metadata `{}` marks {purpose}", key.0);
        for rule in ["mean", "median", "krum", "trimmed-mean:cut=1"] {
            let args = ["aggregate", "small", "--byzantine", "0", "--rule", rule, "-o", "m.safetensors"];
            fedmill(&dir, &args).assert_fails(2, &[&fault]);
            let skipped = fedmill(&dir, &[&args[..], &["--on-bad-update", "skip"]].concat());
            skipped.assert_merged("m.safetensors");
            assert!(skipped.stderr.contains("skipped small/keyed.safetensors"), "{}", skipped.stderr);
            assert!(skipped.stderr.contains("skipped small/forged.safetensors"), "{}", skipped.stderr);
        }
        let inspected = fedmill(&dir, &["inspect", "small"]);
        assert!(inspected.stdout.contains(&fault), "{inspected:#?}");
        fedmill(
            &dir,
            &["gram", "small", "--rule", "krum", "--byzantine", "0", "--shard", "1/1", "-o", "g.safetensors"],
        )
        .assert_fails(2, &[&fault]);
    }
    dir.write(
        "tiers.json",
        r#"{"schema": "fedmill.tiers/1", "tiers": [{"name": "all", "clients": ["*"], "rule": "median"}]}"#,
    );
    let tiers =
        ["aggregate", "small", "--tiers", "tiers.json", "-o", "m.safetensors", "--on-bad-update", "skip"];
    let skipped = fedmill(&dir, &tiers);
    skipped.assert_merged("m.safetensors");
    assert!(skipped.stderr.contains("skipped small/forged.safetensors"), "{}", skipped.stderr);
}

/// A model that fedmill merged says how it was made, and is an update all the same.
#[test]
fn a_merged_model_is_an_update() {
    let dir = Dir::new();
    write_honest(&dir);
    let args = ["aggregate", "small", "--pre", "nnm", "--byzantine", "1", "-o", "up/m.safetensors"];
    std::fs::create_dir(dir.path("up")).unwrap();
    fedmill(&dir, &args).assert_merged("up/m.safetensors");
    fedmill(&dir, &["aggregate", "up", "-o", "m.safetensors"]).assert_merged("m.safetensors");
}

/// One odd partial does not make the others look wrong, whatever the ids of its clients.
#[test]
fn an_odd_partial_evicts_no_other() {
    let dir = Dir::new();
    write_honest(&dir);
    for name in ["b", "c"] {
        part(&dir, name, &[format!("small/{name}.safetensors")], &["--weights", "uniform"]);
    }
    mean("file", &[("0", 1.0)], 100.0).write(&dir, "odd");
    let inputs = ["--partials", "odd.safetensors", "b.safetensors", "c.safetensors"];
    let args = [&["aggregate", "-o", "m.safetensors", "--on-bad-update", "skip"], &inputs[..]].concat();
    let got = fedmill(&dir, &args);
    got.assert_merged("m.safetensors");
    assert!(got.stderr.contains("skipped odd.safetensors: partial has source of weights file"), "{got:#?}");
    assert_eq!(Model::read(&dir, "m.safetensors").f32("w"), [2.5, 2.5]);
    // A partial that the run cannot take has no vote.
    let trimmed = ["--rule", "trimmed-mean:cut=1", "--weights", "uniform"];
    for name in ["a", "b"] {
        part(&dir, &format!("cut-{name}"), &[format!("small/{name}.safetensors")], &trimmed);
    }
    part(&dir, "c", &["small/c.safetensors".to_owned()], &[]);
    let inputs = ["--partials", "cut-a.safetensors", "cut-b.safetensors", "c.safetensors"];
    for chosen in [&[][..], &["--weights", "examples"]] {
        let args =
            [&["aggregate", "-o", "m.safetensors", "--on-bad-update", "skip"], chosen, &inputs[..]].concat();
        let got = fedmill(&dir, &args);
        got.assert_merged("m.safetensors");
        assert_eq!(Model::read(&dir, "m.safetensors").f32("w"), [3.0, 3.0], "{got:#?}");
    }
}
