//! The field of secure aggregation: integers modulo the prime 2^32 - 5, one word each.
//!
//! 2^32 is 5 modulo the prime, so a carry out of a word comes back as 5, and no division is needed. The prime is the
//! largest below 2^32. Every sum of words modulo it is exact, so order and grouping do not matter.
//!
//! Paper: Crandall, US patent 5,159,632, 1992, on primes close to a power of two. Agreement: bits.

use crate::kernels::dispatch;

/// The prime.
pub const P: u32 = 4_294_967_291;
/// 2^32 modulo the prime.
pub(super) const CARRY: u32 = P.wrapping_neg();

/// The number modulo the prime.
#[inline(always)]
pub const fn reduced(number: u64) -> u32 {
    // At most 6 (2^32 - 1), then at most 2^32 + 24.
    let once = (number >> 32) * CARRY as u64 + (number & u32::MAX as u64);
    let twice = (once >> 32) * CARRY as u64 + (once & u32::MAX as u64);
    (if twice >= P as u64 { twice - P as u64 } else { twice }) as u32
}

/// `a + b` modulo the prime; both are below it.
#[inline(always)]
pub const fn add(a: u32, b: u32) -> u32 {
    subtract(a, P.wrapping_sub(b))
}

/// `a - b` modulo the prime. `a` is below it, `b` at most the prime.
#[inline(always)]
pub const fn subtract(a: u32, b: u32) -> u32 {
    a.wrapping_sub(b).wrapping_add(if a < b { P } else { 0 })
}

/// `a * b` modulo the prime, of any two words.
#[inline(always)]
pub const fn multiply(a: u32, b: u32) -> u32 {
    reduced(a as u64 * b as u64)
}

/// A signed integer modulo the prime.
#[inline(always)]
pub const fn of_signed(number: i64) -> u32 {
    number.rem_euclid(P as i64) as u32
}

/// The integer of the smallest magnitude that is `element` modulo the prime. `element` is below it.
#[inline(always)]
pub const fn to_signed(element: u32) -> i64 {
    element as i64 - if element > P / 2 { P as i64 } else { 0 }
}

dispatch! {
    /// Adds `from` to `to`, modulo the prime. Both are equally long, and all elements below the prime.
    pub fn add_elements<A: Arch>(from: &[u32], to: &mut [u32]) {
        let to = &mut to[..from.len()];
        for i in 0..from.len() {
            to[i] = add(to[i], from[i]);
        }
    }
}

dispatch! {
    /// Adds `factor` times `from` to `to`, modulo the prime. Both are equally long, and all elements below the prime.
    pub fn add_multiple<A: Arch>(factor: u32, from: &[u32], to: &mut [u32]) {
        let to = &mut to[..from.len()];
        for i in 0..from.len() {
            // At most (P - 1) (P - 1) + P - 1, which fits.
            to[i] = reduced(u64::from(factor) * u64::from(from[i]) + u64::from(to[i]));
        }
    }
}

dispatch! {
    /// Whether all words are below the prime.
    pub fn all_below<A: Arch>(words: &[u32]) -> bool {
        let mut largest = 0;
        for word in words {
            largest = largest.max(*word);
        }
        largest < P
    }
}

#[cfg(test)]
mod tests;
