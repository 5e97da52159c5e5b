//! Emits the sorting networks of `src/kernels/network.rs` as straight-line Rust over vector
//! registers. Written out, LLVM keeps the rows in registers and drops every minimum or maximum
//! whose result nobody reads, so a median costs less than the sort it is cut from.

#![allow(clippy::expect_used, reason = "a build that cannot go on must stop")]

use std::fmt::Write as _;
use std::{env, fs, path::Path};

#[allow(unreachable_pub, reason = "public in the library that shares this file")]
#[path = "src/kernels/network.rs"]
mod network;

use network::{BLOCK_SIZES, Comparator, MAX_BLOCK};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/kernels/network.rs");

    let mut code = String::new();
    for n in BLOCK_SIZES {
        emit_network(&mut code, "SortBlock", "sorted", n, &network::sorting(n));
        emit_gather(&mut code, n);
    }
    let merge = network::bitonic_merge(MAX_BLOCK);
    emit_network(&mut code, "MergeBlock", "merged", MAX_BLOCK, &merge);

    let out_dir = env::var("OUT_DIR").expect("cargo sets OUT_DIR for build scripts");
    fs::write(Path::new(&out_dir).join("networks.rs"), code).expect("OUT_DIR is writable");
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
