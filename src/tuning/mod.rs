//! Tuning of a loop's parameter: what was tried, what came of it, and the value in use.
//!
//! After an iteration [`propose`] makes a candidate. Shadow runs repeat stages on the files of iterations that are
//! over, with the value in use and with the candidate; [`judge`] compares the two. An accepted value is watched, and
//! taken back if the iterations after it are worse. [`population`] has the candidates that are judged together.
//! [`Tuning`] is what the steps in the journal add up to; [`guard`] refuses tunings that could touch what protects
//! clients.

pub mod guard;
pub mod judge;
pub mod population;
pub mod propose;

use crate::schema::looped::{Policy, Tune};
use crate::schema::value::Scalar;
use judge::Verdict;
use population::{Tried, first_members, give_up, settle, start_again};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A step of tuning, as the journal has it.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// A trial begins.
    Try {
        /// Its number, from 1 on.
        trial: u32,
        /// The value that it tries.
        candidate: Scalar,
        /// The iterations that it repeats.
        replayed: Vec<u32>,
        /// The time at which it is given up, in seconds since 1970.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<f64>,
    },
    /// A trial was due, and there is no candidate.
    Pass {
        /// Its number.
        trial: u32,
        /// The reason.
        why: String,
    },
    /// A trial is over.
    Judge {
        /// Its number.
        trial: u32,
        /// What came of it.
        verdict: Verdict,
    },
    /// An iteration after an accepted change is over.
    Watch {
        /// Its metric; `None` if no stage measured it.
        metric: Option<f64>,
        /// Whether it is worse than all iterations that the change was judged by.
        worse: bool,
    },
    /// A change is taken back.
    Back {
        /// The value that was in use.
        from: Scalar,
        /// The value before the change.
        to: Scalar,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Try { trial, candidate, replayed, .. } => {
                let iterations: Vec<String> = replayed.iter().map(ToString::to_string).collect();
                write!(f, "trial {trial}: tries {candidate} on iterations {}", iterations.join(", "))
            }
            Self::Pass { trial, why } => write!(f, "trial {trial}: none, {why}"),
            Self::Judge { trial, verdict } => {
                let word = if verdict.accepted { "accepted" } else { "refused" };
                write!(f, "trial {trial}: {word}, {}", verdict.why)
            }
            Self::Watch { metric, worse } => {
                let metric = metric.map_or_else(|| "no metric".to_owned(), |metric| metric.to_string());
                write!(f, "watched: {metric}, {}", if *worse { "worse than before" } else { "not worse" })
            }
            Self::Back { from, to } => write!(f, "taken back: {to} instead of {from}"),
        }
    }
}

/// A trial that is under way.
#[derive(Clone, PartialEq, Debug)]
pub struct Trial {
    /// Its number.
    pub number: u32,
    /// The value that it tries.
    pub candidate: Scalar,
    /// The iterations that it repeats.
    pub replayed: Vec<u32>,
    /// The time at which it is given up, in seconds since 1970.
    pub until: Option<f64>,
}

/// An accepted change that may be taken back.
#[derive(Clone, PartialEq, Debug)]
pub struct Watched {
    /// The value before the change.
    pub before: Scalar,
    /// The worst metric of the iterations before the change.
    pub bar: f64,
    /// Iterations that are still to be watched.
    pub left: u32,
    /// Iterations in a row that were worse.
    pub worse: u32,
}

/// The tuning of a loop.
#[derive(Clone, PartialEq, Debug)]
pub struct Tuning {
    /// The value in use.
    pub value: Scalar,
    /// Trials that began.
    pub trials: u32,
    /// The trial that is under way.
    pub open: Option<Trial>,
    /// The change that is watched.
    pub watched: Option<Watched>,
    /// Refused values, each with the last trial that may not try it.
    pub tabu: Vec<(Scalar, u32)>,
    /// The trials of a bracket or a generation, or of all arms.
    pub tried: Vec<Tried>,
    /// The members of a population; none without `pbt`.
    pub members: Vec<Scalar>,
    /// Whether the last accepted change was upwards.
    pub upwards: bool,
    /// The iteration whose trial is over, or was passed.
    pub done: u32,
    /// The iteration that was watched last.
    pub looked: u32,
    /// All steps, each with its iteration.
    pub history: Vec<(u32, Step)>,
}

