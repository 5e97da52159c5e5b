//! BLAKE3 digests of long inputs, of which several machines hash a part each.
//!
//! BLAKE3 is a tree over chunks of 1,024 bytes. A part of the input is some subtrees of it: [`PartDigest`] hashes those,
//! and [`joined`] computes the digest of the whole from the subtrees of all parts. Paper: O'Connor, Aumasson, Neves and
//! Wilcox-O'Hearn, "BLAKE3: one function, fast everywhere", 2020, section 2.1.

use blake3::hazmat::{HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root};
use blake3::{CHUNK_LEN, Hasher};
use std::collections::BTreeMap;
use std::ops::Range;

/// Bytes of a chunk of the tree: parts begin at a multiple of it.
pub const TREE_CHUNK: usize = CHUNK_LEN;

/// A subtree: its bytes in the input.
type Subtree = Range<u64>;

/// The subtrees that a part of an input of `bytes` bytes is made up of, in order. The part begins and ends at a multiple
/// of [`TREE_CHUNK`], or at the end of the input.
fn subtrees(bytes: u64, part: &Subtree) -> Vec<Subtree> {
    let mut found = Vec::new();
    add_subtrees(0..bytes, part, &mut found);
    found
}

fn add_subtrees(tree: Subtree, part: &Subtree, found: &mut Vec<Subtree>) {
    if tree.end <= part.start || part.end <= tree.start {
        return;
    }
    if part.start <= tree.start && tree.end <= part.end {
        found.push(tree);
        return;
    }
    let middle = tree.start + left_subtree_len(tree.end - tree.start);
    add_subtrees(tree.start..middle, part, found);
    add_subtrees(middle..tree.end, part, found);
}

/// The number of subtrees in a part of an input of `bytes` bytes.
pub fn subtree_count(bytes: u64, part: &Range<u64>) -> usize {
    subtrees(bytes, part).len()
}

/// The hash of a part of an input, on its way.
#[derive(Debug)]
pub struct PartDigest {
    bytes: u64,
    trees: Vec<Subtree>,
    /// The hashes of the subtrees that are complete.
    done: Vec<[u8; 32]>,
    hasher: Hasher,
    /// Bytes of the current subtree that were added.
    added: u64,
}

impl PartDigest {
    /// Starts the hash of a part of an input of `bytes` bytes. The part begins and ends at a multiple of [`TREE_CHUNK`],
    /// or at the end of the input.
    pub fn new(bytes: u64, part: &Range<u64>) -> Self {
        let trees = subtrees(bytes, part);
        let mut digest =
            Self { bytes, done: Vec::with_capacity(trees.len()), trees, hasher: Hasher::new(), added: 0 };
        digest.start();
        digest
    }

    /// Starts the hash of a whole input.
    pub fn whole(bytes: u64) -> Self {
        Self::new(bytes, &(0..bytes))
    }

    /// Starts the next subtree.
    fn start(&mut self) {
        (self.hasher, self.added) = (Hasher::new(), 0);
        if let Some(tree) = self.trees.get(self.done.len()).filter(|tree| tree.start > 0) {
            self.hasher.set_input_offset(tree.start);
        }
    }

    /// Adds the next bytes of the part; bytes behind its end do not count.
    pub fn add(&mut self, mut bytes: &[u8]) {
        while let Some(tree) = self.trees.get(self.done.len()).filter(|_| !bytes.is_empty()) {
            let left = tree.end - tree.start - self.added;
            let len = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
            self.hasher.update(&bytes[..len]);
            (self.added, bytes) = (self.added + len as u64, &bytes[len..]);
            if len as u64 == left {
                let is_root = tree.end - tree.start == self.bytes;
                let hash =
                    if is_root { self.hasher.finalize().into() } else { self.hasher.finalize_non_root() };
                self.done.push(hash);
                self.start();
            }
        }
    }

    /// The hashes of the subtrees, in order; `None` if bytes are missing. Of a whole input it is its digest.
    pub fn end(self) -> Option<Vec<[u8; 32]>> {
        (self.done.len() == self.trees.len()).then_some(self.done)
    }
}

