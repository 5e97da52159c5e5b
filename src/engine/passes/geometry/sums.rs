//! What a look at updates looks for, what it adds up, and what the sums tell.

use crate::engine::passes::blocks::add_rows;
use crate::engine::passes::geometry::Distances;
use crate::engine::passes::sections::{Branches, Summand};
use crate::engine::passes::survey::{Measured, fold_measured};
use crate::gpu::job::PAIRS_RELATIVE_ERROR;
use crate::kernels::gram::RELATIVE_ERROR;
use crate::rules::geometry::{Geometry, Matrix, References, upper_triangle};

/// How exact the numbers of a pass have to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Precision {
    /// As exact as is cheap: products in f32.
    Usual,
    /// Products in f64, for a choice that hangs on less than the usual bound.
    F64,
}

/// What sums in f64 may be off by, relative to the sum of their terms' magnitudes: 136 additions in a block, and those
/// of up to a million blocks.
const F64_RELATIVE_ERROR: f64 = (1 << 20) as f64 * (f64::EPSILON / 2.0);

/// What a pass looks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sought {
    /// How many updates there are to look at.
    pub updates: usize,
    /// How distances are found.
    pub distances: Distances,
    /// The points besides the updates and the origin.
    pub references: References,
    /// Whether to count signs.
    pub with_signs: bool,
    /// How exact the numbers have to be.
    pub precision: Precision,
    /// Whether a device has a part in it.
    pub on_device: bool,
}

/// What the pass found.
#[derive(Debug)]
pub struct FirstLook {
    /// What each update measures; if one is not finite, the rest means nothing.
    pub measured: Vec<Measured>,
    /// The geometry of the updates.
    pub geometry: Geometry,
    /// Mean over the coordinates of `|sum_i sign(delta_i)| / n`, if asked for.
    pub sign_agreement: Option<f64>,
}

/// What tiles add up to. Of products and squares the upper triangle counts.
pub(crate) struct Sums {
    pub(crate) products: Vec<f64>,
    pub(crate) squares: Vec<f64>,
    pub(crate) measured: Vec<Measured>,
    pub(crate) signs: u64,
    pub(crate) floats: u64,
}

/// What sections add up to: sums with nothing but the triangles.
#[derive(Clone, Debug)]
pub struct Totals {
    pub(crate) products: Vec<f64>,
    pub(crate) squares: Vec<f64>,
    pub(crate) measured: Vec<Measured>,
    pub(crate) signs: u64,
    pub(crate) floats: u64,
}

impl Sought {
    pub(crate) fn points(&self) -> usize {
        self.updates + self.references.count()
    }

    /// Whether distances between updates are found from differences.
    pub(crate) fn is_direct(&self) -> bool {
        self.precision == Precision::Usual && self.distances.resolved(self.updates) == Distances::Direct
    }

    pub(crate) fn no_sums(&self) -> Sums {
        let (n, p) = (self.updates, self.points());
        Sums {
            products: vec![0.0; p * p],
            squares: if self.is_direct() { vec![0.0; n * n] } else { Vec::new() },
            measured: vec![Measured::default(); n],
            signs: 0,
            floats: 0,
        }
    }

    pub(crate) fn totals(&self, sums: Sums) -> Totals {
        let squares = if self.is_direct() { self.updates } else { 0 };
        Totals {
            products: upper_triangle(self.points(), &sums.products),
            squares: upper_triangle(squares, &sums.squares),
            measured: sums.measured,
            signs: sums.signs,
            floats: sums.floats,
        }
    }

    fn relative_error(&self) -> f64 {
        match (self.precision, self.on_device) {
            (Precision::F64, _) => F64_RELATIVE_ERROR,
            (Precision::Usual, true) => PAIRS_RELATIVE_ERROR,
            (Precision::Usual, false) => RELATIVE_ERROR,
        }
    }

    /// What the sums of all sections tell.
    pub fn concluded(&self, branches: Branches<Option<Totals>>) -> FirstLook {
        let totals = branches.total().flatten().unwrap_or_else(|| self.totals(self.no_sums()));
        let products = Matrix::mirrored(self.points(), &totals.products);
        let squares = self.is_direct().then(|| Matrix::mirrored(self.updates, &totals.squares));
        let agreement = totals.signs as f64 / (totals.floats as f64 * self.updates as f64);
        FirstLook {
            measured: totals.measured,
            geometry: Geometry::new(self.updates, self.references, products, squares, self.relative_error()),
            sign_agreement: (self.with_signs && totals.floats > 0).then_some(agreement),
        }
    }
}

impl Sums {
    pub(crate) fn add(&mut self, other: &Self) {
        add_rows(&mut self.products, &other.products);
        add_rows(&mut self.squares, &other.squares);
        fold_measured(&mut self.measured, &other.measured);
        self.signs += other.signs;
        self.floats += other.floats;
    }
}

impl Summand for Totals {
    fn add(&mut self, later: &Self) {
        add_rows(&mut self.products, &later.products);
        add_rows(&mut self.squares, &later.squares);
        fold_measured(&mut self.measured, &later.measured);
        self.signs += later.signs;
        self.floats += later.floats;
    }
}
