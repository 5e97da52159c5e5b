//! Options that say who runs a command of secure aggregation, and in which session.

use super::super::{Common, Failure, INPUTS};
use crate::engine::backend::request::BackendName;
use crate::engine::passes::error::PassError;
use crate::engine::passes::gpu_ring::GpuRing;
use crate::engine::passes::machine::Machine;
use crate::gpu::Gpu;
use crate::io::secret;
use crate::modes::secure::folder::SessionFolder;
use crate::parties::error::SecureError;
use crate::parties::identity::Identity;
use crate::settings::shard::Shard;
use crate::telemetry::progress::Progress;
use clap::Args;
use rayon::ThreadPool;
use std::path::{Path, PathBuf};

/// The group of options that say who runs the command.
pub(in crate::cli) const PARTY: &str = "Party";

/// The folder of a session.
#[derive(Args, Debug)]
pub(super) struct SessionOption {
    /// The folder of the session, which all parties share.
    #[arg(value_name = "SESSION", help_heading = INPUTS)]
    session: PathBuf,
}

/// The key of the party that runs the command.
#[derive(Args, Debug)]
#[command(next_help_heading = PARTY)]
pub(super) struct KeyOption {
    /// The secret key that `keygen` wrote for you.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

/// The key and the journal of the party that runs the command.
#[derive(Args, Debug)]
#[command(next_help_heading = PARTY)]
pub(super) struct PartyOptions {
    #[command(flatten)]
    key: KeyOption,
    /// The folder in which you remember what you did in each session [default: the key's path with `.journal`].
    ///
    /// It keeps you from masking two updates, freezing two sets, or answering twice in one session. Never restore an
    /// older copy of it.
    #[arg(long, value_name = "DIR")]
    journal: Option<PathBuf>,
}

/// One machine of several that make a message together.
#[derive(Args, Debug)]
#[command(next_help_heading = PARTY)]
pub(super) struct PartsOptions {
    /// Compute this shard alone, on one of several machines: number I of S shards, counted from 1.
    #[arg(long, value_name = "I/S", requires = "parts")]
    shard: Option<Shard>,
    /// The folder of parts, which your machines share, and no other party: with --shard, write a part; without, join the
    /// parts of all shards.
    #[arg(long, value_name = "DIR")]
    parts: Option<PathBuf>,
}

impl PartsOptions {
    /// The folder of parts, and the shard to compute; `None` for a machine that does all alone.
    pub(super) fn get(&self) -> Option<(&Path, Option<Shard>)> {
        self.parts.as_deref().map(|parts| (parts, self.shard))
    }
}

impl SessionOption {
    pub(super) fn folder(&self) -> SessionFolder {
        SessionFolder::new(&self.session)
    }
}

impl KeyOption {
    pub(super) fn identity(&self) -> Result<Identity, Failure> {
        read_identity(&self.key)
    }
}

impl PartyOptions {
    pub(super) fn identity(&self) -> Result<Identity, Failure> {
        self.key.identity()
    }

    pub(super) fn journal(&self) -> PathBuf {
        self.journal.clone().unwrap_or_else(|| journal_beside(&self.key.key))
    }
}

/// The identity in the file of a secret key.
pub(in crate::cli) fn read_identity(key: &Path) -> Result<Identity, Failure> {
    let path = key.display();
    let is_public = key.extension().is_some_and(|ending| ending == "pub");
    let found = |why: std::io::Error| match is_public {
        true => anyhow::anyhow!("{path}: found a public key, expected the secret key: the file without .pub"),
        false => anyhow::anyhow!("{path}: {why}"),
    };
    let read = secret::read_key(key).map_err(found)?;
    let missing = || Failure {
        hint: Some("fedmill secagg keygen --id NAME -o FILE".to_owned()),
        ..Failure::from(anyhow::anyhow!("{path}: is not there, expected a secret key"))
    };
    read.map(Identity::of).ok_or_else(missing)
}

/// The folder of a journal, unless the user names one: beside the secret key.
pub(in crate::cli) fn journal_beside(key: &Path) -> PathBuf {
    let mut name = key.as_os_str().to_owned();
    name.push(".journal");
    name.into()
}

/// The machine of a command, with the GPU that `--backend gpu` asks for. A GPU that fails ends the command.
pub(super) fn machine<'m>(
    common: &Common,
    pool: &'m ThreadPool,
    progress: &'m Progress,
) -> Result<Machine<'m>, Failure> {
    let machine = common.machine(pool, progress);
    match common.backend_name() {
        BackendName::Cpu => {}
        BackendName::Auto => {
            tracing::info!("secagg runs on the CPU; --backend gpu computes masks and sums on a GPU");
        }
        BackendName::Gpu => {
            let ring = Gpu::open(&common.gpu_options());
            let ring = ring.and_then(|gpu| GpuRing::new(gpu, machine.threads(), false));
            machine.use_gpu(ring.map_err(|why| Failure::of(SecureError::from(PassError::from(why))))?);
        }
    }
    Ok(machine)
}
