//! Reads and checks the header of a safetensors file.
//!
//! A header is 8 bytes of length and that much JSON, and its sender may be hostile. This module checks each claim
//! against the real length of the file and against [`Limits`] before it trusts it, and before it allocates memory for
//! it. It finds every fault, not only the first. It refuses what the `safetensors` crate refuses, and duplicate keys.

use crate::io::limits::{Limits, MAX_AXES, MAX_METADATA_KEYS, MAX_NAME};
use crate::io::text::each_entry;
use crate::model::dtype::Dtype;
use crate::model::faults::Faults;
use crate::model::layout::TensorSpec;
use safetensors::tensor::TensorInfo;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, HashSet};
use std::fmt;

/// Bytes of the length before the header.
pub const LENGTH_BYTES: u64 = 8;

/// Tensors without values that each header may list.
const FREE_EMPTY: usize = 16;

/// The key of the free-form metadata.
pub const METADATA_KEY: &str = "__metadata__";

/// The checked content of a header.
#[derive(Debug)]
pub struct Header {
    /// The tensors in the order of their data.
    pub tensors: Vec<StoredTensor>,
    /// The free-form metadata.
    pub metadata: BTreeMap<String, String>,
}

/// A tensor, and the place of its values.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct StoredTensor {
    /// Name, dtype and shape.
    pub spec: TensorSpec,
    /// First byte of its values, counted from the end of the header.
    pub offset: u64,
}

/// A fault of a header.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum HeaderFault {
    #[error("file has {bytes} bytes, expected at least the {LENGTH_BYTES} of the header's length")]
    NoLength { bytes: u64 },
    #[error("header claims {claimed} bytes, expected at most {most}")]
    TooLarge { claimed: u64, most: u64 },
    #[error("header lists {found} tensors, expected at most {most}")]
    TooManyTensors { found: usize, most: usize },
    #[error("header lists {empty} tensors without values beside {others} others: most must have values")]
    TooManyEmpty { empty: usize, others: usize },
    #[error("header lists {found} extents in the shapes of {tensors} tensors, expected at most 4 a tensor")]
    TooManyExtents { found: usize, tensors: usize },
    #[error("metadata has {found} keys, expected at most {MAX_METADATA_KEYS}")]
    TooManyKeys { found: usize },
    #[error("header claims {claimed} bytes, but the file has only {available} more")]
    PastEnd { claimed: u64, available: u64 },
    #[error("header is not a JSON object: {why}")]
    NotAnObject { why: String },
    #[error("metadata is not a map of strings: {why}")]
    BadMetadata { why: String },
    #[error("metadata `{key}` is not a string: its value must stand in quotes")]
    BadMetadataValue { key: String },
    #[error("key `{key}` appears twice in the header")]
    DuplicateKey { key: String },
    #[error("tensor `{tensor}`: header entry is not understood: {why}")]
    BadEntry { tensor: String, why: String },
    #[error("tensor `{tensor}`: dtype {found} cannot be merged, expected one of {}", supported())]
    UnsupportedDtype { tensor: String, found: String },
    #[error("tensor `{tensor}`: shape {shape:?} has more values than memory has addresses")]
    ShapeOverflow { tensor: String, shape: Vec<usize> },
    #[error("tensor `{tensor}`: offsets {begin}..{end} hold {} bytes, expected {expected} for {dtype} {shape:?}", .end.saturating_sub(*.begin))]
    WrongLength { tensor: String, begin: usize, end: usize, expected: usize, dtype: Dtype, shape: Vec<usize> },
    #[error(
        "tensor `{tensor}`: data ends at byte {end}, but the file holds only {available} bytes of data (truncated?)"
    )]
    OutOfRange { tensor: String, end: usize, available: u64 },
    #[error(
        "tensor `{tensor}`: data starts at byte {begin}, inside tensor `{other}` which ends at {other_end}"
    )]
    Overlap { tensor: String, begin: usize, other: String, other_end: usize },
    #[error(
        "tensor `{tensor}`: data starts at byte {begin}, expected {expected}: the bytes between belong to no tensor"
    )]
    Gap { tensor: String, begin: usize, expected: usize },
    #[error("file holds {available} bytes of data, expected {expected}: the rest belongs to no tensor")]
    TrailingBytes { available: u64, expected: usize },
}

