//! How the files of a sharded model are called, as Hugging Face calls them: `STEM-00001-of-00003.safetensors`
//! under `STEM.safetensors.index.json`.
//!
//! An index may only name files of its own stem: else a hostile one could pass another client's file off as its own.

/// Ending of a model in one file.
pub const MODEL_SUFFIX: &str = ".safetensors";

/// Ending of the index of a sharded model.
pub const INDEX_SUFFIX: &str = ".safetensors.index.json";

/// The name of one shard, counted from 1.
pub fn shard_name(stem: &str, number: usize, count: usize) -> String {
    format!("{stem}-{number:05}-of-{count:05}{MODEL_SUFFIX}")
}

/// Whether a file of this name is a shard of the model of this stem.
pub fn is_shard_of(stem: &str, name: &str) -> bool {
    shard_stem(name) == Some(stem)
}

/// The stem of the model that a file of this name is a shard of, if it is called like a shard.
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
