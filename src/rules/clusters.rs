//! Clusters of clients: groups whose deltas point in similar directions.
//!
//! The distance of two clients is one minus the cosine of their deltas. Average linkage joins the two nearest clusters
//! until one is left; the mean distance of two clusters is that of all their pairs. Cosines as the distance of clients
//! are from Sattler et al., Clustered federated learning, 2019; hierarchical clusters from Briggs et al., Federated
//! learning with hierarchical clustering of local updates, 2020. The tree comes from the nearest-neighbour chain
//! (Muellner, Modern hierarchical, agglomerative clustering algorithms, 2011): n^2 time, and n (n + 1) / 2 distances, in
//! f32 for their memory. So clusters whose distances differ by less than f32 tells may be joined in either order.
//!
//! The cut is the one with the largest mean silhouette (Rousseeuw, Silhouettes, 1987). Below [`LEAST_SILHOUETTE`] all
//! clients are one cluster: Kaufman and Rousseeuw, Finding groups in data, 1990, find no substantial structure there.

use crate::parallel;
use crate::rules::geometry::Geometry;
use crate::rules::numeric::triangle::Triangle;

/// The least mean silhouette of more than one cluster.
pub const LEAST_SILHOUETTE: f64 = 0.25;

/// The most clusters that a cut may have.
pub const MOST_CLUSTERS: usize = 32;

/// The least distance of two clients that is not 0: 2^-23, the step of f32 at 1. Rounding of the updates and of their
/// sums makes smaller ones.
pub const LEAST_DISTANCE: f64 = f32::EPSILON as f64;

/// The clusters of a round.
#[derive(Clone, PartialEq, Debug)]
pub struct Clusters {
    /// The number of clusters.
    pub count: usize,
    /// The cluster of each client, from 1 on, in the order of their first clients.
    pub members: Vec<usize>,
    /// The largest mean silhouette of a cut into 2 to [`MOST_CLUSTERS`] clusters, from -1 to 1; `None` below 3 clients.
    pub silhouette: Option<f64>,
    /// Mean cosine of two clients of one cluster; `None` if no cluster has two.
    pub inside: Option<f64>,
    /// Mean cosine of two clients of different clusters; `None` for a single cluster.
    pub between: Option<f64>,
}

impl Clusters {
    /// The clusters of clients with these cosines.
    pub fn of(cosines: Cosines<'_>) -> Self {
        let best = Cut::best(cosines, &joins(cosines));
        let silhouette = best.as_ref().map(|(silhouette, _)| *silhouette);
        let accepted = best.filter(|(silhouette, _)| *silhouette >= LEAST_SILHOUETTE);
        let labels = accepted.map_or_else(|| vec![0; cosines.size()], |(_, labels)| labels);
        let members = numbered(&labels);
        let [inside, between] = means(cosines, &members);
        Self { count: members.iter().copied().max().unwrap_or(0), members, silhouette, inside, between }
    }
}

/// The cosines between the deltas of all clients. They follow from the geometry, so that no second matrix is kept.
#[derive(Clone, Copy)]
pub struct Cosines<'g> {
    geometry: &'g Geometry,
    lengths: &'g [f64],
}

impl<'g> Cosines<'g> {
    /// The cosines of deltas with these lengths; `None` if a delta is zero and so has no direction.
    pub fn of(geometry: &'g Geometry, lengths: &'g [f64]) -> Option<Self> {
        lengths.iter().all(|length| *length > 0.0).then_some(Self { geometry, lengths })
    }

    /// Number of clients.
    pub fn size(self) -> usize {
        self.lengths.len()
    }

    /// The cosine between the deltas of two clients.
    pub fn at(self, i: usize, j: usize) -> f64 {
        cosine(self.lengths, i, j, self.geometry.product(i.min(j), i.max(j)))
    }

    /// The results of `of` for each client and the cosines of its delta with all deltas, in order of clients.
    fn map_rows<T: Send>(self, of: impl Fn(usize, &[f64]) -> T + Sync) -> Vec<T> {
        self.geometry.map_products(4 * self.size(), |i, row| {
            row.iter_mut().enumerate().for_each(|(j, x)| *x = cosine(self.lengths, i, j, *x));
            of(i, row)
        })
    }
}

