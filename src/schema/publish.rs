//! The JSON Schema of plan files, made from the types that read them.

use super::Plan;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

/// The JSON Schema of a plan file, as text.
pub fn json_schema() -> String {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.into_root_schema_for::<Plan>().to_value();
    allow_extensions(&mut schema);
    if let Value::Object(root) = &mut schema {
        root.insert("title".to_owned(), json!("fedmill.plan/1"));
    }
    let text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    format!("{text}\n")
}

/// Allows keys with the prefix `x-` wherever unknown keys are refused.
fn allow_extensions(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            object.values_mut().for_each(allow_extensions);
            if object.get("additionalProperties") == Some(&json!(false)) {
                let patterns = object.entry("patternProperties").or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(patterns) = patterns {
                    patterns.insert("^x-".to_owned(), json!(true));
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(allow_extensions),
        _ => {}
    }
}
