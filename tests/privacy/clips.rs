//! The clips of clients before their sum: each depends on its client, and bounds its integers.

use crate::harness::{Dir, Update};
use fedmill::engine::intake::policy::Policy;
use fedmill::engine::intake::{admit, opening, update};
use fedmill::engine::passes::machine::Machine;
use fedmill::io::model_file::TablePool;
use fedmill::io::source::OpenFiles;
use fedmill::kernels::discrete_gaussian::Level;
use fedmill::kernels::lanes::Isa;
use fedmill::modes::dp::clips::{ClientClip, clips};
use fedmill::modes::dp::statistics::DpStatistics;
use fedmill::privacy::clipping::{Grid, Treatment};
use fedmill::telemetry::progress::Progress;
use rayon::ThreadPoolBuilder;
use std::sync::Arc;

/// Values of three tensors. Their ends, and places within two of them, lie at multiples of a tile's length.
const LENS: [usize; 3] = [40_011, 5, 50_003];

fn grid() -> Grid {
    Grid::at(Level::L2, 1.0, 1.0).unwrap()
}

fn values(seed: usize) -> Vec<f32> {
    let mut state = seed as u64 * 2 + 1;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f32 / (1u64 << 30) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(LENS.iter().sum()).collect()
}

/// An update of f32, or of f64 in the tensors that are `wide`.
fn update(values: &[f64], wide: [bool; 3]) -> Update {
    let mut update = Update::new("u").meta("kind", "weights");
    let mut rest = values;
    for ((len, wide), name) in LENS.into_iter().zip(wide).zip(["a", "b", "c"]) {
        let (tensor, behind) = rest.split_at(len);
        let narrow: Vec<f32> = tensor.iter().map(|x| *x as f32).collect();
        update = if wide { update.f64(name, &[len], tensor) } else { update.f32(name, &[len], &narrow) };
        rest = behind;
    }
    update
}

fn widened(values: &[f32]) -> Vec<f64> {
    values.iter().map(|x| f64::from(*x)).collect()
}

/// The clips of updates of a base of f32.
fn found(updates: &[Update], threads: usize, isa: Isa) -> Vec<ClientClip> {
    found_on([false; 3], updates, threads, isa)
}

/// The clips of updates of a base of f32, or of f64 in the tensors that are `wide`.
fn found_on(wide: [bool; 3], updates: &[Update], threads: usize, isa: Isa) -> Vec<ClientClip> {
    let dir = Dir::new();
    let write = |update: &Update, name: String| {
        dir.write(&name, update.bytes());
        dir.path(&name)
    };
    let paths: Vec<_> =
        updates.iter().enumerate().map(|(i, update)| write(update, format!("{i}.safetensors"))).collect();
    let (files, tables) = (OpenFiles::raise_limit(), TablePool::default());
    let base = write(&update(&widened(&values(0)), wide), "base.safetensors".to_owned());
    let base = Arc::new(update::open_base(&base, &files, &tables).unwrap());
    let updates = opening::open(&paths, &files, &tables, Some(&base), &Policy::default());
    let (set, rejected) = admit::admit(updates, Some(base), &Policy::default()).unwrap();
    assert_eq!(rejected.len(), 0);
    let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    clips(&Machine::new(isa, &pool, &Progress::hidden()), &set, &DpStatistics::Keep.clipped(&set), &grid())
        .unwrap()
}

#[test]
fn nothing_but_the_client_shows() {
    let narrow = |seed| update(&widened(&values(seed)), [false; 3]);
    let want = found(&[narrow(1)], 1, Isa::named("portable").unwrap());
    assert_eq!(want[0].clip.treatment, Treatment::Clipped);
    for isa in Isa::available() {
        for threads in [1, 2, 5] {
            assert_eq!(
                found(&[narrow(1), narrow(2)], threads, isa)[0],
                want[0],
                "{threads} threads on {isa}"
            );
        }
    }
    // The other clients send wider floats, so tiles and working floats differ.
    for wide in [[true, false, false], [false, true, false], [false, false, true], [true; 3]] {
        let other = update(&widened(&values(2)), wide);
        let got = found(&[narrow(1), other], 2, Isa::detect());
        assert_eq!((got[0].clip, got[0].norm), (want[0].clip, want[0].norm), "{wide:?}");
        assert_ne!(got[0].digest, got[1].digest);
    }
    // The negative control: every value counts.
    let mut changed = widened(&values(1));
    changed[LENS[0] + 2] += 0.25;
    let changed = found(&[update(&changed, [false; 3])], 1, Isa::detect());
    assert!(changed[0].norm != want[0].norm && changed[0].digest != want[0].digest);
}

