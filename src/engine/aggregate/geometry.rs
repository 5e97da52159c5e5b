//! Measures the geometry of the updates by passes over their files, on the GPU or the CPU.

use crate::engine::decide::judge::Subject;
use crate::engine::decide::source::GeometrySource;
use crate::engine::intake::fault::Fault;
use crate::engine::passes::error::PassError;
use crate::engine::passes::geometry::GeometryPass;
use crate::engine::passes::geometry::sums::GeometrySums;
use crate::engine::passes::machine::{Machine, Meter};
use crate::engine::passes::sections::sections_of;
use crate::engine::passes::survey::Measured;
use crate::rules::{GeometryRequest, GeometryResult};
use crate::updates::metadata::UpdateKind;
use crate::updates::set::UpdateSet;
use std::ops::Range;

/// Why the geometry could not be measured.
#[derive(Debug)]
pub enum GeometryError {
    /// Bad updates and their faults, by index in the set.
    BadUpdates(Vec<(usize, Fault)>),
    /// The error of a pass.
    Pass(PassError),
}

/// Measures the geometry by passes over the files of a set.
pub struct FileGeometry<'a> {
    machine: &'a Machine<'a>,
    set: &'a UpdateSet,
    /// The sections to read.
    pub sections: Range<usize>,
    /// Whether the GPU may take part.
    pub on_gpu: bool,
    /// Whether updates may stay on the GPU for the second pass.
    pub keeps: bool,
    /// The bytes and the time that the passes took.
    pub spent: Spent,
}

/// The bytes and the time that passes took.
#[derive(Clone, Copy, Default, Debug)]
pub struct Spent {
    /// Bytes read from updates.
    pub bytes: u64,
    /// The time of the passes.
    pub meter: Meter,
}

impl<'a> FileGeometry<'a> {
    /// Passes over all sections of a set, on the GPU if the machine uses one.
    pub fn new(machine: &'a Machine<'a>, set: &'a UpdateSet) -> Self {
        let sections = 0..sections_of(set.layout.parameters());
        Self { machine, set, sections, on_gpu: true, keeps: true, spent: Spent::default() }
    }

    /// The sums of the sections.
    ///
    /// # Errors
    ///
    /// When an update cannot be read, or the GPU fails.
    pub fn sums(&mut self, request: &GeometryRequest) -> Result<GeometrySums, PassError> {
        let pass = GeometryPass {
            set: self.set,
            request: *request,
            sections: self.sections.clone(),
            on_gpu: self.on_gpu,
            keeps: self.keeps && request.mixing.is_none(),
        };
        let sums = pass.run(self.machine)?;
        let meter = self.machine.take_meter();
        self.spent.bytes += self.set.data_bytes();
        self.spent.meter.clock = self.spent.meter.clock.and(meter.clock);
        self.spent.meter.elapsed += meter.elapsed;
        Ok(sums)
    }
}

impl GeometrySource for FileGeometry<'_> {
    type Error = GeometryError;

    fn measure(&mut self, request: &GeometryRequest) -> Result<GeometryResult, GeometryError> {
        let (result, measured) = self.sums(request).map_err(GeometryError::Pass)?.conclude(request);
        // The updates were measured before their mixtures, and are finite.
        let faults = match request.mixing {
            None => faults_of_values(self.set, &measured),
            Some(_) => Vec::new(),
        };
        if faults.is_empty() { Ok(result) } else { Err(GeometryError::BadUpdates(faults)) }
    }

    fn leave_gpu(&mut self) -> bool {
        std::mem::take(&mut self.on_gpu) && self.machine.gpu().is_some()
    }
}

/// The faults of the clients with values that are not finite, or that the merged model cannot hold, by index in the set.
pub fn faults_of_values(set: &UpdateSet, measured: &[Measured]) -> Vec<(usize, Fault)> {
    measured.iter().enumerate().filter_map(|(i, of)| Some((i, of.bad_value_in(set, i)?.into()))).collect()
}

/// What the judgement needs to know of a set before any measurement.
pub fn subject_of(set: &UpdateSet) -> Subject {
    Subject {
        clients: set.clients.len(),
        parameters: set.layout.parameters(),
        are_bare_weights: set.base.is_none() && set.merged_kind == UpdateKind::Weights,
        has_centre: set.centre().is_some(),
        steps: set.carried.steps,
    }
}
