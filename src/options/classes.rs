//! The options that say which tensors are statistics, and which are opaque.

use super::INPUTS;
use crate::engine::intake::classes::ClassPatterns;
use clap::Args;
use glob::Pattern;

/// The classes of tensors, beyond those that their names tell.
#[derive(Args, Debug)]
pub(crate) struct ClassOptions {
    /// Treat tensors whose names match this pattern as statistics: the server merges them and takes no step on them.
    ///
    /// Integers, counters and the running means and variances of PyTorch, Keras and Flax are statistics already. May be
    /// repeated.
    #[arg(long, value_name = "PATTERN", help_heading = INPUTS)]
    statistics: Vec<Pattern>,
    /// Treat tensors whose names match this pattern as opaque: all updates must have the same bytes, which are copied.
    ///
    /// The packed weights of bitsandbytes, compressed-tensors, GPTQ and AWQ are opaque already, with their scales. May
    /// be repeated.
    #[arg(long, value_name = "PATTERN", help_heading = INPUTS)]
    opaque: Vec<Pattern>,
}

impl ClassOptions {
    /// The patterns that the operator gave.
    pub(crate) fn patterns(&self) -> ClassPatterns {
        ClassPatterns { statistics: self.statistics.clone(), opaque: self.opaque.clone() }
    }
}
