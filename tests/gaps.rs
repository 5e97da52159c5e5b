//! Updates that lack tensors: refused, standing at the base, or left out of those tensors alone.

use crate::harness::{Dir, Model, Update, aggregate, fedmill, merge};

/// A small deterministic generator (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// Between -1 and 1.
    fn value(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }
}

const TENSORS: usize = 5;
const LEN: usize = 7;

/// A round of random values and random gaps: `values[client][tensor]`, `None` where the client lacks the tensor.
struct Round {
    base: Vec<Vec<f64>>,
    values: Vec<Vec<Option<Vec<f64>>>>,
    examples: Vec<f64>,
    is_delta: Vec<bool>,
}

impl Round {
    /// Tensor 0 is in every update. The last two clients have everything, so that every tensor has a part.
    fn new(seed: u64, clients: usize, deltas: bool) -> Self {
        let mut random = Random(seed);
        let mut row = |_: usize| (0..LEN).map(|_| random.value()).collect::<Vec<f64>>();
        let base = (0..TENSORS).map(&mut row).collect();
        let all: Vec<Vec<Vec<f64>>> = (0..clients).map(|_| (0..TENSORS).map(&mut row).collect()).collect();
        let has = |client: usize, tensor: usize, random: &mut Random| {
            tensor == 0 || client + 2 >= clients || random.next().is_multiple_of(2)
        };
        let mut random = Random(seed ^ 77);
        let mut gaps = |client: usize, rows: Vec<Vec<f64>>| {
            let keep = |(tensor, row)| has(client, tensor, &mut random).then_some(row);
            rows.into_iter().enumerate().map(keep).collect::<Vec<_>>()
        };
        let values = all.into_iter().enumerate().map(|(client, rows)| gaps(client, rows)).collect();
        Self {
            base,
            values,
            examples: (0..clients).map(|client| (client * 3 + 1) as f64).collect(),
            is_delta: (0..clients).map(|client| deltas && client % 2 == 0).collect(),
        }
    }

    fn write(&self) -> Dir {
        let dir = Dir::new();
        let full: Vec<Option<Vec<f64>>> = self.base.iter().cloned().map(Some).collect();
        update("base", &full).write(&dir);
        for (client, rows) in self.values.iter().enumerate() {
            let update = update(&format!("updates/client-{client}"), rows);
            let update = update.meta("num_examples", &self.examples[client].to_string());
            if self.is_delta[client] { update.meta("kind", "delta") } else { update }.write(&dir);
        }
        dir
    }

    /// The delta of each client that has the tensor, with its weight.
    fn deltas(&self, tensor: usize, index: usize, at_base: bool) -> Vec<(f64, f64)> {
        let delta = |client: usize| match &self.values[client][tensor] {
            Some(row) if self.is_delta[client] => Some(row[index]),
            Some(row) => Some(row[index] - self.base[tensor][index]),
            None => at_base.then_some(0.0),
        };
        (0..self.values.len()).filter_map(|i| Some((delta(i)?, self.examples[i]))).collect()
    }

    /// Fails unless every value of the model is the base's plus the merged delta.
    #[track_caller]
    fn check(&self, dir: &Dir, at_base: bool, merged: impl Fn(Vec<(f64, f64)>) -> f64) {
        let model = Model::read(dir, "merged.safetensors");
        for tensor in 0..TENSORS {
            for (index, found) in model.f64(&format!("t{tensor}")).iter().enumerate() {
                let expected = self.base[tensor][index] + merged(self.deltas(tensor, index, at_base));
                assert!((found - expected).abs() < 1e-12, "t{tensor}[{index}]: {found} {expected}");
            }
        }
    }
}

fn update(name: &str, rows: &[Option<Vec<f64>>]) -> Update {
    let rows = rows.iter().enumerate().filter_map(|(tensor, row)| Some((tensor, row.as_ref()?)));
    rows.fold(Update::new(name), |update, (tensor, row)| update.f64(&format!("t{tensor}"), &[LEN], row))
}

