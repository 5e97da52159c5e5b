//! The rounds of a federation, on the real program and in a simulated world.

mod bandwidth;
mod changed;
mod check;
mod client_program;
mod damaged;
mod federation;
mod hostile;
mod killed;
mod modes;
mod names;
mod phases;
mod pipes;
mod private;
mod reasons;
mod restored;
mod secure;
mod simulator;
mod tasks;
mod tiers;
mod wording;
