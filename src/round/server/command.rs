//! Runs the operator's command that measures a model.
//!
//! The command runs in the state directory. It finds the model and the round in variables.

use crate::io::child::measure::{self, MeasureError};
use crate::round::error::RoundError;
use crate::telemetry::explain::Explain;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Why a model was not measured.
#[derive(thiserror::Error, Debug)]
#[error("evaluation: {0}")]
pub struct EvaluationError(MeasureError);

impl Explain for EvaluationError {
    fn hint(&self) -> Option<String> {
        match &self.0 {
            MeasureError::NoNumbers { .. } => {
                Some("it should print an object such as {\"loss\": 0.31, \"accuracy\": 0.9}".to_owned())
            }
            MeasureError::TooLong { .. } => {
                Some("evaluation.timeout in fedmill.toml sets the limit".to_owned())
            }
            _ => None,
        }
    }

    fn signal(&self) -> Option<i32> {
        match &self.0 {
            MeasureError::Interrupted(interrupted) => Some(interrupted.signal),
            _ => None,
        }
    }
}

/// Runs a command in a directory with these variables, and returns the numbers that it prints.
///
/// # Errors
///
/// When the command cannot be started, fails, takes too long, or prints something else.
pub fn measure(
    command: &[String],
    directory: &Path,
    variables: &[(&str, String)],
    timeout: Duration,
) -> Result<BTreeMap<String, f64>, RoundError> {
    measure::measure(command, directory, variables, timeout)
        .map_err(|why| RoundError::work(EvaluationError(why)))
}
