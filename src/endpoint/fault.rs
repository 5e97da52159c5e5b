//! Why a request brought no output.

/// Why a request brought no output.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The request is not sent: the plan does not permit the host, or a header has no value.
    Start(String),
    /// The endpoint cannot be reached.
    Connect(String),
    /// The endpoint answered with this status.
    Status(u16),
    /// The reply was not what its schema asks for.
    Reply(String),
    /// It took longer than this many milliseconds.
    Timeout(u64),
    /// The endpoint sent nothing for this many milliseconds.
    Idle(u64),
    /// The caller ended it.
    Cancelled,
}
