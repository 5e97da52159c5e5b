//! The plots of `aggregate` and `inspect`: what they show, and outputs that they refuse.

use crate::bad_request::round;
use crate::harness::{Dir, Run, Update, fedmill};
use std::fs;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/mnist-round");

#[track_caller]
fn done(dir: &Dir, line: &str) -> Run {
    let run = fedmill(dir, &line.split_whitespace().collect::<Vec<_>>());
    assert_eq!(run.code, Some(0), "{line}: {run:#?}");
    run
}

/// The texts of an SVG, and how many circles, triangles and crosses it has with those of its key.
fn seen(dir: &Dir, file: &str) -> (Vec<String>, [usize; 3]) {
    let svg = String::from_utf8(dir.read(file)).unwrap();
    let texts = svg.split("<text ").skip(1).map(|part| {
        let text = part.split_once('>').unwrap().1.split_once("</text>").unwrap().0;
        text.trim().to_owned()
    });
    // A cross is two lines of width 2.
    let crosses =
        svg.lines().filter(|line| line.contains("<line") && line.contains("stroke-width=\"2\"")).count();
    let counts = [svg.matches("<circle").count(), svg.matches("<polygon").count(), crosses / 2];
    (texts.collect(), counts)
}

#[track_caller]
fn assert_has(texts: &[String], wanted: &[&str]) {
    for text in wanted {
        assert!(texts.iter().any(|found| found == text), "no `{text}` in {texts:#?}");
    }
}

#[test]
fn who_was_kept_is_drawn_by_score() {
    let dir = Dir::new();
    let base = format!("aggregate {DATA}/updates bad --base {DATA}/base.safetensors -q --on-bad-update skip");
    Update::new("bad/<none>").cut_to(4).write(&dir);
    done(
        &dir,
        &format!("{base} --rule multi-krum --byzantine 4 -o m.safetensors --plot p.svg --report r.json"),
    );
    let clients = dir.json("r.json")["clients"].as_array().unwrap().clone();
    let kept = clients.iter().filter(|client| client["kept"] == true);
    let (count, largest) =
        (kept.clone().count(), kept.map(|c| c["score"].as_f64().unwrap()).fold(0.0, f64::max));
    let (texts, shapes) = seen(&dir, "p.svg");
    assert_eq!(shapes, [count + 1, 20 - count + 1, 2], "one mark each, and one in the key");
    let (left_out, kept) = (format!("left out ({})", 20 - count), format!("kept ({count})"));
    let title = format!("multi-krum: {count} of 21 clients in the merged model");
    assert_has(
        &texts,
        &[&title, &left_out, &kept, "skipped: bad update (1)", "score of multi-krum (no unit)"],
    );
    // Four digits of the largest score that was kept.
    assert!(texts.iter().any(|text| text.starts_with(&format!("largest kept: {largest:.1}"))), "{texts:?}");
    assert_has(&texts, &["client-16", "client-17", "client-18", "client-19", "&lt;none&gt;"]);
    assert!(!texts.contains(&"client-00".to_owned()), "kept clients have no label: they are more");

    let without_plot = dir.read("m.safetensors");
    for (rule, axis) in
        [("mean", "share of the merged model (percent)"), ("median", "L2 norm of the update (no unit)")]
    {
        done(&dir, &format!("{base} --rule {rule} -o {rule}.safetensors --plot {rule}.svg"));
        let (texts, shapes) = seen(&dir, &format!("{rule}.svg"));
        assert_has(&texts, &[axis, "kept (20)"]);
        assert_eq!(shapes, [21, 0, 2]);
        done(&dir, &format!("{base} --rule {rule} -o plain.safetensors"));
        assert!(dir.read("plain.safetensors") == dir.read(&format!("{rule}.safetensors")), "{rule}");
    }
    done(&dir, &format!("{base} --rule multi-krum --byzantine 4 -o m.safetensors --plot p.png"));
    assert!(dir.read("p.png").starts_with(b"\x89PNG") && dir.read("m.safetensors") == without_plot);
}

