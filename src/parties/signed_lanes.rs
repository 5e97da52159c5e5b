//! Signed lanes: a safetensors file with the tensors `lanes` and, behind it, `proof`.
//!
//! The proof is the BLAKE3 digest of the lanes, bytes that the stage defines, and a signature. The signature covers the
//! header byte by byte and all of the proof before it, so it covers every byte of the file. A reader that needs no lanes
//! verifies the signature without reading them.

use crate::io::digest::Blake3;
use crate::io::limits::{Decoded, Limits};
use crate::io::model_file::{ModelFile, TablePool};
use crate::io::model_writer::{ModelWriter, header_bytes};
use crate::io::source::{OpenFiles, SourceFile};
use crate::model::dtype::Dtype;
use crate::model::layout::{Layout, Piece, TensorSpec};
use crate::parties::error::SecureError;
use crate::parties::fault::MessageFault;
use crate::parties::hex::Hex;
use crate::parties::identity::{Identity, SIGNATURE_BYTES, Stage, is_signed};
use crate::record::sha256::Sha256;
use crate::updates::metadata::LANES_KEY;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

/// Bytes of the digest of the lanes.
const DIGEST_BYTES: usize = 32;

/// The most bytes of a header: it has two tensors and a few words.
const MOST_HEADER_BYTES: u64 = 64 << 10;

/// The statement of a file, in its metadata.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Statement {
    /// The session.
    pub session: Sha256,
    /// The step of the session.
    pub stage: Stage,
    /// The id of the sender.
    pub sender: String,
    /// The digest of the frozen set, for stages after it.
    pub set: Option<Sha256>,
}

/// The shape of a file: rows of lanes, and bytes of the proof between the digest and the signature.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Rows of lanes, one for each group.
    pub rows: usize,
    /// Lanes of a row.
    pub lanes: usize,
    /// Bytes that the stage defines.
    pub extra: usize,
}

impl Statement {
    fn metadata(&self) -> BTreeMap<String, String> {
        let mut all: BTreeMap<String, String> = [
            (LANES_KEY.to_owned(), self.stage.protocol().to_owned()),
            ("sender".to_owned(), self.sender.clone()),
            ("session".to_owned(), self.session.to_string()),
            ("stage".to_owned(), self.stage.to_string()),
        ]
        .into();
        all.extend(self.set.map(|set| ("set".to_owned(), set.to_string())));
        all
    }

    /// Checks the metadata of a file against this statement.
    fn check(&self, found: &BTreeMap<String, String>) -> Result<(), MessageFault> {
        let expected = self.metadata();
        for key in found.keys().chain(expected.keys()) {
            let (found, expected) = (found.get(key), expected.get(key));
            if found != expected {
                let shown = |value: Option<&String>| {
                    value.map_or("missing".to_owned(), |value| format!("`{}`", short(value)))
                };
                return Err(MessageFault::Metadata {
                    key: short(key),
                    found: shown(found),
                    expected: expected.map_or("nothing".to_owned(), |value| short(value)),
                });
            }
        }
        Ok(())
    }
}

/// The start of a text that another party wrote.
pub fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

impl Shape {
    fn specs(self) -> [TensorSpec; 2] {
        let spec = |name: &str, dtype, shape: Vec<usize>| {
            let len = shape.iter().product();
            TensorSpec { name: name.to_owned(), dtype, shape, len }
        };
        let proof = DIGEST_BYTES + self.extra + SIGNATURE_BYTES;
        let lanes = if self.rows == 1 { vec![self.lanes] } else { vec![self.rows, self.lanes] };
        [spec("lanes", Dtype::U32, lanes), spec("proof", Dtype::U8, vec![proof])]
    }

    /// Lanes of all rows.
    fn all(self) -> usize {
        self.rows * self.lanes
    }
}

/// A file that is being written.
pub struct LanesWriter<'s> {
    writer: ModelWriter,
    statement: &'s Statement,
    shape: Shape,
    digest: Blake3,
    written: usize,
}

