//! Homomorphic encryption: a server adds up encrypted updates, and a key holder decrypts the sum.
//!
//! There are no helpers: one party, which is not the server, holds the key. Every message is a signed file:
//!
//! ```text
//! params --> keygen (key holder) --> open (server) --> encrypt (each client) --> add (server) --> decrypt (key holder)
//! ```
//!
//! The scheme is BFV, since sums of integers must be exact: additions only, no relinearisation, no Galois keys. [`params`]
//! chooses its numbers, [`bfv`] is the one file that calls the crate `fhe`, and [`packing`] is residues as words of files.
//! [`keys`] makes and reads keys, [`round`] the terms of a round. [`encrypt`] is the client, [`add`] the server and
//! [`decrypt`] the key holder; [`inputs`] opens the files of clients, [`adding`] adds them up, [`mean`] writes the mean.
//!
//! Paper: Fan and Vercauteren, "Somewhat practical fully homomorphic encryption", ePrint 2012/144; Brakerski, CRYPTO 2012.
//! docs/he.md says who must be trusted.

pub mod add;
pub mod adding;
pub mod bfv;
pub mod decrypt;
pub mod encrypt;
pub mod inputs;
pub mod keys;
pub mod mean;
pub mod open;
pub mod packing;
pub mod params;
pub mod round;

/// Who must be trusted, for people who encrypt or decrypt.
pub const TRUST: &str = "the server and the key holder must not collude: together they can decrypt every update. There is no \
     threshold decryption: one party holds the whole key. Nothing hides one client's update from a key holder that also has \
     the encrypted updates; signatures and the minimum of clients bind an honest one alone. A client that encrypts by another \
     program and colludes with the server can learn the key";
