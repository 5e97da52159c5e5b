//! Merges each tensor over the clients that have it, by a rule that works by coordinate.
//!
//! Tensors that the same clients have form a group. The rule decides for each group alone: with the group's number of
//! clients, its weights, and its share of hostile clients. A tensor that no client has keeps the base's values. So does
//! one that too few clients have for the rule ([`few`]): else one client alone could set it.

pub mod few;

use crate::engine::aggregate::error::{Error, Stopped, Unsupported};
use crate::engine::aggregate::geometry::{FileGeometry, subject_of};
use crate::engine::aggregate::mode::{Mode, Plain};
use crate::engine::aggregate::request::Request;
use crate::engine::aggregate::run::run_as;
use crate::engine::aggregate::session::Session;
use crate::engine::backend::request::BackendName;
use crate::engine::decide::judge::{Judgement, judge};
use crate::engine::decide::method::Reporting;
use crate::engine::decide::source::JudgeError;
use crate::engine::intake::taken::Taken;
use crate::engine::passes::combine::TileWork;
use crate::engine::passes::combine::compile::compile;
use crate::engine::passes::combine::reducer::{CpuOnly, GpuReduction, Reducer};
use crate::engine::passes::error::PassError;
use crate::engine::passes::machine::Machine;
use crate::model::layout::Layout;
use crate::model::state::StateTensor;
use crate::rules::{Needs, Recipe, Statistics, Verdict, Warning};
use crate::strategies::{Cohort, StepInput};
use crate::telemetry::report::Report;
use crate::updates::set::{UpdateSet, ValueKind};
use few::TooFew;
use std::collections::{BTreeMap, HashSet};

/// Merges each tensor over the clients that have it.
///
/// # Errors
///
/// The errors of an aggregate run. Also a rule, a step or a strategy that needs whole updates.
pub fn run(request: Request, machine: Machine) -> Result<Report, Error> {
    run_as(&mut ByPresence::default(), request, machine)
}

/// Why tensors with gaps are merged on the CPU.
const CPU_ONLY: &str = "--missing present merges on the CPU";

/// The mode of tensors that only some clients have.
#[derive(Default)]
struct ByPresence {
    groups: Vec<TensorGroup>,
}

/// Tensors that the same clients have.
struct TensorGroup {
    /// The clients, by index in the set.
    clients: Vec<usize>,
    /// The tensors, by index in the layout.
    tensors: Vec<usize>,
    /// The recipe for the rows of all clients; `None` if the tensors keep the base's values.
    recipe: Option<Recipe>,
    /// Why too few clients have the tensors; `None` if the rule decides, or no client has them.
    too_few: Option<TooFew>,
}

/// The refusal of what needs whole updates.
fn needs_whole_updates(what: impl ToString, why: &str) -> Unsupported {
    Unsupported {
        option: what.to_string(),
        mode: Some("--missing present"),
        why: why.to_owned(),
        hint: Some(
            "pass --missing base, under which an update stands at the base where it lacks a tensor, or a rule that \
             works by coordinate: mean, median, trimmed-mean or meamed",
        ),
    }
}

impl Mode for ByPresence {
    fn check(&self, request: &Request) -> Result<(), Unsupported> {
        let method = &request.method;
        if method.rule.needs() != Needs::Nothing || method.rule.keeps_centre() {
            return Err(needs_whole_updates(&method.rule, "it compares whole updates"));
        }
        if let Some(step) = method.pre.first() {
            return Err(needs_whole_updates(format!("--pre {step}"), "it compares or changes whole updates"));
        }
        if let Some(shadow) = request.reporting.shadow.first() {
            return Err(needs_whole_updates(format!("--shadow-rules {shadow}"), "it sees whole updates"));
        }
        match request.backend.name {
            BackendName::Gpu => Err(needs_whole_updates("--backend gpu", CPU_ONLY)),
            BackendName::Auto | BackendName::Cpu => Ok(()),
        }
    }

