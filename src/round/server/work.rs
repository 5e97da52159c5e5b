//! The work that other rooms do for a round.

use crate::compress::patch;
use crate::engine::aggregate::error::Error;
use crate::engine::aggregate::publish;
use crate::engine::aggregate::request::{Inputs, Outputs, Readers, Request};
use crate::engine::aggregate::session::Session;
use crate::engine::aggregate::state::{self, StateError};
use crate::engine::decide::method::{Method, MetricsRequest, Reporting};
use crate::engine::intake::personal::{Layers, Personal};
use crate::engine::intake::update::Update;
use crate::engine::passes::error::PassError;
use crate::engine::passes::machine::Machine;
use crate::fleet::history::Participation;
use crate::fleet::registry::Registry;
use crate::fleet::select::{self, Selection};
use crate::io::folder;
use crate::lint::tier_codecs::TierTask;
use crate::lint::{Facts, Finding, Level, lint};
use crate::modes::dp::release;
use crate::modes::tiers::file::TierText;
use crate::modes::{tiers, tree};
use crate::round::error::RoundError;
use crate::round::evaluate::MODEL;
use crate::round::journal::{Arrival, Rejected, Settings};
use crate::round::layout;
use crate::round::moment::Moment;
use crate::round::server::budget::{check_rate, drawn_selection};
use crate::round::server::policy::tell_excluded;
use crate::round::server::{Server, command, options};
use crate::round::validate::STATE;
use crate::round::world::{
    BudgetFacts, Examined, Files, Fingerprint, MergeOrder, Merged, MergedClient, Work,
};
use crate::rules::{self, pre};
use crate::settings::Definition;
use crate::settings::share::Share;
use crate::strategies;
use crate::telemetry::explain::Explain;
use crate::telemetry::progress::Progress;
use crate::telemetry::report::{RejectedRow, Report};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

impl Work for Server {
    fn select(&mut self, round: u64, settings: &Settings, now: &Moment) -> Result<Selection, RoundError> {
        let coordination = &self.config.coordination;
        let plan = self.sampling_plan()?;
        let text = drawn_selection(&coordination.selection, plan.as_ref());
        let strategy = select::parse(&text).map_err(RoundError::setting("coordination.selection"))?;
        let (registry, clients) = (self.registry()?, settings.clients as usize);
        // A sample of unknown size claims amplification, which a least size would void.
        let samples = strategy.rate(clients, clients).is_some();
        let request = select::Request {
            strategy,
            count: settings.clients as usize,
            dropout: settings.dropout,
            most: self.most_clients() as usize,
            round,
            seed: coordination.seed,
            max_wait: coordination.max_wait,
            constraints: self.constraints(),
            now: timestamp(now),
            least: if samples { 1 } else { coordination.min_clients as usize },
        };
        let selection = select::select(&registry, &request).map_err(RoundError::work)?;
        tell_excluded(&selection, self.config.secure.enabled);
        check_rate(plan.as_ref(), selection.rate)?;
        Ok(selection)
    }

    fn tiers(&mut self, model: &str) -> Result<BTreeMap<String, TierTask>, RoundError> {
        self.tier_tasks(Some(&self.path(model)))
    }

    fn population(&mut self) -> Result<u64, RoundError> {
        self.registry()?.active().map_err(RoundError::work)
    }

    fn recorded_round(&mut self) -> Result<Option<u64>, RoundError> {
        match folder::exists(&self.path(layout::REGISTRY)) {
            true => self.registry()?.last_round().map_err(RoundError::work),
            false => Ok(None),
        }
    }

    fn record(&mut self, round: u64, clients: &[Participation], now: &Moment) -> Result<(), RoundError> {
        let recorded = self.registry()?.record(round, clients, timestamp(now));
        recorded.map(drop).map_err(RoundError::work)
    }

    fn fairness(&mut self) -> Result<Option<f64>, RoundError> {
        let counts = self.registry()?.participation_counts().map_err(RoundError::work)?;
        Ok(counts.jain())
    }