#[test]
fn a_plot_is_well_formed_whatever_the_clients_are_called() {
    let dir = round();
    let long = "a-client-with-a-long-name-of-number";
    let hostile = "e\u{1b}[2J\u{fffe}\u{ffff}\u{1}&<".to_owned();
    for (name, label) in [
        (hostile, "e\\u{1b}[2J\\u{fffe}\\u{ffff}\\u{1}&amp;&lt;"),
        (format!("{long}-1"), "a-client-wi...f-number-1"),
        (format!("{long}-2"), "a-client-wi...f-number-2"),
    ] {
        Update::new(&format!("bad/{name}")).cut_to(4).write(&dir);
        done(&dir, "aggregate updates bad -q --on-bad-update skip -o m.safetensors --plot p.svg");
        let svg = String::from_utf8(dir.read("p.svg")).unwrap();
        let is_barred = |c: char| c.is_control() && c != '\n' || matches!(c, '\u{fffe}' | '\u{ffff}');
        assert!(!svg.contains(is_barred), "{svg}");
        assert_has(&seen(&dir, "p.svg").0, &[label]);
        fs::remove_dir_all(dir.path("bad")).unwrap();
    }
}

#[test]
fn a_plot_that_cannot_be_written_leaves_no_model() {
    let dir = round();
    fs::create_dir(dir.path("folder.svg")).unwrap();
    let before = dir.contents();
    for (plot, part) in [
        ("p.gif", "expected a file that ends in .svg or .png"),
        ("p", "expected a file that ends in .svg or .png"),
        ("no/such/p.svg", "no/such"),
        ("folder.svg", "folder.svg"),
        ("p.svg --partial", "--partial"),
        ("p.svg --tiers t.json", "--tiers"),
    ] {
        let line = format!("aggregate updates -q -o m.safetensors --plot {plot}");
        let run = fedmill(&dir, &line.split_whitespace().collect::<Vec<_>>());
        run.assert_fails(2, &[part]);
        assert!(dir.contents() == before, "{line}");
        if !plot.contains(' ') {
            let run = fedmill(&dir, &["inspect", "updates", "--plot", plot]);
            run.assert_fails(2, &[part]);
        }
    }
    // The plot is drawn, and its temporary file cannot have its name: too long.
    let long = format!("{}.svg", "p".repeat(250));
    let run = fedmill(&dir, &["aggregate", "updates", "-q", "-o", "m.safetensors", "--plot", &long]);
    run.assert_fails(2, &["pppp.svg", "too long"]);
    assert!(dir.contents() == before);
}

#[test]
fn norms_and_angles_are_drawn_with_the_outliers_by_name() {
    let dir = Dir::new();
    let line = format!("inspect {DATA}/updates --base {DATA}/base.safetensors");
    let plain = done(&dir, &line).stdout;
    assert_eq!(done(&dir, &format!("{line} --plot p.svg")).stdout, plain);
    let (texts, shapes) = seen(&dir, "p.svg");
    assert_eq!(shapes, [18, 4, 0]);
    let angle = "angle to the coordinate-wise median of the sound updates (degrees)";
    assert_has(&texts, &[angle, "L2 norm of the delta (no unit)", "outlier (3)", "update (17)"]);
    assert_has(&texts, &["client-16", "client-17", "client-19"]);
    assert_eq!(texts.iter().filter(|text| text.starts_with("client-")).count(), 3);

    for (name, value) in [("a", 1.0), ("b", 1.0), ("c", f32::NAN)] {
        Update::new(&format!("few/{name}")).f32("w", &[2], &[value, 2.0]).meta("round", "3").write(&dir);
    }
    done(&dir, "inspect few --round 4 --plot few.svg");
    assert_has(&seen(&dir, "few.svg").0, &["without a norm or an angle, not drawn: 3"]);
    done(&dir, "inspect few --plot few.png");
    assert!(dir.read("few.png").starts_with(b"\x89PNG"));
    done(&dir, "inspect few --plot few.svg");
    let (texts, shapes) = seen(&dir, "few.svg");
    assert_eq!(shapes, [3, 0, 0], "{texts:?}");
    assert_has(&texts, &["without a norm or an angle, not drawn: 1", "L2 norm of the values (no unit)"]);
}

/// Updates that a link or a list names are inputs too, whatever they are called.
#[test]
fn a_plot_replaces_nothing_but_a_plot() {
    let dir = round();
    fs::copy(dir.path("updates/client-0.safetensors"), dir.path("c.svg")).unwrap();
    fs::copy(dir.path("c.svg"), dir.path("c.png")).unwrap();
    let before = dir.contents();
    for line in [
        "inspect updates --plot c.svg",
        "aggregate updates -o m.safetensors --plot c.png",
        "compress updates/client-0.safetensors --table --dry-run --plot c.svg",
    ] {
        let run = fedmill(&dir, &line.split_whitespace().collect::<Vec<_>>());
        run.assert_fails(2, &["holds something else, expected an earlier picture"]);
        assert!(dir.contents() == before, "{line}");
    }
    dir.write("new.svg", "");
    done(&dir, "inspect updates --plot new.svg");
    done(&dir, "inspect updates --plot new.svg");
}
