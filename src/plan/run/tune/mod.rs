//! Tuning of a loop's parameter: what was tried, what came of it, and the value in use.
//!
//! After an iteration [`propose`] makes a candidate. Shadow runs repeat stages on the files of iterations that are over,
//! with the value in use and with the candidate; [`judge`] compares the two. An accepted value is watched, and taken back
//! if the iterations after it are worse. [`Tuning`] is what the steps in the journal add up to; [`guard`] refuses tunings
//! that could touch what protects clients.

pub mod guard;
pub mod judge;
pub mod propose;

use crate::plan::schema::looped::Tune;
use judge::Verdict;
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
        candidate: f64,
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
        from: f64,
        /// The value before the change.
        to: f64,
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
    pub candidate: f64,
    /// The iterations that it repeats.
    pub replayed: Vec<u32>,
    /// The time at which it is given up, in seconds since 1970.
    pub until: Option<f64>,
}

/// An accepted change that may be taken back.
#[derive(Clone, PartialEq, Debug)]
pub struct Watched {
    /// The value before the change.
    pub before: f64,
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
    pub value: f64,
    /// Trials that began.
    pub trials: u32,
    /// The trial that is under way.
    pub open: Option<Trial>,
    /// The change that is watched.
    pub watched: Option<Watched>,
    /// Refused values, each with the last trial that may not try it.
    pub tabu: Vec<(f64, u32)>,
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
    pub fn new(value: f64) -> Self {
        Self {
            value,
            trials: 0,
            open: None,
            watched: None,
            tabu: Vec::new(),
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
                let replayed = replayed.clone();
                self.open = Some(Trial { number: *trial, candidate: *candidate, replayed, until: *until });
            }
            Step::Pass { trial, .. } => (self.trials, self.done) = (*trial, iteration),
            Step::Judge { trial, verdict } => {
                self.done = iteration;
                let Some(open) = self.open.take().filter(|open| open.number == *trial) else { return };
                match verdict.bar.filter(|_| verdict.accepted) {
                    Some(bar) => self.accept(tune, open.candidate, bar),
                    None => self.tabu.push((open.candidate, trial + tune.rollback.tabu)),
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
                self.tabu.push((*from, self.trials + tune.rollback.tabu));
                self.use_value(tune, *to);
                self.watched = None;
            }
        }
    }

    fn accept(&mut self, tune: &Tune, candidate: f64, bar: f64) {
        let before = self.value;
        self.use_value(tune, candidate);
        self.upwards = candidate > before;
        let left = tune.validate.replay_rounds.max(tune.rollback.after_failures);
        self.watched = Some(Watched { before, bar, left, worse: 0 });
    }

    /// No journal brings a value into use that lies outside of the bounds.
    fn use_value(&mut self, tune: &Tune, value: f64) {
        let [least, most] = tune.bounds;
        if (least..=most).contains(&value) {
            self.value = value;
        }
    }

    /// Whether a value may not be tried in the next trial.
    pub fn is_tabu(&self, value: f64) -> bool {
        let is_same = |other: f64| (value - other).abs() <= 1e-9 * value.abs().max(other.abs());
        self.tabu.iter().any(|(refused, until)| is_same(*refused) && self.trials < *until)
    }
}
