//! `fedmill round report`: the figures of all rounds.

use super::super::{Common, Failure, INPUTS, OUTPUT, Outcome, print, print_path};
use super::directory::reader;
use crate::io::collision;
use crate::round::world::Files;
use crate::round::{layout, report};
use clap::Args;
use std::path::PathBuf;

/// Print the figures of all rounds as JSON lines, or write a page about them.
#[derive(Args, Debug)]
pub(in crate::cli) struct Arguments {
    /// The state directory.
    #[arg(value_name = "DIR", help_heading = INPUTS)]
    directory: PathBuf,
    /// Write a page with plots into FILE, and print its path. The page is one file without script. `-` is standard
    /// output.
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    html: Option<PathBuf>,
}

impl Arguments {
    pub(super) fn run(&self, common: &Common) -> Result<Outcome, Failure> {
        let (config, server) = reader(&self.directory, common)?;
        let Some(path) = &self.html else {
            let lines = server.read(layout::METRICS_LINES)?.unwrap_or_default();
            print(&String::from_utf8_lossy(&lines))?;
            return Ok(Outcome::Done);
        };
        let page = report::page(&server, &config).map_err(Failure::of)?;
        collision::check_earlier(path, "<!doctype html>", "an earlier page")?;
        collision::write_output(path, page.as_bytes())?;
        print_path(path);
        Ok(Outcome::Done)
    }
}
