//! The file of tiers: groups of clients, such as phones and servers, each merged by its own rule.
//!
//! The model is `sum_t share_t * merged_t`, where the shares are the weights of the tiers divided by their sum. Each
//! tier has patterns of client ids. A client belongs to the first tier that matches. The merged values of the tiers are
//! added in f64 and rounded once. So the result is at least as exact as merging the tiers by hand.

use crate::engine::decide::method::Method;
use crate::engine::intake::fault::Fault;
use crate::io::text;
use crate::model::client_id::nfc;
use crate::rules::RuleError;
use crate::settings::share::Share;
use crate::telemetry::explain::Explain;
use crate::updates::set::Client;
use glob::Pattern;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::HashSet;
use std::fmt;
use std::io;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

/// The schema of a file of tiers.
pub const SCHEMA: &str = "fedmill.tiers/1";

/// The tiers of a file.
#[derive(Debug)]
pub struct Tiers {
    /// The path of the file.
    pub path: PathBuf,
    /// The tiers, in the order of the file.
    pub tiers: Vec<Tier>,
}

/// A tier of clients.
#[derive(Debug)]
pub struct Tier {
    /// Its name.
    pub name: String,
    /// Ids of its clients.
    ids: HashSet<String>,
    /// Patterns of the ids of its clients.
    patterns: Vec<Pattern>,
    /// The rule and the steps for its clients.
    pub method: Method,
    /// Whether the file names its rule.
    pub has_rule: bool,
    weight: TierWeight,
    /// Whether a round goes on without it.
    pub is_optional: bool,
    /// Local steps that a round asks of its clients. Merging ignores them.
    pub local_steps: Option<u64>,
    /// The codec that a round asks its clients to use. Merging ignores it.
    pub codec: Option<String>,
    /// The bytes that one client may send in a round. Merging ignores them.
    pub upload_bytes: Option<u64>,
}

/// The weight of a tier.
#[derive(Clone, Copy, PartialEq, Debug)]
enum TierWeight {
    /// The sum of its clients' weights.
    Examples,
    /// The number of its clients.
    Clients,
    /// This number.
    Number(f64),
}

/// The texts of one tier in the file.
#[derive(Clone, PartialEq, Debug)]
pub struct TierText {
    /// The rule; `None` if the file does not say.
    pub rule: Option<String>,
    /// The steps before it; `None` if the file does not say.
    pub pre: Option<Vec<String>>,
    /// The number of its clients assumed hostile; `None` if the file does not say.
    pub byzantine: Option<Share>,
}

/// Why tiers cannot be used.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum TiersError {
    #[error("{}: cannot be read: {source}", .path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{}: is not a file of tiers: {why}", .path.display())]
    Json { path: PathBuf, why: String },
    #[error("{}: tier {tier}: {why}", .path.display())]
    Tier { path: PathBuf, tier: String, why: String },
    #[error("{}: tier `{tier}` is listed twice, expected once", .path.display())]
    Twice { path: PathBuf, tier: String },
    #[error("{}: no tier has client `{client}`", .path.display())]
    NoTier { path: PathBuf, client: String },
    #[error("{}: tier `{tier}` has none of the {clients} clients", .path.display())]
    NoClients { path: PathBuf, tier: String, clients: usize },
    #[error("{}: tier `{tier}`: the weights of its {clients} clients are all zero, expected one above zero", .path.display())]
    NoWeight { path: PathBuf, tier: String, clients: usize },
    #[error("{}: every tier is left out, `{tier}` because {why}", .path.display())]
    AllLeftOut { path: PathBuf, tier: String, why: String },
    #[error("{}: the weights of the tiers add up to {total}, expected a number above zero", .path.display())]
    BadTotal { path: PathBuf, total: f64 },
    #[error("{}: the weights of the tiers have different units, expected one unit: {list}", .path.display())]
    MixedUnits { path: PathBuf, list: String },
    #[error("{}: tier `{tier}`: {}", .path.display(), by_key(source.to_string()))]
    Rule { path: PathBuf, tier: String, needs: Option<usize>, source: Box<RuleError> },
}

