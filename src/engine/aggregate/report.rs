//! What the report and the merged file say of a merge.

use crate::engine::aggregate::assemble::Round;
use crate::engine::aggregate::request::OnBadUpdate;
use crate::engine::aggregate::session::Run;
use crate::engine::backend::choose::Chosen;
use crate::engine::decide::judge::Judgement;
use crate::engine::intake::admit::{Client, Update, UpdateSet};
use crate::engine::intake::fault::Fault;
use crate::engine::passes::geometry::Distances;
use crate::io::memory::peak_resident_bytes;
use crate::io::model_writer::ModelWriter;
use crate::modes::tree::NO_METRICS;
use crate::modes::tree::description::Member;
use crate::rules::metrics::RoundMetrics;
use crate::rules::pre::StepRecord;
use crate::rules::{Decision, RuleError, Warning};
use crate::settings::Definition;
use crate::strategies;
use crate::telemetry::report::{
    BackendChoice, ClientRow, InfluenceRow, MetricsRow, Output, RejectedRow, Report, SCHEMA, Settings,
    ShadowRow, StepClientRow, StepRow, StrategyRow, Timings, Tool,
};
use crate::updates::encoded::{sketch_metadata, sketched};
use crate::updates::metadata::{UPDATE_KEYS, UpdateKind};
use std::collections::BTreeMap;
use std::path::Path;

/// What a report says that tells of single clients beside a model that does not.
const NOT_PRIVATE: &str = "this report tells of single clients without noise: it is for the operator, and not covered by the budget";

