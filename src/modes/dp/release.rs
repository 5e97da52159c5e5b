//! A run under a budget: clip, verify, charge, add up with noise, publish, record.
//!
//! ```text
//! updates --pass 1--> clips, digests --> charge, on disk --> key --pass 2--> noised mean, verified --> server step
//! ```
//!
//! Nothing that a client sends changes how another client counts. A bad update counts as zero. Updates that claim the same
//! client id all count as zero: the server cannot tell which is genuine. The layout, the denominator and the number of
//! coordinates come from the base and the plan.

use crate::budget::account::Account;
use crate::budget::charge;
use crate::budget::request::{self, Answer, ExistingRelease, Grant};
use crate::budget::stamp::Stamp;
use crate::engine::aggregate::error::{Error, Stopped, Unsupported};
use crate::engine::aggregate::mode::Mode;
use crate::engine::aggregate::request::{Inputs, Request};
use crate::engine::aggregate::run::merge_and_publish;
use crate::engine::aggregate::session::Session;
use crate::engine::aggregate::{publish, report};
use crate::engine::backend::request::BackendName;
use crate::engine::decide::judge::Judgement;
use crate::engine::decide::method::MetricsRequest;
use crate::engine::intake::taken::Taken;
use crate::engine::passes::combine::reducer::Reducer;
use crate::engine::passes::machine::Machine;
use crate::io::digest::Blake3;
use crate::io::model_file::ModelFile;
use crate::model::layout::Layout;
use crate::modes::dp::clipped::{ClientClips, Clipped};
use crate::modes::dp::error::DpError;
use crate::modes::dp::noised_sum::NoisedSum;
use crate::modes::dp::sum_file::SumFile;
use crate::modes::dp::{CPU_ONLY, adaptive_clip, noise};
use crate::privacy::clipping::Treatment;
use crate::privacy::ledger::plan::ClipBound;
use crate::record::sha256::Sha256;
use crate::rules::Verdict;
use crate::strategies::{StepInput, StrategyError};
use crate::telemetry::report::{Output, Report};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// How a run is released under a budget.
#[derive(Clone, Debug)]
pub struct Options {
    /// The state directory of the budget.
    pub directory: PathBuf,
    /// Whether the key is kept until the output is published, so that a run that is cut off can be made again.
    pub resumable: bool,
    /// Makes the noise from this number, for tests: the output is NOT private.
    pub test_seed: Option<u64>,
    /// Sums of other clients' updates, made by edges that are trusted to have clipped them.
    pub sums: Vec<PathBuf>,
}

impl Options {
    /// A release under the budget in a state directory.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory, resumable: false, test_seed: None, sums: Vec::new() }
    }
}

/// Strategies whose step depends on the merged delta and their own state alone.
const STEPS_AFTER_NOISE: [&str; 6] = ["fedavg", "fedprox", "fedavgm", "fedadam", "fedyogi", "fedadagrad"];

/// A warning of a report beside a released model.
const NOT_PRIVATE: &str = "this report tells of single clients without noise: it is for the operator, and not covered by the budget";

/// Refuses what has no meaning where single clients must not show.
///
/// # Errors
///
/// The first such option.
pub(super) fn check(request: &Request) -> Result<(), Unsupported> {
    let refuse = |option: String, why: &str, hint| {
        Err(Unsupported { option, mode: Some("--dp"), why: why.to_owned(), hint: Some(hint) })
    };
    let method = &request.method;
    let rule = method.rule.to_string();
    if rule != "mean" {
        let why = "which updates it keeps, or how it weighs them, depends on other clients, so the sum changes by more \
                   than one client's bound when one comes or goes";
        let hint = "use mean: every update is clipped before it is added";
        return refuse(format!("--rule {rule}"), why, hint);
    }
    let mean_only = "use mean alone";
    if let Some(step) = method.pre.first() {
        let why = "what it makes of one update depends on the others";
        return refuse(format!("--pre {step}"), why, mean_only);
    }
    let asked = [MetricsRequest::Geometry, MetricsRequest::GeometryAndSigns];
    if !request.reporting.shadow.is_empty() || asked.contains(&request.reporting.metrics) {
        let why = "what it tells of single clients is released without noise";
        return refuse("--shadow-rules or --metrics".to_owned(), why, "leave it out");
    }
    let strategy = &method.strategy;
    if !STEPS_AFTER_NOISE.contains(&strategy.name()) {
        let why = "it needs what single clients report";
        let hint = "fedavg, fedprox, fedavgm, fedadam, fedyogi and fedadagrad step after the noise";
        return refuse(format!("--strategy {strategy}"), why, hint);
    }
    if request.policy.min_clients > 1 {
        let why = "whether there is a model would tell how many came";
        let hint = "leave it out: a round without clients is noise alone";
        return refuse("--min-clients".to_owned(), why, hint);
    }
    if request.backend.name == BackendName::Gpu {
        return refuse("--backend gpu".to_owned(), "sums are made on the CPU", "use auto or cpu");
    }
    Ok(())
}

