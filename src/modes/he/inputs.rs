//! The files of clients: encrypted updates, named by their senders, each signed for this round.

use crate::engine::passes::machine::Machine;
use crate::io::folder::{EntryKind, entries, is_folder};
use crate::modes::he::round::Round;
use crate::parties::error::SecureError;
use crate::parties::fault::LeftOutClient;
use crate::parties::fault::MessageFault;
use crate::parties::identity::Stage;
use crate::parties::signed_lanes::{LanesFile, LanesReader};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The ending of encrypted updates.
pub const ENDING: &str = ".he";

/// The file of one client, whose signature is verified.
#[derive(Debug)]
pub struct Input {
    /// The client.
    pub client: String,
    /// Its place among the eligible clients.
    pub place: usize,
    /// Its file.
    pub file: LanesFile,
}

/// The files that paths name: themselves, and files in folders that end in `.he`.
///
/// # Errors
///
/// When a folder cannot be listed.
pub fn find(paths: &[PathBuf]) -> Result<Vec<PathBuf>, SecureError> {
    let mut found = Vec::new();
    for path in paths {
        if !is_folder(path) {
            found.push(path.clone());
            continue;
        }
        let listed = entries(path).map_err(SecureError::io(path))?;
        let files =
            listed.into_iter().filter(|(name, kind)| *kind == EntryKind::File && name.ends_with(ENDING));
        found.extend(files.map(|(name, _)| path.join(name)));
    }
    Ok(found)
}

/// Opens the file of a client: of the sender that its name names.
///
/// # Errors
///
/// Why it is no message of an eligible client.
pub fn open(round: &Round, reader: &LanesReader, path: &Path) -> Result<Input, LeftOutClient> {
    let name: String = path.file_name().unwrap_or_default().to_string_lossy().chars().take(200).collect();
    let Some(client) = name.strip_suffix(ENDING) else {
        let fault = MessageFault::Misnamed(name.clone(), format!("CLIENT{ENDING}"));
        return Err(LeftOutClient { client: name, fault });
    };
    let left_out = |fault| LeftOutClient { client: client.to_owned(), fault };
    let place = round.place_of(client);
    let place =
        place.ok_or_else(|| left_out(MessageFault::UnknownSender(client.to_owned(), "client".to_owned())))?;
    let key = &round.terms.clients[place].ed25519;
    let statement = round.statement(Stage::HeEncrypt, client);
    let file = reader.open(path, &statement, round.update_shape(), key).map_err(left_out)?;
    Ok(Input { client: client.to_owned(), place, file })
}

/// Opens the files of clients. Returns the sound ones in order of id, and those who are left out. A client with two
/// different files is left out.
pub fn open_all(round: &Round, paths: &[PathBuf], machine: &Machine) -> (Vec<Input>, Vec<LeftOutClient>) {
    let reader = LanesReader::default();
    let opened: Vec<_> =
        machine.pool.install(|| paths.par_iter().map(|path| open(round, &reader, path)).collect());
    let (mut sound, mut left_out) = (BTreeMap::<usize, Vec<Input>>::new(), Vec::new());
    for one in opened {
        match one {
            Ok(input) => sound.entry(input.place).or_default().push(input),
            Err(fault) => left_out.push(fault),
        }
    }
    let mut inputs = Vec::new();
    for mut same in sound.into_values() {
        let first = same.swap_remove(0);
        if same.iter().all(|other| other.file.digest() == first.file.digest()) {
            inputs.push(first);
        } else {
            let fault =
                MessageFault::Format("found two different files of this client, expected one".to_owned());
            left_out.push(LeftOutClient { client: first.client, fault });
        }
    }
    (inputs, left_out)
}
