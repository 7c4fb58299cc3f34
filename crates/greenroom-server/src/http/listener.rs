//! The listener of the HTTP server. It differs from actix-web's own in one point: a connection is not read while its
//! answers are not read, or while many of its requests wait, so that a client that pipelines requests cannot fill the
//! memory with requests and answers.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::TcpListener;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use actix_http::{HttpService, Protocol};
use actix_server::Server;
use actix_service::{
    IntoServiceFactory, Service, ServiceFactory, ServiceFactoryExt, apply_fn_factory, fn_service,
    map_config,
};
use actix_web::Error;
use actix_web::body::MessageBody;
use actix_web::dev::{AppConfig, Response};
use actix_web::http::header;
use actix_web::rt::net::{ActixStream, Ready, TcpStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;

use super::connection;

/// Number of HTTP worker threads.
const WORKERS: usize = 2;
/// Time limit for requests in progress after everything else has stopped, in seconds.
const SHUTDOWN_TIMEOUT_S: u64 = 3;
/// Time limit for the head of a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit for the end of a connection.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes that a connection reads before its requests are handled.
const READ_AT_ONCE: usize = 8 << 10;
/// Requests of a connection that may wait for their turn. The requests of one portion may exceed it.
const MAX_WAITING: u64 = 4;
/// Bytes of one read of requests. actix decodes all requests that it has read, and a decoded request is a hundred times
/// larger than the shortest one.
const REQUEST_PORTION: usize = 512;
/// Bytes of a body without a declared length that are read while its request is handled.
const MAX_CHUNKED_BODY: u64 = 16 << 20;

/// Returns a server for an app. Its idle connections are closed when `closing` is cancelled.
///
/// # Errors
/// The error of the operating system if the listener cannot be used.
pub fn serve<F, I, S, B>(
    listener: TcpListener,
    connections: usize,
    closing: CancellationToken,
    factory: F,
) -> io::Result<Server>
where
    F: Fn() -> I + Send + Clone + 'static,
    I: IntoServiceFactory<S, actix_http::Request>,
    S: ServiceFactory<actix_http::Request, Config = AppConfig> + 'static,
    S::Error: Into<Error> + 'static,
    S::InitError: std::fmt::Debug,
    S::Response: Into<Response<B>> + 'static,
    <S::Service as actix_service::Service<actix_http::Request>>::Future: 'static,
    S::Service: 'static,
    S::Future: 'static,
    B: MessageBody + 'static,
{
    let builder = Server::build()
        .workers(WORKERS)
        .max_concurrent_connections(connections / WORKERS)
        .shutdown_timeout(SHUTDOWN_TIMEOUT_S)
        .disable_signals();
    let server = builder.listen("http", listener, move || {
        let closing = closing.clone();
        let app = factory()
            .into_factory()
            .map_err(|error| error.into().error_response());
        let app = apply_fn_factory(app, |request: actix_http::Request, service| {
            let turn = request.conn_data::<Rc<Pacer>>().map(|pacer| {
                pacer.request_started(&request);
                Turn(Rc::clone(pacer))
            });
            let answer = service.call(request);
            async move {
                let _turn = turn;
                answer.await
            }
        });
        let http = HttpService::build()
            .client_request_timeout(REQUEST_TIMEOUT)
            .client_disconnect_timeout(DISCONNECT_TIMEOUT)
            .on_connect_ext(|stream: &PacedStream<TcpStream>, data| {
                data.insert(Rc::clone(&stream.pacer));
            })
            .graceful_shutdown_signal(move || closing.clone().cancelled_owned())
            .finish(map_config(app, |()| AppConfig::default()));
        fn_service(async |socket: TcpStream| {
            connection::limit_connection(&socket);
            let peer = socket.peer_addr().ok();
            Ok((PacedStream::new(socket), Protocol::Http1, peer))
        })
        .and_then(http)
    })?;
    Ok(server.run())
}

/// The requests of a connection, as its stream and its service see them. Both run in one task.
#[derive(Debug, Default)]
struct Pacer {
    /// Ends of request heads that were read and not handled yet. Too large if a body contains such an end.
    waiting: Cell<u64>,
    /// Requests that are being handled: at most one, since HTTP/1 answers in order.
    handled: Cell<usize>,
    /// Bytes of the current request's body that may still be read.
    body: Cell<u64>,
    /// True once the connection has another protocol.
    is_upgraded: Cell<bool>,
    /// The reader, while it waits for the service.
    reader: RefCell<Option<Waker>>,
}

impl Pacer {
    fn request_started(&self, request: &actix_http::Request) {
        self.waiting.set(self.waiting.get().saturating_sub(1));
        self.handled.set(self.handled.get() + 1);
        let head = request.head();
        let length = head.headers().get(header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        let is_chunked = head.headers().contains_key(header::TRANSFER_ENCODING);
        let body = length.unwrap_or(if is_chunked { MAX_CHUNKED_BODY } else { 0 });
        self.body.set(body);
        self.is_upgraded.set(head.upgrade());
        self.wake_reader();
    }

    fn request_ended(&self) {
        self.handled.set(self.handled.get().saturating_sub(1));
        self.body.set(0);
        self.wake_reader();
    }

    fn wake_reader(&self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Returns the number of bytes that may be read at once; none if the reader must wait.
    fn portion(&self) -> Option<usize> {
        let body = self.body.get();
        if self.is_upgraded.get() {
            return Some(READ_AT_ONCE);
        }
        if body > 0 {
            return Some(usize::try_from(body).map_or(READ_AT_ONCE, |body| body.min(READ_AT_ONCE)));
        }
        if self.waiting.get() >= MAX_WAITING {
            if self.handled.get() > 0 {
                return None;
            }
            // The counted requests have been handled, or were parts of a body.
            self.waiting.set(0);
        }
        Some(REQUEST_PORTION)
    }

    fn note_read(&self, bytes: &[u8]) {
        let body = self.body.get();
        if self.is_upgraded.get() {
            return;
        }
        if body > 0 {
            self.body.set(body.saturating_sub(bytes.len() as u64));
            return;
        }
        // A head ends with an empty line, which may lack its carriage return.
        let ends = bytes.windows(2).filter(|end| end == b"\n\n").count()
            + bytes.windows(3).filter(|end| end == b"\n\r\n").count();
        self.waiting.set(self.waiting.get() + ends as u64);
    }
}

/// A request that is being handled. Its drop is the end, also if its connection is lost.
struct Turn(Rc<Pacer>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.request_ended();
    }
}

/// A socket that is read in small portions, and not at all while its peer does not read or its requests wait.
#[derive(Debug)]
struct PacedStream<T> {
    socket: T,
    /// Bytes read since the last pause.
    portion: usize,
    /// True while written bytes wait for the peer.
    is_blocked: bool,
    pacer: Rc<Pacer>,
}

impl<T> PacedStream<T> {
    fn new(socket: T) -> Self {
        Self {
            socket,
            portion: 0,
            is_blocked: false,
            pacer: Rc::default(),
        }
    }

    fn note_write<R>(&mut self, written: Poll<R>) -> Poll<R> {
        self.is_blocked = written.is_pending();
        written
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for PacedStream<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_blocked {
            // The write that waits wakes the task.
            return Poll::Pending;
        }
        let Some(most) = self.pacer.portion() else {
            self.portion = 0;
            *self.pacer.reader.borrow_mut() = Some(cx.waker().clone());
            return Poll::Pending;
        };
        let free = READ_AT_ONCE
            .saturating_sub(self.portion)
            .min(most)
            .min(buf.remaining());
        if free == 0 && buf.remaining() > 0 {
            self.portion = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(free));
        let read = Pin::new(&mut self.socket).poll_read(cx, &mut part);
        let length = part.filled().len();
        self.pacer.note_read(part.filled());
        buf.advance(length);
        if read.is_pending() {
            self.portion = 0;
        } else {
            self.portion += length;
        }
        ready!(read)?;
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for PacedStream<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.note_write(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The end of the peer is read while the connection ends.
        self.is_blocked = false;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

impl<T: ActixStream> ActixStream for PacedStream<T> {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        self.socket.poll_read_ready(cx)
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        self.socket.poll_write_ready(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[actix_rt::test]
    async fn whole_text_is_read_in_portions() {
        let (mut client, server) = tokio::io::duplex(64 << 10);
        let text = vec![b'x'; 50_000];
        client.write_all(&text).await.unwrap();
        drop(client);
        let mut read = Vec::new();
        PacedStream::new(server)
            .read_to_end(&mut read)
            .await
            .unwrap();
        assert_eq!(read, text);
    }

    #[test]
    fn requests_are_not_read_while_many_wait() {
        let pacer = Pacer::default();
        let request = b"GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n";
        pacer.note_read(request);
        pacer.request_started(&actix_http::Request::new());
        assert_eq!(pacer.waiting.get(), 0);
        for _ in 0..MAX_WAITING {
            assert_eq!(pacer.portion(), Some(REQUEST_PORTION));
            pacer.note_read(request);
        }
        assert_eq!(pacer.portion(), None);
        // A miscount ends with the request.
        pacer.request_ended();
        assert_eq!(pacer.portion(), Some(REQUEST_PORTION));
        assert_eq!(pacer.waiting.get(), 0);
    }

    #[actix_rt::test]
    async fn nothing_is_read_while_the_peer_does_not_read() {
        let (mut client, server) = tokio::io::duplex(1 << 10);
        let mut server = PacedStream::new(server);
        client.write_all(b"request").await.unwrap();
        let write = tokio::time::timeout(Duration::from_millis(20), server.write_all(&[0; 2048]));
        assert!(write.await.is_err(), "the write waits");
        let mut byte = [0; 1];
        let read = tokio::time::timeout(Duration::from_millis(20), server.read(&mut byte));
        assert!(read.await.is_err(), "no read meanwhile");
        client.read_exact(&mut [0; 1024]).await.unwrap();
        server.write_all(b"rest").await.unwrap();
        assert_eq!(server.read(&mut byte).await.unwrap(), 1);
    }
}
