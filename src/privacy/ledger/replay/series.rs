//! The rounds of a series, whose noise is correlated. The first round pays for all.
//!
//! The draws of a round come from the key of the series and the round's transcript: the inputs of the round and of all
//! charged rounds before it. So two sums never have the same draws, not even if the operator restores an older copy of
//! the state directory: the same noise on two sums would expose both. Numbers come in order, because the proof for
//! correlated noise needs sums that depend on earlier releases only.

use crate::privacy::ledger::record::{Charge, SeriesKey};
use crate::privacy::ledger::replay::{ChargeRecord, Fate, State};
use crate::record::sha256::Sha256;
use std::collections::BTreeMap;

impl State {
    /// The rounds that fedmill charged, in order, released or not.
    pub fn rounds(&self) -> impl Iterator<Item = (u64, &ChargeRecord)> {
        let own = self.charges.iter().filter(|charge| charge.charge.mechanism.is_some());
        own.filter_map(|charge| Some((charge.charge.round?, charge)))
    }

    /// The last round that fedmill charged.
    pub fn last_round(&self) -> Option<u64> {
        self.rounds().last().map(|(round, _)| round)
    }

    /// The transcript of each round from 1 to `last`. That of a charged round names its inputs and all charged rounds
    /// before it. Draws come from these bytes, so they must not change.
    pub fn transcripts(&self, last: u64) -> Vec<Sha256> {
        let charged: BTreeMap<u64, Sha256> = self
            .rounds()
            .filter_map(|(round, charge)| Some((round, charge.charge.mechanism.as_ref()?.inputs_sha256)))
            .collect();
        let mut before = Sha256::NONE;
        let transcript = |round: u64| {
            let inputs = charged.get(&round);
            // Nothing is released of a round that was left out, but later rounds subtract its noise.
            let kind: &[u8] = if inputs.is_some() { b"charged" } else { b"left out" };
            let inputs = inputs.unwrap_or(&Sha256::NONE);
            let all = [before.bytes(), inputs.bytes(), round.to_le_bytes().as_slice(), kind].concat();
            let transcript = Sha256::of(all);
            if charged.contains_key(&round) {
                before = transcript;
            }
            transcript
        };
        (1..=last).map(transcript).collect()
    }

    /// Whether a charge is a round of a series. Its noise is used, released or not.
    pub fn is_of_series(&self, charge: &Charge) -> bool {
        self.plan().correlated.is_some() && charge.mechanism.is_some()
    }

    /// Whether the last round of a series was released.
    pub fn series_is_over(&self) -> bool {
        let is_last = |(round, charge): (u64, &ChargeRecord)| {
            round == self.plan().rounds && matches!(charge.fate, Fate::Released { .. })
        };
        self.plan().correlated.is_some() && self.rounds().last().is_some_and(is_last)
    }

    /// Checks that a round of a series may follow the earlier rounds.
    pub(super) fn check_round(&self, charge: &Charge) -> Result<(), String> {
        let last = self.last_round();
        let round = charge.round.ok_or("found no round, expected its number")?;
        if round <= last.unwrap_or(0) || round > self.plan().rounds {
            let (from, to) = (last.unwrap_or(0) + 1, self.plan().rounds);
            return Err(format!("found round {round}, expected one from {from} to {to}"));
        }
        let expected = self.plan().event_of_round(last.is_none()).map_err(|why| why.to_string())?;
        if charge.event != expected {
            return Err(format!("found another event for round {round}, expected {expected:?}"));
        }
        let is_listed = charge.mechanism.as_ref().is_some_and(|mechanism| mechanism.clients_sha256.is_some());
        if is_listed { Ok(()) } else { Err("clients_sha256: found none, expected a digest".to_owned()) }
    }

