//! The description of a partial: JSON under one key of its safetensors metadata.

use crate::model::client_id::{EXPECTED, is_sound, nfc};
use crate::model::dtype::Dtype;
use crate::modes::tree::purpose::Purpose;
use crate::updates::metadata::{MOST_EXAMPLES, UpdateKind};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// The schema of the JSON.
pub const SCHEMA: &str = "fedmill.partial/1";

/// The largest sum of the weights of one partial's clients, so that the sum over all partials fits f64.
const MOST_TOTAL: f64 = 1e300;

/// A client whose update is in a partial.
#[derive(Clone, PartialEq, Debug)]
pub struct PartialMember {
    /// Its id.
    pub id: String,
    /// Its weight.
    pub weight: f64,
}

/// The description of a partial.
#[derive(Clone, PartialEq, Debug)]
pub struct Description {
    /// The spec of the rule.
    pub rule: String,
    /// Whether the sums are of weights or of deltas.
    pub kind: UpdateKind,
    /// The digest of the base: of `--base`, or the one that all updates name. `None` without either.
    pub base: Option<String>,
    /// The number of the round; `None` without `--round`.
    pub round: Option<u64>,
    /// The source of the weights: `examples`, `uniform` or `file`.
    pub weights: String,
    /// The clients whose updates it sums, in order of id.
    pub clients: Vec<PartialMember>,
    /// The number of smallest values of each coordinate outside the sum.
    pub low: usize,
    /// The number of largest values of each coordinate outside the sum.
    pub high: usize,
    /// The dtype of each tensor in the model, by name.
    pub dtypes: BTreeMap<String, Dtype>,
}

/// The description as JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Json {
    schema: String,
    version: String,
    rule: String,
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    base: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    round: Option<u64>,
    weights: String,
    low: usize,
    high: usize,
    dtypes: BTreeMap<String, String>,
    clients: Vec<MemberJson>,
}

/// Weights stay text of digits, since JSON readers may round the last bit.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberJson {
    id: String,
    weight: Box<RawValue>,
}

impl Description {
    /// Parses the JSON.
    ///
    /// # Errors
    ///
    /// The fault of the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let schema = serde_json::from_str::<serde_json::Value>(text).map_err(|why| why.to_string())?;
        let schema = schema["schema"].as_str().unwrap_or("missing").to_owned();
        if schema != SCHEMA {
            return Err(format!("schema is `{schema}`, expected `{SCHEMA}`"));
        }
        let json: Json = serde_json::from_str(text).map_err(|why| why.to_string())?;
        let kind = match json.kind.as_str() {
            "weights" => UpdateKind::Weights,
            "delta" => UpdateKind::Delta,
            other => return Err(format!("kind is `{other}`, expected `weights` or `delta`")),
        };
        let dtype = |(name, text): (String, String)| {
            let found = Dtype::ALL.into_iter().find(|dtype| dtype.to_string() == text);
            found.map(|dtype| (name, dtype)).ok_or_else(|| format!("dtype `{text}` is not known"))
        };
        let description = Self {
            rule: json.rule,
            kind,
            base: json.base,
            round: json.round,
            weights: json.weights,
            clients: json.clients.into_iter().map(member).collect::<Result<_, _>>()?,
            low: json.low,
            high: json.high,
            dtypes: json.dtypes.into_iter().map(dtype).collect::<Result<_, _>>()?,
        };
        description.check()?;
        Ok(description)
    }

    fn check(&self) -> Result<(), String> {
        if let Some(pair) = self.clients.windows(2).find(|pair| pair[0].id >= pair[1].id) {
            return Err(format!(
                "client `{}` is listed before `{}`, expected ids in order",
                pair[0].id, pair[1].id
            ));
        }
        let is_unsound = |id: &str| !is_sound(id) || nfc(id) != id;
        if let Some(PartialMember { id, .. }) = self.clients.iter().find(|member| is_unsound(&member.id)) {
            return Err(format!("client `{id}`: expected {EXPECTED}, in Unicode NFC"));
        }
        if self.clients.is_empty() {
            return Err("found no client, expected at least one".to_owned());
        }
        match self.low.checked_add(self.high) {
            Some(edges) if edges <= self.clients.len() => self.check_weights(),
            _ => {
                Err(format!("{} and {} values apart of {} clients", self.low, self.high, self.clients.len()))
            }
        }
    }

    fn check_weights(&self) -> Result<(), String> {
        let (expected, most): (&str, f64) = match self.weights.as_str() {
            "uniform" => ("1", 1.0),
            "examples" => ("at most 2^53", MOST_EXAMPLES),
            "file" => ("a finite number", f64::MAX),
            other => return Err(format!("weights is `{other}`, expected examples, uniform or file")),
        };
        let is_bad = |weight: f64| weight > most || self.weights == "uniform" && weight != most;
        if let Some(PartialMember { id, weight }) = self.clients.iter().find(|member| is_bad(member.weight)) {
            let weights = &self.weights;
            return Err(format!("the weight of `{id}` is {weight}, expected {expected} for {weights}"));
        }
        let total = self.total_weight();
        if 0.0 < total && total <= MOST_TOTAL {
            return Ok(());
        }
        Err(format!(
            "the weights of its clients add up to {total}, expected above 0 and at most {MOST_TOTAL:e}"
        ))
    }

    /// The fault of a partial with a client that counts more examples than `most`; `None` if there is none.
    pub fn above(&self, most: f64) -> Option<String> {
        let is_above = |member: &&PartialMember| self.weights == "examples" && member.weight > most;
        let PartialMember { id, weight } = self.clients.iter().find(is_above)?;
        Some(format!("the weight of `{id}` is {weight}, expected at most {most} by --max-examples"))
    }

    /// The sum of its clients' weights.
    pub fn total_weight(&self) -> f64 {
        self.clients.iter().map(|member| member.weight).sum()
    }

    /// The fault of a partial whose number of edges is not that of its purpose; `None` if it is.
    pub fn edge_fault(&self, purpose: Purpose) -> Option<String> {
        let (found, expected) = ((self.low, self.high), purpose.edges(self.clients.len()));
        let text = |(low, high)| format!("{low} smallest and {high} largest values");
        (found != expected).then(|| {
            let clients = self.clients.len();
            format!("{} apart, expected {} of {clients} clients", text(found), text(expected))
        })
    }

    /// The description as JSON text.
    pub fn text(&self) -> String {
        let member =
            |member: &PartialMember| MemberJson { id: member.id.clone(), weight: digits(member.weight) };
        let json = Json {
            schema: SCHEMA.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            rule: self.rule.clone(),
            kind: self.kind.to_string(),
            base: self.base.clone(),
            round: self.round,
            weights: self.weights.clone(),
            low: self.low,
            high: self.high,
            dtypes: self.dtypes.iter().map(|(name, dtype)| (name.clone(), dtype.to_string())).collect(),
            clients: self.clients.iter().map(member).collect(),
        };
        written(&json)
    }
}

