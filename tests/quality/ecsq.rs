//! `ecsq` against the error of ideal entropy coding of the same quantizer, without side data.

use super::{DISTRIBUTIONS, Distribution, VALUES, run};

/// For each number of bits per value, the NMSE of each distribution, computed with NumPy: a uniform step with a plain
/// dead zone, and codes at their entropy.
const IDEAL: [(f64, [f64; 4]); 4] = [
    (0.32, [0.739, 0.610, 0.481, 0.159]),
    (1.0, [0.348, 0.261, 0.216, 0.0042]),
    (2.0, [0.0895, 0.073, 0.062, 0.0014]),
    (4.0, [0.0056, 0.0048, 0.0039, 9e-5]),
];

/// The least possible NMSE of the Gaussian, 2^(-2R).
fn bound(bits: f64) -> f64 {
    (-2.0 * bits).exp2()
}

#[test]
fn ecsq_has_the_error_of_ideal_coding_within_3_per_cent() {
    for (bits, ideal) in IDEAL {
        for (distribution, ideal) in DISTRIBUTIONS.into_iter().zip(ideal) {
            let found = run(&format!("ecsq:bits={bits}"), &distribution.values(VALUES), 1);
            assert!(found.bits <= 1.002 * bits, "{distribution:?} at {bits}: {found:?}");
            assert!(found.nmse <= 1.03 * ideal, "{distribution:?} at {bits}: {found:?}, expected {ideal}");
            if distribution == Distribution::Gaussian {
                assert!(found.nmse >= bound(found.bits), "{found:?} is better than can be");
            }
        }
    }
}

#[test]
fn ecsq_spends_little_on_small_vectors() {
    for (len, bits, most) in [(1000, 2.0, 0.11), (4000, 1.0, 0.37), (20_000, 0.32, 0.76)] {
        let found = run(&format!("ecsq:bits={bits}"), &Distribution::Gaussian.values(len), 1);
        assert!(found.bits <= 1.01 * bits && found.nmse <= most, "{len} at {bits}: {found:?}");
    }
}

#[test]
fn ecsq_stays_near_the_bound_at_many_bits() {
    let values = Distribution::Gaussian.values(VALUES);
    for (bits, most) in [(6.0, 1.45), (8.0, 1.6)] {
        let found = run(&format!("ecsq:bits={bits}"), &values, 1);
        // Uniform steps at their entropy are 1.42 times the bound.
        assert!(found.bits <= bits && found.nmse <= most * bound(found.bits), "{found:?}");
    }
}
