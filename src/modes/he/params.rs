//! The numbers of BFV for sums of a cohort: moduli, plaintext modulus, values in a coefficient.
//!
//! A ciphertext is two polynomials of degree below N = 4096 modulo q. The table of homomorphicencryption.org (Albrecht et al.
//! 2018) allows log2 q up to 109 at that N for 128 bits against classical attacks. A coefficient of the plaintext, modulo t,
//! holds the integers q_i of `per_coefficient` values as the sum of q_i B^i with B = 2 clients levels + 1, and t is
//! B^`per_coefficient`: sums of that many clients are sums of digits that no carry mixes.
//!
//! Noise: a fresh ciphertext has u e + e1 + s e2 beside the plaintext, with u, e, e1, s, e2 of magnitude at most 20 (centred
//! binomial, variance 10). So its magnitude is at most N 20 20 2 + 20, for certain, and rounding of t / q adds at most 1. A
//! sum decrypts if it has less than q / (2 t) of it. No bound here is a probability.

use crate::parties::HE_PROTOCOL;
use fhe_math::zq::primes::generate_prime;
use serde::{Deserialize, Serialize};

/// The degree N of the ring.
pub const DEGREE: usize = 4096;

/// The most bits of q at this degree, for 128 bits of security.
pub const MOST_MODULUS_BITS: u32 = 109;

/// The variance of the secret key and of errors.
pub const VARIANCE: usize = 10;

/// The largest magnitude of a coefficient of the secret key or an error: a centred binomial of that variance.
const LARGEST_ERROR: u128 = 2 * VARIANCE as u128;

/// The largest noise of a fresh ciphertext, with the rounding of its plaintext.
pub const FRESH_NOISE: u128 = DEGREE as u128 * LARGEST_ERROR * LARGEST_ERROR * 2 + LARGEST_ERROR + 1;

/// The largest plaintext modulus. `fhe` decrypts through its first prime, which must be above 2 t, and needs all above t.
const MOST_PLAINTEXT: u128 = 1 << 60;

/// The fewest bits of a prime: enough of them are 1 modulo 2 N.
const LEAST_PRIME_BITS: u32 = 20;

/// The most bits of a prime that `fhe` takes.
const MOST_PRIME_BITS: u32 = 62;

/// The most values in a coefficient.
const MOST_PER_COEFFICIENT: u32 = 8;

/// The least common multiple of all counts of values in a coefficient.
const LCM_OF_COUNTS: u32 = 840;

/// Bits of a value, unless the user asks for others.
pub const DEFAULT_BITS: u32 = 16;

/// The numbers of BFV for rounds of up to `clients` clients, as `he params` writes them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// The protocol.
    pub protocol: String,
    /// The degree N of the ring.
    pub degree: usize,
    /// The one or two primes whose product is q.
    pub moduli: Vec<u64>,
    /// The plaintext modulus t.
    pub plaintext_modulus: u64,
    /// The most clients of a sum.
    pub clients: u64,
    /// The largest integer of a value.
    pub levels: u32,
    /// Values in a coefficient.
    pub per_coefficient: u32,
}

impl Params {
    /// The numbers for sums of up to `clients` clients with values of `bits` bits: as many values in a coefficient as fit,
    /// and the smallest q.
    ///
    /// # Errors
    ///
    /// When no numbers fit.
    pub fn new(clients: u64, bits: u32) -> Result<Self, String> {
        if !(2..=31).contains(&bits) {
            return Err(format!("found {bits} bits of a value, expected 2 to 31"));
        }
        if clients < 2 {
            return Err(format!("found {clients} clients, expected at least 2"));
        }
        let levels = (1 << (bits - 1)) - 1;
        let sizes = (1..=MOST_PER_COEFFICIENT).flat_map(|count| {
            let plaintext = digits(clients, levels, count).filter(|t| *t <= MOST_PLAINTEXT);
            plaintext.into_iter().flat_map(move |t| sizes(t, clients).map(move |sizes| (count, t, sizes)))
        });
        // The fewest bits for each value; for as many bits, the fewest primes.
        let bits_per_value = |(count, _, sizes): &(u32, u128, Sizes)| {
            (sizes.iter().sum::<u32>() * LCM_OF_COUNTS / count, sizes.len())
        };
        let Some((per_coefficient, plaintext, sizes)) = sizes.min_by_key(bits_per_value) else {
            return Err(format!(
                "{clients} clients with values of {bits} bits: found no numbers with 128 bits of security, expected fewer clients or bits"
            ));
        };
        let moduli = primes(&sizes)?;
        let params = Self {
            protocol: HE_PROTOCOL.to_owned(),
            degree: DEGREE,
            moduli,
            plaintext_modulus: plaintext as u64,
            clients,
            levels,
            per_coefficient,
        };
        params.check().map(|()| params)
    }

