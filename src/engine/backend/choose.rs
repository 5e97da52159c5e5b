//! Where a run computes: as asked for, and as it turned out.

use crate::engine::backend::calibration::{Calibration, Host};
use crate::engine::backend::forecast::{Look, Merge, Reduced, Work, forecast};
use crate::engine::decide::judge::Aggregation;
use crate::engine::intake::admit::UpdateSet;
use crate::engine::passes::geometry::Distances;
use crate::engine::passes::gpu_ring::{self, Device};
use crate::gpu::Gpu;
use crate::gpu::job::{GpuError, Options};
use crate::kernels::lanes::Isa;
use crate::rules::{self, Needs, OrderStatistic, Reduction, Statistics};
use crate::telemetry::console;

/// Where to compute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// Where it is predicted to be faster.
    Auto,
    /// On the processor.
    Cpu,
    /// On a GPU, or not at all.
    Gpu,
}

/// Where to compute, and how devices are opened.
#[derive(Clone, Debug)]
pub struct Backend {
    /// Where.
    pub asked: Asked,
    /// Which device, and how.
    pub options: Options,
    /// What was measured of this host; none for what the cache holds.
    pub calibration: Option<Calibration>,
    /// Tell what was predicted.
    pub explain: bool,
}

/// Where a run computes, and why.
#[derive(Debug)]
pub(crate) struct Chosen {
    pub(crate) device: Option<Device>,
    pub(crate) why: String,
}

impl Chosen {
    pub(crate) fn cpu(why: impl Into<String>) -> Self {
        Self { device: None, why: why.into() }
    }

    /// The name of the backend, as a report has it.
    pub(crate) fn name(&self) -> &'static str {
        if self.device.is_some() { "gpu" } else { "cpu" }
    }

    /// The backend for people.
    pub(crate) fn description(&self, isa: Isa, threads: usize) -> String {
        match &self.device {
            Some(device) => {
                format!("gpu, {} ({})", device.gpu().adapter().name, device.gpu().adapter().driver)
            }
            None => format!("cpu with {isa} on {threads} threads"),
        }
    }

    /// Gives the device up.
    pub(crate) fn give_up(&mut self, why: &GpuError) {
        self.why = format!("{why}; the CPU took over");
        self.device = None;
    }
}

impl Backend {
    /// Opens what was asked for, for a set of updates and what is to be done to it.
    pub(crate) fn choose(
        &self,
        set: &UpdateSet,
        aggregation: &Aggregation,
        statistics: &Statistics,
        host: &Host,
    ) -> Result<Chosen, GpuError> {
        if self.explain || self.asked == Asked::Auto {
            let (calibration, unusable) = self.calibration(host);
            let forecast = forecast(&calibration, &work(set, aggregation, statistics));
            if self.explain {
                console::tell(&forecast.to_string());
            }
            if self.asked == Asked::Auto {
                let why = unusable.unwrap_or_else(|| forecast.choice.why().to_owned());
                return Ok(match forecast.choice.is_gpu() && !gpu_ring::parts(set).is_empty() {
                    true => self.try_device(&calibration, why, host.threads),
                    false => Chosen::cpu(why),
                });
            }
        }
        if self.asked == Asked::Cpu {
            return Ok(Chosen::cpu("--backend cpu"));
        }
        let device = self.open(host.threads, false)?;
        if gpu_ring::parts(set).is_empty() {
            return Err(GpuError::NothingToDo { adapter: device.gpu().adapter().name.clone() });
        }
        Ok(Chosen { device: Some(device), ..Chosen::cpu("--backend gpu") })
    }

    /// What is known of this host, and why the cache was of no use if it was not.
    fn calibration(&self, host: &Host) -> (Calibration, Option<String>) {
        let found = match &self.calibration {
            Some(known) => Ok(known.clone()),
            None => Calibration::load(host),
        };
        match found {
            Ok(known) => (known, None),
            Err(why) => (Calibration::default(), Some(why.to_string())),
        }
    }

    /// The device that a calibration is of, or the CPU and the reason.
    fn try_device(&self, calibration: &Calibration, why: String, threads: usize) -> Chosen {
        let opened = self.open(threads, true).map_err(|why| why.to_string()).and_then(|device| {
            let measured = calibration.device.as_ref().map_or(Ok(()), |of| of.is_of(device.gpu().adapter()));
            measured.map(|()| device).map_err(|why| why.to_string())
        });
        match opened {
            Ok(device) => Chosen { device: Some(device), ..Chosen::cpu(why) },
            Err(why) => {
                tracing::warn!("{why}; the CPU is used");
                Chosen::cpu(why)
            }
        }
    }

    fn open(&self, threads: usize, falls_back: bool) -> Result<Device, GpuError> {
        let gpu = Gpu::open(&self.options)?;
        let adapter = gpu.adapter().name.clone();
        Device::new(gpu, threads, falls_back)
            .map_err(|why| GpuError::NotOpened { adapter, why: why.to_string() })
    }
}

/// What merging a set takes, as far as that can be told before anything is read.
fn work(set: &UpdateSet, aggregation: &Aggregation, statistics: &Statistics) -> Work {
    let clients = set.clients.len();
    let parameters = set.layout.parameters().max(1);
    let reduction = reduction(aggregation, statistics);
    let mixes = !aggregation.pre.is_empty() && reduction != Reduced::WeightedSum;
    let look = Look {
        rows: clients,
        points: clients + 1,
        mixed: false,
        differences: aggregation.distances.resolved(clients) == Distances::Direct,
    };
    Work {
        clients,
        parameters,
        value_bytes: (set.data_bytes() / (clients * parameters) as u64).max(1) as usize,
        looks: if aggregation.looks(clients) { vec![look] } else { Vec::new() },
        merge: Merge { clients, mixtures: mixes.then_some(clients), reduction },
    }
}

/// What the second pass makes of rows: rules that judge clients end in a sum of them.
fn reduction(aggregation: &Aggregation, statistics: &Statistics) -> Reduced {
    let rule = aggregation.rule.as_ref();
    if rule.needs() > Needs::Nothing {
        return Reduced::WeightedSum;
    }
    match rules::decide(rule, statistics).map(|decision| decision.recipe.reduction) {
        Ok(Reduction::Select(OrderStatistic::Median)) => Reduced::Median,
        Ok(Reduction::Select(OrderStatistic::TrimmedMean { .. })) => Reduced::TrimmedMean,
        Ok(Reduction::Select(OrderStatistic::MeanNearMedian { .. })) => Reduced::MeanNearMedian,
        _ => Reduced::WeightedSum,
    }
}
