//! The progress bar of a run.

use indicatif::{ProgressBar, ProgressStyle};

/// Progress in bytes, shown on a terminal only.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A bar on standard error, hidden if that is not a terminal.
    pub fn on_terminal() -> Self {
        let bar = ProgressBar::new(0);
        let template = "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar }
    }

    /// A bar that is not shown.
    pub fn hidden() -> Self {
        Self { bar: ProgressBar::hidden() }
    }

    /// Starts a pass over `bytes` bytes.
    pub fn start(&self, pass: &'static str, bytes: u64) {
        self.bar.reset();
        self.bar.set_length(bytes);
        self.bar.set_message(pass);
    }

    /// Adds `bytes` bytes.
    pub fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
