//! Error feedback: what a client could not send stays with it, and is added to its next update.
//!
//! `e` is the residual of the rounds before. An update `u` is encoded as `p = u + decay * (lr_before / lr) * e`; the
//! ratio of learning rates is 1 unless both are known (Zheng et al., Communication-Efficient Distributed Blockwise
//! Momentum SGD with Error-Feedback, 2019, algorithm 1). The new residual is `p` minus the values that the file decodes
//! to (Seide et al., 1-Bit Stochastic Gradient Descent, 2014; Karimireddy et al., Error Feedback Fixes SignSGD, 2019).
//!
//! A residual and its update are two files that must appear together. First the residual is synced as `FILE.next`, then
//! the update gets its name, then the residual gets its name. A run that finds `FILE.next` looks for the update that it
//! names. If the update is there, the residual gets its name; otherwise it is discarded. The residual before stays as
//! `FILE.previous`, so that the same update compressed again starts from the same residual.
//!
//! `stored` reads a residual's file, `writer` writes it, and [`error`] says why error feedback is not possible.

pub mod error;
pub(crate) mod stored;
pub(crate) mod writer;

use crate::compress::residual::error::ResidualError;
use crate::compress::residual::stored::{NO_DIGEST, StoredResidual, Subject};
use crate::io::digest;
use crate::io::model_file::TensorPlace;
use crate::io::model_writer::{self, WriteError};
use crate::io::publish::{self, Staged};
use crate::io::source::{OpenFiles, SourceFile, identity_of};
use crate::kernels::convert::decode;
use crate::kernels::lanes::Isa;
use crate::model::layout::{Piece, TensorSpec};
use crate::model::tile::TileBuffer;
use std::path::{Path, PathBuf};

/// The dtype of a residual's values.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum ResidualDtype {
    /// Exact values.
    F32,
    /// Rounded values, in half the bytes.
    Bf16,
}

/// Where and how a client keeps its residual.
#[derive(Clone, PartialEq, Debug)]
pub struct Feedback {
    /// The file of the residual. Private: only its owner can read it, and a client never sends it.
    pub path: PathBuf,
    /// The dtype of its values.
    pub dtype: ResidualDtype,
    /// The age in rounds beyond which the residual is dropped; `None` for no limit.
    pub max_age: Option<u64>,
    /// The factor of the residual each round, from 0 to 1.
    pub decay: f64,
}

/// The residual of earlier rounds, as it is added to an update.
#[derive(Debug)]
pub(crate) struct CarryOver {
    subject: Subject,
    /// The residual, and where each tensor of the update is in it; `None` for a tensor that is not float.
    from: Option<(StoredResidual, Vec<Option<TensorPlace>>)>,
    /// Decay times the ratio of learning rates.
    factor: f64,
}

/// The largest growth of the residual's norm over [`GROWTH_ROUNDS`] rounds. More means that errors feed errors.
const MOST_GROWTH: f64 = 10.0;

/// Rounds of the growth that is checked.
pub(crate) const GROWTH_ROUNDS: usize = 3;

impl CarryOver {
    /// The norms of the last residuals, the oldest first.
    pub(crate) fn norms(&self) -> &[f64] {
        self.from.as_ref().map_or(&[], |(kept, _)| &kept.norms)
    }

