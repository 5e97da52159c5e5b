//! Files in memory. A change may fail: nothing, a part or all of it is then there.

use super::World;
use super::clients::Script;
use crate::rng::Rng;
use fedmill::round::moment::Moment;
use fedmill::round::world::{Entry, Files, Fingerprint};
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// A fault to come.
#[derive(Clone, Copy)]
pub(super) struct Trouble {
    /// Changes on disk before it.
    after: u64,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The process ends before the change.
    Before,
    /// The process ends in the change: a part of an appended line is there.
    Torn,
    /// The process ends after the change.
    After,
    /// The disk is full: the change fails, and the process goes on.
    Full,
    /// The disk is full in the middle of a line.
    FullTorn,
}

impl Trouble {
    pub(super) fn random(rng: &mut Rng) -> Self {
        let kinds = [Kind::Before, Kind::Torn, Kind::After, Kind::Full, Kind::FullTorn];
        Self { after: rng.below(60), kind: kinds[rng.below(5) as usize] }
    }
}

/// Files by path. Folders exist by themselves or by their files.
pub(super) struct Disk {
    pub(super) files: BTreeMap<String, Vec<u8>>,
    /// The wall clock as each file changed last.
    changed: BTreeMap<String, u64>,
    folders: BTreeSet<String>,
    links: BTreeMap<String, String>,
    pub(super) trouble: Option<Trouble>,
    failed: bool,
    dead: bool,
    boot: u64,
    up_ms: u64,
    wall_ms: u64,
}

impl Disk {
    pub(super) fn new(seed: u64, _: &Script) -> Self {
        Self {
            files: BTreeMap::new(),
            changed: BTreeMap::new(),
            folders: BTreeSet::new(),
            links: BTreeMap::new(),
            trouble: None,
            failed: false,
            dead: false,
            boot: seed,
            up_ms: 1_000_000,
            wall_ms: 1_700_000_000_000,
        }
    }

    /// Writes a file without any fault.
    pub(super) fn put(&mut self, path: &str, bytes: Vec<u8>) {
        self.files.insert(path.to_owned(), bytes);
        self.changed.insert(path.to_owned(), self.wall_ms);
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed
    }

    /// A new process after a fault. The disk has room again.
    pub(super) fn restart(&mut self) {
        (self.failed, self.dead) = (false, false);
    }

    /// Time passes on both clocks.
    pub(super) fn pass(&mut self, ms: u64) {
        self.up_ms += ms;
        self.wall_ms += ms;
    }

    /// The wall clock jumps by hours, or does not.
    pub(super) fn jump(&mut self, rng: &mut Rng) {
        match rng.below(3) {
            0 => self.wall_ms += rng.below(40_000_000),
            1 => self.wall_ms -= rng.below(40_000_000),
            _ => {}
        }
    }

    /// Makes a change, unless a fault comes now. `part` makes a part of it.
    pub(super) fn change(
        &mut self,
        whole: impl FnOnce(&mut Self),
        part: impl FnOnce(&mut Self),
    ) -> io::Result<()> {
        if self.dead {
            return Err(io::Error::other("the process ended"));
        }
        self.pass(1);
        let kind = match &mut self.trouble {
            Some(trouble) if trouble.after == 0 => trouble.kind,
            Some(trouble) => {
                trouble.after -= 1;
                whole(self);
                return Ok(());
            }
            None => {
                whole(self);
                return Ok(());
            }
        };
        self.trouble = None;
        self.failed = true;
        self.dead = !matches!(kind, Kind::Full | Kind::FullTorn);
        match kind {
            Kind::Before | Kind::Full => {}
            Kind::Torn | Kind::FullTorn => part(self),
            Kind::After => whole(self),
        }
        Err(io::Error::other(if self.dead { "the process ended" } else { "no space left on device" }))
    }

    /// The entries of a folder, hidden ones too.
    fn entries(&self, folder: &str) -> BTreeSet<Entry> {
        let below = format!("{folder}/");
        let mut found = BTreeSet::new();
        let names = self.files.range(below.clone()..).map(|(name, _)| name);
        let names = names.take_while(|name| name.starts_with(&below));
        for name in names.chain(self.folders.iter().filter(|name| name.starts_with(&below))) {
            let rest = &name[below.len()..];
            let is_folder = rest.contains('/') || self.folders.contains(name);
            let name = rest.split('/').next().unwrap().to_owned();
            found.insert(Entry { name, is_folder });
        }
        found
    }

