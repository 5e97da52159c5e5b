//! The stamp of a released model: metadata that name the charge the model was made with.
//!
//! A stamp holds the number and the digest of the charge's record. A ledger without that record is older than the
//! model: it comes from a backup, and what it lacks was spent all the same.

use crate::budget::error::BudgetError;
use crate::io::digest::sha256_of;
use crate::io::limits::Limits;
use crate::io::model_file::{ModelFile, TablePool};
use crate::io::model_files::family;
use crate::io::source::{OpenFiles, identity_of};
use crate::privacy::ledger::plan::ClipBound;
use crate::privacy::ledger::replay::{ChargeRecord, State};
use crate::record::Head;
use crate::record::sha256::{DigestError, Sha256};
use crate::updates;
use crate::updates::metadata::{NOT_PRIVATE, ancestor_as_release};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Metadata keys of a stamp.
pub mod key {
    /// The name of the release in the ledger.
    pub const RELEASE: &str = "fedmill.privacy.release";
    /// The record of the charge, as `NUMBER:DIGEST`.
    pub const LEDGER: &str = "fedmill.privacy.ledger";
    /// The digest of the plan.
    pub const PLAN: &str = "fedmill.privacy.plan";
    /// The clip bound of the next round, if it follows the norms.
    pub const NEXT_CLIP: &str = "fedmill.privacy.next_clip";
    /// Present if the noise came from a test seed.
    pub const TEST_SEED: &str = crate::updates::metadata::TEST_SEED_KEY;
}

/// What a model says about its charge.
#[derive(Clone, PartialEq, Debug)]
pub struct Stamp {
    /// The name of the release in the ledger.
    pub release_id: String,
    /// The record of the charge.
    pub charge: Head,
    /// The digest of the plan.
    pub plan_sha256: Sha256,
    /// The clip bound of the next round, if it follows the norms.
    pub next_clip: Option<f64>,
    /// Whether the noise came from a test seed: the model is not private.
    pub is_test: bool,
}

/// A published model and its stamp.
#[derive(Debug)]
pub struct StampedModel {
    /// The path of the file or of the index.
    pub path: PathBuf,
    /// The stamp; `None` if the model was not made with a charge.
    pub stamp: Option<Stamp>,
    model: ModelFile,
}

impl Stamp {
    /// A stamp as long as that of the next release may become.
    pub(crate) fn longest(state: &State) -> Self {
        let is_adaptive = matches!(state.plan().clip, ClipBound::Adaptive(_));
        Self {
            release_id: format!("{}-{}", state.short_id(), u64::MAX),
            charge: Head { seq: u64::MAX, sha256: Sha256::NONE },
            plan_sha256: state.init.plan_sha256,
            // No number has more digits in the notation of `Display`.
            next_clip: is_adaptive.then_some(f64::MIN_POSITIVE.next_down()),
            is_test: true,
        }
    }

    /// Whether this is the [`longest`](Self::longest) stamp, which a model has until its run completes it.
    pub(super) fn is_reserved_room(&self) -> bool {
        self.charge.seq == u64::MAX
    }

