//! Residues of ciphertexts as 32-bit words: each residue takes as many bits as its modulus.
//!
//! Residues follow each other from the lowest bit on.
//! A ciphertext has a row of N residues for both polynomials modulo each prime, in the transformed domain, where they are added
//! and multiplied place by place.

use crate::modes::he::params::{DEGREE, Params, bits_of};

/// The rows of a ciphertext: the modulus of each, in the order of files.
pub fn rows(params: &Params) -> impl Iterator<Item = u64> {
    params.moduli.iter().chain(&params.moduli).copied()
}

/// The number of residues of a ciphertext.
pub fn residues(params: &Params) -> usize {
    2 * params.moduli.len() * DEGREE
}

/// Words of a ciphertext.
pub fn words(params: &Params) -> usize {
    params.ciphertext_bytes() / size_of::<u32>()
}

/// The words of the residues of one ciphertext.
pub fn pack(params: &Params, residues: &[u64]) -> Vec<u32> {
    let mut packed = Vec::with_capacity(words(params));
    for (modulus, row) in rows(params).zip(residues.chunks(DEGREE)) {
        let bits = bits_of(modulus);
        // N residues fill whole words, so each row begins with an empty pool.
        let (mut pool, mut held) = (0u128, 0);
        for residue in row {
            pool |= u128::from(*residue) << held;
            held += bits;
            while held >= u32::BITS {
                packed.push(pool as u32);
                pool >>= u32::BITS;
                held -= u32::BITS;
            }
        }
    }
    packed
}

/// A residue that is not below its modulus: its place, and the residue.
pub type TooLarge = (usize, u64);

/// Adds the residues in the words of one ciphertext to sums, modulo each prime. `sums` are below their moduli.
///
/// # Errors
///
/// When a residue is not below its modulus; the sums are then of no use.
pub fn add(params: &Params, packed: &[u32], sums: &mut [u64]) -> Result<(), TooLarge> {
    let mut packed = packed.iter();
    for (number, (modulus, row)) in rows(params).zip(sums.chunks_mut(DEGREE)).enumerate() {
        let bits = bits_of(modulus);
        let mask = (1u128 << bits) - 1;
        let (mut pool, mut held) = (0u128, 0);
        for (place, sum) in row.iter_mut().enumerate() {
            while held < bits {
                pool |= u128::from(packed.next().copied().unwrap_or(0)) << held;
                held += u32::BITS;
            }
            let residue = (pool & mask) as u64;
            pool >>= bits;
            held -= bits;
            if residue >= modulus {
                return Err((number * DEGREE + place, residue));
            }
            let added = *sum + residue;
            *sum = if added >= modulus { added - modulus } else { added };
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(params: &Params, seed: u64) -> Vec<u64> {
        let word = |i: usize| (i as u64 + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31);
        let of_row =
            |(row, modulus): (usize, u64)| (0..DEGREE).map(move |i| word(row * DEGREE + i) % modulus);
        rows(params).enumerate().flat_map(of_row).collect()
    }

    #[test]
    fn packed_residues_read_back_and_add_up() {
        for (clients, bits) in [(2, 2), (2, 4), (10, 16), (50, 24), (1 << 20, 31)] {
            let params = Params::new(clients, bits).unwrap();
            let (mut one, other) = (random(&params, 1), random(&params, 2));
            let last: Vec<u64> = rows(&params).map(|modulus| modulus - 1).collect();
            for (row, last) in last.iter().enumerate() {
                one[row * DEGREE] = *last;
                one[(row + 1) * DEGREE - 1] = *last;
            }
            let packed = pack(&params, &one);
            assert_eq!(packed.len(), words(&params));
            let mut sums = vec![0; residues(&params)];
            add(&params, &packed, &mut sums).unwrap();
            assert_eq!(sums, one);
            add(&params, &pack(&params, &other), &mut sums).unwrap();
            let moduli = rows(&params).flat_map(|modulus| std::iter::repeat_n(modulus, DEGREE));
            let expected: Vec<u64> =
                one.iter().zip(&other).zip(moduli).map(|((a, b), m)| (a + b) % m).collect();
            assert_eq!(sums, expected);
        }
    }

    #[test]
    fn residues_beyond_their_modulus_are_refused() {
        let params = Params::new(10, 16).unwrap();
        for place in [0, DEGREE - 1, DEGREE, DEGREE + 5, residues(&params) - 1] {
            let mut wrong = random(&params, 3);
            wrong[place] = rows(&params).nth(place / DEGREE).unwrap();
            let found = add(&params, &pack(&params, &wrong), &mut vec![0; residues(&params)]);
            assert_eq!(found, Err((place, wrong[place])));
        }
    }
}
