//! A ledger as it is on disk, read and checked. Readers need no lock.

use crate::budget::clients::Admission;
use crate::budget::directory::Directory;
use crate::budget::error::BudgetError;
use crate::budget::kept::KeptOutputs;
use crate::budget::stamp::{Stamp, StampedModel, stamps_at};
use crate::io::journal::{self, Lines};
use crate::io::source::identity_of;
use crate::io::{publish, secret, text};
use crate::kernels::discrete_gaussian::Level;
use crate::privacy::ledger::plan::BudgetPlan;
use crate::privacy::ledger::record::{LedgerEntry, LedgerRecord};
use crate::privacy::ledger::replay::{ChargeRecord, Fate, State};
use crate::privacy::ledger::status::Status;
use crate::record::sha256::Sha256;
use crate::record::{self, Head};
use std::path::{Path, PathBuf};

/// A ledger, read and checked.
#[derive(Clone, Debug)]
pub struct Books {
    /// The state directory that holds the ledger.
    pub directory: Directory,
    /// Every record, and the head at each.
    pub records: Vec<(LedgerRecord, Head)>,
    /// The state that the records lead to.
    pub state: State,
    /// Bytes behind the last line, left by a writer that was stopped.
    pub torn: Vec<u8>,
}

/// The settings of the noise of a round.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct NoiseTerms {
    /// Largest norm of an update, S, in units of the model.
    pub clip: f64,
    /// Standard deviation of the noise, divided by the clip bound.
    pub value_multiplier: f64,
    /// Divisor of the noised sum.
    pub denominator: u64,
    /// Width of the noise, in units of the grid.
    pub level: Level,
}

impl Books {
    /// Reads a ledger and checks its chain, its plan and its end.
    ///
    /// # Errors
    ///
    /// The first fault.
    pub fn read(path: &Path) -> Result<Self, BudgetError> {
        let directory = Directory::new(path);
        // The head first: a writer that is at work meanwhile only makes the ledger longer than the head says.
        let head = directory.read_head()?;
        Self::of(directory.clone(), journal::read(&directory.ledger())?, head)
    }

    /// Checks lines that were read from the directory.
    pub(crate) fn of(directory: Directory, lines: Lines, head: Option<Head>) -> Result<Self, BudgetError> {
        let path = directory.ledger();
        let chain = |error| BudgetError::Chain { path: path.clone(), error };
        let records = record::verify(lines.iter()).map_err(chain)?;
        let replay = |error| BudgetError::Replay { path: path.clone(), error };
        let Some(state) = State::replay(&records).map_err(replay)? else {
            return Err(match head {
                None => BudgetError::NoLedger { path: directory.path },
                Some(head) => BudgetError::Behind { path, found: 0, expected: head.seq },
            });
        };
        let books = Self { directory, records, state, torn: lines.torn };
        books.check_head(head)?;
        books.check_plan()?;
        Ok(books)
    }

    /// The epsilon spent and left.
    ///
    /// # Errors
    ///
    /// When an accountant cannot compute it.
    pub fn status(&self) -> Result<Status, BudgetError> {
        Ok(Status::of(&self.state)?)
    }

    /// Compares the ledger with its end as of the last write.
    fn check_head(&self, head: Option<Head>) -> Result<(), BudgetError> {
        let last = self.state.head.seq;
        let Some(Head { seq, sha256: expected }) = head else {
            // The head is written after every record, so it may be missing only after the first.
            let missing = BudgetError::NoHead { path: self.directory.head() };
            return if last == 0 { Ok(()) } else { Err(missing) };
        };
        let path = self.directory.ledger();
        match self.state.at(seq) {
            None => Err(BudgetError::Behind { path, found: last, expected: seq }),
            Some(found) if found != expected => Err(BudgetError::Rewritten { path, seq, found, expected }),
            Some(_) => Ok(()),
        }
    }

