//! Opens a round: the server writes and signs its terms.

use crate::engine::intake::policy::Policy;
use crate::engine::passes::machine::Machine;
use crate::io::folder::make_folder_of;
use crate::modes::he::keys::{Party, PublicKeyFile};
use crate::modes::he::round::{Round, RoundTerms};
use crate::parties::HE_PROTOCOL;
use crate::parties::error::SecureError;
use crate::parties::hex::Hex;
use crate::parties::identity::{Identity, PublicIdentity, Stage};
use crate::parties::reading;
use crate::parties::signed_text::SignedText;
use crate::parties::tensors::ClientWeights;
use std::path::{Path, PathBuf};

/// The terms that the server chooses.
#[derive(Clone, Debug)]
pub struct RoundOptions {
    /// The base.
    pub base: PathBuf,
    /// The number of the round.
    pub round: Option<u64>,
    /// The file of the public key.
    pub public: PathBuf,
    /// The clients that may take part.
    pub clients: Vec<PublicIdentity>,
    /// The largest magnitude of a parameter's change.
    pub clip: f64,
    /// The largest magnitude of a statistic's change.
    pub statistics_clip: Option<f64>,
    /// The weights of clients.
    pub weights: ClientWeights,
    /// The fewest clients of a sum; `None` for half of them, and at least 2.
    pub min_clients: Option<usize>,
}

/// Opens a round, and writes its terms to `path`.
///
/// # Errors
///
/// When the terms cannot be, the base cannot be read, or the file is there already.
pub fn run(
    path: &Path,
    options: &RoundOptions,
    (server, id): (&Identity, &str),
    machine: Machine,
) -> Result<Round, SecureError> {
    if crate::io::folder::exists(path) {
        let hint = Some("name another file: a round is opened once");
        return Err(SecureError::refused(format!("{}: is there already", path.display()), hint));
    }
    let public = PublicKeyFile::read(&options.public)?;
    let opened = reading::open(&options.base, Vec::new(), Policy::default(), machine)?;
    if let Some(tensor) = opened.opaque() {
        let base = options.base.display();
        let why = format!("{base}: tensor `{tensor}` is packed, and no sum of packed values has a meaning");
        return Err(SecureError::refused(why, Some("aggregate adapters, or a base with plain weights")));
    }
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce)?;
    let mut clients: Vec<Party> = options.clients.iter().map(Party::from).collect();
    clients.sort();
    let terms = RoundTerms {
        protocol: HE_PROTOCOL.to_owned(),
        nonce: Hex(nonce),
        round: options.round,
        server: Party { id: id.to_owned(), ed25519: server.verifying() },
        key_holder: public.stated.holder,
        public_key: public.digest,
        params: public.stated.params,
        base: opened.base_digest()?,
        tensors: opened.tensors(options.statistics_clip.is_some(), false),
        clip: options.clip,
        statistics_clip: options.statistics_clip,
        weights: options.weights,
        min_clients: options.min_clients.unwrap_or((clients.len() / 2).max(2)),
        clients,
    };
    terms.check().map_err(|why| SecureError::terms("round", why))?;
    let text = SignedText::sign(&terms, Stage::HeOpen, server)?;
    let round = Round::of(&text).map_err(SecureError::file(path))?;
    make_folder_of(path).map_err(SecureError::io(path))?;
    text.publish(path)?;
    Ok(round)
}
