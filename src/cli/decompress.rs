//! `fedmill decompress`: writes a compressed update as a plain one, or applies a patch.

use super::size::parse_bytes;
use super::{Common, Failure, INPUTS, OUTPUT, Outcome, print_path};
use crate::compress::decompress::Decompression;
use crate::compress::patch;
use clap::Args;
use std::path::PathBuf;

/// Decompress an update.
///
/// Prints the path of the plain update, with the values that `aggregate` reads from the compressed one. A patch from
/// `compress --exact` makes its model, bit for bit.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The compressed update, or a patch.
    #[arg(value_name = "UPDATE", help_heading = INPUTS)]
    update: PathBuf,
    /// The model that the client started from, for an update that takes the names of its tensors from it, or the model
    /// that a patch was made from.
    #[arg(long, value_name = "BASE", help_heading = INPUTS)]
    base: Option<PathBuf>,
    /// The most bytes that the plain update may have, such as 20GB [default: what the base allows; without a base
    /// 64MiB, or 1024 times the bytes of the compressed update if that is more].
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, help_heading = OUTPUT)]
    max_size: Option<u64>,
    /// Write the plain update to this path.
    #[arg(long, short, value_name = "OUT", help_heading = OUTPUT)]
    output: PathBuf,
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        if patch::is_patch(&self.update) {
            common.refuse_gpu("decompress of a patch")?;
            return self.apply(common);
        }
        let (update, base, output) = (self.update.clone(), self.base.clone(), self.output.clone());
        let device = common.offload("decompress")?;
        let max_bytes = self.max_size;
        let decompression = Decompression { update, base, max_bytes, output, isa: common.isa(), device };
        let path = decompression.run(&common.pool()?).map_err(Failure::of)?;
        print_path(&path);
        Ok(Outcome::Done)
    }

    /// Applies a patch to the base.
    fn apply(&self, common: &Common) -> Result<Outcome, Failure> {
        let Some(base) = &self.base else {
            let why = anyhow::anyhow!("{}: is a patch, and --base is missing", self.update.display());
            let hint = Some("--base takes the model that the patch was made from".to_owned());
            return Err(Failure { hint, ..why.into() });
        };
        let apply = || patch::apply_within(&self.update, base, &self.output, self.max_size);
        common.pool()?.install(apply).map_err(Failure::of)?;
        print_path(&self.output);
        Ok(Outcome::Done)
    }
}
