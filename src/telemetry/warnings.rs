//! Keeps every warning that the program prints, so that a report can hold it.

use crate::telemetry::console::Text;
use std::sync::Mutex;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// The warnings of this process, in the order in which they were printed. `--quiet` hides warnings; they stand here.
static PRINTED: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Keeps warnings.
pub(super) struct Keep;

impl<S: Subscriber> Layer<S> for Keep {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() == Level::WARN {
            let mut text = Text::default();
            event.record(&mut text);
            // A list that a panic left behind is whole: one call changes it.
            PRINTED.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(text.message);
        }
    }
}

/// The warnings that were printed, each once, and then those of `others` that were not.
pub fn with_printed(others: Vec<String>) -> Vec<String> {
    let printed = PRINTED.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    let mut all: Vec<String> = Vec::with_capacity(printed.len() + others.len());
    let mut seen = std::collections::HashSet::new();
    all.extend(printed.into_iter().chain(others).filter(|warning| seen.insert(warning.clone())));
    all
}
