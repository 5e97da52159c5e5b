//! A device and the results of its self-tests.

use super::{findings, write_section};
use crate::gpu::job::{Adapter, Finding, Options};
use crate::gpu::{self, Gpu};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// An adapter and the results of its self-tests.
pub(super) struct TestedAdapter {
    pub(super) adapter: Adapter,
    findings: Vec<Finding>,
}

impl TestedAdapter {
    pub(super) fn new(adapter: Adapter, options: &Options) -> Self {
        let named = Options { adapter: Some(adapter.name.clone()), ..options.clone() };
        let findings = match Gpu::open(&named) {
            Ok(gpu) => gpu::self_test(&gpu),
            Err(error) => vec![Finding {
                kernel: "open",
                case: "device".to_owned(),
                difference: Some(error.to_string()),
                milliseconds: 0.0,
            }],
        };
        Self { adapter, findings }
    }

    pub(super) fn failed(&self) -> usize {
        findings::failed(&self.findings)
    }

    pub(super) fn json(&self) -> Value {
        let adapter = &self.adapter;
        json!({
            "name": adapter.name,
            "kind": adapter.kind,
            "driver": adapter.driver,
            "interface": adapter.interface,
            "memory_bytes": adapter.memory,
            "subgroup_sizes": [adapter.subgroup.0, adapter.subgroup.1],
            "limits": adapter.limits.iter().copied().collect::<BTreeMap<_, _>>(),
            "features": adapter.features,
            "self_test": self.findings.iter().map(findings::json).collect::<Vec<_>>(),
        })
    }

    pub(super) fn write(&self, text: &mut String) {
        let adapter = &self.adapter;
        let subgroups = match adapter.subgroup {
            (0, _) => "none".to_owned(),
            (least, most) if least == most => format!("of {least}"),
            (least, most) => format!("of {least} to {most}"),
        };
        let memory = adapter.memory.map_or("unknown".to_owned(), |bytes| format!("{} MiB", bytes >> 20));
        let limits: Vec<String> =
            adapter.limits.iter().map(|(name, value)| format!("{name} {value}")).collect();
        let lines = [
            ("kind", adapter.kind.to_owned()),
            ("driver", adapter.driver.clone()),
            ("interface", adapter.interface.clone()),
            ("memory", memory),
            ("subgroups", subgroups),
            ("features", adapter.features.join(", ")),
            ("limits", limits.join("\n")),
        ];
        write_section(text, &format!("adapter {}", adapter.name), &lines);
        let _ = writeln!(text, "{}\n", findings::table(&self.findings));
    }
}
