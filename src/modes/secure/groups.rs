//! Random groups of clients, each with a sum, so that a rule may judge the means of groups.
//!
//! A group is clean if none of its clients is hostile. With a share e of hostile clients, a group of m is clean with the
//! probability (1 - e)^m, and most groups are as long as this is above one half: up to about ln 2 / e clients.
//!
//! Paper: Velicheti, Xia and Koyejo, "Secure Byzantine-robust distributed learning via clustering", 2021 (SHARE).

use crate::modes::secure::manifest::Eligible;
use crate::parties::error::SecureError;
use crate::parties::identity::{PublicIdentity, derived};
use chacha20::ChaCha20Rng;
use chacha20::rand_core::{Rng, SeedableRng};

/// The groups of a session.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct GroupTerms {
    /// The number of groups.
    pub count: usize,
    /// The largest share of hostile clients that most groups must be clean of; `None` to ask for nothing.
    pub hostile: Option<f64>,
}

impl GroupTerms {
    /// Checks that most groups of `clients` clients are clean, if that is asked for.
    ///
    /// # Errors
    ///
    /// When they are not, with the number of groups that are.
    pub fn check(self, clients: usize) -> Result<(), SecureError> {
        let Some(hostile) = self.hostile else { return Ok(()) };
        if !(0.0..0.5).contains(&hostile) {
            let why = format!("found {hostile}, expected a share from 0 to below 0.5");
            return Err(SecureError::terms("--hostile", why));
        }
        let (members, most) = (clients.div_ceil(self.count.max(1)), most_members(hostile));
        if members <= most {
            return Ok(());
        }
        let why = format!(
            "groups of {members} clients: with a share of {hostile} hostile clients {:.0} % of the groups have none, expected more \
             than half: groups of at most {most}, {} groups of these {clients} clients",
            100.0 * (1.0 - hostile).powf(members as f64),
            clients.div_ceil(most.max(1))
        );
        Err(SecureError::refused(why, Some("raise --groups; an update then hides among fewer")))
    }
}

/// The most clients of a group for which more than half of the groups have no hostile client, at this share of hostile ones.
pub fn most_members(hostile: f64) -> usize {
    if hostile <= 0.0 {
        return usize::MAX;
    }
    // (1 - e)^m > 1/2.
    let members = -std::f64::consts::LN_2 / (-hostile).ln_1p();
    (members.ceil() as usize).saturating_sub(1)
}

/// The share of hostile clients below which more than half of the groups of this size have none.
pub fn borne_by(members: usize) -> f64 {
    1.0 - 0.5_f64.powf(1.0 / members.max(1) as f64)
}

/// Puts clients in groups at random, of sizes that differ by one at most.
///
/// # Errors
///
/// When there are more groups than clients, or most groups of such a size would have a hostile client.
pub fn in_groups(
    clients: &[PublicIdentity],
    terms: GroupTerms,
    nonce: &[u8; 32],
) -> Result<Vec<Eligible>, SecureError> {
    let groups = terms.count;
    if groups == 0 || groups > clients.len() {
        let why = format!("found {groups}, expected 1 to {}, the clients", clients.len());
        return Err(SecureError::terms("--groups", why));
    }
    terms.check(clients.len())?;
    let mut clients: Vec<&PublicIdentity> = clients.iter().collect();
    clients.sort_by(|a, b| a.id.cmp(&b.id));
    let places = shuffled(clients.len(), &mut ChaCha20Rng::from_seed(derived(nonce, "groups")));
    let eligible = clients.iter().zip(places).map(|(client, place)| Eligible {
        id: client.id.clone(),
        ed25519: client.ed25519,
        group: place % groups,
    });
    Ok(eligible.collect())
}

/// The numbers below `count` in a uniformly random order (Fisher and Yates).
pub fn shuffled(count: usize, random: &mut ChaCha20Rng) -> Vec<usize> {
    let mut places: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        places.swap(last, below(random, last as u64 + 1));
    }
    places
}

/// A uniform number below `end`: words beyond the last whole multiple are drawn again.
fn below(random: &mut ChaCha20Rng, end: u64) -> usize {
    loop {
        let word = random.next_u64();
        if word < u64::MAX - u64::MAX % end {
            return (word % end) as usize;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parties::envelope::Suite;
    use crate::parties::identity::Identity;

    #[test]
    fn most_groups_are_clean_up_to_the_largest_size() {
        // ln 2 / e, as in the documentation; 10 % and 20 % by hand: 0.9^6 = 0.531, 0.9^7 = 0.478, 0.8^3 = 0.512.
        for (hostile, most) in
            [(0.01, 68), (0.02, 34), (0.05, 13), (0.1, 6), (0.2, 3), (0.5, 0), (0.0, usize::MAX)]
        {
            assert_eq!(most_members(hostile), most, "{hostile}");
        }
        for members in [1, 2, 5, 68, 1_000] {
            let borne = borne_by(members);
            assert!(
                most_members(borne * 0.999) >= members && most_members(borne * 1.001) < members,
                "{members}"
            );
        }
        let terms = |count| GroupTerms { count, hostile: Some(0.1) };
        assert!(terms(4).check(24).is_ok() && terms(4).check(25).is_err() && terms(5).check(25).is_ok());
        let why = terms(4).check(60).unwrap_err().to_string();
        assert!(why.contains("10 groups"), "{why}");
        assert!(GroupTerms { count: 1, hostile: Some(1.5) }.check(9).is_err());
    }

    #[test]
    fn groups_have_equal_sizes_and_depend_on_the_nonce() {
        let identity = |i: u8| Identity::of([i; 32]).public(&format!("client-{i:02}"), Suite::X25519);
        let clients: Vec<PublicIdentity> = (0..10).rev().map(identity).collect();
        let of = |count| GroupTerms { count, hostile: None };
        let groups = |nonce| {
            let found = in_groups(&clients, of(3), &[nonce; 32]).unwrap();
            assert!(found.is_sorted_by(|a, b| a.id < b.id));
            found.into_iter().map(|client| client.group).collect::<Vec<_>>()
        };
        let sizes = |groups: &[usize]| {
            (0..3).map(|g| groups.iter().filter(|group| **group == g).count()).collect::<Vec<_>>()
        };
        assert_eq!(sizes(&groups(1)), [4, 3, 3]);
        assert_ne!(groups(1), groups(2));
        assert_eq!(groups(1), groups(1));
        assert!(
            in_groups(&clients, of(0), &[1; 32]).is_err() && in_groups(&clients, of(11), &[1; 32]).is_err()
        );
    }
}
