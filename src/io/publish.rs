//! Makes whole files appear at once: writes a temporary, flushes it, renames it.
//!
//! A temporary stands beside its target as `.TARGET.PID-N.fedmill-tmp`, locked while its writer lives. A writer that
//! fails or is interrupted removes it. The next run with the same target removes the temporary of a killed writer:
//! [`leftovers`] finds it. [`turn`] keeps the outputs of two runs apart.

pub mod leftovers;
pub mod turn;

pub use leftovers::{claim, leftovers_in, remove_leftovers};

use crate::io::crash;
use crate::io::interrupt::{self, Section};
use crate::io::source;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

/// Ending of every temporary file.
pub const TEMPORARY_SUFFIX: &str = ".fedmill-tmp";

/// A file that is being written and has no name yet.
#[derive(Debug)]
pub struct Staged {
    file: File,
    path: PathBuf,
    published: bool,
    /// Whether a file that it replaces keeps its mode: the operator may have chosen it.
    keeps_mode: bool,
}

/// The names that an output has on its way to its final one.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct StagedNames {
    /// The name while its run writes it.
    pub temporary: PathBuf,
    /// The name that [`Staged::keep`] gives it.
    pub kept: PathBuf,
    /// The final name.
    pub target: PathBuf,
}

impl StagedNames {
    /// The file, if it has a temporary name and no living run writes it.
    pub fn waiting(&self) -> Option<&Path> {
        [&self.temporary, &self.kept].into_iter().map(PathBuf::as_path).find(|path| leftovers::is_free(path))
    }

    /// Whether the file was kept, or has its final name.
    pub fn is_kept(&self) -> bool {
        self.kept.exists() || self.target.exists()
    }

    /// Whether the file has one of its temporary names.
    pub fn is_waiting(&self) -> bool {
        self.temporary.exists() || self.kept.exists()
    }

    /// The path of the complete file: its name while it waits, or its final one.
    pub fn complete(&self) -> &Path {
        if self.kept.exists() { &self.kept } else { &self.target }
    }

    /// The names that the file has after its directory was renamed to that of `target`.
    #[must_use]
    pub fn moved_to(&self, target: &Path) -> Self {
        let moved = |path: &Path| target.with_file_name(path.file_name().unwrap_or_default());
        Self { temporary: moved(&self.temporary), kept: moved(&self.kept), target: moved(&self.target) }
    }
}

/// Whether a path is below `/dev` or `/proc` and not in `/dev/shm`. Links to its folder are followed.
pub(super) fn is_below_devices(path: &Path) -> bool {
    let whole = resolved(path);
    let is_below = |root: &str| whole.starts_with(root);
    (is_below("/dev") && !is_below("/dev/shm")) || is_below("/proc")
}

impl Staged {
    /// Starts a file of `bytes` bytes beside `target`, and reserves its space if the file system can.
    ///
    /// # Errors
    ///
    /// When the directory does not exist or cannot be written, or the disk has no room.
    pub fn create(target: &Path, bytes: u64) -> io::Result<Self> {
        Self::create_with(target, bytes, 0o666, true)
    }

