//! Checks that opaque tensors have the same bytes in all updates, since no rule can average them.
//!
//! With a base, an update whose bytes differ from the base's is bad. Without one, an update is bad whose bytes differ
//! from those that more than half of the updates share.

use crate::engine::intake::fault::Fault;
use crate::io::digest::Blake3;
use crate::io::model_file::{ENCODED, ModelFile};
use crate::model::layout::TensorSpec;
use crate::updates::metadata::UpdateKind;
use crate::updates::set::{Client, UpdateSet};
use crate::updates::source::Place;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::io;

/// The remedy for opaque tensors that differ.
pub const REMEDY: &str = "dequantise before sending, or send adapters or deltas of the unpacked weights; --personal \
                          PATTERN leaves tensors out";

/// The most names that a message lists. It counts the others.
const MOST_LISTED: usize = 6;

/// The updates share no bytes of some opaque tensors.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[error("opaque tensors differ between the updates, and packed weights cannot be averaged: {}", named(.tensors))]
pub struct NothingShared {
    /// Their names.
    pub tensors: Vec<String>,
}

fn named(tensors: &[String]) -> String {
    let listed: Vec<String> = tensors.iter().take(MOST_LISTED).map(|name| format!("`{name}`")).collect();
    match tensors.len().saturating_sub(MOST_LISTED) {
        0 => listed.join(", "),
        more => format!("{} and {more} more", listed.join(", ")),
    }
}

/// The bytes of one opaque tensor in one update.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Content {
    Bytes([u8; 32]),
    /// A codec changed them.
    Encoded,
}

/// The faults of updates whose opaque tensors differ from the others, by index in the set. All threads of the current
/// pool share the work.
///
/// # Errors
///
/// When the base cannot be read. The inner error: there is no base, and the updates do not agree on a tensor.
pub fn differing(set: &UpdateSet) -> io::Result<Result<Vec<(usize, Fault)>, NothingShared>> {
    if set.opaque.is_empty() {
        return Ok(Ok(Vec::new()));
    }
    let of_base = set.base.as_ref().map(|base| contents(&base.model, &base_places(set), &set.opaque));
    let of_base = of_base.transpose()?;
    let of_client = |client: &Client| contents(&client.model, &client.opaque, &set.opaque);
    let found: Vec<io::Result<Vec<Content>>> = set.clients.par_iter().map(of_client).collect();
    let readable: Vec<&Vec<Content>> = found.iter().flatten().collect();
    let expected: Vec<Option<Content>> = match of_base {
        Some(of_base) => of_base.into_iter().map(Some).collect(),
        None => (0..set.opaque.len()).map(|tensor| of_most(readable.iter().map(|all| all[tensor]))).collect(),
    };
    let open =
        |(spec, expected): (&TensorSpec, &Option<Content>)| expected.is_none().then(|| spec.name.clone());
    let tensors: Vec<String> = set.opaque.iter().zip(&expected).filter_map(open).collect();
    if !tensors.is_empty() && !readable.is_empty() {
        return Ok(Err(NothingShared { tensors }));
    }
    let mut faults = Vec::new();
    for (i, found) in found.into_iter().enumerate() {
        match found {
            Ok(found) => faults.extend(fault(set, i, &found, &expected).map(|fault| (i, fault))),
            Err(why) => faults.push((i, Fault::Read(why))),
        }
    }
    Ok(Ok(faults))
}

/// The fault of one client: its first tensor that is not as expected, and the number of such tensors.
fn fault(set: &UpdateSet, client: usize, found: &[Content], expected: &[Option<Content>]) -> Option<Fault> {
    let is_delta = set.clients[client].metadata.kind == UpdateKind::Delta;
    let differs = |tensor: &usize| {
        // A delta of zeros leaves the base's bytes as they are.
        let unchanged = is_delta && set.base.is_some() && found[*tensor] == zeros(&set.opaque[*tensor]);
        !unchanged && Some(found[*tensor]) != expected[*tensor]
    };
    let differing: Vec<usize> = (0..found.len()).filter(differs).collect();
    let first = *differing.first()?;
    let tensor = set.opaque[first].name.clone();
    Some(match found[first] {
        Content::Encoded => Fault::OpaqueEncoded { tensor },
        Content::Bytes(_) => Fault::OpaqueDiffers {
            tensor,
            from: if set.base.is_some() { "the base" } else { "most other updates" },
            more: differing.len() - 1,
        },
    })
}

/// The content that more than half share.
fn of_most(found: impl ExactSizeIterator<Item = Content>) -> Option<Content> {
    let all = found.len();
    let mut votes: BTreeMap<Content, usize> = BTreeMap::new();
    found.for_each(|content| *votes.entry(content).or_default() += 1);
    let most = votes.into_iter().find(|(_, votes)| 2 * votes > all)?.0;
    (most != Content::Encoded).then_some(most)
}

fn base_places(set: &UpdateSet) -> Vec<Place> {
    let kept: BTreeMap<&str, Place> =
        set.merged.kept().map(|(_, place)| (place.spec.name.as_str(), Place::from(place))).collect();
    set.opaque.iter().map(|spec| kept.get(spec.name.as_str()).copied().unwrap_or(Place::NONE)).collect()
}

fn contents(model: &ModelFile, places: &[Place], specs: &[TensorSpec]) -> io::Result<Vec<Content>> {
    let content = |(place, spec): (&Place, &TensorSpec)| match place.file {
        ENCODED => Ok(Content::Encoded),
        file => {
            let file = &model.files[file];
            let start = file.place_of(place.offset);
            Ok(Content::Bytes(Blake3::of_range(file, start, spec.bytes() as u64)?))
        }
    };
    places.iter().zip(specs).map(content).collect()
}

fn zeros(spec: &TensorSpec) -> Content {
    let mut digest = Blake3::default();
    let chunk = [0; 4096];
    let mut left = spec.bytes();
    while left > 0 {
        let len = left.min(chunk.len());
        digest.add_bytes(&chunk[..len]);
        left -= len;
    }
    Content::Bytes(digest.bytes())
}
