//! Checks envelopes: a helper opens those sealed for it, and reports what does not hold its seeds.

use crate::engine::passes::machine::Machine;
use crate::modes::secure::folder::{LANES, SessionFolder};
use crate::modes::secure::keys::seeds;
use crate::modes::secure::manifest::Manifest;
use crate::modes::secure::set::SetMember;
use crate::parties::SECAGG_PROTOCOL;
use crate::parties::error::SecureError;
use crate::parties::fault::LeftOutClient;
use crate::parties::fault::MessageFault;
use crate::parties::identity::{Identity, Stage};
use crate::parties::signed_lanes::{LanesFile, LanesReader};
use crate::parties::signed_text::SignedText;
use crate::record::sha256::Sha256;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The report of a helper on the envelopes for it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct CheckReport {
    /// The protocol.
    pub protocol: String,
    /// The session.
    pub session: Sha256,
    /// The helper.
    pub helper: String,
    /// Clients whose seeds the helper holds.
    pub sound: Vec<SetMember>,
    /// Clients whose signed file is there, and holds no such seeds.
    pub bad: Vec<BadEnvelope>,
    /// Files that are no message of a client: their signature says so to all parties.
    pub unsigned: Vec<LeftOutClient>,
}

/// A client whose envelope does not hold its seeds.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct BadEnvelope {
    /// The client and its file.
    pub member: SetMember,
    /// Why.
    pub fault: MessageFault,
}

/// Opens a client's signed file. `sender` is the name of the file; `None` for other names, and for what is no file.
///
/// # Errors
///
/// Why it is no message of an eligible client.
pub fn open_masked(
    manifest: &Manifest,
    reader: &LanesReader,
    sender: Option<&str>,
    path: &Path,
) -> Result<(String, LanesFile), LeftOutClient> {
    let name =
        || path.file_name().unwrap_or_default().to_string_lossy().chars().take(200).collect::<String>();
    let Some(sender) = sender else {
        let (client, fault) = match name().strip_suffix(LANES) {
            Some(sender) => (sender.to_owned(), MessageFault::Unreadable("not a regular file".to_owned())),
            None => (name(), MessageFault::Misnamed(name(), format!("CLIENT{LANES}"))),
        };
        return Err(LeftOutClient { client, fault });
    };
    let left_out = |fault| LeftOutClient { client: sender.to_owned(), fault };
    let client = manifest
        .client(sender)
        .ok_or_else(|| left_out(MessageFault::UnknownSender(sender.to_owned(), "client".to_owned())))?;
    let statement = manifest.statement(Stage::Mask, sender, None);
    let file = reader.open(path, &statement, manifest.masked_shape(), &client.ed25519);
    file.map(|file| (sender.to_owned(), file)).map_err(left_out)
}

/// Checks the envelopes of all clients whose files are there, and publishes the report. Returns it, and its path.
///
/// # Errors
///
/// When the session cannot be read, the identity is no helper of it, or the report cannot be written.
pub fn run(
    folder: &SessionFolder,
    identity: &Identity,
    machine: &Machine,
) -> Result<(CheckReport, PathBuf), SecureError> {
    let manifest = folder.manifest()?;
    let number = helper_of(&manifest, identity)?;
    let helper = manifest.terms.helpers[number - 1].id.clone();
    let (reader, all) = (LanesReader::default(), folder.all_masked()?);
    let mut report = CheckReport {
        protocol: SECAGG_PROTOCOL.to_owned(),
        session: manifest.session,
        helper: helper.clone(),
        sound: Vec::new(),
        bad: Vec::new(),
        unsigned: Vec::new(),
    };
    let check = |(sender, path): &(Option<String>, PathBuf)| {
        let (client, file) = open_masked(&manifest, &reader, sender.as_deref(), path)?;
        let member = SetMember { client, file: file.digest() };
        let opened = seeds::open(&manifest, &(number, identity), &member.client, file.extra());
        Ok((member, opened.map(drop)))
    };
    let checked: Vec<Result<_, LeftOutClient>> = machine.pool.install(|| all.par_iter().map(check).collect());
    for one in checked {
        match one {
            Ok((member, Ok(()))) => report.sound.push(member),
            Ok((member, Err(fault))) => report.bad.push(BadEnvelope { member, fault }),
            Err(left_out) => report.unsigned.push(left_out),
        }
    }
    let path = folder.check(&helper);
    folder.make_room(&path)?;
    SignedText::sign(&report, Stage::Check, identity)?.publish(&path)?;
    Ok((report, path))
}

/// The number of the helper with this key.
///
/// # Errors
///
/// When the manifest has none.
pub fn helper_of(manifest: &Manifest, identity: &Identity) -> Result<usize, SecureError> {
    manifest.helper_number(&identity.verifying()).ok_or_else(|| {
        SecureError::refused(
            "the manifest has no helper with this key",
            Some("pass the key of a helper of this session"),
        )
    })
}

/// The reports that helpers of a session signed. Ones that are not signed so are left out with a warning.
///
/// # Errors
///
/// When a report cannot be read.
pub fn reports(folder: &SessionFolder, manifest: &Manifest) -> Result<Vec<CheckReport>, SecureError> {
    let mut reports = Vec::new();
    for helper in &manifest.terms.helpers {
        let path = folder.check(&helper.id);
        if !crate::io::folder::exists(&path) {
            continue;
        }
        let read = SignedText::read(&path).and_then(|text| {
            let report = text.verified::<CheckReport>(Stage::Check, &helper.id, &helper.ed25519);
            report.map_err(SecureError::file(&path))
        });
        match read {
            Ok(report) if report.session == manifest.session && report.helper == helper.id => {
                reports.push(report)
            }
            Ok(_) => tracing::warn!("{}: is a report of another session: it does not count", path.display()),
            Err(why) => tracing::warn!("{why}: the report does not count"),
        }
    }
    Ok(reports)
}
