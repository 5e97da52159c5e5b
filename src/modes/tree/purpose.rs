//! What cannot be done with sums of clients, and why.

use crate::engine::aggregate::request::Job;
use crate::engine::backend::choose::Asked;
use crate::engine::decide::judge::MetricsWanted;
use crate::engine::intake::admit::UpdateSet;

/// What was asked of partials, and sums cannot answer.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[error("{what} {why}")]
pub struct BadRequest {
    /// What was asked.
    pub what: String,
    why: String,
    hint: Option<&'static str>,
}

/// What rules are to be split by that need every client's values.
const SHARDED: &str = "what needs every client's values can be split by coordinates instead: `fedmill gram`, `decide`, \
                       `combine` and `merge`";

impl BadRequest {
    fn new(what: impl ToString, why: &str) -> Self {
        Self { what: what.to_string(), why: why.to_owned(), hint: None }
    }

    /// Something that needs more of clients than sums.
    fn beyond_sums(what: impl ToString) -> Self {
        let why = "cannot be done with partials: it needs every client's values, and partials hold sums";
        Self { hint: Some(SHARDED), ..Self::new(what, why) }
    }

    /// What the user may do about it.
    pub fn hint(&self) -> Option<&'static str> {
        self.hint
    }
}

/// Checks that a round that is cut into shards has no partials.
///
/// # Errors
///
/// When it has.
pub fn refuse_in_shards(set: &UpdateSet) -> Result<(), BadRequest> {
    let Some(partial) = set.partials.first() else { return Ok(()) };
    let why =
        "is a partial of clients: rounds cut into shards take updates alone, expected `fedmill aggregate`";
    Err(BadRequest::new(partial.path.display(), why))
}

/// Strategies that step on the merged delta alone.
const STEPPING: [&str; 6] = ["fedavg", "fedprox", "fedavgm", "fedadam", "fedyogi", "fedadagrad"];

/// What partials are summed for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// The weighted mean.
    Mean,
    /// The trimmed mean that cuts so many values on each side.
    TrimmedMean(usize),
}

impl Purpose {
    /// The rule as partials name it.
    pub fn rule(self) -> String {
        match self {
            Self::Mean => "mean".to_owned(),
            Self::TrimmedMean(cut) => format!("trimmed-mean:cut={cut}"),
        }
    }

    /// What a run that reads or writes partials sums them for.
    ///
    /// # Errors
    ///
    /// When it asks for what sums do not tell.
    pub fn of(job: &Job) -> Result<Self, BadRequest> {
        let (aggregation, takes) = (&job.aggregation, "cannot be done with partials:");
        let purpose = Self::of_rule(&aggregation.rule.to_string())?;
        if job.tiers.is_some() {
            return Err(BadRequest::beyond_sums("--tiers"));
        }
        if let Some(step) = aggregation.pre.first() {
            return Err(BadRequest::beyond_sums(format!("--pre {step}")));
        }
        if let Some(rule) = aggregation.shadow.first() {
            return Err(BadRequest::beyond_sums(format!("--shadow-rules {rule}")));
        }
        if matches!(aggregation.metrics, MetricsWanted::Geometry | MetricsWanted::GeometryAndSigns) {
            return Err(BadRequest::beyond_sums("--metrics"));
        }
        if !STEPPING.contains(&aggregation.strategy.name()) {
            let why = format!("{takes} it goes by what each client reports, and partials hold sums");
            return Err(BadRequest::new(&aggregation.strategy, &why));
        }
        if job.partial && (!aggregation.strategy.is_plain() || job.state.is_some()) {
            let what = format!("--partial with {}", aggregation.strategy);
            return Err(BadRequest::new(
                what,
                "has no meaning: the server steps once, at the root of the tree",
            ));
        }
        if job.backend.asked == Asked::Gpu {
            let why =
                format!("{takes} sums that do not depend on their grouping need f64, which shaders lack");
            return Err(BadRequest::new("--backend gpu", &why));
        }
        Ok(purpose)
    }

    fn of_rule(rule: &str) -> Result<Self, BadRequest> {
        match rule.split_once(":cut=") {
            _ if rule == "mean" => Ok(Self::Mean),
            Some(("trimmed-mean", cut)) => match cut.parse() {
                Ok(0) => Ok(Self::Mean),
                Ok(cut) => Ok(Self::TrimmedMean(cut)),
                Err(_) => Err(BadRequest::new(
                    rule,
                    "cannot be done with partials: the cut is of all clients, which no part of the tree knows; \
                     expected a count such as trimmed-mean:cut=2",
                )),
            },
            None if rule == "trimmed-mean" => Err(BadRequest::new(
                rule,
                "cannot be done with partials without a count, expected one such as trimmed-mean:cut=2",
            )),
            _ => Err(BadRequest::beyond_sums(rule)),
        }
    }
}
