//! Checks the files around a federation: its registry, and what its settings name.

use crate::fleet::error::FleetError;
use crate::fleet::registry::{Filter, Registry};
use crate::io::folder;
use crate::io::system::{self, Program};
use crate::lint::tier_codecs::TierTask;
use crate::lint::{Facts, Finding, Level, lint};
use crate::modes::tiers::file::{Tier, Tiers};
use crate::round::error::RoundError;
use crate::round::layout;
use crate::round::server::Server;
use crate::round::server::tiers::UnfitCodec;
use crate::round::server::work::MANY_CLIENTS;
use crate::round::state::{State, charges, sound};
use crate::rules::{self, Needs, Rule, Statistics};
use crate::telemetry::explain::Explain;
use std::collections::BTreeMap;
use std::fmt::Display;

impl Server {
    /// The findings about settings and about the files that they need, errors first. `population` stands for the number
    /// of clients in the registry.
    pub fn check(&mut self, population: Option<u64>) -> Vec<Finding> {
        let mut findings = Vec::new();
        let population = population.or_else(|| self.checked_population(&mut findings));
        let plan = self.plan().unwrap_or_else(|why| {
            let remedy = "restore the folder from a backup";
            findings.push(error("privacy.enabled", layout::BUDGET, why, remedy));
            None
        });
        let tiers = self.checked_tiers(&mut findings);
        let has_tier_rules = self.has_tier_rules().unwrap_or_default();
        let model_bytes = self.model().map(|(bytes, _)| bytes);
        let facts = Facts { population, model_bytes, plan, tiers, has_tier_rules };
        findings.extend(self.small_tiers());
        findings.extend(self.unprotected_tiers());
        findings.extend(self.check_codecs());
        findings.extend(self.check_evaluation());
        findings.extend(self.check_current());
        findings.extend(self.check_store());
        findings.extend(self.check_ledger());
        findings.extend(self.check_secure());
        findings.extend(lint(&self.config, &facts));
        findings.sort_by_key(|finding| finding.level);
        findings
    }

    /// The number of clients in the registry. A registry that is missing or cannot be read is a finding.
    fn checked_population(&self, findings: &mut Vec<Finding>) -> Option<u64> {
        let finding = match self.active() {
            Ok(Some(active)) => return Some(active),
            Ok(None) => {
                let why = "the federation has no registry of clients: no round can open";
                let remedy = format!("`fedmill clients import {} FILE`", self.root.display());
                error(layout::REGISTRY, "no file", why, remedy)
            }
            Err(why) => error(layout::REGISTRY, "a damaged file", why, "restore it from a backup"),
        };
        findings.push(finding);
        None
    }

    /// The number of clients that are not retired; `None` without a registry.
    pub(super) fn active(&self) -> Result<Option<u64>, RoundError> {
        let registry = self.path(layout::REGISTRY);
        if !folder::exists(&registry) {
            return Ok(None);
        }
        let active = Registry::open(&registry).and_then(|clients| clients.active());
        active.map(Some).map_err(RoundError::work)
    }

    /// Whether every tier names its rule.
    pub(super) fn has_tier_rules(&self) -> Result<bool, RoundError> {
        let tiers = self.read_tiers()?;
        Ok(tiers.is_some_and(|tiers| tiers.tiers.iter().all(|tier| tier.has_rule)))
    }

    /// What each tier asks of its clients. A file of tiers or a model that cannot be read is a finding, as is the rule
    /// of each tier.
    fn checked_tiers(&self, findings: &mut Vec<Finding>) -> BTreeMap<String, TierTask> {
        if let Some(finding) = self.check_tiers() {
            let is_error = finding.level == Level::Error;
            findings.push(finding);
            if is_error {
                return BTreeMap::new();
            }
        }
        self.adapting_tiers().unwrap_or_else(|why| {
            let remedy = "restore the model from a backup";
            findings.push(error("adaptation.tier_codecs", "a model that cannot be read", why, remedy));
            BTreeMap::new()
        })
    }

