//! Noise and sums of integers on every adapter, against the CPU's kernels to the bit.

use super::codecs::{everywhere, first_other};
use super::devices;
use super::sample::{ADDED, Random, STORED, Sample};
use fedmill::gpu::RingSlot;
use fedmill::gpu::integers::{IntegerSums, IntegersJob, NoiseJob};
use fedmill::gpu::job::Options;
use fedmill::kernels::chacha20::Stream;
use fedmill::kernels::clip_integers::{Scale, add_quantized};
use fedmill::kernels::discrete_gaussian::{Level, noise};
use fedmill::kernels::integer_sum::add_integers;
use fedmill::kernels::lanes::Isa;

const LEVELS: [Level; 3] = [Level::L1, Level::L2, Level::L3];
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

/// The CPU's sums of columns, and of the squares of rows.
fn expected_integers(values: &[f32], base: &[f32], scales: &[Scale]) -> IntegerSums {
    let columns = values.len() / scales.len();
    let base: Vec<f64> = base.iter().map(|x| f64::from(*x)).collect();
    let mut sums = vec![0; columns];
    let add =
        |(values, scale): (&[f32], &Scale)| add_quantized(Isa::detect(), values, &base, *scale, &mut sums);
    let squares = values.chunks(columns).zip(scales).map(add).collect();
    IntegerSums { sums, squares }
}

