//! Codecs that send few values, files to files: their merges, and the rules that refuse them.

use crate::harness::{Dir, Model, Update, aggregate, fedmill, merge};

const LEN: usize = 3000;

/// Values with a few large ones, the same in every run.
fn values(seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(97);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(state >> 8) / f64::from(1u32 << 24) - 0.5
    };
    (0..LEN).map(|_| (next() * next() * next()) as f32).collect()
}

#[track_caller]
fn done(dir: &Dir, args: &[&str]) {
    let run = fedmill(dir, args);
    assert_eq!(run.code, Some(0), "{run:#?}");
}

/// Writes three updates, each compressed by its codec into `updates`, and decompressed into `plain`.
#[track_caller]
fn clients(compressed_by: [&[&str]; 3]) -> Dir {
    let dir = Dir::new();
    dir.write("updates/.keep", "");
    dir.write("plain/.keep", "");
    for (client, how) in (1u32..).zip(compressed_by) {
        let name = format!("c{client}");
        Update::new(&name)
            .f32("w", &[LEN / 3, 3], &values(client))
            .f32("bias", &[2], &[client as f32, -1.0])
            .meta("kind", "delta")
            .write(&dir);
        let (input, packed) = (format!("{name}.safetensors"), format!("updates/{name}.safetensors"));
        done(&dir, &[&["compress", "--quiet", &input, "-o", &packed], how].concat());
        done(&dir, &["decompress", &packed, "-o", &format!("plain/{name}.safetensors")]);
    }
    dir
}

const TOPK: &[&str] = &["--codec", "topk:fraction=0.01,values=u8"];
const RANDK: &[&str] = &["--codec", "randk:fraction=0.1"];
const DENSE: &[&str] = &["--codec", "f16"];

#[test]
fn the_largest_values_come_back_and_no_others() {
    let dir = clients([&["--codec", "topk:k=17"], TOPK, TOPK]);
    let (sent, found) = (values(1), Model::read(&dir, "plain/c1.safetensors").f32("w"));
    let mut order: Vec<usize> = (0..LEN).collect();
    order.sort_by(|a, b| sent[*b].abs().total_cmp(&sent[*a].abs()));
    assert!(order[..17].iter().all(|i| found[*i] == sent[*i]));
    assert!(order[17..].iter().all(|i| found[*i] == 0.0));
}

/// The mean of sparse updates is the mean of the decoded values.
#[test]
fn the_mean_is_that_of_decoded_updates() {
    let sign: &[&str] = &["--codec", "sign"];
    for codec in [TOPK, RANDK, sign] {
        let dir = clients([codec; 3]);
        let packed = merge(&dir, &[]);
        done(&dir, &["aggregate", "plain", "-o", "expected.safetensors"]);
        assert_eq!(packed.tensors, Model::read(&dir, "expected.safetensors").tensors);
    }
}

#[test]
fn rules_that_compare_clients_refuse_choices_of_their_own() {
    let dir = clients([DENSE, TOPK, DENSE]);
    let before = dir.contents();
    for rule in [
        &["--rule", "median"][..],
        &["--rule", "trimmed-mean:cut=1"],
        &["--rule", "meamed", "--byzantine", "0"],
        &["--rule", "krum", "--byzantine", "0"],
        &["--rule", "geometric-median"],
        &["--pre", "nnm", "--byzantine", "0"],
    ] {
        let run = aggregate(&dir, rule);
        run.assert_fails(2, &["updates/c2.safetensors: update is encoded by topk", "1.000 % of values"]);
        run.assert_fails(2, &["hint: compress by randk", "ecsq", "--allow-sparse-robust"]);
        assert!(!run.stderr.contains("c1.safetensors"), "{run:#?}");
        dir.assert_unchanged_since(&before);
    }
    for rule in [&["--rule", "mean"][..], &["--rule", "median", "--allow-sparse-robust"]] {
        merge(&dir, rule);
    }
    let report = ["--rule", "median", "--on-bad-update", "skip", "--report", "report.json"];
    merge(&dir, &report);
    assert_eq!(dir.json("report.json")["clients"].as_array().unwrap().len(), 2);
    let quorum = [&report[..], &["--min-clients", "3"]].concat();
    aggregate(&dir, &quorum).assert_fails(1, &["2 usable updates (1 rejected)"]);
}

#[test]
fn most_of_the_values_are_enough_for_every_rule() {
    let half: &[&str] = &["--codec", "topk:fraction=0.5"];
    merge(&clients([half; 3]), &["--rule", "median"]);
}

#[test]
fn a_shared_choice_suits_every_rule_as_long_as_it_is_shared() {
    let dir = clients([RANDK; 3]);
    let median = merge(&dir, &["--rule", "median"]).f32("w");
    assert!(median.iter().filter(|x| **x != 0.0).count() > LEN / 20);
    let other: &[&str] = &["--codec", "randk:fraction=0.1", "--seed", "7"];
    let dir = clients([RANDK, RANDK, other]);
    let run = aggregate(&dir, &["--rule", "median"]);
    run.assert_fails(2, &["c3.safetensors", "another choice of values than most others", "same --seed"]);
    merge(&dir, &["--rule", "mean"]);
}

const SKETCH: &[&str] = &["--codec", "sketch:rows=5,columns=30000,k=200"];

