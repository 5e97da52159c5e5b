//! Three rounds by each strategy, and by the rule that keeps a centre: models, states, reports.

use super::inputs::f32s;
use super::{Digests, merge};
use crate::harness::{Dir, Update};

const ROUNDS: usize = 3;

/// The options of a strategy, besides its text.
const CASES: [(&str, &[&str]); 25] = [
    ("fedavg:lr=0.5", &[]),
    ("fedprox:mu=0.25", &[]),
    ("fedavgm", &[]),
    ("fedavgm:lr=0.3,momentum=0.5", &["--compat=flower"]),
    ("fedadam", &[]),
    ("fedadam:bias-correction=adam,v0=0.01", &[]),
    ("fedadam", &["--compat=flower"]),
    ("fedadam", &["--compat=tff"]),
    ("fedyogi", &[]),
    ("fedyogi", &["--compat=flower"]),
    ("fedyogi", &["--compat=tff"]),
    ("fedadagrad", &[]),
    ("fedadagrad", &["--compat=flower"]),
    ("fedadam:lr=0.2", &["--rule=krum", "--byzantine=1"]),
    ("fednova", &[]),
    ("fednova:gmf=0.9", &[]),
    ("fednova:steps=5", &["--rule=median"]),
    ("scaffold", &["--population=11"]),
    ("scaffold:lr=0.5", &["--population=11", "--rule=trimmed-mean:cut=1"]),
    ("qfedavg:local-lr=0.05,q=2", &[]),
    ("fedbuff:staleness=hinge,b=1", &[]),
    ("fedbuff:staleness=constant,normalize=weights", &[]),
    ("fedbuff:a=1", &["--rule=mean"]),
    ("fedexp", &[]),
    ("fedavg", &["--rule=centered-clipping:iterations=2"]),
];

fn tensors(name: &str, seed: usize, prefix: &str) -> Update {
    add_tensors(Update::new(name), seed, prefix)
}

fn add_tensors(update: Update, seed: usize, prefix: &str) -> Update {
    update.f32(&format!("{prefix}a"), &[20, 30], &f32s(seed, 600)).f32(
        &format!("{prefix}b"),
        &[37],
        &f32s(seed + 500, 37),
    )
}

/// The deltas of a round's clients, with all metadata that strategies need.
fn write_clients(dir: &Dir, round: usize, with_controls: bool) {
    for client in 0..7 {
        let seed = 100 * round + client;
        let update = tensors(&format!("in-{round}/client-{client}"), seed, "").i64("n", &[1], &[seed as i64]);
        let update = if with_controls { add_tensors(update, seed + 50, "scaffold.delta_c.") } else { update };
        let metadata = [
            ("kind", "delta".to_owned()),
            ("num_examples", (3 + 7 * client).to_string()),
            ("local_steps", (1 + (5 * client) % 13).to_string()),
            ("momentum", if client % 3 == 0 { "0.9" } else { "0" }.to_owned()),
            ("proximal_mu", if client % 2 == 0 { "0.25" } else { "0" }.to_owned()),
            ("local_lr", "0.0625".to_owned()),
            ("loss", (0.25 * (client + 1) as f64).to_string()),
            ("round", (round - client % (round + 1)).to_string()),
        ];
        metadata.iter().fold(update, |update, (key, value)| update.meta(key, value)).write(dir);
    }
}

#[test]
fn strategies() {
    let mut digests = Digests::new("strategies");
    for (text, more) in CASES {
        let dir = Dir::new();
        tensors("model-0", 999, "").i64("n", &[1], &[3]).write(&dir);
        let keeps = !matches!(text.split(':').next().unwrap(), "fedprox" | "qfedavg" | "fedbuff" | "fedexp")
            && !matches!(text, "fedavg:lr=0.5" | "fednova" | "fednova:steps=5");
        for round in 0..ROUNDS {
            write_clients(&dir, round, text.starts_with("scaffold"));
            let (folder, base) = (format!("in-{round}"), format!("--base=model-{round}.safetensors"));
            let (strategy, number) = (format!("--strategy={text}"), format!("--round={round}"));
            let mut args = vec![folder.as_str(), &base, &strategy];
            args.extend(more);
            if keeps {
                args.push("--state=state.safetensors");
            }
            if text.starts_with("fedbuff") {
                args.push(&number);
            }
            let case = format!("{}/{round}", [&[text], more].concat().join("+"));
            merge(&mut digests, &case, &dir, &args);
            if keeps {
                digests.add_file(&format!("{case}/state"), &dir, "state.safetensors");
            }
            dir.write(&format!("model-{}.safetensors", round + 1), dir.read("m.safetensors"));
        }
    }
    digests.check(include_str!("recorded/strategies.txt"));
}
