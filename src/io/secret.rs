//! Small files that only their owner may read, and that are wiped after use.

use crate::io::crash;
use crate::io::digest::{Blake3, seal};
use crate::io::publish::{Staged, remove_leftovers, sync_directory_of};
use crate::io::source;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Once;
use zeroize::Zeroize;

/// The most bytes of a secret: keys and their digests have fewer.
const MOST_BYTES: u64 = 1 << 12;

/// Zeros written at a time.
const ZEROS: usize = 1 << 14;

/// Writes a secret, and waits until it is on disk.
///
/// # Errors
///
/// When it cannot be written.
pub fn write(path: &Path, secret: &[u8]) -> io::Result<()> {
    hide_memory();
    remove_leftovers(path)?;
    let staged = Staged::create_secret(path, secret.len() as u64)?;
    staged.write_at(secret, 0)?;
    staged.sync()?;
    staged.publish(path)?;
    sync_directory_of(path)
}

/// Keeps the memory of this process, which holds a secret from now on, out of core dumps and from other processes of its
/// user.
pub fn hide_memory() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let maximum = getrlimit(Resource::Core).maximum;
        let limited = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum });
        let hidden = set_dumpable_behavior(DumpableBehavior::NotDumpable);
        if let Err(why) = limited.and(hidden) {
            tracing::warn!("a crash may write the keys of this process to disk: {why}");
        }
    });
}

/// The secret in a file; `None` if the file is missing or was being wiped.
///
/// # Errors
///
/// When it cannot be read, or is not of this size.
pub fn read<const BYTES: usize>(path: &Path) -> io::Result<Option<[u8; BYTES]>> {
    let Some(bytes) = kept(path)? else { return Ok(None) };
    let found = bytes.len();
    let expected = move |_| io::Error::other(format!("found {found} bytes, expected {BYTES}"));
    bytes.try_into().map(Some).map_err(expected)
}

/// Writes a key as [`write()`] does, and behind it a digest that finds damage.
///
/// # Errors
///
/// When it cannot be written.
pub fn write_key<const BYTES: usize>(path: &Path, key: &[u8; BYTES]) -> io::Result<()> {
    let mut bytes = [key.as_slice(), &digest_of(key)].concat();
    let written = write(path, &bytes);
    bytes.zeroize();
    written
}

/// The key that [`write_key`] wrote; `None` if the file is missing or was being wiped. Warns of a key without a digest.
///
/// # Errors
///
/// When it cannot be read, is not of this size, or does not have its digest.
pub fn read_key<const BYTES: usize>(path: &Path) -> io::Result<Option<[u8; BYTES]>> {
    let Some(mut bytes) = kept(path)? else { return Ok(None) };
    let found = bytes.len();
    let key =
        bytes.first_chunk::<BYTES>().copied().filter(|_| [BYTES, BYTES + DIGEST_BYTES].contains(&found));
    let expected = format!("found {found} bytes, expected {BYTES} and a digest");
    let key = key.ok_or_else(|| io::Error::other(expected))?;
    let is_sound = bytes[BYTES..] == digest_of(&key) || found == BYTES;
    bytes.zeroize();
    if !is_sound {
        return Err(io::Error::other("file was damaged or changed: the key does not have its digest"));
    }
    if found == BYTES {
        seal::warn_of_unsealed(&[path]);
    }
    Ok(Some(key))
}

/// Bytes of the digest of a key.
const DIGEST_BYTES: usize = 32;

/// A digest of a key, which differs from all that the key is used for.
fn digest_of(key: &[u8]) -> [u8; DIGEST_BYTES] {
    Blake3::of_bytes(&[b"fedmill digest of a kept key", key].concat())
}

/// Whether there is a secret in a file.
///
/// # Errors
///
/// When it cannot be read.
pub fn is_kept(path: &Path) -> io::Result<bool> {
    let bytes = kept(path)?;
    Ok(bytes.map(|mut bytes| bytes.zeroize()).is_some())
}

