//! Rounds cut into three shards: every file from the shards' geometry to the merged model.

use super::inputs::{Kind, five_sections, write_round};
use super::{Digests, done};
use crate::harness::Dir;
use std::fs;

const SHARDS: usize = 3;

/// Runs a command for each shard. Its files are in a folder with the command's name.
fn of_each_shard(digests: &mut Digests, case: &str, dir: &Dir, command: &str, args: &[&str]) {
    let _ = fs::remove_dir_all(dir.path(command));
    fs::create_dir(dir.path(command)).unwrap();
    for shard in 1..=SHARDS {
        let (which, output) = (format!("--shard={shard}/{SHARDS}"), format!("{command}/{shard}.safetensors"));
        done(dir, &[&[command, "in", &which, "-o", &output], args].concat());
        digests.add_file(&format!("{case}/{command}-{shard}"), dir, &output);
    }
}

/// Runs a whole round. `reporting` has the report options of the command that judges clients.
fn round(digests: &mut Digests, case: &str, dir: &Dir, args: &[&str], reporting: &[&str], output: &str) {
    let judging = [args, reporting].concat();
    of_each_shard(digests, case, dir, "gram", &judging);
    done(dir, &[&["decide", "in", "--partials=gram", "-o", "d.json"], &judging[..]].concat());
    digests.add_file(&format!("{case}/decision"), dir, "d.json");
    of_each_shard(digests, case, dir, "combine", &[args, &["--decision=d.json"]].concat());
    let merging = ["--partials=combine", "--decision=d.json", "--report=r.json", "-o", output];
    done(dir, &[&["merge", "in"], args, &merging].concat());
    digests.add_file(&format!("{case}/model"), dir, output);
    digests.add_report(&format!("{case}/report"), dir, "r.json");
}

#[test]
fn shards() {
    let mut digests = Digests::new("shards");
    let ways: [(&str, &[&str]); 7] = [
        ("krum", &["--rule=krum"]),
        ("multi-krum-gram", &["--rule=multi-krum", "--distances=gram"]),
        ("geometric-median", &["--rule=geometric-median", "--pre=bucketing:s=2", "--seed=7"]),
        ("nnm-trimmed-mean", &["--rule=trimmed-mean", "--pre=nnm"]),
        ("distance-trim", &["--rule=distance-trim"]),
        ("arc-caf", &["--rule=caf", "--pre=arc"]),
        ("fedavg-mean", &["--rule=mean", "--pre=clip:norm=100", "--strategy=fedavg:lr=0.5"]),
    ];
    for (kind_name, kind) in [("weights", Kind::Weights), ("mixed", Kind::Mixed)] {
        let dir = write_round(9, kind, five_sections);
        for (name, way) in ways {
            let args = [&["--base=base.safetensors", "--byzantine=1"], way].concat();
            let reporting = ["--metrics=signs", "--shadow-rules=krum,caf"];
            round(&mut digests, &format!("{kind_name}/{name}"), &dir, &args, &reporting, "m.safetensors");
        }
        // Rules by coordinate need no decision.
        let args = ["--base=base.safetensors", "--rule=median"];
        let case = format!("{kind_name}/median");
        of_each_shard(&mut digests, &case, &dir, "combine", &args);
        let merging = ["--partials=combine", "--report=r.json", "-o", "m.safetensors"];
        done(&dir, &[&["merge", "in"], &args[..], &merging].concat());
        digests.add_file(&format!("{case}/model"), &dir, "m.safetensors");
        digests.add_report(&format!("{case}/report"), &dir, "r.json");
    }
    // Two rounds with a state.
    let dir = write_round(7, Kind::Deltas, five_sections);
    let mut base = "base.safetensors".to_owned();
    for number in 1..=2 {
        let from = format!("--base={base}");
        let args = [&from, "--strategy=fedadam", "--rule=median", "--state=state.safetensors"];
        let output = format!("m{number}.safetensors");
        let case = format!("fedadam/{number}");
        round(&mut digests, &case, &dir, &args, &[], &output);
        digests.add_file(&format!("{case}/state"), &dir, "state.safetensors");
        base = output;
    }
    digests.check(include_str!("recorded/shards.txt"));
}
