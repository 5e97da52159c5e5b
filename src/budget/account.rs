//! A privacy budget that its holder may spend from: one writer at a time, every record on disk before it counts.

use crate::budget::clients;
use crate::budget::directory::{Books, BudgetError, Directory};
use crate::budget::stamp::{Stamp, StampedModel};
use crate::io::digest::hex;
use crate::io::journal::{Journal, Lock};
use crate::io::{cache, journal, publish, secret};
use crate::privacy::event::Event;
use crate::privacy::ledger::budget::{self, Verdict};
use crate::privacy::ledger::plan::BudgetPlan;
use crate::privacy::ledger::record::{Adopt, Charge, Entry, Init, Note, Release, Reserve, Rng, Void};
use crate::privacy::ledger::replay::{Charged, Fate, State};
use crate::record::{self, Head};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// So much of a torn line is noted.
const TORN_NOTED: usize = 200;

/// A ledger that its holder may write to.
#[derive(Debug)]
pub struct Account {
    pub(crate) books: Books,
    journal: Journal,
}

/// Something that was spent elsewhere.
#[derive(Clone, PartialEq, Debug)]
pub struct Elsewhere {
    /// What it cost.
    pub event: Event,
    /// The reserve that it takes, by number.
    pub reserve: Option<u64>,
    /// The round that it is of.
    pub round: Option<u64>,
    /// What it was.
    pub text: Option<String>,
}

/// Whether the budget holds what is asked for.
#[derive(Clone, Debug)]
pub enum Paid {
    /// It does, and this record says so.
    Recorded(Head, Verdict),
    /// It does not.
    Refused(Verdict),
}

impl Account {
    /// Starts a ledger with a plan.
    ///
    /// # Errors
    ///
    /// When there is one already, the plan cannot be, or files cannot be written.
    pub fn init(path: &Path, plan: &BudgetPlan) -> Result<Self, BudgetError> {
        plan.check()?;
        let directory = Directory::new(path);
        let stored = plan.frozen();
        // The lock is a file in the directory, so that comes first; it holds nothing that anybody counts on.
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
        let (line, _) = record::seal(None, now(), &Entry::Init(Box::new(init)))?;
        journal.append(&line)?;
        let lines = journal::read(&directory.ledger())?;
        let books = Books::of(directory, lines, None)?;
        books.directory.write_head(&books.state.head)?;
        Ok(Self { books, journal })
    }