fn supported() -> String {
    Dtype::ALL.map(|dtype| dtype.to_string()).join(", ")
}

/// The length of the header that the first bytes of a file claim, if a file of `file_bytes` can hold it.
///
/// # Errors
///
/// When it is longer than the file, or than the limit.
pub fn header_length(first: [u8; 8], file_bytes: u64, limits: &Limits) -> Result<usize, HeaderFault> {
    let claimed = u64::from_le_bytes(first);
    let available = file_bytes.saturating_sub(LENGTH_BYTES);
    let most = limits.header_bytes;
    if claimed > most {
        return Err(HeaderFault::TooLarge { claimed, most });
    }
    if claimed > available {
        return Err(HeaderFault::PastEnd { claimed, available });
    }
    usize::try_from(claimed).map_err(|_| HeaderFault::TooLarge { claimed, most })
}

impl Header {
    /// Reads a header from its JSON text. `data_bytes` is the number of bytes behind it in the file.
    ///
    /// # Errors
    ///
    /// Every fault of the header, tensors in the order of the text.
    pub fn parse(json: &[u8], data_bytes: u64, limits: &Limits) -> Result<Self, Faults<HeaderFault>> {
        let not_an_object = |why: &dyn fmt::Display| HeaderFault::NotAnObject { why: why.to_string() };
        let json = std::str::from_utf8(json).map_err(|why| Faults::from(not_an_object(&why)))?;
        let mut entries = Entries { left: limits.tensors, ..Entries::default() };
        each_entry(json, |key, value| entries.take(key, value))
            .map_err(|why| Faults::from(not_an_object(&why)))?;
        let Entries { mut tensors, metadata, mut faults, .. } = entries;
        let found = tensors.len() + entries.dropped;
        if found > limits.tensors {
            return Err(HeaderFault::TooManyTensors { found, most: limits.tensors }.into());
        }
        if !limits.is_trusted() {
            faults.extend(costly(&tensors));
        }
        // A missing entry would make its neighbours seem wrong.
        if faults.is_empty() {
            tensors.sort_by_key(|tensor| (tensor.offset, tensor.spec.bytes()));
            faults = placement_faults(&tensors, data_bytes);
        }
        faults.none_or(Self { tensors, metadata })
    }
}

/// Tensors that take far more memory than text: many without values, or of many axes.
fn costly(tensors: &[StoredTensor]) -> Option<HeaderFault> {
    let empty = tensors.iter().filter(|tensor| tensor.spec.len == 0).count();
    let others = tensors.len() - empty;
    let found = tensors.iter().map(|tensor| tensor.spec.shape.len()).sum();
    if empty > FREE_EMPTY + others / 4 {
        return Some(HeaderFault::TooManyEmpty { empty, others });
    }
    let is_too_many = found > MAX_AXES + 4 * tensors.len();
    is_too_many.then_some(HeaderFault::TooManyExtents { found, tensors: tensors.len() })
}

/// The entries of a header, as far as they are read.
#[derive(Default)]
struct Entries {
    tensors: Vec<StoredTensor>,
    metadata: BTreeMap<String, String>,
    faults: Faults<HeaderFault>,
    /// Keys so far: the first bytes of their digests, which take less memory.
    seen: HashSet<[u8; 16]>,
    /// Tensors that may still be kept.
    left: usize,
    /// Tensors beyond those, or behind a fault.
    dropped: usize,
}

impl Entries {
    fn take(&mut self, key: String, value: &RawValue) {
        let mut digest = [0; 16];
        blake3::Hasher::new().update(key.as_bytes()).finalize_xof().fill(&mut digest);
        if self.seen.contains(&digest) {
            self.faults.push(HeaderFault::DuplicateKey { key: key.clone() });
        }
        if key == METADATA_KEY {
            match string_map(value) {
                Ok(map) => self.metadata = map,
                Err(fault) => self.faults.push(fault),
            }
        } else {
            self.take_tensor(&key, value);
        }
        // Keys behind the limits are counted, not kept.
        if self.left > 0 && !self.faults.is_full() {
            self.seen.insert(digest);
        }
    }

