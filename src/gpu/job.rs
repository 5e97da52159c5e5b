//! The jobs, results and errors of a device. Plain data, the same without the `gpu` feature.

use crate::gpu::step::StepJob;
use crate::model::dtype::Working;
use std::time::Duration;

/// Most rows that order statistics sort on a device.
pub const MOST_SORTED_ROWS: usize = 10_240;

/// The device to open, and the way to open it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// A part of the adapter's name, in any case; `None` means the best that is no software adapter.
    pub adapter: Option<String>,
    /// Whether to keep the checks of bounds and loops in shaders.
    pub checked: bool,
    /// Whether to use subgroup operations where the device has them.
    pub subgroups: bool,
    /// Slots of the ring; `None` means a number that suits the host.
    pub slots: Option<usize>,
    /// Bytes of rows in a slot.
    pub slot_bytes: usize,
    /// Most bytes of a binding, if less than the device allows.
    pub binding_bytes: Option<u64>,
    /// Bytes of device memory in which updates may stay between passes; `None` means seven tenths of it.
    pub resident_bytes: Option<u64>,
    /// The number of runs after which to destroy the device, as a driver crash would. For tests.
    pub lose_after: Option<usize>,
    /// Whether to fill the memory that kernels write with a pattern before each run. For tests: no result may depend on
    /// fresh memory.
    pub spoils: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            adapter: None,
            checked: false,
            subgroups: true,
            slots: None,
            slot_bytes: 32 << 20,
            binding_bytes: None,
            resident_bytes: None,
            lose_after: None,
            spoils: false,
        }
    }
}

/// A device as its driver describes it.
#[derive(Clone, PartialEq, Debug)]
pub struct Adapter {
    /// The name that the driver reports.
    pub name: String,
    /// `discrete`, `integrated`, `virtual`, `software` or `other`.
    pub kind: &'static str,
    /// Name and version of the driver.
    pub driver: String,
    /// The programming interface.
    pub interface: String,
    /// Smallest and largest number of invocations in a subgroup; zeros without subgroups.
    pub subgroup: (u32, u32),
    /// Bytes of its dedicated memory, if the driver reports them.
    pub memory: Option<u64>,
    /// Limits that size tiles, by name.
    pub limits: Vec<(&'static str, u64)>,
    /// Features that kernels use, by name.
    pub features: Vec<&'static str>,
}

impl Adapter {
    /// Whether the adapter computes on the processor.
    pub fn is_software(&self) -> bool {
        self.kind == "software"
    }
}

/// All adapters, or those whose name contains `wanted`, in any case.
///
/// # Errors
///
/// When no name does.
pub fn named(found: Vec<Adapter>, wanted: Option<&str>) -> Result<Vec<Adapter>, GpuError> {
    let Some(wanted) = wanted else { return Ok(found) };
    let is_named = |adapter: &Adapter| adapter.name.to_lowercase().contains(&wanted.to_lowercase());
    if !found.iter().any(is_named) {
        let found = found.into_iter().map(|adapter| adapter.name).collect();
        return Err(GpuError::NoSuchAdapter { wanted: wanted.to_owned(), found });
    }
    Ok(found.into_iter().filter(is_named).collect())
}

/// An error of a device.
#[derive(thiserror::Error, Clone, PartialEq, Debug)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum GpuError {
    #[error("this build has no GPU support")]
    NotBuilt,
    #[error("no GPU was found{}", list(" besides ", .software))]
    NoAdapter { software: Vec<String> },
    #[error("no adapter is called `{wanted}`{}", list(", expected one of ", .found))]
    NoSuchAdapter { wanted: String, found: Vec<String> },
    #[error("{adapter} could not be opened: {why}")]
    NotOpened { adapter: String, why: String },
    #[error("{adapter}: kernel `{kernel}` could not be compiled: {why}")]
    NotCompiled { adapter: String, kernel: String, why: String },
    #[error("{adapter}: no memory for {bytes} bytes: {why}")]
    OutOfMemory { adapter: String, bytes: u64, why: String },
    #[error("{adapter} was lost: {why}")]
    Lost { adapter: String, why: String },
    #[error("{adapter}: {finished} of {started} workgroups finished")]
    Unfinished { adapter: String, finished: u32, started: u32 },
    #[error(
        "{adapter}: {what}: the device computed {found:e}, the CPU {expected:e}; the bound on the difference is {bound:e}"
    )]
    Wrong { adapter: String, what: String, found: f64, expected: f64, bound: f64 },
    #[error(
        "{adapter} has nothing to compute: every tensor is f64 or integer, expected floats of up to 32 bits"
    )]
    NothingToDo { adapter: String },
    #[error("{what}: found {found}, expected at most {most} on {adapter}")]
    TooMany { adapter: String, what: &'static str, found: usize, most: usize },
}

fn list(before: &str, names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!("{before}{}", names.join(", ")) }
}

impl GpuError {
    /// The remedy, if there is one.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotBuilt => Some("build with the `gpu` feature, or use --backend cpu"),
            Self::NoAdapter { .. } => {
                Some("`fedmill doctor` names what is missing; --adapter selects a software adapter")
            }
            Self::NoSuchAdapter { .. } => Some("`fedmill doctor` lists the adapters"),
            _ => Some("`fedmill doctor` tests the device; --backend cpu runs without it"),
        }
    }
}

/// The shape of the tiles of a pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TileShape {
    /// Number of clients' rows.
    pub rows: usize,
    /// The float that clients' values are stored as; never f64.
    pub stored: Working,
    /// Number of reference rows of f32 behind the clients': the base, the centre of an earlier round, moments.
    pub references: usize,
    /// Most columns of a tile.
    pub columns: usize,
}

