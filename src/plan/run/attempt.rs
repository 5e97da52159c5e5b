//! An attempt: runs a command or asks an endpoint, and takes what it made.

use super::event::{Failure, Made};
use super::process::{self, ATTEMPT, ATTEMPTS, Invocation, MARK, STAGE, WORK};
use super::publish::{self, Places};
use super::reduce::reduce;
use super::world::{AttemptLimits, Job, Output, Spent, Task};
use super::{nest, quote};
use crate::endpoint::call::{Ask, Exchange, Request, call};
use crate::endpoint::wire::Limits;
use crate::io::child::allowance::{self, Allowance};
use crate::io::child::capped::CappedLog;
use crate::io::digest::known::Known;
use crate::io::folder;
use crate::schema::agent::REPLY;
use serde::de::IgnoredAny;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Makes an attempt in a fresh folder, and takes its outputs into the store.
///
/// # Errors
///
/// Why it failed.
pub fn make(
    root: &Path,
    job: &Job,
    known: &Known,
    allowance: Option<&Allowance>,
    makeflags: Option<String>,
    stop: &Arc<AtomicBool>,
    spent: &mut Spent,
) -> Result<Made, Failure> {
    let base = root.join(ATTEMPTS).join(&job.name);
    let work = base.join(WORK);
    let failure = |why: std::io::Error| Failure::Start(format!("{}: {why}", work.display()));
    folder::remove_unsynced(&work).map_err(failure)?;
    folder::make(&work).map_err(failure)?;
    for output in job.outputs.iter().filter(|output| output.path != "-") {
        folder::make_folder_unsynced(&work.join(&output.path)).map_err(failure)?;
    }
    let (stdout, stderr) = (base.join("stdout"), base.join("stderr"));
    let places = Places { work: &work, stdout: &stdout, run: root, known };
    let passed_on = allowance::passed_on(allowance).map_err(|why| Failure::Start(why.to_string()))?;
    let made = match &job.task {
        Task::Command { argv, env, inherit, stdin } => {
            let env = variables(env, job, root, passed_on);
            let log_bytes = log_bytes(job);
            process::run(&Invocation {
                argv,
                base: Path::new(&job.base),
                env,
                inherit,
                stdin: stdin.as_deref(),
                folder: &work,
                stdout: &stdout,
                stderr: &stderr,
                limits: AttemptLimits { log_bytes, ..job.limits },
                stop,
            })?;
            let option = publish::ballot(job, &stdout)?;
            Made { option, ..publish::take(job, &places)? }
        }
        Task::Plan { .. } => {
            nest::run(job, &places, nest::Shared { allowance: passed_on, places: makeflags }, stop)?
        }
        Task::Reduce { by, files } => {
            let output = job.outputs.first().ok_or_else(|| Failure::Outputs("has no output".to_owned()))?;
            reduce(*by, files, &publish::place(output, &places)?, &job.limits, stop)?;
            publish::take(job, &places)?
        }
        Task::Http { agent, body, hosts } => {
            let body = body.as_ref().map(quote::in_body).transpose()?;
            ask(job, Ask::Http(agent, body.as_ref()), hosts, &places, stop, spent)?
        }
        Task::Ollama { agent, prompt, hosts } => {
            let prompt = quote::in_text(prompt)?;
            ask(job, Ask::Model(agent, &prompt), hosts, &places, stop, spent)?
        }
    };
    // Only what the outputs name is kept of an attempt that succeeded.
    folder::remove_unsynced(&work).map_err(|why| Failure::Outputs(format!("{}: {why}", work.display())))?;
    Ok(made)
}

/// The variables of a command: those of the plan, and what the runner says of the attempt.
fn variables(
    of_plan: &BTreeMap<String, String>,
    job: &Job,
    root: &Path,
    passed_on: Option<String>,
) -> BTreeMap<String, String> {
    let mut env = of_plan.clone();
    env.insert(MARK.to_owned(), root.to_string_lossy().into_owned());
    env.extend(passed_on.map(|text| (allowance::VARIABLE.to_owned(), text)));
    env.insert("FEDMILL_PLAN_DIR".to_owned(), job.base.clone());
    env.insert(STAGE.to_owned(), job.name.clone());
    env.insert(ATTEMPT.to_owned(), job.attempt.to_string());
    env.insert("FEDMILL_IDEMPOTENCY_KEY".to_owned(), job.work.clone());
    env
}

/// The most bytes of each log of a command; its whole standard output where that is an output.
fn log_bytes(job: &Job) -> u64 {
    let keeps_all = job.outputs.iter().any(|output| output.path == "-");
    if keeps_all { u64::MAX } else { job.limits.log_bytes }
}

/// Asks an endpoint. Its reply is the file `reply` in the folder of the attempt, and an output of that name; standard
/// output has the body as it came.
fn ask(
    job: &Job,
    ask: Ask<'_>,
    hosts: &[String],
    places: &Places<'_>,
    stop: &Arc<AtomicBool>,
    spent: &mut Spent,
) -> Result<Made, Failure> {
    let file = places.work.join(REPLY);
    let failure = |why: std::io::Error| Failure::Outputs(format!("{}: {why}", file.display()));
    let mut exchange = Exchange::default();
    let limits = Limits { run: job.limits.run, idle: job.limits.idle };
    let called = call(&Request { ask, hosts, work: &job.work, limits }, stop, &mut exchange);
    *spent = Spent { tokens: exchange.tokens, pause: exchange.pause };
    let log = CappedLog::create(places.stdout, job.limits.log_bytes).and_then(|mut log| {
        log.write(exchange.log.as_bytes())?;
        log.finish()
    });
    called?;
    log.map_err(failure)?;
    folder::write_file(&file, &exchange.reply, None).map_err(failure)?;
    let mut job = job.clone();
    if job.outputs.iter().any(|output| output.path == "-") {
        // What an endpoint prints is its reply.
        folder::write_file(places.stdout, &exchange.reply, None).map_err(failure)?;
    }
    if job.outputs.iter().all(|output| output.name != REPLY && output.path != REPLY) {
        let is_object = serde_json::from_slice::<BTreeMap<String, IgnoredAny>>(&exchange.reply).is_ok();
        let metrics = is_object && !job.metrics.is_empty();
        let (name, path) = (REPLY.to_owned(), REPLY.to_owned());
        job.outputs.push(Output { name, path, metrics, optional: false });
    }
    let option = publish::ballot(&job, &file)?;
    let made = publish::take(&job, places)?;
    Ok(Made { calls: 1, tokens: spent.tokens, option, ..made })
}
