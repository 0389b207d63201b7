//! Which state changes have yet to be told: noted before the transaction that makes them, forgotten
//! once they are told. What they are is in the run table alone.
//!
//! Whatever process dies when, none is skipped: a note without its change is found to be none when
//! the next server looks, a change without its note cannot be.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use dynoxide::DynoxideError;
use rusqlite::{Connection, params};
use serde_json::Value;
use stepwes_core::RunId;
use stepwes_store::schema as at;
use tokio::sync::mpsc;

/// Its file in the server's folder.
pub(crate) const FILE: &str = "state-changes.sqlite";

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS changes (
    run_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    noted_at INTEGER NOT NULL,
    PRIMARY KEY (run_id, version)
) WITHOUT ROWID;
";

/// A state change that is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Noted {
    pub(crate) run_id: RunId,
    pub(crate) version: u64,
    pub(crate) at: DateTime<Utc>,
}

/// The notes.
#[derive(Debug)]
pub(crate) struct Outbox {
    db: Mutex<Connection>,
    /// Told of each change that has been committed.
    committed: mpsc::UnboundedSender<Noted>,
}

impl Outbox {
    /// Opens or makes the file; gives what an earlier server left, each run's changes in their
    /// order, and where what is committed from now on is told.
    pub(crate) fn open(
        dir: &Path,
    ) -> rusqlite::Result<(Arc<Self>, Vec<Noted>, mpsc::UnboundedReceiver<Noted>)> {
        let db = Connection::open(dir.join(FILE))?;
        db.busy_timeout(Duration::from_secs(5))?;
        db.pragma_update(None, "journal_mode", "WAL")?;
        // A killed process loses nothing; a power cut as little as the table itself.
        db.pragma_update(None, "synchronous", "NORMAL")?;
        db.execute_batch(SCHEMA)?;
        let left = read(&db)?;
        let (committed, changes) = mpsc::unbounded_channel();
        Ok((Arc::new(Self { db: Mutex::new(db), committed }), left, changes))
    }

    fn db(&self) -> MutexGuard<'_, Connection> {
        self.db.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commits a transaction, with its state changes noted before. Called on the table's one
    /// thread, so that nobody else makes the same change meanwhile.
    pub(crate) fn around<T>(
        &self,
        request: &[u8],
        commit: impl FnOnce() -> Result<T, DynoxideError>,
    ) -> Result<T, DynoxideError> {
        let changes = changes_of(request);
        let mut added = Vec::new();
        for change in &changes {
            match self.note(*change) {
                Ok(true) => added.push(*change),
                Ok(false) => {}
                Err(error) => {
                    // A change that could not be told is not made.
                    self.take_back(&added);
                    let why = format!("a state change could not be noted: {error}");
                    return Err(DynoxideError::InternalServerError(why));
                }
            }
        }
        let done = commit();
        if done.is_ok() {
            for change in changes {
                // Nobody listens when the server goes down; the next one finds the note.
                let _ = self.committed.send(change);
            }
        } else {
            self.take_back(&added);
        }
        done
    }

    /// Whether it was not noted before.
    fn note(&self, change: Noted) -> rusqlite::Result<bool> {
        let db = self.db();
        let mut insert =
            db.prepare_cached("INSERT INTO changes VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING")?;
        let added = insert.execute(params![
            change.run_id.to_string(),
            change.version,
            change.at.timestamp_millis()
        ])?;
        Ok(added == 1)
    }

    fn take_back(&self, changes: &[Noted]) {
        for change in changes {
            if let Err(error) = self.forget(*change) {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "a note of no state change stays until the next server looks"
                );
            }
        }
    }

    /// Forgets a change.
    pub(crate) fn forget(&self, change: Noted) -> rusqlite::Result<()> {
        let db = self.db();
        let mut delete =
            db.prepare_cached("DELETE FROM changes WHERE run_id = ?1 AND version = ?2")?;
        delete.execute(params![change.run_id.to_string(), change.version])?;
        Ok(())
    }
}

fn read(db: &Connection) -> rusqlite::Result<Vec<Noted>> {
    let mut query =
        db.prepare("SELECT run_id, version, noted_at FROM changes ORDER BY run_id, version")?;
    let rows = query.query_map([], |row| {
        let run_id: String = row.get(0)?;
        let at = DateTime::from_timestamp_millis(row.get(2)?).unwrap_or_default();
        Ok((run_id, row.get(1)?, at))
    })?;
    let mut left = Vec::new();
    for row in rows {
        let (run_id, version, at) = row?;
        match run_id.parse() {
            Ok(run_id) => left.push(Noted { run_id, version, at }),
            Err(_) => tracing::warn!(run_id, "a note of no run is passed over"),
        }
    }
    Ok(left)
}

