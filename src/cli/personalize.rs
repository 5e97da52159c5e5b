//! `fedmill personalize`: builds the model of one client from the global and the client's model.

use super::{Common, Failure, INPUTS, IdOption, OUTPUT, Outcome, RULE, print_path, size};
use crate::engine::intake::personal::{Layers, Personal};
use crate::personalize::{Personalization, PersonalizeMethod};
use crate::settings::numbers;
use clap::{ArgGroup, Args};
use std::path::PathBuf;

/// Build the model of one client from the global model and the client's model.
///
/// Prints the path of the model. With --layers, the layers that match come from the client and all others from the
/// global model. With --mix, every float is (1 - ALPHA) * global + ALPHA * client, and integers come from the global
/// model.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("how").required(true))]
pub(super) struct Arguments {
    /// The global model.
    #[arg(long, value_name = "MODEL", help_heading = INPUTS)]
    global: PathBuf,
    /// The client's model, or a file with only its personal layers.
    #[arg(long, value_name = "CLIENT", help_heading = INPUTS)]
    personal: PathBuf,
    /// What names the client in the model's metadata: auto, metadata, stem, parent or path.
    ///
    /// metadata is `client_id` of the client's model. stem is the name of its file without the ending, parent the name
    /// of its folder, and path the path as given. With those three, a `client_id` that differs is a fault. auto takes
    /// the metadata, else the stem.
    #[arg(long, value_name = "SOURCE", default_value = "auto", hide_possible_values = true, help_heading = INPUTS)]
    client_id_from: IdOption,
    /// Take these layers from the client: a pattern of tensor names such as `head.*`, or fedbn, or fedper. May be
    /// repeated.
    #[arg(long, value_name = "LAYERS", help_heading = RULE, group = "how")]
    layers: Vec<Layers>,
    /// Mix both models: 0 gives the global model, 1 the client's.
    #[arg(long, value_name = "ALPHA", help_heading = RULE, group = "how", value_parser = numbers::share)]
    mix: Option<f64>,
    /// Split the model into files of at most SIZE, with an index. Example: 5GB.
    #[arg(long, value_name = "SIZE", help_heading = OUTPUT, value_parser = size::parse_bytes)]
    max_shard_size: Option<u64>,
    /// Write the client's model to this path.
    #[arg(long, short, value_name = "OUT", help_heading = OUTPUT)]
    output: PathBuf,
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
            client_id_from: self.client_id_from.into(),
            isa: common.isa(),
        };
        let path = personalization.run(&common.pool()?).map_err(Failure::of)?;
        print_path(&path);
        Ok(Outcome::Done)
    }
}
