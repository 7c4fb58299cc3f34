//! The OpenAPI 3.1 document: made of the calls and the types of their handlers, plus what holds for every call (who may
//! call, how bodies and queries are read). Made once.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use actix_web::http::Method;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::call::Call;
use super::calls::calls;
use super::schemas::{bound_numbers, never_null, never_null_in_answers};

/// The document.
pub static DOCUMENT: LazyLock<Value> = LazyLock::new(|| document(&calls()));

/// What every refusal looks like.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Refusal {
    /// What is wrong.
    pub error: Problem,
}

/// What is wrong and what to do.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Problem {
    /// What programs look at.
    pub code: String,
    /// What is wrong, for people; names the field if one is meant.
    pub message: String,
    /// What the caller can do.
    pub hint: String,
}

const ABOUT: &str = "Background tasks for AI agents. Launch a task, look at it, wait for its result, steer it, cancel it. \
`{id}` is a task id, a unique beginning of one, or a session id. Names follow opencode's; times are RFC 3339 UTC with \
milliseconds; durations are milliseconds with the suffix Ms. Null is the same as leaving an optional field out. Requests \
with a foreign Host or Origin are refused always, and so is any without the token if one is configured. `/mcp` speaks MCP \
(streamable HTTP): its messages are JSON-RPC and described by themselves, not here.";

fn document(calls: &[Call]) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut schemas = settings.into_generator();
    let refusal = schemas.subschema_for::<Refusal>();
    let mut paths: Map<String, Value> = Map::new();
    for call in calls {
        let operation = operation(call, &mut schemas, &refusal);
        let path = paths.entry(call.path).or_insert_with(|| json!({}));
        path[call.method.as_str().to_lowercase()] = operation;
    }
    paths.insert(
        greenroom_bridge::endpoint::PATH.to_owned(),
        bridge(&refusal),
    );
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Greenroom",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{}, {"token": []}],
        "paths": paths,
        "components": {
            "schemas": schemas.take_definitions(true),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer",
                "description": "Required if the service has a token"}},
        },
    });
    never_null_in_answers(&mut document);
    bound_numbers(&mut document);
    document
}

fn operation(call: &Call, schemas: &mut SchemaGenerator, refusal: &Schema) -> Value {
    let described = call.describe(schemas);
    let mut responses: Map<String, Value> = Map::new();
    for given in &described.answers {
        let body = given.schema.as_ref().map_or_else(
            || match given.media {
                "application/json" => json!({ "type": "object" }),
                _ => json!({ "type": "string" }),
            },
            |schema| schema.as_value().clone(),
        );
        let status = given.status.as_u16().to_string();
        let reason = given.status.canonical_reason().unwrap_or("answer");
        let response = responses
            .entry(status)
            .or_insert_with(|| json!({ "description": reason, "content": {} }));
        let media = given.media.split(';').next().unwrap_or(given.media);
        // A call of HEAD answers like GET, but for the body.
        if call.method == Method::HEAD {
            response["content"] = json!({});
        } else {
            response["content"][media] = json!({ "schema": body });
        }
    }
    let mut refusals = call.refusals.clone();
    refusals.push((403, "foreign_host", "the Host is not this service's"));
    refusals.push((403, "foreign_origin", "the Origin is not this service's"));
    if !call.open {
        refusals.push((
            401,
            "unauthorized",
            "the service has a token, and this is not it",
        ));
    }
    if described.body.is_some() {
        refusals.extend([
            (400, "unreadable_json", "the body is no JSON object"),
            (400, "unreadable_body", "the body broke off"),
            (
                400,
                "unknown_field",
                "the body has a field that is not known",
            ),
            (408, "body_too_slow", "the body did not come in time"),
            (413, "body_too_large", "the body is larger than 1 MiB"),
            (422, "invalid_value", "a value is missing or not possible"),
        ]);
    }
    if described.query.is_some() || !call.headers.is_empty() {
        refusals.push((400, "invalid_query", "a parameter is not possible"));
    }
    if described.query.is_some() {
        refusals.push((400, "unknown_field", "a parameter is not known"));
    }
    if call.path.contains('{') {
        refusals.push((400, "invalid_path", "the path cannot be read"));
    }
    if call.method != Method::HEAD {
        add_refusals(&mut responses, &refusals, refusal);
    } else {
        responses.insert("403".to_owned(), json!({ "description": "refused" }));
    }
    let mut operation = json!({
        "operationId": call.name,
        "summary": call.about,
        "tags": [tag(call.path)],
        "responses": responses,
    });
    let parameters = parameters(call, described.query.as_ref());
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some(body) = described.body {
        let mut content = json!({ "schema": body });
        if let Some(example) = &call.example {
            content["example"] = example.clone();
        }
        operation["requestBody"] =
            json!({ "required": false, "content": { "application/json": content } });
    }
    if call.open {
        operation["security"] = json!([]);
    }
    operation
}

