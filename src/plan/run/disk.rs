//! The real world of a run: its directory, the clock, and threads that make attempts.
//!
//! ```text
//! DIR/plan.json        the plan            DIR/events.jsonl     the journal, a sealed line an event
//! DIR/receipts/NAME.json                   DIR/store/           outputs by digest
//! DIR/out/NAME/        outputs by name     DIR/attempts/NAME/   folder, stdout and stderr of the last attempt
//! DIR/gates/NAME       answers of people   DIR/STOP             the kill file; `gates` reads the former
//! DIR/seen.json        digests of the files that a runner knew at its end, with their inodes and times
//! ```
//!
//! [`ends`] reports how attempts ended, and [`orphans`] ends what a killed runner left behind.

pub mod ends;
pub mod orphans;

use super::attempt::make;
use super::error::RunError;
use super::event::{Event, Failure, Line, Made};
use super::gates::{self, Answers};
use super::journal::{JOURNAL, Journal, LOCK};
use super::key::Key;
use super::ledger;
use super::process;
use super::publish::reads::Files;
use super::publish::receipts;
use super::world::{Account, Ended, Job, Receipt, Spent, Woken, World};
use crate::io::child::allowance::{Allowance, Notes};
use crate::io::child::jobserver;
use crate::io::interrupt;
use crate::io::journal::{Lock, MOST_OF_A_HOLDER, Taken};
use crate::io::{folder, text};
use crate::record::{Head, seal};
use crate::schema::limits::Limits;
use crate::schema::policy::{Answer, Gate};
use ends::Ends;
use jiff::Timestamp;
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// What the ledgers come to that commands charged, in the directory of a run.
const LEDGERS: &str = "ledgers.json";

/// Time for which a look at a lock may hold it.
const A_LOOK: Duration = Duration::from_millis(100);

/// The longest wait without a look at signals.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The directory of a run.
pub struct Disk {
    root: PathBuf,
    source: String,
    kill_file: PathBuf,
    /// The last line of the journal, and the bytes of its whole lines.
    end: (Option<Head>, u64),
    attempts: BTreeMap<Key, Arc<AtomicBool>>,
    /// The places for attempts that GNU make leaves to this process.
    places: jobserver::Places,
    /// What stands in the files of gates.
    answers: Answers,
    /// Whether a signal asked the runner to end.
    asked: bool,
    /// What the commands may charge to privacy budgets.
    allowance: Option<Allowance>,
    /// The files that the attempts read.
    files: Arc<Files>,
    /// Attempts that ended.
    ends: Ends,
    _lock: Option<Lock>,
}

/// Takes the lock of a run.
///
/// # Errors
///
/// When another runner holds it, or it cannot be taken.
pub fn lock(root: &Path) -> Result<Lock, RunError> {
    let path = root.join(LOCK);
    let fault = |why: crate::io::journal::JournalError| RunError::Write {
        path: path.clone(),
        source: std::io::Error::other(why.to_string()),
    };
    folder::make_folder_of(&path).map_err(|source| RunError::Write { path: path.clone(), source })?;
    let began = Instant::now();
    loop {
        match Lock::try_take(&path).map_err(fault)? {
            Taken::Ours(lock) => return Ok(lock),
            // A program that looks whether the lock is taken holds it for a moment.
            Taken::By(_) if began.elapsed() < A_LOOK => thread::sleep(A_LOOK / 10),
            Taken::By(holder) => return Err(RunError::Locked { path: root.to_owned(), holder }),
        }
    }
}

/// The process that works on a run; `None` if none does.
///
/// # Errors
///
/// When its lock cannot be read.
pub fn holder(root: &Path) -> Result<Option<String>, RunError> {
    let path = root.join(LOCK);
    let fault = |source| RunError::Read { path: path.clone(), source };
    let is_taken = Lock::is_taken(&path).map_err(|why| fault(std::io::Error::other(why.to_string())))?;
    if is_taken { text::read_at_most(&path, MOST_OF_A_HOLDER).map(Some).map_err(fault) } else { Ok(None) }
}

