//! What the variables of conditions are, and which stages must be over before they are known.

use super::index::Index;
use super::order::Viewer;
use crate::plan::run::scope::OF_A_STAGE;
use crate::review::types::Type;
use crate::schema::Plan;
use crate::schema::value::Scalar;
use crate::settings::nearest::nearest;
use std::collections::BTreeSet;

/// How a message about a variable begins.
pub(super) const MARK: &str = "found variable ";

/// The roots of variables.
const ROOTS: [&str; 8] = ["params", "inputs", "metrics", "history", "stages", "choices", "iteration", "run"];

/// The most names that are compared to find the nearest one.
const MOST_COMPARED: usize = 1000;

/// Where a condition stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Site {
    pub(super) viewer: Viewer,
    /// Whether the stage is over, so that its metrics are known.
    pub(super) has_own: bool,
    /// Whether the stage waits for each stage that the condition names.
    pub(super) is_depends: bool,
}

/// Stages of which one must be over.
pub(super) struct Read {
    pub(super) stages: Vec<usize>,
    pub(super) why: String,
}

/// The variables of a condition.
pub(super) struct Variables<'v, 'p> {
    plan: &'p Plan,
    index: &'v Index<'p>,
    site: Site,
    reads: Vec<(String, Vec<usize>)>,
    /// Paths for which the condition asks if they exist.
    tested: BTreeSet<String>,
}

impl<'v, 'p> Variables<'v, 'p> {
    pub(super) fn new(plan: &'p Plan, index: &'v Index<'p>, site: Site) -> Self {
        Self { plan, index, site, reads: Vec::new(), tested: BTreeSet::new() }
    }

    /// What must be over before the condition, without what it asks for by `has`.
    pub(super) fn into_reads(self) -> Vec<Read> {
        let Self { plan, site, reads, tested, .. } = self;
        let reads = reads.into_iter().filter(|(path, _)| !tested.contains(path));
        let to_read = |(path, stages): (String, Vec<usize>)| {
            let names: Vec<String> =
                stages.iter().take(3).map(|stage| format!("`{}`", plan.stages[*stage].id)).collect();
            let names = names.join(" or ");
            let why = match site.viewer {
                Viewer::Stage(_) => {
                    format!("{MARK}`{path}`, and the stage does not wait for {names}, expected it in `needs`")
                }
                Viewer::Loop(_) => format!(
                    "{MARK}`{path}`, and neither is {names} in the loop nor does the loop wait for it"
                ),
                Viewer::Always => format!(
                    "{MARK}`{path}` of {names} in a condition that must hold before every stage, also before that one; \
                     has({path}) asks if it is known"
                ),
            };
            Read { stages, why }
        };
        reads.map(to_read).collect()
    }

