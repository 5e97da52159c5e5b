//! Folders of a state directory: what they hold, links, and files that grow.
//!
//! [`names`] finds files by patterns, and names that are not UTF-8; [`readers`] says who may read a file.

pub mod names;
pub mod readers;

use crate::io::crash;
use crate::io::interrupt::Section;
use crate::io::publish::{
    copy_to, make_directory, remove_leftovers, stage, stage_private, sync_directory_of,
};
use crate::io::source::open_regular;
use readers::Readers;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes that are read at a time.
const CHUNK: usize = 1 << 20;

/// What an entry of a folder is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EntryKind {
    /// A file.
    File,
    /// A folder.
    Folder,
    /// A link, a pipe, a socket or a device.
    Other,
}

/// The names in a folder that are UTF-8 and do not begin with a dot, in order; none if it does not exist.
///
/// # Errors
///
/// When it cannot be listed.
pub fn entries(folder: &Path) -> io::Result<Vec<(String, EntryKind)>> {
    let mut found = named_entries(folder)?;
    found.retain(|(name, _)| !name.starts_with('.'));
    Ok(found)
}

/// The names in a folder that are UTF-8 and begin with a dot, in order; none if it does not exist.
///
/// # Errors
///
/// When it cannot be listed.
pub fn hidden_entries(folder: &Path) -> io::Result<Vec<(String, EntryKind)>> {
    let mut found = named_entries(folder)?;
    found.retain(|(name, _)| name.starts_with('.'));
    Ok(found)
}

fn named_entries(folder: &Path) -> io::Result<Vec<(String, EntryKind)>> {
    let mut found = Vec::new();
    for entry in read_folder(folder)? {
        let kind = kind_of(&entry)?;
        found.extend(entry.file_name().into_string().ok().map(|name| (name, kind)));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

fn kind_of(entry: &fs::DirEntry) -> io::Result<EntryKind> {
    Ok(match entry.file_type()? {
        kind if kind.is_file() => EntryKind::File,
        kind if kind.is_dir() => EntryKind::Folder,
        _ => EntryKind::Other,
    })
}

/// The entries of a folder; none if it does not exist.
fn read_folder(folder: &Path) -> io::Result<Vec<fs::DirEntry>> {
    match fs::read_dir(folder) {
        Err(why) if why.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed?.collect(),
    }
}

/// Renames entries whose name is not UTF-8: each byte that does not fit becomes `%` and two hex digits. A long name loses
/// its beginning, and a name that is taken gets a number.
///
/// # Errors
///
/// When the folder cannot be listed, or an entry cannot be renamed.
pub fn name_plainly(folder: &Path) -> io::Result<()> {
    for entry in read_folder(folder)? {
        let name = entry.file_name();
        if name.to_str().is_some() {
            continue;
        }
        let plain = plain_name(name.as_encoded_bytes());
        let numbered = (1..).map(|number| format!("{number}-{plain}"));
        let free = std::iter::once(plain.clone()).chain(numbered).map(|name| folder.join(name));
        let target = free.into_iter().find(|path| !exists(path)).unwrap_or_default();
        match rename(&entry.path(), &target) {
            // Its owner took it back.
            Err(why) if why.kind() == ErrorKind::NotFound => {}
            renamed => renamed?,
        }
    }
    Ok(())
}

/// The most bytes of a name that is made plain.
const LONGEST_PLAIN: usize = 200;

fn plain_name(name: &[u8]) -> String {
    let mut plain = String::new();
    for chunk in name.utf8_chunks() {
        plain.push_str(chunk.valid());
        plain.extend(chunk.invalid().iter().map(|byte| format!("%{byte:02X}")));
    }
    let from = plain.len().saturating_sub(LONGEST_PLAIN);
    let from = (from..plain.len()).find(|at| plain.is_char_boundary(*at)).unwrap_or(0);
    plain.split_off(from)
}

/// Whether a path is a file, and no link to one.
pub fn is_plain_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file())
}

/// Whether a path is a folder, and no link to one.
pub fn is_plain_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir())
}

/// The one absolute path of a folder or file that exists, without links and dots.
///
/// # Errors
///
/// When it does not exist, or a folder on the way cannot be looked into.
pub fn real(path: &Path) -> io::Result<PathBuf> {
    fs::canonicalize(path)
}

