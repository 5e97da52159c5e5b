//! Neither threads, nor instruction sets, nor the order in which files came change a byte.

use super::{Session, done, mask_command};
use crate::harness::{Contents, Update};
use fedmill::kernels::lanes::Isa;
use std::fs;

/// More lanes than one part of any loop, and an uneven number of them.
const LEN: usize = 140_003;

pub(super) fn long(session: &Session) {
    let tensor = |name: &str, seed: usize| {
        let values: Vec<f32> =
            (0..LEN).map(|i| ((i * 31 + seed * 7919) % 2003) as f32 / 1000.0 - 1.0).collect();
        Update::new(name).f32("w", &[LEN], &values)
    };
    tensor("base", 0).write(&session.dir);
    for client in 1..=session.clients {
        let update = tensor(&format!("in/client-{client}"), client).meta("kind", "delta");
        update.meta("num_examples", &client.to_string()).write(&session.dir);
    }
}

/// What all parties make of a session, with these options: the files of the session, and the mean.
fn play(session: &Session, options: &str) -> (Contents, Vec<u8>) {
    for folder in ["session/masked", "session/answers", "session/checks", "keys/server.journal"] {
        let _ = fs::remove_dir_all(session.dir.path(folder));
    }
    for file in ["session/set.json", "session/masked-sum.safetensors", "session/transcript.json"] {
        let _ = fs::remove_file(session.dir.path(file));
    }
    for helper in 1..=session.helpers {
        let _ = fs::remove_dir_all(session.dir.path(&format!("helpers/helper-{helper}.journal")));
    }
    // The clients' journals keep their secrets: the masks are the same.
    let mut clients: Vec<usize> = (1..=session.clients).collect();
    if options.contains("portable") {
        clients.reverse();
    }
    for client in clients {
        let update = format!("in/client-{client}.safetensors");
        done(&session.run(&mask_command("session", client, &update, options)));
    }
    done(&session.run(&format!("check session --key helpers/helper-2 {options}")));
    done(&session.run(&format!("sum session --key keys/server {options}")));
    for helper in [1, 3] {
        done(&session.run(&format!("help session --key helpers/helper-{helper} {options}")));
    }
    done(&session.run(&format!("unmask session --key keys/server -o mean.safetensors {options}")));
    done(&session.run(&format!("verify session {options}")));
    (session.files(), session.dir.read("mean.safetensors"))
}

#[test]
fn threads_instructions_and_order_change_no_byte() {
    for terms in ["", "--weights examples:cap=3 --values-per-lane 2 --levels 1000"] {
        let session = Session::new(3, 3);
        long(&session);
        let open = session.open_command("session", terms);
        let open = if terms.is_empty() { open } else { open.replacen("--levels 1024", "", 1) };
        done(&session.run(&open));
        let whole = play(&session, "--threads 1");
        assert_eq!(whole.0.keys().filter(|name| !name.ends_with('/')).count(), 1 + 3 + 1 + 2 + 2 + 1);
        let sets = Isa::available().into_iter().map(|isa| format!("--threads 2 --isa {isa}"));
        for options in ["--threads 2".to_owned(), "--threads 3".to_owned()].into_iter().chain(sets) {
            let again = play(&session, &options);
            let differs: Vec<&String> =
                whole.0.keys().filter(|name| again.0.get(*name) != whole.0.get(*name)).collect();
            assert!(again.0.len() == whole.0.len() && differs.is_empty(), "{terms}, {options}: {differs:?}");
            assert!(again.1 == whole.1, "{terms}, {options}: the mean differs");
        }
    }
}

#[cfg(feature = "gpu")]
#[test]
fn a_gpu_changes_no_byte() {
    let adapters = fedmill::gpu::adapters();
    if adapters.is_empty() {
        assert!(
            std::env::var_os("FEDMILL_REQUIRE_GPU").is_none(),
            "no adapter was found, and one is required"
        );
        return crate::harness::skip("no adapter was found");
    }
    let session = Session::new(3, 3);
    long(&session);
    done(&session.run(&session.open_command("session", "--weights examples:cap=3")));
    let expected = play(&session, "");
    for adapter in adapters {
        let name = adapter.name.split_whitespace().next().unwrap().to_owned();
        let found = play(&session, &format!("--backend gpu --adapter {name}"));
        assert!(found == expected, "{name} gives other bytes");
    }
    let update = "in/client-1.safetensors";
    let run = session.run(&mask_command("session", 1, update, "--backend gpu --adapter none-such"));
    run.assert_fails(2, &["none-such"]);
}
