//! AWS credentials for what the task runs, in the way in which ECS gives a container its role's: SDKs
//! ask a URL that their environment names, again before the credentials end.
//! <https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html>

use std::{
    convert::Infallible,
    ffi::OsString,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use chrono::SecondsFormat;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use stepwes_core::{task::TaskCredentials, token::AttemptToken};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};
use tracing::{debug, warn};

use crate::{
    error::Failure,
    report::{Reporter, ScopedCredentials},
};

/// Where they are asked for.
const PATH: &str = "/credentials";

/// How many may ask at once: a tool must not use up the task's file descriptors.
const CONNECTIONS: usize = 64;

/// How long a connection may last, and an answer take. SDKs give up after one or two seconds and
/// ask anew.
const CONNECTION_PATIENCE: Duration = Duration::from_secs(30);
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

/// How long to wait when no connection can be accepted.
const BREATHER: Duration = Duration::from_millis(100);

/// Variables of ours that say which AWS it is, handed on as they are.
const SAME_AWS: [&str; 3] = ["AWS_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"];

/// Lends credentials to whoever knows the token.
#[derive(Debug)]
pub(crate) struct Lender {
    listener: TcpListener,
    address: SocketAddr,
    desk: Arc<Desk>,
}

#[derive(Debug)]
struct Desk {
    token: AttemptToken,
    credentials: ScopedCredentials,
}

impl Lender {
    /// Listens on a free port of the loopback interface, the only plain HTTP that SDKs ask. Who
    /// connects waits until [`Self::serve`].
    ///
    /// # Errors
    /// When there is no port, or no randomness.
    pub(crate) async fn listen(reporter: Arc<Reporter>) -> io::Result<Self> {
        let token = AttemptToken::generate().map_err(io::Error::other)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let credentials = ScopedCredentials::of_engine(reporter);
        Ok(Self { listener, address, desk: Arc::new(Desk { token, credentials }) })
    }

    /// The variables by which SDKs find it, and the AWS that the credentials are for.
    ///
    /// That of the task's own role, `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI`, comes before these
    /// wherever both are set: nobody may hand it on.
    pub(crate) fn environment(&self) -> Vec<(OsString, OsString)> {
        let url = format!("http://{}{PATH}", self.address);
        let mut variables: Vec<(OsString, OsString)> = vec![
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI".into(), url.into()),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN".into(), self.desk.token.secret().into()),
        ];
        let same = SAME_AWS.iter().filter_map(|name| Some((name.into(), std::env::var_os(name)?)));
        variables.extend(same);
        // The name that Python's SDK, and with it AWS's command, reads.
        let region = std::env::var_os("AWS_REGION");
        variables.extend(region.map(|region| ("AWS_DEFAULT_REGION".into(), region)));
        variables
    }

    /// Answers for as long as it is polled.
    pub(crate) async fn serve(&self) -> Infallible {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        // Aborted when this is dropped.
        let mut connections = JoinSet::new();
        loop {
            let accept = async {
                // Never closed, so there is always a place in the end.
                let place = places.clone().acquire_owned().await.ok();
                (self.listener.accept().await, place)
            };
            let accepted = tokio::select! {
                accepted = accept => accepted,
                Some(_) = connections.join_next() => continue,
            };
            match accepted {
                (Ok((stream, _)), place) => {
                    let desk = self.desk.clone();
                    connections.spawn(async move {
                        let answered = timeout(CONNECTION_PATIENCE, desk.answer(stream));
                        if let Ok(Err(error)) = answered.await {
                            debug!("a connection for credentials broke: {error}");
                        }
                        drop(place);
                    });
                }
                (Err(error), _) => {
                    warn!("a connection for credentials was not accepted: {error}");
                    tokio::time::sleep(BREATHER).await;
                }
            }
        }
    }
}

impl Desk {
    async fn answer(&self, stream: TcpStream) -> hyper::Result<()> {
        let service = service_fn(async |request| Ok::<_, Infallible>(self.respond(&request).await));
        http1::Builder::new()
            .timer(TokioTimer::new())
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service)
            .await
    }

    async fn respond<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if request.uri().path() != PATH {
            return refusal(StatusCode::NOT_FOUND, "NotFound", &format!("ask {PATH}"));
        }
        if !self.knows(request) {
            let message = "Authorization must be what AWS_CONTAINER_AUTHORIZATION_TOKEN says";
            return refusal(StatusCode::UNAUTHORIZED, "Unauthorized", message);
        }
        if request.method() != Method::GET {
            let mut answer = refusal(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "use GET");
            answer.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET"));
            return answer;
        }
        match timeout(ANSWER_PATIENCE, self.credentials.fresh()).await {
            Ok(Ok((credentials, _))) => response(StatusCode::OK, &shown(&credentials)),
            Ok(Err(Failure::Refused(reason))) => {
                refusal(StatusCode::FORBIDDEN, "Refused", reason.as_str())
            }
            Ok(Err(failure)) => {
                warn!("no credentials for the engine: {failure}");
                let message = "the service does not give credentials at present; ask again";
                refusal(StatusCode::SERVICE_UNAVAILABLE, "Unavailable", message)
            }
            Err(_) => {
                let message = "the service does not answer at present; ask again";
                refusal(StatusCode::SERVICE_UNAVAILABLE, "Unavailable", message)
            }
        }
    }

    fn knows<B>(&self, request: &Request<B>) -> bool {
        request
            .headers()
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|given| AttemptToken::from_secret(given.to_owned()) == self.token)
    }
}

/// The credentials as SDKs read them.
fn shown(credentials: &TaskCredentials) -> Value {
    json!({
        "AccessKeyId": credentials.access_key_id,
        "SecretAccessKey": credentials.secret_access_key,
        "Token": credentials.session_token,
        "Expiration": credentials.expiration.to_rfc3339_opts(SecondsFormat::Secs, true),
    })
}

/// An error in the form that SDKs show.
fn refusal(status: StatusCode, code: &str, message: &str) -> Response<Full<Bytes>> {
    response(status, &json!({"code": code, "message": message}))
}

fn response(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, hyper::header::HeaderValue::from_static("no-store"));
    response
}
