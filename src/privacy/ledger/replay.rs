//! What the records of a ledger come to: what was spent, what is open, what was released.
//!
//! A charge counts from the moment that it is written, whatever became of it: noise may have been drawn and seen. Only a
//! void takes it back, which somebody signs.

use crate::privacy::event::Event;
use crate::privacy::ledger::plan::{BudgetPlan, ClipBound};
use crate::privacy::ledger::record::{
    Adopt, Charge, Entry, Init, Mechanism, Record, Release, Reserve, Rng, Void,
};
use crate::record::Head;
use crate::record::sha256::Sha256;
use std::collections::{BTreeMap, BTreeSet};

/// What became of a charge.
#[derive(Clone, PartialEq, Debug)]
pub enum Fate {
    /// Its release was not recorded: the run that made it is at work, or was cut off.
    Open,
    /// It was spent elsewhere; there is nothing to release.
    External,
    /// It was released.
    Released {
        /// Of the files.
        output_sha256: Sha256,
        /// The record that says so.
        seq: u64,
    },
    /// Somebody swore that nothing of it was seen.
    Voided {
        /// In which words.
        attest: String,
    },
}

/// A charge and what became of it.
#[derive(Clone, PartialEq, Debug)]
pub struct Charged {
    /// Where the chain stood with it.
    pub head: Head,
    /// When, in seconds since 1970.
    pub ts: u64,
    /// By which version of fedmill.
    pub tool_version: String,
    /// What was charged.
    pub charge: Charge,
    /// What became of it.
    pub fate: Fate,
}

/// A reserve that was not charged yet.
#[derive(Clone, PartialEq, Debug)]
pub struct Reserved {
    /// Its number.
    pub seq: u64,
    /// What was set aside.
    pub reserve: Reserve,
}

/// What a ledger comes to.
#[derive(Clone, PartialEq, Debug)]
pub struct State {
    /// How it started.
    pub init: Init,
    /// Where the chain stands.
    pub head: Head,
    /// Where it stood at each record.
    pub heads: Vec<Head>,
    /// Every charge, in order.
    pub charges: Vec<Charged>,
    /// Reserves that are left.
    pub reserves: Vec<Reserved>,
    /// The clip bound of the next round.
    pub clip: f64,
    /// What was noted, by record.
    pub notes: BTreeMap<u64, String>,
    /// Of the key of all rounds, if they have one together and it was drawn.
    pub run_key: Option<Sha256>,
    /// What charges call their releases.
    names: BTreeSet<String>,
}

/// A record that cannot follow those before it.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[error("line {}: {why}", .seq + 1)]
pub struct ReplayError {
    /// Its number.
    pub seq: u64,
    /// What was found, and what was expected.
    pub why: String,
}

impl State {
    /// What these records come to; none of no records.
    ///
    /// # Errors
    ///
    /// At the first that cannot follow those before it.
    pub fn replay(records: &[(Record, Head)]) -> Result<Option<Self>, ReplayError> {
        let Some(((first, head), rest)) = records.split_first() else { return Ok(None) };
        let Entry::Init(init) = &first.entry else {
            return Err(ReplayError { seq: 0, why: "expected kind init at the start".to_owned() });
        };
        let clip = init.plan.first_clip();
        let mut state = Self {
            init: (**init).clone(),
            head: *head,
            heads: vec![*head],
            charges: Vec::new(),
            reserves: Vec::new(),
            clip,
            notes: BTreeMap::new(),
            run_key: None,
            names: BTreeSet::new(),
        };
        for (record, head) in rest {
            state.take(record, *head)?;
        }
        Ok(Some(state))
    }

    /// Adds a record to it.
    ///
    /// # Errors
    ///
    /// When it cannot follow those before it.
    pub fn take(&mut self, record: &Record, head: Head) -> Result<(), ReplayError> {
        let refused = |why| ReplayError { seq: record.seq, why };
        match &record.entry {
            Entry::Init(_) => Err("found kind init, expected it at the start alone".to_owned()),
            Entry::Reserve(reserve) => {
                self.reserves.push(Reserved { seq: record.seq, reserve: reserve.clone() });
                Ok(())
            }
            Entry::Charge(charge) => self.charge(head, record, charge),
            Entry::Release(release) | Entry::Adopt(Adopt { release, .. }) => {
                self.release(record.seq, release)
            }
            Entry::Void(void) => self.void(void),
            Entry::Key(key) => self.take_key(key),
            Entry::Note(note) => {
                self.notes.insert(record.seq, note.text.clone());
                Ok(())
            }
        }
        .map_err(refused)?;
        self.head = head;
        self.heads.push(head);
        Ok(())
    }