    pub(super) fn take_key(&mut self, key: &SeriesKey) -> Result<(), String> {
        if self.plan().correlated.is_none() || self.last_round().is_none() {
            return Err("found the key of a series, expected it behind the first charge".to_owned());
        }
        if self.series_key.is_some() {
            return Err("found another key, expected one for the whole series".to_owned());
        }
        self.series_key = Some(key.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::privacy::correlated::factor::Factor;
    use crate::privacy::ledger::plan::{BudgetPlan, Correlated, Sampling};
    use crate::privacy::ledger::record::{DrawsFrom, LedgerEntry, Void};
    use crate::privacy::ledger::{budget, trial};
    use std::collections::BTreeSet;

    fn plan() -> BudgetPlan {
        let correlated = Correlated { factor: Factor::Banded { bands: 4 }, participations: 3, separation: 2 };
        let plan = BudgetPlan { correlated: Some(correlated), sampling: Sampling::All, ..trial::plan() };
        let plan = BudgetPlan { sampling_rate: 1.0, ..plan };
        BudgetPlan { level: Some(plan.level_for(1000)), ..plan }
    }

    fn round(round: u64, is_first: bool) -> Charge {
        let mut charge = trial::charge(&plan(), round);
        charge.event = plan().event_of_round(is_first).unwrap();
        charge.mechanism.as_mut().unwrap().clients_sha256 = Some(Sha256::of("clients"));
        charge
    }

    fn charged(charge: Charge) -> LedgerEntry {
        LedgerEntry::Charge(Box::new(charge))
    }

    fn series_key() -> SeriesKey {
        SeriesKey { key_sha256: Sha256::of("key"), draws: DrawsFrom::Inputs }
    }

    fn key() -> LedgerEntry {
        LedgerEntry::Key(series_key())
    }

    #[test]
    fn one_charge_pays_for_all_rounds() {
        let entries = [trial::init(&plan()), charged(round(1, true)), key(), charged(round(2, false))];
        let all = trial::state(&entries);
        assert!(all.follows_plan());
        assert_eq!((all.last_round(), all.releases(), &all.series_key), (Some(2), 2, &Some(series_key())));
        let (first, planned) = (trial::state(&entries[..2]), budget::planned(&plan()).unwrap());
        assert_eq!(budget::spent(&first).unwrap(), planned);
        assert_eq!(budget::spent(&all).unwrap(), planned);
        assert_eq!(budget::rounds_left(&all).unwrap(), plan().rounds - 2);
        assert_eq!(budget::rounds_left(&trial::state(&entries[..1])).unwrap(), plan().rounds);
        let alone = BudgetPlan { correlated: None, rounds: 1, ..plan() };
        assert_eq!(planned.rdp, budget::planned(&alone).unwrap().rdp, "the series is one Gaussian");
    }

    /// No two rounds share a transcript, in one ledger or in two that have their first rounds in common.
    #[test]
    fn transcripts_tell_inputs_and_histories_apart() {
        let with_inputs = |number: u64, is_first: bool, inputs: &str| {
            let mut charge = round(number, is_first);
            charge.mechanism.as_mut().unwrap().inputs_sha256 = Sha256::of(inputs);
            charged(charge)
        };
        let of = |rounds: &[(u64, &str)]| {
            let rounds = rounds.iter().enumerate();
            let rounds = rounds.map(|(place, (number, inputs))| with_inputs(*number, place == 0, inputs));
            trial::state(&[trial::init(&plan())].into_iter().chain(rounds).collect::<Vec<_>>()).transcripts(4)
        };
        let all = of(&[(1, "a"), (2, "b"), (4, "c")]);
        assert_eq!(all.iter().map(Sha256::to_string).collect::<BTreeSet<_>>().len(), 4);
        assert_eq!(all, of(&[(1, "a"), (2, "b"), (4, "c")]), "the same history");
        let other = of(&[(1, "a"), (2, "x"), (4, "c")]);
        assert_eq!(all[0], other[0]);
        assert!((1..4).all(|place| all[place] != other[place]), "the same inputs behind another history");
        let skipped = of(&[(1, "a"), (4, "c")]);
        assert!(all[1] != skipped[1] && all[3] != skipped[3]);
    }

    #[test]
    fn rounds_come_once_and_in_order_and_cannot_be_voided() {
        let start = [trial::init(&plan()), charged(round(2, true)), key()];
        let void = LedgerEntry::Void(Void { charge: 1, attest: "the machine was off".to_owned() });
        let mut no_round = round(3, false);
        no_round.round = None;
        let mut no_clients = round(3, false);
        no_clients.mechanism.as_mut().unwrap().clients_sha256 = None;
        for (bad, why) in [
            (charged(round(2, false)), "found round 2, expected one from 3 to 10"),
            (charged(round(1, false)), "found round 1"),
            (charged(round(11, false)), "found round 11"),
            (charged(round(3, true)), "another event"),
            (charged(no_round), "no round"),
            (charged(no_clients), "clients_sha256"),
            (key(), "another key"),
            (void, "cannot be voided"),
        ] {
            let bad = bad_named(bad);
            let records = trial::records(&[&start[..], &[bad]].concat());
            let error = State::replay(&records).unwrap_err();
            assert!(error.why.contains(why), "{error}, expected {why}");
        }
        let early = [trial::init(&plan()), key()];
        assert!(State::replay(&trial::records(&early)).is_err());
    }

    /// Renames the release, so that the entry has the one fault that is tested.
    fn bad_named(entry: LedgerEntry) -> LedgerEntry {
        let LedgerEntry::Charge(mut charge) = entry else { return entry };
        charge.release_id = "another".to_owned();
        LedgerEntry::Charge(charge)
    }

    #[test]
    fn plans_that_cannot_be_correlated_are_refused() {
        let with = |change: fn(&mut BudgetPlan)| {
            let mut plan = plan();
            change(&mut plan);
            plan.level = plan.dimension.map(|dimension| plan.level_for(dimension));
            plan.check()
        };
        assert!(with(|_| ()).is_ok());
        assert!(with(|plan| plan.sampling = Sampling::Poisson).is_err());
        assert!(with(|plan| plan.dimension = None).is_err());
        assert!(with(|plan| plan.correlated.as_mut().unwrap().participations = 0).is_err());
        assert!(with(|plan| plan.correlated.as_mut().unwrap().separation = 0).is_err());
        assert!(with(|plan| plan.rounds = 1 << 21).is_err());
        assert!(
            with(|plan| plan.correlated.as_mut().unwrap().factor = Factor::Banded { bands: 257 }).is_err()
        );
        let text = plan().frozen();
        assert_eq!(BudgetPlan::thaw(&text).unwrap(), plan());
        assert!(!trial::plan().frozen().contains("correlated"), "plans without a series keep their text");
    }
}
