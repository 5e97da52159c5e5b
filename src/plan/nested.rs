//! The plans that stages of kind `plan` run: their files, and what the outer plan leaves to them.

use super::read;
use crate::io::folder;
use crate::language::template::{Reference, Template};
use crate::language::tunable;
use crate::schema::Plan;
use crate::schema::agent::Agent;
use crate::schema::nested::Nested;
use std::path::{Component, Path, PathBuf};

/// The most plans inside each other, the outermost included.
pub const MOST_DEPTH: usize = 4;

/// The most plans that the stages of a plan and of those inside of it run, each as often as stages run it.
pub const MOST_INNER: usize = 1000;

/// A plan that a stage of another one runs.
#[derive(Debug)]
pub struct Inner {
    /// The place of the stage that runs it, with the files before it: `$.stages[1].plan`, `a.json: $.stages[0].plan`.
    pub at: String,
    /// The place of that stage in its plan.
    pub stage: usize,
    /// Its file, from the folder of the outermost plan.
    pub file: PathBuf,
    /// The plan.
    pub plan: Plan,
    /// The plan of the stage, by its place among those found; `None` for the outermost one.
    pub outer: Option<usize>,
    /// What holds in it of all plans around it.
    around: Around,
}

/// What holds in a plan of those around it.
#[derive(Clone, Default, Debug)]
struct Around {
    /// The pointers of their `safety.frozen`.
    frozen: Vec<String>,
    /// Whether one of them limits requests or tokens.
    counts_calls: bool,
}

impl Around {
    /// With one more plan around.
    fn and(&self, plan: &Plan) -> Self {
        let frozen = self.frozen.iter().chain(&plan.safety.frozen).cloned().collect();
        let counts_calls = plan.limits.http_calls.is_some() || plan.limits.tokens.is_some();
        Self { frozen, counts_calls: self.counts_calls || counts_calls }
    }
}

/// The file of a nested plan, as its stage names it.
///
/// # Errors
///
/// When it leaves the folder of the plan.
pub fn file_of(nested: &Nested) -> Result<&Path, String> {
    let path = Path::new(&nested.file);
    let is_inside =
        !nested.file.is_empty() && path.components().all(|part| matches!(part, Component::Normal(_)));
    if is_inside {
        Ok(path)
    } else {
        Err(format!("found `{}`, expected a path inside of the plan's folder", nested.file))
    }
}

/// All plans that a plan runs, each behind the one around it. `base` is the folder of the plan, and `own` the name of its
/// file, if it has one.
///
/// # Errors
///
/// When a file is no plan, plans run each other in a circle, or too many stand inside each other: the place, and why.
pub fn all(plan: &Plan, base: &Path, own: Option<&Path>) -> Result<Vec<Inner>, (String, String)> {
    let mut found = Vec::new();
    let chain: Vec<PathBuf> = own.map(Path::to_owned).into_iter().collect();
    add(plan, base, &chain, &mut found, (None, 1))?;
    Ok(found)
}

fn add(
    plan: &Plan,
    base: &Path,
    chain: &[PathBuf],
    found: &mut Vec<Inner>,
    (outer, depth): (Option<usize>, usize),
) -> Result<(), (String, String)> {
    let last = outer.and_then(|outer| found.get(outer));
    let around = last.map_or(Around::default(), |inner| inner.around.clone()).and(plan);
    let last = last.map(|inner| inner.file.clone());
    for (stage, nested) in
        plan.stages.iter().enumerate().filter_map(|(at, stage)| Some((at, stage.plan.as_ref()?)))
    {
        let prefix = last.as_ref().map_or(String::new(), |file| format!("{}: ", file.display()));
        let at = format!("{prefix}$.stages[{stage}].plan");
        let fault = |why: String| (format!("{at}.file"), why);
        let beside = last.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
        let file = beside.join(file_of(nested).map_err(fault)?);
        let mut chain = chain.to_vec();
        let repeats = chain.contains(&file);
        chain.push(file.clone());
        let shown: Vec<String> = chain.iter().map(|file| file.display().to_string()).collect();
        if repeats {
            return Err(fault(format!("found plans that run each other: {}", shown.join(" -> "))));
        }
        if depth >= MOST_DEPTH {
            let why = format!("found more than {MOST_DEPTH} plans inside each other: {}", shown.join(" -> "));
            return Err(fault(why));
        }
        if found.len() >= MOST_INNER {
            let why =
                format!("found more than {MOST_INNER} stages that run a plan, those of inner plans included");
            return Err(fault(why));
        }
        let path = base.join(&file);
        if folder::exists(&path) {
            let base = if base == Path::new("") { Path::new(".") } else { base };
            folder::within(base, &path).map_err(fault)?;
        }
        let inner = read::plan(&path).map_err(|why| fault(why.to_string()))?;
        found.push(Inner { at, stage, file, plan: inner.clone(), outer, around: around.clone() });
        add(&inner, base, &chain, found, (Some(found.len() - 1), depth + 1))?;
    }
    Ok(())
}

