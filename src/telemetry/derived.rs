//! Figures that follow from the records of several rounds.

use super::metrics::{Outcome, RoundRecord};
use serde::Serialize;

/// Figures of one round, computed from its record and those before it.
#[derive(Serialize, Clone, Copy, PartialEq, Default, Debug)]
pub struct Derived {
    /// Minus the slope of ln(loss) over the last rounds, per round: how fast the loss falls.
    /// `None` with fewer than two positive losses.
    pub convergence_rate: Option<f64>,
    /// Clients in the merged model over selected clients, 0 to 1. Above 1 if late updates were merged too.
    pub node_participation: Option<f64>,
    /// `accuracy` of the evaluation, in the unit of the operator's command.
    pub model_accuracy: Option<f64>,
    /// Bytes up and down in all rounds up to this one.
    pub communication_cost: u64,
    /// Epsilon spent up to this round.
    pub privacy_budget_spent: Option<f64>,
    /// The time at which a round last published a model, in seconds since 1970. `None` if no record has published.
    pub last_published_at: Option<f64>,
}

impl Derived {
    /// The figures of the last record. `window` is the number of rounds that the convergence rate looks at.
    ///
    /// Records are in order of their rounds. `None` without a record.
    pub fn of(records: &[RoundRecord], window: u64) -> Option<Self> {
        let last = records.last()?;
        let selected = last.clients.selected;
        let published = records.iter().rev().find(|record| record.outcome == Outcome::Published);
        Some(Self {
            convergence_rate: convergence_rate(records, window),
            node_participation: (selected > 0).then(|| last.clients.merged as f64 / selected as f64),
            model_accuracy: last.metric("accuracy"),
            communication_cost: last.bytes.total,
            privacy_budget_spent: last.privacy.map(|privacy| privacy.epsilon_spent),
            last_published_at: published.map(|record| record.closed_at),
        })
    }
}

/// Minus the slope of a least-squares line through ln(loss) against the round, over the last `window` records.
///
/// 0.1 means that the loss falls by about a tenth a round. Losses that are missing, not finite or not positive are left
/// out, and so are the rounds before a rollback. `None` with fewer than two.
pub(super) fn convergence_rate(records: &[RoundRecord], window: u64) -> Option<f64> {
    let window = usize::try_from(window).unwrap_or(usize::MAX);
    let records = since_rollback(records);
    let recent = &records[records.len().saturating_sub(window)..];
    let point = |record: &RoundRecord| {
        record.metric("loss").filter(|loss| *loss > 0.0).map(|loss| (record.round as f64, loss.ln()))
    };
    let points: Vec<(f64, f64)> = recent.iter().filter_map(point).collect();
    let count = points.len() as f64;
    let mean_round = points.iter().map(|point| point.0).sum::<f64>() / count;
    let mean_log = points.iter().map(|point| point.1).sum::<f64>() / count;
    let both: f64 = points.iter().map(|(round, log)| (round - mean_round) * (log - mean_log)).sum();
    let squares: f64 = points.iter().map(|(round, _)| (round - mean_round).powi(2)).sum();
    // Minus, and 0 instead of -0.
    Some(0.0 - both / squares).filter(|rate| rate.is_finite())
}

/// The records since the last rollback: since the last round that began with another model than the round before left.
fn since_rollback(records: &[RoundRecord]) -> &[RoundRecord] {
    let mut model = None;
    let mut start = 0;
    for (place, record) in records.iter().enumerate() {
        if model.is_some() && record.base.is_some() && record.base != model {
            start = place;
        }
        model = match record.outcome {
            Outcome::Published => record.model.clone(),
            Outcome::Refused(_) => record.base.clone(),
        };
    }
    &records[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(losses: &[f64]) -> Vec<RoundRecord> {
        let record = |(round, loss): (u64, &f64)| {
            let mut record = RoundRecord::new(round, 0.0, 1.0);
            record.metrics.insert("loss".to_owned(), *loss);
            record
        };
        (1..).zip(losses).map(record).collect()
    }

    #[test]
    fn a_loss_that_falls_by_a_constant_factor_has_its_logarithm_as_rate() {
        let losses: Vec<f64> = (0..20).map(|round| 3.0 * (-0.25 * f64::from(round)).exp()).collect();
        let rate = |window| convergence_rate(&rounds(&losses), window).unwrap();
        for window in [2, 3, 10, 1000] {
            assert!((rate(window) - 0.25).abs() < 1e-12, "{window}");
        }
    }

    #[test]
    fn the_rate_needs_two_positive_losses_in_the_window() {
        assert_eq!(convergence_rate(&rounds(&[]), 10), None);
        assert_eq!(convergence_rate(&rounds(&[1.0]), 10), None);
        assert_eq!(convergence_rate(&rounds(&[1.0, 0.0, f64::NAN, -2.0]), 10), None);
        assert_eq!(convergence_rate(&rounds(&[1.0, 2.0, 0.0]), 2), None);
        let rate = convergence_rate(&rounds(&[1.0, f64::NAN, 0.25]), 10).unwrap();
        assert!((rate - 2f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn only_the_window_counts() {
        let losses = [100.0, 50.0, 1.0, 1.0, 1.0];
        assert_eq!(convergence_rate(&rounds(&losses), 3), Some(0.0));
    }

    #[test]
    fn a_round_that_asked_no_client_has_no_participation() {
        assert_eq!(Derived::of(&[], 10), None);
        let mut record = RoundRecord::new(1, 0.0, 1.0);
        assert_eq!(Derived::of(&[record.clone()], 10).unwrap().node_participation, None);
        record.clients.selected = 8;
        record.clients.merged = 6;
        assert_eq!(Derived::of(&[record], 10).unwrap().node_participation, Some(0.75));
    }

    #[test]
    fn the_last_success_is_that_of_the_last_published_round() {
        let mut records = vec![RoundRecord::new(1, 0.0, 1.0), RoundRecord::new(2, 1.0, 2.0)];
        assert_eq!(Derived::of(&records, 10).unwrap().last_published_at, Some(2.0));
        records[1].outcome = Outcome::Refused("too few clients".to_owned());
        assert_eq!(Derived::of(&records, 10).unwrap().last_published_at, Some(1.0));
        assert_eq!(Derived::of(&records[1..], 10).unwrap().last_published_at, None);
    }

    #[test]
    fn the_rounds_before_a_rollback_do_not_count() {
        let mut records = rounds(&[4.0, 2.0, 8.0, 1.0, 0.5]);
        let models = [("a", "b"), ("b", "c"), ("c", "d"), ("b", "e"), ("e", "f")];
        for (record, (base, model)) in records.iter_mut().zip(models) {
            (record.base, record.model) = (Some(base.to_owned()), Some(model.to_owned()));
        }
        assert_eq!(convergence_rate(&records[..3], 10), convergence_rate(&rounds(&[4.0, 2.0, 8.0]), 10));
        assert_eq!(convergence_rate(&records[..4], 10), None);
        assert!((convergence_rate(&records, 10).unwrap() - 2f64.ln()).abs() < 1e-12);
        records[4].outcome = Outcome::Refused("why".to_owned());
        records.push(RoundRecord { base: Some("e".to_owned()), ..records[4].clone() });
        assert_eq!(since_rollback(&records).len(), 3);
    }
}
