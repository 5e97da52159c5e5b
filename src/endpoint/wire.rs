//! One request over one connection: no redirect, no second connection, and an end at any moment.
//!
//! The name of the host is looked up once, and only `dial` opens a connection. `ureq` speaks HTTP/1.1 over it; it reads no
//! proxy from the environment.

use super::fault::Fault;
use super::headers::Headers;
use crate::schema::address::Address;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use ureq::http::{Method, Request, Uri};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};

/// The most bytes of a reply.
pub const MOST_BYTES: u64 = 16 << 20;

/// The most bytes that are read of a reply with a status of failure.
const MOST_BYTES_OF_FAILURE: u64 = 64 << 10;

/// The longest wait without a look at the limits and at the caller.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The longest request where a plan sets no limit.
const LONGEST: Duration = Duration::from_secs(30);

/// Bytes of each of the buffers of a connection.
const BUFFER: usize = 64 << 10;

/// A request.
pub struct Order<'a> {
    /// The method.
    pub method: Method,
    /// The whole address.
    pub uri: Uri,
    /// Its host and port.
    pub address: Address,
    /// The headers.
    pub headers: &'a Headers,
    /// The body; `None` sends none.
    pub body: Option<Vec<u8>>,
}

/// The answer to a request.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The header Retry-After.
    pub retry_after: Option<String>,
    /// The body; of a status of failure its first bytes.
    pub body: Vec<u8>,
}

/// How long a request may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the look-up of the host to the last byte.
    pub run: Option<Duration>,
    /// Without a byte.
    pub idle: Option<Duration>,
}

/// When a request must end.
#[derive(Debug)]
struct Watch {
    began: Instant,
    heard: Mutex<Instant>,
    limits: Limits,
    stop: Arc<AtomicBool>,
}

impl Watch {
    /// Why the request must end now.
    fn over(&self) -> Option<Fault> {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let heard = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if self.stop.load(Ordering::Relaxed) {
            return Some(Fault::Cancelled);
        }
        if self.began.elapsed() > self.most() {
            return Some(Fault::Timeout(millis(self.most())));
        }
        self.limits.idle.filter(|most| heard.elapsed() > *most).map(|most| Fault::Idle(millis(most)))
    }

    fn most(&self) -> Duration {
        self.limits.run.unwrap_or(LONGEST)
    }

    fn check(&self) -> io::Result<()> {
        match self.over() {
            Some(_) => Err(io::Error::other("the request is over")),
            None => Ok(()),
        }
    }