    fn check_plan(&self) -> Result<(), BudgetError> {
        let path = self.directory.plan();
        let text = text::read(&path).map_err(BudgetError::at(&path))?;
        let frozen = |error| BudgetError::Frozen { path: path.clone(), error };
        let found = BudgetPlan::thaw(&text).map_err(frozen)?.sha256();
        let expected = self.state.init.plan_sha256;
        if found != expected {
            return Err(BudgetError::OtherPlan { path, found, expected });
        }
        Ok(())
    }

    /// Opens the model at a charge's output path, if the model was made with that charge.
    ///
    /// # Errors
    ///
    /// When the model there cannot be read.
    pub fn output_of(&self, charge: &ChargeRecord) -> Result<Option<StampedModel>, BudgetError> {
        let Some(mechanism) = &charge.charge.mechanism else { return Ok(None) };
        let model = StampedModel::published(Path::new(&mechanism.output))?;
        Ok(model.filter(|model| model.is_of(charge)))
    }

    /// The paths at which the output of a charge was published or found.
    pub(super) fn paths_of(&self, charge: &ChargeRecord) -> Vec<PathBuf> {
        let named = charge.charge.mechanism.iter().map(|mechanism| &mechanism.output);
        let adopted = self.records.iter().filter_map(|(record, _)| match &record.entry {
            LedgerEntry::Adopt(adopt) if adopt.release.charge == charge.head.seq => Some(&adopt.output),
            _ => None,
        });
        named.chain(adopted).map(PathBuf::from).collect()
    }

    /// Compares the ledger with a model's stamp, whose charge was in the ledger before the model was made.
    ///
    /// # Errors
    ///
    /// When the ledger is older than the model, or has another record with that number.
    pub fn check_stamp(&self, path: &Path, stamp: &Stamp) -> Result<(), BudgetError> {
        let Head { seq: charge, sha256: found } = stamp.charge;
        match self.state.at(charge) {
            None if stamp.is_reserved_room() => Err(BudgetError::Incomplete { path: path.to_owned() }),
            None => {
                Err(BudgetError::OlderThanModel { path: path.to_owned(), charge, found: self.state.head.seq })
            }
            Some(expected) if expected != found => {
                Err(BudgetError::OtherCharge { path: path.to_owned(), charge, found, expected })
            }
            Some(_) => Ok(()),
        }
    }

    /// Refuses a model whose charge was voided: the model exists, so it was seen.
    pub(super) fn check_not_void(&self, path: &Path, stamp: &Stamp) -> Result<(), BudgetError> {
        match self.attest_of(stamp) {
            Some(attest) => Err(BudgetError::Voided {
                path: path.to_owned(),
                charge: stamp.charge.seq,
                attest: attest.to_owned(),
            }),
            None => Ok(()),
        }
    }

    /// The operator's statement that the output of a voided charge was never seen; `None` if it was not voided.
    fn attest_of(&self, stamp: &Stamp) -> Option<&str> {
        let charge = self.state.charges.iter().find(|charge| charge.head == stamp.charge)?;
        match &charge.fate {
            Fate::Voided { attest } => Some(attest),
            _ => None,
        }
    }

    /// Refuses what stands at an output path if it names a charge that this ledger lacks or voided, as its own or as
    /// that of a base: the ledger is older, or the statement of the void is wrong. The file must not be lost.
    ///
    /// # Errors
    ///
    /// As [`check_stamp`](Self::check_stamp), and when the charge was voided.
    pub fn check_output(&self, target: &Path) -> Result<(), BudgetError> {
        stamps_at(target).iter().filter(|(_, stamp)| self.knows(stamp)).try_for_each(|(path, stamp)| {
            self.check_stamp(path, stamp)?;
            match self.attest_of(stamp) {
                None => Ok(()),
                Some(attest) => Err(BudgetError::ReplacesVoided {
                    path: path.clone(),
                    charge: stamp.charge.seq,
                    attest: attest.to_owned(),
                }),
            }
        })
    }

