//! The textfile that Prometheus reads through node_exporter.
//!
//! Source: Prometheus, "Exposition formats", version 0.0.4 of the text format. node_exporter refuses timestamps, and two
//! samples with equal labels; one faulty file takes all figures of its folder away.

use super::derived::Derived;
use super::figures::{FIGURES, Kind};
use super::metrics::RoundRecord;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// What the name of every figure starts with.
pub const PREFIX: &str = "fedmill_";

/// A figure with its samples.
pub struct Family<'a> {
    /// Its name without [`PREFIX`].
    pub name: &'static str,
    /// How it changes.
    pub kind: Kind,
    /// What it is.
    pub help: &'static str,
    /// Its values, each with its labels.
    pub samples: Vec<(Labels<'a>, f64)>,
}

/// The names of labels with their values.
pub type Labels<'a> = Vec<(&'static str, Cow<'a, str>)>;

/// The text of figures. Leaves out values that are not finite, the second value of equal labels, and figures without a
/// value; none is 0 for lack of a value.
pub fn page<'a>(families: impl IntoIterator<Item = Family<'a>>) -> String {
    let mut text = String::new();
    for Family { name, kind, help, samples } in families {
        let mut seen = BTreeSet::new();
        for (labels, value) in samples.into_iter().filter(|(_, value)| value.is_finite()) {
            let labels: Vec<String> =
                labels.iter().map(|(label, of)| format!("{label}=\"{}\"", escaped(of))).collect();
            let labels = labels.join(",");
            if seen.contains(&labels) {
                continue;
            }
            if seen.is_empty() {
                let _ = writeln!(text, "# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} {}", kind.name());
            }
            let _ = writeln!(text, "{PREFIX}{name}{{{labels}}} {value:?}");
            seen.insert(labels);
        }
    }
    text
}

/// The figures of the last round. `federation` is the label that distinguishes federations on one machine.
pub fn text(record: &RoundRecord, derived: &Derived, federation: &str) -> String {
    page(FIGURES.iter().map(|figure| {
        let sample = |(of, value): (Option<&'_ str>, f64)| {
            let own = figure.label().zip(of).map(|(label, of)| (label, of.to_owned().into()));
            (std::iter::once(("federation", federation.into())).chain(own).collect(), value)
        };
        let samples = figure.values(record, derived).into_iter().map(sample).collect();
        Family { name: figure.name, kind: figure.kind, help: figure.help, samples }
    }))
}

/// A label's value as it stands between quotes.
fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(['\\', '"', '\n']) {
        return text.into();
    }
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::figures::Figure;
    use crate::telemetry::metrics::ClientFigures;

    fn text_of(record: &RoundRecord) -> String {
        let derived = Derived::of(std::slice::from_ref(record), 10).unwrap();
        text(record, &derived, "digits")
    }

    #[test]
    fn a_figure_has_its_help_its_type_and_no_timestamp() {
        let mut record = RoundRecord::new(7, 100.0, 160.5);
        record.metrics = [("accuracy".to_owned(), 0.875), ("loss".to_owned(), 1e-9)].into();
        record.phase_s.insert("collect".to_owned(), 60.0);
        let text = text_of(&record);
        for line in [
            "# HELP fedmill_round Number of the last finished round",
            "# TYPE fedmill_round gauge",
            "fedmill_round{federation=\"digits\"} 7.0",
            "fedmill_last_success_timestamp_seconds{federation=\"digits\"} 160.5",
            "fedmill_phase_seconds{federation=\"digits\",phase=\"collect\"} 60.0",
            "fedmill_model_accuracy{federation=\"digits\"} 0.875",
            "fedmill_evaluation{federation=\"digits\",metric=\"loss\"} 1e-9",
            "# TYPE fedmill_communication_cost_bytes_total counter",
        ] {
            assert!(text.lines().any(|found| found == line), "no line {line} in\n{text}");
        }
    }

    #[test]
    fn values_that_are_missing_or_not_finite_are_left_out() {
        let mut record = RoundRecord::new(1, 0.0, 1.0);
        record.metrics = [("accuracy".to_owned(), f64::NAN), ("loss".to_owned(), f64::INFINITY)].into();
        let text = text_of(&record);
        for absent in
            ["accuracy", "evaluation", "convergence", "coherence", "privacy", "arrival", "NaN", "inf"]
        {
            assert!(!text.contains(absent), "{absent} in\n{text}");
        }
    }

    #[test]
    fn hostile_labels_stay_one_sample_each() {
        let row = |id: &str, norm| ClientFigures {
            id: id.to_owned(),
            outcome: "merged".to_owned(),
            norm: Some(norm),
            kept: true,
            reason: None,
        };
        let mut record = RoundRecord::new(1, 0.0, 1.0);
        record.rows = Some(vec![row("a\"} 9\nfedmill_round 1 \\", 1.0), row("b", 2.0), row("b", 3.0)]);
        let text = text_of(&record);
        let samples: Vec<&str> = text.lines().filter(|line| line.starts_with("fedmill_client")).collect();
        let of =
            |client: &str| format!("fedmill_client_update_norm{{federation=\"digits\",client=\"{client}\"}}");
        assert_eq!(
            samples[samples.len() - 2..],
            [of(r#"a\"} 9\nfedmill_round 1 \\"#) + " 1.0", of("b") + " 2.0",]
        );
    }

    #[test]
    fn names_are_valid_and_differ() {
        let is_valid = |text: &str| text.chars().all(|c| c == '_' || c.is_ascii_lowercase());
        let names: BTreeSet<&str> = FIGURES.iter().map(|figure| figure.name).collect();
        assert_eq!(names.len(), FIGURES.len());
        let labels = FIGURES.iter().filter_map(Figure::label);
        assert!(names.iter().copied().chain(labels).all(is_valid));
        assert!(FIGURES.iter().all(|figure| !figure.help.contains(['\\', '\n', '|'])));
    }
}
