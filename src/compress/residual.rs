//! Error feedback: what a client could not send stays with it, and is added to its next update.
//!
//! With the residual `e` of the rounds before, an update `u` is encoded as `p = u + decay * (lr_before / lr) * e`, the
//! ratio of learning rates only where both are known (Zheng et al., Communication-Efficient Distributed Blockwise Momentum
//! SGD with Error-Feedback, 2019, algorithm 1), and what stays is `p` less what the file decodes to (Seide et al., 1-Bit
//! Stochastic Gradient Descent, 2014; Karimireddy et al., Error Feedback Fixes SignSGD, 2019).
//!
//! A residual and its update must appear together, in two files. The residual is brought to disk as `FILE.next`, then the
//! update gets its name, then the residual its own. A run that finds `FILE.next` looks whether the update that it names
//! is there: then it was sent, and the residual is given its name; else both are forgotten. What a residual replaces
//! stays as `FILE.previous`, so that an update that is compressed again starts from what it started from before.

use crate::compress::parts::PartPlan;
use crate::io::digest;
use crate::io::model_file::{ModelFile, OpenFault, TablePool, TensorPlace, list};
use crate::io::model_writer::{self, WriteError, header_bytes};
use crate::io::publish::{self, Staged};
use crate::io::source::{OpenFiles, SourceFile, identity_of};
use crate::kernels::convert::{decode, encode};
use crate::kernels::lanes::Isa;
use crate::model::dtype::{Dtype, Kind};
use crate::model::layout::{Piece, TensorSpec};
use crate::model::tile::TileBuffer;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};

/// Metadata keys of a residual.
mod key {
    pub(crate) const CLIENT: &str = "client_id";
    pub(crate) const ROUND: &str = "round";
    pub(crate) const LOCAL_LR: &str = "local_lr";
    pub(crate) const BASE: &str = "fedmill.base_sha256";
    pub(crate) const STEPS: &str = "fedmill.residual";
    pub(crate) const CODEC: &str = "fedmill.codec_of";
    pub(crate) const DECAY: &str = "fedmill.decay";
    pub(crate) const INPUT: &str = "fedmill.input_sha256";
    pub(crate) const OUTPUT: &str = "fedmill.update_name";
    pub(crate) const UPDATE: &str = "fedmill.update_sha256";
    pub(crate) const FOLLOWS: &str = "fedmill.follows";
}

/// Stands where the digest of the update will, as long as that is not written; and for none.
const NO_DIGEST: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// What a residual's values are stored as.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum ResidualDtype {
    /// As they are.
    F32,
    /// Rounded to half the bytes.
    Bf16,
}

/// How a client keeps what it could not send.
#[derive(Clone, PartialEq, Debug)]
pub struct Feedback {
    /// The residual. Private: it is readable by its owner alone, and never sent.
    pub path: PathBuf,
    /// What its values are stored as.
    pub dtype: ResidualDtype,
    /// It is forgotten when more rounds than these lie between.
    pub max_age: Option<u64>,
    /// What it is multiplied by each round.
    pub decay: f64,
}

/// What a residual goes by of an update.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Whose it is.
    pub client: String,
    /// The round it was made in.
    pub round: Option<u64>,
    /// The learning rate it was made by.
    pub local_lr: Option<f64>,
    /// Digest of its files.
    pub input_sha256: String,
    /// Digest of its base, if it has one.
    pub base_sha256: Option<String>,
}

/// Why error feedback is not possible.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum ResidualError {
    #[error("{}: the residual cannot be used: {}", .path.display(), list(.faults))]
    Unreadable { path: PathBuf, faults: Vec<OpenFault> },
    #[error("{}: is no residual: metadata `{key}` is {found}, expected {expected}", .path.display())]
    Metadata { path: PathBuf, key: &'static str, found: String, expected: &'static str },
    #[error("{}: is the residual of client `{found}`, expected that of `{expected}`", .path.display())]
    OtherClient { path: PathBuf, found: String, expected: String },
    #[error(
        "{}: accounts for this update already, and {}, which it followed, is missing or another",
        .path.display(), publish::previous(.path).display()
    )]
    NoPrevious { path: PathBuf },
    #[error("{}: is also the update, its base or the output, expected a path of its own for the residual", .path.display())]
    NotItsOwn { path: PathBuf },
    #[error("{}: cannot be read: {source}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl ResidualError {
    /// What the user may do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::OtherClient { .. } => Some("each client keeps a residual of its own".to_owned()),
            Self::NoPrevious { path } => {
                Some(format!("to start over without what was kept, move {} away", path.display()))
            }
            _ => None,
        }
    }
}

