//! A sum or an answer of which several machines of one party compute a range of lanes each.
//!
//! Each machine writes a part: a [`file`](mod@file) of signed lanes in a folder that the party's machines share, and no
//! other party. When all parts are there, one machine joins them and publishes the message, with the bytes that a single
//! machine gives it. [`sum`] is for the server, [`help`] for a helper. [`draft`] is the set of clients that the server's
//! machines add up before it is frozen.

pub mod draft;
pub mod file;
pub mod help;
pub mod sum;