    fn charge(&mut self, head: Head, record: &Record, charge: &Charge) -> Result<(), String> {
        if charge.plan_sha256 != self.init.plan_sha256 {
            let (found, expected) = (charge.plan_sha256, self.init.plan_sha256);
            return Err(format!("found plan_sha256 {found}, expected that of the plan, {expected}"));
        }
        if self.is_of_run(charge) {
            self.check_round(charge)?;
        }
        if !self.names.insert(charge.release_id.clone()) {
            return Err(format!("release_id {} was charged before", charge.release_id));
        }
        if let Some(seq) = charge.reserve {
            let place = self.reserves.iter().position(|reserved| reserved.seq == seq);
            let place = place.ok_or_else(|| format!("there is no reserve {seq} left"))?;
            if self.reserves[place].reserve.event != charge.event {
                return Err(format!("its event is not that of reserve {seq}"));
            }
            self.reserves.remove(place);
        }
        let fate = if charge.mechanism.is_some() { Fate::Open } else { Fate::External };
        let Record { ts, tool_version, .. } = record;
        let (ts, tool_version) = (*ts, tool_version.clone());
        self.charges.push(Charged { head, ts, tool_version, charge: charge.clone(), fate });
        Ok(())
    }

    fn release(&mut self, seq: u64, release: &Release) -> Result<(), String> {
        let found = self.charge_mut(release.charge)?;
        if found.fate != Fate::Open {
            return Err(format!("charge {} is not open: {}", release.charge, found.fate.told()));
        }
        if found.charge.release_id != release.release_id {
            let (of, expected) = (&release.release_id, &found.charge.release_id);
            return Err(format!("found release_id {of}, expected that of the charge, {expected}"));
        }
        found.fate = Fate::Released { output_sha256: release.output_sha256, seq };
        self.clip = release.next_clip.unwrap_or(self.clip);
        Ok(())
    }

    fn void(&mut self, void: &Void) -> Result<(), String> {
        if let Some(place) = self.reserves.iter().position(|reserved| reserved.seq == void.charge) {
            self.reserves.remove(place);
            return Ok(());
        }
        let is_run = self.plan().correlated.is_some();
        let found = self.charge_mut(void.charge)?;
        if is_run && found.charge.mechanism.is_some() {
            let why = "its noise is part of that of later rounds";
            return Err(format!("charge {} cannot be taken back: {why}", void.charge));
        }
        if !matches!(found.fate, Fate::Open | Fate::External) {
            return Err(format!("charge {} cannot be taken back: {}", void.charge, found.fate.told()));
        }
        found.fate = Fate::Voided { attest: void.attest.clone() };
        Ok(())
    }

    fn charge_mut(&mut self, seq: u64) -> Result<&mut Charged, String> {
        let place = self.charges.binary_search_by_key(&seq, |charged| charged.head.seq);
        let found = place.ok().and_then(|place| self.charges.get_mut(place));
        found.ok_or_else(|| format!("record {seq} is no charge"))
    }

    /// The digest of a record; none if there is no such record.
    pub fn at(&self, seq: u64) -> Option<Sha256> {
        let head = usize::try_from(seq).ok().and_then(|seq| self.heads.get(seq));
        head.map(|head| head.sha256)
    }

    /// The first digits of the ledger's name.
    pub fn short_id(&self) -> &str {
        let id = self.init.ledger_id.as_str();
        id.get(..12).unwrap_or(id)
    }

    /// The plan that was frozen.
    pub fn plan(&self) -> &BudgetPlan {
        &self.init.plan
    }

    /// Charges whose release was not recorded.
    pub fn orphans(&self) -> impl Iterator<Item = &Charged> {
        self.charges.iter().filter(|charged| charged.fate == Fate::Open)
    }

    /// Charges that count: all that were not voided.
    pub fn counted(&self) -> impl Iterator<Item = &Charged> {
        self.charges.iter().filter(|charged| !matches!(charged.fate, Fate::Voided { .. }))
    }

    /// Everything that was spent or set aside: each event, and how often.
    pub fn spent(&self) -> Vec<(Event, u64)> {
        let charged = self.counted().map(|charged| &charged.charge.event);
        let reserved = self.reserves.iter().map(|reserved| &reserved.reserve.event);
        let mut runs: Vec<(Event, u64)> = Vec::new();
        charged.chain(reserved).for_each(|event| count(&mut runs, event));
        runs
    }