/// A residual as it is in a file.
#[derive(Debug)]
struct Kept {
    model: ModelFile,
    client: String,
    round: Option<u64>,
    local_lr: Option<f64>,
    /// Digests of the update that it was left by: before and after it was compressed.
    input: String,
    update: String,
    /// Digest of the base of the former.
    base: Option<String>,
    /// The name of the latter.
    output: String,
    /// The `update` of the residual that it follows.
    follows: String,
    /// Updates that went into it, itself and those it follows.
    steps: u64,
}

impl Kept {
    fn read(path: &Path) -> Result<Option<Self>, ResidualError> {
        if identity_of(path).is_none() {
            return Ok(None);
        }
        let model = ModelFile::open(path, &OpenFiles::raise_limit(), &TablePool::default())
            .map_err(|faults| ResidualError::Unreadable { path: path.to_owned(), faults })?;
        let text = |key: &'static str| {
            model.metadata.get(key).cloned().ok_or_else(|| ResidualError::Metadata {
                path: path.to_owned(),
                key,
                found: "missing".to_owned(),
                expected: "what `fedmill compress --residual` writes",
            })
        };
        let steps = text(key::STEPS)?;
        let steps = steps.parse().map_err(|_| ResidualError::Metadata {
            path: path.to_owned(),
            key: key::STEPS,
            found: format!("`{steps}`"),
            expected: "a count",
        })?;
        Ok(Some(Self {
            client: text(key::CLIENT)?,
            round: model.metadata.get(key::ROUND).and_then(|round| round.parse().ok()),
            local_lr: model.metadata.get(key::LOCAL_LR).and_then(|lr| lr.parse().ok()),
            input: text(key::INPUT)?,
            update: text(key::UPDATE)?,
            base: model.metadata.get(key::BASE).cloned(),
            output: text(key::OUTPUT)?,
            follows: text(key::FOLLOWS)?,
            steps,
            model,
        }))
    }

    fn is_followed_by(&self, next: &Self) -> bool {
        (&next.follows, next.steps) == (&self.update, self.steps + 1)
    }

    /// Whether this very update left it.
    fn is_of(&self, subject: &Subject) -> bool {
        self.input == subject.input_sha256 && self.base == subject.base_sha256
    }

    /// Whether what is left of this update is in it already: then the update is compressed once more.
    fn accounts_for(&self, subject: &Subject) -> bool {
        let is_same = self.is_of(subject);
        is_same || (self.round.is_some() && self.round == subject.round)
    }

    /// Where the tensors of an update are, none for those that are no floats; or what is different.
    fn places(&self, tensors: &[TensorSpec]) -> Result<Vec<Option<TensorPlace>>, String> {
        let held: HashMap<&str, &TensorPlace> =
            self.model.table.iter().map(|place| (place.spec.name.as_str(), place)).collect();
        let place = |spec: &TensorSpec| match held.get(spec.name.as_str()) {
            Some(place) if place.spec.shape == spec.shape && place.spec.dtype.kind() == Kind::Float => {
                Ok(Some((*place).clone()))
            }
            Some(place) => Err(format!("`{}` was {:?} and is {:?}", spec.name, place.spec.shape, spec.shape)),
            None => Err(format!("`{}` is new", spec.name)),
        };
        let floats = tensors.iter().filter(|spec| spec.dtype.kind() == Kind::Float).count();
        if floats < held.len() {
            return Err(format!("it has {} tensors, the update {floats} of floats", held.len()));
        }
        let is_float = |spec: &TensorSpec| spec.dtype.kind() == Kind::Float;
        tensors.iter().map(|spec| if is_float(spec) { place(spec) } else { Ok(None) }).collect()
    }
}

/// What is added to an update.
#[derive(Debug)]
pub struct Carried {
    /// The update.
    subject: Subject,
    from: Option<(Kept, Vec<Option<TensorPlace>>)>,
    factor: f64,
}

impl Carried {
    /// Adds what is carried over to values of a tensor.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn add(&self, isa: Isa, piece: Piece, out: &mut [f64]) -> io::Result<()> {
        let Some((kept, places)) = &self.from else { return Ok(()) };
        let Some(place) = &places[piece.tensor] else { return Ok(()) };
        let size = place.spec.dtype.bytes();
        let mut stored = TileBuffer::new(1, piece.len * size);
        let bytes = &mut stored.row_mut(0)[..piece.len * size];
        kept.model.files[place.file].read_exact_at(bytes, place.offset + (piece.start * size) as u64)?;
        let mut left = vec![0.0f64; piece.len];
        decode(isa, place.spec.dtype, bytes, &mut left);
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

