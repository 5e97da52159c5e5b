//! What the devices of this machine are, and whether they compute what the processor computes.
//!
//! `adapter` tests one device, [`noise`] the noise of a private round on all. [`findings`] shows what tests found, and
//! `advice` names what is missing if there is no GPU.

mod adapter;
mod advice;
pub mod findings;
pub mod noise;

use crate::gpu;
use crate::gpu::job::{Adapter, GpuError, Options, named};
use crate::io::interrupt::{self, Interrupted};
use crate::io::machine;
use crate::io::system::{self, Vulkan};
use crate::kernels::lanes::Isa;
use crate::telemetry::explain::Explain;
use adapter::TestedAdapter;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// The processor, the adapters and the advice.
pub struct Examination {
    isa: Isa,
    threads: usize,
    vulkan: Vulkan,
    adapters: Vec<TestedAdapter>,
    advice: Vec<String>,
}

/// Why a machine could not be examined.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum DoctorError {
    #[error(transparent)]
    Gpu(#[from] GpuError),
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

impl Explain for DoctorError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Gpu(why) => why.hint().map(str::to_owned),
            Self::Interrupted(_) => None,
        }
    }

    fn signal(&self) -> Option<i32> {
        match self {
            Self::Gpu(_) => None,
            Self::Interrupted(interrupted) => Some(interrupted.signal),
        }
    }
}

impl Examination {
    /// Tests the adapters: all of them, or those that the options name.
    ///
    /// # Errors
    ///
    /// When no adapter has the name, or a signal asks to stop.
    pub fn of(isa: Isa, threads: usize, options: &Options) -> Result<Self, DoctorError> {
        let (found, vulkan) = (gpu::adapters(), system::vulkan());
        let advice = advice::advice(&vulkan, &found);
        let mut adapters = Vec::new();
        for adapter in named(found, options.adapter.as_deref())? {
            interrupt::check()?;
            adapters.push(TestedAdapter::new(adapter, options));
        }
        Ok(Self { isa, threads, vulkan, adapters, advice })
    }

    /// The number of self-tests that failed.
    pub fn failed(&self) -> usize {
        self.adapters.iter().map(TestedAdapter::failed).sum()
    }

    /// The adapter to measure: the first, or the first that is no software adapter unless options named one.
    pub fn best(&self, is_named: bool) -> Option<&Adapter> {
        let mut adapters = self.adapters.iter().map(|tested| &tested.adapter);
        adapters.find(|adapter| is_named || !adapter.is_software())
    }

    /// The examination for people.
    pub fn text(&self) -> String {
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

    /// The examination as one JSON object.
    pub fn json(&self) -> Value {
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
            "ok": self.failed() == 0,
        })
    }
}

fn sets() -> Vec<String> {
    Isa::available().iter().map(Isa::to_string).collect()
}

/// Writes a heading, and names with values below it.
fn write_section(text: &mut String, heading: &str, lines: &[(&str, String)]) {
    let _ = writeln!(text, "{heading}");
    for (name, value) in lines {
        let _ = writeln!(text, "  {name:<16} {}", value.replace('\n', &format!("\n  {:<16} ", "")));
    }
}
