//! What is saved of an engine that is at work, so that another attempt, or another run, goes on
//! from there.

use serde::{Deserialize, Serialize};

use crate::run::{Run, RunId};

/// The tag that names the run which a run goes on from. Requests cannot set it.
pub const RESUMED_FROM: &str = "stepwes.resumed_from";

/// The run that `run` goes on from. The tag is the service's: submit writes it for a run that the
/// caller may see, and takes it from nobody.
#[must_use]
pub fn resumed_from(run: &Run) -> Option<RunId> {
    run.summary.tags.get(RESUMED_FROM)?.parse().ok()
}

/// The most files, folders and links of a saved state, each.
pub const MAX_SAVED: usize = 200_000;

/// The largest manifest, in bytes.
pub const MAX_MANIFEST_BYTES: u64 = 128 * 1024 * 1024;

/// The attempt whose saved state a run begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumedFrom {
    /// Its run.
    pub run_id: RunId,
    /// Its number.
    pub attempt: u32,
}

/// A saved state: all of it as it was at one moment. Paths are relative to `root`, with `/` between
/// their parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The run that saved it.
    pub run_id: RunId,
    /// The attempt that saved it.
    pub attempt: u32,
    /// Its engine.
    pub engine: String,
    /// The folder that the paths are below: absolute, since engines remember absolute paths.
    pub root: String,
    /// Folders.
    pub folders: Vec<SavedFolder>,
    /// Files.
    pub files: Vec<SavedFile>,
    /// Symbolic links.
    pub links: Vec<SavedLink>,
    /// What the run was given, which is not saved: only its times are.
    pub staged: Vec<StagedFile>,
}

/// A time of modification: seconds since 1970, and nanoseconds.
pub type FileTime = (i64, i64);

/// One folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SavedFolder {
    /// Its path.
    pub path: String,
    /// Its permissions.
    pub mode: u32,
    /// When something was last put into it or taken out.
    pub modified: FileTime,
}

/// One file, and where its content is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SavedFile {
    /// Its path.
    pub path: String,
    /// Its permissions.
    pub mode: u32,
    /// When it was last written.
    pub modified: FileTime,
    /// Its size in bytes.
    pub size: u64,
    /// The number of the piece that holds it ([`crate::keys::state_piece`]).
    pub piece: u64,
    /// Where it begins in that piece, in bytes.
    pub offset: u64,
}

/// One symbolic link.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SavedLink {
    /// Its path.
    pub path: String,
    /// What it says.
    pub target: String,
    /// When it was made.
    pub modified: FileTime,
}

/// A file that the run was given.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StagedFile {
    /// Its path.
    pub path: String,
    /// When it was last written, as the engine saw it.
    pub modified: FileTime,
    /// The SHA-1 of its content in hexadecimal, by which it is known again.
    pub sha1: String,
}