    /// Checks that the residual has a path of its own.
    ///
    /// # Errors
    ///
    /// When it is among these, or cannot be written.
    pub fn check<'a>(&self, others: impl Iterator<Item = &'a Path>) -> Result<(), ResidualError> {
        model_writer::check_file_target(&self.path)?;
        let same = |other: &Path| {
            let identities = [&self.path, other].map(identity_of);
            publish::resolved(other) == publish::resolved(&self.path)
                || (identities[0].is_some() && identities[0] == identities[1])
        };
        let mut others = others;
        match others.any(same) {
            true => Err(ResidualError::NotItsOwn { path: self.path.clone() }),
            false => Ok(()),
        }
    }

    /// Ends what a run that was killed began: its residual gets its name if its update has, else it is forgotten.
    ///
    /// # Errors
    ///
    /// When files cannot be read or renamed, or another run is at work on them.
    pub fn recover(&self, output: &Path) -> Result<(), ResidualError> {
        let next = self.next();
        if publish::remove_leftovers(&next).map_err(WriteError::at(&next))? {
            return Err(WriteError::Busy { path: self.path.clone() }.into());
        }
        let Some(kept) = Kept::read(&next)? else { return Ok(()) };
        for update in [output.to_owned(), output.with_file_name(&kept.output)] {
            if sha256_of(&update)?.is_some_and(|found| found == kept.update) {
                tracing::info!("{}: what a run that was killed left is put in place", self.path.display());
                return self.promote();
            }
        }
        Ok(publish::discard(&next).map_err(WriteError::at(&next))?)
    }

    /// What is carried over to an update: the residual of the updates before it.
    ///
    /// # Errors
    ///
    /// When the file holds something else, or the residual of another client.
    pub fn open(&self, subject: Subject, tensors: &[TensorSpec]) -> Result<Carried, ResidualError> {
        let kept = self.start(&subject)?;
        let ratio = kept.as_ref().and_then(|kept| kept.local_lr.zip(subject.local_lr));
        let ratio = ratio.map_or(1.0, |(before, now)| before / now);
        let factor = self.decay * if ratio.is_finite() { ratio } else { 1.0 };
        let from = kept.and_then(|kept| self.fitting(kept, &subject, tensors));
        Ok(Carried { subject, from, factor })
    }

    /// A residual with its places, if it is still of use to an update.
    fn fitting(
        &self,
        kept: Kept,
        subject: &Subject,
        tensors: &[TensorSpec],
    ) -> Option<(Kept, Vec<Option<TensorPlace>>)> {
        let path = kept.model.path.display();
        let age = subject.round.zip(kept.round).map(|(now, then)| now.saturating_sub(then));
        if let (Some(age), Some(most)) = (age, self.max_age)
            && age > most
        {
            tracing::warn!("{path}: is {age} rounds old, more than {most}, and is forgotten");
            return None;
        }
        match kept.places(tensors) {
            Ok(places) => Some((kept, places)),
            Err(why) => {
                tracing::warn!("{path}: is of another model and is forgotten: {why}");
                None
            }
        }
    }

    /// The residual that an update starts from: that before it, if it is compressed once more.
    fn start(&self, subject: &Subject) -> Result<Option<Kept>, ResidualError> {
        let Some(current) = Kept::read(&self.path)? else { return Ok(None) };
        if current.client != subject.client {
            let (path, expected) = (self.path.clone(), subject.client.clone());
            return Err(ResidualError::OtherClient { path, found: current.client, expected });
        }
        if !current.accounts_for(subject) {
            return Ok(Some(current));
        }
        let path = self.path.display();
        match current.is_of(subject) {
            true => tracing::info!("{path}: the update is compressed once more"),
            false => {
                let round = subject.round.unwrap_or_default();
                tracing::warn!(
                    "{path}: another update of round {round} was compressed before; this one takes its place"
                );
            }
        }
        if current.follows == NO_DIGEST {
            return Ok(None);
        }
        let previous = Kept::read(&publish::previous(&self.path))?;
        let previous = previous.filter(|previous| previous.is_followed_by(&current));
        previous.map(Some).ok_or_else(|| ResidualError::NoPrevious { path: self.path.clone() })
    }

    /// Gives the residual that was staged its name, once its update has its own.
    ///
    /// # Errors
    ///
    /// When files cannot be renamed.
    pub fn promote(&self) -> Result<(), ResidualError> {
        let next = self.next();
        if let (Some(current), Some(next)) = (Kept::read(&self.path).ok().flatten(), Kept::read(&next)?)
            && current.is_followed_by(&next)
        {
            publish::keep_as_previous(&self.path).map_err(WriteError::at(&self.path))?;
        }
        Ok(publish::rename(&next, &self.path).map_err(WriteError::at(&self.path))?)
    }
}

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

