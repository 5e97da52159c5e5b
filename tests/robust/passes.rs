//! The passes of rules that measure before they merge.
//!
//! The tests cover values that are not finite or too large, files that change between the passes, the bytes read, and
//! integers.

use super::id;
use crate::harness::{Dir, Model, Update, fedmill, program, shortest};
use fedmill::rules::{Needs, RULES, parse};
use fedmill::settings::Definition;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs::{self, File};
use std::io::Write as _;
use std::process::{Child, Command, Stdio};

const CLIENTS: usize = 13;

/// The bad client.
const BAD: usize = 4;

/// Values of the longer tensor: several blocks.
const LEN: usize = 5000;

/// Steps that need the geometry, before rules that do not.
const STEPS: [&[&str]; 3] = [
    &["--rule", "median", "--pre", "nnm"],
    &["--rule", "trimmed-mean", "--pre", "arc"],
    &["--rule", "mean", "--weights", "uniform", "--pre", "outliers"],
];

/// A rule that needs a third pass.
const THREE_LOOKS: [&str; 4] = ["--rule", "distance-trim", "--pre", "clip:norm=1"];

/// Every rule that needs the geometry, and steps that do.
fn looking() -> Vec<Vec<&'static str>> {
    let rules = RULES.iter().map(|entry| &*shortest(entry, &id(2)).leak());
    let looking = rules.filter(|rule| parse(rule, Definition::Paper).unwrap().needs() > Needs::Nothing);
    let all: Vec<_> = looking.map(|rule| vec!["--rule", rule]).chain(STEPS.map(<[&str]>::to_vec)).collect();
    assert!(all.len() > STEPS.len() && all.len() < RULES.len() + STEPS.len(), "{all:?}");
    all
}

fn looking_thrice() -> Vec<Vec<&'static str>> {
    looking().into_iter().chain([THREE_LOOKS.to_vec()]).collect()
}

fn value(client: usize, place: usize) -> f64 {
    ((client * 7919 + place * 104_729) % 100_003) as f64 / 50_000.0 - 1.0
}

fn values(client: usize, len: usize) -> Vec<f64> {
    (0..len).map(|place| value(client, place)).collect()
}

fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|x| *x as f32).collect()
}

/// Two tensors of f32, the second one `long`.
fn client_with(client: usize, long: &[f64]) -> Update {
    Update::new(&format!("in/{}", id(client))).f32("a", &[3], &narrow(&values(client + 50, 3))).f32(
        "w",
        &[long.len()],
        &narrow(long),
    )
}

fn sound(client: usize) -> Update {
    client_with(client, &values(client, LEN))
}

fn others() -> impl Iterator<Item = usize> {
    (0..CLIENTS).filter(|client| *client != BAD)
}

/// A folder with all clients, and one without the bad client; both have a base.
fn rounds(of: impl Fn(usize) -> Update, bad: &Update) -> [Dir; 2] {
    [true, false].map(|with_bad| {
        let dir = Dir::new();
        others().for_each(|client| of(client).write(&dir));
        if with_bad {
            bad.write(&dir);
        }
        base().write(&dir);
        dir
    })
}

fn base() -> Update {
    Update::new("base").f32("a", &[3], &[0.25; 3]).f32("w", &[LEN], &narrow(&values(77, LEN)))
}

fn arguments<'a>(how: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [&["aggregate", "-q", "in", "-o", "m.safetensors", "--byzantine", "2"], how, more].concat()
}