    fn hear(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

/// Sends a request, and reads the reply.
///
/// # Errors
///
/// When the host cannot be reached, the reply is no HTTP or too long, a limit is over, or the caller ends it.
pub fn send(order: Order<'_>, limits: Limits, stop: &Arc<AtomicBool>) -> Result<Reply, Fault> {
    let now = Instant::now();
    let watch = Arc::new(Watch { began: now, heard: Mutex::new(now), limits, stop: Arc::clone(stop) });
    let stream = dial(&order.address, &watch)?;
    let at = order.address.to_string();
    exchange(order, stream, &watch).map_err(|why| match (watch.over(), why) {
        (Some(over), _) => over,
        (None, Broken::Reply(why)) => Fault::Reply(why),
        (None, Broken::Connection(why)) => Fault::Connect(format!("{at}: {why}")),
    })
}

/// Opens the connection to a host.
fn dial(address: &Address, watch: &Watch) -> Result<TcpStream, Fault> {
    let fault = |why: &dyn fmt::Display| Fault::Connect(format!("{address}: {why}"));
    let (sender, receiver) = channel();
    let (host, port, most) = (address.host.clone(), address.port, watch.most());
    // Nothing ends a look-up in the middle: the thread outlives a request that ends before it.
    let work = move || drop(sender.send(connect(&host, port, most)));
    thread::Builder::new().name("dial".to_owned()).spawn(work).map_err(|why| fault(&why))?;
    loop {
        if let Some(why) = watch.over() {
            return Err(why);
        }
        match receiver.recv_timeout(LOOK_EVERY) {
            Ok(connected) => return connected.map_err(|why| fault(&why)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(fault(&"the look-up of the host ended")),
        }
    }
}

fn connect(host: &str, port: u16, most: Duration) -> io::Result<TcpStream> {
    let mut failed = io::Error::other("the host has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, most.max(Duration::from_millis(1))) {
            Ok(stream) => return Ok(stream),
            Err(why) => failed = why,
        }
    }
    Err(failed)
}

/// What is broken.
enum Broken {
    Connection(String),
    Reply(String),
}

impl From<ureq::Error> for Broken {
    fn from(why: ureq::Error) -> Self {
        Self::Connection(why.to_string())
    }
}

impl From<io::Error> for Broken {
    fn from(why: io::Error) -> Self {
        Self::Connection(why.to_string())
    }
}

fn exchange(order: Order<'_>, stream: TcpStream, watch: &Arc<Watch>) -> Result<Reply, Broken> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LOOK_EVERY))?;
    stream.set_write_timeout(Some(LOOK_EVERY))?;
    let line = Line { stream, buffers: LazyBuffers::new(BUFFER, BUFFER), watch: Arc::clone(watch) };
    let config = ureq::config::Config::builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .user_agent(concat!("fedmill/", env!("CARGO_PKG_VERSION")))
        .build();
    let only = Only(Mutex::new(Some(line)));
    let agent = ureq::Agent::with_parts(config, only, NoLookUp);
    let mut request = Request::builder().method(order.method).uri(order.uri);
    for (name, value) in &order.headers.pairs {
        request = request.header(name, value);
    }
    let response = match order.body {
        Some(body) => agent.run(request.body(body).map_err(ureq::Error::Http)?),
        None => agent.run(request.body(()).map_err(ureq::Error::Http)?),
    }?;
    let status = response.status().as_u16();
    let retry_after = response.headers().get("retry-after");
    let retry_after = retry_after.and_then(|value| value.to_str().ok()).map(str::to_owned);
    let is_fine = response.status().is_success();
    let mut reader = response.into_body().into_reader();
    let mut body = Vec::new();
    if is_fine {
        reader.take(MOST_BYTES + 1).read_to_end(&mut body)?;
        if body.len() as u64 > MOST_BYTES {
            return Err(Broken::Reply(format!("found more than {MOST_BYTES} bytes, the most of a reply")));
        }
    } else {
        // Only a log keeps the body: the status counts, even if the body breaks off.
        let _ = reader.by_ref().take(MOST_BYTES_OF_FAILURE).read_to_end(&mut body);
    }
    Ok(Reply { status, retry_after, body })
}

/// Gives out the one connection of a request.
#[derive(Debug)]
struct Only(Mutex<Option<Line>>);

impl Connector<()> for Only {
    type Out = Line;

    fn connect(&self, _: &ConnectionDetails<'_>, _: Option<()>) -> Result<Option<Line>, ureq::Error> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).take())
    }
}

/// Looks nothing up: the connection is open.
#[derive(Debug)]
struct NoLookUp;

impl Resolver for NoLookUp {
    fn resolve(
        &self,
        _: &Uri,
        _: &ureq::config::Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        Ok(self.empty())
    }
}

/// A connection that looks at its [`Watch`] while it waits.
struct Line {
    stream: TcpStream,
    buffers: LazyBuffers,
    watch: Arc<Watch>,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl Line {
    /// Repeats a call on the connection until it does not wait any more.
    fn until(
        &mut self,
        mut act: impl FnMut(&mut TcpStream, &mut LazyBuffers) -> io::Result<usize>,
    ) -> io::Result<usize> {
        loop {
            self.watch.check()?;
            match act(&mut self.stream, &mut self.buffers) {
                Err(why) if is_wait(&why) => {}
                Ok(count) => {
                    self.watch.hear();
                    return Ok(count);
                }
                Err(why) => return Err(why),
            }
        }
    }
}

fn is_wait(why: &io::Error) -> bool {
    matches!(why.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

impl Transport for Line {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), ureq::Error> {
        let mut sent = 0;
        while sent < amount {
            sent += match self.until(|stream, buffers| stream.write(&buffers.output()[sent..amount]))? {
                0 => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                count => count,
            };
        }
        Ok(())
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, ureq::Error> {
        let count = self.until(|stream, buffers| stream.read(buffers.input_append_buf()))?;
        self.buffers.input_appended(count);
        Ok(count > 0)
    }

    fn is_open(&mut self) -> bool {
        // A connection serves one request.
        false
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // The other side may have closed it before.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}