    fn check_tiers(&self) -> Option<Finding> {
        let file = self.config.tiers.file.as_ref()?.display().to_string();
        let why = match self.read_tiers() {
            Ok(tiers) => return Some(rules_of(file, &tiers?.tiers)),
            Err(why) => why,
        };
        let remedy = format!(
            "write the file by `fedmill clients tiers {} -o FILE`, or leave tiers.file out",
            self.root.display()
        );
        Some(error("tiers.file", file, why, remedy))
    }

    /// Tiers whose tolerance is less than one client, even if all clients of the tier take part. A registry or a file of
    /// tiers that cannot be read is another finding.
    fn small_tiers(&self) -> Vec<Finding> {
        let Ok(Some(tiers)) = self.read_tiers() else { return Vec::new() };
        let Ok(counts) = self.tier_counts(&tiers) else { return Vec::new() };
        let finding = |tier: &Tier| {
            let registered = counts.get(&tier.name).copied().filter(|clients| *clients > 0)?;
            let clients = registered.min(self.config.coordination.selected());
            let why = tier.method.check_share(clients as usize).err()?;
            let (level, then) = match tier.is_optional {
                true => (Level::Warning, "every round drops its updates"),
                false => (Level::Error, "every round is refused"),
            };
            let why = why.to_string().replace("--byzantine", "the tolerance of");
            let remedy = "a lower `byzantine` for the tier in the file, such as 0, or a count such as 1, or fewer tiers";
            let found = format!("{registered} clients in tier {}", tier.name);
            let (why, remedy) = (format!("{then}: {why}"), remedy.to_owned());
            Some(Finding { level, key: "tiers.file", found, why, remedy })
        };
        tiers.tiers.iter().filter_map(finding).collect()
    }

    /// Tiers whose rule leaves out no hostile client, and whose `byzantine` does not say that this is meant.
    fn unprotected_tiers(&self) -> Vec<Finding> {
        let Ok(Some(tiers)) = self.read_tiers() else { return Vec::new() };
        let tolerance = self.config.robustness.byzantine_tolerance;
        let finding = |tier: &Tier| {
            let rule = &tier.method.rule;
            let why = match rule.tolerates(MANY_CLIENTS) {
                _ if tier.method.byzantine.is_some() || !tier.method.pre.is_empty() => return None,
                0 if tolerance > 0.0 => format!(
                    "the rule of the tier protects against no hostile client, and byzantine_tolerance is {tolerance}"
                ),
                0 => return None,
                _ if needs_tolerance(rule.as_ref()) => {
                    "the rule of the tier leaves out no update: no client of the tier is assumed hostile"
                        .to_owned()
                }
                _ => return None,
            };
            let remedy = "the key `byzantine` of the tier in the file: a share such as 0.2 under a rule such as \
                          trimmed-mean, or 0 if no client is hostile";
            let found = format!("rule {rule} of tier {}", tier.name);
            Some(Finding { level: Level::Warning, key: "tiers.file", found, why, remedy: remedy.to_owned() })
        };
        tiers.tiers.iter().filter_map(finding).collect()
    }

    /// Codecs whose updates no merge takes. A file of tiers or a model that cannot be read is another finding.
    fn check_codecs(&self) -> Vec<Finding> {
        let unfit = match self.unfit_codecs() {
            Ok(unfit) => unfit,
            Err(RoundError::Setting { key, why }) => {
                return vec![error(key, "a codec", why, "a codec as `compress --codec` takes it")];
            }
            Err(_) => return Vec::new(),
        };
        let finding = |UnfitCodec { key, codec, tier, why, is_fatal }: UnfitCodec| {
            let clients = tier.map_or(String::new(), |tier| format!(" of clients of tier {tier}"));
            let (level, then) = match is_fatal {
                true => (Level::Error, "every round is refused"),
                false => (Level::Warning, "such updates are refused"),
            };
            let why = format!("{then}: {why}");
            let remedy = "a codec that sends every value, such as u8, or another rule".to_owned();
            Finding { level, key, found: format!("{codec} for updates{clients}"), why, remedy }
        };
        unfit.into_iter().map(finding).collect()
    }

    /// The clients of each tier that are not retired.
    fn tier_counts(&self, tiers: &Tiers) -> Result<BTreeMap<String, u64>, FleetError> {
        let mut counts = BTreeMap::new();
        let filter = Filter { tier: None, with_retired: false, limit: None };
        Registry::open(&self.path(layout::REGISTRY))?.list(&filter, |client| {
            if let Some(tier) = tiers.tier_of(&client.profile.id) {
                *counts.entry(tier.name.clone()).or_default() += 1;
            }
            Ok::<(), FleetError>(())
        })?;
        Ok(counts)
    }

