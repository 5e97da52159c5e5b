//! A look at the kernels of codecs and of private sums: all but one are held against the CPU's to the bit.

use super::{Difference, HALF_ULP, difference, value};
use crate::gpu::device::Gpu;
use crate::gpu::job::GpuError;
use crate::kernels::block_quantize::{self as cpu, Draw, Rounding};
use crate::kernels::chacha20::Stream;
use crate::kernels::clip_integers::{Scale, quantize};
use crate::kernels::discrete_gaussian::{self, Level};
use crate::kernels::integer_sum::add_integers;
use crate::kernels::lanes::Isa;
use crate::kernels::philox::random_words;
use crate::kernels::select_largest::{Search, take};
use crate::kernels::{bucketize, hadamard};

/// A kernel, what of it is run, and the run.
pub(super) type Case = (&'static str, &'static str, fn(&Gpu) -> Result<Difference, GpuError>);

/// Every kernel over vectors.
pub(super) const CASES: [Case; 10] = [
    ("block_ends", "blocks of 100", ends),
    ("block_quantize", "to the nearest", |gpu| codes(gpu, Draw::Nearest)),
    ("block_quantize", "by random words", |gpu| {
        codes(gpu, Draw::Stochastic { seed: 3, purpose: 4, first: 8 })
    }),
    ("block_dequantize", "blocks of 100", points),
    ("hadamard", "2 blocks", rotation),
    ("bucketize", "7 thresholds", buckets),
    ("select_output", "500 of 5000", selection),
    ("discrete_gaussian", "of four draws", |gpu| noise(gpu, Level::L2)),
    ("discrete_gaussian", "of eight draws", |gpu| noise(gpu, Level::L3)),
    ("integer_sum", "5 rows", integer_sums),
];

/// Values of a block: no whole number of workgroups, nor of words.
const BLOCK: usize = 100;
const LEN: usize = 5_000;

fn values(len: usize) -> Vec<f32> {
    (0..len).map(|i| value(i / 100, i)).collect()
}

/// The first place where two vectors have not the same.
fn other<T: PartialEq + std::fmt::Debug>(what: &str, found: &[T], expected: &[T]) -> Difference {
    if found.len() != expected.len() {
        return Some(format!("{} of {what} were found, expected {}", found.len(), expected.len()));
    }
    let place = found.iter().zip(expected).position(|(found, expected)| found != expected)?;
    Some(format!("{what} {place}: found {:?}, expected {:?}", found[place], expected[place]))
}

fn ends(gpu: &Gpu) -> Result<Difference, GpuError> {
    // Zeros of both signs are one to the CPU.
    let values: Vec<f32> = values(LEN).iter().map(|x| x + 2.0).collect();
    let found = gpu.block_ends(&values, BLOCK)?;
    let mut expected = vec![[0.0; 2]; LEN / BLOCK];
    cpu::block_ends(Isa::detect(), &values, BLOCK, &mut expected);
    Ok(other("block", &found, &expected))
}

fn codes(gpu: &Gpu, draw: Draw) -> Result<Difference, GpuError> {
    let (isa, values, low, inverse) = (Isa::detect(), values(LEN), -0.9, 7.3);
    let mut words = vec![0; LEN];
    let rounding = match draw {
        Draw::Nearest => Rounding::Nearest,
        Draw::Stochastic { seed, purpose, first } => {
            random_words(isa, seed, purpose, first, &mut words);
            Rounding::Stochastic(&words)
        }
    };
    let blocks = LEN / BLOCK;
    let grids = vec![[low, inverse]; blocks];
    let found = gpu.quantize(&values, BLOCK, &grids, 15, draw)?;
    let mut expected = vec![0; LEN];
    cpu::quantize(isa, &values, BLOCK, &grids, 15, rounding, &mut expected);
    let unsigned = other("code", &found, &expected);
    let found = gpu.quantize_symmetric(&values, BLOCK, &vec![inverse; blocks], 7, draw)?;
    let mut expected = vec![0; LEN];
    cpu::quantize_symmetric(isa, &values, inverse, 7, rounding, &mut expected);
    Ok(unsigned.or_else(|| other("signed code", &found, &expected)))
}

