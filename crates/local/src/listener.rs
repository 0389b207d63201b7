//! The HTTP servers: accepting, answering, going down without cutting anybody off.

use std::{io, pin::pin, sync::Arc, time::Duration};

use axum::body::Body;
use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    faults::{INJECTED, is_unanswered},
    patience::Patient,
};

/// How long to wait when the operating system has no more file descriptors.
const BREATHER: Duration = Duration::from_millis(100);

/// What clients may take of a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// How many connections there may be; others wait until they are accepted.
    pub(crate) connections: usize,
    /// How long a client may take to send a request's head, or keep a connection without one.
    pub(crate) head: Duration,
    /// How long a client may send nothing of a body that is waited for, or take nothing of an
    /// answer.
    pub(crate) patience: Duration,
}

/// One listening server.
#[derive(Debug)]
pub(crate) struct HttpServer {
    going_down: CancellationToken,
    tasks: TaskTracker,
}

impl HttpServer {
    /// Answers every request on `listener` with `answer`.
    pub(crate) fn start<S, A>(listener: TcpListener, limits: Limits, answer: S) -> Self
    where
        S: Fn(Request<Body>) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = Response<Body>> + Send + 'static,
    {
        let going_down = CancellationToken::new();
        let tasks = TaskTracker::new();
        let server = Self { going_down: going_down.clone(), tasks: tasks.clone() };
        let connections = tasks.clone();
        let places = Arc::new(Semaphore::new(limits.connections));
        tasks.spawn(async move {
            loop {
                let accept = async {
                    // Never closed, so there is always a place in the end.
                    let place = Arc::clone(&places).acquire_owned().await.ok();
                    (listener.accept().await, place)
                };
                let (accepted, place) = tokio::select! {
                    () = going_down.cancelled() => break,
                    accepted = accept => accepted,
                };
                match accepted {
                    Ok((stream, _)) => {
                        let going_down = going_down.clone();
                        let served = serve(stream, limits, answer.clone(), going_down);
                        connections.spawn(async move {
                            served.await;
                            drop(place);
                        });
                    }
                    Err(error) => {
                        tracing::warn!(
                            error = &error as &dyn std::error::Error,
                            "a connection was not accepted"
                        );
                        tokio::time::sleep(BREATHER).await;
                    }
                }
            }
        });
        server
    }

    /// Accepts nothing more, and waits until every request that is being answered has been, or
    /// `patience` is over.
    pub(crate) async fn stop(&self, patience: Duration) {
        self.going_down.cancel();
        self.tasks.close();
        if tokio::time::timeout(patience, self.tasks.wait()).await.is_err() {
            tracing::warn!("some requests were cut off");
        }
    }
}

