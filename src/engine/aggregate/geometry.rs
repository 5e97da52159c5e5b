//! Where looks at the updates come from: passes over their files, on the device or on the CPU.

use crate::engine::decide::judge::Unjudged;
use crate::engine::intake::admit::UpdateSet;
use crate::engine::passes::drive::{Clock, PassError};
use crate::engine::passes::geometry::FirstPass;
use crate::engine::passes::geometry::sums::{FirstLook, Precision, Sought, Totals};
use crate::engine::passes::gpu_ring::Device;
use crate::engine::passes::sections::{Branches, sections_of};
use crate::engine::passes::survey::non_finite_faults;
use crate::gpu::job::GpuError;
use crate::kernels::lanes::Isa;
use crate::rules::mixing::Mixing;
use crate::telemetry::progress::Progress;
use rayon::ThreadPool;
use std::ops::Range;
use std::time::{Duration, Instant};

/// A look that judging asks for.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'m> {
    /// What to look for.
    pub sought: Sought,
    /// The updates to look at, as combinations of the clients'; none for these themselves.
    pub mixing: Option<&'m Mixing>,
    /// How many clients are assumed hostile, if the run says.
    pub hostile: Option<usize>,
}

/// Where looks come from.
pub trait Looks {
    /// Looks at all updates.
    ///
    /// # Errors
    ///
    /// When an update is bad, or a look cannot be had.
    fn look(&mut self, asked: Asked) -> Result<FirstLook, Unjudged>;

    /// Gives the device up: looks are the CPU's from now on. Returns whether there was one to give up.
    fn leave_device(&mut self) -> bool;
}

/// Looks that are passes over files.
pub struct Passes<'a> {
    /// The instruction set to run on.
    pub isa: Isa,
    /// The updates.
    pub set: &'a UpdateSet,
    /// The sections to look at.
    pub sections: Range<usize>,
    /// The threads to run on.
    pub pool: &'a ThreadPool,
    /// The device to look on; none for the CPU.
    pub device: Option<&'a Device>,
    /// Whether updates may stay on the device for the second pass.
    pub keeps: bool,
    /// Why the device was given up, if it was.
    pub device_failure: Option<GpuError>,
    /// Told about every tile.
    pub progress: &'a Progress,
    /// Passes made, where their time went, and how long they took.
    pub spent: Spent,
}

/// What passes took.
#[derive(Clone, Copy, Default, Debug)]
pub struct Spent {
    /// Reads of all updates.
    pub passes: u64,
    /// Their time, added over the threads.
    pub clock: Clock,
    /// Their time by the clock on the wall.
    pub elapsed: Duration,
}

/// Branches, and what was looked for in the end.
pub type Found = (Branches<Option<Totals>>, Sought);

impl Looks for Passes<'_> {
    fn look(&mut self, asked: Asked) -> Result<FirstLook, Unjudged> {
        let (branches, sought) = self.branches(asked)?;
        let look = sought.concluded(branches);
        // Of mixtures it is known which update was not finite: they are looked at after the updates.
        let faults = match asked.mixing {
            None => non_finite_faults(self.set, &look.measured),
            Some(_) => Vec::new(),
        };
        if faults.is_empty() { Ok(look) } else { Err(Unjudged::BadUpdates(faults)) }
    }

    fn leave_device(&mut self) -> bool {
        self.device.take().is_some()
    }
}

impl<'a> Passes<'a> {
    /// Passes over all sections of a set.
    pub fn over(
        set: &'a UpdateSet,
        isa: Isa,
        pool: &'a ThreadPool,
        device: Option<&'a Device>,
        progress: &'a Progress,
    ) -> Self {
        let sections = 0..sections_of(set.layout.parameters());
        let (device_failure, spent) = (None, Spent::default());
        Self { isa, set, sections, pool, device, keeps: true, device_failure, progress, spent }
    }

    /// The sums of the sections: by the device, and by the CPU where that fails and the CPU may take over.
    ///
    /// # Errors
    ///
    /// When an update cannot be read, or the device fails.
    pub fn branches(&mut self, asked: Asked) -> Result<Found, PassError> {
        match (self.pass(asked), self.device) {
            (Err(PassError::Gpu(why)), Some(device)) if device.falls_back => {
                tracing::warn!("{why}; the CPU takes over");
                self.device_failure = Some(why);
                self.device = None;
                self.pass(asked)
            }
            (found, _) => found,
        }
    }

    fn pass(&mut self, Asked { sought, mixing, hostile }: Asked) -> Result<Found, PassError> {
        self.progress.start("looking", self.set.data_bytes());
        let started = Instant::now();
        let device = self.device.filter(|_| sought.precision == Precision::Usual);
        let sought = Sought { on_device: device.is_some(), ..sought };
        let pass = FirstPass {
            isa: self.isa,
            set: self.set,
            sought,
            hostile,
            mixing,
            sections: self.sections.clone(),
            device,
            keeps: self.keeps && mixing.is_none(),
            progress: self.progress,
        };
        let (branches, clock) = pass.run(self.pool)?;
        self.spent.passes += 1;
        self.spent.elapsed += started.elapsed();
        self.spent.clock = self.spent.clock.and(clock);
        Ok((branches, sought))
    }
}
