//! The internal server: every AWS service on one loopback port, told apart by the request.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use chrono::Utc;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::{Value, json};
use url::form_urlencoded;

use crate::{
    arn,
    aws_error::{AwsError, answer},
    calls::{Calls, Service},
    credentials::{Principal, Principals},
    dynamodb::{self, DynamoDb},
    ecs::{self, Ecs},
    faults::{Injector, s3_operation},
    in_process::Answer,
    lambda::{self, Functions, name},
    s3::S3Endpoint,
    sigv4::{Presented, SignatureError},
    states::{self, States},
    sts::Sts,
};

const DYNAMODB_TARGET: &str = "DynamoDB_20120810.";
const STATES_TARGET: &str = "AWSStepFunctions.";
const ECS_TARGET: &str = "AmazonEC2ContainerServiceV20141113.";
const METADATA_PATH: &str = "/task/";

/// Everything that a request may want.
pub(crate) struct Gateway {
    pub(crate) principals: Principals,
    pub(crate) calls: Arc<Calls>,
    pub(crate) dynamodb: DynamoDb,
    pub(crate) s3: S3Endpoint,
    pub(crate) sts: Sts,
    pub(crate) ecs: Arc<Ecs>,
    pub(crate) states: Arc<States>,
    pub(crate) functions: Arc<Functions>,
    /// Who lets calls go wrong, where that is asked for.
    pub(crate) faults: Option<Arc<Injector>>,
}

/// What a request asks for, before it is known who asks.
enum Asked {
    DynamoDb(String),
    Ecs(String),
    States(String),
    Lambda(Option<String>),
    Sts,
    Metadata,
    S3,
}

impl Asked {
    fn by(request: &Parts) -> Self {
        let path = request.uri.path();
        if let Some(target) =
            request.headers.get("x-amz-target").and_then(|target| target.to_str().ok())
        {
            let of = |prefix: &str| target.strip_prefix(prefix).map(str::to_owned);
            if let Some(operation) = of(DYNAMODB_TARGET) {
                return Self::DynamoDb(operation);
            }
            if let Some(operation) = of(STATES_TARGET) {
                return Self::States(operation);
            }
            if let Some(operation) = of(ECS_TARGET) {
                return Self::Ecs(operation);
            }
        }
        if path.starts_with("/2015-03-31/") {
            let function = (request.method == Method::POST).then(|| lambda::asked_for(path));
            return Self::Lambda(function.flatten());
        }
        if path.starts_with(METADATA_PATH) {
            return Self::Metadata;
        }
        let is_form = request.headers.get(header::CONTENT_TYPE).is_some_and(|value| {
            value.as_bytes().starts_with(b"application/x-www-form-urlencoded")
        });
        if request.method == Method::POST && path == "/" && is_form {
            return Self::Sts;
        }
        Self::S3
    }

    /// The service, and the most bytes that it takes (as AWS); neither for what streams.
    const fn service(&self) -> Option<(Service, usize)> {
        Some(match self {
            Self::DynamoDb(_) => (Service::DynamoDb, 16 << 20),
            Self::Ecs(_) => (Service::Ecs, 1 << 20),
            Self::States(_) => (Service::States, 1 << 20),
            Self::Lambda(_) => (Service::Lambda, 6 << 20),
            Self::Sts => (Service::Sts, 64 << 10),
            Self::Metadata | Self::S3 => return None,
        })
    }
}

impl Gateway {
    /// Answers one request, or lets it go wrong.
    pub(crate) async fn call(self: Arc<Self>, request: Request<Body>) -> Response<Body> {
        let Some(faults) = self.faults.clone() else { return self.answer(request).await };
        let (parts, body) = request.into_parts();
        let asked = Asked::by(&parts);
        let request = Request::from_parts(parts, body);
        let (service, operation) = match &asked {
            Asked::DynamoDb(operation) => ("dynamodb", operation.as_str()),
            Asked::Ecs(operation) => ("ecs", operation.as_str()),
            Asked::States(operation) => ("states", operation.as_str()),
            Asked::Lambda(function) => ("lambda", function.as_deref().unwrap_or_default()),
            Asked::Sts => ("sts", "AssumeRole"),
            Asked::Metadata => ("metadata", "task"),
            Asked::S3 => ("s3", s3_operation(&request)),
        };
        let carry_out = move |request| {
            let gateway = Arc::clone(&self);
            async move { gateway.answer(request).await }
        };
        faults.around(service, operation, request, carry_out).await
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let asked = Asked::by(&parts);
        let Some((service, limit)) = asked.service() else {
            return match asked {
                Asked::Metadata => self.metadata(parts.uri.path()),
                _ => self.s3(Request::from_parts(parts, body)).await,
            };
        };
        let answered = async {
            let body = read(body, limit).await?;
            let principal = self.authenticate(service, &parts, &body)?;
            self.dispatch(asked, principal, &parts, body).await
        };
        answered.await.unwrap_or_else(|error: AwsError| {
            tracing::debug!(%service, %error, "an AWS request was refused");
            error.response(service)
        })
    }

