//! One call of the API: its method and path, the handler that answers it, and what the handler's own types say of its
//! parameters, body and answers. The router and the OpenAPI document are both made of the same calls ([`super::calls`]),
//! so neither can have one that the other has not.

use actix_web::http::{Method, StatusCode};
use actix_web::web::{self, Data, Path};
use actix_web::{FromRequest, Handler, HttpRequest, HttpResponse, Responder, Route};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde_json::Value;

use super::app::Api;
use super::error::ApiError;
use super::input::{Body, Params};

/// A call of the API.
pub struct Call {
    pub(super) method: Method,
    pub(super) path: &'static str,
    /// What programs call it.
    pub(super) name: &'static str,
    /// What it does, in one line.
    pub(super) about: &'static str,
    pub(super) headers: Vec<(&'static str, &'static str)>,
    /// Status, code and meaning of refusals of its own.
    pub(super) refusals: Vec<(u16, &'static str, &'static str)>,
    pub(super) example: Option<Value>,
    /// True if it needs no token.
    pub(super) open: bool,
    route: Box<dyn Fn() -> Route>,
    describe: fn(&mut SchemaGenerator) -> Description,
}

/// What the types of a handler say.
#[derive(Debug, Default)]
pub struct Description {
    pub(super) query: Option<Schema>,
    pub(super) body: Option<Schema>,
    pub(super) answers: Vec<Given>,
}

/// One way in which a handler answers.
#[derive(Debug)]
pub struct Given {
    pub(super) status: StatusCode,
    pub(super) media: &'static str,
    pub(super) schema: Option<Schema>,
}

impl Call {
    /// A call answered by `handler`.
    pub fn new<F, Args>(
        method: Method,
        path: &'static str,
        name: &'static str,
        about: &'static str,
        handler: F,
    ) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + Takes + 'static,
        F::Output: Responder + Gives + 'static,
    {
        let answering = method.clone();
        Self {
            method,
            path,
            name,
            about,
            headers: Vec::new(),
            refusals: Vec::new(),
            example: None,
            open: false,
            route: Box::new(move || web::method(answering.clone()).to(handler.clone())),
            describe: describe::<Args, F::Output>,
        }
    }

    /// It reads that header.
    pub fn header(mut self, name: &'static str, about: &'static str) -> Self {
        self.headers.push((name, about));
        self
    }

    /// It may be refused so.
    pub fn refuses(mut self, status: u16, code: &'static str, when: &'static str) -> Self {
        self.refusals.push((status, code, when));
        self
    }

    /// A body it takes.
    pub fn example(mut self, body: Value) -> Self {
        self.example = Some(body);
        self
    }

    /// It says nothing worth a secret.
    pub fn open(mut self) -> Self {
        self.open = true;
        self
    }

    pub(super) fn route(&self) -> Route {
        (self.route)()
    }

    pub(super) fn describe(&self, schemas: &mut SchemaGenerator) -> Description {
        (self.describe)(schemas)
    }
}

fn describe<Args: Takes, Answer: Gives>(schemas: &mut SchemaGenerator) -> Description {
    let mut description = Description::default();
    Args::takes(&mut description, schemas);
    Answer::gives(&mut description, schemas);
    description
}

/// What a handler's argument takes from the request.
pub trait Takes {
    /// Writes it down; nothing, for what is no part of the contract.
    fn takes(_: &mut Description, _: &mut SchemaGenerator) {}
}

impl Takes for Data<Api> {}
impl Takes for HttpRequest {}
impl Takes for Path<String> {}

impl<T: JsonSchema> Takes for Params<T> {
    fn takes(description: &mut Description, schemas: &mut SchemaGenerator) {
        description.query = Some(T::json_schema(schemas));
    }
}

impl<T: JsonSchema> Takes for Body<T> {
    fn takes(description: &mut Description, schemas: &mut SchemaGenerator) {
        description.body = Some(schemas.subschema_for::<T>());
    }
}

macro_rules! take_all {
    ($($arg:ident)*) => {
        impl<$($arg: Takes),*> Takes for ($($arg,)*) {
            fn takes(description: &mut Description, schemas: &mut SchemaGenerator) {
                let _ = (&description, &schemas);
                $($arg::takes(description, schemas);)*
            }
        }
    };
}
take_all!();
take_all!(A);
take_all!(A B);
take_all!(A B C);
take_all!(A B C D);

/// How a handler answers.
pub trait Gives {
    /// Writes it down.
    fn gives(description: &mut Description, schemas: &mut SchemaGenerator);
}

impl<A: Gives> Gives for Result<A, ApiError> {
    fn gives(description: &mut Description, schemas: &mut SchemaGenerator) {
        A::gives(description, schemas);
    }
}

/// An answer in JSON with that status.
#[derive(Debug)]
pub struct Json<T, const STATUS: u16 = 200>(pub T);

impl<T: Serialize, const STATUS: u16> Responder for Json<T, STATUS> {
    type Body = actix_web::body::BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse {
        HttpResponse::build(status::<STATUS>()).json(self.0)
    }
}

impl<T: JsonSchema, const STATUS: u16> Gives for Json<T, STATUS> {
    fn gives(description: &mut Description, schemas: &mut SchemaGenerator) {
        description.answers.push(Given {
            status: status::<STATUS>(),
            media: "application/json",
            schema: Some(schemas.subschema_for::<T>()),
        });
    }
}

/// One of two answers.
#[derive(Debug)]
pub enum Either<A, B> {
    /// The usual one.
    Usual(A),
    /// The other.
    Other(B),
}

impl<A, B> Responder for Either<A, B>
where
    A: Responder<Body = actix_web::body::BoxBody>,
    B: Responder<Body = actix_web::body::BoxBody>,
{
    type Body = actix_web::body::BoxBody;

    fn respond_to(self, request: &HttpRequest) -> HttpResponse {
        match self {
            Self::Usual(answer) => answer.respond_to(request),
            Self::Other(answer) => answer.respond_to(request),
        }
    }
}

impl<A: Gives, B: Gives> Gives for Either<A, B> {
    fn gives(description: &mut Description, schemas: &mut SchemaGenerator) {
        A::gives(description, schemas);
        B::gives(description, schemas);
    }
}

/// An answer that is no JSON.
pub trait Media {
    /// Its type.
    const TYPE: &'static str;
}

/// Declares the media types that answers have.
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
    /// A page.
    Html = "text/html; charset=utf-8";
    /// Metrics.
    OpenMetrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    /// The document, which has no schema of its own.
    Document = "application/json";
}

/// An answer of that media type; the handler builds it.
#[derive(Debug)]
pub struct Raw<M> {
    response: HttpResponse,
    media: std::marker::PhantomData<M>,
}

impl<M: Media> Raw<M> {
    /// 200 with that body.
    pub fn new(body: impl actix_web::body::MessageBody + 'static) -> Self {
        Self::build(HttpResponse::Ok().content_type(M::TYPE).body(body))
    }

    /// A response made otherwise; its media type is set.
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

impl<M> Responder for Raw<M> {
    type Body = actix_web::body::BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse {
        self.response
    }
}

impl<M: Media> Gives for Raw<M> {
    fn gives(description: &mut Description, _: &mut SchemaGenerator) {
        description.answers.push(Given {
            status: StatusCode::OK,
            media: M::TYPE,
            schema: None,
        });
    }
}

fn status<const STATUS: u16>() -> StatusCode {
    StatusCode::from_u16(STATUS).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call")
            .field("method", &self.method)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}
