//! Explains charges whose release was not recorded: what happened, and what to do.
//!
//! A run was cut off between its charge and its release. Noise may have been drawn, and somebody may have seen what it was
//! added to; so the charge stands. What is told apart is how far the run came.

use crate::budget::directory::{Books, BudgetError};
use crate::io::journal::Lock;
use crate::io::secret;
use crate::privacy::ledger::replay::Charged;
use std::path::PathBuf;

/// A charge whose release was not recorded.
#[derive(Clone, PartialEq, Debug)]
pub struct Orphan {
    /// The charge.
    pub charged: Charged,
    /// How far its run came.
    pub reached: Reached,
}

/// How far a run came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reached {
    /// It may be at work: somebody holds the ledger.
    AtWork,
    /// Its output was published, and stands here.
    Published(PathBuf),
    /// Its key is kept: it can be made again for the same bytes.
    KeyKept,
    /// It is a round of a run, whose key is kept.
    OfRun,
    /// Nothing is left of it.
    Nothing,
}

/// Every charge whose release was not recorded.
///
/// # Errors
///
/// When what stands where an output was to be cannot be read.
pub fn orphans(books: &Books) -> Result<Vec<Orphan>, BudgetError> {
    let at_work = Lock::is_taken(&books.directory.lock())?;
    let explain = |charged: &Charged| {
        let key = books.directory.key(charged.head.seq);
        let reached = match books.output_of(charged)? {
            _ if at_work => Reached::AtWork,
            Some(output) => Reached::Published(output.path),
            None if books.state.is_of_run(&charged.charge) => Reached::OfRun,
            None if secret::is_kept(&key).map_err(BudgetError::at(&key))? => Reached::KeyKept,
            None => Reached::Nothing,
        };
        Ok(Orphan { charged: charged.clone(), reached })
    };
    books.state.orphans().map(explain).collect()
}

impl Orphan {
    /// What happened, and what to do, where the state directory is called `directory`.
    pub fn told(&self, directory: &str) -> String {
        let seq = self.charged.head.seq;
        match &self.reached {
            Reached::AtWork => {
                "another run holds the ledger and may be at work on it; wait for its end".to_owned()
            }
            Reached::Published(path) => format!(
                "its output was published as {}, before the run could record that; it is released.\n  \
                 `fedmill privacy recover {directory} --adopt {seq}` records it; so does the same run again",
                path.display()
            ),
            Reached::KeyKept => format!(
                "nothing was published, and its key is kept; the same run again, with the same inputs, gives the same \
                 bytes and costs nothing.\n  Where that cannot be: `fedmill privacy void {directory} --seq {seq} \
                 --attest TEXT`, if nothing of it was seen"
            ),
            Reached::OfRun => format!(
                "nothing was published where it was to be; the same run again, with the same inputs, gives the same bytes \
                 and costs nothing.\n  With other inputs this round is refused, for its noise is used: go on with the next \
                 one. If its output was moved, `fedmill privacy recover {directory} --adopt {seq} --output FILE` records it"
            ),
            Reached::Nothing => format!(
                "nothing was published where it was to be, and its key is gone; noise may have been drawn, and seen, so it \
                 stays charged.\n  A run now draws new noise and pays anew. If nothing of it was seen, neither the \
                 output nor a temporary of it, `fedmill privacy void {directory} --seq {seq} --attest TEXT` takes it \
                 back; if it was moved, `fedmill privacy recover {directory} --adopt {seq} --output FILE` records it"
            ),
        }
    }
}