    async fn dispatch(
        &self,
        asked: Asked,
        principal: Principal,
        parts: &Parts,
        body: Bytes,
    ) -> Result<Response<Body>, AwsError> {
        match asked {
            Asked::DynamoDb(operation) => {
                let known = dynamodb::operation(&operation);
                let known = known.ok_or_else(|| dynamodb::unknown(&operation))?;
                self.enter(Service::DynamoDb, known, principal)?;
                self.dynamodb.call(known, body).await
            }
            Asked::States(operation) => {
                let known = states::operation(&operation)
                    .ok_or_else(|| AwsError::unknown_operation(Service::States, &operation))?;
                self.enter(Service::States, known, principal)?;
                states::call(&self.states, known, &body)
                    .await
                    .map(|value| json_answer("application/x-amz-json-1.0", &value))
            }
            Asked::Ecs(operation) => {
                let known = ecs::operation(&operation)
                    .ok_or_else(|| AwsError::unknown_operation(Service::Ecs, &operation))?;
                self.enter(Service::Ecs, known, principal)?;
                ecs::call(&self.ecs, known, &body)
                    .await
                    .map(|value| json_answer("application/x-amz-json-1.1", &value))
            }
            Asked::Lambda(None) => {
                Err(AwsError::unknown_operation(Service::Lambda, parts.uri.path()))
            }
            Asked::Lambda(Some(function)) => {
                let found = self.functions.find(&function);
                if principal != Principal::Service && found != Some(name::REPORT) {
                    return Err(denied(Service::Lambda, "InvokeFunction"));
                }
                let found = found.ok_or_else(|| AwsError {
                    status: StatusCode::NOT_FOUND,
                    code: "ResourceNotFoundException",
                    message: format!("Function not found: {function}"),
                })?;
                self.calls.enter(Service::Lambda, "Invoke");
                lambda::invoke(&self.functions, found, parts, &body).await
            }
            Asked::Sts => {
                let mut form: Vec<(String, String)> =
                    form_urlencoded::parse(&body).into_owned().collect();
                let at = form.iter().position(|(name, _)| name == "Action");
                let action = at.map(|at| form.swap_remove(at).1).unwrap_or_default();
                if action != "AssumeRole" {
                    return Err(AwsError::unknown_operation(Service::Sts, &action));
                }
                self.enter(Service::Sts, "AssumeRole", principal)?;
                self.sts.assume_role(&form, Utc::now()).await
            }
            Asked::Metadata | Asked::S3 => Err(AwsError::unknown_operation(Service::S3, "")),
        }
    }

    /// Lets a principal call an operation, or not; every call but those of S3 and Invoke passes
    /// here.
    fn enter(
        &self,
        service: Service,
        operation: &str,
        principal: Principal,
    ) -> Result<(), AwsError> {
        if principal != Principal::Service {
            return Err(denied(service, operation));
        }
        self.calls.enter(service, operation);
        Ok(())
    }

    /// Who signed the request.
    fn authenticate(
        &self,
        service: Service,
        parts: &Parts,
        body: &[u8],
    ) -> Result<Principal, AwsError> {
        let refused = |error: SignatureError| refused(service, error);
        let presented = Presented::read(&parts.headers).map_err(refused)?;
        let Some((principal, secret)) = self.principals.find(presented.access_key) else {
            // Those of STS reach S3 alone, and are not told more here.
            return Err(unknown_key(service));
        };
        presented
            .verify(parts, body, service.signing_name(), secret, Utc::now())
            .map_err(refused)?;
        Ok(principal)
    }

    async fn s3(&self, request: Request<Body>) -> Response<Body> {
        let by_task = Presented::read(request.headers())
            .is_ok_and(|presented| presented.access_key == self.principals.task.access_key_id);
        if by_task {
            let message = "Access Denied: the task's files are reached with the credentials that \
                           report gives it";
            return AwsError::forbidden("AccessDenied", message).response(Service::S3);
        }
        self.s3.call(request).await
    }