async fn serve<S, A>(stream: TcpStream, limits: Limits, answer: S, going_down: CancellationToken)
where
    S: Fn(Request<Body>) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Response<Body>> + Send + 'static,
{
    // Small answers must not wait for the client's acknowledgement.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(
            error = &error as &dyn std::error::Error,
            "a connection keeps Nagle's algorithm"
        );
    }
    let patience = limits.patience;
    let service = service_fn(move |request: Request<Incoming>| {
        let answered = answer(request.map(|body| Body::new(Patient::new(body, patience))));
        async move {
            let response = answered.await;
            // An error closes the connection.
            if is_unanswered(&response) { Err(io::Error::other(INJECTED)) } else { Ok(response) }
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        // An idle connection needs little.
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(Patient::new(stream, patience)), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = going_down.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = &error as &dyn std::error::Error, "a connection broke");
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use bytes::Bytes;
    use futures::stream;
    use http::StatusCode;
    use http_body_util::BodyExt as _;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        sync::oneshot,
    };

    use super::*;

    const IMPATIENT: Limits = Limits {
        connections: 8,
        head: Duration::from_millis(50),
        patience: Duration::from_millis(50),
    };

    async fn start<S, A>(limits: Limits, answer: S) -> (HttpServer, std::net::SocketAddr)
    where
        S: Fn(Request<Body>) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = Response<Body>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        (HttpServer::start(listener, limits, answer), address)
    }

    async fn ask(address: std::net::SocketAddr, request: &str) -> TcpStream {
        let mut client = TcpStream::connect(address).await.expect("connected");
        client.write_all(request.as_bytes()).await.expect("sent");
        client
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let (_server, address) = start(IMPATIENT, |request: Request<Body>| async move {
            let status = match request.into_body().collect().await {
                Ok(_) => StatusCode::OK,
                Err(_) => StatusCode::REQUEST_TIMEOUT,
            };
            let mut response = Response::new(Body::empty());
            *response.status_mut() = status;
            response
        })
        .await;
        let head = "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n";
        for (body, expected) in [("ab", "HTTP/1.1 200"), ("a", "HTTP/1.1 408")] {
            let mut client = ask(address, &format!("{head}{body}")).await;
            let mut told = String::new();
            client.read_to_string(&mut told).await.expect("answered");
            assert!(told.starts_with(expected), "{told}");
        }
    }

    #[tokio::test]
    async fn an_answer_that_nobody_takes_is_not_sent_for_ever() {
        let (dropped, gone) = oneshot::channel::<()>();
        let dropped = Arc::new(std::sync::Mutex::new(Some(dropped)));
        let (_server, address) = start(IMPATIENT, move |_: Request<Body>| {
            let dropped = dropped.lock().expect("a lock").take();
            async move {
                let endless = stream::repeat_with(move || {
                    // Gone with the body.
                    let _held = &dropped;
                    Ok::<_, Infallible>(Bytes::from_static(&[0; 65536]))
                });
                Response::new(Body::from_stream(endless))
            }
        })
        .await;
        let _client = ask(address, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(gone.await.is_err());
    }

    #[tokio::test]
    async fn no_more_connections_are_served_at_once_than_may_be() {
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let seen = Arc::clone(&most);
        let (_server, address) =
            start(Limits { connections: 2, ..IMPATIENT }, move |_: Request<Body>| {
                let (now, most) = (Arc::clone(&now), Arc::clone(&most));
                async move {
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    for _ in 0..1000 {
                        tokio::task::yield_now().await;
                    }
                    now.fetch_sub(1, Ordering::SeqCst);
                    Response::new(Body::empty())
                }
            })
            .await;
        let asking = (0..10).map(|_| async {
            let request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            let mut told = String::new();
            ask(address, request).await.read_to_string(&mut told).await.expect("answered");
            assert!(told.starts_with("HTTP/1.1 200"), "{told}");
        });
        futures::future::join_all(asking).await;
        assert_eq!(seen.load(Ordering::SeqCst), 2);
    }

    /// Slowloris: connections that say nothing, or go on with their head for ever, take the places of
    /// others no longer than a head may take.
    #[tokio::test]
    async fn connections_that_never_ask_keep_nobody_out() {
        let (_server, address) =
            start(Limits { connections: 4, ..IMPATIENT }, |_: Request<Body>| async {
                Response::new(Body::empty())
            })
            .await;
        let mut slow = Vec::new();
        for begun in ["", "", "G", "GET / HTTP/1.1\r\nHost: x\r\n"] {
            slow.push(ask(address, begun).await);
        }
        let mut endless = slow.pop().expect("the last one");
        let drip = tokio::spawn(async move {
            let mut pace = tokio::time::interval(Duration::from_millis(5));
            loop {
                pace.tick().await;
                if endless.write_all(b"X: y\r\n").await.is_err() {
                    return;
                }
            }
        });
        let request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let mut told = String::new();
        ask(address, request).await.read_to_string(&mut told).await.expect("answered");
        assert!(told.starts_with("HTTP/1.1 200"), "{told}");
        drip.await.expect("the connection was closed");
        for mut silent in slow {
            let mut rest = Vec::new();
            // Closed, with or without a word.
            let _ = silent.read_to_end(&mut rest).await;
            assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 4"), "{rest:?}");
        }
    }
}