    fn take_tensor(&mut self, key: &str, value: &RawValue) {
        if self.left == 0 {
            self.dropped += 1;
            return;
        }
        self.left -= 1;
        match tensor(key, value) {
            Ok(tensor) if self.faults.is_empty() => self.tensors.push(tensor),
            Ok(_) => self.dropped += 1,
            Err(fault) => {
                self.dropped += 1;
                self.faults.push(fault);
            }
        }
    }
}

/// The metadata, which may be null.
fn string_map(value: &RawValue) -> Result<BTreeMap<String, String>, HeaderFault> {
    let (mut map, mut found, mut fault) = (BTreeMap::new(), 0, None);
    if value.get() == "null" {
        return Ok(map);
    }
    let entries = each_entry(value.get(), |key, value| {
        found += 1;
        if found > MAX_METADATA_KEYS || fault.is_some() {
            return;
        }
        let Ok(text) = serde_json::from_str::<String>(value.get()) else {
            fault = Some(HeaderFault::BadMetadataValue { key });
            return;
        };
        if map.insert(key.clone(), text).is_some() {
            fault = Some(HeaderFault::DuplicateKey { key: format!("{METADATA_KEY}.{key}") });
        }
    });
    entries.map_err(|why| HeaderFault::BadMetadata { why: why.to_string() })?;
    match fault {
        _ if found > MAX_METADATA_KEYS => Err(HeaderFault::TooManyKeys { found }),
        Some(fault) => Err(fault),
        None => Ok(map),
    }
}

fn tensor(name: &str, value: &RawValue) -> Result<StoredTensor, HeaderFault> {
    if name.len() > MAX_NAME {
        let tensor = name.chars().take(MAX_NAME / 16).collect();
        let why = format!("its name has {} bytes, expected at most {MAX_NAME}", name.len());
        return Err(HeaderFault::BadEntry { tensor, why });
    }
    let tensor = name.to_owned();
    let info: TensorInfo = match serde_json::from_str(value.get()) {
        Ok(info) => info,
        Err(why) => return Err(HeaderFault::BadEntry { tensor, why: why.to_string() }),
    };
    let Some(dtype) = Dtype::from_stored(info.dtype) else {
        return Err(HeaderFault::UnsupportedDtype { tensor, found: format!("{:?}", info.dtype) });
    };
    let mut shape = info.shape;
    shape.shrink_to_fit();
    if shape.len() > MAX_AXES {
        let why = format!("its shape has {} axes, expected at most {MAX_AXES}", shape.len());
        return Err(HeaderFault::BadEntry { tensor, why });
    }
    let bytes = |len: &usize| len.checked_mul(dtype.bytes());
    let Some(len) = element_count(&shape).filter(|len| bytes(len).is_some()) else {
        return Err(HeaderFault::ShapeOverflow { tensor, shape });
    };
    let (begin, end) = info.data_offsets;
    let expected = len * dtype.bytes();
    if end.checked_sub(begin) != Some(expected) {
        return Err(HeaderFault::WrongLength { tensor, begin, end, expected, dtype, shape });
    }
    Ok(StoredTensor { spec: TensorSpec { name: tensor, dtype, shape, len }, offset: begin as u64 })
}

/// The product of a shape; `None` if it overflows.
fn element_count(shape: &[usize]) -> Option<usize> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(1usize, |product, extent| product.checked_mul(*extent))
}

