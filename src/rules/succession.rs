//! Krum's scores of the clients that are left, as clients leave one by one.
//!
//! A score counts all others but the F + 1 farthest. So when a client leaves, another's score loses either the distance
//! to it, or the distance to the client that becomes the next of its F + 1 farthest. Each client keeps the places of its
//! farthest others, farthest first, and twice as many as it needs: it looks for them again when half of all others left.
//! A client leaves in O(n), apart from these few searches.

use crate::parallel;
use crate::rules::geometry::Geometry;
use crate::rules::krum;
use crate::rules::numeric::sum::Sum;
use crate::rules::ranking::Score;

/// The clients that are left, and their scores.
pub(super) struct Succession<'a> {
    geometry: &'a Geometry,
    /// The number of farthest others that do not count.
    far: usize,
    /// The clients that are left, in ascending order.
    left: Vec<usize>,
    is_left: Vec<bool>,
    neighbours: Vec<Neighbours>,
}

/// A client's distances to the others that are left.
struct Neighbours {
    /// The sum of those that count.
    sum: Sum,
    /// The sum when it was added up. Far below it, the digits of `sum` are those of distances that left.
    whole: f64,
    /// The farthest others, farthest first. Some have left.
    farthest: Vec<u32>,
    /// The place in `farthest` behind the last one that does not count.
    end: usize,
    /// The last one that does not count: its squared distance, and its index.
    edge: (f64, usize),
    /// Whether the sum is still known.
    is_known: bool,
}

/// Clients that one thread updates at once.
const PART: usize = 256;

/// The part of a sum below which it is added up anew: the sum keeps 2^-106 of what it was.
const LEAST_PART: f64 = 1.0 / (1u64 << 40) as f64;

impl<'a> Succession<'a> {
    /// All clients are left; `hostile` are assumed hostile.
    pub(super) fn new(geometry: &'a Geometry, hostile: usize) -> Self {
        let (n, far) = (geometry.clients(), hostile + 1);
        let left: Vec<usize> = (0..n).collect();
        let neighbours = match n > far + 1 {
            true => geometry.map_distances(16 * n, |client, row| Neighbours::of(row, client, &left, far)),
            false => Vec::new(),
        };
        Self { geometry, far, is_left: vec![true; n], left, neighbours }
    }

    /// The clients that are left, in ascending order.
    pub(super) fn left(&self) -> &[usize] {
        &self.left
    }

    /// The scores of the clients that are left, with bounds on their errors.
    pub(super) fn scores(&self) -> Vec<Score> {
        krum::scores_among(self.geometry, &self.left, krum::neighbours(self.left.len(), self.far - 1))
    }

    /// The client with the lowest score of those that are left, and its score.
    pub(super) fn lowest(&self) -> (usize, f64) {
        if self.counts_few() {
            let scores = self.left.iter().copied().zip(self.scores().into_iter().map(|score| score.value));
            return first_of_lowest(scores);
        }
        first_of_lowest(self.left.iter().map(|client| (*client, self.neighbours[*client].sum.value())))
    }

    /// Whether so few are left that fewer than F + 1 do not count, because one has to.
    fn counts_few(&self) -> bool {
        self.left.len() <= self.far + 1
    }

    /// A client leaves.
    pub(super) fn leave(&mut self, client: usize) {
        self.left.retain(|other| *other != client);
        self.is_left[client] = false;
        if self.counts_few() {
            return;
        }
        let (geometry, is_left) = (self.geometry, &self.is_left);
        parallel::for_each_part(&mut self.neighbours, PART, PART * 64, |first, part| {
            for (other, own) in (first..).zip(part).filter(|(other, _)| is_left[*other]) {
                let at = |another: usize| (geometry.squared_distance(other, another), another);
                own.is_known = own.lose(at(client), is_left, at);
            }
        });
        let unknown = |client: &usize| !self.neighbours[*client].is_known;
        let unsure: Vec<usize> = self.left.iter().copied().filter(unknown).collect();
        let (left, far) = (&self.left, self.far);
        let found = parallel::map(unsure.len(), 16 * left.len(), |k| {
            Neighbours::of(&geometry.squared_distances_from(unsure[k]), unsure[k], left, far)
        });
        unsure.into_iter().zip(found).for_each(|(client, own)| self.neighbours[client] = own);
    }
}

/// The first of the clients with the lowest score, and that score.
fn first_of_lowest(mut scores: impl Iterator<Item = (usize, f64)>) -> (usize, f64) {
    let first = scores.next().unwrap_or_default();
    scores.fold(first, |best, next| if next.1.total_cmp(&best.1).is_lt() { next } else { best })
}

/// Whether `a` is farther than `b`; of equal distances, the lower index.
fn is_farther(a: (f64, usize), b: (f64, usize)) -> bool {
    a.0 > b.0 || a.0 == b.0 && a.1 < b.1
}

impl Neighbours {
    /// The neighbours of a client among `left`, from its squared distances to all clients. More than `far` others are
    /// left.
    fn of(row: &[f64], client: usize, left: &[usize], far: usize) -> Self {
        let mut others: Vec<u32> =
            left.iter().filter(|other| **other != client).map(|other| *other as u32).collect();
        let by_distance = |a: &u32, b: &u32| row[*b as usize].total_cmp(&row[*a as usize]).then(a.cmp(b));
        let listed = (2 * far + 16).min(others.len());
        if listed < others.len() {
            others.select_nth_unstable_by(listed, by_distance);
        }
        others[..listed].sort_unstable_by(by_distance);
        let edge = others[far - 1] as usize;
        let edge = (row[edge], edge);
        let mut sum = Sum::default();
        for other in left.iter().filter(|other| **other != client) {
            if is_farther(edge, (row[*other], *other)) {
                sum.add(row[*other]);
            }
        }
        Self { sum, whole: sum.value(), farthest: others[..listed].to_vec(), end: far, edge, is_known: true }
    }

    /// One of the others, at this squared distance, leaves. `at` gives the squared distance of another and its index.
    /// Returns whether the sum is still known.
    fn lose(&mut self, gone: (f64, usize), is_left: &[bool], at: impl Fn(usize) -> (f64, usize)) -> bool {
        let mut lost = gone.0;
        if !is_farther(self.edge, gone) {
            let next = self.farthest[self.end..].iter().position(|other| is_left[*other as usize]);
            let Some(next) = next else { return false };
            self.edge = at(self.farthest[self.end + next] as usize);
            self.end += next + 1;
            lost = self.edge.0;
        }
        self.sum.add(-lost);
        self.sum.value() >= self.whole * LEAST_PART
    }
}
