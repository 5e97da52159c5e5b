//! The textfile that Prometheus reads through node_exporter.
//!
//! Source: Prometheus, "Exposition formats", version 0.0.4 of the text format. node_exporter refuses timestamps, and two
//! samples with equal labels; one faulty file takes all figures of its folder away.

use super::derived::Derived;
use super::figures::FIGURES;
use super::metrics::RoundRecord;
use std::borrow::Cow;
use std::fmt::Write as _;

/// What the name of every figure starts with.
pub const PREFIX: &str = "fedmill_";

/// The figures of the last round. `federation` is the label that distinguishes federations on one machine.
///
/// Figures without a value are left out; none is 0 for lack of a value.
pub fn text(record: &RoundRecord, derived: &Derived, federation: &str) -> String {
    let mut text = String::new();
    let federation = escaped(federation);
    for figure in FIGURES {
        let values = figure.values(record, derived);
        if values.is_empty() {
            continue;
        }
        let name = figure.name;
        let _ = writeln!(text, "# HELP {PREFIX}{name} {}", figure.help);
        let _ = writeln!(text, "# TYPE {PREFIX}{name} {}", figure.kind.name());
        for (of, value) in values {
            let _ = write!(text, "{PREFIX}{name}{{federation=\"{federation}\"");
            if let (Some(label), Some(of)) = (figure.label(), of) {
                let _ = write!(text, ",{label}=\"{}\"", escaped(of));
            }
            let _ = writeln!(text, "}} {value:?}");
        }
    }
    text
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
    use std::collections::BTreeSet;

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
