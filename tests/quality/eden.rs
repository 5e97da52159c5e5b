//! EDEN against the errors of the best quantizers of a Gaussian, on every distribution.

use super::{Distribution, decoded, nmse, square};

const LEN: usize = 1 << 17;

const DENSE: [Distribution; 4] =
    [Distribution::Gaussian, Distribution::Laplace, Distribution::LogNormal, Distribution::StudentT3];

#[track_caller]
fn assert_near(found: f64, expected: f64, part: f64, what: &str) {
    assert!((found / expected - 1.0).abs() < part, "{what}: {found}, expected {expected}");
}

#[test]
fn unbiased_codes_err_as_much_on_all_data() {
    // D / (1 - D), where D is the error of the best quantizer (Lloyd, 1982; Max, 1960).
    for (bits, bar) in
        [(1, 0.5708), (2, 0.13312), (3, 0.03578), (4, 0.009592), (5, 0.002511), (6, 0.000645), (8, 4.12e-5)]
    {
        for source in DENSE {
            let values = source.values(LEN);
            // Few values lie beyond the outermost level, but they cause most of the error: draws differ by two per
            // cent.
            let draws = 9..13;
            let error = |seed| nmse(&values, &decoded(&format!("eden{bits}"), &values, seed));
            let mean = draws.clone().map(error).sum::<f64>() / draws.count() as f64;
            assert_near(mean, bar, 0.02, &format!("eden{bits} {source:?}"));
        }
    }
}

#[test]
fn codes_of_least_error_reach_the_best_quantizer() {
    let values = Distribution::StudentT3.values(LEN);
    for (bits, bar) in [(1, 0.3634), (2, 0.1175), (3, 0.03455), (4, 0.009501)] {
        let codec = format!("eden{bits}:scale=min-error");
        assert_near(nmse(&values, &decoded(&codec, &values, 9)), bar, 0.02, &codec);
    }
}

#[test]
fn codes_of_kept_norm_keep_it() {
    let values = Distribution::Laplace.values(LEN);
    for bits in [1, 2, 4] {
        let norm = |scale: &str| {
            let decoded = decoded(&format!("eden{bits}:scale={scale}"), &values, 9);
            (square(&decoded) / square(&values)).sqrt()
        };
        assert_near(norm("norm"), 1.0, 1e-4, "norm");
        assert!(norm("min-error") < 0.997 && norm("unbiased") > 1.003, "{bits} bits");
    }
}

/// The error of the mean of the decoded values over many seeds.
fn error_of_mean(codec: &str, values: &[f32], draws: u64) -> f64 {
    let mut mean = vec![0.0f64; values.len()];
    for seed in 0..draws {
        let decoded = decoded(codec, values, seed);
        mean.iter_mut().zip(decoded).for_each(|(mean, x)| *mean += f64::from(x) / draws as f64);
    }
    let mean: Vec<f32> = mean.iter().map(|x| *x as f32).collect();
    nmse(values, &mean)
}

#[test]
fn the_mean_over_seeds_is_the_vector() {
    let values = Distribution::LogNormal.values(1 << 13);
    for (bits, once) in [(1, 0.5708), (2, 0.13312)] {
        let bar = once / 32.0;
        assert_near(error_of_mean(&format!("eden{bits}"), &values, 32), bar, 0.1, "unbiased");
        let biased = error_of_mean(&format!("eden{bits}:scale=min-error"), &values, 32);
        assert!(biased > 1.5 * bar, "least error would pass for unbiased: {biased}");
    }
}

#[test]
fn sparse_vectors_err_no_more() {
    let mut values = vec![0.0; 16 * 4096];
    for block in 0..16 {
        (values[block * 4096 + 17], values[block * 4096 + 2900 - 111 * block]) = (1.0, -1.0);
    }
    assert_near(nmse(&values, &decoded("eden1", &values, 1)), 0.572, 0.03, "two values of 4096");
}
