//! Secure aggregation: sessions of the real program, honest and dishonest parties, damage, kills.
//!
//! Every value of an update is a whole number of steps of the grid, so rounding changes nothing, and the sums of integers
//! are known beforehand. Keys are derived from names: a test can sign as any party.

mod clients;
mod damage;
mod equality;
mod helpers;
mod kept;
mod killed;
mod liars;
mod linear;
mod parts;
mod privacy;
mod restored;
mod same_bytes;
mod server;
mod uniform;

use crate::harness::{Contents, Dir, Model, Run, Update, fedmill, fedmill_after};
use fedmill::engine::passes::machine::Machine;
use fedmill::io::secret;
use fedmill::kernels::lanes::Isa;
use fedmill::modes::secure::folder::SessionFolder;
use fedmill::modes::secure::keys::seeds::draw;
use fedmill::modes::secure::manifest::{Manifest, SessionTerms};
use fedmill::modes::secure::set::{ClientSet, FrozenSet, SetMember};
use fedmill::modes::secure::verify;
use fedmill::parties::envelope::Suite;
use fedmill::parties::identity::{Identity, PublicIdentity, Stage};
use fedmill::parties::signed_lanes::{LanesReader, LanesWriter, Shape, Statement};
use fedmill::parties::signed_text::SignedText;
use fedmill::parties::tensors::{ClientWeights, LaneTensor};
use fedmill::telemetry::progress::Progress;
use rayon::{ThreadPool, ThreadPoolBuilder};

/// Integers of the value 1, the clip of every session here.
const LEVELS: i64 = 1024;

/// The largest weight of a client, in sessions with weights.
const CAP: i64 = 8;

/// The tensors that lanes hold, with their shapes.
const TENSORS: [(&str, &[usize]); 2] = [("a.weight", &[3, 4]), ("b", &[5])];

/// Values of all of them: an odd number, so that the last of two values in a lane is alone.
const VALUES: usize = 17;

/// The identity of a party, by its name.
fn identity(name: &str) -> Identity {
    Identity::of(blake3::derive_key("fedmill tests of secure aggregation", name.as_bytes()))
}

fn public(name: &str) -> PublicIdentity {
    identity(name).public(name, Suite::X25519)
}

/// An integer of a client: a multiple of the cap, so that its product with any weight is one of it.
fn integer(client: usize, value: usize) -> i64 {
    CAP * (((client * 7919 + value * 104_729) % 257) as i64 - 128)
}

/// The weight of a client, in sessions with weights.
fn weight(client: usize) -> i64 {
    (client as i64 * 5) % CAP + 1
}

/// The sums of the integers of clients.
fn sums(clients: &[usize], with_weights: bool) -> Vec<i64> {
    let of = |client: usize, value| match with_weights {
        true => integer(client, value) * weight(client) / CAP,
        false => integer(client, value),
    };
    (0..VALUES).map(|value| clients.iter().map(|client| of(*client, value)).sum()).collect()
}

/// An update with these integers.
fn update(name: &str, integers: &[i64], examples: i64) -> Update {
    let values: Vec<f32> = integers.iter().map(|integer| *integer as f32 / LEVELS as f32).collect();
    let update = Update::new(name).meta("kind", "delta").meta("num_examples", &examples.to_string());
    let split = TENSORS[0].1.iter().product();
    update
        .f32(TENSORS[0].0, TENSORS[0].1, &values[..split])
        .f32(TENSORS[1].0, TENSORS[1].1, &values[split..])
        .i64("steps", &[1], &[0])
}

/// Clients, helpers and a server with a folder of a session.
struct Session {
    dir: Dir,
    clients: usize,
    helpers: usize,
}

/// The words of a command.
fn words(command: &str) -> Vec<&str> {
    command.split_whitespace().collect()
}