impl<'s> LanesWriter<'s> {
    /// Starts a file.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn create(target: &Path, statement: &'s Statement, shape: Shape) -> Result<Self, SecureError> {
        let layout = Layout::new(shape.specs().into());
        let writer = ModelWriter::create(target, &layout, &statement.metadata(), None)?;
        Ok(Self { writer, statement, shape, digest: Blake3::default(), written: 0 })
    }

    /// Appends lanes.
    ///
    /// # Errors
    ///
    /// When they cannot be written.
    pub fn append(&mut self, lanes: &[u32]) -> Result<(), SecureError> {
        let bytes = little_endian(lanes);
        self.digest.add_shared(&bytes);
        let piece = Piece { tensor: 0, start: self.written, len: lanes.len() };
        self.writer.write(std::iter::once(piece).filter(|piece| piece.len > 0), &bytes)?;
        self.written += lanes.len();
        Ok(())
    }

    /// Signs the file and publishes it, on disk. `extra` are the bytes that the stage defines.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn publish(self, extra: &[u8], identity: &Identity) -> Result<(), SecureError> {
        debug_assert_eq!(
            (self.written, extra.len()),
            (self.shape.all(), self.shape.extra),
            "the stated shape"
        );
        let header = header_bytes(&self.shape.specs(), &self.statement.metadata());
        let mut proof = [self.digest.bytes().as_slice(), extra].concat();
        let signature = identity.sign(self.statement.stage, &[header.as_slice(), &proof].concat());
        proof.extend(signature);
        let piece = Piece { tensor: 1, start: 0, len: proof.len() };
        self.writer.write(std::iter::once(piece), &proof)?;
        self.writer.sync()?;
        Ok(self.writer.publish()?)
    }
}

/// The bytes of lanes in a file.
pub fn little_endian(lanes: &[u32]) -> Cow<'_, [u8]> {
    match cfg!(target_endian = "little") {
        true => Cow::Borrowed(bytemuck::cast_slice(lanes)),
        false => Cow::Owned(lanes.iter().flat_map(|lane| lane.to_le_bytes()).collect()),
    }
}

/// A signed file whose signature is verified, and whose lanes are not read yet.
#[derive(Debug)]
pub struct LanesFile {
    source: SourceFile,
    shape: Shape,
    sender: String,
    lanes_digest: [u8; DIGEST_BYTES],
    extra: Vec<u8>,
    digest: [u8; 32],
}

/// Where the data of lanes begins in a file, by its session's cap on headers; one pool of tables for many files.
#[derive(Debug)]
pub struct LanesReader {
    files: OpenFiles,
    tables: TablePool,
}

impl Default for LanesReader {
    fn default() -> Self {
        Self { files: OpenFiles::raise_limit(), tables: TablePool::default() }
    }
}

impl LanesReader {
    /// Opens a file and verifies its statement, shape and signature. Reads no lanes.
    ///
    /// # Errors
    ///
    /// The first fault.
    pub fn open(
        &self,
        path: &Path,
        statement: &Statement,
        shape: Shape,
        key: &Hex<32>,
    ) -> Result<LanesFile, MessageFault> {
        let limits = Limits { header_bytes: MOST_HEADER_BYTES, tensors: 2, decoded: Decoded::OfFile };
        let model = ModelFile::open(path, &self.files, &self.tables, &limits);
        let model = model.map_err(|faults| MessageFault::of_file(&faults))?;
        statement.check(&model.metadata)?;
        check_tensors(&model, shape)?;
        let source = model.files.into_iter().next().ok_or(MessageFault::OtherForm)?;
        let unreadable = |why: std::io::Error| MessageFault::Unreadable(why.to_string());
        let header = header_bytes(&shape.specs(), &statement.metadata());
        let mut found = vec![0; header.len()];
        let [lanes, proof] = shape.specs();
        if source.place_of(0) != header.len() as u64
            || source.bytes() != (header.len() + lanes.bytes() + proof.bytes()) as u64
        {
            return Err(MessageFault::OtherForm);
        }
        source.read_exact_at(&mut found, 0).map_err(unreadable)?;
        if found != header {
            return Err(MessageFault::OtherForm);
        }
        let mut proof = vec![0; proof.bytes()];
        source.read_values_at(&mut proof, lanes.bytes() as u64).map_err(unreadable)?;
        LanesFile::verified(source, shape, statement, key, &header, &proof)
    }
}

