//! The sessions of secure rounds: terms, keys of clients, and the server's part.
//!
//! The server's journal lies beside its key, as `fedmill secagg` has it.

use crate::fleet::client::may_sign;
use crate::fleet::error::FleetError;
use crate::fleet::registry::{Filter, Registry};
use crate::io::{folder, secret};
use crate::lint::{Finding, Level};
use crate::modes::secure::check::open_masked;
use crate::modes::secure::folder::SessionFolder;
use crate::modes::secure::groups::GroupTerms;
use crate::modes::secure::keys::sharing::Committee;
use crate::modes::secure::manifest::Manifest;
use crate::modes::secure::open::{self, Clips, CommitteeTerms, GridTerms, OpenOptions};
use crate::modes::secure::set::{FrozenSet, SetMember};
use crate::modes::secure::standing::Standing;
use crate::modes::secure::sum;
use crate::modes::secure::unmask::{self, UnmaskOptions, Unmasked};
use crate::parties::SECAGG_PROTOCOL;
use crate::parties::envelope::Suite;
use crate::parties::error::SecureError;
use crate::parties::identity::read_identities;
use crate::parties::identity::{Identity, PublicIdentity};
use crate::parties::signed_lanes::LanesReader;
use crate::parties::tensors::ClientWeights;
use crate::round::error::RoundError;
use crate::round::layout;
use crate::round::server::Server;
use crate::round::server::check::error;
use crate::round::server::options::with_keys;
use crate::round::world::{GroupMean, MaskedFile, Means, SessionOrder, Sessions};
use crate::telemetry::metrics::SecureFigures;
use crate::telemetry::progress::Progress;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::slice;

/// The folders that parties write into.
const SHARED: [&str; 4] = ["masked", "checks", "witnesses", "answers"];

/// The id of the mean of a session with one group.
const ONE_MEAN: &str = "secagg";

impl Sessions for Server {
    fn demand_secure(&self) -> Result<BTreeSet<String>, RoundError> {
        let registry = self.path(layout::REGISTRY);
        if !folder::exists(&registry) {
            return Ok(BTreeSet::new());
        }
        Registry::open(&registry).and_then(|clients| clients.demand_secure()).map_err(RoundError::work)
    }

    fn open_session(&mut self, order: &SessionOrder) -> Result<String, RoundError> {
        let folder = self.session_folder(order.round);
        for name in SHARED {
            folder.make_room(&folder.path().join(name).join("*")).map_err(of_settings)?;
        }
        let (identity, id) = self.server_identity()?;
        let manifest = match folder::exists(&folder.manifest_path()) {
            true => self.found(&folder, &identity, order)?,
            false => {
                let (options, progress) = (self.terms(order)?, Progress::hidden());
                let machine = self.machine(&progress);
                open::run(&folder, &options, (&identity, &id), machine).map_err(of_settings)?
            }
        };
        Ok(manifest.session.to_string())
    }

    fn session(&self, round: u64) -> Result<Option<String>, RoundError> {
        let folder = self.session_folder(round);
        if !folder::exists(&folder.manifest_path()) {
            return Ok(None);
        }
        folder.manifest().map(|manifest| Some(manifest.session.to_string())).map_err(RoundError::work)
    }

    fn masked(&self, round: u64) -> Result<Vec<MaskedFile>, RoundError> {
        let folder = self.session_folder(round);
        let manifest = folder.manifest().map_err(RoundError::work)?;
        let reader = LanesReader::default();
        let one = |(sender, path): (Option<String>, PathBuf)| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let opened = open_masked(&manifest, &reader, sender.as_deref(), &path);
            MaskedFile {
                path: format!("{}/masked/{name}", layout::session(round)),
                id: sender.unwrap_or(name),
                fault: opened.err().map(|left_out| left_out.fault.to_string()),
            }
        };
        Ok(folder.all_masked().map_err(RoundError::work)?.into_iter().map(one).collect())
    }

    fn standing(&self, round: u64, clients: &BTreeSet<String>) -> Result<Standing, RoundError> {
        Standing::of(&self.session_folder(round), clients).map_err(RoundError::work)
    }

    fn freeze(&mut self, round: u64, clients: &BTreeSet<String>) -> Result<(), RoundError> {
        let (folder, progress) = (self.session_folder(round), Progress::hidden());
        let (identity, _) = self.server_identity()?;
        let machine = self.machine(&progress);
        let summed = sum::run_among(&folder, &identity, &self.journal(), clients, &machine);
        summed.map(drop).map_err(RoundError::work)
    }

    fn unmask(&mut self, round: u64) -> Result<Means, RoundError> {
        let (folder, progress) = (self.session_folder(round), Progress::hidden());
        let manifest = folder.manifest().map_err(RoundError::work)?;
        let updates = layout::of_round(round, "updates");
        let is_one = manifest.terms.groups == 1;
        let output = if is_one { format!("{updates}/{ONE_MEAN}{}", layout::MODEL_ENDING) } else { updates };
        let options = UnmaskOptions { output: self.path(&output), sums: None, budget: None };
        let (identity, _) = self.server_identity()?;
        let done = unmask::run(&folder, &options, &identity, &self.machine(&progress));
        let done = done.map_err(RoundError::work)?;
        let frozen = FrozenSet::expect(&folder, &manifest).map_err(RoundError::work)?;
        Ok(means(&frozen, &done, round, is_one))
    }
}

