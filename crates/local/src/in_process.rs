//! The way to the embedded AWS within one process: the SDK's requests, signed as ever, are handed
//! over without a socket in between. Engine tasks, which are processes of their own, come through the
//! internal port; what answers is the same.

use std::{
    fmt, io,
    pin::Pin,
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
    task::{Context, Poll},
};

use aws_smithy_runtime_api::client::{
    http::{
        HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
    },
    orchestrator::{HttpRequest, HttpResponse},
    result::ConnectorError,
    runtime_components::RuntimeComponents,
};
use aws_smithy_types::body::SdkBody;
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, Uri, header};
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use crate::{
    faults::{INJECTED, is_unanswered},
    gateway::Gateway,
};

/// An HTTP client for the SDK's clients, whose requests `A` answers.
#[derive(Clone)]
pub(crate) struct InProcess<A>(pub(crate) A);

/// Who answers requests; a clone answers as the first does.
pub(crate) trait Answer: Clone + Send + Sync + 'static {
    /// Answers one; `None` when nobody is there any more, or not yet.
    fn answer(
        self,
        request: Request<Body>,
    ) -> impl Future<Output = Option<Response<Body>>> + Send + 'static;
}

/// The gateway, once it is there, for as long as it lives.
#[derive(Clone, Default)]
pub(crate) struct Later(Arc<OnceLock<Weak<Gateway>>>);

impl Later {
    /// From now on `gateway` answers.
    pub(crate) fn connect(&self, gateway: &Arc<Gateway>) {
        // There is one gateway to a server; a second call would change nothing.
        let _ = self.0.set(Arc::downgrade(gateway));
    }
}

impl Answer for Later {
    async fn answer(self, request: Request<Body>) -> Option<Response<Body>> {
        let gateway = self.0.get()?.upgrade()?;
        Some(gateway.call(request).await)
    }
}

impl<A> fmt::Debug for InProcess<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InProcess")
    }
}

impl<A: Answer> HttpClient for InProcess<A> {
    fn http_connector(
        &self,
        _: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl<A: Answer> HttpConnector for InProcess<A> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let answering = self.0.clone();
        HttpConnectorFuture::new(async move {
            let request = received(request)?;
            let headers_alone = request.method() == Method::HEAD;
            let answered = answering.answer(request).await;
            // As a connection that is refused: the SDK tries again, then gives up.
            let response = answered.ok_or_else(|| {
                let gone = "the embedded AWS is not running";
                ConnectorError::io(io::Error::new(io::ErrorKind::ConnectionRefused, gone).into())
            })?;
            if is_unanswered(&response) {
                return Err(ConnectorError::timeout(INJECTED.into()));
            }
            // A connection carries no body of an answer to HEAD, so that S3's "no such key" is a bare
            // 404 there; the SDK does not know the error by its code.
            let response = response.map(|body| match headers_alone {
                true => SdkBody::empty(),
                false => SdkBody::from_body_1_x(Shared(Mutex::new(body))),
            });
            HttpResponse::try_from(response).map_err(|error| ConnectorError::user(error.into()))
        })
    }
}

/// The request as a server reads it from a connection: the host in a header, and no authority in
/// the target.
fn received(request: HttpRequest) -> Result<Request<Body>, ConnectorError> {
    let unusable = |error: http::Error| ConnectorError::user(error.into());
    let request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
    let (mut parts, body) = request.into_parts();
    if let Some(authority) = parts.uri.authority()
        && !parts.headers.contains_key(header::HOST)
    {
        let host = HeaderValue::from_str(authority.as_str()).map_err(|e| unusable(e.into()))?;
        parts.headers.insert(header::HOST, host);
    }
    let target = parts.uri.path_and_query().cloned();
    parts.uri = target.map_or_else(|| Uri::from_static("/"), Uri::from);
    Ok(Request::from_parts(parts, Body::new(body)))
}

/// A body that threads may share, as the SDK asks for. Nobody does, so the lock is never waited for.
struct Shared(Mutex<Body>);

impl Shared {
    fn get(&mut self) -> &mut Body {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HttpBody for Shared {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(self.get_mut().get()).poll_frame(context)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).size_hint()
    }
}
