//! `fedmill clients add`: registers a client.

use super::super::{Common, Failure, INPUTS, Outcome};
use super::import::register;
use super::state::StateDirectory;
use crate::fleet::import::{Format, ImportRequest, PartyKey};
use crate::parties::identity::read_identities;
use clap::Args;
use jiff::Timestamp;
use std::path::PathBuf;

/// Register a client.
///
/// Makes the registry if there is none. The file is a JSON object with node_id, compute_capability, data_size,
/// connection_quality and privacy_requirements (epsilon, secure_aggregation, min_secagg_threshold), and where known
/// memory, bandwidth, tier, public_key and last_update.
#[derive(Args, Debug)]
#[command(next_help_heading = INPUTS)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    state: StateDirectory,
    /// The client as JSON. `-` is standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Give a client that is registered the new values. It keeps its history; a retired one comes back.
    #[arg(long)]
    update: bool,
    /// The client's public key, which it made by `secagg keygen`: rounds of secure aggregation need it.
    #[arg(long, value_name = "PUB")]
    key: Option<PathBuf>,
}

impl Arguments {
    pub(super) fn run(&self, _: &Common) -> Result<Outcome, Failure> {
        let keys = self.key.as_ref().map(|path| read_identities(std::slice::from_ref(path)));
        let keys = keys.transpose().map_err(Failure::of)?.unwrap_or_default();
        if keys.len() > 1 {
            return Err(anyhow::anyhow!("--key: found {} public keys, expected one", keys.len()).into());
        }
        let key = keys.into_iter().next();
        let key = key.map(|key| PartyKey { id: key.id, ed25519: key.ed25519.to_string() });
        let request = ImportRequest {
            path: &self.file,
            format: Format::Json,
            update: self.update,
            skip_bad: false,
            now: Timestamp::now(),
            key: key.as_ref(),
        };
        register(&self.state, &request, true)
    }
}
