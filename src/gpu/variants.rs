//! The variants of kernels that jobs ask for. All are made here, so that a test can compile every one without a device,
//! and the sizes that a dispatch counts on stand beside them.

use crate::gpu::shaders::{Value, Variant, Wanted};
use crate::gpu::shape::Shape;
use crate::kernels::discrete_gaussian::Level;
use crate::kernels::network::{MAX_SHADER_ROWS, SHADER_SIZES};
use crate::kernels::server_step::{SecondMoment, ServerStep};
use crate::model::dtype::Working;
use std::mem::offset_of;

/// Invocations of a workgroup.
pub(super) const GROUP: usize = 256;
/// The same of kernels that hold a whole column in registers.
pub(super) const NETWORK_GROUP: usize = 64;
/// Mixtures that an invocation of `mixing` makes.
pub(super) const MIXTURES_AT_ONCE: usize = 4;
/// Columns whose squares a workgroup of `norms` sums.
pub(super) const NORM_CHUNK: usize = 4096;

/// Values that a workgroup takes of a kernel that transforms blocks, or selects.
pub(super) const VECTOR_CHUNK: usize = 4096;
/// Codes that an invocation makes, or takes: as many as fit a word.
pub(super) const CODES_AT_ONCE: usize = 4;

/// Floats that rows are stored as on a device.
const STORED: [Working; 3] = [Working::F32, Working::BF16, Working::F16];
/// The most rows behind the clients' that kernels tell apart: the base, the centre.
const MOST_REFERENCES: u32 = 2;
/// Keys that an invocation holds where columns are bisected, the largest that
/// [`MOST_SORTED_ROWS`](crate::gpu::job::MOST_SORTED_ROWS) asks of a workgroup.
const BISECTION_KEYS: [usize; 12] = [1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 32, 40];

/// The kernels of an order statistic.
#[derive(Debug)]
pub(super) struct OrderStatistic {
    /// That of columns sorted in registers.
    sorted: &'static str,
    /// The places of a sorted column that it reads.
    wanted: Wanted,
    /// That of columns of many rows.
    bisected: &'static str,
}

pub(super) const COORDINATE_MEDIAN: OrderStatistic = OrderStatistic {
    sorted: "coordinate_median",
    wanted: Wanted::Middle,
    bisected: "coordinate_median_many",
};
pub(super) const TRIMMED_MEAN: OrderStatistic =
    OrderStatistic { sorted: "trimmed_mean", wanted: Wanted::All, bisected: "trimmed_mean_many" };
pub(super) const MEAN_NEAR_MEDIAN: OrderStatistic =
    OrderStatistic { sorted: "mean_near_median", wanted: Wanted::All, bisected: "mean_near_median_many" };
const ORDER_STATISTICS: [&OrderStatistic; 3] = [&COORDINATE_MEDIAN, &TRIMMED_MEAN, &MEAN_NEAR_MEDIAN];

/// How invocations hold a column of many rows together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Lanes {
    /// Invocations to a column.
    pub(super) lanes: usize,
    /// Keys that each holds.
    keys: usize,
    /// Whether they are a subgroup.
    subgroup: bool,
}

impl Lanes {
    /// As few lanes as hold so many rows, none if there are more than a workgroup holds.
    pub(super) fn of(rows: usize, subgroup: Option<u32>) -> Option<Self> {
        let subgroup = subgroup.map(|size| (size as usize, true));
        let (lanes, subgroup) = subgroup
            .into_iter()
            .chain([(32, false), (GROUP, false)])
            .find(|(lanes, _)| rows <= lanes * BISECTION_KEYS[BISECTION_KEYS.len() - 1])?;
        let keys = BISECTION_KEYS.into_iter().find(|keys| rows <= lanes * keys)?;
        Some(Self { lanes, keys, subgroup })
    }

    /// Every way that a device may ask for.
    fn all() -> impl Iterator<Item = Self> {
        let lanes = [(32, false), (GROUP, false), (4, true), (8, true), (16, true), (32, true), (64, true)];
        let all = lanes
            .into_iter()
            .flat_map(|(lanes, subgroup)| BISECTION_KEYS.map(|keys| Self { lanes, keys, subgroup }));
        // Columns of fewer rows are sorted.
        all.filter(|way| way.lanes * way.keys > MAX_SHADER_ROWS)
    }
}

/// A square of points that a workgroup of `gram` takes, and columns that it takes at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Square {
    pub(super) side: usize,
    pub(super) stage: usize,
}

