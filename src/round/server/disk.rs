//! The files of a state directory on disk.

use crate::io::digest::Blake3;
use crate::io::folder::readers::Readers;
use crate::io::folder::{self, EntryKind};
use crate::io::limits::Limits;
use crate::io::machine;
use crate::io::model_file::{ModelFile, TablePool};
use crate::io::source::{OpenFiles, SourceFile};
use crate::io::{cache, publish};
use crate::round::layout;
use crate::round::moment::Moment;
use crate::round::server::Server;
use crate::round::world::{Entry, Files, Fingerprint};
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

impl Files for Server {
    fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        cache::read(&self.path(path))
    }

    fn write(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        folder::write_file(&self.path(path), bytes, is_private(path).then_some(Readers::OWNER))
    }

    fn write_folder(&mut self, folder: &str, files: &[(String, Vec<u8>)]) -> io::Result<()> {
        let path = self.path(folder);
        if folder::exists(&path) { Ok(()) } else { folder::write(&path, files) }
    }

    fn make_folder(&mut self, folder: &str) -> io::Result<()> {
        let path = self.path(folder);
        match is_private(folder) {
            true => folder::make_private(&path),
            false if folder::is_folder(&path) => Ok(()),
            false => publish::make_directory(&path),
        }
    }

    fn list(&self, folder: &str) -> io::Result<Vec<Entry>> {
        listed(folder::entries(&self.path(folder))?)
    }

    fn hidden(&self, folder: &str) -> io::Result<Vec<Entry>> {
        listed(folder::hidden_entries(&self.path(folder))?)
    }

    fn name_plainly(&mut self, folder: &str) -> io::Result<()> {
        folder::name_plainly(&self.path(folder))
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let target = self.path(to);
        if !folder::exists(&target) {
            folder::rename(&self.path(from), &target)?;
        }
        // Clients read the store, and no other folder that files are moved into.
        if to.starts_with(layout::MODELS) { folder::inherit_group(&target) } else { Ok(()) }
    }

    fn rename_all(&mut self, moves: &[(&str, &str)]) -> io::Result<Vec<io::Result<()>>> {
        let moves: Vec<_> = moves.iter().map(|(from, to)| (self.path(from), self.path(to))).collect();
        folder::rename_all(&moves)
    }

    fn copy(&mut self, from: &str, to: &str) -> io::Result<()> {
        let target = self.path(to);
        if folder::exists(&target) {
            return Ok(());
        }
        folder::make_folder_of(&target)?;
        publish::copy_to(&self.path(from), &target)
    }

    fn remove(&mut self, path: &str) -> io::Result<()> {
        folder::remove(&self.path(path))
    }

    fn append(&mut self, path: &str, at: u64, bytes: &[u8]) -> io::Result<()> {
        folder::append(&self.path(path), at, bytes, is_private(path))
    }

    fn point(&mut self, link: &str, target: &str) -> io::Result<()> {
        folder::link(&self.path(link), target)
    }

    fn target(&self, link: &str) -> io::Result<Option<String>> {
        Ok(folder::target(&self.path(link))?.map(|target| target.to_string_lossy().into_owned()))
    }

    fn fingerprint(&self, path: &str) -> io::Result<Fingerprint> {
        let file = SourceFile::open(&self.path(path), &OpenFiles::raise_limit())?;
        let bytes = file.bytes();
        let files = [file];
        let blake3 = self.hardware.pool.install(|| Blake3::of(&files))?;
        Ok(Fingerprint { blake3, bytes })
    }

    fn stamp(&self, path: &str) -> io::Result<String> {
        folder::stamp(&self.path(path))
    }

    fn changed_ms(&self, path: &str) -> io::Result<u64> {
        folder::changed_ms(&self.path(path))
    }

    fn bytes(&self, path: &str) -> io::Result<u64> {
        folder::bytes(&self.path(path))
    }

    fn unfinished(&self, path: &str) -> Option<String> {
        let path = self.path(path);
        if !folder::is_plain_file(&path) {
            return Some("is no file".to_owned());
        }
        let (files, tables) = (OpenFiles::raise_limit(), TablePool::default());
        ModelFile::open(&path, &files, &tables, &Limits::UNKNOWN).err().map(|faults| faults.to_string())
    }

    fn name(&self) -> String {
        let root = std::path::absolute(&self.root).unwrap_or_else(|_| self.root.clone());
        root.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn now(&self) -> Moment {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (boot, up_ms) = machine::boot();
        Moment { unix_ms: u64::try_from(unix.as_millis()).unwrap_or(u64::MAX), boot, up_ms }
    }
}

fn listed(entries: Vec<(String, EntryKind)>) -> io::Result<Vec<Entry>> {
    Ok(entries.into_iter().map(|(name, kind)| Entry { name, is_folder: kind == EntryKind::Folder }).collect())
}

/// Whether only the owner of the state directory may read a file: what rounds know of single clients is private.
fn is_private(path: &str) -> bool {
    path.starts_with(layout::ROUNDS)
}