/// The event items that a TransactWriteItems puts.
fn changes_of(request: &[u8]) -> Vec<Noted> {
    let Ok(request) = serde_json::from_slice::<Value>(request) else { return Vec::new() };
    let now = Utc::now();
    let items = request["TransactItems"].as_array().into_iter().flatten();
    items
        .filter_map(|item| {
            let item = &item["Put"]["Item"];
            let version = item[at::SK]["S"].as_str()?.strip_prefix(at::EVENT_PREFIX)?;
            let run_id = item[at::RUN_ID]["S"].as_str()?;
            Some(Noted { run_id: run_id.parse().ok()?, version: version.parse().ok()?, at: now })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const RUN: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

    fn request(version: &str) -> Vec<u8> {
        json!({ "TransactItems": [
            { "Update": { "Key": { "PK": { "S": "x" } } } },
            { "Put": { "Item": {
                "PK": { "S": format!("RUN#{RUN}") }, "SK": { "S": format!("EVENT#{version}") },
                "run_id": { "S": RUN },
            } } },
            { "Put": { "Item": { "PK": { "S": "IDEM#x" }, "SK": { "S": "IDEM" } } } },
        ] })
        .to_string()
        .into_bytes()
    }

    fn versions(noted: &[Noted]) -> Vec<u64> {
        noted.iter().map(|noted| noted.version).collect()
    }

    fn conflict() -> Result<(), DynoxideError> {
        Err(DynoxideError::ConditionalCheckFailedException("no".to_owned(), None))
    }

    #[test]
    fn a_change_is_noted_before_it_is_committed_and_told_after() {
        let folder = tempfile::tempdir().expect("a folder");
        let (outbox, left, mut changes) = Outbox::open(folder.path()).expect("opened");
        assert!(left.is_empty());
        let beside = Connection::open(folder.path().join(FILE)).expect("opened");
        outbox
            .around(&request("0000000007"), || {
                assert_eq!(versions(&read(&beside).expect("read")), [7], "noted before");
                assert!(changes.try_recv().is_err(), "and not told before");
                Ok(())
            })
            .expect("committed");
        let told = changes.try_recv().expect("told");
        assert_eq!((told.run_id.to_string().as_str(), told.version), (RUN, 7));
        // As after `kill -9` before it was delivered.
        drop(outbox);
        let (outbox, left, _) = Outbox::open(folder.path()).expect("opened again");
        assert_eq!(versions(&left), [7]);
        outbox.forget(left[0]).expect("forgotten");
        assert!(read(&beside).expect("read").is_empty());
    }

    #[test]
    fn a_change_that_is_refused_is_no_change_unless_somebody_else_has_made_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let (outbox, _, mut changes) = Outbox::open(folder.path()).expect("opened");
        assert!(outbox.around(&request("2"), conflict).is_err());
        assert!(read(&outbox.db()).expect("read").is_empty());
        outbox.around(&request("2"), || Ok(())).expect("committed");
        assert!(outbox.around(&request("2"), conflict).is_err(), "the loser of a race");
        assert_eq!(versions(&read(&outbox.db()).expect("read")), [2], "the winner's is kept");
        assert_eq!(changes.try_recv().map(|noted| noted.version), Ok(2));
        assert!(changes.try_recv().is_err());
    }

    #[test]
    fn a_change_that_cannot_be_noted_is_not_made() {
        let folder = tempfile::tempdir().expect("a folder");
        let (outbox, _, _) = Outbox::open(folder.path()).expect("opened");
        outbox.db().execute_batch("DROP TABLE changes").expect("dropped");
        let done = outbox.around(&request("1"), || -> Result<(), DynoxideError> {
            panic!("nothing is committed")
        });
        assert!(matches!(done, Err(DynoxideError::InternalServerError(_))), "{done:?}");
    }

    #[test]
    fn what_changes_no_state_is_not_noted() {
        for other in [&b"{}"[..], b"", br#"{"TransactItems": [{"Put": {"Item": {}}}]}"#] {
            assert!(changes_of(other).is_empty());
        }
    }
}
