//! A ledger open for writing: one writer at a time, and each record is on disk before it counts.

use crate::budget::books::Books;
use crate::budget::clients;
use crate::budget::directory::Directory;
use crate::budget::error::BudgetError;
use crate::budget::kept::KeptOutputs;
use crate::budget::stamp::{Stamp, StampedModel};
use crate::io::child::allowance;
use crate::io::digest::hex;
use crate::io::journal::{Journal, Lock};
use crate::io::{cache, journal, publish};
use crate::privacy::event::Event;
use crate::privacy::ledger::budget::{self, Spent, Verdict};
use crate::privacy::ledger::plan::BudgetPlan;
use crate::privacy::ledger::record::{
    Adopt, Charge, ChargeEpsilons, Epsilon, Init, LedgerEntry, Note, Release, Reserve, Rng, SecureSum, Void,
};
use crate::privacy::ledger::replay::{ChargeRecord, Fate, State};
use crate::record::sha256::Sha256;
use crate::record::{self, Head};
use std::collections::HashSet;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes of an unfinished line that its note quotes.
const QUOTED_BYTES: usize = 200;

/// Bytes of room for the records of a release.
const ROOM_BYTES: u64 = 1 << 16;

/// A ledger open for writing. It holds the lock of the directory.
#[derive(Debug)]
pub struct Account {
    pub(super) books: Books,
    journal: Journal,
}

/// A release that fedmill does not make, to be charged.
#[derive(Clone, PartialEq, Debug)]
pub struct ExternalSpend {
    /// The cost.
    pub event: Event,
    /// Number of the reserve that it uses.
    pub reserve: Option<u64>,
    /// Number of its round.
    pub round: Option<u64>,
    /// The user's description.
    pub text: Option<String>,
    /// The secure sum that it pays for.
    pub secure: Option<SecureSum>,
}

/// Whether the budget holds a charge or a reserve.
#[derive(Clone, Debug)]
pub enum SpendAnswer {
    /// The budget holds it; this record is on disk.
    Recorded(Head, Verdict),
    /// The budget does not hold it; nothing was written.
    Refused(Verdict),
}

impl Account {
    /// Starts a ledger with a plan.
    ///
    /// # Errors
    ///
    /// When the directory holds a ledger, the plan is not valid, or a file cannot be written.
    pub fn init(path: &Path, plan: &BudgetPlan) -> Result<Self, BudgetError> {
        plan.check()?;
        let directory = Directory::new(path);
        let stored = plan.frozen();
        // The lock is a file in the directory, so the directory comes first.
        publish::make_directory(path).map_err(BudgetError::at(path))?;
        let lock = Lock::take(&directory.lock())?;
        let (mut journal, lines) = Journal::open(&directory.ledger(), lock)?;
        if directory.read_head()?.is_some() || !lines.text.is_empty() {
            return Err(BudgetError::Exists { path: path.to_owned() });
        }
        cache::write(&directory.plan(), stored.as_bytes()).map_err(BudgetError::at(&directory.plan()))?;
        if plan.correlated.is_some() {
            clients::draw_key(&directory)?;
        }
        let mut id = [0; 16];
        getrandom::fill(&mut id)?;
        let init = Init { ledger_id: hex(&id), plan: plan.clone(), plan_sha256: plan.sha256() };
        let (line, _) = record::seal(None, now(), &LedgerEntry::Init(Box::new(init)))?;
        journal.append(&line)?;
        let lines = journal::read(&directory.ledger())?;
        let books = Books::of(directory, lines, None)?;
        books.directory.write_head(&books.state.head)?;
        Ok(Self { books, journal })
    }

    /// Waits for the lock of a ledger, then reads and checks the ledger.
    ///
    /// # Errors
    ///
    /// When there is no ledger, or it has a fault.
    pub fn open(path: &Path) -> Result<Self, BudgetError> {
        let directory = Directory::new(path);
        if !journal::exists(&directory.ledger()) && directory.read_head()?.is_none() {
            return Err(BudgetError::NoLedger { path: path.to_owned() });
        }
        let lock = Lock::take(&directory.lock())?;
        let head = directory.read_head()?;
        let (journal, lines) = Journal::open(&directory.ledger(), lock)?;
        let books = Books::of(directory, lines, head)?;
        if head != Some(books.state.head) {
            books.directory.write_head(&books.state.head)?;
        }
        let account = Self { books, journal };
        account.clean()?;
        Ok(account)
    }

