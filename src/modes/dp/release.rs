//! A run under a budget: clip, add up, verify, reserve room, charge, add noise, publish, record.
//!
//! ```text
//! updates --pass 1--> clips, digests --pass 2--> sum, verified --> charge, on disk --> key --> noised mean --> server step
//! ```
//!
//! Nothing that a client does can waste a charge: after it, the run reads only the sum, the base and the state.
//!
//! Nothing that a client sends changes how another client counts. A bad update counts as zero. Updates that claim the
//! same client id all count as zero: the server cannot tell which is genuine. The layout, the denominator and the
//! number of coordinates come from the base and the plan.

use crate::budget::account::Account;
use crate::budget::charge;
use crate::budget::directory::Directory;
use crate::budget::error::BudgetError;
use crate::budget::kept::KeptOutputs;
use crate::budget::request::{self, Answer, ExistingRelease, Grant};
use crate::budget::stamp::Stamp;
use crate::engine::aggregate::error::{Error, Stopped, Unsupported};
use crate::engine::aggregate::mode::Mode;
use crate::engine::aggregate::outputs::check_outside;
use crate::engine::aggregate::publish::{Complete, Kept};
use crate::engine::aggregate::request::{Inputs, Readers, Request};
use crate::engine::aggregate::run::{merge_staged, stage};
use crate::engine::aggregate::session::Session;
use crate::engine::aggregate::{metadata, report};
use crate::engine::decide::judge::Judgement;
use crate::engine::decide::method::MetricsRequest;
use crate::engine::intake::claims::OnDuplicateContent;
use crate::engine::intake::policy::OnBadUpdate;
use crate::engine::intake::taken::Taken;
use crate::engine::passes::combine::reducer::Reducer;
use crate::engine::passes::error::PassError;
use crate::engine::passes::machine::Machine;
use crate::io::collision::target::is_stream;
use crate::io::digest::Blake3;
use crate::io::interrupt::Section;
use crate::io::model_file::ModelFile;
use crate::kernels::server_step::ServerStep;
use crate::modes::dp::checks::{check_base, check_cohort};
use crate::modes::dp::clipped::{ClientClips, Clipped, check_operators_files};
use crate::modes::dp::error::DpError;
use crate::modes::dp::noised_sum::{NoisedSum, SumOnDisk};
use crate::modes::dp::reports::{at_target, existing_report, report_existing, without_clients};
use crate::modes::dp::statistics::DpStatistics;
use crate::modes::dp::sum_file::SumFile;
use crate::modes::dp::{adaptive_clip, noise, noise_on_gpu, range};
use crate::privacy::clipping::Treatment;
use crate::privacy::ledger::plan::ClipBound;
use crate::record::Head;
use crate::record::sha256::Sha256;
use crate::rules::Verdict;
use crate::telemetry::report::Report;
use crate::updates::metadata::PRIVACY_PREFIX;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The options of a release under a budget.
#[derive(Clone, Debug)]
pub struct Options {
    /// The state directory of the budget.
    pub directory: PathBuf,
    /// A seed for the noise, for tests: the output is then NOT private. `None` for secret noise.
    pub test_seed: Option<u64>,
    /// Whether the report describes single clients.
    pub report_clients: bool,
    /// Whether the round may release noise alone, without any client.
    pub allow_empty: bool,
    /// Whether to release the same inputs once more, with other noise and at full cost.
    pub release_again: bool,
    /// Sum files of edges. The server trusts the edges to have clipped the updates.
    pub sums: Vec<PathBuf>,
    /// What the release does with statistics.
    pub statistics: DpStatistics,
}

impl Options {
    /// The default options for the budget in a state directory.
    pub fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            test_seed: None,
            report_clients: false,
            allow_empty: false,
            release_again: false,
            sums: Vec::new(),
            statistics: DpStatistics::default(),
        }
    }
}

/// Strategies whose step depends on the merged delta and their own state alone.
pub const STEPS_AFTER_NOISE: [&str; 6] = ["fedavg", "fedprox", "fedavgm", "fedadam", "fedyogi", "fedadagrad"];

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
    if let Some(share) = method.byzantine.as_ref().filter(|share| share.to_string() != "0") {
        let why = "the noised mean leaves out no hostile client: the clip bounds each";
        return refuse(format!("--byzantine {share}"), why, "leave it out");
    }
    if request.policy.least_clients() > 1 {
        let why = "a missing model would reveal the number of clients";
        let hint = "leave it out; a round in which no client counts is refused unless --allow-empty is given";
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
    if request.outputs.plot.is_some() {
        return refuse("--plot".to_owned(), "it shows single clients without noise", "leave it out");
    }
    if let Some(report) = request.outputs.report.as_ref().filter(|report| is_stream(report)) {
        let why = "the budget does not cover the report, so fedmill writes it as a file that only its owner may read, and \
                   keeps it with the model if a run ends between charge and publication: a stream can do neither";
        return refuse(format!("--report {}", report.display()), why, "name a file");
    }
    Ok(())
}

