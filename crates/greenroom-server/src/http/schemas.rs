//! Adjusts generated schemas.

use std::collections::BTreeSet;

use serde_json::Value;

/// Removes null from the schemas that only responses use. Request schemas accept null for an absent value; responses
/// never contain it.
pub fn never_null_in_answers(document: &mut Value) {
    let mut read = BTreeSet::new();
    for path in document["paths"].as_object().into_iter().flatten() {
        for operation in path.1.as_object().into_iter().flatten() {
            collect_refs(&operation.1["requestBody"], &mut read);
        }
    }
    let schemas = document["components"]["schemas"].clone();
    loop {
        let before = read.len();
        for name in read.clone() {
            collect_refs(&schemas[&name], &mut read);
        }
        if read.len() == before {
            break;
        }
    }
    let schemas = document["components"]["schemas"].as_object_mut();
    for (_, schema) in schemas
        .into_iter()
        .flatten()
        .filter(|(name, _)| !read.contains(*name))
    {
        never_null(schema);
    }
}

/// Adds the maximum of the integer type to a number.
pub fn bound_numbers(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            let largest = match fields.get("format").and_then(Value::as_str) {
                Some("uint32") => Some(u64::from(u32::MAX)),
                Some("uint64" | "uint") => Some(u64::MAX),
                _ => None,
            };
            if let Some(largest) = largest {
                fields.entry("maximum").or_insert_with(|| largest.into());
            }
            fields.values_mut().for_each(bound_numbers);
        }
        Value::Array(values) => values.iter_mut().for_each(bound_numbers),
        _ => {}
    }
}

pub fn collect_refs(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            let name = fields
                .get("$ref")
                .and_then(Value::as_str)
                .and_then(|target| target.strip_prefix("#/components/schemas/"));
            found.extend(name.map(str::to_owned));
            fields.values().for_each(|value| collect_refs(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| collect_refs(value, found)),
        _ => {}
    }
}

/// Removes null from the types of a schema and its subschemas.
pub fn never_null(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.get("default") == Some(&Value::Null) {
                fields.remove("default");
            }
            if let Some(Value::Array(types)) = fields.get_mut("type") {
                types.retain(|kind| kind != "null");
                if types.len() == 1 {
                    let only = types.remove(0);
                    fields.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(options)) = fields.get_mut("anyOf") {
                options.retain(|option| option["type"] != "null");
            }
            fields.values_mut().for_each(never_null);
        }
        Value::Array(values) => values.iter_mut().for_each(never_null),
        _ => {}
    }
}
