//! The jobserver of GNU make: the places for jobs that all programs under one `make -jN` share.
//!
//! Each program has one place without asking. For each further job it takes a byte from a pipe, and writes it back once
//! the job is over. `MAKEFLAGS` names the pipe: `--jobserver-auth=fifo:PATH`, or `--jobserver-auth=R,W` with the numbers
//! of open files. The pipe is opened anew, so that reads that never wait do not change the files of make.
//!
//! A program may also make such a pipe for the programs that it starts.

use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::pipe::{PipeFlags, pipe_with};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;

/// The variable that names the pipe.
pub const MAKEFLAGS: &str = "MAKEFLAGS";

/// The places for jobs that a program has.
#[derive(Default, Debug)]
pub enum Places {
    /// No make limits the jobs.
    #[default]
    Free,
    /// A make limits the jobs, and its pipe cannot be opened: one job at a time.
    One,
    /// A make limits the jobs.
    Shared(Client),
}

/// A pipe of make, and the bytes that were taken from it. They are given back when the value is dropped.
#[derive(Debug)]
pub struct Client {
    source: File,
    sink: File,
    taken: Vec<u8>,
}

impl Places {
    /// The places that the make above this process leaves to it.
    pub fn of_make() -> Self {
        Self::of(&std::env::var(MAKEFLAGS).unwrap_or_default())
    }

    /// The places that `MAKEFLAGS` states.
    pub fn of(makeflags: &str) -> Self {
        let auth = |word: &str| {
            let value = word.strip_prefix("--jobserver-auth=").or(word.strip_prefix("--jobserver-fds="))?;
            Some(value.to_owned())
        };
        // The last one holds.
        match makeflags.split_whitespace().filter_map(auth).next_back() {
            None => Self::Free,
            Some(auth) => Client::open(&auth).map_or(Self::One, Self::Shared),
        }
    }

    /// These places, or a new pipe for at most `most` jobs if nothing limits them. Without a pipe they stay as they are.
    pub fn or_shared(self, most: u32) -> Self {
        match self {
            Self::Free => Client::with_places(most.saturating_sub(1)).map_or(Self::Free, Self::Shared),
            limited => limited,
        }
    }

    /// What `MAKEFLAGS` has to say so that another program shares these places; `None` where nothing limits jobs. The
    /// pipe has its name as long as this process holds it.
    pub fn makeflags(&self) -> Option<String> {
        match self {
            Self::Free => None,
            // What is no pipe leaves one place.
            Self::One => Some("--jobserver-auth=fifo:/dev/null".to_owned()),
            Self::Shared(client) => {
                let (process, file) = (std::process::id(), client.source.as_raw_fd());
                Some(format!("--jobserver-auth=fifo:/proc/{process}/fd/{file}"))
            }
        }
    }

    /// Whether another job may start beside `running` others. Takes the place that it needs.
    pub fn admits(&mut self, running: usize) -> bool {
        match self {
            Self::Free => true,
            Self::One => running == 0,
            Self::Shared(client) => client.take(running),
        }
    }

    /// Gives back the places that `running` jobs do not need.
    pub fn give_back(&mut self, running: usize) {
        if let Self::Shared(client) = self {
            client.keep(running.saturating_sub(1));
        }
    }
}