    fn examine(&mut self, order: &MergeOrder) -> Result<Examined, RoundError> {
        let progress = Progress::hidden();
        let request = self.request(order)?;
        let mut session = Session::open(request, self.machine(&progress)).map_err(RoundError::work)?;
        let updates = std::mem::take(&mut session.updates);
        let asked: BTreeMap<PathBuf, &Arrival> =
            order.updates.iter().map(|asked| (self.path(&asked.path), asked)).collect();
        let asked_for = |path: &Path| asked.get(path).copied();
        let loss = |update: &Update| Some((asked_for(&update.path)?.id.clone(), update.metadata.loss?));
        let losses = updates.iter().filter_map(loss).collect();
        let taken = session.admit(updates).map_err(RoundError::work)?;
        let rejected = taken.rejected.iter().filter_map(|update| {
            let asked = asked_for(&update.path)?;
            Some(Rejected {
                id: asked.id.clone(),
                path: asked.path.clone(),
                why: options::with_keys(&update.faults.to_string()),
                ..Rejected::default()
            })
        });
        Ok(Examined { rejected: rejected.collect(), losses })
    }

    fn merge(&mut self, order: &MergeOrder) -> Result<Merged, RoundError> {
        check_rate(self.sampling_plan()?.as_ref(), order.rate)?;
        let progress = Progress::hidden();
        let request = self.request(order)?;
        let machine = self.machine(&progress);
        let has_state = request.outputs.state.is_some();
        let outputs = request.outputs.clone();
        let done = match (self.config.privacy.enabled, self.tiers_file()?) {
            (true, _) => release::run(request, &release::Options::new(self.path(layout::BUDGET)), machine),
            (false, Some(file)) => {
                let method = |tier: &TierText| self.tier(tier);
                tiers::mode::run(request, &file, method, machine)
            }
            (false, None) => tree::root::run(request, machine),
        };
        let report = done.inspect_err(|why| {
            let told = publish::publish_failure(&outputs, why.report(), (why.to_string(), why.is_refusal()));
            if let Err(why) = told {
                tracing::warn!("no report was written: {why}");
            }
        });
        let report = match report {
            Err(why) if why.is_refusal() || is_of_values(&why) => return Ok(refused(order, &why)),
            done => done.map_err(RoundError::work)?,
        };
        let model = layout::of_round(order.round, MODEL);
        let model = self.fingerprint(&model).map_err(RoundError::reading(&model))?;
        Ok(merged(order, &report, model, has_state, self.config.privacy.enabled))
    }

    fn state_fault(&mut self, path: &str) -> Option<String> {
        let path = self.path(path);
        if !folder::exists(&path) {
            return Some("no file".to_owned());
        }
        let checked = self.hardware.pool.install(|| state::check_digest(&path));
        checked.err().map(|why| match why {
            StateError::Unreadable { faults, .. } => faults.to_string(),
            other => other.to_string(),
        })
    }

    fn evaluate(&mut self, round: u64, model: &str) -> Result<BTreeMap<String, f64>, RoundError> {
        let evaluation = &self.config.evaluation;
        let absolute = std::path::absolute(self.path(model)).unwrap_or_else(|_| self.path(model));
        let variables =
            [("FEDMILL_ROUND", round.to_string()), ("FEDMILL_MODEL", absolute.display().to_string())];
        command::measure(&evaluation.command, &self.root, &variables, evaluation.timeout.unsigned_abs())
    }

    fn patch(&mut self, from: &str, to: &str, target: &str) -> Result<Option<Fingerprint>, RoundError> {
        let path = self.path(target);
        // What an earlier run left may be damaged, and its digest is nowhere.
        folder::remove(&path).map_err(RoundError::writing(target))?;
        let made = patch::make(&self.path(from), &self.path(to), &path).map_err(RoundError::work)?;
        if !made {
            return Ok(None);
        }
        self.fingerprint(target).map(Some).map_err(RoundError::reading(target))
    }

    fn releases(&mut self) -> Result<Option<u64>, RoundError> {
        self.charged_releases()
    }

    fn budget(&mut self) -> Result<Option<BudgetFacts>, RoundError> {
        self.budget_facts()
    }

    fn prepare(&mut self, population: u64) -> Result<(), RoundError> {
        let findings = lint(&self.config, &Facts { population: Some(population), ..self.facts()? });
        let errors: Vec<&Finding> = findings.iter().filter(|finding| finding.level == Level::Error).collect();
        if let Some(Finding { key, found, why, .. }) = errors.first() {
            return Err(RoundError::Lint {
                key,
                found: found.clone(),
                why: why.clone(),
                more: errors.len() - 1,
            });
        }
        self.make_budget(population)
    }
}

