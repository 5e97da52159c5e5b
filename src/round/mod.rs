//! One round, from update files to a published model.
//!
//! [`roster`] opens the updates and says who takes part ([`weights`], [`fault`] are its words), held
//! against a `reference`; [`personal`] layers stay with them, [`tiers`] of clients each have a rule of their own
//! (`tiered`). [`tiles`] cuts their layout, [`passes`] streams the tiles, each worker in its [`workspace`].
//! [`first_pass`] finds the [`sums`] that rules decide on, [`judge`] has them decide by [`looks`], [`combine`] is the
//! second pass, `method` what it does to every tile, `select` how where that is an order statistic, `rows` what both
//! passes do to rows, `finish` how merged values become the model's; [`survey`] measures each update for `inspect`.
//! [`merge`] is a whole [`job`], in order: `assemble` says who takes part, `account` what is reported, `publish` gives
//! everything its name, and [`state`] is what stays for the next round; [`refusal`] says why one published nothing.
//! [`inspect`] and [`personalize`] are other jobs, and [`shard`] is a merge that several processes do, each some
//! [`sections`] of the layout.
//!
//! [`private`] rounds are paid for from a privacy budget.
//!
//! [`partial`] is what a node of a tree of aggregators hands up, and how it takes what it is handed.
//!
//! [`backend`] chooses where to compute: [`forecast`] predicts from a [`calibration`] what either side takes.
//! [`device`] is what a run knows of its GPU; `device_pairs` and `device_combine` are the two passes on it, and
//! `spot_check` does a sample of its work again.

mod account;
mod assemble;
pub mod backend;
pub mod calibration;
pub mod combine;
pub mod device;
mod device_combine;
mod device_pairs;
pub mod fault;
mod finish;
pub mod first_pass;
pub mod forecast;
pub mod inspect;
pub mod job;
pub mod judge;
pub mod looks;
pub mod merge;
mod method;
pub mod partial;
pub mod passes;
pub mod personal;
pub mod personalize;
pub mod private;
mod publish;
mod reference;
pub mod refusal;
pub mod roster;
mod rows;
pub mod sections;
mod select;
pub mod shard;
mod sparse;
mod spot_check;
pub mod state;
pub mod sums;
pub mod survey;
mod tiered;
pub mod tiers;
pub mod tiles;
pub mod weights;
pub mod workspace;
