//! A federation's rounds from cron: one state directory, one phase after the other.
//!
//! ```text
//! open -> collect -> validate -> aggregate -> evaluate -> publish -> adapt -> report
//! ```
//!
//! - [`layout`]: the names of all files. [`crate::config`] has the settings, [`mod@crate::lint`] looks at them as a whole.
//! - [`journal`]: a sealed line before each phase acts. [`state`]: what the journals tell. [`moment`]: two clocks.
//! - [`machine`]: lets the next phase act. The phases: [`open`] with [`task`], [`collect`], [`validate`], [`aggregate`],
//!   [`evaluate`], [`publish`], [`adapt`], [`report`] with [`fates`]. [`drive`]: step by step, until there is nothing to do.
//! - [`bandwidth`]: budgets of bytes for the updates of tiers, and the codecs that meet them.
//! - Between rounds: [`init`], [`rollback`], [`status`], [`show`], [`verify`]. [`state::sound`]: whether the files that
//!   a round starts from are whole. [`state::charges`]: whether the privacy budget allows a round, and has its ledger.
//! - [`secure`]: rounds whose updates are masked, and the sessions that they need.
//! - [`world`]: the files and the work that phases see. [`server`]: the real ones. [`error`]: why a round stopped.

pub mod adapt;
pub mod aggregate;
pub mod bandwidth;
pub mod collect;
pub mod drive;
pub mod error;
pub mod evaluate;
pub mod fates;
pub mod init;
pub mod journal;
pub mod layout;
pub mod machine;
pub mod moment;
pub mod open;
pub mod publish;
pub mod report;
pub mod rollback;
pub mod secure;
pub mod server;
pub mod show;
pub mod state;
pub mod status;
pub mod task;
pub mod validate;
pub mod verify;
pub mod world;
