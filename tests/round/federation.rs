//! A federation of small clients in a folder, run by the real program.

use crate::harness::{Dir, Run, Update, fedmill};
use serde_json::Value;

/// The state directory, in the folder of the test.
pub(super) const STATE: &str = "fed";

/// Values of a model.
const LEN: usize = 40;

/// A federation of small clients.
pub(super) struct Federation {
    pub(super) dir: Dir,
}

fn values(scale: u64) -> Vec<f32> {
    (0..LEN as u64).map(|j| ((j * scale + 3) % 17) as f32 / 8.0 - 1.0).collect()
}

/// An update whose values follow from its client and its round.
pub(super) fn update(client: u64, round: u64) -> Update {
    Update::new("update")
        .f32("a", &[10], &values(7 + client + 5 * round)[..10])
        .f32("b", &[5, 6], &values(11 + client + 3 * round)[10..])
        .meta("kind", "delta")
        .meta("round", &round.to_string())
        .meta("num_examples", &(10 + client).to_string())
}

impl Federation {
    /// A federation of this many clients with these settings, after `round init`.
    pub(super) fn new(clients: u64, settings: &str) -> Self {
        let federation = Self { dir: Dir::new() };
        let dir = &federation.dir;
        let model =
            Update::new("model").f32("a", &[10], &values(2)[..10]).f32("b", &[5, 6], &values(3)[10..]);
        model.write(dir);
        let init = fedmill(dir, &["round", "init", STATE, "--model", "model.safetensors"]);
        assert_eq!(init.code, Some(0), "{init:#?}");
        let row = |client: u64| {
            format!(
                "{{\"node_id\":\"client-{client}\",\"compute_capability\":{},\"data_size\":{},\
                 \"connection_quality\":0.5,\"privacy_requirements\":{{}}}}\n",
                client + 1,
                10 + client
            )
        };
        dir.write("clients.jsonl", (0..clients).map(row).collect::<String>());
        let import = fedmill(dir, &["clients", "import", STATE, "clients.jsonl"]);
        assert_eq!(import.code, Some(0), "{import:#?}");
        federation.configure(settings);
        federation
    }

    /// Replaces the settings.
    pub(super) fn configure(&self, settings: &str) {
        self.dir.write(&format!("{STATE}/fedmill.toml"), settings);
    }

    /// Runs `fedmill round COMMAND` on the state directory.
    pub(super) fn round(&self, command: &str, more: &[&str]) -> Run {
        fedmill(&self.dir, &[&["round", command, STATE], more].concat())
    }

    /// Runs `fedmill round run`, which must do something or have nothing left to do.
    #[track_caller]
    pub(super) fn advance(&self) -> Run {
        let run = self.round("run", &[]);
        assert_eq!(run.code, Some(0), "{run:#?}");
        run
    }

    /// The clients that the open round selected.
    pub(super) fn selected(&self, round: u64) -> Vec<u64> {
        let folder = self.dir.path(&format!("{STATE}/tasks/{round:06}"));
        let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let names = names.map(|name| name.into_string().unwrap());
        let id = |name: String| name.strip_prefix("client-")?.strip_suffix(".json")?.parse().ok();
        let mut found: Vec<u64> = names.filter_map(id).collect();
        found.sort_unstable();
        found
    }

    /// A client puts a file into the inbox of a round.
    pub(super) fn put(&self, round: u64, name: &str, bytes: &[u8]) {
        self.dir.write(&format!("{STATE}/inbox/{round:06}/{name}"), bytes);
    }

    /// All selected clients of a round deliver, except for the first `without`.
    pub(super) fn deliver(&self, round: u64, without: usize) {
        for client in self.selected(round).into_iter().skip(without) {
            self.put(round, &format!("client-{client}.safetensors"), &update(client, round).bytes());
        }
    }

    /// The state of the federation as JSON.
    pub(super) fn status(&self) -> Value {
        let status = self.round("status", &["--json"]);
        assert_eq!(status.code, Some(0), "{status:#?}");
        serde_json::from_str(&status.stdout).unwrap()
    }

    /// The digest of the current model.
    pub(super) fn current(&self) -> String {
        self.status()["current"]["blake3"].as_str().unwrap().to_owned()
    }

    /// The bytes of the current model.
    pub(super) fn model(&self) -> Vec<u8> {
        self.dir.read(&format!("{STATE}/current.safetensors"))
    }

    /// The rounds so far, the last first.
    pub(super) fn history(&self) -> Vec<Value> {
        let history = self.round("history", &["--json"]);
        assert_eq!(history.code, Some(0), "{history:#?}");
        history.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The state directory passes `round verify`.
    #[track_caller]
    pub(super) fn assert_sound(&self) {
        let verify = self.round("verify", &[]);
        assert_eq!(verify.code, Some(0), "{verify:#?}");
    }
}