/// The cosine between two deltas with these lengths and this product.
pub(super) fn cosine(lengths: &[f64], i: usize, j: usize, product: f64) -> f64 {
    if i == j { 1.0 } else { (product / (lengths[i] * lengths[j])).clamp(-1.0, 1.0) }
}

/// Two clients whose clusters are joined, and the distance of these clusters.
#[derive(Clone, Copy, Debug)]
struct Join {
    distance: f32,
    clients: [usize; 2],
}

/// Clusters that one thread looks at in a row.
const PART: usize = 1024;

/// The time of reading a distance, in additions: the distances of a cluster lie far apart in the triangle.
const READ: usize = 32;

/// The distances of clusters. A cluster is named by one of its clients.
struct Distances(Triangle<f32>);

impl Distances {
    fn of(cosines: Cosines<'_>) -> Self {
        Self(Triangle::new(cosines.size(), |i, j| distance(cosines.at(i, j)) as f32))
    }

    /// The cluster nearest to `of`. On a tie it is `preferred`, else the first: a chain that prefers its last link ends.
    fn nearest(&self, of: usize, sizes: &[usize], preferred: Option<usize>) -> Option<(usize, f32)> {
        let nearer = |nearest: Option<(usize, f32)>, (other, distance): (usize, f32)| {
            if nearest.is_none_or(|(_, least)| distance < least) { Some((other, distance)) } else { nearest }
        };
        let parts = map_left(sizes, |others| {
            let others = others.filter(|other| *other != of).map(|other| (other, self.0.at(of, other)));
            others.fold(None, nearer)
        });
        let preferred = preferred.map(|other| (other, self.0.at(of, other)));
        parts.into_iter().flatten().fold(preferred, nearer)
    }

    /// Joins cluster `gone` to `kept`: its mean distances to all others are weighted by the numbers of clients.
    fn join(&mut self, kept: usize, gone: usize, sizes: &mut [usize]) {
        let [a, b] = [kept, gone].map(|cluster| sizes[cluster] as f64);
        let parts = map_left(sizes, |others| {
            let mean = |other: usize| {
                let [to_kept, to_gone] = [kept, gone].map(|cluster| f64::from(self.0.at(cluster, other)));
                (other, ((a * to_kept + b * to_gone) / (a + b)) as f32)
            };
            others.filter(|other| ![kept, gone].contains(other)).map(mean).collect::<Vec<_>>()
        });
        parts.into_iter().flatten().for_each(|(other, mean)| *self.0.at_mut(kept, other) = mean);
        sizes[kept] += sizes[gone];
        sizes[gone] = 0;
    }
}

/// The results of `of` for parts of the clusters that are left, in order.
fn map_left<T: Send>(sizes: &[usize], of: impl Fn(&mut dyn Iterator<Item = usize>) -> T + Sync) -> Vec<T> {
    parallel::map(sizes.len().div_ceil(PART), PART * READ, |part| {
        let first = part * PART;
        let end = sizes.len().min(first + PART);
        of(&mut (first..end).filter(|other| sizes[*other] > 0))
    })
}

/// The distance of two clients by their cosine.
fn distance(cosine: f64) -> f64 {
    let found = 1.0 - cosine;
    if found < LEAST_DISTANCE { 0.0 } else { found }
}

/// The joins of average linkage that lead from single clients to one cluster, nearest first.
fn joins(cosines: Cosines<'_>) -> Vec<Join> {
    let n = cosines.size();
    let mut distances = Distances::of(cosines);
    let mut sizes = vec![1; n];
    let (mut chain, mut joins): (Vec<usize>, Vec<Join>) = (Vec::new(), Vec::new());
    while joins.len() + 1 < n {
        parallel::check();
        let Some(last) = chain.last().copied() else {
            chain.extend(sizes.iter().position(|size| *size > 0));
            continue;
        };
        let before = chain.len().checked_sub(2).map(|place| chain[place]);
        let Some((nearest, distance)) = distances.nearest(last, &sizes, before) else { break };
        if before != Some(nearest) {
            chain.push(nearest);
            continue;
        }
        chain.truncate(chain.len() - 2);
        distances.join(last.min(nearest), last.max(nearest), &mut sizes);
        joins.push(Join { distance, clients: [last, nearest] });
    }
    joins.sort_by(|a, b| a.distance.total_cmp(&b.distance));
    joins
}