fn timestamp(now: &Moment) -> Timestamp {
    i64::try_from(now.unix_ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        .unwrap_or(Timestamp::MAX)
}

impl Server {
    fn registry(&self) -> Result<Registry, RoundError> {
        Registry::open(&self.path(layout::REGISTRY)).map_err(RoundError::work)
    }

    /// The most clients that a round selects.
    fn most_clients(&self) -> u64 {
        let most = self.config.coordination.max_clients;
        self.config.adaptation.clients.map_or(most, |[_, bound]| most.min(bound))
    }

    pub(super) fn machine<'s>(&'s self, progress: &'s Progress) -> Machine<'s> {
        Machine::new(self.hardware.isa, &self.hardware.pool, progress)
    }

    /// The request for the merge of a round.
    fn request(&self, order: &MergeOrder) -> Result<Request, RoundError> {
        let is_private = self.config.privacy.enabled;
        let method = self.method(order)?;
        let keeps_state = !method.strategy.keeps().is_empty() || method.rule.keeps_centre();
        let weighting = self.weighting(&method)?;
        let policy = self.policy(order, method.strategy.as_ref(), weighting)?;
        let updates: Vec<PathBuf> = order.updates.iter().map(|update| self.path(&update.path)).collect();
        let model = self.path(&layout::of_round(order.round, MODEL));
        let request = Request::new(updates, method, model.clone());
        Ok(Request {
            inputs: Inputs {
                base: Some(self.path(&order.base)),
                starts_state: keeps_state && order.state.is_none(),
                may_be_empty: is_private,
                ..request.inputs
            },
            policy,
            reporting: Reporting { metrics: MetricsRequest::IfFew, ..Reporting::default() },
            outputs: Outputs {
                report: Some(self.path(&layout::of_round(order.round, "report.json"))),
                readers: if is_private { Readers::Owner { of_clients: false } } else { Readers::All },
                state: keeps_state.then(|| self.path(&layout::of_round(order.round, STATE))),
                ..request.outputs
            },
            backend: self.hardware.backend.clone(),
            ..request
        })
    }

    fn method(&self, order: &MergeOrder) -> Result<Method, RoundError> {
        let robustness = &self.config.robustness;
        let byzantine = self.tolerance()?;
        let is_private = self.config.privacy.enabled;
        // As in `aggregate --tiers`, the rule across tiers is the mean: each tier has its rule and steps.
        let has_tiers = self.config.tiers.file.is_some();
        let (rule, pre) =
            if has_tiers { ("mean", &[][..]) } else { (&*robustness.rule, &robustness.pre[..]) };
        Ok(Method {
            strategy: strategies::parse(&self.strategy(order), Definition::Paper)
                .map_err(RoundError::setting("strategy.name"))?,
            pre: steps(pre)?,
            byzantine: byzantine.filter(|_| !is_private && !has_tiers),
            seed: self.config.coordination.seed.wrapping_add(order.round),
            ..Method::new(
                rules::parse(rule, Definition::Paper).map_err(RoundError::setting("robustness.rule"))?,
            )
        })
    }

    /// The share of clients assumed hostile; `None` for no hostile clients.
    fn tolerance(&self) -> Result<Option<Share>, RoundError> {
        match self.config.robustness.byzantine_tolerance {
            0.0 => Ok(None),
            share => {
                let share = share.to_string().parse::<Share>();
                share.map(Some).map_err(RoundError::setting("robustness.byzantine_tolerance"))
            }
        }
    }

    /// The strategy with the learning rate that adaptation set.
    fn strategy(&self, order: &MergeOrder) -> String {
        let spec = self.config.strategy.spec();
        let Some(rate) = order.settings.server_learning_rate else { return spec };
        let (name, settings) = spec.split_once(':').unwrap_or((&spec, ""));
        let others = settings.split(',').filter(|setting| !setting.is_empty() && !setting.starts_with("lr="));
        let all: Vec<String> = others.map(str::to_owned).chain([format!("lr={rate}")]).collect();
        format!("{name}:{}", all.join(","))
    }

    /// The layers that stay with the clients.
    pub(super) fn personal(&self) -> Result<Personal, RoundError> {
        let layers = self.config.personalization.layers.iter().map(|layers| layers.parse::<Layers>());
        let layers: Result<_, _> = layers.collect();
        Ok(Personal { layers: layers.map_err(RoundError::setting("personalization.layers"))? })
    }

    /// The method of one tier of clients. What the file does not say of a tier is that of the round: its rule, for a tier
    /// without a rule the steps too, and the share of hostile clients. A tier that names a rule which tolerates none,
    /// such as the mean, assumes none.
    pub(super) fn tier(&self, tier: &TierText) -> Result<Method, RoundError> {
        let robustness = &self.config.robustness;
        let parse = |rule: &str| rules::parse(rule, Definition::Paper);
        let (rule, usual) = match &tier.rule {
            Some(rule) => (parse(rule).map_err(RoundError::setting("tiers.file"))?, None),
            None => {
                let rule = parse(&robustness.rule).map_err(RoundError::setting("robustness.rule"))?;
                (rule, Some(&robustness.pre))
            }
        };
        let byzantine = match &tier.byzantine {
            Some(own) => Some(own.clone()),
            None if usual.is_none() && rule.tolerates(MANY_CLIENTS) == 0 => None,
            None => self.tolerance()?,
        };
        let pre = tier.pre.as_ref().or(usual);
        Ok(Method {
            pre: pre.map_or(Ok(Vec::new()), |pre| steps(pre))?,
            byzantine,
            seed: self.config.coordination.seed,
            ..Method::new(rule)
        })
    }
}

/// Clients of which each rule that protects at all tolerates a hostile one.
pub(super) const MANY_CLIENTS: usize = 1000;

/// The steps before a rule.
fn steps(texts: &[String]) -> Result<Vec<Box<dyn pre::Step>>, RoundError> {
    let steps = texts.iter().map(|step| pre::parse(step)).collect::<Result<_, _>>();
    steps.map_err(RoundError::setting("robustness.pre"))
}

/// Whether an error follows from the values of the updates alone: the same updates would fail again.
fn is_of_values(why: &Error) -> bool {
    match why {
        Error::Reported { source, .. } => is_of_values(source),
        Error::BadUpdates { .. }
        | Error::Kinds(_)
        | Error::Rule(_)
        | Error::Strategy(_)
        | Error::Weights(_)
        | Error::Step { .. } => true,
        Error::Pass(PassError::NonFinite) | Error::TrustedLeftOut { .. } | Error::LoraFactors { .. } => true,
        _ => false,
    }
}

/// A reason with keys of the settings in place of options.
fn told(why: &str) -> String {
    options::in_settings(why).unwrap_or_else(|| options::with_keys(why))
}

/// A merge that came to nothing.
fn refused(order: &MergeOrder, why: &Error) -> Merged {
    let rejected = why.report().map_or_else(Vec::new, |report| rejected_rows(order, report));
    Merged {
        refused: Some(format!("{}{}", told(&why.to_string()), remedy(why))),
        rejected,
        ..Merged::default()
    }
}

/// What to do about an error that clients and settings can mend, as the end of its message.
fn remedy(why: &Error) -> &'static str {
    match why {
        Error::Reported { source, .. } => remedy(source),
        Error::Kinds(_) => {
            "; clients should write the metadata `kind`, or strategy.update_kind in fedmill.toml says it for all"
        }
        _ => "",
    }
}

