//! BFV by the crate `fhe`: keys, encryption under the public key, decryption.
//!
//! No other file calls its scheme; [`params`](super::params) takes its primes. The crate was never audited and has one release,
//! so fedmill uses as little of it as it can: polynomials, the two keys, and plaintexts whose coefficients are the numbers.
//! [`packing`](super::packing) adds up ciphertexts. The crate's threshold module, relinearisation, Galois keys and protobuf of
//! ciphertexts are not used.

use crate::modes::he::packing;
use crate::modes::he::params::{DEGREE, Params, VARIANCE};
use fhe::bfv::{BfvParameters, BfvParametersBuilder, Ciphertext, Encoding, Plaintext, PublicKey, SecretKey};
use fhe::proto::bfv::PublicKey as StoredKey;
use fhe_math::rq::traits::TryConvertFrom;
use fhe_math::rq::{Poly, Representation};
use fhe_traits::{
    DeserializeParametrized, DeserializeWithContext, FheDecoder, FheDecrypter, FheEncoder, FheEncrypter,
    Serialize,
};
use prost::Message;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use std::sync::Arc;
use zeroize::Zeroizing;

/// The fault of a public key in another form.
const OTHER_FORM: &str = "found another form of the public key, expected the one that fedmill writes";

/// The scheme with its numbers.
#[derive(Clone, Debug)]
pub struct Scheme {
    params: Params,
    bfv: Arc<BfvParameters>,
}

impl Scheme {
    /// The scheme with these numbers.
    ///
    /// # Errors
    ///
    /// When they do not fit each other.
    pub fn new(params: &Params) -> Result<Self, String> {
        params.check()?;
        let mut builder = BfvParametersBuilder::new();
        builder
            .set_degree(DEGREE)
            .set_moduli(&params.moduli)
            .set_plaintext_modulus(params.plaintext_modulus)
            .set_variance(VARIANCE);
        let bfv = builder.build_arc().map_err(|why| why.to_string())?;
        Ok(Self { params: params.clone(), bfv })
    }

    /// The secret key of a seed.
    pub fn secret(&self, seed: &[u8; 32]) -> Decryptor {
        let mut random = ChaCha20Rng::from_seed(*seed);
        Decryptor { scheme: self.clone(), key: SecretKey::random(&self.bfv, &mut random) }
    }

    /// The public key of these bytes.
    ///
    /// # Errors
    ///
    /// When they are not one for these numbers.
    pub fn public(&self, bytes: &[u8]) -> Result<Encryptor, String> {
        self.check_form(bytes)?;
        let key = PublicKey::from_bytes(bytes, &self.bfv).map_err(|why| why.to_string())?;
        // Another writer could have left bytes out, or added some.
        if key.to_bytes() != bytes {
            return Err(OTHER_FORM.to_owned());
        }
        Ok(Encryptor { scheme: self.clone(), key })
    }

    /// Checks that a public key is one polynomial in the transformed domain and the seed of the other: `fhe` panics when it
    /// encrypts under another one.
    fn check_form(&self, bytes: &[u8]) -> Result<(), String> {
        let key = StoredKey::decode(bytes).ok().and_then(|key| key.c);
        let Some((key, [poly])) = key.as_ref().and_then(|key| Some((key, key.c.first_chunk::<1>()?))) else {
            return Err(OTHER_FORM.to_owned());
        };
        let context = self.bfv.context_at_level(0).map_err(|why| why.to_string())?;
        let poly = Poly::from_bytes(poly, context).map_err(|why| why.to_string())?;
        let is_sound =
            *poly.representation() == Representation::Ntt && key.c.len() == 1 && key.seed.len() == 32;
        if is_sound { Ok(()) } else { Err(OTHER_FORM.to_owned()) }
    }
}

/// Encrypts under a public key.
#[derive(Debug)]
pub struct Encryptor {
    scheme: Scheme,
    key: PublicKey,
}

impl Encryptor {
    /// Encrypts coefficients, centred around 0. Returns the residues of the ciphertext. The same seed and number give the
    /// same randomness, so a seed is for one update.
    ///
    /// # Errors
    ///
    /// When there are more coefficients than a ciphertext holds.
    pub fn encrypt(&self, coefficients: &[i64], seed: &[u8; 32], number: u64) -> Result<Vec<u64>, String> {
        let plaintext = Plaintext::try_encode(coefficients, Encoding::poly(), &self.scheme.bfv);
        let plaintext = plaintext.map_err(|why| why.to_string())?;
        let mut random = ChaCha20Rng::from_seed(*seed);
        random.set_stream(number);
        let ciphertext = self.key.try_encrypt(&plaintext, &mut random).map_err(|why| why.to_string())?;
        let residues: Vec<u64> =
            ciphertext.iter().flat_map(|poly| poly.coefficients().into_iter().copied()).collect();
        let (found, expected) = (residues.len(), packing::residues(&self.scheme.params));
        if found == expected {
            return Ok(residues);
        }
        Err(format!("found {found} residues of a ciphertext, expected {expected}"))
    }
}