/// Opens a session whose clients must not show, not even by their absence.
///
/// # Errors
///
/// When the base is missing or cannot be used, or an output cannot be written.
pub(super) fn open<'m>(mut request: Request, machine: Machine<'m>) -> Result<Session<'m>, Error> {
    request.inputs = Inputs { may_be_empty: true, ..request.inputs };
    Session::open(request, machine)
}

/// Releases a run, if its budget holds it. Returns the report.
///
/// # Errors
///
/// When the input is bad, the budget does not hold the run, or the disk refuses; no model is published then.
pub fn run(request: Request, options: &Options, machine: Machine) -> Result<Report, Error> {
    let mut session = open(request, machine)?;
    let report = release(&mut session, options)?;
    session.machine.progress.finish();
    Ok(report)
}

fn release(session: &mut Session, options: &Options) -> Result<Report, Error> {
    let mut account = Account::open(&options.directory).map_err(DpError::of)?;
    check_base(session, &account)?;
    let clipped = Clipped::of(session, options, account.books())?;
    let request = charge_request(session, options, &clipped)?;
    if options.test_seed.is_some() {
        tracing::warn!("--test-seed: the noise comes from a number that is known: the model is NOT private");
    }
    let grant = match charge::charge(&mut account, &request).map_err(DpError::of)? {
        Answer::Granted(grant) => grant,
        Answer::Existing(release) => return report_existing(session, &clipped.taken, &release),
        Answer::Refused(verdict) => {
            return Err(refused(session, &clipped.taken, format!("over the privacy budget: {verdict}")));
        }
        Answer::WrongRound(why) => return Err(refused(session, &clipped.taken, why.to_string())),
    };
    let (mode, taken) = Release::new(session, &account, &grant, clipped)?;
    session.backend_why = Some(CPU_ONLY.to_owned());
    let judgement = mode.judgement(session, &taken)?;
    let report = merge_and_publish(session, &mode, &taken, &judgement).map_err(|why| match why {
        Stopped::Error(why) => why,
        Stopped::BadUpdates(found) => {
            let client = found.first().map_or(0, |(client, _)| *client);
            DpError::of(DpError::Longer { path: taken.set.clients[client].model.path.clone() })
        }
    })?;
    let output = report.output.as_ref().map(|output| PathBuf::from(&output.path));
    let output = output.unwrap_or_else(|| session.request.outputs.model.clone());
    charge::release(&mut account, grant, &output, mode.stamp.next_clip).map_err(DpError::of)?;
    Ok(report)
}

/// The refusal of a run under a budget. Its report is not published: it tells who came.
fn refused(session: &Session, taken: &Taken, why: String) -> Error {
    Error::Refused(Box::new(Report { refused: Some(why), ..report::without_judgement(session, taken) }))
}

/// A base that was released under a budget must be known to the ledger.
fn check_base(session: &Session, account: &Account) -> Result<(), Error> {
    let Some(base) = &session.base else {
        return Err(Unsupported {
            option: "no --base".to_owned(),
            mode: Some("--dp"),
            why: "expected --base MODEL".to_owned(),
            hint: Some("the model that updates started from tells their layout, which no client may choose"),
        }
        .into());
    };
    let (path, metadata) = (&base.model.path, &base.model.metadata);
    let stamp = Stamp::of(path, metadata).map_err(DpError::of)?;
    stamp.map_or(Ok(()), |stamp| account.check_base(path, &stamp)).map_err(DpError::of)
}

fn charge_request(
    session: &Session,
    options: &Options,
    clipped: &Clipped,
) -> Result<request::Request, Error> {
    Ok(request::Request {
        round: session.request.policy.round,
        dimension: clipped.dimension,
        clients: clipped.taken.set.clients.iter().map(|client| client.id.clone()).collect(),
        summed: clipped.edges.iter().flat_map(SumFile::clients).cloned().collect(),
        inputs_sha256: session.machine.pool.install(|| inputs(session, clipped))?,
        output: session.request.outputs.model.clone(),
        resumable: options.resumable,
        test_seed: options.test_seed,
    })
}

