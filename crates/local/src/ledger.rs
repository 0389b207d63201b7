//! `aws.sqlite`: what the embedded AWS must still know after `kill -9`: executions, ECS tasks,
//! temporary credentials, and which objects EventBridge has told of.
//!
//! SQLite in WAL mode with `synchronous = NORMAL`: a killed process loses nothing, a power cut may
//! lose the last moments but never corrupts. [`crate::s3`] says what holds of the objects.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::{
    ecs::Task,
    worker::{Closed, Worker},
};

/// Its file in the server's folder.
pub(crate) const FILE: &str = "aws.sqlite";

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS executions (
    name TEXT PRIMARY KEY,
    input TEXT NOT NULL,
    status TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    stopped_at INTEGER,
    output TEXT,
    error TEXT,
    cause TEXT,
    state TEXT,
    definition TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS definitions (
    hash TEXT PRIMARY KEY,
    text TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS running_executions ON executions (name) WHERE status = 'RUNNING';
CREATE INDEX IF NOT EXISTS ended_executions ON executions (stopped_at)
    WHERE stopped_at IS NOT NULL;
CREATE TABLE IF NOT EXISTS tasks (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    token TEXT UNIQUE,
    stopped_at INTEGER,
    task TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS live_tasks ON tasks (seq) WHERE stopped_at IS NULL;
CREATE INDEX IF NOT EXISTS stopped_tasks ON tasks (stopped_at) WHERE stopped_at IS NOT NULL;
CREATE TABLE IF NOT EXISTS temporary_credentials (
    access_key TEXT PRIMARY KEY,
    credential TEXT NOT NULL,
    expires_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS told_objects (
    key TEXT PRIMARY KEY,
    version TEXT NOT NULL
) WITHOUT ROWID;
";

/// Why the ledger could not be read or written.
#[derive(Debug, Error)]
pub(crate) enum LedgerError {
    #[error("aws.sqlite: {0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error("aws.sqlite holds what cannot be read: {0}")]
    Codec(#[from] serde_json::Error),
    #[error(transparent)]
    Closed(#[from] Closed),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// A row of `executions`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ExecutionRow {
    pub(crate) name: String,
    pub(crate) input: String,
    /// As Step Functions names it: `RUNNING`, `SUCCEEDED`, …
    pub(crate) status: String,
    pub(crate) started_at: DateTime<Utc>,
    pub(crate) stopped_at: Option<DateTime<Utc>>,
    pub(crate) output: Option<String>,
    pub(crate) error: Option<String>,
    pub(crate) cause: Option<String>,
    /// The interpreter's state as JSON while it runs.
    pub(crate) state: Option<String>,
    /// The definition of its state machine, which it keeps whatever machine later servers have.
    pub(crate) definition: Option<Arc<str>>,
}

/// A row of `temporary_credentials`.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct CredentialRow {
    pub(crate) access_key: String,
    pub(crate) secret_key: String,
    pub(crate) session_token: String,
    /// The session policy, as it was given.
    pub(crate) policy: String,
    pub(crate) expires_at: DateTime<Utc>,
}

/// The file, on its own thread.
#[derive(Debug)]
pub(crate) struct Ledger(Worker<Connection>);

impl Ledger {
    /// Opens or makes the file.
    pub(crate) fn open(dir: &Path) -> Result<Self, LedgerError> {
        let connection = Connection::open(dir.join(FILE))?;
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        // KiB, negative by SQLite's convention.
        connection.pragma_update(None, "cache_size", -1024)?;
        connection.execute_batch(SCHEMA)?;
        add_missing_column(&connection)?;
        Ok(Self(Worker::start("stepwes-ledger", connection)?))
    }

    async fn call<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection) -> Result<R, LedgerError> + Send + 'static,
    ) -> Result<R, LedgerError> {
        self.0.call(job).await?
    }

    /// Adds an execution unless there is one of that name; gives the one there is.
    pub(crate) async fn add_execution(
        &self,
        row: ExecutionRow,
    ) -> Result<Option<ExecutionRow>, LedgerError> {
        self.call(move |db| {
            let db = db.transaction()?;
            let definition = row.definition.as_deref().map(|text| (hash(text), text));
            if let Some((hash, text)) = &definition {
                db.prepare_cached(
                    "INSERT INTO definitions VALUES (?1, ?2) ON CONFLICT DO NOTHING",
                )?
                .execute(params![hash, text])?;
            }
            let added = db
                .prepare_cached(
                    "INSERT INTO executions (name, input, status, started_at, state, definition)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING",
                )?
                .execute(params![
                    row.name,
                    row.input,
                    row.status,
                    row.started_at.timestamp_millis(),
                    row.state,
                    definition.map(|(hash, _)| hash)
                ])?;
            if added == 0 {
                return find_execution(&db, &row.name);
            }
            db.commit()?;
            Ok(None)
        })
        .await
    }

    /// Records how far a running execution is.
    pub(crate) async fn save_execution(
        &self,
        name: String,
        state: String,
    ) -> Result<(), LedgerError> {
        self.call(move |db| {
            db.prepare_cached("UPDATE executions SET state = ?2 WHERE name = ?1")?
                .execute(params![name, state])?;
            Ok(())
        })
        .await
    }

    /// Records how an execution ended.
    pub(crate) async fn end_execution(&self, row: ExecutionRow) -> Result<(), LedgerError> {
        self.call(move |db| {
            db.prepare_cached(
                "UPDATE executions SET status = ?2, stopped_at = ?3, output = ?4, error = ?5,
                 cause = ?6, state = NULL WHERE name = ?1",
            )?
            .execute(params![
                row.name,
                row.status,
                row.stopped_at.map(|time| time.timestamp_millis()),
                row.output,
                row.error,
                row.cause
            ])?;
            Ok(())
        })
        .await
    }

    /// Forgets executions that ended before `before`, at most 1,000.
    pub(crate) async fn forget_executions(&self, before: DateTime<Utc>) -> Result<(), LedgerError> {
        self.call(move |db| {
            db.execute(
                "DELETE FROM executions WHERE name IN (
                     SELECT name FROM executions WHERE stopped_at < ?1
                     ORDER BY stopped_at LIMIT 1000)",
                [before.timestamp_millis()],
            )?;
            Ok(())
        })
        .await
    }

    /// The execution of that name.
    pub(crate) async fn execution(
        &self,
        name: String,
    ) -> Result<Option<ExecutionRow>, LedgerError> {
        self.call(move |db| find_execution(db, &name)).await
    }

    /// The executions that have not ended.
    pub(crate) async fn running_executions(&self) -> Result<Vec<ExecutionRow>, LedgerError> {
        self.call(|db| {
            let mut query = db.prepare(&format!("{SELECT_EXECUTION} WHERE status = 'RUNNING'"))?;
            let rows = query.query_map([], read_execution)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Adds an ECS task unless there is one with its client token; gives the one there is.
    pub(crate) async fn add_task(&self, task: Task) -> Result<Option<Task>, LedgerError> {
        self.call(move |db| {
            let added = db
                .prepare_cached(
                    "INSERT INTO tasks (id, token, task) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
                )?
                .execute(params![task.id, task.client_token, serde_json::to_string(&task)?])?;
            if added == 1 {
                return Ok(None);
            }
            find_task(db, "token = ?1", task.client_token.as_deref().unwrap_or_default())
        })
        .await
    }

    /// Records an ECS task as it is now. Of two calls, the later one wins, in whatever order their
    /// answers are waited for.
    pub(crate) fn save_task(
        &self,
        task: &Task,
    ) -> impl Future<Output = Result<(), LedgerError>> + Send + use<> {
        let id = task.id.clone();
        let stopped_at = task.stopped_at.map(|time| time.timestamp_millis());
        let text = serde_json::to_string(task);
        let saved = self.0.call(move |db| -> Result<(), LedgerError> {
            db.prepare_cached("UPDATE tasks SET task = ?2, stopped_at = ?3 WHERE id = ?1")?
                .execute(params![id, text?, stopped_at])?;
            Ok(())
        });
        async move { saved.await? }
    }

    /// The ECS task of that id.
    pub(crate) async fn task(&self, id: String) -> Result<Option<Task>, LedgerError> {
        self.call(move |db| find_task(db, "id = ?1", &id)).await
    }

    /// The ECS tasks that have not stopped, in the order in which they were asked for: the id of
    /// each, and the task as far as it can be read.
    pub(crate) async fn live_tasks(
        &self,
    ) -> Result<Vec<(String, serde_json::Result<Task>)>, LedgerError> {
        self.call(|db| {
            let mut query =
                db.prepare("SELECT id, task FROM tasks WHERE stopped_at IS NULL ORDER BY seq")?;
            let rows = query.query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))?;
            rows.map(|row| {
                let (id, text) = row?;
                Ok((id, serde_json::from_str(&text)))
            })
            .collect()
        })
        .await
    }

    /// Forgets an ECS task.
    pub(crate) async fn forget_task(&self, id: String) -> Result<(), LedgerError> {
        self.call(move |db| {
            db.execute("DELETE FROM tasks WHERE id = ?1", [id])?;
            Ok(())
        })
        .await
    }

    /// The ids of every ECS task, stopped or not.
    pub(crate) async fn task_ids(&self) -> Result<HashSet<String>, LedgerError> {
        self.call(|db| {
            let mut query = db.prepare("SELECT id FROM tasks")?;
            let rows = query.query_map([], |row| row.get(0))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// The newest ids of stopped ECS tasks, newest first.
    pub(crate) async fn stopped_tasks(&self, limit: usize) -> Result<Vec<String>, LedgerError> {
        self.call(move |db| {
            let mut query = db.prepare_cached(
                "SELECT id FROM tasks WHERE stopped_at IS NOT NULL
                 ORDER BY stopped_at DESC LIMIT ?1",
            )?;
            let rows =
                query.query_map([i64::try_from(limit).unwrap_or(i64::MAX)], |row| row.get(0))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Forgets ECS tasks that stopped before `before` and whose execution has ended; gives their
    /// ids, at most 1,000.
    pub(crate) async fn forget_tasks(
        &self,
        before: DateTime<Utc>,
    ) -> Result<Vec<String>, LedgerError> {
        self.call(move |db| {
            let mut query = db.prepare(
                "DELETE FROM tasks WHERE seq IN (
                     SELECT seq FROM tasks WHERE stopped_at < ?1
                     AND NOT EXISTS (SELECT 1 FROM executions WHERE status = 'RUNNING'
                         AND executions.name = substr(token, 1, instr(token, ':') - 1))
                     ORDER BY stopped_at LIMIT 1000)
                 RETURNING id",
            )?;
            let rows = query.query_map([before.timestamp_millis()], |row| row.get(0))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Records a temporary credential, and forgets those that expired before `forget`.
    pub(crate) async fn add_credential(
        &self,
        row: &CredentialRow,
        forget: DateTime<Utc>,
    ) -> Result<(), LedgerError> {
        let text = serde_json::to_string(row)?;
        let (access_key, expires_at) = (row.access_key.clone(), row.expires_at);
        self.call(move |db| {
            db.prepare_cached("DELETE FROM temporary_credentials WHERE expires_at < ?1")?
                .execute([forget.timestamp_millis()])?;
            db.prepare_cached("INSERT INTO temporary_credentials VALUES (?1, ?2, ?3)")?
                .execute(params![access_key, text, expires_at.timestamp_millis()])?;
            Ok(())
        })
        .await
    }

    /// Every temporary credential that is kept and can be read.
    pub(crate) async fn credentials(&self) -> Result<Vec<CredentialRow>, LedgerError> {
        self.call(|db| {
            let mut query = db.prepare("SELECT credential FROM temporary_credentials")?;
            let mut credentials = Vec::new();
            for text in query.query_map([], |row| row.get::<_, String>(0))? {
                match serde_json::from_str(&text?) {
                    Ok(credential) => credentials.push(credential),
                    Err(error) => tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "a temporary credential cannot be read, and is none any more"
                    ),
                }
            }
            Ok(credentials)
        })
        .await
    }
}

impl Ledger {
    /// The objects that EventBridge has told of: their keys, and the version of each.
    pub(crate) async fn told_objects(&self) -> Result<HashMap<String, String>, LedgerError> {
        self.call(|db| {
            let mut query = db.prepare("SELECT key, version FROM told_objects")?;
            let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Records that EventBridge has told of a version of an object.
    pub(crate) async fn add_told_object(
        &self,
        key: String,
        version: String,
    ) -> Result<(), LedgerError> {
        self.call(move |db| {
            db.prepare_cached(
                "INSERT INTO told_objects VALUES (?1, ?2)
                 ON CONFLICT DO UPDATE SET version = excluded.version",
            )?
            .execute([key, version])?;
            Ok(())
        })
        .await
    }

    /// Forgets objects that are gone.
    pub(crate) async fn forget_told_objects(&self, keys: Vec<String>) -> Result<(), LedgerError> {
        self.call(move |db| {
            let db = db.transaction()?;
            for key in keys {
                db.prepare_cached("DELETE FROM told_objects WHERE key = ?1")?.execute([key])?;
            }
            db.commit()?;
            Ok(())
        })
        .await
    }
}

const SELECT_EXECUTION: &str = "SELECT name, input, status, started_at, stopped_at, output, error,
    cause, state, text FROM executions LEFT JOIN definitions ON definition = hash";

/// Ledgers were made without the definitions of their executions.
fn add_missing_column(db: &Connection) -> rusqlite::Result<()> {
    let is_there: bool = db.query_row(
        "SELECT count(*) FROM pragma_table_info('executions') WHERE name = 'definition'",
        [],
        |row| row.get(0),
    )?;
    if is_there {
        return Ok(());
    }
    db.execute_batch("ALTER TABLE executions ADD COLUMN definition TEXT")
}

fn hash(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}

fn find_execution(db: &Connection, name: &str) -> Result<Option<ExecutionRow>, LedgerError> {
    let mut query = db.prepare_cached(&format!("{SELECT_EXECUTION} WHERE name = ?1"))?;
    Ok(query.query_row([name], read_execution).optional()?)
}

fn read_execution(row: &Row<'_>) -> rusqlite::Result<ExecutionRow> {
    let time =
        |milliseconds: i64| DateTime::from_timestamp_millis(milliseconds).unwrap_or_default();
    Ok(ExecutionRow {
        name: row.get(0)?,
        input: row.get(1)?,
        status: row.get(2)?,
        started_at: time(row.get(3)?),
        stopped_at: row.get::<_, Option<i64>>(4)?.map(time),
        output: row.get(5)?,
        error: row.get(6)?,
        cause: row.get(7)?,
        state: row.get(8)?,
        definition: row.get::<_, Option<String>>(9)?.map(Arc::from),
    })
}

fn find_task(db: &Connection, by: &str, value: &str) -> Result<Option<Task>, LedgerError> {
    let mut query = db.prepare_cached(&format!("SELECT task FROM tasks WHERE {by}"))?;
    let text: Option<String> = query.query_row([value], |row| row.get(0)).optional()?;
    Ok(text.map(|text| serde_json::from_str(&text)).transpose()?)
}
