//! The kernels of codecs on every adapter, against the CPU's kernels to the bit.

use super::sample::Random;
use super::{devices, ways};
use fedmill::gpu::Gpu;
use fedmill::gpu::job::Options;
use fedmill::kernels::block_quantize as cpu;
use fedmill::kernels::block_quantize::{BlockRun, Draw, Rounding};
use fedmill::kernels::bucketize::bucketize;
use fedmill::kernels::hadamard::{flip_signs, hadamard, scaled};
use fedmill::kernels::lanes::Isa;
use fedmill::kernels::philox::random_words;
use fedmill::kernels::select_largest::{Search, take};

/// Numbers of values around a workgroup of the kernels, and others.
const SIZES: [usize; 12] = [1, 3, 4, 5, 255, 257, 1023, 1024, 1025, 4095, 4097, 9001];
const BLOCKS: [usize; 5] = [8, 32, 100, 128, 4096];
/// Values of a transformed block.
const ROTATED: usize = 4096;

/// The first difference between the device's and the CPU's result; `None` if there is none.
pub(crate) type Difference = Option<String>;

/// Values of many magnitudes, none larger than `largest`. Every seventh value is the same, some are subnormal, some
/// zero.
fn values(len: usize, largest: f32) -> Vec<f32> {
    let mut random = Random(len as u64 + 1);
    let value = |i: usize| {
        let unit = (random.next() >> 40) as f32 / (1u64 << 24) as f32 - 0.5;
        match i % 7 {
            0 => 0.25 * largest,
            3 if i.is_multiple_of(5) => 0.0,
            4 if i.is_multiple_of(3) => unit * 1e-38,
            k => unit * largest * 0.1f32.powi(k as i32 % 4),
        }
    };
    (0..len).map(value).collect()
}