/// Opens a session that accepts any number of clients, so that it does not reveal the number.
///
/// # Errors
///
/// When the base is missing or cannot be used, or an output cannot be written or is in the state directory.
pub(super) fn open<'m>(
    mut request: Request,
    options: &Options,
    machine: Machine<'m>,
) -> Result<Session<'m>, Error> {
    check_outside(&request.outputs, &options.directory)?;
    request.inputs = Inputs { may_be_empty: true, ..request.inputs };
    // A stop would reveal a bad update: it counts as zero, whatever --on-bad-update says.
    request.policy.on_bad_update = OnBadUpdate::Skip;
    Session::open(request, machine)
}

/// Releases a model, if the budget allows it. Returns the report.
///
/// # Errors
///
/// When the input is bad, the budget does not allow the release, or a file cannot be written. Nothing is published
/// then.
pub fn run(mut request: Request, options: &Options, machine: Machine) -> Result<Report, Error> {
    request.outputs.readers = Readers::Owner { of_clients: options.report_clients };
    let mut session = open(request, options, machine)?;
    let report = release(&mut session, options)?;
    session.machine.progress.finish();
    Ok(report)
}

fn release(session: &mut Session, options: &Options) -> Result<Report, Error> {
    let mut account = Account::open(&options.directory).map_err(DpError::of)?;
    check_base(session, options, &account)?;
    account.books().check_output(&session.request.outputs.model).map_err(DpError::of)?;
    let mut clipped = Clipped::of(session, options, account.books())?;
    if let Some(why) = charge::wrong_round(&account, session.request.policy.round) {
        return Err(refused(session, options, &clipped.taken, why.to_string()));
    }
    clipped.leave_out(account.books(), session.request.policy.round)?;
    let request = charge_request(session, options, &clipped)?;
    if let Some(release) = publish_kept(&mut account, &request)? {
        let path = at_target(&session.request.outputs.model, &release)?;
        return Ok(existing_report(session, options.report_clients, &clipped.taken, &path));
    }
    if let Some(answer) = charge::foresee(&mut account, &request).map_err(DpError::of)?
        && let Err(ended) = granted(session, options, &clipped.taken, answer)?
    {
        return Ok(ended);
    }
    let sum = add_up(session, &account, &mut clipped)?;
    check_cohort(session, options, &account, &clipped)?;
    // Clients that changed meanwhile count as zero.
    let mut request = charge_request(session, options, &clipped)?;
    let step = range::check(session, account.plan(), &clipped)?;
    let staging = stage(session, &clipped.taken, longest_metadata(session, &account, &clipped.taken))?;
    staging.check_kept_names()?;
    request.staged = staging.names();
    if options.test_seed.is_some() {
        tracing::warn!("--test-seed: the seed of the noise is known, so the model is NOT private");
    }
    let answer = charge::charge(&mut account, &request).map_err(DpError::of)?;
    let grant = match granted(session, options, &clipped.taken, answer)? {
        Ok(grant) => grant,
        Err(ended) => return Ok(ended),
    };
    let (mode, taken) = Release::new(session, options, (&account, &grant), clipped, sum)?;
    let judgement = mode.judgement(step);
    let report = merge_staged(session, &mode, &taken, &judgement, staging).map_err(|why| match why {
        Stopped::Error(why) => why,
        // The run reads no client any more.
        Stopped::BadUpdates(_) => PassError::NonFinite.into(),
    })?;
    let output = report.output.as_ref().map(|output| PathBuf::from(&output.path));
    let output = output.unwrap_or_else(|| session.request.outputs.model.clone());
    warn_unless_recorded(charge::release(&mut account, grant, &output, mode.stamp.next_clip), &output)?;
    Ok(report)
}

