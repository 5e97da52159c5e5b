//! `fedmill secagg keygen`: makes the keys of a party.

use super::super::{Common, Failure, OUTPUT, Outcome, print_path};
use super::party::PARTY;
use crate::io::folder;
use crate::io::publish::stage;
use crate::io::secret;
use crate::parties::envelope::Suite;
use crate::parties::identity::Identity;
use crate::parties::identity::check_id;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Make the keys of a server, a client or a helper.
///
/// Writes the secret key to FILE, which only you may read, and the public key to FILE.pub. Prints the path of the public
/// key: give it to the other parties by a way on which the server cannot change it.
#[derive(Args, Debug)]
#[command(next_help_heading = PARTY)]
pub(in crate::cli) struct Arguments {
    /// Your name: letters, digits, `.`, `_` and `-`. Files are named by it.
    #[arg(long, value_name = "ID", value_parser = parse_id)]
    id: String,
    /// How clients seal seeds for you, if you are a helper: x25519, or x-wing, which a quantum computer does not break.
    #[arg(long, value_name = "SUITE", default_value = "x25519", hide_possible_values = true)]
    suite: SuiteOption,
    /// Write the secret key to this path.
    #[arg(long, short, value_name = "FILE", help_heading = OUTPUT)]
    output: PathBuf,
}

/// The key exchange of envelopes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum SuiteOption {
    X25519,
    XWing,
}

impl From<SuiteOption> for Suite {
    fn from(option: SuiteOption) -> Self {
        match option {
            SuiteOption::X25519 => Self::X25519,
            SuiteOption::XWing => Self::XWing,
        }
    }
}

fn parse_id(text: &str) -> Result<String, String> {
    check_id(text).map(|()| text.to_owned())
}

impl Arguments {
    pub(super) fn run(&self, _: &Common) -> Result<Outcome, Failure> {
        let mut public = self.output.as_os_str().to_owned();
        public.push(".pub");
        let public = PathBuf::from(public);
        if let Some(path) = [&self.output, &public].into_iter().find(|path| folder::exists(path)) {
            let why = anyhow::anyhow!("{}: is there already, and keys are never replaced", path.display());
            return Err(why.into());
        }
        let identity = Identity::new()?;
        let at = |path: &PathBuf| {
            let path = path.display().to_string();
            move |why: std::io::Error| anyhow::anyhow!("{path}: {why}")
        };
        let text = format!("{}\n", serde_json::to_string(&identity.public(&self.id, self.suite.into()))?);
        let staged = stage(&public, text.as_bytes()).map_err(at(&public))?;
        secret::write_key(&self.output, identity.secret()).map_err(at(&self.output))?;
        staged.publish_on_disk(&public).map_err(at(&public))?;
        print_path(&public);
        Ok(Outcome::Done)
    }
}
