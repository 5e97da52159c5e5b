//! `fedmill he params`: chooses the numbers of the scheme.

use super::super::{Common, Failure, OUTPUT, Outcome, print, print_path};
use crate::io::publish::stage;
use crate::modes::he::params::{DEFAULT_BITS, DEGREE, FRESH_NOISE, Params};
use crate::parties::error::SecureError;
use crate::telemetry::console;
use clap::Args;
use std::path::PathBuf;

/// Choose the numbers of the scheme for a cohort.
///
/// 128 bits of security; sums of N clients decrypt for certain. Prints the path of the file, or the numbers themselves without
/// -o.
#[derive(Args, Debug)]
#[command(next_help_heading = "Terms")]
pub(in crate::cli) struct Arguments {
    /// The most clients of a sum.
    #[arg(long, value_name = "N")]
    clients: u64,
    /// The bits of a value, sign included: fewer make smaller files and a coarser grid.
    #[arg(long, value_name = "B", default_value_t = DEFAULT_BITS)]
    qbits: u32,
    /// Write the numbers to this path.
    #[arg(long, short, value_name = "FILE", help_heading = OUTPUT)]
    output: Option<PathBuf>,
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        let params = Params::new(self.clients, self.qbits).map_err(|why| anyhow::anyhow!("{why}"))?;
        if !common.quiet {
            tell(&params);
        }
        let json = format!("{}\n", serde_json::to_string(&params)?);
        let Some(path) = &self.output else {
            print(&json)?;
            return Ok(Outcome::Done);
        };
        let staged = stage(path, json.as_bytes());
        let written = staged.and_then(|staged| staged.publish_on_disk(path));
        written.map_err(|why| Failure::of(SecureError::io(path)(why)))?;
        print_path(path);
        Ok(Outcome::Done)
    }
}

/// Prints the numbers, as people compare them.
fn tell(params: &Params) {
    let (clients, most) = (params.clients, params.most_clients_by_noise());
    console::tell(&format!(
        "N = {DEGREE}, log2 q = {}: 128 bits of security; t = {}, noise of a client at most {FRESH_NOISE}, of at most {most} clients",
        params.modulus_bits(),
        params.plaintext_modulus,
    ));
    console::tell(&format!(
        "{clients} clients, {} levels, {} values in a coefficient: {:.2} bytes per value; secagg has 4",
        params.levels,
        params.per_coefficient,
        params.bytes_per_value(),
    ));
}