impl Disk {
    /// The world of a run whose lock this process holds. Ends the processes that a killed runner left behind.
    ///
    /// # Errors
    ///
    /// When another runner works on a run inside of this one, or a signal ends the wait for them.
    pub fn new(
        root: &Path,
        plan: &str,
        kill_file: &str,
        journal: &Journal,
        lock: Lock,
    ) -> Result<Self, RunError> {
        interrupt::ends_itself();
        orphans::end(root, holder)?;
        Ok(Self {
            root: root.to_owned(),
            source: format!("fedmill/plan/{plan}"),
            kill_file: root.join(kill_file),
            end: (journal.head, journal.bytes),
            attempts: BTreeMap::new(),
            places: jobserver::Places::of_make(),
            answers: Answers::default(),
            asked: false,
            allowance: None,
            files: Arc::default(),
            ends: Ends::default(),
            _lock: Some(lock),
        })
    }

    /// The same world, in which attempts read these files.
    #[must_use]
    pub fn with(mut self, files: Files) -> Self {
        self.files = Arc::new(files);
        self
    }

    /// Limits what the commands charge to privacy budgets, as the plan says; `folder` keeps what they charged.
    ///
    /// # Errors
    ///
    /// When the file of what they charged cannot be read.
    pub fn within(mut self, limits: &Limits, folder: &Path) -> Result<Self, RunError> {
        let path = folder.join(LEDGERS);
        self.allowance =
            limits.eps.map(|epsilon| Allowance { epsilon, delta: limits.delta, file: path.clone() });
        let forgotten = self.allowance.as_ref().map_or(Ok(()), Allowance::forget_refusal);
        forgotten.map_err(|source| RunError::Read { path, source })?;
        Ok(self)
    }

    /// Shares the places for attempts with the runs inside of this one, so that all together take at most `most`. Under
    /// GNU make they share its places.
    pub fn sharing(mut self, most: u32) -> Self {
        self.places = std::mem::take(&mut self.places).or_shared(most);
        self
    }

    /// The receipt in a file; of the instance with this name, where one is stated.
    fn read_receipt(&self, path: &Path, instance: Option<&str>) -> Result<Option<Receipt>, RunError> {
        receipts::read(&self.root, path, instance, &self.files.known)
    }
}

impl World for Disk {
    fn now(&mut self) -> f64 {
        Timestamp::now().as_duration().as_secs_f64()
    }

    fn append(&mut self, events: &[Event]) -> Result<(), RunError> {
        let path = self.root.join(JOURNAL);
        let now = Timestamp::now();
        let mut text = String::new();
        let (mut head, bytes) = self.end;
        for event in events {
            let line = Line {
                specversion: "1.0".to_owned(),
                id: head.map_or(0, |head| head.seq + 1).to_string(),
                source: self.source.clone(),
                r#type: format!("fedmill.plan.{}", event.name()),
                time: now.to_string(),
                data: event.clone(),
            };
            let seconds = u64::try_from(now.as_second()).unwrap_or(0);
            let (sealed, next) = seal(head.as_ref(), seconds, &line).map_err(|why| RunError::Write {
                path: path.clone(),
                source: std::io::Error::other(why.to_string()),
            })?;
            text.push_str(&sealed);
            text.push('\n');
            head = Some(next);
        }
        folder::append(&path, bytes, text.as_bytes(), false)
            .map_err(|source| RunError::Write { path, source })?;
        self.end = (head, bytes + text.len() as u64);
        Ok(())
    }

    fn receipt(&mut self, name: &str) -> Result<Option<Receipt>, RunError> {
        let receipt = self.read_receipt(&receipts::path_of(&self.root, name), Some(name))?;
        receipt.iter().try_for_each(|receipt| self.files.check_outputs(&receipt.made, &self.root))?;
        Ok(receipt)
    }

    fn equal_work(&mut self, job: &Job) -> Result<Option<Made>, RunError> {
        let Some(receipt) = self.read_receipt(&self.root.join("cache").join(&job.work), None)? else {
            return Ok(None);
        };
        receipts::adopt(receipt.made, job, &self.root, &self.files.known).map(Some)
    }

    fn earlier_work(&mut self, job: &Job) -> Result<Option<Made>, RunError> {
        let Some(earlier) = &self.files.earlier else { return Ok(None) };
        earlier.take(job, &self.root, &self.files.known)
    }

