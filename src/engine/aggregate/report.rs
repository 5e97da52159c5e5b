//! The report of a run: which clients the rule kept and why, and what the run took.

use crate::engine::aggregate::session::Session;
use crate::engine::decide::judge::Judgement;
use crate::engine::intake::claims::OnDuplicateContent;
use crate::engine::intake::policy::OnBadUpdate;
use crate::engine::intake::taken::Taken;
use crate::engine::intake::update::Update;
use crate::engine::passes::combine::rounding::share_lost;
use crate::engine::passes::combine::{SquaredNorms, StepNorms};
use crate::io::machine::peak_resident_bytes;
use crate::io::model_writer::ModelWriter;
use crate::model::class::TensorClass;
use crate::model::layout::{Layout, TensorSpec};
use crate::rules::metrics::RoundMetrics;
use crate::rules::pre::StepRecord;
use crate::rules::{Decision, Distances, RuleError, Warning};
use crate::telemetry::report::{
    BackendChoice, ClientRow, GapRow, InfluenceRow, MetricsRow, Output, RejectedRow, Report, SCHEMA,
    Settings, ShadowRow, StepClientRow, StepRow, StrategyRow, TensorClassRow, Timings, Tool,
};
use crate::updates::set::{Client, UpdateSet};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The report without the fields of a judgement.
pub fn without_judgement(session: &Session, taken: &Taken) -> Report {
    let total_s = session.started.elapsed().as_secs_f64();
    Report {
        schema: SCHEMA,
        tool: Tool::FEDMILL,
        published: false,
        error: None,
        refused: None,
        settings: settings(session, taken),
        backend: backend_row(session),
        clients: taken.set.clients.iter().map(client_row).chain(member_rows(taken)).collect(),
        rejected: taken.rejected.iter().map(rejected_row).collect(),
        tiers: Vec::new(),
        tensors: class_rows(&taken.set),
        strategy: strategy_row(session, taken),
        pre: Vec::new(),
        shadow: Vec::new(),
        metrics: None,
        gaps: gap_rows(&taken.set),
        warnings: Vec::new(),
        unprotected: Vec::new(),
        output: None,
        bytes: session.bytes,
        timings: Timings { total_s, ..session.timings },
        peak_resident_bytes: peak_resident_bytes(),
    }
}

/// The report of a judged run. `norms` are the L2 norms that the second pass measured. Prints the judgement's warnings.
pub fn of(session: &Session, taken: &Taken, judgement: &Judgement, norms: Option<&[f64]>) -> Report {
    for warning in &judgement.warnings {
        tracing::warn!("{warning}");
    }
    let mut report = without_judgement(session, taken);
    let norms = judgement.norms.as_deref().or(norms);
    for (i, (row, verdict)) in report.clients.iter_mut().zip(&judgement.verdicts).enumerate() {
        row.weight = verdict.weight;
        row.score = verdict.score;
        row.kept = verdict.kept;
        row.reason.clone_from(&verdict.reason);
        row.norm = norms.and_then(|norms| norms.get(i).copied());
        row.influence = judgement.metrics.as_ref().map(|metrics| InfluenceRow {
            distance: metrics.influence[i].distance,
            angle: metrics.influence[i].angle,
        });
        let clusters = judgement.metrics.as_ref().and_then(|metrics| metrics.clusters.as_ref());
        row.cluster = clusters.map(|clusters| clusters.members[i]);
    }
    let ids: Vec<&str> = taken.set.clients.iter().map(|client| client.id.as_str()).collect();
    report.settings.distances = judgement.distances.map(|distances| match distances {
        Distances::Auto | Distances::Gram => "gram",
        Distances::Direct => "direct",
    });
    report.pre = judgement.steps.iter().map(|step| step_row(step, &ids)).collect();
    report.shadow = judgement.shadows.iter().map(|(rule, made)| shadow_row(rule, made, &ids)).collect();
    report.metrics = judgement
        .metrics
        .as_ref()
        .map(|metrics| metrics_row(metrics, judgement.sign_agreement, judgement.overlap));
    report.strategy.server_step = Some(judgement.server_step.to_string());
    report.warnings = texts(&judgement.warnings);
    report.unprotected = judgement.unprotected();
    report
}

fn gap_rows(set: &UpdateSet) -> Vec<GapRow> {
    let row = |(tensor, spec): (usize, &TensorSpec)| {
        let has = |client: &&Client| !client.placement[tensor].is_absent();
        let clients = set.clients.iter().filter(has).count();
        (clients < set.clients.len()).then(|| GapRow {
            tensor: spec.name.clone(),
            clients,
            keeps_base: false,
        })
    };
    set.layout.tensors().iter().enumerate().filter_map(row).collect()
}

