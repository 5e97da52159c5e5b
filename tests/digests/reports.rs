//! Messages about bad updates and about rounds that a policy refuses, and the output of `inspect`.

use super::inputs::{Kind, every_dtype, write_round};
use super::{Digests, done, merge, run};
use crate::harness::{Dir, Update};

/// A round of nine clients, among them several with bad updates of different kinds.
fn with_bad_updates() -> Dir {
    let dir = write_round(9, Kind::Mixed, every_dtype);
    Update::new("in/bad-name").f32("other", &[2], &[1.0, 2.0]).write(&dir);
    Update::new("in/bad-shape").f32("a.long", &[1000], &[0.5; 1000]).meta("num_examples", "-3").write(&dir);
    every_dtype("in/bad-cut", 40).cut_to(2000).write(&dir);
    every_dtype("in/bad-header", 41).header("{").write(&dir);
    every_dtype("in/bad-round", 42).meta("round", "8").write(&dir);
    every_dtype("in/bad-twin", 43).meta("client_id", "client-02").write(&dir);
    let mut nan = every_dtype("in/bad-value", 44).bytes();
    let header = 8 + usize::try_from(u64::from_le_bytes(*nan.first_chunk().unwrap())).unwrap();
    nan[header + 40..header + 44].copy_from_slice(&f32::NAN.to_le_bytes());
    dir.write("in/bad-value.safetensors", nan);
    dir
}

const BASE: &str = "--base=base.safetensors";

/// Merges. Adds the status and the messages, and the report if there is one.
fn refuse(digests: &mut Digests, case: &str, dir: &Dir, args: &[&str]) {
    let _ = std::fs::remove_file(dir.path("r.json"));
    let fixed = ["aggregate", "in", "-o", "none.safetensors", "--report=r.json"];
    let run = run(dir, &[&fixed, args].concat());
    assert!(matches!(run.code, Some(1 | 2)) && run.stdout.is_empty(), "{case}: {run:#?}");
    assert!(!dir.exists("none.safetensors"), "{case}: a model was published");
    digests.add(&format!("{case}/said"), format!("{:?}\n{}", run.code, run.stderr).as_bytes());
    if dir.exists("r.json") {
        digests.add_report(&format!("{case}/report"), dir, "r.json");
    }
}

#[test]
fn bad_updates() {
    let mut digests = Digests::new("bad");
    let dir = with_bad_updates();
    let skip = [BASE, "--on-bad-update=skip", "--round=7"];
    for (name, rule) in
        [("mean", &["--rule=mean"][..]), ("krum", &["--rule=krum", "--byzantine=1", "--metrics=signs"])]
    {
        merge(&mut digests, &format!("skip/{name}"), &dir, &[&["in"], &skip[..], rule].concat());
    }
    merge(&mut digests, "skip/without-base", &dir, &["in", "--on-bad-update=skip"]);
    refuse(&mut digests, "fail", &dir, &[BASE, "--round=7"]);
    refuse(&mut digests, "quorum", &dir, &[&skip[..], &["--min-clients=10"]].concat());
    refuse(
        &mut digests,
        "quorum-krum",
        &dir,
        &[&skip[..], &["--min-clients=10", "--rule=krum", "--byzantine=2"]].concat(),
    );
    refuse(&mut digests, "hostile", &dir, &[&skip[..], &["--rule=bulyan", "--byzantine=4"]].concat());
    let sound = write_round(4, Kind::Weights, every_dtype);
    refuse(&mut digests, "too-few", &sound, &["--min-clients=5"]);
    refuse(&mut digests, "buffer", &sound, &[BASE, "--strategy=fedbuff:buffer=8", "--round=2"]);
    digests.check(include_str!("recorded/bad.txt"));
}

#[test]
fn inspected() {
    let mut digests = Digests::new("inspected");
    for (name, dir) in [("sound", write_round(9, Kind::Mixed, every_dtype)), ("bad", with_bad_updates())] {
        let commands: [(&str, &[&str]); 4] = [
            ("json", &["--json"]),
            ("json-base", &["--json", BASE]),
            ("json-round", &["--json", BASE, "--round=7"]),
            ("table", &[BASE]),
        ];
        for (how, args) in commands {
            let printed = done(&dir, &[&["inspect", "in"], args].concat());
            digests.add_printed(&format!("{name}/{how}"), &printed);
        }
    }
    digests.check(include_str!("recorded/inspected.txt"));
}
