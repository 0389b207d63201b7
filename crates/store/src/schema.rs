//! The table's names: keys, attributes, indexes. What is written here is what a template or an
//! event pipe has to repeat.

use sha2::{Digest as _, Sha256};
use stepwes_core::{
    run::{Place, RunId},
    run_state::RunState,
};

/// The table's partition key.
pub const PK: &str = "PK";
/// The table's sort key.
pub const SK: &str = "SK";

/// Index of an owner's runs: [`OWNER_SHARD`] / [`RUN_ID`].
pub const BY_OWNER: &str = "by_owner";
/// Index of the runs in each state that is not terminal, and of those that have ended by when they
/// did: [`PHASE`] / [`UPDATED_AT`].
pub const BY_STATE: &str = "by_state";

/// Over how many partitions of [`BY_OWNER`] an owner's runs are spread.
pub const OWNER_SHARDS: u8 = 4;
/// Over how many items the state counts are spread.
pub const COUNT_SHARDS: u8 = 16;

/// The sort key of run items.
pub const RUN_SK: &str = "RUN";
/// What the sort keys of event items begin with: what a stream's filter looks for.
pub const EVENT_PREFIX: &str = "EVENT#";
/// The sort key of idempotency items.
pub const IDEMPOTENCY_SK: &str = "IDEM";
/// The partition key of the counts.
pub const COUNTS_PK: &str = "COUNTS";

/// The partition key of the slots, each under its number.
pub const SLOTS_PK: &str = "SLOTS";

/// The partition key of callers' tokens, each under its name: the one that the authorizer may read.
pub const TOKENS_PK: &str = "TOKENS";

/// The run's id (run, event and idempotency items); the run that has a slot.
pub const RUN_ID: &str = "run_id";
/// The run's owner (run, event and idempotency items); whom a caller's token speaks for.
pub const OWNER: &str = "owner";
/// `<owner>#<shard>`, the partition key of [`BY_OWNER`].
pub const OWNER_SHARD: &str = "owner_shard";
/// The run's state.
pub const STATE: &str = "state";
/// The run's state while it has not ended ([`WAITING`] while it waits for a slot), then
/// `ENDED#<shard>`: the partition key of [`BY_STATE`].
pub const PHASE: &str = "phase";
/// [`WAITING`], or the number of the run's slot; absent for a run that has neither.
pub const PLACE: &str = "place";
/// The value of [`PLACE`], and of [`PHASE`], of a run that waits for a slot.
pub const WAITING: &str = "WAITING";
/// How many state changes the run has had.
pub const VERSION: &str = "version";
/// The run's attempt.
pub const ATTEMPT: &str = "attempt";
/// The present attempt's secret.
pub const TOKEN: &str = "token";
/// The task that claimed the present attempt.
pub const TASK_ARN: &str = "task_arn";
/// The request's workflow type.
pub const WORKFLOW_TYPE: &str = "workflow_type";
/// The request's workflow type version.
pub const WORKFLOW_TYPE_VERSION: &str = "workflow_type_version";
/// The engine.
pub const WORKFLOW_ENGINE: &str = "workflow_engine";
/// The request's workflow URL.
pub const WORKFLOW_URL: &str = "workflow_url";
/// The caller's tags, a JSON object as text: a map attribute could not hold an empty name.
pub const TAGS: &str = "tags";
/// What the run asked for of CPU, memory, disk and time, a JSON object as text; absent for nothing.
pub const RESOURCES: &str = "resources";
/// Where the run's outputs go, `s3://…`; absent for the runs bucket.
pub const DESTINATION: &str = "destination";
/// When the run was submitted, or the token made.
pub const CREATED_AT: &str = "created_at";
/// When the run last changed state, the sort key of [`BY_STATE`].
pub const UPDATED_AT: &str = "updated_at";
/// When the engine started.
pub const START_TIME: &str = "start_time";
/// When the run ended.
pub const END_TIME: &str = "end_time";
/// The engine's exit code.
pub const EXIT_CODE: &str = "exit_code";
/// The engine's command line.
pub const CMD: &str = "cmd";
/// What a person should know of the run.
pub const SYSTEM_LOGS: &str = "system_logs";
/// Whether `outputs.json` has been written.
pub const HAS_OUTPUTS: &str = "has_outputs";
/// The trace that a run belongs to, in bytes: with most engines' command lines, a run's item is just
/// below the 1 KB that its writes are paid by.
pub const TRACE: &str = "trace";
/// The same in an event, as W3C's `traceparent`, which a pipe can publish.
pub const TRACEPARENT: &str = "traceparent";
/// An event's state before; absent for a creation.
pub const FROM: &str = "from";
/// An event's state after.
pub const TO: &str = "to";
/// An event's name.
pub const EVENT: &str = "event";
/// When an event happened.
pub const TIME: &str = "time";
/// Why an event happened.
pub const CAUSE: &str = "cause";
/// Which call of the store wrote an event: how a writer knows its own write again.
pub const CHANGE_ID: &str = "change_id";
/// The caller's idempotency key.
pub const IDEMPOTENCY_KEY: &str = "idempotency_key";
/// What tells a request from others under the same idempotency key.
pub const FINGERPRINT: &str = "fingerprint";
/// A token's groups.
pub const GROUPS: &str = "groups";
/// What was digested before a token's secret, in hexadecimal.
pub const SALT: &str = "salt";
/// SHA-256 of the salt and a token's secret, in hexadecimal.
pub const HASH: &str = "hash";
/// What a token is for.
pub const DESCRIPTION: &str = "description";
/// The table's TTL attribute, in seconds since 1970.
pub const EXPIRES_AT: &str = "expires_at";

