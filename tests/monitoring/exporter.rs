//! The real node_exporter scrapes the textfiles of several federations.

use super::{examples, is_there, kept};
use crate::harness::Dir;
use fedmill::telemetry::derived::Derived;
use fedmill::telemetry::metrics::RoundRecord;
use fedmill::telemetry::prometheus;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(super) const PROGRAM: &str = "prometheus-node-exporter";

/// A node_exporter that ends with the test.
pub(super) struct Exporter {
    process: Child,
    address: String,
}

impl Exporter {
    /// Starts one that reads the textfiles in a folder.
    pub(super) fn start(folder: &Path) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let process = Command::new(PROGRAM)
            .args(["--collector.disable-defaults", "--collector.textfile"])
            .arg(format!("--collector.textfile.directory={}", folder.display()))
            .arg(format!("--web.listen-address={address}"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, address }
    }

    /// The page that Prometheus scrapes. Waits until the program listens.
    pub(super) fn scrape(&self) -> String {
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut connection = loop {
            match TcpStream::connect(&self.address) {
                Ok(connection) => break connection,
                Err(why) if Instant::now() > deadline => panic!("{}: {why}", self.address),
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        };
        write!(connection, "GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut text = String::new();
        connection.read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn textfile(records: &[RoundRecord], federation: &str) -> String {
    prometheus::text(records.last().unwrap(), &Derived::of(records, 10).unwrap(), federation)
}

#[test]
fn node_exporter_takes_every_sample_of_every_federation() {
    if !is_there(PROGRAM, &["--version"]) {
        return;
    }
    let dir = Dir::new();
    let histories = [
        ("digits", examples::open(30)),
        ("private \"notes\"\n\\", examples::private(30)),
        ("hostile", examples::hostile()),
    ];
    for (number, (name, records)) in histories.iter().enumerate() {
        let (file, text) = (format!("fedmill-{number}.prom"), textfile(records, name));
        if let Some(folder) = kept() {
            std::fs::write(folder.join(&file), &text).unwrap();
        }
        dir.write(&file, text);
    }
    let exporter = Exporter::start(&dir.path(""));
    let page = exporter.scrape();
    assert!(page.lines().any(|line| line == "node_textfile_scrape_error 0"), "{page}");
    // The exporter sorts labels and writes numbers in Go's way, so samples are counted.
    let count = |text: &str| text.lines().filter(|line| line.starts_with("fedmill_")).count();
    let written: usize = histories.iter().map(|(name, records)| count(&textfile(records, name))).sum();
    assert_eq!(count(&page), written, "{page}");
    assert!(page.contains("fedmill_round{federation=\"digits\"} 30"), "{page}");

    // A file that node_exporter refuses is noticed by this test.
    dir.write("fedmill-0.prom", "fedmill_round 1 1700000000000\n");
    assert!(exporter.scrape().lines().any(|line| line == "node_textfile_scrape_error 1"));
}
