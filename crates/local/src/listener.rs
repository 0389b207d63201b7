//! The HTTP servers: accepting, answering, going down without cutting anybody off.

use std::{convert::Infallible, pin::pin, time::Duration};

use axum::body::Body;
use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long a client may take to send a request's head.
const HEAD_PATIENCE: Duration = Duration::from_secs(30);
/// How long to wait when the operating system has no more file descriptors.
const BREATHER: Duration = Duration::from_millis(100);

/// One listening server.
#[derive(Debug)]
pub(crate) struct HttpServer {
    going_down: CancellationToken,
    tasks: TaskTracker,
}

impl HttpServer {
    /// Answers every request on `listener` with `answer`.
    pub(crate) fn start<S, A>(listener: TcpListener, answer: S) -> Self
    where
        S: Fn(Request<Body>) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = Response<Body>> + Send + 'static,
    {
        let going_down = CancellationToken::new();
        let tasks = TaskTracker::new();
        let server = Self { going_down: going_down.clone(), tasks: tasks.clone() };
        let connections = tasks.clone();
        tasks.spawn(async move {
            loop {
                let accepted = tokio::select! {
                    () = going_down.cancelled() => break,
                    accepted = listener.accept() => accepted,
                };
                match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(serve(stream, answer.clone(), going_down.clone()));
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

async fn serve<S, A>(stream: TcpStream, answer: S, going_down: CancellationToken)
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
    let service = service_fn(move |request: Request<Incoming>| {
        let answered = answer(request.map(Body::new));
        async move { Ok::<_, Infallible>(answered.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        // An idle connection needs little.
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(stream), service);
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
