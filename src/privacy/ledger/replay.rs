//! The state that the records of a ledger lead to: charges spent, open and released.
//!
//! A charge counts from the moment that it is written, released or not, because its noise may have been drawn and seen.
//! Only a void, with the operator's statement, ends that.

mod series;

use crate::privacy::event::Event;
use crate::privacy::ledger::plan::{BudgetPlan, ClipBound, Contradiction};
use crate::privacy::ledger::record::{
    Adopt, Charge, Init, LedgerEntry, LedgerRecord, Mechanism, Release, Reserve, Rng, SeriesKey, Void,
};
use crate::record::Head;
use crate::record::sha256::Sha256;
use std::collections::BTreeSet;

/// The state of a charge.
#[derive(Clone, PartialEq, Debug)]
pub enum Fate {
    /// Its release is not recorded: the process is at work, or was stopped.
    Open,
    /// It was spent elsewhere: fedmill has nothing to release.
    External,
    /// Its output was released.
    Released {
        /// Digest over the bytes of the output's files.
        output_sha256: Sha256,
        /// Number of the record of the release.
        seq: u64,
    },
    /// The operator attested that its output was never seen.
    Voided {
        /// The operator's statement.
        attest: String,
    },
}

/// A charge and its state.
#[derive(Clone, PartialEq, Debug)]
pub struct ChargeRecord {
    /// The number and digest of its record.
    pub head: Head,
    /// Seconds since 1970 when it was written.
    pub ts: u64,
    /// The version of fedmill that wrote it.
    pub tool_version: String,
    /// The charge.
    pub charge: Charge,
    /// Its state.
    pub fate: Fate,
}

/// A reserve that no charge has used yet.
#[derive(Clone, PartialEq, Debug)]
pub struct ReserveRecord {
    /// Number of its record.
    pub seq: u64,
    /// The reserve.
    pub reserve: Reserve,
}

/// The state of a ledger.
#[derive(Clone, PartialEq, Debug)]
pub struct State {
    /// The first entry.
    pub init: Init,
    /// The end of the chain.
    pub head: Head,
    /// The end of the chain at each record.
    pub heads: Vec<Head>,
    /// Every charge, in order.
    pub charges: Vec<ChargeRecord>,
    /// Reserves that no charge has used.
    pub reserves: Vec<ReserveRecord>,
    /// The clip bound of the next round.
    pub clip: f64,
    /// The key of a series, once it is drawn.
    pub series_key: Option<SeriesKey>,
    /// Names of all releases.
    names: BTreeSet<String>,
}

/// A record that cannot follow those before it.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[error("line {}: {why}", .seq + 1)]
pub struct ReplayError {
    /// Number of the record.
    pub seq: u64,
    /// What was found, and what was expected.
    pub why: String,
}

impl State {
    /// The state after these records; `None` if there are none.
    ///
    /// # Errors
    ///
    /// The first record that cannot follow the earlier ones.
    pub fn replay(records: &[(LedgerRecord, Head)]) -> Result<Option<Self>, ReplayError> {
        let Some(((first, head), rest)) = records.split_first() else { return Ok(None) };
        let LedgerEntry::Init(init) = &first.entry else {
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
            series_key: None,
            names: BTreeSet::new(),
        };
        for (record, head) in rest {
            state.take(record, *head)?;
        }
        Ok(Some(state))
    }

    /// Adds a record.
    ///
    /// # Errors
    ///
    /// When the record cannot follow the earlier ones.
    pub fn take(&mut self, record: &LedgerRecord, head: Head) -> Result<(), ReplayError> {
        let refused = |why| ReplayError { seq: record.seq, why };
        match &record.entry {
            LedgerEntry::Init(_) => Err("found kind init, expected it at the start only".to_owned()),
            LedgerEntry::Reserve(reserve) => {
                self.reserves.push(ReserveRecord { seq: record.seq, reserve: reserve.clone() });
                Ok(())
            }
            LedgerEntry::Charge(charge) => self.charge(head, record, charge),
            LedgerEntry::Release(release) | LedgerEntry::Adopt(Adopt { release, .. }) => {
                self.release(record.seq, release)
            }
            LedgerEntry::Void(void) => self.void(void),
            LedgerEntry::Key(key) => self.take_key(key),
            LedgerEntry::Note(_) => Ok(()),
        }
        .map_err(refused)?;
        self.head = head;
        self.heads.push(head);
        Ok(())
    }

