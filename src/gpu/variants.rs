//! The variants of the kernels that run on tiles, and the sizes of their dispatches.
//!
//! Every variant is made here, so that a test can compile all of them without a device.

use crate::gpu::shaders::{SortedPlaces, Value, Variant};
use crate::gpu::shape::Shape;
use crate::kernels::discrete_gaussian::Level;
use crate::kernels::network::{MAX_SHADER_ROWS, SHADER_SIZES};
use crate::kernels::server_step::{SecondMoment, ServerStep};
use crate::model::dtype::Working;
use std::mem::offset_of;

/// Invocations of a workgroup.
pub(super) const GROUP: usize = 256;
/// Invocations of a workgroup whose kernel holds a whole column in registers.
pub(super) const NETWORK_GROUP: usize = 64;
/// Mixtures that an invocation of `mixing` computes.
pub const MIXTURES_AT_ONCE: usize = 4;
/// Columns whose squares a workgroup of `norms` or `integer_squares` sums.
pub(super) const NORM_CHUNK: usize = 4096;

/// Values that a workgroup of a block transform or a selection reads.
pub(super) const VECTOR_CHUNK: usize = 4096;
/// Codes that an invocation writes or reads: those of one word.
pub(super) const CODES_AT_ONCE: usize = 4;

/// Floats in which a device stores rows.
const STORED: [Working; 3] = [Working::F32, Working::BF16, Working::F16];
/// Most reference rows that kernels distinguish: the base, the centre.
const MOST_REFERENCES: u32 = 2;
/// Numbers of keys that an invocation of a bisection holds. A workgroup needs the largest for
/// [`MOST_SORTED_ROWS`](crate::gpu::job::MOST_SORTED_ROWS) rows.
const BISECTION_KEYS: [usize; 12] = [1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 32, 40];

/// The shaders of an order statistic.
#[derive(Debug)]
pub struct OrderStatistic {
    /// The shader that sorts columns in registers.
    sorted: &'static str,
    /// The places of a sorted column that it reads.
    places: SortedPlaces,
    /// The shader for columns of many rows.
    bisected: &'static str,
}

pub(super) const COORDINATE_MEDIAN: OrderStatistic = OrderStatistic {
    sorted: "coordinate_median",
    places: SortedPlaces::Middle,
    bisected: "coordinate_median_many",
};
pub(super) const TRIMMED_MEAN: OrderStatistic =
    OrderStatistic { sorted: "trimmed_mean", places: SortedPlaces::All, bisected: "trimmed_mean_many" };
pub(super) const MEAN_NEAR_MEDIAN: OrderStatistic = OrderStatistic {
    sorted: "mean_near_median",
    places: SortedPlaces::All,
    bisected: "mean_near_median_many",
};
const ORDER_STATISTICS: [&OrderStatistic; 3] = [&COORDINATE_MEDIAN, &TRIMMED_MEAN, &MEAN_NEAR_MEDIAN];

/// The invocations that hold a column of many rows together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lanes {
    /// Invocations per column.
    pub lanes: usize,
    /// Keys per invocation.
    keys: usize,
    /// Whether they are a subgroup.
    subgroup: bool,
}

impl Lanes {
    /// The fewest lanes that hold `rows` rows; `None` if a workgroup cannot.
    pub fn of(rows: usize, subgroup: Option<u32>) -> Option<Self> {
        let subgroup = subgroup.map(|size| (size as usize, true));
        let (lanes, subgroup) = subgroup
            .into_iter()
            .chain([(32, false), (GROUP, false)])
            .find(|(lanes, _)| rows <= lanes * BISECTION_KEYS[BISECTION_KEYS.len() - 1])?;
        let keys = BISECTION_KEYS.into_iter().find(|keys| rows <= lanes * keys)?;
        Some(Self { lanes, keys, subgroup })
    }

    /// All lanes that any device may use.
    fn all() -> impl Iterator<Item = Self> {
        let lanes = [(32, false), (GROUP, false), (4, true), (8, true), (16, true), (32, true), (64, true)];
        let all = lanes
            .into_iter()
            .flat_map(|(lanes, subgroup)| BISECTION_KEYS.map(|keys| Self { lanes, keys, subgroup }));
        // Columns of fewer rows are sorted.
        all.filter(|way| way.lanes * way.keys > MAX_SHADER_ROWS)
    }
}

/// The square of points that a workgroup of `gram` computes, and the columns that it stages at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Square {
    /// An eighth of the points along a side.
    pub side: usize,
    /// Columns staged at once.
    stage: usize,
}

impl Square {
    const SMALL: Self = Self { side: 2, stage: 128 };
    const MIDDLE: Self = Self { side: 4, stage: 64 };
    const LARGE: Self = Self { side: 8, stage: 32 };
    /// For devices with little workgroup memory.
    const LARGE_LEAN: Self = Self { side: 8, stage: 16 };
    const ALL: [Self; 4] = [Self::SMALL, Self::MIDDLE, Self::LARGE, Self::LARGE_LEAN];

    /// The square for `points` points on a device with `storage_bytes` bytes of workgroup memory.
    pub fn of(points: usize, storage_bytes: u32) -> Self {
        match points {
            0..=16 => Self::SMALL,
            17..=32 => Self::MIDDLE,
            // Two squares of 17 vectors per column.
            _ if storage_bytes >= 32 * 17 * 16 * 2 + 4 => Self::LARGE,
            _ => Self::LARGE_LEAN,
        }
    }

