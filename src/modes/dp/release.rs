//! A run under a budget: clip, verify, charge, add up with noise, publish, record.
//!
//! ```text
//! updates --pass 1--> clips, digests --> charge, on disk --> key --pass 2--> noised mean, verified --> server step
//! ```
//!
//! Nothing that a client sends changes how another client counts. A bad update counts as zero. Updates that claim the
//! same client id all count as zero: the server cannot tell which is genuine. The layout, the denominator and the
//! number of coordinates come from the base and the plan.

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
use crate::engine::intake::claims::OnDuplicateContent;
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

/// The options of a release under a budget.
#[derive(Clone, Debug)]
pub struct Options {
    /// The state directory of the budget.
    pub directory: PathBuf,
    /// Whether the run keeps the noise key until the output is published, so that the operator can repeat a crashed
    /// run.
    pub resumable: bool,
    /// A seed for the noise, for tests: the output is then NOT private. `None` for secret noise.
    pub test_seed: Option<u64>,
    /// Sum files of edges. The server trusts the edges to have clipped the updates.
    pub sums: Vec<PathBuf>,
}

impl Options {
    /// The default options for the budget in a state directory.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory, resumable: false, test_seed: None, sums: Vec::new() }
    }
}

/// Strategies whose step depends on the merged delta and their own state alone.
const STEPS_AFTER_NOISE: [&str; 6] = ["fedavg", "fedprox", "fedavgm", "fedadam", "fedyogi", "fedadagrad"];

/// The warning in the report of a released model.
const NOT_PRIVATE: &str =
    "this report describes single clients without noise: the budget does not cover it, keep it private";

/// Refuses options that could reveal single clients.
///
/// # Errors
///
/// The first such option of the request.
pub(super) fn check(request: &Request) -> Result<(), Unsupported> {
    let refuse = |option: String, why: &str, hint| {
        Err(Unsupported { option, mode: Some("--dp"), why: why.to_owned(), hint: Some(hint) })
    };
    let method = &request.method;
    let rule = method.rule.to_string();
    if rule != "mean" {
        let why = "its choice and weights of updates depend on other clients, so one client more or less changes the sum by \
                   more than that client's bound";
        let hint = "use mean: every update is clipped before it is added";
        return refuse(format!("--rule {rule}"), why, hint);
    }
    let mean_only = "use mean alone";
    if let Some(step) = method.pre.first() {
        let why = "its result for one update depends on the others";
        return refuse(format!("--pre {step}"), why, mean_only);
    }
    let measured = [MetricsRequest::Geometry, MetricsRequest::GeometryAndSigns];
    if !request.reporting.shadow.is_empty() || measured.contains(&request.reporting.metrics) {
        let why = "it describes single clients without noise";
        return refuse("--shadow-rules or --metrics".to_owned(), why, "leave it out");
    }
    let strategy = &method.strategy;
    if !STEPS_AFTER_NOISE.contains(&strategy.name()) {
        let why = "it needs reports of single clients";
        let hint = "fedavg, fedprox, fedavgm, fedadam, fedyogi and fedadagrad step after the noise";
        return refuse(format!("--strategy {strategy}"), why, hint);
    }
    if request.policy.min_clients > 1 {
        let why = "a missing model would reveal the number of clients";
        let hint = "leave it out: a round without clients is noise alone";
        return refuse("--min-clients".to_owned(), why, hint);
    }
    if request.policy.claims.on_duplicate_content == OnDuplicateContent::Reject {
        let why = "whether a client counts would depend on the content of another";
        return refuse(
            "--on-duplicate-content reject".to_owned(),
            why,
            "leave it out: the run warns of copies",
        );
    }
    if request.backend.name == BackendName::Gpu {
        return refuse("--backend gpu".to_owned(), "sums are made on the CPU", "use auto or cpu");
    }
    Ok(())
}

/// Opens a session that accepts any number of clients, so that it does not reveal the number.
///
/// # Errors
///
/// When the base is missing or cannot be used, or an output cannot be written.
pub(super) fn open<'m>(mut request: Request, machine: Machine<'m>) -> Result<Session<'m>, Error> {
    request.inputs = Inputs { may_be_empty: true, ..request.inputs };
    Session::open(request, machine)
}

/// Releases a model, if the budget allows it. Returns the report.
///
/// # Errors
///
/// When the input is bad, the budget does not allow the release, or a file cannot be written. Nothing is published then.
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
        tracing::warn!("--test-seed: the seed of the noise is known, so the model is NOT private");
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

/// The refusal of a release. Its report is not published: it names the clients.
fn refused(session: &Session, taken: &Taken, why: String) -> Error {
    Error::Refused(Box::new(Report { refused: Some(why), ..report::without_judgement(session, taken) }))
}

/// Refuses a base with the stamp of a release that the ledger does not know.
fn check_base(session: &Session, account: &Account) -> Result<(), Error> {
    let Some(base) = &session.base else {
        return Err(Unsupported {
            option: "no --base".to_owned(),
            mode: Some("--dp"),
            why: "expected --base MODEL".to_owned(),
            hint: Some("under --dp the base decides the layout, so that no client can choose it"),
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

/// The digest of everything that the output depends on, except the key.
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

/// Writes the report of a release that exists already: an earlier run may have crashed before it wrote its report.
fn report_existing(session: &Session, taken: &Taken, release: &ExistingRelease) -> Result<Report, Error> {
    // The path as the user wrote it.
    let path = session.request.outputs.model.with_file_name(release.path.file_name().unwrap_or_default());
    tracing::warn!(
        "{} is already the release {} of these updates: nothing is charged",
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
        lost_to_rounding: None,
    }
}

/// A release that the budget has paid for.
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

    /// The judgement that every client has the same weight, and the server's step.
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

    /// Removes the number of clients from the metadata, since the model may be public.
    fn describe(&self, _: &Taken, metadata: &mut BTreeMap<String, String>) {
        metadata.remove("fedmill.clients");
        metadata.remove("fedmill.weights");
        metadata.extend(self.stamp.metadata());
    }

    fn report(&self, _: &Taken, report: &mut Report) {
        report.warnings.push(NOT_PRIVATE.to_owned());
    }
}
