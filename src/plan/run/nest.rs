//! Runs a plan inside of a plan: a runner of its run, as the command of an attempt.
//!
//! The run lies in `plans/STAGE` of the directory of the outer run, and stays there between attempts. So an attempt that
//! a crash interrupted goes on with it: stages of the inner plan that are done stay done. The inner runner prints errors
//! alone; this one shows the questions of its gates.

use super::disk::{self, orphans};
use super::error::RunError;
use super::event::{Failure, Made};
use super::given::{GIVEN, given};
use super::journal::{Journal, PLAN};
use super::prepare::{Place, keep_plan};
use super::process::{self, Invocation, MARK};
use super::publish::{self, Places};
use super::reduce::reduce;
use super::state::State;
use super::world::{Job, Task};
use crate::io::child::allowance::VARIABLE;
use crate::io::child::jobserver::MAKEFLAGS;
use crate::io::digest::store::identify;
use crate::io::folder::readers::Readers;
use crate::io::source::identity_of;
use crate::io::{folder, text};
use crate::language::graph::Graph;
use crate::plan::nested;
use crate::plan::read;
use crate::schema::Plan;
use crate::schema::agent::Agent;
use crate::schema::reduce::Reducer;
use crate::schema::value::Scalar;
use crate::telemetry::console::QUESTION;
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Time between two looks at the gates of an inner run.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The most bytes of a question.
const MOST_OF_A_QUESTION: u64 = 1 << 20;

/// What an inner run gets of the one around it, beside values and files.
#[derive(Clone, Debug)]
pub struct Shared {
    /// The variable with what commands may charge to privacy budgets.
    pub allowance: Option<String>,
    /// `MAKEFLAGS` with the places for attempts.
    pub places: Option<String>,
}

/// Runs the plan of a job, or goes on with its run, and takes its outputs.
///
/// # Errors
///
/// Why it failed.
pub fn run(job: &Job, places: &Places<'_>, shared: Shared, stop: &AtomicBool) -> Result<Made, Failure> {
    let Task::Plan { file, blake3, params, inputs, anew } = &job.task else {
        return Err(Failure::Start("found no plan".to_owned()));
    };
    let root = places.run.join("plans").join(&job.name);
    if let Some(holder) = held(&root)? {
        return Err(Failure::Start(RunError::Locked { path: root, holder }.to_string()));
    }
    let file = Path::new(file);
    let start = |why: String| Failure::Start(why);
    let (plan, base) = compose(file, blake3, params, places.run).map_err(start)?;
    let readers = Readers::of_both(Readers::of(file), Readers::of(&places.run.join(PLAN)));
    let place = Place { root: root.clone(), base, named: BTreeMap::new(), readers, earlier: None };
    if *anew {
        make_place(&root, &plan, inputs).map_err(|why| start(format!("{}: {why}", root.display())))?;
    }
    let text = serde_json::to_string(inputs).unwrap_or_default() + "\n";
    let written = folder::write_file(&root.join(GIVEN), text.as_bytes(), readers);
    written.map_err(|why| start(format!("{}: {why}", root.join(GIVEN).display())))?;
    keep_plan(&plan, &place).map_err(|why| start(why.to_string()))?;
    let inner = nested::check(&plan, &place.base, None).map_err(|(at, why)| start(format!("{at}: {why}")))?;
    let inherit: Vec<String> =
        std::iter::once(&plan).chain(inner.iter().map(|inner| &inner.plan)).flat_map(variables).collect();
    let argv = ["fedmill", "plan", "resume", "-q"].map(str::to_owned).into_iter();
    let argv: Vec<String> = argv.chain([root.to_string_lossy().into_owned()]).collect();
    let mut env = BTreeMap::from([(MARK.to_owned(), places.run.to_string_lossy().into_owned())]);
    env.extend(shared.allowance.map(|text| (VARIABLE.to_owned(), text)));
    env.extend(shared.places.map(|text| (MAKEFLAGS.to_owned(), text)));
    let ran = showing_gates(&root, &format!("stage `{}`", job.name), || {
        process::run(&Invocation {
            argv: &argv,
            base: &place.base,
            env,
            inherit: &inherit,
            stdin: None,
            folder: places.work,
            stdout: places.stdout,
            stderr: &places.stdout.with_file_name("stderr"),
            limits: job.limits,
            stop,
        })
    });
    if held(&root)?.is_none() {
        // Commands of a runner that was ended by force.
        orphans::signal(&process::commands_of(&root), Signal::KILL);
    }
    ran?;
    take(job, &root, &plan, places)
}