    fn exists(&self, path: &str) -> bool {
        let below = format!("{path}/");
        self.files.contains_key(path)
            || self.folders.contains(path)
            || self.files.range(below.clone()..).next().is_some_and(|(name, _)| name.starts_with(&below))
    }
}

impl Files for World {
    fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.disk.files.get(path).cloned())
    }

    fn write(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.disk.change(|disk| disk.put(path, bytes.to_vec()), |_| {})
    }

    fn write_folder(&mut self, folder: &str, files: &[(String, Vec<u8>)]) -> io::Result<()> {
        if self.disk.exists(folder) {
            return Ok(());
        }
        let put = |disk: &mut Disk| {
            files.iter().for_each(|(name, bytes)| disk.put(&format!("{folder}/{name}"), bytes.clone()));
        };
        self.disk.change(put, |_| {})
    }

    fn make_folder(&mut self, folder: &str) -> io::Result<()> {
        let made = |disk: &mut Disk| {
            disk.folders.insert(folder.to_owned());
        };
        self.disk.change(made, |_| {})
    }

    fn list(&self, folder: &str) -> io::Result<Vec<Entry>> {
        Ok(self.disk.entries(folder).into_iter().filter(|entry| !entry.name.starts_with('.')).collect())
    }

    fn hidden(&self, folder: &str) -> io::Result<Vec<Entry>> {
        Ok(self.disk.entries(folder).into_iter().filter(|entry| entry.name.starts_with('.')).collect())
    }

    fn name_plainly(&mut self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        if self.disk.exists(to) {
            return Ok(());
        }
        if !self.disk.exists(from) {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("{from} to {to}")));
        }
        let moves = |disk: &mut Disk| {
            let bytes = disk.files.remove(from).unwrap();
            disk.put(to, bytes);
        };
        self.disk.change(moves, |_| {})
    }

    fn copy(&mut self, from: &str, to: &str) -> io::Result<()> {
        if self.disk.exists(to) {
            return Ok(());
        }
        let bytes = self.disk.files.get(from).cloned().ok_or(io::ErrorKind::NotFound)?;
        self.disk.change(|disk| disk.put(to, bytes), |_| {})
    }

    fn remove(&mut self, path: &str) -> io::Result<()> {
        if !self.disk.exists(path) {
            return Ok(());
        }
        let below = format!("{path}/");
        self.disk
            .change(|disk| disk.files.retain(|name, _| name != path && !name.starts_with(&below)), |_| {})
    }

    fn append(&mut self, path: &str, at: u64, bytes: &[u8]) -> io::Result<()> {
        let put = |disk: &mut Disk, bytes: &[u8]| {
            let file = disk.files.entry(path.to_owned()).or_default();
            file.truncate(at as usize);
            file.extend_from_slice(bytes);
        };
        self.disk.change(|disk| put(disk, bytes), |disk| put(disk, &bytes[..bytes.len() / 2]))
    }

    fn point(&mut self, link: &str, target: &str) -> io::Result<()> {
        self.disk.change(|disk| drop(disk.links.insert(link.to_owned(), target.to_owned())), |_| {})
    }

    fn target(&self, link: &str) -> io::Result<Option<String>> {
        Ok(self.disk.links.get(link).cloned())
    }

    fn fingerprint(&self, path: &str) -> io::Result<Fingerprint> {
        let bytes = self.disk.files.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(super::work::fingerprint(bytes))
    }

    fn stamp(&self, path: &str) -> io::Result<String> {
        Ok(self.fingerprint(path)?.blake3)
    }

    fn changed_ms(&self, path: &str) -> io::Result<u64> {
        self.disk.files.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.disk.changed[path])
    }

    fn bytes(&self, path: &str) -> io::Result<u64> {
        let bytes = self.disk.files.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(bytes.len() as u64)
    }

    fn unfinished(&self, path: &str) -> Option<String> {
        let bytes = self.disk.files.get(path)?;
        (!bytes.ends_with(b"end")).then(|| "the file is cut off".to_owned())
    }

    fn name(&self) -> String {
        "fed".to_owned()
    }

    fn now(&self) -> Moment {
        Moment { unix_ms: self.disk.wall_ms, boot: self.disk.boot.to_string(), up_ms: self.disk.up_ms }
    }
}
