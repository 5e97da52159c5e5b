//! Ledgers for tests.

use crate::privacy::event::Adjacency;
use crate::privacy::ledger::plan::{Accountant, BudgetPlan, ClipBound, Sampling, Unit};
use crate::privacy::ledger::record::{
    Charge, Epsilon, Init, LedgerEntry, LedgerRecord, Mechanism, Release, Rng,
};
use crate::privacy::ledger::replay::State;
use crate::record::sha256::Sha256;
use crate::record::{self, Head};

/// A plan of ten rounds.
pub(super) fn plan() -> BudgetPlan {
    let plan = BudgetPlan {
        epsilon: 8.0,
        delta: 1e-5,
        population: 1000,
        sampling: Sampling::Poisson,
        sampling_rate: 0.1,
        noise_multiplier: 1.1,
        rounds: 10,
        clip: ClipBound::Fixed(1.5),
        denominator: 100,
        adjacency: Adjacency::AddOrRemoveOne,
        unit: Unit::Client,
        dimension: Some(1000),
        level: None,
        accountant: Accountant::Best,
        correlated: None,
        tensors_sha256: None,
    };
    BudgetPlan { level: Some(plan.level_for(1000)), ..plan }
}

pub(super) fn init(plan: &BudgetPlan) -> LedgerEntry {
    let (plan_sha256, plan) = (plan.sha256(), plan.clone());
    LedgerEntry::Init(Box::new(Init {
        ledger_id: "00112233445566778899aabbccddeeff".to_owned(),
        plan,
        plan_sha256,
    }))
}

/// The charge of a round.
pub(super) fn charge(plan: &BudgetPlan, round: u64) -> Charge {
    let mechanism = Mechanism {
        z: plan.noise_multiplier,
        q: plan.sampling_rate,
        clip: plan.first_clip(),
        n_pub: plan.denominator,
        d: 1000,
        level: plan.level_for(1000),
        inputs_sha256: Sha256::of(format!("inputs {round}")),
        output: "/models/merged.safetensors".to_owned(),
        resumable: false,
        clients_sha256: None,
    };
    Charge {
        release_id: format!("001122334455-{round}"),
        round: Some(round),
        event: plan.event().unwrap(),
        adjacency: plan.adjacency,
        unit: plan.unit,
        mechanism: Some(mechanism),
        delta_target: plan.delta,
        plan_sha256: plan.sha256(),
        reserve: None,
        eps_rdp: Epsilon::up(1.25).unwrap(),
        eps_pld: Epsilon::up(1.0 / 3.0),
        slack: Epsilon::up(0.0),
        rng: Rng::Os,
        text: None,
        contradiction: None,
        secure: None,
    }
}

pub(super) fn release(charge: &Charge, seq: u64) -> LedgerEntry {
    LedgerEntry::Release(Release {
        charge: seq,
        release_id: charge.release_id.clone(),
        output_sha256: Sha256::of(format!("output of {seq}")),
        next_clip: None,
    })
}

/// The lines of a ledger with these entries.
pub(super) fn lines(entries: &[LedgerEntry]) -> Vec<String> {
    let mut head: Option<Head> = None;
    let mut seal = |entry| {
        let (line, next) = record::seal(head.as_ref(), 1_700_000_000, entry).unwrap();
        head = Some(next);
        line
    };
    entries.iter().map(&mut seal).collect()
}

pub(super) fn records(entries: &[LedgerEntry]) -> Vec<(LedgerRecord, Head)> {
    record::verify(lines(entries).iter().map(String::as_str)).unwrap()
}

pub(super) fn state(entries: &[LedgerEntry]) -> State {
    State::replay(&records(entries)).unwrap().unwrap()
}
