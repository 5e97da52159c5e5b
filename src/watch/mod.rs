//! Looks at the directories of runs, and ends runs.
//!
//! [`status`] says where a run is, [`tuning`] what its loops tuned, [`gates`] what waits for a person, [`rest`] how long
//! it may still take and what takes most of its time, [`series`] what it measured, [`history`] what happened, [`search`]
//! finds runs, [`tables`] shows all of that, and [`cancel`] ends a run. `ends` is what a list of runs reads of one, and
//! [`rendered`] does the same work for rendered plans. [`failures`] says why one failed, [`results`] what one made,
//! [`score`] what the attempts of agents came to, [`numbers`] describes a round or a run as a whole, and [`directory`]
//! says where a run lies. For other programs, [`export`] writes files: [`figures`] is the textfile for Prometheus,
//! [`trace`] a trace of OpenTelemetry, and [`cloud`] has events for message brokers.

pub mod cancel;
pub mod cloud;
pub mod directory;
mod ends;
pub mod export;
pub mod failures;
pub mod figures;
pub mod gates;
pub mod history;
pub mod numbers;
pub mod rendered;
pub mod rest;
pub mod results;
pub mod score;
pub mod search;
pub mod series;
pub mod status;
pub mod tables;
pub mod trace;
pub mod tuning;