/// A message of a rule, with the key of the tier in place of the option.
pub fn by_key(message: String) -> String {
    message.replace("--byzantine", "`byzantine`")
}

/// How every client has a tier.
const LAST_TIER: &str = "end the list with a tier that has all others: [\"*\"]";

impl Explain for TiersError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NoTier { .. } => Some(LAST_TIER.to_owned()),
            Self::NoClients { .. } => Some("a tier with \"optional\": true may be empty".to_owned()),
            Self::MixedUnits { .. } => {
                Some("give all tiers a number, or all `examples`, or all `clients`".to_owned())
            }
            Self::Rule { needs: Some(needs), .. } => Some(format!(
                "the tier needs {needs} clients; with \"optional\": true it is left out of a round that has fewer"
            )),
            Self::Rule { source, .. } => source.hint().map(str::to_owned),
            _ => None,
        }
    }

    fn is_refusal(&self) -> bool {
        matches!(self, Self::Rule { source, .. } if source.is_refusal())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileJson {
    schema: String,
    tiers: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TierJson {
    name: String,
    clients: Vec<String>,
    rule: Option<String>,
    pre: Option<Vec<String>>,
    byzantine: Option<NumberOrText>,
    weight: Option<NumberOrText>,
    #[serde(default)]
    optional: bool,
    local_steps: Option<NonZeroU64>,
    codec: Option<String>,
    upload_bytes: Option<NonZeroU64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(serde_json::Number),
    Text(String),
}

impl fmt::Display for NumberOrText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl Tiers {
    /// Reads a file of tiers. `method` parses the texts of a tier.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or has another format. The message names the tier.
    pub fn read<E: fmt::Display>(
        path: &Path,
        method: impl Fn(&TierText) -> Result<Method, E>,
    ) -> Result<Self, TiersError> {
        let text = text::read_written(path)
            .map_err(|source| TiersError::Unreadable { path: path.to_owned(), source })?;
        let json = |why: String| TiersError::Json { path: path.to_owned(), why };
        let file: FileJson = serde_json::from_str(&text).map_err(|why| json(why.to_string()))?;
        if file.schema != SCHEMA {
            return Err(json(format!("schema is `{}`, expected `{SCHEMA}`", file.schema)));
        }
        if file.tiers.is_empty() {
            return Err(json("`tiers` is empty, expected a tier".to_owned()));
        }
        let mut tiers: Vec<Tier> = Vec::new();
        for (i, tier) in file.tiers.iter().enumerate() {
            let bad = |why| TiersError::Tier { path: path.to_owned(), tier: label(i, tier.get()), why };
            let tier = Tier::parse(tier.get(), &method).map_err(bad)?;
            if tiers.iter().any(|other| other.name == tier.name) {
                return Err(TiersError::Twice { path: path.to_owned(), tier: tier.name });
            }
            tiers.push(tier);
        }
        Ok(Self { path: path.to_owned(), tiers })
    }

    /// The faults of clients that no tier has, by index.
    pub fn strangers(&self, clients: &[Client]) -> Vec<(usize, Fault)> {
        let fault = |(i, client): (usize, &Client)| {
            let stranger = TiersError::NoTier { path: self.path.clone(), client: client.id.clone() };
            let hint = Some(LAST_TIER);
            let fault = Fault::Mode { fault: Box::new(stranger), is_relative: false, hint };
            self.place_of(&client.id).is_none().then_some((i, fault))
        };
        clients.iter().enumerate().filter_map(fault).collect()
    }

    /// Sorts clients with these weights into the tiers, and computes the share of each tier. An optional tier whose
    /// clients weigh nothing is left out: returned apart, with the reason.
    ///
    /// # Errors
    ///
    /// When a client has no tier, or a tier has no clients or no weight.
    pub fn sort(&self, clients: &[Client], weights: &[f64]) -> Result<SortedTiers, TiersError> {
        let path = || self.path.clone();
        let mut members = vec![Vec::new(); self.tiers.len()];
        for (i, client) in clients.iter().enumerate() {
            let tier = self.place_of(&client.id);
            let none = || TiersError::NoTier { path: path(), client: client.id.clone() };
            members[tier.ok_or_else(none)?].push(i);
        }
        let mut sorted = SortedTiers::default();
        for (number, (tier, clients)) in self.tiers.iter().zip(members).enumerate() {
            if clients.is_empty() && !tier.is_optional {
                let (tier, clients) = (tier.name.clone(), weights.len());
                return Err(TiersError::NoClients { path: path(), tier, clients });
            }
            match self.weight(tier, &clients, weights) {
                _ if clients.is_empty() => {}
                Ok(weight) => {
                    sorted.members.push(TierMembers { tier: number, clients, weight, share: weight });
                }
                Err(TiersError::NoWeight { .. }) if tier.is_optional => {
                    sorted.left_out.push(LeftOut {
                        tier: number,
                        clients,
                        why: "the weights of its clients are all zero".to_owned(),
                    });
                }
                Err(why) => return Err(why),
            }
        }
        // Tiers are added in order of name, so that their order in the file changes no bit.
        sorted.members.sort_by(|a, b| self.tiers[a.tier].name.cmp(&self.tiers[b.tier].name));
        self.check_left(&sorted.members, &sorted.left_out)?;
        self.share_out(&mut sorted.members)?;
        self.check_units(&sorted.members)?;
        Ok(sorted)
    }

    /// Refuses a round whose tiers are all left out.
    ///
    /// # Errors
    ///
    /// The reason of the first.
    pub fn check_left(&self, members: &[TierMembers], left_out: &[LeftOut]) -> Result<(), TiersError> {
        match left_out.first().filter(|_| members.is_empty()) {
            None => Ok(()),
            Some(LeftOut { tier, why, .. }) => Err(TiersError::AllLeftOut {
                path: self.path.clone(),
                tier: self.tiers[*tier].name.clone(),
                why: why.clone(),
            }),
        }
    }

    /// Computes the share of each tier from the weights of these tiers.
    ///
    /// # Errors
    ///
    /// When they add up to zero, or to no finite number.
    pub fn share_out(&self, members: &mut [TierMembers]) -> Result<(), TiersError> {
        let total: f64 = members.iter().map(|tier| tier.weight).sum();
        if !(total > 0.0 && total.is_finite()) {
            return Err(TiersError::BadTotal { path: self.path.clone(), total });
        }
        members.iter_mut().for_each(|tier| tier.share = tier.weight / total);
        Ok(())
    }

    /// Refuses a sum of examples, clients and numbers: one of them would drown the others. A tier of share 0 has no
    /// unit.
    fn check_units(&self, sorted: &[TierMembers]) -> Result<(), TiersError> {
        let weighing =
            || sorted.iter().filter(|tier| tier.share > 0.0).map(|tier| (&self.tiers[tier.tier], tier.share));
        let mut units = weighing().map(|(tier, _)| tier.weight.unit());
        let first = units.next();
        if units.all(|unit| Some(unit) == first) {
            return Ok(());
        }
        let line = |(tier, share): (&Tier, f64)| {
            format!("`{}` by {} has a share of {share:.6}", tier.name, tier.weight.unit())
        };
        let list = weighing().map(line).collect::<Vec<_>>().join(", ");
        Err(TiersError::MixedUnits { path: self.path.clone(), list })
    }

    /// The tier of a client; `None` if no pattern matches.
    pub fn tier_of(&self, client: &str) -> Option<&Tier> {
        self.place_of(client).map(|place| &self.tiers[place])
    }

    fn place_of(&self, client: &str) -> Option<usize> {
        self.tiers.iter().position(|tier| tier.has(client))
    }

    fn weight(&self, tier: &Tier, clients: &[usize], weights: &[f64]) -> Result<f64, TiersError> {
        let sum: f64 = clients.iter().map(|client| weights[*client]).sum();
        if sum == 0.0 && tier.method.rule.uses_weights() {
            let (path, clients) = (self.path.clone(), clients.len());
            return Err(TiersError::NoWeight { path, tier: tier.name.clone(), clients });
        }
        Ok(match tier.weight {
            TierWeight::Examples => sum,
            TierWeight::Clients => clients.len() as f64,
            TierWeight::Number(weight) => weight,
        })
    }
}

impl fmt::Display for Tiers {
    /// Each tier with its steps and rule.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.tiers.iter().map(Tier::to_string).collect();
        f.write_str(&texts.join(" "))
    }
}

/// The name of a tier in messages: its name, or its number without one.
fn label(place: usize, json: &str) -> String {
    #[derive(Deserialize)]
    struct Named {
        name: String,
    }
    match serde_json::from_str::<Named>(json) {
        Ok(named) => format!("`{}`", named.name),
        Err(_) => format!("number {}", place + 1),
    }
}

impl Tier {
    fn parse<E: fmt::Display>(
        json: &str,
        method: impl Fn(&TierText) -> Result<Method, E>,
    ) -> Result<Self, String> {
        let TierJson {
            name,
            clients,
            rule,
            pre,
            byzantine,
            weight,
            optional,
            local_steps,
            codec,
            upload_bytes,
        } = serde_json::from_str(json).map_err(|why| why.to_string())?;
        if name.is_empty() || clients.is_empty() {
            return Err("`name` and `clients` may not be empty".to_owned());
        }
        let pattern = |text: &String| Pattern::new(text).map_err(|why| format!("clients: `{text}`: {why}"));
        // A registry may have many ids, and few clients match a pattern.
        let (patterns, ids): (Vec<String>, Vec<String>) =
            clients.iter().map(|text| nfc(text)).partition(|text| text.contains(['*', '?', '[']));
        let share = |text: NumberOrText| text.to_string().parse().map_err(|why| format!("byzantine: {why}"));
        let text = TierText { rule, pre, byzantine: byzantine.map(share).transpose()? };
        Ok(Self {
            name,
            ids: ids.into_iter().collect(),
            patterns: patterns.iter().map(pattern).collect::<Result<_, _>>()?,
            has_rule: text.rule.is_some(),
            method: method(&text).map_err(|why| why.to_string())?,
            weight: weight.map_or(Ok(TierWeight::Examples), |weight| TierWeight::parse(&weight))?,
            is_optional: optional,
            local_steps: local_steps.map(NonZeroU64::get),
            codec,
            upload_bytes: upload_bytes.map(NonZeroU64::get),
        })
    }

    fn has(&self, client: &str) -> bool {
        self.ids.contains(client) || self.patterns.iter().any(|pattern| pattern.matches(client))
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=", self.name)?;
        self.method.pre.iter().try_for_each(|step| write!(f, "{step}+"))?;
        write!(f, "{}", self.method.rule)
    }
}

impl TierWeight {
    fn unit(self) -> &'static str {
        match self {
            Self::Examples => "examples",
            Self::Clients => "clients",
            Self::Number(_) => "number",
        }
    }

    fn parse(weight: &NumberOrText) -> Result<Self, String> {
        let number = match weight {
            NumberOrText::Number(number) => number.as_f64(),
            NumberOrText::Text(text) if text == "examples" => return Ok(Self::Examples),
            NumberOrText::Text(text) if text == "clients" => return Ok(Self::Clients),
            NumberOrText::Text(_) => None,
        };
        let number = number.filter(|number| number.is_finite() && *number >= 0.0);
        number.map(Self::Number).ok_or_else(|| {
            format!("weight is {weight}, expected `examples`, `clients` or a number that is not negative")
        })
    }
}

/// The clients of a tier in one round.
#[derive(Clone, PartialEq, Debug)]
pub struct TierMembers {
    /// The index of the tier in the file.
    pub tier: usize,
    /// Its clients, by index in the set, in order.
    pub clients: Vec<usize>,
    /// Its weight, as the file gives it.
    pub weight: f64,
    /// Its share of the merged model, from 0 to 1.
    pub share: f64,
}

/// An optional tier whose clients the merged model does not contain.
#[derive(Clone, PartialEq, Debug)]
pub struct LeftOut {
    /// The index of the tier in the file.
    pub tier: usize,
    /// Its clients, by index in the set, in order.
    pub clients: Vec<usize>,
    /// The reason.
    pub why: String,
}

/// The clients of a round, tier by tier.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct SortedTiers {
    /// The tiers to merge, in the order of their names.
    pub members: Vec<TierMembers>,
    /// The tiers that are left out.
    pub left_out: Vec<LeftOut>,
}