/// What [`BY_OWNER`] holds beside its keys: the rest of a listed run.
pub const LISTED: [&str; 4] = [STATE, START_TIME, END_TIME, TAGS];

/// The name of the event that creates a run.
pub const ENQUEUE: &str = "enqueue";

/// The partition key of a run and its events.
pub(crate) fn run_pk(run_id: RunId) -> String {
    format!("RUN#{run_id}")
}

/// The run id in a partition key that [`run_pk`] made.
pub(crate) fn run_id_of(pk: &str) -> Option<RunId> {
    pk.strip_prefix("RUN#")?.parse().ok()
}

/// The sort key of the event that made `version`: as text, it sorts as the number does.
pub(crate) fn event_sk(version: u64) -> String {
    format!("{EVENT_PREFIX}{version:010}")
}

/// The partition key of an owner's idempotency key. Both are the caller's text, of any length and
/// with any character, so their digest stands for them; the owner's length keeps `a`+`bc` and
/// `ab`+`c` apart.
pub(crate) fn idempotency_pk(owner: &str, key: &str) -> String {
    let mut digest = Sha256::new();
    digest.update(u64::try_from(owner.len()).unwrap_or(u64::MAX).to_be_bytes());
    digest.update(owner);
    digest.update(key);
    format!("IDEM#{}", hex::encode(digest.finalize()))
}

/// One of an owner's partitions in [`BY_OWNER`]. The shard comes last, so no owner's name can
/// reach into another's.
pub(crate) fn owner_shard(owner: &str, shard: u8) -> String {
    format!("{owner}#{shard}")
}

/// The shard that a run is listed in: from the random end of its id.
pub(crate) fn shard_of(run_id: RunId) -> u8 {
    let digit = run_id.to_string().chars().last().and_then(|digit| digit.to_digit(16));
    u8::try_from(digit.unwrap_or_default()).unwrap_or_default() % OWNER_SHARDS
}

/// The sort key of one shard of the counts.
pub(crate) fn counts_sk(shard: u8) -> String {
    format!("{shard:02}")
}

/// The value of [`PHASE`]. What looks for runs in trouble meets neither one that has ended nor one
/// that waits for a slot: those are in partitions of their own, the ended in several, as they become
/// many.
pub(crate) fn phase(run_id: RunId, state: RunState, place: Option<Place>) -> String {
    if state.is_terminal() {
        ended(shard_of(run_id))
    } else if place == Some(Place::Waiting) {
        WAITING.to_owned()
    } else {
        state.as_str().to_owned()
    }
}

/// The sort key of a slot: as text, it sorts as the number does.
pub(crate) fn slot_sk(slot: u32) -> String {
    format!("{slot:010}")
}

/// One of the partitions of ended runs in [`BY_STATE`].
pub(crate) fn ended(shard: u8) -> String {
    format!("ENDED#{shard}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::Utc;
    use stepwes_core::{IdGenerator as _, RandomIds};

    #[test]
    fn no_owner_reaches_into_anothers_keys() {
        let pairs = [("a", "b#c"), ("a#b", "c"), ("ab", "c"), ("a", "bc"), ("", "abc")];
        for (i, left) in pairs.iter().enumerate() {
            for right in &pairs[i + 1..] {
                assert_ne!(idempotency_pk(left.0, left.1), idempotency_pk(right.0, right.1));
            }
        }
        assert!(idempotency_pk(&"o".repeat(5000), &"k".repeat(5000)).len() < 100);
        assert_ne!(owner_shard("a#1", 2), owner_shard("a", 1));
    }

    #[test]
    fn event_keys_sort_as_their_versions() {
        assert!(event_sk(9) < event_sk(10) && event_sk(99_999) < event_sk(100_000));
    }

    #[test]
    fn runs_are_spread_over_every_shard() {
        let seen: std::collections::BTreeSet<_> =
            (0..200).map(|_| shard_of(RandomIds.run_id(Utc::now()))).collect();
        assert_eq!(seen.len(), usize::from(OWNER_SHARDS));
    }

    #[test]
    fn a_partition_key_gives_its_run_back() {
        let id = RandomIds.run_id(Utc::now());
        assert_eq!(run_id_of(&run_pk(id)), Some(id));
        assert_eq!(run_id_of("COUNTS"), None);
    }
}
