//! Lambda: the functions, invoked in process.

use std::{collections::BTreeMap, sync::Arc};

use axum::body::Body;
use futures::future::BoxFuture;
use http::{HeaderValue, Response, StatusCode, request::Parts};
use lambda_runtime::Diagnostic;
use percent_encoding::percent_decode_str;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use stepwes_cloud::invocation::Invocation;
use stepwes_core::step::error_type;
use tracing::Instrument as _;
use uuid::Uuid;

use crate::{
    arn,
    aws_error::{AwsError, FUNCTION_ERROR, answer},
    faults::Injector,
};

/// The names of the functions that are invoked; the API functions are behind the public port, and
/// submit is both.
pub(crate) mod name {
    pub(crate) const ADVANCE: &str = "stepwes-advance";
    pub(crate) const COLLECT: &str = "stepwes-collect";
    pub(crate) const RECONCILE: &str = "stepwes-reconcile";
    pub(crate) const REPORT: &str = "stepwes-report";
    pub(crate) const SUBMIT: &str = "stepwes-submit";
}

const PATH: &str = "/2015-03-31/functions/";
const PATH_END: &str = "/invocations";

/// How a function failed, as Lambda tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FunctionError {
    pub(crate) error_type: String,
    pub(crate) error_message: String,
}

/// A function.
pub(crate) type Handler =
    Arc<dyn Fn(Value) -> BoxFuture<'static, Result<Value, FunctionError>> + Send + Sync>;

/// The functions by their names.
#[derive(Default)]
pub(crate) struct Functions {
    handlers: BTreeMap<&'static str, Handler>,
    /// Who kills functions, where that is asked for.
    faults: Option<Arc<Injector>>,
}

/// A function of a typed event and answer, as the Lambda runtime would run it.
pub(crate) fn handler<E, O, X, F, A>(function: F) -> Handler
where
    E: DeserializeOwned,
    O: Serialize,
    X: Into<Diagnostic> + 'static,
    F: Fn(E) -> A + Send + Sync + 'static,
    A: Future<Output = Result<O, X>> + Send + 'static,
{
    Arc::new(move |event| {
        let internal = |what: &str, error: serde_json::Error| FunctionError {
            error_type: error_type::INTERNAL.to_owned(),
            error_message: format!("{what}: {error}"),
        };
        let work = serde_json::from_value::<E>(event).map(&function);
        Box::pin(async move {
            let done = work
                .map_err(|error| {
                    internal("the event is not of the form that this function takes", error)
                })?
                .await;
            match done {
                Ok(output) => serde_json::to_value(output)
                    .map_err(|error| internal("the answer cannot be written", error)),
                Err(failure) => {
                    let Diagnostic { error_type, error_message } = failure.into();
                    Err(FunctionError { error_type, error_message })
                }
            }
        })
    })
}

impl Functions {
    /// Adds a function.
    #[must_use]
    pub(crate) fn with(mut self, name: &'static str, handler: Handler) -> Self {
        self.handlers.insert(name, handler);
        self
    }

    /// Lets functions be killed.
    #[must_use]
    pub(crate) fn with_faults(self, faults: Option<Arc<Injector>>) -> Self {
        Self { faults, ..self }
    }

    /// Who lets calls go wrong, where that is asked for.
    pub(crate) const fn faults(&self) -> Option<&Arc<Injector>> {
        self.faults.as_ref()
    }

    /// Finds a function by its name or ARN.
    pub(crate) fn find(&self, function: &str) -> Option<&'static str> {
        let name = function.strip_prefix(arn::FUNCTION_PREFIX).unwrap_or(function);
        self.handlers.keys().copied().find(|known| *known == name)
    }

    /// Invokes the function that [`Functions::find`] named.
    pub(crate) async fn invoke(
        &self,
        name: &'static str,
        payload: Value,
    ) -> Result<Value, FunctionError> {
        let exited = |error_message: String| FunctionError {
            error_type: "Runtime.ExitError".to_owned(),
            error_message,
        };
        let Some(handler) = self.handlers.get(name) else {
            return Err(exited(format!("there is no function {name}")));
        };
        let request_id = Uuid::new_v4().to_string();
        let invocation = Invocation::new(name, &request_id, None, &payload);
        let tell = |error: &FunctionError| (error.error_type.clone(), error.error_message.clone());
        let faulted = self.faults.clone().map(|faults| (faults, payload.to_string()));
        let work = handler(payload);
        // In tasks of their own: so that a panic ends the invocation alone, and is told; and so that
        // a caller that hangs up cuts neither short.
        let invoked = async move {
            match faulted {
                None => Some(work.await),
                Some((faults, event)) => faults.invoke(name, event.as_bytes(), work).await,
            }
        };
        let work = async move {
            match tokio::spawn(invoked.in_current_span()).await {
                Ok(Some(done)) => done,
                Ok(None) => {
                    Err(exited("RequestId: 0 Error: Runtime exited: signal: killed".into()))
                }
                Err(_) => Err(exited("the function panicked".to_owned())),
            }
        };
        let whole = tokio::spawn(invocation.logged(tell, work)).await;
        whole.unwrap_or_else(|_| Err(exited("the function was not waited for".to_owned())))
    }
}

/// The function that a request asks to invoke, by name or ARN; none when it asks for another
/// operation.
pub(crate) fn asked_for(path: &str) -> Option<String> {
    let function = path.strip_prefix(PATH)?.strip_suffix(PATH_END)?;
    Some(percent_decode_str(function).decode_utf8_lossy().into_owned())
}

/// Answers one Invoke.
pub(crate) async fn invoke(
    functions: &Functions,
    name: &'static str,
    request: &Parts,
    body: &[u8],
) -> Result<Response<Body>, AwsError> {
    let header = |name: &str| request.headers.get(name).and_then(|value| value.to_str().ok());
    let invalid = |message: &str| AwsError::client("InvalidParameterValueException", message);
    if !matches!(header("x-amz-invocation-type"), None | Some("RequestResponse")) {
        return Err(invalid("InvocationType: the embedded AWS implements RequestResponse only"));
    }
    if !matches!(header("x-amz-log-type"), None | Some("None")) {
        return Err(invalid("LogType: the embedded AWS implements None only"));
    }
    if request.headers.contains_key("x-amz-client-context") {
        return Err(invalid("ClientContext is not implemented by the embedded AWS"));
    }
    if request.uri.query().is_some_and(|query| !query.is_empty()) {
        return Err(invalid("Qualifier is not implemented by the embedded AWS"));
    }
    let payload = serde_json::from_slice(body).map_err(|error| {
        AwsError::client(
            "InvalidRequestContentException",
            format!("Could not parse request body into json: {error}"),
        )
    })?;
    let outcome = functions.invoke(name, payload).await;
    let failed = outcome.is_err();
    let text = match outcome {
        Ok(output) => output,
        Err(error) => json!(error),
    };
    let mut response = answer(StatusCode::OK, "application/json", text.to_string());
    let headers = response.headers_mut();
    headers.insert("x-amz-executed-version", HeaderValue::from_static("$LATEST"));
    if failed {
        headers.insert(FUNCTION_ERROR, HeaderValue::from_static("Unhandled"));
    }
    Ok(response)
}
