//! `fedmill privacy export`: publishes the events and epsilons of a budget.

use super::super::rates::{format_of, write};
use super::super::{Common, Failure, INPUTS, OUTPUT, Outcome, is_stdout, print, print_path};
use super::failure::failure;
use crate::bench::curves::{Curve, draw};
use crate::budget::books::Books;
use crate::io::collision::{self, target};
use crate::privacy::ledger::budget::{self, VerdictError};
use crate::privacy::ledger::export::{self, Format};
use crate::privacy::ledger::record::{Charge, Epsilon};
use crate::privacy::ledger::replay::State;
use clap::Args;
use std::path::PathBuf;

/// Export the events and epsilons of a budget.
///
/// The export names no clients, inputs or times.
#[derive(Args, Debug)]
#[command(next_help_heading = OUTPUT)]
pub(in crate::cli) struct Arguments {
    /// The state directory.
    #[arg(value_name = "DIR", help_heading = INPUTS)]
    directory: PathBuf,
    /// The format of the export.
    #[arg(long, value_name = "FORMAT")]
    format: Format,
    /// Write the export to FILE [default: standard output].
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Draw epsilon by rounds into FILE (.svg or .png). `-` is SVG on standard
    /// output.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

impl Arguments {
    pub(super) fn run(&self, _: &Common) -> Result<Outcome, Failure> {
        if self.output.is_none() && self.plot.as_deref().is_some_and(is_stdout) {
            return Err(anyhow::anyhow!(
                "--plot: found standard output, which has the export, expected a file, or --output FILE"
            )
            .into());
        }
        let picture = self.plot.as_deref().map(format_of).transpose()?;
        let books = Books::read(&self.directory).map_err(failure)?;
        let text = export::text(&books.state, self.format).map_err(|why| failure(why.into()))?;
        let outputs: Vec<PathBuf> = self.plot.iter().chain(&self.output).cloned().collect();
        collision::check_outside(&outputs, &self.directory)?;
        if let (Some(path), Some(format)) = (&self.plot, picture) {
            let title = format!("epsilon by rounds, delta {:e}", books.state.plan().delta);
            let curves = curves(&books.state).map_err(|why| failure(why.into()))?;
            write(path, &draw(&title, &curves, format)?)?;
        }
        match &self.output {
            None => print(&text)?,
            Some(path) => {
                write(path, text.as_bytes())?;
                if !target::is_stream(path) {
                    print_path(path);
                }
            }
        }
        Ok(Outcome::Done)
    }
}

/// Epsilon by rounds: of the plan, as recorded at each charge, and the budget.
fn curves(state: &State) -> Result<Vec<Curve>, VerdictError> {
    let plan = state.plan();
    let course = budget::course(plan)?;
    let planned = course.iter().map(|(rounds, spent)| (*rounds as f64, spent.epsilon(plan.accountant)));
    let recorded = |epsilon: fn(&Charge) -> Option<Epsilon>| {
        let points =
            state.course().filter_map(|(rounds, charge)| Some((rounds as f64, epsilon(charge)?.get())));
        points.collect::<Vec<_>>()
    };
    let (rdp, pld) = (recorded(|charge| Some(charge.eps_rdp)), recorded(|charge| charge.eps_pld));
    let last = rdp.last().map_or(1.0, |point| point.0).max(plan.rounds as f64);
    let curves = [
        ("spent, PLD", pld),
        ("spent, RDP", rdp),
        ("plan", planned.collect()),
        ("budget", vec![(1.0, plan.epsilon), (last, plan.epsilon)]),
    ];
    let curves = curves.into_iter().filter(|(_, points)| !points.is_empty());
    Ok(curves.map(|(label, points)| Curve { label: label.to_owned(), points }).collect())
}
