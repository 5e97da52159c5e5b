//! Homomorphic encryption: sums of encrypted updates, and what each party refuses.

mod clients;
mod key_holder;
mod server;
mod sums;

use crate::harness::{Dir, Run, Update, fedmill};
use fedmill::io::digest::Blake3;
use fedmill::parties::envelope::Suite;
use fedmill::parties::identity::Identity;

/// Values of the parameter: more than one ciphertext holds.
const VALUES: usize = 13_000;

/// A clip that is the largest integer of 16 bits: whole numbers up to it stay as they are.
const CLIP: &str = "32767";

/// A federation in a folder: keys, a base, updates of its clients, and an open round.
pub(crate) struct World {
    pub(crate) dir: Dir,
    clients: usize,
}

/// The identity of a party.
fn identity(name: &str) -> Identity {
    Identity::of(Blake3::of_bytes(name.as_bytes()))
}

/// Writes the keys of a party, as `secagg keygen` does.
fn write_keys(dir: &Dir, folder: &str, name: &str) {
    let identity = identity(name);
    let digest = Blake3::of_bytes(&[b"fedmill digest of a kept key", identity.secret().as_slice()].concat());
    dir.write(&format!("keys/{name}.key"), [identity.secret().as_slice(), &digest].concat());
    let public = serde_json::to_string(&identity.public(name, Suite::X25519)).unwrap();
    dir.write(&format!("{folder}/{name}.pub"), public);
}

/// The change that a client makes to a value, a whole number.
fn change(client: usize, value: usize) -> i64 {
    match value {
        0 => 32_767,
        1 => -32_767,
        _ => ((value * 7919 + client * 104_729 + value * value % 31) % 65_535) as i64 - 32_767,
    }
}

fn base_value(value: usize) -> i64 {
    (value % 13) as i64 - 6
}

/// The name of a client.
fn name(client: usize) -> String {
    format!("client-{client}")
}

impl World {
    /// Keys, base and updates; a key pair for `clients` clients, and no round yet. A client's changes are multiples of
    /// `step`, and it has three examples more than the one before.
    fn without_round(clients: usize, values: usize, step: i64) -> Self {
        let world = Self { dir: Dir::new(), clients };
        let dir = &world.dir;
        for name in ["server", "holder"] {
            write_keys(dir, "known", name);
        }
        let model = |name: &str, change: &dyn Fn(usize) -> i64| {
            let of = |value: usize| (base_value(value) + change(value)) as f32;
            let weight: Vec<f32> = (0..values).map(of).collect();
            Update::new(name).f32("weight", &[values], &weight).i64("steps", &[1], &[5])
        };
        model("base", &|_| 0).write(dir);
        for client in 1..=clients {
            write_keys(dir, "known", &name(client));
            write_keys(dir, "pub", &name(client));
            let examples = (3 * client - 1).to_string();
            let change = |value| change(client, value) / step * step;
            model(&format!("in/{}", name(client)), &change).meta("num_examples", &examples).write(dir);
        }
        let numbers = ["he", "params", "--clients", &clients.to_string(), "-o", "he.json"];
        assert_eq!(fedmill(dir, &numbers).code, Some(0));
        let run = world.run(
            "he keygen --params he.json --key keys/holder.key --id holder --public pk.he --secret sk.he",
        );
        assert_eq!((run.code, run.stdout.as_str()), (Some(0), "pk.he\n"), "{run:#?}");
        world
    }

    /// As above, with an open round. `terms` are further options of `open`.
    pub(crate) fn with_terms(clients: usize, values: usize, step: i64, terms: &str) -> Self {
        let world = Self::without_round(clients, values, step);
        world.succeed(&format!("{} {terms} -o round.json", world.open()), "round.json");
        world
    }

    fn new(clients: usize) -> Self {
        Self::with_terms(clients, VALUES, 1, "")
    }

    /// The command line that opens a round.
    pub(crate) fn open(&self) -> String {
        format!(
            "he open --base base.safetensors --public pk.he --key keys/server.key --clients pub --clip {CLIP}"
        )
    }

    fn run(&self, line: &str) -> Run {
        fedmill(&self.dir, &line.split_whitespace().collect::<Vec<_>>())
    }

    #[track_caller]
    fn succeed(&self, line: &str, printed: &str) -> Run {
        let run = self.run(line);
        assert_eq!(
            (run.code, run.stdout.as_str()),
            (Some(0), format!("{printed}\n").as_str()),
            "{line}: {run:#?}"
        );
        run
    }

    /// The command line by which a client encrypts.
    pub(crate) fn encrypt_line(&self, client: usize) -> String {
        let name = name(client);
        format!(
            "he encrypt --round round.json --public pk.he --base base.safetensors --key keys/{name}.key --trust known -o c/{name}.he in/{name}.safetensors"
        )
    }

    /// Every client encrypts its update.
    #[track_caller]
    fn encrypt_all(&self) {
        for client in 1..=self.clients {
            let run = self.succeed(&self.encrypt_line(client), &format!("c/{}.he", name(client)));
            assert!(run.stderr.contains("server and the key holder must not collude"), "{}", run.stderr);
        }
    }

    pub(crate) const ADD: &str = "he add --round round.json --key keys/server.key -o sum.he";

    #[track_caller]
    fn add(&self, files: &str) -> Run {
        self.succeed(&format!("{} {files}", Self::ADD), "sum.he")
    }

    /// The command line by which the key holder decrypts.
    pub(crate) fn decrypt_line(&self, min_clients: usize) -> String {
        format!(
            "he decrypt --round round.json --public pk.he --secret sk.he --key keys/holder.key --trust known --inputs c --min-clients {min_clients} -o mean.safetensors sum.he"
        )
    }

    #[track_caller]
    fn decrypt(&self, min_clients: usize) -> Run {
        self.succeed(&self.decrypt_line(min_clients), "mean.safetensors")
    }

    /// A round of these clients up to the sum.
    fn added(clients: usize) -> Self {
        let world = Self::new(clients);
        world.encrypt_all();
        world.add("c");
        world
    }
}
