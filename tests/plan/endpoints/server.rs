//! A server that answers as a test says, right or wrong, and keeps what it was asked.

use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// An answer to a request.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// A status, headers and a body.
    Says(u16, &'static [(&'static str, &'static str)], String),
    /// A body in chunks, cut at these bytes.
    Chunked(String, usize),
    /// These bytes, and the end of the connection.
    Raw(String),
    /// Nothing, until the client goes away.
    Silent,
    /// A body that never ends.
    Endless,
}

impl Answer {
    /// A right answer with a body.
    pub(crate) fn ok(body: impl ToString) -> Self {
        Self::Says(200, &[], body.to_string())
    }

    /// A right answer of a model: its text, with 3 tokens of the request and 4 of the answer.
    pub(crate) fn chat(text: impl ToString) -> Self {
        let message = json!({"role": "assistant", "content": text.to_string()});
        Self::ok(json!({"message": message, "done": true, "prompt_eval_count": 3, "eval_count": 4}))
    }
}

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) at: Instant,
    /// The method and the path.
    pub(crate) line: String,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Asked {
    /// The value of a header that was sent once.
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        let found: Vec<&str> =
            self.headers.iter().filter(|(key, _)| key == name).map(|(_, value)| &**value).collect();
        assert_eq!(found.len(), 1, "{name}: {self:#?}");
        found[0]
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// A server on this machine.
pub(crate) struct Server {
    port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    /// Serves these answers in turn, and then the last one again and again.
    pub(crate) fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut answers: Vec<Answer> = answers.into_iter().collect();
        answers.reverse();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let keeps = Arc::clone(&asked);
        // Both kinds of threads end with the process of the tests.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let answer = if answers.len() > 1 { answers.pop() } else { answers.last().cloned() };
                let (answer, keeps) = (answer.unwrap(), Arc::clone(&keeps));
                thread::spawn(move || serve(stream, &answer, &keeps));
            }
        });
        Self { port, asked }
    }

    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.host())
    }

    /// The requests so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

/// Answers one request. A client that goes away in the middle is no failure of the server.
fn serve(mut stream: TcpStream, answer: &Answer, keeps: &Mutex<Vec<Asked>>) {
    let Some(asked) = read(&stream) else { return };
    keeps.lock().unwrap().push(asked);
    let _ = match answer {
        Answer::Says(status, headers, body) => {
            let mut text = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n", body.len());
            headers.iter().for_each(|(name, value)| write!(text, "{name}: {value}\r\n").unwrap());
            stream.write_all(format!("{text}\r\n{body}").as_bytes())
        }
        Answer::Chunked(body, size) => {
            let mut text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
            for chunk in body.as_bytes().chunks(*size) {
                write!(text, "{:x}\r\n{}\r\n", chunk.len(), str::from_utf8(chunk).unwrap()).unwrap();
            }
            // Byte after byte: a client must not take a packet for a chunk.
            text.push_str("0\r\n\r\n");
            text.bytes().try_for_each(|byte| {
                stream.write_all(&[byte])?;
                stream.flush()
            })
        }
        Answer::Raw(text) => stream.write_all(text.as_bytes()),
        Answer::Silent => stream.read(&mut [0]).map(drop),
        Answer::Endless => {
            let head = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
            head.and_then(|()| {
                loop {
                    stream.write_all(chunk.as_bytes())?;
                }
            })
        }
    };
}

fn read(stream: &TcpStream) -> Option<Asked> {
    stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let headers = lines[1..].iter().filter_map(|line| line.split_once(": "));
    let headers: Vec<(String, String)> =
        headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let mut body = vec![0; length.map_or(0, |(_, length)| length.parse().unwrap())];
    reader.read_exact(&mut body).ok()?;
    let line = lines[0].trim_end_matches(" HTTP/1.1").to_owned();
    Some(Asked { at: Instant::now(), line, headers, body: String::from_utf8(body).unwrap() })
}
