//! The clients of a federation: a registry in one SQLite file, and who takes part in a round.
//!
//! - [`client`]: a client as it registers, and as the registry shows it; ids; demands of privacy.
//! - [`row`]: one client as JSON or CSV text. [`elements`]: the elements of a JSON file, one by one.
//! - [`import`]: many clients from a file, with a line for every bad row.
//! - [`registry`]: the file. [`schema`]: its tables. [`error`]: its errors. `wait`: when another process holds it.
//! - [`history`]: what each client did in each round.
//! - [`select`]: the clients of a round, one strategy a file.
//! - [`tiers`]: classes of devices, and the file that `aggregate --tiers` reads.
//! - [`score`]: how good an agent of plans is.
//! - [`tables`]: what a terminal shows of clients and agents.
//! - [`age`]: a length of time such as `30d`.

pub mod age;
pub mod client;
pub mod elements;
pub mod error;
pub mod history;
pub mod import;
pub mod registry;
pub mod row;
pub mod schema;
pub mod score;
pub mod select;
pub mod tables;
pub mod tiers;
mod wait;
