//! Chooses the CPU or the GPU: [`choose`] by a [`forecast`], which uses the host's [`calibration`].

pub mod calibration;
pub mod choose;
pub mod forecast;
