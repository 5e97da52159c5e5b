//! Sums that strategies need beside the changes: FedNova's steps, SCAFFOLD's control variates.

use super::{CAP, LEVELS, Session, TENSORS, VALUES, done, integer, mask_command, update};
use crate::harness::{Model, Run, fedmill};

/// The local steps of a client.
fn steps(client: usize) -> i64 {
    [1, 2, 4][client % 3]
}

/// The integers of a client, and the same over its steps.
fn integers(client: usize) -> Vec<i64> {
    (0..VALUES).map(|value| integer(client, value)).collect()
}

#[track_caller]
fn unmasked(session: &Session) -> Model {
    done(&session.sum());
    for helper in [1, 3] {
        done(&session.help(helper));
    }
    done(&session.unmask());
    Model::read(&session.dir, "mean.safetensors")
}

fn values(model: &Model, prefix: &str) -> Vec<f64> {
    let of = |(name, _): &(&str, &[usize])| model.f32(&format!("{prefix}{name}"));
    TENSORS.iter().flat_map(of).map(f64::from).collect()
}

/// The mean of x / steps, weighted, times the weighted mean of the steps.
#[test]
fn changes_are_divided_by_steps_and_the_mean_multiplied_by_their_mean() {
    for with_weights in [false, true] {
        let weights = if with_weights { format!("--weights examples:cap={CAP}") } else { String::new() };
        let session = Session::opened(3, 3, &format!("--steps-cap 4 {weights}"));
        // One client reports more steps than the cap: it counts as many as that.
        let weight = |client: usize| if with_weights { client as i64 } else { 1 };
        let reported = |client: usize| if client == 2 { 9 } else { steps(client) };
        for client in 1..=3 {
            let update = update(&format!("in/client-{client}"), &integers(client), weight(client));
            update.meta("local_steps", &reported(client).to_string()).write(&session.dir);
            done(&session.mask(client));
        }
        let mean = unmasked(&session);
        let weight_sum: i64 = (1..=3).map(weight).sum();
        let mean_steps = (1..=3).map(|client| weight(client) * reported(client).min(4)).sum::<i64>() as f64
            / weight_sum as f64;
        for (value, found) in values(&mean, "").into_iter().enumerate() {
            let scaled = |client: usize| {
                integers(client)[value] as f64 * weight(client) as f64 / reported(client).min(4) as f64
            };
            let sum: f64 = (1..=3).map(scaled).sum();
            let expected = sum / weight_sum as f64 * mean_steps / LEVELS as f64;
            // Quotients are no whole numbers of steps of the grid: each of three clients rounds once.
            let tolerance = 3.0 * if with_weights { CAP as f64 } else { 1.0 } * mean_steps / LEVELS as f64;
            assert!((found - expected).abs() <= tolerance, "{value}: {found}, expected {expected}");
        }
    }
}

#[test]
fn an_update_without_steps_is_refused() {
    let session = Session::opened(2, 3, "--steps-cap 4");
    session.mask(1).assert_fails(2, &["in/client-1.safetensors", "local_steps", "missing"]);
}

fn scaffold(session: &Session, updates: &[&str], name: &str) -> Run {
    let (state, model) = (format!("{name}-state.safetensors"), format!("{name}.safetensors"));
    let fixed = ["aggregate", "--base", "base.safetensors", "--weights", "uniform", "--strategy", "scaffold"];
    let rest = ["--population", "7", "--state", &state, "-o", &model];
    fedmill(&session.dir, &[&fixed[..], updates, &rest].concat())
}

/// The model and the server's control variate are those of a merge in the clear.
#[test]
fn control_variates_are_summed_for_scaffold() {
    let session = Session::opened(3, 3, "--control-clip 2");
    for client in 1..=3 {
        let control: Vec<f32> =
            (0..VALUES).map(|value| integer(client + 5, value) as f32 / LEVELS as f32).collect();
        let update = update(&format!("in/client-{client}"), &integers(client), 1);
        update
            .f32("scaffold.delta_c.a.weight", TENSORS[0].1, &control[..12])
            .f32("scaffold.delta_c.b", TENSORS[1].1, &control[12..])
            .write(&session.dir);
        done(&session.mask(client));
    }
    unmasked(&session);
    let clear = ["in/client-1.safetensors", "in/client-2.safetensors", "in/client-3.safetensors"];
    done(&scaffold(&session, &clear, "clear"));
    done(&scaffold(&session, &["mean.safetensors"], "secure"));
    let of = |name: &str, prefix: &str| values(&Model::read(&session.dir, name), prefix);
    for (file, prefix) in [("", ""), ("-state", "c.")] {
        let clear = of(&format!("clear{file}.safetensors"), prefix);
        let secure = of(&format!("secure{file}.safetensors"), prefix);
        assert!(clear.iter().any(|value| *value != 0.0));
        for (clear, secure) in clear.iter().zip(&secure) {
            assert!((clear - secure).abs() < 1e-6, "{file}: {secure}, expected {clear}");
        }
    }
}

#[test]
fn control_variates_take_no_weights() {
    let session = Session::new(2, 3);
    let open = session.open("session", "--control-clip 1 --weights examples:cap=4");
    open.assert_fails(2, &["control variates have no weights"]);
    assert!(!session.dir.exists("session/manifest.json"));
    done(&session.open("session", "--control-clip 1"));
    let run = session.run(&mask_command("session", 1, "in/client-1.safetensors", ""));
    run.assert_fails(2, &["scaffold.delta_c"]);
}
