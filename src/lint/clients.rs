//! Findings about numbers of clients: selection, dropout, quorum, asynchronous rounds.

use super::finding::Lint;
use crate::config::sections::Mode;
use crate::lint::budget_plan::is_poisson;
use crate::settings::Definition;
use crate::strategies;

pub(super) fn check(lint: &mut Lint) {
    let coordination = &lint.config.coordination;
    let (least, clients) = (coordination.min_clients, coordination.clients);
    if least > clients {
        let why = format!("a round wants {clients} updates, and is refused with fewer than {least}");
        lint.error(
            "coordination.min_clients",
            least,
            why,
            format!("raise clients to {least}, or lower min_clients"),
        );
    }
    match coordination.mode {
        Mode::Sync => check_quorum(lint),
        Mode::Async => check_buffer(lint),
    }
    check_population(lint);
    check_one_rate(lint);
}

/// Poisson sampling draws every client at one rate: no round opens with a setting that prefers some.
fn check_one_rate(lint: &mut Lint) {
    let coordination = &lint.config.coordination;
    if !is_poisson(&coordination.selection) {
        return;
    }
    let why = "it makes some clients more likely than others, and Poisson sampling draws all at one rate: no round opens";
    if coordination.dropout > 0.0 {
        let remedy = "dropout = 0, and more clients";
        lint.error("coordination.dropout", coordination.dropout, why, remedy);
    }
    if let Some(rounds) = coordination.max_wait {
        lint.error("coordination.max_wait", rounds, why, "leave it out");
    }
}

/// Selection with dropout against the quorum.
fn check_quorum(lint: &mut Lint) {
    let coordination = &lint.config.coordination;
    let (selected, quorum) = (coordination.selected(), coordination.quorum_count());
    let coming = (selected as f64 * (1.0 - coordination.dropout) * (1.0 + 1e-12)).floor() as u64;
    if coming < quorum {
        let why = format!(
            "of {selected} selected clients {coming} are expected to send, fewer than the {quorum} that close the round: \
             it stays open until its deadline"
        );
        let remedy = "raise max_clients, or lower quorum, min_clients or dropout";
        lint.warning("coordination.quorum", coordination.quorum, why, remedy);
    }
}

/// The buffer of an asynchronous round.
fn check_buffer(lint: &mut Lint) {
    let coordination = &lint.config.coordination;
    let (least, buffer) = (coordination.min_clients, coordination.buffer);
    if buffer < least {
        let why = format!("a round merges {buffer} updates, and is refused with fewer than {least}");
        lint.error(
            "coordination.buffer",
            buffer,
            why,
            format!("raise buffer to {least}, or lower min_clients"),
        );
    }
    let strategy = &lint.config.strategy;
    let parsed = strategies::parse(&strategy.spec(), Definition::Paper);
    if parsed.is_ok_and(|parsed| !parsed.takes_stale()) {
        let why = "the strategy takes no updates from models of earlier rounds, so an asynchronous round rejects them";
        lint.warning("strategy.name", &strategy.name, why, "name = \"fedbuff\", or mode = \"sync\"");
    }
}

/// The registry against what a round selects.
fn check_population(lint: &mut Lint) {
    let Some(population) = lint.facts.population else { return };
    let coordination = &lint.config.coordination;
    let (least, selected) = (coordination.min_clients, coordination.selected());
    if population < least {
        let why = format!("the registry has {population} clients: every round is refused");
        lint.error("coordination.min_clients", least, why, "register more clients, or lower min_clients");
    } else if population < selected {
        let why =
            format!("a round selects {selected} clients, the registry has {population}: all are selected");
        lint.warning(
            "coordination.clients",
            coordination.clients,
            why,
            "register more clients, or lower clients",
        );
    }
}
