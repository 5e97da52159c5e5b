//! `fedmill inspect`: measures updates and lists their faults, without merging them.

use super::{Common, Failure, INPUTS, OUTPUT, Outcome, UpdatePaths, rates};
use crate::bench::angles::{self, Direction};
use crate::engine::backend::request::BackendName;
use crate::engine::intake::policy::Policy;
use crate::engine::passes::gpu_ring::GpuRing;
use crate::gpu::Gpu;
use crate::inspect::{self, InspectError, InspectedUpdate, Inspection};
use crate::io::collision::check_target;
use crate::telemetry::escape;
use clap::Args;
use std::path::PathBuf;

/// Show the norms, angles and faults of updates.
///
/// Prints a table, or with --json one JSON object per line. Bad updates do not stop the command.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    paths: UpdatePaths,
    /// The model that the updates started from. Norms and angles are then those of the deltas.
    #[arg(long, value_name = "BASE", help_heading = INPUTS)]
    base: Option<PathBuf>,
    /// The number of the round. An update whose metadata names another round has a fault.
    #[arg(long, value_name = "N", help_heading = INPUTS)]
    round: Option<u64>,
    /// Print one JSON object per line.
    #[arg(long, help_heading = OUTPUT)]
    json: bool,
    /// Draw the norm of each update against its angle to the median to FILE, as SVG or PNG by its suffix. `-` is SVG
    /// on standard output.
    ///
    /// Outliers have the ids of their clients.
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    plot: Option<PathBuf>,
    /// Exit with status 1 if any update has a fault.
    #[arg(long, help_heading = OUTPUT)]
    check: bool,
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        let format = self.plot.as_deref().map(rates::format_of).transpose()?;
        self.plot.as_deref().map_or(Ok(()), check_target)?;
        let inspection = Inspection {
            updates: self.paths.resolve()?,
            base: self.base.clone(),
            policy: Policy { round: self.round, claims: self.paths.claims(), ..Policy::default() },
        };
        let (pool, progress) = (common.pool()?, common.progress());
        let machine = common.machine(&pool, &progress);
        if common.backend_name() == BackendName::Gpu {
            let ring =
                Gpu::open(&common.gpu_options()).and_then(|gpu| GpuRing::new(gpu, machine.threads(), false));
            machine.use_gpu(ring.map_err(|why| Failure::of(InspectError::Pass(why.into())))?);
        }
        let updates = inspection.run(&machine).map_err(Failure::of)?;
        if let (Some(path), Some(format)) = (&self.plot, format) {
            let updates: Vec<Direction> = updates.iter().map(direction).collect();
            rates::write(path, &angles::draw(&updates, self.base.is_some(), format)?)?;
        }
        let text = if self.json { json_lines(&updates)? } else { inspect::text(&updates) };
        rates::print_beside(self.plot.as_deref(), self.json, &text)?;
        let faulty = updates.iter().filter(|update| !update.faults.is_empty()).count();
        if self.check && faulty > 0 {
            return Ok(Outcome::Refused(format!("{faulty} of {} updates have faults", updates.len())));
        }
        Ok(Outcome::Done)
    }
}

fn direction(update: &InspectedUpdate) -> Direction {
    Direction { id: update.id.clone(), norm: update.norm, cosine: update.cosine_to_median }
}

fn json_lines(updates: &[InspectedUpdate]) -> Result<String, Failure> {
    let mut lines = String::new();
    for update in updates {
        lines.push_str(&escape::json(&serde_json::to_string(update)?));
        lines.push('\n');
    }
    Ok(lines)
}