    /// Starts a file as [`create`](Self::create) does, readable by its owner alone. A file that it replaces keeps its
    /// mode.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    pub fn create_private(target: &Path, bytes: u64) -> io::Result<Self> {
        Self::create_with(target, bytes, 0o600, true)
    }

    /// Starts a file as [`create`](Self::create) does, readable by its owner alone, whatever file it replaces.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    pub fn create_secret(target: &Path, bytes: u64) -> io::Result<Self> {
        Self::create_with(target, bytes, 0o600, false)
    }

    fn create_with(target: &Path, bytes: u64, mode: u32, keeps_mode: bool) -> io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if is_below_devices(target) {
            return Err(io::Error::other(
                "fedmill replaces no file below /dev or /proc, expected another folder",
            ));
        }
        loop {
            let unique = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
            let path = target.with_file_name(temporary_name(target, &unique));
            let open = || File::options().read(true).write(true).create_new(true).mode(mode).open(&path);
            let file = match interrupt::with_temporary(&path, open) {
                Err(why) if why.kind() == io::ErrorKind::AlreadyExists => continue,
                opened => opened?,
            };
            let staged = Self { file, path, published: false, keeps_mode };
            staged.lock()?;
            // Another run may have removed the file as a leftover before it was locked.
            if staged.file.metadata()?.nlink() > 0 {
                // Before the first byte: a file that only its owner may read stays so.
                staged.take_mode_of(target)?;
                staged.reserve(bytes)?;
                return Ok(staged);
            }
        }
    }

    /// Locks the file for as long as it is open.
    fn lock(&self) -> io::Result<()> {
        match self.file.lock() {
            Err(why) if is_missing_call(&why) => {
                static WARNED: Once = Once::new();
                let path = self.path.display();
                WARNED.call_once(|| {
                    tracing::warn!("{path}: this file system has no locks ({why}): no other run may write this output meanwhile");
                });
                Ok(())
            }
            Err(why) => {
                Err(io::Error::new(why.kind(), format!("{} cannot be locked: {why}", self.path.display())))
            }
            Ok(()) => Ok(()),
        }
    }

    /// Reserves space on disk now, so that a full disk fails the run before the work.
    fn reserve(&self, bytes: u64) -> io::Result<()> {
        use rustix::fs::{FallocateFlags, fallocate};
        if bytes == 0 {
            return Ok(());
        }
        match fallocate(&self.file, FallocateFlags::empty(), 0, bytes) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => self.file.set_len(bytes),
            done => Ok(done?),
        }
    }

    /// Writes bytes at an offset.
    ///
    /// # Errors
    ///
    /// When they cannot be written.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    /// Reads bytes that were written before, from an offset on.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(bytes, offset)
    }

    /// Truncates the file to `bytes` bytes.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    /// Waits until everything written is on disk.
    ///
    /// # Errors
    ///
    /// When it cannot be written to disk.
    pub fn sync(&self) -> io::Result<()> {
        crash::before_step();
        self.file.sync_all()
    }

    /// Keeps the file under a temporary name that outlasts the run, and returns that name. Later runs do not take it
    /// for a leftover.
    ///
    /// # Errors
    ///
    /// When it cannot be renamed.
    pub fn keep(mut self) -> io::Result<PathBuf> {
        let kept = self.kept_name();
        let _whole = Section::enter();
        crash::before_step();
        fs::rename(&self.path, &kept)?;
        self.has_left();
        Ok(kept)
    }

    /// The name that [`keep`](Self::keep) gives the file.
    fn kept_name(&self) -> PathBuf {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let start = name.strip_suffix(TEMPORARY_SUFFIX).unwrap_or(&name);
        self.path.with_file_name(format!("{start}-kept{TEMPORARY_SUFFIX}"))
    }

    /// The names of the file on its way to `target`. A later run may start in another directory.
    pub fn names(&self, target: &Path) -> StagedNames {
        StagedNames {
            temporary: resolved(&self.path),
            kept: resolved(&self.kept_name()),
            target: resolved(target),
        }
    }

    /// Removes the name of the file: no other process can open it any more. The system frees it once this run ends,
    /// however it ends.
    ///
    /// # Errors
    ///
    /// When the name cannot be removed.
    pub fn hide(&mut self) -> io::Result<()> {
        fs::remove_file(&self.path)?;
        self.has_left();
        Ok(())
    }

    /// Notes that the temporary name is free.
    fn has_left(&mut self) {
        self.published = true;
        interrupt::keep(&self.path);
    }

    /// Checks before the work that the file system takes the name that [`keep`](Self::keep) gives the file.
    ///
    /// # Errors
    ///
    /// When the name is too long.
    pub fn check_kept_name(&self) -> io::Result<()> {
        match fs::symlink_metadata(self.kept_name()) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => Err(why),
            _ => Ok(()),
        }
    }

    /// Gives the file its name and replaces a file of that name, whose mode it takes. Call [`sync`](Self::sync) first,
    /// and [`sync_directory_of`] after.
    ///
    /// # Errors
    ///
    /// When it cannot be renamed.
    pub fn publish(mut self, target: &Path) -> io::Result<()> {
        self.take_mode_of(target)?;
        let _whole = Section::enter();
        crash::before_step();
        fs::rename(&self.path, target)?;
        self.has_left();
        Ok(())
    }

    /// Brings the file to disk, gives it its name as [`publish`](Self::publish) does, and flushes the name.
    ///
    /// # Errors
    ///
    /// When it cannot be written or renamed.
    pub fn publish_on_disk(self, target: &Path) -> io::Result<()> {
        self.sync()?;
        let _whole = Section::enter();
        self.publish(target)?;
        settle_directory_of(target);
        Ok(())
    }

    /// Lets a group read the file, if the file has that group or this account may give it to the group.
    ///
    /// # Errors
    ///
    /// When the mode of the file cannot be changed.
    pub fn let_group_read(&self, group: u32) -> io::Result<()> {
        use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
        if self.file.metadata()?.gid() != group && fchown(&self.file, None, Some(group)).is_err() {
            return Ok(());
        }
        self.file.set_permissions(fs::Permissions::from_mode(0o640))
    }

    /// Takes the mode of a file that this one replaces.
    fn take_mode_of(&self, replaced: &Path) -> io::Result<()> {
        match fs::symlink_metadata(replaced) {
            Ok(meta) if self.keeps_mode && meta.is_file() => self.file.set_permissions(meta.permissions()),
            _ => Ok(()),
        }
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.published {
            // A failure here loses nothing; the next run tries again.
            let _ = fs::remove_file(&self.path);
            interrupt::keep(&self.path);
        }
    }
}