/// Sketches of three clients, which all have a few large values at the same places.
fn sketches() -> Dir {
    let dir = Dir::new();
    for client in 1..=3u32 {
        let mut values: Vec<f32> = values(client).iter().map(|x| x * 0.01).collect();
        (0..5).for_each(|i| values[500 * i + 3] = client as f32 * if i % 2 == 0 { 1.0 } else { -1.0 });
        let name = format!("c{client}");
        Update::new(&name)
            .f32("w", &[LEN / 3, 3], &values)
            .f32("zeros", &[400], &[0.0; 400])
            .f32("bias", &[2], &[client as f32, -1.0])
            .i64("steps", &[1], &[3])
            .meta("kind", "delta")
            .write(&dir);
        dir.write("updates/.keep", "");
        let (input, packed) = (format!("{name}.safetensors"), format!("updates/{name}.safetensors"));
        done(&dir, &[&["compress", "--quiet", &input, "-o", &packed], SKETCH].concat());
    }
    dir
}

#[test]
fn the_mean_of_sketches_is_a_sketch_of_the_mean() {
    let dir = sketches();
    let merged = merge(&dir, &[]);
    assert_eq!(merged.metadata["fedmill.kind"], "sketch");
    let sent = Model::read(&dir, "updates/c1.safetensors");
    assert_eq!(merged.tensors["w"].1, sent.tensors["w"].1);
    done(&dir, &["decompress", "merged.safetensors", "-o", "mean.safetensors"]);
    let mean = Model::read(&dir, "mean.safetensors");
    assert!(!mean.metadata.keys().any(|key| ["fedmill.kind", "fedmill.codec"].contains(&key.as_str())));
    assert_eq!((mean.f32("bias"), mean.f32("zeros")), (vec![2.0, -1.0], vec![0.0; 400]));
    let w = mean.f32("w");
    for i in 0..5 {
        let expected = if i % 2 == 0 { 2.0 } else { -2.0 };
        assert!((w[500 * i + 3] - expected).abs() < 0.01, "{}", w[500 * i + 3]);
    }
    assert_eq!(w.iter().filter(|x| **x != 0.0).count(), 10);
    // The mean of means, added to a base.
    done(&dir, &["aggregate", "mean.safetensors", "--base", "mean.safetensors", "-o", "new.safetensors"]);
}

#[test]
fn sketches_are_merged_with_their_like_by_means_alone() {
    let dir = sketches();
    let refused = |args: &[&str], parts: &[&str]| aggregate(&dir, args).assert_fails(2, parts);
    refused(
        &["--rule", "median"],
        &["c1.safetensors: update is a sketch", "values for median", "hint: pass --rule mean"],
    );
    refused(&["--pre", "nnm", "--byzantine", "0"], &["update is a sketch", "for nnm"]);
    refused(
        &["--base", "c1.safetensors"],
        &["update is a sketch", "hint: merge the sketches without --base"],
    );
    let again = |args: &[&str]| {
        let to = ["compress", "--quiet", "c3.safetensors", "-o", "updates/c3.safetensors"];
        done(&dir, &[&to[..], args].concat());
    };
    again(&[SKETCH, &["--seed", "9"]].concat());
    refused(&[], &["c3.safetensors: update is another sketch"]);
    again(DENSE);
    refused(&[], &["c3.safetensors: update is no sketch, expected one"]);
    merge(&dir, &["--on-bad-update", "skip"]);
    assert_eq!(Model::read(&dir, "merged.safetensors").metadata["fedmill.clients"], "2");
}

#[test]
fn what_low_rank_does_not_suit_goes_as_f16_and_the_summary_says_so() {
    let dir = Dir::new();
    let (row, column) = (values(1), values(2));
    let matrix: Vec<f32> = (0..80 * 90).map(|i| 100.0 * row[i / 90] * column[i % 90]).collect();
    Update::new("a").f32("w", &[80, 90], &matrix).f32("v", &[LEN], &values(3)).write(&dir);
    let run = fedmill(
        &dir,
        &["compress", "a.safetensors", "--as-is", "--codec", "lowrank:rank=2", "-o", "b.safetensors"],
    );
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert!(run.stderr.contains("values by codec: f16 3000, lowrank:rank=2 7200"), "{}", run.stderr);
    done(&dir, &["decompress", "b.safetensors", "-o", "c.safetensors"]);
    let found = Model::read(&dir, "c.safetensors").f32("w");
    let largest = matrix.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    assert!(found.iter().zip(&matrix).all(|(a, b)| (a - b).abs() < 1e-5 * largest));
}

/// The values of an update that a client sends in a round.
fn sent_of(client: &str, round: &str) -> Vec<bool> {
    let dir = Dir::new();
    Update::new("a").f32("w", &[LEN], &values(5)).meta("client_id", client).meta("round", round).write(&dir);
    done(
        &dir,
        &[&["compress", "--quiet", "--as-is", "a.safetensors", "-o", "b.safetensors"], RANDK].concat(),
    );
    done(&dir, &["decompress", "b.safetensors", "-o", "c.safetensors"]);
    Model::read(&dir, "c.safetensors").f32("w").iter().map(|x| *x != 0.0).collect()
}

#[test]
fn every_round_has_another_choice_that_all_its_clients_share() {
    assert_eq!(sent_of("ada", "1"), sent_of("bob", "1"));
    assert_ne!(sent_of("ada", "1"), sent_of("ada", "2"));
}
