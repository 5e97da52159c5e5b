//! `fedmill inspect`: measures updates and lists their faults, without merging them.

use super::cells::row;
use super::{Common, Failure, INPUTS, OUTPUT, Outcome, UpdatePaths, print};
use crate::engine::intake::policy::Policy;
use crate::inspect::{InspectedUpdate, Inspection};
use crate::telemetry::escape::{self, line};
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
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
    /// Exit with status 1 if any update has a fault.
    #[arg(long, help_heading = OUTPUT)]
    check: bool,
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        common.refuse_gpu("inspect")?;
        let inspection = Inspection {
            updates: self.paths.resolve()?,
            base: self.base.clone(),
            policy: Policy { round: self.round, claims: self.paths.claims(), ..Policy::default() },
        };
        let (pool, progress) = (common.pool()?, common.progress());
        let updates = inspection.run(&common.machine(&pool, &progress)).map_err(Failure::of)?;
        print(&if self.json { json_lines(&updates)? } else { table(&updates) })?;
        let faulty = updates.iter().filter(|update| !update.faults.is_empty()).count();
        if self.check && faulty > 0 {
            return Ok(Outcome::Refused(format!("{faulty} of {} updates have faults", updates.len())));
        }
        Ok(Outcome::Done)
    }
}

fn json_lines(updates: &[InspectedUpdate]) -> Result<String, Failure> {
    let mut lines = String::new();
    for update in updates {
        lines.push_str(&escape::json(&serde_json::to_string(update)?));
        lines.push('\n');
    }
    Ok(lines)
}

fn table(updates: &[InspectedUpdate]) -> String {
    let header = [
        "client",
        "tensors",
        "parameters",
        "dtype",
        "bytes",
        "examples",
        "norm",
        "cos(median)",
        "max abs",
        "non-finite",
    ];
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for column in (1..header.len()).filter(|column| *column != 3) {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for update in updates {
        table.add_row(row([
            update.id.clone(),
            text(update.tensors),
            text(update.parameters),
            text(update.dtype.as_ref()),
            text(update.bytes),
            text(update.examples),
            text(update.norm.map(|norm| format!("{norm:.4}"))),
            text(update.cosine_to_median.map(|cosine| format!("{cosine:+.3}"))),
            text(update.max_abs.map(|largest| format!("{largest:.4}"))),
            text(update.non_finite),
        ]));
    }
    let faults = updates
        .iter()
        .flat_map(|update| update.faults.iter().map(move |fault| format!("{}: {fault}", update.file)))
        .map(|fault| format!("{}\n", line(&fault)));
    format!("{}\n{}", table.trim_fmt(), faults.collect::<String>())
}

fn text(value: Option<impl ToString>) -> String {
    value.map_or("-".to_owned(), |value| value.to_string())
}
