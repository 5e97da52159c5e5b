//! Findings about budgets of bytes: codecs, tiers and adaptation.

use super::{Case, check, facts};
use crate::round_config::config;
use fedmill::lint::tier_codecs::{CodecForecast, TierTask};
use fedmill::lint::{Facts, Level, lint};
use std::collections::BTreeMap;

#[test]
fn budgets_of_bytes_that_do_not_hold_are_found() {
    let cases = [
        Case {
            level: Level::Error,
            key: "compression.bytes_per_update",
            why: "aims at 1000000 bytes",
            remedy: "raise it",
            with: "compression.bytes_per_update = 20000",
            without: "compression = { bytes_per_update = 20000, methods = ['u8'] }",
        },
        Case {
            level: Level::Error,
            key: "adaptation.bytes_per_round",
            why: "10 updates of a model of 1000000 bytes take 10000000 bytes",
            remedy: "raise it",
            with: "adaptation.bytes_per_round = 9000000",
            without: "adaptation.bytes_per_round = 9000000\ncompression.methods = ['topk:fraction=0.01']",
        },
        Case {
            level: Level::Warning,
            key: "adaptation.bytes_per_round",
            why: "the model for all selected clients takes 10000000 more",
            remedy: "delta",
            with: "adaptation.bytes_per_round = 19000000",
            without: "adaptation.bytes_per_round = 20000000",
        },
    ];
    check(&cases, &facts());
}

#[test]
fn adaptation_without_sense_is_found() {
    let outside = |key, with, without| Case {
        level: Level::Error,
        key,
        why: "outside of its bounds",
        remedy: "bounds around",
        with,
        without,
    };
    let cases = [
        Case {
            level: Level::Error,
            key: "evaluation.metric",
            why: "no command measures one",
            remedy: "evaluation.command",
            with: "evaluation.metric = 'accuracy'",
            without: "evaluation = { metric = 'accuracy', command = ['x'] }",
        },
        Case {
            level: Level::Warning,
            key: "evaluation.command",
            why: "no evaluation shows",
            remedy: "evaluation.command",
            with: "adaptation.local_steps = [1, 5]",
            without: "adaptation.local_steps = [1, 5]\nevaluation.command = ['x']",
        },
        outside("adaptation.quorum", "adaptation.quorum = [0.5, 0.9]", "adaptation.quorum = [0.5, 1]"),
        outside(
            "adaptation.round_timeout",
            "adaptation.round_timeout = ['6m', '1h']",
            "adaptation.round_timeout = ['1m', '1h']",
        ),
        outside("adaptation.clients", "adaptation.clients = [11, 20]", "adaptation.clients = [10, 20]"),
        outside(
            "adaptation.local_steps",
            "adaptation.local_steps = [2, 4]",
            "adaptation.local_steps = [1, 4]",
        ),
        outside(
            "adaptation.compression_target",
            "adaptation.compression_target = [0.1, 0.2]",
            "adaptation.compression_target = [0.01, 0.2]",
        ),
        Case {
            level: Level::Error,
            key: "adaptation.clients",
            why: "beyond min_clients, 10, or max_clients, 1000",
            remedy: "within",
            with: "adaptation.clients = [5, 20]",
            without: "adaptation.clients = [10, 20]",
        },
        Case {
            level: Level::Error,
            key: "adaptation.server_learning_rate",
            why: "fedprox has no learning rate",
            remedy: "fedavg",
            with: "adaptation.server_learning_rate = [1, 2]\nstrategy.name = 'fedprox'",
            without: "adaptation.server_learning_rate = [1, 2]\nstrategy.name = 'fedavgm'",
        },
    ];
    check(&cases, &facts());
}

/// The tiers low, whose clients may send this much, and high, which has no budget.
fn with_tiers(upload_bytes: u64, low: TierTask) -> Facts {
    let one = |(codec, bytes): (&str, u64)| CodecForecast { codec: codec.to_owned(), bytes };
    let codecs: Vec<_> = [("f16", 500_000), ("u4", 130_000)].map(one).into();
    let high = TierTask { codecs: codecs.clone(), ..TierTask::default() };
    let low = TierTask { upload_bytes: Some(upload_bytes), codecs: [codecs, low.codecs].concat(), ..low };
    let tiers = BTreeMap::from([("low".to_owned(), low), ("high".to_owned(), high)]);
    Facts { tiers, ..facts() }
}

#[test]
fn codecs_that_do_not_fit_a_tier_are_found() {
    let settings =
        "tiers.file = 't.json'\nadaptation.tier_codecs = true\ncompression.methods = ['f16', 'u4']";
    let found = |settings: &str, facts: &Facts| -> Vec<String> {
        let of = ["adaptation.tier_codecs", "compression.methods"];
        let findings = lint(&config(settings), facts);
        assert!(findings.iter().all(|one| one.level == Level::Warning), "{findings:#?}");
        findings.into_iter().filter(|one| of.contains(&one.key)).map(|one| one.why).collect()
    };
    let low = TierTask::default();
    let none: [&str; 0] = [];
    assert_eq!(found(settings, &with_tiers(130_000, low.clone())), none);
    assert_eq!(
        found(settings, &with_tiers(129_999, low.clone())),
        [
            "no codec meets the 129999 bytes of a client in tier `low`: u4, the smallest, is expected to take 130000"
        ]
    );
    let pinned = TierTask { codec: Some("f16".to_owned()), ..low.clone() };
    assert_eq!(
        found(settings, &with_tiers(130_000, pinned)),
        ["tier `low` uses f16, which is expected to take 500000 bytes, of 130000"]
    );
    let refused = TierTask { unfit: vec![("topk".to_owned(), "median".to_owned())], ..low.clone() };
    assert_eq!(found(settings, &with_tiers(130_000, refused)), ["tier `low` never gets it: median"]);
    let larger = vec![CodecForecast { codec: "u8".to_owned(), bytes: 250_000 }];
    assert_eq!(
        found(settings, &with_tiers(130_000, TierTask { codecs: larger, ..low.clone() })),
        ["u8 is expected to take 250000 bytes and u4 before it 130000: it is never chosen"]
    );
    let unbounded = Facts { tiers: BTreeMap::from([("low".to_owned(), low)]), ..facts() };
    assert_eq!(found(settings, &unbounded), ["no tier has a budget of bytes, so each codec meets it"]);
    let share = format!("{settings}\nadaptation.bytes_per_round = 1000000");
    let finds = found(&share, &with_tiers(130_000, TierTask::default()));
    assert!(finds[0].starts_with("no codec meets the 100000 bytes of a client in tier `high`"), "{finds:?}");
    assert_eq!(found("adaptation.tier_codecs = true", &facts()), ["it has no effect: there are no tiers"]);
    let no_codec = "tiers.file = 't.json'\nadaptation.tier_codecs = true";
    assert_eq!(found(no_codec, &facts()), ["it has no effect: no codec is in methods"]);
}