/// The digest of all that the output depends on, but the key.
fn inputs(session: &Session, clipped: &Clipped) -> Result<Sha256, Error> {
    let set = &clipped.taken.set;
    let mut all = String::new();
    let mut add = |text: &str| all.extend([&text.len().to_string(), ":", text]);
    add(env!("CARGO_PKG_VERSION"));
    add(&session.request.method.strategy.to_string());
    add(session.base_digest()?.unwrap_or_default());
    let digest = |model: &ModelFile| {
        let unread = |source| Error::Read { path: model.path.clone(), source };
        Blake3::of(&model.files).map_err(unread)
    };
    if let Some(state) = set.carried.sources.values().next() {
        add(&digest(&state.model)?);
    }
    for (client, clip) in set.clients.iter().zip(&clipped.clips.0) {
        add(&client.id);
        add(&client.metadata.kind.to_string());
        add(&clip.digest);
    }
    for edge in &clipped.edges {
        add(&digest(&edge.model)?);
    }
    Ok(Sha256::of(all))
}

/// Reports a release that stands there already: the run that made it may have been cut off before its report was written.
fn report_existing(session: &Session, taken: &Taken, release: &ExistingRelease) -> Result<Report, Error> {
    // As the user calls it.
    let path = session.request.outputs.model.with_file_name(release.path.file_name().unwrap_or_default());
    tracing::warn!(
        "{} is the release {} of these updates already: nothing is spent",
        path.display(),
        release.release_id
    );
    let output = existing_output(&path, &taken.set.merged.layout);
    let report =
        Report { published: true, output: Some(output), ..report::without_judgement(session, taken) };
    publish::publish_report(publish::stage_report(session, &report)?)?;
    Ok(report)
}

fn existing_output(path: &Path, layout: &Layout) -> Output {
    Output {
        path: path.display().to_string(),
        files: Vec::new(),
        tensors: layout.tensors().len(),
        parameters: layout.parameters(),
        metadata: BTreeMap::new(),
    }
}

/// A release that is paid for.
struct Release {
    sum: NoisedSum,
    stamp: Stamp,
    clips: ClientClips,
}

impl Release {
    fn new(
        session: &Session,
        account: &Account,
        grant: &Grant,
        clipped: Clipped,
    ) -> Result<(Self, Taken), Error> {
        let Clipped { taken, terms, grid, mut clips, edges, .. } = clipped;
        clips.leave_out(&taken.set, &grant.counted);
        let next_clip = match account.plan().clip {
            ClipBound::Adaptive(adaptive) => {
                let noise = noise::of_count(session.machine.isa, &grant.key, terms.level);
                let below = clips.below(terms.clip, &edges);
                let clip = (terms.clip, terms.denominator);
                Some(adaptive_clip::next_clip(&adaptive, clip, terms.level, below, noise))
            }
            ClipBound::Fixed(_) => None,
        };
        let layout = taken.set.layout.clone();
        let (isa, pool) = (session.machine.isa, session.machine.pool);
        let noise =
            noise::of_grant(account, grant, layout.parameters() as u64, isa, pool).map_err(DpError::of)?;
        let paths = clips.counting(&taken.set).map(|client| client.model.path.clone()).collect();
        let sum = NoisedSum::new(clips.sum(grid, edges), noise, terms.denominator, layout, paths);
        Ok((Self { sum, stamp: grant.stamp(next_clip), clips }, taken))
    }

    /// The verdict that every client counts alike, and how the server steps.
    fn judgement(&self, session: &Session, taken: &Taken) -> Result<Judgement, StrategyError> {
        let steps = taken.set.carried.steps;
        let decided = StepInput { steps, coefficients: None, geometry: None, rule: "mean" };
        let verdicts = self.clips.0.iter().map(|found| {
            let reason = match found.clip.treatment {
                Treatment::Whole => "added to the noised sum",
                Treatment::Clipped => "clipped, and added to the noised sum",
                Treatment::Void => "counts as zero",
            };
            let kept = found.clip.treatment != Treatment::Void;
            Verdict { kept, weight: None, score: None, reason: reason.to_owned() }
        });
        let step = session.request.method.strategy.step(&decided)?;
        Ok(Judgement {
            norms: Some(self.clips.0.iter().map(|found| found.norm).collect()),
            screened: true,
            ..Judgement::without_geometry(verdicts.collect(), step)
        })
    }
}

impl Mode for Release {
    fn judge(&mut self, session: &mut Session, taken: &Taken) -> Result<Judgement, Stopped> {
        Ok(self.judgement(session, taken)?)
    }

    fn reducer<'t>(&'t self, _: &'t Taken, _: &'t Judgement, _: bool) -> Box<dyn Reducer + 't> {
        Box::new(&self.sum)
    }

    /// How many clients came is not for everybody.
    fn describe(&self, _: &Taken, metadata: &mut BTreeMap<String, String>) {
        metadata.remove("fedmill.clients");
        metadata.remove("fedmill.weights");
        metadata.extend(self.stamp.metadata());
    }

    fn report(&self, _: &Taken, report: &mut Report) {
        report.warnings.push(NOT_PRIVATE.to_owned());
    }
}
