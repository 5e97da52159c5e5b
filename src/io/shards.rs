//! The file names of a sharded model, as Hugging Face defines them.
//!
//! Shards are `STEM-00001-of-00003.safetensors`, the index is `STEM.safetensors.index.json`. An index may only name
//! files of its stem. Otherwise a hostile client could pass another client's file off as its own.

/// Ending of a model in one file.
pub const MODEL_SUFFIX: &str = ".safetensors";

/// Ending of the index of a sharded model.
pub const INDEX_SUFFIX: &str = ".safetensors.index.json";

/// The name of one shard, counted from 1.
pub fn shard_name(stem: &str, number: usize, count: usize) -> String {
    format!("{stem}-{number:05}-of-{count:05}{MODEL_SUFFIX}")
}

/// Whether `name` is the name of a shard of the model with this stem.
pub fn is_shard_of(stem: &str, name: &str) -> bool {
    shard_stem(name) == Some(stem)
}

/// The stem of the model, if `name` is the name of a shard.
pub fn shard_stem(name: &str) -> Option<&str> {
    let is_number = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    let (rest, count) = name.strip_suffix(MODEL_SUFFIX)?.rsplit_once("-of-")?;
    let (stem, number) = rest.rsplit_once('-')?;
    (is_number(number) && is_number(count)).then_some(stem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_known_by_name() {
        assert!(is_shard_of("client-1", &shard_name("client-1", 2, 3)));
        for other in [
            "client-1.safetensors",
            "client-1-2-of-3.safetensors",
            "client-1-00002-of-00003.bin",
            "client-00002-of-00003.safetensors",
            "../client-1-00002-of-00003.safetensors",
        ] {
            assert!(!is_shard_of("client-1", other), "{other}");
        }
    }
}