    fn charge(&mut self, head: Head, record: &LedgerRecord, charge: &Charge) -> Result<(), String> {
        if charge.plan_sha256 != self.init.plan_sha256 {
            let (found, expected) = (charge.plan_sha256, self.init.plan_sha256);
            return Err(format!("found plan_sha256 {found}, expected that of the plan, {expected}"));
        }
        if self.is_of_series(charge) {
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
        let LedgerRecord { ts, tool_version, .. } = record;
        let (ts, tool_version) = (*ts, tool_version.clone());
        self.charges.push(ChargeRecord { head, ts, tool_version, charge: charge.clone(), fate });
        Ok(())
    }

    fn release(&mut self, seq: u64, release: &Release) -> Result<(), String> {
        let charge = self.charge_mut(release.charge)?;
        if charge.fate != Fate::Open {
            return Err(format!("charge {} is not open: {}", release.charge, charge.fate));
        }
        if charge.charge.release_id != release.release_id {
            let (found, expected) = (&release.release_id, &charge.charge.release_id);
            return Err(format!("found release_id {found}, expected that of the charge, {expected}"));
        }
        charge.fate = Fate::Released { output_sha256: release.output_sha256, seq };
        self.clip = release.next_clip.unwrap_or(self.clip);
        Ok(())
    }

    fn void(&mut self, void: &Void) -> Result<(), String> {
        if let Some(place) = self.reserves.iter().position(|reserved| reserved.seq == void.charge) {
            self.reserves.remove(place);
            return Ok(());
        }
        let is_series = self.plan().correlated.is_some();
        let charge = self.charge_mut(void.charge)?;
        if is_series && charge.charge.mechanism.is_some() {
            let why = "its noise is part of later rounds";
            return Err(format!("charge {} cannot be voided: {why}", void.charge));
        }
        if !matches!(charge.fate, Fate::Open | Fate::External) {
            return Err(format!("charge {} cannot be voided: {}", void.charge, charge.fate));
        }
        charge.fate = Fate::Voided { attest: void.attest.clone() };
        Ok(())
    }

    fn charge_mut(&mut self, seq: u64) -> Result<&mut ChargeRecord, String> {
        let place = self.charges.binary_search_by_key(&seq, |charge| charge.head.seq);
        let charge = place.ok().and_then(|place| self.charges.get_mut(place));
        charge.ok_or_else(|| format!("record {seq} is no charge"))
    }

    /// The digest of a record; `None` if there is no such record.
    pub fn at(&self, seq: u64) -> Option<Sha256> {
        let head = usize::try_from(seq).ok().and_then(|seq| self.heads.get(seq));
        head.map(|head| head.sha256)
    }

    /// The first 12 digits of the ledger's id.
    pub fn short_id(&self) -> &str {
        let id = self.init.ledger_id.as_str();
        id.get(..12).unwrap_or(id)
    }

    /// The frozen plan.
    pub fn plan(&self) -> &BudgetPlan {
        &self.init.plan
    }

    /// Charges whose release was not recorded.
    pub fn orphans(&self) -> impl Iterator<Item = &ChargeRecord> {
        self.charges.iter().filter(|charge| charge.fate == Fate::Open)
    }

    /// Charges that count: all that were not voided.
    pub fn counted(&self) -> impl Iterator<Item = &ChargeRecord> {
        self.charges.iter().filter(|charge| !matches!(charge.fate, Fate::Voided { .. }))
    }

    /// Every event that was charged or reserved, with its count.
    pub fn spent(&self) -> Vec<(Event, u64)> {
        let charges = self.counted().map(|charge| &charge.charge.event);
        let reserves = self.reserves.iter().map(|reserve| &reserve.reserve.event);
        let mut counts: Vec<(Event, u64)> = Vec::new();
        charges.chain(reserves).for_each(|event| count(&mut counts, event));
        counts
    }

    /// Whether every charge follows the plan, so that PLD counts: no other event, setting or reserve, and no more
    /// rounds than planned.
    pub fn follows_plan(&self) -> bool {
        self.planned_rounds().is_some_and(|rounds| rounds <= self.plan().charges())
    }

    /// How many times the plan's event was charged; `None` if the ledger holds any other charge.
    pub fn planned_rounds(&self) -> Option<u64> {
        let mut rounds = self.counted().map(|charge| rounds_of(self.plan(), &charge.charge));
        let rounds = rounds.try_fold(0_u64, |sum, rounds| sum.checked_add(rounds?));
        rounds.filter(|_| self.reserves.is_empty())
    }

    /// Number of releases of all charges that count.
    pub fn releases(&self) -> u64 {
        self.course().last().map_or(0, |(releases, _)| releases)
    }

    /// Every charge that counts, with the number of releases up to it.
    pub fn course(&self) -> impl Iterator<Item = (u64, &Charge)> {
        self.counted().scan(0_u64, |releases, charge| {
            *releases = releases.saturating_add(once(&charge.charge.event).1);
            Some((*releases, &charge.charge))
        })
    }

    /// Charges whose number of clients contradicts the plan's sampling, with their numbers.
    pub fn contradictions(&self) -> impl Iterator<Item = (u64, Contradiction)> {
        self.counted().filter_map(|charge| Some((charge.head.seq, charge.charge.contradiction?)))
    }

    /// Number of charges with a test seed, whose releases are NOT private.
    pub fn tests(&self) -> usize {
        self.counted().filter(|charge| charge.charge.rng == Rng::TestSeed).count()
    }
}

/// A repeated event as the event and its count; any other event with the count 1.
fn once(event: &Event) -> (&Event, u64) {
    match event {
        Event::SelfComposed { event, count, .. } => (event, *count),
        event => (event, 1),
    }
}

/// Adds an event to a list of events with their counts.
pub(super) fn count(counts: &mut Vec<(Event, u64)>, event: &Event) {
    let (event, times) = once(event);
    match counts.iter_mut().find(|(known, _)| known == event) {
        Some((_, count)) => *count = count.saturating_add(times),
        None => counts.push((event.clone(), times)),
    }
}

/// How many times an event holds the plan's event; `None` if it is another event.
pub(super) fn rounds_of_event(plan: &BudgetPlan, event: &Event) -> Option<u64> {
    let planned = plan.event().ok()?;
    let (event, times) = once(event);
    if plan.correlated.is_some() && matches!(event, Event::NoOp { .. }) {
        return Some(0);
    }
    (*event == planned).then_some(times)
}

/// How many rounds of the plan a charge pays for; `None` if the plan has no such charge.
fn rounds_of(plan: &BudgetPlan, charge: &Charge) -> Option<u64> {
    let rounds = rounds_of_event(plan, &charge.event)?;
    let alike = charge.adjacency == plan.adjacency
        && charge.unit == plan.unit
        && charge.delta_target == plan.delta
        && charge.mechanism.as_ref().is_none_or(|mechanism| is_planned(plan, mechanism));
    alike.then_some(rounds)
}

/// Whether a mechanism has the settings of the plan.
fn is_planned(plan: &BudgetPlan, mechanism: &Mechanism) -> bool {
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
    /// The state in one word.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::External => "external",
            Self::Released { .. } => "released",
            Self::Voided { .. } => "void",
        }
    }
}

