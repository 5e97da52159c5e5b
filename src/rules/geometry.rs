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

use crate::rules::mixing::Mixing;

/// A square matrix, row by row.
#[derive(Clone, PartialEq, Debug)]
pub struct Matrix {
    size: usize,
    values: Vec<f64>,
}

impl Matrix {
    /// The matrix whose value at row `i` and column `j` is `at(i, j)`.
    pub fn new(size: usize, at: impl Fn(usize, usize) -> f64) -> Self {
        let values = (0..size * size).map(|k| at(k / size, k % size)).collect();
        Self { size, values }
    }

    /// The symmetric matrix with this [upper triangle](upper_triangle).
    pub fn mirrored(size: usize, triangle: &[f64]) -> Self {
        assert_eq!(triangle.len(), size * (size + 1) / 2, "a triangle");
        let row = |i: usize| i * (2 * size - i + 1) / 2;
        Self::new(size, |i, j| triangle[row(i.min(j)) + i.abs_diff(j)])
    }

    /// The matrix with its rows and columns multiplied by `factors`.
    #[must_use]
    pub fn scaled(&self, factors: &[f64]) -> Self {
        Self::new(self.size, |i, j| factors[i] * factors[j] * self.at(i, j))
    }

    /// The sum with a matrix of the same size.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self::new(self.size, |i, j| self.at(i, j) + other.at(i, j))
    }

    /// Number of rows.
    pub fn size(&self) -> usize {
        self.size
    }

    /// One value.
    pub fn at(&self, row: usize, column: usize) -> f64 {
        self.values[row * self.size + column]
    }

    /// One row.
    pub fn row(&self, row: usize) -> &[f64] {
        &self.values[row * self.size..][..self.size]
    }
}

/// The upper triangle of a square, row by row from the diagonal on. The values below the diagonal are not read.
pub fn upper_triangle(size: usize, square: &[f64]) -> Vec<f64> {
    (0..size).flat_map(|i| &square[i * size + i..(i + 1) * size]).copied().collect()
}

