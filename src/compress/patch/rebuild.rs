//! Decodes the blocks of a patch in parallel, and gives the bytes of the new model in order.

use crate::codecs::Invalid;
use crate::compress::patch::error::PatchError;
use crate::compress::patch::exact;
use crate::compress::patch::format::{Coded, Patch};
use crate::compress::patch::side::{Block, Side, in_batches};
use crate::io::digest::Blake3;
use crate::io::interrupt;
use rayon::prelude::*;

/// Bytes that a new model may have for each byte of its base.
const MOST_OF_BASE: u64 = 2;
/// Bytes that a new model may have beyond those for each byte of its patch.
const MOST_OF_PATCH: u64 = 64;

/// Gives the bytes of the new model to `take`, from the first to the last. Returns their number and their digest.
///
/// # Errors
///
/// When files cannot be read, the patch is not what [`make`](super::make) writes, or `take` fails.
pub(super) fn rebuilt(
    patch: &Patch,
    old: &Side,
    most: Option<u64>,
    mut take: impl FnMut(&[u8]) -> Result<(), PatchError>,
) -> Result<(u64, String), PatchError> {
    let path = patch.file.path();
    let most = most.unwrap_or_else(|| {
        let of_base = old.file.bytes().saturating_mul(MOST_OF_BASE);
        of_base.saturating_add(patch.file.bytes().saturating_mul(MOST_OF_PATCH))
    });
    let found = patch.terms.bytes[1];
    if found > most {
        return Err(PatchError::TooLarge { path: path.to_owned(), found, most });
    }
    let (json, header) = patch.new_header(old)?;
    let mut digest = Blake3::default();
    let first = [&(json.len() as u64).to_le_bytes(), &json[..]].concat();
    digest.add_bytes(&first);
    take(&first)?;
    let (mut done, mut place, mut bytes) = (0, 0, first.len() as u64);
    in_batches(old.blocks(&header), |batch| {
        interrupt::check()?;
        let coded = patch.coded(batch.len(), done, place)?;
        let values = decode_batch(old, batch, &coded).map_err(|why| match why {
            Ok(why) => why,
            Err(why) => PatchError::invalid(path)(why),
        })?;
        digest.add_shared(&values);
        done += batch.len() as u64;
        place += coded.bytes.len() as u64;
        bytes += values.len() as u64;
        take(&values)
    })?;
    if (4 * done, place) != (patch.blocks.bytes, patch.data.bytes) {
        let why = format!(
            "found {} blocks in {} bytes, expected {done} in {place}",
            patch.blocks.bytes / 4,
            patch.data.bytes
        );
        return Err(PatchError::invalid(path)(Invalid(why)));
    }
    Ok((bytes, digest.hex()))
}

/// The new values of a batch of blocks.
fn decode_batch(old: &Side, batch: &[Block], coded: &Coded) -> Result<Vec<u8>, Result<PatchError, Invalid>> {
    let mut values = vec![0; batch.iter().map(|block| block.bytes).sum()];
    let (mut rest, mut bytes) = (&mut values[..], &coded.bytes[..]);
    let mut parts = Vec::with_capacity(batch.len());
    for (block, len) in batch.iter().zip(&coded.lens) {
        let (new, later) = rest.split_at_mut(block.bytes);
        let (coded, after) = bytes.split_at(*len);
        (rest, bytes) = (later, after);
        parts.push((block, coded, new));
    }
    parts.into_par_iter().try_for_each(|(block, coded, new)| {
        let old = old.old_values(block).map_err(Ok)?;
        exact::decode(block.dtype, &old, coded, new).map_err(Err)
    })?;
    Ok(values)
}
