//! The sums of a geometry pass, and the geometry that they give.

use crate::engine::passes::blocks::add_rows;
use crate::engine::passes::sections::{SectionTree, Summand};
use crate::engine::passes::survey::{Measured, add_measured};
use crate::gpu::job::PAIRS_RELATIVE_ERROR;
use crate::kernels::gram::RELATIVE_ERROR;
use crate::model::class::TensorClass;
use crate::rules::geometry::Geometry;
use crate::rules::numeric::triangle::{self, Triangle};
use crate::rules::{GeometryRequest, GeometryResult, Precision};

/// The error of sums in f64, relative to the sum of the magnitudes of the terms. A block takes 136 additions, and there
/// are up to a million blocks.
const F64_RELATIVE_ERROR: f64 = (1 << 20) as f64 * (f64::EPSILON / 2.0);

/// Sums over a tile.
pub(super) struct TileSums {
    pub(super) pairs: Triangles,
    pub(super) measured: Vec<Measured>,
    pub(super) signs: u64,
    pub(super) floats: u64,
}

/// Sums over pairs of points: only the upper triangles.
#[derive(Clone, Debug)]
pub struct Triangles {
    /// Inner products of all points.
    pub products: Vec<f64>,
    /// Squared distances of the updates. Empty if distances follow from products.
    pub squares: Vec<f64>,
}

/// Sums over a section.
#[derive(Clone, Debug)]
pub struct SectionSums {
    /// The sums over parameters; `None` if the section has none.
    pub parameters: Option<Triangles>,
    /// The sums over statistics that are floats; `None` if the section has none.
    pub statistics: Option<Triangles>,
    /// The measurements of each update.
    pub measured: Vec<Measured>,
    /// For each coordinate, the number of deltas of the more frequent sign less that of the other; summed over
    /// coordinates.
    pub signs: u64,
    /// The number of coordinates read.
    pub floats: u64,
}

/// The sums of a pass, section by section.
pub struct GeometrySums {
    /// The sums.
    pub sections: SectionTree<Option<SectionSums>>,
    /// Whether the GPU computed some of them, which are then less exact.
    pub on_gpu: bool,
}

impl TileSums {
    /// Zeros.
    pub(super) fn none(request: &GeometryRequest) -> Self {
        Self {
            pairs: Triangles::none(request),
            measured: vec![Measured::default(); request.updates],
            signs: 0,
            floats: 0,
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.pairs.add(&other.pairs);
        add_measured(&mut self.measured, &other.measured);
        self.signs += other.signs;
        self.floats += other.floats;
    }
}

impl Triangles {
    /// Zeros.
    pub fn none(request: &GeometryRequest) -> Self {
        let squares = if request.is_direct() { request.updates } else { 0 };
        Self {
            products: vec![0.0; triangle::len(request.points())],
            squares: vec![0.0; triangle::len(squares)],
        }
    }

    fn geometry(self, request: &GeometryRequest, error: f64) -> Geometry {
        let products = Triangle::of_values(request.points(), self.products);
        let squares = request.is_direct().then(|| Triangle::of_values(request.updates, self.squares));
        Geometry::new(request.updates, request.references, products, squares, error)
    }
}

impl Summand for Triangles {
    fn add(&mut self, later: &Self) {
        add_rows(&mut self.products, &later.products);
        add_rows(&mut self.squares, &later.squares);
    }
}

impl SectionSums {
    /// No tiles.
    pub fn none(request: &GeometryRequest) -> Self {
        let measured = vec![Measured::default(); request.updates];
        Self { parameters: None, statistics: None, measured, signs: 0, floats: 0 }
    }

    /// The sums of tiles of one class.
    pub(super) fn of(sums: TileSums, class: TensorClass) -> Self {
        let TileSums { pairs, measured, signs, floats } = sums;
        let triangles = (floats > 0).then_some(pairs);
        let (parameters, statistics) = match class {
            TensorClass::Parameter => (triangles, None),
            TensorClass::Statistic | TensorClass::Opaque => (None, triangles),
        };
        Self { parameters, statistics, measured, signs, floats }
    }

    /// The geometry of the points. Its error is relative to the sums.
    fn geometry(self, request: &GeometryRequest, error: f64) -> Geometry {
        let of = |triangles: Triangles| triangles.geometry(request, error);
        let parameters = of(self.parameters.unwrap_or_else(|| Triangles::none(request)));
        match self.statistics {
            Some(statistics) => Geometry::of_classes(parameters, of(statistics)),
            None => parameters,
        }
    }
}

impl Summand for SectionSums {
    fn add(&mut self, later: &Self) {
        self.parameters.add(&later.parameters);
        self.statistics.add(&later.statistics);
        add_measured(&mut self.measured, &later.measured);
        self.signs += later.signs;
        self.floats += later.floats;
    }
}

impl GeometrySums {
    fn relative_error(&self, precision: Precision) -> f64 {
        match (precision, self.on_gpu) {
            (Precision::F64, _) => F64_RELATIVE_ERROR,
            (Precision::Usual, true) => PAIRS_RELATIVE_ERROR,
            (Precision::Usual, false) => RELATIVE_ERROR,
        }
    }

    /// The geometry that the sums give, and the measurements of each update. The geometry is invalid if an update holds
    /// non-finite values.
    pub fn conclude(self, request: &GeometryRequest) -> (GeometryResult, Vec<Measured>) {
        let error = self.relative_error(request.precision);
        let mut sums = self.sections.total().flatten().unwrap_or_else(|| SectionSums::none(request));
        let measured = std::mem::take(&mut sums.measured);
        let agreement = sums.signs as f64 / (sums.floats as f64 * request.updates as f64);
        let result = GeometryResult {
            sign_agreement: (request.with_signs && sums.floats > 0).then_some(agreement),
            geometry: sums.geometry(request, error),
        };
        (result, measured)
    }
}
