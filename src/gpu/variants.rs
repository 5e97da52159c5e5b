//! The variants of kernels that jobs ask for. All are made here, so that a test can compile every one without a device,
//! and the sizes that a dispatch counts on stand beside them.

use crate::gpu::program::Shape;
use crate::gpu::shaders::{Value, Variant, Wanted};
use crate::kernels::network::{MAX_SHADER_ROWS, SHADER_SIZES};
use crate::model::dtype::Working;
use std::mem::offset_of;

/// Invocations of a workgroup.
pub(super) const GROUP: usize = 256;
/// The same of kernels that hold a whole column in registers.
pub(super) const NETWORK_GROUP: usize = 64;
/// Columns whose squares a workgroup of `norms` sums.
pub(super) const NORM_CHUNK: usize = 4096;

/// Floats that rows are stored as on a device.
const STORED: [Working; 3] = [Working::F32, Working::BF16, Working::F16];
/// The most rows behind the clients': the base, the centre.
const MOST_REFERENCES: u32 = 2;
/// Kernels over sorted columns, and which places of these they read.
const SORTED: [(&str, Wanted); 2] = [("coordinate_median", Wanted::Middle), ("trimmed_mean", Wanted::All)];

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

/// A kernel that sorts up to [`MAX_SHADER_ROWS`] rows in registers.
pub(super) fn sorted(kernel: &'static str, wanted: Wanted, working: Working, rows: usize) -> Variant {
    let size = SHADER_SIZES.into_iter().find(|size| *size >= rows).unwrap_or(MAX_SHADER_ROWS);
    let defines = vec![stored(working), ("SIZE", number(size))];
    Variant { kernel, defines, network: Some((size, wanted)) }
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

/// Every variant that a job can ask for.
pub fn all() -> Vec<Variant> {
    let mut all = vec![gram_reduce()];
    for square in Square::ALL {
        all.extend([gram(square, false), gram(square, true)]);
    }
    for working in STORED {
        all.push(weighted_sum(working));
        for (kernel, wanted) in SORTED {
            all.extend(SHADER_SIZES.map(|size| sorted(kernel, wanted, working, size)));
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
    if SORTED.iter().any(|(name, _)| *name == kernel) { NETWORK_GROUP } else { GROUP }
}

/// Columns that a workgroup of this variant sums, as the dispatch counts them; none where each invocation takes one.
pub fn chunk(variant: &Variant) -> Option<usize> {
    match variant.kernel {
        "norms" => Some(NORM_CHUNK),
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