    /// Wipes what a process that was stopped may have left: keys and outputs of settled charges, and temporaries.
    fn clean(&self) -> Result<(), BudgetError> {
        let open: HashSet<u64> = self.state().orphans().map(|charge| charge.head.seq).collect();
        self.books.directory.clean(|number| open.contains(&number))?;
        self.books.wipe_series_if_over()
    }

    /// The ledger, with the records written since it was opened.
    pub fn books(&self) -> &Books {
        &self.books
    }

    /// The state that the records lead to.
    pub fn state(&self) -> &State {
        &self.books.state
    }

    /// The frozen plan.
    pub fn plan(&self) -> &BudgetPlan {
        self.books.state.plan()
    }

    /// Checks the ledger against the stamp of the model that a round starts from.
    ///
    /// # Errors
    ///
    /// When the ledger is older than that model, or was rewritten since, or the charge of the model was voided.
    pub fn check_base(&self, path: &Path, stamp: &Stamp) -> Result<(), BudgetError> {
        if self.books.knows(stamp) {
            self.books.check_stamp(path, stamp)?;
            return self.books.check_not_void(path, stamp);
        }
        tracing::warn!(
            "{}: was released from another budget, which this ledger does not count",
            path.display()
        );
        Ok(())
    }

    /// Notes what the ledger comes to with a charge or a reserve in the allowances of the runners around this process.
    fn note(&self, spent: &Spent) -> Result<(), BudgetError> {
        let fault = |source| BudgetError::Allowance { why: format!("cannot be checked: {source}") };
        let plan = self.plan();
        let epsilon = spent.epsilon(plan.accountant);
        for allowance in allowance::inherited().map_err(fault)? {
            let why = allowance.note(&self.books.directory.path, epsilon, plan.delta).map_err(fault)?;
            if let Some(why) = why {
                return Err(BudgetError::Allowance { why: format!("come to {why}") });
            }
        }
        Ok(())
    }

    /// Writes a record, and returns when it is on disk. A charge must be within the limits of the runner that started this
    /// process.
    pub(super) fn append(&mut self, entry: LedgerEntry) -> Result<Head, BudgetError> {
        if let LedgerEntry::Charge(charge) = &entry {
            let (rdp, pld) = (charge.eps_rdp.get(), charge.eps_pld.map(Epsilon::get));
            self.note(&Spent { rdp, order: None, pld, slack: None })?;
        }
        if !self.books.torn.is_empty() {
            let torn = std::mem::take(&mut self.books.torn);
            self.append_one(LedgerEntry::Note(Note { text: torn_note(&torn) }))?;
        }
        self.append_one(entry)
    }

    /// Reserves room on disk for the records of a release: its charge, a key, and the release.
    pub(super) fn reserve_room(&self) -> Result<(), BudgetError> {
        Ok(self.journal.reserve(ROOM_BYTES)?)
    }

    fn append_one(&mut self, entry: LedgerEntry) -> Result<Head, BudgetError> {
        let after = self.books.state.head;
        let (line, head) = record::seal(Some(&after), now(), &entry)?;
        // Reads the line before writing it: a line that readers would refuse must not be written.
        let (record, _) = record::read(&line, Some(&after))?;
        let mut state = self.books.state.clone();
        state
            .take(&record, head)
            .map_err(|error| BudgetError::Replay { path: self.books.directory.ledger(), error })?;
        self.journal.append(&line)?;
        self.books.state = state;
        self.books.records.push((record, head));
        self.books.directory.write_head(&head)?;
        Ok(head)
    }

    /// The number of the next record.
    pub(super) fn next_seq(&self) -> u64 {
        self.state().head.seq + 1 + u64::from(!self.books.torn.is_empty())
    }

