//! Counts signs: for each coordinate, the number of rows above zero minus the number below.
//!
//! Agreement: bits.

use crate::kernels::dispatch;
use crate::kernels::element::Element;

dispatch! {
    /// Adds the sign of each `row - base` to `counts`: one, minus one, or zero. `base` is as long as `row`, or empty
    /// for zero.
    pub fn add_signs<A: Arch, E: Element>(row: &[E], base: &[f64], counts: &mut [i32]) {
        let counts = &mut counts[..row.len()];
        if base.is_empty() {
            for (count, x) in counts.iter_mut().zip(row) {
                *count += sign(x.widen());
            }
        } else {
            for ((count, x), base) in counts.iter_mut().zip(row).zip(&base[..row.len()]) {
                *count += sign(x.widen() - base);
            }
        }
    }
}

#[inline(always)]
fn sign(x: f64) -> i32 {
    i32::from(x > 0.0) - i32::from(x < 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::lanes::Isa;

    #[test]
    fn signs_are_of_the_delta() {
        for isa in Isa::available() {
            let mut counts = [5, 5, 5, 5];
            add_signs(isa, &[2.0f32, -1.0, -0.0], &[], &mut counts);
            assert_eq!(counts, [6, 4, 5, 5]);
            add_signs(isa, &[2.0f32, -1.0, 1.0], &[2.0, -2.0, 3.0], &mut counts);
            assert_eq!(counts, [6, 5, 4, 5]);
        }
    }
}
