//! Finds runs in a folder by what they are for, what they did and why they failed.

use super::history::PastRun;
use super::status::Watched;
use crate::plan::run::event::Made;
use crate::plan::run::state::Group;
use crate::schema::Plan;
use jiff::Timestamp;
use std::time::Duration;

/// Which runs, or which events of a run, are listed. The default is all.
#[derive(Clone, Default, Debug)]
pub struct Filter {
    /// A text in the run's name, plan, goal, stages, parameters or reasons, whatever the case of letters.
    pub text: Option<String>,
    /// The name of the plan.
    pub plan: Option<String>,
    /// The state.
    pub state: Option<String>,
    /// Runs that started, or events that happened, less than this long ago.
    pub since: Option<Duration>,
    /// A metric that the run measured.
    pub metric: Option<String>,
}

impl Filter {
    /// Whether the first and the last event of a run suffice.
    pub(super) fn reads_ends(&self) -> bool {
        self.text.is_none() && self.metric.is_none()
    }

    /// Whether a time in RFC 3339 is late enough.
    pub fn takes_time(&self, time: Option<&str>) -> bool {
        let Some(since) = self.since else { return true };
        let now = Timestamp::now().as_duration().as_secs_f64();
        time.and_then(|time| time.parse::<Timestamp>().ok())
            .is_some_and(|time| now - time.as_duration().as_secs_f64() <= since.as_secs_f64())
    }

    /// Whether one of these texts has the text that is searched.
    pub fn takes_text(&self, texts: &[&str]) -> bool {
        self.text.as_ref().is_none_or(|wanted| texts.iter().any(|text| has(text, wanted)))
    }

    /// A run with what was found in it; `None` if it does not fit. `watched` is absent if it cannot be read, or
    /// [need not be](Self::reads_ends).
    pub(super) fn take(&self, mut run: PastRun, watched: Option<&Watched>) -> Option<PastRun> {
        let fits =
            |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|wanted| wanted == found);
        if !fits(&self.plan, &run.plan) || !fits(&self.state, &run.state) {
            return None;
        }
        if !self.takes_time(run.started.as_deref()) {
            return None;
        }
        if let Some(metric) = &self.metric {
            run.value = Some(last(watched?, metric)?);
        }
        if let Some(wanted) = &self.text {
            run.found = found(&run, watched, wanted);
            if run.found.is_empty() {
                return None;
            }
        }
        Some(run)
    }
}

/// Whether a text has another one, whatever the case of letters.
fn has(text: &str, wanted: &str) -> bool {
    text.to_lowercase().contains(&wanted.to_lowercase())
}

/// The places of a run that have a text, each with what stands there.
fn found(run: &PastRun, watched: Option<&Watched>, wanted: &str) -> Vec<String> {
    let mut places = vec![("run".to_owned(), run.run.clone())];
    match watched {
        Some(watched) => {
            let plan = &watched.plan;
            places.push(("plan".to_owned(), plan.id.to_string()));
            places.push(("goal".to_owned(), plan.goal.clone()));
            places.extend(
                plan.params.iter().map(|(name, value)| ("params".to_owned(), format!("{name}={value}"))),
            );
            places.extend(plan.stages.iter().map(|stage| ("stage".to_owned(), stage.id.to_string())));
            places.push(("why".to_owned(), run.why.clone()));
            places.extend(reasons(plan, watched));
        }
        None => places.push(("why".to_owned(), run.why.clone())),
    }
    let mut found: Vec<String> = Vec::new();
    for (place, text) in places.into_iter().filter(|(_, text)| has(text, wanted)) {
        let line = format!("{place}: {text}");
        if !found.contains(&line) {
            found.push(line);
        }
    }
    found
}

/// Why stages ended as they did, in all iterations.
fn reasons(plan: &Plan, watched: &Watched) -> Vec<(String, String)> {
    let of_stage = |(stage, groups): (usize, &Vec<Group>)| -> Vec<(String, String)> {
        let id = plan.stages[stage].id.as_str();
        let with_reason = groups.iter().filter(|group| !group.why.is_empty());
        with_reason.map(|group| (id.to_owned(), group.why.clone())).collect()
    };
    watched.state.groups.iter().enumerate().flat_map(of_stage).collect()
}

/// The value of a metric that a run measured last: in the last iteration, the mean of a fan-out.
fn last(watched: &Watched, metric: &str) -> Option<f64> {
    let of_group = |group: &Group| {
        let made = group.instances.iter().filter_map(|instance| instance.made.as_ref());
        let values: Vec<f64> = made.filter_map(|made: &Made| made.metrics.get(metric).copied()).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    };
    let mut stages = watched.state.groups.iter().rev();
    stages.find_map(|groups| groups.iter().rev().find_map(of_group))
}
