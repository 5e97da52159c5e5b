//! The kernels that have shaders: every text that is ever compiled, and every self-test.
//!
//! `tiles` has the self-tests of kernels that run on tiles.
//!
//! A self-test runs a kernel on a small sample and compares it with the CPU's kernel, or with plain f64 where that sums
//! in another order. The bound of each comparison is the one that the shader's head states.

pub(super) mod compare;
mod tiles;

use crate::gpu::device::{Gpu, codecs, private, secure, selection};
use crate::gpu::job::Finding;
use crate::gpu::shaders::Variant;
use compare::DeviceKernel;
use std::time::Instant;

/// The kernels that have shaders.
pub fn device_kernels() -> impl Iterator<Item = DeviceKernel> {
    [tiles::KERNELS, codecs::KERNELS, selection::KERNELS, private::KERNELS, secure::KERNELS]
        .into_iter()
        .flatten()
        .copied()
}

/// Every variant that is ever compiled.
pub fn every_variant() -> Vec<Variant> {
    device_kernels().flat_map(|kernel| (kernel.variants)()).collect()
}

/// Runs the self-test of every kernel on the device.
pub fn self_test(gpu: &Gpu) -> Vec<Finding> {
    let mut findings = Vec::new();
    for DeviceKernel { kernel, cases, .. } in device_kernels() {
        for (case, test) in cases {
            let started = Instant::now();
            let difference = test(gpu).unwrap_or_else(|error| Some(error.to_string()));
            let milliseconds = started.elapsed().as_secs_f64() * 1e3;
            findings.push(Finding { kernel, case: (*case).to_owned(), difference, milliseconds });
        }
    }
    findings
}
