//! A file being written, which is gone again unless it is moved to its place.

use super::meta::Stamp;
use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A file being written; dropping it removes it.
#[derive(Debug)]
pub(super) struct TempFile {
    file: File,
    path: PathBuf,
    moved: bool,
}

impl TempFile {
    /// Creates a file under a new name in a folder, which is created when it is missing.
    pub(super) fn create(folder: &Path) -> io::Result<Self> {
        let path = folder.join(uuid::Uuid::new_v4().simple().to_string());
        let create = || OpenOptions::new().read(true).write(true).create_new(true).open(&path);
        let file = match create() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(folder)?;
                create()?
            }
            other => other?,
        };
        Ok(Self { file, path, moved: false })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn write_all(&self, data: &[u8]) -> io::Result<()> {
        (&self.file).write_all(data)
    }

    /// Appends a whole file; the kernel copies, or shares the blocks where the file system can.
    pub(super) fn append(&self, source: &mut File) -> io::Result<u64> {
        io::copy(source, &mut &self.file)
    }

    /// Sets the modification time, and gives back what the file system made of it.
    pub(super) fn stamp(&self, modified: SystemTime) -> io::Result<Stamp> {
        self.file.set_times(FileTimes::new().set_modified(modified))?;
        Ok(Stamp::of(&self.file.metadata()?))
    }

    /// The content, unless it has more than `most` bytes.
    pub(super) fn content(&self, most: u64) -> io::Result<Option<Vec<u8>>> {
        let length = self.file.metadata()?.len();
        if length > most {
            return Ok(None);
        }
        let mut content = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut content, 0)?;
        Ok(Some(content))
    }

    /// Returns when the content is on the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Moves the file to its place, atomically.
    pub(super) fn rename(mut self, place: &Path) -> io::Result<()> {
        fs::rename(&self.path, place)?;
        self.moved = true;
        Ok(())
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.moved {
            // Nothing can be done about a failure here; the next start sweeps what is left.
            let _ = fs::remove_file(&self.path);
        }
    }
}
