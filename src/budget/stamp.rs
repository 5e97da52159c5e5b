//! What a published model says of the charge that it was made with.
//!
//! It names the record of that charge by number and digest. A ledger that does not know the record is older than the
//! model: it was taken from a backup, and what it lacks was spent all the same.

use crate::budget::directory::{Books, BudgetError};
use crate::io::digest::sha256_of;
use crate::io::model_file::{ModelFile, TablePool};
use crate::io::model_writer::family;
use crate::io::source::{OpenFiles, identity_of};
use crate::record::Head;
use crate::record::sha256::Sha256;
use crate::updates;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Metadata keys.
pub mod key {
    /// What the ledger calls the release.
    pub const RELEASE: &str = "fedmill.privacy.release";
    /// The record of its charge, as `NUMBER:DIGEST`.
    pub const LEDGER: &str = "fedmill.privacy.ledger";
    /// The digest of the plan.
    pub const PLAN: &str = "fedmill.privacy.plan";
    /// The clip bound of the next round, if it follows the norms.
    pub const NEXT_CLIP: &str = "fedmill.privacy.next_clip";
    /// Says that the noise came from a number that somebody chose.
    pub const TEST_SEED: &str = "fedmill.privacy.test_seed";
}

/// What the model of a test says of itself.
const NOT_PRIVATE: &str = "NOT private: the noise came from a number that somebody chose";

/// What a model says of its charge.
#[derive(Clone, PartialEq, Debug)]
pub struct Stamp {
    /// What the ledger calls the release.
    pub release_id: String,
    /// The record of its charge.
    pub charge: Head,
    /// The digest of the plan.
    pub plan_sha256: Sha256,
    /// The clip bound of the next round, if it follows the norms.
    pub next_clip: Option<f64>,
    /// Whether its noise came from a number that somebody chose: it is not private.
    pub is_test: bool,
}

/// A published model and what it says.
#[derive(Debug)]
pub struct StampedModel {
    /// Where it was found: the file, or the index.
    pub path: PathBuf,
    /// What it says; none if it was not made with a charge.
    pub marks: Option<Stamp>,
    model: ModelFile,
}

impl Stamp {
    /// As metadata of a model.
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

    /// What the metadata of a model says; none if it was not made with a charge.
    ///
    /// # Errors
    ///
    /// When it is not understood.
    pub fn of(path: &Path, metadata: &BTreeMap<String, String>) -> Result<Option<Self>, BudgetError> {
        let Some(release_id) = metadata.get(key::RELEASE) else { return Ok(None) };
        let fault = |key, why| BudgetError::Marks { path: path.to_owned(), key, why };
        let get = |key| metadata.get(key).ok_or_else(|| fault(key, "is missing".to_owned()));
        let charge = get(key::LEDGER)?.parse().map_err(|why| fault(key::LEDGER, why))?;
        let plan = get(key::PLAN)?.parse();
        let plan_sha256 =
            plan.map_err(|why: <Sha256 as std::str::FromStr>::Err| fault(key::PLAN, why.to_string()))?;
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
    /// When it is none, or what it says is not understood.
    pub fn open(path: &Path) -> Result<Self, BudgetError> {
        let model = updates::open_plain(path, &OpenFiles::raise_limit(), &TablePool::default())
            .map_err(|faults| BudgetError::Model { path: path.to_owned(), faults })?;
        let marks = Stamp::of(path, &model.metadata)?;
        Ok(Self { path: path.to_owned(), marks, model })
    }

    /// The model that was published to `target`, in one file or in shards; none if there is none.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn published(target: &Path) -> Result<Option<Self>, BudgetError> {
        let is_there = |path: &PathBuf| identity_of(path).is_some();
        // The file itself and the index come first.
        let found = family(target).ok().and_then(|files| files.into_iter().take(2).find(is_there));
        found.map(|path| Self::open(&path)).transpose()
    }

    /// The SHA-256 digest of its files, one behind the other.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub fn sha256(&self) -> Result<Sha256, BudgetError> {
        let digest = sha256_of(&self.model.files).map_err(BudgetError::at(&self.path))?;
        digest.parse().map_err(|why| BudgetError::Marks {
            path: self.path.clone(),
            key: "sha256",
            why: format!("{why}"),
        })
    }
}

impl Books {
    /// Holds the ledger against what a model says of it: that was written before the model was.
    ///
    /// # Errors
    ///
    /// When the ledger is older than the model, or has another record in that place.
    pub fn check_marks(&self, path: &Path, marks: &Stamp) -> Result<(), BudgetError> {
        let Head { seq: charge, sha256: found } = marks.charge;
        match self.state.at(charge) {
            None => {
                Err(BudgetError::OlderThanModel { path: path.to_owned(), charge, found: self.state.head.seq })
            }
            Some(expected) if expected != found => {
                Err(BudgetError::OtherCharge { path: path.to_owned(), charge, found, expected })
            }
            Some(_) => Ok(()),
        }
    }

    /// Whether what a model says is of this ledger, and not of another one.
    pub fn knows(&self, marks: &Stamp) -> bool {
        marks.release_id.starts_with(&format!("{}-", self.state.short_id()))
    }
}
