//! Numbers that describe a round or a run as a whole, each with one formula. Pure.
//!
//! [`METRICS`] lists them with their formulas. [`geometry`] computes those that follow from the Gram matrix of the
//! clients' deltas, [`series`] those of numbers in order of time, and [`gain`] compares the merged model with the
//! clients' own, and [`paired`] has the interval of a mean of differences. docs/metrics.md has the table, with the
//! words that other descriptions use for the same numbers.

pub mod gain;
pub mod geometry;
pub mod paired;
pub mod series;

/// What a metric is computed from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// The inner products of the clients' deltas.
    Gram,
    /// The clients' deltas, coordinate by coordinate: in reports alone.
    Deltas,
    /// Numbers in order of time: the metric's name begins with that of the series.
    Series,
    /// Scores of the merged model and of clients' own models.
    Scores,
    /// The seconds of a run's stages.
    Run,
}

impl Origin {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Gram => "Gram matrix",
            Self::Deltas => "deltas",
            Self::Series => "series",
            Self::Scores => "scores",
            Self::Run => "run",
        }
    }
}

/// A metric.
#[derive(Debug)]
pub struct Metric {
    /// Its name; behind that of the series and `_` for one of a series.
    pub name: &'static str,
    /// What it is computed from.
    pub from: Origin,
    /// Its formula.
    pub formula: &'static str,
    /// The words that descriptions of agent systems and coordinators use for it.
    pub called: &'static str,
}

const fn metric(name: &'static str, from: Origin, formula: &'static str, called: &'static str) -> Metric {
    Metric { name, from, formula, called }
}

/// All metrics. G, C, u, t and g are those of docs/metrics.md; x_1 .. x_m is a series.
pub const METRICS: &[Metric] = &[
    metric(
        "signal_fraction",
        Origin::Gram,
        "g / (g + t/n), cut to 0 .. 1",
        "integration score, Φ, `target_phi`, information integration",
    ),
    metric("noise_scale", Origin::Gram, "t / g", "integration score, as a number of clients"),
    metric(
        "coherence",
        Origin::Gram,
        "(sum_ij C_ij - n) / (n (n - 1))",
        "coherence, `collective_sync`, `coherence_target`",
    ),
    metric("alignment", Origin::Gram, "|u| / sum_i w_i |d_i|", "coherence of unequal weights"),
    metric(
        "effective_rank",
        Origin::Gram,
        "exp(-sum_k p_k ln p_k), p the eigenvalues of C over their sum",
        "`collective_patterns`, as a number of directions",
    ),
    metric(
        "clusters",
        Origin::Gram,
        "clusters of average linkage on 1 - C, at the cut with the largest mean silhouette; 1 if that is below 0.25",
        "`collective_patterns`",
    ),
    metric(
        "cluster_silhouette",
        Origin::Gram,
        "mean_i (b_i - a_i) / max(a_i, b_i) at that cut; a_i, b_i the mean 1 - C to the own and the nearest other cluster",
        "`collective_patterns`, how distinct",
    ),
    metric(
        "cosine_inside",
        Origin::Gram,
        "mean of C_ij over pairs of one cluster",
        "`collective_sync` inside a pattern",
    ),
    metric(
        "cosine_between",
        Origin::Gram,
        "mean of C_ij over pairs of different clusters",
        "`collective_sync` between patterns",
    ),
    metric(
        "largest_influence",
        Origin::Gram,
        "max_i w_i / (1 - w_i) |d_i - u|",
        "`agent_contributions`, `phi_contribution`, of the largest",
    ),
    metric(
        "largest_turn",
        Origin::Gram,
        "max_i 1 - cos(u, u without i)",
        "`agent_contributions`, as a change of direction",
    ),
    metric(
        "support_overlap",
        Origin::Deltas,
        "mean over i < j of |S_i ∩ S_j| / |S_i ∪ S_j|, S_i the places of the largest values of d_i",
        "`knowledge_overlap`, `shared_understanding`",
    ),
    metric(
        "gain_over_best",
        Origin::Scores,
        "merged - max_i alone_i; signs swapped if less is better",
        "collective intelligence, `collective_iq`",
    ),
    metric(
        "gain_over_mean",
        Origin::Scores,
        "merged - mean_i alone_i; signs swapped if less is better",
        "`intelligence_metrics`",
    ),
    metric("last", Origin::Series, "x_m", "`solution_quality`, `current_phi`"),
    metric(
        "slope",
        Origin::Series,
        "median over i < j of (x_j - x_i) / (j - i)",
        "`emergence_level`, emergence strength, for a loss with the sign swapped",
    ),
    metric(
        "rose_at",
        Origin::Series,
        "first k at which sum_{i<=k} (x_i - mean_i - drift s) is more than threshold s above its least value; 0 if none",
        "novel pattern, phase transition, `*_jump`",
    ),
    metric("fell_at", Origin::Series, "`rose_at` of -x", "phase transition, downwards"),
    metric(
        "bottleneck_share",
        Origin::Run,
        "largest seconds of one stage on the critical path / seconds of that path",
        "`bottleneck_detection`",
    ),
];

/// The metric of this name.
pub fn named(name: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|metric| metric.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_once() {
        for metric in METRICS {
            assert_eq!(
                named(metric.name).map(|found| found.formula),
                Some(metric.formula),
                "{}",
                metric.name
            );
        }
    }
}