impl Run {
    /// What the merged file says about itself: what the reference said, and how it was made. No times, no paths,
    /// no thread counts: the same round gives the same bytes.
    pub(crate) fn output_metadata(&self, round: &Round) -> BTreeMap<String, String> {
        let aggregation = &self.job.aggregation;
        let mut metadata = round.set.metadata.clone();
        metadata.retain(|key, _| !UPDATE_KEYS.contains(&key.as_str()) && !key.starts_with("fedmill"));
        metadata.insert("fedmill.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        metadata.insert("fedmill.rule".to_owned(), self.job.aggregation.rule.to_string());
        if !aggregation.pre.is_empty() {
            let steps: Vec<String> = aggregation.pre.iter().map(ToString::to_string).collect();
            metadata.insert("fedmill.pre".to_owned(), steps.join(" "));
            metadata.insert("fedmill.seed".to_owned(), aggregation.seed.to_string());
        }
        if aggregation.rule.definition() != Definition::Paper {
            metadata.insert("fedmill.definition".to_owned(), aggregation.rule.definition().to_string());
        }
        if let Some(byzantine) = round.byzantine {
            metadata.insert("fedmill.byzantine".to_owned(), byzantine.to_string());
        }
        if let Some(tiers) = &self.job.tiers {
            metadata.insert("fedmill.tiers".to_owned(), tiers.to_string());
            if tiers.tiers.iter().any(|tier| !tier.aggregation.pre.is_empty()) {
                metadata.insert("fedmill.seed".to_owned(), aggregation.seed.to_string());
            }
        }
        let personal = &self.job.expected.personal;
        if !personal.is_empty() {
            metadata.insert("fedmill.personal".to_owned(), personal.texts().join(" "));
        }
        self.strategy_metadata(round, &mut metadata);
        metadata.insert("fedmill.clients".to_owned(), round.cohort.clients.len().to_string());
        if self.job.aggregation.rule.uses_weights() {
            metadata.insert("fedmill.weights".to_owned(), round.weights_source.to_owned());
        }
        if round.set.merged_kind() == UpdateKind::Delta {
            metadata.insert("kind".to_owned(), UpdateKind::Delta.to_string());
        }
        let sketch = round.set.clients.first().and_then(|client| sketched(&client.model));
        metadata.extend(sketch.into_iter().flat_map(sketch_metadata));
        if let Some(release) = &self.release {
            // How many came is not for everybody.
            metadata.remove("fedmill.clients");
            metadata.remove("fedmill.weights");
            metadata.extend(release.marks.metadata());
        }
        metadata
    }

    /// What the merged file says of the strategy: what clients are to be told, and what tells the models of two rounds
    /// apart that hold the same values.
    fn strategy_metadata(&self, round: &Round, metadata: &mut BTreeMap<String, String>) {
        let strategy = &self.job.aggregation.strategy;
        let text = strategy.to_string();
        if text != strategies::plain().to_string() {
            metadata.insert("fedmill.strategy".to_owned(), text);
        }
        if strategy.definition() != Definition::Paper {
            metadata.insert("fedmill.definition".to_owned(), strategy.definition().to_string());
        }
        if round.keeping.is_some() && self.job.state.is_some() {
            metadata.insert("fedmill.steps".to_owned(), (round.steps() + 1).to_string());
        }
        metadata.extend(strategy.tells().into_iter().map(|(key, value)| (key.to_owned(), value)));
    }

    fn strategy_row(&self, round: &Round) -> StrategyRow {
        let strategy = &self.job.aggregation.strategy;
        let found = strategy.accounts(&round.cohort).into_iter().collect();
        StrategyRow {
            strategy: strategy.to_string(),
            definition: strategy.definition().to_string(),
            population: self.job.population,
            state: self.job.state.as_ref().map(|path| path.display().to_string()),
            steps: self.job.state.as_ref().map(|_| round.steps()),
            server_step: None,
            found,
        }
    }

    /// The report of a round that was judged; `norms` are those that merging found.
    pub(crate) fn report(&self, round: &Round, judgement: &Judgement, norms: Option<&[f64]>) -> Report {
        let decision = &judgement.decision;
        for warning in &decision.warnings {
            tracing::warn!("{warning}");
        }
        let mut report = self.report_rows(round);
        let norms = judgement.norms.as_deref().or(norms);
        for (i, (row, verdict)) in report.clients.iter_mut().zip(&decision.verdicts).enumerate() {
            row.weight = verdict.weight;
            row.score = verdict.score;
            row.kept = verdict.kept;
            row.reason.clone_from(&verdict.reason);
            row.norm = norms.and_then(|norms| norms.get(i).copied());
            row.influence = judgement.metrics.as_ref().map(|metrics| InfluenceRow {
                distance: metrics.influence[i].distance,
                angle: metrics.influence[i].angle,
            });
        }
        let ids: Vec<&str> = round.set.clients.iter().map(|client| client.id.as_str()).collect();
        report.settings.distances = judgement.distances.map(|distances| match distances {
            Distances::Auto | Distances::Gram => "gram",
            Distances::Direct => "direct",
        });
        report.pre = judgement.steps.iter().map(|step| step_row(step, &ids)).collect();
        report.shadow = judgement.shadows.iter().map(|(rule, made)| shadow_row(rule, made, &ids)).collect();
        report.metrics =
            judgement.metrics.as_ref().map(|metrics| metrics_row(metrics, judgement.sign_agreement));
        report.strategy.server_step = Some(judgement.server_step.to_string());
        report.warnings = texts(&decision.warnings);
        report.warnings.extend(self.release.as_ref().map(|_| NOT_PRIVATE.to_owned()));
        if !round.set.partials.is_empty() {
            report.clients.sort_by(|a, b| a.id.cmp(&b.id));
            report.warnings.push(NO_METRICS.to_owned());
        }
        report
    }

    /// The report as far as it is known without a decision.
    pub(crate) fn report_rows(&self, round: &Round) -> Report {
        let total_s = self.started.elapsed().as_secs_f64();
        let mut report = Report {
            schema: SCHEMA,
            tool: Tool { name: "fedmill", version: env!("CARGO_PKG_VERSION") },
            published: false,
            refused: None,
            settings: self.settings(round),
            backend: self.backend_row(),
            clients: round.set.clients.iter().map(client_row).chain(member_rows(&round.set)).collect(),
            rejected: round.rejected.iter().map(rejected_row).collect(),
            tiers: Vec::new(),
            strategy: self.strategy_row(round),
            pre: Vec::new(),
            shadow: Vec::new(),
            metrics: None,
            warnings: Vec::new(),
            output: None,
            bytes: self.bytes,
            timings: Timings { total_s, ..self.timings },
            peak_resident_bytes: peak_resident_bytes(),
        };
        self.tell_tiers(round, &mut report);
        report
    }

    fn backend_row(&self) -> BackendChoice {
        let chosen = self.chosen.as_ref();
        let device = chosen.and_then(|chosen| chosen.device.as_ref());
        BackendChoice {
            name: chosen.map_or("cpu", Chosen::name),
            instruction_set: self.job.isa.to_string(),
            adapter: device.map(|device| device.gpu().adapter().name.clone()),
            driver: device.map(|device| device.gpu().adapter().driver.clone()),
            why: chosen.map_or_else(String::new, |chosen| chosen.why.clone()),
        }
    }

    fn settings(&self, round: &Round) -> Settings {
        let aggregation = &self.job.aggregation;
        Settings {
            rule: aggregation.rule.to_string(),
            definition: aggregation.rule.definition().to_string(),
            pre: aggregation.pre.iter().map(ToString::to_string).collect(),
            byzantine: round.byzantine,
            seed: aggregation.seed,
            distances: None,
            weights: round.weights_source,
            base: self.job.base.as_ref().map(|path| path.display().to_string()),
            min_clients: self.job.min_clients,
            on_bad_update: match self.job.on_bad_update {
                OnBadUpdate::Fail => "fail",
                OnBadUpdate::Skip => "skip",
            },
            round: self.job.expected.round,
            personal: self.job.expected.personal.texts(),
            max_shard_size: self.job.max_shard_bytes,
            threads: self.threads,
        }
    }
}

/// What the report says of the merged model.
pub(crate) fn output(round: &Round, writer: &ModelWriter, metadata: BTreeMap<String, String>) -> Output {
    Output {
        path: writer.path().display().to_string(),
        files: writer.files().map(|path| path.display().to_string()).collect(),
        tensors: round.set.merged.layout.tensors().len(),
        parameters: round.set.merged.layout.parameters(),
        metadata,
    }
}

fn texts(warnings: &[Warning]) -> Vec<String> {
    warnings.iter().map(ToString::to_string).collect()
}

fn client_row(client: &Client) -> ClientRow {
    let examples = client.metadata.num_examples;
    undecided_row(&client.id, &client.model.path, client.model.bytes(), examples)
}

/// The row of a client of which nothing is decided yet.
fn undecided_row(id: &str, file: &Path, bytes: u64, examples: Option<f64>) -> ClientRow {
    ClientRow {
        id: id.to_owned(),
        tier: None,
        file: file.display().to_string(),
        bytes,
        examples,
        weight: None,
        norm: None,
        score: None,
        influence: None,
        kept: false,
        reason: "no model was published".to_owned(),
    }
}

/// The clients whose updates went into partials.
fn member_rows(set: &UpdateSet) -> impl Iterator<Item = ClientRow> {
    set.partials.iter().flat_map(|partial| {
        let bytes = partial.model.bytes();
        let row = move |member: &Member| undecided_row(&member.id, &partial.path, bytes, None);
        partial.description.clients.iter().map(row)
    })
}

fn rejected_row(update: &Update) -> RejectedRow {
    let errors: Vec<String> = update.faults.iter().map(Fault::to_string).collect();
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

fn shadow_row(rule: &str, made: &Result<Decision, RuleError>, ids: &[&str]) -> ShadowRow {
    let kept = made.as_ref().map(|decision| {
        let kept = decision.verdicts.iter().zip(ids).filter(|(verdict, _)| verdict.kept);
        kept.map(|(_, id)| (*id).to_owned()).collect()
    });
    ShadowRow {
        rule: rule.to_owned(),
        kept: kept.as_ref().ok().cloned(),
        scores: made.as_ref().ok().map(|decision| decision.verdicts.iter().map(|v| v.score).collect()),
        warnings: made.as_ref().map(|decision| texts(&decision.warnings)).unwrap_or_default(),
        error: made.as_ref().err().map(ToString::to_string),
    }
}

fn metrics_row(metrics: &RoundMetrics, sign_agreement: Option<f64>) -> MetricsRow {
    MetricsRow {
        coherence: metrics.coherence,
        alignment: metrics.alignment,
        signal_fraction: metrics.signal_fraction,
        noise_scale: metrics.noise_scale,
        effective_rank: metrics.effective_rank,
        sign_agreement,
    }
}