/// Fails unless the bad update ends the run with an error that names its place and fault. If skipped, it changes
/// nothing.
#[track_caller]
fn assert_rejected([all, others]: &[Dir; 2], how: &[&str], parts: &[&str]) {
    let named = format!("in/{}.safetensors: ", id(BAD));
    let before = all.contents();
    for base in [&[][..], &["--base", "base.safetensors"]] {
        let run = fedmill(all, &arguments(how, base));
        run.assert_fails(2, &[&[named.as_str()], parts].concat());
        assert_eq!(run.stderr.matches("in/client-").count(), 1, "others are named: {}", run.stderr);
        all.assert_unchanged_since(&before);
        let skip = [base, &["--on-bad-update", "skip", "--report", "r.json"]].concat();
        fedmill(all, &arguments(how, &skip)).assert_merged("m.safetensors");
        let report = all.json("r.json");
        assert_eq!(report["rejected"][0]["id"], id(BAD), "{how:?}");
        assert!(report["rejected"][0]["error"].as_str().unwrap().contains(parts[0]), "{report:#}");
        assert_eq!(report["clients"].as_array().unwrap().len(), CLIENTS - 1);
        fedmill(others, &arguments(how, base)).assert_merged("m.safetensors");
        assert!(all.read("m.safetensors") == others.read("m.safetensors"), "{how:?}: the bad update shows");
        fs::remove_file(all.path("m.safetensors")).unwrap();
        fs::remove_file(all.path("r.json")).unwrap();
    }
}

#[test]
fn values_that_are_no_numbers() {
    let bad = [(f64::NAN, "NaN", 0), (f64::INFINITY, "inf", 1023), (f64::NEG_INFINITY, "-inf", LEN - 1)];
    for (turn, how) in looking_thrice().iter().enumerate() {
        let (bad, shown, place) = bad[turn % bad.len()];
        let mut long = values(BAD, LEN);
        long[place] = bad;
        let part =
            format!("tensor `w` holds {shown} at flat index {place}, expected a finite number (1 such");
        assert_rejected(&rounds(sound, &client_with(BAD, &long)), how, &[&part]);
    }
}

/// The error names the first of several values and their number, even beside huge values.
#[test]
fn several_values_that_are_no_numbers() {
    let mut long = values(BAD, LEN);
    for (place, bad) in
        [(4000, f64::NAN), (1500, f64::INFINITY), (1600, 3e38), (1024, -3e38), (4999, f64::NAN)]
    {
        long[place] = bad;
    }
    let part =
        "tensor `w` holds inf at flat index 1500, expected a finite number (3 such values in the update)";
    for rule in ["krum", "geometric-median", "distance-trim"] {
        assert_rejected(&rounds(sound, &client_with(BAD, &long)), &["--rule", rule], &[part]);
    }
}

/// If two tensors hold values that are not finite, the error names the first tensor.
#[test]
fn values_that_are_no_numbers_in_each_tensor() {
    let bad = Update::new(&format!("in/{}", id(BAD))).f32("a", &[3], &[0.0, f32::NAN, 0.0]);
    let bad = bad.f32("w", &[LEN], &[f32::INFINITY; LEN]);
    let part = format!("tensor `a` holds NaN at flat index 1, expected a finite number ({} such", LEN + 1);
    assert_rejected(&rounds(sound, &bad), &["--rule", "krum"], &[&part]);
}

/// The run names every bad update, and `skip` leaves out all of them.
#[test]
fn several_updates_that_are_no_numbers() {
    let [dir, _] = rounds(sound, &client_with(BAD, &[f64::NAN; LEN]));
    client_with(7, &[f64::INFINITY; LEN]).write(&dir);
    for how in [&["--rule", "krum"][..], &["--rule", "smea"], STEPS[0]] {
        let run = fedmill(&dir, &arguments(how, &[]));
        run.assert_fails(
            2,
            &["in/client-04.safetensors: tensor `w`", "in/client-07.safetensors: tensor `w`"],
        );
        let skip = ["--on-bad-update", "skip", "--report", "r.json"];
        fedmill(&dir, &arguments(how, &skip)).assert_merged("m.safetensors");
        assert_eq!(dir.json("r.json")["rejected"].as_array().unwrap().len(), 2, "{how:?}");
    }
}

/// After a bad client is left out, a rule may have too few clients. Its error counts the remaining ones.
#[test]
fn too_few_are_left() {
    let [dir, _] = rounds(sound, &client_with(BAD, &[f64::NAN; LEN]));
    let skip = ["--on-bad-update", "skip"];
    let args = ["aggregate", "in", "-o", "m.safetensors", "--rule", "krum", "--byzantine", "5"];
    let run = fedmill(&dir, &[&args[..], &skip].concat());
    run.assert_fails(2, &["krum tolerates at most 4 hostile of 12 clients, but --byzantine says 5"]);
    let gone = ["--rule", "monna:trusted=client-04"];
    fedmill(&dir, &arguments(&gone, &skip)).assert_fails(2, &["the update of `client-04` was left out: "]);
    assert!(!dir.exists("m.safetensors"));
}

