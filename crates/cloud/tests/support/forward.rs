//! Hands a request on to the embedded DynamoDB.

use std::net::SocketAddr;

use axum::{
    body::Body,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// One request over one connection, HTTP/1.0 so that the answer ends where the connection does.
pub(super) async fn forward(to: SocketAddr, headers: &HeaderMap, body: &[u8]) -> Response {
    let mut head = format!("POST / HTTP/1.0\r\nhost: {to}\r\ncontent-length: {}\r\n", body.len());
    for name in ["content-type", "x-amz-target", "authorization", "x-amz-date"] {
        let value = headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let mut stream = TcpStream::connect(to).await.expect("DynamoDB listens");
    stream.write_all(head.as_bytes()).await.expect("a head sent");
    stream.write_all(body).await.expect("a body sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("an answer");

    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("the head's end");
    let head = String::from_utf8(answer[..end].to_vec()).expect("an ASCII head");
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status");
    let status: u16 = status.parse().expect("a number");
    let mut response = Body::from(Bytes::copy_from_slice(&answer[end + 4..])).into_response();
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    for line in lines {
        let (name, value) = line.split_once(": ").expect("a header");
        if ["content-type", "x-amz-crc32", "x-amzn-requestid"].contains(&name) {
            let name: http::HeaderName = name.parse().expect("a name");
            response.headers_mut().insert(name, value.parse().expect("a value"));
        }
    }
    response
}
