//! Updates that were taken into a run: the clients, what they report and weigh, and who was left out.

use crate::engine::intake::fault::Fault;
use crate::engine::intake::update::Update;
use crate::strategies::Cohort;
use crate::updates::set::UpdateSet;

/// A client whose update is in another input.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Its id.
    pub id: String,
    /// The place of that input among the others.
    pub other: usize,
}

/// The clients of a run, and what is known of them before their values are read.
#[derive(Debug)]
pub struct Taken {
    /// The clients that take part, in one layout.
    pub set: UpdateSet,
    /// Updates that do not take part, with their faults, in order of path.
    pub rejected: Vec<Update>,
    /// Inputs that a mode takes beside the clients, such as the partials of a tree.
    pub others: Vec<Update>,
    /// Clients whose updates are in those inputs.
    pub members: Vec<Member>,
    /// What each client reports and weighs; the members stand behind the clients.
    pub cohort: Cohort,
    /// Where the weights come from: `examples`, `uniform` or `file`.
    pub weights_source: &'static str,
    /// How many clients are assumed hostile, if the operator says.
    pub byzantine: Option<usize>,
    /// Why the run stays on the CPU, where a mode's sums have no shader.
    pub cpu_only: Option<&'static str>,
}

impl Taken {
    /// An admitted set, whose cohort is not known yet.
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

    /// Turns the set back into updates, sorted by path. Adds the faults in `found`, by place among the clients and the
    /// others behind them, and drops those that the next admission finds again.
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