impl Session {
    /// Parties with their keys, a base and updates. No session is open.
    fn new(clients: usize, helpers: usize) -> Self {
        let session = Self { dir: Dir::new(), clients, helpers };
        session.write_key("keys/server");
        (1..=helpers).for_each(|helper| session.write_key(&format!("helpers/helper-{helper}")));
        for client in 1..=clients {
            session.write_key(&format!("clients/client-{client}"));
            let integers: Vec<i64> = (0..VALUES).map(|value| integer(client, value)).collect();
            update(&format!("in/client-{client}"), &integers, weight(client)).write(&session.dir);
        }
        let base: Vec<f32> = (0..VALUES).map(|value| value as f32 / 7.0).collect();
        let base = |name: &str, last: f32| {
            Update::new(name)
                .f32(TENSORS[0].0, TENSORS[0].1, &base[..12])
                .f32(TENSORS[1].0, TENSORS[1].1, &[&base[12..16], &[last]].concat())
                .i64("steps", &[1], &[40])
        };
        base("base", 1.0).write(&session.dir);
        base("other-base", 2.0).write(&session.dir);
        session
    }

    /// A session that is open: 2 of 3 helpers suffice, or 3 of 5, or 4 of 7.
    fn opened(clients: usize, helpers: usize, more: &str) -> Self {
        let session = Self::new(clients, helpers);
        done(&session.open("session", more));
        session
    }

    /// The same with the masked updates of these clients.
    fn masked(clients: usize, helpers: usize, senders: &[usize], more: &str) -> Self {
        let session = Self::opened(clients, helpers, more);
        senders.iter().for_each(|client| done(&session.mask(*client)));
        session
    }

    /// The same with a frozen set.
    fn summed(clients: usize, helpers: usize, senders: &[usize], more: &str) -> Self {
        let session = Self::masked(clients, helpers, senders, more);
        done(&session.sum());
        session
    }

    /// Writes the key of a party into a file of its name, as `keygen` does.
    fn write_key(&self, path: &str) {
        let name = path.rsplit('/').next().unwrap();
        std::fs::create_dir_all(self.dir.path(path).parent().unwrap()).unwrap();
        secret::write_key(&self.dir.path(path), identity(name).secret()).unwrap();
        self.dir.write(&format!("{path}.pub"), serde_json::to_string(&public(name)).unwrap());
    }

    fn run(&self, command: &str) -> Run {
        fedmill(&self.dir, &[&["secagg"], words(command).as_slice()].concat())
    }

    /// Runs a command that dies before a durable step.
    fn run_until(&self, step: usize, command: &str) -> Run {
        let args = [&["secagg"], words(command).as_slice()].concat();
        fedmill_after(&self.dir, &format!("export FEDMILL_FAIL_AT={step}"), &args)
    }

    fn open(&self, folder: &str, more: &str) -> Run {
        self.run(&self.open_command(folder, more))
    }

    fn open_command(&self, folder: &str, more: &str) -> String {
        let keys = "--key keys/server --clients clients --helpers helpers --base base.safetensors";
        let min = if more.contains("--min-survivors") { "" } else { "--min-survivors 2" };
        format!("open {folder} {keys} --clip 1 --levels {LEVELS} {min} {more}")
    }

    fn mask(&self, client: usize) -> Run {
        self.run(&mask_command("session", client, &format!("in/client-{client}.safetensors"), ""))
    }

    /// The client masks where it does not see that the set is frozen.
    #[track_caller]
    fn mask_late(&self, client: usize) {
        let (set, hidden) = (self.dir.path("session/set.json"), self.dir.path("hidden.json"));
        std::fs::rename(&set, &hidden).unwrap();
        done(&self.mask(client));
        std::fs::rename(&hidden, &set).unwrap();
    }

    fn sum(&self) -> Run {
        self.run("sum session --key keys/server")
    }

    fn check(&self, helper: usize) -> Run {
        self.run(&format!("check session --key helpers/helper-{helper}"))
    }

    fn help(&self, helper: usize) -> Run {
        self.run(&format!("help session --key helpers/helper-{helper}"))
    }

