//! Checks the model that a federation starts from.

use crate::engine::aggregate::finite::first_non_finite;
use crate::engine::intake::update::open_base;
use crate::io::model_file::TablePool;
use crate::io::source::OpenFiles;
use crate::round::error::RoundError;
use crate::round::server::Server;
use crate::telemetry::progress::Progress;
use std::path::Path;

impl Server {
    /// Checks that a file is a plain model of finite numbers: no round could merge onto another one.
    ///
    /// # Errors
    ///
    /// When it is none, or cannot be read.
    pub fn check_model(&self, path: &Path) -> Result<(), RoundError> {
        let (files, tables) = (OpenFiles::raise_limit(), TablePool::default());
        let named = path.display().to_string();
        let model = open_base(path, &files, &tables).map_err(|why| RoundError::Unexpected {
            path: named.clone(),
            found: why.faults.to_string(),
            expected: "a model".to_owned(),
        })?;
        let progress = Progress::hidden();
        let bad = first_non_finite(&self.machine(&progress), model, path).map_err(RoundError::work)?;
        match bad {
            None => Ok(()),
            Some(bad) => Err(RoundError::Unexpected {
                path: named,
                found: format!(
                    "{} in tensor `{}` at flat index {} ({} such values in the model)",
                    bad.value, bad.tensor, bad.index, bad.count
                ),
                expected: "a model of finite numbers".to_owned(),
            }),
        }
    }
}
