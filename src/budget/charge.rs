//! One release, paid for: the charge is on disk before its key is drawn, the release once the output has its name.
//!
//! What is cut off in between stays charged. A run that is made again draws new noise and pays again, unless it gives the
//! same bytes: the key of a resumable charge is kept until its release, and only for the same inputs and settings; and
//! an output that stands there already is not made again.

use crate::budget::account::Account;
use crate::budget::directory::{Books, BudgetError, Directory};
use crate::budget::series::WrongRound;
use crate::budget::stamp::{Stamp, StampedModel};
use crate::io::secret;
use crate::kernels::discrete_gaussian::Level;
use crate::privacy::event::Event;
use crate::privacy::key::{KEY_BYTES, Key};
use crate::privacy::ledger::budget::{self, Verdict};
use crate::privacy::ledger::record::{Charge, Entry, Mechanism, Release, Rng};
use crate::privacy::ledger::replay::{Charged, Fate};
use crate::record::Head;
use crate::record::sha256::Sha256;
use std::path::{Path, PathBuf};
use zeroize::Zeroize;

/// What a round wants to release.
#[derive(Clone, PartialEq, Debug)]
pub struct Request {
    /// Its number.
    pub round: Option<u64>,
    /// Coordinates of an update.
    pub dimension: u64,
    /// The clients that take part, by their ids; where nothing hangs on that, none may be named.
    pub clients: Vec<String>,
    /// Those whose updates are in sums that were made before, which cannot be left out any more.
    pub summed: Vec<String>,
    /// Of all that the output depends on, but the key: updates in order, weights, base, state, settings.
    pub inputs_sha256: Sha256,
    /// Where the output is to be published.
    pub output: PathBuf,
    /// Whether its key is kept until it is, so that it can be made again for the same bytes.
    pub resumable: bool,
    /// Makes the key from this number, for tests: the output is NOT private.
    pub test_seed: Option<u64>,
}

/// Whether it may.
#[derive(Debug)]
pub enum Answer {
    /// It may, with this key.
    Granted(Grant),
    /// It did: the output that stands there is that release, and nothing is to be done.
    Existing(ExistingRelease),
    /// The budget does not hold it.
    Refused(Verdict),
    /// It is a round of a run, and not its turn.
    WrongRound(WrongRound),
}

/// A charge that is on disk, and the key for its noise.
#[derive(Debug)]
pub struct Grant {
    /// Its record.
    pub charge: Head,
    /// What it is called.
    pub release_id: String,
    /// How it is made.
    pub mechanism: Mechanism,
    /// What its noise comes from.
    pub key: Key,
    /// Whether an earlier run paid for it.
    pub resumed: bool,
    /// Whether each of the clients that were named counts; the others count as zero.
    pub counted: Vec<bool>,
    /// Its number, if it is a round of a run.
    pub(crate) round: Option<u64>,
    pub(crate) plan_sha256: Sha256,
    /// Whether its noise comes from a number that somebody chose.
    pub(crate) is_test: bool,
}

/// An output that was released before.
#[derive(Clone, PartialEq, Debug)]
pub struct ExistingRelease {
    /// Where it is: the file, or the index.
    pub path: PathBuf,
    /// What it is called.
    pub release_id: String,
}

/// How noise is made in a round.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Terms {
    /// How long an update may be, S.
    pub clip: f64,
    /// Standard deviation of the noise that is drawn over the clip bound, both in units of the grid: how fine that is.
    pub value_multiplier: f64,
    /// What the sum is divided by.
    pub denominator: u64,
    /// How fine the noise is.
    pub level: Level,
}

impl Request {
    /// All clients, those of sums behind the others.
    pub(crate) fn all_clients(&self) -> impl Iterator<Item = &String> {
        self.clients.iter().chain(&self.summed)
    }
}

impl Grant {
    /// What the output is to say of it, as metadata. `next_clip` is the clip bound of the next round, if that follows the
    /// norms.
    pub fn marks(&self, next_clip: Option<f64>) -> Stamp {
        Stamp {
            release_id: self.release_id.clone(),
            charge: self.charge,
            plan_sha256: self.plan_sha256,
            next_clip,
            is_test: self.is_test,
        }
    }
}

