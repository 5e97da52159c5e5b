//! What self-tests are made of: their rows, their samples, and comparisons of results.

use crate::gpu::device::Gpu;
use crate::gpu::job::GpuError;
use crate::gpu::shaders::Variant;
use std::fmt::Debug;

/// A row of [`KERNELS`](crate::kernels::KERNELS) on a device.
#[derive(Clone, Copy)]
pub struct DeviceKernel {
    /// The kernel's name.
    pub kernel: &'static str,
    /// Returns every variant of its shaders that is ever compiled.
    pub variants: fn() -> Vec<Variant>,
    /// Samples by name, each with a test on a device.
    pub cases: &'static [(&'static str, Test)],
}

/// Runs a kernel on a device and returns the first difference from the CPU.
pub(super) type Test = fn(&Gpu) -> Result<Difference, GpuError>;

/// The first value that differs by more than its bound, in words; `None` if no value does.
pub(in crate::gpu) type Difference = Option<String>;

/// Half a unit in the last place of f32, relative.
pub(in crate::gpu) const HALF_ULP: f64 = f32::EPSILON as f64 / 2.0;

/// A value of a sample: ties, zeros of both signs, magnitudes far apart.
pub(super) fn value(row: usize, column: usize) -> f32 {
    let mixed = row * 7_919 + column * 104_729 + row * column * 37;
    let scale = [1.0, 1e-3, -0.5, 64.0][column % 4];
    ((mixed % 997) as f32 / 499.0 - 1.0) * scale
}

/// The values of a flat vector.
pub(in crate::gpu) fn values(len: usize) -> Vec<f32> {
    (0..len).map(|i| value(i / 100, i)).collect()
}

/// The first place where two results differ by more than its bound.
pub(in crate::gpu) fn difference(
    what: &str,
    found: &[f64],
    expected: &[f64],
    bound: impl Fn(usize) -> f64,
) -> Difference {
    if found.len() != expected.len() {
        return Some(format!("{} of {what} were found, expected {}", found.len(), expected.len()));
    }
    let is_fine = |place: usize| (found[place] - expected[place]).abs() <= bound(place);
    let place = (0..found.len()).find(|place| !is_fine(*place))?;
    let (found, expected, bound) = (found[place], expected[place], bound(place));
    Some(format!("{what} {place}: found {found:e}, expected {expected:e}, which may differ by {bound:e}"))
}

/// The first place where two vectors differ.
pub(in crate::gpu) fn other<T: PartialEq + Debug>(what: &str, found: &[T], expected: &[T]) -> Difference {
    if found.len() != expected.len() {
        return Some(format!("{} of {what} were found, expected {}", found.len(), expected.len()));
    }
    let place = found.iter().zip(expected).position(|(found, expected)| found != expected)?;
    Some(format!("{what} {place}: found {:?}, expected {:?}", found[place], expected[place]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_noticed() {
        let expected = [1.0, -2.0, 3.0];
        assert_eq!(difference("column", &expected, &expected, |_| 0.0), None);
        assert_eq!(difference("column", &[1.0, -2.5, 3.0], &expected, |_| 0.5), None);
        let expected_text = "column 1: found -2.5e0, expected -2e0, which may differ by 2.5e-1";
        let found = difference("column", &[1.0, -2.5, 3.0], &expected, |_| 0.25);
        assert_eq!(found.as_deref(), Some(expected_text));
        for wrong in [vec![1.0, f64::NAN, 3.0], vec![1.0, -2.0], vec![f64::INFINITY, -2.0, 3.0]] {
            assert!(difference("column", &wrong, &expected, |_| 0.5).is_some(), "{wrong:?}");
        }
    }

    #[test]
    fn other_values_are_noticed() {
        assert_eq!(other("code", &[1, 2], &[1, 2]), None);
        assert_eq!(other("code", &[1, 3], &[1, 2]).as_deref(), Some("code 1: found 3, expected 2"));
        assert_eq!(other("code", &[1], &[1, 2]).as_deref(), Some("1 of code were found, expected 2"));
    }
}
