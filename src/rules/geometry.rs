//! The geometry of a round: inner products and distances of all points that a rule may combine.
//!
//! The points are the clients' updates and a few references: the origin, where the delta is zero, and on request the
//! coordinate median and the centre that an earlier round left. A rule makes affine combinations of them. The distances
//! between such combinations follow from the Gram matrix of the points about any common centre:
//! `|sum_p c_p P_p|^2 = c' G c` for coefficients that add up to zero. So rules iterate on n x n numbers, whatever the
//! size of the model.
//!
//! The Gram matrix is about a centre amid the clients, not about the origin. So updates that agree in all but their last
//! digits keep those digits, and clients far away do not blur the distances between the others.
//!
//! Parameters and statistics are coordinates of one space, so their Gram matrices add up. Rules see the sum. A factor
//! that shortens deltas, such as that of a clip, is for parameters alone: then the sum is `f_i f_j G + G_statistics`.

use crate::parallel;
use crate::rules::mixing::Mixing;
use crate::rules::numeric::triangle::Triangle;
use std::sync::Arc;

/// The inner product of two lists, from eight sums side by side: a sum alone waits for each of its additions.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (a_eights, a_rest) = a.as_chunks::<8>();
    let (b_eights, b_rest) = b.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for (a, b) in a_eights.iter().zip(b_eights) {
        for k in 0..8 {
            sums[k] += a[k] * b[k];
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + rest
}

/// The points of a round and the geometry between them.
#[derive(Clone, Debug)]
pub struct Geometry {
    clients: usize,
    /// Inner products of all points about the common centre: clients, origin, then the other references.
    gram: Arc<Triangle>,
    /// Its diagonal.
    diagonal: Vec<f64>,
    /// Squared distances between clients that were measured directly; `None` if all follow from the Gram matrix.
    squared: Option<Arc<Triangle>>,
    /// Whether every squared distance between clients was measured directly.
    measured: bool,
    /// The squared length of each point's terms. A squared distance from the Gram matrix is exact to `relative_error`
    /// times twice the sum of the spreads of both points. A measured distance is exact to `relative_error` times itself,
    /// plus the rounding of the rows.
    spread: Vec<f64>,
    relative_error: f64,
    median: Option<usize>,
    centre: Option<usize>,
    /// The parts of the sum; `None` if no float is a statistic.
    classes: Option<Box<Classes>>,
}

/// The inner products of a weighted mean of clients about the common centre.
pub(super) struct Pulls {
    /// With each client.
    pulls: Vec<f64>,
    /// With itself.
    own: f64,
}

/// The geometries of the same points in parameters alone and in statistics alone.
#[derive(Clone, Debug)]
struct Classes {
    parameters: Geometry,
    statistics: Geometry,
}

/// The references besides the origin, in the order of the points.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct References {
    /// The coordinate median of the clients.
    pub median: bool,
    /// The centre that an earlier round left.
    pub centre: bool,
}

impl References {
    /// The number of references, with the origin.
    pub fn count(self) -> usize {
        1 + usize::from(self.median) + usize::from(self.centre)
    }
}

impl Geometry {
    /// The geometry of `clients` points and of references from their inner products. `measured` are the squared distances
    /// between clients; `None` derives them from `gram`. Both are exact to `relative_error`.
    pub fn new(
        clients: usize,
        references: References,
        gram: Triangle,
        measured: Option<Triangle>,
        relative_error: f64,
    ) -> Self {
        assert_eq!(gram.size(), clients + references.count(), "one row a point");
        let diagonal = gram.diagonal();
        let spread = diagonal.clone();
        let (gram, squared) = (Arc::new(gram), measured.map(Arc::new));
        let measured = squared.is_some();
        let median = references.median.then_some(clients + 1);
        let centre = references.centre.then(|| clients + references.count() - 1);
        Self {
            clients,
            gram,
            diagonal,
            squared,
            measured,
            spread,
            relative_error,
            median,
            centre,
            classes: None,
        }
    }

