//! Opens a session: the server writes and signs the manifest.

use crate::engine::intake::policy::Policy;
use crate::engine::passes::machine::Machine;
use crate::io::folder::make_folder_of;
use crate::modes::secure::folder::SessionFolder;
use crate::modes::secure::groups::{GroupTerms, in_groups};
use crate::modes::secure::keys::sharing::Committee;
use crate::modes::secure::manifest::{Manifest, SessionTerms, parameters};
use crate::modes::secure::privacy::{PrivacyRequest, PrivacyTerms};
use crate::parties::SECAGG_PROTOCOL;
use crate::parties::envelope::Suite;
use crate::parties::error::SecureError;
use crate::parties::grid::{Grid, NoGrid};
use crate::parties::hex::Hex;
use crate::parties::identity::{Identity, PublicIdentity, Stage};
use crate::parties::reading;
use crate::parties::signed_text::SignedText;
use crate::parties::tensors::{ClientWeights, Held, LaneTensor, values_of};
use crate::privacy::ledger::plan::digest_of_names;
use crate::record::sha256::Sha256;
use crate::settings::share::Share;
use std::path::{Path, PathBuf};

/// The helpers of a session.
#[derive(Clone, Debug)]
pub struct CommitteeTerms {
    /// The helpers, in order of their numbers.
    pub helpers: Vec<PublicIdentity>,
    /// The number of helpers that suffice; `None` for more than half of them.
    pub threshold: Option<usize>,
    /// Whether helpers sign the set before they answer.
    pub signs_set: bool,
}

/// The largest magnitude of a change, by kind of tensor.
#[derive(Clone, Copy, Debug)]
pub struct Clips {
    /// Of a parameter.
    pub parameters: f64,
    /// Of a float statistic; `None` leaves statistics out.
    pub statistics: Option<f64>,
    /// Of a control variate; `None` if clients send none.
    pub controls: Option<f64>,
}

/// The integers that values become.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GridTerms {
    /// The largest integer of a value; `None` for the finest grid.
    pub levels: Option<u32>,
    /// Values in a lane.
    pub per_lane: u32,
    /// The part of the values of parameters that clients send: a count, or a fraction; `None` for all.
    pub keep: Option<Share>,
}

impl GridTerms {
    /// The grid for sums of up to `contributors` clients.
    fn grid(&self, contributors: u64, privacy: Option<&PrivacyTerms>) -> Result<Grid, SecureError> {
        let levels = privacy.map_or(self.levels, |privacy| Some(privacy.levels(contributors)));
        let grid = Grid::new(contributors, levels, self.per_lane);
        grid.map_err(|why| {
            let is_lane = levels.is_none() || matches!(why, NoGrid::PerLane(_));
            SecureError::terms(if is_lane { "--values-per-lane" } else { "--levels" }, why.to_string())
        })
    }

    /// The number of values that clients send of `parameters` values; `None` for all.
    fn kept(&self, parameters: usize) -> Option<u64> {
        self.keep.as_ref().map(|share| (share.of(parameters) as u64).max(1))
    }
}

/// The terms that the server chooses.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// The base.
    pub base: PathBuf,
    /// The number of the round.
    pub round: Option<u64>,
    /// The clients that may take part.
    pub clients: Vec<PublicIdentity>,
    /// The helpers.
    pub committee: CommitteeTerms,
    /// The largest changes. The clip of parameters follows from `privacy` if that is given.
    pub clips: Clips,
    /// How the sum is to be private; `None` for the exact sum.
    pub privacy: Option<PrivacyRequest>,
    /// The integers that values become.
    pub grid: GridTerms,
    /// The weights of clients.
    pub weights: ClientWeights,
    /// The most local steps that a client counts, if clients divide their changes by them.
    pub steps_cap: Option<u32>,
    /// The groups.
    pub groups: GroupTerms,
    /// The fewest clients of a sum; `None` for half of the smallest group, and at least 2.
    pub min_survivors: Option<usize>,
    /// Seconds since 1970 after which clients mask no more.
    pub deadline: Option<u64>,
}

