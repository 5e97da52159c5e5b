//! The manifest of a session: its terms, signed by the server and checked by every party.

use crate::kernels::field::P;
use crate::modes::secure::kept::KeptPlaces;
use crate::modes::secure::keys::seeds::sealed_bytes;
use crate::modes::secure::keys::sharing::Committee;
use crate::modes::secure::privacy::PrivacyTerms;
use crate::parties::SECAGG_PROTOCOL;
use crate::parties::envelope::Suite;
use crate::parties::error::SecureError;
use crate::parties::fault::MessageFault;
use crate::parties::grid::Grid;
use crate::parties::hex::Hex;
use crate::parties::identity::check_id;
use crate::parties::identity::{PublicIdentity, Stage, is_verifying_key};
use crate::parties::signed_lanes::{Shape, Statement};
use crate::parties::signed_text::SignedText;
use crate::parties::tensors::{ClientWeights, Held, LaneTensor, check_clips, check_tensors, values_of};
use crate::record::sha256::Sha256;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::Path;

/// The most lanes of a session: 2^32 blocks of a stream.
const MOST_LANES: usize = 1 << 36;

/// A client that may take part.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Eligible {
    /// Its name.
    pub id: String,
    /// The public key of its signatures.
    pub ed25519: Hex<32>,
    /// Its group, from 0 on.
    pub group: usize,
}

/// The terms of a session.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct SessionTerms {
    /// The protocol.
    pub protocol: String,
    /// Random bytes, which make the session one of its kind.
    pub nonce: Hex<32>,
    /// The number of the round, if the server gave one.
    pub round: Option<u64>,
    /// The server.
    pub server: PublicIdentity,
    /// The BLAKE3 digest of the model that the updates started from.
    pub base: Hex<32>,
    /// The tensors of the base, in the order of lanes.
    pub tensors: Vec<LaneTensor>,
    /// The SHA-256 digest of the JSON of `tensors`.
    pub tensors_sha256: Sha256,
    /// The largest magnitude of a parameter's change.
    pub clip: f64,
    /// The largest magnitude of a statistic's change; `None` leaves statistics out.
    pub statistics_clip: Option<f64>,
    /// The largest magnitude of a control variate's change; `None` without SCAFFOLD.
    pub control_clip: Option<f64>,
    /// The integers that values become.
    pub grid: Grid,
    /// The weights of clients.
    pub weights: ClientWeights,
    /// The most local steps that a client counts, if clients divide their changes by their steps, as in FedNova. The
    /// product of weight and steps is then one more lane.
    pub steps_cap: Option<u32>,
    /// The clients that may take part, in order of id.
    pub clients: Vec<Eligible>,
    /// The number of groups; each has a sum.
    pub groups: usize,
    /// The helpers, in order of their numbers.
    pub helpers: Vec<PublicIdentity>,
    /// The number of helpers that suffice.
    pub threshold: usize,
    /// The most corrupt helpers with which a lying server gets no two sums.
    pub tolerates_corrupt: usize,
    /// Whether helpers sign the set before they answer.
    pub helpers_sign_set: bool,
    /// The key exchange of envelopes.
    pub suite: Suite,
    /// The fewest clients of a sum.
    pub min_survivors: usize,
    /// Seconds since 1970 after which clients mask no more.
    pub deadline: Option<u64>,
    /// The number of values of parameters that clients send, at places that all share; `None` for all values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<u64>,
    /// How the sum is private; `None` if it is the exact sum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privacy: Option<PrivacyTerms>,
}

/// A manifest whose signature and terms are checked.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The SHA-256 digest of the manifest's bytes.
    pub session: Sha256,
    /// The terms.
    pub terms: SessionTerms,
    /// The helpers and their threshold.
    pub committee: Committee,
}

impl Manifest {
    /// Reads a manifest. The server that it names signed it.
    ///
    /// # Errors
    ///
    /// When it cannot be read, is not signed, or has terms that cannot be.
    pub fn read(path: &Path) -> Result<Self, SecureError> {
        if !crate::io::folder::exists(path) {
            return Err(SecureError::Terms {
                what: path.display().to_string(),
                why: "is not there, expected the manifest of a session".to_owned(),
                hint: Some("fedmill secagg open SESSION writes it".to_owned()),
            });
        }
        Self::of(&SignedText::read(path)?).map_err(SecureError::file(path))
    }

    /// The manifest of a signed text.
    ///
    /// # Errors
    ///
    /// When it is not signed by the server that it names, or has terms that cannot be.
    pub fn of(text: &SignedText) -> Result<Self, MessageFault> {
        let server: ServerOf = text.unverified()?;
        let terms: SessionTerms = text.verified(Stage::Open, &server.server.id, &server.server.ed25519)?;
        let committee = terms.check().map_err(MessageFault::Format)?;
        Ok(Self { session: Sha256::of(text.bytes()), terms, committee })
    }

