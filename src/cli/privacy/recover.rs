//! `fedmill privacy recover` and `void`: charges whose release was not recorded.

use super::super::{Common, Failure, INPUTS, Outcome, print, print_account};
use super::failure::failure;
use crate::budget::account::Account;
use crate::budget::error::BudgetError;
use crate::budget::recover;
use crate::privacy::ledger::replay::ChargeRecord;
use clap::Args;
use std::path::PathBuf;

/// Explain charges without a recorded release, and what to do about each.
///
/// The charges stay in the ledger, because their noise may have been drawn and seen.
#[derive(Args, Debug)]
#[command(next_help_heading = INPUTS)]
pub(in crate::cli) struct Arguments {
    /// The state directory.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Record that the output of charge SEQ was published.
    #[arg(long, value_name = "SEQ")]
    adopt: Option<u64>,
    /// The path of the output, if it was moved.
    #[arg(long, value_name = "FILE", requires = "adopt")]
    output: Option<PathBuf>,
}

/// Void a charge; the operator attests that its output was never seen.
///
/// The ledger keeps the statement. The command refuses a charge that was released, or whose output exists at its path.
#[derive(Args, Debug)]
#[command(next_help_heading = INPUTS)]
pub(in crate::cli) struct VoidArguments {
    /// The state directory.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// The number of the charge's record.
    #[arg(long, value_name = "SEQ")]
    seq: u64,
    /// Who attests, and why the output was never seen.
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    attest: String,
}

impl Arguments {
    pub(super) fn run(&self, _: &Common) -> Result<Outcome, Failure> {
        if let Some(seq) = self.adopt {
            let mut account = Account::open(&self.directory).map_err(failure)?;
            let head = account.adopt(seq, self.output.as_deref()).map_err(failure)?;
            print_account(&format!("{}\n", head.seq));
            return Ok(Outcome::Done);
        }
        let books = recover::books(&self.directory).map_err(failure)?;
        let mut text = String::new();
        if !books.torn.is_empty() {
            let bytes = books.torn.len();
            text += &format!(
                "{bytes} bytes after the last line are an unfinished line, which does not count; the next record \
                 removes it\n"
            );
        }
        let directory = self.directory.display().to_string();
        for orphan in recover::orphans(&books).map_err(failure)? {
            text += &format!("{}:\n  {}\n", name(&orphan.charge), orphan.explanation(&directory));
        }
        for reserve in &books.state.reserves {
            let (seq, what) = (reserve.seq, &reserve.reserve.text);
            text += &format!(
                "reserve {seq}, {what}:\n  it counts until it is charged, `fedmill privacy spend {directory} --settle \
                 {seq}`, or voided, `fedmill privacy void {directory} --seq {seq} --attest TEXT`\n"
            );
        }
        let nothing = "every charge was released or settled; there is nothing to do\n";
        print(if text.is_empty() { nothing } else { &text })?;
        Ok(Outcome::Done)
    }
}

fn name(record: &ChargeRecord) -> String {
    let charge = &record.charge;
    let round = charge.round.map_or(String::new(), |round| format!(" of round {round}"));
    let output = charge.mechanism.as_ref().map_or("", |mechanism| mechanism.output.as_str());
    format!("charge {}{round}, release {}, to {output}", record.head.seq, charge.release_id)
}

impl VoidArguments {
    pub(super) fn run(&self, _: &Common) -> Result<Outcome, Failure> {
        let mut account = Account::open(&self.directory).map_err(failure)?;
        match account.void(self.seq, &self.attest) {
            Err(why @ BudgetError::NotOpen { .. }) => Ok(Outcome::Refused(why.to_string())),
            done => {
                print_account(&format!("{}\n", done.map_err(failure)?.seq));
                Ok(Outcome::Done)
            }
        }
    }
}
