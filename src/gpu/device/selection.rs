//! The kernels that find the values of largest magnitude in a flat vector.

use super::Gpu;
use crate::gpu::job::GpuError;
use crate::gpu::run::Run;
use crate::gpu::selftest::compare::{DeviceKernel, Difference, other, values};
use crate::gpu::shaders::{Value, Variant};
use crate::gpu::shape::{Shape, column_groups};
use crate::gpu::variants::VECTOR_CHUNK;
use crate::kernels::lanes::Isa;
use crate::kernels::select_largest::{Search, take};

/// The kernel, its variants and its self-tests.
pub(in crate::gpu) const KERNELS: &[DeviceKernel] = &[DeviceKernel {
    kernel: "select_largest",
    variants: || vec![Variant::new("select_histogram", &[]), output(false), output(true)],
    cases: &[("500 of 5000", test_select_largest)],
}];

/// Bins of one digit in a radix select.
const BINS: usize = 2048;

/// The indices of selected values, or how many of them each workgroup has.
fn output(counts: bool) -> Variant {
    Variant::new("select_output", &[("COUNTS", Value::Flag(counts))])
}

impl Gpu {
    /// The number of values with each next digit, as [`Search::next_digit`] defines it.
    ///
    /// # Errors
    ///
    /// When the device fails or has no memory for it.
    pub fn histogram(&self, values: &[f32], digit: [u32; 4]) -> Result<Vec<u64>, GpuError> {
        let mut run = Run::default();
        let sent = run.input("values", bytemuck::cast_slice(values));
        let digit = run.input("digit", digit.to_vec());
        let counts = run.zeros("counts", BINS);
        let groups = column_groups(values.len(), VECTOR_CHUNK);
        let variant = Variant::new("select_histogram", &[]);
        run.step(variant, Shape::flat(values.len()), &[sent, digit, counts], groups);
        Ok(self.run(&run, &[counts])?[0].iter().map(|count| u64::from(*count)).collect())
    }

    /// The ascending indices of values above the magnitude with this key, and of the first `ties` values equal to it.
    ///
    /// # Errors
    ///
    /// When the device fails or has no memory for it.
    pub fn take(&self, values: &[f32], key: u32, ties: u64) -> Result<Vec<u32>, GpuError> {
        if values.is_empty() {
            return Ok(Vec::new());
        }
        let chosen = [key, u32::try_from(ties).unwrap_or(u32::MAX)];
        let mut before = self.select(values, chosen, &[], 2 * values.len().div_ceil(VECTOR_CHUNK))?;
        // Turns the counts of each workgroup into the counts of all workgroups before it.
        let mut sums = [0u32; 2];
        for (place, word) in before.iter_mut().enumerate() {
            let own = std::mem::replace(word, sums[place % 2]);
            sums[place % 2] += own;
        }
        let count = sums[0] + sums[1].min(chosen[1]);
        self.select(values, chosen, &before, count as usize)
    }

    /// Without `before` the counts of each workgroup; with the counts before each workgroup the indices.
    fn select(
        &self,
        values: &[f32],
        chosen: [u32; 2],
        before: &[u32],
        written: usize,
    ) -> Result<Vec<u32>, GpuError> {
        let mut run = Run::default();
        let sent = run.input("values", bytemuck::cast_slice(values));
        let (chosen, earlier) = (run.input("chosen", chosen.to_vec()), run.input("before", before));
        let out = run.output("indices", written);
        let groups = column_groups(values.len(), VECTOR_CHUNK);
        let variant = output(before.is_empty());
        run.step(variant, Shape::flat(values.len()), &[sent, chosen, earlier, out], groups);
        Ok(self.run(&run, &[out])?.swap_remove(0))
    }

    /// The ascending indices of the `count` values of largest magnitude, or of all if there are fewer. Among equal
    /// magnitudes the lowest indices win.
    ///
    /// # Errors
    ///
    /// When the device fails or has no memory for it.
    pub fn select_largest(&self, values: &[f32], count: usize) -> Result<Vec<u32>, GpuError> {
        let count = count.min(values.len());
        if count == 0 {
            return Ok(Vec::new());
        }
        let mut search = Search::new(count as u64);
        while let Some(digit) = search.next_digit() {
            search.narrow(&self.histogram(values, digit)?);
        }
        let Some(last) = search.threshold() else { return Ok(Vec::new()) };
        self.take(values, last.key, last.ties)
    }
}

fn test_select_largest(gpu: &Gpu) -> Result<Difference, GpuError> {
    let (values, count) = (values(5_000), 500);
    let found = gpu.select_largest(&values, count)?;
    let mut search = Search::new(count as u64);
    while search.next_digit().is_some() {
        search.narrow(&search.clone().count(Isa::detect(), &values));
    }
    let expected = search.threshold().map(|last| take(Isa::detect(), &values, last.key, last.ties));
    Ok(other("index", &found, &expected.unwrap_or_default()))
}
