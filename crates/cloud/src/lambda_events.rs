//! A function that API Gateway and EventBridge both invoke: which of them it was is told by the
//! event's shape.

use std::{convert::Infallible, fmt::Debug, future::Future};

use axum::Router;
use lambda_http::{Adapter, request::LambdaRequest};
use lambda_runtime::{Diagnostic, Error, LambdaEvent};
use serde::{Deserialize, Deserializer, Serialize, de, de::IgnoredAny};
use serde_json::{Value, value::RawValue};
use tower::ServiceExt as _;

use crate::{
    http::frame,
    lambda::{invocation, keep_bytes, restore_path},
};

/// What the function is invoked with.
#[derive(Debug)]
enum Invocation {
    /// API Gateway's request.
    Request(Box<LambdaRequest>),
    /// Anything else: the handler knows its events.
    Event(Value),
}

impl<'de> Deserialize<'de> for Invocation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// What every request of API Gateway has, and no event of EventBridge.
        #[derive(Deserialize)]
        struct Shape {
            #[serde(rename = "requestContext")]
            request_context: Option<IgnoredAny>,
        }
        // A request holds megabytes: it is read as what it is, once.
        let text = Box::<RawValue>::deserialize(deserializer)?;
        // A list would be read as the fields of a shape, in their order.
        let is_request = text.get().starts_with('{')
            && serde_json::from_str::<Shape>(text.get())
                .is_ok_and(|shape| shape.request_context.is_some());
        if is_request {
            return serde_json::from_str(text.get())
                .map(|request| Self::Request(Box::new(request)))
                .map_err(de::Error::custom);
        }
        serde_json::from_str(text.get()).map(Self::Event).map_err(de::Error::custom)
    }
}

/// What the function answers.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Answer<R, O> {
    Response(R),
    Outcome(O),
}

/// Serves the routes of an API function, in their frame, to API Gateway, and hands every other
/// event to `handler`.
///
/// # Errors
/// When the Lambda runtime cannot be reached.
pub async fn run_api_and_events<O, X, F, A>(router: Router, handler: F) -> Result<(), Error>
where
    O: Serialize + Debug,
    X: Into<Diagnostic>,
    F: Fn(Value) -> A,
    A: Future<Output = Result<O, X>>,
{
    let service = frame(router).map_request(restore_path).map_response(keep_bytes);
    let api = Adapter::from(service);
    let handler = &handler;
    lambda_runtime::run(lambda_runtime::service_fn(move |event: LambdaEvent<Invocation>| {
        let api = api.clone();
        async move {
            let LambdaEvent { payload, context } = event;
            match payload {
                Invocation::Request(request) => {
                    let answered = Box::pin(api.oneshot(LambdaEvent::new(*request, context))).await;
                    let response = answered.unwrap_or_else(|never: Infallible| match never {});
                    Ok(Answer::Response(response))
                }
                Invocation::Event(event) => {
                    let invocation = invocation(&context, &event);
                    let outcome = async { handler(event).await.map_err(Into::<Diagnostic>::into) };
                    let tell = |failure: &Diagnostic| {
                        (failure.error_type.clone(), failure.error_message.clone())
                    };
                    invocation.logged(tell, outcome).await.map(Answer::Outcome)
                }
            }
        }
    }))
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_events_are_told_apart_by_their_shape() {
        let request = include_str!("../../../events/submit/run-workflow-json.json");
        let read = serde_json::from_str(request).expect("an invocation");
        assert!(matches!(read, Invocation::Request(_)), "{read:?}");
        for event in [r#"{"source": "aws.s3", "detail": {}}"#, "{}", "[1]", "null"] {
            let read = serde_json::from_str(event).expect("an invocation");
            assert!(matches!(read, Invocation::Event(_)), "{read:?}");
        }
        // A request that cannot be read is not taken for an event.
        let broken = r#"{"requestContext": {"http": 1}}"#;
        assert!(serde_json::from_str::<Invocation>(broken).is_err());
    }
}
