//! How each service says, or does not say, that something went wrong.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::{Buf as _, Bytes};
use http::{Response, StatusCode, header};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use serde_json::{Value, json};

use super::Fault;
use crate::{
    aws_error::{AwsError, answer},
    calls::Service,
    gateway,
    sigv4::SignatureError,
};

/// What every injected error says.
pub const INJECTED: &str = "this fault was injected";

/// Marks an answer that is none: the connection is closed in its place.
#[derive(Clone, Copy, Debug)]
struct Unanswered;

/// Whether the connection is to be closed in place of this answer.
pub(crate) fn is_unanswered<B>(response: &Response<B>) -> bool {
    response.extensions().get::<Unanswered>().is_some()
}

/// No answer. For whoever looks at it all the same it is an error.
pub(super) fn unanswered() -> Response<Body> {
    let mut none = answer(StatusCode::GATEWAY_TIMEOUT, "text/plain", INJECTED);
    none.extensions_mut().insert(Unanswered);
    none
}

fn known(name: &str) -> Option<Service> {
    [Service::DynamoDb, Service::Ecs, Service::Lambda, Service::S3, Service::States, Service::Sts]
        .into_iter()
        .find(|service| service.signing_name() == name)
}

/// The answer of a service that refuses or fails; none for faults that are no answer. `body` is the
/// request's, where it is known.
pub(super) fn error(
    service: &str,
    operation: &str,
    fault: Fault,
    body: &[u8],
) -> Option<Response<Body>> {
    let Some(service) = known(service) else {
        // API Gateway, and the metadata endpoint.
        let (status, message) = match fault {
            Fault::Throttled => (StatusCode::TOO_MANY_REQUESTS, "Too Many Requests"),
            Fault::Failed(_) => (StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable"),
            _ => return None,
        };
        return Some(answer(status, "application/json", json!({"message": message}).to_string()));
    };
    let refusal = |status, code| AwsError { status, code, message: INJECTED.to_owned() };
    let error = match fault {
        Fault::Throttled => match service {
            Service::DynamoDb if operation == "TransactWriteItems" => {
                return Some(conflict(body));
            }
            Service::DynamoDb => {
                refusal(StatusCode::BAD_REQUEST, "ProvisionedThroughputExceededException")
            }
            Service::Ecs | Service::States => {
                refusal(StatusCode::BAD_REQUEST, "ThrottlingException")
            }
            Service::Lambda => refusal(StatusCode::TOO_MANY_REQUESTS, "TooManyRequestsException"),
            Service::S3 => refusal(StatusCode::SERVICE_UNAVAILABLE, "SlowDown"),
            Service::Sts => refusal(StatusCode::BAD_REQUEST, "Throttling"),
        },
        Fault::Failed(_) => refusal(
            StatusCode::INTERNAL_SERVER_ERROR,
            match service {
                Service::DynamoDb => "InternalServerError",
                Service::Ecs => "ServerException",
                Service::Lambda => "ServiceException",
                Service::S3 => "InternalError",
                Service::States | Service::Sts => "InternalFailure",
            },
        ),
        Fault::Skewed if service == Service::S3 => {
            refusal(StatusCode::FORBIDDEN, "RequestTimeTooSkewed")
        }
        Fault::Skewed => gateway::refused(service, SignatureError::Expired),
        _ => return None,
    };
    Some(error.response(service))
}

/// What DynamoDB answers when another transaction is at one of the items.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html>
fn conflict(request: &[u8]) -> Response<Body> {
    let request: Value = serde_json::from_slice(request).unwrap_or_default();
    let items = request["TransactItems"].as_array().map_or(1, Vec::len);
    let reasons: Vec<_> = (0..items)
        .map(|item| match item {
            0 => json!({"Code": "TransactionConflict", "Message": INJECTED}),
            _ => json!({"Code": "None"}),
        })
        .collect();
    let body = json!({
        "__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
        "message": "Transaction cancelled, please refer cancellation reasons for specific reasons",
        "CancellationReasons": reasons,
    });
    answer(StatusCode::BAD_REQUEST, "application/x-amz-json-1.0", body.to_string())
}

/// The answer up to its middle, where the connection breaks; none at all when it has no two bytes.
pub(super) fn torn(response: Response<Body>) -> Response<Body> {
    let announced = response
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse().ok());
    let length = response.body().size_hint().exact().or(announced).unwrap_or_default();
    if length < 2 {
        return unanswered();
    }
    response.map(|body| torn_body(body, length / 2))
}

/// A body that breaks after `left` bytes, or at its end.
pub(super) fn torn_body(body: Body, left: u64) -> Body {
    Body::new(Torn { body, left })
}

struct Torn {
    body: Body,
    left: u64,
}

impl HttpBody for Torn {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let broken = || {
            let broken = io::Error::new(io::ErrorKind::ConnectionReset, INJECTED);
            Poll::Ready(Some(Err(axum::Error::new(broken))))
        };
        if self.left == 0 {
            return broken();
        }
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                let Ok(mut data) = frame.into_data() else { return broken() };
                let most = usize::try_from(self.left).unwrap_or(usize::MAX);
                data.truncate(most);
                self.left -= data.remaining() as u64;
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Poll::Ready(None) => broken(),
            other => other,
        }
    }

    fn size_hint(&self) -> SizeHint {
        // As announced: nobody is to know before it breaks.
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::BodyExt as _;

    use super::*;
    use crate::faults::When;

    const ALL: [Fault; 13] = [
        Fault::Throttled,
        Fault::Failed(When::Before),
        Fault::Failed(When::After),
        Fault::Unanswered(When::Before),
        Fault::Unanswered(When::After),
        Fault::Late(Duration::ZERO),
        Fault::Slow(Duration::ZERO),
        Fault::TornAnswer,
        Fault::TornRequest,
        Fault::Skewed,
        Fault::Dies(When::Before),
        Fault::Dies(When::After),
        Fault::Twice,
    ];

    #[test]
    fn no_injected_answer_looks_like_success() {
        for service in
            ["apigateway", "dynamodb", "ecs", "lambda", "metadata", "s3", "states", "sts"]
        {
            let answers: Vec<_> = ALL
                .into_iter()
                .filter_map(|fault| error(service, "TransactWriteItems", fault, b"{}"))
                .collect();
            assert!(answers.len() >= 3, "{service}");
            for answer in answers {
                assert!(answer.status().as_u16() >= 400, "{service}: {}", answer.status());
            }
        }
        assert!(unanswered().status().is_server_error());
    }

    #[tokio::test]
    async fn a_torn_answer_has_the_first_half_and_breaks() {
        let torn = torn(answer(StatusCode::OK, "text/plain", "0123456789"));
        assert!(!is_unanswered(&torn));
        let mut body = torn.into_body();
        let first = body.frame().await.expect("a frame").expect("data");
        assert_eq!(first.into_data().expect("data"), "01234");
        assert!(body.frame().await.expect("a frame").is_err());
        // Also when the body turns out to be shorter than it was announced.
        let mut early = torn_body(Body::from("ab"), 5);
        assert!(early.frame().await.expect("a frame").is_ok());
        assert!(early.frame().await.expect("a frame").is_err());
    }

    #[test]
    fn an_answer_without_a_middle_is_none() {
        for body in ["", "x"] {
            assert!(is_unanswered(&torn(answer(StatusCode::OK, "text/plain", body))));
        }
    }
}
