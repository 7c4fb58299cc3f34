//! Serves `/openapi.json`, and `/docs`: the same document as one page without scripts and external resources.

use std::fmt::Write as _;
use std::sync::LazyLock;

use actix_web::HttpResponse;
use serde_json::Value;

use super::openapi::DOCUMENT;
use super::operation::{Document, Html, MediaResponse};

static TEXT: LazyLock<String> = LazyLock::new(|| DOCUMENT.to_string());
static PAGE: LazyLock<String> = LazyLock::new(|| render(&DOCUMENT));

/// `GET /openapi.json`
pub async fn document() -> MediaResponse<Document> {
    MediaResponse::new(TEXT.as_str())
}

/// `GET /docs`
pub async fn page() -> MediaResponse<Html> {
    let policy = "default-src 'none'; style-src 'unsafe-inline'";
    let response = HttpResponse::Ok()
        .insert_header(("Content-Security-Policy", policy))
        .body(PAGE.as_str());
    MediaResponse::build(response)
}

const STYLE: &str = include_str!("docs.css");
const FIRST_AID: &str = include_str!("docs_first_aid.html");

/// Renders the page: first aid, then all operations, then all types.
fn render(document: &Value) -> String {
    let mut page = String::new();
    let about = escape(document["info"]["description"].as_str().unwrap_or_default());
    let version = escape(document["info"]["version"].as_str().unwrap_or_default());
    push(
        &mut page,
        format_args!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\"><title>Greenroom API</title><style>{STYLE}</style></head>\
         <body><h1>Greenroom API <small>{version}</small></h1>{FIRST_AID}<p>{about}</p>\
         <p>For programs: <a href=\"/openapi.json\">/openapi.json</a></p><nav><ul>"
        ),
    );
    let operations = operations(document);
    for Entry {
        method,
        path,
        operation,
    } in &operations
    {
        let id = escape(operation["operationId"].as_str().unwrap_or_default());
        push(
            &mut page,
            format_args!(
                "<li><a href=\"#{id}\"><code>{method} {}</code></a> {}</li>",
                escape(path),
                escape(operation["summary"].as_str().unwrap_or_default())
            ),
        );
    }
    page.push_str("</ul></nav>");
    for entry in &operations {
        render_operation(&mut page, entry);
    }
    page.push_str("<h2>Types</h2>");
    for (name, schema) in fields(&document["components"]["schemas"]) {
        push(
            &mut page,
            format_args!(
                "<section id=\"type-{0}\"><h3>{0}</h3><p>{1}</p>",
                escape(name),
                escape(schema["description"].as_str().unwrap_or_default())
            ),
        );
        render_fields(&mut page, schema);
        page.push_str("</section>");
    }
    page.push_str("</body></html>\n");
    page
}

/// An operation of the document.
struct Entry<'a> {
    method: String,
    path: &'a str,
    operation: &'a Value,
}

fn operations(document: &Value) -> Vec<Entry<'_>> {
    let mut operations = Vec::new();
    for (path, methods) in fields(&document["paths"]) {
        for (method, operation) in fields(methods).filter(|(method, _)| *method != "head") {
            operations.push(Entry {
                method: method.to_uppercase(),
                path,
                operation,
            });
        }
    }
    operations
}

