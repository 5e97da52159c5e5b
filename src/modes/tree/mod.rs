//! Trees of aggregators: a partial is one file with the sums of a group of clients.
//!
//! A leaf sums its clients' updates and publishes a partial. A node above takes partials as it takes updates, and
//! publishes a larger partial, or the model. Sums are [exact](crate::kernels::exact_sum). The root divides them once,
//! by weights that it adds in order of client id. So a tree gives the same bytes as one merge of all updates. The
//! partial of a trimmed mean holds the smallest and largest values of every coordinate beside the sum of the others.
//!
//! [`description`] is the metadata of a partial, and [`admission`] takes partials into a run. [`agreed`] is the round and
//! the base that the inputs of a leaf state. [`alone`] finds partials whose own mean cannot be right. [`purpose`] refuses
//! options that sums do not support. [`sums`] adds up tile by tile, [`leaf`] writes a partial, and [`root`] merges
//! partials into the model.

pub mod admission;
pub mod agreed;
pub mod alone;
pub mod description;
pub mod leaf;
pub mod purpose;
pub mod root;
pub mod sums;

use crate::updates::source::Source;
use description::Description;
use std::path::PathBuf;

/// A partial that takes part in a run.
#[derive(Debug)]
pub struct Partial {
    /// Its path as the user wrote it.
    pub path: PathBuf,
    /// Its description.
    pub description: Description,
    /// The sums of each tensor of the layout.
    pub sums: Source,
    /// The rounding errors of the sums.
    pub errors: Source,
    /// The values at the edges, smallest first.
    pub edges: Vec<Source>,
}
