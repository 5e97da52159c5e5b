//! The terms of a round, which the server signs and every party checks before it acts.

use crate::modes::he::keys::{Party, PublicKeyFile};
use crate::modes::he::packing;
use crate::modes::he::params::{DEGREE, Params};
use crate::parties::HE_PROTOCOL;
use crate::parties::error::SecureError;
use crate::parties::fault::MessageFault;
use crate::parties::grid::Grid;
use crate::parties::hex::Hex;
use crate::parties::identity::{Identity, PublicIdentity, Stage};
use crate::parties::signed_lanes::{Shape, Statement};
use crate::parties::signed_text::SignedText;
use crate::parties::tensors::{ClientWeights, Held, LaneTensor, check_clips, check_tensors, values_of};
use crate::record::sha256::Sha256;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::Path;

/// The most values of a round.
const MOST_VALUES: usize = 1 << 32;

/// Bytes of the digest of a client's file.
const DIGEST_BYTES: usize = 32;

/// The terms of a round.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct RoundTerms {
    /// The protocol.
    pub protocol: String,
    /// Random bytes, which make the round one of its kind.
    pub nonce: Hex<32>,
    /// The number of the round, if the server gave one.
    pub round: Option<u64>,
    /// The server.
    pub server: Party,
    /// The key holder.
    pub key_holder: Party,
    /// The digest of the file of the public key.
    pub public_key: Sha256,
    /// The numbers of the scheme.
    pub params: Params,
    /// The BLAKE3 digest of the model that the updates started from.
    pub base: Hex<32>,
    /// The tensors of the base, in the order of values.
    pub tensors: Vec<LaneTensor>,
    /// The largest magnitude of a parameter's change.
    pub clip: f64,
    /// The largest magnitude of a statistic's change; `None` leaves statistics out.
    pub statistics_clip: Option<f64>,
    /// The weights of clients.
    pub weights: ClientWeights,
    /// The clients that may take part, in order of id.
    pub clients: Vec<Party>,
    /// The fewest clients of a sum.
    pub min_clients: usize,
}

/// A round whose signature and terms are checked.
#[derive(Clone, Debug)]
pub struct Round {
    /// The SHA-256 digest of the bytes of the terms.
    pub digest: Sha256,
    /// The terms.
    pub terms: RoundTerms,
}

impl Round {
    /// Reads the terms of a round. The server that they name signed them.
    ///
    /// # Errors
    ///
    /// When they cannot be read, are not signed, or cannot be.
    pub fn read(path: &Path) -> Result<Self, SecureError> {
        Self::of(&SignedText::read(path)?).map_err(SecureError::file(path))
    }

    /// The round of a signed text.
    ///
    /// # Errors
    ///
    /// When it is not signed by the server that it names, or has terms that cannot be.
    pub fn of(text: &SignedText) -> Result<Self, MessageFault> {
        let RoundServer { server } = text.unverified()?;
        let terms: RoundTerms = text.verified(Stage::HeOpen, &server.id, &server.ed25519)?;
        terms.check().map_err(MessageFault::Format)?;
        Ok(Self { digest: Sha256::of(text.bytes()), terms })
    }

    /// The place of an eligible client among all.
    pub fn place_of(&self, id: &str) -> Option<usize> {
        self.terms.clients.binary_search_by(|client| client.id.as_str().cmp(id)).ok()
    }

    /// Ciphertexts of an update.
    pub fn ciphertexts(&self) -> usize {
        self.terms.coefficients().div_ceil(DEGREE)
    }

    /// The shape of a file with one update, or with the sum.
    fn shape(&self, extra: usize) -> Shape {
        Shape { rows: 1, lanes: self.ciphertexts() * packing::words(&self.terms.params), extra }
    }

    /// The shape of an encrypted update.
    pub fn update_shape(&self) -> Shape {
        self.shape(0)
    }

    /// The shape of a sum: behind the ciphertexts, the digest of each eligible client's file, zeros if it is not in the sum.
    pub fn sum_shape(&self) -> Shape {
        self.shape(DIGEST_BYTES * self.terms.clients.len())
    }

    /// The statement of a message of this round.
    pub fn statement(&self, stage: Stage, sender: &str) -> Statement {
        Statement { session: self.digest, stage, sender: sender.to_owned(), set: None }
    }

    /// Checks that an identity is that of a party.
    ///
    /// # Errors
    ///
    /// When it is not.
    pub fn check_role(role: &str, party: &Party, identity: &Identity) -> Result<(), SecureError> {
        if party.ed25519 == identity.verifying() {
            return Ok(());
        }
        let why = format!("the key is not that of the round's {role} `{}`", party.id);
        Err(SecureError::refused(why, None))
    }