/// The means of a session, and what its round reports.
fn means(frozen: &FrozenSet, done: &Unmasked, round: u64, is_one: bool) -> Means {
    let groups = (1..).zip(&frozen.set.groups).filter(|(_, group)| !group.is_empty());
    let mean = |(number, group): (usize, &Vec<SetMember>)| {
        let id = if is_one { ONE_MEAN.to_owned() } else { format!("group-{number}") };
        let path = layout::of_client(&layout::of_round(round, "updates"), &id, layout::MODEL_ENDING);
        GroupMean { id, path, clients: group.iter().map(|member| member.client.clone()).collect() }
    };
    let updates: Vec<GroupMean> = groups.map(mean).collect();
    let bad = frozen.set.left_out.iter().map(|one| (one.client.clone(), one.fault.to_string()));
    let small = frozen.set.in_small_groups.iter();
    let small = small.map(|id| (id.clone(), "the group of the client had too few masked updates".to_owned()));
    let transcript = &done.transcript;
    let figures = SecureFigures {
        session: transcript.session.to_string(),
        clients: frozen.set.members().count() as u64,
        groups: updates.len() as u64,
        answers: transcript.answers.keys().cloned().collect(),
        wrong: transcript.wrong.clone(),
    };
    Means { left_out: bad.chain(small).collect::<BTreeMap<_, _>>(), updates, figures }
}

/// An error of terms that come from the settings.
fn of_settings(why: SecureError) -> RoundError {
    match why {
        SecureError::Terms { .. } => RoundError::Setting { key: "secure", why: with_keys(&why.to_string()) },
        why => RoundError::work(why),
    }
}

impl Server {
    fn session_folder(&self, round: u64) -> SessionFolder {
        SessionFolder::new(&self.path(&layout::session(round)))
    }

    fn key(&self) -> PathBuf {
        self.root.join(&self.config.secure.key)
    }

    /// The server's journal of sessions.
    fn journal(&self) -> PathBuf {
        beside(&self.key(), ".journal")
    }

    /// The server's identity, and its id in its public key.
    fn server_identity(&self) -> Result<(Identity, String), RoundError> {
        let setting = |why: String| RoundError::Setting { key: "secure.key", why };
        let key = self.key();
        let path = key.display();
        let make = "`fedmill secagg keygen --id server -o FILE` makes one";
        let secret = secret::read_key(&key).map_err(|why| setting(format!("{path}: {why}")))?;
        let secret = secret.ok_or_else(|| setting(format!("{path}: found no secret key; {make}")))?;
        let identity = Identity::of(secret);
        let public = beside(&key, ".pub");
        let all = read_identities(slice::from_ref(&public)).map_err(|why| setting(why.to_string()))?;
        match all.into_iter().next().filter(|public| public.ed25519 == identity.verifying()) {
            Some(public) => Ok((identity, public.id)),
            None => Err(setting(format!("{}: is not the public key of {path}", public.display()))),
        }
    }

    fn helpers(&self) -> Result<Vec<PublicIdentity>, RoundError> {
        let folder = self.root.join(&self.config.secure.helpers);
        read_identities(&[folder])
            .map_err(|why| RoundError::Setting { key: "secure.helpers", why: why.to_string() })
    }

    /// The share of helpers that suffice; `None` if the keys of helpers cannot be read.
    pub(super) fn threshold_share(&self) -> Option<f64> {
        let helpers = self.helpers().ok()?.len();
        Some(self.threshold(helpers) as f64 / helpers as f64)
    }

    fn threshold(&self, helpers: usize) -> usize {
        self.config.secure.threshold.map_or(helpers / 2 + 1, |threshold| threshold as usize)
    }

    /// The terms of a session.
    fn terms(&self, order: &SessionOrder) -> Result<OpenOptions, RoundError> {
        let secure = &self.config.secure;
        let registry = Registry::open(&self.path(layout::REGISTRY)).map_err(RoundError::work)?;
        let clients: Result<Vec<PublicIdentity>, RoundError> =
            order.clients.iter().map(|id| public_of(&registry, id)).collect();
        let helpers = self.helpers()?;
        Ok(OpenOptions {
            base: self.path(&order.base),
            round: Some(order.round),
            clients: clients?,
            committee: CommitteeTerms {
                threshold: Some(self.threshold(helpers.len())),
                helpers,
                signs_set: secure.helpers_sign_set,
            },
            clips: Clips { parameters: secure.clip, statistics: secure.statistics_clip, controls: None },
            privacy: None,
            grid: GridTerms { levels: None, per_lane: secure.values_per_lane as u32, keep: secure.kept() },
            weights: secure.cap().map_or(ClientWeights::Uniform, |cap| ClientWeights::Examples { cap }),
            steps_cap: None,
            groups: GroupTerms { count: secure.groups as usize, hostile: None },
            min_survivors: secure.min_survivors.map(|least| least as usize),
            deadline: Some(order.deadline),
        })
    }

