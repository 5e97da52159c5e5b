//! Partials: what a group of clients adds to a round, in one file, for trees of aggregators.
//!
//! A leaf sums its clients' updates and publishes a partial; a node above takes partials as it takes updates, and
//! publishes a larger partial, or the model. Sums are [exact](crate::kernels::exact_sum) and divided once, at the
//! root, by weights that are added in order of client id: the tree gives the bytes that one merge of all updates does.
//! A trimmed mean's partial keeps the smallest and largest values of every coordinate beside the sum of the rest.
//!
//! [`description`] is what the file says about itself, [`admission`] who takes part in a round, [`request`] what cannot
//! be done with sums, `sums` what is added up, tile by tile, `publish` the file that comes out.

pub mod admission;
pub mod description;
pub mod leaf;
pub mod purpose;
pub mod sums;

use crate::engine::intake::admit::{Placement, Update};
use crate::io::model_file::ModelFile;
use crate::updates::metadata::UpdateMetadata;
use description::Description;
use std::path::PathBuf;
use std::sync::Arc;

/// Why a report of a tree's node has no metrics.
pub(crate) const NO_METRICS: &str =
    "no norms and no metrics: partials hold sums, not what is between clients";

/// A partial that takes part in a round.
#[derive(Debug)]
pub struct Partial {
    /// The path it was named by.
    pub path: PathBuf,
    /// Its file.
    pub model: Arc<ModelFile>,
    /// What it says about itself.
    pub description: Description,
    /// Where the sums of each tensor of the round's layout are.
    pub sums: Placement,
    /// Where what rounding took from them is.
    pub errors: Placement,
    /// Where the values at the edges are, smallest first.
    pub edges: Vec<Placement>,
}

impl Partial {
    /// The file, as it was before it was admitted.
    pub fn into_update(self) -> Update {
        let (metadata, _) = UpdateMetadata::parse(&self.model.metadata);
        let id = admission::name_of(&self.path);
        Update { id, path: self.path, metadata, model: Some(self.model), faults: Vec::new() }
    }
}
