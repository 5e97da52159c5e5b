//! The ends of attempts, as their threads report them.
//!
//! Who ends a runner often sends one signal to the runner and to its commands. So the end of a command by such a signal is
//! held back for a moment, in which the signal to the runner may come: the attempt is then cut short, and did not fail.

use crate::io::interrupt;
use crate::plan::run::world::Ended;
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// The time between the signal to a command and that to its runner.
const APART: Duration = Duration::from_millis(200);

/// Attempts that ended.
pub struct Ends {
    channel: (Sender<Ended>, Receiver<Ended>),
    /// Ends that a signal may explain, and until when they wait for it.
    held: VecDeque<(Instant, Ended)>,
}

impl Default for Ends {
    fn default() -> Self {
        Self { channel: channel(), held: VecDeque::new() }
    }
}

impl Ends {
    /// Where the thread of an attempt reports its end.
    pub fn sender(&self) -> Sender<Ended> {
        self.channel.0.clone()
    }

    /// The next end, if one comes within a time. `asked` says whether a signal asked the runner to end: then no end waits
    /// for it.
    pub fn next(&mut self, within: Duration, asked: bool) -> Option<Ended> {
        let now = Instant::now();
        if let Some(place) = self.held.iter().position(|(until, _)| asked || *until <= now) {
            return self.held.remove(place).map(|(_, ended)| ended);
        }
        // The channel has a sender as long as it has this receiver.
        let ended = self.channel.1.recv_timeout(within).ok()?;
        let Err(failure) = &ended.result else { return Some(ended) };
        let wait = if failure.may_be_a_request() { APART } else { Duration::ZERO };
        // A signal may come between the look at signals and this end.
        if asked || wait.is_zero() && interrupt::check().is_ok() {
            return Some(ended);
        }
        self.held.push_back((Instant::now() + wait, ended));
        None
    }
}