    /// The ECS task metadata endpoint, version 4, as far as we read it. The id in the path is the
    /// task's secret.
    /// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-metadata-endpoint-v4.html>
    fn metadata(&self, path: &str) -> Response<Body> {
        let rest = path.strip_prefix(METADATA_PATH).unwrap_or_default();
        let (id, wants_task) = match rest.split_once('/') {
            None => (rest, false),
            Some((id, "task")) => (id, true),
            Some(_) => ("", false),
        };
        let Some(task) = self.ecs.by_metadata_id(id) else {
            return answer(StatusCode::NOT_FOUND, "application/json", "{}");
        };
        let container = json!({
            "DockerId": task.id,
            "Name": "engine",
            "DesiredStatus": "RUNNING",
            "KnownStatus": "RUNNING",
            "Type": "NORMAL",
        });
        let value = if wants_task {
            json!({
                "Cluster": arn::CLUSTER,
                "TaskARN": task.arn(),
                "Family": arn::TASK_FAMILY,
                "Revision": "1",
                "DesiredStatus": "RUNNING",
                "KnownStatus": "RUNNING",
                "LaunchType": "EXTERNAL",
                "Containers": [container],
            })
        } else {
            container
        };
        json_answer("application/json", &value)
    }
}

/// The tables alone, for whoever has the folder open: nobody looks at the signature.
impl Answer for DynamoDb {
    async fn answer(self, request: Request<Body>) -> Option<Response<Body>> {
        let (parts, body) = request.into_parts();
        let asked = Asked::by(&parts);
        let answered = async {
            let (Asked::DynamoDb(operation), Some((_, limit))) = (&asked, asked.service()) else {
                return Err(AwsError::unknown_operation(Service::DynamoDb, parts.uri.path()));
            };
            let known = dynamodb::operation(operation);
            let known = known.ok_or_else(|| dynamodb::unknown(operation))?;
            self.call(known, read(body, limit).await?).await
        };
        Some(answered.await.unwrap_or_else(|error| error.response(Service::DynamoDb)))
    }
}

fn json_answer(content_type: &'static str, value: &Value) -> Response<Body> {
    answer(StatusCode::OK, content_type, value.to_string())
}

async fn read(body: Body, limit: usize) -> Result<Bytes, AwsError> {
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(AwsError {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            code: "RequestTooLargeException",
            message: format!("the request has more than {limit} bytes"),
        }),
        Err(error) => Err(AwsError::client("RequestAbortedException", error.to_string())),
    }
}

fn denied(service: Service, operation: &str) -> AwsError {
    let code = match service {
        Service::Sts | Service::S3 => "AccessDenied",
        _ => "AccessDeniedException",
    };
    AwsError::forbidden(code, format!("not authorized to perform: {service}:{operation}"))
}

fn unknown_key(service: Service) -> AwsError {
    let code = match service {
        Service::Sts => "InvalidClientTokenId",
        Service::S3 => "InvalidAccessKeyId",
        _ => "UnrecognizedClientException",
    };
    AwsError::forbidden(code, "The security token included in the request is invalid.")
}

pub(crate) fn refused(service: Service, error: SignatureError) -> AwsError {
    let is_sts = service == Service::Sts;
    let code = match error {
        SignatureError::Missing if is_sts => "MissingAuthenticationToken",
        SignatureError::Missing => "MissingAuthenticationTokenException",
        SignatureError::Incomplete(_) if is_sts => "IncompleteSignature",
        SignatureError::Incomplete(_) => "IncompleteSignatureException",
        SignatureError::Mismatch | SignatureError::Expired | SignatureError::Scope if is_sts => {
            "SignatureDoesNotMatch"
        }
        SignatureError::Mismatch | SignatureError::Expired | SignatureError::Scope => {
            "InvalidSignatureException"
        }
    };
    AwsError::forbidden(code, error.to_string())
}

/// Whether a request carries a presigned S3 signature in its query.
pub(crate) fn is_presigned(query: Option<&str>) -> bool {
    query.is_some_and(|query| {
        query.split('&').any(|parameter| parameter.starts_with("X-Amz-Signature="))
    })
}

/// Makes a presigned request as it was signed: for `host`, and without a second signature.
pub(crate) fn as_signed(headers: &mut HeaderMap, host: &HeaderValue) {
    headers.remove(header::AUTHORIZATION);
    headers.insert(header::HOST, host.clone());
}