    /// The session that an earlier run opened for the same round.
    fn found(
        &self,
        folder: &SessionFolder,
        identity: &Identity,
        order: &SessionOrder,
    ) -> Result<Manifest, RoundError> {
        let manifest = folder.manifest().map_err(RoundError::work)?;
        sum::check_server(&manifest, identity).map_err(RoundError::work)?;
        let terms = &manifest.terms;
        let clients: BTreeSet<String> = terms.clients.iter().map(|client| client.id.clone()).collect();
        let base = layout::model(&terms.base.to_string());
        if (terms.round, terms.deadline, &clients, &base)
            == (Some(order.round), Some(order.deadline), &order.clients, &order.base)
        {
            return Ok(manifest);
        }
        Err(RoundError::Torn {
            path: folder.manifest_path().display().to_string(),
            found: "a session of another round".to_owned(),
            expected: format!("none, or that of round {} as it opened now", order.round),
            remedy: format!("move the folder {} away", layout::session(order.round)),
        })
    }

    /// Findings about the keys of secure rounds.
    pub(super) fn check_secure(&self) -> Vec<Finding> {
        if !self.config.secure.enabled {
            return Vec::new();
        }
        let secure = &self.config.secure;
        let mut findings = Vec::new();
        if let Err(why) = self.server_identity() {
            let found = secure.key.display().to_string();
            let remedy = "`fedmill secagg keygen --id server -o FILE`, and secure.key = FILE";
            findings.push(error("secure.key", found, no_round(&why), remedy));
        }
        match self.helpers() {
            Err(why) => {
                let found = secure.helpers.display().to_string();
                let remedy = "put the public keys of the helpers there, as files that end in .pub";
                findings.push(error("secure.helpers", found, no_round(&why), remedy));
            }
            Ok(helpers) => {
                let threshold = self.threshold(helpers.len());
                if let Some(checks) = secure.checks.filter(|checks| *checks > helpers.len() as u64) {
                    let why = format!("there are {} helpers, so that all of them must check", helpers.len());
                    let remedy = "leave checks out: the threshold then suffices";
                    findings.push(Finding {
                        level: Level::Warning,
                        ..error("secure.checks", checks, why, remedy)
                    });
                }
                if let Err(why) = Committee::new(helpers.len(), threshold) {
                    let remedy = "leave threshold out, for more than half of the helpers";
                    findings.push(error("secure.threshold", threshold, no_round(&why), remedy));
                }
            }
        }
        findings.extend(self.check_clients());
        findings
    }

    /// Clients without a key. A registry that cannot be read is another finding.
    fn check_clients(&self) -> Option<Finding> {
        let (mut all, mut able) = (0, 0);
        let filter = Filter { tier: None, with_retired: false, limit: None };
        let listed = Registry::open(&self.path(layout::REGISTRY)).and_then(|registry| {
            registry.list(&filter, |client| {
                all += 1;
                able += u64::from(may_sign(&client.profile.id, client.profile.public_key.as_deref()));
                Ok::<(), FleetError>(())
            })
        });
        listed.ok()?;
        let least = self.config.coordination.min_clients;
        let (level, why) = match able {
            _ if able == all => return None,
            _ if able < least => (Level::Error, format!("no round opens: min_clients is {least}")),
            _ => (Level::Warning, "rounds leave the others out".to_owned()),
        };
        let remedy = "`fedmill clients add DIR FILE --update --key PUB` for each, whose id has letters, digits, `.`, `_` and `-`";
        let found = format!("{able} of {all} clients with a key for secure aggregation");
        Some(Finding { level, key: layout::REGISTRY, found, why, remedy: remedy.to_owned() })
    }
}

fn no_round(why: &dyn std::fmt::Display) -> String {
    format!("no round opens: {why}")
}

/// A path with an ending behind it.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// A client as a party, by its key in the registry.
fn public_of(registry: &Registry, id: &str) -> Result<PublicIdentity, RoundError> {
    let client = registry.client(id).map_err(RoundError::work)?;
    let key = client.profile.public_key.unwrap_or_default();
    let ed25519 = key.parse().map_err(|_| RoundError::Setting {
        key: "secure",
        why: format!("client `{id}` has the public key `{key}`, expected the `ed25519` that `fedmill secagg keygen` writes"),
    })?;
    let (protocol, id) = (SECAGG_PROTOCOL.to_owned(), id.to_owned());
    // Envelopes are sealed for helpers alone.
    Ok(PublicIdentity { protocol, id, ed25519, suite: Suite::X25519, seal: String::new() })
}
