//! The sum is exact: the integers of those who stayed, for all clients and helpers who vanish.

use super::{
    CAP, ClientWeights, Identity, Isa, LEVELS, Machine, Manifest, Progress, PublicIdentity, Session,
    SessionFolder, ThreadPool, VALUES, done, identity, integer, pool, public, sums, weight,
};
use crate::harness::Model;
use fedmill::engine::intake::policy::Policy;
use fedmill::kernels::chacha20::{self, Stream};
use fedmill::modes::secure::groups::GroupTerms;
use fedmill::modes::secure::keys::sharing::subsets;
use fedmill::modes::secure::mask::{self, MaskOptions};
use fedmill::modes::secure::open::{self, Clips, CommitteeTerms, GridTerms, OpenOptions};
use fedmill::modes::secure::unmask::{self, GroupSum, UnmaskOptions};
use fedmill::modes::secure::{check, help, sum};
use std::fs;
use std::path::{Path, PathBuf};

/// The terms of a session of the matrix.
#[derive(Clone, Copy, Debug)]
struct Way {
    clients: usize,
    helpers: usize,
    threshold: usize,
    with_weights: bool,
    groups: usize,
    per_lane: u32,
    /// Values that clients send.
    keep: Option<u64>,
}

/// A session in this process, in which clients masked once, and the rest is played again and again.
struct Matrix<'m> {
    way: Way,
    /// Keys, updates and base.
    files: Session,
    helpers: Vec<Identity>,
    pool: &'m ThreadPool,
    progress: &'m Progress,
    /// The machine with a device, on which everything but the masking runs.
    device: Option<Machine<'m>>,
}

/// Copies a file to a folder that may not be there.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::copy(from, to).unwrap();
}

impl<'m> Matrix<'m> {
    fn new(way: Way, pool: &'m ThreadPool, progress: &'m Progress) -> Self {
        let helpers = (1..=way.helpers).map(|helper| identity(&format!("helper-{helper}"))).collect();
        let matrix = Self { way, files: Session::new(way.clients, 0), helpers, pool, progress, device: None };
        matrix.open();
        (1..=way.clients).for_each(|client| matrix.mask(client));
        matrix
    }

