//! What may be asked of a device, and what it answers: plain data, the same with and without the `gpu` feature.

use crate::gpu::step::StepJob;
use crate::model::dtype::Working;
use std::time::Duration;

/// The most rows that order statistics sort on a device.
pub const MOST_SORTED_ROWS: usize = 10_240;

/// Which device to open, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// A part of the adapter's name, any case; none for the best that is no software adapter.
    pub adapter: Option<String>,
    /// Keep the checks of bounds and loops in shaders.
    pub checked: bool,
    /// Use subgroup operations where the device has them.
    pub subgroups: bool,
    /// Places of the ring; none for as many as suit.
    pub slots: Option<usize>,
    /// Bytes of rows in a slot.
    pub slot_bytes: usize,
    /// The most bytes that are bound at once, if less than the device allows.
    pub binding_bytes: Option<u64>,
    /// Bytes of the device's memory that updates may stay in between passes; none for most of what it has.
    pub resident_bytes: Option<u64>,
    /// Destroy the device after so many runs, as a driver that crashes would. For tests.
    pub lose_after: Option<usize>,
    /// Fill memory that kernels write with a pattern before each run. For tests: no result may depend on fresh memory.
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
    /// Its name.
    pub name: String,
    /// `discrete`, `integrated`, `virtual`, `software` or `other`.
    pub kind: &'static str,
    /// Name and version of its driver.
    pub driver: String,
    /// The programming interface it is reached by.
    pub interface: String,
    /// Smallest and largest number of invocations in a subgroup; zero where there are none.
    pub subgroup: (u32, u32),
    /// Bytes of its own memory, where the driver tells.
    pub memory: Option<u64>,
    /// Limits that size tiles, by name.
    pub limits: Vec<(&'static str, u64)>,
    /// Features that kernels make use of, by name.
    pub features: Vec<&'static str>,
}

impl Adapter {
    /// Whether it is the processor in disguise.
    pub fn is_software(&self) -> bool {
        self.kind == "software"
    }
}

/// Why a device did not do what it was asked to.
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
        "{adapter}: {what}: the device found {found:e}, the CPU {expected:e}, which may differ by {bound:e}"
    )]
    Wrong { adapter: String, what: String, found: f64, expected: f64, bound: f64 },
    #[error(
        "{adapter} has nothing to do: every tensor is of f64 or of integers, expected floats of up to 32 bits"
    )]
    NothingToDo { adapter: String },
    #[error("{what}: found {found}, expected at most {most} on {adapter}")]
    TooMany { adapter: String, what: &'static str, found: usize, most: usize },
}

fn list(before: &str, names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!("{before}{}", names.join(", ")) }
}

impl GpuError {
    /// What the user may do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotBuilt => Some("build with the `gpu` feature, or use --backend cpu"),
            Self::NoAdapter { .. } => Some(
                "`fedmill doctor` says what is missing; a software adapter is used if --adapter names it",
            ),
            Self::NoSuchAdapter { .. } => Some("`fedmill doctor` lists the adapters"),
            _ => Some("`fedmill doctor` tests the device; --backend cpu does without it"),
        }
    }
}

/// The shape of the tiles of a pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TileShape {
    /// Clients' rows in a slot.
    pub rows: usize,
    /// The float they are stored as: not f64.
    pub stored: Working,
    /// Rows of f32 behind them: the base, the centre of an earlier round.
    pub references: usize,
    /// The most columns of a tile.
    pub columns: usize,
}

impl TileShape {
    /// Bytes of a client's row, whole words.
    pub fn row_bytes(&self) -> usize {
        (self.columns * self.stored.bytes()).next_multiple_of(4)
    }

    /// Bytes of all rows as they lie in a slot.
    pub fn bytes(&self) -> usize {
        self.references_start() + self.references * self.columns * size_of::<f32>()
    }

    /// Where the references start: where a binding may.
    pub fn references_start(&self) -> usize {
        (self.rows * self.row_bytes()).next_multiple_of(256)
    }
}

