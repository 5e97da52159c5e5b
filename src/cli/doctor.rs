//! `fedmill doctor`: lists devices, tests them, and names what is missing.

use super::{Common, Failure, OUTPUT, Outcome, print, print_account};
use crate::bench;
use crate::doctor::Examination;
use crate::telemetry::console;
use clap::Args;

/// List the devices and test them.
///
/// Runs every kernel on every adapter, software adapters too, and compares the results with the CPU's. --adapter
/// limits this to one adapter. Names what to install if no GPU is found. The exit status is 1 if a test fails.
#[derive(Args, Debug)]
#[command(next_help_heading = OUTPUT)]
pub(super) struct Arguments {
    /// Measure the speed of the CPU and the GPU, and store it for --backend auto. Takes some seconds.
    #[arg(long)]
    calibrate: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        let threads = common.pool()?.current_num_threads();
        let examination =
            Examination::of(common.isa(), threads, &common.gpu_options()).map_err(Failure::of)?;
        let text = if self.json { format!("{}\n", examination.json()) } else { examination.text() };
        // With --calibrate the command has more to do than to list.
        if self.calibrate {
            print_account(&text)
        } else {
            print(&text)?
        }
        if examination.failed() > 0 {
            // A device that computes wrong results is not timed.
            return Ok(Outcome::Refused(format!("{} self-tests failed", examination.failed())));
        }
        if self.calibrate {
            calibrate(common, &examination)?;
        }
        Ok(Outcome::Done)
    }
}

/// Measures the host, and the named device or the best that is no software adapter.
fn calibrate(common: &Common, examination: &Examination) -> Result<(), Failure> {
    let mut options = common.gpu_options();
    let best = examination.best(options.adapter.is_some());
    options.adapter = best.map(|adapter| adapter.name.clone());
    let device = best.map(|_| &options);
    let measured = bench::calibrate::calibrate(&common.pool()?, common.isa(), device)?;
    let path = measured.store()?;
    let of = best.map_or("the CPU alone", |adapter| &adapter.name);
    console::tell(&format!("calibrated {of}: {}", path.display()));
    Ok(())
}