/// A client of f64 that is far away in one value.
fn wide(client: usize, far: f64) -> Update {
    let mut long = values(client, LEN);
    long[1030] = far;
    let update = Update::new(&format!("in/{}", id(client))).f64("a", &[3], &values(client + 50, 3));
    update.f64("w", &[LEN], &long)
}

/// Squares of 1e200 overflow f64.
#[test]
fn values_too_large_to_measure() {
    for far in [1e200, -1e308] {
        for how in &looking_thrice() {
            let rounds = rounds(|client| wide(client, 0.5), &wide(BAD, far));
            let parts = ["its values are too large: their squares do not fit f64"];
            assert_rejected_of_wide(&rounds, how, &parts);
        }
    }
}

#[track_caller]
fn assert_rejected_of_wide(rounds: &[Dir; 2], how: &[&str], parts: &[&str]) {
    for dir in rounds {
        Update::new("base").f64("a", &[3], &[0.25; 3]).f64("w", &[LEN], &values(77, LEN)).write(dir);
    }
    assert_rejected(rounds, how, parts);
}

/// Rules by coordinate merge such values. The report has no figures of the round, and gives the reason.
#[test]
fn values_too_large_to_measure_are_merged_by_coordinate() {
    let [dir, _] = rounds(|client| wide(client, 0.5), &wide(BAD, 1e200));
    for (rule, merged) in
        [("mean", 1e200 / CLIENTS as f64), ("median", 0.5), ("trimmed-mean", 0.5), ("meamed", 0.5)]
    {
        let byzantine: &[&str] = if rule == "mean" { &[] } else { &["--byzantine", "2"] };
        let args = ["aggregate", "in", "-o", "m.safetensors", "--rule", rule, "--weights", "uniform"];
        fedmill(&dir, &[&args, byzantine].concat()).assert_merged("m.safetensors");
        let plain = dir.read("m.safetensors");
        let far = Model::read(&dir, "m.safetensors").f64("w")[1030];
        assert!((far - merged).abs() <= 1e-12 * merged, "{rule}: {far:e}");
        for metrics in ["geometry", "signs"] {
            let report = ["--report", "r.json", "--metrics", metrics];
            let run = fedmill(&dir, &[&args, byzantine, &report].concat());
            run.assert_merged("m.safetensors");
            assert!(dir.read("m.safetensors") == plain, "{rule}: the report shows");
            let report = dir.json("r.json");
            assert!(report["metrics"].is_null(), "{rule}: {}", report["metrics"]);
            let said = "the report has no metrics: squared values do not fit f64";
            assert!(report["warnings"].as_array().unwrap().iter().any(|text| text == said), "{report:#}");
            assert!(run.stderr.contains(said), "{}", run.stderr);
            assert_eq!(report["clients"].as_array().unwrap().len(), CLIENTS);
        }
    }
}

/// A base with a value that is not finite is an error that names it, in every pass.
#[test]
fn bases_that_hold_no_number() {
    for (place, bad, shown) in
        [(0, f64::NAN, "NaN"), (1024, f64::INFINITY, "inf"), (LEN - 1, f64::NAN, "NaN")]
    {
        let [dir, _] = rounds(sound, &sound(BAD));
        let mut long = values(77, LEN);
        long[place] = bad;
        Update::new("base").f32("a", &[3], &[0.25; 3]).f32("w", &[LEN], &narrow(&long)).write(&dir);
        let before = dir.contents();
        let part = format!(
            "base.safetensors: tensor `w` of the base holds {shown} at flat index {place}, expected a finite number"
        );
        for how in &looking_thrice() {
            for policy in ["fail", "skip"] {
                let more = ["--base", "base.safetensors", "--on-bad-update", policy, "--report", "r.json"];
                fedmill(&dir, &arguments(how, &more)).assert_fails(2, &[&part]);
                dir.assert_unchanged_since(&before);
            }
        }
    }
}

