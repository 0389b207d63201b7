//! The HTTP servers: accepting, answering, going down without cutting anybody off.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv6Addr},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

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
    /// How many of them one client may have; further ones are closed as soon as they are accepted.
    pub(crate) of_one: usize,
    /// Who the client at an address is, or `None` for one who may have all of them.
    pub(crate) client: fn(IpAddr) -> Option<IpAddr>,
    /// How long a client may take to send a request's head, or keep a connection without one.
    pub(crate) head: Duration,
    /// How long a client may send nothing of a body that is waited for, or take nothing of an
    /// answer.
    pub(crate) patience: Duration,
}

/// Who is at an address: an IPv6 network of 64 bits is one client's as a rule, and on loopback a proxy
/// may speak for everybody.
pub(crate) fn client_of(address: IpAddr) -> Option<IpAddr> {
    match address.to_canonical() {
        address if address.is_loopback() => None,
        IpAddr::V6(address) => {
            let network = address.to_bits() & (u128::MAX << 64);
            Some(Ipv6Addr::from_bits(network).into())
        }
        address => Some(address),
    }
}

/// How many connections each client has.
#[derive(Clone, Debug, Default)]
struct Clients(Arc<Mutex<HashMap<IpAddr, usize>>>);

impl Clients {
    /// Counts a connection, or gives `None` when the client has as many as it may.
    fn enter(&self, client: IpAddr, most: usize) -> Option<Entered> {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let connections = clients.entry(client).or_default();
        if *connections >= most {
            return None;
        }
        *connections += 1;
        Some(Entered { clients: self.clone(), client })
    }
}

/// A connection that is counted.
#[derive(Debug)]
struct Entered {
    clients: Clients,
    client: IpAddr,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut clients = self.clients.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connections) = clients.get_mut(&self.client) {
            *connections -= 1;
            if *connections == 0 {
                clients.remove(&self.client);
            }
        }
    }
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
        let clients = Clients::default();
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
                    Ok((stream, peer)) => {
                        let entered = match (limits.client)(peer.ip()) {
                            None => None,
                            Some(client) => match clients.enter(client, limits.of_one) {
                                None => {
                                    tracing::debug!(%peer, "a client has too many connections");
                                    continue;
                                }
                                entered => entered,
                            },
                        };
                        let going_down = going_down.clone();
                        let served = serve(stream, limits, answer.clone(), going_down);
                        connections.spawn(async move {
                            served.await;
                            drop((place, entered));
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
        net::TcpSocket,
        sync::{mpsc, oneshot},
    };

    use super::*;

    const IMPATIENT: Limits = Limits {
        connections: 8,
        of_one: 8,
        client: Some,
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
        let dropped = Arc::new(Mutex::new(Some(dropped)));
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

    #[tokio::test]
    async fn a_client_with_too_many_connections_keeps_nobody_else_out() {
        const REQUEST: &str = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        async fn ask_from(source: &str, address: std::net::SocketAddr) -> TcpStream {
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.bind(format!("{source}:0").parse().expect("an address")).expect("bound");
            let mut client = socket.connect(address).await.expect("connected");
            // It may be closed by now.
            let _ = client.write_all(REQUEST.as_bytes()).await;
            client
        }
        async fn told(mut client: TcpStream) -> String {
            let mut told = String::new();
            let _ = client.read_to_string(&mut told).await;
            told
        }
        let (asked, mut asking) = mpsc::unbounded_channel();
        let limits =
            Limits { connections: 4, of_one: 2, head: Duration::from_secs(3600), ..IMPATIENT };
        let (_server, address) = start(limits, move |_: Request<Body>| {
            let asked = asked.clone();
            async move {
                let (answer, answered) = oneshot::channel::<()>();
                // Whoever is not waited for is answered at once.
                let _ = asked.send(answer);
                let _ = answered.await;
                Response::new(Body::empty())
            }
        })
        .await;
        let held = [ask_from("127.0.0.1", address).await, ask_from("127.0.0.1", address).await];
        let answers = [asking.recv().await, asking.recv().await];
        for _ in 0..10 {
            assert_eq!(told(ask_from("127.0.0.1", address).await).await, "");
        }
        let other = ask_from("127.0.0.2", address).await;
        drop(asking.recv().await.expect("another client is heard"));
        assert!(told(other).await.starts_with("HTTP/1.1 200"));
        // Those that have ended are none of its connections any more.
        drop(answers);
        for client in held {
            assert!(told(client).await.starts_with("HTTP/1.1 200"));
        }
        drop(asking);
        while told(ask_from("127.0.0.1", address).await).await.is_empty() {
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn a_client_is_an_address_or_a_network_of_version_6_and_none_on_this_machine() {
        let client = |text: &str| client_of(text.parse().expect("an address"));
        for here in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(client(here), None, "{here}");
        }
        assert_eq!(client("::ffff:192.0.2.1"), client("192.0.2.1"));
        assert_ne!(client("192.0.2.1"), client("192.0.2.2"));
        assert_eq!(client("2001:db8:0:1::1"), client("2001:db8:0:1:ffff::9"));
        assert_ne!(client("2001:db8:0:1::1"), client("2001:db8:0:2::1"));
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