fn check_tensors(model: &ModelFile, shape: Shape) -> Result<(), MessageFault> {
    let shown = |spec: &TensorSpec| format!("{:?} {:?}", spec.dtype, spec.shape);
    let missing = || "nothing".to_owned();
    for expected in &shape.specs() {
        let found = model.table.iter().find(|place| place.spec.name == expected.name);
        if found.is_none_or(|found| found.spec != *expected) {
            return Err(MessageFault::Tensor {
                tensor: expected.name.clone(),
                found: found.map_or_else(missing, |place| shown(&place.spec)),
                expected: shown(expected),
            });
        }
    }
    match model.table.iter().find(|place| !["lanes", "proof"].contains(&place.spec.name.as_str())) {
        Some(other) => Err(MessageFault::Tensor {
            tensor: short(&other.spec.name),
            found: shown(&other.spec),
            expected: missing(),
        }),
        None => Ok(()),
    }
}

impl LanesFile {
    fn verified(
        source: SourceFile,
        shape: Shape,
        statement: &Statement,
        key: &Hex<32>,
        header: &[u8],
        proof: &[u8],
    ) -> Result<Self, MessageFault> {
        let (signed, signature) =
            proof.split_last_chunk::<SIGNATURE_BYTES>().ok_or(MessageFault::OtherForm)?;
        let message = [header, signed].concat();
        if !is_signed(key, statement.stage, &message, signature) {
            return Err(MessageFault::Signature(statement.sender.clone()));
        }
        let (lanes_digest, extra) =
            signed.split_first_chunk::<DIGEST_BYTES>().ok_or(MessageFault::OtherForm)?;
        let digest = Blake3::of_bytes(&[header, proof].concat());
        let sender = statement.sender.clone();
        Ok(Self { source, shape, sender, lanes_digest: *lanes_digest, extra: extra.to_vec(), digest })
    }

    /// The digest of the header and the proof, which name every byte of the file.
    pub fn digest(&self) -> Hex<32> {
        Hex(self.digest)
    }

    /// The bytes that the stage defines.
    pub fn extra(&self) -> &[u8] {
        &self.extra
    }

    /// Checks a digest of the lanes against the one that the sender signed.
    ///
    /// # Errors
    ///
    /// When it is another one, or `None`.
    pub fn check_lanes_digest(&self, found: Option<[u8; 32]>) -> Result<(), MessageFault> {
        match found == Some(self.lanes_digest) {
            true => Ok(()),
            false => Err(MessageFault::LanesDigest(self.sender.clone())),
        }
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        self.source.path()
    }

    /// Reads lanes from `first` on, row behind row.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn read(&self, first: usize, lanes: &mut [u32]) -> Result<(), MessageFault> {
        let offset = (first * size_of::<u32>()) as u64;
        let read = self.source.read_values_at(bytemuck::cast_slice_mut(lanes), offset);
        read.map_err(|why| MessageFault::Unreadable(why.to_string()))?;
        lanes.iter_mut().for_each(|lane| *lane = u32::from_le(*lane));
        Ok(())
    }

    /// Starts a check of the lanes against their digest.
    pub fn audit(&self) -> LanesAudit {
        LanesAudit { digest: Blake3::default() }
    }

    /// The shape of the file.
    pub fn shape(&self) -> Shape {
        self.shape
    }
}

