//! The file names of a sharded model, as Hugging Face defines them.
//!
//! Shards are `STEM-00001-of-00003.safetensors`, the index is `STEM.safetensors.index.json`. A variant stands before the
//! last ending: `STEM-00001-of-00003.fp16.safetensors` and `STEM.safetensors.index.fp16.json` have the stem `STEM.fp16`.

use std::borrow::Cow;

/// Ending of a model in one file.
pub const MODEL_SUFFIX: &str = ".safetensors";

/// Ending of the index of a sharded model.
pub const INDEX_SUFFIX: &str = ".safetensors.index.json";

/// The fewest digits of a shard's number, and of the number of shards.
const LEAST_DIGITS: usize = 5;

/// The name of one shard, counted from 1.
pub fn shard_name(stem: &str, number: usize, count: usize) -> String {
    format!("{stem}-{number:05}-of-{count:05}{MODEL_SUFFIX}")
}

/// The stem of a model in one file. Capitals count as small letters.
pub fn model_stem(name: &str) -> Option<&str> {
    without_ending(name, MODEL_SUFFIX)
}

/// The stem of a sharded model, if `name` is the name of its index.
pub fn index_stem(name: &str) -> Option<Cow<'_, str>> {
    if let Some(stem) = without_ending(name, INDEX_SUFFIX) {
        return Some(stem.into());
    }
    let (stem, variant) = without_ending(name, ".json")?.rsplit_once('.')?;
    let stem = without_ending(stem, ".safetensors.index")?;
    Some(format!("{stem}.{variant}").into())
}

/// Whether `name` is the name of a shard of the model with this stem.
pub fn is_shard_of(stem: &str, name: &str) -> bool {
    shard_stem(name).is_some_and(|of| of == stem)
}

/// The stem of the model, if `name` is the name of a shard.
pub fn shard_stem(name: &str) -> Option<Cow<'_, str>> {
    let is_number = |text: &str| text.len() >= LEAST_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit());
    let (rest, count) = model_stem(name)?.rsplit_once("-of-")?;
    let (stem, number) = rest.rsplit_once('-')?;
    let (count, variant) = count.split_once('.').map_or((count, None), |(count, v)| (count, Some(v)));
    let is_shard = is_number(number) && is_number(count);
    is_shard.then(|| match variant {
        Some(variant) => format!("{stem}.{variant}").into(),
        None => stem.into(),
    })
}

fn without_ending<'n>(name: &'n str, ending: &str) -> Option<&'n str> {
    let (stem, end) = name.split_at_checked(name.len().checked_sub(ending.len())?)?;
    end.eq_ignore_ascii_case(ending).then_some(stem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_known_by_name() {
        assert!(is_shard_of("client-1", &shard_name("client-1", 2, 3)));
        assert!(is_shard_of("model", "model-00163-of-000163.safetensors"));
        assert!(is_shard_of("model.fp16", "model-00001-of-00002.fp16.safetensors"));
        assert!(is_shard_of("model.fp16", "model.fp16-00001-of-00002.safetensors"));
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

    #[test]
    fn indexes_and_models_are_known_by_name() {
        assert_eq!(index_stem("model.fp16.safetensors.index.json").unwrap(), "model.fp16");
        assert_eq!(index_stem("model.safetensors.index.fp16.json").unwrap(), "model.fp16");
        assert_eq!(index_stem("model.safetensors.index.json").unwrap(), "model");
        assert_eq!(index_stem("config.json"), None);
        assert_eq!(model_stem("Client.SAFETENSORS"), Some("Client"));
        assert_eq!(model_stem("é"), None);
    }
}
