//! What is in the folders that are saved.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use stepwes_core::saved::{FileTime, MAX_SAVED};

use super::{Saved, Staged};

/// How old a change must be, so that another one would show: the kernel's clock, by which files are
/// stamped, ticks some hundred times a second.
const SETTLED: Duration = Duration::from_millis(100);

/// What changes when somebody writes to a file, moves it or puts another in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) inode: u64,
    pub(super) size: u64,
    pub(super) mode: u32,
    pub(super) modified: FileTime,
    /// The time of the last change of the inode, which no program can set.
    pub(super) changed: FileTime,
}

impl Version {
    pub(super) fn of(data: &fs::Metadata) -> Self {
        Self {
            inode: data.ino(),
            size: data.len(),
            mode: data.mode() & 0o7777,
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
        }
    }

    /// Whether it was like that well before `at`.
    fn has_settled(&self, at: SystemTime) -> bool {
        let changed = self.modified.max(self.changed);
        let limit = at - SETTLED;
        let limit = limit.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = i64::try_from(limit.as_secs()).unwrap_or(i64::MAX);
        changed < (seconds, i64::from(limit.subsec_nanos()))
    }
}

/// A folder, or a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Folder {
    pub(super) mode: u32,
    pub(super) modified: FileTime,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) target: String,
    pub(super) modified: FileTime,
}

/// What there was at one look, by the paths below the work folder.
#[derive(Debug)]
pub(super) struct Look {
    at: SystemTime,
    pub(super) files: BTreeMap<String, Version>,
    pub(super) folders: BTreeMap<String, Folder>,
    pub(super) links: BTreeMap<String, Link>,
}

impl Look {
    /// Whether a file had been as it is for a while when this look began.
    pub(super) fn is_settled(&self, version: &Version) -> bool {
        version.has_settled(self.at)
    }
}

/// Looks at everything that is saved. Links are not followed; what is neither file, folder nor link
/// is left out, and so is a name that is not UTF-8. Files that were staged and are as they were are
/// not saved either.
///
/// # Errors
/// When a folder cannot be read, or when there is more than a manifest holds
/// ([`io::ErrorKind::QuotaExceeded`]).
pub(super) fn look(root: &Path, saved: &Saved, staged: &Staged) -> io::Result<Look> {
    let mut look = Look {
        at: SystemTime::now(),
        files: BTreeMap::new(),
        folders: BTreeMap::new(),
        links: BTreeMap::new(),
    };
    let mut waiting = Vec::new();
    for folder in &saved.folders {
        if let Ok(below) = folder.strip_prefix(root)
            && let Some(below) = below.to_str()
        {
            waiting.push((below.to_owned(), folder.clone()));
        }
    }
    while let Some((path, folder)) = waiting.pop() {
        // Engines remove folders while they are at work, too.
        let data = match fs::symlink_metadata(&folder) {
            Ok(data) if data.is_dir() => data,
            Ok(_) => continue,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let of_folder =
            Folder { mode: data.mode() & 0o7777, modified: (data.mtime(), data.mtime_nsec()) };
        look.folders.insert(path.clone(), of_folder);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let below = if path.is_empty() { name } else { format!("{path}/{name}") };
            if (saved.left_out)(&below) {
                continue;
            }
            let data = match entry.metadata() {
                Ok(data) => data,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if data.is_dir() {
                waiting.push((below, entry.path()));
            } else if data.is_file() {
                let version = Version::of(&data);
                if !staged.is_as_it_was(&below, &version) {
                    look.files.insert(below, version);
                }
            } else if data.is_symlink()
                && let Ok(target) = fs::read_link(entry.path())
                && let Ok(target) = target.into_os_string().into_string()
            {
                let modified = (data.mtime(), data.mtime_nsec());
                look.links.insert(below, Link { target, modified });
            }
            if look.files.len().max(look.folders.len()).max(look.links.len()) > MAX_SAVED {
                return Err(io::Error::new(
                    io::ErrorKind::QuotaExceeded,
                    format!("there are more than {MAX_SAVED} files"),
                ));
            }
        }
    }
    Ok(look)
}
