//! The log line of a state change, written by whoever's write made it.
//!
//! It is written after the transaction, so one whose writer dies in between has none: the run's
//! event items are its history, and lines what a person looks through. A repeated event, and the
//! loser of a race, write nothing and have no line.

use stepwes_core::run::Run;
use stepwes_core::run_state::RunState;
use stepwes_log::metrics::STATE_CHANGE;

/// Logs that a run changed to what it is now, from what it was `before` (none for a new one), by
/// `event`. SYSTEM_ERROR is an error in the log, too.
///
/// The owner is not in it: a name may be an e-mail address, and the run's item has it.
pub fn log_state_change(run: &Run, before: Option<&Run>, event: &str, cause: &str) {
    // What others say of a task has no reason to hold its token. It must not be the way out for it.
    let mut cause = cause.to_owned();
    for token in [Some(run), before].into_iter().flatten().filter_map(|run| run.token.as_ref()) {
        if !token.secret().is_empty() {
            cause = cause.replace(token.secret(), "…");
        }
    }
    let cause = (!cause.is_empty()).then_some(cause);
    let from = before.map(|before| before.state.as_str());
    let ms_in_state = before.map(|before| {
        u64::try_from((run.updated_at - before.updated_at).num_milliseconds()).unwrap_or_default()
    });
    let is_retry = before.is_some_and(|before| before.attempt > 0 && run.attempt > before.attempt);
    let retries = is_retry.then_some(1_u64);
    let trace_id = run.trace.map(|trace| trace.trace_id());
    macro_rules! log {
        ($level:ident) => {
            tracing::$level!(
                target: STATE_CHANGE,
                run_id = %run.run_id,
                attempt = run.attempt,
                version = run.version,
                event,
                from,
                to = run.state.as_str(),
                ms_in_state,
                retries,
                cause,
                trace_id,
                "state changed"
            )
        };
    }
    if run.state == RunState::SystemError { log!(error) } else { log!(info) }
}
