//! The keys of `fedmill.toml` in docs/configuration.md, from the types of its sections.

use super::{compare, line, table};
use crate::harness::source_tree;
use fedmill::config::keys::{self, Key, Section};

fn row(key: &Key) -> String {
    let default = match &key.default {
        serde_json::Value::Null => "unset".to_owned(),
        default => format!("`{}`", keys::toml_text(default)),
    };
    line([
        format!("`{}`", key.name),
        key.kind.clone(),
        default,
        key.description.clone(),
        key.reader.clone(),
        key.origin.clone(),
    ])
}

fn text(section: &Section) -> String {
    let head = ["key", "value", "default", "meaning", "read by", "origin"];
    let table = table(&head, section.keys.iter().map(row));
    format!("\n## [{}]\n\n{}\n\n{table}", section.name, section.description)
}

#[test]
fn the_page_has_the_keys_of_the_types() {
    let Some(root) = source_tree() else { return };
    let sections = keys::sections();
    for key in sections.iter().flat_map(|section| &section.keys) {
        let texts = [&key.description, &key.kind, &key.reader, &key.origin];
        assert!(texts.iter().all(|text| !text.is_empty()), "{key:?}");
        assert!(
            key.default.is_null() != key.example.is_null(),
            "an example where there is no default: {key:?}"
        );
    }
    let text: String = sections.iter().map(text).collect();
    compare(&root.join("docs/configuration.md"), "keys", &format!("{text}\n"));
}
