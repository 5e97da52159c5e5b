//! The rounds of a federation, on the real program and in a simulated world.

mod bandwidth;
mod check;
mod damaged;
mod federation;
mod hostile;
mod killed;
mod modes;
mod phases;
mod private;
mod reasons;
mod restored;
mod simulator;
