//! What a terminal shows of a benchmark.

use super::results::{Limits, Machine, Results, Row, Work, duration, short};
use crate::telemetry::cells::Listing;
use std::fmt::Write as _;

/// What a terminal shows of results: the machine, the rows, the crossovers, and what was not measured.
pub fn text(results: &Results) -> String {
    let mut text = head(&results.machine, &results.limits);
    let settings = &results.settings;
    let _ = writeln!(text, "median of {} runs after {}\n", settings.samples, settings.warm_up);
    for (work, title) in [
        (Work::Kernel, "kernels"),
        (Work::Aggregate, "aggregate, files to file"),
        (Work::Command, "other commands, files to files"),
    ] {
        let rows: Vec<&Row> = results.rows.iter().filter(|row| row.subject.work == work).collect();
        if !rows.is_empty() {
            let _ = writeln!(text, "{title}\n{}\n", table(&rows));
        }
    }
    for crossover in &results.crossovers {
        let _ = writeln!(text, "{crossover}");
    }
    for left_out in &results.left_out {
        let _ = writeln!(text, "not measured: {}: {}", left_out.case, left_out.why);
    }
    text
}

fn head(machine: &Machine, limits: &Limits) -> String {
    let mut head = format!(
        "{}, {}, {} threads, {}\n",
        machine.processor, machine.instruction_set, machine.threads, machine.operating_system
    );
    let mut line = |name: &str, memory: f64, sums: f64| {
        let _ =
            writeln!(head, "{name}: memory {:.1} GB/s, {:.1} G multiply-adds/s", memory / 1e9, sums / 1e9);
    };
    line("limits of the host", limits.host.memory_bytes_per_s, limits.host.multiply_adds_per_s);
    for adapter in &machine.adapters {
        if let Some(found) = limits.devices.get(&adapter.name) {
            let name = format!("{} ({}, {}), limits", adapter.name, adapter.kind, adapter.driver);
            line(&name, found.memory_bytes_per_s, found.multiply_adds_per_s);
        }
    }
    head
}

fn table(rows: &[&Row]) -> String {
    let header = [
        "work",
        "dtype",
        "parameters",
        "clients",
        "backend",
        "p50",
        "p90",
        "p99",
        "GB/s",
        "of limit",
        "limit",
        "transfer",
        "compute",
    ];
    let mut table = Listing::with_header(header).right([2, 3, 5, 6, 7, 8, 9, 11, 12]);
    for row in rows {
        let (latency, part) = (&row.latency, |ns: Option<u64>| ns.map_or("-".to_owned(), duration));
        table.add([
            row.subject.name.clone(),
            row.subject.dtype.clone(),
            short(row.subject.parameters),
            row.clients.to_string(),
            row.backend.to_string(),
            duration(latency.total.p50_ns),
            duration(latency.total.p90_ns),
            duration(latency.total.p99_ns),
            format!("{:.2}", row.bytes_per_s / 1e9),
            format!("{:.0} %", row.share_of_limit * 100.0),
            row.limit.name.to_owned(),
            part(latency.transfer.map(|time| time.p50_ns)),
            part(latency.compute.map(|time| time.p50_ns)),
        ]);
    }
    table.text(&[])
}
