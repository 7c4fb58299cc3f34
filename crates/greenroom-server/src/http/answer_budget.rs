//! Bounds the memory of answers that are not read by their clients, over all connections. An answer is written in pieces, so
//! that the rest of it counts until the client has read what precedes it.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix_web::Error;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::middleware::Next;
use actix_web::web::{Bytes, Data};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;

/// Maximum size of an answer that does not count, in bytes.
const FREE_BYTES: u64 = 64 << 10;
/// Size of the pieces of a larger answer.
const PIECE_BYTES: usize = 16 << 10;
/// The unit of the budget.
const UNIT_BYTES: usize = 1 << 10;

/// The memory for answers of all connections. Clones share it.
#[derive(Debug, Clone)]
pub struct AnswerBudget {
    free: Arc<Semaphore>,
    limit: usize,
}

impl AnswerBudget {
    /// Returns a budget of `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(limit / UNIT_BYTES)),
            limit,
        }
    }

    /// Returns a permit for an answer; none if too many bytes wait for their clients. An answer larger than the whole budget
    /// needs all of it.
    fn acquire(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = bytes.min(self.limit) / UNIT_BYTES;
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        Arc::clone(&self.free).try_acquire_many_owned(units).ok()
    }

    fn refusal(&self) -> ApiError {
        ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too_many_unread_answers",
            format!(
                "answers of {} MiB wait to be read by other clients",
                self.limit >> 20
            ),
            "try again later, or ask for less",
        )
    }
}

/// Passes an answer on, or replaces it by an error if too many bytes wait for their clients.
pub async fn bound_answers<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let budget = request.app_data::<Data<AnswerBudget>>().cloned();
    let (request, response) = next.call(request).await?.map_into_boxed_body().into_parts();
    let (response, body) = response.into_parts();
    // The pieces of a stream are produced as its client reads them.
    let is_large = matches!(body.size(), BodySize::Sized(bytes) if bytes > FREE_BYTES);
    let body = match (budget.filter(|_| is_large), body) {
        (None, body) => body,
        (Some(budget), body) => match body.try_into_bytes() {
            Err(stream) => stream,
            Ok(bytes) => match budget.acquire(bytes.len()) {
                None => return Ok(ServiceResponse::from_err(budget.refusal(), request)),
                Some(permit) => BoxBody::new(PiecewiseBody {
                    rest: bytes,
                    _permit: permit,
                }),
            },
        },
    };
    Ok(ServiceResponse::new(request, response.set_body(body)))
}

/// The rest of an answer. It is dropped when all of it is written, or its connection ends.
struct PiecewiseBody {
    rest: Bytes,
    _permit: OwnedSemaphorePermit,
}

impl MessageBody for PiecewiseBody {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.rest.len() as u64)
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let piece = self.rest.len().min(PIECE_BYTES);
        Poll::Ready(Some(Ok(self.rest.split_to(piece))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix_web::test]
    async fn unread_answers_are_refused_until_others_are_read() {
        use actix_web::{App, HttpResponse, test, web};
        const LARGE: usize = 150 << 10;
        let budget = Data::new(AnswerBudget::new(200 << 10));
        let app = App::new()
            .app_data(budget)
            .wrap(actix_web::middleware::from_fn(bound_answers))
            .route(
                "/large",
                web::get().to(async || HttpResponse::Ok().body("x".repeat(LARGE))),
            )
            .route(
                "/small",
                web::get().to(async || HttpResponse::Ok().body("x")),
            );
        let app = test::init_service(app).await;
        let get =
            |path: &str| test::call_service(&app, test::TestRequest::get().uri(path).to_request());
        let first = get("/large").await;
        assert_eq!(first.status(), 200);
        let refused = get("/large").await;
        assert_eq!(refused.status(), 503);
        assert_eq!(get("/small").await.status(), 200);
        assert_eq!(test::read_body(first).await.len(), LARGE);
        assert_eq!(get("/large").await.status(), 200);
    }

    #[test]
    fn permits_return_with_their_answers() {
        let budget = AnswerBudget::new(100 << 10);
        let first = budget.acquire(60 << 10).unwrap();
        assert!(budget.acquire(60 << 10).is_none());
        let second = budget.acquire(30 << 10);
        assert!(second.is_some());
        drop((first, second));
        // More than all of it.
        let whole = budget.acquire(1 << 30);
        assert!(whole.is_some());
        assert!(budget.acquire(1 << 10).is_none());
    }
}