/// The exact sum of the squares of the integers at the clip's scale.
fn squares(found: &ClientClip, delta: &[f64]) -> u128 {
    let (multiplier, exponent) = (u128::from(found.clip.scale.multiplier()), found.clip.scale.exponent());
    let integer = |x: &f64| {
        let exact = x.abs().to_bits();
        let (significand, power) = (exact & ((1 << 52) - 1) | 1 << 52, (exact >> 52) as i32 - 1075);
        let shift = -(power + exponent);
        if *x == 0.0 || shift > 100 { 0 } else { (u128::from(significand) * multiplier) >> shift }
    };
    delta.iter().map(|x| integer(x).pow(2)).sum()
}

#[test]
fn integers_are_within_the_bound_and_fill_it() {
    let bound = u128::from(grid().bound()).pow(2);
    let base = widened(&values(0));
    for seed in 1..7 {
        // From far inside the bound to far outside it.
        let factor = [1e-4, 4e-3, 1.0, 1e9, 1e30, 3e5][seed % 6];
        let sent: Vec<f64> =
            values(seed).iter().zip(&base).map(|(x, base)| base + f64::from(*x) * factor).collect();
        let delta: Vec<f64> = sent.iter().zip(&base).map(|(x, base)| x - base).collect();
        let found = &found(&[update(&sent, [true; 3])], 2, Isa::detect())[0];
        let norm = delta.iter().map(|x| x * x).sum::<f64>().sqrt();
        assert!((found.norm / norm - 1.0).abs() < 1e-12, "{seed}: {} and {norm}", found.norm);
        let sum = squares(found, &delta);
        assert!(sum <= bound, "{seed}: {sum} and {bound}");
        let least = if norm < 1.0 { norm } else { 1.0 };
        let filled = (sum as f64 / bound as f64).sqrt();
        assert!(filled > least * 0.999_8 - 1e-4, "{seed}: {filled}, norm {norm}");
        assert_eq!(found.clip.treatment == Treatment::Whole, norm < 1.0);
    }
}

#[test]
fn values_whose_squares_are_beyond_f64_are_clipped_and_others_void() {
    let with = |value: f64| {
        let mut sent = widened(&values(1));
        sent[LENS[0] + 7] = value;
        update(&sent, [true; 3])
    };
    let others = [1e200, -1e300, f64::NAN, f64::INFINITY, 1e-320].map(with);
    let treatments =
        |found: &[ClientClip]| found.iter().map(|found| found.clip.treatment).collect::<Vec<Treatment>>();
    let (clipped, void) = (Treatment::Clipped, Treatment::Void);
    // A base of f32 cannot hold the large values, so their clients count as zero.
    assert_eq!(treatments(&found(&others, 2, Isa::detect())), [void, void, void, void, clipped]);
    let found = found_on([true; 3], &others, 2, Isa::detect());
    assert_eq!(treatments(&found), [clipped, clipped, void, void, clipped]);
    assert!((found[0].norm / 1e200 - 1.0).abs() < 1e-14 && (found[1].norm / 1e300 - 1.0).abs() < 1e-14);
    assert_eq!((found[2].norm, found[3].norm), (0.0, 0.0));
    for (found, value) in found[..2].iter().zip([1e200, 1e300]) {
        let sum = squares(found, &[value]);
        let bound = u128::from(grid().bound()).pow(2);
        assert!(sum <= bound && sum as f64 > 0.999_99 * bound as f64, "{sum} and {bound}");
    }
}
