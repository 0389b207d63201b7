//! Where things lie in the runs bucket: one prefix a class, then the run, so that lifecycle rules
//! can match a prefix.

use sha2::{Digest as _, Sha256};

use crate::run::RunId;

/// RunRequests dropped as files: `submit/<owner>/….run.json`.
pub const SUBMIT: &str = "submit/";

/// Triggers, one file each, and below a folder of the trigger's name the files of its workflow.
pub const TRIGGERS: &str = "triggers/";

/// Reports on RunRequests and triggers that were refused.
pub const REJECTED: &str = "rejected/";

/// Every prefix of ours in the runs bucket. What is created below them starts no run, but for the
/// RunRequests in [`SUBMIT`].
pub const OURS: [&str; 7] =
    ["requests/", "work/", "outputs/", "results/", SUBMIT, TRIGGERS, REJECTED];

/// The longest key that S3 takes, in bytes.
pub const MAX_KEY_BYTES: usize = 1024;

/// The report on what lies, or would lie, at `place` (such as `submit/ada/a.run.json`).
#[must_use]
pub fn rejected(place: &str) -> String {
    let key = format!("{REJECTED}{place}.json");
    if key.len() <= MAX_KEY_BYTES {
        return key;
    }
    format!("{REJECTED}{}.json", hex::encode(Sha256::digest(place)))
}

/// The run's request as accepted, [`crate::request::StoredRequest`] as JSON.
#[must_use]
pub fn request(run: RunId) -> String {
    format!("requests/{run}/request.json")
}

/// Everything that came with the request.
#[must_use]
pub fn request_prefix(run: RunId) -> String {
    format!("requests/{run}/")
}

/// One attachment; `name` has been through [`crate::attachment::AttachmentName`].
#[must_use]
pub fn attachment(run: RunId, name: &str) -> String {
    format!("requests/{run}/attachments/{name}")
}

/// Everything that one attempt's task writes but outputs.
#[must_use]
pub fn work_prefix(run: RunId, attempt: u32) -> String {
    format!("work/{run}/{attempt}/")
}

/// A whole log of an ended attempt.
#[must_use]
pub fn log(run: RunId, attempt: u32, stream: LogStream) -> String {
    format!("work/{run}/{attempt}/logs/{}", stream.as_str())
}

/// The prefix of the segments of a log that is being written. A segment's name is the offset of
/// its first byte, 20 digits, so that a listing tells which segments a byte range needs.
#[must_use]
pub fn log_segments(run: RunId, attempt: u32, stream: LogStream) -> String {
    format!("work/{run}/{attempt}/logs/{}.segments/", stream.as_str())
}

/// One segment of a log that is being written; `offset` is in bytes.
#[must_use]
pub fn log_segment(run: RunId, attempt: u32, stream: LogStream, offset: u64) -> String {
    format!("{}{offset:020}", log_segments(run, attempt, stream))
}

/// The attempt's task logs, [`crate::task::Tasks`] as JSON, replaced while the engine is at work.
#[must_use]
pub fn tasks(run: RunId, attempt: u32) -> String {
    format!("work/{run}/{attempt}/tasks.json")
}

/// The attempt's result, [`crate::task::TaskResult`] as JSON: the last thing its task writes.
#[must_use]
pub fn result(run: RunId, attempt: u32) -> String {
    format!("work/{run}/{attempt}/result.json")
}

/// What an attempt's engine needs to go on from, and nothing else of its attempt's work.
#[must_use]
pub fn state_prefix(run: RunId, attempt: u32) -> String {
    format!("{}state/", work_prefix(run, attempt))
}

/// Says what the saved state is, [`crate::saved::Manifest`] as JSON: written last of every save.
#[must_use]
pub fn state_manifest(run: RunId, attempt: u32) -> String {
    format!("{}manifest.json", state_prefix(run, attempt))
}

/// One piece of the saved state; a piece is never written twice.
#[must_use]
pub fn state_piece(run: RunId, attempt: u32, number: u64) -> String {
    format!("{}{number:08}", state_prefix(run, attempt))
}

/// Everything that the run's attempts wrote but outputs.
#[must_use]
pub fn all_work_prefix(run: RunId) -> String {
    format!("work/{run}/")
}

/// The outputs of every attempt.
#[must_use]
pub fn all_outputs_prefix(run: RunId) -> String {
    format!("outputs/{run}/")
}

/// Every prefix that a run's files lie below, those first that nothing else names.
#[must_use]
pub fn of_run(run: RunId) -> [String; 4] {
    [all_outputs_prefix(run), results_prefix(run), all_work_prefix(run), request_prefix(run)]
}

/// The attempt's output files.
#[must_use]
pub fn outputs_prefix(run: RunId, attempt: u32) -> String {
    format!("outputs/{run}/{attempt}/")
}

/// One output file, by its path below the engine's output directory.
#[must_use]
pub fn output(run: RunId, attempt: u32, path: &str) -> String {
    format!("outputs/{run}/{attempt}/{path}")
}

/// The outputs of the attempt that counts, [`crate::run::CollectedOutputs`] as JSON.
#[must_use]
pub fn outputs_json(run: RunId) -> String {
    format!("results/{run}/outputs.json")
}

/// The prefix of [`outputs_json`].
#[must_use]
pub fn results_prefix(run: RunId) -> String {
    format!("results/{run}/")
}

/// Which of an engine's two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl LogStream {
    /// `stdout` or `stderr`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}
