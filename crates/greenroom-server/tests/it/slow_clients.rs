//! Clients that do not finish their requests are disconnected without an effect on others.

use std::time::{Duration, Instant};

use crate::support::Host;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Sends bytes and returns the response until the connection is closed, with the elapsed time.
async fn sent(host: &Host, bytes: &str) -> (String, Duration) {
    let began = Instant::now();
    let mut socket = TcpStream::connect(host.address).await.unwrap();
    socket.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let cut = tokio::time::timeout(Duration::from_secs(40), socket.read_to_end(&mut answer)).await;
    cut.expect("the connection is cut").ok();
    (String::from_utf8(answer).unwrap(), began.elapsed())
}

#[actix_rt::test]
async fn unfinished_requests_time_out() {
    let host = Host::start(&[]).await;
    let head = format!("POST /v1/tasks HTTP/1.1\r\nhost: {}\r\n", host.address);
    let half_head = sent(&host, &head);
    let half_body = format!("{head}content-length: 1000\r\n\r\n{{\"description\": ");
    let half_body = sent(&host, &half_body);
    let half_chunk = format!("{head}transfer-encoding: chunked\r\n\r\nff\r\n{{");
    let half_chunk = sent(&host, &half_chunk);
    let others = async {
        for _ in 0..200 {
            let started = Instant::now();
            assert_eq!(host.get("/healthz").await.0, 200);
            assert!(started.elapsed() < Duration::from_secs(2));
            tokio::task::yield_now().await;
        }
    };
    let (head, body, chunk, ()) = futures::join!(half_head, half_body, half_chunk, others);
    assert!(head.1 < Duration::from_secs(15), "{head:?}");
    for (answer, took) in [body, chunk] {
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert!(answer.contains("body_too_slow"), "{answer}");
        assert!(took < Duration::from_secs(20), "{took:?}");
    }
    let (_, tasks) = host.get("/v1/tasks").await;
    assert_eq!(tasks["tasks"].as_array().unwrap().len(), 0);
    host.stop().await;
}