/// What is done to every column of a tile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reduction {
    /// The weighted sum.
    WeightedSum,
    /// The midpoint of the two middle values.
    Median,
    /// The mean without the `cut` smallest and largest values.
    TrimmedMean {
        /// How many go at each end.
        cut: usize,
    },
    /// The mean of the `kept` values nearest to the median.
    MeanNearMedian {
        /// How many are kept.
        kept: usize,
    },
}

/// How every tile of a pass is combined.
#[derive(Clone, Debug)]
pub struct CombineJob {
    /// The tiles.
    pub shape: TileShape,
    /// The rows that have a part, in order.
    pub chosen: Vec<u32>,
    /// What each of those weighs in a weighted sum; may be empty otherwise.
    pub weights: Vec<f64>,
    /// Mixtures of the chosen rows to reduce instead of these: a coefficient for each, then one for the base.
    pub mixing: Option<Vec<Vec<f64>>>,
    /// The reduction.
    pub reduction: Reduction,
    /// Whether to measure the squared norm of each chosen row's delta; for each whether the base is to be taken off.
    pub norms: Option<Vec<bool>>,
    /// The server's step to take on what is merged.
    pub step: Option<StepJob>,
}

/// What is found about every pair of points of a tile.
#[derive(Clone, Debug)]
pub struct PairsJob {
    /// The tiles.
    pub shape: TileShape,
    /// Mixtures of all rows to look at instead of these, as in [`CombineJob::mixing`].
    pub mixing: Option<Vec<Vec<f64>>>,
    /// Whether the zero delta is the base, the first reference, and not zero.
    pub origin_is_base: bool,
    /// Whether the coordinate median is a point.
    pub with_median: bool,
    /// Whether the centre of an earlier round, the last reference, is a point.
    pub with_centre: bool,
    /// Whether to sum squared differences of rows as well.
    pub differences: bool,
    /// Whether to count signs; for each row whether the base is to be taken off.
    pub signs: Option<Vec<bool>>,
}

/// What a combined tile says besides its values.
#[derive(Clone, PartialEq, Debug)]
pub struct Combined {
    /// The largest magnitude among the chosen rows' values; infinite if one is not finite.
    pub largest: f32,
    /// Squared norms of the deltas, if asked for.
    pub squared_norms: Vec<f64>,
    /// What the server's step left, if one was asked for: the model's values, then m and v as far as they are kept.
    pub stepped: Vec<Vec<f32>>,
}

/// What was found about the pairs of a tile.
#[derive(Clone, PartialEq, Debug)]
pub struct PairSums {
    /// Products of all points, less the tile's middle: the upper triangle of a matrix, row by row, square.
    pub products: Vec<f64>,
    /// Squared differences of rows, likewise, if asked for.
    pub squares: Vec<f64>,
    /// The largest magnitude of each point, less the middle.
    pub largest_of_point: Vec<f32>,
    /// The largest magnitude among the values as sent; infinite if one is not finite.
    pub largest: f32,
    /// The sum over columns of how many more deltas have one sign than the other, if asked for.
    pub signs: u64,
}

/// What [`PairSums`] may be off by, relative to the sum of the terms' magnitudes: 256 terms an invocation, up to six
/// additions of the tree, 64 of chunks, and what a term carries.
pub const PAIRS_RELATIVE_ERROR: f64 = (256 + 64 + 16) as f64 * (f32::EPSILON / 2.0) as f64;

/// Sums beyond this magnitude of terms may not fit f32: the caller does them elsewhere.
pub const MOST_MAGNITUDE: f32 = 1e30;

/// Where the time of runs went.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct DeviceTime {
    /// Copying rows to the device, by its clock; none where it has none.
    pub upload: Option<Duration>,
    /// Kernels, by its clock.
    pub kernels: Option<Duration>,
    /// Waiting for a run from submission to results.
    pub waited: Duration,
}

/// What a self-test found of a kernel.
#[derive(Clone, PartialEq, Debug)]
pub struct Finding {
    /// The kernel.
    pub kernel: &'static str,
    /// What it was run on.
    pub case: String,
    /// The first difference from the CPU beyond what the kernel declares, or why it did not run; none if all is well.
    pub difference: Option<String>,
    /// How long it took, compiling included.
    pub milliseconds: f64,
}
