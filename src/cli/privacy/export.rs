//! `fedmill privacy export`: what others may know of a budget.

use super::super::rates::{format_of, write};
use super::super::{Failure, Outcome, print};
use super::failure;
use crate::bench::curves::{Curve, draw};
use crate::budget::directory::Books;
use crate::privacy::ledger::State;
use crate::privacy::ledger::budget::{self, VerdictError};
use crate::privacy::ledger::export::{self, Format};
use crate::privacy::ledger::record::{Charge, Epsilon};
use clap::Args;
use std::path::PathBuf;

/// Tell others what was spent: nothing of who took part when.
#[derive(Args, Debug)]
pub(in crate::cli) struct Arguments {
    /// The state directory.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// dp_accounting's events as JSON, a table, a sentence, or metrics.
    #[arg(long, value_name = "FORMAT")]
    format: Format,
    /// Where it goes [default: standard output].
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Draw epsilon by rounds, into a .svg or .png file.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

impl Arguments {
    pub(super) fn run(&self) -> Result<Outcome, Failure> {
        let picture = self.plot.as_deref().map(format_of).transpose()?;
        let books = Books::read(&self.directory).map_err(failure)?;
        let text = export::text(&books.state, self.format).map_err(|why| failure(why.into()))?;
        if let (Some(path), Some(format)) = (&self.plot, picture) {
            let title = format!("epsilon by rounds, delta {:e}", books.state.plan().delta);
            let curves = curves(&books.state).map_err(|why| failure(why.into()))?;
            write(path, &draw(&title, &curves, format)?)?;
        }
        match &self.output {
            None => print(&text)?,
            Some(path) => {
                write(path, text.as_bytes())?;
                print(&format!("{}\n", path.display()))?;
            }
        }
        Ok(Outcome::Done)
    }
}

/// What the plan comes to, what was told at each charge, and the budget.
fn curves(state: &State) -> Result<Vec<Curve>, VerdictError> {
    let plan = state.plan();
    let course = budget::course(plan)?;
    let planned = course.iter().map(|(rounds, spent)| (*rounds as f64, spent.epsilon(plan.accountant)));
    let told = |epsilon: fn(&Charge) -> Option<Epsilon>| {
        let charged =
            state.course().filter_map(|(rounds, charge)| Some((rounds as f64, epsilon(charge)?.get())));
        charged.collect::<Vec<_>>()
    };
    let (rdp, pld) = (told(|charge| Some(charge.eps_rdp)), told(|charge| charge.eps_pld));
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
