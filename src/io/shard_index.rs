//! The index of a sharded model: which file holds each tensor, and the metadata of the whole.
//!
//! An index may name shards of the same stem. Shards of another stem, such as `consolidated-00001-of-00002.safetensors`,
//! it may name only if it is the only index in its folder. Otherwise a hostile client could pass another client's files
//! off as its own.

use crate::io::limits::{Limits, MAX_METADATA_KEYS};
use crate::io::shards::{index_stem, is_shard_of, shard_stem};
use crate::io::source::open_regular;
use crate::io::text::each_entry;
use crate::model::faults::Faults;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

/// A fault of an index.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum IndexFault {
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    #[error("shard index is not understood: {why}")]
    BadIndex { why: String },
    #[error(
        "shard index names `{shard}`, expected a file beside it called {stem}-NNNNN-of-NNNNN.safetensors"
    )]
    ForeignShard { shard: String, stem: String },
}

/// The content of an index.
#[derive(Default, Debug)]
pub struct ShardIndex {
    /// The file that holds each tensor.
    pub weight_map: BTreeMap<String, String>,
    /// Free-form metadata. Numbers stand as text. Leaves out keys that describe the files, such as `total_size`.
    pub metadata: BTreeMap<String, String>,
}

fn bad(why: impl Into<String>) -> IndexFault {
    IndexFault::BadIndex { why: why.into() }
}

/// Whether a path is that of an index, by its name.
pub fn is_index(path: &Path) -> bool {
    stem_of(path).is_some()
}

fn stem_of(path: &Path) -> Option<String> {
    index_stem(&path.file_name()?.to_string_lossy()).map(|stem| stem.into_owned())
}

impl ShardIndex {
    /// Reads an index.
    ///
    /// # Errors
    ///
    /// When it cannot be read, is not understood, or lists more than the limits allow.
    pub fn read(path: &Path, limits: &Limits) -> Result<Self, IndexFault> {
        let most = limits.header_bytes;
        let file = open_regular(path).map_err(IndexFault::Unreadable)?;
        let bytes = file.metadata().map_err(IndexFault::Unreadable)?.len();
        if bytes > most {
            return Err(bad(format!("it has {bytes} bytes, expected at most {most}")));
        }
        let mut json = String::new();
        file.take(most).read_to_string(&mut json).map_err(IndexFault::Unreadable)?;
        Self::parse(&json, limits.tensors)
    }

    fn parse(json: &str, most_tensors: usize) -> Result<Self, IndexFault> {
        let (mut places, mut about) = (None, None);
        let entries = each_entry(json, |key, value| match key.as_str() {
            "weight_map" => places = Some(value),
            "metadata" => about = Some(value),
            _ => {}
        });
        entries.map_err(|why| bad(why.to_string()))?;
        let places = places.ok_or_else(|| bad("it has no `weight_map`"))?;
        let mut index = Self::default();
        let (mut tensors, mut wrong) = (0, None);
        let entries = each_entry(places.get(), |tensor, file| {
            tensors += 1;
            match serde_json::from_str(file.get()) {
                _ if tensors > most_tensors => {}
                Ok(file) => drop(index.weight_map.insert(tensor, file)),
                Err(_) => wrong = Some(tensor),
            }
        });
        entries.map_err(|why| bad(format!("`weight_map`: {why}")))?;
        if tensors > most_tensors {
            return Err(bad(format!("it lists {tensors} tensors, expected at most {most_tensors}")));
        }
        if let Some(tensor) = wrong {
            return Err(bad(format!("the file of tensor `{tensor}` is not a string")));
        }
        if let Some(about) = about.filter(|about| about.get() != "null") {
            index.metadata = metadata(about)?;
        }
        Ok(index)
    }

