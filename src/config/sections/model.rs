//! `[model]`: the first model.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The first model.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(default)]
pub struct Model {
    /// The path of the first model, from the state directory. `round init` puts it into the store. Unset:
    /// `round init --model` names it.
    #[schemars(extend("x-origin" = "`global_model`", "x-reader" = "init", "x-example" = "first.safetensors"))]
    pub initial: Option<PathBuf>,
}