    fn take(&mut self, session: &mut Session) -> Result<Taken, Error> {
        let taken = Plain.take(session)?;
        let strategy = &session.request.method.strategy;
        let is_before = strategy.needs() != Needs::Nothing
            || strategy.keeps().iter().any(|kept| kept.slot == StateTensor::Control)
            || strategy.weigh(&taken.cohort)?.is_some()
            || strategy.scale(&taken.cohort, None)?.is_some();
        if is_before {
            let why = "the strategy scales, weighs or measures whole updates";
            return Err(needs_whole_updates(format!("--strategy {strategy}"), why).into());
        }
        Ok(Taken { cpu_only: Some(CPU_ONLY), ..taken })
    }

    fn judge(&mut self, session: &mut Session, taken: &Taken) -> Result<Judgement, Stopped> {
        let statistics = session.statistics(taken)?;
        let clients = taken.set.clients.len();
        // What the rule refuses for all clients is no matter of gaps.
        let method = &session.request.method;
        method.check(&statistics)?;
        method.rule.decide(&statistics)?;
        let mut warnings = Vec::new();
        let mut kept = vec![false; clients];
        self.groups = groups_of(&taken.set);
        for group in &mut self.groups {
            if group.clients.is_empty() {
                continue;
            }
            let judgement = match judge_group(session, taken, group, &statistics)? {
                Ok(judgement) => judgement,
                Err(why) => {
                    group.too_few = Some(few::check_base(why, taken, &group.clients, &group.tensors)?);
                    continue;
                }
            };
            for (client, verdict) in group.clients.iter().zip(&judgement.verdicts) {
                kept[*client] |= verdict.kept;
            }
            for warning in judgement.warnings {
                if !warnings.contains(&warning) {
                    warnings.push(warning);
                }
            }
            group.recipe = judgement.recipe.map(|recipe| recipe.among(&group.clients, clients));
        }
        warnings.extend(few::warnings(&self.groups, taken).map(Warning::from));
        let method = &session.request.method;
        warnings.extend(few::undefended(&self.groups, taken, method).map(Warning::from));
        let decided = StepInput {
            steps: taken.set.carried.steps,
            coefficients: None,
            weights: &[],
            geometry: None,
            rule: &method.rule.to_string(),
        };
        let server_step = method.strategy.step(&decided)?;
        let verdict = |kept| {
            let reason =
                if kept { "merged in the tensors that it has" } else { "has no tensor that is merged" };
            Verdict { kept, weight: None, score: None, reason: reason.to_owned() }
        };
        let verdicts = kept.into_iter().map(verdict).collect();
        Ok(Judgement { warnings, ..Judgement::without_geometry(verdicts, server_step) })
    }

    fn reducer<'t>(&'t self, taken: &'t Taken, _: &'t Judgement, skips: bool) -> Box<dyn Reducer + 't> {
        let set = &taken.set;
        let compile = |group: &'t TensorGroup| {
            let recipe = group.recipe.as_ref();
            let reducer = recipe.map(|recipe| compile(recipe, set, &group.clients, skips));
            GroupReducer { tensors: &group.tensors, reducer }
        };
        let groups = self.groups.iter().map(compile).collect();
        Box::new(MergeByGroup { groups, clients: (0..set.clients.len()).collect(), layout: &set.layout })
    }

    fn report(&self, taken: &Taken, report: &mut Report) {
        let tensors = taken.set.layout.tensors();
        let few = self.groups.iter().filter(|group| group.too_few.is_some());
        let kept: HashSet<&str> =
            few.flat_map(|group| &group.tensors).map(|tensor| tensors[*tensor].name.as_str()).collect();
        for row in &mut report.gaps {
            row.keeps_base = kept.contains(row.tensor.as_str());
        }
    }

    fn describe(&self, _: &Taken, metadata: &mut BTreeMap<String, String>) {
        metadata.insert("fedmill.missing".to_owned(), "present".to_owned());
    }
}

/// The tensors of a set, by the clients that have them.
fn groups_of(set: &UpdateSet) -> Vec<TensorGroup> {
    let mut groups: BTreeMap<Vec<usize>, Vec<usize>> = BTreeMap::new();
    for tensor in 0..set.layout.tensors().len() {
        let has = |client: &usize| !set.clients[*client].placement[tensor].is_absent();
        groups.entry((0..set.clients.len()).filter(has).collect()).or_default().push(tensor);
    }
    groups
        .into_iter()
        .map(|(clients, tensors)| TensorGroup { clients, tensors, recipe: None, too_few: None })
        .collect()
}