    fn machine(&self) -> Machine<'m> {
        Machine::new(Isa::detect(), self.pool, self.progress)
    }

    /// Hands the machine to `act`: that with the device if there is one.
    fn on<T>(&self, act: impl FnOnce(&Machine) -> T) -> T {
        match &self.device {
            Some(device) => act(device),
            None => act(&self.machine()),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.dir.path(name)
    }

    fn public(&self) -> [Vec<PublicIdentity>; 2] {
        let of = |role: &str, count| (1..=count).map(|number| public(&format!("{role}-{number}"))).collect();
        [of("client", self.way.clients), of("helper", self.way.helpers)]
    }

    fn open(&self) {
        let way = self.way;
        let [clients, helpers] = self.public();
        let options = OpenOptions {
            base: self.path("base.safetensors"),
            round: None,
            clients,
            committee: CommitteeTerms { helpers, threshold: Some(way.threshold), signs_set: false },
            clips: Clips { parameters: 1.0, statistics: None, controls: None },
            privacy: None,
            grid: GridTerms {
                levels: Some(LEVELS as u32),
                per_lane: way.per_lane,
                keep: way.keep.map(|keep| keep.to_string().parse().unwrap()),
            },
            weights: if way.with_weights {
                ClientWeights::Examples { cap: CAP as u32 }
            } else {
                ClientWeights::Uniform
            },
            steps_cap: None,
            groups: GroupTerms { count: way.groups, hostile: None },
            min_survivors: Some(2),
            deadline: None,
        };
        open::run(&self.session("all"), &options, (&identity("server"), "server"), self.machine()).unwrap();
    }

    fn session(&self, name: &str) -> SessionFolder {
        SessionFolder::new(&self.path(name))
    }

    fn mask(&self, client: usize) {
        let [clients, helpers] = self.public();
        let options = MaskOptions {
            update: self.path(&format!("in/client-{client}.safetensors")),
            base: self.path("base.safetensors"),
            policy: Policy::default(),
            trusted: [clients, helpers, vec![public("server")]].concat(),
            min_cohort: 2,
            require_known: self.way.clients,
            allow_again: false,
            now: 0,
            output: None,
            integers: None,
        };
        let journal = self.path(&format!("journals/client-{client}"));
        let identity = identity(&format!("client-{client}"));
        let masked = mask::run(&self.session("all"), &options, &identity, &journal, self.machine()).unwrap();
        assert_eq!((masked.clipped, masked.values), (0, VALUES as u64));
    }

    /// Plays the rest of the session with these clients, and with each set of helpers that suffices. Returns how many.
    fn play(&self, manifest: &Manifest, stayed: &[usize]) -> usize {
        let _ = fs::remove_dir_all(self.path("now"));
        let (all, now) = (self.session("all"), self.session("now"));
        copy(&all.manifest_path(), &now.manifest_path());
        for client in stayed {
            let id = format!("client-{client}");
            copy(&all.masked(&id), &now.masked(&id));
        }
        if stayed.len().is_multiple_of(2) {
            self.on(|machine| check::run(&now, &self.helpers[0], machine)).unwrap();
        }
        let expected: Vec<GroupSum> =
            (0..self.way.groups).map(|group| self.expected(manifest, stayed, group)).collect();
        let journal = self.path("now/journals/server");
        let summed = self.on(|machine| sum::run(&now, &identity("server"), &journal, machine));
        if expected.iter().all(|group| group.clients == 0) {
            assert!(summed.unwrap_err().to_string().contains("expected at least 2"), "{stayed:?}");
            return 0;
        }
        summed.unwrap();
        for (number, helper) in self.helpers.iter().enumerate() {
            let journal = self.path(&format!("now/journals/helper-{number}"));
            self.on(|machine| help::run(&now, helper, &journal, machine)).unwrap();
        }
        let all: Vec<usize> = (1..=self.way.helpers).collect();
        fs::rename(self.path("now/answers"), self.path("now/kept")).unwrap();
        let mut played = 0;
        for size in self.way.threshold..=self.way.helpers {
            for answering in subsets(&all, size) {
                assert_eq!(
                    self.unmask(&now, &answering),
                    expected,
                    "{:?} {stayed:?} {answering:?}",
                    self.way
                );
                played += 1;
            }
        }
        played
    }

    fn unmask(&self, now: &SessionFolder, answering: &[usize]) -> Vec<GroupSum> {
        let _ = fs::remove_dir_all(self.path("now/answers"));
        for helper in answering {
            let name = format!("helper-{helper}.safetensors");
            let (from, to) = (self.path("now/kept").join(&name), self.path("now/answers").join(&name));
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::hard_link(from, to).unwrap();
        }
        let options = UnmaskOptions { output: self.path("now/mean"), sums: None, budget: None };
        // A transcript holds the server to its answers.
        let _ = fs::remove_file(now.transcript());
        let done = self.on(|machine| unmask::run(now, &options, &identity("server"), machine)).unwrap();
        assert_eq!((done.transcript.answers.len(), done.transcript.wrong.len()), (answering.len(), 0));
        done.transcript.groups
    }

    /// The sum of a group by the definition.
    fn expected(&self, manifest: &Manifest, stayed: &[usize], group: usize) -> GroupSum {
        let is_in = |client: &&usize| manifest.client(&format!("client-{client}")).unwrap().group == group;
        let mut clients: Vec<usize> = stayed.iter().filter(is_in).copied().collect();
        if clients.len() < 2 {
            clients.clear();
        }
        let sums = if clients.is_empty() { Vec::new() } else { sums(&clients, self.way.with_weights) };
        let sent = |value: &usize| self.way.keep.is_none_or(|keep| is_sent(manifest, keep, *value));
        let bytes: Vec<u8> =
            (0..sums.len()).filter(sent).flat_map(|value| sums[value].to_le_bytes()).collect();
        let weight = match self.way.with_weights {
            true => clients.iter().map(|client| weight(*client)).sum::<i64>() as u64,
            false => clients.len() as u64,
        };
        let sums = blake3::hash(&bytes).to_hex().parse().unwrap();
        GroupSum { clients: clients.len(), weight, steps: None, sums }
    }
}

