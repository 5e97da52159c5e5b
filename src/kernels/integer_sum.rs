//! Sums of integer rows, and their values as floats.
//!
//! The sums are exact, so they depend neither on order nor on grouping. Agreement: bits.

use crate::kernels::dispatch;

dispatch! {
    /// Adds a row of integers to sums. The caller ensures that no sum overflows i64. Integers with a verified norm are
    /// within its bound.
    pub fn add_integers<A: Arch>(row: &[i64], sums: &mut [i64]) {
        let sums = &mut sums[..row.len()];
        for i in 0..row.len() {
            sums[i] = sums[i].wrapping_add(row[i]);
        }
    }
}

dispatch! {
    /// Adds a multiple of a row to sums. The caller ensures that the sums fit i64.
    pub fn add_multiple<A: Arch>(row: &[i32], factor: i32, sums: &mut [i64]) {
        let sums = &mut sums[..row.len()];
        for i in 0..row.len() {
            sums[i] = sums[i].wrapping_add(i64::from(row[i]) * i64::from(factor));
        }
    }
}

dispatch! {
    /// Each integer divided by two to the power of `bits`, at least one, and rounded to nearest, halves up. The caller
    /// ensures that the result fits i32.
    pub fn round_shifted<A: Arch>(integers: &[i64], bits: u32, out: &mut [i32]) {
        let out = &mut out[..integers.len()];
        for i in 0..integers.len() {
            out[i] = (integers[i].wrapping_add(1 << (bits - 1)) >> bits) as i32;
        }
    }
}

dispatch! {
    /// The value of each integer: `integer * unit`, in f64.
    pub fn to_floats<A: Arch>(integers: &[i64], unit: f64, out: &mut [f64]) {
        let out = &mut out[..integers.len()];
        for i in 0..integers.len() {
            out[i] = integers[i] as f64 * unit;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::lanes::Isa;

    #[test]
    fn rows_add_up_in_any_order() {
        for isa in Isa::available() {
            for len in [0, 1, 7, 8, 9, 33] {
                let rows: Vec<Vec<i64>> =
                    (0..5).map(|row| (0..len).map(|i| (((row - 2) * (i - 3)) << 40) | i).collect()).collect();
                let mut expected = vec![7; len as usize];
                for (i, sum) in expected.iter_mut().enumerate() {
                    *sum += rows.iter().map(|row| row[i]).sum::<i64>();
                }
                let (mut forward, mut backward) = (vec![7; len as usize], vec![7; len as usize]);
                rows.iter().for_each(|row| add_integers(isa, row, &mut forward));
                rows.iter().rev().for_each(|row| add_integers(isa, row, &mut backward));
                assert_eq!((&forward, &backward), (&expected, &expected), "{len} on {isa}");
                // The negative control: one row less.
                add_integers(isa, &vec![1; len as usize], &mut backward);
                assert!(len == 0 || backward != expected);
            }
        }
    }

    #[test]
    fn multiples_add_up_and_are_rounded() {
        for isa in Isa::available() {
            for len in [0, 1, 7, 8, 9, 33] {
                let row: Vec<i32> = (0..len).map(|i| (i - 5) * 60_000_000).collect();
                let mut sums = vec![3; len as usize];
                add_multiple(isa, &row, -250, &mut sums);
                let expected: Vec<i64> = row.iter().map(|x| 3 - 250 * i64::from(*x)).collect();
                assert_eq!(sums, expected, "{len} on {isa}");
                let mut rounded = vec![0; len as usize];
                round_shifted(isa, &sums, 8, &mut rounded);
                let nearest = |x: &i64| (*x as f64 / 256.0 + 0.5).floor() as i32;
                assert_eq!(rounded, expected.iter().map(nearest).collect::<Vec<_>>(), "{len} on {isa}");
            }
        }
    }

    #[test]
    fn integers_are_multiples_of_a_unit() {
        for isa in Isa::available() {
            let integers: Vec<i64> = (-9..10).map(|i| i * 0x1_0000_0001).collect();
            let mut found = vec![f64::NAN; integers.len()];
            to_floats(isa, &integers, 0.125, &mut found);
            let expected: Vec<f64> = integers.iter().map(|x| *x as f64 / 8.0).collect();
            assert_eq!(found, expected, "{isa}");
        }
    }
}
