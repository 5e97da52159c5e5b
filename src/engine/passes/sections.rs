//! Sections: what the coordinates of a round are cut into, whichever part of them a process works on.
//!
//! A section is [`SECTION`] coordinates of the layout. No tile reaches from one into the next, and a shard is a run of
//! whole sections. Sums of tiles are added in the order of tiles within a section; sums of sections are added in a
//! binary tree whose shape hangs on nothing but their numbers. A run of sections is a few whole branches of that tree,
//! so whoever puts the branches of all runs together, wherever these were cut, gets the same bits.

use crate::engine::passes::blocks::add_rows;
use std::ops::Range;

/// Coordinates of a section.
pub const SECTION: usize = 1 << 16;

/// The section that a coordinate lies in.
pub fn section_of(coordinate: usize) -> usize {
    coordinate / SECTION
}

/// The sections of so many coordinates.
pub fn sections_of(coordinates: usize) -> usize {
    coordinates.div_ceil(SECTION)
}

/// The coordinates of a run of sections, of so many in all.
pub fn coordinates_of(sections: &Range<usize>, all: usize) -> Range<usize> {
    let start = |section: usize| section.saturating_mul(SECTION).min(all);
    start(sections.start)..start(sections.end)
}

/// What adds up.
pub trait Summand: Clone {
    /// Adds what comes after it.
    fn add(&mut self, later: &Self);
}

/// Sums of rows; an empty one is all zeros.
impl Summand for Vec<f64> {
    fn add(&mut self, later: &Self) {
        if self.is_empty() {
            self.clone_from(later);
        } else {
            add_rows(self, later);
        }
    }
}

/// None adds nothing.
impl<T: Summand> Summand for Option<T> {
    fn add(&mut self, later: &Self) {
        match (self.as_mut(), later) {
            (Some(sum), Some(later)) => sum.add(later),
            (None, Some(later)) => *self = Some(later.clone()),
            (_, None) => {}
        }
    }
}

/// The sum of `1 << level` sections, from section `number << level` on.
#[derive(Clone, PartialEq, Debug)]
pub struct Branch<T> {
    /// How many times sections were paired.
    pub level: u32,
    /// Its place among the branches of its level.
    pub number: usize,
    /// Their sum.
    pub sum: T,
}

impl<T> Branch<T> {
    /// Its sections; none if they are past what a number can hold.
    pub fn sections(&self) -> Option<Range<usize>> {
        let size = 1usize.checked_shl(self.level)?;
        let start = self.number.checked_mul(size)?;
        Some(start..start.checked_add(size)?)
    }

    fn is_left_of(&self, other: &Self) -> bool {
        self.level == other.level && self.number.is_multiple_of(2) && self.number + 1 == other.number
    }
}

/// SectionTree in order, each as large as it can be.
#[derive(Clone, PartialEq, Debug)]
pub struct SectionTree<T>(pub Vec<Branch<T>>);

impl<T: Summand> SectionTree<T> {
    /// Puts the branch that comes next behind the others, and joins what is a whole branch then.
    pub fn push(&mut self, mut branch: Branch<T>) {
        while let Some(mut left) = self.0.pop_if(|left| left.is_left_of(&branch)) {
            left.sum.add(&branch.sum);
            branch = Branch { level: left.level + 1, number: left.number / 2, sum: left.sum };
        }
        self.0.push(branch);
    }

    /// The sum of all, from the last to the first; none if there is no branch.
    pub fn total(self) -> Option<T> {
        let sums = self.0.into_iter().rev().map(|branch| branch.sum);
        sums.reduce(|later, mut sum| {
            sum.add(&later);
            sum
        })
    }
}

/// Adds up what the tiles of a run of sections give, as they come in order.
#[derive(Debug)]
pub struct SectionAdder<T> {
    done: SectionTree<Option<T>>,
    /// The section that tiles are of, and their sum.
    open: Option<(usize, T)>,
    /// The first section that is not done.
    next: usize,
}

impl<T: Summand> SectionAdder<T> {
    /// Starts at a section.
    pub fn starting_at(section: usize) -> Self {
        Self { done: SectionTree(Vec::new()), open: None, next: section }
    }

    /// Adds the part of the next tile, which is of this section.
    pub fn add(&mut self, section: usize, part: T) {
        match &mut self.open {
            Some((open, sum)) if *open == section => sum.add(&part),
            _ => {
                self.go_on_to(section);
                self.open = Some((section, part));
            }
        }
    }

    /// The branches of all sections before `end`; a sum is none where there was no tile.
    pub fn finish(mut self, end: usize) -> SectionTree<Option<T>> {
        self.go_on_to(end);
        self.done
    }

    fn go_on_to(&mut self, section: usize) {
        if let Some((number, sum)) = self.open.take() {
            self.push(number, Some(sum));
        }
        while self.next < section {
            self.push(self.next, None);
        }
    }

    fn push(&mut self, number: usize, sum: Option<T>) {
        self.done.push(Branch { level: 0, number, sum });
        self.next = number + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers whose sum hangs on the order of additions.
    fn part(section: usize) -> Vec<f64> {
        vec![1.0 / (section * section + 1) as f64 - 0.1]
    }

    fn run(sections: Range<usize>) -> SectionTree<Option<Vec<f64>>> {
        let mut sums = SectionAdder::starting_at(sections.start);
        for section in sections.clone() {
            // Two tiles a section.
            sums.add(section, part(section));
            sums.add(section, part(section + 1000));
        }
        sums.finish(sections.end)
    }

    #[test]
    fn wherever_a_run_is_cut_its_sum_has_the_same_bits() {
        let total =
            |branches: SectionTree<Option<Vec<f64>>>| branches.total().flatten().unwrap()[0].to_bits();
        for sections in [1, 2, 7, 64, 100, 1023] {
            let whole = total(run(0..sections));
            for shards in [1, 2, 3, 7, 16] {
                let mut all = SectionTree(Vec::new());
                for shard in 0..shards {
                    let part = run(sections * shard / shards..sections * (shard + 1) / shards);
                    part.0.into_iter().for_each(|branch| all.push(branch));
                }
                assert_eq!(total(all), whole, "{sections} sections in {shards} shards");
            }
        }
    }

    #[test]
    fn a_run_is_few_branches() {
        assert_eq!(run(0..64).0.len(), 1);
        assert!(run(1..1023).0.len() <= 18);
        let covered: Vec<_> = run(3..77).0.iter().map(|branch| branch.sections().unwrap()).collect();
        assert!(covered.windows(2).all(|pair| pair[0].end == pair[1].start), "{covered:?}");
        assert_eq!((covered[0].start, covered.last().unwrap().end), (3, 77));
    }

    #[test]
    fn sections_without_tiles_add_nothing() {
        let mut sums = SectionAdder::starting_at(0);
        sums.add(2, part(2));
        sums.add(9, part(9));
        assert_eq!(sums.finish(20).total().flatten(), Some(vec![part(2)[0] + part(9)[0]]));
        assert_eq!(SectionAdder::<Vec<f64>>::starting_at(4).finish(4).total(), None);
    }
}
