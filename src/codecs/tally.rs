//! The counts and sums of one look of an encoder at a vector.

/// The lowest and the highest value of a block.
pub type Ends = [f32; 2];

/// Counts and sums over the values of a vector. Each encoder uses the fields it needs.
#[derive(Clone, PartialEq, Debug)]
pub struct Tally {
    /// Counts, added index by index.
    pub counts: Vec<u64>,
    /// Sums, added index by index.
    pub sums: Vec<f64>,
    /// The lowest value.
    pub low: f32,
    /// The highest value.
    pub high: f32,
    /// The ends of blocks with the number of each block, ascending.
    pub ends: Vec<(usize, Ends)>,
    /// Keys of magnitudes, concatenated.
    pub keys: Vec<u32>,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            counts: Vec::new(),
            sums: Vec::new(),
            low: f32::INFINITY,
            high: f32::NEG_INFINITY,
            ends: Vec::new(),
            keys: Vec::new(),
        }
    }
}

impl Tally {
    /// Adds the tally of the next chunk. The order of chunks fixes the order of the sums, and so their bits.
    pub fn add(&mut self, next: &Self) {
        self.counts.resize(self.counts.len().max(next.counts.len()), 0);
        self.sums.resize(self.sums.len().max(next.sums.len()), 0.0);
        self.counts.iter_mut().zip(&next.counts).for_each(|(all, more)| *all += more);
        self.sums.iter_mut().zip(&next.sums).for_each(|(all, more)| *all += more);
        self.low = self.low.min(next.low);
        self.high = self.high.max(next.high);
        self.add_ends(&next.ends);
        self.keys.extend(&next.keys);
    }

    /// Appends the ends of the next chunk. Its first block may have begun in the chunk before.
    fn add_ends(&mut self, next: &[(usize, Ends)]) {
        match (self.ends.last_mut(), next) {
            (Some((last, [low, high])), [(first, ends), rest @ ..]) if last == first => {
                (*low, *high) = (low.min(ends[0]), high.max(ends[1]));
                self.ends.extend(rest);
            }
            _ => self.ends.extend(next),
        }
    }
}