impl Tuning {
    /// Before the first trial.
    pub fn new(tune: &Tune, value: Scalar) -> Self {
        Self { members: first_members(tune, &value), ..Self::plain(value) }
    }

    fn plain(value: Scalar) -> Self {
        Self {
            value,
            trials: 0,
            open: None,
            watched: None,
            tabu: Vec::new(),
            tried: Vec::new(),
            members: Vec::new(),
            upwards: true,
            done: 0,
            looked: 0,
            history: Vec::new(),
        }
    }

    /// Whether a trial is due after an iteration.
    pub fn is_due(&self, tune: &Tune, iteration: u32) -> bool {
        let is_turn = tune.every > 0 && iteration.is_multiple_of(tune.every);
        let is_free = self.open.is_none() && self.watched.is_none() && self.done < iteration;
        is_free && is_turn && iteration >= tune.validate.replay_rounds
    }

    /// Adds a step that happened after an iteration.
    pub fn add(&mut self, tune: &Tune, iteration: u32, step: &Step) {
        self.history.push((iteration, step.clone()));
        match step {
            Step::Try { trial, candidate, replayed, until } => {
                self.trials = *trial;
                let (candidate, replayed) = (candidate.clone(), replayed.clone());
                self.open = Some(Trial { number: *trial, candidate, replayed, until: *until });
            }
            Step::Pass { trial, .. } => {
                (self.trials, self.done) = (*trial, iteration);
                give_up(tune, self);
            }
            Step::Judge { trial, verdict } => {
                self.done = iteration;
                let Some(open) = self.open.take().filter(|open| open.number == *trial) else { return };
                match verdict.bar.filter(|_| verdict.accepted) {
                    Some(bar) => self.accept(tune, open.candidate, bar),
                    None => self.refuse(tune, open, verdict),
                }
            }
            Step::Watch { worse, .. } => {
                self.looked = iteration;
                let Some(watched) = &mut self.watched else { return };
                watched.left = watched.left.saturating_sub(1);
                watched.worse = if *worse { watched.worse + 1 } else { 0 };
                if watched.left == 0 && watched.worse == 0 {
                    self.watched = None;
                }
            }
            Step::Back { from, to } => {
                self.tabu.push((from.clone(), self.trials.saturating_add(tune.rollback.tabu)));
                self.use_value(tune, to);
                self.watched = None;
            }
        }
    }

    fn accept(&mut self, tune: &Tune, candidate: Scalar, bar: f64) {
        let before = self.value.clone();
        self.use_value(tune, &candidate);
        self.upwards = candidate.number() > before.number();
        let left = tune.validate.replay_rounds.max(tune.rollback.after_failures);
        self.watched = Some(Watched { before, bar, left, worse: 0 });
    }

    /// No journal brings a value into use that lies outside of the bounds.
    fn use_value(&mut self, tune: &Tune, value: &Scalar) {
        if tune.allows(value) {
            self.value = value.clone();
        }
        start_again(tune, self);
    }

    /// Keeps what came of a refused candidate. Policies that compare candidates may try it again.
    fn refuse(&mut self, tune: &Tune, trial: Trial, verdict: &Verdict) {
        let Trial { number, candidate, replayed, .. } = trial;
        match tune.policy {
            Policy::Climb | Policy::Random | Policy::Fedexp => {
                self.tabu.push((candidate, number.saturating_add(tune.rollback.tabu)));
            }
            Policy::Asha | Policy::Pbt | Policy::Ucb => {
                let (rounds, wins) = (replayed.len() as u32, verdict.wins.unwrap_or(0.0));
                self.tried.push(Tried { candidate, rounds, gain: verdict.gain, wins });
                settle(tune, self);
            }
        }
    }

    /// Whether a value may not be tried in the next trial.
    pub fn is_tabu(&self, value: &Scalar) -> bool {
        self.tabu.iter().any(|(refused, until)| is_same(refused, value) && self.trials < *until)
    }
}

/// Whether two values are equal, numbers but for rounding.
fn is_same(a: &Scalar, b: &Scalar) -> bool {
    match (a.number(), b.number()) {
        (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * a.abs().max(b.abs()),
        _ => a == b,
    }
}
