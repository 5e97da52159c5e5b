//! The change that one client makes to a release, for honest and hostile updates.
//!
//! With the same noise, the difference of two releases with and without a client is the client's update, clipped,
//! rounded to the grid and divided.
//!
//! The oracle is the definition in f64 (clip, `x * min(1, S / norm)`), and on a base of F64 the integers themselves.

use super::*;
use crate::harness::fedmill;
use half::bf16;

const LEN: usize = 40;

/// An update, and the delta that counts; `None` if the update counts as zero.
struct Case {
    name: &'static str,
    update: Update,
    delta: Option<Vec<f64>>,
    /// Largest error of a coordinate, in units of the grid: one for rounding toward zero.
    off: f64,
}

fn case(name: &'static str, update: Update, delta: Option<Vec<f64>>) -> Case {
    Case { name, update, delta, off: 1.01 }
}

/// A delta in F32.
fn f32_case(name: &'static str, values: &[f64]) -> Case {
    let stored: Vec<f64> = values.iter().map(|x| f64::from(*x as f32)).collect();
    let finite = stored.iter().all(|x| x.is_finite());
    case(name, model_f32("updates/x", values).meta("kind", "delta"), finite.then_some(stored))
}

/// A delta in F64.
fn f64_case(name: &'static str, values: &[f64]) -> Case {
    let finite = values.iter().all(|x| x.is_finite());
    case(name, model_f64("updates/x", values).meta("kind", "delta"), finite.then(|| values.to_vec()))
}

fn with(mut values: Vec<f64>, place: usize, value: f64) -> Vec<f64> {
    values[place] = value;
    values
}

fn scaled(which: usize, by: f64) -> Vec<f64> {
    values(which, LEN).into_iter().map(|x| x * by).collect()
}

/// Values scaled to this norm, up to rounding.
fn scaled_to(which: usize, length: f64) -> Vec<f64> {
    scaled(which, length / norm(&scaled(which, 1.0)))
}

fn alternating(value: f64) -> Vec<f64> {
    (0..LEN).map(|j| if j % 2 == 0 { value } else { -value }).collect()
}

/// Honest and hostile clients, with updates that fit a base of any float type.
fn cases() -> Vec<Case> {
    let most = f64::from(f32::MAX);
    let tiny = f64::from(f32::from_bits(1));
    vec![
        f32_case("within the bound", &scaled(2, 0.01)),
        f32_case("near the bound", &scaled(2, 0.27)),
        f32_case("beyond the bound", &scaled(3, 5.0)),
        f32_case("zero", &[0.0; LEN]),
        f32_case("zero, and some of it negative", &alternating(-0.0)),
        f32_case("one coordinate on the bound", &with(vec![0.0; LEN], 13, 1.0)),
        f32_case("subnormals", &alternating(tiny)),
        f32_case("all of it as large as it gets", &alternating(most)),
        f32_case("one huge value", &with(scaled(4, 0.1), 39, -most)),
        f32_case("one huge value among subnormals", &with(alternating(tiny), 0, most)),
        f32_case("one NaN", &with(scaled(1, 0.1), 5, f64::NAN)),
        f32_case("one infinity", &with(scaled(1, 0.1), 39, f64::INFINITY)),
        f32_case("all negative infinity", &[f64::NEG_INFINITY; LEN]),
        bf16_case(),
    ]
}

/// A delta in BF16.
fn bf16_case() -> Case {
    let rounded: Vec<bf16> = scaled(6, 0.7).into_iter().map(bf16::from_f64).collect();
    let bits: Vec<u16> = rounded.iter().map(|x| x.to_bits()).collect();
    let update = Update::new("updates/x").half("a", "BF16", &[10], &bits[..10]).half(
        "b",
        "BF16",
        &[5, 6],
        &bits[10..],
    );
    let delta = rounded.into_iter().map(bf16::to_f64).collect();
    case("BF16", counter(update).meta("kind", "delta"), Some(delta))
}

