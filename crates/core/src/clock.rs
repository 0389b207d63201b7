//! Time and identifiers, injected so that tests can choose them.

use chrono::{DateTime, SecondsFormat, Utc};
use uuid::{NoContext, Timestamp, Uuid};

use crate::run::RunId;

/// Tells the time.
pub trait Clock: Send + Sync + 'static {
    /// The present instant, UTC.
    fn now(&self) -> DateTime<Utc>;
}

/// The operating system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }
}

/// Makes run ids.
pub trait IdGenerator: Send + Sync + 'static {
    /// A new id for a run created at `now`. Ids of later instants sort after those of earlier
    /// ones.
    fn run_id(&self, now: DateTime<Utc>) -> RunId;
}

/// UUID version 7 with random bits from the operating system (RFC 9562, section 5.7).
#[derive(Clone, Copy, Debug, Default)]
pub struct RandomIds;

impl IdGenerator for RandomIds {
    fn run_id(&self, now: DateTime<Utc>) -> RunId {
        let seconds = u64::try_from(now.timestamp()).unwrap_or_default();
        let timestamp = Timestamp::from_unix(NoContext, seconds, now.timestamp_subsec_nanos());
        RunId::from_uuid(Uuid::new_v7(timestamp))
    }
}

/// Writes an instant as WES wants it: `%Y-%m-%dT%H:%M:%SZ` (WES 1.1, `Log.start_time`).
#[must_use]
pub fn wes_time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}