impl Books {
    /// How the noise of the next round is made, for updates of so many coordinates.
    ///
    /// # Errors
    ///
    /// When the plan is of another model.
    pub fn terms(&self, dimension: u64) -> Result<Terms, BudgetError> {
        let plan = self.state.plan();
        if let Some(expected) = plan.dimension.filter(|expected| *expected != dimension) {
            return Err(BudgetError::Dimension { found: dimension, expected });
        }
        Ok(Terms {
            clip: self.state.clip,
            value_multiplier: plan.drawn_multiplier()?,
            denominator: plan.denominator,
            level: plan.level_for(dimension),
        })
    }
}

impl Account {
    /// How the noise of the next round is made, for updates of so many coordinates.
    ///
    /// # Errors
    ///
    /// When the plan is of another model.
    pub fn terms(&self, dimension: u64) -> Result<Terms, BudgetError> {
        self.books.terms(dimension)
    }

    /// Charges a release, and draws its key once that is on disk; or says that it stands there already, or that the budget
    /// does not hold it.
    ///
    /// # Errors
    ///
    /// When it cannot be written: it may have been charged all the same.
    pub fn charge(&mut self, request: &Request) -> Result<Answer, BudgetError> {
        if let Some(correlated) = self.plan().correlated {
            return self.charge_round(&correlated, request);
        }
        let mechanism = self.mechanism(request)?;
        if let Some(answer) = self.again(request, &mechanism)? {
            return Ok(answer);
        }
        let event = self.plan().event()?;
        let (head, release_id) = match self.pay(request, &mechanism, event, |_| Ok(()))? {
            Ok(paid) => paid,
            Err(verdict) => return Ok(Answer::Refused(verdict)),
        };
        // Only now: from here on noise may be seen.
        let key = request.test_seed.map_or_else(Key::draw, |seed| Ok(Key::of_test_seed(seed)))?;
        if request.resumable {
            let path = self.books.directory.key(head.seq);
            secret::write(&path, key.bytes()).map_err(BudgetError::at(&path))?;
        }
        let granted = self.granted(head, release_id, mechanism, key, false);
        Ok(Answer::Granted(Grant { counted: vec![true; request.clients.len()], ..granted }))
    }

    /// Writes a charge down, if the budget holds it: the record, and the name of what is released. What has to be on disk
    /// before is `prepare`d.
    pub(crate) fn pay(
        &mut self,
        request: &Request,
        mechanism: &Mechanism,
        event: Event,
        prepare: impl FnOnce(&Directory) -> Result<(), BudgetError>,
    ) -> Result<Result<(Head, String), Verdict>, BudgetError> {
        let noise = self.plan().noise_of(mechanism.level, mechanism.d);
        let verdict = budget::would(self.state(), &event, Some(noise), None)?;
        let (Some((eps_rdp, eps_pld, slack)), true) = (verdict.told(), verdict.fits()) else {
            return Ok(Err(verdict));
        };
        prepare(&self.books.directory)?;
        let release_id = self.next_release_id();
        let charge = Charge {
            release_id: release_id.clone(),
            round: request.round,
            event,
            adjacency: self.plan().adjacency,
            unit: self.plan().unit,
            mechanism: Some(mechanism.clone()),
            delta_target: self.plan().delta,
            plan_sha256: self.state().init.plan_sha256,
            reserve: None,
            eps_rdp,
            eps_pld,
            slack,
            rng: rng(request),
            text: None,
        };
        Ok(Ok((self.append(Entry::Charge(Box::new(charge)))?, release_id)))
    }

    pub(crate) fn granted(
        &self,
        charge: Head,
        release_id: String,
        mechanism: Mechanism,
        key: Key,
        resumed: bool,
    ) -> Grant {
        let plan_sha256 = self.state().init.plan_sha256;
        let paid = self.state().charges.iter().rev().find(|charged| charged.head == charge);
        let is_test = paid.is_some_and(|charged| charged.charge.rng == Rng::TestSeed);
        let (counted, round) = (Vec::new(), None);
        Grant { charge, release_id, mechanism, key, resumed, counted, round, plan_sha256, is_test }
    }

    pub(crate) fn mechanism(&self, request: &Request) -> Result<Mechanism, BudgetError> {
        let Terms { clip, level, denominator, .. } = self.terms(request.dimension)?;
        Ok(Mechanism {
            z: self.plan().noise_multiplier,
            q: self.plan().sampling_rate,
            clip,
            n_pub: denominator,
            d: request.dimension,
            level,
            inputs_sha256: request.inputs_sha256,
            output: crate::io::publish::resolved(&request.output).to_string_lossy().into_owned(),
            resumable: request.resumable,
            clients_sha256: None,
        })
    }