/// Warns of a release whose record cannot be written: its model is published, and its charge, which the ledger has,
/// counts.
fn warn_unless_recorded(recorded: Result<Head, BudgetError>, model: &Path) -> Result<(), Error> {
    match recorded {
        // Another program changed the model meanwhile.
        Err(why @ BudgetError::NotOpen { .. }) => Err(DpError::of(why)),
        Err(why) => {
            tracing::warn!(
                hint = "the same command again writes the record, and costs nothing",
                "{}: is published and paid for, and the ledger has no record of the release: {why}",
                model.display()
            );
            Ok(())
        }
        Ok(_) => Ok(()),
    }
}

/// Gives outputs their names that an earlier run of this request completed and could not publish. Their charge is paid.
fn publish_kept(account: &mut Account, request: &request::Request) -> Result<Option<ExistingRelease>, Error> {
    let Some((charge, kept)) = charge::kept(account, request).map_err(DpError::of)? else { return Ok(None) };
    let outputs: Kept = serde_json::from_value(kept.outputs.unwrap_or_default()).map_err(Error::Report)?;
    tracing::warn!(
        "an earlier run of this round completed its outputs as release {}, and could not publish them: nothing is charged",
        charge.charge.release_id
    );
    account.books().check_recorded(outputs.targets(), Some(charge.head.seq)).map_err(DpError::of)?;
    outputs.publish()?;
    warn_unless_recorded(account.adopt(charge.head.seq, Some(outputs.path())), outputs.path())?;
    Ok(Some(ExistingRelease {
        path: outputs.path().to_owned(),
        release_id: charge.charge.release_id.clone(),
    }))
}

/// The grant of an answer; or the report of a run that has nothing to do.
fn granted(
    session: &Session,
    options: &Options,
    taken: &Taken,
    answer: Answer,
) -> Result<Result<Grant, Report>, Error> {
    match answer {
        Answer::Granted(grant) => Ok(Ok(grant)),
        Answer::Existing(release) => {
            report_existing(session, options.report_clients, taken, &release).map(Err)
        }
        Answer::PaidBefore(paid) => Err(reported(session, options, taken, DpError::of(paid))),
        Answer::Refused(verdict) => {
            Err(refused(session, options, taken, format!("over the privacy budget: {verdict}")))
        }
        Answer::WrongRound(why) => Err(refused(session, options, taken, why.to_string())),
    }
}

/// The sum of the clients that count, on disk and verified.
fn add_up(session: &Session, account: &Account, clipped: &mut Clipped) -> Result<SumOnDisk, Error> {
    let coordinates = clipped.taken.set.layout.parameters();
    let sum = SumOnDisk::create(&account.books().directory, coordinates).map_err(DpError::of)?;
    clipped.add_up(session, &|tile, integers| sum.write(tile, integers))?;
    clipped.check_unchanged()?;
    Ok(sum)
}

/// Metadata as long as those of the release may become, to reserve their room.
fn longest_metadata(session: &Session, account: &Account, taken: &Taken) -> BTreeMap<String, String> {
    let mut metadata = metadata::of(session, taken);
    describe(&mut metadata, &Stamp::longest(account.state()));
    metadata
}

/// Removes the number of clients from the metadata, since the model may be public, and adds the stamp.
fn describe(metadata: &mut BTreeMap<String, String>, stamp: &Stamp) {
    metadata.remove("fedmill.clients");
    metadata.remove("fedmill.weights");
    // This release names its own charge. Its base was checked.
    metadata.retain(|key, _| !key.starts_with(PRIVACY_PREFIX));
    metadata.extend(stamp.metadata());
}

/// The refusal of a release.
pub(super) fn refused(session: &Session, options: &Options, taken: &Taken, why: String) -> Error {
    reported(session, options, taken, Error::Refused(why))
}

/// An error with the report so far.
fn reported(session: &Session, options: &Options, taken: &Taken, why: Error) -> Error {
    let mut report = report::without_judgement(session, taken);
    without_clients(&mut report, options.report_clients);
    Error::Reported { source: Box::new(why), report: Box::new(report) }
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
        counting: clipped.counting(),
        inputs_sha256: session.machine.pool.install(|| inputs(session, clipped))?,
        output: session.request.outputs.model.clone(),
        state: session.request.outputs.state.clone(),
        staged: Vec::new(),
        release_again: options.release_again,
        test_seed: options.test_seed,
    })
}

