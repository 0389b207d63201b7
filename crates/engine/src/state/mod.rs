//! What an engine needs to go on where it was: saved to S3 little by little while it is at work,
//! and brought back for another attempt, or for a run that resumes this one.
//!
//! A saved state is all of it as it was at one moment, as a power cut would have left it, since that
//! is what engines are made to start again from. There are no snapshots of file systems to be had, so
//! that moment is found, not made: what counts (an engine's records of what has been done, its
//! *guards*) is looked at before and after everything else was uploaded. If nothing of it changed,
//! then it stood still all the while, and so did every file that is the same before and after. The
//! others are files of steps that are under way, of which no record says that they are done.
//!
//! The manifest is written last. Pieces are never overwritten, so that one that is there is whole.

mod find;
mod keep;
mod look;
mod restore;
mod staged;

use std::path::PathBuf;

pub(crate) use find::{Before, find};
pub(crate) use keep::Keeper;
pub(crate) use restore::restore;
pub(crate) use staged::Staged;

/// Files up to this size, in bytes, go up together with others.
const SMALL: u64 = 1024 * 1024;

/// What is to be saved of an engine. Paths of files are those below the work folder, with `/`
/// between their parts.
#[derive(Clone, Debug)]
pub(crate) struct Saved {
    /// The folders that are saved, absolute; one that is not there holds nothing.
    pub(crate) folders: Vec<PathBuf>,
    /// Whether a path, with all below it, is of no use to another attempt.
    pub(crate) left_out: fn(&str) -> bool,
    /// Whether a file is one of the engine's records of what has been done.
    pub(crate) is_guard: fn(&str) -> bool,
}

#[cfg(test)]
mod tests;