/// All committees of up to five helpers, with sessions of up to six clients, and every kind of lanes.
#[test]
fn every_dropout_gives_the_sum_of_those_who_stayed() {
    let (pool, progress) = (pool(1), Progress::hidden());
    let committees = (1..=5).flat_map(|k| (k / 2 + 1..=k).map(move |t| (k, t)));
    let (mut played, mut ways) = (0, 0);
    for (number, (helpers, threshold)) in committees.enumerate() {
        // Six clients where all combinations of weights, groups and lanes meet the most helpers, else fewer.
        let clients = if (helpers, threshold) == (5, 3) { 6 } else { 3 + number % 3 };
        let combinations: Vec<usize> =
            if clients == 6 { vec![0, 7] } else { vec![number % 8, (number + 5) % 8] };
        for bits in combinations {
            let groups = if bits & 2 == 2 && clients >= 4 { 2 } else { 1 };
            let per_lane = 1 + (bits >> 2 & 1) as u32;
            // Every second session of one value in a lane sends 1 to 16 of the 17 values.
            let keep = (per_lane == 1 && number % 2 == 1).then_some(1 + number as u64 % 16);
            let way =
                Way { clients, helpers, threshold, with_weights: bits & 1 == 1, groups, per_lane, keep };
            let matrix = Matrix::new(way, &pool, &progress);
            let manifest = matrix.session("all").manifest().unwrap();
            let all: Vec<usize> = (1..=clients).collect();
            for stayed in (0..=clients).flat_map(|size| subsets(&all, size)) {
                played += matrix.play(&manifest, &stayed);
            }
            ways += 1;
        }
    }
    assert!(ways == 18 && played > 1500, "{ways} sessions, {played} sums");
}

/// The same on a device: committees of up to three helpers, sessions of four clients.
#[cfg(feature = "gpu")]
#[test]
fn every_dropout_gives_the_same_sum_on_a_device() {
    use crate::gpu::devices;
    use fedmill::engine::passes::gpu_ring::GpuRing;
    use fedmill::gpu::job::Options;

    let (pool, progress) = (pool(1), Progress::hidden());
    for gpu in devices(&Options::default()) {
        let machine = Machine::new(Isa::detect(), &pool, &progress);
        machine.use_gpu(GpuRing::new(gpu, 1, false).unwrap());
        let mut device = Some(machine);
        let mut played = 0;
        for (helpers, threshold, keep) in [(1, 1, None), (2, 2, Some(5)), (3, 2, None)] {
            let way = Way {
                clients: 4,
                helpers,
                threshold,
                with_weights: helpers == 3,
                groups: 1,
                per_lane: 1,
                keep,
            };
            let mut matrix = Matrix::new(way, &pool, &progress);
            matrix.device = device.take();
            let manifest = matrix.session("all").manifest().unwrap();
            for stayed in (0..=4).flat_map(|size| subsets(&[1, 2, 3, 4], size)) {
                played += matrix.play(&manifest, &stayed);
            }
            device = matrix.device.take();
        }
        assert_eq!(played, 11 + 11 + 11 * 4);
    }
}

/// Whether clients send a value, as docs/secure.md says it: the values here are one block.
fn is_sent(manifest: &Manifest, keep: u64, value: usize) -> bool {
    let words = |purpose: &str| {
        let key = blake3::derive_key(&format!("fedmill-secagg/1 {purpose}"), &manifest.terms.nonce.0);
        let mut blocks = [[0; 16]; 2];
        chacha20::blocks(Isa::detect(), Stream { key: &key, domain: 0, segment: 0 }, 0, &mut blocks);
        blocks.concat()
    };
    let (mut wanted, words) = (keep, words("kept values"));
    for (place, word) in words.iter().enumerate().take(value + 1) {
        let is_sent = u64::from(*word) * (VALUES - place) as u64 / (1 << 32) < wanted;
        wanted -= u64::from(is_sent);
        if place == value {
            return is_sent;
        }
    }
    false
}