/// Decrypts with the secret key.
pub struct Decryptor {
    scheme: Scheme,
    key: SecretKey,
}

impl Decryptor {
    /// The bytes of a public key for this secret key: each call makes another one.
    pub fn new_public(&self, seed: &[u8; 32]) -> Vec<u8> {
        PublicKey::new(&self.key, &mut ChaCha20Rng::from_seed(*seed)).to_bytes()
    }

    /// The coefficients in the residues of a ciphertext, centred around 0. Residues with too much noise give wrong
    /// coefficients, and nothing tells them apart.
    ///
    /// # Errors
    ///
    /// When there are too few or too many residues.
    pub fn decrypt(&self, residues: &[u64]) -> Result<Zeroizing<Vec<i64>>, String> {
        let expected = packing::residues(&self.scheme.params);
        if residues.len() != expected {
            return Err(format!("found {} residues, expected {expected}", residues.len()));
        }
        let text = |why: &dyn std::fmt::Display| why.to_string();
        let bfv = &self.scheme.bfv;
        let context = bfv.context_at_level(0).map_err(|why| text(&why))?;
        let poly = |half: &[u64]| {
            Poly::try_convert_from(half, context, false, Representation::Ntt).map_err(|why| text(&why))
        };
        let (first, second) = residues.split_at(expected / 2);
        let ciphertext = Ciphertext::new(vec![poly(first)?, poly(second)?], bfv).map_err(|why| text(&why))?;
        let plaintext = self.key.try_decrypt(&ciphertext).map_err(|why| text(&why))?;
        let found =
            Zeroizing::new(Vec::<u64>::try_decode(&plaintext, Encoding::poly()).map_err(|why| text(&why))?);
        let modulus = self.scheme.params.plaintext_modulus;
        let centred = |value: &u64| {
            if *value > modulus / 2 { *value as i64 - modulus as i64 } else { *value as i64 }
        };
        Ok(Zeroizing::new(found.iter().map(centred).collect()))
    }

