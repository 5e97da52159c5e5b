//! The places of values that clients send: random ones of parameters, the same for all clients.
//!
//! Statistics are sent whole.
//!
//! With K of D values of parameters and a random u below D, the first p of them hold c(p) = floor((K p + u) / D) that are
//! sent: every value is equally likely (systematic sampling). Blocks of 1,024 values have their part by that, and within a
//! block the values are drawn one by one (Knuth, algorithm S, 3.4.2). So a block is drawn alone, and K are sent.
//!
//! A choice that differs by client would tell the server which values a client changed most, and a value that one client
//! sends alone is in the sum as it is.

use crate::kernels::lanes::Isa;
use crate::parties::grid::words;
use crate::parties::identity::derived;
use crate::parties::tensors::{Held, LaneTensor};
use std::ops::Range;

/// Values of parameters of a block.
const BLOCK: u64 = 1024;

/// The values that all clients send.
#[derive(Clone, Debug)]
pub struct KeptPlaces {
    /// The draw; `None` if all values are sent.
    drawn: Option<Drawn>,
    segments: Vec<Segment>,
}

/// The values of one tensor.
#[derive(Clone, Debug)]
struct Segment {
    values: Range<usize>,
    /// The number of its first value among those of parameters; `None` if all of its values are sent.
    parameter: Option<u64>,
    /// Values before it that are sent.
    before: usize,
}

#[derive(Clone, Debug)]
struct Drawn {
    /// Values of parameters that are sent, K.
    count: u64,
    /// Values of parameters, D.
    of: u64,
    /// The offset u.
    offset: u64,
    key: [u8; 32],
}

impl KeptPlaces {
    /// The values that are sent of tensors: `keep` values of parameters, or all, as the session's nonce says.
    pub fn new(tensors: &[LaneTensor], keep: Option<u64>, nonce: &[u8; 32]) -> Self {
        let held = || tensors.iter().filter(|tensor| tensor.held != Held::Nothing);
        let of: usize = held().filter(|tensor| tensor.held == Held::Parameter).map(LaneTensor::len).sum();
        let drawn = keep.filter(|keep| *keep < of as u64).map(|count| Drawn::new(count, of as u64, nonce));
        let (mut segments, mut value, mut parameter, mut before) = (Vec::new(), 0, 0, 0);
        for tensor in held().filter(|_| drawn.is_some()) {
            let values = value..value + tensor.len();
            let is_drawn = tensor.held == Held::Parameter;
            segments.push(Segment {
                values: values.clone(),
                parameter: is_drawn.then_some(parameter),
                before,
            });
            value = values.end;
            let Some(drawn) = drawn.as_ref().filter(|_| is_drawn) else {
                before += tensor.len();
                continue;
            };
            let end = parameter + tensor.len() as u64;
            before += (drawn.before(end) - drawn.before(parameter)) as usize;
            parameter = end;
        }
        Self { drawn, segments }
    }

    /// Whether each value of a range is sent; `None` if all are.
    pub fn flags(&self, range: Range<usize>) -> Option<Vec<bool>> {
        let drawn = self.drawn.as_ref()?;
        let mut flags = Vec::with_capacity(range.len());
        for segment in &self.segments {
            let part = segment.values.start.max(range.start)..segment.values.end.min(range.end);
            match segment.parameter {
                _ if part.is_empty() => {}
                None => flags.resize(flags.len() + part.len(), true),
                Some(first) => {
                    let first = first + (part.start - segment.values.start) as u64;
                    drawn.append_flags(first..first + part.len() as u64, &mut flags);
                }
            }
        }
        Some(flags)
    }

    /// Values before this one that are sent.
    pub fn rank(&self, value: usize) -> usize {
        let Some(drawn) = &self.drawn else { return value };
        let place = self.segments.partition_point(|segment| segment.values.end <= value);
        let Some(segment) = self.segments.get(place) else {
            return self.segments.last().map_or(0, |last| last.before + drawn.sent_of(last, last.values.end));
        };
        segment.before + drawn.sent_of(segment, value)
    }
}

impl Drawn {
    fn new(count: u64, of: u64, nonce: &[u8; 32]) -> Self {
        let random = words(Isa::detect(), &derived(nonce, "share of kept values"), 0, 2);
        let random = u64::from(random[0]) | (u64::from(random[1]) << 32);
        let offset = ((u128::from(random) * u128::from(of)) >> 64) as u64;
        Self { count, of, offset, key: derived(nonce, "kept values") }
    }

