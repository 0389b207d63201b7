//! DynamoDB: dynoxide on a SQLite file, called in process.

use std::{io, path::Path, sync::Arc};

use axum::body::Body;
use bytes::Bytes;
use dynoxide::{Database, DynoxideError};
use http::{HeaderValue, Response, StatusCode};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    aws_error::{AwsError, answer},
    calls::Service,
    state_changes::Outbox,
    worker::{Closed, Worker},
};

/// Its file in the server's folder.
pub(crate) const FILE: &str = "dynamodb.sqlite";

/// The operations that stepwes uses.
pub(crate) const OPERATIONS: [&str; 12] = [
    "BatchGetItem",
    "CreateTable",
    "DeleteItem",
    "DescribeTable",
    "DescribeTimeToLive",
    "GetItem",
    "PutItem",
    "Query",
    "TransactGetItems",
    "TransactWriteItems",
    "UpdateItem",
    "UpdateTimeToLive",
];

/// The tables. One thread does the work: SQLite has one writer, and dynoxide one connection.
#[derive(Clone)]
pub(crate) struct DynamoDb {
    worker: Arc<Worker<Database>>,
    database: Database,
    /// Who notes state changes, where they are told.
    outbox: Option<Arc<Outbox>>,
}

impl DynamoDb {
    /// Opens or makes the file.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join(FILE);
        let path = path.to_str().ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "the folder's name is not UTF-8")
        })?;
        let database = Database::new(path).map_err(io::Error::other)?;
        // `synchronous = NORMAL`, a small cache and no memory map: a killed process loses nothing.
        database.disable_bulk_loading().map_err(io::Error::other)?;
        let worker = Worker::start("stepwes-dynamodb", database.clone())?;
        Ok(Self { worker: Arc::new(worker), database, outbox: None })
    }

    /// The same tables, whose state changes are noted from now on by whoever has this.
    pub(crate) fn with_outbox(self, outbox: Arc<Outbox>) -> Self {
        Self { outbox: Some(outbox), ..self }
    }

    /// Answers one request.
    pub(crate) async fn call(
        &self,
        operation: &'static str,
        body: Bytes,
    ) -> Result<Response<Body>, AwsError> {
        // Reading one item takes less than handing it to the thread, and waits for one operation at most.
        let done = if operation == "GetItem" {
            dispatch(&self.database, operation, &body)
        } else {
            let outbox = self.outbox.clone().filter(|_| operation == "TransactWriteItems");
            let job = move |database: &mut Database| match outbox {
                Some(outbox) => outbox.around(&body, || dispatch(database, operation, &body)),
                None => dispatch(database, operation, &body),
            };
            self.worker.call(job).await?
        };
        let (status, text) = match done {
            Ok(text) => (StatusCode::OK, text),
            Err(error) => {
                let error = worded(operation, error);
                let status = StatusCode::from_u16(error.status_code())
                    .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                if status.is_server_error() {
                    tracing::error!(
                        operation,
                        error = &error as &dyn std::error::Error,
                        "DynamoDB failed"
                    );
                }
                (status, error.to_json())
            }
        };
        let checksum = crc32fast::hash(text.as_bytes());
        let mut response = answer(status, "application/x-amz-json-1.0", text);
        response.headers_mut().insert("x-amz-crc32", HeaderValue::from(checksum));
        Ok(response)
    }

    /// Deletes what has expired. Other requests get their turn in between.
    pub(crate) async fn sweep(&self) -> Result<usize, Closed> {
        let database = self.database.clone();
        match tokio::task::spawn_blocking(move || database.sweep_ttl()).await {
            Ok(Ok(deleted)) => Ok(deleted),
            Ok(Err(error)) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "expired items were not swept"
                );
                Ok(0)
            }
            Err(_) => Err(Closed),
        }
    }
}

/// The operation of that name, if it is one of ours.
pub(crate) fn operation(name: &str) -> Option<&'static str> {
    OPERATIONS.into_iter().find(|known| *known == name)
}

