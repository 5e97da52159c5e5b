//! `fedmill round show`: one round as a whole.

use super::super::{Common, Failure, INPUTS, OUTPUT, Outcome, print};
use super::directory::reader;
use crate::round::show::{Shown, show};
use crate::round::status::Shortfall;
use crate::telemetry::cells::{Listing, number};
use crate::telemetry::metrics::SecureFigures;
use clap::Args;
use std::path::PathBuf;

/// Show a round: what became of each client and why, its settings, and what it changed.
#[derive(Args, Debug)]
pub(in crate::cli) struct Arguments {
    /// The state directory.
    #[arg(value_name = "DIR", help_heading = INPUTS)]
    directory: PathBuf,
    /// The round [default: the last].
    #[arg(value_name = "N", help_heading = INPUTS)]
    round: Option<u64>,
    /// Print one JSON object.
    #[arg(long, help_heading = OUTPUT)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        let (config, mut server) = reader(&self.directory, common)?;
        let shown = show(&mut server, &config, self.round).map_err(Failure::of)?;
        let text = if self.json { serde_json::to_string(&shown)? } else { text(&shown) };
        print(&format!("{text}\n"))?;
        Ok(Outcome::Done)
    }
}

fn text(shown: &Shown) -> String {
    let mut parts = vec![facts(shown)];
    parts.extend(clients(shown));
    parts.extend(files(shown));
    parts.extend(changes(shown));
    parts.join("\n\n")
}

fn facts(shown: &Shown) -> String {
    let past = &shown.past;
    let metrics: Vec<String> =
        past.metrics.iter().map(|(name, value)| format!("{name} {}", number(*value))).collect();
    let ending =
        if past.ending.is_empty() { format!("open, phase {}", past.phase) } else { past.ending.clone() };
    let refused = match past.refused {
        0 => String::new(),
        refused => format!(", {refused} sound in a round that published nothing"),
    };
    let counts = format!(
        "{} selected: {} merged, {} missing, {} late, {} rejected{refused}",
        past.selected, past.merged, past.missing, past.late, past.rejected
    );
    let settings = shown.settings.as_ref();
    let rows = [
        ("round", Some(past.round.to_string())),
        ("opened", past.opened.clone()),
        ("ending", Some(ending)),
        ("metrics", Some(metrics.join(", ")).filter(|text| !text.is_empty())),
        ("clients", Some(counts)),
        ("", past.shortfall.as_ref().and_then(Shortfall::text)),
        ("warnings", Some(past.warnings.join("; ")).filter(|text| !text.is_empty())),
        ("secure", shown.secure.as_ref().map(secure)),
        ("other files", Some(past.other_files.to_string()).filter(|_| past.other_files > 0)),
        (
            "quorum",
            settings.map(|all| format!("{} % of {} clients", number(100.0 * all.quorum), all.clients)),
        ),
        ("deadline", settings.map(|all| format!("{} s after the opening", number(all.timeout_s)))),
        ("dropout", settings.map(|all| number(all.dropout))),
        ("learning rate", settings.and_then(|all| all.server_learning_rate).map(number)),
        ("target", settings.map(|all| format!("{} of the model", number(all.compression_target)))),
    ];
    let rows = rows.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let mut table = Listing::of_values(rows);
    let settings = settings.into_iter();
    for (tier, steps) in settings.clone().flat_map(|all| &all.local_steps) {
        let tier = if tier.is_empty() { "all clients" } else { tier };
        table.add(["local steps".to_owned(), format!("{steps} for {tier}")]);
    }
    for (tier, own) in settings.flat_map(|all| &all.tiers) {
        let codec = own.codec.as_deref().unwrap_or("any codec");
        let bytes = own.upload_bytes.map_or(String::new(), |bytes| format!(", {bytes} bytes for an update"));
        table.add(["tier".to_owned(), format!("{tier}: {codec}{bytes}")]);
    }
    table.text(&[1])
}

/// The session of a secure round.
fn secure(figures: &SecureFigures) -> String {
    let SecureFigures { session, clients, groups, answers, wrong } = figures;
    let wrong = match wrong.is_empty() {
        true => String::new(),
        false => format!(", wrong answers of {}", wrong.join(", ")),
    };
    let groups = if *groups == 1 { String::new() } else { format!(" in {groups} groups") };
    format!("session {session}: {clients} clients{groups}, answers of {}{wrong}", answers.join(", "))
}

fn clients(shown: &Shown) -> Option<String> {
    let Some(clients) = &shown.clients else {
        return Some(
            "A private round names no client. With monitoring.clients_under_privacy = true it does."
                .to_owned(),
        );
    };
    let mut table = Listing::with_header(["client", "outcome", "bytes up", "reason"]);
    for client in clients {
        table.add([
            client.id.clone(),
            client.outcome.clone(),
            client.bytes_up.to_string(),
            client.reason.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    (!clients.is_empty()).then(|| table.text(&[0, 3]))
}

fn files(shown: &Shown) -> Option<String> {
    let files = shown.files.as_ref().filter(|files| !files.is_empty())?;
    let mut table = Listing::with_header(["other file", "reason"]);
    for file in files {
        table.add([file.path.clone(), file.why.clone()]);
    }
    Some(table.text(&[0, 1]))
}

fn changes(shown: &Shown) -> Option<String> {
    let mut table = Listing::with_header(["changed for the next round", "from", "to", "reason"]);
    for change in &shown.changes {
        table.add([
            change.setting.clone(),
            change.from.to_string(),
            change.to.to_string(),
            change.why.clone(),
        ]);
    }
    (!shown.changes.is_empty()).then(|| table.text(&[0, 3]))
}