    /// The type of a variable.
    pub(super) fn look_up(&mut self, path: &[String], tests: bool) -> Result<Type, String> {
        let shown = path.join(".");
        if tests {
            self.tested.insert(shown.clone());
        }
        let words: Vec<&str> = path.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["params", name] => self.param(&shown, name),
            ["inputs", name] => {
                let is_known = self.index.inputs.contains(name);
                is_known
                    .then_some(Type::Int)
                    .ok_or_else(|| unknown(&shown, name, "an input", self.index.inputs.iter().copied()))
            }
            ["metrics", name] => self.metric(&shown, name),
            ["history", name] => self.history(&shown, name),
            ["choices", name] => self.choice(&shown, name),
            ["stages", name, what] => self.stage(&shown, name, what),
            ["iteration", what @ ("k" | "max")] => {
                let in_loop = self.looped().is_some();
                in_loop.then_some(Type::Int).ok_or_else(|| {
                    format!("{MARK}`iteration.{what}` outside of a loop, which has no iterations")
                })
            }
            ["iteration", name] => Err(unknown(&shown, name, "k or max", ["k", "max"])),
            ["run", "calls" | "tokens"] => Ok(Type::Int),
            ["run", name] => Err(unknown(&shown, name, "calls or tokens", ["calls", "tokens"])),
            [root] if ROOTS.contains(root) => {
                Err(format!("{MARK}`{root}` alone, expected {root}.{}", form(root)))
            }
            [root, ..] if ROOTS.contains(root) => {
                Err(format!("{MARK}`{shown}`, expected {root}.{}", form(root)))
            }
            [word @ ("True" | "TRUE" | "False" | "FALSE")] => {
                Err(format!("{MARK}`{word}`, expected {}", word.to_lowercase()))
            }
            [word] if nearest(word, ROOTS).is_none() => {
                let expected = "a variable such as metrics.NAME, or a text in quotes";
                Err(format!("{MARK}`{word}`, which is unknown, expected {expected}: '{word}'"))
            }
            [root, ..] => Err(unknown(
                &shown,
                root,
                "one that begins with params, inputs, metrics, history, stages, \
                choices, iteration or run",
                ROOTS,
            )),
            [] => Ok(Type::Any),
        }
    }

    fn param(&self, shown: &str, name: &str) -> Result<Type, String> {
        match self.plan.params.get(name) {
            Some(Scalar::Bool(_)) => Ok(Type::Bool),
            Some(Scalar::Int(_)) => Ok(Type::Int),
            Some(Scalar::Real(_)) => Ok(Type::Real),
            Some(Scalar::Text(_)) => Ok(Type::Text),
            None => Err(unknown(shown, name, "a parameter", self.plan.params.keys().map(|id| id.as_str()))),
        }
    }

    /// The loop that the condition belongs to.
    fn looped(&self) -> Option<usize> {
        match self.site.viewer {
            Viewer::Stage(stage) => self.index.loop_of[stage],
            Viewer::Loop(looped) => Some(looped),
            Viewer::Always => None,
        }
    }

    fn measuring(&self, shown: &str, name: &str) -> Result<Vec<usize>, String> {
        let found = self.index.measuring.get(name).cloned();
        found.ok_or_else(|| {
            unknown(shown, name, "a metric that a stage measures", self.index.measuring.keys().copied())
        })
    }

    fn type_of_metric(&self, stages: &[usize]) -> Type {
        let one = |stage: &usize| match self.plan.stages[*stage].for_each {
            Some(_) => Type::Real.list(),
            None => Type::Real,
        };
        stages.iter().map(one).reduce(Type::or).unwrap_or(Type::Any)
    }

    fn metric(&mut self, shown: &str, name: &str) -> Result<Type, String> {
        let stages = self.measuring(shown, name)?;
        let is_own =
            matches!(self.site.viewer, Viewer::Stage(stage) if self.site.has_own && stages.contains(&stage));
        if !is_own {
            self.reads.push((shown.to_owned(), stages.clone()));
        }
        Ok(self.type_of_metric(&stages))
    }

    fn history(&self, shown: &str, name: &str) -> Result<Type, String> {
        let mut stages = self.measuring(shown, name)?;
        let looped = self.looped();
        stages.retain(|stage| looped.is_some() && self.index.loop_of[*stage] == looped);
        if stages.is_empty() {
            return Err(format!("{MARK}`{shown}`, and no stage of the same loop measures `{name}`"));
        }
        Ok(self.type_of_metric(&stages).list())
    }

    fn choice(&mut self, shown: &str, name: &str) -> Result<Type, String> {
        let (place, stage) = self.known(shown, name)?;
        if Index::choices(stage).is_empty() {
            return Err(format!("{MARK}`{shown}`, and stage `{name}` is neither a decision nor a vote"));
        }
        // A vote judges its own result.
        if !self.site.has_own || self.site.viewer != Viewer::Stage(place) {
            self.reads.push((shown.to_owned(), vec![place]));
        }
        Ok(Type::Text)
    }

    fn stage(&mut self, shown: &str, name: &str, what: &str) -> Result<Type, String> {
        let (place, _) = self.known(shown, name)?;
        if !OF_A_STAGE.contains(&what) {
            return Err(unknown(
                shown,
                what,
                "ok, failed, error, skipped, timeout, blocked, seconds or attempts",
                OF_A_STAGE,
            ));
        }
        // Before a stage is over, all of them are false: an invariant may ask for them.
        let is_always = self.site.viewer == Viewer::Always && !matches!(what, "seconds" | "attempts");
        if !self.site.is_depends && !is_always {
            self.reads.push((shown.to_owned(), vec![place]));
        }
        Ok(match what {
            "seconds" => Type::Real,
            "attempts" => Type::Int,
            _ => Type::Bool,
        })
    }

    fn known(&self, shown: &str, name: &str) -> Result<(usize, &'p crate::schema::stage::Stage), String> {
        self.index
            .stage(name)
            .ok_or_else(|| unknown(shown, name, "a stage", self.index.stages.keys().copied()))
    }
}

fn form(root: &str) -> &'static str {
    match root {
        "stages" => "NAME.ok or another value of a stage",
        "iteration" => "k or .max",
        "run" => "calls or .tokens",
        _ => "NAME",
    }
}

fn unknown<'k>(shown: &str, name: &str, expected: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    let nearest = nearest(name, known.into_iter().take(MOST_COMPARED));
    let hint = nearest.map_or(String::new(), |nearest| format!("; the nearest is `{nearest}`"));
    format!("{MARK}`{shown}`, where `{name}` is unknown, expected {expected}{hint}")
}