    fn write_receipt(&mut self, receipt: &Receipt, cached: bool) -> Result<(), RunError> {
        let text = serde_json::to_string(receipt).unwrap_or_default() + "\n";
        let cache = cached.then(|| self.root.join("cache").join(&receipt.work));
        for path in [Some(receipts::path_of(&self.root, &receipt.instance)), cache].into_iter().flatten() {
            let written = folder::write_file_on_disk(&path, text.as_bytes());
            written.map_err(|source| RunError::Write { path, source })?;
        }
        Ok(())
    }

    fn admits(&mut self, running: usize) -> bool {
        self.places.admits(running)
    }

    fn start(&mut self, job: Job) {
        let stop = Arc::new(AtomicBool::new(false));
        self.attempts.insert(job.key, Arc::clone(&stop));
        let (root, sender, files) = (self.root.clone(), self.ends.sender(), Arc::clone(&self.files));
        let allowance = self.allowance.clone();
        let places = self.places.makeflags();
        let key = job.key;
        let attempt = job.attempt;
        let work = move || {
            let began = Instant::now();
            let mut spent = Spent::default();
            let result = files
                .check(&job, &root)
                .and_then(|()| make(&root, &job, &files.known, allowance.as_ref(), places, &stop, &mut spent))
                .and_then(|made| files.check_again(&job).map(|()| made));
            let seconds = began.elapsed().as_secs_f64();
            // The receiver lives as long as the runner.
            let _ = sender.send(Ended { key, attempt, result, seconds, spent });
        };
        if let Err(why) = thread::Builder::new().name("attempt".to_owned()).spawn(work) {
            let failure = Failure::Start(format!("no thread for the attempt: {why}"));
            let (result, spent) = (Err(failure), Spent::default());
            let _ = self.ends.sender().send(Ended { key, attempt, result, seconds: 0.0, spent });
        }
    }

    fn stop(&mut self, key: Key) {
        if let Some(stop) = self.attempts.get(&key) {
            stop.store(true, Ordering::Relaxed);
        }
    }

    fn answer(&mut self, name: &str) -> Result<Option<Answer>, RunError> {
        self.answers.read(&self.root, name)
    }

    fn ask(&mut self, name: &str, gate: &Gate, until: f64) -> Result<(), RunError> {
        gates::ask(&self.root, name, gate, until)
    }

    fn put_aside(&mut self, name: &str, number: u32) -> Result<(), RunError> {
        gates::put_aside(&self.root, name, number)
    }

    fn account(&mut self, ledger: &str) -> Result<Option<Account>, String> {
        ledger::account(ledger)
    }

    fn charged(&mut self) -> Result<Notes, String> {
        self.allowance.as_ref().map_or(Ok(Notes::default()), Allowance::notes).map_err(|why| why.to_string())
    }

    fn is_killed(&mut self) -> bool {
        folder::exists(&self.kill_file)
    }

    fn wait(&mut self, until: Option<f64>) -> Result<Woken, RunError> {
        self.places.give_back(self.attempts.len());
        loop {
            if let Err(interrupted) = interrupt::check() {
                interrupt::await_another();
                if !self.asked {
                    self.asked = true;
                    return Ok(Woken::Signal(interrupted.signal));
                }
                // Who asks twice does not want to wait for `kill_after`.
                orphans::signal(&process::commands_of(&self.root), Signal::KILL);
            }
            let left = until.map(|at| at - self.now());
            let wait =
                left.map_or(LOOK_EVERY, |left| Duration::from_secs_f64(left.clamp(0.0, 1.0)).min(LOOK_EVERY));
            if let Some(ended) = self.ends.next(wait, self.asked) {
                self.attempts.remove(&ended.key);
                return Ok(Woken::Ended(ended));
            }
            if left.is_some_and(|left| left <= 0.0) {
                return Ok(Woken::Time);
            }
        }
    }
}

impl Drop for Disk {
    /// Ends the attempts of a runner that ends by an error: nothing would keep their limits.
    fn drop(&mut self) {
        self.attempts.values().for_each(|stop| stop.store(true, Ordering::Relaxed));
        while !self.attempts.is_empty() && self.wait(None).is_ok() {}
    }
}
