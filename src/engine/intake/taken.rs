//! The updates of a run: the clients that take part with their weights, and the rejected updates.

use crate::engine::intake::fault::Fault;
use crate::engine::intake::update::Update;
use crate::io::model_file::ModelFile;
use crate::strategies::Cohort;
use crate::updates::set::UpdateSet;

/// A client whose update is in another input.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Its id.
    pub id: String,
    /// The index of that input in [`Taken::others`].
    pub other: usize,
}

/// The clients of a run, and all that the run knows before it reads values.
#[derive(Debug)]
pub struct Taken {
    /// The clients that take part, with their shared layout.
    pub set: UpdateSet,
    /// Rejected updates with their faults, in order of path.
    pub rejected: Vec<Update>,
    /// Further inputs of a mode, such as the partials of a tree.
    pub others: Vec<Update>,
    /// Clients whose updates are in `others`.
    pub members: Vec<Member>,
    /// Reports and weights: those of the clients, then those of the members.
    pub cohort: Cohort,
    /// The source of the weights: `examples`, `uniform` or `file`.
    pub weights_source: &'static str,
    /// The number of clients assumed hostile; `None` without `--byzantine`.
    pub byzantine: Option<usize>,
    /// Why the run stays on the CPU: the sums of its mode have no shader. `None` if it may use the GPU.
    pub cpu_only: Option<&'static str>,
}

impl Taken {
    /// An admitted set with an empty cohort.
    pub fn new(set: UpdateSet, rejected: Vec<Update>) -> Self {
        let cohort = Cohort { clients: Vec::new(), weights: Vec::new(), round: None, population: None };
        Self {
            set,
            rejected,
            others: Vec::new(),
            members: Vec::new(),
            cohort,
            weights_source: "uniform",
            byzantine: None,
            cpu_only: None,
        }
    }

    /// The number of clients that take part, in their own updates or in other inputs.
    pub fn clients(&self) -> usize {
        self.set.clients.len() + self.members.len()
    }

    /// The number of inputs that take part.
    pub fn inputs(&self) -> usize {
        self.set.clients.len() + self.others.len()
    }

    /// The inputs whose files changed since the run opened them, by index: the clients, then `others`.
    pub fn changed(&self) -> Vec<(usize, Fault)> {
        let clients = self.set.clients.iter().map(|client| Some(&*client.model));
        let others = self.others.iter().map(|other| other.model.as_deref());
        let changed = |(input, model): (usize, Option<&ModelFile>)| {
            let mut files = model?.files.iter();
            files.find_map(|file| file.check_unchanged().err()).map(|why| (input, Fault::Read(why)))
        };
        clients.chain(others).enumerate().filter_map(changed).collect()
    }

    /// Turns the set back into updates, sorted by path. Adds the faults in `found`, by index: the clients, then
    /// `others`. Drops the faults that the next admission finds again.
    pub fn dissolve(self, found: Vec<(usize, Fault)>) -> Vec<Update> {
        let clients = self.set.clients.into_iter().map(|client| Update::of_client(client, Vec::new()));
        let mut updates: Vec<Update> = clients.chain(self.others).collect();
        for (place, fault) in found {
            updates[place].faults.push(fault);
        }
        updates.extend(self.rejected);
        for update in &mut updates {
            update.faults.retain(|fault| !fault.is_relative());
        }
        updates.sort_by(|a, b| a.path.cmp(&b.path));
        updates
    }
}
