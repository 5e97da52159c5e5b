//! Masks and sums of elements of a field on every adapter, against the CPU's kernels to the bit.

use super::codecs::{everywhere, first_other};
use super::devices;
use fedmill::gpu::job::{GpuError, Options};
use fedmill::kernels::field::{self, P};
use fedmill::kernels::lanes::Isa;
use fedmill::kernels::masks::add_masks;

/// The lanes of a workgroup: sixteen for each invocation.
const GROUP: usize = 256 * 16;
/// The lanes of a seed.
const MOST_LANES: u64 = 1 << 36;

fn seeds(count: usize) -> Vec<[u8; 32]> {
    (0..count).map(|i| std::array::from_fn(|byte| (i * 53 + byte * 7 + i / 256) as u8)).collect()
}

fn expected_masks(seeds: &[[u8; 32]], first: u64, count: usize) -> Vec<u32> {
    let mut expected = vec![0; count];
    add_masks(Isa::detect(), seeds, first, &mut expected);
    expected
}

#[test]
fn masks_are_those_of_the_kernel() {
    let counts = [0, 1, 15, 16, 17, 255, 257, GROUP - 1, GROUP, GROUP + 1, 10_007];
    everywhere(|gpu| {
        for (turn, count) in counts.into_iter().enumerate() {
            let seeds = seeds([1, 2, 3, 0, 6][turn % 5]);
            for first in [0, 1, 15, 16, 17, 1 << 32, MOST_LANES - count as u64] {
                let found = gpu.masks(&seeds, first, count).unwrap();
                let other = first_other(&found, &expected_masks(&seeds, first, count));
                assert_eq!(other, None, "{count} lanes from {first} of {} seeds on {gpu:?}", seeds.len());
            }
        }
        for count in [10, 300] {
            let found = gpu.masks(&seeds(count), 5, 40).unwrap();
            assert_eq!(first_other(&found, &expected_masks(&seeds(count), 5, 40)), None, "{count} seeds");
        }
    });
}

/// Words at or above the prime, which an exhaustive search found.
#[test]
fn replaced_words_are_those_of_the_kernel() {
    let replaced = [([27; 32], 21_018_699), ([19; 32], 141_569_811), ([6; 32], 266_954_063)];
    everywhere(|gpu| {
        for (seed, lane) in replaced {
            for first in [lane - 20, lane] {
                let seeds = [[1; 32], seed, [2; 32]];
                let found = gpu.masks(&seeds, first, 40).unwrap();
                assert_eq!(
                    first_other(&found, &expected_masks(&seeds, first, 40)),
                    None,
                    "{lane} on {gpu:?}"
                );
            }
        }
    });
}

/// Runs are cut, so that no dispatch has more workgroups than a dimension holds. Here the memory cuts seeds and lanes.
#[test]
fn any_number_of_runs_gives_the_same_sums() {
    for gpu in devices(&Options { binding_bytes: Some(1 << 12), ..Options::default() }) {
        for (count, lanes, first) in [(300, 1100, 7), (1, 5000, 15), (129, 1024, 0)] {
            let found = gpu.masks(&seeds(count), first, lanes).unwrap();
            let want = expected_masks(&seeds(count), first, lanes);
            assert_eq!(first_other(&found, &want), None, "{count} seeds, {lanes} lanes on {gpu:?}");
        }
        for (count, columns) in [(1, 5000), (7, 1031), (300, 17), (1025, 9)] {
            assert_sums(&gpu, count, columns);
        }
    }
}

/// More lanes than a run has.
#[test]
fn many_lanes() {
    for gpu in devices(&Options::default()) {
        let (seeds, count) = (seeds(1), (1 << 23) + 99);
        let found = gpu.masks(&seeds, 3, count).unwrap();
        assert_eq!(first_other(&found, &expected_masks(&seeds, 3, count)), None, "{gpu:?}");
        assert_sums(&gpu, 1, (1 << 22) + 5);
    }
}

#[test]
fn lanes_beyond_those_of_a_seed_are_refused() {
    for gpu in devices(&Options::default()) {
        for (first, count) in [(MOST_LANES, 1), (MOST_LANES - 5, 6), (u64::MAX, 7)] {
            let refused = gpu.masks(&seeds(1), first, count).unwrap_err();
            assert!(matches!(refused, GpuError::TooMany { what: "lanes of a seed", .. }), "{refused}");
        }
        assert!(gpu.masks(&seeds(1), MOST_LANES, 0).unwrap().is_empty());
    }
}

