//! Measures each update alone: bad or unfitting values, and its norm.

use crate::engine::passes::drive::Clock;
use crate::engine::passes::error::PassError;
use crate::engine::passes::machine::Machine;
use crate::engine::passes::pass::{TilePass, for_element};
use crate::engine::passes::plan::{Tile, TilePlan};
use crate::engine::passes::reader::TileReader;
use crate::engine::passes::row_limits::row_limits;
use crate::engine::passes::variances::negative;
use crate::kernels::convert::all_fit;
use crate::kernels::element::Element;
use crate::kernels::finite::{all_finite, non_finite};
use crate::kernels::lanes::Isa;
use crate::kernels::norms::{largest_magnitude, squared_norm};
use crate::model::dtype::Kind;
use crate::model::layout::Layout;
use crate::updates::fault::{BadValue, Inexact, Negative, NonFinite, Onto, Unfit};
use crate::updates::metadata::{SCAFFOLD_CONTROL, UpdateKind};
use crate::updates::set::UpdateSet;
use std::ops::RangeInclusive;

/// The measurements of one update.
#[derive(Clone, Default, Debug)]
pub struct Measured {
    /// The number of values that are NaN or infinite.
    pub non_finite: u64,
    /// Coordinate and value of the first non-finite value; `None` if all are finite.
    pub first_non_finite: Option<(usize, f64)>,
    /// The number of values that the merged model cannot hold, if all values are finite.
    pub unfit: u64,
    /// Coordinate and value of the first of them: a weight, or base plus delta. `None` if all fit.
    pub first_unfit: Option<(usize, f64)>,
    /// The number of variances and counters below zero.
    pub negative: u64,
    /// Coordinate and value of the first of them; `None` if there is none.
    pub first_negative: Option<(usize, f64)>,
    /// The largest magnitude of the finite floats.
    pub max_abs: f64,
    /// Squared L2 norm of the floats of its delta, or without a base of its values. NaN if some are not finite.
    pub squared_norm: f64,
}

/// Measures every update, in one read.
///
/// # Errors
///
/// When an update cannot be read.
pub fn measure(machine: &Machine, set: &UpdateSet) -> Result<Vec<Measured>, PassError> {
    if set.clients.is_empty() {
        return Ok(Vec::new());
    }
    machine.run(&Survey::new(machine, set, Magnitudes))
}

/// A pass that reads every update once and keeps a few numbers for each.
pub(crate) struct Survey<'a, Q> {
    machine: &'a Machine<'a>,
    set: &'a UpdateSet,
    plan: TilePlan,
    quantity: Q,
}

/// The numbers that a survey keeps for each update.
pub(crate) trait Quantity: Sync {
    type Value: Send;
    /// The values before the first tile, one per client.
    fn none(&self, clients: usize) -> Vec<Self::Value>;
    fn of_rows<E: Element>(
        &self,
        isa: Isa,
        reader: &mut TileReader,
        tile: &Tile,
        clients: usize,
    ) -> Result<Vec<Self::Value>, PassError>;
    fn add(&self, all: &mut [Self::Value], tile: &[Self::Value]);
}

impl<'a, Q: Quantity> Survey<'a, Q> {
    pub(crate) fn new(machine: &'a Machine<'a>, set: &'a UpdateSet, quantity: Q) -> Self {
        Self { machine, set, plan: TilePlan::of_ranges(set, set.clients.len(), &set.held()), quantity }
    }
}

impl<Q: Quantity> TilePass for Survey<'_, Q> {
    type Worker<'p>
        = TileReader<'p>
    where
        Self: 'p;
    type Part = Vec<Q::Value>;
    type Sum = Vec<Q::Value>;

    fn plan(&self) -> &TilePlan {
        &self.plan
    }

    fn worker(&self) -> TileReader<'_> {
        TileReader::new(self.machine.isa, self.set, &self.plan).without_screen()
    }

    fn tile(&self, reader: &mut TileReader, tile: &Tile) -> Result<Vec<Q::Value>, PassError> {
        let (isa, clients) = (self.machine.isa, self.set.clients.len());
        let part = for_element!(tile.working, E => self.quantity.of_rows::<E>(isa, reader, tile, clients))?;
        self.machine.progress.advance((clients * tile.coordinates.len() * tile.dtype.bytes()) as u64);
        Ok(part)
    }

    fn start(&self) -> Vec<Q::Value> {
        self.quantity.none(self.set.clients.len())
    }

    fn add(&self, sum: &mut Vec<Q::Value>, _: &Tile, part: Vec<Q::Value>) {
        self.quantity.add(sum, &part);
    }

    fn clock(&self, reader: &TileReader) -> Clock {
        reader.clock
    }
}

/// Reads all rows of a tile, and the base's.
pub(crate) fn read_all<E: Element>(
    reader: &mut TileReader,
    tile: &Tile,
    clients: usize,
) -> Result<(), PassError> {
    reader.read_base(tile)?;
    reader.read::<E>(tile, &(0..clients).collect::<Vec<usize>>())
}

/// Measures the non-finite values, the largest magnitude and the norm of each update.
struct Magnitudes;

impl Quantity for Magnitudes {
    type Value = Measured;

    fn none(&self, clients: usize) -> Vec<Measured> {
        vec![Measured::default(); clients]
    }