/// A cut of the tree: the label of each client, and how far it is from each cluster.
struct Cut {
    labels: Vec<usize>,
    /// The number of clients with each label.
    sizes: Vec<usize>,
    /// The sum of the distances from client `i` to the clients of label `c`, at `i * sizes.len() + c`.
    sums: Vec<f64>,
}

impl Cut {
    /// The cut with the largest mean silhouette, and its labels; of equal ones that with fewer clusters. `None` below 3
    /// clients.
    fn best(cosines: Cosines<'_>, joins: &[Join]) -> Option<(f64, Vec<usize>)> {
        let n = cosines.size();
        if n < 3 {
            return None;
        }
        let most = (n - 1).min(MOST_CLUSTERS);
        let mut cut = Self::into(cosines, joins, most);
        let mut best: Option<(f64, Vec<usize>)> = None;
        for clusters in (2..=most).rev() {
            let silhouette = cut.silhouette();
            if best.as_ref().is_none_or(|(largest, _)| silhouette >= *largest) {
                best = Some((silhouette, cut.labels.clone()));
            }
            cut.join(joins[n - clusters]);
        }
        best
    }

    /// The cut into this number of clusters.
    fn into(cosines: Cosines<'_>, joins: &[Join], clusters: usize) -> Self {
        let n = cosines.size();
        let mut labels: Vec<usize> = (0..n).collect();
        for Join { clients: [a, b], .. } in &joins[..n - clusters] {
            let (kept, gone) = (labels[*a], labels[*b]);
            labels.iter_mut().filter(|label| **label == gone).for_each(|label| *label = kept);
        }
        let labels: Vec<usize> = numbered(&labels).into_iter().map(|number| number - 1).collect();
        let mut sizes = vec![0; clusters];
        labels.iter().for_each(|label| sizes[*label] += 1);
        let sums = cosines.map_rows(|_, row| {
            let mut sums = vec![0.0; clusters];
            labels.iter().zip(row).for_each(|(label, cosine)| sums[*label] += distance(*cosine));
            sums
        });
        Self { labels, sizes, sums: sums.concat() }
    }

    /// Mean over the clients of `(b - a) / max(a, b)`: `a` is the mean distance to the others of the own cluster, `b` to
    /// the nearest other cluster. It is 0 for a client that is alone.
    fn silhouette(&self) -> f64 {
        let of = |(label, sums): (&usize, &[f64])| {
            let mean = |cluster: usize, count: usize| sums[cluster] / count as f64;
            let others = (0..self.sizes.len()).filter(|other| other != label && self.sizes[*other] > 0);
            let nearest = others.map(|other| mean(other, self.sizes[other])).fold(f64::INFINITY, f64::min);
            match self.sizes[*label] {
                1 => 0.0,
                size => {
                    let own = mean(*label, size - 1);
                    let larger = own.max(nearest);
                    if larger > 0.0 { (nearest - own) / larger } else { 0.0 }
                }
            }
        };
        let rows = self.sums.chunks_exact(self.sizes.len());
        self.labels.iter().zip(rows).map(of).sum::<f64>() / self.labels.len() as f64
    }

    fn join(&mut self, Join { clients: [a, b], .. }: Join) {
        let (kept, gone) = (self.labels[a], self.labels[b]);
        self.labels.iter_mut().filter(|label| **label == gone).for_each(|label| *label = kept);
        self.sizes[kept] += std::mem::take(&mut self.sizes[gone]);
        for sums in self.sums.chunks_exact_mut(self.sizes.len()) {
            sums[kept] += sums[gone];
        }
    }
}

/// The labels as numbers from 1 on, in the order of their first clients.
fn numbered(labels: &[usize]) -> Vec<usize> {
    let mut numbers = vec![0; labels.len()];
    let mut last = 0;
    let number = |label: &usize| {
        if numbers[*label] == 0 {
            last += 1;
            numbers[*label] = last;
        }
        numbers[*label]
    };
    labels.iter().map(number).collect()
}