    /// The name of the release that the next record charges.
    pub(super) fn next_release_id(&self) -> String {
        format!("{}-{}", self.state().short_id(), self.next_seq())
    }

    /// Charges a release that fedmill does not make, if the budget holds it.
    ///
    /// # Errors
    ///
    /// When its cost is not known, or the record cannot be written.
    pub fn spend(&mut self, spend: &ExternalSpend) -> Result<SpendAnswer, BudgetError> {
        let noise = spend.secure.as_ref().map(SecureSum::integer_noise);
        let verdict = budget::would(self.state(), &spend.event, noise, spend.reserve)?;
        let Some(epsilons) = verdict.epsilons() else { return Ok(SpendAnswer::Refused(verdict)) };
        let charge = Charge {
            round: spend.round,
            reserve: spend.reserve,
            text: spend.text.clone(),
            secure: spend.secure.clone(),
            ..self.new_charge(spend.event.clone(), epsilons)
        };
        let head = self.append(LedgerEntry::Charge(Box::new(charge)))?;
        Ok(SpendAnswer::Recorded(head, verdict))
    }

    /// The next charge, of an external release.
    pub(super) fn new_charge(&self, event: Event, epsilons: ChargeEpsilons) -> Charge {
        let plan = self.plan();
        Charge {
            release_id: self.next_release_id(),
            round: None,
            event,
            adjacency: plan.adjacency,
            unit: plan.unit,
            mechanism: None,
            delta_target: plan.delta,
            plan_sha256: self.state().init.plan_sha256,
            reserve: None,
            eps_rdp: epsilons.rdp,
            eps_pld: epsilons.pld,
            slack: epsilons.slack,
            rng: Rng::External,
            text: None,
            contradiction: None,
            secure: None,
        }
    }

    /// Reserves a part of the budget for a later charge, if the budget holds it.
    ///
    /// # Errors
    ///
    /// When its cost is not known, or the record cannot be written.
    pub fn reserve(&mut self, event: Event, text: String) -> Result<SpendAnswer, BudgetError> {
        let verdict = budget::would(self.state(), &event, None, None)?;
        if !verdict.fits() {
            return Ok(SpendAnswer::Refused(verdict));
        }
        self.note(&verdict.after)?;
        let head = self.append(LedgerEntry::Reserve(Reserve { event, text }))?;
        Ok(SpendAnswer::Recorded(head, verdict))
    }

    /// Voids a charge or a reserve. `attest` is the operator's statement that its output was never seen. The key of the
    /// charge is wiped first, so that its noise cannot be made any more.
    ///
    /// # Errors
    ///
    /// When it is not open, its output exists, or the record cannot be written.
    pub fn void(&mut self, seq: u64, attest: &str) -> Result<Head, BudgetError> {
        match self.state().charges.iter().find(|charge| charge.head.seq == seq) {
            Some(charge) => self.check_voidable(charge)?,
            None => {
                let why =
                    "no charge of the ledger has this number; `fedmill privacy recover` lists the open ones";
                return Err(BudgetError::NotOpen { seq, why: why.to_owned() });
            }
        }
        if self.state().orphans().any(|charge| charge.head.seq == seq) {
            self.books.directory.settle(seq)?;
        }
        self.append(LedgerEntry::Void(Void { charge: seq, attest: attest.to_owned() }))
    }

