//! The files that clients read: a task for each client, and the manifest of the round.

use crate::config::Config;
use crate::config::sections::SentKind;
use crate::fleet::select::Choice;
use crate::io::digest::Blake3;
use crate::round::journal::{Opening, TierSettings, Version};
use crate::round::layout;
use crate::round::world::Fingerprint;
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;

/// The schema of a task.
pub const TASK: &str = "fedmill.task/1";

/// The schema of the manifest of a round.
pub const MANIFEST: &str = "fedmill.round/1";

/// The settings that all tasks of a round share.
#[derive(Clone, Serialize, Debug)]
pub struct TaskSettings {
    /// The weight of FedProx's proximal term; `None` for other strategies.
    pub mu: Option<f64>,
    /// Local steps by tier; the empty name stands for clients without a tier.
    pub local_steps: BTreeMap<String, u64>,
    /// Codecs that a client may use; empty for updates as they are.
    pub codecs: Vec<String>,
    /// The codec, the compression target and the budget of a tier.
    pub tiers: BTreeMap<String, TierSettings>,
    /// The size of an update relative to the model that clients aim at.
    pub compression_target: f64,
    /// The most bytes of an update; `None` for no bound.
    pub max_bytes: Option<u64>,
    /// What clients send; `None` if each update states it.
    pub update_kind: Option<SentKind>,
    /// The L2 norm to which an update is clipped; `None` without privacy.
    pub clip: Option<f64>,
    /// Layers that stay with the client.
    pub personal: Vec<String>,
    /// The seed of the round.
    pub seed: u64,
    /// The session in which clients mask their updates; `None` for updates in the clear.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secure: Option<SecureTask>,
}

/// The session in which a client masks its update, by `fedmill secagg mask`.
#[derive(Clone, Serialize, Debug)]
pub struct SecureTask {
    /// Its digest.
    pub session: String,
    /// Its folder, in the state directory.
    pub folder: String,
    /// Where a client puts its masked update, in the state directory; `None` in the settings of all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub put: Option<String>,
}

impl SecureTask {
    /// The session as the task of a client has it.
    fn of_client(&self, client: &str) -> Self {
        let put = layout::of_client(&format!("{}/masked", self.folder), client, layout::MODEL_ENDING);
        Self { put: Some(put), ..self.clone() }
    }
}

impl TaskSettings {
    /// The settings of a round.
    pub fn of(config: &Config, opening: &Opening, session: Option<String>) -> Self {
        let strategy = &config.strategy;
        let is_proximal = strategy.name.split(':').next() == Some("fedprox");
        Self {
            mu: is_proximal.then_some(strategy.mu),
            local_steps: opening.settings.local_steps.clone(),
            codecs: config.compression.methods.clone(),
            tiers: opening.settings.tiers.clone(),
            compression_target: opening.settings.compression_target,
            max_bytes: config.compression.bytes_per_update,
            update_kind: strategy.update_kind,
            clip: opening.budget.as_ref().map(|budget| budget.clip),
            personal: config.personalization.layers.clone(),
            seed: task_seed(config.coordination.seed, opening.selection.round),
            secure: session.map(|session| SecureTask {
                session,
                folder: layout::session(opening.selection.round),
                put: None,
            }),
        }
    }

    fn codecs(&self, tier: Option<&str>) -> Vec<String> {
        let own = self.tier(tier).and_then(|tier| tier.codec.as_ref());
        own.map_or_else(|| self.codecs.clone(), |codec| vec![codec.clone()])
    }

    fn tier(&self, tier: Option<&str>) -> Option<&TierSettings> {
        self.tiers.get(tier?)
    }

    fn steps(&self, tier: Option<&str>) -> u64 {
        let of = |tier: &str| self.local_steps.get(tier).copied();
        tier.and_then(of).or_else(|| of("")).unwrap_or(1)
    }
}

/// Where a client gets the model of a round.
#[derive(Clone, Serialize, Debug)]
pub struct ModelSource {
    /// The number of the version.
    pub version: u64,
    /// Its digest, to check against.
    pub blake3: String,
    /// Its bytes.
    pub bytes: u64,
    /// Its path in the state directory.
    pub path: String,
    /// Whether the client holds it already.
    pub is_held: bool,
    /// A smaller way to it; `None` if there is none.
    pub patch: Option<PatchSource>,
}

/// A patch from a model that a client holds.
#[derive(Clone, Serialize, Debug)]
pub struct PatchSource {
    /// The digest of the model that it applies to.
    pub onto: String,
    /// Its path in the state directory.
    pub path: String,
    /// Its digest.
    pub blake3: String,
    /// Its bytes.
    pub bytes: u64,
}

impl ModelSource {
    /// Where a client gets the model of a round. `patches` are by the digest of the model that they apply to.
    pub fn of(base: &Version, choice: &Choice, patches: &BTreeMap<String, Fingerprint>) -> Self {
        let held = choice.known_version.as_ref();
        let patch = held.and_then(|held| patches.get(held).map(|patch| (held.clone(), patch.clone())));
        Self::new(base, held.is_some_and(|held| *held == base.file.blake3), patch)
    }