    /// Checks that sums of `clients` clients decrypt, and that the numbers have 128 bits of security.
    ///
    /// # Errors
    ///
    /// The first number that does not fit: what was found and what was expected.
    pub fn check(&self) -> Result<(), String> {
        if self.protocol != HE_PROTOCOL {
            return Err(format!("protocol is `{}`, expected `{HE_PROTOCOL}`", self.protocol));
        }
        if self.degree != DEGREE {
            return Err(format!("degree is {}, expected {DEGREE}", self.degree));
        }
        let (count, bits) = (self.moduli.len(), self.modulus_bits());
        if !(1..=2).contains(&count) || bits > MOST_MODULUS_BITS {
            return Err(format!(
                "moduli: found {count} of {bits} bits together, expected 1 or 2 of at most {MOST_MODULUS_BITS}"
            ));
        }
        for modulus in &self.moduli {
            let bits = bits_of(*modulus);
            let is_prime = (LEAST_PRIME_BITS..=MOST_PRIME_BITS).contains(&bits)
                && generate_prime(bits as usize, 2 * DEGREE as u64, modulus.saturating_add(1))
                    == Some(*modulus);
            if !is_prime {
                let step = 2 * DEGREE;
                return Err(format!(
                    "moduli: found {modulus}, expected a prime of {LEAST_PRIME_BITS} to {MOST_PRIME_BITS} bits that is 1 modulo {step}"
                ));
            }
        }
        if self.moduli[1..].contains(&self.moduli[0]) {
            return Err(format!("moduli: found {} twice", self.moduli[0]));
        }
        self.check_capacity()
    }

    fn check_capacity(&self) -> Result<(), String> {
        if self.clients < 2 || self.levels == 0 || self.levels > i32::MAX as u32 {
            let (clients, levels) = (self.clients, self.levels);
            return Err(format!("found {clients} clients and {levels} levels, expected at least 2 and 1"));
        }
        if !(1..=MOST_PER_COEFFICIENT).contains(&self.per_coefficient) {
            let found = self.per_coefficient;
            return Err(format!("per_coefficient is {found}, expected 1 to {MOST_PER_COEFFICIENT}"));
        }
        let expected = digits(self.clients, self.levels, self.per_coefficient);
        let found = u128::from(self.plaintext_modulus);
        let is_below = self.moduli.iter().all(|modulus| found < u128::from(*modulus))
            && 2 * found < u128::from(self.moduli[0]);
        if expected != Some(found) || found > MOST_PLAINTEXT || !is_below {
            return Err(format!(
                "plaintext_modulus is {found}, expected (2 clients levels + 1)^per_coefficient, below half of the first modulus and below all"
            ));
        }
        // A sum decrypts if 2 t clients noise < q.
        let (q, most) = (self.modulus(), self.most_clients_by_noise());
        if u128::from(self.clients) > most {
            return Err(format!(
                "found {} clients, expected at most {most}: q / t = {} must be above 2 clients noise, and a fresh ciphertext has noise up to {FRESH_NOISE}",
                self.clients,
                q / found
            ));
        }
        Ok(())
    }

    /// The most clients whose sum decrypts, by its noise.
    pub fn most_clients_by_noise(&self) -> u128 {
        (self.modulus() - 1) / (2 * u128::from(self.plaintext_modulus) * FRESH_NOISE)
    }

    /// q.
    pub fn modulus(&self) -> u128 {
        self.moduli.iter().fold(1, |product: u128, modulus| product.saturating_mul(u128::from(*modulus)))
    }

    /// Bits of residues of one coefficient.
    pub fn modulus_bits(&self) -> u32 {
        self.moduli.iter().map(|modulus| bits_of(*modulus)).sum()
    }

