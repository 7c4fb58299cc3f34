//! Generates the OpenAPI 3.1 document, once, from the operations and the types of their handlers, with the common rules
//! for access, bodies and queries.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use actix_web::http::Method;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::operation::{Operation, OperationError};
use super::operations::operations;
use super::schemas::{bound_numbers, never_null, never_null_in_answers};

/// The document.
pub static DOCUMENT: LazyLock<Value> = LazyLock::new(|| document(&operations()));

/// What every refusal looks like.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Refusal")]
pub struct ErrorResponse {
    /// The error.
    pub error: ErrorDetail,
}

/// An error, and what the caller can do.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Problem")]
pub struct ErrorDetail {
    /// The code for programs.
    pub code: String,
    /// The message for people; names the field if one is invalid.
    pub message: String,
    /// What the caller can do.
    pub hint: String,
}

const ABOUT: &str = "Background tasks for AI agents. Launch a task, look at it, wait for its result, steer it, cancel it. \
`{id}` is a task id, a unique beginning of one, or a session id. Names follow opencode's; times are RFC 3339 UTC with \
milliseconds; durations are milliseconds with the suffix Ms. Null is the same as leaving an optional field out. Requests \
with a foreign Host or Origin are refused always, and so is any without the token if one is configured. `/mcp` serves MCP \
(streamable HTTP): its messages are JSON-RPC and described by themselves, not here.";

fn document(operations: &[Operation]) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut schemas = settings.into_generator();
    let error_schema = schemas.subschema_for::<ErrorResponse>();
    let mut paths: Map<String, Value> = Map::new();
    for operation in operations {
        let object = operation_object(operation, &mut schemas, &error_schema);
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method.as_str().to_lowercase()] = object;
    }
    paths.insert(
        greenroom_bridge::endpoint::PATH.to_owned(),
        bridge(&error_schema),
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

fn operation_object(
    operation: &Operation,
    schemas: &mut SchemaGenerator,
    error_schema: &Schema,
) -> Value {
    let described = operation.describe(schemas);
    let mut responses: Map<String, Value> = Map::new();
    for described_response in &described.responses {
        let body = described_response.schema.as_ref().map_or_else(
            || match described_response.media {
                "application/json" => json!({ "type": "object" }),
                _ => json!({ "type": "string" }),
            },
            |schema| schema.as_value().clone(),
        );
        let status = described_response.status.as_u16().to_string();
        let reason = described_response
            .status
            .canonical_reason()
            .unwrap_or("answer");
        let response = responses
            .entry(status)
            .or_insert_with(|| json!({ "description": reason, "content": {} }));
        let media = described_response
            .media
            .split(';')
            .next()
            .unwrap_or(described_response.media);
        // HEAD has the responses of GET without a body.
        if operation.method == Method::HEAD {
            response["content"] = json!({});
        } else {
            response["content"][media] = json!({ "schema": body });
        }
    }
    let mut errors = operation.errors.clone();
    errors.push(OperationError::new(
        403,
        "foreign_host",
        "the Host is not this service's",
    ));
    errors.push(OperationError::new(
        403,
        "foreign_origin",
        "the Origin is not this service's",
    ));
    if !operation.public {
        errors.push(OperationError::new(
            401,
            "unauthorized",
            "the service has a token, and this is not it",
        ));
    }
    if described.body.is_some() {
        errors.extend([
            OperationError::new(400, "unreadable_json", "the body is no JSON object"),
            OperationError::new(400, "unreadable_body", "the body broke off"),
            OperationError::new(
                400,
                "unknown_field",
                "the body has a field that is not known",
            ),
            OperationError::new(408, "body_too_slow", "the body did not come in time"),
            OperationError::new(413, "body_too_large", "the body is larger than 1 MiB"),
            OperationError::new(422, "invalid_value", "a value is missing or not possible"),
        ]);
    }
    if described.query.is_some() || !operation.headers.is_empty() {
        errors.push(OperationError::new(
            400,
            "invalid_query",
            "a parameter is not possible",
        ));
    }
    if described.query.is_some() {
        errors.push(OperationError::new(
            400,
            "unknown_field",
            "a parameter is not known",
        ));
    }
    if operation.path.contains('{') {
        errors.push(OperationError::new(
            400,
            "invalid_path",
            "the path cannot be read",
        ));
    }
    if operation.method != Method::HEAD {
        add_errors(&mut responses, &errors, error_schema);
    } else {
        responses.insert("403".to_owned(), json!({ "description": "refused" }));
    }
    let mut object = json!({
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": [tag(operation.path)],
        "responses": responses,
    });
    let parameters = parameters(operation, described.query.as_ref());
    if !parameters.is_empty() {
        object["parameters"] = parameters.into();
    }
    if let Some(body) = described.body {
        let mut content = json!({ "schema": body });
        if let Some(example) = &operation.example {
            content["example"] = example.clone();
        }
        object["requestBody"] =
            json!({ "required": false, "content": { "application/json": content } });
    }
    if operation.public {
        object["security"] = json!([]);
    }
    object
}

/// Adds the errors, one response per status with all its codes.
fn add_errors(
    responses: &mut Map<String, Value>,
    errors: &[OperationError],
    error_schema: &Schema,
) {
    let statuses: BTreeSet<u16> = errors.iter().map(|error| error.status).collect();
    for status in statuses {
        let of_status: Vec<_> = errors
            .iter()
            .filter(|error| error.status == status)
            .collect();
        let lines: Vec<String> = of_status
            .iter()
            .map(|error| format!("`{}`: {}", error.code, error.meaning))
            .collect();
        let schema = match responses.get(&status.to_string()) {
            // A status for both a result and an error.
            Some(answer) => {
                json!({ "anyOf": [answer["content"]["application/json"]["schema"], error_schema] })
            }
            None => json!(error_schema),
        };
        let mut content = json!({ "schema": schema });
        if let Some(error) = of_status.first() {
            content["example"] =
                json!({ "error": { "code": error.code, "message": error.meaning, "hint": "…" } });
        }
        responses.insert(
            status.to_string(),
            json!({ "description": lines.join("; "), "content": { "application/json": content } }),
        );
    }
}

fn parameters(operation: &Operation, query: Option<&Schema>) -> Vec<Value> {
    let mut parameters = Vec::new();
    let names = operation.path.split('/').filter_map(|part| {
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
    for (name, about) in &operation.headers {
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

/// Returns the operation of the bridge, which another crate mounts.
fn bridge(error_schema: &Schema) -> Value {
    let mut responses = Map::new();
    responses.insert(
        "101".to_owned(),
        json!({ "description": "a websocket; its frames stand in docs/bridge.md" }),
    );
    let errors = [
        OperationError::new(400, "not_a_websocket", "the request asks for no websocket"),
        OperationError::new(401, "unauthorized", "the token is not this service's"),
        OperationError::new(
            403,
            "foreign_host",
            "the Host or Origin is not this service's",
        ),
        OperationError::new(403, "foreign_user", "the process belongs to another user"),
    ];
    add_errors(&mut responses, &errors, error_schema);
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
    fn references_resolve_and_operation_ids_are_unique() {
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
    fn every_field_and_parameter_has_a_description() {
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
