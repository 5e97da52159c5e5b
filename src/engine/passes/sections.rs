//! Sections: the fixed parts of a layout's coordinates, whose sums have one shape in every run.
//!
//! A section is [`SECTION`] coordinates of the layout. A tile lies in one section, and a shard is a range of whole
//! sections. Within a section, sums are added in the order of tiles. Sums of sections are added in a binary tree, whose
//! shape depends only on the numbers of the sections. A range of sections is a few whole branches of that tree. So the
//! branches of all shards give the same bits, wherever the shards were cut.

use crate::engine::passes::blocks::add_rows;
use std::ops::Range;

/// The number of coordinates of a section.
pub const SECTION: usize = 1 << 16;

/// The number of the section of a coordinate.
pub fn section_of(coordinate: usize) -> usize {
    coordinate / SECTION
}

/// The number of sections of a layout with this many coordinates.
pub fn sections_of(coordinates: usize) -> usize {
    coordinates.div_ceil(SECTION)
}

/// The coordinates of a range of sections. `coordinates` is the number of all.
pub fn coordinates_of(sections: &Range<usize>, all: usize) -> Range<usize> {
    let start = |section: usize| section.saturating_mul(SECTION).min(all);
    start(sections.start)..start(sections.end)
}

/// A value that a tree of sections can add up.
pub trait Summand: Clone {
    /// Adds the value of the sections that follow.
    fn add(&mut self, later: &Self);
}

/// Sums of rows. An empty vector stands for zeros.
impl Summand for Vec<f64> {
    fn add(&mut self, later: &Self) {
        if self.is_empty() {
            self.clone_from(later);
        } else {
            add_rows(self, later);
        }
    }
}

/// `None` adds nothing.
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
    /// The level in the tree: the branch has `1 << level` sections.
    pub level: u32,
    /// Its index among the branches of its level.
    pub number: usize,
    /// The sum of the sections.
    pub sum: T,
}

impl<T> Branch<T> {
    /// Its range of sections; `None` if their numbers do not fit `usize`.
    pub fn sections(&self) -> Option<Range<usize>> {
        let size = 1usize.checked_shl(self.level)?;
        let start = self.number.checked_mul(size)?;
        Some(start..start.checked_add(size)?)
    }

    fn is_left_of(&self, other: &Self) -> bool {
        self.level == other.level && self.number.is_multiple_of(2) && self.number + 1 == other.number
    }
}

/// The branches of a range of sections, in order, each as large as possible.
#[derive(Clone, PartialEq, Debug)]
pub struct SectionTree<T>(pub Vec<Branch<T>>);

impl<T: Summand> SectionTree<T> {
    /// Appends the next branch, and joins branches that form a larger one.
    pub fn push(&mut self, mut branch: Branch<T>) {
        while let Some(mut left) = self.0.pop_if(|left| left.is_left_of(&branch)) {
            left.sum.add(&branch.sum);
            branch = Branch { level: left.level + 1, number: left.number / 2, sum: left.sum };
        }
        self.0.push(branch);
    }

    /// The sum of all branches, from the last to the first; `None` without branches.
    pub fn total(self) -> Option<T> {
        let sums = self.0.into_iter().rev().map(|branch| branch.sum);
        sums.reduce(|later, mut sum| {
            sum.add(&later);
            sum
        })
    }
}

/// Adds up the parts of the tiles of a range of sections, in order.
#[derive(Debug)]
pub struct SectionAdder<T> {
    done: SectionTree<Option<T>>,
    /// The section of the current tiles, and their sum.
    open: Option<(usize, T)>,
    /// The first section without a finished sum.
    next: usize,
}

impl<T: Summand> SectionAdder<T> {
    /// Starts at this section.
    pub fn starting_at(section: usize) -> Self {
        Self { done: SectionTree(Vec::new()), open: None, next: section }
    }

    /// Adds the part of the next tile, which lies in this section.
    pub fn add(&mut self, section: usize, part: T) {
        match &mut self.open {
            Some((open, sum)) if *open == section => sum.add(&part),
            _ => {
                self.go_on_to(section);
                self.open = Some((section, part));
            }
        }
    }

    /// The sum of a section's tiles so far, to which the caller adds the next tile; `none` makes an empty one.
    pub fn sum_of(&mut self, section: usize, none: impl FnOnce() -> T) -> &mut T {
        if self.open.as_ref().is_none_or(|(open, _)| *open != section) {
            self.go_on_to(section);
        }
        &mut self.open.get_or_insert_with(|| (section, none())).1
    }

    /// The branches of all sections before `end`. The sum of sections without tiles is `None`.
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

    /// Numbers whose sum depends on the order of additions.
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
