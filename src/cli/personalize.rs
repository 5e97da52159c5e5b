//! `fedmill personalize`: the model of one client, from the global model and its own.

use super::{Common, Failure, Outcome, print, size};
use crate::engine::intake::personal::{Layers, Personal};
use crate::personalize::{Personalization, PersonalizeMethod};
use clap::{ArgGroup, Args};
use std::path::PathBuf;

/// Make the model of one client: its personal layers on the global model, or something between the two.
///
/// Prints the path of the model. Layers that are not personal are the global model's; with --mix every float is
/// (1 - ALPHA) * global + ALPHA * client, and integers are the global model's.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("how").required(true))]
pub(super) struct Arguments {
    /// The global model.
    #[arg(long, value_name = "MODEL")]
    global: PathBuf,
    /// The client's model, or the personal layers alone.
    #[arg(long, value_name = "CLIENT")]
    personal: PathBuf,
    /// Layers that are the client's: a pattern of tensor names such as `head.*`, fedbn, or fedper; may be repeated.
    #[arg(long, value_name = "LAYERS", group = "how")]
    layers: Vec<Layers>,
    /// How far from the global model, at 0, to the client's, at 1.
    #[arg(long, value_name = "ALPHA", group = "how", value_parser = alpha)]
    mix: Option<f64>,
    /// Split the model into files of at most this much data, with an index; for example 5GB.
    #[arg(long, value_name = "SIZE", value_parser = size::parse_bytes)]
    max_shard_size: Option<u64>,
    /// Where the client's model goes.
    #[arg(long, short, value_name = "OUT")]
    output: PathBuf,
}

fn alpha(text: &str) -> Result<f64, String> {
    let alpha = text.parse().ok().filter(|alpha| (0.0..=1.0).contains(alpha));
    alpha.ok_or_else(|| "expected a number from 0 to 1".to_owned())
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        common.refuse_gpu("personalize")?;
        let personalization = Personalization {
            global: self.global.clone(),
            client: self.personal.clone(),
            method: match self.mix {
                Some(alpha) => PersonalizeMethod::Mix(alpha),
                None => PersonalizeMethod::Layers(Personal { layers: self.layers.clone() }),
            },
            output: self.output.clone(),
            max_shard_bytes: self.max_shard_size,
            isa: common.isa(),
        };
        let path = personalization.run(&common.pool()?).map_err(Failure::of)?;
        print(&format!("{}\n", path.display()))?;
        Ok(Outcome::Done)
    }
}
