//! Registers the clients of a file, in one transaction.
//!
//! Reads row by row: memory does not grow with the file.

use crate::fleet::client::Profile;
use crate::fleet::elements::{Elements, LONGEST, Stop};
use crate::fleet::error::FleetError;
use crate::fleet::registry::{Batch, Put, Registry};
use crate::fleet::row::{self, Columns};
use crate::io::{interrupt, source};
use jiff::Timestamp;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// The format of a file of clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// A JSON array, or objects that follow each other.
    Json,
    /// A JSON object a line.
    Lines,
    /// Comma-separated values with a first row of names.
    Csv,
}

impl Format {
    /// The format that the name of a file says.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "json" => Some(Self::Json),
            "jsonl" | "ndjson" => Some(Self::Lines),
            "csv" => Some(Self::Csv),
            _ => None,
        }
    }
}

/// How to register the clients of a file.
#[derive(Clone, Copy, Debug)]
pub struct ImportRequest<'a> {
    /// The file; `-` is standard input.
    pub path: &'a Path,
    /// Its format.
    pub format: Format,
    /// Whether a client that is registered gets the new values. It keeps its history.
    pub update: bool,
    /// Whether bad rows are left out; else one of them stops the import.
    pub skip_bad: bool,
    /// When the clients register.
    pub now: Timestamp,
    /// The public key of the one client of the file; `None` for what the file says.
    pub key: Option<&'a PartyKey>,
}

/// A public key, and the id that its party gave itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartyKey {
    /// The id.
    pub id: String,
    /// The public key of its signatures, in hexadecimal digits.
    pub ed25519: String,
}

impl ImportRequest<'_> {
    /// A client with the key of the request.
    fn with_key(&self, row: Result<Profile, String>) -> Result<Profile, String> {
        match (row?, self.key) {
            (row, None) => Ok(row),
            (row, Some(key)) if key.id != row.id => {
                Err(format!("the public key is that of `{}`, expected that of `{}`", key.id, row.id))
            }
            (row, Some(key)) => Ok(Profile { public_key: Some(key.ed25519.clone()), ..row }),
        }
    }
}

/// What an import did.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Imported {
    /// Rows of the file.
    pub rows: u64,
    /// New clients.
    pub added: u64,
    /// Clients with new values.
    pub updated: u64,
    /// Rows that are bad.
    pub bad: u64,
}

/// Rows between two looks for a signal.
const LISTEN_EVERY: u64 = 1024;

/// What a reader does with a row: its line, and its client or what is wrong with it.
type Take<'t> = dyn FnMut(u64, Result<Profile, String>) -> Result<(), FleetError> + 't;

/// Registers the clients of a file. Calls `on_bad` with the line of each bad row and what is wrong.
///
/// # Errors
///
/// When the file or the registry cannot be read, or a row is bad and bad rows are not left out. Nothing is registered
/// then.
pub fn import(
    registry: &mut Registry,
    request: &ImportRequest,
    on_bad: &mut dyn FnMut(u64, &str),
) -> Result<Imported, FleetError> {
    let mut imported = Imported::default();
    let batch = registry.batch(request.now)?;
    let input = open(request.path)?;
    read(input, request, &mut |line, row| {
        let listens = imported.rows.is_multiple_of(LISTEN_EVERY);
        imported.rows += 1;
        if listens {
            interrupt::check()?;
        }
        if let Err(why) = put(&batch, request.update, request.with_key(row), &mut imported)? {
            imported.bad += 1;
            on_bad(line, &why);
        }
        Ok(())
    })?;
    if imported.bad > 0 && !request.skip_bad {
        let Imported { bad, rows, .. } = imported;
        return Err(FleetError::BadRows { path: request.path.to_owned(), bad, rows });
    }
    batch.commit()?;
    Ok(imported)
}

/// Registers the client of a row. Returns what is wrong with a bad row.
fn put(
    batch: &Batch,
    update: bool,
    row: Result<Profile, String>,
    imported: &mut Imported,
) -> Result<Result<(), String>, FleetError> {
    let profile = match row {
        Ok(profile) => profile,
        Err(why) => return Ok(Err(why)),
    };
    match batch.put(&profile, update)? {
        Put::Added => imported.added += 1,
        Put::Updated => imported.updated += 1,
        Put::Exists => {
            let id = &profile.id;
            return Ok(Err(format!("client `{id}` is registered already, here or in a row before")));
        }
    }
    Ok(Ok(()))
}

