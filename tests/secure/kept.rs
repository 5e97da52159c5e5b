//! Sessions in which clients send a part of the values, and groups that bear hostile clients.

use super::{Session, VALUES, done, mask_command, sums};
use crate::harness::{Model, Update, fedmill};

#[test]
fn the_mean_has_zeros_where_nothing_is_sent() {
    let session = Session::summed(4, 3, &[1, 2, 4], "--keep 0.4 --weights examples:cap=8");
    [1, 2].iter().for_each(|helper| done(&session.help(*helper)));
    done(&session.unmask());
    let (terms, plain) = (session.manifest().terms, sums(&[1, 2, 4], true));
    assert_eq!((terms.keep, terms.sent()), (Some(6), 6), "0.4 of 17 values");
    let flags = terms.kept().flags(0..VALUES).unwrap();
    let expected: Vec<i64> =
        flags.iter().zip(plain).map(|(is_sent, sum)| sum * i64::from(*is_sent)).collect();
    assert_eq!(session.published(), expected);
    let mean = Model::read(&session.dir, "mean.safetensors");
    let zeros = [mean.f32("a.weight"), mean.f32("b")].concat().iter().filter(|value| **value == 0.0).count();
    assert!(zeros >= VALUES - 6, "{zeros} zeros");
    let origin: serde_json::Value = serde_json::from_str(&mean.metadata["fedmill.secagg"]).unwrap();
    assert_eq!(origin["kept"], 6);
    done(&session.run("verify session"));
}

#[test]
fn an_upload_has_four_bytes_for_each_value_that_is_sent() {
    let session = Session::new(3, 3);
    let model = |name: &str| Update::new(name).f32("w", &[100_000], &vec![0.25; 100_000]);
    model("base").write(&session.dir);
    model("in/client-1").meta("kind", "delta").write(&session.dir);
    done(&session.open("session", "--keep 0.05"));
    done(&session.mask(1));
    let bytes = session.dir.read("session/masked/client-1.safetensors").len();
    assert!((20_000..20_000 + 2_600).contains(&bytes), "{bytes}");
}

#[test]
fn statistics_are_sent_whole() {
    let session = Session::new(3, 3);
    let model = |name: &str, value: f32| {
        Update::new(name).f32("bn.weight", &[50], &[value; 50]).f32("bn.running_mean", &[50], &[value; 50])
    };
    model("base", 0.0).write(&session.dir);
    (1..=3).for_each(|client| {
        model(&format!("in/client-{client}"), 0.5).meta("kind", "delta").write(&session.dir);
    });
    done(&session.open("session", "--keep 7 --statistics-clip 1"));
    (1..=3).for_each(|client| done(&session.mask(client)));
    done(&session.sum());
    [1, 2].iter().for_each(|helper| done(&session.help(*helper)));
    done(&session.run("unmask session --key keys/server -o mean.safetensors"));
    let mean = Model::read(&session.dir, "mean.safetensors");
    assert_eq!(mean.f32("bn.running_mean"), [0.5; 50]);
    assert_eq!(mean.f32("bn.weight").iter().filter(|value| **value == 0.5).count(), 7);
}

#[test]
fn parts_that_cannot_be_are_refused() {
    let session = Session::new(3, 3);
    for (more, code, wanted) in [
        ("--keep 18", 2, "keep is 18, expected 1 to 17"),
        ("--keep 0.5 --values-per-lane 2", 2, "several values in a lane"),
        ("--keep 0.5 --control-clip 1", 2, "control variates"),
        ("--keep x", 2, "expected a count"),
    ] {
        let more = format!("--min-survivors 2 {more}");
        let line = session.open_command("session", &more).replacen("--levels 1024", "", 1);
        session.run(&line).assert_fails(code, &[wanted]);
    }
    assert!(!session.dir.exists("session"));
}

/// A value that one client sends alone is in the sum as it is.
#[test]
fn values_that_a_client_chose_are_refused() {
    let session = Session::new(3, 3);
    let values: Vec<f32> = (0..5000).map(|value| (value % 71) as f32 / 100.0).collect();
    let model = |name: &str| Update::new(name).f32("w", &[5000], &values);
    model("base").write(&session.dir);
    model("in/client-1").meta("kind", "delta").write(&session.dir);
    done(&session.open("session", ""));
    let line = "compress in/client-1.safetensors --codec topk:fraction=0.3 -o in/few.safetensors";
    done(&fedmill(&session.dir, &line.split(' ').collect::<Vec<_>>()));
    let run = session.run(&mask_command("session", 1, "in/few.safetensors", ""));
    run.assert_fails(1, &["in/few.safetensors", "topk", "sends alone", "--keep"]);
    assert!(!session.dir.exists("session/masked"));
    done(&session.mask(1));
}

#[test]
fn groups_that_hostile_clients_fill_are_refused() {
    let session = Session::new(8, 3);
    session.open("session", "--groups 2 --hostile 0.2").assert_fails(1, &["groups of 4", "41 %", "3 groups"]);
    session.open("session", "--groups 2 --hostile 0.7").assert_fails(2, &["--hostile", "below 0.5"]);
    assert!(!session.dir.exists("session"));
    let run = session.open("session", "--groups 2 --hostile 0.15");
    done(&run);
    // 1 - 2^(-1/4) = 0.159.
    assert!(run.stderr.contains("hides among 2 to 4 clients, not 8"), "{run:#?}");
    assert!(run.stderr.contains("fewer than 15.9 %"), "{run:#?}");
}