    /// Values of a tensor before this one that are sent.
    fn sent_of(&self, segment: &Segment, value: usize) -> usize {
        let passed = value - segment.values.start;
        match segment.parameter {
            None => passed,
            Some(first) => (self.before(first + passed as u64) - self.before(first)) as usize,
        }
    }

    /// Values among the first `parameters` ones that are sent.
    fn before(&self, parameters: u64) -> u64 {
        let start = parameters / BLOCK * BLOCK;
        if start == parameters {
            return self.quota(start);
        }
        let flags = self.block(parameters / BLOCK);
        let within = flags[..(parameters - start) as usize].iter().filter(|is_sent| **is_sent).count();
        self.quota(start) + within as u64
    }

    /// Values that are sent before a block.
    fn quota(&self, start: u64) -> u64 {
        let product = u128::from(self.count) * u128::from(start) + u128::from(self.offset);
        (product / u128::from(self.of)) as u64
    }

    /// Whether each value of a block is sent.
    fn block(&self, number: u64) -> Vec<bool> {
        let start = number * BLOCK;
        let len = BLOCK.min(self.of - start);
        let mut wanted = self.quota(start + len) - self.quota(start);
        let random = words(Isa::detect(), &self.key, start, len as usize);
        let draw = |(place, random): (u64, u32)| {
            let is_sent = (u64::from(random) * (len - place)) >> 32 < wanted;
            wanted -= u64::from(is_sent);
            is_sent
        };
        (0..len).zip(random).map(draw).collect()
    }

    fn append_flags(&self, range: Range<u64>, flags: &mut Vec<bool>) {
        for number in range.start / BLOCK..range.end.div_ceil(BLOCK) {
            let start = number * BLOCK;
            let (first, end) = (range.start.max(start) - start, range.end.min(start + BLOCK) - start);
            flags.extend(&self.block(number)[first as usize..end as usize]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::Dtype;

    fn tensors(lens: &[(usize, Held)]) -> Vec<LaneTensor> {
        let tensor = |(number, (len, held)): (usize, &(usize, Held))| LaneTensor {
            name: format!("t{number}"),
            dtype: Dtype::F32,
            shape: vec![*len],
            held: *held,
        };
        lens.iter().enumerate().map(tensor).collect()
    }

    #[test]
    fn as_many_values_as_asked_are_sent_and_all_statistics() {
        let (p, s) = (Held::Parameter, Held::Statistic);
        let shapes =
            [vec![(5000, p)], vec![(1, p), (7, s), (3000, p), (0, p), (9, Held::Nothing), (1024, p), (2, s)]];
        for lens in shapes {
            let tensors = tensors(&lens);
            let count =
                |wanted| lens.iter().filter(|(_, held)| *held == wanted).map(|(len, _)| len).sum::<usize>();
            let (parameters, statistics) = (count(p), count(s));
            for keep in [1, 2, 17, parameters / 3, parameters - 1] {
                let kept = KeptPlaces::new(&tensors, Some(keep as u64), &[keep as u8; 32]);
                let all = parameters + statistics;
                let flags = kept.flags(0..all).unwrap();
                assert_eq!(flags.iter().filter(|is_sent| **is_sent).count(), keep + statistics, "{keep}");
                let ranks = (0..=all).map(|value| flags[..value].iter().filter(|is_sent| **is_sent).count());
                for (value, rank) in
                    ranks.enumerate().filter(|(value, _)| value % 37 == 0 || value % 1024 < 2)
                {
                    assert_eq!(kept.rank(value), rank, "{keep} {value}");
                }
                assert_eq!(kept.rank(all), keep + statistics);
                assert_eq!(kept.flags(1000..2050).unwrap(), flags[1000..2050], "any range alone");
            }
        }
        let tensors = tensors(&[(5000, p)]);
        let all = KeptPlaces::new(&tensors, Some(5000), &[0; 32]);
        assert!(all.flags(0..5000).is_none() && all.rank(4321) == 4321);
    }

    #[test]
    fn every_value_is_equally_likely() {
        let (tensors, mut counts) = (tensors(&[(3000, Held::Parameter)]), vec![0_u32; 3000]);
        for nonce in 0..=255 {
            let kept = KeptPlaces::new(&tensors, Some(750), &[nonce; 32]);
            let flags = kept.flags(0..3000).unwrap();
            counts.iter_mut().zip(flags).for_each(|(count, is_sent)| *count += u32::from(is_sent));
        }
        // 256 draws with the probability 1/4: chi-square has 2999 degrees of freedom, about.
        let chi: f64 = counts.iter().map(|count| (f64::from(*count) - 64.0).powi(2) / 48.0).sum();
        assert!((2600.0..3400.0).contains(&chi), "{chi}");
    }
}
