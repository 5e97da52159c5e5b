//! Finds the files that a pattern matches, and names that are not UTF-8, which no plan can hold.

use super::{EntryKind, kind_of, read_folder};
use crate::io::text::of_name;
use std::io;
use std::path::{Path, PathBuf};

/// The files below a folder whose path from there matches a pattern such as `in/*.safetensors`, in order.
///
/// # Errors
///
/// When the pattern is none, a folder cannot be listed, or the name of a file that matches is not UTF-8.
pub fn matching(folder: &Path, pattern: &str) -> Result<Vec<String>, String> {
    let escaped = format!("{}/{pattern}", glob::Pattern::escape(&folder.to_string_lossy()));
    check_names(&escaped, false)?;
    let mut paths = Vec::new();
    for path in found(&escaped)? {
        let path = path.map_err(|why| why.to_string())?;
        if path.is_dir() {
            continue;
        }
        let relative = path.strip_prefix(folder).map_err(|why| why.to_string())?;
        paths.push(relative.to_str().ok_or_else(|| is_no_text(&path))?.to_owned());
    }
    paths.sort();
    Ok(paths)
}

fn found(pattern: &str) -> Result<glob::Paths, String> {
    glob::glob(pattern).map_err(|why| format!("`{pattern}`: {why}"))
}

/// Checks that no file whose name is not UTF-8 matches a pattern: [`glob`] leaves such files out.
fn check_names(pattern: &str, is_folder: bool) -> Result<(), String> {
    let (folders, last) = pattern.rsplit_once('/').unwrap_or((".", pattern));
    if folders.contains(['*', '?', '[']) {
        check_names(folders, true)?;
    }
    let (inside, last) =
        if last == "**" { (format!("{folders}/**"), "*") } else { (folders.to_owned(), last) };
    let last = glob::Pattern::new(last).map_err(|why| format!("`{pattern}`: {why}"))?;
    for folder in found(folders)?.chain(found(&inside)?).flatten().filter(|folder| folder.is_dir()) {
        let names = without_text(&folder).map_err(|why| format!("{}: {why}", folder.display()))?;
        let is_meant = |(path, kind): &&(PathBuf, EntryKind)| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            last.matches(&name) && (!is_folder || *kind != EntryKind::File)
        };
        if let Some((path, _)) = names.iter().find(is_meant) {
            return Err(is_no_text(path));
        }
    }
    Ok(())
}

/// The entries of a folder whose names are not UTF-8, in order.
///
/// # Errors
///
/// When it cannot be listed.
pub fn without_text(folder: &Path) -> io::Result<Vec<(PathBuf, EntryKind)>> {
    let entries = read_folder(folder)?.into_iter().filter(|entry| entry.file_name().to_str().is_none());
    let mut found =
        entries.map(|entry| Ok((entry.path(), kind_of(&entry)?))).collect::<io::Result<Vec<_>>>()?;
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

/// Checks that the names of all files that [`super::entries`] should list are UTF-8.
///
/// # Errors
///
/// The first file with another name, or why the folder cannot be listed.
pub fn check_files(folder: &Path) -> Result<(), String> {
    let names = without_text(folder).map_err(|why| format!("{}: {why}", folder.display()))?;
    let is_listed = |(path, kind): &&(PathBuf, EntryKind)| {
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        *kind == EntryKind::File && !is_hidden
    };
    names.iter().find(is_listed).map_or(Ok(()), |(path, _)| Err(is_no_text(path)))
}

/// What is wrong with a path that is not UTF-8, in words.
pub fn is_no_text(path: &Path) -> String {
    format!(
        "{}: the name is not UTF-8, and a plan holds no other names; rename it",
        of_name(path.as_os_str())
    )
}