/// The ratio of step and merged delta above which a step is suspicious.
const LONG_STEP: f64 = 10.0;

/// Adds the norms of the server's step. Warns of a step that is much longer than the merged delta.
pub fn add_step(norms: Option<StepNorms>, report: &mut Report) {
    let row = &mut report.strategy;
    (row.delta_norm, row.step_norm) = (norms.map(|norms| norms.delta), norms.map(|norms| norms.step));
    if let Some(StepNorms { delta, step }) =
        norms.filter(|norms| norms.delta > 0.0 && norms.step > LONG_STEP * norms.delta)
    {
        tracing::warn!(
            "the step of {} is {:.3e} times as long as the merged delta ({step:.3e}, {delta:.3e}): settings of the strategy, \
             such as a smaller lr, shorten it",
            row.strategy,
            step / delta
        );
    }
}

fn strategy_row(session: &Session, taken: &Taken) -> StrategyRow {
    let strategy = &session.request.method.strategy;
    let state = &session.request.outputs.state;
    StrategyRow {
        strategy: strategy.to_string(),
        definition: strategy.definition().to_string(),
        population: session.request.policy.population,
        state: state.as_ref().map(|path| path.display().to_string()),
        steps: state.as_ref().map(|_| taken.set.carried.steps),
        server_step: None,
        delta_norm: None,
        step_norm: None,
        found: strategy.accounts(&taken.cohort).into_iter().collect(),
    }
}

fn backend_row(session: &Session) -> BackendChoice {
    let ring = session.machine.gpu();
    let adapter = ring.as_ref().map(|ring| ring.gpu().adapter());
    let failure = session.machine.gpu_failure().map(|why| format!("{why}; the CPU took over"));
    BackendChoice {
        name: if ring.is_some() { "gpu" } else { "cpu" },
        instruction_set: session.machine.isa.to_string(),
        adapter: adapter.map(|adapter| adapter.name.clone()),
        driver: adapter.map(|adapter| adapter.driver.clone()),
        why: failure.or_else(|| session.backend_why.clone()).unwrap_or_default(),
    }
}

fn settings(session: &Session, taken: &Taken) -> Settings {
    let request = &session.request;
    let method = &request.method;
    let [statistics, opaque] = request.policy.tensors.classes.texts();
    Settings {
        rule: method.rule.to_string(),
        definition: method.rule.definition().to_string(),
        pre: method.pre.iter().map(ToString::to_string).collect(),
        byzantine: taken.byzantine,
        seed: method.seed,
        distances: None,
        weights: taken.weights_source,
        base: request.inputs.base.as_ref().map(|path| path.display().to_string()),
        min_clients: request.policy.least_clients(),
        on_bad_update: match request.policy.on_bad_update {
            OnBadUpdate::Fail => "fail",
            OnBadUpdate::Skip => "skip",
        },
        round: request.policy.round,
        kind: request.policy.claims.kind.map_or_else(|| "auto".to_owned(), |kind| kind.to_string()),
        client_id_from: request.policy.claims.client_id_from.to_string(),
        on_duplicate_content: match request.policy.claims.on_duplicate_content {
            OnDuplicateContent::Keep => "keep",
            OnDuplicateContent::Reject => "reject",
        },
        max_examples: request.policy.claims.max_examples,
        personal: request.policy.tensors.personal.texts(),
        statistics,
        opaque,
        max_shard_size: request.outputs.max_shard_bytes,
        threads: session.machine.threads(),
    }
}

/// The most names of tensors that the row of a class lists.
const MOST_NAMES: usize = 20;

/// A row for each class that the model has.
fn class_rows(set: &UpdateSet) -> Vec<TensorClassRow> {
    let row = |class: TensorClass| {
        let opaque = set.opaque.iter().map(|spec| (spec, &TensorClass::Opaque));
        let all = set.layout.tensors().iter().zip(set.layout.classes()).chain(opaque);
        let specs: Vec<&TensorSpec> = all.filter(|(_, of)| **of == class).map(|(spec, _)| spec).collect();
        let most = if class == TensorClass::Parameter { 0 } else { MOST_NAMES };
        TensorClassRow {
            class: class.to_string(),
            tensors: specs.len(),
            values: specs.iter().map(|spec| spec.len).sum(),
            names: specs.iter().take(most).map(|spec| spec.name.clone()).collect(),
        }
    };
    let rows = [TensorClass::Parameter, TensorClass::Statistic, TensorClass::Opaque].map(row);
    rows.into_iter().filter(|row| row.tensors > 0).collect()
}