fn member(json: MemberJson) -> Result<PartialMember, String> {
    let weight = json.weight.get().parse().ok().filter(|weight: &f64| weight.is_finite() && *weight >= 0.0);
    let weight = weight.ok_or_else(|| {
        format!(
            "the weight of `{}` is {}, expected a number that is not negative",
            json.id,
            json.weight.get()
        )
    })?;
    Ok(PartialMember { id: json.id, weight })
}

#[expect(clippy::expect_used, reason = "a finite float displays as a JSON number that parses to it")]
fn digits(weight: f64) -> Box<RawValue> {
    RawValue::from_string(weight.to_string()).expect("a finite number")
}

#[expect(clippy::expect_used, reason = "maps with string keys always serialise")]
fn written(json: &Json) -> String {
    serde_json::to_string(json).expect("strings and numbers")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(weights: &[f64]) -> Description {
        let member = |(i, weight): (usize, &f64)| PartialMember { id: format!("c{i}"), weight: *weight };
        Description {
            rule: "trimmed-mean:cut=1".to_owned(),
            kind: UpdateKind::Delta,
            base: Some("abc".to_owned()),
            round: None,
            weights: "file".to_owned(),
            clients: weights.iter().enumerate().map(member).collect(),
            low: 1,
            high: 1,
            dtypes: BTreeMap::from([("w".to_owned(), Dtype::BF16)]),
        }
    }

    #[test]
    fn text_parses_to_the_same_bits() {
        let one = of(&[0.1, 1e300, 5e-324, 123_456_789.123_456_7, 0.0]);
        assert_eq!(Description::parse(&one.text()), Ok(one));
    }

    #[test]
    fn other_texts_say_what_is_wrong() {
        let text = of(&[1.0, 2.0]).text();
        for (from, to, what) in [
            ("partial/1", "partial/2", "schema is `fedmill.partial/2`"),
            ("\"delta\"", "\"gradient\"", "kind is `gradient`"),
            ("\"weight\":2", "\"weight\":-2", "weight of `c1` is -2"),
            ("\"c1\"", "\"c0\"", "client `c0` is listed before `c0`"),
            ("\"low\":1", "\"low\":2", "2 and 1 values apart of 2 clients"),
            ("BF16", "F7", "dtype `F7`"),
            ("\"rule\"", "\"rules\"", "unknown field"),
        ] {
            let wrong = Description::parse(&text.replace(from, to)).unwrap_err();
            assert!(wrong.contains(what), "{from} to {to}: {wrong}");
        }
    }

    #[test]
    fn weights_may_be_as_large_as_their_source_allows() {
        let with = |weights: &str, list: &[f64]| Description { weights: weights.to_owned(), ..of(list) };
        let check = |description: Description| Description::parse(&description.text());
        assert!(check(with("examples", &[MOST_EXAMPLES, 0.0])).is_ok());
        assert!(check(with("examples", &[MOST_EXAMPLES + 2.0])).is_err());
        assert!(check(with("uniform", &[1.0, 1.0])).is_ok());
        assert!(check(with("uniform", &[1.0, 0.5])).is_err());
        assert!(check(with("file", &[0.0, 0.0])).is_err(), "no weight at all");
    }
}
