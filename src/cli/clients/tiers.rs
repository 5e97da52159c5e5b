//! `fedmill clients tiers`: sorts clients into tiers by their devices.

use super::super::{Common, Failure, OUTPUT, Outcome, RULE, print_account, size};
use super::state::{StateDirectory, failure};
use crate::codecs;
use crate::fleet::tiers::{self, Scale, TIERS, TierPlan};
use crate::rules;
use crate::settings::Definition;
use clap::Args;
use std::path::PathBuf;

/// Sort clients into the tiers high, medium and low by their devices, and write the file of tiers.
///
/// The score of a client is 0.4 compute + 0.3 memory + 0.3 bandwidth, each scaled to [0, 1] over the registry. The tiers
/// go into the registry, and with -o into a file that `aggregate --tiers` reads.
#[derive(Args, Debug)]
#[command(next_help_heading = RULE)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    state: StateDirectory,
    /// The file of tiers, relative to the current directory. The key tiers.file of fedmill.toml takes it relative to the
    /// state directory: for DIR/tiers.json it is "tiers.json".
    #[arg(long, short, value_name = "FILE", help_heading = OUTPUT)]
    output: Option<PathBuf>,
    /// The weight of compute capability in the score.
    #[arg(long, value_name = "W", default_value_t = 0.4)]
    compute: f64,
    /// The weight of memory.
    #[arg(long, value_name = "W", default_value_t = 0.3)]
    memory: f64,
    /// The weight of bandwidth.
    #[arg(long, value_name = "W", default_value_t = 0.3)]
    bandwidth: f64,
    /// Scores above HIGH are tier high.
    #[arg(long, value_name = "HIGH", default_value_t = 0.7)]
    high: f64,
    /// Scores up to LOW are tier low.
    #[arg(long, value_name = "LOW", default_value_t = 0.3)]
    low: f64,
    /// Take HIGH and LOW as parts of the clients: 0.7 and 0.3 put 30 % into high and 30 % into low.
    #[arg(long)]
    quantiles: bool,
    /// The rule of a tier in the file, such as high=median [default: that of the round; mean in `aggregate --tiers`].
    #[arg(long, value_name = "TIER=RULE", requires = "output", value_parser = of_tier)]
    tier_rule: Vec<(usize, String)>,
    /// The local steps of the clients of a tier, such as low=2.
    #[arg(long, value_name = "TIER=N", requires = "output", value_parser = of_tier)]
    tier_steps: Vec<(usize, String)>,
    /// The codec of the updates of a tier, such as low=topk:fraction=0.01.
    #[arg(long, value_name = "TIER=CODEC", requires = "output", value_parser = of_tier)]
    tier_codec: Vec<(usize, String)>,
    /// The bytes that a client of a tier may send in a round, such as low=200kB.
    #[arg(long, value_name = "TIER=BYTES", requires = "output", value_parser = of_tier)]
    tier_bytes: Vec<(usize, String)>,
}

/// A tier by its place, and what is set for it.
fn of_tier(text: &str) -> Result<(usize, String), String> {
    let expected = || format!("expected TIER=VALUE with tier {}", TIERS.join(", "));
    let (name, value) = text.split_once('=').ok_or_else(expected)?;
    let place = TIERS.iter().position(|tier| *tier == name).ok_or_else(expected)?;
    Ok((place, value.to_owned()))
}

impl Arguments {
    pub(super) fn run(&self, _: &Common) -> Result<Outcome, Failure> {
        let scale = Scale {
            weights: [self.compute, self.memory, self.bandwidth],
            thresholds: [self.low, self.high],
            by_quantile: self.quantiles,
        };
        scale.check().map_err(failure)?;
        let plans = self.plans()?;
        let mut registry = self.state.open()?;
        let assigned = tiers::assign(&registry, &scale).map_err(failure)?;
        if assigned.without_devices > 0 {
            let count = assigned.without_devices;
            tracing::warn!(
                "{count} clients state neither memory nor bandwidth: compute alone decides their tier"
            );
        }
        let changed = assigned.record(&mut registry).map_err(failure)?;
        if let Some(path) = &self.output {
            assigned.write(path, &plans).map_err(failure)?;
        }
        let counts: Vec<String> =
            TIERS.iter().zip(&assigned.members).map(|(tier, ids)| format!("{} {tier}", ids.len())).collect();
        let text = format!("{}; {changed} changed\n", counts.join(", "));
        print_account(&text);
        Ok(Outcome::Done)
    }

    fn plans(&self) -> Result<[TierPlan; 3], Failure> {
        let plan = || TierPlan { rule: None, local_steps: None, codec: None, upload_bytes: None };
        let mut plans = [plan(), plan(), plan()];
        for (tier, rule) in &self.tier_rule {
            rules::parse(rule, Definition::Paper)?;
            plans[*tier].rule = Some(rule.clone());
        }
        for (tier, steps) in &self.tier_steps {
            let count = steps.parse().ok().filter(|steps| *steps > 0);
            let bad = || anyhow::anyhow!("--tier-steps: found `{steps}`, expected a number of steps");
            plans[*tier].local_steps = Some(count.ok_or_else(bad)?);
        }
        for (tier, codec) in &self.tier_codec {
            codecs::parse(codec)?;
            plans[*tier].codec = Some(codec.clone());
        }
        for (tier, bytes) in &self.tier_bytes {
            let bad = |why| anyhow::anyhow!("--tier-bytes {bytes}: {why}");
            plans[*tier].upload_bytes = Some(size::parse_bytes(bytes).map_err(bad)?);
        }
        Ok(plans)
    }
}
