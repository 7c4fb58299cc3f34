//! One operation of the API: method, path, handler, and the parameters, body and responses that the handler's types
//! describe. The router and the OpenAPI document come from the same list ([`super::operations`]), so they cannot
//! differ.

use actix_web::http::{Method, StatusCode};
use actix_web::web::{self, Data, Path};
use actix_web::{FromRequest, Handler, HttpRequest, HttpResponse, Responder, Route};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde_json::Value;

use super::app::Api;
use super::error::ApiError;
use super::input::{Body, Params};

/// An operation of the API.
pub struct Operation {
    pub(super) method: Method,
    pub(super) path: &'static str,
    /// The operation id.
    pub(super) name: &'static str,
    /// The summary, in one line.
    pub(super) summary: &'static str,
    pub(super) headers: Vec<(&'static str, &'static str)>,
    /// The errors that only this operation has.
    pub(super) errors: Vec<OperationError>,
    pub(super) example: Option<Value>,
    /// True if it needs no token.
    pub(super) public: bool,
    route: Box<dyn Fn() -> Route>,
    describe: fn(&mut SchemaGenerator) -> Description,
}

/// An error that an operation may return.
#[derive(Debug, Clone, Copy)]
pub struct OperationError {
    pub(super) status: u16,
    pub(super) code: &'static str,
    pub(super) meaning: &'static str,
}

impl OperationError {
    pub(super) const fn new(status: u16, code: &'static str, meaning: &'static str) -> Self {
        Self {
            status,
            code,
            meaning,
        }
    }
}

/// The description of a handler by its types.
#[derive(Debug, Default)]
pub struct Description {
    pub(super) query: Option<Schema>,
    pub(super) body: Option<Schema>,
    pub(super) responses: Vec<ResponseDescription>,
}

/// One response of a handler.
#[derive(Debug)]
pub struct ResponseDescription {
    pub(super) status: StatusCode,
    pub(super) media: &'static str,
    pub(super) schema: Option<Schema>,
}

impl Operation {
    /// Creates an operation with its handler.
    pub fn new<F, Args>(
        method: Method,
        path: &'static str,
        name: &'static str,
        summary: &'static str,
        handler: F,
    ) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + DescribesInput + 'static,
        F::Output: Responder + DescribesOutput + 'static,
    {
        let route_method = method.clone();
        Self {
            method,
            path,
            name,
            summary,
            headers: Vec::new(),
            errors: Vec::new(),
            example: None,
            public: false,
            route: Box::new(move || web::method(route_method.clone()).to(handler.clone())),
            describe: describe::<Args, F::Output>,
        }
    }

    /// Adds a request header.
    pub fn header(mut self, name: &'static str, summary: &'static str) -> Self {
        self.headers.push((name, summary));
        self
    }

    /// Adds an error.
    pub fn error(mut self, status: u16, code: &'static str, meaning: &'static str) -> Self {
        self.errors.push(OperationError::new(status, code, meaning));
        self
    }

    /// Adds an example of the body.
    pub fn example(mut self, body: Value) -> Self {
        self.example = Some(body);
        self
    }

    /// Marks the operation as public: it needs no token.
    pub fn public(mut self) -> Self {
        self.public = true;
        self
    }

    pub(super) fn route(&self) -> Route {
        (self.route)()
    }

    pub(super) fn describe(&self, schemas: &mut SchemaGenerator) -> Description {
        (self.describe)(schemas)
    }
}

fn describe<Args: DescribesInput, Answer: DescribesOutput>(
    schemas: &mut SchemaGenerator,
) -> Description {
    let mut description = Description::default();
    Args::describe_input(&mut description, schemas);
    Answer::describe_output(&mut description, schemas);
    description
}

/// Describes the input of a handler's argument.
pub trait DescribesInput {
    /// Adds the input to the description. Empty for arguments that are not part of the contract.
    fn describe_input(_: &mut Description, _: &mut SchemaGenerator) {}
}

impl DescribesInput for Data<Api> {}
impl DescribesInput for HttpRequest {}
impl DescribesInput for Path<String> {}

impl<T: JsonSchema> DescribesInput for Params<T> {
    fn describe_input(description: &mut Description, schemas: &mut SchemaGenerator) {
        description.query = Some(T::json_schema(schemas));
    }
}

impl<T: JsonSchema> DescribesInput for Body<T> {
    fn describe_input(description: &mut Description, schemas: &mut SchemaGenerator) {
        description.body = Some(schemas.subschema_for::<T>());
    }
}

