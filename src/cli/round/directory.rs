//! Opens the state directory of a federation for a command.

use super::super::{Common, Failure};
use crate::config::Config;
use crate::round::layout;
use crate::round::server::{Hardware, Server};
use std::path::Path;

/// The threads and devices of a command.
pub(super) fn hardware(common: &Common) -> Result<Hardware, Failure> {
    Ok(Hardware { pool: common.pool()?, isa: common.isa(), backend: common.backend(false) })
}

/// The settings of a state directory.
pub(super) fn config(directory: &Path) -> Result<Config, Failure> {
    Config::read(&directory.join(layout::CONFIG)).map_err(Failure::of)
}

/// A state directory to read.
pub(super) fn reader(directory: &Path, common: &Common) -> Result<(Config, Server), Failure> {
    let config = config(directory)?;
    let server = Server::reader(directory, &config, hardware(common)?);
    Ok((config, server))
}