/// The faults of tensors, in the order of their offsets, that do not fill the data exactly.
fn placement_faults(tensors: &[StoredTensor], data_bytes: u64) -> Faults<HeaderFault> {
    let mut faults = Faults::default();
    let mut expected = 0;
    let mut furthest: Option<&StoredTensor> = None;
    for stored in tensors {
        let tensor = stored.spec.name.clone();
        let begin = stored.offset as usize;
        let end = begin + stored.spec.bytes();
        if let (true, Some(other)) = (begin < expected, furthest) {
            let other = other.spec.name.clone();
            faults.push(HeaderFault::Overlap { tensor, begin, other, other_end: expected });
        } else if end as u64 > data_bytes {
            faults.push(HeaderFault::OutOfRange { tensor, end, available: data_bytes });
        } else if begin > expected {
            faults.push(HeaderFault::Gap { tensor, begin, expected });
        }
        if end >= expected {
            expected = end;
            furthest = Some(stored);
        }
    }
    if faults.is_empty() && data_bytes > expected as u64 {
        faults.push(HeaderFault::TrailingBytes { available: data_bytes, expected });
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(json: &str, data_bytes: u64) -> String {
        let faults = Header::parse(json.as_bytes(), data_bytes, &Limits::UNKNOWN).unwrap_err();
        faults.lines().collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn parse_keeps_the_order_of_the_data() {
        let json = r#"{"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]},
            "a":{"dtype":"I32","shape":[],"data_offsets":[0,4]},
            "none":{"dtype":"F16","shape":[0,3],"data_offsets":[12,12]},
            "__metadata__":{"client_id":"x"}}   "#;
        let header = Header::parse(json.as_bytes(), 12, &Limits::UNKNOWN).unwrap();
        let names: Vec<_> = header.tensors.iter().map(|t| t.spec.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "none"]);
        assert_eq!(header.tensors[1].spec.len, 2);
        assert_eq!(header.metadata["client_id"], "x");
    }

    #[test]
    fn parse_finds_every_fault() {
        let json = r#"{"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]},
            "b":{"dtype":"F32","shape":[2],"data_offsets":[0,9]},
            "b":{"dtype":"F32","shape":[2]},
            "c":{"dtype":"F32","shape":[9223372036854775807,3],"data_offsets":[0,9]}}"#;
        let found = faults(json, 100);
        for part in [
            "`b` appears twice",
            "`a`: dtype F4",
            "`b`: offsets 0..9 hold 9 bytes, expected 8",
            "`b`: header entry",
            "`c`: shape",
        ] {
            assert!(found.contains(part), "{part} in {found}");
        }
    }

    #[test]
    fn parse_checks_placement() {
        let two = |a: [u64; 2], b: [u64; 2]| {
            format!(
                r#"{{"a":{{"dtype":"U8","shape":[{}],"data_offsets":{a:?}}},"b":{{"dtype":"U8","shape":[{}],"data_offsets":{b:?}}}}}"#,
                a[1] - a[0],
                b[1] - b[0]
            )
        };
        assert!(Header::parse(two([0, 4], [4, 8]).as_bytes(), 8, &Limits::UNKNOWN).is_ok());
        assert!(faults(&two([0, 4], [2, 6]), 6).contains("inside tensor `a`"));
        assert!(faults(&two([0, 8], [2, 6]), 8).contains("inside tensor `a`"));
        assert!(faults(&two([0, 4], [6, 8]), 8).contains("expected 4"));
        assert!(faults(&two([0, 4], [4, 8]), 7).contains("`b`: data ends at byte 8"));
        assert!(faults(&two([0, 4], [4, 8]), 9).contains("belongs to no tensor"));
    }

    #[test]
    fn header_length_is_checked_against_the_file() {
        let length = |claimed: u64, bytes| header_length(claimed.to_le_bytes(), bytes, &Limits::TRUSTED);
        assert_eq!(length(4, 12), Ok(4));
        assert!(length(5, 12).is_err());
        assert!(length(Limits::TRUSTED.header_bytes + 1, u64::MAX).is_err());
    }

    #[test]
    fn faults_and_tensors_behind_the_limits_are_only_counted() {
        let some = |count: usize, entry: &dyn Fn(usize) -> String| {
            let entries: Vec<String> = (0..count).map(entry).collect();
            Header::parse(format!("{{{}}}", entries.join(",")).as_bytes(), 0, &Limits::UNKNOWN).unwrap_err()
        };
        let few = |entry: &dyn Fn(usize) -> String| some(1000, entry);
        let many = |entry: &dyn Fn(usize) -> String| some(100_000, entry);
        let bad = few(&|_| "\"\":0".to_owned());
        assert_eq!(bad.iter().count(), crate::model::faults::MOST_KEPT);
        let empty = r#"{"dtype":"U8","shape":[0],"data_offsets":[0,0]}"#;
        let found = many(&|i| format!("\"{i}\":{empty}")).to_string();
        assert_eq!(
            found,
            format!("header lists 100000 tensors, expected at most {}", Limits::UNKNOWN.tensors)
        );
        let found = many(&|i| format!("\"__metadata__\":{{\"{i}\":\"\"}}")).to_string();
        assert!(found.starts_with("key `__metadata__` appears twice"), "{found}");
        let keys: Vec<String> = (0..2000).map(|i| format!("\"{i}\":\"\"")).collect();
        let found = faults(&format!("{{\"__metadata__\":{{{}}}}}", keys.join(",")), 0);
        assert_eq!(found, "metadata has 2000 keys, expected at most 1024");
    }

    #[test]
    fn tensors_that_cost_more_memory_than_text_are_few() {
        let parse = |count: usize, shape: &str, limits: &Limits| {
            let entry = |i| format!("\"{i}\":{{\"dtype\":\"U8\",\"shape\":{shape},\"data_offsets\":[0,0]}}");
            let entries: Vec<String> = (0..count).map(entry).collect();
            Header::parse(format!("{{{}}}", entries.join(",")).as_bytes(), 0, limits)
        };
        assert!(parse(16, "[0]", &Limits::UNKNOWN).is_ok());
        assert!(parse(17, "[0]", &Limits::TRUSTED).is_ok());
        let found = parse(17, "[0]", &Limits::UNKNOWN).unwrap_err().to_string();
        assert_eq!(found, "header lists 17 tensors without values beside 0 others: most must have values");
        let axes = format!("[0{}]", ",1".repeat(12));
        let found = parse(10, &axes, &Limits::UNKNOWN).unwrap_err().to_string();
        assert_eq!(
            found,
            "header lists 130 extents in the shapes of 10 tensors, expected at most 4 a tensor"
        );
        assert!(parse(1, &format!("[0{}]", ",1".repeat(63)), &Limits::UNKNOWN).is_ok());
    }

    #[test]
    fn metadata_may_be_null_and_values_must_be_strings() {
        let parse = |json: &str| Header::parse(json.as_bytes(), 0, &Limits::UNKNOWN);
        assert!(parse(r#"{"__metadata__":null}"#).unwrap().metadata.is_empty());
        assert!(faults(r#"{"__metadata__":{"round":4}}"#, 0).contains("metadata `round` is not a string"));
        assert!(faults(r#"{"__metadata__":[]}"#, 0).contains("metadata is not a map of strings"));
    }

    /// Each of these files would be refused with one more.
    #[test]
    fn a_file_may_use_up_each_limit() {
        let (name, mut end) = ("n".repeat(MAX_NAME), 0);
        let mut tensor = |name: &str, shape: &str, bytes: usize| {
            let begin = end;
            end += bytes;
            format!(r#""{name}":{{"dtype":"F32","shape":[{shape}],"data_offsets":[{begin},{end}]}}"#)
        };
        let axes = vec!["1"; 4 + MAX_AXES / 2].join(",");
        let full = [tensor(&name, &axes, 4), tensor("b", &axes, 4)].join(",");
        let keys: Vec<String> = (0..MAX_METADATA_KEYS).map(|key| format!(r#""{key}":"x""#)).collect();
        let json = format!(r#"{{"__metadata__":{{{}}},{full}}}"#, keys.join(","));
        let header = Header::parse(json.as_bytes(), 8, &Limits::UNKNOWN).unwrap();
        assert_eq!((header.metadata.len(), header.tensors.len()), (MAX_METADATA_KEYS, 2));
        let longer = json.replace(&name, &format!("{name}n"));
        assert!(faults(&longer, 8).contains("its name has 1025 bytes"));
        assert!(faults(&json.replacen("[1,", "[1,1,", 1), 8).contains("73"));

        let few = |empty: usize| {
            let filled = (0..4)
                .map(|i| format!(r#""f{i}":{{"dtype":"U8","shape":[1],"data_offsets":[{i},{}]}}"#, i + 1));
            let empty =
                (0..empty).map(|i| format!(r#""e{i}":{{"dtype":"U8","shape":[0],"data_offsets":[4,4]}}"#));
            let json = format!("{{{}}}", filled.chain(empty).collect::<Vec<_>>().join(","));
            Header::parse(json.as_bytes(), 4, &Limits::UNKNOWN).is_ok()
        };
        assert!(few(FREE_EMPTY + 1) && !few(FREE_EMPTY + 2));

        let most = Limits::UNKNOWN.header_bytes;
        assert_eq!(header_length(most.to_le_bytes(), most + 8, &Limits::UNKNOWN), Ok(most as usize));
        assert!(header_length((most + 1).to_le_bytes(), most + 9, &Limits::UNKNOWN).is_err());
    }
}