/// Refusals of one status are one response that names each code.
fn add_refusals(
    responses: &mut Map<String, Value>,
    refusals: &[(u16, &str, &str)],
    refusal: &Schema,
) {
    let statuses: BTreeSet<u16> = refusals.iter().map(|(status, ..)| *status).collect();
    for status in statuses {
        let of_status: Vec<_> = refusals.iter().filter(|(of, ..)| *of == status).collect();
        let lines: Vec<String> = of_status
            .iter()
            .map(|(_, code, when)| format!("`{code}`: {when}"))
            .collect();
        let schema = match responses.get(&status.to_string()) {
            // A status that is an answer and a refusal.
            Some(answer) => {
                json!({ "anyOf": [answer["content"]["application/json"]["schema"], refusal] })
            }
            None => json!(refusal),
        };
        let mut content = json!({ "schema": schema });
        if let Some((_, code, when)) = of_status.first() {
            content["example"] = json!({ "error": { "code": code, "message": when, "hint": "…" } });
        }
        responses.insert(
            status.to_string(),
            json!({ "description": lines.join("; "), "content": { "application/json": content } }),
        );
    }
}

fn parameters(call: &Call, query: Option<&Schema>) -> Vec<Value> {
    let mut parameters = Vec::new();
    let names = call.path.split('/').filter_map(|part| {
        part.strip_prefix('{')
            .and_then(|part| part.strip_suffix('}'))
    });
    for name in names {
        let about = match name {
            "id" => "A task id, a unique beginning of one, or a session id",
            "askID" => "The id of a request",
            "tool" => "The name of a tool",
            _ => "A session of the agent server",
        };
        parameters.push(json!({ "name": name, "in": "path", "required": true,
            "description": about, "schema": { "type": "string" } }));
    }
    for (name, about) in &call.headers {
        parameters.push(json!({ "name": name, "in": "header", "required": false,
            "description": about, "schema": { "type": "string" } }));
    }
    let fields = query
        .and_then(|query| query.get("properties"))
        .and_then(Value::as_object);
    for (name, schema) in fields.into_iter().flatten() {
        let mut schema = schema.clone();
        never_null(&mut schema);
        let about = schema
            .as_object_mut()
            .and_then(|schema| schema.remove("description"));
        parameters.push(json!({ "name": name, "in": "query", "required": false,
            "description": about.unwrap_or_else(|| json!("")), "schema": schema }));
    }
    parameters
}

fn tag(path: &str) -> &'static str {
    let name = path.strip_prefix("/v1/").unwrap_or_default();
    match name.split('/').next().unwrap_or_default() {
        "tasks" => "tasks",
        "sessions" => "sessions",
        "asks" => "asks",
        "tools" => "tools",
        "limits" => "limits",
        "events" | "session-events" | "bridge" => "events",
        _ => "service",
    }
}

/// The bridge is mounted by its own crate.
fn bridge(refusal: &Schema) -> Value {
    let mut responses = Map::new();
    responses.insert(
        "101".to_owned(),
        json!({ "description": "a websocket; its frames stand in docs/bridge.md" }),
    );
    let refusals = [
        (400, "not_a_websocket", "the request asks for no websocket"),
        (401, "unauthorized", "the token is not this service's"),
        (
            403,
            "foreign_host",
            "the Host or Origin is not this service's",
        ),
        (503, "too_many_bridges", "too many sockets are open"),
    ];
    add_refusals(&mut responses, &refusals, refusal);
    json!({ "get": {
        "operationId": "bridge",
        "summary": "The websocket between the service and opencode's plugin: events, tools, requests",
        "tags": [tag(greenroom_bridge::endpoint::PATH)],
        "responses": responses,
    }})
}

#[cfg(test)]
mod tests {
    use super::super::schemas::collect_refs;
    use super::*;

    #[test]
    fn every_reference_has_its_schema_and_every_name_is_used_once() {
        let document = &*DOCUMENT;
        let mut named = BTreeSet::new();
        collect_refs(document, &mut named);
        assert!(
            named.contains("Task") && named.contains("Launch"),
            "{named:?}"
        );
        for name in &named {
            assert!(
                document["components"]["schemas"][name].is_object(),
                "{name}"
            );
        }
        let mut ids = BTreeSet::new();
        for (path, operations) in document["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                let id = operation["operationId"].as_str().unwrap();
                assert!(ids.insert(id), "{method} {path}: {id} is used twice");
            }
        }
    }

    #[test]
    fn every_field_and_parameter_says_what_it_is() {
        let document = &*DOCUMENT;
        let mut bare = Vec::new();
        for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
            for (field, of) in schema["properties"].as_object().into_iter().flatten() {
                if of["description"].as_str().is_none() && of.get("$ref").is_none() {
                    bare.push(format!("{name}.{field}"));
                }
            }
        }
        for (path, operations) in document["paths"].as_object().unwrap() {
            for (_, operation) in operations.as_object().unwrap() {
                for parameter in operation["parameters"].as_array().into_iter().flatten() {
                    if parameter["description"].as_str().is_none_or(str::is_empty) {
                        bare.push(format!("{path}: {}", parameter["name"]));
                    }
                }
            }
        }
        assert!(bare.is_empty(), "{bare:#?}");
    }
}