    /// The source of a version. `patch` has the digest of the model that the client holds, and the patch.
    fn new(version: &Version, is_held: bool, patch: Option<(String, Fingerprint)>) -> Self {
        let Fingerprint { blake3, bytes } = version.file.clone();
        let patch = patch.map(|(onto, file)| PatchSource {
            path: layout::patch(&onto, &blake3),
            onto,
            blake3: file.blake3,
            bytes: file.bytes,
        });
        Self { version: version.number, path: layout::model(&blake3), blake3, bytes, is_held, patch }
    }

    /// Bytes that a client fetches.
    pub fn fetched(&self) -> u64 {
        match &self.patch {
            _ if self.is_held => 0,
            Some(patch) => patch.bytes,
            None => self.bytes,
        }
    }
}

/// The task of a client.
#[derive(Clone, Serialize, Debug)]
pub struct Task {
    schema: &'static str,
    client: String,
    round: u64,
    model: ModelSource,
    local_steps: u64,
    mu: Option<f64>,
    codecs: Vec<String>,
    /// The size to aim at by a choice of codec; `None` where the task names one codec, which decides the size.
    compression_target: Option<f64>,
    /// The bytes that the update may have in the client's budget; `None` without a budget.
    upload_bytes: Option<u64>,
    max_bytes: Option<u64>,
    clip: Option<f64>,
    personal: Vec<String>,
    seed: u64,
    deadline: String,
    /// Where to put the update, in the state directory. A secure round has none: a client that knows nothing of masks sends
    /// no update in the clear.
    #[serde(skip_serializing_if = "Option::is_none")]
    put: Option<String>,
    /// The metadata to write into the update: fedmill refuses an update that states another round or base.
    metadata: BTreeMap<&'static str, String>,
    /// Where to mask the update; `None` if it is sent in the clear.
    #[serde(skip_serializing_if = "Option::is_none")]
    secure: Option<SecureTask>,
}

impl Task {
    /// The task of a client. `deadline` is in seconds since 1970.
    pub fn new(
        round: u64,
        choice: &Choice,
        common: &TaskSettings,
        model: ModelSource,
        deadline: u64,
    ) -> Self {
        let mut metadata = BTreeMap::from([
            ("client_id", choice.id.clone()),
            ("round", round.to_string()),
            ("base", format!("blake3:{}", model.blake3)),
        ]);
        metadata.extend(common.update_kind.map(|kind| ("kind", kind.name().to_owned())));
        let tier = common.tier(choice.tier.as_deref());
        let target = tier.map_or(common.compression_target, |tier| tier.compression_target);
        let codecs = common.codecs(choice.tier.as_deref());
        Self {
            schema: TASK,
            client: choice.id.clone(),
            round,
            local_steps: common.steps(choice.tier.as_deref()),
            mu: common.mu,
            compression_target: (codecs.len() != 1).then_some(target),
            codecs,
            upload_bytes: tier.and_then(|tier| tier.upload_bytes),
            max_bytes: common.max_bytes,
            clip: common.clip,
            personal: common.personal.clone(),
            seed: common.seed,
            deadline: time(deadline),
            put: common
                .secure
                .is_none()
                .then(|| layout::of_client(&layout::inbox(round), &choice.id, layout::MODEL_ENDING)),
            secure: common.secure.as_ref().map(|secure| secure.of_client(&choice.id)),
            metadata,
            model,
        }
    }

    /// The task as JSON.
    pub fn text(&self) -> Vec<u8> {
        lines_of(self)
    }
}

/// The manifest of a round.
#[derive(Clone, Serialize, Debug)]
pub struct Manifest {
    schema: &'static str,
    round: u64,
    model: ModelSource,
    clients: usize,
    quorum: u64,
    deadline: String,
    inbox: String,
    settings: TaskSettings,
}

impl Manifest {
    /// The manifest of a round. `deadline` is in seconds since 1970.
    pub fn new(round: u64, opening: &Opening, common: &TaskSettings, deadline: u64) -> Self {
        Self {
            schema: MANIFEST,
            round,
            model: ModelSource::new(&opening.base, false, None),
            clients: opening.selection.choices.len(),
            quorum: opening.quorum,
            deadline: time(deadline),
            inbox: layout::inbox(round),
            settings: common.clone(),
        }
    }

    /// The manifest as JSON.
    pub fn text(&self) -> Vec<u8> {
        lines_of(self)
    }
}

/// The seed of a round for its clients, from which the seed of selections does not follow.
fn task_seed(seed: u64, round: u64) -> u64 {
    let digest = Blake3::of_bytes(format!("fedmill task seed {seed} {round}").as_bytes());
    let bytes = digest.first_chunk().copied().unwrap_or_default();
    // 53 bits: every reader of JSON takes such a number as it is.
    u64::from_le_bytes(bytes) >> 11
}

/// A time as RFC 3339.
pub fn time(unix_s: u64) -> String {
    let seconds = i64::try_from(unix_s).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX).to_string()
}

fn lines_of(value: &impl Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).unwrap_or_default();
    text.push(b'\n');
    text
}
