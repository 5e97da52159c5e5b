//! `fedmill doctor`: lists devices, tests them, and names what is missing.

mod advice;

use super::{Common, Failure, OUTPUT, Outcome, print};
use crate::bench;
use crate::gpu::job::{Adapter, Finding, GpuError, Options};
use crate::gpu::{self, Gpu};
use crate::io::system::{self, Vulkan};
use crate::io::{interrupt, machine};
use crate::kernels::lanes::Isa;
use crate::telemetry::console;
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// List the devices and test them.
///
/// Runs every kernel on every adapter, software adapters too, and compares the results with the CPU's. --adapter
/// limits this to one adapter. Names what to install if no GPU is found. The exit status is 1 if a test fails.
#[derive(Args, Debug)]
#[command(next_help_heading = OUTPUT)]
pub(super) struct Arguments {
    /// Measure the speed of the CPU and the GPU, and store it for --backend auto. Takes some seconds.
    #[arg(long)]
    calibrate: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// The processor, the adapters and the advice.
struct Examination {
    isa: Isa,
    threads: usize,
    vulkan: Vulkan,
    adapters: Vec<TestedAdapter>,
    advice: Vec<String>,
}

/// An adapter and the results of its self-tests.
struct TestedAdapter {
    adapter: Adapter,
    findings: Vec<Finding>,
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        let examination = examine(common)?;
        print(&if self.json { format!("{}\n", examination.json()) } else { examination.text() })?;
        let failed: usize = examination.adapters.iter().map(TestedAdapter::failed).sum();
        if failed > 0 {
            // A device that computes wrong results is not timed.
            return Ok(Outcome::Refused(format!("{failed} self-tests failed")));
        }
        if self.calibrate {
            calibrate(common, &examination)?;
        }
        Ok(Outcome::Done)
    }
}

/// Measures the host, and the named device or the best that is no software adapter.
fn calibrate(common: &Common, examination: &Examination) -> Result<(), Failure> {
    let mut options = common.gpu_options();
    let mut adapters = examination.adapters.iter().map(|tested| &tested.adapter);
    let best = adapters.find(|adapter| options.adapter.is_some() || !adapter.is_software());
    options.adapter = best.map(|adapter| adapter.name.clone());
    let device = best.map(|_| &options);
    let measured = bench::calibrate::calibrate(&common.pool()?, common.isa(), device)?;
    let path = measured.store()?;
    let of = best.map_or("the CPU alone", |adapter| &adapter.name);
    console::tell(&format!("calibrated {of}: {}", path.display()));
    Ok(())
}

fn examine(common: &Common) -> Result<Examination, Failure> {
    let (found, vulkan) = (gpu::adapters(), system::vulkan());
    let advice = advice::advice(&vulkan, &found);
    let options = common.gpu_options();
    let mut adapters = Vec::new();
    for adapter in chosen(found, &options).map_err(gpu_failure)? {
        interrupt::check().map_err(|interrupted| Failure {
            signal: Some(interrupted.signal),
            ..Failure::from(interrupted)
        })?;
        adapters.push(TestedAdapter::new(adapter, &options));
    }
    let threads = common.pool()?.current_num_threads();
    Ok(Examination { isa: common.isa(), threads, vulkan, adapters, advice })
}

pub(super) fn gpu_failure(error: GpuError) -> Failure {
    let hint = error.hint().map(str::to_owned);
    Failure { hint, ..Failure::from(error) }
}

/// All adapters, or those that the options name.
pub(super) fn chosen(found: Vec<Adapter>, options: &Options) -> Result<Vec<Adapter>, GpuError> {
    let Some(wanted) = &options.adapter else { return Ok(found) };
    let names = found.iter().map(|adapter| adapter.name.clone()).collect();
    let is_named = |adapter: &Adapter| adapter.name.to_lowercase().contains(&wanted.to_lowercase());
    let chosen: Vec<Adapter> = found.into_iter().filter(is_named).collect();
    if chosen.is_empty() {
        return Err(GpuError::NoSuchAdapter { wanted: wanted.clone(), found: names });
    }
    Ok(chosen)
}

impl TestedAdapter {
    fn new(adapter: Adapter, options: &Options) -> Self {
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

    fn failed(&self) -> usize {
        self.findings.iter().filter(|finding| finding.difference.is_some()).count()
    }

    fn json(&self) -> Value {
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
            "self_test": self.findings.iter().map(finding_json).collect::<Vec<_>>(),
        })
    }

    fn write(&self, text: &mut String) {
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
        let _ = writeln!(text, "{}\n", findings_table(&self.findings));
    }
}

/// Writes a heading, and names with values below it.
fn write_section(text: &mut String, heading: &str, lines: &[(&str, String)]) {
    let _ = writeln!(text, "{heading}");
    for (name, value) in lines {
        let _ = writeln!(text, "  {name:<16} {}", value.replace('\n', &format!("\n  {:<16} ", "")));
    }
}

pub(super) fn finding_json(finding: &Finding) -> Value {
    json!({
        "kernel": finding.kernel,
        "case": finding.case,
        "ok": finding.difference.is_none(),
        "difference": finding.difference,
        "milliseconds": finding.milliseconds,
    })
}

pub(super) fn findings_table(findings: &[Finding]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["  self-test", "case", "ms", ""]);
    if let Some(column) = table.column_mut(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for finding in findings {
        let verdict = finding.difference.as_ref().map_or("ok".to_owned(), |why| format!("FAILED: {why}"));
        let time = format!("{:.1}", finding.milliseconds);
        table.add_row([format!("  {}", finding.kernel), finding.case.clone(), time, verdict]);
    }
    table.trim_fmt()
}

impl Examination {
    fn text(&self) -> String {
        let mut text = String::new();
        let cores = machine::cores().map_or("unknown".to_owned(), |cores| cores.to_string());
        let lines = [
            ("model", machine::processor()),
            ("cores", cores),
            ("threads", self.threads.to_string()),
            ("instruction set", format!("{} (there are {})", self.isa, sets().join(", "))),
        ];
        write_section(&mut text, "processor", &lines);
        text.push('\n');
        self.adapters.iter().for_each(|tested| tested.write(&mut text));
        if self.adapters.is_empty() {
            text.push_str("no adapter was found: everything runs on the CPU\n");
        }
        for advice in &self.advice {
            let _ = writeln!(text, "- {advice}");
        }
        text
    }

    fn json(&self) -> Value {
        let vulkan = &self.vulkan;
        json!({
            "schema": "fedmill.doctor/1",
            "version": env!("CARGO_PKG_VERSION"),
            "processor": {
                "model": machine::processor(),
                "cores": machine::cores(),
                "threads": self.threads,
                "instruction_set": self.isa.to_string(),
                "instruction_sets": sets(),
            },
            "vulkan": {
                "loader": vulkan.has_loader,
                "manifests": vulkan.manifests,
                "manifests_named_by": vulkan.named_by,
                "nvidia_module": vulkan.has_nvidia_module,
                "render_node": vulkan.has_render_node,
            },
            "adapters": self.adapters.iter().map(TestedAdapter::json).collect::<Vec<_>>(),
            "advice": self.advice,
            "ok": self.adapters.iter().all(|tested| tested.failed() == 0),
        })
    }
}

fn sets() -> Vec<String> {
    Isa::available().iter().map(Isa::to_string).collect()
}