    /// Refuses to replace an output of a charge whose release is not recorded, unless it is this run's `own` charge.
    /// The model names its charge, also in single shards; the state does not, and the record of the outputs names it.
    ///
    /// # Errors
    ///
    /// When such a model stands at `model`, or such a state at `state`.
    pub(crate) fn check_recorded(
        &self,
        (model, state): (&Path, Option<&Path>),
        own: Option<u64>,
    ) -> Result<(), BudgetError> {
        let stamps = stamps_at(model);
        let targets: Vec<PathBuf> =
            [Some(model), state].into_iter().flatten().map(publish::resolved).collect();
        for charge in self.state.orphans().filter(|charge| Some(charge.head.seq) != own) {
            let seq = charge.head.seq;
            let stamped = stamps.iter().find(|(_, stamp)| stamp.charge == charge.head);
            let kept = KeptOutputs::read(&self.directory, seq)?;
            let published = kept.iter().flat_map(KeptOutputs::published);
            let found = stamped.map(|(path, _)| path.as_path());
            if let Some(path) = found
                .or_else(|| published.into_iter().find(|path| targets.iter().any(|target| target == path)))
            {
                let directory = self.directory.path.clone();
                return Err(BudgetError::Unrecorded { path: path.to_owned(), charge: seq, directory });
            }
        }
        Ok(())
    }

    /// Whether a stamp belongs to this ledger and not to another one.
    pub fn knows(&self, stamp: &Stamp) -> bool {
        stamp.release_id.starts_with(&format!("{}-", self.state.short_id()))
    }

    /// The settings of the next round's noise, for updates with `dimension` coordinates.
    ///
    /// # Errors
    ///
    /// When the plan is for another model.
    pub fn terms(&self, dimension: u64) -> Result<NoiseTerms, BudgetError> {
        let plan = self.state.plan();
        if let Some(expected) = plan.dimension.filter(|expected| *expected != dimension) {
            return Err(BudgetError::Dimension { found: dimension, expected });
        }
        Ok(NoiseTerms {
            clip: self.state.clip,
            value_multiplier: plan.drawn_multiplier()?,
            denominator: plan.denominator,
            level: plan.level_for(dimension),
        })
    }

    /// Checks the tensors that updates are clipped over. A plan that does not name them gives a warning.
    ///
    /// # Errors
    ///
    /// When the plan is for other tensors.
    pub fn check_tensors(&self, found: &Sha256) -> Result<(), BudgetError> {
        let plan = self.state.plan();
        match plan.tensors_sha256 {
            Some(expected) if expected != *found => {
                Err(BudgetError::Tensors { path: self.directory.plan(), found: *found, expected })
            }
            None if plan.dimension.is_some() => {
                tracing::warn!(
                    hint = "`fedmill privacy init --base MODEL` makes a plan that names them",
                    "{}: names no tensors, so the run checks only how many coordinates an update has",
                    self.directory.plan().display()
                );
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Whether each client counts in a round, as far as this directory knows. Where sums are made elsewhere it holds no
    /// lists, and every client counts.
    pub(crate) fn counted<'a>(
        &self,
        round: Option<u64>,
        clients: impl Iterator<Item = &'a String>,
    ) -> Result<Vec<bool>, BudgetError> {
        let has_lists = identity_of(&self.directory.clients_key()).is_some();
        match self.state.plan().correlated.filter(|_| has_lists) {
            Some(correlated) => {
                let round = round.ok_or(BudgetError::NoRound)?;
                Ok(Admission::new(&self.directory, &self.state, &correlated, round, clients)?.counted)
            }
            None => Ok(clients.map(|_| true).collect()),
        }
    }

    /// Wipes the keys and the noise of a series after its last round was released.
    pub(super) fn wipe_series_if_over(&self) -> Result<(), BudgetError> {
        if !self.state.series_is_over() {
            return Ok(());
        }
        for path in [self.directory.series_key(), self.directory.clients_key()] {
            secret::wipe(&path).map_err(BudgetError::at(&path))?;
        }
        self.directory.wipe_rows(|_| false)
    }
}