/// The negative control: the check notices another seed, start, domain of the words, and one seed less.
#[test]
fn other_masks_are_noticed() {
    for gpu in devices(&Options::default()) {
        let found = gpu.masks(&seeds(2), 0, 40).unwrap();
        assert_eq!(first_other(&found, &expected_masks(&seeds(2), 0, 40)), None);
        for (other, first) in [(seeds(1), 0), (seeds(3), 0), (seeds(2), 1), (vec![[0; 32]; 2], 0)] {
            assert!(first_other(&found, &expected_masks(&other, first, 40)).is_some());
        }
    }
}

/// Elements at both ends of the field and everything between.
fn rows(count: usize, columns: usize) -> Vec<Vec<u32>> {
    const ENDS: [u32; 9] = [0, P - 1, 1, P - 5, P - 6, 5, 0x8000_0000, 0x7fff_ffff, 0xffff_0000];
    let row = |row: usize| {
        let mut elements = expected_masks(&[[row as u8; 32]], row as u64, columns);
        for (place, element) in elements.iter_mut().enumerate().filter(|(place, _)| place % 3 != 2) {
            *element = ENDS[(place + row) % ENDS.len()];
        }
        elements
    };
    (0..count).map(row).collect()
}

/// Factors of rows, among them all that make a product wrap.
fn factors(count: usize) -> Vec<u32> {
    let factors = [P - 1, 1, 0, 2, 0x1_0000, 0x8000_0000, P - 2, 5, 0xffff, 0xdead_beef, P / 2];
    factors.into_iter().cycle().take(count).collect()
}

/// Compares sums and combinations with the kernel, and with what a changed factor or element would give.
#[track_caller]
fn assert_sums(gpu: &fedmill::gpu::Gpu, count: usize, columns: usize) {
    let (rows, factors) = (rows(count, columns), factors(count));
    let slices: Vec<&[u32]> = rows.iter().map(|row| &row[..]).collect();
    let combined = |factor: &dyn Fn(usize) -> u32| {
        let mut sums = vec![0; columns];
        for (place, row) in rows.iter().enumerate() {
            field::add_multiple(Isa::detect(), factor(place), row, &mut sums);
        }
        sums
    };
    let what = format!("{count} rows of {columns} on {gpu:?}");
    let found = gpu.sum_elements(&slices).unwrap();
    assert_eq!(first_other(&found, &combined(&|_| 1)), None, "sums of {what}");
    let found = gpu.sum_multiples(&factors, &slices).unwrap();
    assert_eq!(first_other(&found, &combined(&|place| factors[place])), None, "multiples of {what}");
    // The negative control.
    if columns > 0 {
        let last = count - 1;
        let other = combined(&|place| field::add(factors[place], u32::from(place == last)));
        assert!(rows[last].iter().all(|x| *x == 0) || first_other(&found, &other).is_some(), "{what}");
    }
}

#[test]
fn sums_and_combinations_are_those_of_the_kernel() {
    let columns = [0, 1, 2, 3, 4, 5, 63, 1023, 1024, 1025, 10_007];
    everywhere(|gpu| {
        assert!(gpu.sum_elements(&[]).unwrap().is_empty());
        for (turn, columns) in columns.into_iter().enumerate() {
            assert_sums(gpu, [1, 2, 3, 5, 11, 40][turn % 6], columns);
            assert_sums(gpu, 11, columns);
        }
        assert_sums(gpu, 300, 33);
    });
}

/// Every product of two ends of the field: a column for each element, a row for each factor.
#[test]
fn products_of_the_ends_of_the_field_are_exact() {
    let ends: Vec<u32> = [0, 0x7fff_fff0, 0xffff_0000 - 8, 0xfff0, P - 16]
        .into_iter()
        .flat_map(|start: u32| (start..start + 16).filter(|element| *element < P))
        .collect();
    everywhere(|gpu| {
        for factor in &ends {
            let found = gpu.sum_multiples(&[*factor], &[&ends]).unwrap();
            let want: Vec<u32> =
                ends.iter().map(|end| (u64::from(*factor) * u64::from(*end) % u64::from(P)) as u32).collect();
            assert_eq!(first_other(&found, &want), None, "times {factor} on {gpu:?}");
        }
    });
}
