//! What this process may have open, and who may look into it.

use std::sync::OnceLock;

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};

/// The limit of open files that this process was started with.
static FILES: OnceLock<Rlimit> = OnceLock::new();

/// Lets this process have as many files open as it may allow itself, as each connection is one, and
/// hides its memory and environment, which may hold the operator's AWS keys, from the engines, which
/// are the same user's.
pub(crate) fn set() {
    let files = *FILES.get_or_init(|| getrlimit(Resource::Nofile));
    let raised = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files });
    let hidden = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    if let Err(error) = raised.and(hidden) {
        tracing::warn!(error = &error as &dyn std::error::Error, "this process is not set up");
    }
}

/// The limit of open files for the engines: as if there were no server, since some programs fail
/// or are slow with a high one.
pub(crate) fn files_of_children() -> Option<Rlimit> {
    FILES.get().copied()
}