    fn unmask(&self) -> Run {
        self.run(UNMASK)
    }

    /// The integer sums that the server published.
    fn published(&self) -> Vec<i64> {
        let model = Model::read(&self.dir, "sums.safetensors");
        let bytes = TENSORS.iter().flat_map(|(name, _)| {
            assert_eq!(model.dtype(name), "I64");
            model.bytes(name).to_vec()
        });
        bytes
            .collect::<Vec<u8>>()
            .chunks_exact(8)
            .map(|x| i64::from_le_bytes(x.try_into().unwrap()))
            .collect()
    }

    /// Lets helpers answer and the server unmask. Fails unless the sums are those of these clients.
    #[track_caller]
    fn assert_ends_with(&self, helpers: &[usize], clients: &[usize]) {
        for helper in helpers {
            done(&self.help(*helper));
        }
        done(&self.unmask());
        assert_eq!(self.published(), sums(clients, false));
    }

    /// Fails unless nothing of the sum was published.
    #[track_caller]
    fn assert_nothing_published(&self) {
        for path in ["mean.safetensors", "sums.safetensors", "session/transcript.json"] {
            assert!(!self.dir.exists(path), "{path} is there");
        }
    }

    fn folder(&self) -> SessionFolder {
        SessionFolder::new(&self.dir.path("session"))
    }

    fn manifest(&self) -> Manifest {
        self.folder().manifest().unwrap()
    }

    fn frozen(&self) -> FrozenSet {
        FrozenSet::expect(&self.folder(), &self.manifest()).unwrap()
    }

    /// The set in `set.json`.
    fn client_set(&self) -> ClientSet {
        self.frozen().set
    }

    /// The lanes and the other signed bytes of a file.
    fn lanes(&self, path: &str, statement: &Statement, shape: Shape, signer: &str) -> (Vec<u32>, Vec<u8>) {
        let (path, key) = (self.dir.path(path), identity(signer).verifying());
        let file = LanesReader::default().open(&path, statement, shape, &key).unwrap();
        let mut lanes = vec![0; shape.rows * shape.lanes];
        file.read(0, &mut lanes).unwrap();
        (lanes, file.extra().to_vec())
    }

    /// Signs lanes as a party.
    fn write_lanes(
        &self,
        path: &str,
        statement: &Statement,
        shape: Shape,
        (lanes, extra): (&[u32], &[u8]),
        signer: &str,
    ) {
        let mut writer = LanesWriter::create(&self.dir.path(path), statement, shape).unwrap();
        writer.append(lanes).unwrap();
        writer.publish(extra, &identity(signer)).unwrap();
    }

    /// The files of the session, without temporary ones of a killed run.
    fn files(&self) -> Contents {
        let mut files = self.dir.contents();
        files.retain(|name, _| name.starts_with("session/") && !name.ends_with(".fedmill-tmp"));
        files
    }

    /// The faults that an audit finds; `None` if the manifest cannot be read.
    fn faults(&self, pool: &ThreadPool) -> Option<usize> {
        let progress = Progress::hidden();
        let found = verify::run(&self.folder(), &Machine::new(Isa::detect(), pool, &progress)).ok()?;
        Some(found.iter().filter(|finding| finding.fault.is_some()).count())
    }
}

/// The command by which the server publishes.
const UNMASK: &str = "unmask session --key keys/server -o mean.safetensors --sums sums.safetensors";

/// Masks a client's update.
fn mask_command(folder: &str, client: usize, update: &str, more: &str) -> String {
    let party = format!("--key clients/client-{client} --base base.safetensors {more}");
    format!("mask {folder} {update} {party} --trust keys helpers clients")
}

fn pool(threads: usize) -> ThreadPool {
    ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
}

/// Fails unless a run succeeded.
#[track_caller]
fn done(run: &Run) {
    assert_eq!(run.code, Some(0), "{run:#?}");
}
