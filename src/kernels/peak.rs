//! The most multiply-adds that a core can do: the limit for kernels over pairs of rows.

use crate::kernels::dispatch;
use crate::kernels::lanes::{FLOATS, Floats};

/// Independent sums: more than the latency of the multiply-add units times their number.
const CHAINS: usize = 12;

dispatch! {
    /// Does `rounds` rounds of independent f32 multiply-adds in registers. Returns their number, and a number that
    /// depends on all of them.
    pub fn multiply_adds<A: Arch>(rounds: usize) -> (u64, f32) {
        let seed = std::hint::black_box([0.999_f32; FLOATS]);
        // SAFETY: the array is sixteen floats.
        let factor = unsafe { A::Floats::load(seed.as_ptr()) };
        let mut sums = [factor; CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = sum.times_plus(factor, factor);
            }
        }
        let total = A::Floats::sums_of(sums).iter().sum();
        ((rounds * CHAINS * FLOATS) as u64, total)
    }
}
