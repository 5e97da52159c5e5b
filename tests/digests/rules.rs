//! Merges by every rule and every step before a rule, of all kinds of updates and dtypes.

use super::inputs::{Kind, every_dtype, five_sections, one_dtype, write_round};
use super::{Digests, done, merge};
use crate::harness::Dir;

/// A name and its options.
pub(super) type Way = (&'static str, &'static [&'static str]);

const HOSTILE: &str = "--byzantine=0.12";

/// Every rule, in each form that takes another path in the code.
pub(super) const WAYS: [Way; 34] = [
    ("mean", &["--rule=mean"]),
    ("mean-uniform", &["--rule=mean", "--weights=uniform"]),
    ("mean-by-file", &["--rule=mean", "--weights=weights.txt"]),
    ("median", &["--rule=median"]),
    ("trimmed-mean-fraction", &["--rule=trimmed-mean:cut=0.2"]),
    ("trimmed-mean-hostile", &["--rule=trimmed-mean", HOSTILE]),
    ("meamed", &["--rule=meamed", HOSTILE]),
    ("krum", &["--rule=krum", HOSTILE]),
    ("krum-flower", &["--rule=krum", HOSTILE, "--compat=flower"]),
    ("multi-krum", &["--rule=multi-krum", HOSTILE]),
    ("multi-krum-m", &["--rule=multi-krum:m=4", HOSTILE]),
    ("multi-krum-direct", &["--rule=multi-krum", HOSTILE, "--distances=direct"]),
    ("multi-krum-gram", &["--rule=multi-krum", HOSTILE, "--distances=gram"]),
    ("multi-krum-byzfl", &["--rule=multi-krum", HOSTILE, "--compat=byzfl"]),
    ("bulyan", &["--rule=bulyan", HOSTILE]),
    ("bulyan-flower", &["--rule=bulyan", HOSTILE, "--compat=flower"]),
    ("geometric-median", &["--rule=geometric-median", HOSTILE]),
    ("geometric-median-set", &["--rule=geometric-median:smoothing=0.1,iterations=3", HOSTILE]),
    ("centered-clipping", &["--rule=centered-clipping:iterations=3", HOSTILE]),
    ("centered-clipping-tau", &["--rule=centered-clipping:tau=10", HOSTILE]),
    ("mda", &["--rule=mda", HOSTILE]),
    ("smea", &["--rule=smea", HOSTILE]),
    ("caf", &["--rule=caf", HOSTILE]),
    ("monna", &["--rule=monna:trusted=client-01", HOSTILE]),
    ("distance-trim", &["--rule=distance-trim"]),
    ("distance-trim-keep", &["--rule=distance-trim:keep=0.5"]),
    ("nnm-trimmed-mean", &["--pre=nnm", "--rule=trimmed-mean", HOSTILE]),
    ("nnm-krum", &["--pre=nnm", "--rule=krum", HOSTILE]),
    ("bucketing-geometric-median", &["--pre=bucketing:s=2", "--seed=7", "--rule=geometric-median", HOSTILE]),
    ("clip-mean", &["--pre=clip:norm=20", "--rule=mean"]),
    ("arc-median", &["--pre=arc", "--rule=median", HOSTILE]),
    ("outliers-mean", &["--pre=outliers", "--rule=mean", HOSTILE]),
    ("arc-nnm-distance-trim", &["--pre=arc", "--pre=nnm", "--rule=distance-trim", HOSTILE]),
    ("outliers-bucketing-meamed", &["--pre=outliers", "--pre=bucketing:s=2", "--rule=meamed", HOSTILE]),
];

/// The options for the fullest report on clients and round.
pub(super) const REPORTING: [&str; 2] =
    ["--metrics=signs", "--shadow-rules=krum,bulyan,caf,geometric-median"];

/// Merges `in` in each way.
fn merge_each(digests: &mut Digests, case: &str, dir: &Dir, more: &[&str]) {
    for (name, way) in WAYS {
        merge(digests, &format!("{case}/{name}"), dir, &[&["in"], way, more].concat());
    }
}

#[test]
fn kinds_of_updates() {
    let mut digests = Digests::new("kinds");
    for (name, kind) in Kind::ALL {
        let dir = write_round(9, kind, every_dtype);
        merge_each(&mut digests, name, &dir, &[&["--base=base.safetensors"], &REPORTING[..]].concat());
    }
    let dir = write_round(9, Kind::Weights, every_dtype);
    merge_each(&mut digests, "without-base", &dir, &[]);
    digests.check(include_str!("recorded/kinds.txt"));
}

/// Enough clients for distances from the Gram matrix.
#[test]
fn dtypes_alone() {
    let mut digests = Digests::new("dtypes");
    for dtype in ["BF16", "F16", "F32", "F64"] {
        let dir = write_round(19, Kind::Weights, |name, client| one_dtype(name, dtype, client));
        merge_each(&mut digests, dtype, &dir, &REPORTING);
    }
    digests.check(include_str!("recorded/dtypes.txt"));
}

/// Updates of several sections, without a report; and a model in several files.
#[test]
fn sections() {
    let mut digests = Digests::new("sections");
    let dir = write_round(7, Kind::Mixed, five_sections);
    for (name, way) in WAYS {
        // Of 7 clients, the share of hostile ones rounds down to none.
        let fixed =
            ["aggregate", "in", "-o", "m.safetensors", "--base=base.safetensors", "--allow-unprotected"];
        done(&dir, &[&fixed, way].concat());
        digests.add_file(&format!("{name}/model"), &dir, "m.safetensors");
    }
    let fixed =
        ["aggregate", "in", "-o", "s.safetensors", "--max-shard-size=700kB", "--base=base.safetensors"];
    done(&dir, &fixed);
    let files: Vec<String> = dir.names().into_iter().filter(|name| name.starts_with("s")).collect();
    assert!(files.len() > 2, "{files:?}");
    for file in files {
        digests.add_file(&format!("files/{file}"), &dir, &file);
    }
    // Several files for one update, and for the base.
    let index = "s.safetensors.index.json";
    merge(&mut digests, "files/as-update", &dir, &["in", index, "--base=base.safetensors", "--rule=median"]);
    merge(&mut digests, "files/as-base", &dir, &["in", "--base", index, "--rule=krum", "--byzantine=1"]);
    digests.check(include_str!("recorded/sections.txt"));
}