fn render_operation(page: &mut String, entry: &Entry<'_>) {
    let Entry {
        method,
        path,
        operation,
    } = entry;
    let id = escape(operation["operationId"].as_str().unwrap_or_default());
    push(
        page,
        format_args!(
            "<section id=\"{id}\"><h2><code>{method} {}</code></h2><p>{}</p>",
            escape(path),
            escape(operation["summary"].as_str().unwrap_or_default())
        ),
    );
    let parameters = operation["parameters"].as_array();
    if let Some(parameters) = parameters {
        page.push_str("<h4>Parameters</h4><table>");
        for parameter in parameters {
            push(
                page,
                format_args!(
                    "<tr><td><code>{}</code></td><td>{}, {}</td><td>{}</td></tr>",
                    escape(parameter["name"].as_str().unwrap_or_default()),
                    escape(parameter["in"].as_str().unwrap_or_default()),
                    kind(&parameter["schema"]),
                    escape(parameter["description"].as_str().unwrap_or_default())
                ),
            );
        }
        page.push_str("</table>");
    }
    let body = &operation["requestBody"]["content"]["application/json"];
    if body.is_object() {
        push(
            page,
            format_args!("<h4>Body</h4><p>{}</p>", kind(&body["schema"])),
        );
    }
    let example = &body["example"];
    let mut curl = format!("curl -s -X {method} 'http://127.0.0.1:7717{path}'");
    if example.is_object() {
        push(
            &mut curl,
            format_args!(" \\\n  -H 'content-type: application/json' \\\n  -d '{example}'"),
        );
    }
    push(
        page,
        format_args!("<pre>{}</pre><h4>Answers</h4><table>", escape(&curl)),
    );
    for (status, response) in fields(&operation["responses"]) {
        let shapes: Vec<String> = fields(&response["content"])
            .map(|(media, content)| match media {
                "application/json" => kind(&content["schema"]),
                media => escape(media),
            })
            .collect();
        push(
            page,
            format_args!(
                "<tr><td>{status}</td><td>{}</td><td>{}</td></tr>",
                shapes.join(" or "),
                escape(response["description"].as_str().unwrap_or_default())
            ),
        );
    }
    page.push_str("</table></section>");
}

fn render_fields(page: &mut String, schema: &Value) {
    let required: Vec<&str> = schema["required"]
        .as_array()
        .map(|names| names.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let mut rows = fields(&schema["properties"]).peekable();
    if rows.peek().is_none() {
        push(page, format_args!("<p>{}</p>", kind(schema)));
        return;
    }
    page.push_str("<table>");
    for (name, of) in rows {
        let suffix = if required.contains(&name) { "" } else { "?" };
        push(
            page,
            format_args!(
                "<tr><td><code>{}{suffix}</code></td><td>{}</td><td>{}</td></tr>",
                escape(name),
                kind(of),
                escape(of["description"].as_str().unwrap_or_default())
            ),
        );
    }
    page.push_str("</table>");
}

/// Returns a schema in a few words, with links to named types.
fn kind(schema: &Value) -> String {
    let reference = schema["$ref"].as_str();
    if let Some(name) = reference.and_then(|target| target.rsplit('/').next()) {
        return format!("<a href=\"#type-{0}\">{0}</a>", escape(name));
    }
    for several in ["anyOf", "oneOf", "allOf"] {
        if let Some(options) = schema[several].as_array() {
            let kinds: Vec<String> = options
                .iter()
                .filter(|option| option["type"] != "null")
                .map(kind)
                .collect();
            return kinds.join(" or ");
        }
    }
    if let Some(only) = schema["const"].as_str() {
        return format!("<code>{}</code>", escape(only));
    }
    // A query flag also accepts strings.
    if schema["type"][0] == "boolean" {
        return "boolean".to_owned();
    }
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<String> = values
            .iter()
            .filter_map(Value::as_str)
            .map(|value| format!("<code>{}</code>", escape(value)))
            .collect();
        return values.join(" or ");
    }
    let name = match &schema["type"] {
        Value::String(name) => name.clone(),
        Value::Array(names) => {
            let names: Vec<&str> = names
                .iter()
                .filter_map(Value::as_str)
                .filter(|name| *name != "null")
                .collect();
            names.join(" or ")
        }
        _ => return "anything".to_owned(),
    };
    match name.as_str() {
        "array" => format!("list of {}", kind(&schema["items"])),
        "string" if schema["format"] == "date-time" => "time".to_owned(),
        "object" if schema["additionalProperties"].is_object() => {
            format!("map to {}", kind(&schema["additionalProperties"]))
        }
        _ => escape(&name),
    }
}

fn fields(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let fields = value.as_object().into_iter().flatten();
    fields.map(|(name, value)| (name.as_str(), value))
}

fn push(page: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = page.write_fmt(text);
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
