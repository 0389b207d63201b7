//! The callers' tokens of a server's folder, whether a server runs on it or not.

use std::{fmt, path::Path, sync::Arc, time::Duration};

use aws_sdk_dynamodb::config::{
    BehaviorVersion, Credentials, HttpClient, Region, RuntimeComponents, SharedHttpClient,
    http::{HttpRequest, HttpResponse},
};
use aws_smithy_runtime_api::{
    client::{
        http::{HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector},
        result::ConnectorError,
    },
    http::StatusCode,
};
use aws_smithy_types::body::SdkBody;
use axum::{body::Body, response::IntoResponse as _};
use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt as _;
use stepwes_core::SystemClock;
use stepwes_store::RunStore;
use tokio::net::TcpStream;

use crate::{
    arn,
    calls::Service,
    credentials::{self, Principals},
    dynamodb::{self, DynamoDb},
    folder::Folder,
    options::ServeError,
    server::aws_at,
};

/// The tokens of a folder.
pub struct FolderTokens {
    /// The table that they are in.
    pub store: RunStore,
    /// Locked for as long as the table is used, when no server has it.
    _folder: Option<Folder>,
}

impl FolderTokens {
    /// Opens the folder, and makes it when it is not there. Where a server runs on it, that one is
    /// asked.
    ///
    /// # Errors
    /// [`ServeError`], which says what is wrong and what to do.
    pub async fn open(dir: &Path) -> Result<Self, ServeError> {
        match Folder::open_within(dir, Duration::ZERO).await {
            Ok(folder) => Self::of(folder).await,
            Err(ServeError::InUse { dir, pid }) => match running(&dir).await? {
                Some(store) => Ok(Self { store, _folder: None }),
                // What holds the lock is ending, or only starting.
                None => match Folder::open(&dir).await {
                    Ok(folder) => Self::of(folder).await,
                    Err(ServeError::InUse { .. }) => match running(&dir).await? {
                        Some(store) => Ok(Self { store, _folder: None }),
                        None => Err(ServeError::InUse { dir, pid }),
                    },
                    Err(error) => Err(error),
                },
            },
            Err(error) => Err(error),
        }
    }

    /// The same, for a folder that is there.
    ///
    /// # Errors
    /// [`ServeError::NoFolder`] when it is not; else as [`FolderTokens::open`].
    pub async fn open_existing(dir: &Path) -> Result<Self, ServeError> {
        if dir.join(dynamodb::FILE).exists() {
            Self::open(dir).await
        } else {
            Err(ServeError::NoFolder { dir: dir.to_owned() })
        }
    }

    async fn of(folder: Folder) -> Result<Self, ServeError> {
        let unusable = |error: std::io::Error| ServeError::File {
            file: folder.path.join(dynamodb::FILE),
            source: error.into(),
        };
        let store = store(DynamoDb::open(&folder.path).map_err(unusable)?);
        store.create_table().await.map_err(|error| ServeError::Internal(error.into()))?;
        Ok(Self { store, _folder: Some(folder) })
    }
}

impl fmt::Debug for FolderTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FolderTokens")
    }
}

/// The table of the server that runs on the folder; `None` when none listens.
async fn running(dir: &Path) -> Result<Option<RunStore>, ServeError> {
    let Ok(port) = Folder::port_of(dir) else { return Ok(None) };
    if TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        return Ok(None);
    }
    let principals = Principals::load(dir).map_err(|error| ServeError::File {
        file: dir.join(credentials::FILE),
        source: error.into(),
    })?;
    let aws = aws_at(&format!("http://127.0.0.1:{port}"), &principals);
    Ok(Some(aws.store(arn::TABLE)))
}

/// The run table of a folder that this process has open, reached without a port.
pub(crate) fn store(dynamodb: DynamoDb) -> RunStore {
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(arn::REGION))
        .credentials_provider(Credentials::new("none", "none", None, None, "stepwes-local"))
        .http_client(InProcess { dynamodb })
        .build();
    let client = aws_sdk_dynamodb::Client::from_conf(config);
    RunStore::new(client, arn::TABLE, Arc::new(SystemClock))
}

/// The SDK's way to a DynamoDB in the same process.
#[derive(Clone)]
struct InProcess {
    dynamodb: DynamoDb,
}

impl fmt::Debug for InProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InProcess")
    }
}

impl HttpClient for InProcess {
    fn http_connector(
        &self,
        _: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl From<InProcess> for SharedHttpClient {
    fn from(client: InProcess) -> Self {
        Self::new(client)
    }
}

impl HttpConnector for InProcess {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let dynamodb = self.dynamodb.clone();
        HttpConnectorFuture::new(async move {
            let broken = |why: String| ConnectorError::other(why.into(), None);
            let target = request.headers().get("x-amz-target").unwrap_or_default();
            let asked = target.rsplit('.').next().unwrap_or_default();
            let body = request.body().bytes().map(Bytes::copy_from_slice).unwrap_or_default();
            let answered = match dynamodb::operation(asked) {
                Some(operation) => dynamodb.call(operation, body).await,
                None => Err(dynamodb::unknown(asked)),
            };
            let response: Response<Body> =
                answered.unwrap_or_else(|error| error.response(Service::DynamoDb)).into_response();
            let (parts, body) = response.into_parts();
            let body = body.collect().await.map_err(|error| broken(error.to_string()))?.to_bytes();
            let status = StatusCode::try_from(parts.status.as_u16())
                .map_err(|error| broken(error.to_string()))?;
            Ok(HttpResponse::new(status, SdkBody::from(body)))
        })
    }
}