    /// The answer to a run that is made again for the same bytes: what stands there is told, what can be made again is
    /// granted for nothing.
    fn again(&mut self, request: &Request, mechanism: &Mechanism) -> Result<Option<Answer>, BudgetError> {
        let same = |charged: &&Charged| {
            let known = charged.charge.mechanism.as_ref();
            let alike = known.is_some_and(|known| {
                Mechanism { resumable: mechanism.resumable, ..known.clone() } == *mechanism
            });
            alike
                && charged.charge.round == request.round
                && charged.charge.rng == rng(request)
                && charged.tool_version == env!("CARGO_PKG_VERSION")
        };
        let candidates: Vec<Charged> = self.state().charges.iter().filter(same).cloned().collect();
        for charged in candidates.iter().rev() {
            // A number that somebody chose may be another this time.
            if request.test_seed.is_none()
                && let Some(standing) = self.standing(charged)?
            {
                return Ok(Some(Answer::Existing(standing)));
            }
            if charged.fate == Fate::Open
                && let Some(key) = self.kept_key(charged.head.seq)?
            {
                let release_id = charged.charge.release_id.clone();
                let granted = self.granted(charged.head, release_id, mechanism.clone(), key, true);
                let granted = Grant { counted: vec![true; request.clients.len()], ..granted };
                return Ok(Some(Answer::Granted(granted)));
            }
        }
        Ok(None)
    }

    /// The output of a charge, if it stands where it was to be, as it was released; a release that was not recorded is.
    pub(crate) fn standing(&mut self, charged: &Charged) -> Result<Option<ExistingRelease>, BudgetError> {
        let Some(output) = self.books.output_of(charged)? else { return Ok(None) };
        match &charged.fate {
            Fate::Open => drop(self.adopt_output(charged, &output)?),
            Fate::Released { output_sha256, .. } if output.sha256()? == *output_sha256 => {}
            _ => return Ok(None),
        }
        Ok(Some(ExistingRelease { path: output.path, release_id: charged.charge.release_id.clone() }))
    }

    fn kept_key(&self, seq: u64) -> Result<Option<Key>, BudgetError> {
        self.key_in(&self.books.directory.key(seq))
    }

    /// The key that is kept in a file, if one is.
    pub(crate) fn key_in(&self, path: &Path) -> Result<Option<Key>, BudgetError> {
        let bytes = secret::read::<KEY_BYTES>(path).map_err(BudgetError::at(path))?;
        Ok(bytes.map(|mut bytes| {
            let key = Key::kept(bytes);
            bytes.zeroize();
            key
        }))
    }

    /// Records that an output was published, with the marks of its charge as metadata, and wipes its key.
    ///
    /// # Errors
    ///
    /// When the output cannot be read or has other marks, or the record cannot be written: the charge stands, and `privacy recover` tells it.
    pub fn release(
        &mut self,
        granted: Grant,
        output: &Path,
        next_clip: Option<f64>,
    ) -> Result<Head, BudgetError> {
        let published = StampedModel::published(output)?;
        let is_its_own = |marked: &StampedModel| marked.marks == Some(granted.marks(next_clip));
        let published = published.filter(is_its_own).ok_or_else(|| BudgetError::NotOpen {
            seq: granted.charge.seq,
            why: format!("no model that names it stands at {}", output.display()),
        })?;
        let output_sha256 = published.sha256()?;
        if let Some(head) = self.released_before(&granted, output_sha256)? {
            return Ok(head);
        }
        let release = Release {
            charge: granted.charge.seq,
            release_id: granted.release_id.clone(),
            output_sha256,
            next_clip,
        };
        let head = self.append(Entry::Release(release))?;
        self.wipe_key(granted.charge.seq)?;
        self.wipe_run_if_over()?;
        Ok(head)
    }
}

impl Account {
    /// Where it was recorded that this charge was released, if it was: a round of a run that was made again.
    fn released_before(&self, granted: &Grant, found: Sha256) -> Result<Option<Head>, BudgetError> {
        let seq = granted.charge.seq;
        let charged = self.state().charges.iter().find(|charged| charged.head == granted.charge);
        let Some(Fate::Released { output_sha256, .. }) = charged.map(|charged| &charged.fate) else {
            return Ok(None);
        };
        if found == *output_sha256 {
            return Ok(Some(self.state().head));
        }
        let why = format!("was released before, as {output_sha256}; it was made again as {found}");
        Err(BudgetError::NotOpen { seq, why })
    }
}

pub(crate) fn rng(request: &Request) -> Rng {
    if request.test_seed.is_some() { Rng::TestSeed } else { Rng::Os }
}
