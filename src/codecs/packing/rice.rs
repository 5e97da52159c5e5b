//! Ascending positions as Rice-coded gaps.
//!
//! A gap is the number of positions passed over. As `q 2^m + r` it is `q` zeros and a one, then the m bits of `r`, from
//! the lowest bit up (Rice, 1979; Golomb, Run-length encodings, 1966). For random positions the code is within 1 % of
//! their entropy. With m = 0 it is a bit mask, so dense positions need no other code.

use crate::codecs::Invalid;
use crate::codecs::packing::bit_stream::{Reader, Writer};

/// The largest m.
pub(crate) const MOST_BITS: u32 = 15;

/// The gaps before ascending positions.
fn gaps(positions: &[u32]) -> impl Iterator<Item = u32> {
    let mut next = 0;
    positions.iter().map(move |position| {
        let gap = position - next;
        next = position + 1;
        gap
    })
}

/// The m that takes the fewest bits; the lowest of several.
pub(crate) fn parameter(positions: &[u32]) -> u32 {
    let bits = |m: u32| gaps(positions).map(|gap| u64::from((gap >> m) + 1 + m)).sum::<u64>();
    // Each further bit saves less, so the search stops where the bits no longer fall. It starts at the mean gap.
    let mean = positions.last().map_or(1, |last| (last + 1) / positions.len() as u32);
    let mut best = mean.max(1).ilog2().min(MOST_BITS);
    while best > 0 && bits(best - 1) <= bits(best) {
        best -= 1;
    }
    while best < MOST_BITS && bits(best + 1) < bits(best) {
        best += 1;
    }
    best
}

/// Appends the gaps of ascending positions to `behind`, and fills up the last byte with zeros.
pub(crate) fn encode(positions: &[u32], m: u32, behind: Vec<u8>) -> Vec<u8> {
    let mut writer = Writer::behind(behind);
    for gap in gaps(positions) {
        writer.put_rice(gap, m);
    }
    writer.finish()
}

/// Reads `count` ascending positions, all below `end`. Returns them with the bytes that follow.
///
/// # Errors
///
/// When the bytes end too early, a position is not below `end`, or zeros do not fill up the last byte.
pub(crate) fn decode(bytes: &[u8], m: u32, count: usize, end: usize) -> Result<(Vec<u32>, &[u8]), Invalid> {
    let mut reader = Reader::new(bytes);
    let mut positions = Vec::with_capacity(count.min(end));
    let mut next = 0u64;
    for _ in 0..count {
        let position = next + reader.take_rice(m)?;
        if position >= end as u64 {
            return Err(Invalid(format!("index {position} is sent, expected one below {end}")));
        }
        positions.push(position as u32);
        next = position + 1;
    }
    Ok((positions, reader.rest()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coded(positions: &[u32], m: u32) -> Vec<u8> {
        encode(positions, m, Vec::new())
    }

    #[test]
    fn positions_come_back() {
        let cases: [&[u32]; 6] =
            [&[], &[0], &[65_535], &[0, 1, 2, 3], &[5, 6, 1000, 65_535], &[31, 64, 160, 4000]];
        for positions in cases {
            for m in 0..=MOST_BITS {
                let bytes = coded(positions, m);
                let found = decode(&bytes, m, positions.len(), 65_536).unwrap();
                assert_eq!(found, (positions.to_vec(), &[][..]), "m = {m}");
            }
        }
    }

    #[test]
    fn by_hand() {
        // Gaps 2 and 5 with m = 1: 1 zero, one, 0; 2 zeros, one, 1.
        assert_eq!(coded(&[2, 8], 1), [0b0110_0010]);
        assert_eq!(coded(&[0, 3], 0), [0b0000_1001]);
    }

    #[test]
    fn no_other_parameter_takes_fewer_bits() {
        let squares: Vec<u32> = (0..200).map(|i| i * i).collect();
        let clustered: Vec<u32> = (0..300).map(|i| i / 30 * 6000 + i).collect();
        for positions in [&[][..], &[0], &[65_535], &[0, 65_535], &[40, 41, 60_000], &squares, &clustered] {
            let bits = |m: &u32| gaps(positions).map(|gap| (gap >> m) + 1 + m).sum::<u32>();
            let fewest = (0..=MOST_BITS).min_by_key(bits).unwrap();
            let found = parameter(positions);
            assert_eq!(bits(&found), bits(&fewest), "{} positions", positions.len());
            assert!(positions.is_empty() || found == fewest);
        }
    }

    #[test]
    fn every_other_position_is_a_bit_mask() {
        let positions: Vec<u32> = (0..1000).map(|i| 2 * i).collect();
        assert_eq!((parameter(&positions), coded(&positions, 0).len()), (0, 250));
    }

    #[test]
    fn what_no_encoder_writes_is_refused() {
        let bytes = coded(&[10, 20, 900], 4);
        assert!(decode(&bytes[..bytes.len() - 1], 4, 3, 1000).is_err());
        assert!(decode(&bytes, 4, 3, 900).is_err());
        assert!(decode(&bytes, 4, 40, 1000).is_err());
        assert!(decode(&[0; 9], 0, 1, 1000).is_err());
        assert!(decode(&[0b1000_0001], 0, 1, 1000).is_err());
    }
}
