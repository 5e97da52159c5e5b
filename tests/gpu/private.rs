//! Noise and sums of integers on every adapter, against the CPU's kernels to the bit.

use super::codecs::{everywhere, first_other};
use super::devices;
use super::sample::Random;
use fedmill::gpu::job::Options;
use fedmill::kernels::chacha20::Stream;
use fedmill::kernels::clip_integers::{Scale, quantize};
use fedmill::kernels::discrete_gaussian::{Level, noise};
use fedmill::kernels::integer_sum::add_integers;
use fedmill::kernels::lanes::Isa;

const LEVELS: [Level; 2] = [Level::L2, Level::L3];
const KEY: [u8; 32] = *b"another key, which is no secret.";

fn stream(domain: u32) -> Stream<'static> {
    Stream { key: &KEY, domain, segment: 0x89ab_cdef }
}

/// The kernel's noise.
fn expected(domain: u32, level: Level, first: u64, count: usize) -> Vec<i64> {
    let mut expected = vec![0; count];
    noise(Isa::detect(), stream(domain), level, first, &mut expected);
    expected
}

#[test]
fn noise_is_that_of_the_kernel() {
    everywhere(|gpu| {
        for level in LEVELS {
            for count in [1, 3, 255, 256, 257, 1031] {
                // From the start, and at the place where the block number carries into its second word.
                for first in [0, 77, u64::from(u32::MAX) / 2 - 100, u64::from(u32::MAX) - 100] {
                    let found = gpu.noise(stream(3), level, first, count).unwrap();
                    let other = first_other(&found, &expected(3, level, first, count));
                    assert_eq!(other, None, "{level:?}: {count} from {first} on {gpu:?}");
                }
            }
        }
    });
}

#[test]
fn portions_of_noise_are_those_of_the_whole() {
    for gpu in devices(&Options::default()) {
        for level in LEVELS {
            let portions = [0..300, 300..301, 301..1000];
            let of = |portion: std::ops::Range<u64>| {
                let count = (portion.end - portion.start) as usize;
                gpu.noise(stream(4), level, portion.start, count).unwrap()
            };
            let found: Vec<i64> = portions.into_iter().flat_map(of).collect();
            assert_eq!(first_other(&found, &expected(4, level, 0, 1000)), None, "{level:?} on {gpu:?}");
            assert!(of(5..5).is_empty());
        }
    }
}

/// The negative control: the check notices another key, domain, segment, level and start.
#[test]
fn other_noise_is_noticed() {
    for gpu in devices(&Options::default()) {
        let found = gpu.noise(stream(1), Level::L2, 0, 40).unwrap();
        assert_eq!(first_other(&found, &expected(1, Level::L2, 0, 40)), None);
        for other in
            [expected(2, Level::L2, 0, 40), expected(1, Level::L3, 0, 40), expected(1, Level::L2, 1, 40)]
        {
            assert!(first_other(&found, &other).is_some());
        }
        for (key, segment) in [([7; 32], 0x89ab_cdef), (KEY, 0)] {
            let other = gpu.noise(Stream { key: &key, domain: 1, segment }, Level::L2, 0, 40);
            assert!(first_other(&other.unwrap(), &found).is_some());
        }
    }
}

/// Rows of values of all exponents that clipped updates have, one after the other.
fn rows(rows: usize, columns: usize) -> Vec<f32> {
    let mut random = Random((rows * 7 + columns) as u64);
    let special = [0.0, -0.0, 1e-45, -1e-42, f32::MIN_POSITIVE, 1.999_999_9, -1.0];
    let value = |i: usize| match i % 11 {
        k if k < special.len() && i.is_multiple_of(3) => special[k],
        k => (random.next() >> 40) as f32 / (1u64 << 24) as f32 * [1.0, -1.9, 1e-3, -1e-6][k % 4],
    };
    (0..rows * columns).map(value).collect()
}

fn expected_sums(values: &[f32], columns: usize, scales: &[Scale]) -> Vec<i64> {
    let (mut sums, mut row) = (vec![0; columns], vec![0; columns]);
    for (values, scale) in values.chunks(columns).zip(scales) {
        quantize(Isa::detect(), values, &[], *scale, &mut row);
        add_integers(Isa::detect(), &row, &mut sums);
    }
    sums
}

/// Scales of narrow and wide grids, a scale that makes integers of subnormal values, and a scale of zero.
fn scales(rows: usize) -> Vec<Scale> {
    let scale = |row: usize| match row % 6 {
        0 => Scale::rounded_down(1.0, 21),
        1 => Scale::rounded_down(1.37, 33),
        2 => Scale::rounded_down(1.999, 1),
        3 => Scale::rounded_down(1.1, -40),
        4 => Scale::ZERO,
        _ => Scale::rounded_down(1.7, 39),
    };
    (0..rows).map(scale).collect()
}

#[test]
fn sums_of_integers_are_those_of_the_kernel() {
    everywhere(|gpu| {
        for (count, columns) in [(1, 1), (2, 255), (3, 256), (5, 257), (13, 1031), (100, 3)] {
            let (values, scales) = (rows(count, columns), scales(count));
            let found = gpu.integer_sums(&values, columns, &scales).unwrap();
            let want = expected_sums(&values, columns, &scales);
            assert_eq!(first_other(&found, &want), None, "{count} rows of {columns} on {gpu:?}");
            assert!(columns < 255 || found.iter().any(|sum| *sum != 0));
            // The negative control: a scale that differs by its last bits.
            if columns > 255 {
                let mut others = scales.clone();
                others[0] = others[0].shrunk();
                assert!(first_other(&found, &expected_sums(&values, columns, &others)).is_some());
            }
        }
        assert!(gpu.integer_sums(&[], 0, &[Scale::ZERO]).unwrap().is_empty());
        assert_eq!(gpu.integer_sums(&[], 2, &[]).unwrap(), [0, 0]);
    });
}

/// A device may treat subnormal floats as zero, but not words.
#[test]
fn subnormal_values_and_those_not_finite_count_as_on_the_cpu() {
    everywhere(|gpu| {
        let subnormal = [1e-45f32, -1e-45, 1e-40, f32::MIN_POSITIVE, -f32::MIN_POSITIVE, 0.0];
        let scale = [Scale::rounded_down(1.0, 149)];
        let found = gpu.integer_sums(&subnormal, 6, &scale).unwrap();
        assert_eq!(found, expected_sums(&subnormal, 6, &scale), "{gpu:?}");
        assert_eq!(found[..2], [1, -1], "{gpu:?}");
        let void = [f32::NAN, f32::INFINITY, -f32::INFINITY, f32::MAX];
        assert_eq!(gpu.integer_sums(&void, 4, &[Scale::ZERO]).unwrap(), [0; 4], "{gpu:?}");
    });
}