/// Opens a session in a folder.
///
/// # Errors
///
/// When the terms cannot be, the base cannot be read, or the folder has a session.
pub fn run(
    folder: &SessionFolder,
    options: &OpenOptions,
    server: (&Identity, &str),
    machine: Machine,
) -> Result<Manifest, SecureError> {
    let path = folder.manifest_path();
    if crate::io::folder::exists(&path) {
        let hint = Some("name another folder: a session is opened once");
        return Err(SecureError::refused(format!("{}: is there already", path.display()), hint));
    }
    let terms = terms(options, server, machine)?;
    terms.check().map_err(|why| SecureError::terms("manifest", why))?;
    let text = SignedText::sign(&terms, Stage::Open, server.0)?;
    let manifest = Manifest::of(&text).map_err(SecureError::file(&path))?;
    make_folder_of(&path).map_err(SecureError::io(&path))?;
    text.publish(&path)?;
    Ok(manifest)
}

fn terms(
    options: &OpenOptions,
    (server, id): (&Identity, &str),
    machine: Machine,
) -> Result<SessionTerms, SecureError> {
    let opened = reading::open(&options.base, Vec::new(), Policy::default(), machine)?;
    if let Some(tensor) = opened.opaque() {
        return Err(packed(&options.base, tensor));
    }
    let tensors = opened.tensors(options.clips.statistics.is_some(), options.clips.controls.is_some());
    let suite = suite_of(&options.committee.helpers)?;
    let nonce = Hex(random()?);
    let clients = in_groups(&options.clients, options.groups, &nonce.0)?;
    let threshold = options.committee.threshold.unwrap_or(options.committee.helpers.len() / 2 + 1);
    let committee = Committee::new(options.committee.helpers.len(), threshold);
    let committee = committee.map_err(|why| SecureError::terms("--threshold", why.to_string()))?;
    let groups = options.groups.count;
    let largest = clients.len().div_ceil(groups) as u64;
    let min_survivors = options.min_survivors.unwrap_or((clients.len() / groups / 2).max(2));
    let privacy = options.privacy.as_ref();
    let privacy = privacy
        .map(|request| {
            PrivacyTerms::of_request(
                request,
                (largest, min_survivors),
                (values_of(&tensors), parameter_names(&tensors)),
            )
        })
        .transpose()?;
    let grid = options.grid.grid(largest, privacy.as_ref())?;
    let keep = options.grid.kept(parameters(&tensors));
    let mut terms = SessionTerms {
        protocol: SECAGG_PROTOCOL.to_owned(),
        nonce,
        round: options.round,
        server: server.public(id, suite),
        base: opened.base_digest()?,
        tensors_sha256: SessionTerms::digest_of(&tensors),
        tensors,
        clip: privacy.as_ref().map_or(options.clips.parameters, |privacy| privacy.clip(grid.levels)),
        statistics_clip: options.clips.statistics,
        control_clip: options.clips.controls,
        grid,
        weights: options.weights,
        steps_cap: options.steps_cap,
        groups,
        helpers: options.committee.helpers.clone(),
        threshold,
        tolerates_corrupt: 0,
        helpers_sign_set: options.committee.signs_set,
        suite,
        min_survivors,
        clients,
        deadline: options.deadline,
        keep,
        privacy,
    };
    terms.tolerates_corrupt = terms.corrupt_of(committee);
    Ok(terms)
}

/// The refusal of a base with a packed tensor.
fn packed(base: &Path, tensor: &str) -> SecureError {
    let why =
        format!("{}: tensor `{tensor}` is packed, and no sum of packed values has a meaning", base.display());
    SecureError::refused(why, Some("aggregate adapters, or a base with plain weights"))
}

/// The digest of the names of the parameters, as plans of budgets hold it.
fn parameter_names(tensors: &[LaneTensor]) -> Sha256 {
    let parameters = tensors.iter().filter(|tensor| tensor.held == Held::Parameter);
    digest_of_names(parameters.map(|tensor| tensor.name.as_str()).collect())
}

/// The key exchange that all helpers have.
fn suite_of(helpers: &[PublicIdentity]) -> Result<Suite, SecureError> {
    helpers
        .first()
        .map(|helper| helper.suite)
        .ok_or_else(|| SecureError::terms("--helpers", "found no helper, expected at least one public key"))
}

/// 32 bytes from the operating system.
fn random() -> Result<[u8; 32], SecureError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}
