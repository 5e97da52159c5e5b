//! The events of a run as CloudEvents 1.0, for message brokers.
//!
//! Source: CNCF, "CloudEvents - Version 1.0.2" and "JSON Event Format for CloudEvents". The seals of the journal are left
//! out: their names are no names of attributes.

use super::history::told;
use super::status::Watched;
use crate::plan::run::event::Event;
use serde::Serialize;
use std::fmt;

/// An event in the JSON format of CloudEvents.
#[derive(Serialize, Debug)]
pub struct CloudEvent<'e> {
    /// `1.0`.
    pub specversion: &'static str,
    /// The number of its line in the journal; unique with `source`.
    pub id: &'e str,
    /// `fedmill/plan/PLAN/RUN`. RUN is a digest that no other run has.
    pub source: String,
    /// `fedmill.plan.` and the name of the event.
    pub r#type: &'e str,
    /// When, in RFC 3339.
    pub time: &'e str,
    /// The stage, instance or loop.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subject: String,
    /// `application/json`.
    pub datacontenttype: &'static str,
    /// What happened.
    pub data: Data<'e>,
}

/// What happened, for people and for programs.
#[derive(Serialize, Debug)]
pub struct Data<'e> {
    /// In words.
    pub what: String,
    /// As the journal has it.
    pub event: &'e Event,
}

/// JSON in one line.
impl fmt::Display for CloudEvent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

/// The events of a run, the first first.
pub fn events(watched: &Watched) -> impl Iterator<Item = CloudEvent<'_>> {
    let source = format!("fedmill/plan/{}/{}", watched.plan.id, watched.id());
    watched.journal.lines.iter().map(move |record| {
        let line = &record.entry;
        let (subject, what) = told(&watched.plan, &line.data);
        CloudEvent {
            specversion: "1.0",
            id: &line.id,
            source: source.clone(),
            r#type: &line.r#type,
            time: &line.time,
            subject,
            datacontenttype: "application/json",
            data: Data { what, event: &line.data },
        }
    })
}
