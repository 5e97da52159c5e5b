//! Part files: some lanes of a sum or of an answer, signed by the party that computed them.
//!
//! ```text
//! sum-2-of-3.safetensors     lanes of the masked sum, and what the machine found of each client
//! help-2-of-3.safetensors    lanes of a helper's answer
//! ```
//!
//! The bytes between the digest of the lanes and the signature are the number of the part and the number of parts, as two
//! little-endian u64, and in a sum the findings of [`sum`](super::sum).

use crate::engine::passes::machine::Machine;
use crate::io::digest::tree::TREE_CHUNK;
use crate::io::folder::{EntryKind, entries, make_folder_of};
use crate::io::interrupt;
use crate::kernels::field::{P, all_below};
use crate::modes::secure::folder::{LANES, SessionFolder};
use crate::modes::secure::manifest::Manifest;
use crate::modes::secure::parts::draft::refuse_session;
use crate::modes::secure::sum::TakeSums;
use crate::parties::error::SecureError;
use crate::parties::fault::MessageFault;
use crate::parties::hex::Hex;
use crate::parties::identity::{Identity, Stage};
use crate::parties::signed_lanes::{LanesAudit, LanesFile, LanesReader, LanesWriter, Shape, Statement};
use crate::record::sha256::Sha256;
use crate::settings::shard::Shard;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Lanes that are copied at once.
const LANES_AT_ONCE: usize = 1 << 20;

/// Lanes of a chunk of BLAKE3's tree.
const CHUNK_LANES: usize = TREE_CHUNK / size_of::<u32>();

/// Bytes of the number of a part and the number of parts.
const NUMBER_BYTES: usize = 16;

/// The parts of one message.
pub struct Parts<'p> {
    /// The folder of the parts.
    pub folder: &'p Path,
    manifest: &'p Manifest,
    statement: Statement,
    key: Hex<32>,
}

/// A part that was read, without its lanes.
pub struct Part {
    /// Its lanes in each row of the message.
    pub range: Range<usize>,
    file: LanesFile,
    audit: LanesAudit,
}

impl<'p> Parts<'p> {
    /// The parts of a message over a set of clients. `stage` is [`Stage::SumPart`] or [`Stage::HelpPart`].
    pub fn new(
        folder: &'p Path,
        manifest: &'p Manifest,
        stage: Stage,
        (sender, identity): (&str, &Identity),
        set: Sha256,
    ) -> Self {
        let statement = manifest.statement(stage, sender, Some(set));
        Self { folder, manifest, statement, key: identity.verifying() }
    }

    /// The lanes of a part in each row.
    pub fn range(&self, shard: Shard) -> Range<usize> {
        let lanes = self.manifest.terms.lanes();
        let chunks = shard.part_of(lanes.div_ceil(CHUNK_LANES));
        (chunks.start * CHUNK_LANES).min(lanes)..(chunks.end * CHUNK_LANES).min(lanes)
    }

    fn shape(&self, shard: Shard, findings: usize) -> Shape {
        let Shape { rows, .. } = self.manifest.sums_shape();
        Shape { rows, lanes: self.range(shard).len(), extra: NUMBER_BYTES + findings }
    }

