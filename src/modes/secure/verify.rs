//! Audits the folder of a session: every signature, every digest, and every sum, computed again.

use crate::engine::passes::machine::Machine;
use crate::io::interrupt;
use crate::modes::secure::answers::{Answers, audit as check_lanes};
use crate::modes::secure::check::{open_masked, reports};
use crate::modes::secure::folder::SessionFolder;
use crate::modes::secure::help::signers;
use crate::modes::secure::manifest::Manifest;
use crate::modes::secure::set::FrozenSet;
use crate::modes::secure::sum::{add_up, open_members};
use crate::modes::secure::unmask::{Transcript, Unmasking, open_sum, read_transcript, transcript};
use crate::parties::error::SecureError;
use crate::parties::fault::LeftOutClient;
use crate::parties::identity::PublicIdentity;
use crate::parties::signed_lanes::{LanesFile, LanesReader};
use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

/// One thing that the audit looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// What was looked at.
    pub what: String,
    /// What is wrong with it; `None` if nothing.
    pub fault: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.fault {
            None => write!(f, "ok     {}", self.what),
            Some(fault) => write!(f, "FAULT  {}: {fault}", self.what),
        }
    }
}

/// Audits a session. A stage that was not reached yet is no fault.
///
/// # Errors
///
/// When the manifest cannot be read: nothing else can be checked then. Or when a signal asked to stop.
pub fn run(folder: &SessionFolder, machine: &Machine) -> Result<Vec<Finding>, SecureError> {
    let manifest = folder.manifest()?;
    let mut audit = Audit { folder, manifest: &manifest, machine, findings: Vec::new() };
    let terms = &manifest.terms;
    audit.note(
        format!(
            "manifest.json: session {}, {} clients, {} helpers, threshold {}",
            manifest.session.short(),
            terms.clients.len(),
            terms.helpers.len(),
            terms.threshold
        ),
        Ok(()),
    );
    let bad = audit.masked()?;
    audit.checks()?;
    let frozen = match FrozenSet::read(folder, &manifest) {
        Ok(Some(frozen)) => frozen,
        Ok(None) => {
            audit.bad_masked(bad, &[]);
            let answers = terms.helpers.iter().map(|helper| folder.answer(&helper.id));
            let later: Vec<PathBuf> =
                [folder.sum(), folder.transcript()].into_iter().chain(answers).collect();
            audit.nothing_after("set.json: not frozen yet", &later);
            return Ok(audit.findings);
        }
        Err(why) => {
            audit.bad_masked(bad, &[]);
            audit.note("set.json".to_owned(), Err(why.to_string()));
            return Ok(audit.findings);
        }
    };
    audit.note(
        format!(
            "set.json: {} clients in the sum, {} left out",
            frozen.set.members().count(),
            frozen.set.left_out.len()
        ),
        Ok(()),
    );
    audit.bad_masked(bad, &frozen.set.left_out);
    audit.outside(&frozen)?;
    audit.after_set(&frozen)?;
    Ok(audit.findings)
}

struct Audit<'a> {
    folder: &'a SessionFolder,
    manifest: &'a Manifest,
    machine: &'a Machine<'a>,
    findings: Vec<Finding>,
}

