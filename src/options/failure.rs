//! The end of a command that fails: its message, hint and exit status.

use crate::io::interrupt;
use crate::telemetry::explain::Explain;
use std::process::ExitCode;

/// An error as the user sees it.
pub(crate) struct Failure {
    pub(crate) error: anyhow::Error,
    /// What the user may do about it.
    pub(crate) hint: Option<String>,
    /// The lines of the message, if it has several.
    pub(crate) lines: Vec<String>,
    /// Whether the operator's policy refused valid input.
    pub(crate) is_refusal: bool,
    /// The signal that stopped the command; `None` for other errors.
    pub(crate) signal: Option<i32>,
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { error: error.into(), hint: None, lines: Vec::new(), is_refusal: false, signal: None }
    }
}

impl Failure {
    /// The failure for an error that has a hint or a signal.
    pub(crate) fn of(error: impl Explain) -> Self {
        let (hint, lines) = (error.hint(), error.lines());
        let (is_refusal, signal) = (error.is_refusal(), error.signal());
        Self { hint, lines, is_refusal, signal, ..Self::from(error) }
    }

    /// The refusal of `--backend gpu` by a command that has no work for a GPU.
    pub(crate) fn no_gpu(command: &str) -> Self {
        anyhow::anyhow!("--backend gpu: {command} runs on the CPU, expected auto or cpu").into()
    }

    /// The message of the error and its causes.
    pub(crate) fn message(&self) -> String {
        message(&self.error)
    }

    /// Prints the message and the hint. Returns exit status 1 for a refusal, else 2, or 128 and the signal.
    pub(crate) fn tell(self) -> ExitCode {
        let refused = if self.is_refusal { "refused: " } else { "" };
        let whole = self.message();
        let mut lines = self.lines;
        let message = format!("{refused}{}", lines.pop().unwrap_or(whole));
        for line in lines {
            tracing::error!("{line}");
        }
        match self.hint {
            Some(hint) => tracing::error!(hint, "{message}"),
            None => tracing::error!("{message}"),
        }
        // The shell's convention for a process that a signal ended.
        let signal = self.signal.or_else(|| interrupt::check().err().map(|interrupted| interrupted.signal));
        let code = signal.map_or(if self.is_refusal { 1 } else { 2 }, |signal| 128 + signal);
        ExitCode::from(u8::try_from(code).unwrap_or(2))
    }
}

/// The message of an error and its causes. Leaves out causes that the message already contains.
fn message(error: &anyhow::Error) -> String {
    let mut message = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !message.contains(&cause) {
            message = format!("{message}: {cause}");
        }
    }
    message
}