    /// The eligible client of an id.
    pub fn client(&self, id: &str) -> Option<&Eligible> {
        let clients = &self.terms.clients;
        clients.binary_search_by(|client| client.id.as_str().cmp(id)).ok().map(|place| &clients[place])
    }

    /// The number of a helper with a key.
    pub fn helper_number(&self, key: &Hex<32>) -> Option<usize> {
        self.terms.helpers.iter().position(|helper| helper.ed25519 == *key).map(|place| place + 1)
    }

    /// The shape of a masked update.
    pub fn masked_shape(&self) -> Shape {
        let extra = sealed_bytes(self.committee, self.terms.suite);
        Shape { rows: 1, lanes: self.terms.lanes(), extra }
    }

    /// The shape of sums: a row for each group.
    pub fn sums_shape(&self) -> Shape {
        Shape { rows: self.terms.groups, lanes: self.terms.lanes(), extra: 0 }
    }

    /// The statement of a message of this session.
    pub fn statement(&self, stage: Stage, sender: &str, set: Option<Sha256>) -> Statement {
        Statement { session: self.session, stage, sender: sender.to_owned(), set }
    }
}

/// The part of a manifest that names the key by which it is verified.
#[derive(Deserialize)]
struct ServerOf {
    server: PublicIdentity,
}

impl SessionTerms {
    /// The number of values that the lanes hold, without extra lanes.
    pub fn values(&self) -> usize {
        values_of(&self.tensors)
    }

    /// The values that clients send.
    pub fn kept(&self) -> KeptPlaces {
        KeptPlaces::new(&self.tensors, self.keep, &self.nonce.0)
    }

    /// The number of values that clients send.
    pub fn sent(&self) -> usize {
        let left_out = self.keep.map_or(0, |keep| parameters(&self.tensors).saturating_sub(keep as usize));
        self.values().saturating_sub(left_out)
    }

    /// Lanes behind those of values: one for the weight, if clients have weights, and one for their steps.
    pub fn extra_lanes(&self) -> usize {
        usize::from(self.weights != ClientWeights::Uniform) + usize::from(self.steps_cap.is_some())
    }

    /// The largest weight of a client.
    pub fn most_weight(&self) -> u32 {
        match self.weights {
            ClientWeights::Uniform => 1,
            ClientWeights::Examples { cap } => cap,
        }
    }

    /// The largest number in the lane of steps.
    pub fn most_steps(&self) -> u64 {
        u64::from(self.most_weight()) * u64::from(self.steps_cap.unwrap_or(1))
    }

    /// The number of lanes of a masked update.
    pub fn lanes(&self) -> usize {
        self.grid.lanes(self.sent()) + self.extra_lanes()
    }

    /// The magnitude that becomes the largest integer, for values of a tensor.
    pub fn clip_of(&self, held: Held) -> f64 {
        match held {
            Held::Statistic => self.statistics_clip.unwrap_or(self.clip),
            Held::Control => self.control_clip.unwrap_or(self.clip),
            Held::Parameter | Held::Nothing => self.clip,
        }
    }

    /// The number of eligible clients of each group.
    pub fn group_sizes(&self) -> Vec<usize> {
        let mut sizes = vec![0; self.groups];
        for client in &self.clients {
            if let Some(size) = sizes.get_mut(client.group) {
                *size += 1;
            }
        }
        sizes
    }

    /// The digest of a list of tensors.
    pub fn digest_of(tensors: &[LaneTensor]) -> Sha256 {
        Sha256::of(serde_json::to_string(tensors).unwrap_or_default())
    }

    /// Checks that the terms can be, and fit each other.
    ///
    /// # Errors
    ///
    /// The first that does not: its name, what was found and what was expected.
    pub fn check(&self) -> Result<Committee, String> {
        expect("protocol", &self.protocol, &SECAGG_PROTOCOL.to_owned())?;
        expect("tensors_sha256", &self.tensors_sha256, &Self::digest_of(&self.tensors))?;
        let committee = Committee::new(self.helpers.len(), self.threshold).map_err(|why| why.to_string())?;
        expect("tolerates_corrupt", &self.tolerates_corrupt, &self.corrupt_of(committee))?;
        self.check_parties()?;
        self.check_groups()?;
        self.check_values()?;
        Ok(committee)
    }

    /// The most corrupt helpers that a committee tolerates under these terms.
    pub fn corrupt_of(&self, committee: Committee) -> usize {
        if self.helpers_sign_set { committee.threshold() - 1 } else { committee.most_corrupt() }
    }

