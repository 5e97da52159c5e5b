//! Who may read a file that is kept from other accounts: its copies let in no more.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// The bit of a mode that lets all other accounts read.
const OTHERS_READ: u32 = 0o004;

/// The bit of a mode that lets the group read.
const GROUP_READS: u32 = 0o040;

/// The readers of a file that other accounts may not read: its owner, and a group if there is one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Readers {
    /// The group that may read the file.
    pub group: Option<u32>,
}

impl Readers {
    /// The owner alone.
    pub const OWNER: Self = Self { group: None };

    /// The readers of a file; `None` for a file that all accounts may read, and where there is no file.
    pub fn of(path: &Path) -> Option<Self> {
        let meta = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
        let mode = meta.permissions().mode();
        let group = (mode & GROUP_READS != 0).then(|| meta.gid());
        (mode & OTHERS_READ == 0).then_some(Self { group })
    }

    /// The readers of both of two files; `None` where all accounts may read both.
    pub fn of_both(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        match (one, other) {
            (Some(one), Some(other)) if one != other => Some(Self::OWNER),
            _ => one.or(other),
        }
    }
}
