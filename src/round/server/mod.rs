//! The real world of a round: a state directory on disk, and the rooms that do the work.
//!
//! - [`disk`]: the files. [`work`]: selection, merges, records. [`budget`](mod@budget): the privacy budget.
//! - `secure`: sessions of secure aggregation. `policy`: who may be selected, and what updates may claim and weigh.
//! - [`tiers`]: what tiers ask of their clients, with forecasts of the bytes of each codec.
//! - [`check`]: findings about the files. [`initial`]: checks the first model. [`command`]: the operator's command that
//!   measures a model. [`options`]: messages of other rooms, with keys in place of options.

pub mod budget;
pub mod check;
pub mod command;
pub mod disk;
pub mod initial;
pub mod options;
mod policy;
mod secure;
pub mod tiers;
pub mod work;

use crate::config::Config;
use crate::engine::backend::request::BackendRequest;
use crate::io::folder;
use crate::io::journal::{Lock, Taken};
use crate::kernels::lanes::Isa;
use crate::lint::Facts;
use crate::lint::tier_codecs::TierTask;
use crate::round::error::RoundError;
use crate::round::layout;
use rayon::ThreadPool;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The threads and devices that merges run on.
pub struct Hardware {
    /// The worker threads.
    pub pool: ThreadPool,
    /// The instruction set.
    pub isa: Isa,
    /// The backend.
    pub backend: BackendRequest,
}

/// A state directory and the rooms that work on it.
pub struct Server {
    root: PathBuf,
    config: Config,
    hardware: Hardware,
    _lock: Option<Lock>,
}

impl Server {
    /// Opens a state directory for the one command that may change it.
    ///
    /// # Errors
    ///
    /// When another command holds its lock.
    pub fn open(root: &Path, config: &Config, hardware: Hardware) -> Result<Self, RoundError> {
        let server = Self::reader(root, config, hardware);
        let lock = Lock::try_take(&root.join(layout::LOCK))?;
        match lock {
            Taken::Ours(lock) => Ok(Self { _lock: Some(lock), ..server }),
            Taken::By(holder) => Err(RoundError::Locked { directory: root.to_owned(), holder }),
        }
    }

    /// Opens a state directory to read it, without its lock.
    pub fn reader(root: &Path, config: &Config, hardware: Hardware) -> Self {
        Self { root: root.to_owned(), config: config.clone(), hardware, _lock: None }
    }

    /// What the lint of settings knows of the federation.
    ///
    /// # Errors
    ///
    /// When the registry or the budget cannot be read.
    pub fn facts(&self) -> Result<Facts, RoundError> {
        Ok(Facts {
            population: self.active()?,
            model_bytes: self.model().map(|(bytes, _)| bytes),
            plan: self.plan()?,
            tiers: self.adapting_tiers()?,
            has_tier_rules: self.has_tier_rules()?,
        })
    }

    /// Bytes and path of the current model, or of the one to start from; `None` without either.
    fn model(&self) -> Option<(u64, PathBuf)> {
        let first = self.config.model.initial.as_ref().map(|path| self.root.join(path));
        let bytes = |path: &Path| folder::bytes(path).ok();
        let models = [Some(self.path(layout::CURRENT)), first].into_iter().flatten();
        models.filter_map(|path| Some((bytes(&path)?, path))).next()
    }

    /// What each tier asks of its clients, with forecasts; nothing unless codecs of tiers adapt.
    fn adapting_tiers(&self) -> Result<BTreeMap<String, TierTask>, RoundError> {
        match self.config.adaptation.tier_codecs {
            true => self.tier_tasks(self.model().as_ref().map(|(_, path)| path.as_path())),
            false => Ok(BTreeMap::new()),
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }
}
