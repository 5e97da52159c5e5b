//! Makes a patch: blocks of the new model against the old one, coded in parallel, kept in order.

use crate::compress::patch::error::PatchError;
use crate::compress::patch::exact;
use crate::compress::patch::format::{Patch, Terms};
use crate::compress::patch::rebuild::rebuilt;
use crate::compress::patch::side::{Block, Side, in_batches};
use crate::compress::sink::{LayoutError, Sink};
use crate::io::collision;
use crate::io::digest::{Blake3, seal};
use crate::io::interrupt;
use crate::io::model_writer::{WriteError, check_file_target};
use crate::io::publish::{Staged, remove_leftovers};
use crate::io::source::OpenFiles;
use rayon::prelude::*;
use std::path::Path;
use std::slice;

/// Writes a patch to `target` that turns the model `from` into the model `to`. Returns whether there is one: a patch that
/// would not be smaller than `to` is not written. The patch is decoded again and compared before it gets its name. All
/// threads of the current pool share the work.
///
/// # Errors
///
/// When a model cannot be read, or the patch cannot be written. Then nothing is published.
pub fn make(from: &Path, to: &Path, target: &Path) -> Result<bool, PatchError> {
    Ok(make_sized(from, to, target)?.is_some())
}

/// As [`make`]; returns the bytes of the patch, or `None` if there is none.
///
/// # Errors
///
/// As [`make`].
pub fn make_sized(from: &Path, to: &Path, target: &Path) -> Result<Option<u64>, PatchError> {
    check_file_target(target)?;
    remove_leftovers(target).map_err(WriteError::at(target))?;
    let files = OpenFiles::raise_limit();
    let (old, new) = (Side::open(from, &files)?, Side::open(to, &files)?);
    collision::check(&[target.to_owned()], &[old.file.identity(), new.file.identity()])?;
    let Some((staged, bytes)) = encode(&old, &new, target)? else { return Ok(None) };
    let patch = Patch::open(&staged.names(target).temporary, &files)?;
    let (_, digest) = match rebuilt(&patch, &old, None, |_| Ok(())) {
        // A patch of few bytes that makes a much larger model is refused when it is applied.
        Err(PatchError::TooLarge { .. }) => return Ok(None),
        rebuilt => rebuilt?,
    };
    let expected = &patch.terms.digests[1];
    if digest != *expected {
        let (path, expected) = (target.to_owned(), expected.clone());
        return Err(PatchError::OtherModel { path, found: digest, expected });
    }
    for side in [&old, &new] {
        side.file.check_unchanged().map_err(PatchError::reading(side.file.path()))?;
    }
    staged.publish_on_disk(target).map_err(WriteError::at(target))?;
    Ok(Some(bytes))
}

/// The bytes that two slices share at their start, and at the end of the rest.
fn shared(old: &[u8], new: &[u8]) -> (usize, usize) {
    let equal =
        |pairs: &mut dyn Iterator<Item = (&u8, &u8)>| pairs.take_while(|(old, new)| old == new).count();
    let start = equal(&mut old.iter().zip(new));
    let end = equal(&mut old[start..].iter().rev().zip(new[start..].iter().rev()));
    (start, end)
}

/// Writes a patch without a name. Returns it with its bytes; `None` if it would not be smaller than the new model.
fn encode(old: &Side, new: &Side, target: &Path) -> Result<Option<(Staged, u64)>, PatchError> {
    let unwritten = |why| match why {
        LayoutError::Write(why) => PatchError::Write(WriteError::at(target)(why)),
        LayoutError::Invalid(why) => PatchError::invalid(target)(why),
    };
    let (start, end) = shared(&old.json, &new.json);
    let header = &new.json[start..new.json.len() - end];
    let old_digest = Blake3::of(slice::from_ref(&old.file)).map_err(PatchError::reading(old.file.path()))?;
    let mut terms = Terms {
        digests: [old_digest.clone(), old_digest],
        bytes: [old.file.bytes(), new.file.bytes()],
        shared: [start as u64, end as u64],
    };
    let blocks = old.blocks(&new.header).count();
    let known = 4 * blocks as u64 + header.len() as u64;
    let most = new.file.bytes();
    let room = || Ok(terms.header(blocks as u64, header.len() as u64, most).len() as u64);
    let mut sink =
        Sink::new(Some(target), vec![vec![0, 4 * blocks as u64]], known, most, room).map_err(unwritten)?;
    let io = |why| unwritten(LayoutError::Write(why));
    sink.write(0, 1, 0, header).map_err(io)?;
    let mut digest = Blake3::default();
    digest.add_bytes(&(new.json.len() as u64).to_le_bytes());
    digest.add_bytes(&new.json);
    let mut done = 0;
    let mut is_smaller = known < most;
    in_batches(old.blocks(&new.header), |batch| {
        if !is_smaller {
            return Ok(());
        }
        let coded = encode_batch(old, new, batch, &mut digest)?;
        let lens: Vec<u8> = coded.iter().flat_map(|bytes| (bytes.len() as u32).to_le_bytes()).collect();
        sink.write(0, 0, 4 * done, &lens).map_err(io)?;
        done += batch.len();
        coded.iter().try_for_each(|bytes| sink.append(bytes)).map_err(io)?;
        is_smaller = sink.end() < most;
        Ok::<_, PatchError>(())
    })?;
    if !is_smaller {
        return Ok(None);
    }
    terms.digests[1] = digest.hex();
    let data = sink.end() - known;
    let bytes = terms.header(blocks as u64, header.len() as u64, data);
    let (staged, header_bytes) = sink.finish(Some(target), bytes).map_err(unwritten)?;
    let bytes = header_bytes + known + data;
    let Some(staged) = staged.filter(|_| bytes < most) else { return Ok(None) };
    seal::fill(&[(&staged, bytes)]).map_err(WriteError::at(target))?;
    Ok(Some((staged, bytes)))
}

/// Codes a batch of blocks, and adds the new values to the digest.
fn encode_batch(
    old: &Side,
    new: &Side,
    batch: &[Block],
    digest: &mut Blake3,
) -> Result<Vec<Vec<u8>>, PatchError> {
    interrupt::check()?;
    let start = batch.first().map_or(0, |first| first.start);
    let mut values = vec![0; batch.iter().map(|block| block.bytes).sum()];
    new.file.read_values_at(&mut values, start).map_err(PatchError::reading(new.file.path()))?;
    digest.add_shared(&values);
    let coded = batch.par_iter().map(|block| {
        let place = (block.start - start) as usize;
        let old = old.old_values(block)?;
        Ok(exact::encode(block.dtype, &old, &values[place..place + block.bytes]))
    });
    coded.collect()
}