fn points(gpu: &Gpu) -> Result<Difference, GpuError> {
    let (low, step) = (-3.7f32, 0.013f32);
    let codes: Vec<u8> = (0..LEN).map(|i| (i * 7_919 % 256) as u8).collect();
    let found = gpu.dequantize(&codes, BLOCK, &vec![[low, step]; LEN / BLOCK])?;
    let found: Vec<f64> = found.into_iter().map(f64::from).collect();
    let product = |i: usize| f64::from(codes[i]) * f64::from(step);
    let expected: Vec<f64> = (0..LEN).map(|i| f64::from(low) + product(i)).collect();
    Ok(difference("value", &found, &expected, |i| 1.01 * HALF_ULP * (product(i) + expected[i].abs())))
}

fn rotation(gpu: &Gpu) -> Result<Difference, GpuError> {
    let (isa, len) = (Isa::detect(), 2 * 4096);
    let (mut expected, mut flips) = (values(len), vec![0; len / 32]);
    random_words(isa, 3, 4, 0, &mut flips);
    let found = gpu.rotate(&expected, &[&flips, &flips])?;
    for _ in 0..2 {
        hadamard::flip_signs(isa, &flips, &mut expected);
        expected.chunks_mut(4096).for_each(|block| hadamard::hadamard(isa, block));
    }
    Ok(other("value", &found, &expected))
}

fn buckets(gpu: &Gpu) -> Result<Difference, GpuError> {
    let (values, thresholds) = (values(LEN), [0.1, 0.2, 0.4, 0.6, 0.8, 1.2, 3.0]);
    let found = gpu.bucketize(&values, BLOCK, &[1.3; LEN / BLOCK], &thresholds)?;
    let mut expected = vec![0; LEN];
    bucketize::bucketize(Isa::detect(), &values, 1.3, &thresholds, &mut expected);
    Ok(other("code", &found, &expected))
}

fn selection(gpu: &Gpu) -> Result<Difference, GpuError> {
    let values = values(LEN);
    let found = gpu.select_largest(&values, LEN / 10)?;
    let mut search = Search::new((LEN / 10) as u64);
    while search.next_digit().is_some() {
        search.narrow(&search.clone().count(Isa::detect(), &values));
    }
    let expected = search.threshold().map(|last| take(Isa::detect(), &values, last.key, last.ties));
    Ok(other("index", &found, &expected.unwrap_or_default()))
}

fn noise(gpu: &Gpu, level: Level) -> Result<Difference, GpuError> {
    let (stream, first) = (Stream { key: &[0x5a; 32], domain: 1, segment: 2 }, u64::from(u32::MAX) - 99);
    let found = gpu.noise(stream, level, first, LEN)?;
    let mut expected = vec![0; LEN];
    discrete_gaussian::noise(Isa::detect(), stream, level, first, &mut expected);
    Ok(other("coordinate", &found, &expected))
}

fn integer_sums(gpu: &Gpu) -> Result<Difference, GpuError> {
    let (rows, columns) = (5, LEN / 5);
    let values = values(LEN);
    let scales: Vec<Scale> = (0..rows).map(|row| Scale::rounded_down(1.3, 15 + row)).collect();
    let found = gpu.integer_sums(&values, columns, &scales)?;
    let (mut expected, mut row) = (vec![0; columns], vec![0; columns]);
    for (values, scale) in values.chunks(columns).zip(scales) {
        quantize(Isa::detect(), values, &[], scale, &mut row);
        add_integers(Isa::detect(), &row, &mut expected);
    }
    Ok(other("sum", &found, &expected))
}