    /// Whether everything in it is of the plan, so that the number of PLD counts: no other event, setting or reserve,
    /// and not more rounds.
    pub fn follows_plan(&self) -> bool {
        self.planned_rounds().is_some_and(|rounds| rounds <= self.plan().charges())
    }

    /// How many times the plan's event is charged; none if anything else is.
    pub fn planned_rounds(&self) -> Option<u64> {
        let mut rounds = self.counted().map(|charged| rounds_of(self.plan(), &charged.charge));
        let rounds = rounds.try_fold(0_u64, |sum, rounds| sum.checked_add(rounds?));
        rounds.filter(|_| self.reserves.is_empty())
    }

    /// Releases of all charges that count.
    pub fn releases(&self) -> u64 {
        self.course().last().map_or(0, |(releases, _)| releases)
    }

    /// Every charge that counts, and how many releases there were with it.
    pub fn course(&self) -> impl Iterator<Item = (u64, &Charge)> {
        self.counted().scan(0_u64, |releases, charged| {
            *releases = releases.saturating_add(once(&charged.charge.event).1);
            Some((*releases, &charged.charge))
        })
    }

    /// Charges that were made with a number that somebody chose: their releases are NOT private.
    pub fn tests(&self) -> usize {
        self.counted().filter(|charged| charged.charge.rng == Rng::TestSeed).count()
    }
}

/// An event that may be composed of itself: what it is once, and how often.
fn once(event: &Event) -> (&Event, u64) {
    match event {
        Event::SelfComposed { event, count, .. } => (event, *count),
        event => (event, 1),
    }
}

/// Adds an event to those that were counted.
pub(super) fn count(counted: &mut Vec<(Event, u64)>, event: &Event) {
    let (event, times) = once(event);
    match counted.iter_mut().find(|(known, _)| known == event) {
        Some((_, count)) => *count = count.saturating_add(times),
        None => counted.push((event.clone(), times)),
    }
}

/// How many times the plan's event an event is; none if it is another one.
pub(super) fn rounds_of_event(plan: &BudgetPlan, event: &Event) -> Option<u64> {
    let planned = plan.event().ok()?;
    let (event, times) = once(event);
    if plan.correlated.is_some() && matches!(event, Event::NoOp { .. }) {
        return Some(0);
    }
    (*event == planned).then_some(times)
}

/// How many rounds of the plan a charge is; none if the plan has no such charge.
fn rounds_of(plan: &BudgetPlan, charge: &Charge) -> Option<u64> {
    let rounds = rounds_of_event(plan, &charge.event)?;
    let alike = charge.adjacency == plan.adjacency
        && charge.unit == plan.unit
        && charge.delta_target == plan.delta
        && charge.mechanism.as_ref().is_none_or(|mechanism| runs(plan, mechanism));
    alike.then_some(rounds)
}

/// Whether a mechanism is the one that the plan has.
fn runs(plan: &BudgetPlan, mechanism: &Mechanism) -> bool {
    let clip = match plan.clip {
        ClipBound::Fixed(bound) => mechanism.clip == bound,
        ClipBound::Adaptive(_) => true,
    };
    clip && mechanism.z == plan.noise_multiplier
        && mechanism.q == plan.sampling_rate
        && mechanism.n_pub == plan.denominator
        && plan.dimension.is_none_or(|dimension| dimension == mechanism.d)
        && mechanism.level == plan.level_for(mechanism.d)
}

