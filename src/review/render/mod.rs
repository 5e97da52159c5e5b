//! Texts that let another program run a plan, task by task.
//!
//! [`slurm`] writes batch scripts and a script that submits them, [`snakemake`] a Snakefile. [`loss`] lists what a target
//! does in another way or cannot do. [`needs`] is what a job asks of a machine.

pub mod loss;
pub mod needs;
pub mod slurm;
pub mod snakemake;

/// A file of a rendered plan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct File {
    /// Its path in the directory.
    pub path: String,
    /// What it says.
    pub text: String,
}
