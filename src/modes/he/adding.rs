//! Adds up ciphertexts of clients, some at a time.

use crate::engine::passes::machine::Machine;
use crate::io::interrupt;
use crate::modes::he::inputs::Input;
use crate::modes::he::packing::{self, TooLarge};
use crate::modes::he::params::DEGREE;
use crate::modes::he::round::Round;
use crate::parties::error::SecureError;
use crate::parties::fault::LeftOutClient;
use crate::parties::fault::MessageFault;
use crate::parties::signed_lanes::LanesAudit;
use rayon::prelude::*;

/// Ciphertexts of each client that are in memory at once: about 3 MB, and 4 MB of sums.
pub const AT_ONCE: usize = 32;

/// Takes the words of the next sums.
pub type TakeWords<'t> = dyn FnMut(&[u32]) -> Result<(), SecureError> + Send + 't;

/// A client whose ciphertexts are being added.
struct AddingClient<'i> {
    input: &'i Input,
    audit: LanesAudit,
    fault: Option<MessageFault>,
}

/// Adds up the ciphertexts of clients, and hands the sums to `take`. Returns the clients whose ciphertexts are bad: then the
/// sums are of no use.
///
/// # Errors
///
/// When `take` fails, or a signal asked to stop.
pub fn add_up(
    round: &Round,
    inputs: &[Input],
    machine: &Machine,
    take: &mut TakeWords,
) -> Result<Vec<LeftOutClient>, SecureError> {
    let words = packing::words(&round.terms.params);
    let (all, residues) = (round.ciphertexts(), packing::residues(&round.terms.params));
    machine.progress.start("adding up", (inputs.len() * all * words * size_of::<u32>()) as u64);
    let start = |input| AddingClient { input, audit: input.file.audit(), fault: None };
    let mut adding: Vec<AddingClient> = inputs.iter().map(start).collect();
    let mut sums = vec![0; AT_ONCE.min(all) * residues];
    let mut packed = vec![0; AT_ONCE.min(all) * words];
    for first in (0..all).step_by(AT_ONCE) {
        let count = AT_ONCE.min(all - first);
        let (sums, packed) = (&mut sums[..count * residues], &mut packed[..count * words]);
        sums.fill(0);
        for one in adding.iter_mut().filter(|one| one.fault.is_none()) {
            interrupt::check()?;
            one.fault = machine.pool.install(|| one.add(round, first, packed, sums)).err();
            machine.progress.advance(size_of_val(packed) as u64);
        }
        let of_sums = |sums: &[u64]| packing::pack(&round.terms.params, sums);
        let added: Vec<Vec<u32>> = machine.pool.install(|| sums.par_chunks(residues).map(of_sums).collect());
        take(&added.concat())?;
    }
    machine.progress.finish();
    let ended = adding.into_iter().filter_map(|AddingClient { input, audit, fault }| {
        let fault = fault.or_else(|| audit.end(&input.file).err())?;
        Some(LeftOutClient { client: input.client.clone(), fault })
    });
    Ok(ended.collect())
}

impl AddingClient<'_> {
    /// Reads ciphertexts, checks, hashes and adds them.
    fn add(
        &mut self,
        round: &Round,
        first: usize,
        packed: &mut [u32],
        sums: &mut [u64],
    ) -> Result<(), MessageFault> {
        let params = &round.terms.params;
        let (words, residues) = (packing::words(params), packing::residues(params));
        self.input.file.read(first * words, packed)?;
        self.audit.add(packed);
        let add = |(place, (packed, sums)): (usize, (&[u32], &mut [u64]))| {
            packing::add(params, packed, sums).map_err(|found| too_large(round, first + place, found))
        };
        packed.par_chunks(words).zip(sums.par_chunks_mut(residues)).enumerate().try_for_each(add)
    }
}

fn too_large(round: &Round, ciphertext: usize, (place, residue): TooLarge) -> MessageFault {
    let modulus = packing::rows(&round.terms.params).nth(place / DEGREE).unwrap_or(0);
    MessageFault::Format(format!(
        "ciphertext {ciphertext}: residue {place} is {residue}, expected a number below {modulus}"
    ))
}
