//! Finds updates of several clients whose tensors hold the same bytes.
//!
//! The metadata of an update does not count. Few updates are read for this: only those whose tensors have the same
//! shapes and the same bytes in one piece, and then in a sample. The digest of all bytes decides.

use crate::engine::intake::claims::OnDuplicateContent;
use crate::engine::intake::fault::Fault;
use crate::engine::intake::identity::files_of;
use crate::engine::intake::update::{InputRole, Update};
use crate::io::content::Content;
use crate::model::layout::TensorSpec;
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// Warns of updates of several clients with the same tensors, and rejects them if the operator wants that.
pub(super) fn find(updates: &mut [Update], action: OnDuplicateContent) {
    for copies in groups(updates) {
        let paths: Vec<String> = copies.iter().map(|i| updates[*i].path.display().to_string()).collect();
        let files: BTreeSet<Vec<(u64, u64)>> = copies.iter().map(|i| files_of(&updates[*i])).collect();
        let what = if files.len() == 1 { "are links to the same file" } else { "hold the same tensors" };
        tracing::warn!(clients = paths.len(), "{} {what} under different client ids", paths.join(", "));
        if action == OnDuplicateContent::Reject {
            for (place, i) in copies.iter().enumerate() {
                let other = updates[copies[usize::from(place == 0)]].path.clone();
                updates[*i].faults.push(Fault::SameContent { other });
            }
        }
    }
}

/// The groups of updates with the same tensors and at least two ids.
fn groups(updates: &[Update]) -> Vec<Vec<usize>> {
    let is_sound = |update: &Update| update.role == InputRole::Update && update.faults.is_empty();
    let sound = (0..updates.len()).filter(|i| is_sound(&updates[*i])).collect();
    let shape = |i: usize| {
        let model = updates[i].model.as_ref()?;
        let mut hasher = blake3::Hasher::new();
        for TensorSpec { name, dtype, shape, .. } in model.table.iter().map(|place| &place.spec) {
            hasher.update(format!("{} {name} {dtype} {shape:?}\n", name.len()).as_bytes());
        }
        Some(*hasher.finalize().as_bytes())
    };
    let by = |read: &(dyn Fn(&Content) -> io::Result<[u8; 32]> + Sync), i: usize| {
        updates[i].model.as_ref().and_then(|model| read(&Content::of(model).ok()?).ok())
    };
    let mut alike = split(vec![sound], shape);
    alike = split(alike, |i| by(&|content| content.piece(), i));
    alike = split(alike, |i| by(&|content| content.sample(), i));
    alike = split(alike, |i| by(&|content| content.digest(), i));
    let ids = |group: &Vec<usize>| group.iter().map(|i| &updates[*i].id).collect::<BTreeSet<_>>().len();
    alike.into_iter().filter(|group| ids(group) > 1).collect()
}

/// Splits groups by a key. Leaves out whatever then stands alone, and items without a key.
fn split<K: Ord + Send>(groups: Vec<Vec<usize>>, key: impl Fn(usize) -> Option<K> + Sync) -> Vec<Vec<usize>> {
    let parts = groups.into_iter().flat_map(|group| {
        let keys: Vec<Option<K>> = group.par_iter().map(|i| key(*i)).collect();
        let mut parts: BTreeMap<K, Vec<usize>> = BTreeMap::new();
        for (i, key) in group.into_iter().zip(keys) {
            if let Some(key) = key {
                parts.entry(key).or_default().push(i);
            }
        }
        parts.into_values()
    });
    parts.filter(|part| part.len() > 1).collect()
}
