//! The connection to DynamoDB: counts what goes over it, and fails where a test wants it to.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard},
};

use aws_sdk_dynamodb::config::{
    HttpClient, RuntimeComponents, SharedHttpClient,
    http::{HttpRequest, HttpResponse},
};
use aws_smithy_runtime_api::{
    client::{
        http::{HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector},
        result::ConnectorError,
    },
    http::StatusCode,
};
use aws_smithy_types::byte_stream::ByteStream;
use futures::future::BoxFuture;

/// What happens to one request.
pub(crate) enum Fault {
    /// It has its effect, and the answer is lost.
    LostAnswer,
    /// It never arrives.
    LostRequest,
    /// It never arrives; this is answered.
    Answer(u16, String),
    /// Something else happens first.
    Meanwhile(BoxFuture<'static, ()>),
}

impl Fault {
    /// A transaction that was cancelled, with these codes of its items.
    pub(crate) fn cancelled(codes: &[&str]) -> Self {
        let reasons: Vec<_> =
            codes.iter().map(|code| serde_json::json!({ "Code": code, "Message": "m" })).collect();
        let body = serde_json::json!({
            "__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
            "Message": "Transaction cancelled",
            "CancellationReasons": reasons,
        });
        Self::Answer(400, body.to_string())
    }

    /// An error of this name.
    pub(crate) fn error(status: u16, name: &str) -> Self {
        Self::error_saying(status, name, "m")
    }

    /// The same, with that message.
    pub(crate) fn error_saying(status: u16, name: &str, message: &str) -> Self {
        let body = serde_json::json!({
            "__type": format!("com.amazonaws.dynamodb.v20120810#{name}"),
            "message": message,
        });
        Self::Answer(status, body.to_string())
    }
}

#[derive(Default)]
struct State {
    sent: BTreeMap<String, usize>,
    items: usize,
    faults: VecDeque<(&'static str, Fault)>,
}

/// One connection; clones share their state.
#[derive(Clone)]
pub(crate) struct Wire {
    state: Arc<Mutex<State>>,
    inner: SharedHttpClient,
}

impl Default for Wire {
    fn default() -> Self {
        Self { state: Arc::default(), inner: aws_smithy_http_client::Builder::new().build_http() }
    }
}

impl Wire {
    /// The next request of `operation` meets this.
    pub(crate) fn next(&self, operation: &'static str, fault: Fault) {
        self.state().faults.push_back((operation, fault));
    }

    /// How many faults no request has met.
    pub(crate) fn unmet(&self) -> usize {
        self.state().faults.len()
    }

    /// How many requests of each operation were sent since this was last asked.
    pub(crate) fn sent(&self) -> BTreeMap<String, usize> {
        std::mem::take(&mut self.state().sent)
    }

    /// How many items were read or written since this was last asked: those that a query looked at,
    /// whether they are in its answer or not.
    pub(crate) fn items(&self) -> usize {
        std::mem::take(&mut self.state().items)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics with the lock")
    }

    fn take(&self, request: &HttpRequest) -> Option<Fault> {
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
        let mut state = self.state();
        let due = state.faults.iter().position(|(of, _)| *of == operation);
        let fault = due.and_then(|at| state.faults.remove(at)).map(|(_, fault)| fault);
        *state.sent.entry(operation).or_default() += 1;
        fault
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wire")
    }
}

impl HttpClient for Wire {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(Connector {
            wire: self.clone(),
            inner: self.inner.http_connector(settings, components),
        })
    }
}

/// How many items a request writes, or an answer was made of.
fn items_of(body: &[u8]) -> usize {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let scanned = body["ScannedCount"].as_u64().and_then(|count| usize::try_from(count).ok());
    let of_tables = |tables: &serde_json::Value| {
        tables
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(_, items)| items.as_array())
            .flatten()
            .count()
    };
    body["TransactItems"].as_array().map_or(0, Vec::len)
        + scanned.unwrap_or_default()
        + of_tables(&body["Responses"])
        + usize::from(body["Item"].is_object())
}

#[derive(Debug)]
struct Connector {
    wire: Wire,
    inner: SharedHttpConnector,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let fault = self.wire.take(&request);
        let inner = self.inner.clone();
        let written = items_of(request.body().bytes().unwrap_or_default());
        let wire = self.wire.clone();
        HttpConnectorFuture::new(async move {
            let lost = || ConnectorError::io("the connection was cut".into());
            match fault {
                None => {
                    let mut response = inner.call(request).await?;
                    let read = ByteStream::new(response.take_body()).collect().await;
                    let read = read.map_err(|error| ConnectorError::io(error.into()))?.into_bytes();
                    wire.state().items += written + items_of(&read);
                    Ok(response.map(|_| read.clone().into()))
                }
                Some(Fault::Meanwhile(other)) => {
                    other.await;
                    inner.call(request).await
                }
                Some(Fault::LostRequest) => Err(lost()),
                Some(Fault::LostAnswer) => {
                    inner.call(request).await?;
                    Err(lost())
                }
                Some(Fault::Answer(status, body)) => {
                    let status = StatusCode::try_from(status).expect("a status");
                    Ok(HttpResponse::new(status, body.into()))
                }
            }
        })
    }
}
