//! What self-tests found, as JSON and for people.

use crate::gpu::job::Finding;
use crate::telemetry::cells::Listing;
use serde_json::{Value, json};

/// The number of self-tests that failed.
pub fn failed(findings: &[Finding]) -> usize {
    findings.iter().filter(|finding| finding.difference.is_some()).count()
}

/// A finding as a JSON object.
pub fn json(finding: &Finding) -> Value {
    json!({
        "kernel": finding.kernel,
        "case": finding.case,
        "ok": finding.difference.is_none(),
        "difference": finding.difference,
        "milliseconds": finding.milliseconds,
    })
}

/// A table of findings.
pub fn table(findings: &[Finding]) -> String {
    let mut table = Listing::with_header(["  self-test", "case", "ms", ""]).right([2]);
    for finding in findings {
        let verdict = finding.difference.as_ref().map_or("ok".to_owned(), |why| format!("FAILED: {why}"));
        let time = format!("{:.1}", finding.milliseconds);
        table.add([format!("  {}", finding.kernel), finding.case.clone(), time, verdict]);
    }
    table.text(&[])
}