    /// Checks that a public key is the one of this round.
    ///
    /// # Errors
    ///
    /// When it is another one.
    pub fn check_public(&self, public: &PublicKeyFile) -> Result<(), SecureError> {
        let terms = &self.terms;
        let is_same = public.stated.holder == terms.key_holder && public.stated.params == terms.params;
        if public.digest == terms.public_key && is_same {
            return Ok(());
        }
        let why = format!(
            "the public key has the digest {}, expected {} of `{}`, the key of the round",
            public.digest, terms.public_key, terms.key_holder.id
        );
        Err(SecureError::refused(why, Some("pass the public key with which the round was opened")))
    }

    /// Checks that the user trusts the keys of parties.
    ///
    /// # Errors
    ///
    /// When one is not trusted.
    pub fn check_trusted(parties: &[(&str, &Party)], trusted: &[PublicIdentity]) -> Result<(), SecureError> {
        let Some((role, party)) = parties.iter().find(|(_, party)| !party.is_among(trusted)) else {
            return Ok(());
        };
        let why = format!("the round's {role} `{}` has a key that is not among the trusted ones", party.id);
        let hint = "pass --trust with the public keys that you got from the parties themselves";
        Err(SecureError::refused(why, Some(hint)))
    }
}

/// The part of terms that names the key by which they are verified.
#[derive(Deserialize)]
struct RoundServer {
    server: Party,
}

impl RoundTerms {
    /// The number of values, without the weight.
    pub fn values(&self) -> usize {
        values_of(&self.tensors)
    }

    /// The number of coefficients: those of values, and one for the weight if clients have weights.
    pub fn coefficients(&self) -> usize {
        self.params.coefficients(self.values()) + usize::from(self.weights != ClientWeights::Uniform)
    }

    /// The magnitude that becomes the largest integer, for values of a tensor.
    pub fn clip_of(&self, held: Held) -> f64 {
        match held {
            Held::Statistic => self.statistics_clip.unwrap_or(self.clip),
            Held::Parameter | Held::Control | Held::Nothing => self.clip,
        }
    }

    /// The integers that values become.
    pub fn grid(&self) -> Grid {
        let params = &self.params;
        Grid { contributors: params.clients, levels: params.levels, per_lane: params.per_coefficient }
    }

    /// Checks that the terms can be, and fit each other.
    ///
    /// # Errors
    ///
    /// The first that does not: its name, what was found and what was expected.
    pub fn check(&self) -> Result<(), String> {
        if self.protocol != HE_PROTOCOL {
            return Err(format!("protocol is `{}`, expected `{HE_PROTOCOL}`", self.protocol));
        }
        self.params.check().map_err(|why| format!("params: {why}"))?;
        self.check_parties()?;
        check_clips(&[("clip", Some(self.clip)), ("statistics_clip", self.statistics_clip)])?;
        if let ClientWeights::Examples { cap } = self.weights {
            let most = self.params.plaintext_modulus / 2 / self.params.clients;
            if cap == 0 || u64::from(cap) > most {
                return Err(format!(
                    "weights: found a cap of {cap}, expected 1 to {most}, so that no sum overflows"
                ));
            }
        }
        check_tensors(&self.tensors)?;
        match self.values() {
            1..=MOST_VALUES => Ok(()),
            values => Err(format!("the tensors have {values} values, expected 1 to {MOST_VALUES}")),
        }
    }

    fn check_parties(&self) -> Result<(), String> {
        let most = self.params.clients;
        if self.clients.len() as u64 > most {
            let found = self.clients.len();
            return Err(format!(
                "found {found} clients, expected at most {most}, for which the numbers of the scheme were chosen"
            ));
        }
        let (least, clients) = (self.min_clients, self.clients.len());
        if least < 2 || least > clients {
            return Err(format!("min_clients is {least}, expected 2 to {clients}, the clients of the round"));
        }
        if self.server.ed25519 == self.key_holder.ed25519 {
            return Err(
                "the server holds the key, expected another party: it would decrypt every update".to_owned()
            );
        }
        let mut keys = BTreeSet::new();
        for party in self.clients.iter().chain([&self.server, &self.key_holder]) {
            party.check()?;
            if !keys.insert(&party.ed25519) {
                return Err(format!("the key of `{}` is that of another party too", party.id));
            }
        }
        let out_of_order = self.clients.windows(2).find(|pair| pair[0].id >= pair[1].id);
        out_of_order.map_or(Ok(()), |pair| {
            Err(format!("client `{}` is not in order of id, or is there twice", pair[1].id))
        })
    }
}