    /// The digits of a coefficient count to this base.
    pub fn base(&self) -> i64 {
        2 * (self.clients as i64) * i64::from(self.levels) + 1
    }

    /// Coefficients that hold `values` values.
    pub fn coefficients(&self, values: usize) -> usize {
        values.div_ceil(self.per_coefficient as usize)
    }

    /// Bytes of a ciphertext in files.
    pub fn ciphertext_bytes(&self) -> usize {
        2 * DEGREE * self.modulus_bits() as usize / 8
    }

    /// Bytes of a ciphertext for each value that it holds.
    pub fn bytes_per_value(&self) -> f64 {
        self.ciphertext_bytes() as f64 / (DEGREE * self.per_coefficient as usize) as f64
    }

    /// Puts integers into coefficients; the last one may hold fewer.
    pub fn pack(&self, integers: &[i32], coefficients: &mut Vec<i64>) {
        let base = self.base();
        let of_digits =
            |digits: &[i32]| digits.iter().rev().fold(0, |sum, digit| sum * base + i64::from(*digit));
        coefficients.extend(integers.chunks(self.per_coefficient as usize).map(of_digits));
    }

    /// The sums of integers in coefficients; the last coefficient may hold fewer.
    pub fn unpack(&self, coefficients: &[i64], sums: &mut [i64]) {
        let base = self.base();
        for (coefficient, sums) in coefficients.iter().zip(sums.chunks_mut(self.per_coefficient as usize)) {
            let mut rest = *coefficient;
            for sum in sums {
                let digit = rest.rem_euclid(base);
                *sum = if digit > base / 2 { digit - base } else { digit };
                rest = (rest - *sum) / base;
            }
        }
    }
}

/// Bits of a number.
pub fn bits_of(number: u64) -> u32 {
    u64::BITS - number.leading_zeros()
}

/// The plaintext modulus for `count` values in a coefficient; `None` beyond 128 bits.
fn digits(clients: u64, levels: u32, count: u32) -> Option<u128> {
    let base = u128::from(clients).checked_mul(2 * u128::from(levels))?.checked_add(1)?;
    base.checked_pow(count)
}

/// Bits of one or two primes.
type Sizes = Vec<u32>;

/// The sizes of one prime, and of two primes, with the smallest product under which sums decrypt.
fn sizes(plaintext: u128, clients: u64) -> impl Iterator<Item = Sizes> {
    let needed = (2 * plaintext).saturating_mul(u128::from(clients)).checked_mul(FRESH_NOISE);
    // Primes of b bits are a little below 2^b.
    let needed = needed.map_or(u128::BITS, |needed| u128::BITS - needed.leading_zeros() + 1);
    let plaintext = u128::BITS - plaintext.leading_zeros();
    let one = needed.max(LEAST_PRIME_BITS);
    let two = needed.max(2 * plaintext + 3).max(2 * LEAST_PRIME_BITS);
    let second = (plaintext + 1).max(two.saturating_sub(MOST_PRIME_BITS)).max(LEAST_PRIME_BITS);
    let are_sound = |sizes: &Sizes| {
        sizes.iter().all(|bits| *bits <= MOST_PRIME_BITS) && sizes.iter().sum::<u32>() <= MOST_MODULUS_BITS
    };
    [vec![one], vec![two - second, second]].into_iter().filter(are_sound)
}

