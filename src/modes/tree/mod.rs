//! Trees of aggregators: what a group of clients adds to a round is a partial, in one file.
//!
//! A leaf sums its clients' updates and publishes a partial; a node above takes partials as it takes updates, and
//! publishes a larger partial, or the model. Sums are [exact](crate::kernels::exact_sum) and divided once, at the
//! root, by weights that are added in order of client id: the tree gives the bytes that one merge of all updates does.
//! A trimmed mean's partial keeps the smallest and largest values of every coordinate beside the sum of the rest.
//!
//! [`description`] is what the file says about itself, [`admission`] takes partials into a run, [`purpose`] says what cannot
//! be done with sums, [`sums`] adds up tile by tile, [`leaf`] writes a partial, and [`root`] merges partials into the model.

pub mod admission;
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
    /// The path that it was named by.
    pub path: PathBuf,
    /// What it says about itself.
    pub description: Description,
    /// The sums of each tensor of the layout.
    pub sums: Source,
    /// What rounding took from them.
    pub errors: Source,
    /// The values at the edges, smallest first.
    pub edges: Vec<Source>,
}
