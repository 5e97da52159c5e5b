//! Rounds before the open one, as their inboxes need them. Each journal is read once in a look.

use crate::round::error::RoundError;
use crate::round::journal::{Event, RoundJournal};
use crate::round::world::Files;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// What is known of an earlier round.
pub(super) struct Past {
    /// Whether a rollback ended it.
    pub(super) is_abandoned: bool,
    /// The clients that it selected.
    pub(super) selected: BTreeSet<String>,
    /// The clients whose updates it took.
    pub(super) delivered: BTreeSet<String>,
}

/// The earlier rounds that were asked for so far.
#[derive(Default)]
pub(super) struct PastRounds(RefCell<BTreeMap<u64, Rc<Past>>>);

impl PastRounds {
    /// An earlier round.
    ///
    /// # Errors
    ///
    /// When its journal cannot be read.
    pub(super) fn get(&self, files: &(impl Files + ?Sized), round: u64) -> Result<Rc<Past>, RoundError> {
        if let Some(known) = self.0.borrow().get(&round) {
            return Ok(Rc::clone(known));
        }
        let past = Rc::new(read(files, round)?);
        self.0.borrow_mut().insert(round, Rc::clone(&past));
        Ok(past)
    }
}

fn read(files: &(impl Files + ?Sized), round: u64) -> Result<Past, RoundError> {
    let journal = RoundJournal::read_alone(files, round)?;
    let (mut selected, mut delivered) = (BTreeSet::new(), BTreeSet::new());
    for line in &journal.lines {
        match &line.event {
            Event::Open(opening) => {
                selected.extend(opening.selection.choices.iter().map(|choice| choice.id.clone()));
            }
            Event::Validate(collected) => {
                delivered.extend(collected.updates.iter().map(|update| update.id.clone()));
            }
            _ => {}
        }
    }
    Ok(Past { is_abandoned: journal.is_abandoned(), selected, delivered })
}
