//! Sums that do not depend on the grouping of their terms: two f64 that are exact together.
//!
//! Each addition is rounded, and the kernel adds up the rounding errors beside the sum (Knuth, The Art of Computer
//! Programming vol. 2, section 4.2.2, theorem B; Ogita, Rump and Oishi, Accurate sum and dot product, 2005). The
//! rounding errors of products count too. At the end sum and error are added, with one rounding. The bits depend
//! neither on the order of clients nor on their grouping into partial sums.
//!
//! **When the pair is exact.** Let every term be a multiple of 2^l, let the magnitudes of all terms add up to less than
//! 2^h, and let there be n terms. An addition is off by at most 2^(h-54), and so is a product. So 2n errors add up to
//! at most n 2^(h-53), in multiples of 2^l. They are exact in f64, and so is the pair, if **h - l <= 106 - log2 n**.
//! f32 values have 24 bits, and example counts about 10. With a thousand clients that leaves 52 binary orders of
//! magnitude, or 15 decimal ones, between the largest and the smallest value of a coordinate. f64 values of equal
//! weights have 33 binary ones. One huge value beside ordinary ones does no harm: the bits that it pushes out of the
//! sum fit the error.
//!
//! **Otherwise** each addition to the error is off by at most 2^-53 of it. So the pair is off by at most n^2 2^-106 of
//! the sum of magnitudes: about the square of f64's last bit. Products below 2^-969 lose bits that f64 cannot hold.
//!
//! **Cost.** Usually none. A sum of floats with few bits is exact in one f64, and the processor sets a flag when it
//! rounds an operation. So the kernel first sums some hundred columns in one f64. Only if the flag is set does it sum
//! them again in two.

/// Columns that are first summed in one f64. Enough to make reading the flag cheap, and few enough that one wide column
/// repeats little work.
pub(super) const TRIED: usize = 512;

/// A rounded sum and its exact rounding error. Two pairs compare by their sums, and by their errors if the sums are
/// equal.
///
/// Knuth, The Art of Computer Programming vol. 2, section 4.2.2, theorem B.
#[inline(always)]
pub(super) fn exact_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let from_b = sum - a;
    (sum, (a - (sum - from_b)) + (b - from_b))
}

/// Adds sums with their errors to others, column by column.
pub fn add_sums(more: &[f64], more_errors: &[f64], sums: &mut [f64], errors: &mut [f64]) {
    for (((sum, error), more), more_error) in sums.iter_mut().zip(errors).zip(more).zip(more_errors) {
        let (total, rest) = exact_sum(*sum, *more);
        *sum = total;
        *error = *error + rest + more_error;
    }
}

/// Moves all of each error into its sum that fits there: the sum alone is then the pair, rounded once.
pub fn settle(sums: &mut [f64], errors: &mut [f64]) {
    for (sum, error) in sums.iter_mut().zip(errors) {
        (*sum, *error) = exact_sum(*sum, *error);
    }
}

/// Watches whether operations on f64 were rounded between [`start`](Self::start) and [`end`](Self::end).
pub(super) struct Rounding;

#[cfg(target_arch = "x86_64")]
impl Rounding {
    /// The state in which Rust programs run: exceptions masked, rounding to nearest, no flag set.
    const CLEAR: u32 = 0x1f80;
    const INEXACT: u32 = 0x20;

    /// Whether this processor reports rounding.
    pub(super) const IS_SEEN: bool = true;

    /// Starts to watch the computation of `sums`.
    #[inline(always)]
    pub(super) fn start(sums: &mut [f64]) {
        // SAFETY: clears flags of MXCSR that no other code reads, and leaves the control bits at their usual values.
        // The compiler assumes that the asm reads and changes the memory of `sums`, so operations on them stay after
        // it.
        unsafe {
            std::arch::asm!("ldmxcsr [{}]", in(reg) &Self::CLEAR, in("rax") sums.as_mut_ptr(), options(nostack));
        }
    }

    /// Whether the computation of `sums` rounded anything.
    #[inline(always)]
    pub(super) fn end(sums: &[f64]) -> bool {
        let mut flags = 0_u32;
        // SAFETY: writes MXCSR to a variable. The compiler assumes that the asm reads the memory of `sums`, so
        // operations that end in them stay before it.
        unsafe {
            std::arch::asm!("stmxcsr [{}]", in(reg) &mut flags, in("rax") sums.as_ptr(), options(nostack));
        }
        flags & Self::INEXACT != 0
    }
}

#[cfg(not(target_arch = "x86_64"))]
impl Rounding {
    /// Whether this processor reports rounding.
    pub(super) const IS_SEEN: bool = false;

    pub(super) fn start(_: &mut [f64]) {}

    pub(super) fn end(_: &[f64]) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_exact() {
        assert_eq!(exact_sum(1e30, 1.0), (1e30, 1.0));
        assert_eq!(exact_sum(1.0, 1e30), (1e30, 1.0));
        assert_eq!(exact_sum(1e-30, -1e30), (-1e30, 1e-30));
        assert_eq!(exact_sum(0.1, 0.2), (0.30000000000000004, -2.0f64.powi(-55)));
        assert_eq!(exact_sum(3.0, -3.0), (0.0, 0.0));
    }

    #[test]
    fn rounding_is_seen() {
        let rounded = |start: f64, more: f64| {
            let mut sums = [start; 40];
            Rounding::start(&mut sums);
            for sum in &mut sums {
                *sum += more;
            }
            Rounding::end(&sums)
        };
        assert!(rounded(1.0, 1e-30) && rounded(0.1, 0.2));
        if Rounding::IS_SEEN {
            assert!(
                !rounded(1.0, 0.25) && !rounded(0.0, -0.0) && !rounded(3.0, -3.0) && !rounded(0.0, 5e-324)
            );
        }
    }

    #[test]
    fn sums_of_sums_keep_their_errors() {
        let (mut sums, mut errors) = ([1e30], [0.0]);
        add_sums(&[1.0], &[1e-30], &mut sums, &mut errors);
        add_sums(&[-1e30], &[0.0], &mut sums, &mut errors);
        assert_eq!(sums[0] + errors[0], 1.0);
        add_sums(&[-1.0], &[0.0], &mut sums, &mut errors);
        assert_eq!((sums[0], errors[0]), (-1.0, 1.0 + 1e-30));
    }
}