#[track_caller]
fn assert_same(found: &IntegerSums, expected: &IntegerSums, what: &str) {
    assert_eq!(first_other(&found.sums, &expected.sums), None, "sums of {what}");
    assert_eq!(first_other(&found.squares, &expected.squares), None, "squares of {what}");
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
fn integers_are_those_of_the_kernel() {
    everywhere(|gpu| {
        for (count, columns) in [(1, 1), (2, 255), (3, 256), (5, 257), (13, 1031), (100, 3), (2, 9001)] {
            let (values, scales) = (rows(count, columns), scales(count));
            for base in [Vec::new(), rows(1, columns)] {
                let found = gpu.integers(&values, &base, &scales).unwrap();
                let want = expected_integers(&values, &base, &scales);
                assert_same(&found, &want, &format!("{count} rows of {columns} on {gpu:?}"));
                assert!(columns < 255 || found.sums.iter().any(|sum| *sum != 0));
                // The negative control: a scale that differs by its last bits.
                if columns > 255 {
                    let mut others = scales.clone();
                    others[0] = others[0].weighted(1.0 - 1.0 / 4096.0);
                    let other = expected_integers(&values, &base, &others);
                    assert!(first_other(&found.sums, &other.sums).is_some());
                    assert!(first_other(&found.squares, &other.squares).is_some());
                }
            }
        }
        assert!(gpu.integers(&[], &[], &[Scale::ZERO]).unwrap().sums.is_empty());
    });
}

/// Rows of every stored float, of which some are weights and others deltas.
#[test]
fn rows_of_narrow_floats_and_of_both_kinds_count_as_on_the_cpu() {
    for gpu in devices(&Options::default()) {
        for (stored, kind) in STORED.into_iter().flat_map(|stored| ADDED.map(|kind| (stored, kind))) {
            let sample = Sample::new(stored, kind, 4, 4099).with_references(1);
            let exponent = -sample.largest(&[0, 1, 2, 3]).max(f32::MIN_POSITIVE).log2().ceil() as i32;
            let scales: Vec<Scale> =
                (0..4).map(|row| Scale::rounded_down(1.1, exponent.min(0) + 12 * row)).collect();
            let less_base = vec![true, false, false, true];
            let job =
                IntegersJob { shape: sample.shape(), scales: scales.clone(), less_base: less_base.clone() };
            let program = gpu.compile_integers(&job).unwrap();
            let mut slot = RingSlot::for_integers(&gpu, &program).unwrap();
            sample.fill(&mut slot);
            let found = slot.integers(&program, None).unwrap();
            let mut want = IntegerSums { sums: vec![0; sample.columns], squares: Vec::new() };
            for ((row, scale), less) in sample.rows.iter().zip(scales).zip(less_base) {
                let base = if less { &sample.references[0][..] } else { &[] };
                let one = expected_integers(row, base, &[scale]);
                add_integers(Isa::detect(), &one.sums, &mut want.sums);
                want.squares.extend(one.squares);
            }
            assert_same(&found, &want, &format!("{kind:?} in {stored:?} on {gpu:?}"));
        }
    }
}

/// A base of any exponent below that of the values: the difference is rounded as f64 rounds it.
#[test]
fn differences_of_any_exponents_are_rounded_as_on_the_cpu() {
    let floats = |seed: u64, most: i32| -> Vec<f32> {
        let mut random = Random(seed);
        let float = |bits: u64| {
            let exponent = (bits >> 40) as u32 % (most + 128) as u32;
            f32::from_bits((bits as u32 & 0x807f_ffff) | exponent << 23)
        };
        (0..3000).map(|_| float(random.next())).collect()
    };
    everywhere(|gpu| {
        for most in [-126, -90, -20, 0, 60, 127] {
            let (values, base) = (floats(77, most), floats(78, most));
            for scale in [Scale::rounded_down(1.0, 49 - most), Scale::rounded_down(1.37, 30 - most)] {
                let found = gpu.integers(&values, &base, &[scale]).unwrap();
                let want = expected_integers(&values, &base, &[scale]);
                assert_same(&found, &want, &format!("exponents up to {most} on {gpu:?}"));
            }
        }
    });
}

/// The differences next to a power of two lie between two numbers of f64: nearer to one of them, or at a tie.
#[test]
fn ties_are_rounded_to_even() {
    let tiny = |power: i32| 2f32.powi(power);
    let next = |x: f32| f32::from_bits(x.to_bits() + 1);
    let before = |x: f32| f32::from_bits(x.to_bits() - 1);
    let mut pairs = vec![(1.0, 1.0), (0.0, -0.0), (-0.0, 0.0), (f32::MAX, 0.0), (next(0.0), -1.0)];
    for power in [-52, -53, -54, -55, -60, -100, -126] {
        let t = tiny(power);
        for base in [t, next(t), before(t), 1.5 * t] {
            let values = [1.0f32, next(1.0), before(1.0), 1.5];
            pairs.extend(values.iter().flat_map(|x| [(*x, base), (*x, -base), (-*x, base), (base, *x)]));
        }
    }
    let (values, base): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
    everywhere(|gpu| {
        for power in [0, 1, 23, 40, 50] {
            let scale = [Scale::rounded_down(1.0, power)];
            // The largest float is far above every bound.
            let (values, base) =
                if power > 0 { (&values[5..], &base[5..]) } else { (&values[..3], &base[..3]) };
            let found = gpu.integers(values, base, &scale).unwrap();
            assert_same(&found, &expected_integers(values, base, &scale), &format!("2^{power} on {gpu:?}"));
        }
        // 1 - 2^-60 is 1 in f64, and 1 - 2^-53 is not.
        let scale = [Scale::rounded_down(1.0, 40)];
        let found = gpu.integers(&[1.0, 1.0], &[tiny(-60), tiny(-53)], &scale).unwrap();
        assert_eq!(found.sums, [1 << 40, (1 << 40) - 1], "{gpu:?}");
    });
}

/// A device may treat subnormal floats as zero, but not words.
#[test]
fn subnormal_values_and_those_not_finite_count_as_on_the_cpu() {
    everywhere(|gpu| {
        let subnormal = [1e-45f32, -1e-45, 1e-40, f32::MIN_POSITIVE, -f32::MIN_POSITIVE, 0.0];
        let base = [0.0f32, -1e-45, 3e-45, 1e-40, 1e-45, -1e-45];
        let scale = [Scale::rounded_down(1.0, 149)];
        for base in [&[][..], &base] {
            let found = gpu.integers(&subnormal, base, &scale).unwrap();
            assert_same(&found, &expected_integers(&subnormal, base, &scale), &format!("{gpu:?}"));
            assert_eq!(found.sums[0], 1, "{gpu:?}");
        }
        let void = [f32::NAN, f32::INFINITY, -f32::INFINITY, f32::MAX];
        let found = gpu.integers(&void, &[], &[Scale::ZERO]).unwrap();
        assert_eq!(found, IntegerSums { sums: vec![0; 4], squares: vec![0] }, "{gpu:?}");
    });
}

/// Squares of the largest integers that a bound admits fit, and larger integers exceed every bound.
#[test]
fn squares_of_large_integers_are_exact_or_the_largest() {
    everywhere(|gpu| {
        let mut values = vec![1.0f32; 5000];
        let scale = [Scale::rounded_down(1.0, 50)];
        let found = gpu.integers(&values, &[], &scale).unwrap();
        assert_eq!(found.squares, [5000 << 100], "{gpu:?}");
        values[4097] = -2.0;
        let found = gpu.integers(&values, &[], &scale).unwrap();
        assert_eq!(found.squares, [u128::MAX], "{gpu:?}");
    });
}

/// Several streams, added and subtracted, on integers of any size; and each choice of neighbours among them.
#[test]
fn noise_of_the_chosen_streams_is_added_to_integers() {
    let (one, other) = ([1; 32], [2; 32]);
    let streams = [
        (Stream { key: &one, domain: 3, segment: 9 }, false),
        (Stream { key: &other, domain: 4, segment: 9 }, true),
        (Stream { key: &one, domain: 5, segment: 0 }, true),
    ];
    everywhere(|gpu| {
        for level in LEVELS {
            let job = NoiseJob { level, streams: &streams, columns: 1000 };
            let program = gpu.compile_noise(&job).unwrap();
            let mut slot = RingSlot::for_noise(gpu, &program).unwrap();
            for (first, count) in [(0, 1000), (u64::from(u32::MAX) - 100, 257), (77, 1)] {
                for chosen in [0..3, 0..1, 1..2, 1..3, 2..3, 2..2] {
                    let mut integers: Vec<i64> = (0..count as i64).map(|i| (i - 500) << 45 | i).collect();
                    slot.fill_integers(level, first, chosen.clone(), &integers).unwrap();
                    let found = slot.noise(&program, None).unwrap();
                    let mut draws = vec![0; count];
                    for (stream, is_negative) in &streams[chosen.clone()] {
                        noise(Isa::detect(), *stream, level, first, &mut draws);
                        let sign = if *is_negative { -1 } else { 1 };
                        integers.iter_mut().zip(&draws).for_each(|(sum, draw)| *sum += sign * draw);
                    }
                    let what = format!("{level:?}: {count} from {first} of {chosen:?} on {gpu:?}");
                    assert_eq!(first_other(&found, &integers), None, "{what}");
                }
            }
        }
    });
}

/// The key is in the device's memory while it is needed, and zeros are there afterwards.
#[test]
fn keys_are_overwritten_in_device_memory() {
    for gpu in devices(&Options::default()) {
        let streams = [(stream(3), false), (stream(4), true)];
        let program =
            gpu.compile_noise(&NoiseJob { level: Level::L2, streams: &streams, columns: 10 }).unwrap();
        let holds_key = |words: &[u32]| {
            let bytes: &[u8] = bytemuck::cast_slice(words);
            bytes.windows(KEY.len()).filter(|window| *window == KEY).count()
        };
        assert_eq!(holds_key(&gpu.keys(&program).unwrap()), 2, "{gpu:?}");
        gpu.wipe(&program).unwrap();
        let words = gpu.keys(&program).unwrap();
        assert!(words.len() == 24 && words.iter().all(|word| *word == 0), "{gpu:?}: {words:?}");
        // Without its key the program makes other noise.
        let mut slot = RingSlot::for_noise(&gpu, &program).unwrap();
        slot.fill_integers(Level::L2, 0, 0..1, &[0; 10]).unwrap();
        assert_ne!(slot.noise(&program, None).unwrap(), expected(3, Level::L2, 0, 10), "{gpu:?}");
    }
}