    /// Checks the norm of the residual that follows.
    ///
    /// # Errors
    ///
    /// When the norm grew tenfold over three rounds.
    pub(crate) fn check_norm(&self, path: &Path, norm: f64) -> Result<(), ResidualError> {
        match *self.norms() {
            [before, ..] if self.norms().len() == GROWTH_ROUNDS && before > 0.0 => {
                match norm > MOST_GROWTH * before {
                    true => Err(ResidualError::Grows { path: path.to_owned(), before, after: norm }),
                    false => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// Adds the residual of a piece of a tensor to the values of the piece.
    ///
    /// # Errors
    ///
    /// When the residual cannot be read, or holds a value that is not finite.
    pub(crate) fn add(&self, isa: Isa, piece: Piece, out: &mut [f64]) -> Result<(), ResidualError> {
        let Some((kept, places)) = &self.from else { return Ok(()) };
        let Some(place) = &places[piece.tensor] else { return Ok(()) };
        let size = place.spec.dtype.bytes();
        let mut stored = TileBuffer::new(1, piece.len * size);
        let bytes = &mut stored.row_mut(0)[..piece.len * size];
        let path = || kept.model.path.clone();
        kept.model.files[place.file]
            .read_values_at(bytes, place.offset + (piece.start * size) as u64)
            .map_err(|source| ResidualError::Read { path: path(), source })?;
        let mut left = vec![0.0f64; piece.len];
        decode(isa, place.spec.dtype, bytes, &mut left);
        if let Some(bad) = left.iter().position(|left| !left.is_finite()) {
            let (tensor, index, value) = (place.spec.name.clone(), piece.start + bad, left[bad]);
            return Err(ResidualError::NonFinite { path: path(), tensor, index, value });
        }
        out.iter_mut().zip(&left).for_each(|(x, left)| *x += self.factor * left);
        Ok(())
    }
}

impl Feedback {
    fn next(&self) -> PathBuf {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(".next");
        self.path.with_file_name(name)
    }

    /// Checks that no other file of the run has the path of the residual.
    ///
    /// # Errors
    ///
    /// When another file has it, or the residual cannot be written there.
    pub(crate) fn check<'a>(&self, others: impl Iterator<Item = &'a Path>) -> Result<(), ResidualError> {
        let own = [self.path.clone(), self.next(), publish::previous(&self.path)];
        own.iter().try_for_each(|path| model_writer::check_file_target(path))?;
        let is = |own: &PathBuf, other: &Path| {
            let identities = [own, other].map(identity_of);
            publish::resolved(other) == publish::resolved(own)
                || (identities[0].is_some() && identities[0] == identities[1])
        };
        let same = |other: &Path| own.iter().any(|own| is(own, other));
        let mut others = others;
        match others.any(same) {
            true => Err(ResidualError::NotItsOwn { path: self.path.clone() }),
            false => Ok(()),
        }
    }

    /// Locks the residual until the claim is dropped. Two runs at once would both start from the same residual, and one
    /// of their errors would be lost.
    ///
    /// # Errors
    ///
    /// When another run has the lock, or it cannot be made.
    pub(crate) fn lock(&self) -> Result<Staged, ResidualError> {
        let next = self.next();
        let claim = publish::claim(&next).map_err(WriteError::at(&next))?;
        Ok(claim.ok_or_else(|| WriteError::Busy { path: self.path.clone() })?)
    }

    /// Finishes a run that was killed: names its residual if its update was published, or discards it. Needs the lock.
    ///
    /// # Errors
    ///
    /// When files cannot be read or renamed.
    pub(crate) fn recover(&self, output: &Path) -> Result<(), ResidualError> {
        let next = self.next();
        let Some(kept) = StoredResidual::read(&next)? else { return Ok(()) };
        for update in [output.to_owned(), output.with_file_name(&kept.output)] {
            if sha256_of(&update)?.is_some_and(|found| found == kept.update) {
                tracing::info!(
                    "{}: continues with the residual of a run that was killed",
                    self.path.display()
                );
                return self.promote();
            }
        }
        Ok(publish::discard(&next).map_err(WriteError::at(&next))?)
    }

    /// Opens the residual that is added to an update.
    ///
    /// # Errors
    ///
    /// When the file is not a residual, or is that of another client.
    pub(crate) fn open(&self, subject: Subject, tensors: &[TensorSpec]) -> Result<CarryOver, ResidualError> {
        let kept = self.start(&subject)?;
        let ratio = kept.as_ref().and_then(|kept| kept.local_lr.zip(subject.local_lr));
        let ratio = ratio.map_or(1.0, |(before, now)| before / now);
        let factor = self.decay * if ratio.is_finite() { ratio } else { 1.0 };
        let from = kept.and_then(|kept| self.fitting(kept, &subject, tensors));
        Ok(CarryOver { subject, from, factor })
    }

    /// A residual with its places; `None`, with a warning, if it is too old or of another model.
    fn fitting(
        &self,
        kept: StoredResidual,
        subject: &Subject,
        tensors: &[TensorSpec],
    ) -> Option<(StoredResidual, Vec<Option<TensorPlace>>)> {
        let path = kept.model.path.display();
        if let Some((now, then)) = subject.round.zip(kept.round).filter(|(now, then)| now < then) {
            tracing::warn!(
                "{path}: the residual is of round {then}, and the update of the earlier round {now}"
            );
        }
        let age = subject.round.zip(kept.round).map(|(now, then)| now.saturating_sub(then));
        if let (Some(age), Some(most)) = (age, self.max_age)
            && age > most
        {
            tracing::warn!("{path}: the residual is {age} rounds old, more than {most}, and is dropped");
            return None;
        }
        match kept.places(tensors) {
            Ok(places) => Some((kept, places)),
            Err(why) => {
                tracing::warn!("{path}: the residual belongs to another model and is dropped: {why}");
                None
            }
        }
    }

    /// The residual that an update starts from: the previous one if the current one already includes this update.
    fn start(&self, subject: &Subject) -> Result<Option<StoredResidual>, ResidualError> {
        let Some(current) = StoredResidual::read(&self.path)? else {
            self.warn_if_lost();
            return Ok(None);
        };
        if current.client != subject.client {
            let (path, expected) = (self.path.clone(), subject.client.clone());
            return Err(ResidualError::OtherClient { path, found: current.client, expected });
        }
        if !current.accounts_for(subject) {
            return Ok(Some(current));
        }
        let path = self.path.display();
        match current.is_of(subject) {
            true => tracing::info!("{path}: the run compresses the same update again"),
            false => {
                let round = subject.round.unwrap_or_default();
                tracing::warn!(
                    "{path}: another update of round {round} was compressed before; this update replaces it"
                );
            }
        }
        if current.follows == NO_DIGEST {
            return Ok(None);
        }
        let previous = StoredResidual::read(&publish::previous(&self.path))?;
        let previous = previous.filter(|previous| previous.is_followed_by(&current));
        previous.map(Some).ok_or_else(|| ResidualError::NoPrevious { path: self.path.clone() })
    }

    /// Warns if the residual is missing and the one before it is not.
    fn warn_if_lost(&self) {
        let previous = publish::previous(&self.path);
        if identity_of(&previous).is_some() {
            tracing::warn!(
                hint = "to go on with the error that it carried, copy the other file to it, and compress the update of \
                        the round before again",
                "{}: does not exist, though {} does: the compression starts over without a residual",
                self.path.display(),
                previous.display()
            );
        }
    }

    /// Gives the staged residual its name, after the update has its own.
    ///
    /// # Errors
    ///
    /// When files cannot be renamed.
    pub(crate) fn promote(&self) -> Result<(), ResidualError> {
        let next = self.next();
        if let (Some(current), Some(next)) =
            (StoredResidual::read_again(&self.path).ok().flatten(), StoredResidual::read_again(&next)?)
            && current.is_followed_by(&next)
        {
            publish::keep_as_previous(&self.path).map_err(WriteError::at(&self.path))?;
        }
        Ok(publish::rename(&next, &self.path).map_err(WriteError::at(&self.path))?)
    }
}

/// The SHA-256 of a file; `None` if there is no file.
fn sha256_of(path: &Path) -> Result<Option<String>, ResidualError> {
    if identity_of(path).is_none() {
        return Ok(None);
    }
    let sha256 = || {
        let file = SourceFile::open(path, &OpenFiles::raise_limit())?;
        digest::sha256(file.bytes(), |chunk, offset| file.read_exact_at(chunk, offset))
    };
    sha256().map(Some).map_err(|source| ResidualError::Read { path: path.to_owned(), source })
}