fn mean(deltas: Vec<(f64, f64)>) -> f64 {
    let weights: f64 = deltas.iter().map(|(_, weight)| weight).sum();
    deltas.iter().map(|(delta, weight)| delta * weight).sum::<f64>() / weights
}

/// The mean of the sorted values without `cut(n)` at each end.
fn middle(deltas: Vec<(f64, f64)>, cut: impl Fn(usize) -> usize) -> f64 {
    let mut values: Vec<f64> = deltas.into_iter().map(|(delta, _)| delta).collect();
    values.sort_by(f64::total_cmp);
    let cut = cut(values.len());
    let kept = &values[cut..values.len() - cut];
    kept.iter().sum::<f64>() / kept.len() as f64
}

fn median(deltas: Vec<(f64, f64)>) -> f64 {
    middle(deltas, |n| (n - 1) / 2)
}

const BASE: [&str; 2] = ["--base", "base.safetensors"];

fn args<'a>(missing: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&BASE[..], &["--missing", missing], more].concat()
}

#[test]
fn each_tensor_is_merged_over_the_clients_that_have_it() {
    for seed in 0..6 {
        let round = Round::new(seed, 8, seed % 2 == 1);
        let dir = round.write();
        merge(&dir, &args("present", &["--rule", "mean"]));
        round.check(&dir, false, mean);
        merge(&dir, &args("present", &["--rule", "median"]));
        round.check(&dir, false, median);
        merge(&dir, &args("present", &["--rule", "mean", "--strategy", "fedavg:lr=0.5"]));
        round.check(&dir, false, |deltas| 0.5 * mean(deltas));
    }
}

#[test]
fn an_update_stands_at_the_base_where_it_lacks_a_tensor() {
    for seed in 10..14 {
        let round = Round::new(seed, 7, seed % 2 == 1);
        let dir = round.write();
        merge(&dir, &args("base", &["--rule", "mean"]));
        round.check(&dir, true, mean);
        merge(&dir, &args("base", &["--rule", "trimmed-mean:cut=2"]));
        round.check(&dir, true, |deltas| middle(deltas, |_| 2));
        // Rules over whole updates see a zero delta.
        assert_eq!(aggregate(&dir, &args("base", &["--rule", "krum", "--byzantine", "1"])).code, Some(0));
    }
}

#[test]
fn a_share_of_hostile_clients_is_resolved_per_tensor() {
    let round = Round::new(31, 20, false);
    let dir = round.write();
    merge(&dir, &args("present", &["--rule", "trimmed-mean", "--byzantine", "0.25"]));
    round.check(&dir, false, |deltas| middle(deltas, |n| n / 4));
}

/// Six clients that freeze a layer, and one that sends it.
fn one_holder(value: f32) -> Dir {
    let dir = Dir::new();
    let model = |name: &str, w: f32, v: Option<f32>| {
        let update = Update::new(name).f32("w", &[2], &[w; 2]).meta("num_examples", "10");
        v.map_or(update.clone(), |v| update.f32("v", &[2], &[v; 2])).write(&dir);
    };
    model("base", 1.0, Some(7.0));
    (0..6).for_each(|i| model(&format!("updates/g{i}"), 2.0, None));
    model("updates/evil", 2.0, Some(value));
    dir
}

