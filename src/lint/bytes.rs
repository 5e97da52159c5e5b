//! Findings about codecs and budgets of bytes.

use super::finding::Lint;

pub(super) fn check(lint: &mut Lint) {
    let config = lint.config;
    let compression = &config.compression;
    let (key, budget) = ("adaptation.bytes_per_round", config.adaptation.bytes_per_round);
    let Some(model) = lint.facts.model_bytes else { return };
    let target = (compression.target * model as f64) as u64;
    if let Some(most) = compression.bytes_per_update {
        let smallest = if compression.methods.is_empty() { model } else { target };
        if smallest > most {
            let why = format!(
                "an update of a model of {model} bytes aims at {smallest} bytes: every update is refused"
            );
            let remedy = "raise it, set methods, or lower target";
            lint.error("compression.bytes_per_update", most, why, remedy);
        }
    }
    let Some(budget) = budget else { return };
    let share = match config.adaptation.compression_target {
        _ if compression.methods.is_empty() => 1.0,
        Some([least, _]) => least,
        None => compression.target,
    };
    let clients = config.coordination.quorum_count();
    let up = (share * model as f64) as u64 * clients;
    let down = model * config.coordination.selected();
    if up > budget {
        let why =
            format!("{clients} updates of a model of {model} bytes take {up} bytes at the smallest target");
        lint.error(key, budget, why, "raise it, select fewer clients, or allow a smaller target");
    } else if up + down > budget {
        let why =
            format!("the uploads take {up} bytes, and the model for all selected clients takes {down} more");
        lint.warning(
            key,
            budget,
            why,
            "raise it, or select fewer clients; clients with the last model get a delta",
        );
    }
}