/// Judges the clients of a group by the rule alone, or says why they are too few.
fn judge_group(
    session: &mut Session,
    taken: &Taken,
    group: &TensorGroup,
    all: &Statistics,
) -> Result<Result<Judgement, TooFew>, Stopped> {
    let method = &session.request.method;
    let set = taken.set.among(&group.clients);
    let weights: Vec<f64> = group.clients.iter().map(|client| all.weights[*client]).collect();
    if method.rule.uses_weights() && weights.iter().sum::<f64>() <= 0.0 {
        return Ok(Err(TooFew::NoWeight));
    }
    let clients = group.clients.iter().map(|client| taken.cohort.clients[*client].clone()).collect();
    let cohort = Cohort { clients, weights: weights.clone(), ..taken.cohort.clone() };
    let statistics = Statistics {
        ids: set.clients.iter().map(|client| client.id.clone()).collect(),
        weights,
        byzantine: method.byzantine.as_ref().map(|share| share.of(set.clients.len())),
        ..all.clone()
    };
    let reporting = Reporting::default();
    let mut source = FileGeometry::new(&session.machine, &set);
    let subject = subject_of(&set);
    match session.machine.decide(|| judge(method, &reporting, &cohort, subject, statistics, &mut source))? {
        Ok(judgement) => Ok(Ok(judgement)),
        Err(JudgeError::Rule(why)) => Ok(Err(TooFew::ForRule(why))),
        Err(why) => Err(why.into()),
    }
}

/// The reducer of a group; `None` for tensors that keep the base's values.
struct GroupReducer<'a> {
    tensors: &'a [usize],
    reducer: Option<Box<dyn Reducer + 'a>>,
}

/// Merges each tensor by the reducer of its group.
struct MergeByGroup<'a> {
    groups: Vec<GroupReducer<'a>>,
    clients: Vec<usize>,
    layout: &'a Layout,
}

impl MergeByGroup<'_> {
    /// Replaces the values of a group's tensors in a tile.
    fn take(&self, work: &TileWork, group: &GroupReducer, merged: &[f64], all: &mut [f64]) {
        let mut column = 0;
        for piece in self.layout.pieces(work.tile.coordinates.clone()) {
            let columns = column..column + piece.len;
            if group.tensors.binary_search(&piece.tensor).is_ok() {
                all[columns.clone()].copy_from_slice(&merged[columns.clone()]);
            }
            column = columns.end;
        }
    }

    fn is_in(&self, work: &TileWork, group: &GroupReducer) -> bool {
        let mut pieces = self.layout.pieces(work.tile.coordinates.clone());
        pieces.any(|piece| group.tensors.binary_search(&piece.tensor).is_ok())
    }
}

impl Reducer for MergeByGroup<'_> {
    fn clients(&self) -> &[usize] {
        &self.clients
    }

    fn rows_at_once(&self) -> usize {
        let reducers = self.groups.iter().filter_map(|group| group.reducer.as_ref());
        reducers.map(|reducer| reducer.rows_at_once()).max().unwrap_or(1)
    }

    fn uses_base(&self) -> bool {
        let needs_base =
            |group: &GroupReducer| group.reducer.as_ref().is_none_or(|reducer| reducer.uses_base());
        self.groups.iter().any(needs_base)
    }

    fn reduce(&self, work: &mut TileWork) -> Result<(), PassError> {
        let mut all = vec![0.0; work.columns()];
        let mut squares = vec![0.0; self.clients.len()];
        for group in &self.groups {
            if !self.is_in(work, group) {
                continue;
            }
            let Some(reducer) = &group.reducer else {
                if work.set().value_kind == ValueKind::AsSent {
                    let base = work.reader().base().to_vec();
                    self.take(work, group, &base, &mut all);
                }
                continue;
            };
            let (merged, of_clients) = work.capture(&**reducer)?;
            for (client, square) in reducer.clients().iter().zip(of_clients) {
                squares[*client] = square;
            }
            self.take(work, group, &merged, &mut all);
        }
        work.set_norms(squares);
        work.finish(&mut all)
    }

    fn on_gpu(&self) -> Result<GpuReduction<'_>, CpuOnly> {
        Err(CpuOnly(CPU_ONLY))
    }
}
