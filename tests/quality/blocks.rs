//! Codes on grids and short floats, against computed errors.

use super::{Distribution, decoded, nmse, square};

#[test]
fn errors_are_those_that_were_computed() {
    let values = Distribution::Gaussian.values(1 << 18);
    // A twelfth of the squared step; the range of a block differs between draws.
    let ends = values.iter().fold([0.0f32; 2], |[low, high], x| [low.min(*x), high.max(*x)]);
    let step = f64::from(ends[1] - ends[0]) / 255.0;
    let one_grid = step * step / 12.0 / (square(&values) / values.len() as f64);
    assert!((one_grid / 9.5e-5 - 1.0).abs() < 0.3, "{one_grid}");
    for (codec, bar) in [
        ("u8:block=128", 3.5e-5),
        ("u4:block=64", 0.0081),
        ("u4:block=32", 0.0061),
        ("i4:block=32", 0.0095),
        ("e4m3", 7.0e-4),
        ("mxfp8", 7.0e-4),
        ("mxfp8:scale=floor", 8.7e-4),
        ("u8:block=0", one_grid),
        ("u8:block=0,rounding=stochastic", 2.0 * one_grid),
    ] {
        let found = nmse(&values, &decoded(codec, &values, 2));
        assert!((found / bar - 1.0).abs() < 0.02, "{codec}: {found}, expected {bar}");
    }
}

#[test]
fn heavy_tails_cost_grids_more_and_floats_no_more() {
    let values = Distribution::StudentT3.values(1 << 18);
    let error = |codec: &str| nmse(&values, &decoded(codec, &values, 2));
    for (codec, bar) in [("u8:block=128", 9.5e-5), ("u4:block=64", 0.0170), ("i4:block=32", 0.0204)] {
        let found = error(codec);
        assert!((found / bar - 1.0).abs() < 0.3, "{codec}: {found}, expected {bar}");
    }
    assert!((error("mxfp8") / 7.0e-4 - 1.0).abs() < 0.1);
    assert!(error("u4:block=0") > 0.3, "one grid for a tensor of heavy tails");
}
