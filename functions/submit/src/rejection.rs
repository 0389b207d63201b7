//! The report on what was refused, so that whoever dropped it finds out why.

use serde::Serialize;
use stepwes_cloud::{sdk::whole, step::StepFailure};
use stepwes_core::{clock::wes_time, keys};
use stepwes_log::metrics::REJECTION;

use crate::{State, event::Landed};

/// What lies in `rejected/`.
#[derive(Debug, Serialize)]
struct Rejection<'a> {
    /// What was refused: `run request`, `trigger`, or `run` of a trigger.
    what: &'a str,
    bucket: &'a str,
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    trigger: Option<&'a str>,
    /// What is wrong and what to change.
    why: &'a str,
    when: String,
    event_id: &'a str,
}

/// What a report is on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) what: &'static str,
    pub(crate) trigger: Option<&'a str>,
    /// Where it lies, below `rejected/`.
    pub(crate) place: &'a str,
}

/// Writes the report; the same one again when an event is repeated.
///
/// # Errors
/// [`StepFailure`] when it cannot be written.
pub(crate) async fn report(
    state: &State,
    subject: Subject<'_>,
    event: &Landed,
    why: &str,
) -> Result<(), StepFailure> {
    let key = keys::rejected(subject.place);
    let rejection = Rejection {
        what: subject.what,
        bucket: &event.bucket,
        key: &event.key,
        trigger: subject.trigger,
        why,
        when: wes_time(state.clock.now()),
        event_id: &event.event_id,
    };
    state.objects.put_json(&key, &rejection).await?;
    tracing::warn!(
        target: REJECTION,
        what = subject.what,
        bucket = event.bucket,
        key = event.key,
        trigger = subject.trigger,
        why,
        report = key,
        "refused"
    );
    Ok(())
}

/// Removes the report on what has been taken since.
pub(crate) async fn withdraw(state: &State, place: &str) {
    let key = keys::rejected(place);
    if let Err(error) = state.objects.delete(&key).await {
        tracing::warn!(key, error = whole(&error), "an outdated report was left behind");
    }
}