/// Whether there is something at a path, a broken link too.
pub fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Device, inode, size and times of a file. No one can set the time of its last change.
///
/// # Errors
///
/// When it cannot be looked at.
pub fn stamp(path: &Path) -> io::Result<String> {
    use std::os::unix::fs::MetadataExt;
    let meta = fs::symlink_metadata(path)?;
    let changed = (meta.ctime(), meta.ctime_nsec());
    Ok(format!("{}-{}-{}-{}.{}", meta.dev(), meta.ino(), meta.len(), changed.0, changed.1))
}

/// The time of the last change of a file, its name or its owner, in milliseconds since 1970, by the clock of its file
/// system. A rename is such a change. No account can set this time, unlike that of the last write.
///
/// # Errors
///
/// When it cannot be looked at.
pub fn changed_ms(path: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let meta = fs::symlink_metadata(path)?;
    let (seconds, nanos) = (u64::try_from(meta.ctime()), u64::try_from(meta.ctime_nsec()));
    Ok(seconds.unwrap_or(0).saturating_mul(1000).saturating_add(nanos.unwrap_or(0) / 1_000_000))
}

/// Creates a folder that only its owner may use, if it does not exist.
///
/// # Errors
///
/// When it cannot be created.
pub fn make_private(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    if folder.is_dir() {
        return Ok(());
    }
    make_directory(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
}

/// Bytes of a file.
///
/// # Errors
///
/// When it cannot be looked at.
pub fn bytes(path: &Path) -> io::Result<u64> {
    fs::metadata(path).map(|meta| meta.len())
}

/// Whether a path is a folder, or a link to one.
pub fn is_folder(path: &Path) -> bool {
    path.is_dir()
}

/// The absolute path of a file or folder, with all links followed.
///
/// # Errors
///
/// When there is nothing at the path.
pub fn resolved(path: &Path) -> io::Result<PathBuf> {
    fs::canonicalize(path)
}

/// Where a path leads to with all links followed, if that is inside of the folder of a plan.
///
/// # Errors
///
/// When it leads elsewhere, or nowhere.
pub fn within(folder: &Path, path: &Path) -> Result<PathBuf, String> {
    let real = |path: &Path| resolved(path).map_err(|why| format!("{}: {why}", path.display()));
    let found = real(path)?;
    if found.starts_with(real(folder)?) {
        return Ok(found);
    }
    Err(format!(
        "{} leads to {}, expected a file inside of the plan's folder",
        path.display(),
        found.display()
    ))
}

/// Creates the folder of a file, if it does not exist.
///
/// # Errors
///
/// When it cannot be created.
pub fn make_folder_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if folder != Path::new("") && !folder.is_dir() => make_directory(folder),
        _ => Ok(()),
    }
}

/// Writes a folder with files, which appears whole.
///
/// # Errors
///
/// When it cannot be written.
pub fn write(folder: &Path, files: &[(String, Vec<u8>)]) -> io::Result<()> {
    make_folder_of(folder)?;
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.with_file_name(format!(".{name}.fedmill-tmp"));
    let _whole = Section::enter();
    remove(&temporary)?;
    fs::create_dir(&temporary)?;
    for (name, bytes) in files {
        let file = File::create_new(temporary.join(name))?;
        file.write_all_at(bytes, 0)?;
        file.sync_all()?;
    }
    File::open(&temporary)?.sync_all()?;
    crash::before_step();
    fs::rename(&temporary, folder)?;
    sync_directory_of(folder)
}

/// Removes a file, or a folder with all that it holds, if it exists.
///
/// # Errors
///
/// When it cannot be removed.
pub fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Err(why) if why.kind() == ErrorKind::NotFound => return Ok(()),
        Err(why) => return Err(why),
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    };
    match removed {
        Err(why) if why.kind() == ErrorKind::NotFound => Ok(()),
        Err(why) => Err(why),
        Ok(()) => sync_directory_of(path),
    }
}