pub(crate) fn first_other<T: PartialEq + std::fmt::Debug>(found: &[T], want: &[T]) -> Difference {
    if found.len() != want.len() {
        return Some(format!("{} found, expected {}", found.len(), want.len()));
    }
    let place = found.iter().zip(want).position(|(found, want)| found != want)?;
    Some(format!("at {place}: found {:?}, expected {:?}", found[place], want[place]))
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// Every adapter, opened in every way that changes the code on it.
pub(crate) fn everywhere(check: impl Fn(&Gpu)) {
    for options in ways() {
        for gpu in devices(&options) {
            check(&gpu);
        }
    }
}

#[test]
fn ends_of_blocks_are_those_of_the_kernel() {
    everywhere(|gpu| {
        for (len, block) in SIZES.into_iter().zip(BLOCKS.into_iter().cycle()) {
            let values: Vec<f32> =
                values(len, 1e38).iter().map(|x| if *x == 0.0 { 1e-40 } else { *x }).collect();
            let found = gpu.block_ends(&values, block).unwrap();
            let mut want = vec![[0.0; 2]; len.div_ceil(block)];
            cpu::block_ends(Isa::detect(), &values, block, &mut want);
            let (found, want) = (bits(found.as_flattened()), bits(want.as_flattened()));
            assert_eq!(first_other(&found, &want), None, "{len} values in blocks of {block} on {gpu:?}");
        }
    });
}

/// A size with more workgroups than one dimension of a dispatch holds, if the device can bind so much memory at once.
#[test]
fn ends_of_more_blocks_than_a_dimension_has_workgroups() {
    for gpu in devices(&Options::default()) {
        let len = 65_535 * 256 + 300;
        if gpu.binding_bytes() < len * size_of::<[f32; 2]>() {
            crate::harness::skip("the adapter binds too few bytes at once for this many workgroups");
            continue;
        }
        let values: Vec<f32> = (0..len).map(|i| i as f32).collect();
        let found = gpu.block_ends(&values, 1).unwrap();
        assert_eq!(found.len(), values.len());
        assert!(found.iter().zip(&values).all(|(ends, x)| *ends == [*x, *x]), "{gpu:?}");
    }
}

/// Grids of blocks as codecs use them: the lowest value and the inverse of the step.
fn grids(values: &[f32], block: usize, top: u8) -> Vec<[f32; 2]> {
    let grid = |values: &[f32]| {
        let low = values.iter().copied().fold(f32::INFINITY, f32::min);
        let high = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let step = (f64::from(high) - f64::from(low)) / f64::from(top.max(1));
        [low, if step > 0.0 { step.recip() as f32 } else { 0.0 }]
    };
    values.chunks(block).map(grid).collect()
}

/// The kernel's codes from 0 to `top`.
fn codes(values: &[f32], block: usize, grids: &[[f32; 2]], top: u8, words: Option<&[u32]>) -> Vec<u8> {
    let mut codes = vec![0; values.len()];
    let rounding = words.map_or(Rounding::Nearest, Rounding::Stochastic);
    cpu::quantize(Isa::detect(), values, block, grids, top, rounding, &mut codes);
    codes
}

/// The kernel's codes from `-top` to `top`.
fn signed(values: &[f32], block: usize, inverses: &[f32], top: i8, words: Option<&[u32]>) -> Vec<i8> {
    let mut codes = vec![0; values.len()];
    for (number, inverse) in inverses.iter().enumerate() {
        let range = number * block..values.len().min((number + 1) * block);
        let rounding = words.map_or(Rounding::Nearest, |words| Rounding::Stochastic(&words[range.clone()]));
        let (values, codes) = (&values[range.clone()], &mut codes[range]);
        cpu::quantize_symmetric(Isa::detect(), values, *inverse, top, rounding, codes);
    }
    codes
}

#[test]
fn codes_are_those_of_the_kernel() {
    let (seed, purpose) = (0x0123_4567_89ab_cdef, 9);
    everywhere(|gpu| {
        for (turn, (len, block)) in SIZES.into_iter().zip(BLOCKS.into_iter().cycle()).enumerate() {
            let values = values(len, [1.0, 1e-3, 300.0][turn % 3]);
            // From the start of the stream, and at the place where the counter carries into its second word.
            let first = [0, (u64::from(u32::MAX) - 20) * 4][turn % 2];
            let drawn = Draw::Stochastic { seed, purpose, first };
            let mut words = vec![0; len];
            random_words(Isa::detect(), seed, purpose, first, &mut words);
            let number_bits = turn % 8 + 1;
            let (top, side) =
                (((1u32 << number_bits) - 1) as u8, (1i8 << number_bits.min(7).saturating_sub(1)).max(1));
            let grids = grids(&values, block, top);
            let inverses: Vec<f32> = grids.iter().map(|grid| grid[1]).collect();
            for (draw, words) in [(Draw::Nearest, None), (drawn, Some(&words[..]))] {
                let what = format!("{len} values in blocks of {block}, {draw:?} on {gpu:?}");
                let found = gpu.quantize(&values, block, &grids, top, draw).unwrap();
                let want = codes(&values, block, &grids, top, words);
                assert_eq!(first_other(&found, &want), None, "{what}");
                let found = gpu.quantize_symmetric(&values, block, &inverses, side, draw).unwrap();
                let want = signed(&values, block, &inverses, side, words);
                assert_eq!(first_other(&found, &want), None, "signed: {what}");
            }
        }
    });
}

/// A run that starts inside a block, as a part of the rows of a matrix does.
#[test]
fn a_run_may_start_inside_a_block() {
    everywhere(|gpu| {
        for (len, block, skipped) in
            [(5000, 100, 37), (1025, 7, 3), (300, 5000, 4999), (255, 5000, 10), (77, 1, 0)]
        {
            let whole = values(skipped + len, 1.0);
            let grids = grids(&whole, block, 15);
            let inverses: Vec<f32> = grids.iter().map(|grid| grid[1]).collect();
            let (run, values) = (BlockRun { block, skipped }, &whole[skipped..]);
            let found = gpu.quantize(values, run, &grids, 15, Draw::Nearest).unwrap();
            let want = codes(&whole, block, &grids, 15, None);
            assert_eq!(first_other(&found, &want[skipped..]), None, "{len} in {run:?} on {gpu:?}");
            let found = gpu.quantize_symmetric(values, run, &inverses, 7, Draw::Nearest).unwrap();
            let want = signed(&whole, block, &inverses, 7, None);
            assert_eq!(first_other(&found, &want[skipped..]), None, "signed: {len} in {run:?} on {gpu:?}");
        }
    });
}

/// The negative control: the check notices a code that is off by one, another seed and another counter.
#[test]
fn other_codes_are_noticed() {
    for gpu in devices(&Options::default()) {
        let values = values(1025, 1.0);
        let grids = grids(&values, 128, 15);
        let found = |seed: u64, first: u64| {
            let draw = Draw::Stochastic { seed, purpose: 1, first };
            gpu.quantize(&values, 128, &grids, 15, draw).unwrap()
        };
        let want = found(1, 0);
        assert!(first_other(&found(2, 0), &want).is_some());
        assert!(first_other(&found(1, 4), &want).is_some());
        let mut off = want.clone();
        off[1024] ^= 1;
        assert!(first_other(&off, &want).is_some());
    }
}

/// Blocks as a codec sends them, each scaled, and the bits of two streams of signs.
fn rotation(blocks: usize) -> (Vec<f32>, [Vec<u32>; 2]) {
    let mut sent = values(blocks * ROTATED, 1e20);
    for block in sent.chunks_mut(ROTATED) {
        scaled(Isa::detect(), block);
    }
    let stream = |purpose| {
        let mut words = vec![0; blocks * ROTATED / 32];
        random_words(Isa::detect(), 5, purpose, 0, &mut words);
        words
    };
    (sent, [stream(1), stream(2)])
}

fn rotated(mut values: Vec<f32>, flips: &[&[u32]]) -> Vec<f32> {
    for flips in flips {
        flip_signs(Isa::detect(), flips, &mut values);
        values.chunks_mut(ROTATED).for_each(|block| hadamard(Isa::detect(), block));
    }
    values
}

#[test]
fn rotations_have_the_bits_of_the_kernel() {
    everywhere(|gpu| {
        for blocks in [1, 3] {
            let (sent, [first, second]) = rotation(blocks);
            for flips in [&[&first[..]][..], &[&first, &second]] {
                let found = gpu.rotate(&sent, flips).unwrap();
                let want = rotated(sent.clone(), flips);
                assert_eq!(first_other(&bits(&found), &bits(&want)), None, "{blocks} blocks on {gpu:?}");
            }
            // The negative control: the streams in the other order.
            let other = gpu.rotate(&sent, &[&second, &first]).unwrap();
            assert!(first_other(&bits(&other), &bits(&rotated(sent, &[&first, &second]))).is_some());
        }
    });
}

fn thresholds(bits: u32) -> Vec<f32> {
    (0..(1 << (bits - 1)) - 1).map(|i| 0.05 + i as f32 * 0.02).collect()
}

#[test]
fn buckets_are_those_of_the_kernel() {
    everywhere(|gpu| {
        for (turn, (len, block)) in SIZES.into_iter().zip(BLOCKS.into_iter().cycle()).enumerate() {
            let (values, thresholds) = (values(len, 2.0), thresholds(turn as u32 % 8 + 1));
            let factors: Vec<f32> = (0..len.div_ceil(block)).map(|i| 0.7 + 0.1 * i as f32).collect();
            let found = gpu.bucketize(&values, block, &factors, &thresholds).unwrap();
            let mut want = vec![0; len];
            for ((values, codes), factor) in values.chunks(block).zip(want.chunks_mut(block)).zip(&factors) {
                bucketize(Isa::detect(), values, *factor, &thresholds, codes);
            }
            assert_eq!(first_other(&found, &want), None, "{len} values in blocks of {block} on {gpu:?}");
            let other: Vec<f32> = factors.iter().map(|factor| factor * 0.5).collect();
            let other = gpu.bucketize(&values, block, &other, &thresholds).unwrap();
            assert!(len < 255 || thresholds.is_empty() || first_other(&other, &want).is_some(), "{len}");
        }
    });
}

#[test]
fn rotated_values_and_their_buckets_come_together() {
    for gpu in devices(&Options::default()) {
        let (sent, [first, second]) = rotation(2);
        let (flips, thresholds) = ([&first[..], &second], thresholds(3));
        let factors = [1.0 / 4096.0, 1.0 / 2048.0];
        let (codes, found) = gpu.rotate_and_bucketize(&sent, &flips, &factors, &thresholds).unwrap();
        let want = rotated(sent, &flips);
        assert_eq!(first_other(&bits(&found), &bits(&want)), None, "{gpu:?}");
        let mut want_codes = vec![0; want.len()];
        for ((values, codes), factor) in want.chunks(ROTATED).zip(want_codes.chunks_mut(ROTATED)).zip(factors)
        {
            bucketize(Isa::detect(), values, factor, &thresholds, codes);
        }
        assert_eq!(first_other(&codes, &want_codes), None, "{gpu:?}");
        assert!(codes.iter().any(|code| *code != codes[0]));
    }
}

/// The indices that the kernel chooses.
fn largest(values: &[f32], count: usize) -> Vec<u32> {
    let mut search = Search::new(count as u64);
    while search.threshold().is_none() {
        let counts = search.count(Isa::detect(), values);
        search.narrow(&counts);
    }
    let last = search.threshold().unwrap();
    take(Isa::detect(), values, last.key, last.ties)
}

#[test]
fn the_largest_are_those_of_the_kernel() {
    everywhere(|gpu| {
        for (turn, len) in [1, 3, 255, 4095, 4096, 4097, 13_001].into_iter().enumerate() {
            let ties: Vec<f32> = (0..len).map(|i| [1.0, -1.0, 0.5][i % 3]).collect();
            let small: Vec<f32> = (0..len).map(|i| f32::from_bits((i * 7_919 % 9_973) as u32)).collect();
            let kinds = [values(len, 3.0), ties, vec![-2.5; len], vec![0.0; len], small];
            for (kind, count) in [(turn, 1), (turn + 1, len / 100), (turn + 2, len / 2), (turn + 3, len - 1)]
            {
                let (values, count) = (&kinds[kind % kinds.len()], count.max(1));
                let found = gpu.select_largest(values, count).unwrap();
                let what = format!("{count} of {len} of kind {} on {gpu:?}", kind % kinds.len());
                assert_eq!(first_other(&found, &largest(values, count)), None, "{what}");
            }
        }
        assert!(gpu.select_largest(&[1.0, 2.0], 0).unwrap().is_empty());
        assert_eq!(gpu.select_largest(&[1.0, -2.0], 9).unwrap(), [0, 1]);
    });
}

/// The negative control: the check notices one index too many, a missing one, and a changed one.
#[test]
fn other_indices_are_noticed() {
    let want = largest(&values(5000, 1.0), 50);
    let (mut other, fewer) = (want.clone(), &want[..49]);
    other[7] += 1;
    assert!(first_other(&other, &want).is_some() && first_other(fewer, &want).is_some());
}

#[test]
fn nothing_is_made_of_nothing() {
    for gpu in devices(&Options::default()) {
        assert!(gpu.block_ends(&[], 8).unwrap().is_empty());
        assert!(gpu.quantize(&[], 8, &[], 15, Draw::Nearest).unwrap().is_empty());
        assert!(gpu.quantize_symmetric(&[], 8, &[], 7, Draw::Nearest).unwrap().is_empty());
        assert!(gpu.rotate(&[], &[]).unwrap().is_empty());
        assert!(gpu.bucketize(&[], 8, &[], &[]).unwrap().is_empty());
        assert!(gpu.rotate_and_bucketize(&[], &[], &[], &[]).unwrap().0.is_empty());
        assert!(gpu.select_largest(&[], 3).unwrap().is_empty());
    }
}

#[test]
fn a_lost_device_is_an_error() {
    for gpu in devices(&Options { lose_after: Some(1), ..Options::default() }) {
        assert!(gpu.block_ends(&[1.0, 2.0], 8).is_ok());
        assert!(gpu.block_ends(&[1.0, 2.0], 8).is_err());
    }
}
