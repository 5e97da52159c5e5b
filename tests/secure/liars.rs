//! Helpers that sign wrong answers: seen with one answer beyond the threshold, named with two.

use super::{Session, Stage, done, sums};

/// Replaces the answer of a helper by a wrong one that it signs.
fn lie(session: &Session, helper: usize, change: impl Fn(usize, &mut u32)) {
    let (manifest, frozen) = (session.manifest(), session.frozen());
    let id = format!("helper-{helper}");
    let statement = manifest.statement(Stage::Help, &id, Some(frozen.digest));
    let (path, shape) = (format!("session/answers/{id}.safetensors"), manifest.sums_shape());
    let (mut lanes, _) = session.lanes(&path, &statement, shape, &id);
    lanes.iter_mut().enumerate().for_each(|(lane, value)| change(lane, value));
    session.write_lanes(&path, &statement, shape, (&lanes, &[]), &id);
}

/// Another element of the field.
fn other(value: &mut u32) {
    *value = if *value < 1000 { *value + 12_345 } else { *value - 1000 };
}

fn answered(helpers: usize, answers: &[usize]) -> Session {
    let session = Session::summed(4, helpers, &[1, 2, 4], "");
    answers.iter().for_each(|helper| done(&session.help(*helper)));
    session
}

#[test]
fn a_threshold_of_answers_is_not_checked_and_a_warning_says_so() {
    let session = answered(5, &[1, 2, 5]);
    let run = session.unmask();
    done(&run);
    assert!(
        run.stderr.contains("3 answers suffice, and with no more a wrong one is not detected"),
        "{run:#?}"
    );
    assert_eq!(session.published(), sums(&[1, 2, 4], false));
    // A lie of a small amount passes, and one of a large amount is more than clients can make.
    lie(&session, 2, |lane, value| {
        if lane == 3 {
            // The factor of helper 2 at the points 1, 2 and 5 is (0 - 1) (0 - 5) / ((2 - 1) (2 - 5)) = -5 / 3.
            *value = (u64::from(*value) + 3 * 7) as u32;
        }
    });
    session.unmask().assert_fails(1, &["transcript.json: lists other answers", "hint:"]);
    std::fs::remove_file(session.dir.path("session/transcript.json")).unwrap();
    done(&session.unmask());
    let mut wrong = sums(&[1, 2, 4], false);
    wrong[3] += 35;
    assert_eq!(session.published(), wrong, "nothing can see this lie");
    std::fs::remove_file(session.dir.path("session/transcript.json")).unwrap();
    let before = session.dir.contents();
    lie(&session, 5, |_, value| *value ^= 0x0f0f_0f0f);
    let lied = session.dir.read("session/answers/helper-5.safetensors");
    session.unmask().assert_fails(1, &["found a sum of", "3 clients make at most 3072", "hint:"]);
    session.dir.restore(&before);
    session.dir.write("session/answers/helper-5.safetensors", lied);
    assert!(session.dir.read("mean.safetensors") == before["mean.safetensors"]);
}

#[test]
fn a_wrong_answer_among_one_more_is_detected() {
    for liar in [1, 3, 4] {
        let session = answered(5, &[1, 3, 4, 5]);
        // The last lane alone.
        lie(&session, liar, |lane, value| {
            if lane == 16 {
                other(value);
            }
        });
        session.unmask().assert_fails(
            1,
            &[
                "the answers of helper-1, helper-3, helper-4, helper-5 contradict each other",
                "at most 3 agree",
                "hint:",
            ],
        );
        session.assert_nothing_published();
        // One more answer names the liar.
        done(&session.help(2));
        let run = session.unmask();
        done(&run);
        let named = format!("the answer of helper `helper-{liar}` contradicts those of 4 others");
        assert!(run.stderr.contains(&named), "{run:#?}");
        assert!(run.stderr.contains("4 answers that agree, 1 wrong"), "{run:#?}");
        assert_eq!(session.published(), sums(&[1, 2, 4], false));
        done(&session.run("verify session"));
    }
}

#[test]
fn a_wrong_answer_in_any_lane_is_left_out() {
    let session = answered(5, &[1, 2, 3, 4, 5]);
    let whole = session.dir.contents();
    for (liar, wrong) in [(2, 0), (5, 8), (1, 16), (3, 17)] {
        // Lane 17 is none: all lanes are wrong.
        lie(&session, liar, |lane, value| {
            if lane == wrong || wrong == 17 {
                other(value);
            }
        });
        let run = session.unmask();
        done(&run);
        assert!(run.stderr.contains(&format!("helper `helper-{liar}` contradicts")), "{run:#?}");
        assert_eq!(session.published(), sums(&[1, 2, 4], false), "helper {liar}, lane {wrong}");
        done(&session.run("verify session"));
        session.dir.restore(&whole);
    }
}

