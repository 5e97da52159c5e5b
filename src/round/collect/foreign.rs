//! What lies in the inbox and is no update: when it goes to quarantine, and why.

use crate::round::error::RoundError;
use crate::round::layout;
use crate::round::state::round_folders;
use crate::round::world::{Entry, Files};

/// Endings of files that a program still writes.
const TEMPORARY: [&str; 4] = [".tmp", ".partial", ".part", ".filepart"];

/// Whether a file has the name that a program gives it until it is whole: hidden, as rsync does, or with such an ending.
fn is_temporary(name: &str) -> bool {
    name.starts_with('.') || TEMPORARY.iter().any(|ending| name.ends_with(ending))
}

/// Why an entry of an inbox is no update; `None` if its name is that of one, or if it may still become one. `is_open`
/// says that the round of the inbox still collects, or closes now.
pub fn why_no_update(entry: &Entry, is_open: bool) -> Option<String> {
    match &entry.name {
        _ if entry.is_folder => Some(format!("is a folder, expected CLIENT{}", layout::MODEL_ENDING)),
        name if is_temporary(name) && is_open => None,
        name if is_temporary(name) => {
            Some("is hidden or has the name of a transfer, which never came to its end".to_owned())
        }
        name if layout::client_of(name).is_none() => {
            Some(format!("is no update, expected CLIENT{}", layout::MODEL_ENDING))
        }
        _ => None,
    }
}

/// All entries of the inboxes of a round and the rounds before, hidden ones too, each with its round.
///
/// # Errors
///
/// When a folder cannot be listed.
pub fn entries(files: &(impl Files + ?Sized), round: u64) -> Result<Vec<(u64, Entry)>, RoundError> {
    let mut found = Vec::new();
    for own in round_folders(files, layout::INBOX)?.into_iter().filter(|own| *own <= round) {
        found.extend(all(files, &layout::inbox(own))?.into_iter().map(|entry| (own, entry)));
    }
    Ok(found)
}

fn all(files: &(impl Files + ?Sized), folder: &str) -> Result<Vec<Entry>, RoundError> {
    let (shown, hidden) = (files.list(folder), files.hidden(folder));
    let mut all = shown.map_err(RoundError::reading(folder))?;
    all.extend(hidden.map_err(RoundError::reading(folder))?);
    Ok(all)
}

/// Gives what lies in the inboxes of a round and the rounds before names that paths can hold.
///
/// # Errors
///
/// When a folder cannot be listed, or an entry cannot be renamed.
pub fn name_plainly(files: &mut impl Files, round: u64) -> Result<(), RoundError> {
    for own in round_folders(files, layout::INBOX)?.into_iter().filter(|own| *own <= round) {
        let folder = layout::inbox(own);
        files.name_plainly(&folder).map_err(RoundError::writing(&folder))?;
    }
    Ok(())
}

/// Paths of entries in the inbox that no round takes: beside the folders of rounds that opened, and folders that could
/// not be moved.
///
/// # Errors
///
/// When a folder cannot be listed.
pub fn left(files: &(impl Files + ?Sized), round: u64) -> Result<Vec<String>, RoundError> {
    let is_round =
        |entry: &Entry| entry.is_folder && layout::round_of(&entry.name).is_some_and(|own| own <= round);
    let beside = all(files, layout::INBOX)?.into_iter().filter(|entry| !is_round(entry));
    let beside = beside.map(|entry| format!("{}/{}", layout::INBOX, entry.name));
    let folders = entries(files, round)?.into_iter().filter(|(_, entry)| entry.is_folder);
    Ok(beside.chain(folders.map(|(own, entry)| format!("{}/{}", layout::inbox(own), entry.name))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_transfers_stay_until_their_round_is_over() {
        let why = |name: &str, is_folder, is_open| {
            why_no_update(&Entry { name: name.to_owned(), is_folder }, is_open)
        };
        for name in [".c1.safetensors.Xa81", "c1.safetensors.tmp", "c1.partial", "c1.safetensors.filepart"] {
            assert_eq!(why(name, false, true), None, "{name}");
            assert!(why(name, false, false).unwrap().contains("transfer"), "{name}");
        }
        assert!(why("notes.txt", false, true).unwrap().starts_with("is no update"));
        assert!(why("c1.safetensors", true, true).unwrap().starts_with("is a folder"));
        assert_eq!(why("c1.safetensors", false, true), None);
    }
}
