//! `fedmill round init`: makes the state directory of a federation.

use super::super::{Common, Failure, INPUTS, Outcome, print_path};
use super::directory::{config, hardware};
use crate::config::{Config, template};
use crate::io::folder::readers::Readers;
use crate::io::{folder, publish};
use crate::round::server::Server;
use crate::round::{init, layout};
use clap::Args;
use std::path::PathBuf;

/// Make the state directory of a federation.
///
/// Prints its path. Writes fedmill.toml with all settings as comments, unless the file exists.
#[derive(Args, Debug)]
#[command(next_help_heading = INPUTS)]
pub(in crate::cli) struct Arguments {
    /// The state directory. The command creates it if it does not exist.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// The first model, which clients of round 1 start from [default: model.initial in fedmill.toml].
    #[arg(long, value_name = "MODEL")]
    model: Option<PathBuf>,
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        if !folder::is_folder(&self.directory) {
            publish::make_directory(&self.directory)?;
        }
        let path = self.directory.join(layout::CONFIG);
        // Other settings than those of a federation that exists would merge its open round by another rule.
        let has_rounds = folder::is_folder(&self.directory.join(layout::ROUNDS));
        if !folder::exists(&path) && !has_rounds {
            folder::write_file(&path, template(random_seed()?).as_bytes(), Some(Readers::OWNER))?;
        }
        let config = config(&self.directory)?;
        let model = self.model(&config)?;
        let mut server = Server::open(&self.directory, &config, hardware(common)?).map_err(Failure::of)?;
        init::check_new(&server, &self.directory).map_err(Failure::of)?;
        server.check_model(&model).map_err(Failure::of)?;
        publish::copy_to(&model, &self.directory.join(IMPORTED))?;
        init::run(&mut server, &self.directory, IMPORTED).map_err(Failure::of)?;
        print_path(&self.directory);
        Ok(Outcome::Done)
    }

    /// The path of the first model.
    fn model(&self, config: &Config) -> Result<PathBuf, Failure> {
        let named = config.model.initial.as_ref().map(|path| self.directory.join(path));
        let missing = || anyhow::anyhow!("the first model is missing, expected --model MODEL");
        Ok(self.model.clone().or(named).ok_or_else(missing)?)
    }
}

/// A seed that no client can guess: who is selected must not be known ahead.
fn random_seed() -> Result<u64, Failure> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|why| anyhow::anyhow!("no random seed: {why}"))?;
    // TOML has signed numbers.
    Ok(u64::from_le_bytes(bytes) >> 1)
}

/// The name of the first model before it gets that of its digest.
const IMPORTED: &str = "initial.safetensors";