/// A check of the lanes of a file against the digest that its sender signed.
#[derive(Debug)]
pub struct LanesAudit {
    digest: Blake3,
}

impl LanesAudit {
    /// Adds the next lanes.
    pub fn add(&mut self, lanes: &[u32]) {
        self.digest.add_bytes(&little_endian(lanes));
    }

    /// Adds the next lanes. All threads of the current pool share the work.
    pub fn add_shared(&mut self, lanes: &[u32]) {
        self.digest.add_shared(&little_endian(lanes));
    }

    /// Ends the check, after all lanes were added.
    ///
    /// # Errors
    ///
    /// When they do not have their digest.
    pub fn end(self, file: &LanesFile) -> Result<(), MessageFault> {
        file.check_lanes_digest(Some(self.digest.bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(set: Option<Sha256>) -> Statement {
        Statement { session: Sha256::of("s"), stage: Stage::Help, sender: "helper-1".to_owned(), set }
    }

    fn read_all(
        path: &Path,
        statement: &Statement,
        shape: Shape,
        key: &Hex<32>,
    ) -> Result<(Vec<u32>, Vec<u8>), MessageFault> {
        let file = LanesReader::default().open(path, statement, shape, key)?;
        let mut lanes = vec![0; shape.all()];
        file.read(0, &mut lanes)?;
        let mut audit = file.audit();
        audit.add(&lanes);
        audit.end(&file)?;
        Ok((lanes, file.extra().to_vec()))
    }

    #[test]
    fn a_change_of_any_byte_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.safetensors");
        let identity = Identity::of([1; 32]);
        let (statement, shape) = (statement(Some(Sha256::of("set"))), Shape { rows: 2, lanes: 3, extra: 4 });
        let mut writer = LanesWriter::create(&path, &statement, shape).unwrap();
        writer.append(&[1, 2, 3, 4]).unwrap();
        writer.append(&[5, 4_294_967_290]).unwrap();
        writer.publish(b"more", &identity).unwrap();
        let key = identity.verifying();
        let whole = (vec![1, 2, 3, 4, 5, 4_294_967_290], b"more".to_vec());
        assert_eq!(read_all(&path, &statement, shape, &key), Ok(whole));
        let sound = std::fs::read(&path).unwrap();
        for at in 0..sound.len() {
            for change in [1, 0x80] {
                let mut changed = sound.clone();
                changed[at] ^= change;
                std::fs::write(&path, &changed).unwrap();
                assert!(read_all(&path, &statement, shape, &key).is_err(), "byte {at}");
            }
            std::fs::write(&path, &sound[..at]).unwrap();
            assert!(read_all(&path, &statement, shape, &key).is_err(), "cut at {at}");
        }
        std::fs::write(&path, [sound.as_slice(), b" "].concat()).unwrap();
        assert!(read_all(&path, &statement, shape, &key).is_err(), "longer");
        std::fs::write(&path, &sound).unwrap();
        let others = [
            Statement { session: Sha256::of("t"), ..statement.clone() },
            Statement { stage: Stage::Mask, ..statement.clone() },
            Statement { sender: "helper-2".to_owned(), ..statement.clone() },
            Statement { set: None, ..statement.clone() },
        ];
        for other in others {
            assert!(
                matches!(read_all(&path, &other, shape, &key), Err(MessageFault::Metadata { .. })),
                "{other:?}"
            );
        }
        let others =
            [Shape { rows: 3, lanes: 2, ..shape }, Shape { lanes: 4, ..shape }, Shape { extra: 5, ..shape }];
        for other in others {
            assert!(
                matches!(read_all(&path, &statement, other, &key), Err(MessageFault::Tensor { .. })),
                "{other:?}"
            );
        }
        let other = Identity::of([2; 32]).verifying();
        assert!(matches!(read_all(&path, &statement, shape, &other), Err(MessageFault::Signature(_))));
    }
}
