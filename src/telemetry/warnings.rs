//! Keeps every warning that the program prints, so that a report can hold it.

use crate::telemetry::console::Text;
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// The warnings of this process, in the order in which they were printed. `--quiet` hides warnings; they stand here.
static PRINTED: Mutex<Vec<Printed>> = Mutex::new(Vec::new());

/// A printed warning.
#[derive(Clone)]
struct Printed {
    text: String,
    /// Whether it is about single clients: the event has a field `client` or `clients`.
    is_of_client: bool,
}

/// Keeps warnings.
pub(super) struct Keep;

impl<S: Subscriber> Layer<S> for Keep {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() == Level::WARN {
            let mut text = Text::default();
            event.record(&mut text);
            let fields = event.metadata().fields();
            let is_of_client = ["client", "clients"].iter().any(|name| fields.field(name).is_some());
            let printed = Printed { text: text.message, is_of_client };
            // A list that a panic left behind is whole: one call changes it.
            PRINTED.lock().unwrap_or_else(PoisonError::into_inner).push(printed);
        }
    }
}

/// The warnings that were printed, each once, and then those of `others` that were not. Those about single clients are
/// left out unless the report `names_clients`.
pub fn with_printed(others: Vec<String>, names_clients: bool) -> Vec<String> {
    let printed = PRINTED.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let printed = printed.into_iter().filter(|printed| names_clients || !printed.is_of_client);
    let mut seen = HashSet::new();
    let all = printed.map(|printed| printed.text).chain(others);
    all.filter(|warning| seen.insert(warning.clone())).collect()
}