    /// Columns of a chunk: each invocation adds 256 of them.
    pub(super) fn chunk(self) -> usize {
        256 * 256 / (self.side * self.side)
    }
}

fn number(count: usize) -> Value {
    Value::Number(u32::try_from(count).unwrap_or(u32::MAX))
}

fn stored(working: Working) -> (&'static str, Value) {
    let number = match working {
        // No caller sends f64 to a device.
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

/// Sums the integers of rows less their base, if there is one.
pub(super) fn integer_sum(working: Working, references: usize) -> Variant {
    over_base("integer_sum", working, references)
}

/// Sums the squares of these integers.
pub(super) fn integer_squares(working: Working, references: usize) -> Variant {
    over_base("integer_squares", working, references)
}

fn over_base(kernel: &'static str, working: Working, references: usize) -> Variant {
    over_references(kernel, working, references.min(1))
}

/// Noise of a level.
pub(super) fn noise(level: Level) -> Variant {
    Variant::new("discrete_gaussian", &[("BLOCKS", number(level.blocks())), ("DRAWS", number(level.draws()))])
}

/// Sorts columns of up to [`MAX_SHADER_ROWS`] rows in registers.
pub(super) fn sorted(statistic: &OrderStatistic, working: Working, rows: usize) -> Variant {
    let size = SHADER_SIZES.into_iter().find(|size| *size >= rows).unwrap_or(MAX_SHADER_ROWS);
    let defines = vec![stored(working), ("SIZE", number(size))];
    Variant { kernel: statistic.sorted, defines, network: Some((size, statistic.places)) }
}

/// Bisects the keys of columns of more rows.
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

/// The server's step on merged values; if `paired`, on the means of two rows.
pub fn server_step(step: &ServerStep, paired: bool) -> Variant {
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

/// Every variant of a function of the rows' float and the number of references.
fn over_rows(variant: impl Fn(Working, usize) -> Variant) -> Vec<Variant> {
    let references = || 0..=MOST_REFERENCES as usize;
    STORED
        .into_iter()
        .flat_map(|working| references().map(|count| variant(working, count)).collect::<Vec<_>>())
        .collect()
}

/// Every variant of weighted sums and mixtures.
pub(super) fn weighted_sums() -> Vec<Variant> {
    STORED.into_iter().map(weighted_sum).chain(over_rows(mixing)).collect()
}

/// Every variant of norms.
pub(super) fn all_norms() -> Vec<Variant> {
    over_rows(norms)
}

/// Every variant of sums of integers.
pub(super) fn integer_sums() -> Vec<Variant> {
    let of = |working| {
        [0, 1]
            .into_iter()
            .flat_map(move |count| [integer_sum(working, count), integer_squares(working, count)])
    };
    STORED.into_iter().flat_map(of).collect()
}

/// Every variant of counts of signs.
pub(super) fn all_signs() -> Vec<Variant> {
    over_rows(signs)
}

/// Every variant of an order statistic.
pub(super) fn order_statistics(statistic: &OrderStatistic) -> Vec<Variant> {
    let of = |working| {
        let sorted = SHADER_SIZES.into_iter().map(move |size| sorted(statistic, working, size));
        sorted.chain(Lanes::all().map(move |lanes| bisected(statistic, working, lanes)))
    };
    STORED.into_iter().flat_map(of).collect()
}

/// Every variant of sums over pairs.
pub(super) fn grams() -> Vec<Variant> {
    let mut all = vec![gram_reduce()];
    for square in Square::ALL {
        all.extend([gram(square, false), gram(square, true)]);
    }
    for (origin_is_base, has_median) in [(false, false), (false, true), (true, false), (true, true)] {
        let centres =
            over_rows(|working, references| centre(working, references, origin_is_base, has_median));
        // The base is the first reference.
        let is_possible =
            |variant: &Variant| !origin_is_base || !variant.defines.contains(&("REFERENCES", number(0)));
        all.extend(centres.into_iter().filter(is_possible));
    }
    all
}

/// Every variant of the server's step.
pub(super) fn server_steps() -> Vec<Variant> {
    (0..=4).flat_map(|kind| [server_step_of(kind, false), server_step_of(kind, true)]).collect()
}

/// Invocations of a workgroup of this shader, as the dispatch counts them.
pub fn workgroup_size(kernel: &str) -> usize {
    if ORDER_STATISTICS.iter().any(|statistic| statistic.sorted == kernel) { NETWORK_GROUP } else { GROUP }
}

/// Columns that a workgroup of this variant reads together, as the dispatch counts them; `None` where each invocation
/// reads one.
pub fn chunk(variant: &Variant) -> Option<usize> {
    match variant.kernel {
        "norms" | "integer_squares" => Some(NORM_CHUNK),
        "hadamard" | "hadamard_back" | "select_histogram" | "select_output" => Some(VECTOR_CHUNK),
        "gram" => Square::ALL
            .into_iter()
            .find(|square| [false, true].iter().any(|differences| gram(*square, *differences) == *variant))
            .map(Square::chunk),
        _ => None,
    }
}

/// The members of [`Shape`] with their offsets in bytes, and its size.
pub fn shape_layout() -> (Vec<(&'static str, usize)>, usize) {
    let members = vec![
        ("rows", offset_of!(Shape, rows)),
        ("columns", offset_of!(Shape, columns)),
        ("stride", offset_of!(Shape, stride)),
        ("parameter", offset_of!(Shape, parameter)),
    ];
    (members, size_of::<Shape>())
}