impl std::fmt::Display for Fate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::External => write!(f, "spent elsewhere"),
            Self::Voided { attest } => write!(f, "void: {attest}"),
            Self::Open | Self::Released { .. } => f.write_str(self.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::privacy::ledger::record::{Note, Reserve};
    use crate::privacy::ledger::trial::{charge, init, plan, records, release, state};

    fn charged(round: u64) -> LedgerEntry {
        LedgerEntry::Charge(Box::new(charge(&plan(), round)))
    }

    fn void(seq: u64) -> LedgerEntry {
        LedgerEntry::Void(Void { charge: seq, attest: "the disk was full".to_owned() })
    }

    fn reserve() -> LedgerEntry {
        LedgerEntry::Reserve(Reserve { event: plan().event().unwrap(), text: "later".to_owned() })
    }

    #[test]
    fn a_charge_counts_released_or_not_unless_it_is_void() {
        let plan = plan();
        let entries = [init(&plan), charged(1), release(&charge(&plan, 1), 1), charged(2), charged(3)];
        let state = state(&entries);
        let event = plan.event().unwrap();
        assert_eq!(state.spent(), [(event.clone(), 3)]);
        assert_eq!(state.orphans().map(|charge| charge.head.seq).collect::<Vec<_>>(), [3, 4]);
        let state = super::super::trial::state(&[&entries[..], &[void(3)]].concat());
        assert_eq!(state.spent(), [(event, 2)]);
        assert_eq!(state.orphans().map(|charge| charge.head.seq).collect::<Vec<_>>(), [4]);
        assert_eq!(state.counted().count(), 2);
    }

    #[test]
    fn a_reserve_counts_until_it_is_charged_or_void() {
        let plan = plan();
        let mut taking = charge(&plan, 1);
        taking.reserve = Some(1);
        let entries = [init(&plan), reserve(), reserve(), LedgerEntry::Charge(Box::new(taking))];
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
        let start = [init(&plan), LedgerEntry::Charge(Box::new(first.clone()))];
        for (bad, why) in [
            (vec![init(&plan)], "start only"),
            (vec![LedgerEntry::Charge(Box::new(first.clone()))], "charged before"),
            (vec![LedgerEntry::Charge(Box::new(no_reserve))], "no reserve 1"),
            (vec![LedgerEntry::Charge(Box::new(other_plan))], "plan_sha256"),
            (vec![release(&other_name, 1)], "release_id another"),
            (vec![release(&first, 2)], "no charge"),
            (vec![release(&first, 0)], "no charge"),
            (vec![released.clone(), released.clone()], "not open"),
            (vec![released.clone(), void(1)], "cannot be voided"),
            (vec![void(1), released.clone()], "not open"),
            (vec![void(1), void(1)], "cannot be voided"),
            (vec![void(7)], "no charge"),
        ] {
            let entries = [&start[..], &bad].concat();
            let error = State::replay(&records(&entries)).unwrap_err();
            assert_eq!(error.seq, entries.len() as u64 - 1);
            assert!(error.why.contains(why), "{error}, expected {why}");
        }
        let no_start = [LedgerEntry::Note(Note { text: "one".to_owned() })];
        assert!(State::replay(&records(&no_start)).is_err());
    }

    #[test]
    fn only_what_was_fixed_up_front_follows_the_plan() {
        let plan = plan();
        let with = |change: fn(&mut Charge)| {
            let mut charge = charge(&plan, 1);
            change(&mut charge);
            state(&[init(&plan), LedgerEntry::Charge(Box::new(charge))]).follows_plan()
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
