//! `fedmill round init`: makes the state directory of a federation.

use super::super::{Common, Failure, INPUTS, Outcome, print};
use super::directory::hardware;
use crate::io::{folder, publish};
use crate::round::config::{Config, template};
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
    /// The first model, which clients of round 1 start from.
    #[arg(long, value_name = "MODEL")]
    model: PathBuf,
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        if !folder::is_folder(&self.directory) {
            publish::make_directory(&self.directory)?;
        }
        let mut server =
            Server::open(&self.directory, &Config::default(), hardware(common)?).map_err(Failure::of)?;
        server.check_model(&self.model).map_err(Failure::of)?;
        let config = self.directory.join(layout::CONFIG);
        if !folder::exists(&config) {
            folder::write_file(&config, template().as_bytes(), false)?;
        }
        publish::copy_to(&self.model, &self.directory.join(IMPORTED))?;
        init::run(&mut server, &self.directory, IMPORTED).map_err(Failure::of)?;
        print(&format!("{}\n", self.directory.display()))?;
        Ok(Outcome::Done)
    }
}

/// The name of the first model before it gets that of its digest.
const IMPORTED: &str = "initial.safetensors";