    /// The stamp as metadata of a model.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        let entries = [
            (key::RELEASE, Some(self.release_id.clone())),
            (key::LEDGER, Some(self.charge.to_string())),
            (key::PLAN, Some(self.plan_sha256.to_string())),
            (key::NEXT_CLIP, self.next_clip.map(|clip| clip.to_string())),
            (key::TEST_SEED, self.is_test.then(|| NOT_PRIVATE.to_owned())),
        ];
        entries.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    }

    /// Reads the stamp of a model, or if it has none, that of the nearest private release among its bases.
    ///
    /// # Errors
    ///
    /// As [`of`](Self::of).
    pub fn of_base(path: &Path, metadata: &BTreeMap<String, String>) -> Result<Option<Self>, BudgetError> {
        match Self::of(path, metadata)? {
            None => Self::of(path, &ancestor_as_release(metadata)),
            own => Ok(own),
        }
    }

    /// Reads the stamp from a model's metadata; `None` if the model was not made with a charge.
    ///
    /// # Errors
    ///
    /// When a value is missing or not understood.
    pub fn of(path: &Path, metadata: &BTreeMap<String, String>) -> Result<Option<Self>, BudgetError> {
        let Some(release_id) = metadata.get(key::RELEASE) else { return Ok(None) };
        let fault = |key, why| BudgetError::Stamp { path: path.to_owned(), key, why };
        let get = |key| metadata.get(key).ok_or_else(|| fault(key, "is missing".to_owned()));
        let charge = get(key::LEDGER)?.parse().map_err(|why| fault(key::LEDGER, why))?;
        let plan_sha256 =
            get(key::PLAN)?.parse().map_err(|why: DigestError| fault(key::PLAN, why.to_string()))?;
        let next_clip = metadata.get(key::NEXT_CLIP).map(|clip| {
            let number = clip.parse().ok().filter(|clip: &f64| clip.is_finite() && *clip > 0.0);
            let why = || format!("found `{clip}`, expected a finite number above 0");
            number.ok_or_else(|| fault(key::NEXT_CLIP, why()))
        });
        Ok(Some(Self {
            release_id: release_id.clone(),
            charge,
            plan_sha256,
            next_clip: next_clip.transpose()?,
            is_test: metadata.contains_key(key::TEST_SEED),
        }))
    }
}

impl StampedModel {
    /// Opens a model.
    ///
    /// # Errors
    ///
    /// When the file is not a model, or its stamp is not understood.
    pub fn open(path: &Path) -> Result<Self, BudgetError> {
        let model = updates::open_plain(path, &OpenFiles::raise_limit(), &TablePool::default())
            .map_err(|faults| BudgetError::Model { path: path.to_owned(), faults })?;
        let stamp = Stamp::of(path, &model.metadata)?;
        Ok(Self { path: path.to_owned(), stamp, model })
    }

    /// Opens the model published to `target`, in one file or in shards; `None` if there is none.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn published(target: &Path) -> Result<Option<Self>, BudgetError> {
        let exists = |path: &PathBuf| identity_of(path).is_some();
        // `family` lists the file itself and the index first.
        let path = family(target).ok().and_then(|files| files.into_iter().take(2).find(exists));
        path.map(|path| Self::open(&path)).transpose()
    }

    /// Whether the model was made with this charge.
    pub fn is_of(&self, charge: &ChargeRecord) -> bool {
        self.stamp.as_ref().is_some_and(|stamp| stamp.charge == charge.head)
    }

    /// The paths of the model's files.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        self.model.files.iter().map(|file| Path::new(file.path()))
    }

    /// Computes the SHA-256 digest over the bytes of all files of the model, in order.
    ///
    /// # Errors
    ///
    /// When a file cannot be read.
    pub fn sha256(&self) -> Result<Sha256, BudgetError> {
        let digest = sha256_of(&self.model.files).map_err(BudgetError::at(&self.path))?;
        digest.parse().map_err(|why: DigestError| BudgetError::Stamp {
            path: self.path.clone(),
            key: "sha256",
            why: why.to_string(),
        })
    }
}

/// The files that a publication to `target` may replace, and the charge that each names as its maker or as that of its
/// nearest private base. A shard counts without an index: a run that was stopped leaves such shards. What cannot be read
/// as a model names no charge.
pub(super) fn stamps_at(target: &Path) -> Vec<(PathBuf, Stamp)> {
    let (open, tables) = (OpenFiles::raise_limit(), TablePool::default());
    let stamp_of = |path: PathBuf| {
        let model = ModelFile::open(&path, &open, &tables, &Limits::TRUSTED).ok()?;
        let stamp = Stamp::of_base(&path, &model.metadata).ok()??;
        Some((path, stamp))
    };
    family(target).unwrap_or_default().into_iter().filter_map(stamp_of).collect()
}
