//! What a run was given: it is staged anew for each attempt, and only has to have its times again,
//! by which engines tell whether something was made before or after it.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use sha1::{Digest as _, Sha1};
use stepwes_core::saved::{FileTime, StagedFile};

use super::{look::Version, restore::set_times};
use crate::reachable;

/// How much of a file is hashed at once, in bytes.
const PIECE: usize = 128 * 1024;

/// The files that the run was given, by their paths below the work folder.
#[derive(Clone, Debug, Default)]
pub(crate) struct Staged(HashMap<String, Given>);

#[derive(Clone, Debug)]
struct Given {
    size: u64,
    modified: FileTime,
    sha1: String,
}

impl Staged {
    /// Everything in `folders`, which are below `root`, as it is now. Files that `before` had too, with
    /// the same content, get the time that they had then.
    ///
    /// # Errors
    /// As the file system fails.
    pub(crate) fn of(root: &Path, folders: &[PathBuf], before: &[StagedFile]) -> io::Result<Self> {
        let before: BTreeMap<_, _> = before.iter().map(|file| (file.path.as_str(), file)).collect();
        let mut staged = HashMap::new();
        let mut waiting = folders.to_vec();
        while let Some(folder) = waiting.pop() {
            for entry in fs::read_dir(folder)? {
                let path = entry?.path();
                let data = fs::symlink_metadata(&path)?;
                if data.is_dir() {
                    waiting.push(path);
                } else if data.is_file()
                    && let Ok(below) = path.strip_prefix(root)
                    && let Some(below) = below.to_str()
                {
                    let given = given(&path, before.get(below).copied())?;
                    staged.insert(below.to_owned(), given);
                }
            }
        }
        Ok(Self(staged))
    }

    /// Whether a file is one that was staged, and unchanged.
    pub(super) fn is_as_it_was(&self, path: &str, version: &Version) -> bool {
        self.0
            .get(path)
            .is_some_and(|given| (given.size, given.modified) == (version.size, version.modified))
    }

    /// As a manifest has them.
    pub(super) fn list(&self) -> Vec<StagedFile> {
        let mut list: Vec<_> = self
            .0
            .iter()
            .map(|(path, given)| StagedFile {
                path: path.clone(),
                modified: given.modified,
                sha1: given.sha1.clone(),
            })
            .collect();
        list.sort_unstable();
        list
    }
}

fn given(path: &PathBuf, before: Option<&StagedFile>) -> io::Result<Given> {
    let mut file = reachable::open(path)?;
    let mut hash = Sha1::new();
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece)? {
            0 => break,
            length => hash.update(&piece[..length]),
        }
    }
    let sha1 = hex::encode(hash.finalize());
    if let Some(before) = before.filter(|before| before.sha1 == sha1) {
        set_times(path, before.modified)?;
    }
    let version = Version::of(&fs::symlink_metadata(path)?);
    Ok(Given { size: version.size, modified: version.modified, sha1 })
}