/// Updates that only F64 can hold.
fn wide_cases() -> Vec<Case> {
    vec![
        f64_case("F64 within the bound", &scaled(2, 0.01)),
        f64_case("F64 beyond the bound", &scaled(2, 100.0)),
        f64_case("F64 just within the bound", &scaled_to(3, 1.0 - f64::EPSILON)),
        f64_case("F64 on the bound", &scaled_to(3, 1.0)),
        f64_case("F64 just beyond the bound", &scaled_to(3, 1.0 + f64::EPSILON)),
        f64_case("F64 beyond it by less than a unit", &scaled_to(5, 1.0 + 1e-7)),
        f64_case("F64 on the bound in every coordinate alike", &alternating((1.0 / LEN as f64).sqrt())),
        f64_case("F64 as large as it gets", &alternating(f64::MAX)),
        f64_case("F64 with one value as large as it gets", &with(scaled(3, 1.0), 20, f64::MAX)),
        f64_case("F64 subnormals", &alternating(f64::from_bits(1))),
        f64_case("F64 and NaN", &with(scaled(3, 1.0), 20, f64::NAN)),
    ]
}

/// Bad updates, which count as zero.
fn broken_cases() -> Vec<Case> {
    let good = || model_f32("updates/x", &scaled(2, 0.1)).meta("kind", "delta");
    let a = || Update::new("updates/x").meta("kind", "delta").f32("a", &[10], &[0.1; 10]);
    let broken = [
        ("missing tensor", counter(a())),
        ("wrong shape", counter(a().f32("b", &[6, 5], &[0.1; 30]))),
        ("wrong size", counter(a().f32("b", &[5, 7], &[0.1; 35]))),
        ("wrong dtype", counter(a().i64("b", &[5, 6], &[1; 30]))),
        ("a tensor too many", good().f32("c", &[1], &[0.1])),
        ("no tensors", Update::new("updates/x")),
        ("cut off in its data", good().cut_to(good().bytes().len() - 1)),
        ("cut off in its header", good().cut_to(20)),
        ("empty", good().cut_to(0)),
        ("longer than it says", good().behind(b"more")),
        ("no header", good().header("what?")),
        ("a header without end", good().length(u64::MAX)),
        ("kind of nothing", model_f32("updates/x", &scaled(2, 0.1)).meta("kind", "nonsense")),
        ("of another base", good().meta("base", &format!("sha256:{}", "0".repeat(64)))),
        ("examples without number", good().meta("num_examples", "many")),
    ];
    broken.into_iter().map(|(name, update)| case(name, update, None)).collect()
}

/// A folder with four honest clients and a budget.
fn folder(base: &Update, clip: &str) -> Dir {
    let dir = Dir::new();
    base.write(&dir);
    for client in 0..4 {
        model_f32(&format!("updates/honest-{client}"), &scaled(client, 0.2))
            .meta("kind", "delta")
            .write(&dir);
    }
    start_budget(&dir, &["--clip", clip]);
    dir
}

