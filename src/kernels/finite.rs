//! Finds NaN and infinity, by bit pattern.
//!
//! Agreement: bits.

use crate::kernels::dispatch;
use crate::kernels::element::Element;

dispatch! {
    /// Whether every value of `row` is a finite number.
    pub fn all_finite<A: Arch, E: Element>(row: &[E]) -> bool {
        let mut largest = E::MIN_KEY;
        for x in row {
            largest = largest.max(x.magnitude());
        }
        largest < E::INFINITY
    }
}

dispatch! {
    /// Replaces minus zero by zero. Returns whether every value of `row` is finite.
    pub fn clear_signs_of_zeros<A: Arch>(row: &mut [f32]) -> bool {
        let mut largest = 0u32;
        for x in row {
            *x += 0.0;
            largest = largest.max(x.to_bits() & 0x7fff_ffff);
        }
        largest < f32::INFINITY.to_bits()
    }
}

/// The indices of the values of `row` that are not finite, in order.
pub fn non_finite<E: Element>(row: &[E]) -> impl Iterator<Item = usize> {
    row.iter().enumerate().filter(|(_, x)| x.magnitude() >= E::INFINITY).map(|(i, _)| i)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::lanes::Isa;
    use half::{bf16, f16};

    fn finds<E: Element>(good: &[E], bad: &[E]) {
        for isa in Isa::available() {
            for len in [0, 1, 31, 32, 33, 64, 65] {
                let mut row: Vec<E> = good.iter().copied().cycle().take(len).collect();
                assert!(all_finite(isa, &row));
                for at in 0..len {
                    for bad in bad {
                        let kept = std::mem::replace(&mut row[at], *bad);
                        assert!(!all_finite(isa, &row), "{bad:?} at {at} of {len} on {isa}");
                        assert_eq!(non_finite(&row).collect::<Vec<_>>(), [at]);
                        row[at] = kept;
                    }
                }
            }
        }
    }

    #[test]
    fn zeros_lose_their_sign_and_nothing_else_changes() {
        for isa in Isa::available() {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for len in [1, 31, 32, 33] {
                    let before: Vec<f32> =
                        [-0.0, 1.5, f32::MIN, -1e-45, 0.0].into_iter().cycle().take(len).collect();
                    let mut row = before.clone();
                    assert!(clear_signs_of_zeros(isa, &mut row));
                    assert_eq!(row, before);
                    assert!(row.iter().all(|x| x.to_bits() != (-0.0f32).to_bits()));
                    for at in 0..len {
                        let mut row = before.clone();
                        row[at] = bad;
                        assert!(!clear_signs_of_zeros(isa, &mut row), "{bad} at {at} of {len} on {isa}");
                    }
                }
            }
        }
    }

    #[test]
    fn non_finite_values_are_found_anywhere() {
        let payload = |sign: u32| f32::from_bits(sign << 31 | 0x7f80_0001);
        finds(
            &[0.0, -0.0, f32::MAX, f32::MIN, 1e-45],
            &[f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, payload(0), payload(1)],
        );
        finds(
            &[0.0, -0.0, f64::MAX, f64::MIN, 5e-324],
            &[f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY],
        );
        finds(&[bf16::ZERO, bf16::MAX, bf16::MIN], &[bf16::NAN, bf16::INFINITY, bf16::NEG_INFINITY]);
        finds(&[f16::ZERO, f16::MAX, f16::MIN], &[f16::NAN, f16::INFINITY, f16::NEG_INFINITY]);
    }
}