fn kept(path: &Path) -> io::Result<Option<Vec<u8>>> {
    hide_memory();
    let bytes = match source::read_at_most(path, MOST_BYTES) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read?,
    };
    // An interrupted wipe leaves zeros: a key that any reader knows.
    let is_wiped = !bytes.is_empty() && bytes.iter().all(|byte| *byte == 0);
    Ok((!is_wiped).then_some(bytes))
}

/// Overwrites a secret with zeros and removes it, if it exists. A disk may still keep copies.
///
/// # Errors
///
/// When it cannot be wiped.
pub fn wipe(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path).is_ok_and(|meta| !meta.is_file()) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let file = match File::options().write(true).open(path) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let bytes = usize::try_from(file.metadata()?.len()).unwrap_or(0);
    crash::before_step();
    for start in (0..bytes).step_by(ZEROS) {
        file.write_all_at(&[0; ZEROS][..ZEROS.min(bytes - start)], start as u64)?;
    }
    file.sync_all()?;
    crash::before_step();
    fs::remove_file(path)?;
    sync_directory_of(path)
}

/// Wipes the secrets of a directory named `PREFIX-N`, except for the numbers that `keeps` accepts.
///
/// # Errors
///
/// When one cannot be wiped.
pub fn wipe_numbered(directory: &Path, prefix: &str, keep: impl Fn(u64) -> bool) -> io::Result<()> {
    let numbers = numbers(directory, prefix)?.into_iter().filter(|number| !keep(*number));
    numbers.into_iter().try_for_each(|number| wipe(&directory.join(format!("{prefix}-{number}"))))
}

/// The numbers of the files of a directory named `PREFIX-N`.
///
/// # Errors
///
/// When the directory cannot be listed.
pub fn numbers(directory: &Path, prefix: &str) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        numbers
            .extend(name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('-')?.parse::<u64>().ok()));
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn numbered_secrets_are_wiped_but_for_some() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["row-1", "row-2", "row-30", "row-x", "rows-1", "key-1"] {
            write(&directory.path().join(name), &[1; 40_000]).unwrap();
        }
        wipe_numbered(directory.path(), "row", |number| number == 2).unwrap();
        let names = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, ["key-1", "row-2", "row-x", "rows-1"]);
    }

    #[test]
    fn a_secret_is_kept_and_wiped() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        assert_eq!(read::<3>(&path).unwrap(), None);
        write(&path, &[1, 2, 3]).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read(&path).unwrap(), Some([1, 2, 3]));
        assert!(read::<4>(&path).is_err());
        let held = File::open(&path).unwrap();
        wipe(&path).unwrap();
        assert!(!path.exists());
        let mut left = [9; 3];
        held.read_exact_at(&mut left, 0).unwrap();
        assert_eq!(left, [0; 3], "the disk holds zeros");
        wipe(&path).unwrap();
    }

    #[test]
    fn damage_to_a_key_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        assert_eq!(read_key::<3>(&path).unwrap(), None);
        write_key(&path, &[1, 2, 3]).unwrap();
        assert_eq!(read_key(&path).unwrap(), Some([1, 2, 3]));
        assert!(read_key::<4>(&path).is_err());
        let sound = fs::read(&path).unwrap();
        for at in 0..sound.len() {
            let mut damaged = sound.clone();
            damaged[at] ^= 1;
            fs::write(&path, damaged).unwrap();
            assert!(read_key::<3>(&path).is_err(), "{at}");
        }
        fs::write(&path, &sound[..30]).unwrap();
        assert!(read_key::<3>(&path).is_err());
        fs::write(&path, &sound[..3]).unwrap();
        assert_eq!(read_key(&path).unwrap(), Some([1, 2, 3]), "of an earlier version");
    }

    #[test]
    fn what_was_zeroed_and_not_removed_is_no_secret() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        assert!(!is_kept(&path).unwrap());
        write(&path, &[0, 0, 3]).unwrap();
        assert!(is_kept(&path).unwrap());
        fs::write(&path, [0; 3]).unwrap();
        assert_eq!(read::<3>(&path).unwrap(), None);
        assert!(!is_kept(&path).unwrap());
        wipe(&path).unwrap();
        assert!(!path.exists());
    }
}
