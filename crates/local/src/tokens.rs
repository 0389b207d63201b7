//! The callers' tokens of a server's folder, whether a server runs on it or not.

use std::{fmt, path::Path, time::Duration};

use aws_credential_types::Credentials;
use stepwes_cloud::{Aws, aws::Endpoint};
use stepwes_store::RunStore;
use tokio::net::TcpStream;

use crate::{
    arn,
    credentials::{self, Principals},
    dynamodb::{self, DynamoDb},
    folder::Folder,
    in_process::InProcess,
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
    // Nobody looks at the signature.
    let endpoint = Endpoint {
        url: "http://dynamodb".to_owned(),
        region: arn::REGION.to_owned(),
        credentials: Credentials::new("none", "none", None, None, "stepwes-local"),
    };
    Aws::through(InProcess(dynamodb), endpoint).store(arn::TABLE)
}