macro_rules! impl_describes_input {
    ($($arg:ident)*) => {
        impl<$($arg: DescribesInput),*> DescribesInput for ($($arg,)*) {
            fn describe_input(description: &mut Description, schemas: &mut SchemaGenerator) {
                let _ = (&description, &schemas);
                $($arg::describe_input(description, schemas);)*
            }
        }
    };
}
impl_describes_input!();
impl_describes_input!(A);
impl_describes_input!(A B);
impl_describes_input!(A B C);
impl_describes_input!(A B C D);

/// Describes the response of a handler.
pub trait DescribesOutput {
    /// Adds the response to the description.
    fn describe_output(description: &mut Description, schemas: &mut SchemaGenerator);
}

impl<A: DescribesOutput> DescribesOutput for Result<A, ApiError> {
    fn describe_output(description: &mut Description, schemas: &mut SchemaGenerator) {
        A::describe_output(description, schemas);
    }
}

/// A JSON response with a status.
#[derive(Debug)]
pub struct Json<T, const STATUS: u16 = 200>(pub T);

impl<T: Serialize, const STATUS: u16> Responder for Json<T, STATUS> {
    type Body = actix_web::body::BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse {
        HttpResponse::build(status::<STATUS>()).json(self.0)
    }
}

impl<T: JsonSchema, const STATUS: u16> DescribesOutput for Json<T, STATUS> {
    fn describe_output(description: &mut Description, schemas: &mut SchemaGenerator) {
        description.responses.push(ResponseDescription {
            status: status::<STATUS>(),
            media: "application/json",
            schema: Some(schemas.subschema_for::<T>()),
        });
    }
}

/// One of two responses.
#[derive(Debug)]
pub enum Either<A, B> {
    /// The primary response.
    Primary(A),
    /// The other response.
    Secondary(B),
}

impl<A, B> Responder for Either<A, B>
where
    A: Responder<Body = actix_web::body::BoxBody>,
    B: Responder<Body = actix_web::body::BoxBody>,
{
    type Body = actix_web::body::BoxBody;

    fn respond_to(self, request: &HttpRequest) -> HttpResponse {
        match self {
            Self::Primary(answer) => answer.respond_to(request),
            Self::Secondary(answer) => answer.respond_to(request),
        }
    }
}

impl<A: DescribesOutput, B: DescribesOutput> DescribesOutput for Either<A, B> {
    fn describe_output(description: &mut Description, schemas: &mut SchemaGenerator) {
        A::describe_output(description, schemas);
        B::describe_output(description, schemas);
    }
}

/// The media type of a response that is not JSON.
pub trait Media {
    /// The value of the header.
    const TYPE: &'static str;
}

/// Declares the media types of responses.
macro_rules! media {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name;
        impl Media for $name {
            const TYPE: &'static str = $text;
        }
    )*};
}
media! {
    /// Server-sent events.
    EventStream = "text/event-stream";
    /// Markdown.
    Markdown = "text/markdown; charset=utf-8";
    /// An HTML page.
    Html = "text/html; charset=utf-8";
    /// Metrics.
    OpenMetrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    /// JSON without a schema.
    Document = "application/json";
}

/// A response of a media type, built by the handler.
#[derive(Debug)]
pub struct MediaResponse<M> {
    response: HttpResponse,
    media: std::marker::PhantomData<M>,
}

impl<M: Media> MediaResponse<M> {
    /// Creates a 200 response with a body.
    pub fn new(body: impl actix_web::body::MessageBody + 'static) -> Self {
        Self::build(HttpResponse::Ok().content_type(M::TYPE).body(body))
    }

    /// Wraps a response and sets its media type.
    pub fn build(mut response: HttpResponse) -> Self {
        response.headers_mut().insert(
            actix_web::http::header::CONTENT_TYPE,
            actix_web::http::header::HeaderValue::from_static(M::TYPE),
        );
        Self {
            response,
            media: std::marker::PhantomData,
        }
    }
}

impl<M> Responder for MediaResponse<M> {
    type Body = actix_web::body::BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse {
        self.response
    }
}

impl<M: Media> DescribesOutput for MediaResponse<M> {
    fn describe_output(description: &mut Description, _: &mut SchemaGenerator) {
        description.responses.push(ResponseDescription {
            status: StatusCode::OK,
            media: M::TYPE,
            schema: None,
        });
    }
}

fn status<const STATUS: u16>() -> StatusCode {
    StatusCode::from_u16(STATUS).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

impl std::fmt::Debug for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call")
            .field("method", &self.method)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}
