//! Why an attempt does not go on, sorted by who has to act.

use std::io::ErrorKind;

use stepwes_core::task::RefusedReason;
use thiserror::Error;

/// Why an attempt ends before its time. The text is for a person and becomes the run's reason.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Failure {
    /// The request's fault: EXECUTOR_ERROR.
    #[error("{0}")]
    Request(String),
    /// Ours, and trying again would not help: SYSTEM_ERROR.
    #[error("{0}")]
    Service(String),
    /// Ours, and another attempt may succeed: no result is written.
    #[error("{0}")]
    Passing(String),
    /// The report function said that this task does not count.
    #[error("refused: {}", .0.as_str())]
    Refused(RefusedReason),
    /// A signal told the task to stop.
    #[error("the task was told to stop")]
    Stopped,
}

impl Failure {
    /// A local file that could not be read or written while `doing` something: a full disk says
    /// what to do about it.
    pub(crate) fn local(doing: &str, error: &std::io::Error) -> Self {
        Self::Service(match error.kind() {
            _ if is_full(error) => format!(
                "the task's disk is full ({doing}): give the task more storage, or point STEPWES_WORK_DIR at a larger disk"
            ),
            ErrorKind::FileTooLarge => {
                format!("{doing}: the file is larger than the task's limit on file sizes allows")
            }
            _ => format!("{doing}: {error}"),
        })
    }
}

/// Whether there is no more room for a file.
pub(crate) fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// An error with all its causes, in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_says_what_to_do() {
        let full = std::io::Error::from(ErrorKind::StorageFull);
        let Failure::Service(reason) = Failure::local("staging a.cwl", &full) else {
            panic!("a full disk is the service's");
        };
        assert!(reason.contains("disk is full (staging a.cwl)"), "{reason}");
        assert!(reason.contains("STEPWES_WORK_DIR"), "{reason}");
    }
}
