//! Chooses the CPU or the GPU for a run.
//!
//! [`choose`](mod@choose) answers a [`request`] by a [`forecast`](mod@forecast), which uses the host's [`calibration`].

pub mod calibration;
pub mod choose;
pub mod forecast;
pub mod request;