    /// The start of a part's name.
    fn stem(&self) -> &'static str {
        if self.statement.stage == Stage::HelpPart { "help" } else { "sum" }
    }

    /// The path of a part.
    pub fn path(&self, shard: Shard) -> PathBuf {
        let (stem, number, of) = (self.stem(), shard.number(), shard.count());
        self.folder.join(format!("{stem}-{number}-of-{of}{LANES}"))
    }

    /// The shard in the name of a part; `None` for other names.
    fn shard_of(&self, name: &str) -> Option<Shard> {
        let numbers = name.strip_suffix(LANES)?.strip_prefix(self.stem())?.strip_prefix('-')?;
        let (number, of) = numbers.split_once("-of-")?;
        let shard = Shard::new(number.parse().ok()?, of.parse().ok()?)?;
        (self.path(shard).file_name()? == name).then_some(shard)
    }

    /// Starts a part with `findings` more bytes, in place of one that is there.
    ///
    /// # Errors
    ///
    /// When it cannot be written, or the folder is that of messages of the session.
    pub fn create(
        &self,
        session: &SessionFolder,
        shard: Shard,
        findings: usize,
    ) -> Result<LanesWriter<'_>, SecureError> {
        let path = self.path(shard);
        refuse_session(self.folder, session)?;
        make_folder_of(&path).map_err(SecureError::io(&path))?;
        LanesWriter::create(&path, &self.statement, self.shape(shard, findings))
    }

    /// Opens all parts and verifies their signatures, in order. `findings` is the number of more bytes of a part.
    ///
    /// # Errors
    ///
    /// When one is missing, or is no part of this message.
    pub fn open_all(&self, findings: impl Fn(Range<usize>) -> usize) -> Result<Vec<Part>, SecureError> {
        let all = self.shards()?;
        let reader = LanesReader::default();
        let open = |shard: Shard| {
            let (path, range) = (self.path(shard), self.range(shard));
            let shape = self.shape(shard, findings(range.clone()));
            let opened = reader.open(&path, &self.statement, shape, &self.key);
            let opened = opened.and_then(|file| check_number(&file, shard).map(|()| file));
            let file = opened.map_err(SecureError::file(&path))?;
            let audit = file.audit();
            Ok(Part { range, file, audit })
        };
        all.into_iter().map(open).collect()
    }

    /// All shards, of which each has a file.
    fn shards(&self) -> Result<Vec<Shard>, SecureError> {
        let mut found: Vec<Shard> = Vec::new();
        for (name, kind) in entries(self.folder).map_err(SecureError::io(self.folder))? {
            if !name.ends_with(LANES) {
                continue;
            }
            let path = self.folder.join(&name);
            let fault = |fault| SecureError::file(&path)(fault);
            let shard = self.shard_of(&name).filter(|_| kind == EntryKind::File).ok_or_else(|| {
                let expected = format!("{}-I-of-S{LANES}, a regular file", self.stem());
                fault(MessageFault::Misnamed(name.clone(), expected))
            })?;
            if let Some(other) = found.first().filter(|other| !other.is_cut_as(shard)) {
                let why = format!("is shard {shard}, and {} is there too", self.path(*other).display());
                return Err(fault(MessageFault::Format(why)));
            }
            found.push(shard);
        }
        let all = || found.first().into_iter().flat_map(|first| first.all());
        let missing = all().find(|shard| !found.contains(shard));
        match missing {
            Some(shard) => Err(self.missing(&self.path(shard), &shard.to_string())),
            None if found.is_empty() => Err(self.missing(self.folder, "I/S")),
            None => Ok(all().collect()),
        }
    }

    fn missing(&self, path: &Path, shard: &str) -> SecureError {
        let what = if path == self.folder { "has no part" } else { "is not there yet" };
        let hint = format!("run `fedmill secagg {} --shard {shard}` for it", self.stem());
        SecureError::refused(format!("{}: {what}", path.display()), Some(&hint))
    }
}

/// The number of a part, as bytes.
pub fn number_bytes(shard: Shard) -> Vec<u8> {
    [shard.number(), shard.count()].iter().flat_map(|number| (*number as u64).to_le_bytes()).collect()
}

fn check_number(file: &LanesFile, shard: Shard) -> Result<(), MessageFault> {
    match file.extra().starts_with(&number_bytes(shard)) {
        true => Ok(()),
        false => Err(MessageFault::Format(format!("is the part of another shard, expected shard {shard}"))),
    }
}

impl Part {
    /// The findings of its machine.
    pub fn findings(&self) -> &[u8] {
        &self.file.extra()[NUMBER_BYTES..]
    }

    /// The path of its file.
    pub fn path(&self) -> &Path {
        self.file.path()
    }
}

/// Reads the lanes of all parts once, and hands them to `take`, row behind row.
///
/// # Errors
///
/// When lanes do not have their digest or are not in the field, or `take` fails.
pub fn join(
    parts: Vec<Part>,
    rows: usize,
    machine: &Machine,
    take: &mut TakeSums,
) -> Result<(), SecureError> {
    machine.pool.install(|| join_on_threads(parts, rows, machine, take))
}

fn join_on_threads(
    mut parts: Vec<Part>,
    rows: usize,
    machine: &Machine,
    take: &mut TakeSums,
) -> Result<(), SecureError> {
    let mut lanes = Vec::new();
    for row in 0..rows {
        for Part { range, file, audit } in &mut parts {
            let start = row * range.len();
            for first in (start..start + range.len()).step_by(LANES_AT_ONCE) {
                interrupt::check()?;
                lanes.resize(LANES_AT_ONCE.min(start + range.len() - first), 0);
                file.read(first, &mut lanes).map_err(SecureError::file(file.path()))?;
                audit.add_shared(&lanes);
                if !all_below(machine.isa, &lanes) {
                    let place = lanes.iter().position(|lane| *lane >= P).unwrap_or(0);
                    let fault =
                        MessageFault::OutsideField { lane: (first + place) as u64, found: lanes[place] };
                    return Err(SecureError::file(file.path())(fault));
                }
                take(&lanes)?;
            }
        }
    }
    for Part { file, audit, .. } in parts {
        audit.end(&file).map_err(SecureError::file(file.path()))?;
    }
    Ok(())
}