/// The first thing that a plan does not leave to one that its stage runs: the place, and why.
pub fn exceeds(outer: &Plan, inner: &Inner) -> Option<(String, String)> {
    let at = |key: &str| format!("{}.{key}", inner.at);
    let nested = outer.stages.get(inner.stage)?.plan.as_ref()?;
    let limits = &outer.limits;
    if limits.eps.is_some() {
        let why = "found a plan inside of one with `limits.eps`, which does not count what it spends; expected the \
            stages that spend in the plan with the limit";
        return Some((at("file"), why.to_owned()));
    }
    let calls = inner.plan.agents.values().any(|agent| !matches!(agent, Agent::Command(_)));
    if calls && inner.around.counts_calls {
        let why = "found endpoints in a plan inside of one with `limits.http_calls` or `limits.tokens`, which do not \
            count its requests; expected the requests in the plan with the limit";
        return Some((at("file"), why.to_owned()));
    }
    if let Some(host) = inner.plan.limits.hosts.iter().find(|host| !limits.hosts.contains(host)) {
        let why = format!("found host `{host}`, which `limits.hosts` of the plan around it does not list");
        return Some((at("file"), why));
    }
    let mut tunings = inner.plan.loops.iter().filter_map(|looped| Some((&looped.id, looped.tune.as_ref()?)));
    let frozen = tunings.find_map(|(id, tune)| Some((id, tunable::frozen_by(&inner.around.frozen, tune)?)));
    if let Some((id, pointer)) = frozen {
        let why = format!(
            "found loop `{id}`, which tunes `{pointer}`, expected no tuning of what `safety.frozen` of a plan around it \
             lists"
        );
        return Some((at("file"), why));
    }
    for (name, value) in &nested.params {
        let tunes = |plan: &Plan, name: &str| {
            let mut tuned = plan.loops.iter().filter_map(|looped| looped.tune.as_ref());
            tuned.any(|tune| tunable::parameter(tune) == Some(name))
        };
        if tunes(&inner.plan, name.as_str()) {
            let why = "found a value for a parameter that the plan tunes, expected one that it does not tune";
            return Some((at(&format!("params.{name}")), why.to_owned()));
        }
        let text = value.to_string();
        let references =
            Template::parse(&text).map(|template| template.references().cloned().collect::<Vec<_>>());
        let reads = |name: &str| {
            let is_it =
                |found: &Reference| matches!(found, Reference::Param(found) if found.as_str() == name);
            references.as_ref().is_ok_and(|references| references.iter().any(is_it))
        };
        let tuned = outer.params.keys().find(|name| reads(name.as_str()) && tunes(outer, name.as_str()));
        if let Some(tuned) = tuned {
            let why = format!("found `{tuned}`, which a loop tunes, expected a value that no loop tunes");
            return Some((at(&format!("params.{name}")), why));
        }
    }
    None
}

/// The faults of all plans that a plan runs, for which a runner refuses it: the place, and why.
///
/// # Errors
///
/// As [`all`].
pub fn check(plan: &Plan, base: &Path, own: Option<&Path>) -> Result<Vec<Inner>, (String, String)> {
    let found = all(plan, base, own)?;
    for inner in &found {
        let outer = inner.outer.map_or(plan, |outer| &found[outer].plan);
        if let Some(fault) = exceeds(outer, inner) {
            return Err(fault);
        }
    }
    Ok(found)
}
