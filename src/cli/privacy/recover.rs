//! `fedmill privacy recover` and `void`: charges whose release was not recorded.

use super::super::{Failure, Outcome, print};
use super::failure;
use crate::budget::Account;
use crate::budget::directory::{Books, BudgetError};
use crate::budget::recover;
use crate::privacy::ledger::replay::Charged;
use clap::Args;
use std::path::PathBuf;

/// Explain charges whose release was not recorded, and what to do about each.
///
/// Nothing is given back: noise may have been drawn, and seen.
#[derive(Args, Debug)]
pub(in crate::cli) struct Arguments {
    /// The state directory.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Record that the output of this charge was published.
    #[arg(long, value_name = "SEQ")]
    adopt: Option<u64>,
    /// Where that is now, if not where it was to be.
    #[arg(long, value_name = "FILE", requires = "adopt")]
    output: Option<PathBuf>,
}

/// Take a charge back, on somebody's word that nothing of it was seen.
///
/// The words go into the ledger. A charge that was released, or whose output stands where it was to be, is not taken back.
#[derive(Args, Debug)]
pub(in crate::cli) struct VoidArguments {
    /// The state directory.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// The number of its record.
    #[arg(long, value_name = "SEQ")]
    seq: u64,
    /// Who says so, and why nothing was seen.
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    attest: String,
}

impl Arguments {
    pub(super) fn run(&self) -> Result<Outcome, Failure> {
        if let Some(seq) = self.adopt {
            let mut account = Account::open(&self.directory).map_err(failure)?;
            let head = account.adopt(seq, self.output.as_deref()).map_err(failure)?;
            print(&format!("{}\n", head.seq))?;
            return Ok(Outcome::Done);
        }
        let books = Books::read(&self.directory).map_err(failure)?;
        let mut text = String::new();
        if !books.torn.is_empty() {
            let bytes = books.torn.len();
            text += &format!(
                "{bytes} bytes of a line were never finished: nothing counts on them; the next record takes them away\n"
            );
        }
        let directory = self.directory.display().to_string();
        for orphan in recover::orphans(&books).map_err(failure)? {
            text += &format!("{}:\n  {}\n", name(&orphan.charged), orphan.told(&directory));
        }
        for reserved in &books.state.reserves {
            let (seq, what) = (reserved.seq, &reserved.reserve.text);
            text += &format!(
                "reserve {seq}, {what}:\n  it counts until it is charged, `fedmill privacy spend {directory} --settle \
                 {seq}`, or taken back, `fedmill privacy void {directory} --seq {seq} --attest TEXT`\n"
            );
        }
        let nothing = "every charge was released or settled; nothing is to be done\n";
        print(if text.is_empty() { nothing } else { &text })?;
        Ok(Outcome::Done)
    }
}

fn name(charged: &Charged) -> String {
    let round = charged.charge.round.map_or(String::new(), |round| format!(" of round {round}"));
    let output = charged.charge.mechanism.as_ref().map_or("", |mechanism| mechanism.output.as_str());
    format!("charge {}{round}, release {}, to {output}", charged.head.seq, charged.charge.release_id)
}

impl VoidArguments {
    pub(super) fn run(&self) -> Result<Outcome, Failure> {
        let mut account = Account::open(&self.directory).map_err(failure)?;
        match account.void(self.seq, &self.attest) {
            Err(why @ BudgetError::NotOpen { .. }) => Ok(Outcome::Refused(why.to_string())),
            done => {
                print(&format!("{}\n", done.map_err(failure)?.seq))?;
                Ok(Outcome::Done)
            }
        }
    }
}