    /// The geometry in all floats, from that in parameters and that in statistics, of the same points.
    #[must_use]
    pub fn of_classes(parameters: Self, statistics: Self) -> Self {
        let spread = parameters.spread.iter().zip(&statistics.spread).map(|(a, b)| a + b).collect();
        let gram = parameters.gram.plus(&statistics.gram);
        Self {
            clients: parameters.clients,
            diagonal: gram.diagonal(),
            gram: Arc::new(gram),
            squared: None,
            measured: parameters.measured && statistics.measured,
            spread,
            relative_error: parameters.relative_error.max(statistics.relative_error),
            median: parameters.median,
            centre: parameters.centre,
            classes: Some(Box::new(Classes { parameters, statistics })),
        }
    }

    /// The geometry in parameters alone, for lengths that decide how far deltas are scaled.
    pub fn parameters(&self) -> &Self {
        self.classes.as_ref().map_or(self, |classes| &classes.parameters)
    }

    /// Number of clients.
    pub fn clients(&self) -> usize {
        self.clients
    }

    /// Number of points.
    pub fn points(&self) -> usize {
        self.gram.size()
    }

    /// The clients whose squared values overflow.
    pub fn unmeasurable(&self) -> Vec<usize> {
        (0..self.clients)
            .filter(|i| !self.gram.at(*i, *i).is_finite() || !self.norm(*i).is_finite())
            .collect()
    }

    /// The inner product of each point with itself, about the common centre.
    pub(super) fn diagonal(&self) -> &[f64] {
        &self.diagonal
    }

    /// The point of the zero delta.
    pub fn origin(&self) -> usize {
        self.clients
    }

    /// The point of the coordinate median; `None` if it was not measured.
    pub fn median(&self) -> Option<usize> {
        self.median
    }

    /// The point of the centre that an earlier round left; `None` if there is none.
    pub fn centre(&self) -> Option<usize> {
        self.centre
    }

    /// The squared distance of two points.
    pub fn squared_distance(&self, a: usize, b: usize) -> f64 {
        match (&self.classes, &self.squared) {
            (Some(of), _) => of.parameters.squared_distance(a, b) + of.statistics.squared_distance(a, b),
            (None, Some(squared)) if a.max(b) < self.clients => squared.at(a, b),
            _ => squared_distance(self.diagonal[a], self.diagonal[b], self.gram.at(a, b)),
        }
    }

    /// The results of `of` for each client and its squared distances to all clients, in order of clients. `work` is the
    /// number of additions that one client takes, about.
    pub fn map_distances<T: Send>(&self, work: usize, of: impl Fn(usize, &mut [f64]) -> T + Sync) -> Vec<T> {
        self.map_rows(work, Self::copy_distances, of)
    }

    /// The results of `of` for each client and its row of values, which `copy` writes for several clients at once.
    fn map_rows<T: Send>(
        &self,
        work: usize,
        copy: impl Fn(&Self, usize, &mut [f64]) + Sync,
        of: impl Fn(usize, &mut [f64]) -> T + Sync,
    ) -> Vec<T> {
        let n = self.clients;
        let blocks = parallel::map(n.div_ceil(ROWS), ROWS * work, |block| {
            let first = block * ROWS;
            let mut rows = vec![0.0; (n - first).min(ROWS) * n];
            copy(self, first, &mut rows);
            let each = rows.chunks_mut(n).enumerate().map(|(r, row)| of(first + r, row));
            each.collect::<Vec<T>>()
        });
        blocks.into_iter().flatten().collect()
    }

    /// The squared distances from one client to all.
    pub fn squared_distances_from(&self, client: usize) -> Vec<f64> {
        let mut row = vec![0.0; self.clients];
        self.copy_distances(client, &mut row);
        row
    }

    /// Writes the squared distances from some clients to all, one client after the other.
    fn copy_distances(&self, first: usize, rows: &mut [f64]) {
        let n = self.clients;
        if let Some(of) = &self.classes {
            let mut statistics = vec![0.0; rows.len()];
            of.parameters.copy_distances(first, rows);
            of.statistics.copy_distances(first, &mut statistics);
            rows.iter_mut().zip(statistics).for_each(|(all, more)| *all += more);
        } else if let Some(squared) = &self.squared {
            squared.copy_rows(first, n, rows);
        } else {
            self.gram.copy_rows(first, n, rows);
            for (i, row) in (first..).zip(rows.chunks_mut(n)) {
                let own = self.diagonal[i];
                row.iter_mut()
                    .zip(&self.diagonal)
                    .for_each(|(x, other)| *x = squared_distance(own, *other, *x));
            }
        }
    }