/// The report's row for the merged model.
pub fn output(
    layout: &Layout,
    writer: &ModelWriter,
    metadata: BTreeMap<String, String>,
    lost_to_rounding: Option<f64>,
) -> Output {
    Output {
        path: writer.path().display().to_string(),
        files: writer.files().map(|path| path.display().to_string()).collect(),
        tensors: layout.tensors().len(),
        parameters: layout.parameters(),
        metadata,
        lost_to_rounding,
    }
}

/// The largest share of the merged delta's norm that rounding may take without a warning.
const MOST_LOST: f64 = 0.01;

/// Warns if rounding to narrow floats takes much of the merged delta. Returns the share of its norm that is lost.
pub fn warn_of_rounding(set: &UpdateSet, rounding: SquaredNorms) -> Option<f64> {
    let lost = share_lost(rounding)?;
    if lost > MOST_LOST {
        let narrow =
            set.layout.tensors().iter().map(|spec| spec.dtype).filter(|dtype| dtype.is_narrow_float());
        let names: BTreeSet<String> = narrow.map(|dtype| dtype.to_string()).collect();
        tracing::warn!(
            "rounding to {} loses {:.3} % of the merged delta's norm: pass --dtype f32 for a model that keeps it",
            names.into_iter().collect::<Vec<_>>().join(" and "),
            100.0 * lost
        );
    }
    Some(lost)
}

fn texts(warnings: &[Warning]) -> Vec<String> {
    warnings.iter().map(ToString::to_string).collect()
}

fn client_row(client: &Client) -> ClientRow {
    let examples = client.metadata.num_examples;
    let row = undecided_row(&client.id, &client.model.path, client.model.bytes(), examples);
    ClientRow { id_from: Some(client.named_by.name()), ..row }
}

/// The row of a client without a decision.
fn undecided_row(id: &str, file: &Path, bytes: u64, examples: Option<f64>) -> ClientRow {
    ClientRow {
        id: id.to_owned(),
        id_from: None,
        tier: None,
        file: file.display().to_string(),
        bytes,
        examples,
        weight: None,
        norm: None,
        score: None,
        influence: None,
        cluster: None,
        kept: false,
        reason: "no model was published".to_owned(),
    }
}

/// The clients whose updates are in other inputs.
fn member_rows(taken: &Taken) -> impl Iterator<Item = ClientRow> {
    taken.members.iter().map(|member| {
        let other = &taken.others[member.other];
        let bytes = other.model.as_ref().map_or(0, |model| model.bytes());
        undecided_row(&member.id, &other.path, bytes, None)
    })
}

fn rejected_row(update: &Update) -> RejectedRow {
    let errors: Vec<String> = update.faults.lines().collect();
    let error = errors.first().cloned().unwrap_or_default();
    RejectedRow { id: update.id.clone(), file: update.path.display().to_string(), error, errors }
}

fn step_row(step: &StepRecord, ids: &[&str]) -> StepRow {
    let client = |(i, found): (usize, &Option<BTreeMap<&'static str, f64>>)| {
        let found = found.clone()?;
        Some(StepClientRow { id: ids[i].to_owned(), left_out: step.left_out.contains(&i), found })
    };
    StepRow {
        step: step.step.clone(),
        updates: step.updates,
        clients: step.found.iter().enumerate().filter_map(client).collect(),
    }
}

fn shadow_row(rule: &str, shadow: &Result<Decision, RuleError>, ids: &[&str]) -> ShadowRow {
    let kept = shadow.as_ref().map(|decision| {
        let kept = decision.verdicts.iter().zip(ids).filter(|(verdict, _)| verdict.kept);
        kept.map(|(_, id)| (*id).to_owned()).collect()
    });
    ShadowRow {
        rule: rule.to_owned(),
        kept: kept.as_ref().ok().cloned(),
        scores: shadow.as_ref().ok().map(|decision| decision.verdicts.iter().map(|v| v.score).collect()),
        warnings: shadow.as_ref().map(|decision| texts(&decision.warnings)).unwrap_or_default(),
        error: shadow.as_ref().err().map(ToString::to_string),
    }
}

fn metrics_row(metrics: &RoundMetrics, sign_agreement: Option<f64>, overlap: Option<f64>) -> MetricsRow {
    let clusters = metrics.clusters.as_ref();
    MetricsRow {
        coherence: metrics.coherence,
        alignment: metrics.alignment,
        signal_fraction: metrics.signal_fraction,
        noise_scale: metrics.noise_scale,
        effective_rank: metrics.effective_rank,
        clusters: clusters.map(|clusters| clusters.count),
        cluster_silhouette: clusters.and_then(|clusters| clusters.silhouette),
        cosine_inside: clusters.and_then(|clusters| clusters.inside),
        cosine_between: clusters.and_then(|clusters| clusters.between),
        sign_agreement,
        support_overlap: overlap,
    }
}