/// The inner product of two lists.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The points of a round and the geometry between them.
#[derive(Clone, Debug)]
pub struct Geometry {
    clients: usize,
    /// Inner products of all points about the common centre: clients, origin, then the other references.
    gram: Matrix,
    /// Squared distances of all points.
    squared: Matrix,
    /// Whether the squared distances between clients were measured directly, not derived from the Gram matrix.
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
        gram: Matrix,
        measured: Option<Matrix>,
        relative_error: f64,
    ) -> Self {
        assert_eq!(gram.size(), clients + references.count(), "one row a point");
        let spread = (0..gram.size()).map(|p| gram.at(p, p)).collect();
        let mut squared = squared_distances(&gram);
        if let Some(measured) = &measured {
            squared = Matrix::new(gram.size(), |p, q| {
                if p.max(q) < clients { measured.at(p, q) } else { squared.at(p, q) }
            });
        }
        let measured = measured.is_some();
        let median = references.median.then_some(clients + 1);
        let centre = references.centre.then(|| clients + references.count() - 1);
        Self { clients, gram, squared, measured, spread, relative_error, median, centre, classes: None }
    }

    /// The geometry in all floats, from that in parameters and that in statistics, of the same points.
    #[must_use]
    pub fn of_classes(parameters: Self, statistics: Self) -> Self {
        let spread = parameters.spread.iter().zip(&statistics.spread).map(|(a, b)| a + b).collect();
        Self {
            clients: parameters.clients,
            gram: parameters.gram.plus(&statistics.gram),
            squared: parameters.squared.plus(&statistics.squared),
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
        self.squared.at(a, b)
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

    /// The inner products of all deltas.
    pub fn products(&self) -> Matrix {
        // The norms are more exact than the differences that give the other products.
        let at = |i, j| if i == j { self.norm(i).powi(2) } else { self.product(i, j) };
        Matrix::new(self.clients, at)
    }

    /// The inner products of the clients' differences from their weighted mean.
    pub fn about_mean(&self, weights: &[f64]) -> Matrix {
        let total: f64 = weights.iter().sum();
        let n = weights.len();
        let pulls: Vec<f64> = (0..n).map(|i| dot(&self.gram.row(i)[..n], weights) / total).collect();
        let own = dot(&pulls, weights) / total;
        Matrix::new(n, |i, j| self.gram.at(i, j) - pulls[i] - pulls[j] + own)
    }

    /// The inner products of the differences of some clients from their mean.
    pub fn scatter(&self, members: &[usize]) -> Matrix {
        let m = members.len();
        let product = |i: usize, j: usize| self.gram.at(members[i], members[j]);
        let pulls: Vec<f64> = (0..m).map(|i| (0..m).map(|j| product(i, j)).sum::<f64>() / m as f64).collect();
        let own = pulls.iter().sum::<f64>() / m as f64;
        Matrix::new(m, |i, j| product(i, j) - pulls[i] - pulls[j] + own)
    }

    /// The largest error of a squared distance among some clients.
    pub fn largest_error(&self, members: &[usize]) -> f64 {
        let pairs = members.iter().flat_map(|i| members.iter().map(move |j| (*i, *j)));
        pairs.map(|(i, j)| self.error(i, j)).fold(0.0, f64::max)
    }

    /// The squared distance from an affine combination of the points to every point; one coefficient for each point.
    pub fn squared_distances_to(&self, coefficients: &[f64]) -> Vec<f64> {
        let pull: Vec<f64> = (0..self.points()).map(|p| dot(self.gram.row(p), coefficients)).collect();
        let own = dot(&pull, coefficients);
        // The distance from a point to itself is exactly zero.
        let is_point = |p: usize| coefficients.iter().enumerate().all(|(q, c)| *c == f64::from(p == q));
        (0..self.points())
            .map(|p| if is_point(p) { 0.0 } else { (own - 2.0 * pull[p] + self.gram.at(p, p)).max(0.0) })
            .collect()
    }

    /// The geometry of mixed updates: the rows of `mixing` take the clients' place. It has no coordinate median, unless
    /// the rows are the clients themselves. No factor shortens statistics.
    #[must_use]
    pub fn mixed(&self, mixing: &Mixing) -> Self {
        if mixing.is_identity() {
            return self.clone();
        }
        match &self.classes {
            None => self.remade(mixing),
            Some(of) => {
                Self::of_classes(of.parameters.remade(mixing), of.statistics.remade(&mixing.unscaled()))
            }
        }
    }

    /// The geometry of the rows of `mixing` in one class.
    fn remade(&self, mixing: &Mixing) -> Self {
        let extras: Vec<usize> = [Some(self.origin()), self.centre].into_iter().flatten().collect();
        // Each new point as a combination of the old ones.
        let mut points: Vec<Vec<f64>> = (0..mixing.len()).map(|k| self.combination(mixing.row(k))).collect();
        points.extend(extras.iter().map(|extra| unit(*extra, self.points())));
        let gram = self.gram_of(&points);
        let old = |p: usize| if p < mixing.len() { mixing.chosen(p) } else { Some(extras[p - mixing.len()]) };
        let from_gram = squared_distances(&gram);
        let squared = Matrix::new(points.len(), |p, q| match (old(p), old(q)) {
            (Some(p), Some(q)) => self.squared.at(p, q),
            _ => from_gram.at(p, q),
        });
        let all_chosen = (0..mixing.len()).all(|k| mixing.chosen(k).is_some());
        Self {
            clients: mixing.len(),
            gram,
            squared,
            measured: self.measured && all_chosen,
            spread: points.iter().map(|point| self.spread_of(point)).collect(),
            relative_error: self.relative_error,
            median: None,
            centre: self.centre.map(|_| mixing.len() + 1),
            classes: None,
        }
    }

    /// A combination of clients' deltas as an affine combination of all points: the origin takes the rest up to one.
    pub fn combination(&self, deltas: &[f64]) -> Vec<f64> {
        let mut coefficients = vec![0.0; self.points()];
        coefficients[..self.clients].copy_from_slice(deltas);
        let sum: f64 = deltas.iter().sum();
        // A sum of nearly one is one, but for rounding.
        coefficients[self.origin()] = if (1.0 - sum).abs() < 1e-14 { 0.0 } else { 1.0 - sum };
        coefficients
    }

    /// The length of a difference of combinations, whose coefficients of all points add up to zero.
    pub fn length(&self, coefficients: &[f64]) -> f64 {
        let pulls: Vec<f64> = (0..self.points()).map(|p| dot(self.gram.row(p), coefficients)).collect();
        dot(&pulls, coefficients).max(0.0).sqrt()
    }

    fn gram_of(&self, points: &[Vec<f64>]) -> Matrix {
        let pulls: Vec<Vec<f64>> = points
            .iter()
            .map(|point| (0..self.points()).map(|p| dot(self.gram.row(p), point)).collect())
            .collect();
        Matrix::new(points.len(), |p, q| dot(&pulls[p.min(q)], &points[p.max(q)]))
    }

    /// The square of the summed lengths of a combination's terms. The errors of its distances scale with it.
    fn spread_of(&self, coefficients: &[f64]) -> f64 {
        let length = |(p, c): (usize, &f64)| c.abs() * self.spread[p].sqrt();
        coefficients.iter().enumerate().map(length).sum::<f64>().powi(2)
    }
}

fn unit(place: usize, len: usize) -> Vec<f64> {
    let mut unit = vec![0.0; len];
    unit[place] = 1.0;
    unit
}

fn squared_distances(gram: &Matrix) -> Matrix {
    Matrix::new(gram.size(), |i, j| (gram.at(i, i) + gram.at(j, j) - 2.0 * gram.at(i, j)).max(0.0))
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
        let gram = Matrix::new(points.len(), |i, j| dot(&centred[i], &centred[j]));
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
        let clipped = all.mixed(&Mixing::diagonal(&[1.0, 1.0, 0.1]));
        assert!((clipped.distance(0, 2) - 2f64.hypot(405.0)).abs() < 1e-9, "{}", clipped.distance(0, 2));
        assert!((clipped.norm(2) - 3f64.hypot(400.0)).abs() < 1e-9);
        assert!((clipped.parameters().norm(2) - 3.0).abs() < 1e-12);
        // A mean of two is one of both classes.
        let mixed = all.mixed(&Mixing::new(3, vec![vec![0.5, 0.0, 0.5]]));
        assert!((mixed.norm(0) - 15.5f64.hypot(197.5)).abs() < 1e-9);
    }

    #[test]
    fn mixed_updates_have_the_geometry_of_what_they_are() {
        let geometry = geometry_of(&corners());
        let mixing = Mixing::new(3, vec![vec![0.5, 0.5, 0.0], vec![0.0, 0.0, 0.5], vec![0.5, 0.5, 0.0]]);
        let mixed = geometry.mixed(&mixing);
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
}