impl Square {
    const SMALL: Self = Self { side: 2, stage: 128 };
    const MIDDLE: Self = Self { side: 4, stage: 64 };
    const LARGE: Self = Self { side: 8, stage: 32 };
    /// For devices with little workgroup memory.
    const LARGE_LEAN: Self = Self { side: 8, stage: 16 };
    const ALL: [Self; 4] = [Self::SMALL, Self::MIDDLE, Self::LARGE, Self::LARGE_LEAN];

    /// The square for so many points, on a device with so many bytes of workgroup memory.
    pub(super) fn of(points: usize, storage_bytes: u32) -> Self {
        match points {
            0..=16 => Self::SMALL,
            17..=32 => Self::MIDDLE,
            // Two squares of 17 vectors a column.
            _ if storage_bytes >= 32 * 17 * 16 * 2 + 4 => Self::LARGE,
            _ => Self::LARGE_LEAN,
        }
    }

    /// Columns that an invocation adds 256 of.
    pub(super) fn chunk(self) -> usize {
        256 * 256 / (self.side * self.side)
    }
}

fn number(count: usize) -> Value {
    Value::Number(u32::try_from(count).unwrap_or(u32::MAX))
}

fn stored(working: Working) -> (&'static str, Value) {
    let number = match working {
        // Callers keep f64 to themselves.
        Working::F32 | Working::F64 => 0,
        Working::BF16 => 1,
        Working::F16 => 2,
    };
    ("STORED", Value::Number(number))
}

fn over_references(kernel: &'static str, working: Working, references: usize) -> Variant {
    let references = references.min(MOST_REFERENCES as usize);
    Variant::new(kernel, &[stored(working), ("REFERENCES", number(references))])
}

pub(super) fn mixing(working: Working, references: usize) -> Variant {
    over_references("mixing", working, references)
}

pub(super) fn norms(working: Working, references: usize) -> Variant {
    over_references("norms", working, references)
}

pub(super) fn signs(working: Working, references: usize) -> Variant {
    over_references("signs", working, references)
}

pub(super) fn weighted_sum(working: Working) -> Variant {
    Variant::new("weighted_sum", &[stored(working)])
}

/// The kernel that sorts columns of up to [`MAX_SHADER_ROWS`] rows in registers.
pub(super) fn sorted(statistic: &OrderStatistic, working: Working, rows: usize) -> Variant {
    let size = SHADER_SIZES.into_iter().find(|size| *size >= rows).unwrap_or(MAX_SHADER_ROWS);
    let defines = vec![stored(working), ("SIZE", number(size))];
    Variant { kernel: statistic.sorted, defines, network: Some((size, statistic.wanted)) }
}

/// The kernel that bisects the keys of columns of more rows.
pub(super) fn bisected(statistic: &OrderStatistic, working: Working, lanes: Lanes) -> Variant {
    let (count, keys) = (number(lanes.lanes), number(lanes.keys));
    let defines =
        [stored(working), ("LANES", count), ("KEYS", keys), ("SUBGROUPS", Value::Flag(lanes.subgroup))];
    Variant::new(statistic.bisected, &defines)
}

pub(super) fn centre(working: Working, references: usize, origin_is_base: bool, has_median: bool) -> Variant {
    let mut variant = over_references("centre", working, references);
    variant
        .defines
        .extend([("ORIGIN_IS_BASE", Value::Flag(origin_is_base)), ("HAS_MEDIAN", Value::Flag(has_median))]);
    variant
}

pub(super) fn gram(square: Square, differences: bool) -> Variant {
    let (side, stage) = (number(square.side), number(square.stage));
    Variant::new("gram", &[("SIDE", side), ("STAGE", stage), ("DIFFERENCES", Value::Flag(differences))])
}

pub(super) fn gram_reduce() -> Variant {
    Variant::new("gram_reduce", &[])
}

/// The server's step on merged values, which may come as two rows.
pub(super) fn server_step(step: &ServerStep, paired: bool) -> Variant {
    let kind = match step {
        ServerStep::Average { .. } => 0,
        ServerStep::Momentum { .. } => 1,
        ServerStep::Adaptive { second: SecondMoment::Adam, .. } => 2,
        ServerStep::Adaptive { second: SecondMoment::Yogi, .. } => 3,
        ServerStep::Adaptive { second: SecondMoment::Adagrad, .. } => 4,
    };
    server_step_of(kind, paired)
}

