//! Work for each of many files or values, and one file of all that it printed.

use super::parts::{head, input, shell};
use super::settings::{Given, Setting, TemplateError};
use crate::schema::reduce::Reducer;
use crate::settings::nearest::nearest;
use serde_json::{Value, json};

/// What the plan does.
pub const ABOUT: &str = "Run a command for each file or value, and make one file of what the commands print.";

/// Its settings.
pub const SETTINGS: &[Setting] = &[
    Setting::with_default("id", "map-reduce", "the name of the plan"),
    Setting::optional("files", "the files: a folder, or a pattern such as in/*.txt"),
    Setting::optional("values", "the values, separated by semicolons; either these or files"),
    Setting::required("map", "the command that prints a part; its argument is the file or value"),
    Setting::with_default(
        "reduce",
        "concat",
        "concat, lines, json-merge, or the command that prints the result; its arguments are the parts",
    ),
    Setting::with_default("timeout", "1h", "how long a stage may take"),
];

/// The plan.
///
/// # Errors
///
/// When a setting is wrong.
pub fn build(given: &Given) -> Result<Value, TemplateError> {
    let mut plan = head(given, "run a command for each part, and join what the commands print".to_owned())?;
    plan["agents"] = json!({"map": shell(given.text("map")?, "map")});
    let for_each = match (given.has("files"), given.has("values")) {
        (true, false) => {
            plan["inputs"] = json!([input("files", given.text("files")?)]);
            json!({"input": "files"})
        }
        (false, true) => json!({"values": values(given)?}),
        (_, both) => {
            let found = if both { "files and values" } else { "neither" }.to_owned();
            return Err(TemplateError::Value { key: "files".to_owned(), found, expected: "files or values" });
        }
    };
    let map = json!({"id": "map", "agent": "map", "for_each": for_each, "argv": ["{item}"],
        "out": [{"name": "part", "path": "-"}]});
    let by = given.text("reduce")?;
    check_word(by)?;
    let mut reduce = json!({"id": "reduce", "needs": ["map"], "out": [{"name": "result", "path": "result"}]});
    if Reducer::ALL.iter().any(|reducer| reducer.word() == by) {
        reduce["kind"] = json!("reduce");
        reduce["reduce"] = json!({"by": by, "files": ["{map.part}"]});
    } else {
        plan["agents"]["reduce"] = shell(by, "reduce");
        reduce["agent"] = json!("reduce");
        reduce["argv"] = json!(["{map.part}"]);
        reduce["out"][0]["path"] = json!("-");
    }
    plan["stages"] = json!([map, reduce]);
    Ok(plan)
}

fn values(given: &Given) -> Result<Vec<&str>, TemplateError> {
    let text = given.text("values")?;
    let values: Vec<&str> = text.split(';').map(str::trim).filter(|value| !value.is_empty()).collect();
    if values.is_empty() {
        let (key, found) = ("values".to_owned(), text.to_owned());
        return Err(TemplateError::Value { key, found, expected: "one value or more" });
    }
    Ok(values)
}

/// Refuses a word that is almost that of a reducer: a command of this name can be written with its path.
fn check_word(by: &str) -> Result<(), TemplateError> {
    if !by.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-') {
        return Ok(());
    }
    let words: Vec<&str> = Reducer::ALL.iter().map(|reducer| reducer.word()).collect();
    match nearest(by, words.iter().copied()).filter(|_| !words.contains(&by)) {
        Some(word) => Err(TemplateError::Plan(format!(
            "--set reduce: found `{by}`, expected {} or a command; the nearest is `{word}`",
            words.join(", ")
        ))),
        None => Ok(()),
    }
}