    /// Whether a public key belongs to this secret key.
    pub fn fits(&self, public: &Encryptor, seed: &[u8; 32]) -> bool {
        let most = (self.scheme.params.plaintext_modulus / 2) as i64;
        let known: Vec<i64> = (0..DEGREE as i64).map(|i| (i * 7919) % (most + 1)).collect();
        let found = public.encrypt(&known, seed, 0).and_then(|residues| self.decrypt(&residues));
        found.is_ok_and(|found| *found == known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modes::he::packing::{self, residues, rows};
    use crate::modes::he::params::FRESH_NOISE;

    const SEED: [u8; 32] = [7; 32];

    fn pair(params: &Params) -> (Encryptor, Decryptor) {
        let scheme = Scheme::new(params).unwrap();
        let secret = scheme.secret(&[1; 32]);
        (scheme.public(&secret.new_public(&[2; 32])).unwrap(), secret)
    }

    fn sum(params: &Params, ciphertexts: &[Vec<u64>]) -> Vec<u64> {
        let mut sums = vec![0; residues(params)];
        ciphertexts
            .iter()
            .for_each(|one| packing::add(params, &packing::pack(params, one), &mut sums).unwrap());
        sums
    }

    /// Coefficients that hold the largest integers, the smallest ones, and others.
    fn coefficients(params: &Params, client: usize) -> Vec<i64> {
        let most = params.levels as i32;
        let count = DEGREE * params.per_coefficient as usize;
        let integer = |i: usize| match i % 7 {
            0 | 1 => most,
            2 | 3 => -most,
            _ => ((i * 7919 + client * 104_729) % (2 * most as usize + 1)) as i32 - most,
        };
        let mut packed = Vec::new();
        params.pack(&(0..count).map(integer).collect::<Vec<_>>(), &mut packed);
        packed
    }

    #[test]
    fn sums_of_as_many_clients_as_the_numbers_are_for_decrypt() {
        for (clients, bits) in [(2, 2), (3, 16), (50, 16), (8, 28)] {
            let params = Params::new(clients, bits).unwrap();
            let (public, secret) = pair(&params);
            let plain: Vec<Vec<i64>> =
                (0..clients as usize).map(|client| coefficients(&params, client)).collect();
            let encrypt =
                |(number, one): (usize, &Vec<i64>)| public.encrypt(one, &SEED, number as u64).unwrap();
            let encrypted: Vec<Vec<u64>> = plain.iter().enumerate().map(encrypt).collect();
            let expected: Vec<i64> = (0..DEGREE).map(|i| plain.iter().map(|one| one[i]).sum()).collect();
            assert_eq!(*secret.decrypt(&sum(&params, &encrypted)).unwrap(), expected, "{clients} {bits}");
            // One client more at the ends, and the sum is another one.
            let ends = vec![(params.plaintext_modulus / 2) as i64 / clients as i64; 4];
            let one_more: Vec<Vec<u64>> =
                (0..=clients).map(|number| public.encrypt(&ends, &SEED, number).unwrap()).collect();
            let at_bound = secret.decrypt(&sum(&params, &one_more[1..])).unwrap();
            assert_eq!(at_bound[0], ends[0] * clients as i64);
            let beyond = secret.decrypt(&sum(&params, &one_more)).unwrap();
            assert_ne!(beyond[0], ends[0] * (clients as i64 + 1));
        }
    }

    /// Noise of exactly the bound decrypts, and noise a little beyond q / (2 t) does not.
    #[test]
    fn the_bound_on_noise_is_where_decryption_ends() {
        for (clients, bits) in [(10, 16), (10, 12), (1_000, 20)] {
            noise_of(&Params::new(clients, bits).unwrap());
        }
    }

    fn noise_of(params: &Params) {
        let (public, secret) = pair(params);
        let plain = coefficients(params, 0);
        let fresh = public.encrypt(&plain, &SEED, 0).unwrap();
        // A constant is the same number in every place of the transformed domain.
        let with_noise = |noise: i128| {
            let mut noisy = fresh.clone();
            for (modulus, row) in rows(params).zip(noisy.chunks_mut(DEGREE)).take(params.moduli.len()) {
                let added = noise.rem_euclid(i128::from(modulus)) as u64;
                row.iter_mut().for_each(|residue| *residue = (*residue + added) % modulus);
            }
            secret.decrypt(&noisy).unwrap()
        };
        let promised = (u128::from(params.clients) * FRESH_NOISE) as i128;
        let most = (params.modulus() / (2 * u128::from(params.plaintext_modulus))) as i128;
        let own = FRESH_NOISE as i128;
        assert!(promised < most);
        for noise in [promised - own, own - promised, most - own, own - most] {
            assert_eq!(*with_noise(noise), plain, "{noise}");
        }
        for noise in [most + own, -most - own] {
            let found = with_noise(noise);
            assert_ne!(found[0], plain[0], "{noise}");
            assert_eq!(found[1..], plain[1..]);
        }
    }

    #[test]
    fn encryption_repeats_by_seed_and_number_alone() {
        let params = Params::new(3, 16).unwrap();
        let (public, secret) = pair(&params);
        let plain = coefficients(&params, 1);
        let encrypt = |seed: u8, number| public.encrypt(&plain, &[seed; 32], number).unwrap();
        assert_eq!(encrypt(1, 0), encrypt(1, 0));
        for other in [encrypt(2, 0), encrypt(1, 1)] {
            assert!(encrypt(1, 0).iter().zip(&other).filter(|(one, other)| one == other).count() < 8);
            assert_eq!(*secret.decrypt(&other).unwrap(), plain);
        }
        assert!(public.encrypt(&vec![0; DEGREE + 1], &SEED, 0).is_err());
    }

    #[test]
    fn a_key_fits_its_own_public_key_alone() {
        let params = Params::new(3, 16).unwrap();
        let (public, secret) = pair(&params);
        let scheme = Scheme::new(&params).unwrap();
        assert!(secret.fits(&public, &SEED));
        assert!(!scheme.secret(&[3; 32]).fits(&public, &SEED));
        let another = scheme.public(&secret.new_public(&[2; 32])).unwrap();
        assert!(secret.fits(&another, &SEED), "a second public key of the same secret key");
        assert!(secret.decrypt(&vec![0; residues(&params) - 1]).is_err());
    }

    #[test]
    fn damaged_public_keys_are_refused() {
        let params = Params::new(3, 16).unwrap();
        let scheme = Scheme::new(&params).unwrap();
        let sound = scheme.secret(&[1; 32]).new_public(&[2; 32]);
        assert!(scheme.public(&sound).is_ok());
        for length in [0, 1, 10, sound.len() - 1] {
            assert!(scheme.public(&sound[..length]).is_err(), "{length}");
        }
        assert!(scheme.public(&[sound.as_slice(), b"\0"].concat()).is_err());
        // Forms that `fhe` reads, and then panics or encrypts badly.
        let stored = StoredKey::decode(sound.as_slice()).unwrap();
        let with = |change: &dyn Fn(&mut fhe::proto::bfv::Ciphertext)| {
            let mut key = stored.clone();
            change(key.c.as_mut().unwrap());
            scheme.public(&key.encode_to_vec())
        };
        assert!(with(&|_| ()).is_ok());
        let context = scheme.bfv.context_at_level(0).unwrap();
        let other = Poly::zero(context, Representation::PowerBasis).to_bytes();
        assert!(with(&|key| key.c[0] = other.clone()).is_err());
        assert!(with(&|key| key.c.push(key.c[0].clone())).is_err());
        assert!(with(&|key| key.c.clear()).is_err());
        assert!(with(&|key| key.seed.clear()).is_err());
        assert!(with(&|key| key.level = 1).is_err());
        let other = Scheme::new(&Params::new(50, 16).unwrap()).unwrap();
        assert!(other.public(&sound).is_err());
    }
}
