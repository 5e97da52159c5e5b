//! Trees of aggregators of depth two: every partial, and the merged model with its report.

use super::inputs::{Kind, every_dtype, five_sections, write_round};
use super::{Digests, done, merge};
use crate::harness::Dir;

/// The clients of each leaf; each node has two leaves. In a mixed round each leaf has a delta, because all partials
/// must have the same kind.
const LEAVES: [[&[usize]; 2]; 2] = [[&[0, 5, 7], &[1, 3]], [&[2, 9, 10], &[4, 6]]];

/// The client whose update goes straight to the root.
const AT_ROOT: &str = "in/client-08.safetensors";

/// Makes the tree's partials, with these options at every node. Returns the input files of the root.
fn grow(digests: &mut Digests, case: &str, dir: &Dir, args: &[&str]) -> Vec<String> {
    let mut partial = |name: &str, inputs: &[String], has_partials: bool| {
        let output = format!("{name}.safetensors");
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let partials: &[&str] = if has_partials { &["--partials"] } else { &[] };
        done(dir, &[&["aggregate", "--partial", "-o", &output], args, partials, &inputs].concat());
        digests.add_file(&format!("{case}/{name}"), dir, &output);
        output
    };
    let mut nodes = Vec::new();
    for (node, leaves) in LEAVES.iter().enumerate() {
        let mut below = Vec::new();
        for (leaf, clients) in leaves.iter().enumerate() {
            let files: Vec<String> =
                clients.iter().map(|client| format!("in/client-{client:02}.safetensors")).collect();
            below.push(partial(&format!("leaf-{node}-{leaf}"), &files, false));
        }
        nodes.push(partial(&format!("node-{node}"), &below, true));
    }
    nodes
}

fn merge_tree(digests: &mut Digests, case: &str, dir: &Dir, args: &[&str], at_root: &[&str]) {
    let nodes = grow(digests, case, dir, args);
    let mut inputs: Vec<&str> = nodes.iter().map(String::as_str).collect();
    inputs.insert(0, "--partials");
    inputs.insert(0, AT_ROOT);
    merge(digests, case, dir, &[args, at_root, &inputs].concat());
}

const BASE: &str = "--base=base.safetensors";

#[test]
fn trees() {
    let mut digests = Digests::new("trees");
    let ways: [(&str, &[&str]); 5] = [
        ("mean-examples", &[]),
        ("mean-uniform", &["--weights=uniform"]),
        ("mean-by-file", &["--weights=weights.txt"]),
        ("trimmed-mean-1", &["--rule=trimmed-mean:cut=1"]),
        ("trimmed-mean-3", &["--rule=trimmed-mean:cut=3", "--byzantine=2"]),
    ];
    for (kind_name, kind) in Kind::ALL {
        let dir = write_round(11, kind, every_dtype);
        for (name, way) in ways {
            let args = [&[BASE], way].concat();
            merge_tree(&mut digests, &format!("{kind_name}/{name}"), &dir, &args, &[]);
        }
    }
    let dir = write_round(11, Kind::Weights, every_dtype);
    merge_tree(&mut digests, "without-base", &dir, &["--rule=trimmed-mean:cut=2"], &[]);
    let adam = ["--strategy=fedadam", "--state=state.safetensors"];
    merge_tree(&mut digests, "fedadam", &dir, &[BASE], &adam);
    digests.add_file("fedadam/state", &dir, "state.safetensors");
    let dir = write_round(11, Kind::Weights, five_sections);
    merge_tree(&mut digests, "sections", &dir, &["--rule=trimmed-mean:cut=1"], &[]);
    digests.check(include_str!("recorded/trees.txt"));
}
