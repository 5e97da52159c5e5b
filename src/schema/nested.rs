//! Plans inside of plans.

use super::name::Id;
use super::value::Scalar;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The plan that a stage of kind `plan` runs. An output of the stage has the path `STAGE.OUTPUT`: an output of a stage of
/// that plan which does not fan out.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(deny_unknown_fields)]
pub struct Nested {
    /// Its file, in the folder of the plan.
    pub file: String,
    /// Values of its parameters; texts may have references. The others keep the values of the file.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<Id, Scalar>,
    /// References to the files of its inputs, such as `{merge.model}`. The others are found as the file says.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<Id, Vec<String>>,
}
