//! Errors as the AWS services answer them.

use axum::body::Body;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::json;
use uuid::Uuid;

use crate::{calls::Service, worker::Closed};

/// An error of an AWS service: its code is what SDKs match.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub(crate) struct AwsError {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

impl AwsError {
    /// A mistake of the caller's (400).
    pub(crate) fn client(code: &'static str, message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code, message: message.into() }
    }

    pub(crate) fn forbidden(code: &'static str, message: impl Into<String>) -> Self {
        Self { status: StatusCode::FORBIDDEN, code, message: message.into() }
    }

    /// Something of ours failed; the cause goes to the log, not to the caller.
    pub(crate) fn internal(service: Service, cause: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(%service, error = cause, "the embedded AWS failed");
        let code = match service {
            Service::DynamoDb => "InternalServerError",
            Service::Ecs => "ServerException",
            Service::Lambda => "ServiceException",
            Service::S3 => "InternalError",
            Service::States | Service::Sts => "InternalFailure",
        };
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            code,
            message: "the embedded AWS failed; its log says why".to_owned(),
        }
    }

    /// The operation is not one of those that are embedded.
    pub(crate) fn unknown_operation(service: Service, operation: &str) -> Self {
        let message = format!("{service}:{operation} is not implemented by the embedded AWS");
        match service {
            Service::Sts => Self::client("InvalidAction", message),
            Service::Lambda => {
                Self { status: StatusCode::NOT_FOUND, code: "UnknownOperationException", message }
            }
            _ => Self::client("UnknownOperationException", message),
        }
    }

    /// The answer, in the shape of the service.
    pub(crate) fn response(&self, service: Service) -> Response<Body> {
        let request_id = Uuid::new_v4().to_string();
        let (content_type, body) = match service {
            Service::Sts => (
                "text/xml",
                format!(
                    "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error>\
                     <Type>{}</Type><Code>{}</Code><Message>{}</Message></Error>\
                     <RequestId>{request_id}</RequestId></ErrorResponse>",
                    if self.status.is_server_error() { "Receiver" } else { "Sender" },
                    self.code,
                    xml(&self.message),
                ),
            ),
            Service::S3 => (
                "application/xml",
                format!(
                    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{}</Code>\
                     <Message>{}</Message><RequestId>{request_id}</RequestId></Error>",
                    self.code,
                    xml(&self.message),
                ),
            ),
            Service::Lambda => (
                "application/json",
                json!({
                    "Type": if self.status.is_server_error() { "Service" } else { "User" },
                    "Message": self.message,
                })
                .to_string(),
            ),
            Service::DynamoDb => (
                "application/x-amz-json-1.0",
                json!({
                    "__type": format!("com.amazonaws.dynamodb.v20120810#{}", self.code),
                    "message": self.message,
                })
                .to_string(),
            ),
            Service::Ecs | Service::States => (
                "application/x-amz-json-1.1",
                json!({ "__type": self.code, "message": self.message }).to_string(),
            ),
        };
        let mut response = answer(self.status, content_type, body);
        let headers = response.headers_mut();
        headers.insert("x-amzn-errortype", HeaderValue::from_static(self.code));
        if let Ok(request_id) = HeaderValue::from_str(&request_id) {
            headers.insert("x-amzn-requestid", request_id);
        }
        response
    }
}

impl From<Closed> for AwsError {
    fn from(closed: Closed) -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            code: "ServiceUnavailable",
            message: closed.to_string(),
        }
    }
}

/// A whole answer.
pub(crate) fn answer(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Body>,
) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// The header by which AWS tells a function's error from its answer.
pub(crate) const FUNCTION_ERROR: HeaderName = HeaderName::from_static("x-amz-function-error");

/// Text for an XML element.
pub(crate) fn xml(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
    }
    escaped
}
