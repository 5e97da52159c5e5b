//! `fedmill privacy selftest`: checks noise and clipping on this machine.

use crate::cli::{Common, Failure, INPUTS, OUTPUT, Outcome, print};
use crate::doctor::{DoctorError, findings, noise};
use crate::gpu;
use crate::gpu::job::{Finding, Options, named};
use clap::Args;
use serde_json::json;

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
        let (options, coordinates) = (common.gpu_options(), self.coordinates as usize);
        let mut found = noise::on_processor(common.isa(), coordinates);
        let adapters = named(gpu::adapters(), options.adapter.as_deref());
        for adapter in adapters.map_err(|why| Failure::of(DoctorError::from(why)))? {
            let options = Options { adapter: Some(adapter.name), ..options.clone() };
            found.extend(noise::on_device(&options, coordinates));
        }
        print(&if self.json { json_of(&found) } else { format!("{}\n", findings::table(&found)) })?;
        match findings::failed(&found) {
            0 => Ok(Outcome::Done),
            failed => Ok(Outcome::Refused(format!("{failed} self-tests failed"))),
        }
    }
}

fn json_of(found: &[Finding]) -> String {
    let all: Vec<_> = found.iter().map(findings::json).collect();
    let ok = findings::failed(found) == 0;
    format!("{}\n", json!({ "schema": "fedmill.privacy-selftest/1", "self_test": all, "ok": ok }))
}