fn server_step_of(kind: usize, paired: bool) -> Variant {
    Variant::new("server_step", &[("KIND", number(kind)), ("PAIRED", Value::Flag(paired))])
}

pub(super) fn block_ends() -> Variant {
    Variant::new("block_ends", &[])
}

/// Codes of values, from minus the top code on if `signed`, rounded by random words if `stochastic`.
pub(super) fn block_quantize(signed: bool, stochastic: bool) -> Variant {
    Variant::new(
        "block_quantize",
        &[("SIGNED", Value::Flag(signed)), ("STOCHASTIC", Value::Flag(stochastic))],
    )
}

pub(super) fn block_dequantize(signed: bool) -> Variant {
    Variant::new("block_dequantize", &[("SIGNED", Value::Flag(signed))])
}

pub(super) fn hadamard() -> Variant {
    Variant::new("hadamard", &[])
}

pub(super) fn bucketize() -> Variant {
    Variant::new("bucketize", &[])
}

pub(super) fn select_histogram() -> Variant {
    Variant::new("select_histogram", &[])
}

/// The indices that are selected, or how many each workgroup has.
pub(super) fn select_output(counts: bool) -> Variant {
    Variant::new("select_output", &[("COUNTS", Value::Flag(counts))])
}

/// Noise of a level.
pub(super) fn discrete_gaussian(level: Level) -> Variant {
    Variant::new("discrete_gaussian", &[("BLOCKS", number(level.blocks()))])
}

pub(super) fn integer_sum() -> Variant {
    Variant::new("integer_sum", &[])
}

/// The kernels over a vector.
fn of_vectors() -> Vec<Variant> {
    let mut all = vec![block_ends(), hadamard(), bucketize(), select_histogram(), integer_sum()];
    all.extend([Level::L2, Level::L3].map(discrete_gaussian));
    for flag in [false, true] {
        all.extend([block_quantize(flag, false), block_quantize(flag, true)]);
        all.extend([block_dequantize(flag), select_output(flag)]);
    }
    all
}

/// Every variant that a job can ask for.
pub fn all() -> Vec<Variant> {
    let mut all = of_vectors();
    all.push(gram_reduce());
    for square in Square::ALL {
        all.extend([gram(square, false), gram(square, true)]);
    }
    for kind in 0..=4 {
        all.extend([server_step_of(kind, false), server_step_of(kind, true)]);
    }
    for working in STORED {
        all.push(weighted_sum(working));
        for statistic in ORDER_STATISTICS {
            all.extend(SHADER_SIZES.map(|size| sorted(statistic, working, size)));
            all.extend(Lanes::all().map(|lanes| bisected(statistic, working, lanes)));
        }
        for references in 0..=MOST_REFERENCES as usize {
            all.extend([mixing, norms, signs].map(|variant| variant(working, references)));
            for (origin_is_base, has_median) in [(false, false), (false, true), (true, false), (true, true)] {
                // The base is the first reference.
                if references > 0 || !origin_is_base {
                    all.push(centre(working, references, origin_is_base, has_median));
                }
            }
        }
    }
    all
}

/// Invocations of a workgroup of this kernel, as the dispatch counts them.
pub fn workgroup_size(kernel: &str) -> usize {
    if ORDER_STATISTICS.iter().any(|statistic| statistic.sorted == kernel) { NETWORK_GROUP } else { GROUP }
}

/// Columns that a workgroup of this variant takes together, as the dispatch counts them; none where each invocation
/// takes one.
pub fn chunk(variant: &Variant) -> Option<usize> {
    match variant.kernel {
        "norms" => Some(NORM_CHUNK),
        "hadamard" | "select_histogram" | "select_output" => Some(VECTOR_CHUNK),
        "gram" => Square::ALL
            .into_iter()
            .find(|square| [false, true].iter().any(|differences| gram(*square, *differences) == *variant))
            .map(Square::chunk),
        _ => None,
    }
}

/// The members of what every kernel is told of its tile, each with its offset in bytes; then its size.
pub fn shape_layout() -> (Vec<(&'static str, usize)>, usize) {
    let members = vec![
        ("rows", offset_of!(Shape, rows)),
        ("columns", offset_of!(Shape, columns)),
        ("stride", offset_of!(Shape, stride)),
        ("parameter", offset_of!(Shape, parameter)),
    ];
    (members, size_of::<Shape>())
}