/// A round whose passes take long enough to change a file between them.
fn long_round() -> Dir {
    let dir = Dir::new();
    for client in 0..12 {
        let values: Vec<f32> = (0..1 << 20).map(|place| value(client, place) as f32).collect();
        Update::new(&format!("in/{}", id(client))).f32("w", &[1 << 20], &values).write(&dir);
    }
    dir
}

/// Bytes that a process has read so far; `None` after its end.
fn bytes_read(child: &Child) -> Option<u64> {
    let io = fs::read_to_string(format!("/proc/{}/io", child.id())).ok()?;
    io.lines().find_map(|line| line.strip_prefix("rchar: "))?.parse().ok()
}

/// Starts a run, stops it after it has read `after` bytes, calls `change`, and lets it go on. Returns the status and
/// the messages; `None` if the run had already ended.
fn run_changing(dir: &Dir, rule: &str, after: u64, change: impl FnOnce()) -> Option<(Option<i32>, String)> {
    let args = [
        "aggregate",
        "-q",
        "in",
        "-o",
        "m.safetensors",
        "--threads",
        "1",
        "--byzantine",
        "2",
        "--rule",
        rule,
    ];
    let mut command = Command::new(program());
    command.args(args).current_dir(dir.path("")).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let signal = |child: &Child, signal| kill_process(Pid::from_child(child), signal).unwrap();
    while bytes_read(&child).is_some_and(|bytes| bytes < after) && child.try_wait().unwrap().is_none() {}
    signal(&child, Signal::STOP);
    let met = child.try_wait().unwrap().is_none() && !dir.exists("m.safetensors");
    change();
    signal(&child, Signal::CONT);
    let output = child.wait_with_output().unwrap();
    met.then(|| (output.status.code(), String::from_utf8(output.stderr).unwrap()))
}

/// Tries until the change comes before the run's last check of its files. A later change does not affect the merge.
fn met_while_running(
    dir: &Dir,
    rule: &str,
    after: u64,
    restore: &impl Fn(),
    change: &dyn Fn(),
) -> (Option<i32>, String) {
    for _ in 0..20 {
        restore();
        match run_changing(dir, rule, after, change) {
            Some(met) if met.0 != Some(0) => return met,
            _ => {}
        }
        let _ = fs::remove_file(dir.path("m.safetensors"));
    }
    panic!("no run of {rule} was met after {after} bytes");
}

/// A file that is rewritten, cut or replaced during the passes ends the run. Otherwise the run would merge other values
/// than those it judged.
#[test]
fn files_that_change_between_the_passes() {
    if !cfg!(target_os = "linux") {
        eprintln!("NOT RUN: only Linux reports the bytes that a process read");
        return;
    }
    let dir = long_round();
    let path = dir.path("in/client-05.safetensors");
    let whole = fs::read(&path).unwrap();
    let one = whole.len() as u64;
    let restore = || fs::write(&path, &whole).unwrap();
    let rewrite = || {
        let mut bytes = whole.clone();
        bytes[(one - 4) as usize..].copy_from_slice(&9f32.to_le_bytes());
        // Writes into the open file, which keeps its name and length.
        File::options().write(true).open(&path).unwrap().write_all(&bytes).unwrap();
    };
    let cut = || File::options().write(true).open(&path).unwrap().set_len(one / 2).unwrap();
    for (rule, late) in
        [("krum", 11), ("multi-krum", 13), ("geometric-median", 15), ("bulyan", 13), ("distance-trim", 13)]
    {
        // In the first pass, and late in it or in the second. Krum's second pass reads one file and is too short.
        for after in [one * 5, one * late + one / 2] {
            for change in [&rewrite as &dyn Fn(), &cut] {
                let (code, said) = met_while_running(&dir, rule, after, &restore, change);
                assert_eq!(code, Some(2), "{rule} after {after}: {said}");
                assert!(said.contains("in/client-05.safetensors: "), "{rule} after {after}: {said}");
                assert!(!dir.exists("m.safetensors"), "{rule} after {after} published");
                assert_eq!(dir.names(), ["in"], "{rule} after {after} left something");
            }
        }
    }
}

