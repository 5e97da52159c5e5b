//! Histories of rounds that never ran: everything a page, an exporter or a dashboard can show.

use fedmill::telemetry::metrics::{
    Adapted, Bytes, ClientCounts, ClientFigures, Geometry, Outcome, PrivacyState, Quantiles, RoundRecord,
    RoundSettings, jain,
};

/// 2026-11-01 00:00 UTC, in seconds since 1970.
const START: f64 = 1_793_491_200.0;

/// An id that would act on a page, a terminal or a textfile if it were not escaped.
pub(crate) const HOSTILE: &str = "<script>alert(1)</script><img src=x onerror=alert(2)>\" } 1\\";

/// Numbers that look random, 0 to 1, and are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f64 / (1_u64 << 24) as f64
    }
}

/// A federation of 20 digits clients without privacy: rising accuracy, a few refused rounds, hostile clients.
pub(crate) fn open(rounds: u64) -> Vec<RoundRecord> {
    let mut numbers = Numbers(7);
    let mut total = 0;
    (1..=rounds).map(|round| open_round(round, rounds, &mut numbers, &mut total)).collect()
}

fn open_round(round: u64, rounds: u64, numbers: &mut Numbers, total: &mut u64) -> RoundRecord {
    let opened = START + 3600.0 * round as f64;
    let wait = 40.0 + 200.0 * numbers.next();
    let mut record = RoundRecord::new(round, opened, opened + wait + 4.0);
    let progress = round as f64 / rounds.max(40) as f64;
    let noise = numbers.next() - 0.5;
    let loss = 2.3 * (-3.2 * progress).exp() + 0.08 + 0.05 * noise;
    record.metrics.insert("loss".to_owned(), loss);
    record.metrics.insert("accuracy".to_owned(), 0.985 - 0.88 * (-4.0 * progress).exp() + 0.01 * noise);
    record.metrics.insert("calibration_error".to_owned(), 0.05 + 0.02 * noise);
    let phases = [
        ("open", 0.02 + 0.01 * numbers.next()),
        ("collect", wait),
        ("validate", 0.3 + 0.1 * numbers.next()),
        ("aggregate", 1.1 + 0.4 * numbers.next()),
        ("evaluate", 2.0 + 0.2 * numbers.next()),
        ("publish", 0.05),
        ("adapt", 0.004),
        ("report", 0.02),
    ];
    record.phase_s = phases.map(|(phase, seconds)| (phase.to_owned(), seconds)).into();
    let rejected = u64::from(numbers.next() < 0.3) + u64::from(numbers.next() < 0.1);
    let missing = (3.0 * numbers.next()) as u64;
    let delivered = 20 - missing;
    let late = u64::from(numbers.next() < 0.2);
    record.clients = ClientCounts {
        population: 64,
        selected: 20,
        delivered,
        late,
        missing,
        rejected,
        merged: delivered - rejected,
        waiting: late,
        arrival_s: Some(Quantiles { min: 12.0, median: 0.4 * wait, p90: 0.8 * wait, max: wait }),
    };
    let norm = 4.0 * (-1.2 * progress).exp() + 0.3 + 0.2 * numbers.next();
    record.geometry = Geometry {
        coherence: Some(0.2 + 0.3 * (-2.0 * progress).exp() + 0.05 * noise),
        noise_scale: Some(3.0 + 9.0 * progress + noise),
        signal_fraction: Some(0.9 - 0.3 * progress + 0.05 * noise),
        alignment: Some(0.5 - 0.2 * progress + 0.03 * noise),
        norm_median: Some(norm),
        norm_min: Some(0.6 * norm),
        norm_max: Some(norm * if rejected > 0 { 30.0 } else { 1.7 }),
    };
    record.settings = RoundSettings {
        server_learning_rate: Some(1.0),
        clip: None,
        quorum: Some(14),
        deadline_s: Some(300.0),
        selected: Some(20),
        compression_target: Some(0.05),
        local_steps: [("high".to_owned(), 20), ("low".to_owned(), 5), ("medium".to_owned(), 10)].into(),
    };
    let (up, down) = (180_000 * delivered + (9000.0 * numbers.next()) as u64, 20 * 407_000);
    *total += up + down;
    record.bytes = Bytes { up, down, total: *total };
    record.fairness =
        jain(64, round as f64 * 18.0, (round as f64 * 18.0).powi(2) / 64.0 * (1.0 + 1.0 / round as f64));
    record.model = Some(format!("{:016x}", round.wrapping_mul(0x9e37_79b9_7f4a_7c15)).repeat(4));
    record.rows = Some((0..20).map(|client| row(client, client < rejected, norm)).collect());
    if round.is_multiple_of(17) {
        record.outcome =
            Outcome::Refused("accuracy 0.41 is worse than that of the last model, 0.93".to_owned());
        record.model = None;
    }
    if round.is_multiple_of(9) {
        record.adapted.push(Adapted {
            setting: "coordination.round_timeout".to_owned(),
            from: "300 s".to_owned(),
            to: "270 s".to_owned(),
            why: "90 % of the updates came within 214 s in the last 5 rounds".to_owned(),
        });
    }
    record
}

fn row(client: u64, is_rejected: bool, norm: f64) -> ClientFigures {
    let outcome = if is_rejected { "rejected" } else { "merged" };
    ClientFigures {
        id: format!("phone-{client:02}"),
        outcome: outcome.to_owned(),
        norm: Some(if is_rejected { 30.0 * norm } else { norm }),
        kept: !is_rejected,
        reason: is_rejected.then(|| "its norm is 30 times the median".to_owned()),
    }
}

/// The same federation under a privacy budget: no figure of single clients, no geometry.
pub(crate) fn private(rounds: u64) -> Vec<RoundRecord> {
    let mut records = open(rounds);
    for (spent, record) in (1..).zip(&mut records) {
        record.geometry = Geometry::default();
        record.rows = None;
        record.settings.clip = Some(1.0);
        record.privacy = Some(PrivacyState {
            epsilon_spent: 10.0 * (f64::from(spent) / (rounds as f64 + 4.0)).sqrt(),
            epsilon_budget: 10.0,
            delta: 1e-5,
            rounds_left: Some(rounds + 4 - u64::try_from(spent).unwrap()),
        });
    }
    records
}

/// Every text of others is hostile, and every number that may be absent or not finite is.
pub(crate) fn hostile() -> Vec<RoundRecord> {
    let mut records = vec![RoundRecord::new(1, START, START + 1.0), RoundRecord::new(2, -1e18, 1e18)];
    for record in &mut records {
        let texts = || HOSTILE.to_owned();
        record.outcome = Outcome::Refused(texts());
        record.metrics =
            [("loss".to_owned(), f64::NAN), (texts(), 1.0), ("accuracy".to_owned(), f64::INFINITY)].into();
        record.phase_s.insert(texts(), 1.0);
        record.settings.local_steps.insert(texts(), 1);
        record.model = Some(texts());
        record.geometry.norm_max = Some(f64::MAX);
        record.geometry.norm_min = Some(f64::MIN_POSITIVE);
        record.adapted.push(Adapted { setting: texts(), from: texts(), to: texts(), why: texts() });
        let twice = [texts(), texts(), "x".repeat(3000)];
        record.rows = Some(
            twice
                .map(|id| ClientFigures {
                    id,
                    outcome: texts(),
                    norm: Some(1.0),
                    kept: false,
                    reason: Some(texts()),
                })
                .into(),
        );
    }
    records
}
