//! The angle between each update and the coordinate median of all, on the GPU or the CPU.
//!
//! The CPU adds up the products of each delta with the median. The GPU measures the products of all points, as for
//! rules that compare clients, and the median is one of the points. Where deltas differ much in length, the CPU reads
//! them again.

use crate::engine::passes::blocks::add_rows;
use crate::engine::passes::error::PassError;
use crate::engine::passes::geometry::GeometryPass;
use crate::engine::passes::machine::Machine;
use crate::engine::passes::plan::Tile;
use crate::engine::passes::reader::TileReader;
use crate::engine::passes::sections::sections_of;
use crate::engine::passes::survey::{Quantity, Survey, read_all};
use crate::kernels::coordinate_median::coordinate_median;
use crate::kernels::element::Element;
use crate::kernels::lanes::Isa;
use crate::kernels::norms::{dot, squared_norm};
use crate::model::dtype::Kind;
use crate::model::tile::Rows;
use crate::rules::geometry::References;
use crate::rules::{Distances, GeometryRequest, Precision};
use crate::updates::set::UpdateSet;

/// The cosine of the angle between each delta and the coordinate median of all deltas, in one read. All updates must be
/// finite, and `squared_norms` are those of the deltas. `None` if the delta or the median is zero.
///
/// # Errors
///
/// When an update cannot be read, or the GPU fails.
pub fn cosines_to_median(
    machine: &Machine,
    set: &UpdateSet,
    squared_norms: &[f64],
) -> Result<Vec<Option<f64>>, PassError> {
    let on_gpu = machine.gpu().map(|_| products_on_gpu(machine, set)).transpose()?;
    let mut products = match on_gpu.filter(|products| are_alike(squared_norms, products.last())) {
        Some(products) => products,
        None => machine.run(&Survey::new(machine, set, Angles))?,
    };
    // The last product is the median's own squared norm.
    let median = products.pop().unwrap_or(0.0);
    let cosine = |(dot, norm): (f64, &f64)| {
        let product = (norm * median).sqrt();
        (product > 0.0).then(|| (dot / product).clamp(-1.0, 1.0))
    };
    Ok(products.into_iter().zip(squared_norms).map(cosine).collect())
}

/// The most that the squared norms of a delta and the median may differ by, as a factor. A GPU gets their product from the
/// length of their difference, of which a product of very unequal ones is too small a part.
const MOST_UNLIKE: f64 = (1 << 16) as f64;

/// Whether all deltas but zeros are about as long as the median.
fn are_alike(squared_norms: &[f64], median: Option<&f64>) -> bool {
    let median = median.copied().unwrap_or_default();
    let alike = median / MOST_UNLIKE..=median * MOST_UNLIKE;
    squared_norms.iter().all(|norm| *norm == 0.0 || alike.contains(norm))
}

/// The inner product of each delta with the coordinate median, and the median's squared norm.
fn products_on_gpu(machine: &Machine, set: &UpdateSet) -> Result<Vec<f64>, PassError> {
    let updates = set.clients.len();
    let request = GeometryRequest {
        updates,
        distances: Distances::Gram,
        references: References { median: true, centre: false },
        with_signs: false,
        precision: Precision::Usual,
        hostile: None,
        mixing: None,
        unscaled: None,
    };
    let sections = 0..sections_of(set.layout.parameters());
    let pass = GeometryPass { set, request, sections, on_gpu: true, keeps: false };
    let geometry = pass.run(machine)?.conclude(&request).0.geometry;
    // The median is the point behind the origin.
    let median = geometry.median().unwrap_or(geometry.origin());
    let products = (0..updates).map(|client| geometry.product(client, median));
    Ok(products.chain([geometry.squared_distance(median, geometry.origin())]).collect())
}

/// Measures the inner product of each delta with the coordinate median. The last value is the median's squared norm.
struct Angles;

impl Quantity for Angles {
    type Value = f64;

    fn none(&self, clients: usize) -> Vec<f64> {
        vec![0.0; clients + 1]
    }

    fn of_rows<E: Element>(
        &self,
        isa: Isa,
        reader: &mut TileReader,
        tile: &Tile,
        clients: usize,
    ) -> Result<Vec<f64>, PassError> {
        if tile.dtype.kind() != Kind::Float {
            return Ok(Vec::new());
        }
        read_all::<E>(reader, tile, clients)?;
        reader.subtract_base::<E>(tile, &(0..clients).collect::<Vec<usize>>());
        let rows = reader.rows::<E>(tile, clients);
        let median = median_delta(isa, &rows, reader.base_of(0));
        let row_dot = |row| dot(isa, rows.row(row), reader.base_of(row), &median);
        let mut sums: Vec<f64> = (0..rows.len()).map(row_dot).collect();
        sums.push(squared_norm(isa, &median, &[]));
        Ok(sums)
    }

    fn add(&self, all: &mut [f64], tile: &[f64]) {
        add_rows(all, tile);
    }
}

fn median_delta<E: Element>(isa: Isa, rows: &Rows<E>, base: &[f64]) -> Vec<f64> {
    let mut median = vec![0.0; rows.columns()];
    coordinate_median(isa, rows, &mut median);
    for (median, base) in median.iter_mut().zip(base) {
        *median -= base;
    }
    median
}