/// The largest primes of these sizes that are 1 modulo 2 N, no two the same.
fn primes(sizes: &[u32]) -> Result<Vec<u64>, String> {
    let mut found = Vec::<u64>::new();
    for bits in sizes {
        let below = found.iter().copied().filter(|prime| bits_of(*prime) == *bits).min();
        let prime = generate_prime(*bits as usize, 2 * DEGREE as u64, below.unwrap_or(1 << bits));
        let step = 2 * DEGREE;
        found.push(prime.ok_or_else(|| format!("found no prime of {bits} bits that is 1 modulo {step}"))?);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_fit_cohorts_of_any_size() {
        for (clients, bits) in
            [(2, 2), (2, 16), (10, 16), (50, 16), (50, 24), (1_000, 20), (10_000, 16), (1 << 20, 31)]
        {
            let params = Params::new(clients, bits).unwrap();
            assert_eq!(params.check(), Ok(()));
            assert!(params.modulus_bits() <= MOST_MODULUS_BITS);
            assert!(params.most_clients_by_noise() >= u128::from(clients), "{params:?}");
        }
        // Clients, bits of a value; values in a coefficient, primes, bits of q.
        for (clients, bits, expected) in
            [(10, 16, (2, 2, 81)), (10, 12, (2, 1, 58)), (50, 24, (1, 1, 59)), (50, 8, (3, 2, 85))]
        {
            let found = Params::new(clients, bits).unwrap();
            assert_eq!((found.per_coefficient, found.moduli.len(), found.modulus_bits()), expected);
        }
        for (clients, bits) in [(0, 16), (1, 16), (10, 1), (10, 32), (u64::MAX, 16), (1 << 40, 31)] {
            assert!(Params::new(clients, bits).is_err(), "{clients} {bits}");
        }
    }

    #[test]
    fn numbers_that_do_not_fit_are_refused() {
        let sound = Params::new(10, 16).unwrap();
        let [first, second] = [sound.moduli[0], sound.moduli[1]];
        let wrong = [
            Params { protocol: "fedmill-he/2".to_owned(), ..sound.clone() },
            Params { degree: 2048, ..sound.clone() },
            Params { moduli: vec![first], ..sound.clone() },
            Params { moduli: vec![first, first], ..sound.clone() },
            Params { moduli: vec![first, second - 2], ..sound.clone() },
            Params { moduli: vec![first, second, second], ..sound.clone() },
            Params { moduli: Vec::new(), ..sound.clone() },
            Params { plaintext_modulus: sound.plaintext_modulus - 2, ..sound.clone() },
            Params { clients: 11, ..sound.clone() },
            Params { clients: 0, ..sound.clone() },
            Params { levels: 0, ..sound.clone() },
            Params { per_coefficient: 0, ..sound.clone() },
            Params { per_coefficient: 9, ..sound.clone() },
        ];
        for params in wrong {
            assert!(params.check().is_err(), "{params:?}");
        }
    }

    #[test]
    fn noise_bounds_the_clients() {
        // A prime too small for the cohort, all else as it should be.
        let sound = Params::new(10, 12).unwrap();
        let small = generate_prime(55, 2 * DEGREE as u64, 1 << 55).unwrap();
        let tight = Params { moduli: vec![small], ..sound };
        let most = tight.most_clients_by_noise() as u64;
        assert!((2..10).contains(&most), "{most}");
        let of = |clients| {
            let base = 2 * u128::from(clients) * u128::from(tight.levels) + 1;
            Params { clients, plaintext_modulus: base.pow(2) as u64, ..tight.clone() }
        };
        let edge = (2..10).rev().find(|clients| of(*clients).check().is_ok()).unwrap();
        assert!(of(edge + 1).check().unwrap_err().contains("must be above 2 clients noise"));
    }

    #[test]
    fn sums_of_coefficients_are_sums_of_integers_up_to_the_bound() {
        for (clients, bits) in [(2, 2), (3, 8), (7, 16), (50, 20), (5, 31)] {
            let params = Params::new(clients, bits).unwrap();
            let most = params.levels as i32;
            for len in [1, 2, 3, 4, 5, 9] {
                for pattern in [[most, most], [-most, -most], [most, -most], [most / 3, 1 - most]] {
                    let integers: Vec<i32> = (0..len).map(|i| pattern[i % 2]).collect();
                    let mut coefficients = Vec::new();
                    params.pack(&integers, &mut coefficients);
                    assert_eq!(coefficients.len(), params.coefficients(len));
                    let half = (params.plaintext_modulus / 2) as i64;
                    let sums: Vec<i64> = coefficients.iter().map(|one| one * clients as i64).collect();
                    assert!(sums.iter().all(|sum| (-half..=half).contains(sum)), "{params:?}");
                    let mut found = vec![7; len];
                    params.unpack(&sums, &mut found);
                    let expected: Vec<i64> =
                        integers.iter().map(|one| i64::from(*one) * clients as i64).collect();
                    assert_eq!(found, expected, "{clients} {bits} {len}");
                }
            }
        }
    }
}