impl Fate {
    /// In one word.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::External => "external",
            Self::Released { .. } => "released",
            Self::Voided { .. } => "void",
        }
    }

    /// As it is told.
    pub fn told(&self) -> String {
        match self {
            Self::Open => "open".to_owned(),
            Self::External => "spent elsewhere".to_owned(),
            Self::Released { .. } => "released".to_owned(),
            Self::Voided { attest } => format!("void: {attest}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::privacy::ledger::record::{Note, Reserve};
    use crate::privacy::ledger::trial::{charge, init, plan, records, release, state};

    fn charged(round: u64) -> Entry {
        Entry::Charge(Box::new(charge(&plan(), round)))
    }

    fn void(seq: u64) -> Entry {
        Entry::Void(Void { charge: seq, attest: "the disk was full".to_owned() })
    }

    fn reserve() -> Entry {
        Entry::Reserve(Reserve { event: plan().event().unwrap(), text: "later".to_owned() })
    }

    #[test]
    fn a_charge_counts_whatever_becomes_of_it_unless_it_is_void() {
        let plan = plan();
        let entries = [init(&plan), charged(1), release(&charge(&plan, 1), 1), charged(2), charged(3)];
        let state = state(&entries);
        let event = plan.event().unwrap();
        assert_eq!(state.spent(), [(event.clone(), 3)]);
        assert_eq!(state.orphans().map(|charged| charged.head.seq).collect::<Vec<_>>(), [3, 4]);
        let state = super::super::trial::state(&[&entries[..], &[void(3)]].concat());
        assert_eq!(state.spent(), [(event, 2)]);
        assert_eq!(state.orphans().map(|charged| charged.head.seq).collect::<Vec<_>>(), [4]);
        assert_eq!(state.counted().count(), 2);
    }

    #[test]
    fn a_reserve_counts_until_it_is_charged_or_void() {
        let plan = plan();
        let mut taking = charge(&plan, 1);
        taking.reserve = Some(1);
        let entries = [init(&plan), reserve(), reserve(), Entry::Charge(Box::new(taking))];
        let event = plan.event().unwrap();
        assert_eq!(state(&entries[..3]).spent(), [(event.clone(), 2)]);
        assert_eq!(state(&entries).spent(), [(event.clone(), 2)]);
        assert_eq!(state(&[&entries[..], &[void(2)]].concat()).spent(), [(event, 1)]);
    }

    #[test]
    fn records_that_cannot_follow_are_refused() {
        let plan = plan();
        let first = charge(&plan, 1);
        let released = release(&first, 1);
        let mut other_name = first.clone();
        other_name.release_id = "another".to_owned();
        let mut no_reserve = charge(&plan, 2);
        no_reserve.reserve = Some(1);
        let mut other_plan = charge(&plan, 2);
        other_plan.plan_sha256 = Sha256::NONE;
        let start = [init(&plan), Entry::Charge(Box::new(first.clone()))];
        for (bad, why) in [
            (vec![init(&plan)], "start alone"),
            (vec![Entry::Charge(Box::new(first.clone()))], "charged before"),
            (vec![Entry::Charge(Box::new(no_reserve))], "no reserve 1"),
            (vec![Entry::Charge(Box::new(other_plan))], "plan_sha256"),
            (vec![release(&other_name, 1)], "release_id another"),
            (vec![release(&first, 2)], "no charge"),
            (vec![release(&first, 0)], "no charge"),
            (vec![released.clone(), released.clone()], "not open"),
            (vec![released.clone(), void(1)], "cannot be taken back"),
            (vec![void(1), released.clone()], "not open"),
            (vec![void(1), void(1)], "cannot be taken back"),
            (vec![void(7)], "no charge"),
        ] {
            let entries = [&start[..], &bad].concat();
            let error = State::replay(&records(&entries)).unwrap_err();
            assert_eq!(error.seq, entries.len() as u64 - 1);
            assert!(error.why.contains(why), "{error}, expected {why}");
        }
        let no_start = [Entry::Note(Note { text: "one".to_owned() })];
        assert!(State::replay(&records(&no_start)).is_err());
    }

    #[test]
    fn only_what_was_fixed_up_front_follows_the_plan() {
        let plan = plan();
        let with = |change: fn(&mut Charge)| {
            let mut charge = charge(&plan, 1);
            change(&mut charge);
            state(&[init(&plan), Entry::Charge(Box::new(charge))]).follows_plan()
        };
        assert!(with(|_| ()));
        assert!(!with(|charge| charge.mechanism.as_mut().unwrap().z = 1.0));
        assert!(!with(|charge| charge.mechanism.as_mut().unwrap().q = 0.2));
        assert!(!with(|charge| charge.mechanism.as_mut().unwrap().clip = 2.0));
        assert!(!with(|charge| charge.mechanism.as_mut().unwrap().n_pub = 99));
        assert!(!with(|charge| charge.mechanism.as_mut().unwrap().d = 999));
        assert!(!with(|charge| charge.delta_target = 1e-6));
        assert!(!with(|charge| charge.event = Event::gaussian(1.1).unwrap()));
        assert!(!state(&[init(&plan), reserve()]).follows_plan());
        let rounds = |count: u64| {
            let charges = (1..=count).map(charged);
            state(&[init(&plan)].into_iter().chain(charges).collect::<Vec<_>>()).follows_plan()
        };
        assert!(rounds(plan.rounds));
        assert!(!rounds(plan.rounds + 1));
    }
}
