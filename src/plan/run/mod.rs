//! The runner: executes a plan on this machine, and resumes it after a crash.
//!
//! [`machine`] decides what happens next from the events so far, [`state`] is what these events add up to, and
//! [`event`] has the lines of the journal, which [`journal`] reads. [`key`] names the instances of stages, [`scope`]
//! finds the values of conditions, [`fill`] the work of an instance, and [`bound`] counts instances. The machine sees
//! files, clock and processes through [`world`] alone; [`disk`] is the real world, where an [`attempt`] does the work,
//! [`process`] runs commands and [`publish`] takes their outputs into the store. [`claim`] says what a directory holds,
//! [`prepare`] pins inputs and opens a run, and [`drive`] is the loop. [`gates`] has the files by which persons answer.
//! [`vote`] counts ballots. [`reduce`] makes one file of several, and [`nest`] runs another plan, with what
//! [`given`] keeps for it. [`quote`] puts texts of files into requests. [`ledger`] reads privacy
//! budgets, and [`error`] says why it cannot go on.

pub mod attempt;
pub mod bound;
pub mod claim;
pub mod disk;
pub mod drive;
pub mod error;
pub mod event;
pub mod fill;
pub mod gates;
pub mod given;
pub mod journal;
pub mod key;
pub mod ledger;
pub mod machine;
pub mod nest;
pub mod prepare;
pub mod process;
pub mod publish;
pub mod quote;
pub mod reduce;
pub mod scope;
pub mod state;
pub mod vote;
pub mod world;
