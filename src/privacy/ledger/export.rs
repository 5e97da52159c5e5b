//! A budget for others: events and epsilons, but no inputs, paths or times.

use crate::privacy::event::Event;
use crate::privacy::ledger::budget::VerdictError;
use crate::privacy::ledger::plan::{Accountant, Unit};
use crate::privacy::ledger::record::{Epsilon, Mechanism, Rng};
use crate::privacy::ledger::replay::{ChargeRecord, State};
use crate::privacy::ledger::status::{Status, round_text};
use std::fmt::Write as _;

/// The format of an export.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Format {
    /// One dp_accounting event, as JSON.
    DpEvent,
    /// A row for each charge.
    Csv,
    /// Sentences for a model card.
    ModelCard,
    /// Metrics for the textfile collector of Prometheus.
    Prometheus,
}

/// Exports a budget.
///
/// # Errors
///
/// When the cost of an event is not known.
pub fn text(state: &State, format: Format) -> Result<String, VerdictError> {
    Ok(match format {
        Format::DpEvent => dp_event(state),
        Format::Csv => csv(state),
        Format::ModelCard => model_card(state, &Status::of(state)?),
        Format::Prometheus => prometheus(&Status::of(state)?),
    })
}

/// Every charge and reserve, as one event.
pub fn event(state: &State) -> Event {
    let mut events: Vec<Event> = state
        .spent()
        .into_iter()
        .map(|(event, count)| if count == 1 { event } else { event.times(count) })
        .collect();
    if events.len() == 1 { events.remove(0) } else { Event::composed(events) }
}

fn dp_event(state: &State) -> String {
    format!("{}\n", serde_json::to_string_pretty(&event(state)).unwrap_or_default())
}

fn csv(state: &State) -> String {
    let mut text = "charge,round,noise_multiplier,sampling_rate,clip,denominator,dimension,epsilon_rdp,epsilon_pld,slack,delta,rng,fate,event\n".to_owned();
    for (number, charge) in state.charges.iter().enumerate() {
        text += &row(number + 1, charge);
    }
    text
}

fn row(number: usize, record: &ChargeRecord) -> String {
    let charge = &record.charge;
    let epsilon =
        |epsilon: Option<Epsilon>| epsilon.map_or(String::new(), |epsilon| epsilon.get().to_string());
    let settings = charge.mechanism.as_ref().map_or(",,,,".to_owned(), |mechanism| {
        let Mechanism { z, q, clip, n_pub, d, .. } = mechanism;
        format!("{z},{q},{clip},{n_pub},{d}")
    });
    let rng = match charge.rng {
        Rng::Os => "os",
        Rng::TestSeed => "test-seed",
        Rng::External => "external",
    };
    let event = serde_json::to_string(&charge.event).unwrap_or_default().replace('"', "\"\"");
    let fate = record.fate.name();
    let [rdp, pld, slack] = [Some(charge.eps_rdp), charge.eps_pld, charge.slack].map(epsilon);
    let round = round_text(charge);
    format!(
        "{number},{round},{settings},{rdp},{pld},{slack},{},{rng},{fate},\"{event}\"\n",
        charge.delta_target
    )
}

fn model_card(state: &State, status: &Status) -> String {
    let Unit::Client = status.unit;
    let Some(epsilon) = status.epsilon_spent.filter(|_| status.private) else {
        return "This model is NOT differentially private: its noise came from a test seed, or a part of the releases has \
                no protection.\n"
            .to_owned();
    };
    let by = match (status.accountant, status.epsilon_pld, status.epsilon_rdp) {
        (Accountant::Best, Some(pld), Some(rdp)) if pld < rdp => {
            "by a privacy loss distribution, composed for a plan that was frozen before the first round"
        }
        _ => "by Renyi differential privacy",
    };
    let releases =
        if status.releases == 1 { "one release".to_owned() } else { format!("{} releases", status.releases) };
    let mut text = format!(
        "This model was released with user-level ({epsilon}, {})-differential privacy: over {releases}, any updates \
         of one client change the probability of any outcome by a factor of at most e^{epsilon}, plus {} \
         ({}; accounted {by}). ",
        status.delta, status.delta, status.adjacency
    );
    let _ = write!(
        text,
        "Each client's whole update was clipped to an L2 norm{}, discrete Gaussian noise of {} times that{} was added \
         to the sum, and the sum divided by {}, a public number. Assumed: {}.",
        if status.clip_is_adaptive {
            " that follows a private quantile".to_owned()
        } else {
            format!(" of {}", status.clip)
        },
        status.noise_multiplier,
        if status.correlated.is_some() {
            " and of the sensitivity of their sums, correlated across rounds,"
        } else {
            ""
        },
        status.denominator,
        status.assumed()
    );
    if state.charges.iter().any(|charged| charged.charge.mechanism.is_none()) {
        text += " Some of the charges are for releases made without fedmill.";
    }
    text + "\n"
}

fn prometheus(status: &Status) -> String {
    let infinite = |epsilon: Option<f64>| epsilon.map_or("+Inf".to_owned(), |epsilon| epsilon.to_string());
    let mut text = String::new();
    let mut metric = |name: &str, help: &str, values: &[(&str, String)]| {
        let _ = writeln!(text, "# HELP fedmill_privacy_{name} {help}\n# TYPE fedmill_privacy_{name} gauge");
        for (labels, value) in values {
            let _ = writeln!(text, "fedmill_privacy_{name}{labels} {value}");
        }
    };
    let mut spent = vec![("{accountant=\"rdp\"}", infinite(status.epsilon_rdp))];
    spent.extend(status.epsilon_pld.map(|pld| ("{accountant=\"pld\"}", pld.to_string())));
    spent.push(("{accountant=\"deciding\"}", infinite(status.epsilon_spent)));
    metric("epsilon_spent", "Epsilon spent at delta, by accountant.", &spent);
    metric("epsilon_budget", "Epsilon that may be spent.", &[("", status.epsilon_budget.to_string())]);
    metric("epsilon_remaining", "Epsilon that is left.", &[("", status.epsilon_remaining.to_string())]);
    metric("delta", "Delta that epsilons are at.", &[("", status.delta.to_string())]);
    metric("releases", "Releases that count.", &[("", status.releases.to_string())]);
    metric("rounds_left", "Rounds that the budget still holds.", &[("", status.rounds_left.to_string())]);
    metric("open_charges", "Charges whose release was not recorded.", &[("", status.open.len().to_string())]);
    metric(
        "private",
        "1 if no noise was made from a test seed.",
        &[("", u8::from(status.private).to_string())],
    );
    text
}