    /// Refuses to void a charge whose outputs have their names, or cannot be found.
    fn check_voidable(&self, charge: &ChargeRecord) -> Result<(), BudgetError> {
        let seq = charge.head.seq;
        let refused = |why: String| Err(BudgetError::NotOpen { seq, why });
        if let Some(output) = self.books.output_of(charge)? {
            return refused(format!("{} is its output: it was released", output.path.display()));
        }
        if self.state().is_of_series(&charge.charge) {
            return refused("is a round of a series: its noise is part of later rounds".to_owned());
        }
        match &charge.fate {
            Fate::Released { seq: release, .. } => {
                return refused(format!(
                    "was released, as record {release} says, wherever its output is now"
                ));
            }
            Fate::Voided { attest } => return refused(format!("was voided before: `{attest}`")),
            Fate::Open | Fate::External => {}
        }
        let record = self.books.directory.outputs(seq);
        let kept = KeptOutputs::read(&self.books.directory, seq)?;
        if KeptOutputs::is_lost(&self.books.directory, seq, kept.as_ref())? {
            return refused(format!(
                "{}: was damaged or lost, so an output may have been published; the same command with the same inputs \
                 makes the same bytes and costs nothing",
                record.display()
            ));
        }
        let Some(kept) = kept else { return Ok(()) };
        if let Some(lost) = kept.lost_directory() {
            return refused(format!(
                "{}: does not exist, and may hold its outputs; give the directory its name back",
                lost.display()
            ));
        }
        match kept.seen() {
            None => Ok(()),
            Some(seen) => refused(format!(
                "{}: was published with its noise, wherever the file is now; `fedmill privacy recover` explains it",
                seen.display()
            )),
        }
    }

    /// Records the release of a charge whose output was published without a record. The output is at `path`, or where
    /// the charge says.
    ///
    /// # Errors
    ///
    /// When there is no such output, or the record cannot be written.
    pub fn adopt(&mut self, seq: u64, path: Option<&Path>) -> Result<Head, BudgetError> {
        let not_open = |why: &str| BudgetError::NotOpen { seq, why: why.to_owned() };
        let charge = self.state().orphans().find(|charge| charge.head.seq == seq).cloned();
        let charge = charge.ok_or_else(|| not_open("found no charge without a release"))?;
        let output = match path {
            Some(path) => Some(StampedModel::open(path)?).filter(|model| model.is_of(&charge)),
            None => self.books.output_of(&charge)?,
        };
        let output = output.ok_or_else(|| not_open("found no output of this charge there"))?;
        self.check_is_output(&charge, &output)?;
        self.adopt_output(&charge, &output)
    }

    /// Refuses a model that names a charge and is not what the run of the charge made.
    fn check_is_output(&self, charge: &ChargeRecord, model: &StampedModel) -> Result<(), BudgetError> {
        let seq = charge.head.seq;
        let refused = |path: &Path, found: Sha256, expected: String| {
            let path = path.display();
            let why = format!(
                "{path} has the digest {found}, expected {expected}: another program changed the file"
            );
            Err(BudgetError::NotOpen { seq, why })
        };
        if let Some(kept) = KeptOutputs::read(&self.books.directory, seq)?
            && let Some((path, found)) = kept.stranger(model.files())?
        {
            let expected: Vec<String> = kept.digests.iter().map(Sha256::to_string).collect();
            return refused(path, found, format!("{} as its run completed it", expected.join(" or ")));
        }
        let Some(own) = self.books.output_of(charge).ok().flatten() else { return Ok(()) };
        let (found, expected) = (model.sha256()?, own.sha256()?);
        match found == expected {
            true => Ok(()),
            false => refused(
                &model.path,
                found,
                format!("{expected} as {} has, which it published", own.path.display()),
            ),
        }
    }

    /// Records the release of a charge from its output, and wipes the key.
    pub(super) fn adopt_output(
        &mut self,
        charge: &ChargeRecord,
        output: &StampedModel,
    ) -> Result<Head, BudgetError> {
        let release = Release {
            charge: charge.head.seq,
            release_id: charge.charge.release_id.clone(),
            output_sha256: output.sha256()?,
            next_clip: output.stamp.as_ref().and_then(|stamp| stamp.next_clip),
        };
        let output = publish::resolved(&output.path).to_string_lossy().into_owned();
        let head = self.append(LedgerEntry::Adopt(Adopt { release, output }))?;
        self.books.directory.settle(charge.head.seq)?;
        self.books.wipe_series_if_over()?;
        Ok(head)
    }
}

/// The note about an unfinished line. Ledgers hold this text, so it must not change.
fn torn_note(torn: &[u8]) -> String {
    let start = String::from_utf8_lossy(&torn[..torn.len().min(QUOTED_BYTES)]);
    format!("{} bytes of a line that was never finished were taken away: {start}", torn.len())
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