impl Audit<'_> {
    fn note(&mut self, what: String, result: Result<(), String>) {
        self.findings.push(Finding { what, fault: result.err() });
    }

    /// Notes an error; a signal ends the audit.
    fn note_result(&mut self, what: &str, result: Result<(), SecureError>) -> Result<bool, SecureError> {
        if let Err(SecureError::Interrupted(why)) = result {
            return Err(why.into());
        }
        let is_sound = result.is_ok();
        self.note(what.to_owned(), result.map_err(|why| why.to_string()));
        Ok(is_sound)
    }

    /// The signatures of masked updates; the lanes of those in the set are checked with the sum. Returns the files that
    /// are no message of a client.
    fn masked(&mut self) -> Result<Vec<LeftOutClient>, SecureError> {
        let (reader, mut sound, mut bad) = (LanesReader::default(), 0, Vec::new());
        for (sender, path) in self.folder.all_masked()? {
            match open_masked(self.manifest, &reader, sender.as_deref(), &path) {
                Ok(_) => sound += 1,
                Err(one) => bad.push(one),
            }
        }
        self.note(format!("masked: {sound} updates with their clients' signatures"), Ok(()));
        Ok(bad)
    }

    /// Notes files that are no message of a client. One that the server left out with a reason is no fault of the session.
    fn bad_masked(&mut self, bad: Vec<LeftOutClient>, left_out: &[LeftOutClient]) {
        for one in bad {
            let is_left_out = left_out.iter().any(|other| other.client == one.client);
            match is_left_out {
                true => self.note(format!("masked/{} is left out: {}", one.client, one.fault), Ok(())),
                false => self.note(format!("masked/{}", one.client), Err(one.fault.to_string())),
            }
        }
    }

    /// Notes signed masked updates outside the set whose lanes are bad. They are in no sum, so they are no fault of the session.
    fn outside(&mut self, frozen: &FrozenSet) -> Result<(), SecureError> {
        let reader = LanesReader::default();
        let members: BTreeSet<&str> = frozen.set.members().map(|member| member.client.as_str()).collect();
        for (sender, path) in self.folder.all_masked()? {
            let Some(sender) = sender.as_deref().filter(|sender| !members.contains(sender)) else { continue };
            interrupt::check()?;
            let Ok((client, file)) = open_masked(self.manifest, &reader, Some(sender), &path) else {
                continue;
            };
            if let Err(fault) = self.machine.pool.install(|| check_lanes(&file, self.machine.isa)) {
                self.note(format!("masked/{client} is not in the sum: {fault}"), Ok(()));
            }
        }
        Ok(())
    }

    fn checks(&mut self) -> Result<(), SecureError> {
        let there = self
            .manifest
            .terms
            .helpers
            .iter()
            .filter(|helper| crate::io::folder::exists(&self.folder.check(&helper.id)))
            .count();
        let signed = reports(self.folder, self.manifest)?.len();
        let unsigned = format!("{} of {there} reports do not have their helpers' signatures", there - signed);
        let result = if there == signed { Ok(()) } else { Err(unsigned) };
        self.note(format!("checks: {signed} reports with their helpers' signatures"), result);
        Ok(())
    }

    /// Notes that a stage was not reached yet: a fault if a file of a later one is there.
    fn nothing_after(&mut self, what: &str, later: &[PathBuf]) {
        let found = later.iter().find(|path| crate::io::folder::exists(path));
        let result = found.map_or(Ok(()), |path| Err(format!("{} is there", path.display())));
        self.note(what.to_owned(), result);
    }

    /// The signatures of helpers that saw the set.
    fn witnesses(&mut self, frozen: &FrozenSet) {
        let helpers = &self.manifest.terms.helpers;
        let is_there = |helper: &&PublicIdentity| crate::io::folder::exists(&self.folder.witness(&helper.id));
        let there = helpers.iter().filter(is_there).count();
        let signed = signers(self.folder, self.manifest, frozen).len();
        let unsigned =
            format!("{} of {there} do not have their helpers' signatures over the set", there - signed);
        let result = if there == signed { Ok(()) } else { Err(unsigned) };
        self.note(format!("witnesses: {signed} helpers signed the set"), result);
    }

    fn after_set(&mut self, frozen: &FrozenSet) -> Result<(), SecureError> {
        if self.manifest.terms.helpers_sign_set {
            self.witnesses(frozen);
        }
        if !crate::io::folder::exists(&self.folder.sum()) {
            self.nothing_after("masked-sum.safetensors: not there yet", &[self.folder.transcript()]);
            return Ok(());
        }
        let sum = open_sum(self.folder, self.manifest, frozen, self.machine);
        let sum = match sum {
            Ok(sum) => sum,
            Err(why) => return self.note_result("masked-sum.safetensors", Err(why)).map(drop),
        };
        let again = self.sum_again(frozen, &sum);
        self.note_result("masked-sum.safetensors: the sum of the masked updates of the set", again)?;
        if !crate::io::folder::exists(&self.folder.transcript()) {
            self.note("transcript.json: not there yet".to_owned(), Ok(()));
            return Ok(());
        }
        let result = self.transcript_again(frozen, &sum);
        self.note_result("transcript.json: answers and sums, computed again", result)?;
        Ok(())
    }

    /// Adds up the masked updates again.
    fn sum_again(&self, frozen: &FrozenSet, sum: &LanesFile) -> Result<(), SecureError> {
        let files = self.machine.pool.install(|| open_members(self.folder, self.manifest, &frozen.set))?;
        let (mut first, mut differs) = (0, None);
        let mut stated = Vec::new();
        let faults = add_up(self.manifest, &frozen.set, &files, self.machine, &mut |sums| {
            stated.resize(sums.len(), 0);
            sum.read(first, &mut stated).map_err(SecureError::file(sum.path()))?;
            differs = differs
                .or((0..sums.len()).find(|lane| sums[*lane] != stated[*lane]).map(|lane| first + lane));
            first += sums.len();
            Ok(())
        })?;
        if let Some(fault) = faults.into_iter().next() {
            return Err(SecureError::file(&self.folder.masked(&fault.client))(fault.fault));
        }
        match differs {
            None => Ok(()),
            Some(lane) => Err(SecureError::terms(
                "masked-sum.safetensors",
                format!("lane {lane} is not the sum of the masked updates"),
            )),
        }
    }

    /// Combines the answers again, and compares the transcript.
    fn transcript_again(&self, frozen: &FrozenSet, sum: &LanesFile) -> Result<(), SecureError> {
        let stated = read_transcript(self.folder, self.manifest)?;
        let mut answers = Answers::read(self.folder, self.manifest, frozen, self.machine)?;
        answers.only_of(&stated);
        let threshold = self.manifest.committee.threshold();
        if answers.sound.len() < threshold {
            let why = format!(
                "{} of its answers are there and sound, expected at least {threshold}",
                answers.sound.len()
            );
            return Err(SecureError::terms("transcript.json", why));
        }
        let of_group = |(group, members): (usize, &Vec<_>)| {
            let clients = members.len();
            let (manifest, machine) = (self.manifest, self.machine);
            Unmasking { manifest, masked: sum, answers: &answers, machine, group, clients, noise: None }
                .sum(&mut |_, _| Ok(()))
        };
        let groups = frozen.set.groups.iter().enumerate().map(of_group).collect::<Result<_, _>>()?;
        let again: Transcript = transcript(self.manifest, frozen, &answers, groups);
        if again == stated {
            return Ok(());
        }
        Err(SecureError::terms("transcript.json", "its answers or sums are not those of the folder"))
    }
}
