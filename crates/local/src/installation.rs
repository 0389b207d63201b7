//! What is in a server's folder, looked at from outside: nothing is made, started or changed.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, BufRead as _, BufReader, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

use rusqlite::{Connection, OpenFlags};

use crate::{
    arn,
    ecs::{Found, Task, find_process, task_folder},
    folder::{self, Folder},
    ledger,
    server::LeftTask,
    state_changes::DEAD_LETTERS,
};

/// How many rejected files are counted at most.
const MOST_REJECTED: usize = 1000;

/// A folder of `stepwes serve`.
#[derive(Clone, Debug, Default)]
pub struct Installation {
    /// The server that has it, when one does.
    pub server: Option<RunningServer>,
    /// The loopback port that engines report to, once there is one.
    pub internal_port: Option<u16>,
    /// The engine tasks that are recorded and whose processes are alive.
    pub living: Vec<LeftTask>,
    /// How many recorded tasks have yet to be started.
    pub waiting: usize,
    /// How many recorded tasks have ended without a server that took note.
    pub ended: usize,
    /// How many state changes could not be told ([`DEAD_LETTERS`]).
    pub dead_letters: usize,
    /// How many reports there are on files that were refused.
    pub rejected: usize,
    /// When something in it was last written.
    pub newest: Option<SystemTime>,
}

/// A server that has a folder locked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunningServer {
    /// Its process.
    pub pid: Option<String>,
    /// Where it serves, for somebody on this machine; none while it is only starting.
    pub url: Option<String>,
}

/// The disk that a folder is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// What is free for this user, in bytes.
    pub free: u64,
    /// How many more files it can have; none where the file system does not count them.
    pub free_files: Option<u64>,
    /// Whether it is another machine's: SQLite's databases must not be there
    /// (<https://www.sqlite.org/wal.html>).
    pub is_remote: bool,
}

/// Who may use a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// Whether it is this user's.
    pub is_own: bool,
    /// Whether this user may write into it.
    pub is_writable: bool,
    /// Whether others may look into it.
    pub is_open: bool,
}

impl Installation {
    /// Looks into a folder; what is not there is not found.
    ///
    /// # Errors
    /// When something that is there cannot be read.
    pub fn look(dir: &Path) -> io::Result<Self> {
        let mut found = Self {
            server: server_of(dir)?,
            internal_port: match Folder::port_of(dir) {
                Ok(port) => Some(port),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            },
            dead_letters: lines_of(&dir.join(DEAD_LETTERS))?,
            rejected: files_below(
                &dir.join("s3").join(arn::BUCKET).join("rejected"),
                MOST_REJECTED,
            ),
            newest: newest(dir),
            ..Self::default()
        };
        for task in tasks_of(&dir.join(ledger::FILE))? {
            if found.server.is_some() {
                // It may be starting the task just now: nobody may touch what it locks.
                match task.process {
                    Some(process) => found.living.push(left(&task, process.pid)),
                    None => found.waiting += 1,
                }
                continue;
            }
            match find_process(&task_folder(dir, &task), task.process)? {
                Found::Alive(process) => found.living.push(left(&task, process.pid)),
                Found::Ended => found.ended += 1,
                Found::NeverStarted => found.waiting += 1,
            }
        }
        Ok(found)
    }
}

impl Disk {
    /// The disk of the folder, or of the nearest one above it that is there.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn of(dir: &Path) -> io::Result<Self> {
        let dir = nearest(dir)?;
        let space = rustix::fs::statvfs(&dir)?;
        Ok(Self {
            free: space.f_bavail.saturating_mul(space.f_frsize),
            free_files: (space.f_files > 0).then_some(space.f_favail),
            is_remote: is_remote(rustix::fs::statfs(&dir)?.f_type),
        })
    }
}

impl Rights {
    /// Those of a folder; none when it is not there.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn of(dir: &Path) -> io::Result<Option<Self>> {
        let found = match fs::metadata(dir) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if !found.is_dir() {
            return Err(io::Error::new(io::ErrorKind::NotADirectory, "it is no folder"));
        }
        let access = rustix::fs::Access::READ_OK
            | rustix::fs::Access::WRITE_OK
            | rustix::fs::Access::EXEC_OK;
        Ok(Some(Self {
            is_own: found.uid() == rustix::process::geteuid().as_raw(),
            is_writable: rustix::fs::access(dir, access).is_ok(),
            is_open: found.mode() & 0o077 != 0,
        }))
    }
}

fn left(task: &Task, pid: i32) -> LeftTask {
    LeftTask { run_id: task.run_id().map(str::to_owned), pid }
}

/// Whether a file system is one of the kinds that are on other machines
/// (<https://man7.org/linux/man-pages/man2/statfs.2.html>).
fn is_remote(kind: impl TryInto<i64>) -> bool {
    const NFS: i64 = 0x6969;
    const SMB: i64 = 0x517B;
    const CIFS: i64 = 0xFF53_4D42;
    const SMB2: i64 = 0xFE53_4D42;
    const CEPH: i64 = 0x00C3_6400;
    const AFS: i64 = 0x5346_414F;
    const LUSTRE: i64 = 0x0BD0_0BD0;
    let kind = kind.try_into().unwrap_or_default() & 0xFFFF_FFFF;
    [NFS, SMB, CIFS, SMB2, CEPH, AFS, LUSTRE].contains(&kind)
}