/// Flushes the names in the directory of `target` to disk.
///
/// # Errors
///
/// When the directory cannot be synced.
pub fn sync_directory_of(target: &Path) -> io::Result<()> {
    crash::before_step();
    let synced = File::open(directory_of(target))?.sync_all();
    synced.or_else(|why| if is_no_flush(&why) { Ok(()) } else { Err(why) })
}

/// Whether the file system of the directory flushes names to disk.
pub fn flushes_names(directory: &Path) -> bool {
    !File::open(directory).and_then(|directory| directory.sync_all()).is_err_and(|why| is_no_flush(&why))
}

/// Whether a directory was not flushed because its file system flushes none: there is nothing to wait for.
fn is_no_flush(why: &io::Error) -> bool {
    why.kind() == io::ErrorKind::InvalidInput || is_missing_call(why)
}

/// As [`sync_directory_of`], for a file that has its final name: a fault is a warning, because the file is published.
pub fn settle_directory_of(target: &Path) {
    if let Err(why) = sync_directory_of(target) {
        tracing::warn!("{}: is written, and its name may not outlast a power cut: {why}", target.display());
    }
}

/// Whether a file system lacks an operation, or the service that it needs for it.
pub(crate) fn is_missing_call(why: &io::Error) -> bool {
    let missing = [Errno::NOSYS, Errno::NOLCK, Errno::OPNOTSUPP, Errno::NOTSUP];
    missing.iter().any(|errno| why.raw_os_error() == Some(errno.raw_os_error()))
}

/// Creates a directory and its missing parents, and flushes their names.
///
/// # Errors
///
/// When it cannot be created.
pub fn make_directory(path: &Path) -> io::Result<()> {
    let is_missing = |above: &&Path| *above != Path::new("") && !above.exists();
    let missing: Vec<&Path> = path.ancestors().skip(1).take_while(is_missing).collect();
    fs::create_dir_all(path)?;
    missing.into_iter().rev().chain([path]).try_for_each(sync_directory_of)
}

/// Renames a file that is on disk, replaces a file of that name, and flushes the names.
///
/// # Errors
///
/// When it cannot be renamed.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    crash::before_step();
    fs::rename(from, to)?;
    sync_directory_of(to)
}

/// Removes a file.
///
/// # Errors
///
/// When it cannot be removed.
pub fn discard(path: &Path) -> io::Result<()> {
    fs::remove_file(path)
}

/// Writes a whole small file to disk, ready to be published.
///
/// # Errors
///
/// When it cannot be written.
pub fn stage(target: &Path, bytes: &[u8]) -> io::Result<Staged> {
    fill(Staged::create, target, bytes)
}

/// As [`stage`], for a file that only its owner may read. A file that it replaces keeps its mode.
///
/// # Errors
///
/// As [`stage`].
pub fn stage_private(target: &Path, bytes: &[u8]) -> io::Result<Staged> {
    fill(Staged::create_private, target, bytes)
}

fn fill(create: fn(&Path, u64) -> io::Result<Staged>, target: &Path, bytes: &[u8]) -> io::Result<Staged> {
    remove_leftovers(target)?;
    let staged = create(target, bytes.len() as u64)?;
    staged.write_at(bytes, 0)?;
    staged.sync()?;
    Ok(staged)
}

