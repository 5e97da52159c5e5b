//! Rounds of error feedback that are killed, and run again or given up.

use super::{Client, ROUNDS};

/// A round killed before any durable step, and run again, ends in the same bytes.
fn killed_everywhere(killed: usize, is_one_output: bool) -> usize {
    let new = || Client { is_one_output, ..Client::new(&["-q"]) };
    let whole = new();
    (1..=ROUNDS).for_each(|round| drop(whole.run(round)));
    for step in 1.. {
        let client = new();
        (1..killed).for_each(|round| drop(client.run(round)));
        let run = client.try_run(killed, &format!("export FEDMILL_FAIL_AT={step}"));
        if run.code == Some(0) {
            return step - 1;
        }
        assert!(run.code != Some(1) && run.code != Some(2), "{run:#?}");
        (killed..=ROUNDS).for_each(|round| drop(client.run(round)));
        assert!(client.contents() == whole.contents(), "killed before step {step} of round {killed}");
    }
    unreachable!()
}

#[test]
fn killed_before_every_durable_step_and_run_again() {
    assert_eq!(killed_everywhere(1, false), 8);
    assert_eq!(killed_everywhere(3, false), 9);
    assert_eq!(killed_everywhere(3, true), 9);
}

/// After a kill that left the update published, the next round finds its residual.
#[test]
fn killed_behind_the_update_and_not_run_again() {
    let whole = Client::new(&["-q"]);
    (1..=ROUNDS).for_each(|round| drop(whole.run(round)));
    let mut went_on = 0;
    for step in 1..=9 {
        let client = Client::new(&["-q"]);
        client.run(1);
        client.try_run(2, &format!("export FEDMILL_FAIL_AT={step}"));
        let is_there = client.dir.exists("out-2.safetensors");
        went_on += usize::from(is_there);
        (if is_there { 3 } else { 2 }..=ROUNDS).for_each(|round| drop(client.run(round)));
        assert!(client.contents() == whole.contents(), "killed before step {step}");
    }
    assert_eq!(went_on, 4);
}

/// After a kill before the update was published, the next round ignores the residual.
#[test]
fn killed_before_the_update_and_given_up() {
    let without = Client::new(&["-q"]);
    [1, 3, 4].iter().for_each(|round| drop(without.run(*round)));
    for step in 1..=5 {
        let client = Client::new(&["-q"]);
        client.run(1);
        client.try_run(2, &format!("export FEDMILL_FAIL_AT={step}"));
        assert!(!client.dir.exists("out-2.safetensors"));
        [3, 4].iter().for_each(|round| drop(client.run(*round)));
        assert!(client.contents() == without.contents(), "killed before step {step}");
    }
}

/// A rerun of a killed round can be killed too.
#[test]
fn a_rerun_killed_before_every_durable_step() {
    let whole = Client::new(&["-q"]);
    (1..=ROUNDS).for_each(|round| drop(whole.run(round)));
    for step in 1..=9 {
        let client = Client::new(&["-q"]);
        (1..=3).for_each(|round| drop(client.run(round)));
        client.try_run(3, &format!("export FEDMILL_FAIL_AT={step}"));
        (3..=ROUNDS).for_each(|round| drop(client.run(round)));
        assert!(client.contents() == whole.contents(), "killed before step {step}");
    }
}
