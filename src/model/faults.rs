//! The faults of one file: the first are kept, the others are counted.

use std::fmt;

/// The most faults of one file that are kept.
pub const MOST_KEPT: usize = 20;

/// The faults of one file. A hostile file may have millions: only the first [`MOST_KEPT`] take memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Faults<T> {
    kept: Vec<T>,
    more: usize,
}

impl<T> Default for Faults<T> {
    fn default() -> Self {
        Self { kept: Vec::new(), more: 0 }
    }
}

impl<T> Faults<T> {
    /// Keeps a fault, or counts it.
    pub fn push(&mut self, fault: T) {
        match self.is_full() {
            true => self.more += 1,
            false => self.kept.push(fault),
        }
    }

    /// Keeps a fault, or counts it without making it.
    pub fn push_with(&mut self, fault: impl FnOnce() -> T) {
        match self.is_full() {
            true => self.more += 1,
            false => self.kept.push(fault()),
        }
    }

    /// Adds the faults of another list.
    pub fn append<U: Into<T>>(&mut self, other: Faults<U>) {
        self.more += other.more;
        self.extend(other.kept.into_iter().map(U::into));
    }

    /// Keeps the first `most` faults, and counts the others.
    pub fn keep_at_most(&mut self, most: usize) {
        self.more += self.kept.len().saturating_sub(most);
        self.kept.truncate(most);
        self.kept.shrink_to_fit();
    }

    /// Whether further faults are only counted.
    pub fn is_full(&self) -> bool {
        self.kept.len() >= MOST_KEPT
    }

    /// Whether there is no fault.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// The number of faults, those that are not kept included.
    pub fn len(&self) -> usize {
        self.kept.len() + self.more
    }

    /// The kept faults.
    pub fn iter(&self) -> std::slice::Iter<'_, T> {
        self.kept.iter()
    }

    /// The first fault.
    pub fn first(&self) -> Option<&T> {
        self.kept.first()
    }

    /// The same faults in other words.
    pub fn map<U>(self, other: impl FnMut(T) -> U) -> Faults<U> {
        Faults { kept: self.kept.into_iter().map(other).collect(), more: self.more }
    }

    /// Drops kept faults. If it drops one, it forgets the counted faults too: the caller finds them again.
    pub fn retain(&mut self, keep: impl FnMut(&T) -> bool) {
        let before = self.kept.len();
        self.kept.retain(keep);
        if self.kept.len() < before {
            self.more = 0;
        }
    }

    /// The value if there is no fault.
    ///
    /// # Errors
    ///
    /// The faults.
    pub fn none_or<V>(self, value: V) -> Result<V, Self> {
        if self.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl<T: fmt::Display> Faults<T> {
    /// A line for each kept fault, and one for the number of the others.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let more = (self.more > 0).then(|| format!("and {} more faults", self.more));
        self.kept.iter().map(T::to_string).chain(more)
    }
}

/// All lines in one.
impl<T: fmt::Display> fmt::Display for Faults<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines().collect::<Vec<_>>().join("; "))
    }
}

impl<T> Extend<T> for Faults<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, faults: I) {
        faults.into_iter().for_each(|fault| self.push(fault));
    }
}

impl<T> FromIterator<T> for Faults<T> {
    fn from_iter<I: IntoIterator<Item = T>>(faults: I) -> Self {
        let mut all = Self::default();
        all.extend(faults);
        all
    }
}

impl<T> From<Vec<T>> for Faults<T> {
    fn from(faults: Vec<T>) -> Self {
        faults.into_iter().collect()
    }
}

impl<T> From<T> for Faults<T> {
    fn from(fault: T) -> Self {
        Self { kept: vec![fault], more: 0 }
    }
}

impl<T> IntoIterator for Faults<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;
    fn into_iter(self) -> Self::IntoIter {
        self.kept.into_iter()
    }
}

impl<'a, T> IntoIterator for &'a Faults<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;
    fn into_iter(self) -> Self::IntoIter {
        self.kept.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_are_kept_and_the_others_counted() {
        let mut faults: Faults<usize> = (0..25).collect();
        faults.append(Faults::<usize>::from(vec![1, 2]));
        assert_eq!((faults.iter().count(), faults.len()), (MOST_KEPT, 27));
        assert_eq!(faults.lines().last().unwrap(), "and 7 more faults");
        assert_eq!(Faults::<usize>::from(vec![1, 2]).to_string(), "1; 2");
        faults.retain(|fault| *fault < 3);
        assert_eq!(faults.len(), 3);
    }
}