    /// The distance of two points.
    pub fn distance(&self, a: usize, b: usize) -> f64 {
        self.squared_distance(a, b).sqrt()
    }

    /// A bound on the error of the squared distance of two points.
    pub fn error(&self, a: usize, b: usize) -> f64 {
        if a == b {
            return 0.0;
        }
        if !self.measured || a.max(b) >= self.clients {
            // In `G_aa + G_bb - 2 G_ab` the error of the last term may equal those of the other two together.
            return self.relative_error * 2.0 * (self.spread[a] + self.spread[b]);
        }
        // Subtracting the centre rounded the rows to f32, each by half of the last digit.
        let rounded = f64::from(f32::EPSILON) * (self.spread[a].sqrt() + self.spread[b].sqrt());
        self.relative_error * self.squared_distance(a, b) + rounded * self.distance(a, b)
    }

    /// The L2 norm of a client's delta.
    pub fn norm(&self, client: usize) -> f64 {
        self.distance(client, self.origin())
    }

    /// The inner product of two clients' deltas.
    pub fn product(&self, a: usize, b: usize) -> f64 {
        let origin = self.origin();
        let gram = &self.gram;
        gram.at(a, b) - gram.at(a, origin) - gram.at(b, origin) + gram.at(origin, origin)
    }

    /// The results of `of` for each client and the inner products of its delta with all deltas, in order of clients.
    pub fn map_products<T: Send>(&self, work: usize, of: impl Fn(usize, &mut [f64]) -> T + Sync) -> Vec<T> {
        let (n, origin) = (self.clients, self.origin());
        let to_origin: Vec<f64> = (0..n).map(|i| self.gram.at(i, origin)).collect();
        self.map_rows(
            work,
            |gram, first, rows| gram.gram.copy_rows(first, n, rows),
            |i, row| {
                // In the order of clients, so that both rows of a pair have the same bits.
                for (j, x) in row.iter_mut().enumerate() {
                    *x = *x - to_origin[i.min(j)] - to_origin[i.max(j)] + self.diagonal[origin];
                }
                // The norms are more exact than the differences that give the other products.
                row[i] = self.norm(i).powi(2);
                of(i, row)
            },
        )
    }

    /// The inner products of the clients' differences from their weighted mean.
    pub fn about_mean(&self, weights: &[f64]) -> Triangle {
        let Pulls { pulls, own } = self.pulls(weights);
        Triangle::new(weights.len(), |i, j| self.gram.at(i, j) - pulls[i] - pulls[j] + own)
    }

    /// The inner products of the clients' weighted mean, about the common centre, with the clients and with itself.
    pub(super) fn pulls(&self, weights: &[f64]) -> Pulls {
        let total: f64 = weights.iter().sum();
        let n = weights.len();
        let mut all = weights.to_vec();
        all.resize(self.points(), 0.0);
        let pulls: Vec<f64> = self.gram.times(&all)[..n].iter().map(|pull| pull / total).collect();
        let own = dot(&pulls, weights) / total;
        Pulls { pulls, own }
    }

    /// The product of the matrix [`about_mean`](Self::about_mean) with a vector, without that matrix.
    pub(super) fn times_about_mean(&self, Pulls { pulls, own }: &Pulls, x: &[f64]) -> Vec<f64> {
        let mut all = x.to_vec();
        all.resize(self.points(), 0.0);
        let (sum, pulled) = (x.iter().sum::<f64>(), dot(pulls, x));
        let products = self.gram.times(&all);
        products.iter().zip(pulls).map(|(product, pull)| product - pull * sum - pulled + own * sum).collect()
    }

    /// The inner products of the differences of some clients from their mean.
    pub fn scatter(&self, members: &[usize]) -> Triangle {
        let m = members.len();
        let product = |i: usize, j: usize| self.gram.at(members[i], members[j]);
        let pulls: Vec<f64> = (0..m).map(|i| (0..m).map(|j| product(i, j)).sum::<f64>() / m as f64).collect();
        let own = pulls.iter().sum::<f64>() / m as f64;
        Triangle::new(m, |i, j| product(i, j) - pulls[i] - pulls[j] + own)
    }