/// Opens a file, behind a byte order mark.
fn open(path: &Path) -> Result<Box<dyn BufRead>, FleetError> {
    let file: Box<dyn Read> = match path.as_os_str() == "-" {
        true => Box::new(io::stdin()),
        false => Box::new(source::open_regular(path).map_err(FleetError::io(path))?),
    };
    let mut input = BufReader::with_capacity(1 << 16, file);
    let start = input.fill_buf().map_err(FleetError::io(path))?;
    if start.starts_with("\u{feff}".as_bytes()) {
        input.consume(3);
    }
    Ok(Box::new(input))
}

fn read(input: Box<dyn BufRead>, request: &ImportRequest, take: &mut Take) -> Result<(), FleetError> {
    match request.format {
        Format::Json => read_json(input, request.path, take),
        Format::Lines => read_lines(input, request.path, take),
        Format::Csv => read_csv(input, request.path, take),
    }
}

fn read_json(input: Box<dyn BufRead>, path: &Path, take: &mut Take) -> Result<(), FleetError> {
    let mut elements = Elements::new(input).map_err(FleetError::io(path))?;
    let stop = |stop| match stop {
        Stop::Io(why) => FleetError::io(path)(why),
        Stop::Broken(line, why) => FleetError::Broken { path: path.to_owned(), line, why },
    };
    while let Some((line, text)) = elements.read_next().map_err(stop)? {
        match row::from_json(text) {
            Ok(profile) => take(line, Ok(profile))?,
            Err((below, why)) => take(line + below, Err(why))?,
        }
    }
    Ok(())
}

fn read_lines(mut input: Box<dyn BufRead>, path: &Path, take: &mut Take) -> Result<(), FleetError> {
    let mut text = Vec::new();
    for line in 1.. {
        text.clear();
        let read = (&mut input).take(LONGEST as u64).read_until(b'\n', &mut text);
        if read.map_err(FleetError::io(path))? == 0 {
            break;
        }
        if text.len() == LONGEST && text.last() != Some(&b'\n') {
            let why = format!("the line is longer than {LONGEST} bytes");
            return Err(FleetError::Broken { path: path.to_owned(), line, why });
        }
        if !text.trim_ascii().is_empty() {
            take(line, row::from_json(&text).map_err(|(_, why)| why))?;
        }
    }
    Ok(())
}

/// A text whose lines have at most [`LONGEST`] bytes: the parser keeps a whole row in memory.
struct ShortLines<R> {
    input: R,
    /// Bytes of the line that was begun last.
    bytes: usize,
}

impl<R: Read> Read for ShortLines<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        let end = buffer[..read].iter().rposition(|byte| *byte == b'\n');
        self.bytes = end.map_or(self.bytes + read, |end| read - end - 1);
        match self.bytes > LONGEST {
            true => Err(io::Error::other(format!(
                "found a line of more than {LONGEST} bytes, expected at most that"
            ))),
            false => Ok(read),
        }
    }
}

fn read_csv(mut input: Box<dyn BufRead>, path: &Path, take: &mut Take) -> Result<(), FleetError> {
    // The reader takes the carriage return for the end of a line: the line feed behind it is not counted yet.
    let first = input.fill_buf().map_err(FleetError::io(path))?;
    let end = first.iter().position(|byte| *byte == b'\n');
    let uncounted = u64::from(end.is_some_and(|end| first[..end].ends_with(b"\r")));
    let line_of = |place: Option<&csv::Position>| place.map_or(0, |place| place.line() + uncounted);
    let mut reader = csv::Reader::from_reader(ShortLines { input, bytes: 0 });
    let broken = |line, why: String| FleetError::Broken { path: path.to_owned(), line, why };
    let names = reader.headers().map_err(|why| broken(1, why.to_string()))?;
    let columns = Columns::read(names.iter()).map_err(|why| broken(1, why))?;
    let mut record = csv::StringRecord::new();
    loop {
        match reader.read_record(&mut record) {
            Ok(false) => return Ok(()),
            Ok(true) => {
                let line = line_of(record.position());
                take(line, columns.profile(record.iter()))?;
            }
            Err(why) => match why.kind() {
                csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                    let line = line_of(why.position());
                    take(line, Err(format!("found {len} cells, expected {expected_len}")))?;
                }
                csv::ErrorKind::Utf8 { .. } => {
                    let line = line_of(why.position());
                    take(line, Err("is not UTF-8".to_owned()))?;
                }
                _ => return Err(FleetError::io(path)(io::Error::other(why))),
            },
        }
    }
}