/// Gives a file the group of its folder, if the folder passes its group on (setgid). A file that was renamed into the
/// folder has the group of the one in which it was made.
///
/// # Errors
///
/// When the group cannot be set.
pub fn inherit_group(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let Some(folder) = path.parent().filter(|folder| *folder != Path::new("")) else { return Ok(()) };
    let (above, own) = (fs::metadata(folder)?, fs::symlink_metadata(path)?);
    match above.mode() & SETGID != 0 && above.gid() != own.gid() {
        true => std::os::unix::fs::lchown(path, None, Some(above.gid())),
        false => Ok(()),
    }
}

/// The bit of a folder's mode that passes its group on to what is made in it.
const SETGID: u32 = 0o2000;

/// Removes a file, or a folder with all that it holds, if it exists. A crash may bring it back.
///
/// # Errors
///
/// When it cannot be removed.
pub fn remove_unsynced(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(why) if why.kind() == ErrorKind::NotFound => Ok(()),
        Err(why) if why.kind() == ErrorKind::NotADirectory => fs::remove_file(path),
        removed => removed,
    }
}

/// Creates a folder with the folders above it, if they do not exist. A crash may lose it.
///
/// # Errors
///
/// When it cannot be created.
pub fn make(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)
}

/// Creates the folder of a file, if it does not exist. A crash may lose it.
///
/// # Errors
///
/// When it cannot be created.
pub fn make_folder_unsynced(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

/// Writes a whole file, which is on disk before it has its name. Creates its folder.
///
/// # Errors
///
/// When it cannot be written.
pub fn write_file_on_disk(path: &Path, bytes: &[u8]) -> io::Result<()> {
    make_folder_of(path)?;
    stage(path, bytes)?.publish_on_disk(path)
}

/// Renames a file or a folder, and flushes both folders. Copies a file to another file system.
///
/// # Errors
///
/// When it cannot be renamed.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    rename_unsynced(from, to)?;
    sync_directory_of(to)?;
    match from.parent() == to.parent() {
        true => Ok(()),
        false => sync_directory_of(from),
    }
}

fn rename_unsynced(from: &Path, to: &Path) -> io::Result<()> {
    make_folder_of(to)?;
    crash::before_step();
    match fs::rename(from, to) {
        Err(why) if why.kind() == ErrorKind::CrossesDevices => {
            copy_to(from, to)?;
            fs::remove_file(from)
        }
        renamed => renamed,
    }
}

/// Renames files or folders, and flushes each folder once: thousands of flushes would take minutes. A target that
/// exists stays as it is. Returns how each rename went.
///
/// # Errors
///
/// When a folder cannot be flushed.
pub fn rename_all(moves: &[(PathBuf, PathBuf)]) -> io::Result<Vec<io::Result<()>>> {
    let rename =
        |(from, to): &(PathBuf, PathBuf)| if exists(to) { Ok(()) } else { rename_unsynced(from, to) };
    let done = moves.iter().map(rename).collect();
    let targets: BTreeMap<_, _> = moves.iter().map(|(_, to)| (to.parent(), to)).collect();
    let sources: BTreeMap<_, _> = moves.iter().map(|(from, _)| (from.parent(), from)).collect();
    // A file that is on disk in neither folder would be lost.
    targets.values().chain(sources.values()).try_for_each(|path| match sync_directory_of(path) {
        // No rename made the folder of a target, or an operator removed one of a source.
        Err(why) if why.kind() == ErrorKind::NotFound => Ok(()),
        synced => synced,
    })?;
    Ok(done)
}

/// Cuts a file to `at` bytes, appends some, and waits until they are on disk. Only the owner may read a file that this
/// creates, if it is `private`.
///
/// # Errors
///
/// When they cannot be written.
pub fn append(path: &Path, at: u64, bytes: &[u8], private: bool) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    make_folder_of(path)?;
    let is_new = !path.exists();
    let mode = if private { 0o600 } else { 0o666 };
    let mut options = File::options();
    let file = options.read(true).write(true).create(true).truncate(false).mode(mode).open(path)?;
    if file.metadata()?.len() != at {
        file.set_len(at)?;
    }
    crash::before_step();
    file.write_all_at(bytes, at)?;
    crash::before_step();
    file.sync_all()?;
    if is_new { sync_directory_of(path) } else { Ok(()) }
}

