//! What the commands of a runner may charge to privacy budgets, over all ledgers together.
//!
//! The runner names the allowance in [`VARIABLE`], which its commands inherit however they are called. A process that is
//! about to charge a ledger first notes in a file, under a lock, what the ledger comes to with the charge. If all ledgers
//! of the file would then pass the allowance, the process notes that instead, and must not charge.

use crate::io::folder::{resolved, write_file_on_disk};
use crate::io::journal::Lock;
use crate::io::text::read_at_most;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// The variable with the allowances of the runners around a process, as a JSON list.
pub const VARIABLE: &str = "FEDMILL_ALLOWANCE";

/// The most bytes of the file of an allowance.
const MOST_BYTES: u64 = 64 << 20;

/// What all ledgers together may come to.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Allowance {
    /// Epsilon.
    pub epsilon: f64,
    /// Delta.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta: Option<f64>,
    /// The file that says what each ledger comes to.
    pub file: PathBuf,
}

/// What the file of an allowance says.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Notes {
    /// Epsilon and delta of each ledger with all its charges, by its directory.
    pub ledgers: BTreeMap<String, (f64, f64)>,
    /// What the last charge would have come to, if it was not allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// The allowances of the runners around this process.
///
/// # Errors
///
/// When the variable holds something else: nothing may then be charged.
pub fn inherited() -> io::Result<Vec<Allowance>> {
    let Some(text) = std::env::var_os(VARIABLE) else { return Ok(Vec::new()) };
    serde_json::from_str(&text.to_string_lossy()).map_err(|why| {
        io::Error::other(format!("the variable {VARIABLE} holds no list of allowances: {why}"))
    })
}

/// The value of the variable for the commands of a runner: the allowances around it, and its own.
///
/// # Errors
///
/// As [`inherited`].
pub fn passed_on(own: Option<&Allowance>) -> io::Result<Option<String>> {
    let mut all = inherited()?;
    all.extend(own.cloned());
    Ok((!all.is_empty()).then(|| serde_json::to_string(&all).unwrap_or_default()))
}

impl Allowance {
    /// What was charged so far.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or is damaged.
    pub fn notes(&self) -> io::Result<Notes> {
        let named = |kind, why: String| io::Error::new(kind, format!("{}: {why}", self.file.display()));
        match read_at_most(&self.file, MOST_BYTES) {
            Ok(text) => serde_json::from_str(&text)
                .map_err(|why| named(ErrorKind::InvalidData, format!("is damaged: {why}"))),
            Err(why) if why.kind() == ErrorKind::NotFound => Ok(Notes::default()),
            Err(why) => Err(named(why.kind(), why.to_string())),
        }
    }

    /// Forgets a charge that was not allowed.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or written.
    pub fn forget_refusal(&self) -> io::Result<()> {
        let notes = self.notes()?;
        if notes.refused.is_some() { self.write(&Notes { refused: None, ..notes }) } else { Ok(()) }
    }

    fn write(&self, notes: &Notes) -> io::Result<()> {
        let text = serde_json::to_string(notes).unwrap_or_default() + "\n";
        write_file_on_disk(&self.file, text.as_bytes())
    }

    /// Notes what a ledger comes to with a charge; returns what all ledgers would come to, if that is not allowed.
    ///
    /// # Errors
    ///
    /// When the file cannot be locked, read or written.
    pub fn note(&self, ledger: &Path, epsilon: f64, delta: f64) -> io::Result<Option<String>> {
        let lock = self.file.with_extension("lock");
        let _lock = Lock::take(&lock).map_err(|why| io::Error::other(why.to_string()))?;
        let before = self.notes()?;
        let mut ledgers = before.ledgers.clone();
        ledgers.insert(resolved(ledger)?.to_string_lossy().into_owned(), (epsilon, delta));
        let refused = self.passed(ledgers.values());
        match &refused {
            Some(_) => self.write(&Notes { refused: refused.clone(), ..before })?,
            None => self.write(&Notes { ledgers, refused: None })?,
        }
        Ok(refused)
    }

    /// What ledgers come to together, if that passes a limit. NaN does.
    fn passed<'l>(&self, ledgers: impl Iterator<Item = &'l (f64, f64)>) -> Option<String> {
        let (epsilon, delta) =
            ledgers.fold((0.0, 0.0), |sum, (epsilon, delta)| (sum.0 + epsilon, sum.1 + delta));
        if epsilon.is_nan() || epsilon > self.epsilon {
            return Some(format!("epsilon {epsilon:.6}, past limits.eps, {}", self.epsilon));
        }
        let most = self.delta.filter(|most| delta.is_nan() || delta > most * (1.0 + 1e-12))?;
        Some(format!("delta {delta:e}, past limits.delta, {most:e}"))
    }
}