    /// The names of its shards, and the faults of names that it may not have. `path` is the path of the index.
    pub fn shards(&self, path: &Path) -> (BTreeSet<&str>, Faults<IndexFault>) {
        let (mut shards, mut faults) = (BTreeSet::new(), Faults::default());
        let stem = stem_of(path).unwrap_or_default();
        let mut is_only = None;
        let named: BTreeSet<&str> = self.weight_map.values().map(String::as_str).collect();
        for shard in named {
            let mut is_foreign = || is_foreign_shard(shard) && *is_only.get_or_insert_with(|| is_alone(path));
            match is_shard_of(&stem, shard) || is_foreign() {
                true => drop(shards.insert(shard)),
                false => {
                    faults.push(IndexFault::ForeignShard { shard: shard.to_owned(), stem: stem.clone() })
                }
            }
        }
        (shards, faults)
    }
}

/// Metadata of an index: strings, and the JSON text of other values.
fn metadata(about: &RawValue) -> Result<BTreeMap<String, String>, IndexFault> {
    let (mut metadata, mut found) = (BTreeMap::new(), 0);
    let entries = each_entry(about.get(), |key, value| {
        found += 1;
        if found <= MAX_METADATA_KEYS && !key.starts_with("total_") {
            let text = serde_json::from_str(value.get()).unwrap_or_else(|_| value.get().to_owned());
            metadata.insert(key, text);
        }
    });
    entries.map_err(|why| bad(format!("`metadata`: {why}")))?;
    match found > MAX_METADATA_KEYS {
        true => Err(bad(format!("its metadata has {found} keys, expected at most {MAX_METADATA_KEYS}"))),
        false => Ok(metadata),
    }
}

/// Whether a name is that of a shard beside the index, with any stem.
fn is_foreign_shard(name: &str) -> bool {
    shard_stem(name).is_some() && !name.contains('/')
}

/// Whether no other index is in the folder of this one.
fn is_alone(path: &Path) -> bool {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let Ok(entries) = fs::read_dir(folder.unwrap_or(Path::new("."))) else { return false };
    let indexes =
        entries.flatten().filter(|entry| index_stem(&entry.file_name().to_string_lossy()).is_some());
    indexes.take(2).count() == 1
}

/// The shards of another stem that the only index of a folder names. Empty if the index cannot be read.
pub fn foreign_shards(path: &Path) -> BTreeSet<String> {
    let Ok(index) = ShardIndex::read(path, &Limits::UNKNOWN) else { return BTreeSet::new() };
    let stem = stem_of(path).unwrap_or_default();
    let (shards, _) = index.shards(path);
    shards.into_iter().filter(|shard| !is_shard_of(&stem, shard)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_metadata_count_and_sizes_do_not() {
        let json = r#"{"metadata":{"total_size":20,"round":4,"client_id":"a"},"weight_map":{"w":"m-00001-of-00001.safetensors"}}"#;
        let index = ShardIndex::parse(json, 1).unwrap();
        let expected = [("client_id", "a"), ("round", "4")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(index.metadata, BTreeMap::from(expected));
        assert!(ShardIndex::parse(json, 0).is_err());
        for bad in ["{}", "[]", r#"{"weight_map":[]}"#, r#"{"weight_map":{"w":1}}"#] {
            assert!(ShardIndex::parse(bad, 9).is_err(), "{bad}");
        }
    }

    #[test]
    fn metadata_may_use_up_its_limit() {
        let json = |keys: usize| {
            let keys: Vec<String> = (0..keys).map(|key| format!(r#""{key}":"x""#)).collect();
            let map = r#"{"w":"m-00001-of-00001.safetensors"}"#;
            format!(r#"{{"metadata":{{{}}},"weight_map":{map}}}"#, keys.join(","))
        };
        let index = ShardIndex::parse(&json(MAX_METADATA_KEYS), 1).unwrap();
        assert_eq!(index.metadata.len(), MAX_METADATA_KEYS);
        assert!(ShardIndex::parse(&json(MAX_METADATA_KEYS + 1), 1).is_err());
    }
}
