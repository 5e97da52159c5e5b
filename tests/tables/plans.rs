//! The tables of docs/plans.md: fields of a plan, functions of conditions, rules of lint.

use super::{check, compare, line, table};
use crate::harness::source_tree;
use fedmill::language::functions::FUNCTIONS;
use fedmill::measures::{METRICS, Origin};
use fedmill::review::lint::rules::RULES;
use fedmill::schema::publish::json_schema;
use serde_json::Value;

/// The text of a description in one line.
fn about(schema: &Value) -> String {
    let text = schema["description"].as_str().unwrap_or_default();
    text.split("See [").next().unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What a value may be.
fn kind(schema: &Value, all: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.rsplit('/').next().unwrap();
        let of = &all["$defs"][name];
        let choices = of["oneOf"].as_array().filter(|list| list.iter().all(|one| one["const"].is_string()));
        return match choices {
            Some(list) => list
                .iter()
                .map(|one| format!("`{}`", one["const"].as_str().unwrap()))
                .collect::<Vec<_>>()
                .join(", "),
            None if name == "Scalar" => "true, false, a number or a text".to_owned(),
            None => format!("[{name}](#{})", name.to_lowercase()),
        };
    }
    if let Some(options) = schema["anyOf"].as_array() {
        let of: Vec<String> =
            options.iter().filter(|one| one["type"] != "null").map(|one| kind(one, all)).collect();
        return of.join(" or ");
    }
    if let Some(word) = schema["const"].as_str() {
        return format!("`{word}`");
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => {
            several.iter().filter_map(Value::as_str).filter(|one| *one != "null").collect()
        }
        _ => return "any JSON".to_owned(),
    };
    match types.as_slice() {
        ["array"] => format!("list: {}", kind(&schema["items"], all)),
        ["object"] => {
            let named = schema["patternProperties"].as_object();
            let values = named.and_then(|named| named.iter().find(|(pattern, _)| *pattern != "^x-"));
            let of = values.map_or_else(|| schema["additionalProperties"].clone(), |(_, of)| of.clone());
            format!("by name: {}", kind(&of, all))
        }
        ["string"] if schema["description"].as_str().is_some_and(|text| text.starts_with("A duration")) => {
            "duration".to_owned()
        }
        ["string"] => "text".to_owned(),
        ["integer"] => "whole number".to_owned(),
        ["boolean"] => "true or false".to_owned(),
        [one] => (*one).to_owned(),
        _ => types.join(" or "),
    }
}

/// The table of the fields of an object.
fn fields(object: &Value, all: &Value) -> String {
    let required = object["required"].as_array().cloned().unwrap_or_default();
    let rows = object["properties"]
        .as_object()
        .unwrap()
        .iter()
        .filter(|(name, _)| *name != "kind" || object["oneOf"].is_null());
    let row = |(name, schema): (&String, &Value)| {
        let kind = kind(schema, all);
        let chooses = kind == "true or false" || kind.starts_with('`') && kind.contains("`, `");
        let default = match &schema["default"] {
            _ if required.contains(&Value::from(name.clone())) => "required".to_owned(),
            Value::Null if chooses && name != "kind" && !about(schema).contains("By default") => {
                panic!("`{name}` has one of {kind}, and neither a default nor a sentence about it")
            }
            Value::Null => String::new(),
            Value::Object(_) => "see there".to_owned(),
            default => format!("`{default}`"),
        };
        line([format!("`{name}`"), kind, default, about(schema)])
    };
    table(&["field", "value", "default", "meaning"], rows.map(row))
}

fn text() -> String {
    let all: Value = serde_json::from_str(&json_schema()).unwrap();
    let mut text = format!("\n### Plan\n\n{}\n\n{}", about(&all), fields(&all, &all));
    for (name, object) in all["$defs"].as_object().unwrap() {
        let section = |title: &str, object: &Value| {
            format!("\n### {title}\n\n{}\n\n{}", about(object), fields(object, &all))
        };
        if !object["properties"].is_null() {
            text += &section(name, object);
        } else if name == "Agent" {
            text += &format!("\n### Agent\n\n{} One of three kinds.\n", about(object));
            for kind in object["oneOf"].as_array().unwrap() {
                text += &section(
                    &format!("Agent of kind {}", kind["properties"]["kind"]["const"].as_str().unwrap()),
                    kind,
                );
            }
        } else if object["oneOf"]
            .as_array()
            .is_some_and(|list| list.iter().all(|one| one["type"] == "object"))
        {
            let rows = object["oneOf"].as_array().unwrap().iter().map(|one| {
                let (name, schema) = one["properties"].as_object().unwrap().iter().next().unwrap();
                line([format!("`{name}`"), kind(schema, &all), about(one)])
            });
            let rows = table(&["one of", "value", "meaning"], rows);
            text += &format!("\n### {name}\n\n{}\n\n{rows}", about(object));
        } else if object["anyOf"].is_array() && name != "Scalar" {
            let rows =
                object["anyOf"].as_array().unwrap().iter().map(|one| line([kind(one, &all), about(one)]));
            text += &format!("\n### {name}\n\n{}\n\n{}", about(object), table(&["value", "meaning"], rows));
        }
    }
    text + "\n"
}

#[test]
fn the_page_has_the_fields_of_the_types() {
    let Some(root) = source_tree() else { return };
    compare(&root.join("docs/plans.md"), "fields", &text());
}

#[test]
fn the_page_has_the_functions_of_conditions() {
    let Some(root) = source_tree() else { return };
    let rows = FUNCTIONS.iter().map(|function| {
        line([format!("`{}`", function.name), function.takes.to_owned(), function.about.to_owned()])
    });
    check(&root.join("docs/plans.md"), "functions", &["function", "takes", "returns"], rows);
}

#[test]
fn the_page_has_the_rules_of_lint() {
    let Some(root) = source_tree() else { return };
    let rows = RULES
        .iter()
        .map(|rule| line([format!("`{}`", rule.name), rule.level.to_string(), rule.about.to_owned()]));
    check(&root.join("docs/plans.md"), "lint", &["rule", "level", "what it asks for"], rows);
}

#[test]
fn the_page_has_the_metrics_and_the_other_words_for_them() {
    let Some(root) = source_tree() else { return };
    let rows = METRICS.iter().map(|metric| {
        let name = match metric.from {
            Origin::Series => format!("`SERIES_{}`", metric.name),
            _ => format!("`{}`", metric.name),
        };
        let called = metric.called.to_owned();
        line([name, metric.from.word().to_owned(), metric.formula.to_owned(), called])
    });
    check(&root.join("docs/metrics.md"), "metrics", &["metric", "from", "formula", "also called"], rows);
}

#[test]
fn data_has_the_schema_of_plans() {
    let Some(root) = source_tree() else { return };
    let path = root.join("data/fedmill.plan.schema.json");
    if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        std::fs::write(&path, json_schema()).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap();
    assert!(
        found == json_schema(),
        "{} is not what `fedmill plan schema` prints: `just bless`",
        path.display()
    );
}