    fn check_evaluation(&self) -> Option<Finding> {
        let name = self.config.evaluation.command.first()?;
        let (why, remedy) = match system::program(name, &self.root) {
            Program::Found => return None,
            Program::NotExecutable(path) => (
                format!("{} is no program that this account may run: every evaluation fails", path.display()),
                format!("`chmod +x {}`, or name its interpreter first: [\"python3\", \"FILE\"]", path.display()),
            ),
            Program::Missing if name.contains('/') => (
                "there is no such file: every evaluation fails. A relative path starts at the state directory"
                    .to_owned(),
                "install the program, or name it with its whole path".to_owned(),
            ),
            Program::Missing => (
                "no folder of PATH has this program: every evaluation fails".to_owned(),
                "install it, or name it with its whole path; cron has a short PATH".to_owned(),
            ),
        };
        Some(error("evaluation.command", name, why, remedy))
    }

    /// A current model that is missing or has another size. A journal that cannot be read is a fault of every command.
    fn check_store(&self) -> Option<Finding> {
        let state = State::read(self, &self.root).ok()?;
        let why = sound::present(self, &state).err()?;
        let remedy = why.hint().unwrap_or_default();
        let why = format!("no round can open or merge: {why}");
        Some(error(layout::CURRENT, "a link to a model that is lost", why, remedy))
    }

    /// A ledger that lacks charges of rounds in the journals, or that settings without privacy leave out. A ledger that
    /// cannot be read is another finding.
    fn check_ledger(&mut self) -> Option<Finding> {
        let published = State::read(self, &self.root).ok()?.carry.published;
        let config = self.config.clone();
        match charges::check(&config, self, published).err()? {
            RoundError::Torn { found, expected, remedy, .. } => {
                Some(error(layout::BUDGET, found, format!("expected {expected}: no round opens"), remedy))
            }
            _ => None,
        }
    }

    fn check_current(&self) -> Option<Finding> {
        let path = self.path(layout::CURRENT);
        if !folder::exists(&path) || folder::target(&path).is_ok() {
            return None;
        }
        let state = State::read(self, &self.root).ok()?;
        let why = RoundError::no_link(&state.carry.current.file.blake3);
        let remedy = why.hint()?;
        let found = "a file, expected a link";
        Some(error(
            layout::CURRENT,
            found,
            "every run ends with status 2: runs move the link to publish",
            remedy,
        ))
    }
}

/// Whether a rule leaves out updates only if clients are assumed hostile.
fn needs_tolerance(rule: &dyn Rule) -> bool {
    let statistics = Statistics {
        ids: (0..MANY_CLIENTS).map(|client| client.to_string()).collect(),
        weights: vec![1.0; MANY_CLIENTS],
        byzantine: None,
        seed: 0,
        geometry: None,
    };
    let warns = || rules::decide(rule, &statistics).is_ok_and(|decision| !decision.warnings.is_empty());
    rule.uses_byzantine() || rule.needs() == Needs::Nothing && warns()
}

/// Says which rule each tier has.
fn rules_of(file: String, tiers: &[Tier]) -> Finding {
    let rule = |tier: &Tier| {
        let source = if tier.has_rule { "its own" } else { "robustness.rule" };
        let share = tier.method.byzantine.as_ref();
        let assumed = share.map_or("no client".to_owned(), |share| format!("{share} of its clients"));
        format!("tier {} is merged by {} ({source}, {assumed} assumed hostile)", tier.name, tier.method.rule)
    };
    let why = tiers.iter().map(rule).collect::<Vec<_>>().join("; ");
    Finding { level: Level::Note, key: "tiers.file", found: file, why, remedy: String::new() }
}

pub(super) fn error(
    key: &'static str,
    found: impl Display,
    why: impl Display,
    remedy: impl Display,
) -> Finding {
    let (found, why, remedy) = (found.to_string(), why.to_string(), remedy.to_string());
    Finding { level: Level::Error, key, found, why, remedy }
}