    /// The largest error of a squared distance among some clients.
    pub fn largest_error(&self, members: &[usize]) -> f64 {
        let pairs = members.iter().flat_map(|i| members.iter().map(move |j| (*i, *j)));
        pairs.map(|(i, j)| self.error(i, j)).fold(0.0, f64::max)
    }

    /// The squared distance from an affine combination of the points to every point; one coefficient for each point.
    pub fn squared_distances_to(&self, coefficients: &[f64]) -> Vec<f64> {
        let pull = self.gram.times(coefficients);
        let own = dot(&pull, coefficients);
        // The distance from a point to itself is exactly zero.
        let is_point = |p: usize| coefficients.iter().enumerate().all(|(q, c)| *c == f64::from(p == q));
        (0..self.points())
            .map(|p| if is_point(p) { 0.0 } else { (own - 2.0 * pull[p] + self.gram.at(p, p)).max(0.0) })
            .collect()
    }

    /// The geometry of mixed updates: the rows of `mixing` take the clients' place. It has no coordinate median, unless
    /// the rows are the clients themselves. No factor shortens statistics. Rows that are combinations of many clients
    /// take n x n x n multiply-adds.
    #[must_use]
    pub fn mixed(self, mixing: &Mixing) -> Self {
        if mixing.is_identity() {
            return self;
        }
        match mixing.all_chosen() {
            Some(chosen) if chosen.is_sorted_by(|a, b| a < b) => self.of_clients(&chosen),
            _ => match &self.classes {
                None => self.remade(mixing),
                Some(of) => {
                    Self::of_classes(of.parameters.remade(mixing), of.statistics.remade(&mixing.unscaled()))
                }
            },
        }
    }

    /// The geometry of some clients, in ascending order.
    fn of_clients(self, chosen: &[usize]) -> Self {
        let mut points = chosen.to_vec();
        points.extend(self.lasting_references());
        let mut gram = Arc::unwrap_or_clone(self.gram);
        gram.keep(&points);
        let squared = self.squared.map(|squared| {
            let mut squared = Arc::unwrap_or_clone(squared);
            squared.keep(chosen);
            Arc::new(squared)
        });
        let classes = self.classes.map(|of| {
            let Classes { parameters, statistics } = *of;
            let (parameters, statistics) = (parameters.of_clients(chosen), statistics.of_clients(chosen));
            Box::new(Classes { parameters, statistics })
        });
        Self {
            clients: chosen.len(),
            diagonal: gram.diagonal(),
            gram: Arc::new(gram),
            squared,
            measured: self.measured,
            spread: points.iter().map(|p| self.spread[*p]).collect(),
            relative_error: self.relative_error,
            median: None,
            centre: self.centre.map(|_| chosen.len() + 1),
            classes,
        }
    }

    /// The references that mixed updates have too: all but the median.
    fn lasting_references(&self) -> impl Iterator<Item = usize> + use<> {
        [Some(self.origin()), self.centre].into_iter().flatten()
    }

    /// The geometry of the rows of `mixing` in one class.
    fn remade(&self, mixing: &Mixing) -> Self {
        let (rows, extras) = (mixing.len(), self.lasting_references().collect::<Vec<usize>>());
        let single = |p: usize| if p < rows { mixing.single(p) } else { Some((extras[p - rows], 1.0)) };
        let singles: Option<Vec<(usize, f64)>> = (0..rows + extras.len()).map(single).collect();
        let (gram, spread) = match singles {
            Some(singles) => self.of_singles(&singles),
            None => {
                // Each new point as a combination of the old ones.
                let mut points: Vec<Vec<f64>> = (0..rows).map(|k| self.combination(&mixing.row(k))).collect();
                points.extend(extras.iter().map(|extra| unit(*extra, self.points())));
                (self.gram_of(&points), points.iter().map(|point| self.spread_of(point)).collect())
            }
        };
        let diagonal = gram.diagonal();
        let squared = self.squared.as_ref().map(|_| {
            Arc::new(Triangle::new(rows, |p, q| match (mixing.chosen(p), mixing.chosen(q)) {
                (Some(p), Some(q)) => self.squared_distance(p, q),
                _ => squared_distance(diagonal[p], diagonal[q], gram.at(p, q)),
            }))
        });
        let all_chosen = (0..rows).all(|k| mixing.chosen(k).is_some());
        Self {
            clients: rows,
            gram: Arc::new(gram),
            diagonal,
            squared,
            measured: self.measured && all_chosen,
            spread,
            relative_error: self.relative_error,
            median: None,
            centre: self.centre.map(|_| rows + 1),
            classes: None,
        }
    }