impl TileShape {
    /// Bytes of a client's row, in whole words.
    pub fn row_bytes(&self) -> usize {
        (self.columns * self.stored.bytes()).next_multiple_of(4)
    }

    /// Bytes of all rows of a slot.
    pub fn bytes(&self) -> usize {
        self.references_start() + self.references * self.columns * size_of::<f32>()
    }

    /// First byte of the references, at an offset where a binding may start.
    pub fn references_start(&self) -> usize {
        (self.rows * self.row_bytes()).next_multiple_of(256)
    }
}

/// The reduction of every column of a tile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reduction {
    /// The weighted sum.
    WeightedSum,
    /// The midpoint of the two middle values.
    Median,
    /// The mean without the `cut` smallest and largest values.
    TrimmedMean {
        /// Number of values left out at each end.
        cut: usize,
    },
    /// The mean of the `kept` values nearest to the median.
    MeanNearMedian {
        /// Number of values kept.
        kept: usize,
    },
}

/// The merge of every tile of a pass.
#[derive(Clone, Debug)]
pub struct CombineJob {
    /// The shape of the tiles.
    pub shape: TileShape,
    /// Numbers of the rows that take part, in order.
    pub chosen: Vec<u32>,
    /// Weight of each of those rows in a weighted sum; may be empty otherwise.
    pub weights: Vec<f64>,
    /// Mixtures of the chosen rows to reduce instead of the rows: a coefficient per row, then one for the base.
    pub mixing: Option<Vec<Vec<f64>>>,
    /// The reduction.
    pub reduction: Reduction,
    /// Measures the squared norm of each chosen row's delta; per row whether to subtract the base first.
    pub norms: Option<Vec<bool>>,
    /// The server's step on the merged values.
    pub step: Option<StepJob>,
}

/// The sums over every pair of points of a tile.
#[derive(Clone, Debug)]
pub struct PairsJob {
    /// The shape of the tiles.
    pub shape: TileShape,
    /// Mixtures of all rows that are points instead of the rows, as in [`CombineJob::mixing`].
    pub mixing: Option<Vec<Vec<f64>>>,
    /// Whether the zero delta is the base, which is the first reference; otherwise it is zero.
    pub origin_is_base: bool,
    /// Whether the coordinate median is a point.
    pub with_median: bool,
    /// Whether the centre of an earlier round, which is the last reference, is a point.
    pub with_centre: bool,
    /// Whether to sum squared differences of rows too.
    pub differences: bool,
    /// Counts signs; per row whether to subtract the base first.
    pub signs: Option<Vec<bool>>,
}

impl PairsJob {
    /// The inner products of all rows, and nothing else.
    pub fn of_rows(shape: TileShape) -> Self {
        Self {
            shape,
            mixing: None,
            origin_is_base: false,
            with_median: false,
            with_centre: false,
            differences: false,
            signs: None,
        }
    }
}

/// The results of a merge of a tile besides its values.
#[derive(Clone, PartialEq, Debug)]
pub struct Combined {
    /// The largest magnitude among the chosen rows' values; infinite if a value is not finite.
    pub largest: f32,
    /// Squared norms of the deltas, if the job measures them; not finite where f32 does not hold the squares.
    pub squared_norms: Vec<f64>,
    /// The rows that the server's step writes, if the job has one: the model's values, then m and v if the step keeps
    /// them.
    pub stepped: Vec<Vec<f32>>,
}

/// The sums over the pairs of a tile.
#[derive(Clone, PartialEq, Debug)]
pub struct PairSums {
    /// Products of all points less the tile's middle: a square matrix, row by row, of which the upper triangle counts.
    pub products: Vec<f64>,
    /// Squared differences of rows in the same form, if the job sums them.
    pub squares: Vec<f64>,
    /// The largest magnitude of each point less the middle.
    pub largest_of_point: Vec<f32>,
    /// The largest magnitude among the values as sent; infinite if a value is not finite.
    pub largest: f32,
    /// The sum over columns of the difference between the numbers of positive and negative deltas, if the job counts
    /// them.
    pub signs: u64,
}

/// Bound on the error of [`PairSums`], relative to the sum of the terms' magnitudes: 256 additions per invocation, up
/// to six of the tree, 64 of chunks, and the error of a term.
pub const PAIRS_RELATIVE_ERROR: f64 = (256 + 64 + 16) as f64 * (f32::EPSILON / 2.0) as f64;

/// Largest magnitude of terms whose sums fit f32 for certain. The CPU computes tiles beyond it.
pub const MOST_MAGNITUDE: f32 = 1e30;

/// Magnitude of terms that a device does not take for zero. The CPU computes tiles whose largest magnitude is below it.
pub const LEAST_MAGNITUDE: f32 = 1e-30;

/// The times of runs.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct DeviceTime {
    /// Copying rows to the device, by the device's clock; `None` if it has no clock.
    pub upload: Option<Duration>,
    /// Kernels, by the device's clock.
    pub kernels: Option<Duration>,
    /// Waiting from submission to results, by the host's clock.
    pub waited: Duration,
}

/// The outcome of one self-test.
#[derive(Clone, PartialEq, Debug)]
pub struct Finding {
    /// The name of the kernel.
    pub kernel: &'static str,
    /// The sample.
    pub case: String,
    /// The first difference from the CPU beyond the kernel's bound, or the reason why it did not run; `None` if it
    /// passed.
    pub difference: Option<String>,
    /// Time in milliseconds, with compilation.
    pub milliseconds: f64,
}