/// A residual that is being written. What is not written of it is zero.
#[derive(Debug)]
pub struct ResidualWriter {
    next: PathBuf,
    staged: Staged,
    /// Those of the update that are floats.
    specs: Vec<TensorSpec>,
    /// First byte of each tensor of the update; none for those that are no floats.
    places: Vec<Option<u64>>,
    metadata: BTreeMap<String, String>,
}

impl ResidualWriter {
    /// Starts the residual of an update that is encoded by `codec` into `output`.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn create(
        feedback: &Feedback,
        carried: &Carried,
        tensors: &[TensorSpec],
        codec: &str,
        output: &Path,
    ) -> Result<Self, ResidualError> {
        let Carried { subject, from, .. } = carried;
        let kept = from.as_ref().map(|(kept, _)| kept);
        let name = output.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut metadata = BTreeMap::from([
            (key::CLIENT, subject.client.clone()),
            (key::STEPS, (kept.map_or(0, |kept| kept.steps) + 1).to_string()),
            (key::CODEC, codec.to_owned()),
            (key::DECAY, feedback.decay.to_string()),
            (key::INPUT, subject.input_sha256.clone()),
            (key::OUTPUT, name),
            (key::UPDATE, NO_DIGEST.to_owned()),
            (key::FOLLOWS, kept.map_or(NO_DIGEST, |kept| &kept.update).to_owned()),
        ]);
        metadata.extend(subject.round.map(|round| (key::ROUND, round.to_string())));
        metadata.extend(subject.local_lr.map(|lr| (key::LOCAL_LR, lr.to_string())));
        metadata.extend(subject.base_sha256.clone().map(|base| (key::BASE, base)));
        let metadata = metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let dtype = match feedback.dtype {
            ResidualDtype::F32 => Dtype::F32,
            ResidualDtype::Bf16 => Dtype::BF16,
        };
        let is_float = |spec: &&TensorSpec| spec.dtype.kind() == Kind::Float;
        let specs: Vec<TensorSpec> =
            tensors.iter().filter(is_float).map(|spec| TensorSpec { dtype, ..spec.clone() }).collect();
        let mut end = header_bytes(&specs, &metadata).len() as u64;
        let mut place = |spec: &TensorSpec| {
            let start = end;
            end += (spec.len * dtype.bytes()) as u64;
            start
        };
        let places = tensors.iter().map(|spec| is_float(&spec).then(|| place(spec))).collect();
        let next = feedback.next();
        let staged = Staged::create_private(&next, end).map_err(WriteError::at(&next))?;
        Ok(Self { next, staged, specs, places, metadata })
    }

    /// Writes what is left of a part's values from `start` on.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn write(
        &self,
        isa: Isa,
        tensors: &[TensorSpec],
        part: &PartPlan,
        start: usize,
        left: &[f32],
    ) -> io::Result<()> {
        let Some(dtype) = self.specs.first().map(|spec| spec.dtype) else { return Ok(()) };
        let size = dtype.bytes();
        let mut stored = TileBuffer::new(1, left.len() * size);
        let mut bytes = &mut stored.row_mut(0)[..left.len() * size];
        encode(isa, dtype, left, bytes);
        for piece in part.pieces(start, left.len(), |tensor| tensors[tensor].len) {
            let (of, behind) = bytes.split_at_mut(piece.len * size);
            if let Some(place) = self.places[piece.tensor] {
                self.staged.write_at(of, place + (piece.start * size) as u64)?;
            }
            bytes = behind;
        }
        Ok(())
    }

    /// Brings the residual of the update of this digest to disk as `FILE.next`.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn publish(mut self, update_sha256: &str) -> Result<(), ResidualError> {
        self.metadata.insert(key::UPDATE.to_owned(), update_sha256.to_owned());
        let header = header_bytes(&self.specs, &self.metadata);
        let publish = || {
            self.staged.write_at(&header, 0)?;
            self.staged.sync()?;
            self.staged.publish(&self.next)?;
            publish::sync_directory_of(&self.next)
        };
        Ok(publish().map_err(WriteError::at(&self.next))?)
    }
}
