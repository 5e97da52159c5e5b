//! The same round gives the same bytes: whatever the order of files, the threads, the instruction set.

use crate::harness::{Dir, Update, fedmill, fedmill_after};
use fedmill::kernels::lanes::Isa;

const RULES: [&str; 3] = ["mean", "median", "trimmed-mean:cut=0.2"];

/// Enough values for many tiles, uneven tensors, several dtypes, weights that are not whole numbers.
fn write_round(dir: &Dir, clients: usize, values: usize) -> Vec<String> {
    let value = |i: usize, j: usize| ((i * 7919 + j * 104_729) % 100_003) as f32 / 50_000.0 - 1.0;
    (0..clients)
        .map(|i| {
            let long: Vec<f32> = (0..values).map(|j| value(i, j)).collect();
            let bits: Vec<u16> = (0..1000).map(|j| half::bf16::from_f32(value(j, i)).to_bits()).collect();
            let wide: Vec<f64> = (0..77).map(|j| f64::from(value(i + 1, j)) / 3.0).collect();
            let name = format!("in/client-{i:03}");
            Update::new(&name)
                .f32("a.long", &[values], &long)
                .half("b.half", "BF16", &[10, 100], &bits)
                .i64("c.count", &[], &[i as i64 * 3])
                .f64("d.wide", &[7, 11], &wide)
                .f32("e.short", &[3], &long[..3])
                .meta("num_examples", &format!("{}", 10.1 + i as f64))
                .write(dir);
            format!("{name}.safetensors")
        })
        .collect()
}

fn merge(dir: &Dir, rule: &str, args: &[&str]) -> Vec<u8> {
    let all = [&["aggregate", "--rule", rule, "-o", "m.safetensors"], args].concat();
    fedmill(dir, &all).assert_merged("m.safetensors");
    dir.read("m.safetensors")
}

#[test]
fn file_order_changes_nothing() {
    let dir = Dir::new();
    let mut files = write_round(&dir, 9, 50_000);
    for rule in RULES {
        let want = merge(&dir, rule, &["in"]);
        for turn in 1..4 {
            files.rotate_left(turn);
            files.reverse();
            let shuffled: Vec<&str> = files.iter().map(String::as_str).collect();
            assert!(merge(&dir, rule, &shuffled) == want, "{rule}: the order of files shows");
        }
    }
}

#[test]
fn threads_change_nothing() {
    let dir = Dir::new();
    write_round(&dir, 40, 300_000);
    for rule in RULES {
        let want = merge(&dir, rule, &["in", "--threads", "1", "--report", "want.json"]);
        for threads in ["2", "3", "8"] {
            let got = merge(&dir, rule, &["in", "--threads", threads, "--report", "got.json"]);
            assert!(got == want, "{rule}: {threads} threads show");
            let norms = |name: &str| {
                let clients = dir.json(name)["clients"].clone();
                clients.as_array().unwrap().iter().map(|client| client["norm"].clone()).collect::<Vec<_>>()
            };
            assert_eq!(norms("want.json"), norms("got.json"));
        }
    }
}

#[test]
fn instruction_sets_change_nothing() {
    let dir = Dir::new();
    write_round(&dir, 70, 9_001);
    for rule in RULES {
        let want = merge(&dir, rule, &["in", "--isa", "portable"]);
        for isa in Isa::available() {
            assert!(merge(&dir, rule, &["in", "--isa", &isa.to_string()]) == want, "{rule}: {isa} shows");
        }
    }
}

#[test]
fn a_rerun_and_a_report_change_nothing() {
    let dir = Dir::new();
    write_round(&dir, 5, 20_000);
    for rule in RULES {
        let want = merge(&dir, rule, &["in"]);
        assert!(merge(&dir, rule, &["in"]) == want);
        assert!(merge(&dir, rule, &["in", "--report", "r.json"]) == want, "{rule}: asking for norms shows");
    }
}

/// More updates than the system lets a process hold open.
#[test]
fn few_open_files_change_nothing() {
    let dir = Dir::new();
    write_round(&dir, 200, 3_000);
    for rule in RULES {
        let want = merge(&dir, rule, &["in"]);
        let args = ["aggregate", "--rule", rule, "in", "-o", "m.safetensors"];
        fedmill_after(&dir, "ulimit -n 100", &args).assert_merged("m.safetensors");
        assert!(dir.read("m.safetensors") == want, "{rule}: the limit on open files shows");
    }
}

#[test]
fn ten_thousand_updates_merge() {
    let dir = Dir::new();
    for i in 0..10_000 {
        let value = ((i * 7919) % 10_007) as f32;
        Update::new(&format!("in/c{i:05}")).f32("w", &[2], &[value, -value]).write(&dir);
    }
    let mut values: Vec<f32> = (0..10_000).map(|i| ((i * 7919) % 10_007) as f32).collect();
    values.sort_by(f32::total_cmp);
    let median = (values[4999] + values[5000]) / 2.0;
    merge(&dir, "median", &["in"]);
    assert_eq!(crate::harness::Model::read(&dir, "m.safetensors").f32("w"), [median, -median]);
}
