//! Adds up the encrypted updates: the server needs the terms of the round, no key of the scheme.
//!
//! One pass reads every file once. A client whose ciphertexts are not those that it signed is left out, and the pass runs
//! again.

use crate::engine::passes::machine::Machine;
use crate::io::folder::make_folder_of;
use crate::modes::he::adding::add_up;
use crate::modes::he::inputs::{self, Input};
use crate::modes::he::round::Round;
use crate::parties::error::SecureError;
use crate::parties::fault::LeftOutClient;
use crate::parties::identity::{Identity, Stage};
use crate::parties::signed_lanes::LanesWriter;
use std::path::{Path, PathBuf};

/// A sum that was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Added {
    /// The clients in it.
    pub clients: Vec<String>,
    /// Those who are left out.
    pub left_out: Vec<LeftOutClient>,
}

/// Adds up the encrypted updates in files and folders, signs the sum and writes it.
///
/// # Errors
///
/// When the identity is not the server's, too few clients are left, or the sum cannot be written.
pub fn run(
    round: &Path,
    paths: &[PathBuf],
    identity: &Identity,
    output: &Path,
    machine: &Machine,
) -> Result<Added, SecureError> {
    let round = Round::read(round)?;
    Round::check_role("server", &round.terms.server, identity)?;
    let (mut inputs, mut left_out) = inputs::open_all(&round, &inputs::find(paths)?, machine);
    make_folder_of(output).map_err(SecureError::io(output))?;
    let statement = round.statement(Stage::HeAdd, &round.terms.server.id);
    loop {
        check_quorum(&round, &inputs, &left_out)?;
        let mut writer = LanesWriter::create(output, &statement, round.sum_shape())?;
        let bad = add_up(&round, &inputs, machine, &mut |words| writer.append(words))?;
        if bad.is_empty() {
            writer.publish(&members(&round, &inputs), identity)?;
            let clients = inputs.into_iter().map(|input| input.client).collect();
            return Ok(Added { clients, left_out });
        }
        inputs.retain(|input| bad.iter().all(|one| one.client != input.client));
        left_out.extend(bad);
    }
}

/// The digests of the clients' files in the order of eligible clients; zeros for those that are not in the sum.
pub fn members(round: &Round, inputs: &[Input]) -> Vec<u8> {
    let mut digests = vec![[0; 32]; round.terms.clients.len()];
    for input in inputs {
        digests[input.place] = input.file.digest().0;
    }
    digests.concat()
}

fn check_quorum(round: &Round, inputs: &[Input], left_out: &[LeftOutClient]) -> Result<(), SecureError> {
    let (found, least) = (inputs.len(), round.terms.min_clients);
    if found >= least {
        return Ok(());
    }
    let mut why = format!("{found} sound encrypted updates, expected at least {least}");
    if let Some(first) = left_out.first() {
        why = format!("{why}; {} left out, such as {}: {}", left_out.len(), first.client, first.fault);
    }
    Err(SecureError::refused(why, Some("wait for more clients")))
}
