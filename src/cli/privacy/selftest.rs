//! `fedmill privacy selftest`: checks noise and clipping on this machine.

use crate::cli::doctor::{chosen, finding_json, findings_table, gpu_failure};
use crate::cli::{Common, Failure, INPUTS, OUTPUT, Outcome, print};
use crate::gpu::job::{Finding, GpuError, Options};
use crate::gpu::{self, Gpu};
use crate::kernels::discrete_gaussian::Level;
use crate::kernels::lanes::Isa;
use crate::privacy::selftest::{self, Difference};
use clap::Args;
use serde_json::json;
use std::time::Instant;

const LEVELS: [Level; 2] = [Level::L2, Level::L3];

/// Check random numbers, noise and clipping.
///
/// Compares the random numbers with published ones, the moments of noise with those of a Gaussian, and clipped updates
/// with their bound. The noise of all instruction sets and adapters must have the same bits; --adapter limits this to
/// one adapter. The key of this noise is public. The exit status is 1 if a check fails.
#[derive(Args, Debug)]
#[command(next_help_heading = OUTPUT)]
pub(in crate::cli) struct Arguments {
    /// The number of coordinates to draw noise for.
    #[arg(long, value_name = "N", help_heading = INPUTS, default_value_t = 100_000)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    coordinates: u32,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        let mut findings = on_processor(common.isa(), self.coordinates as usize);
        for adapter in chosen(gpu::adapters(), &common.gpu_options()).map_err(gpu_failure)? {
            let options = Options { adapter: Some(adapter.name), ..common.gpu_options() };
            findings.extend(on_device(&options, self.coordinates as usize));
        }
        print(&if self.json { json_of(&findings) } else { format!("{}\n", findings_table(&findings)) })?;
        let failed = findings.iter().filter(|finding| finding.difference.is_some()).count();
        if failed > 0 {
            return Ok(Outcome::Refused(format!("{failed} self-tests failed")));
        }
        Ok(Outcome::Done)
    }
}

fn json_of(findings: &[Finding]) -> String {
    let all: Vec<_> = findings.iter().map(finding_json).collect();
    let ok = findings.iter().all(|finding| finding.difference.is_none());
    format!("{}\n", json!({ "schema": "fedmill.privacy-selftest/1", "self_test": all, "ok": ok }))
}

/// Runs a check and measures its time.
fn finding(kernel: &'static str, case: String, check: impl FnOnce() -> Difference) -> Finding {
    let started = Instant::now();
    let difference = check();
    Finding { kernel, case, difference, milliseconds: started.elapsed().as_secs_f64() * 1e3 }
}

fn on_processor(isa: Isa, coordinates: usize) -> Vec<Finding> {
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

fn on_device(options: &Options, coordinates: usize) -> Vec<Finding> {
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
