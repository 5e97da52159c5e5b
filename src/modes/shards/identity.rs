//! The identity of a run: everything that the merged bytes depend on, by name.
//!
//! A digest of a sample identifies each file, since no shard reads all bytes: see [`SourceFile::sample`].

use crate::engine::aggregate::error::Error;
use crate::io::model_file::ModelFile;
use crate::io::source::SourceFile;
use crate::modes::shards::ShardedRun;
use crate::rules::Distances;
use rayon::prelude::*;
use std::collections::BTreeMap;

/// The prefix of every entry's name in metadata.
pub const PREFIX: &str = "fedmill.run.";

/// Settings and inputs of a run, by name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunIdentity(pub BTreeMap<String, String>);

/// A difference between two identities.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// The name of the entry.
    pub what: String,
    /// Its text in the file.
    pub found: String,
    /// Its text in this run.
    pub expected: String,
}

impl RunIdentity {
    /// The identity of a run.
    ///
    /// # Errors
    ///
    /// When a file cannot be read.
    pub(super) fn of(run: &ShardedRun) -> Result<Self, Error> {
        let ShardedRun { session, taken, statistics } = run;
        let (method, policy, set) = (&session.request.method, &session.request.policy, &taken.set);
        let (rule, strategy) = (&method.rule, &method.strategy);
        let pre: Vec<String> = method.pre.iter().map(ToString::to_string).collect();
        let distances = match method.distances {
            Distances::Auto => "auto",
            Distances::Gram => "gram",
            Distances::Direct => "direct",
        };
        let models = set.clients.par_iter().map(|client| sample(&client.model));
        let updates = digest(&models.collect::<Result<Vec<_>, _>>()?);
        let base = set.base.as_ref().map(|base| sample(&base.model)).transpose()?;
        let state = set.carried.sources.values().next();
        let state = state.map(|state| sample(&state.model)).transpose()?;
        let weights: Vec<u8> = statistics.weights.iter().flat_map(|weight| weight.to_le_bytes()).collect();
        let ids: Vec<&[u8]> = statistics.ids.iter().map(String::as_bytes).collect();
        let tensors = set.layout.tensors().iter();
        let layout: Vec<String> =
            tensors.map(|spec| format!("{:?} {} {:?}", spec.name, spec.dtype, spec.shape)).collect();
        let [statistics, opaque] = policy.tensors.classes.texts();
        let none = || "none".to_owned();
        let entries = [
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("rule", rule.to_string()),
            ("definition", rule.definition().to_string()),
            ("pre", pre.join(" ")),
            ("strategy", strategy.to_string()),
            ("strategy-definition", strategy.definition().to_string()),
            ("byzantine", taken.byzantine.map_or_else(none, |count| count.to_string())),
            ("seed", method.seed.to_string()),
            ("distances", distances.to_owned()),
            ("round", policy.round.map_or_else(none, |round| round.to_string())),
            ("population", policy.population.map_or_else(none, |count| count.to_string())),
            ("keeps", session.kept_tensors().iter().map(|kept| kept.slot.prefix()).collect()),
            ("personal", policy.tensors.personal.texts().join(" ")),
            ("statistics", statistics.join(" ")),
            ("opaque", opaque.join(" ")),
            ("clients", format!("{} of digest {}", ids.len(), digest(&ids))),
            ("weights", digest(&[weights])),
            ("layout", digest(&layout)),
            ("updates", updates),
            ("base", base.unwrap_or_else(none)),
            ("state", state.unwrap_or_else(none)),
        ];
        Ok(Self(entries.into_iter().map(|(name, text)| (name.to_owned(), text)).collect()))
    }

    /// The identity with one more entry.
    #[must_use]
    pub fn with(mut self, name: &str, text: impl ToString) -> Self {
        self.0.insert(name.to_owned(), text.to_string());
        self
    }

    /// The entries as metadata of a file.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        self.0.iter().map(|(name, text)| (format!("{PREFIX}{name}"), text.clone())).collect()
    }

    /// The identity in the metadata of a file.
    pub fn read(metadata: &BTreeMap<String, String>) -> Self {
        let entry =
            |(key, text): (&String, &String)| Some((key.strip_prefix(PREFIX)?.to_owned(), text.clone()));
        Self(metadata.iter().filter_map(entry).collect())
    }

    /// The first difference from the expected identity; `None` if both are equal. Settings come before files, since a
    /// setting may change what the file entries hold.
    pub fn difference(&self, expected: &Self) -> Option<Difference> {
        let files = ["clients", "weights", "layout", "updates", "base", "state", "decision"];
        let mut names: Vec<&String> = self.0.keys().chain(expected.0.keys()).collect();
        names.sort_by_key(|name| files.iter().position(|file| file == name).map_or(0, |place| place + 1));
        let what = names.into_iter().find(|name| self.0.get(*name) != expected.0.get(*name))?;
        let text =
            |key: &Self| key.0.get(what).map_or_else(|| "missing".to_owned(), |text| format!("`{text}`"));
        Some(Difference { what: what.clone(), found: text(self), expected: text(expected) })
    }
}

/// The digest of byte strings. It includes their lengths, so that it depends on where each ends.
fn digest<T: AsRef<[u8]>>(parts: &[T]) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.as_ref().len() as u64).to_le_bytes());
        hasher.update(part.as_ref());
    }
    hasher.finalize().to_hex()[..32].to_owned()
}

fn sample(model: &ModelFile) -> Result<String, Error> {
    let sample = |file: &SourceFile| {
        file.sample().map_err(|source| Error::Read { path: file.path().to_owned(), source })
    };
    Ok(digest(&model.files.iter().map(sample).collect::<Result<Vec<_>, _>>()?))
}