#[test]
fn two_liars_among_seven_are_named_even_if_they_agree() {
    let session = answered(7, &[1, 2, 3, 4, 5, 6, 7]);
    // Both add a multiple of the same polynomial, 1 + x + x^2 + x^3: their answers would fit together.
    for liar in [2u64, 6] {
        let added = 1 + liar + liar.pow(2) + liar.pow(3);
        lie(&session, liar as usize, |_, value| {
            *value = ((u64::from(*value) + 1000 * added) % 4_294_967_291) as u32;
        });
    }
    let run = session.unmask();
    done(&run);
    for liar in [2, 6] {
        let named = format!("the answer of helper `helper-{liar}` contradicts those of 5 others");
        assert!(run.stderr.contains(&named), "{run:#?}");
    }
    assert_eq!(session.published(), sums(&[1, 2, 4], false));
    done(&session.run("verify session"));
    // With a third liar no five agree.
    lie(&session, 7, |_, value| other(value));
    session.unmask().assert_fails(1, &["contradict each other: at most 4 agree, expected 5"]);
}

/// What helper 2 of 3 answers with a lie is as good as no answer: a file that is none counts nothing.
#[test]
fn answers_that_are_none_count_nothing() {
    let session = answered(5, &[1, 2, 3, 4]);
    let whole = session.dir.contents();
    let answer = |helper: usize| format!("session/answers/helper-{helper}.safetensors");
    let outside = || lie(&session, 2, |lane, value| *value = if lane == 5 { 4_294_967_291 } else { *value });
    let (manifest, frozen) = (session.manifest(), session.frozen());
    let signed = |stage, set| {
        let (statement, shape) = (manifest.statement(stage, "helper-2", set), manifest.sums_shape());
        session.write_lanes(&answer(2), &statement, shape, (&[1; 17], &[]), "helper-2");
    };
    let stage = || signed(Stage::Unmask, Some(frozen.digest));
    let set = || signed(Stage::Help, None);
    let cases: [(&str, &dyn Fn()); 7] = [
        ("lane 5 is 4294967291, expected a number below 4294967291", &outside),
        ("metadata `sender`", &|| session.dir.write(&answer(2), session.dir.read(&answer(3)))),
        ("metadata `sender` is `client-2`", &|| {
            session.dir.write(&answer(2), session.dir.read("session/masked/client-2.safetensors"));
        }),
        ("metadata `stage` is `unmask`, expected `help`", &stage),
        ("metadata `set` is missing", &set),
        ("the lanes do not have the digest that `helper-2` signed", &|| {
            let mut bytes = session.dir.read(&answer(2));
            let place = bytes.len() - 64 - 32 - 1;
            bytes[place] ^= 1;
            session.dir.write(&answer(2), bytes);
        }),
        ("signature is not one of `helper-2`", &|| {
            let mut bytes = session.dir.read(&answer(2));
            *bytes.last_mut().unwrap() ^= 1;
            session.dir.write(&answer(2), bytes);
        }),
    ];
    for (why, change) in cases {
        change();
        let run = session.unmask();
        done(&run);
        let warned = run.stderr.contains("answers/helper-2.safetensors") && run.stderr.contains(why);
        assert!(warned && run.stderr.contains("the answer does not count"), "{why}: {run:#?}");
        assert_eq!(session.published(), sums(&[1, 2, 4], false), "{why}");
        session.dir.restore(&whole);
    }
    // Below the threshold nothing is published.
    std::fs::remove_file(session.dir.path(&answer(1))).unwrap();
    outside();
    session.unmask().assert_fails(1, &["2 answers of helpers over this set, expected at least 3"]);
    session.assert_nothing_published();
}

/// Answers that come after the transcript are compared with those that it counts.
#[test]
fn an_answer_that_later_ones_show_to_be_wrong_is_named() {
    let session = Session::summed(4, 5, &[1, 2, 4], "");
    [1, 2, 3].iter().for_each(|helper| done(&session.help(*helper)));
    // The factor of helper 2 at the points 1, 2 and 3 is -3: no sum is larger than clients can make it.
    lie(&session, 2, |lane, value| {
        if lane == 4 {
            *value += 1;
        }
    });
    done(&session.unmask());
    let published = session.files();
    [4, 5].iter().for_each(|helper| done(&session.help(*helper)));
    let run = session.unmask();
    run.assert_fails(
        1,
        &["transcript.json: counts the answer of `helper-2`", "mean that was published is wrong", "hint:"],
    );
    assert_eq!(session.files()["session/transcript.json"], published["session/transcript.json"]);
    std::fs::remove_file(session.dir.path("session/transcript.json")).unwrap();
    done(&session.unmask());
    assert_eq!(session.published(), sums(&[1, 2, 4], false));
}

#[test]
fn answers_that_came_later_are_counted() {
    let session = answered(5, &[1, 2, 3]);
    assert!(session.unmask().stderr.contains("3 answers that agree"));
    [4, 5].iter().for_each(|helper| done(&session.help(*helper)));
    assert!(session.unmask().stderr.contains("5 answers that agree"));
}