/// The digest of everything that the output depends on, except the key. A client that counts as zero is no part of it.
fn inputs(session: &Session, clipped: &Clipped) -> Result<Sha256, Error> {
    let set = &clipped.taken.set;
    let mut all = String::new();
    let mut add = |text: &str| all.extend([&text.len().to_string(), ":", text]);
    add(env!("CARGO_PKG_VERSION"));
    add(&session.request.method.strategy.to_string());
    add(session.base_digest()?.unwrap_or_default());
    add(&clipped.sum_terms.statistics.to_string());
    let digest = |model: &ModelFile| {
        let unread = |source| Error::Read { path: model.path.clone(), source };
        Blake3::of(&model.files).map_err(unread)
    };
    if let Some(state) = set.carried.sources.values().next() {
        add(&digest(&state.model)?);
    }
    for (client, clip) in clipped.clips.of_counting(set) {
        add(&client.id);
        add(&client.metadata.kind.to_string());
        add(&clip.digest);
    }
    for edge in &clipped.edges {
        add(&digest(&edge.model)?);
    }
    Ok(Sha256::of(all))
}

/// A release that the budget has paid for.
struct Release {
    sum: NoisedSum,
    stamp: Stamp,
    clips: ClientClips,
    report_clients: bool,
    directory: Directory,
}

impl Release {
    fn new(
        session: &Session,
        options: &Options,
        (account, grant): (&Account, &Grant),
        clipped: Clipped,
        sum: SumOnDisk,
    ) -> Result<(Self, Taken), Error> {
        let Clipped { taken, terms, sum_terms, grid, clips, edges, .. } = clipped;
        let next_clip = match account.plan().clip {
            ClipBound::Adaptive(adaptive) => {
                let noise = noise::of_count(session.machine.isa, &grant.key, terms.level);
                let below = clips.below(terms.clip, &edges);
                let clip = (terms.clip, terms.denominator);
                Some(adaptive_clip::next_clip(&adaptive, clip, terms.level, below, noise))
            }
            ClipBound::Fixed(_) => None,
        };
        let coordinates = taken.set.layout.parameters() as u64;
        let noise = noise::of_grant(account, grant, coordinates, &session.machine).map_err(DpError::of)?;
        let clipped = sum_terms.statistics.clipped(&taken.set);
        let is_noised = noise_on_gpu::add(&session.machine, &taken.set, &clipped, &noise, &sum)?;
        let noise = (!is_noised).then_some(noise);
        let sum = NoisedSum::new(sum, noise, &grid, terms.denominator, sum_terms.statistics);
        let stamp = grant.stamp(next_clip);
        let (report_clients, directory) = (options.report_clients, account.books().directory.clone());
        Ok((Self { sum, stamp, clips, report_clients, directory }, taken))
    }

    /// The judgement that every client has the same weight.
    fn judgement(&self, step: ServerStep) -> Judgement {
        let verdicts = self.clips.0.iter().map(|found| {
            let reason = match found.clip.treatment {
                Treatment::Whole => "added to the noised sum",
                Treatment::Clipped => "clipped, and added to the noised sum",
                Treatment::Void => "counts as zero",
            };
            let kept = found.clip.treatment != Treatment::Void;
            Verdict { kept, weight: None, score: None, reason: reason.to_owned() }
        });
        Judgement {
            norms: Some(self.clips.0.iter().map(|found| found.norm).collect()),
            screened: true,
            ..Judgement::without_geometry(verdicts.collect(), step)
        }
    }
}

impl Mode for Release {
    fn reducer<'t>(&'t self, _: &'t Taken, _: &'t Judgement, _: bool) -> Box<dyn Reducer + 't> {
        Box::new(&self.sum)
    }

    /// The clients are in the sum, whose pass checked them.
    fn check_unchanged(&self, _: &Session, taken: &Taken) -> Result<(), Stopped> {
        Ok(check_operators_files(&taken.set, &[])?)
    }

    /// Records first where the outputs wait, so that a run that fails from here on costs no second charge.
    fn publish(&self, outputs: Complete) -> Result<(), Error> {
        let _whole = Section::enter();
        let files = outputs.names();
        let kept = outputs.keep()?;
        let value = serde_json::to_value(&kept).map_err(Error::Report)?;
        KeptOutputs::complete(&self.directory, self.stamp.charge.seq, files, value).map_err(DpError::of)?;
        Ok(kept.publish()?)
    }

    fn describe(&self, _: &Taken, metadata: &mut BTreeMap<String, String>) {
        describe(metadata, &self.stamp);
    }

    fn report(&self, _: &Taken, report: &mut Report) {
        without_clients(report, self.report_clients);
        report.warnings.extend(self.sum.warning());
    }
}
