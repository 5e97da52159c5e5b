//! `fedmill decompress`: the plain update that `aggregate` sees in a compressed one.

use super::{Common, Failure, Outcome, print};
use crate::compress::decompress::Decompression;
use clap::Args;
use std::path::PathBuf;

/// Decompress an update.
///
/// Prints the path of the plain update: what `aggregate` sees in the compressed one.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The compressed update.
    #[arg(value_name = "UPDATE")]
    update: PathBuf,
    /// The base, for an update that leaves the names of its tensors to it.
    #[arg(long, value_name = "BASE")]
    base: Option<PathBuf>,
    /// The path of the plain update.
    #[arg(long, short, value_name = "OUT")]
    output: PathBuf,
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        common.refuse_gpu("decompress")?;
        let (update, base, output) = (self.update.clone(), self.base.clone(), self.output.clone());
        let decompression = Decompression { update, base, output, isa: common.isa() };
        let path = decompression.run(&common.pool()?).map_err(Failure::of)?;
        print(&format!("{}\n", path.display()))?;
        Ok(Outcome::Done)
    }
}