fn nearest(dir: &Path) -> io::Result<PathBuf> {
    let dir = std::path::absolute(dir)?;
    let there = dir.ancestors().find(|folder| folder.is_dir());
    Ok(there.map_or_else(|| PathBuf::from("/"), Path::to_owned))
}

/// The server that has the folder locked.
fn server_of(dir: &Path) -> io::Result<Option<RunningServer>> {
    let mut lock = match OpenOptions::new().read(true).write(true).open(dir.join(folder::LOCK)) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match lock.try_lock() {
        // A server that starts just now waits for the moment until this is closed.
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            lock.read_to_string(&mut text)?;
            let mut lines = text.lines().map(|line| line.trim().to_owned());
            let mut line = || lines.next().filter(|line| !line.is_empty());
            Ok(Some(RunningServer { pid: line(), url: line() }))
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The tasks that nobody has recorded the end of.
fn tasks_of(ledger: &Path) -> io::Result<Vec<Task>> {
    // It is empty where a folder was made only to keep tokens.
    if fs::metadata(ledger).map_or(0, |found| found.len()) == 0 {
        return Ok(Vec::new());
    }
    let read = || -> Result<Vec<Task>, Box<dyn std::error::Error + Send + Sync>> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(ledger, flags)?;
        let mut statement =
            connection.prepare("SELECT task FROM tasks WHERE stopped_at IS NULL ORDER BY seq")?;
        let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
        rows.map(|text| Ok(serde_json::from_str(&text?)?)).collect()
    };
    read().map_err(io::Error::other)
}

fn lines_of(file: &Path) -> io::Result<usize> {
    match File::open(file) {
        Ok(file) => Ok(BufReader::new(file).lines().map_while(Result::ok).count()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

/// How many files there are in a folder and below, up to a number.
fn files_below(folder: &Path, most: usize) -> usize {
    let (mut folders, mut count) = (vec![folder.to_owned()], 0);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(kind) if kind.is_file() => count += 1,
                _ => {}
            }
            if count >= most {
                return count;
            }
        }
    }
    count
}

fn newest(dir: &Path) -> Option<SystemTime> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()?.modified().ok()).max()
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[tokio::test]
    async fn a_folder_tells_whose_it_is_and_where_its_server_is() {
        let dir = TempDir::new().expect("a folder");
        let path = dir.path().join("state");
        assert_eq!(Rights::of(&path).expect("read"), None);
        assert!(Installation::look(&path).expect("looked").server.is_none());

        let mut folder = Folder::open(&path).await.expect("opened");
        let rights = Rights { is_own: true, is_writable: true, is_open: false };
        assert_eq!(Rights::of(&path).expect("read"), Some(rights));
        let pid = Some(std::process::id().to_string());
        let server = |url| Some(RunningServer { pid: pid.clone(), url });
        assert_eq!(Installation::look(&path).expect("looked").server, server(None));
        let url = "http://127.0.0.1:8080".to_owned();
        folder.announce(&url).expect("written");
        assert_eq!(Installation::look(&path).expect("looked").server, server(Some(url)));
        drop(folder);
        let found = Installation::look(&path).expect("looked");
        assert!(found.server.is_none() && found.newest.is_some());
        Folder::open(&path).await.expect("looking has left no lock");
    }

    #[test]
    fn what_was_refused_and_what_was_not_told_is_counted() {
        let dir = TempDir::new().expect("a folder");
        let rejected = dir.path().join("s3/runs/rejected/submit/ada");
        fs::create_dir_all(&rejected).expect("made");
        fs::write(rejected.join("a.run.json"), "{}").expect("written");
        fs::write(dir.path().join(DEAD_LETTERS), "{}\n{}\n").expect("written");
        let found = Installation::look(dir.path()).expect("looked");
        assert_eq!((found.rejected, found.dead_letters), (1, 2));
    }

    #[test]
    fn a_ledger_that_cannot_be_read_is_an_error_and_is_left_as_it_is() {
        let dir = TempDir::new().expect("a folder");
        let ledger = dir.path().join(ledger::FILE);
        fs::write(&ledger, "not a database, whatever its name says").expect("written");
        Installation::look(dir.path()).expect_err("it cannot be read");
        assert_eq!(fs::read(&ledger).expect("there").len(), 38);
    }

    #[test]
    fn a_file_is_no_folder_and_remote_disks_are_known() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        Rights::of(file.path()).expect_err("no folder");
        assert!(is_remote(0x6969_i64) && is_remote(0xFF53_4D42_u32) && !is_remote(0xEF53_i64));
        let disk = Disk::of(Path::new("/nowhere/at/all")).expect("the root's");
        assert!(disk.free > 0, "{disk:?}");
    }
}
