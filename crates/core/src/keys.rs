//! Where things lie in the runs bucket: one prefix a class, then the run, so that lifecycle rules
//! can match a prefix.

use crate::run::RunId;

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