    /// The inner products and the spreads of points that are old points times factors: the origin takes the rest up to
    /// one.
    fn of_singles(&self, singles: &[(usize, f64)]) -> (Triangle, Vec<f64>) {
        let origin = self.origin();
        let to_origin: Vec<f64> = (0..self.points()).map(|p| self.gram.at(p, origin)).collect();
        let rests: Vec<f64> = singles.iter().map(|(_, factor)| rest(*factor)).collect();
        let product = |p: usize, q: usize| {
            let ((i, f), (j, g)) = (singles[p], singles[q]);
            // The product of the first with the second's old point, and with the origin.
            let with_point = f * self.gram.at(i, j) + rests[p] * to_origin[j];
            let with_origin = f * to_origin[i] + rests[p] * to_origin[origin];
            g * with_point + rests[q] * with_origin
        };
        let length = |p: usize| self.spread[p].sqrt();
        let spread = |((i, f), rest): (&(usize, f64), &f64)| {
            (f.abs() * length(*i) + rest.abs() * length(origin)).powi(2)
        };
        (Triangle::new(singles.len(), product), singles.iter().zip(&rests).map(spread).collect())
    }

    /// A combination of clients' deltas as an affine combination of all points: the origin takes the rest up to one.
    pub fn combination(&self, deltas: &[f64]) -> Vec<f64> {
        let mut coefficients = vec![0.0; self.points()];
        coefficients[..self.clients].copy_from_slice(deltas);
        coefficients[self.origin()] = rest(deltas.iter().sum());
        coefficients
    }

    /// The length of a difference of combinations, whose coefficients of all points add up to zero.
    pub fn length(&self, coefficients: &[f64]) -> f64 {
        dot(&self.gram.times(coefficients), coefficients).max(0.0).sqrt()
    }

    fn gram_of(&self, points: &[Vec<f64>]) -> Triangle {
        let (m, n) = (points.len(), self.points());
        let pulls: Vec<Vec<f64>> = points.iter().map(|point| self.gram.times(point)).collect();
        let rows =
            parallel::map(m, m * n / 2, |p| (p..m).map(|q| dot(&pulls[p], &points[q])).collect::<Vec<f64>>());
        Triangle::of_values(m, rows.concat())
    }

    /// The square of the summed lengths of a combination's terms. The errors of its distances scale with it.
    fn spread_of(&self, coefficients: &[f64]) -> f64 {
        let length = |(p, c): (usize, &f64)| c.abs() * self.spread[p].sqrt();
        coefficients.iter().enumerate().map(length).sum::<f64>().powi(2)
    }
}

/// The coefficient of the origin beside coefficients with this sum. A sum of nearly one is one, but for rounding.
fn rest(sum: f64) -> f64 {
    if (1.0 - sum).abs() < 1e-14 { 0.0 } else { 1.0 - sum }
}

fn unit(place: usize, len: usize) -> Vec<f64> {
    let mut unit = vec![0.0; len];
    unit[place] = 1.0;
    unit
}

/// Clients whose distances are copied at once, so that a line of the cache is read once for several of them.
const ROWS: usize = 16;

