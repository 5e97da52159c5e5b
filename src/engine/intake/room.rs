//! Bounds the memory that the headers of all updates of a run take together.
//!
//! The tensors, parts or keys that a file of a few megabytes lists can take many times its bytes. Real updates
//! hold far more values than that, and those of one model share one table. So only what an update takes beyond the
//! bytes of its files counts, and the table of several updates counts once.

use crate::engine::intake::fault::Fault;
use crate::engine::intake::update::Update;
use crate::io::model_file::{ModelFile, TablePool, TensorTable};
use rayon::prelude::*;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that all updates together may take beyond the bytes of their files.
const MOST: u64 = 24 << 20;

/// What is left of the memory for the headers of a run.
pub(super) struct Room<'a> {
    tables: &'a TablePool,
    left: u64,
    /// The room for each update.
    share: u64,
    /// The tables of the base and of earlier updates.
    known: HashSet<*const TensorTable>,
}

impl<'a> Room<'a> {
    /// The room for this many updates. The table of the base takes none of it.
    pub(super) fn new(updates: usize, tables: &'a TablePool, base: Option<&ModelFile>) -> Self {
        let share = MOST / updates.max(1) as u64;
        Self { tables, left: 0, share, known: base.iter().map(|base| Arc::as_ptr(&base.table)).collect() }
    }

    /// Reads updates in parallel. Each takes its room, or loses its model and gets a fault. Those that need the least
    /// come first, so that hostile updates take no room from others.
    pub(super) fn read(
        &mut self,
        paths: &[PathBuf],
        read: impl Fn(&PathBuf) -> Update + Sync,
    ) -> Vec<Update> {
        self.left += self.share * paths.len() as u64;
        let (tables, left) = (self.tables, AtomicU64::new(self.left));
        let take = |takes: u64| {
            left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(takes)).is_ok()
        };
        let read_within = |path: &PathBuf| {
            let mut update = read(path);
            let needs = update.model.as_ref().map_or(0, |model| excess(model, false));
            let takes = update.model.as_ref().map_or(0, |model| excess(model, is_shared(model)));
            let was_dropped = !take(takes);
            if was_dropped {
                drop_model(&mut update, tables);
            }
            Opened { update, needs, was_dropped }
        };
        let mut opened: Vec<Opened> = paths.par_iter().map(read_within).collect();
        let mut order: Vec<usize> = (0..opened.len()).collect();
        order.sort_by_key(|number| opened[*number].needs);
        for number in order {
            let Opened { update, was_dropped, .. } = &mut opened[number];
            // Threads took the room in any order, which decides nothing: what found none is read again.
            if *was_dropped {
                *update = read(&paths[number]);
            }
            self.judge(update);
        }
        opened.into_iter().map(|opened| opened.update).collect()
    }

    fn judge(&mut self, update: &mut Update) {
        let Some(model) = &update.model else { return };
        let table = Arc::as_ptr(&model.table);
        match self.left.checked_sub(excess(model, self.known.contains(&table))) {
            Some(left) => {
                self.left = left;
                self.known.insert(table);
            }
            None => {
                let (tensors, bytes) = (model.table.len(), model.bytes());
                update.faults.push(Fault::TooMuchMemory { tensors, bytes, most: MOST });
                drop_model(update, self.tables);
            }
        }
    }
}

/// An update that a thread read.
struct Opened {
    update: Update,
    /// The room that it needs if no other update has its table.
    needs: u64,
    /// Whether it lost its model because threads read too many at once.
    was_dropped: bool,
}

fn drop_model(update: &mut Update, tables: &TablePool) {
    let table = update.model.take().map(|model| Arc::clone(&model.table));
    table.into_iter().for_each(|table| tables.forget(table));
}

/// Bytes that a model takes beyond those of its files.
fn excess(model: &ModelFile, shares_table: bool) -> u64 {
    (model.memory(shares_table) as u64).saturating_sub(model.bytes())
}

/// Whether a model has the table of another model.
fn is_shared(model: &ModelFile) -> bool {
    // The pool has the table too, and the decoder.
    Arc::strong_count(&model.table) > 2 + usize::from(model.decoder.is_some())
}
