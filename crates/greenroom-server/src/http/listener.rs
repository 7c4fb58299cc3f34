//! The listener of the HTTP server. It differs from actix-web's own in one point: a connection whose answers are not read
//! is not read either, so that a client that pipelines requests cannot fill the memory with requests and answers.

use std::io;
use std::net::TcpListener;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_http::{HttpService, Protocol};
use actix_server::Server;
use actix_service::{
    IntoServiceFactory, ServiceFactory, ServiceFactoryExt, fn_service, map_config,
};
use actix_web::Error;
use actix_web::body::MessageBody;
use actix_web::dev::{AppConfig, Response};
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
/// Bytes that a connection reads before its requests are handled. actix decodes all requests that it has read, and a
/// decoded request is a hundred times larger than the shortest one.
const READ_AT_ONCE: usize = 8 << 10;

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
        let http = HttpService::build()
            .client_request_timeout(REQUEST_TIMEOUT)
            .client_disconnect_timeout(DISCONNECT_TIMEOUT)
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

/// A socket that is read in small portions, and not at all while its peer does not read.
#[derive(Debug)]
struct PacedStream<T> {
    socket: T,
    /// Bytes read since the last pause.
    portion: usize,
    /// True while written bytes wait for the peer.
    is_blocked: bool,
}

impl<T> PacedStream<T> {
    fn new(socket: T) -> Self {
        Self {
            socket,
            portion: 0,
            is_blocked: false,
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
        let free = READ_AT_ONCE
            .saturating_sub(self.portion)
            .min(buf.remaining());
        if free == 0 && buf.remaining() > 0 {
            self.portion = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(free));
        let read = Pin::new(&mut self.socket).poll_read(cx, &mut part);
        let length = part.filled().len();
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