/// Makes a symbolic link, and replaces what has its name.
///
/// # Errors
///
/// When it cannot be made.
pub fn link(link: &Path, target: &str) -> io::Result<()> {
    remove_leftovers(link)?;
    let name = link.file_name().unwrap_or_default().to_string_lossy();
    let temporary = link.with_file_name(format!(".{name}.link.fedmill-tmp"));
    let _whole = Section::enter();
    remove(&temporary)?;
    std::os::unix::fs::symlink(target, &temporary)?;
    crash::before_step();
    fs::rename(&temporary, link)?;
    sync_directory_of(link)
}

/// The target of a symbolic link; `None` if there is none.
///
/// # Errors
///
/// When it is no link, or cannot be read.
pub fn target(link: &Path) -> io::Result<Option<PathBuf>> {
    match fs::read_link(link) {
        Err(why) if why.kind() == ErrorKind::NotFound => Ok(None),
        target => target.map(Some),
    }
}

/// Hands the bytes of a regular file to `take`, in order, a chunk at a time.
///
/// # Errors
///
/// When it cannot be read, or `take` returns an error.
pub fn each_chunk(path: &Path, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let file = open_regular(path)?;
    let mut chunk = vec![0; CHUNK];
    let mut at = 0;
    loop {
        match file.read_at(&mut chunk, at)? {
            0 => return Ok(()),
            count => {
                take(&chunk[..count])?;
                at += count as u64;
            }
        }
    }
}

/// Writes a whole file, and creates its folder. If it has `readers`, no other account may read it; a group may only if
/// the file can get that group.
///
/// # Errors
///
/// When it cannot be written.
pub fn write_file(path: &Path, bytes: &[u8], readers: Option<Readers>) -> io::Result<()> {
    make_folder_of(path)?;
    let staged = if readers.is_some() { stage_private(path, bytes) } else { stage(path, bytes) }?;
    if let Some(group) = readers.and_then(|readers| readers.group) {
        staged.let_group_read(group)?;
    }
    let _whole = Section::enter();
    staged.publish(path)?;
    sync_directory_of(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_text_become_text_and_replace_nothing() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;
        let root = tempfile::tempdir().unwrap();
        let long = [&[0xff; 120][..], b"end"].concat();
        for name in [b"a\xffb".as_slice(), b"a%FFb", b".\xe9", &long] {
            fs::write(root.path().join(OsStr::from_bytes(name)), name).unwrap();
        }
        name_plainly(root.path()).unwrap();
        let read = |name: &str| fs::read(root.path().join(name)).unwrap();
        assert_eq!((read("a%FFb"), read("1-a%FFb")), (b"a%FFb".to_vec(), b"a\xffb".to_vec()));
        let names: Vec<String> = entries(root.path()).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!((names.len(), names[1].len()), (3, 200), "{names:?}");
        assert_eq!(hidden_entries(root.path()).unwrap(), [(".%E9".to_owned(), EntryKind::File)]);
    }

    /// The test needs an account that may give files to another group, as root may.
    #[test]
    fn a_file_gets_the_group_of_a_folder_that_passes_it_on() {
        use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
        let root = tempfile::tempdir().unwrap();
        let (folder, file) = (root.path().join("models"), root.path().join("models/a"));
        fs::create_dir(&folder).unwrap();
        let own = fs::metadata(&folder).unwrap().gid();
        if chown(&folder, None, Some(own + 4321)).is_err() {
            return;
        }
        fs::write(root.path().join("made"), "a").unwrap();
        fs::rename(root.path().join("made"), &file).unwrap();
        inherit_group(&file).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().gid(), own, "the folder passes nothing on");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o2750)).unwrap();
        inherit_group(&file).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().gid(), own + 4321);
    }

    #[test]
    fn what_is_behind_the_place_of_new_bytes_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        append(&path, 0, b"abcdef", false).unwrap();
        append(&path, 3, b"xy", false).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"abcxy");
    }

    #[test]
    fn files_and_folders_are_removed_and_their_absence_is_no_error() {
        for remove in [remove, remove_unsynced] {
            let root = tempfile::tempdir().unwrap();
            let (folder, file) = (root.path().join("folder"), root.path().join("file"));
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("inside"), "x").unwrap();
            fs::write(&file, "x").unwrap();
            for path in [&folder, &file, &file] {
                remove(path).unwrap();
                assert!(!path.exists(), "{}", path.display());
            }
        }
    }
}
