//! A log file that keeps the first bytes up to a limit, and counts the others.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// A log file with a limit.
#[derive(Debug)]
pub struct CappedLog {
    file: File,
    left: u64,
    lost: u64,
}

impl CappedLog {
    /// Starts a log file, in place of what has its name: a command may have left a pipe or a link there.
    ///
    /// # Errors
    ///
    /// When it cannot be created.
    pub fn create(path: &Path, most: u64) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => Err(why),
            _ => Ok(Self { file: File::create_new(path)?, left: most, lost: 0 }),
        }
    }

    /// Adds bytes, as far as the limit allows.
    ///
    /// # Errors
    ///
    /// When they cannot be written.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let kept = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        self.file.write_all(&bytes[..kept])?;
        self.left -= kept as u64;
        self.lost += (bytes.len() - kept) as u64;
        Ok(())
    }

    /// Ends the file with a line that says how many bytes it lacks, if it does.
    ///
    /// # Errors
    ///
    /// When the line cannot be written.
    pub fn finish(mut self) -> io::Result<()> {
        match self.lost {
            0 => Ok(()),
            lost => self.file.write_all(format!("\n[{lost} more bytes were not kept]\n").as_bytes()),
        }
    }

    /// Whether bytes were left out.
    pub fn is_full(&self) -> bool {
        self.lost > 0
    }
}