/// Removes a run that came to its end, or began with another plan or other inputs.
fn make_place(root: &Path, plan: &Plan, inputs: &BTreeMap<String, Vec<String>>) -> io::Result<()> {
    let journal = Journal::read(root).map_err(io::Error::other)?;
    let given = given(root)
        .into_iter()
        .map(|(name, files)| (name, files.iter().map(|file| file.to_string_lossy().into_owned()).collect()));
    let is_other = journal.plan().is_some_and(|began| began != read::digest(plan))
        || given.collect::<BTreeMap<String, Vec<String>>>() != *inputs;
    if !folder::exists(root) || journal.finished().is_none() && !is_other {
        return Ok(());
    }
    // A part of a run is none that could go on.
    let old = root.with_file_name(format!(".{}", root.file_name().unwrap_or_default().display()));
    folder::remove_unsynced(&old)?;
    folder::rename(root, &old)?;
    folder::remove_unsynced(&old)
}

/// The process that works on a run.
fn held(root: &Path) -> Result<Option<String>, Failure> {
    disk::holder(root).map_err(|why| Failure::Start(why.to_string()))
}

/// Works, and meanwhile shows the questions of gates that open in a run and in the runs inside of it.
fn showing_gates<T>(root: &Path, name: &str, work: impl FnOnce() -> T) -> T {
    let is_over = AtomicBool::new(false);
    let mut known = questions(root, name);
    thread::scope(|scope| {
        let shows = scope.spawn(|| {
            while !is_over.load(Ordering::Acquire) {
                thread::park_timeout(LOOK_EVERY);
                let found = questions(root, name);
                for (path, (place, version)) in &found {
                    if known.get(path).is_none_or(|(_, known)| known != version) {
                        show(path, place);
                    }
                }
                known = found;
            }
        });
        let done = work();
        is_over.store(true, Ordering::Release);
        shows.thread().unpark();
        done
    })
}

/// The files with the questions of a run and of those inside of it: the stages of the runs, and the version of the file.
fn questions(root: &Path, name: &str) -> BTreeMap<PathBuf, (String, Option<(u64, u64)>)> {
    let listed = |folder: &str| folder::entries(&root.join(folder)).unwrap_or_default().into_iter();
    let mut found = BTreeMap::new();
    for (file, _) in listed("gates").filter(|(file, _)| file.ends_with(".question")) {
        let path = root.join("gates").join(file);
        let version = identity_of(&path);
        found.insert(path, (name.to_owned(), version));
    }
    for (inner, _) in listed("plans") {
        found.extend(questions(&root.join("plans").join(&inner), &format!("{name}: stage `{inner}`")));
    }
    found
}

/// Shows a question of an inner run, and how to answer it.
fn show(path: &Path, place: &str) {
    // What cannot be read is shown by `plan status`.
    let text = text::read_at_most(path, MOST_OF_A_QUESTION).unwrap_or_default();
    if let Some((waits, how)) = text.trim_end().rsplit_once('\n') {
        tracing::warn!(target: QUESTION, hint = how, "{place}: {waits}");
    }
}

/// The variables of the runner that the agents of a plan read.
fn variables(plan: &Plan) -> Vec<String> {
    let of = |agent: &Agent| match agent {
        Agent::Command(agent) => agent.env.clone(),
        Agent::Http(agent) => {
            agent.headers.values().filter_map(|value| value.strip_prefix("env:")).map(str::to_owned).collect()
        }
        Agent::Ollama(_) => Vec::new(),
    };
    plan.agents.values().flat_map(of).collect()
}