/// Copies a whole file to `target`, and replaces a file of that name.
///
/// # Errors
///
/// When it cannot be read or written.
pub fn copy_to(from: &Path, target: &Path) -> io::Result<()> {
    remove_leftovers(target)?;
    let mut from = source::open_regular(from)?;
    let mut staged = Staged::create(target, from.metadata()?.len())?;
    io::copy(&mut from, &mut staged.file)?;
    staged.publish_on_disk(target)
}

/// Gives a kept file its name, as [`Staged::publish`] does. Does nothing if an earlier run did.
///
/// # Errors
///
/// When it cannot be renamed, or neither name exists.
pub fn publish_kept(kept: &Path, target: &Path) -> io::Result<()> {
    crash::before_step();
    match fs::rename(kept, target) {
        Err(why) if why.kind() == io::ErrorKind::NotFound && target.is_file() => Ok(()),
        renamed => renamed,
    }
}

/// The path under which [`keep_as_previous`] keeps the old content of `path`.
pub fn previous(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".previous");
    path.with_file_name(name)
}

/// Keeps the content of `path` under the name that [`previous`] returns, and replaces a file of that name. `path`
/// itself stays until another file is published there.
///
/// # Errors
///
/// When it cannot be linked, nor copied.
pub fn keep_as_previous(path: &Path) -> io::Result<()> {
    let previous = previous(path);
    remove_leftovers(&previous)?;
    let unique = format!("{}-{}", std::process::id(), "0");
    let temporary = path.with_file_name(temporary_name(&previous, &unique));
    let _whole = Section::enter();
    // Some file systems have no links.
    fs::hard_link(path, &temporary).or_else(|_| copy(path, &temporary))?;
    crash::before_step();
    fs::rename(&temporary, &previous)
}

/// Copies a file, and waits until the copy is on disk.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to)?;
    crash::before_step();
    File::open(to)?.sync_all()
}

/// The canonical path of a file that may not exist yet, in directories that may not exist yet.
pub fn resolved(path: &Path) -> PathBuf {
    let (Some(name), directory) = (path.file_name(), directory_of(path)) else { return path.to_owned() };
    fs::canonicalize(directory).unwrap_or_else(|_| resolved(directory)).join(name)
}

/// The directory that holds `target`.
pub fn directory_of(target: &Path) -> &Path {
    match target.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn temporary_name(target: &Path, unique: &str) -> OsString {
    let mut name = OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(format!(".{unique}{TEMPORARY_SUFFIX}"));
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn paths_are_resolved_up_to_the_directories_that_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let real = fs::canonicalize(folder.path()).unwrap();
        symlink(&real, real.join("link")).unwrap();
        for path in ["new", "new/file", "new/deep/file", "link/new/file", "./link/./new"] {
            let expected = real.join(path.replace("./", "").trim_start_matches("link/"));
            let found = resolved(&folder.path().join(path));
            assert_eq!(found, expected, "{path}");
        }
    }

    #[test]
    fn no_file_is_made_below_devices() {
        let folder = tempfile::tempdir().unwrap();
        symlink("/dev", folder.path().join("link")).unwrap();
        let linked = folder.path().join("link/fedmill-test");
        for target in ["/dev/fedmill-test", "/dev/../dev/fedmill-test", "/proc/self/fd/1"] {
            assert!(Staged::create(Path::new(target), 0).is_err(), "{target}");
        }
        let why = Staged::create(&linked, 0).map(|_| ()).unwrap_err();
        assert!(why.to_string().contains("below /dev"), "{why}");
        assert!(Staged::create(&folder.path().join("model"), 0).is_ok());
    }

    #[test]
    fn a_kept_file_must_be_there_or_have_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let (kept, target) = (folder.path().join("kept"), folder.path().join("model"));
        assert!(publish_kept(&kept, &target).is_err());
        fs::write(&kept, "x").unwrap();
        publish_kept(&kept, &target).unwrap();
        publish_kept(&kept, &target).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"x");
    }

    #[test]
    fn only_a_missing_call_is_one() {
        assert!(is_missing_call(&io::Error::from_raw_os_error(Errno::NOLCK.raw_os_error())));
        assert!(!is_missing_call(&io::Error::from_raw_os_error(Errno::NOENT.raw_os_error())));
    }
}