    /// Opens a ledger for writing, once no other run does; reads and checks it.
    ///
    /// # Errors
    ///
    /// When there is none, or anything about it is wrong.
    pub fn open(path: &Path) -> Result<Self, BudgetError> {
        let directory = Directory::new(path);
        if !directory.ledger().is_file() && directory.read_head()?.is_none() {
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
        account.wipe_old_keys()?;
        Ok(account)
    }

    /// Wipes the keys of charges that are settled: a run may have been cut off before it did.
    fn wipe_old_keys(&self) -> Result<(), BudgetError> {
        let settled = self.state().charges.iter().filter(|charged| charged.fate != Fate::Open);
        let resumable =
            |charged: &&Charged| charged.charge.mechanism.as_ref().is_some_and(|how| how.resumable);
        settled.filter(resumable).try_for_each(|charged| self.wipe_key(charged.head.seq))?;
        self.wipe_run_if_over()
    }

    /// What was read, and what was written since.
    pub fn books(&self) -> &Books {
        &self.books
    }

    /// What the ledger comes to.
    pub fn state(&self) -> &State {
        &self.books.state
    }

    /// The plan that was frozen.
    pub fn plan(&self) -> &BudgetPlan {
        self.books.state.plan()
    }

    /// Holds the ledger against the model that a round starts from: one that was released before.
    ///
    /// # Errors
    ///
    /// When the ledger is older than that model, or was rewritten since.
    pub fn check_base(&self, path: &Path, marks: &Stamp) -> Result<(), BudgetError> {
        if self.books.knows(marks) {
            return self.books.check_marks(path, marks);
        }
        tracing::warn!(
            "{}: was released from another budget, of which this ledger knows nothing",
            path.display()
        );
        Ok(())
    }

    /// Writes a record, and waits until it is on disk.
    pub(crate) fn append(&mut self, entry: Entry) -> Result<Head, BudgetError> {
        if !self.books.torn.is_empty() {
            let torn = std::mem::take(&mut self.books.torn);
            self.append_one(Entry::Note(Note { text: torn_note(&torn) }))?;
        }
        self.append_one(entry)
    }

    fn append_one(&mut self, entry: Entry) -> Result<Head, BudgetError> {
        let after = self.books.state.head;
        let (line, head) = record::seal(Some(&after), now(), &entry)?;
        // Read as it will be read: what cannot be must not be written.
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

    /// The name of the release that the next record charges.
    pub(crate) fn next_release_id(&self) -> String {
        let torn = u64::from(!self.books.torn.is_empty());
        format!("{}-{}", self.state().short_id(), self.state().head.seq + 1 + torn)
    }

    /// Charges something that was spent elsewhere, if the budget holds it.
    ///
    /// # Errors
    ///
    /// When its cost is not known, or it cannot be written.
    pub fn spend(&mut self, spent: &Elsewhere) -> Result<Paid, BudgetError> {
        let verdict = budget::would(self.state(), &spent.event, None, spent.reserve)?;
        let (Some((rdp, pld, slack)), true) = (verdict.told(), verdict.fits()) else {
            return Ok(Paid::Refused(verdict));
        };
        let plan = self.plan();
        let charge = Charge {
            release_id: self.next_release_id(),
            round: spent.round,
            event: spent.event.clone(),
            adjacency: plan.adjacency,
            unit: plan.unit,
            mechanism: None,
            delta_target: plan.delta,
            plan_sha256: self.state().init.plan_sha256,
            reserve: spent.reserve,
            eps_rdp: rdp,
            eps_pld: pld,
            slack,
            rng: Rng::External,
            text: spent.text.clone(),
        };
        let head = self.append(Entry::Charge(Box::new(charge)))?;
        Ok(Paid::Recorded(head, verdict))
    }

    /// Sets a part of the budget aside, if there is so much.
    ///
    /// # Errors
    ///
    /// When its cost is not known, or it cannot be written.
    pub fn reserve(&mut self, event: Event, text: String) -> Result<Paid, BudgetError> {
        let verdict = budget::would(self.state(), &event, None, None)?;
        if !verdict.fits() {
            return Ok(Paid::Refused(verdict));
        }
        let head = self.append(Entry::Reserve(Reserve { event, text }))?;
        Ok(Paid::Recorded(head, verdict))
    }

    /// Takes a charge or a reserve back, on somebody's word that nothing of it was seen. Its key is wiped first: nothing
    /// can be made with it any more.
    ///
    /// # Errors
    ///
    /// When it is not open, its output stands where it was to be, or it cannot be written.
    pub fn void(&mut self, seq: u64, attest: &str) -> Result<Head, BudgetError> {
        if let Some(charged) = self.state().charges.iter().find(|charged| charged.head.seq == seq)
            && let Some(found) = self.books.output_of(charged)?
        {
            let why = format!("{} was made with it: it was released", found.path.display());
            return Err(BudgetError::NotOpen { seq, why });
        }
        if let Some(charged) = self.state().charges.iter().find(|charged| charged.head.seq == seq)
            && self.state().is_of_run(&charged.charge)
        {
            let why = "is a round of a run: its noise is part of that of later rounds".to_owned();
            return Err(BudgetError::NotOpen { seq, why });
        }
        let key = self.books.directory.key(seq);
        let is_open = self.state().orphans().any(|charged| charged.head.seq == seq);
        if is_open {
            secret::wipe(&key).map_err(BudgetError::at(&key))?;
        }
        self.append(Entry::Void(Void { charge: seq, attest: attest.to_owned() }))
    }

    /// Records the release of a charge whose output was published before a run could say so; which was found where it was
    /// to be, or here.
    ///
    /// # Errors
    ///
    /// When there is no such output, or the record cannot be written.
    pub fn adopt(&mut self, seq: u64, path: Option<&Path>) -> Result<Head, BudgetError> {
        let not_open = |why: &str| BudgetError::NotOpen { seq, why: why.to_owned() };
        let found = self.state().orphans().find(|charged| charged.head.seq == seq);
        let charged = found.ok_or_else(|| not_open("is no charge whose release is missing"))?.clone();
        let output = match path {
            Some(path) => Some(StampedModel::open(path)?).filter(|marked| marked.is_of(&charged)),
            None => self.books.output_of(&charged)?,
        };
        let output = output.ok_or_else(|| not_open("no output was made with it there"))?;
        self.adopt_output(&charged, &output)
    }

    pub(crate) fn adopt_output(
        &mut self,
        charged: &Charged,
        output: &StampedModel,
    ) -> Result<Head, BudgetError> {
        let release = Release {
            charge: charged.head.seq,
            release_id: charged.charge.release_id.clone(),
            output_sha256: output.sha256()?,
            next_clip: output.marks.as_ref().and_then(|marks| marks.next_clip),
        };
        let output = output.path.to_string_lossy().into_owned();
        let head = self.append(Entry::Adopt(Adopt { release, output }))?;
        self.wipe_key(charged.head.seq)?;
        self.wipe_run_if_over()?;
        Ok(head)
    }

    pub(crate) fn wipe_key(&self, seq: u64) -> Result<(), BudgetError> {
        let key = self.books.directory.key(seq);
        secret::wipe(&key).map_err(BudgetError::at(&key))
    }
}

impl Books {
    /// What stands where a charge's output was to be, if it was made with that charge.
    ///
    /// # Errors
    ///
    /// When a model stands there that cannot be read.
    pub fn output_of(&self, charged: &Charged) -> Result<Option<StampedModel>, BudgetError> {
        let Some(mechanism) = &charged.charge.mechanism else { return Ok(None) };
        let found = StampedModel::published(Path::new(&mechanism.output))?;
        Ok(found.filter(|marked| marked.is_of(charged)))
    }
}

impl StampedModel {
    /// Whether it was made with this charge.
    pub fn is_of(&self, charged: &Charged) -> bool {
        self.marks.as_ref().is_some_and(|marks| marks.charge == charged.head)
    }
}

/// What is noted of a line that was not finished.
fn torn_note(torn: &[u8]) -> String {
    let start = String::from_utf8_lossy(&torn[..torn.len().min(TORN_NOTED)]);
    format!("{} bytes of a line that was never finished were taken away: {start}", torn.len())
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
