//! Emits the sorting networks of `src/kernels/network.rs` as straight-line Rust over vector
//! registers. Written out, LLVM keeps the rows in registers and drops every minimum or maximum
//! with an unused result, so a median costs less than the whole sort.

#![allow(clippy::expect_used, reason = "a build that cannot go on must stop")]

use std::fmt::Write as _;
use std::{env, fs, path::Path};

#[allow(unreachable_pub, reason = "public in the library that shares this file")]
#[path = "src/kernels/network.rs"]
mod network;

use network::{BLOCK_SIZES, Comparator, MAX_BLOCK, SHADER_SIZES};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/kernels/network.rs");
    println!("cargo::rerun-if-changed=shaders");

    let mut code = String::new();
    for n in BLOCK_SIZES {
        emit_network(&mut code, "SortBlock", "sorted", n, &network::sorting(n));
        emit_gather(&mut code, n);
    }
    let merge = network::bitonic_merge(MAX_BLOCK);
    emit_network(&mut code, "MergeBlock", "merged", MAX_BLOCK, &merge);

    let out_dir = env::var("OUT_DIR").expect("cargo sets OUT_DIR for build scripts");
    fs::write(Path::new(&out_dir).join("networks.rs"), code).expect("OUT_DIR is writable");
    fs::write(Path::new(&out_dir).join("shader_networks.rs"), shader_networks())
        .expect("OUT_DIR is writable");
    fs::write(Path::new(&out_dir).join("shader_files.rs"), shader_files()).expect("OUT_DIR is writable");
}

/// Lists the text of every shader by stem: `FILES` the kernels and the pieces they import, `PROBES` the others.
fn shader_files() -> String {
    let list = |folders: &[&str]| {
        let paths = folders.iter().flat_map(|folder| fs::read_dir(folder).expect("the shaders are there"));
        let mut paths: Vec<_> = paths.map(|entry| entry.expect("the shaders can be listed").path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "wgsl"));
        paths.sort();
        let mut list = String::from("&[\n");
        for path in paths {
            let stem = path.file_stem().and_then(|stem| stem.to_str()).expect("names of shaders are text");
            let path = path.display();
            writeln!(list, "({stem:?}, include_str!(concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/{path}\"))),")
                .expect("writing to a string");
        }
        list + "];\n"
    };
    let files = list(&["shaders", "shaders/shared"]);
    let probes = list(&["shaders/probes"]);
    format!("const FILES: &[(&str, &str)] = {files}const PROBES: &[(&str, &str)] = {probes}")
}

/// The same networks in WGSL, for every size with the places that a median reads and with all.
fn shader_networks() -> String {
    let mut code = String::from("const NETWORKS: &[(usize, bool, &str)] = &[\n");
    for n in SHADER_SIZES {
        for all in [false, true] {
            let wanted: Vec<usize> = if all { (0..n).collect() } else { vec![n / 2 - 1, n / 2] };
            let text = shader_network(n, &network::sorting(n), &wanted);
            writeln!(code, "({n}, {all}, {text:?}),").expect("writing to a string");
        }
    }
    code + "];\n"
}

/// Writes `fn visit_sorted()`: a name for every value that a wanted place depends on, none assigned twice.
fn shader_network(n: usize, comparators: &[Comparator], wanted: &[usize]) -> String {
    let mut needed = vec![false; n];
    wanted.iter().for_each(|wire| needed[*wire] = true);
    // Backwards: the results of each comparator that are read later.
    let mut used = vec![(false, false); comparators.len()];
    for (used, (i, j)) in used.iter_mut().zip(comparators).rev() {
        *used = (needed[*i], needed[*j]);
        let either = needed[*i] || needed[*j];
        (needed[*i], needed[*j]) = (either, either);
    }
    let mut code = String::from("fn visit_sorted() {\n");
    let mut names: Vec<String> = (0..n).map(|wire| format!("k{wire}")).collect();
    for (wire, name) in names.iter().enumerate() {
        writeln!(code, "    let {name} = padded_key({wire}u);").expect("writing to a string");
    }
    for (number, ((i, j), (low, high))) in comparators.iter().zip(used).enumerate() {
        let (a, b) = (names[*i].clone(), names[*j].clone());
        for (is_used, wire, pick) in [(low, *i, "min"), (high, *j, "max")] {
            if is_used {
                names[wire] = format!("{}{number}", if pick == "min" { "a" } else { "b" });
                writeln!(code, "    let {} = {pick}({a}, {b});", names[wire]).expect("writing to a string");
            }
        }
    }
    for place in wanted {
        writeln!(code, "    take({place}u, {});", names[*place]).expect("writing to a string");
    }
    code + "}\n"
}

/// Writes `impl TRAIT for [V; n]`, one line of code a comparator.
fn emit_network(code: &mut String, trait_: &str, method: &str, n: usize, comparators: &[Comparator]) {
    let wires: Vec<String> = (0..n).map(|i| format!("r{i}")).collect();
    let wires = wires.join(", ");
    let mut body = String::new();
    for (i, j) in comparators {
        writeln!(body, "        let (r{i}, r{j}) = (Lanes::min(r{i}, r{j}), Lanes::max(r{i}, r{j}));")
            .expect("writing to a string");
    }
    write!(
        code,
        "impl<V: Lanes> {trait_} for [V; {n}] {{\n    #[inline(always)]\n    \
         fn {method}(self) -> Self {{\n        let [{wires}] = self;\n{body}        [{wires}]\n    }}\n}}\n"
    )
    .expect("writing to a string");
}

/// Writes `impl GatherBlock for [V; n]`: one load a row, none of them in a loop or behind a branch.
fn emit_gather(code: &mut String, n: usize) {
    let rows: Vec<String> = (0..n).map(|i| format!("row({i})")).collect();
    write!(
        code,
        "impl<V: Lanes> GatherBlock<V> for [V; {n}] {{\n    #[inline(always)]\n    \
         fn gathered(block: &Block<V::Key>, column: usize) -> Self {{\n        \
         let row = block.reader::<V>(column, {n});\n        [{}]\n    }}\n}}\n",
        rows.join(", ").replace("row(", "row.load(")
    )
    .expect("writing to a string");
}
