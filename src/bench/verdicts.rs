//! Draws which clients a merge kept: a mark for each client, in order of the rule's scores.

use super::BenchError;
use super::picture::{Format, Mark};
use super::scatter::{BLUE, DARK, Group, ORANGE, Point, Scale, Scatter};
use crate::telemetry::axis::Axis;
use crate::telemetry::escape::escaped;
use crate::telemetry::report::{ClientRow, Report};
use plotters::coord::ranged1d::Ranged;

/// Draws the verdicts of a report as a file of this format.
///
/// # Errors
///
/// When they cannot be drawn.
pub fn draw(report: &Report, format: Format) -> Result<Vec<u8>, BenchError> {
    scatter(report).render(format)
}

/// What the left axis shows: the score, or for a rule without scores the share or the norm.
struct Measure {
    noun: &'static str,
    name: String,
    of: fn(&ClientRow) -> Option<f64>,
}

impl Measure {
    fn of(report: &Report) -> Self {
        let rule = report.settings.rule.split(':').next().unwrap_or_default();
        let has =
            |of: fn(&ClientRow) -> Option<f64>| report.clients.iter().any(|client| of(client).is_some());
        let score: fn(&ClientRow) -> Option<f64> = |client| client.score.filter(|score| score.is_finite());
        let share: fn(&ClientRow) -> Option<f64> = |client| client.weight.map(|weight| 100.0 * weight);
        match (has(score), has(share)) {
            (true, _) => Self { noun: "score", name: format!("score of {rule} (no unit)"), of: score },
            (false, true) => {
                Self { noun: "share", name: "share of the merged model (percent)".to_owned(), of: share }
            }
            (false, false) => Self {
                noun: "norm",
                name: "L2 norm of the update (no unit)".to_owned(),
                of: |client| client.norm,
            },
        }
    }
}

fn scatter(report: &Report) -> Scatter {
    let measure = Measure::of(report);
    let mut clients: Vec<(&ClientRow, Option<f64>)> =
        report.clients.iter().map(|client| (client, (measure.of)(client))).collect();
    // Clients without a value stand last.
    let key = |value: Option<f64>| value.unwrap_or(f64::INFINITY);
    clients.sort_by(|a, b| key(a.1).total_cmp(&key(b.1)).then_with(|| a.0.id.cmp(&b.0.id)));
    let axis = Axis::of(clients.iter().filter_map(|client| client.1));
    let bottom = axis.range().start;
    let all = clients.len() + report.rejected.len();
    let kept = clients.iter().filter(|(client, _)| client.kept).count();
    let left_out = clients.len() - kept;

    let (mut in_model, mut out_of_model) = (Vec::new(), Vec::new());
    for (place, (client, value)) in (1..).zip(&clients) {
        let at = (f64::from(place), value.unwrap_or(bottom));
        // The fewer have labels.
        let is_labelled = left_out > 0 && client.kept == (kept < left_out);
        let group = if client.kept { &mut in_model } else { &mut out_of_model };
        group.push(Point::of_client(&client.id, at, is_labelled));
    }
    // The farthest from those kept have their labels first.
    out_of_model.reverse();
    let skipped = (clients.len() as u32 + 1..).zip(&report.rejected);
    let skipped =
        skipped.map(|(place, row)| Point::of_client(&row.id, (f64::from(place), bottom), true)).collect();
    let group = |mark, name: &str, points| Group { mark, name: name.to_owned(), points };
    let valued = clients.iter().filter(|client| client.1.is_some()).count();
    let without = if valued < all { "; those without one at the end, at the bottom" } else { "" };
    let steps = match report.settings.pre.as_slice() {
        [] => String::new(),
        steps => format!(" after {}", steps.join(", ")),
    };
    let title = format!("{}{steps}: {kept} of {all} clients in the merged model", report.settings.rule);
    Scatter {
        title: escaped(&title).into_owned(),
        across: Scale {
            name: format!("clients in order of {}{without}", measure.noun),
            axis: Axis::whole([0.0, all as f64 + 1.0].into_iter()),
        },
        up: Scale { name: measure.name, axis },
        groups: vec![
            group(Mark::Cross(DARK), "skipped: bad update", skipped),
            group(Mark::Triangle(ORANGE), "left out", out_of_model),
            group(Mark::Dot(BLUE), "kept", in_model),
        ],
        limit: limit(&clients),
        notes: Vec::new(),
    }
}

/// The last value that was kept, if all values on one side of it were kept and all others not.
fn limit(clients: &[(&ClientRow, Option<f64>)]) -> Option<(f64, String)> {
    let values =
        |kept: bool| clients.iter().filter(move |(client, _)| client.kept == kept).filter_map(|c| c.1);
    let ends = |kept: bool| {
        let (low, high) = values(kept)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        (low <= high).then_some((low, high))
    };
    let ((kept_low, kept_high), (out_low, out_high)) = (ends(true)?, ends(false)?);
    if kept_high <= out_low {
        return Some((kept_high, "largest kept".to_owned()));
    }
    (kept_low >= out_high).then(|| (kept_low, "least kept".to_owned()))
}