    fn check_parties(&self) -> Result<(), String> {
        let (mut ids, mut keys) = (BTreeSet::new(), BTreeSet::new());
        let helpers = self.helpers.iter().chain([&self.server]).map(|party| (&party.id, &party.ed25519));
        // A client may be a helper too, under another key. Its two ids may be the same.
        for (id, key) in helpers {
            check_party(id, key, &mut keys)?;
            if !ids.insert(id) {
                return Err(format!(
                    "found `{id}` twice among the helpers and the server, expected different ids"
                ));
            }
        }
        let mut before: Option<&str> = None;
        for client in &self.clients {
            check_party(&client.id, &client.ed25519, &mut keys)?;
            if before.is_some_and(|before| before >= client.id.as_str()) {
                return Err(format!("client `{}` is not in order of id, or is there twice", client.id));
            }
            before = Some(&client.id);
        }
        for helper in &self.helpers {
            if helper.suite != self.suite {
                let (id, suite, expected) = (&helper.id, helper.suite, self.suite);
                return Err(format!("helper `{id}` has a key of {suite}, expected {expected}"));
            }
            helper.sealing_key()?;
        }
        Ok(())
    }

    fn check_groups(&self) -> Result<(), String> {
        // Before a list has as many places as a stranger claims.
        if !(1..=self.clients.len()).contains(&self.groups) {
            return Err(format!(
                "groups is {}, expected 1 to {}, the clients",
                self.groups,
                self.clients.len()
            ));
        }
        let sizes = self.group_sizes();
        let (least, most) =
            (sizes.iter().min().copied().unwrap_or(0), sizes.iter().max().copied().unwrap_or(0));
        if sizes.iter().sum::<usize>() != self.clients.len() {
            return Err(format!("a client is in a group beyond {}", self.groups));
        }
        if least < 2 {
            return Err(format!(
                "{} clients in {} groups: found a group of {least}, expected at least 2 clients in each: a sum of one is its update",
                self.clients.len(),
                self.groups
            ));
        }
        if self.min_survivors < 2 || self.min_survivors > least {
            return Err(format!(
                "min_survivors is {}, expected 2 to {least}, the clients of the smallest group",
                self.min_survivors
            ));
        }
        expect("grid.contributors", &self.grid.contributors, &(most as u64))
    }

    fn check_keep(&self) -> Result<(), String> {
        let Some(keep) = self.keep else { return Ok(()) };
        let all = parameters(&self.tensors) as u64;
        if !(1..=all).contains(&keep) {
            return Err(format!("keep is {keep}, expected 1 to {all}, the values of parameters"));
        }
        if self.grid.per_lane > 1 || self.control_clip.is_some() {
            return Err(
                "keep: found several values in a lane or control variates, expected neither".to_owned()
            );
        }
        Ok(())
    }

    fn check_values(&self) -> Result<(), String> {
        let grid = Grid::new(self.grid.contributors, Some(self.grid.levels), self.grid.per_lane);
        grid.map_err(|why| format!("grid: {why}"))?;
        let clips = [
            ("clip", Some(self.clip)),
            ("statistics_clip", self.statistics_clip),
            ("control_clip", self.control_clip),
        ];
        check_clips(&clips)?;
        let most = u64::from(P / 2) / self.grid.contributors;
        if self.most_weight() == 0 || self.steps_cap == Some(0) || self.most_steps() > most {
            let (weight, steps) = (self.most_weight(), self.steps_cap.unwrap_or(1));
            return Err(format!(
                "found weights up to {weight} and steps up to {steps}, expected at least 1, and a product of at most {most}, \
                 so that no sum overflows"
            ));
        }
        if self.control_clip.is_some() && (self.weights != ClientWeights::Uniform || self.steps_cap.is_some())
        {
            return Err("control variates have no weights and no steps, expected uniform weights".to_owned());
        }
        check_tensors(&self.tensors)?;
        self.check_keep()?;
        self.privacy.as_ref().map_or(Ok(()), |privacy| privacy.check(self))?;
        match self.values() {
            1..=MOST_LANES => Ok(()),
            values => Err(format!("the tensors have {values} values, expected 1 to {MOST_LANES}")),
        }
    }
}

/// The number of values of parameters.
pub fn parameters(tensors: &[LaneTensor]) -> usize {
    let held = tensors.iter().filter(|tensor| tensor.held == Held::Parameter);
    held.fold(0, |sum: usize, tensor| sum.saturating_add(tensor.len()))
}

fn expect<T: PartialEq + std::fmt::Debug>(name: &str, found: &T, expected: &T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{name} is {found:?}, expected {expected:?}")) }
}

fn check_party<'t>(id: &str, key: &'t Hex<32>, keys: &mut BTreeSet<&'t Hex<32>>) -> Result<(), String> {
    check_id(id)?;
    if !is_verifying_key(key) {
        return Err(format!("`ed25519` of `{id}`: expected a public key of Ed25519"));
    }
    if keys.insert(key) { Ok(()) } else { Err(format!("the key of `{id}` is that of another party too")) }
}