/// The digest of an input of `bytes` bytes, of the hashes that [`PartDigest`] has of its parts. `None` if they do not
/// make up the input.
pub fn joined<'h>(
    bytes: u64,
    parts: impl IntoIterator<Item = (Range<u64>, &'h [[u8; 32]])>,
) -> Option<[u8; 32]> {
    let mut hashes = BTreeMap::new();
    for (part, found) in parts {
        let trees = subtrees(bytes, &part);
        if trees.len() != found.len() {
            return None;
        }
        hashes.extend(trees.into_iter().map(|tree| (tree.start, tree.end)).zip(found.iter().copied()));
    }
    if let Some(whole) = hashes.get(&(0, bytes)) {
        return Some(*whole);
    }
    let (left, right) = halves(&hashes, &(0..bytes))?;
    Some(merge_subtrees_root(&left, &right, Mode::Hash).into())
}

type Hashes = BTreeMap<(u64, u64), [u8; 32]>;

fn halves(hashes: &Hashes, tree: &Subtree) -> Option<([u8; 32], [u8; 32])> {
    let len = tree.end - tree.start;
    let middle = tree.start + (len > CHUNK_LEN as u64).then(|| left_subtree_len(len))?;
    Some((hash_of(hashes, tree.start..middle)?, hash_of(hashes, middle..tree.end)?))
}

fn hash_of(hashes: &Hashes, tree: Subtree) -> Option<[u8; 32]> {
    if let Some(hash) = hashes.get(&(tree.start, tree.end)) {
        return Some(*hash);
    }
    let (left, right) = halves(hashes, &tree)?;
    Some(merge_subtrees_non_root(&left, &right, Mode::Hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 31 % 251) as u8).collect()
    }

    /// The parts that some machines hash, and their hashes. Bytes are added in pieces of `step`.
    fn parts(input: &[u8], of: usize, step: usize) -> Vec<(Range<u64>, Vec<[u8; 32]>)> {
        let chunks = input.len().div_ceil(TREE_CHUNK);
        let at = |number: usize| (chunks * number / of * TREE_CHUNK).min(input.len());
        let part = |number: usize| {
            let range = at(number)..at(number + 1);
            let mut digest = PartDigest::new(input.len() as u64, &(range.start as u64..range.end as u64));
            input[range.clone()].chunks(step).for_each(|bytes| digest.add(bytes));
            (range.start as u64..range.end as u64, digest.end().unwrap())
        };
        (0..of).map(part).collect()
    }

    fn join(len: usize, parts: &[(Range<u64>, Vec<[u8; 32]>)]) -> Option<[u8; 32]> {
        joined(len as u64, parts.iter().map(|(range, hashes)| (range.clone(), hashes.as_slice())))
    }

    #[test]
    fn parts_of_any_number_have_the_digest_of_the_whole() {
        for len in [1, 1023, 1024, 1025, 2048, 3000, 7 * 1024 + 1, 64 * 1024, 100_003] {
            let input = input(len);
            let expected: [u8; 32] = blake3::hash(&input).into();
            for of in [1, 2, 3, 5, 8, 200] {
                for step in [100, 1024, 5000] {
                    let mut parts = parts(&input, of, step);
                    let counts = parts.iter().map(|(range, _)| subtree_count(len as u64, range));
                    assert!(counts.eq(parts.iter().map(|(_, hashes)| hashes.len())));
                    assert_eq!(join(len, &parts), Some(expected), "{len} bytes in {of} parts");
                    parts.reverse();
                    assert_eq!(join(len, &parts), Some(expected), "in another order");
                }
            }
        }
    }

    #[test]
    fn a_changed_part_changes_the_digest_and_a_missing_one_has_none() {
        let input = input(10_000);
        let sound = parts(&input, 3, 512);
        let expected = join(10_000, &sound);
        for part in 0..3 {
            let mut changed = sound.clone();
            changed[part].1[0][5] ^= 1;
            assert_ne!(join(10_000, &changed), expected);
            let mut missing = sound.clone();
            missing.remove(part);
            assert_eq!(join(10_000, &missing), None);
            let mut short = sound.clone();
            short[part].1.pop();
            assert_eq!(join(10_000, &short), None);
        }
        let mut digest = PartDigest::whole(10);
        digest.add(&[1; 9]);
        assert_eq!(digest.end(), None);
    }
}