    fn of_rows<E: Element>(
        &self,
        isa: Isa,
        reader: &mut TileReader,
        tile: &Tile,
        clients: usize,
    ) -> Result<Vec<Measured>, PassError> {
        read_all::<E>(reader, tile, clients)?;
        let rows = reader.rows::<E>(tile, clients);
        let measure = |row: usize| {
            let values = rows.row(row);
            if !all_finite(isa, values) {
                return measure_non_finite(values, tile.coordinates.start);
            }
            let base = reader.base_under(row);
            let negative = || negative(reader.set(), tile, row, values, base);
            let unfit = Measured {
                negative: negative().count() as u64,
                first_negative: negative()
                    .next()
                    .map(|(column, value)| (tile.coordinates.start + column, value)),
                ..measure_unfit(
                    isa,
                    values,
                    base,
                    tile,
                    &row_limits(reader.set(), tile, row, !base.is_empty()),
                )
            };
            if tile.dtype.kind() != Kind::Float {
                return unfit;
            }
            let (max_abs, squared_norm) =
                (largest_magnitude(isa, values), squared_norm(isa, values, reader.base_of(row)));
            Measured { max_abs, squared_norm, ..unfit }
        };
        Ok((0..rows.len()).map(measure).collect())
    }

    fn add(&self, all: &mut [Measured], tile: &[Measured]) {
        add_measured(all, tile);
    }
}

/// Measures a row with values that are not finite; its first coordinate is `start`.
pub(crate) fn measure_non_finite<E: Element>(values: &[E], start: usize) -> Measured {
    let mut measured = Measured { squared_norm: f64::NAN, ..Measured::default() };
    for column in non_finite(values) {
        measured.non_finite += 1;
        measured.first_non_finite.get_or_insert((start + column, values[column].widen()));
    }
    let finite = values.iter().map(|x| x.widen().abs()).filter(|x| x.is_finite());
    measured.max_abs = finite.fold(0.0, f64::max);
    measured
}

/// Counts the values of a finite row that the tile's dtype cannot hold. `base` is the base's values under a delta, and
/// empty under weights.
fn measure_unfit<E: Element>(
    isa: Isa,
    values: &[E],
    base: &[f64],
    tile: &Tile,
    limits: &RangeInclusive<f64>,
) -> Measured {
    let mut measured = Measured::default();
    if all_fit(isa, values, base, limits) {
        return measured;
    }
    for (column, x) in values.iter().enumerate() {
        let base = base.get(column).copied().unwrap_or(0.0);
        let value = x.widen() + base;
        // A base that is not finite is no fault of the update.
        if base.is_finite() && !limits.contains(&value) {
            measured.unfit += 1;
            measured.first_unfit.get_or_insert((tile.coordinates.start + column, value));
        }
    }
    measured
}

/// Adds the measurements of a later tile.
pub(crate) fn add_measured(all: &mut [Measured], tile: &[Measured]) {
    for (all, tile) in all.iter_mut().zip(tile) {
        all.add(tile);
    }
}

impl Measured {
    /// Adds the measurements of later coordinates.
    pub(crate) fn add(&mut self, later: &Self) {
        self.non_finite += later.non_finite;
        self.first_non_finite = self.first_non_finite.or(later.first_non_finite);
        self.unfit += later.unfit;
        self.first_unfit = self.first_unfit.or(later.first_unfit);
        self.negative += later.negative;
        self.first_negative = self.first_negative.or(later.first_negative);
        self.max_abs = self.max_abs.max(later.max_abs);
        self.squared_norm += later.squared_norm;
    }

    /// Whether all values are finite, the merged model can hold them, and no variance is negative.
    pub fn is_sound(&self) -> bool {
        self.non_finite == 0 && self.unfit == 0 && self.negative == 0
    }

    /// The first non-finite value; `None` if all are finite. An integer is NaN where f64 does not hold it.
    fn non_finite_in(&self, layout: &Layout) -> Option<BadValue> {
        let (coordinate, value) = self.first_non_finite?;
        let (tensor, index) = layout.locate(coordinate);
        let (name, count) = (tensor.name.clone(), self.non_finite);
        Some(match tensor.dtype.kind() {
            Kind::Float => BadValue::NonFinite(NonFinite { tensor: name, index, value, count }),
            Kind::Integer | Kind::Bool => BadValue::Inexact(Inexact { tensor: name, index, count }),
        })
    }

    /// The first bad value of a client: not finite, or not one that the merged model can hold. `None` if all are good.
    pub fn bad_value_in(&self, set: &UpdateSet, client: usize) -> Option<BadValue> {
        let unfit = || self.unfit_in(set, client).map(BadValue::Unfit);
        let negative = || self.negative_in(set, client);
        self.non_finite_in(&set.layout).or_else(unfit).or_else(negative)
    }

    /// The first value that the merged model cannot hold; `None` if it can hold all.
    fn unfit_in(&self, set: &UpdateSet, client: usize) -> Option<Unfit> {
        let (coordinate, value) = self.first_unfit?;
        let (tensor, index) = set.layout.locate(coordinate);
        let (onto, dtype) = (onto(set, client, &tensor.name), tensor.dtype);
        Some(Unfit { tensor: tensor.name.clone(), index, value, dtype, onto, count: self.unfit })
    }

    /// The first variance or counter below zero; `None` if there is none.
    fn negative_in(&self, set: &UpdateSet, client: usize) -> Option<BadValue> {
        let (coordinate, value) = self.first_negative?;
        let (tensor, index) = set.layout.locate(coordinate);
        let (onto, count) = (onto(set, client, &tensor.name), self.negative);
        Some(BadValue::Negative(Negative { tensor: tensor.name.clone(), index, value, onto, count }))
    }
}

/// What a client's values of a tensor are added to.
fn onto(set: &UpdateSet, client: usize, tensor: &str) -> Onto {
    let is_delta = set.clients[client].metadata.kind == UpdateKind::Delta;
    match (is_delta && set.base.is_some(), tensor.starts_with(SCAFFOLD_CONTROL)) {
        (false, _) => Onto::Nothing,
        (true, false) => Onto::Base,
        (true, true) => Onto::Control,
    }
}