fn dispatch(db: &Database, operation: &str, body: &[u8]) -> Result<String, DynoxideError> {
    match operation {
        "BatchGetItem" => write(&db.batch_get_item(read(body)?)?),
        "CreateTable" => write(&db.create_table(read(body)?)?),
        "DeleteItem" => write(&db.delete_item(read(body)?)?),
        "DescribeTable" => write(&db.describe_table(read(body)?)?),
        "DescribeTimeToLive" => write(&db.describe_time_to_live(read(body)?)?),
        "GetItem" => write(&db.get_item(read(body)?)?),
        "PutItem" => write(&db.put_item(read(body)?)?),
        "Query" => write(&db.query(read(body)?)?),
        "TransactGetItems" => write(&db.transact_get_items(read(body)?)?),
        "TransactWriteItems" => write(&db.transact_write_items(read(body)?)?),
        "UpdateItem" => write(&db.update_item(read(body)?)?),
        "UpdateTimeToLive" => write(&db.update_time_to_live(read(body)?)?),
        other => Err(DynoxideError::ValidationException(format!("{other} is not implemented"))),
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, DynoxideError> {
    serde_json::from_slice(body).map_err(|error| {
        let message = error.to_string();
        // dynoxide marks, in front of the message, the class of what its own types refuse.
        for marker in ["VALIDATION_REQUEST:", "VALIDATION_AS_READ:", "VALIDATION:"] {
            if let Some(rest) = message.strip_prefix(marker) {
                return DynoxideError::ValidationException(without_position(rest).to_owned());
            }
        }
        for marker in ["SERIALIZATION_AS_READ:", "SERIALIZATION:"] {
            if let Some(rest) = message.strip_prefix(marker) {
                return DynoxideError::SerializationException(without_position(rest).to_owned());
            }
        }
        if message.contains("missing field") || message.contains("AttributeValue") {
            DynoxideError::ValidationException(message)
        } else {
            DynoxideError::SerializationException(message)
        }
    })
}

/// The message without serde_json's ` at line 1 column 2`.
fn without_position(message: &str) -> &str {
    message.rfind(" at line ").map_or(message, |at| &message[..at])
}

fn write<T: Serialize>(answer: &T) -> Result<String, DynoxideError> {
    serde_json::to_string(answer)
        .map_err(|error| DynoxideError::InternalServerError(error.to_string()))
}

/// DynamoDB frames what it finds wrong with a request to write one item.
fn worded(operation: &str, error: DynoxideError) -> DynoxideError {
    match error {
        DynoxideError::EnvelopedValidation(message)
            if matches!(operation, "PutItem" | "UpdateItem" | "DeleteItem") =>
        {
            DynoxideError::ValidationException(format!("1 validation error detected: {message}"))
        }
        other => other,
    }
}

/// Names the operation of a request that is not embedded.
pub(crate) fn unknown(operation: &str) -> AwsError {
    AwsError::unknown_operation(Service::DynamoDb, operation)
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use stepwes_core::{
        Clock as _, IdGenerator as _, RandomIds, SystemClock,
        caller_token::{CallerToken, SecretDigest},
        resources::Resources,
        run::RequestSummary,
    };
    use stepwes_store::{Created, Idempotency, NewRun, StoredToken};

    use super::*;

    #[tokio::test]
    async fn keys_and_tokens_that_have_expired_are_deleted_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let dynamodb = DynamoDb::open(folder.path()).expect("opened");
        let store = crate::tokens::store(dynamodb.clone());
        store.create_table().await.expect("made");
        let now = SystemClock.now();
        for (name, hours) in [("old", Some(-1)), ("new", Some(1)), ("lasting", None)] {
            let token = CallerToken::generate(name.parse().expect("a name")).expect("randomness");
            let stored = StoredToken {
                name: token.name().clone(),
                owner: "ann".to_owned(),
                groups: Vec::new(),
                digest: SecretDigest::of(&token).expect("randomness"),
                created_at: now,
                expires_at: hours.map(|hours| now + TimeDelta::hours(hours)),
                description: None,
            };
            assert!(store.create_token(&stored).await.expect("kept"));
        }
        let run_id = RandomIds.run_id(now);
        let expires_at = now - TimeDelta::hours(1);
        let (key, fingerprint) = ("a-key".to_owned(), "x".to_owned());
        let new = NewRun {
            run_id,
            owner: "ann".to_owned(),
            summary: RequestSummary::default(),
            resources: Resources::default(),
            destination: None,
            idempotency: Some(Idempotency { key, fingerprint, expires_at }),
            trace: None,
            waits: false,
        };
        assert!(matches!(store.create(new).await.expect("an answer"), Created::New(_)));

        assert_eq!(dynamodb.sweep().await.expect("swept"), 2);
        let left: Vec<_> = store.tokens().await.expect("an answer");
        assert_eq!(left.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["lasting", "new"]);
        assert!(store.get(run_id).await.expect("an answer").is_some());
        assert_eq!(dynamodb.sweep().await.expect("swept"), 0);
    }
}
