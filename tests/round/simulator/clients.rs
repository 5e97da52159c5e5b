//! What clients do, as a seed decides it.

use super::World;
use crate::rng::Rng;
use std::collections::{BTreeMap, BTreeSet};

/// What a client does in a round that selects it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Habit {
    /// Sends its update in time.
    Prompt,
    /// Sends an update in time, and another one after that.
    Twice,
    /// Sends its update in two parts.
    Slow,
    /// Sends its update after the deadline, before a run closes the round.
    Overdue,
    /// Sends its update in the next round.
    Late,
    /// Sends a file that never becomes whole.
    Garbage,
    /// Sends an update of another layout.
    Bad,
    /// Sends nothing.
    Silent,
}

/// What all clients do, and how rounds close.
pub(super) struct Script {
    seed: u64,
    habits: Vec<Habit>,
    pub(super) takes_stale: bool,
    pub(super) closes_at_deadline: bool,
    /// Files that clients sent, by round and client.
    sent: BTreeMap<(u64, usize), u64>,
    /// Names and rounds of all updates that were sent.
    all: BTreeSet<(u64, String)>,
}

impl Script {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let others = [
            Habit::Twice,
            Habit::Slow,
            Habit::Overdue,
            Habit::Late,
            Habit::Garbage,
            Habit::Bad,
            Habit::Silent,
        ];
        let mut habits = vec![Habit::Prompt; 3 + rng.below(3) as usize];
        habits.extend((0..rng.below(6)).map(|_| others[rng.below(7) as usize]));
        Self {
            seed,
            habits,
            takes_stale: rng.chance(50),
            closes_at_deadline: rng.chance(50),
            sent: BTreeMap::new(),
            all: BTreeSet::new(),
        }
    }

    /// The clients whose update comes in time.
    pub(super) fn prompt(&self) -> usize {
        let comes = [Habit::Prompt, Habit::Twice, Habit::Slow, Habit::Bad];
        self.habits.iter().filter(|habit| comes.contains(habit)).count()
    }

    /// The number of updates that a round wants: more than come if it closes at its deadline.
    pub(super) fn wanted(&self) -> usize {
        if self.closes_at_deadline { self.habits.len() } else { self.prompt() }
    }

    /// Whether a round's end depends on the moment at which an update came, which no clock that is set can tell.
    pub(super) fn needs_a_steady_clock(&self) -> bool {
        self.closes_at_deadline && self.habits.contains(&Habit::Overdue)
    }

    pub(super) fn selected(&self, _: u64) -> Vec<String> {
        (0..self.habits.len()).map(|client| format!("client-{client}")).collect()
    }

    fn update(&self, client: usize, round: u64, start: &str) -> Vec<u8> {
        format!("{start} of client {client} in round {round} of seed {} end", self.seed).into_bytes()
    }
}

impl World {
    /// Every client does the next thing that it does, or nothing if it is not its turn.
    pub(super) fn move_clients(&mut self, rng: &mut Rng, is_troubled: bool, collects: Option<u64>) {
        self.disk.pass(1_000);
        let Some(round) = collects else { return };
        let mut all_sent = true;
        // Late updates come first: whether a round merges them must not depend on what goes wrong.
        let mut order: Vec<usize> = (0..self.script.habits.len()).collect();
        order.sort_by_key(|client| self.script.habits[*client] != Habit::Late);
        for client in order {
            // With trouble, clients come in any order and number.
            let is_late = self.script.habits[client] == Habit::Late;
            if is_troubled && !is_late && rng.chance(40) {
                all_sent &= self.is_done(client, round);
                continue;
            }
            all_sent &= self.act(client, round);
        }
        if self.script.sent.insert((round, usize::MAX), 1).is_none() {
            // A stranger, a file with an odd name, and a transfer that broke off.
            self.send(round, ".client-0.safetensors.Xq7a", b"update of".to_vec());
            self.send(round, "stranger.safetensors", b"update of a stranger end".to_vec());
            self.send(round, "notes.txt", b"hello".to_vec());
        }
        if all_sent && self.script.closes_at_deadline {
            self.disk.pass(400_000);
            self.send_overdue(round);
        }
    }

    /// The deadline is over, and no run saw it.
    fn send_overdue(&mut self, round: u64) {
        for client in 0..self.script.habits.len() {
            let is_overdue = self.script.habits[client] == Habit::Overdue;
            if is_overdue && self.script.sent.insert((round, client), 2).is_none() {
                let update = self.script.update(client, round, "overdue update");
                self.send(round, &format!("client-{client}.safetensors"), update);
            }
        }
    }

    fn send(&mut self, round: u64, name: &str, bytes: Vec<u8>) {
        self.disk.put(&format!("inbox/{round:06}/{name}"), bytes);
        self.script.all.insert((round, name.to_owned()));
    }

    fn is_done(&self, client: usize, round: u64) -> bool {
        let is_quiet = matches!(self.script.habits[client], Habit::Silent | Habit::Overdue);
        is_quiet || self.script.sent.get(&(round, client)) == Some(&2)
    }

    /// Returns whether the client sent all that it sends before the round closes.
    fn act(&mut self, client: usize, round: u64) -> bool {
        let habit = self.script.habits[client];
        let name = format!("client-{client}.safetensors");
        let path = format!("inbox/{round:06}/{name}");
        let step = self.script.sent.get(&(round, client)).copied().unwrap_or(0);
        let (whole, done) = (self.script.update(client, round, "update"), 2);
        let was_taken = !self.disk.files.contains_key(&path);
        let next = match (habit, step) {
            (Habit::Silent | Habit::Overdue, _) | (_, 2) => return true,
            (Habit::Prompt, 0) => (whole, done),
            (Habit::Twice, 0) => (whole, 1),
            (Habit::Twice, 1) if was_taken => (self.script.update(client, round, "second update"), done),
            (Habit::Slow, 0) => (whole[..whole.len() / 2].to_vec(), 1),
            (Habit::Slow, 1) => (whole, done),
            (Habit::Garbage, 0) => (b"garbage".to_vec(), done),
            (Habit::Bad, 0) => (self.script.update(client, round, "bad update"), done),
            (Habit::Late, 0) => {
                self.script.sent.insert((round, client), 2);
                if round > 1 {
                    let late = self.script.update(client, round - 1, "late update");
                    self.send(round - 1, &name, late);
                }
                return true;
            }
            _ => return false,
        };
        self.send(round, &name, next.0);
        self.script.sent.insert((round, client), next.1);
        next.1 == done
    }

    /// The updates that clients sent, and that neither a journal nor the inbox has.
    pub(super) fn unaccounted(&self, fates: &BTreeSet<String>) -> Vec<String> {
        let is_known = |round: u64, name: &str| {
            let id = name.trim_end_matches(".safetensors");
            let prefixes = [format!("took {id} of {round}"), format!("rejected {id}:")];
            fates.iter().any(|fate| prefixes.iter().any(|prefix| fate.starts_with(prefix)))
                || fates.contains(&format!("late stale/{round:06}/{name}"))
                || self.disk.files.contains_key(&format!("inbox/{round:06}/{name}"))
        };
        let left = self.script.all.iter().filter(|(round, name)| !is_known(*round, name));
        left.map(|(round, name)| format!("{name} of round {round}")).collect()
    }
}