impl Client {
    /// A new pipe with this many places, as far as it holds them.
    fn with_places(count: u32) -> Option<Self> {
        let (source, sink) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).ok()?;
        let (source, mut sink) = (File::from(source), File::from(sink));
        // A pipe that is full holds more places than a machine has processors.
        let _ = (0..count).try_for_each(|_| sink.write_all(b"+"));
        Some(Self { source, sink, taken: Vec::new() })
    }

    fn open(auth: &str) -> Option<Self> {
        let pipe = |path: &PathBuf, flags| {
            let file = open(path, flags | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).ok()?;
            let is_pipe = FileType::from_raw_mode(fstat(&file).ok()?.st_mode) == FileType::Fifo;
            is_pipe.then(|| File::from(file))
        };
        let (from, to) = match auth.strip_prefix("fifo:") {
            Some(path) => (PathBuf::from(path), PathBuf::from(path)),
            None => {
                let (from, to) = auth.split_once(',')?;
                let of = |number: &str| number.parse::<u32>().ok().map(|n| format!("/proc/self/fd/{n}"));
                (of(from)?.into(), of(to)?.into())
            }
        };
        Some(Self { source: pipe(&from, OFlags::RDWR)?, sink: pipe(&to, OFlags::RDWR)?, taken: Vec::new() })
    }

    /// Takes bytes until there are `wanted`. Returns whether the pipe held as many.
    fn take(&mut self, wanted: usize) -> bool {
        while self.taken.len() < wanted {
            let mut byte = [0];
            match self.source.read(&mut byte) {
                Ok(1) => self.taken.push(byte[0]),
                Err(why) if why.kind() == ErrorKind::Interrupted => {}
                _ => return false,
            }
        }
        true
    }

    /// Writes back the bytes beyond the first `most`.
    fn keep(&mut self, most: usize) {
        while self.taken.len() > most
            && let Some(byte) = self.taken.last()
        {
            match self.sink.write(&[*byte]) {
                Ok(1) => drop(self.taken.pop()),
                Err(why) if why.kind() == ErrorKind::Interrupted => {}
                // The pipe holds all bytes of make: it is full only if another program wrote more.
                _ => return,
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.keep(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, mkfifoat};

    #[test]
    fn places_are_taken_and_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
        let flags = format!(" -j3 --jobserver-auth=9,9 --jobserver-auth=fifo:{} -- A=1", path.display());
        let mut make = File::options().read(true).write(true).open(&path).unwrap();
        make.write_all(b"ab").unwrap();
        let mut places = Places::of(&flags);
        let mut other = Places::of(&flags);
        // One place is free; two more are in the pipe.
        assert!(places.admits(0) && places.admits(1) && places.admits(2) && !places.admits(3));
        assert!(other.admits(0) && !other.admits(1));
        places.give_back(2);
        assert!(other.admits(1) && !other.admits(2), "one of two places came back");
        assert!(other.admits(1) && !places.admits(2) && places.admits(1));
        drop((places, other));
        let mut back = [0; 2];
        make.read_exact(&mut back).unwrap();
        back.sort_unstable();
        assert_eq!(&back, b"ab");
    }

    #[test]
    fn a_new_pipe_shares_its_places_by_its_name() {
        let mut ours = Places::Free.or_shared(3);
        let mut theirs = Places::of(&ours.makeflags().unwrap());
        assert!(matches!(theirs, Places::Shared(_)));
        // Ours is running, theirs is one of ours, and two more places are in the pipe.
        assert!(ours.admits(0) && ours.admits(1) && theirs.admits(0) && theirs.admits(1));
        assert!(!ours.admits(2) && !theirs.admits(2));
        drop(theirs);
        assert!(ours.admits(2) && !ours.admits(3));
        let same = ours.or_shared(100);
        assert!(
            !Places::of(&same.makeflags().unwrap()).admits(1),
            "places that are limited stay as they are"
        );
        assert_eq!(Places::Free.makeflags(), None);
        assert!(matches!(Places::of(&Places::One.makeflags().unwrap()), Places::One));
    }

    #[test]
    fn a_pipe_that_cannot_be_opened_leaves_one_place() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "x").unwrap();
        for auth in ["fifo:/no/such/file", "999,999", "x", "-2,-2", &format!("fifo:{}", file.display())] {
            let mut places = Places::of(&format!("w -j --jobserver-auth={auth}"));
            assert!(places.admits(0) && !places.admits(1), "{auth}");
        }
        assert!(Places::of("w -j4").admits(100) && Places::of("").admits(1));
    }
}