/// The same by the program, with the sums and the mean as files.
#[test]
fn the_program_writes_the_sums_and_their_mean() {
    for (more, with_weights) in
        [("", false), ("--weights examples:cap=8 --values-per-lane 2 --round 3", true)]
    {
        let session = Session::summed(6, 5, &[1, 2, 4, 6], more);
        [2, 3, 5].iter().for_each(|helper| done(&session.help(*helper)));
        done(&session.unmask());
        let stayed = [1, 2, 4, 6];
        let expected = sums(&stayed, with_weights);
        assert_eq!(session.published(), expected);
        let mean = Model::read(&session.dir, "mean.safetensors");
        let total: i64 = stayed.iter().map(|client| if with_weights { weight(*client) } else { 1 }).sum();
        assert_eq!(
            (mean.metadata["kind"].as_str(), &mean.metadata["num_examples"]),
            ("delta", &total.to_string())
        );
        assert_eq!(mean.metadata.get("round").map(String::as_str), with_weights.then_some("3"));
        // The weighted mean of the updates, by its definition.
        let found = [mean.f32("a.weight"), mean.f32("b")].concat();
        for (value, found) in found.iter().enumerate() {
            let weighted = stayed.iter().map(|client| {
                let weight = if with_weights { weight(*client) } else { 1 };
                integer(*client, value) * weight
            });
            let mean = weighted.sum::<i64>() as f64 / LEVELS as f64 / total as f64;
            assert!((f64::from(*found) - mean).abs() < 1e-6, "value {value}: {found}, expected {mean}");
        }
        // The server merges it like an update of one client, as it merges the updates themselves.
        let merge = |input: &str, output: &str| {
            let args = ["aggregate", "--base", "base.safetensors", "-o", output, "--weights"];
            let weights = if with_weights { "examples" } else { "uniform" };
            let inputs: Vec<&str> = input.split(' ').collect();
            let run = crate::harness::fedmill(&session.dir, &[&args[..], &[weights], &inputs].concat());
            done(&run);
            Model::read(&session.dir, output)
        };
        let paths = stayed.map(|client| format!("in/client-{client}.safetensors")).join(" ");
        let (one, all) = (merge("mean.safetensors", "one.safetensors"), merge(&paths, "all.safetensors"));
        for tensor in ["a.weight", "b"] {
            for (one, all) in one.f32(tensor).iter().zip(all.f32(tensor)) {
                assert!((one - all).abs() < 1e-6, "{one}, {all}");
            }
        }
        assert_eq!(one.bytes("steps"), 40i64.to_le_bytes());
        done(&session.run("verify session"));
    }
}

/// A rehearsal of all roles, by the program.
#[test]
fn a_rehearsal_ends_with_the_sum_of_those_who_stayed() {
    let session = Session::new(5, 0);
    let simulate = |more: &str| {
        let terms = format!(
            "--base base.safetensors --clip 1 --levels {LEVELS} --min-survivors 2 -o mean.safetensors"
        );
        session.run(&format!("simulate played in {terms} --helpers 5 {more}"))
    };
    done(&simulate("--drop-clients 2 --drop-helpers 2 --seed 5 --suite x-wing --helpers-sign-set"));
    let masked: Vec<usize> = (1..=5)
        .filter(|client| session.dir.exists(&format!("played/masked/client-{client:02}.safetensors")))
        .collect();
    assert_eq!(masked.len(), 3);
    let mean = Model::read(&session.dir, "mean.safetensors");
    let found = [mean.f32("a.weight"), mean.f32("b")].concat();
    for (sum, found) in sums(&masked, false).iter().zip(found) {
        assert!((f64::from(found) - *sum as f64 / LEVELS as f64 / 3.0).abs() < 1e-6);
    }
    done(&session.run("verify played"));
    fs::remove_dir_all(session.dir.path("played")).unwrap();
    simulate("--drop-helpers 3")
        .assert_fails(1, &["2 answers of helpers over this set, expected at least 3"]);
    fs::remove_dir_all(session.dir.path("played")).unwrap();
    simulate("--drop-clients 4").assert_fails(1, &["1 sound masked updates, expected at least 2"]);
}