#[test]
fn a_rule_that_holds_against_clients_lets_no_few_of_them_set_a_tensor() {
    for rule in [
        &["--rule", "median", "--byzantine", "1"][..],
        &["--rule", "median", "--byzantine", "0.2"],
        &["--rule", "trimmed-mean:cut=1"],
        &["--rule", "trimmed-mean:cut=0.2"],
        &["--rule", "trimmed-mean", "--byzantine", "2"],
        &["--rule", "meamed", "--byzantine", "1"],
        &["--rule", "meamed", "--byzantine", "1", "--strategy", "fedavg:lr=0.5"],
    ] {
        let dir = one_holder(1000.0);
        let run = aggregate(&dir, &args("present", &[rule, &["--report", "report.json"]].concat()));
        run.assert_merged("merged.safetensors");
        let merged = Model::read(&dir, "merged.safetensors");
        let stepped = if rule.len() > 4 { 1.5 } else { 2.0 };
        assert_eq!((merged.f32("v"), merged.f32("w")), (vec![7.0; 2], vec![stepped; 2]), "{rule:?}");
        let warning = "tensor `v` keeps the base's values: 1 of 7 clients have it, and ";
        assert!(run.stderr.contains(warning), "{rule:?}: {}", run.stderr);
        let report = dir.json("report.json");
        let row = serde_json::json!([{ "tensor": "v", "clients": 1, "keeps_base": true }]);
        assert_eq!(report["gaps"], row);
        assert!(report["warnings"].to_string().contains(warning), "{}", report["warnings"]);
    }
    // Enough clients have the tensor: two of them cannot move it.
    let dir = one_holder(1000.0);
    for i in 0..3 {
        let update = Update::new(&format!("updates/g{i}")).f32("w", &[2], &[2.0; 2]);
        update.f32("v", &[2], &[8.0; 2]).meta("num_examples", "10").write(&dir);
    }
    let merged = merge(&dir, &args("present", &["--rule", "median", "--byzantine", "1"]));
    assert_eq!(merged.f32("v"), [8.0; 2]);
}

#[test]
fn the_mean_takes_what_one_client_sends() {
    let dir = one_holder(9.0);
    assert_eq!(merge(&dir, &args("present", &[])).f32("v"), [9.0; 2]);
    // No rule was asked to hold against clients: the median says that it does not.
    let run = aggregate(&dir, &args("present", &["--rule", "median"]));
    assert!(
        run.stderr.contains("such as `v`, are in so few updates that median holds against no"),
        "{run:?}"
    );
    // A client whose weight is zero ends no run.
    let update = Update::new("updates/evil").f32("w", &[2], &[2.0; 2]).f32("v", &[2], &[9.0; 2]);
    update.meta("num_examples", "0").write(&dir);
    let run = aggregate(&dir, &args("present", &[]));
    run.assert_merged("merged.safetensors");
    assert!(run.stderr.contains("1 of 7 clients have it, and they weigh nothing"), "{}", run.stderr);
    assert_eq!(Model::read(&dir, "merged.safetensors").f32("v"), [7.0; 2]);
}

#[test]
fn without_a_base_too_few_holders_are_named() {
    let dir = Dir::new();
    for name in ["a", "b", "c", "d"] {
        let update = Update::new(&format!("updates/{name}")).f32("w", &[2], &[2.0; 2]);
        let update = if name == "a" { update } else { update.f32("v", &[2], &[1.0; 2]) };
        update.write(&dir);
    }
    let rule = ["--missing", "present", "--rule", "trimmed-mean", "--byzantine", "1"];
    merge(&dir, &rule);
    std::fs::remove_file(dir.path("updates/b.safetensors")).unwrap();
    let what = ["tensor `v`: 2 of 3 clients have it (c, d), and trimmed-mean", "hint: pass --base MODEL"];
    aggregate(&dir, &rule).assert_fails(2, &what);
}

/// The encoder of three clients, and the head of two.
fn partial_layers() -> Dir {
    let dir = Dir::new();
    let model = |name: &str, value: f32, head: bool| {
        let update = Update::new(name).f32("enc.w", &[2], &[value; 2]);
        let update = if head { update.f32("head.w", &[2], &[value; 2]) } else { update };
        update.meta("num_examples", "10").write(&dir);
    };
    model("base", 0.0, true);
    model("updates/a", 1.0, true);
    model("updates/b", 2.0, false);
    model("updates/c", 4.0, true);
    dir
}

