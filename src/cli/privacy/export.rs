//! `fedmill privacy export`: what others may know of a budget.

use super::super::rates::{format_of, write};
use super::super::{Failure, Outcome, print};
use super::failure;
use crate::privacy::ledger::export::{self, Format};
use crate::round::private::directory::Books;
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
            let _ = (path, format);
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