/// The mean cosine of two clients of one cluster, and of two clients of different ones.
fn means(cosines: Cosines<'_>, members: &[usize]) -> [Option<f64>; 2] {
    // Of each client with those before it.
    let rows = cosines.map_rows(|i, row| {
        let (mut sums, mut counts) = ([0.0; 2], [0usize; 2]);
        for (other, cosine) in members[..i].iter().zip(row) {
            let side = usize::from(members[i] != *other);
            sums[side] += cosine;
            counts[side] += 1;
        }
        (sums, counts)
    });
    [0, 1].map(|side| {
        let count: usize = rows.iter().map(|(_, counts)| counts[side]).sum();
        let sum: f64 = rows.iter().map(|(sums, _)| sums[side]).sum();
        (count > 0).then(|| sum / count as f64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::geometry::References;

    fn of(size: usize, cosine: impl Fn(usize, usize) -> f64 + Sync) -> Clusters {
        // The origin comes behind the clients: its products are 0.
        let at = |i: usize, j: usize| match (i.max(j) < size, i == j) {
            (true, true) => 1.0,
            (true, false) => cosine(i, j),
            _ => 0.0,
        };
        let gram = Triangle::new(size + 1, at);
        let geometry = Geometry::new(size, References::default(), gram, None, 0.0);
        Clusters::of(Cosines::of(&geometry, &vec![1.0; size]).unwrap())
    }

    #[test]
    fn groups_are_numbered_by_their_first_client() {
        let groups = [7, 3, 7, 3, 5, 5, 7];
        let found = of(7, |i, j| if groups[i] == groups[j] { 0.9 } else { 0.2 });
        assert_eq!((found.count, found.members), (3, vec![1, 2, 1, 2, 3, 3, 1]));
        assert!((found.silhouette.unwrap() - 0.875).abs() < 1e-12);
        assert!((found.inside.unwrap() - 0.9).abs() < 1e-12);
        assert!((found.between.unwrap() - 0.2).abs() < 1e-12);
    }

    #[test]
    fn one_client_or_two_are_one_cluster() {
        assert_eq!((of(1, |_, _| 0.0).members, of(2, |_, _| -1.0).members), (vec![1], vec![1, 1]));
    }

    #[test]
    fn clients_without_groups_are_one_cluster() {
        for cosine in [-0.1, 0.0, 0.4, 1.0] {
            let found = of(9, |_, _| cosine);
            assert_eq!((found.count, found.between), (1, None));
            assert!((found.inside.unwrap() - cosine).abs() < 1e-12);
            assert!(found.silhouette.unwrap().abs() < 1e-12, "{found:?}");
        }
    }

    #[test]
    fn a_client_that_turns_away_stands_alone() {
        let found = of(5, |i, j| if i.max(j) == 4 { -0.5 } else { 0.8 });
        assert_eq!(found.members, [1, 1, 1, 1, 2]);
    }

    #[test]
    fn rounding_makes_no_groups() {
        // The cosines of one direction in f32, scaled by 1.1^i.
        let found = of(9, |i, j| 1.0 - 2e-9 * f64::from(u32::from(i / 3 != j / 3)));
        assert_eq!((found.count, found.silhouette), (1, Some(0.0)));
        let found = of(9, |i, j| if i / 3 == j / 3 { 1.0 } else { 1.0 - 2e-7 });
        assert_eq!(found.count, 3);
    }

    #[test]
    fn few_clients_have_no_cut() {
        assert_eq!(of(0, |_, _| 0.0).count, 0);
        for n in [1, 2] {
            let found = of(n, |_, _| -1.0);
            assert_eq!((found.count, found.silhouette, found.between), (1, None, None));
            assert_eq!(found.inside, (n == 2).then_some(-1.0));
        }
    }

    #[test]
    fn three_clients_may_be_two_clusters_and_two_are_one() {
        let found = of(3, |i, j| if i.max(j) == 1 { 0.99 } else { -0.9 });
        assert_eq!((found.count, found.members), (2, vec![1, 1, 2]));
        let found = of(2, |_, _| -0.9);
        assert_eq!((found.count, found.silhouette), (1, None));
    }

    #[test]
    fn the_least_silhouette_is_enough() {
        // Distances of 5/8 and 1: silhouettes of 3/8 twice, and 0 for the client alone.
        let found = of(3, |i, j| if i.max(j) == 1 { 0.375 } else { 0.0 });
        assert_eq!((found.silhouette, found.count), (Some(LEAST_SILHOUETTE), 2));
        let found = of(3, |i, j| if i.max(j) == 1 { 0.37 } else { 0.0 });
        assert_eq!(found.count, 1);
    }
}