#[test]
fn the_report_counts_the_clients_of_each_tensor() {
    let dir = partial_layers();
    let merged = merge(&dir, &args("present", &["--report", "report.json"]));
    assert_eq!(merged.f32("head.w"), [2.5; 2]);
    assert_eq!(merged.f32("enc.w"), [(7.0_f64 / 3.0) as f32; 2]);
    let gaps = &dir.json("report.json")["gaps"];
    assert_eq!(*gaps, serde_json::json!([{ "tensor": "head.w", "clients": 2 }]));
    let part = "updates/b.safetensors: tensor `head.w` is missing, expected F32 [2]";
    aggregate(&dir, &BASE).assert_fails(2, &[part]);
}

#[test]
fn without_a_base_the_layout_that_most_share_is_the_reference() {
    let dir = partial_layers();
    let merged = merge(&dir, &["--missing", "present"]);
    assert_eq!(merged.f32("head.w"), [2.5; 2]);
    let run = aggregate(&dir, &["--missing", "base"]);
    run.assert_fails(2, &["--missing base takes the base's tensors, expected --base MODEL"]);
}

#[test]
fn a_tensor_that_no_client_has_keeps_the_base() {
    let dir = partial_layers();
    for name in ["a", "c"] {
        std::fs::remove_file(dir.path(&format!("updates/{name}.safetensors"))).unwrap();
    }
    let base = Update::new("base").f32("enc.w", &[2], &[0.0; 2]).f32("head.w", &[2], &[7.0; 2]);
    base.write(&dir);
    for missing in ["base", "present"] {
        let merged = merge(&dir, &args(missing, &[]));
        assert_eq!((merged.f32("enc.w"), merged.f32("head.w")), (vec![2.0; 2], vec![7.0; 2]), "{missing}");
    }
}

#[test]
fn an_update_with_none_of_the_tensors_is_a_fault() {
    let dir = partial_layers();
    Update::new("updates/none").f32("other", &[1], &[1.0]).meta("num_examples", "10").write(&dir);
    for missing in ["base", "present"] {
        aggregate(&dir, &args(missing, &[]))
            .assert_fails(2, &["none.safetensors: tensor `enc.w` is missing"]);
    }
}

#[test]
fn what_needs_whole_updates_refuses_present() {
    let refused = [
        (&["--rule", "krum", "--byzantine", "1"][..], "krum"),
        (&["--pre", "clip:norm=1"], "--pre clip:norm=1"),
        (&["--strategy", "fedexp"], "--strategy fedexp"),
        (&["--partial"], "--partial"),
        (&["--backend", "gpu"], "--backend gpu"),
    ];
    for (options, part) in refused {
        aggregate(&partial_layers(), &args("present", options)).assert_fails(2, &[part, "hint: "]);
    }
    let shard =
        ["gram", "--rule", "krum", "--byzantine", "1", "--shard", "1/1", "-o", "g.safetensors", "updates"];
    let run = fedmill(&partial_layers(), &[&shard[..], &args("present", &[])].concat());
    run.assert_fails(2, &["--missing present cannot be used in shards"]);
}

#[test]
fn shards_and_leafs_stand_at_the_base() {
    let dir = partial_layers();
    let whole = merge(&dir, &args("base", &[]));
    assert_eq!(whole.f32("head.w"), [(5.0_f64 / 3.0) as f32; 2]);
    let combine = ["combine", "--shard", "1/1", "-o", "shard.safetensors", "updates"];
    assert_eq!(fedmill(&dir, &[&combine[..], &args("base", &[])].concat()).code, Some(0));
    let merge = ["merge", "--partials", "shard.safetensors", "-o", "sharded.safetensors", "updates"];
    let run = fedmill(&dir, &[&merge[..], &args("base", &[])].concat());
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert_eq!(Model::read(&dir, "sharded.safetensors"), whole);
    let leaf = ["aggregate", "--partial", "updates", "-o", "leaf.safetensors"];
    assert_eq!(fedmill(&dir, &[&leaf[..], &args("base", &[])].concat()).code, Some(0));
    let root = ["aggregate", "--partials", "leaf.safetensors", "-o", "rooted.safetensors"];
    let run = fedmill(&dir, &[&root[..], &BASE].concat());
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert_eq!(Model::read(&dir, "rooted.safetensors").f32("head.w"), whole.f32("head.w"));
}