/// The updates that a merge left out.
fn rejected_rows(order: &MergeOrder, report: &Report) -> Vec<Rejected> {
    let row = |row: &RejectedRow| {
        let asked = order.updates.iter().find(|asked| row.file.ends_with(&asked.path))?;
        Some(Rejected {
            id: asked.id.clone(),
            path: asked.path.clone(),
            why: row.errors.iter().map(|why| told(why)).collect::<Vec<_>>().join("; "),
            ..Rejected::default()
        })
    };
    report.rejected.iter().filter_map(row).collect()
}

/// What a report says of a merge. Under privacy it says nothing of single clients.
fn merged(
    order: &MergeOrder,
    report: &Report,
    model: Fingerprint,
    has_state: bool,
    is_private: bool,
) -> Merged {
    let clients = report.clients.iter().map(|row| MergedClient {
        id: row.id.clone(),
        weight: row.weight,
        norm: row.norm,
        kept: row.kept,
        reason: row.reason.clone(),
    });
    let metrics = report.metrics.as_ref();
    let figures = [
        ("coherence", metrics.and_then(|metrics| metrics.coherence)),
        ("alignment", metrics.and_then(|metrics| metrics.alignment)),
        ("signal_fraction", metrics.and_then(|metrics| metrics.signal_fraction)),
        ("noise_scale", metrics.and_then(|metrics| metrics.noise_scale)),
        ("delta_norm", report.strategy.delta_norm),
    ];
    let geometry = figures.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Merged {
        refused: None,
        model,
        has_state,
        clients: if is_private { Vec::new() } else { clients.collect() },
        warnings: if is_private { Vec::new() } else { report.warnings.clone() },
        rejected: if is_private { Vec::new() } else { rejected_rows(order, report) },
        geometry: if is_private {
            BTreeMap::new()
        } else {
            geometry.filter(|(_, value)| value.is_finite()).collect()
        },
        secure: None,
    }
}