/// The plan that the inner run has: the file, with the values that the stage gives, and no limit above the outer one.
fn compose(
    file: &Path,
    blake3: &str,
    params: &BTreeMap<String, String>,
    outer: &Path,
) -> Result<(Plan, PathBuf), String> {
    let shown = file.display();
    let found = identify(file).map_err(|why| format!("{shown}: {why}"))?.blake3;
    if found != blake3 {
        return Err(format!(
            "{shown}: changed since the run started: found BLAKE3 {found}, expected {blake3}"
        ));
    }
    let mut plan = read::plan(file).map_err(|why| why.to_string())?;
    for (name, text) in params {
        let value = plan.params.iter_mut().find(|(id, _)| id.as_str() == name).map(|(_, value)| value);
        let value = value.ok_or_else(|| format!("{shown}: the plan has no parameter `{name}`"))?;
        *value = parsed(value, text).ok_or_else(|| {
            format!("parameter `{name}`: found `{text}`, expected a value as `{value}` in {shown}")
        })?;
    }
    let own = outer.join(PLAN);
    // The directory of a task lies in `tasks` of that of the plan.
    let kept = if folder::exists(&own) { own } else { outer.join("../..").join(PLAN) };
    let around = read::plan(&kept).map_err(|why| why.to_string())?;
    let limits = around.limits;
    let frozen = around.safety.frozen.into_iter();
    let more: Vec<String> = frozen.filter(|pointer| !plan.safety.frozen.contains(pointer)).collect();
    plan.safety.frozen.extend(more);
    let inner = &mut plan.limits;
    let smaller = |a: Option<u64>, b: Option<u64>| a.into_iter().chain(b).min();
    inner.max_parallel = inner.max_parallel.into_iter().chain(limits.max_parallel).min();
    inner.agent_pool_size = inner.agent_pool_size.min(limits.agent_pool_size);
    inner.mem_bytes = smaller(inner.mem_bytes, limits.mem_bytes);
    // The folder of inner runs is that of one run, whose limits hold.
    inner.max_parallel_workflows = u32::MAX;
    inner.log_bytes = inner.log_bytes.min(limits.log_bytes);
    Ok((plan, file.parent().unwrap_or(Path::new(".")).to_owned()))
}

/// A text as a value of the same type as another one.
fn parsed(like: &Scalar, text: &str) -> Option<Scalar> {
    Some(match like {
        Scalar::Bool(_) => Scalar::Bool(text.parse().ok()?),
        Scalar::Int(_) => Scalar::Int(text.parse().ok()?),
        Scalar::Real(_) => Scalar::Real(text.parse().ok().filter(|number: &f64| number.is_finite())?),
        Scalar::Text(_) => Scalar::Text(text.to_owned()),
    })
}

/// Takes outputs of stages of the inner run as those of the attempt.
fn take(job: &Job, root: &Path, plan: &Plan, places: &Places<'_>) -> Result<Made, Failure> {
    let fault = |why: String| Failure::Outputs(why);
    let graph = Graph::of(plan).map_err(|why| fault(why.to_string()))?;
    let journal = Journal::read(root).map_err(|why| fault(why.to_string()))?;
    let mut state = State::new(plan, &graph);
    for event in journal.events() {
        state.add(&event, &graph, plan);
    }
    let mut job = job.clone();
    let mut kept = Vec::new();
    for mut output in job.outputs {
        let named = output.path.split_once('.');
        let made = named.and_then(|(stage, name)| {
            let place = plan.stages.iter().position(|found| found.id.as_str() == stage)?;
            let made = state.instance(state.current(place))?.made.as_ref()?;
            made.outputs.get(name)
        });
        match made {
            Some(artifact) => {
                let file = Path::new(&artifact.path).file_name().unwrap_or_default().to_string_lossy();
                let path = format!("{}/{file}", output.name);
                let into = places.work.join(&path);
                folder::make_folder_unsynced(&into).map_err(|why| fault(why.to_string()))?;
                let from = [root.join(&artifact.path).to_string_lossy().into_owned()];
                reduce(Reducer::Concat, &from, &into, &job.limits, &AtomicBool::new(false))?;
                output.path = path;
                kept.push(output);
            }
            None if output.optional => {}
            None => return Err(fault(format!("output `{}`: {} made no file", output.name, output.path))),
        }
    }
    job.outputs = kept;
    publish::take(&job, places)
}