/// The bytes read, as a multiple of the size of all updates, without the further read that settles a close call.
fn reads(dir: &Dir, how: &[&str], more: &[&str]) -> f64 {
    let report = ["--report", "r.json"];
    fedmill(dir, &arguments(how, &[more, &report].concat())).assert_merged("m.safetensors");
    let report = dir.json("r.json");
    let data = (CLIENTS * (LEN + 3) * size_of::<f32>()) as f64;
    let warnings = report["warnings"].as_array().unwrap();
    let settled = warnings.iter().any(|text| text.as_str().unwrap().contains("computed again in f64"));
    report["bytes"]["read"].as_f64().unwrap() / data - f64::from(settled)
}

/// How often a rule reads the updates, in the words of docs/rules.md, measured by a merge with one distant client.
pub(crate) fn reads_of_rule(rule: &str) -> &'static str {
    if parse(rule, Definition::Paper).unwrap().needs() == Needs::Nothing {
        return "1";
    }
    let far: Vec<f64> = values(BAD, LEN).into_iter().map(|x| 100.0 * x).collect();
    let [dir, _] = rounds(sound, &client_with(BAD, &far));
    let again = (reads(&dir, &["--rule", rule], &["--metrics", "none"]) - 1.0) * CLIENTS as f64;
    assert!((again - again.round()).abs() < 1e-9, "{rule}: {again} clients are read again");
    match again.round() as usize {
        1 => "1 + 1",
        CLIENTS => "2",
        _ => "1 + kept",
    }
}

/// Updates are read at most twice. A third read is needed for the coordinate median of updates that a step made.
#[test]
fn updates_are_read_twice_at_most() {
    let [dir, _] = rounds(sound, &sound(BAD));
    let one = 1.0 / CLIENTS as f64;
    for distances in ["gram", "direct"] {
        for base in [&[][..], &["--base", "base.safetensors"]] {
            let more = [&["--distances", distances, "--metrics", "signs"], base].concat();
            for how in &looking() {
                assert!(reads(&dir, how, &more) <= 2.0, "{how:?} {more:?}");
            }
            // The second pass reads only the clients with a share.
            let parts = [("krum", 1.0), ("multi-krum", 9.0), ("bulyan", 9.0), ("mda", 11.0), ("smea", 11.0)];
            for (rule, members) in parts.into_iter().chain([("monna:trusted=client-02", 11.0)]) {
                let got = reads(&dir, &["--rule", rule], &more);
                assert!((got - 1.0 - members * one).abs() < 1e-9, "{rule}: {got}");
            }
        }
    }
    for (steps, most) in [
        (&["--pre", "nnm"][..], 3.0),
        (&["--pre", "clip:norm=1"], 3.0),
        (&["--pre", "outliers"], 3.0),
        (&["--pre", "clip:norm=1e9"], 2.0),
        (&["--pre", "bucketing:s=1", "--seed", "3"], 3.0),
    ] {
        let got = reads(&dir, &["--rule", "distance-trim"], steps);
        assert!(got <= most && got > most - 1.0, "{steps:?}: {got}, at most {most}");
        assert!(reads(&dir, &["--rule", "krum"], steps) <= 2.0, "{steps:?}");
    }
    for metrics in ["geometry", "none"] {
        let got = reads(&dir, &["--rule", "median"], &["--metrics", metrics]);
        assert!((got - if metrics == "none" { 1.0 } else { 2.0 }).abs() < 1e-9, "median {metrics}: {got}");
    }
}

/// Integers of client `i`, far apart and odd.
fn integers(client: usize) -> [i64; 4] {
    let i = client as i64;
    [i * i * 1_000_003 - 5, if client.is_multiple_of(2) { -1 - i } else { i }, (1 << 53) - i, i - 5]
}

fn with_integers(client: usize, update: Update) -> Update {
    let bytes: Vec<u8> = integers(client)[1..3].iter().map(|x| x.rem_euclid(251) as u8).collect();
    update.i64("n", &[4], &integers(client)).raw("u", "U8", &[2], &bytes).raw(
        "x",
        "BOOL",
        &[2],
        &[u8::from(client.is_multiple_of(2)), 1],
    )
}

