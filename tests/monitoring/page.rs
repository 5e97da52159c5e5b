//! The report page in a real browser, at the width of a desk and of a phone, in light and dark.

use super::{examples, is_there, kept, script};
use crate::harness::{Dir, source_tree};
use fedmill::telemetry::html::{About, page};
use fedmill::telemetry::metrics::RoundRecord;
use serde_json::Value;

/// The size of a page that opens at once on a phone's network.
const MOST_BYTES: usize = 1_000_000;

/// What a browser shows of a page: `look_at_page.py` lists the keys.
struct Seen(Value);

impl Seen {
    fn number(&self, key: &str) -> f64 {
        self.0[key].as_f64().unwrap_or_else(|| panic!("{key}: {}", self.0[key]))
    }

    fn count(&self, key: &str) -> usize {
        self.0[key].as_array().unwrap().len()
    }
}

fn page_of(records: &[RoundRecord], title: &str) -> String {
    page(records, &About { title, status: Some("Round 61 waits for 3 of 14 updates."), window: 10 }).unwrap()
}

/// Opens a page at both widths. Fails on anything that no page may have.
#[track_caller]
fn look(name: &str, html: &str) -> Vec<Seen> {
    let dir = Dir::new();
    let folder = kept().unwrap_or_else(|| dir.path(""));
    let file = folder.join(format!("{name}.html"));
    std::fs::write(&file, html).unwrap();
    let mut all = Vec::new();
    for (width, scheme) in [(1280, "light"), (390, "light"), (390, "dark")] {
        let picture = folder.join(format!("{name}-{width}-{scheme}.png"));
        let (file, width_text) = (file.to_str().unwrap(), width.to_string());
        let seen = script("look_at_page.py", &[file, &width_text, scheme, picture.to_str().unwrap()]);
        let seen = Seen(serde_json::from_str(&seen).unwrap());
        let what = format!("{name} at {width}, {scheme}: {:#}", seen.0);
        assert_eq!(seen.number("inner_width"), f64::from(width), "{what}");
        assert!(seen.number("scroll_width") <= f64::from(width), "scrolls sideways: {what}");
        assert_eq!(seen.count("beyond"), 0, "reaches beyond the right edge: {what}");
        assert_eq!(seen.count("console"), 0, "errors: {what}");
        assert_eq!((seen.number("scripts"), seen.number("images")), (0.0, 0.0), "{what}");
        let requests = seen.0["requests"].as_array().unwrap().iter().filter_map(Value::as_str);
        let mut other = requests.filter(|url| !url.starts_with("file:") && !url.starts_with("data:"));
        assert_eq!(other.next(), None, "{what}");
        assert!(seen.number("text_height") >= 10.0, "too small to read: {what}");
        all.push(seen);
    }
    all
}

fn has_browser() -> bool {
    let program = std::env::var("CHROMIUM").unwrap_or_else(|_| "chromium".to_owned());
    source_tree().is_some() && is_there("python3", &["--version"]) && is_there(&program, &["--version"])
}

#[test]
fn a_page_of_60_rounds_has_every_plot_on_any_screen() {
    if !has_browser() {
        return;
    }
    let pages = [("open", examples::open(60), 12.0, 2.0), ("private", examples::private(60), 11.0, 3.0)];
    for (name, records, plots, absent) in pages {
        let seen = look(name, &page_of(&records, "Digits on phones"));
        for seen in &seen {
            assert_eq!((seen.number("plots"), seen.number("absent")), (plots, absent), "{name}");
            assert!(seen.number("colors") >= 6.0);
            assert!(seen.0["text"].as_str().unwrap().contains("Round 61 waits for 3 of 14 updates."));
        }
        assert_ne!(seen[1].0["background"], seen[2].0["background"]);
    }
}

#[test]
fn a_page_of_few_rounds_says_what_is_absent() {
    if !has_browser() {
        return;
    }
    for (name, rounds, plots) in [("none", 0, 0.0), ("one", 1, 11.0)] {
        let seen = look(name, &page_of(&examples::open(rounds), "New"));
        assert_eq!(seen[1].number("plots"), plots, "{name}");
        assert!(seen[1].number("absent") >= 3.0);
    }
}

#[test]
fn a_page_of_hostile_texts_does_nothing() {
    if !has_browser() {
        return;
    }
    let records = examples::hostile();
    let html =
        page(&records, &About { title: examples::HOSTILE, status: Some(examples::HOSTILE), window: 10 })
            .unwrap();
    for seen in look("hostile", &html) {
        // The text is there, as text.
        assert!(seen.0["text"].as_str().unwrap().matches(examples::HOSTILE).count() > 10);
    }
}

#[test]
fn a_page_of_10_000_rounds_stays_small() {
    let records = examples::open(10_000);
    let html = page_of(&records, "Ten thousand rounds");
    assert!(html.len() < MOST_BYTES, "{} bytes", html.len());
    if has_browser() {
        assert_eq!(look("many", &html)[0].number("plots"), 12.0);
    }
}

#[test]
fn no_text_of_others_reaches_the_page_as_markup() {
    let records = examples::hostile();
    let html =
        page(&records, &About { title: examples::HOSTILE, status: Some(examples::HOSTILE), window: 10 })
            .unwrap();
    assert!(html.contains("&lt;script&gt;"));
    assert!(!html.contains("<script") && !html.contains("<img"), "a text is not escaped");
    assert!(!page_of(&[], "a").contains("<script"));
}