/// The squared distance of two points, from their squares and their product.
fn squared_distance(a: f64, b: f64, product: f64) -> f64 {
    (a + b - 2.0 * product).max(0.0)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The geometry of deltas written out, about their first point; the median is among the points.
    pub(crate) fn geometry_of(rows: &[Vec<f64>]) -> Geometry {
        let d = rows[0].len();
        let column = |j: usize| {
            let mut values: Vec<f64> = rows.iter().map(|row| row[j]).collect();
            values.sort_by(f64::total_cmp);
            (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0
        };
        let mut points = rows.to_vec();
        points.push(vec![0.0; d]);
        points.push((0..d).map(column).collect());
        let centred: Vec<Vec<f64>> =
            points.iter().map(|p| p.iter().zip(&rows[0]).map(|(x, c)| x - c).collect()).collect();
        let gram = Triangle::new(points.len(), |i, j| dot(&centred[i], &centred[j]));
        Geometry::new(rows.len(), References { median: true, centre: false }, gram, None, 1e-15)
    }

    fn corners() -> Vec<Vec<f64>> {
        vec![vec![1.0, 0.0], vec![0.0, 2.0], vec![3.0, 4.0]]
    }

    #[test]
    fn distances_norms_and_products_are_those_of_the_deltas() {
        let geometry = geometry_of(&corners());
        assert_eq!(geometry.squared_distance(0, 1), 5.0);
        assert_eq!(geometry.norm(2), 5.0);
        assert_eq!(geometry.product(1, 2), 8.0);
        assert_eq!(geometry.squared_distance(2, geometry.median().unwrap()), 8.0);
    }

    #[test]
    fn combinations_lie_where_their_coefficients_say() {
        let geometry = geometry_of(&corners());
        // (0.5, 1) as half of the first two.
        let middle = geometry.combination(&[0.5, 0.5, 0.0]);
        assert_eq!(geometry.squared_distances_to(&middle)[2], 2.5f64.powi(2) + 9.0);
        // Half of the third delta is half way to the origin.
        let half = geometry.combination(&[0.0, 0.0, 0.5]);
        assert_eq!(geometry.squared_distances_to(&half)[geometry.origin()], 6.25);
    }

    #[test]
    fn factors_shorten_parameters_and_not_statistics() {
        // One parameter and one statistic for each client.
        let parameters: Vec<Vec<f64>> = vec![vec![1.0], vec![2.0], vec![30.0]];
        let statistics: Vec<Vec<f64>> = vec![vec![5.0], vec![5.0], vec![-400.0]];
        let all = Geometry::of_classes(geometry_of(&parameters), geometry_of(&statistics));
        assert_eq!((all.norm(2), all.parameters().norm(2)), (30f64.hypot(400.0), 30.0));
        let clipped = all.clone().mixed(&Mixing::diagonal(&[1.0, 1.0, 0.1]));
        assert!((clipped.distance(0, 2) - 2f64.hypot(405.0)).abs() < 1e-9, "{}", clipped.distance(0, 2));
        assert!((clipped.norm(2) - 3f64.hypot(400.0)).abs() < 1e-9);
        assert!((clipped.parameters().norm(2) - 3.0).abs() < 1e-12);
        // A mean of two is one of both classes.
        let mixed = all.clone().mixed(&Mixing::new(3, vec![vec![0.5, 0.0, 0.5]]));
        assert!((mixed.norm(0) - 15.5f64.hypot(197.5)).abs() < 1e-9);
    }

    #[test]
    fn mixed_updates_have_the_geometry_of_what_they_are() {
        let geometry = geometry_of(&corners());
        let mixing = Mixing::new(3, vec![vec![0.5, 0.5, 0.0], vec![0.0, 0.0, 0.5], vec![0.5, 0.5, 0.0]]);
        let mixed = geometry.clone().mixed(&mixing);
        let plain = geometry_of(&[vec![0.5, 1.0], vec![1.5, 2.0], vec![0.5, 1.0]]);
        for i in 0..3 {
            assert!((mixed.norm(i) - plain.norm(i)).abs() < 1e-12);
            for j in 0..3 {
                assert!((mixed.squared_distance(i, j) - plain.squared_distance(i, j)).abs() < 1e-12);
                assert!((mixed.product(i, j) - plain.product(i, j)).abs() < 1e-12);
            }
        }
        assert_eq!(mixed.squared_distance(0, 2), 0.0);
        assert_eq!(mixed.median(), None);
    }

    #[test]
    fn a_sum_of_nearly_one_leaves_nothing_for_the_origin() {
        assert_eq!([1.0, 1.0 - 1e-15, 1.0 + 1e-15].map(rest), [0.0; 3]);
        assert_eq!((rest(0.75), rest(1.0 - 1e-13) > 0.0), (0.25, true));
    }
}