/// `x * min(1, S / norm)`, for every x that an f64 can hold.
fn clipped(delta: &[f64], bound: f64) -> Vec<f64> {
    let most = delta.iter().fold(0.0f64, |most, x| most.max(x.abs()));
    if most == 0.0 {
        return delta.to_vec();
    }
    let shares: Vec<f64> = delta.iter().map(|x| x / most).collect();
    let norm = shares.iter().map(|x| x * x).sum::<f64>().sqrt();
    if most * norm <= bound {
        return delta.to_vec();
    }
    shares.iter().map(|x| x / norm * bound).collect()
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// On a base of F64 the integers of the grid can be read from the release.
fn assert_is_its_integers(case: &Case, without: &[f64], with: &[f64], clip: f64) {
    let (name, grid) = (case.name, grid(clip));
    let in_units = |(with, without): (&f64, &f64)| (with - without) * DENOMINATOR as f64 / grid.unit();
    let units: Vec<f64> = with.iter().zip(without).map(in_units).collect();
    let integers: Vec<i64> = units.iter().map(|x| x.round() as i64).collect();
    for (x, integer) in units.iter().zip(&integers) {
        assert!((x - *integer as f64).abs() < 1e-3, "{name}: {x} units");
    }
    let squares: u128 = integers.iter().map(|x| u128::from(x.unsigned_abs()).pow(2)).sum();
    assert!(squares <= u128::from(grid.bound()).pow(2), "{name}: {squares} is more than one client may add");
    let Some(delta) = &case.delta else {
        assert_eq!(squares, 0, "{name}: counts as zero");
        return;
    };
    for (integer, x) in integers.iter().zip(clipped(delta, clip)) {
        let expected = x / grid.unit();
        let off = (*integer as f64 - expected).abs();
        assert!(off <= case.off, "{name}: {integer} units, expected {expected}");
        let inward = (*integer as f64).abs() <= expected.abs() + 0.01 + (case.off - 1.01);
        assert!(
            inward && (*integer == 0 || integer.is_positive() == (x > 0.0)),
            "{name}: {integer}, {expected}"
        );
    }
    if norm(delta) > clip * 1.001 {
        assert!(
            squares as f64 > (0.999 * grid.bound() as f64).powi(2),
            "{name}: clipped to less than the bound"
        );
    }
}

#[test]
fn on_a_base_of_f64_one_client_is_its_own_integers_and_no_more() {
    let dir = folder(&model_f64("base", &values(9, LEN)), "1");
    let without = floats(&released(&dir, &[]));
    for case in cases().into_iter().chain(wide_cases()).chain(broken_cases()) {
        case.update.write(&dir);
        let model = released(&dir, &[]);
        assert_eq!(model.bytes("n"), 9i64.to_le_bytes(), "{}: an integer moved", case.name);
        assert_is_its_integers(&case, &without, &floats(&model), 1.0);
    }
}

/// A release in F32 is rounded once more when it is stored.
#[test]
fn on_a_base_of_f32_one_client_is_within_the_bound_but_for_storing() {
    let dir = folder(&model_f32("base", &values(9, LEN)), "1");
    let without = floats(&released(&dir, &[]));
    let most = without.iter().fold(0.0f64, |most, x| most.max(x.abs())) + 0.1;
    let stored = most * 2f64.powi(-23);
    for case in cases().into_iter().chain(wide_cases()).chain(broken_cases()) {
        case.update.write(&dir);
        let with = floats(&released(&dir, &[]));
        let difference: Vec<f64> = with.iter().zip(&without).map(|(with, without)| with - without).collect();
        let mean = |x: f64| x / DENOMINATOR as f64;
        let bound = mean(1.0) + stored * (LEN as f64).sqrt();
        assert!(norm(&difference) <= bound, "{}: {} is more than {bound}", case.name, norm(&difference));
        // An update counts as zero too if a base of F32 cannot hold its values.
        let fits = |delta: &&Vec<f64>| delta.iter().all(|x| (*x as f32).is_finite());
        let Some(delta) = case.delta.as_ref().filter(fits) else {
            assert!(with == without, "{}: counts as zero", case.name);
            continue;
        };
        for (found, x) in difference.iter().zip(clipped(delta, 1.0)) {
            let off = (found - mean(x)).abs();
            let tolerance = stored + case.off * mean(grid(1.0).unit());
            assert!(off <= tolerance, "{}: {found}, expected {}", case.name, mean(x));
        }
    }
}

/// Clipping works for bounds as small as subnormal floats, and as large as the largest float.
#[test]
fn bounds_far_from_one() {
    let zeros = model_f64("base", &[0.0; LEN]);
    for (clip, cases) in [
        ("1e-44", vec![f32_case("subnormals", &alternating(f64::from(f32::from_bits(1))))]),
        (
            "1e38",
            vec![
                f32_case("extremes", &alternating(f64::from(f32::MAX))),
                f32_case("small ones", &scaled(2, 1e37)),
            ],
        ),
        (
            "1e-50",
            vec![
                f64_case("F64 subnormals", &alternating(f64::from_bits(1))),
                f64_case("near it", &scaled(3, 1e-51)),
            ],
        ),
    ] {
        let dir = folder(&zeros, clip);
        let without = floats(&released(&dir, &[]));
        for case in cases {
            case.update.write(&dir);
            assert_is_its_integers(&case, &without, &floats(&released(&dir, &[])), clip.parse().unwrap());
        }
    }
}

/// Weights count as their difference from the base.
#[test]
fn weights_and_deltas_are_the_same_client() {
    let base = values(9, LEN);
    let dir = folder(&model_f64("base", &base), "1");
    let without = floats(&released(&dir, &[]));
    for by in [0.05, 3.0] {
        let weights: Vec<f64> = base.iter().zip(scaled(5, by)).map(|(base, delta)| base + delta).collect();
        let delta = weights.iter().zip(&base).map(|(weight, base)| weight - base).collect();
        let case = case("weights", model_f64("updates/x", &weights), Some(delta));
        case.update.write(&dir);
        assert_is_its_integers(&case, &without, &floats(&released(&dir, &[])), 1.0);
    }
}

/// A compressed update counts as the values that `decompress` gives.
#[test]
fn compressed_updates_are_clipped_as_their_decoded_values() {
    let dir = folder(&model_f64("base", &values(9, LEN)), "1");
    let without = floats(&released(&dir, &[]));
    for (codec, by) in [("u8", 0.1), ("u8", 3.0), ("ecsq", 0.1), ("ecsq", 3.0), ("bf16", 1.0)] {
        model_f32("plain", &scaled(5, by)).meta("kind", "delta").write(&dir);
        for args in [
            ["compress", "-q", "--codec", codec, "plain.safetensors", "-o", "updates/x.safetensors"]
                .as_slice(),
            &["decompress", "-q", "updates/x.safetensors", "-o", "decoded.safetensors"],
        ] {
            let run = fedmill(&dir, args);
            assert_eq!(run.code, Some(0), "{run:#?}");
        }
        let delta = floats(&Model::read(&dir, "decoded.safetensors"));
        // Decoding into F64 does not round to F32.
        let case = Case { name: codec, update: Update::new("x"), delta: Some(delta), off: 2.0 };
        assert_is_its_integers(&case, &without, &floats(&released(&dir, &[])), 1.0);
        // A truncated file is not an update.
        let whole = dir.read("updates/x.safetensors");
        for kept in [whole.len() - 1, whole.len() / 2] {
            dir.write("updates/x.safetensors", &whole[..kept]);
            assert!(floats(&released(&dir, &[])) == without, "{codec}: cut off it counts as zero");
        }
        // With changed data, the update is within the bound or counts as zero.
        let mut nonsense = whole.clone();
        let behind = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
        nonsense[behind..].iter_mut().for_each(|byte| *byte ^= 0xa5);
        dir.write("updates/x.safetensors", &nonsense);
        let with = floats(&released(&dir, &[]));
        let difference: Vec<f64> = with.iter().zip(&without).map(|(with, without)| with - without).collect();
        assert!(norm(&difference) <= 1.0 / DENOMINATOR as f64 + 1e-12, "{codec}: {}", norm(&difference));
    }
}

/// The server cannot tell which of them is genuine, and they must not stop the round.
#[test]
fn all_that_claim_one_client_count_as_zero() {
    let dir = folder(&model_f64("base", &values(9, LEN)), "1");
    let whole = released(&dir, &[]).tensors;
    for forged in ["forged-1", "forged-2"] {
        let forged = model_f32(&format!("updates/{forged}"), &scaled(7, 1.0)).meta("kind", "delta");
        forged.meta("client_id", "honest-2").write(&dir);
        let run = release_to(&dir, "released.safetensors", &SEEDED);
        run.assert_merged("released.safetensors");
        assert!(
            run.stderr.contains("claim the client id `honest-2` too: the client counts as zero"),
            "{run:#?}"
        );
    }
    let claimed = Model::read(&dir, "released.safetensors").tensors;
    for name in ["forged-1", "forged-2", "honest-2"] {
        std::fs::remove_file(dir.path(&format!("updates/{name}.safetensors"))).unwrap();
    }
    let without = released(&dir, &[]).tensors;
    assert!(claimed == without, "who claims a client is none, nor is the client");
    assert!(whole != without);
    // Broken updates claim an id too.
    model_f32("updates/honest-2", &scaled(2, 0.2)).meta("kind", "delta").write(&dir);
    assert!(released(&dir, &[]).tensors == whole);
    let forged = Update::new("updates/forged").f32("a", &[1], &[f32::NAN]).meta("client_id", "honest-2");
    forged.write(&dir);
    assert!(released(&dir, &[]).tensors == without);
}

/// Files that cannot be opened: a folder, a broken link, an index of missing shards.
#[test]
fn files_that_cannot_be_opened_count_as_zero() {
    let dir = folder(&model_f64("base", &values(9, LEN)), "1");
    let without = released(&dir, &[]).tensors;
    dir.write("updates/folder.safetensors/inside", "");
    std::os::unix::fs::symlink("nowhere", dir.path("updates/link.safetensors")).unwrap();
    dir.write("updates/x.safetensors.index.json", r#"{"weight_map":{"a":"x-1.safetensors"}}"#);
    let run = release_to(&dir, "released.safetensors", &SEEDED);
    run.assert_merged("released.safetensors");
    assert_eq!(run.stderr.matches("the client counts as zero").count(), 3, "{run:#?}");
    assert!(Model::read(&dir, "released.safetensors").tensors == without);
}
