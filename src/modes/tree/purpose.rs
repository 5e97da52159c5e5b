//! The purpose of partials, and the options that sums of clients do not support.

use crate::engine::aggregate::error::Unsupported;
use crate::engine::aggregate::request::Request;
use crate::engine::backend::request::BackendName;
use crate::engine::decide::method::MetricsRequest;

fn unsupported(option: impl ToString, why: impl Into<String>) -> Unsupported {
    Unsupported { option: option.to_string(), mode: None, why: why.into(), hint: None }
}

/// Strategies whose step depends on the merged delta only.
const STEPPING: [&str; 6] = ["fedavg", "fedprox", "fedavgm", "fedadam", "fedyogi", "fedadagrad"];

/// The rule that a partial's sums are for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// The weighted mean.
    Mean,
    /// The trimmed mean that cuts this many values on each side.
    TrimmedMean(usize),
}

impl Purpose {
    /// The spec of the rule, as partials name it.
    pub fn rule(self) -> String {
        match self {
            Self::Mean => "mean".to_owned(),
            Self::TrimmedMean(cut) => format!("trimmed-mean:cut={cut}"),
        }
    }

    /// The numbers of smallest and of largest values that a partial of this many clients holds apart from the sum. They
    /// are no more than its clients, since the root may cut all of them.
    pub fn edges(self, clients: usize) -> (usize, usize) {
        match self {
            Self::Mean => (0, 0),
            Self::TrimmedMean(cut) => (cut.min(clients), cut.min(clients - cut.min(clients))),
        }
    }

    /// The purpose of a run that reads or writes partials.
    ///
    /// # Errors
    ///
    /// When an option needs each client's values.
    pub fn of(request: &Request) -> Result<Self, Unsupported> {
        let (method, takes) = (&request.method, "cannot be done with partials:");
        let purpose = Self::of_rule(&method.rule.to_string())?;
        if let Some(step) = method.pre.first() {
            return Err(Unsupported::beyond_sums(format!("--pre {step}")));
        }
        if let Some(rule) = request.reporting.shadow.first() {
            return Err(Unsupported::beyond_sums(format!("--shadow-rules {rule}")));
        }
        if matches!(request.reporting.metrics, MetricsRequest::Geometry | MetricsRequest::GeometryAndSigns) {
            return Err(Unsupported::beyond_sums("--metrics"));
        }
        if !STEPPING.contains(&method.strategy.name()) {
            let why = format!("{takes} it needs each client's report, and partials hold sums");
            return Err(unsupported(&method.strategy, why));
        }
        if request.backend.name == BackendName::Gpu {
            let why =
                format!("{takes} sums that do not depend on their grouping need f64, which shaders lack");
            return Err(unsupported("--backend gpu", why));
        }
        Ok(purpose)
    }

    /// The purpose of a leaf of a tree.
    ///
    /// # Errors
    ///
    /// The errors of [`of`](Self::of), and a strategy: the server steps at the root.
    pub fn of_leaf(request: &Request) -> Result<Self, Unsupported> {
        let purpose = Self::of(request)?;
        if !request.method.strategy.is_plain() || request.outputs.state.is_some() {
            let what = format!("--partial with {}", request.method.strategy);
            return Err(unsupported(what, "has no meaning: the server steps once, at the root of the tree"));
        }
        Ok(purpose)
    }

    fn of_rule(rule: &str) -> Result<Self, Unsupported> {
        match rule.split_once(":cut=") {
            _ if rule == "mean" => Ok(Self::Mean),
            Some(("trimmed-mean", cut)) => match cut.parse() {
                Ok(0) => Ok(Self::Mean),
                Ok(cut) => Ok(Self::TrimmedMean(cut)),
                Err(_) => Err(unsupported(
                    rule,
                    "cannot be done with partials: the cut is a fraction of all clients, and no leaf knows their number; \
                     expected a count such as trimmed-mean:cut=2",
                )),
            },
            None if rule == "trimmed-mean" => Err(unsupported(
                rule,
                "cannot be done with partials without a count, expected one such as trimmed-mean:cut=2",
            )),
            _ => Err(Unsupported::beyond_sums(rule)),
        }
    }
}