fn stored_integers(model: &Model) -> Vec<i64> {
    model.bytes("n").chunks_exact(8).map(|x| i64::from_le_bytes(x.try_into().unwrap())).collect()
}

fn run_with_integers(dir: &Dir, how: &[&str]) -> (Model, Value) {
    let report = ["--report", "r.json"];
    fedmill(dir, &arguments(how, &report)).assert_merged("m.safetensors");
    (Model::read(dir, "m.safetensors"), dir.json("r.json"))
}

/// The clients' shares in the report.
fn shares(report: &Value) -> Vec<f64> {
    let clients = report["clients"].as_array().unwrap();
    clients.iter().map(|client| client["weight"].as_f64().unwrap()).collect()
}

fn round_with_integers() -> Dir {
    let [dir, _] = rounds(|client| with_integers(client, sound(client)), &with_integers(BAD, sound(BAD)));
    dir
}

#[test]
fn integers_of_the_one_chosen_are_copied() {
    let dir = round_with_integers();
    for how in
        [&["--rule", "krum"][..], &["--rule", "multi-krum:m=1"], &["--rule", "krum", "--distances", "gram"]]
    {
        let (model, report) = run_with_integers(&dir, how);
        let chosen = shares(&report).iter().position(|share| *share == 1.0).unwrap();
        let sent = Model::read(&dir, &format!("in/{}.safetensors", id(chosen)));
        assert!(model.tensors == sent.tensors, "{how:?}");
    }
}

/// Means of integers are those of their values in f64, rounded to even.
#[test]
fn integers_follow_the_shares() {
    let dir = round_with_integers();
    let monna = "monna:trusted=client-02";
    let rules = ["multi-krum", "geometric-median", "mda", "smea", "caf", monna, "distance-trim"];
    let rules = rules.map(|rule| vec!["--rule", rule]);
    for how in &rules.into_iter().chain([STEPS[2].to_vec()]).collect::<Vec<_>>() {
        let (model, report) = run_with_integers(&dir, how);
        let shares = shares(&report);
        let total: f64 = shares.iter().sum();
        assert!((total - 1.0).abs() < 1e-9, "{how:?}: shares add up to {total}");
        for (place, got) in stored_integers(&model).into_iter().enumerate() {
            let terms = |i: usize| shares[i] * integers(i)[place] as f64;
            let want: f64 = (0..CLIENTS).map(terms).sum();
            // The rounding of the sum and of the shares, and half for the rounding to an integer.
            let slack = 0.5 + 1e-6 + 4.0 * f64::EPSILON * (1i64 << 53) as f64;
            assert!((got as f64 - want).abs() <= slack, "{how:?}, {place}: got {got}, expected {want}");
        }
        let flags = model.bytes("x");
        let even: f64 = (0..CLIENTS).step_by(2).map(|i| shares[i]).sum();
        assert_eq!(flags, [u8::from(even > 0.5), 1], "{how:?}: {even}");
    }
}

/// Rules by coordinate take the statistic of the integers of the chosen or mixed clients.
#[test]
fn integers_by_coordinate() {
    let dir = round_with_integers();
    let (model, report) = run_with_integers(&dir, &["--rule", "bulyan"]);
    let clients = report["clients"].as_array().unwrap();
    let chosen: Vec<usize> = (0..CLIENTS).filter(|i| clients[*i]["kept"] == true).collect();
    assert_eq!(chosen.len(), 9);
    for (place, got) in stored_integers(&model).into_iter().enumerate() {
        let values: Vec<f64> = chosen.iter().map(|i| integers(*i)[place] as f64).collect();
        let want = crate::reference::vectors::mean_of_nearest(&values, crate::reference::median(&values), 5);
        assert!((got as f64 - want).abs() <= 1.5, "bulyan, {place}: got {got}, expected {want}");
    }
    let (model, _) = run_with_integers(&dir, &["--rule", "median", "--pre", "clip:norm=1e9"]);
    for (place, got) in stored_integers(&model).into_iter().enumerate() {
        let values: Vec<f64> = (0..CLIENTS).map(|i| integers(i)[place] as f64).collect();
        assert_eq!(got as f64, crate::reference::median(&values), "median, {place}");
    }
}
