//! Checks of random numbers, noise and clipping, on the processor and on adapters.

use crate::gpu::Gpu;
use crate::gpu::job::{Finding, GpuError, Options};
use crate::kernels::discrete_gaussian::Level;
use crate::kernels::lanes::Isa;
use crate::privacy::selftest::{self, Difference};
use std::time::Instant;

const LEVELS: [Level; 3] = [Level::L1, Level::L2, Level::L3];

/// Runs a check and measures its time.
fn finding(kernel: &'static str, case: String, check: impl FnOnce() -> Difference) -> Finding {
    let started = Instant::now();
    let difference = check();
    Finding { kernel, case, difference, milliseconds: started.elapsed().as_secs_f64() * 1e3 }
}

/// Checks random numbers, noise and clipping on the processor.
pub fn on_processor(isa: Isa, coordinates: usize) -> Vec<Finding> {
    let mut findings = vec![
        finding("chacha20", "RFC 8439, section 2.3.2".to_owned(), || selftest::known_block(isa)),
        finding("clip_integers", "updates that try".to_owned(), || selftest::sensitivity(isa)),
    ];
    for level in LEVELS {
        let case = format!("moments of {coordinates}, {level:?}");
        findings.push(finding("discrete_gaussian", case, || selftest::moments(isa, level, coordinates)));
        for other in Isa::available().into_iter().filter(|other| *other != isa) {
            findings.push(finding("discrete_gaussian", format!("as on {other}, {level:?}"), || {
                let expected = selftest::noise_of(other, level, coordinates);
                selftest::compare(&selftest::noise_of(isa, level, coordinates), &expected)
            }));
        }
    }
    findings
}

/// Checks that the noise of an adapter has the bits of the processor's.
pub fn on_device(options: &Options, coordinates: usize) -> Vec<Finding> {
    let name = options.adapter.as_deref().unwrap_or_default();
    let gpu = match Gpu::open(options) {
        Ok(gpu) => gpu,
        Err(error) => return vec![finding("open", name.to_owned(), || Some(error.to_string()))],
    };
    let check = |level| {
        finding("discrete_gaussian", format!("as on {name}, {level:?}"), || {
            differs(&gpu, level, coordinates).unwrap_or_else(|error| Some(error.to_string()))
        })
    };
    LEVELS.map(check).into()
}

/// Compares the noise of a GPU with that of the CPU.
fn differs(gpu: &Gpu, level: Level, coordinates: usize) -> Result<Difference, GpuError> {
    let found = gpu.noise(selftest::stream(level), level, 0, coordinates)?;
    Ok(selftest::compare(&found, &selftest::noise_of(Isa::detect(), level, coordinates)))
}
