//! Reducers: what makes one file of several without an agent.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a stage of kind `reduce` makes one file of several. The files stand in the order of `files`, those of a fan-out in
/// the order of its instances.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(deny_unknown_fields)]
pub struct Reduce {
    /// How.
    pub by: Reducer,
    /// References to the files, such as `{part.text}`.
    pub files: Vec<String>,
}

/// A way to make one file of several.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum Reducer {
    /// The bytes of all files, one behind the other, as `cat` writes them.
    Concat,
    /// As `concat`, with a newline behind each file that has bytes and does not end in one.
    Lines,
    /// The first JSON object, changed by each further one as a merge patch (RFC 7396): later values win, objects are
    /// merged, lists are replaced, and `null` takes a key out.
    JsonMerge,
}

impl Reducer {
    /// All reducers.
    pub const ALL: [Self; 3] = [Self::Concat, Self::Lines, Self::JsonMerge];

    /// Its word in plans.
    pub fn word(self) -> &'static str {
        match self {
            Self::Concat => "concat",
            Self::Lines => "lines",
            Self::JsonMerge => "json-merge",
        }
    }
}
