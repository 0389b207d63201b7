//! The server's folder: made, locked for one server, with the internal port that living engines
//! know.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::{
        DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{net::TcpListener, time::Instant};

use crate::{credentials::write_private, dynamodb, ledger, options::ServeError};

pub(crate) const LOCK: &str = "server.lock";
const PORT: &str = "internal-port";
/// The rights of a folder's group and of everybody else.
const OTHERS: u32 = 0o077;
/// How long a lock or the internal port may be held by what is about to let go of it.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Below the ports that Linux gives to outgoing connections, so that none of them takes ours while
/// no server is there.
const PORTS: std::ops::Range<u16> = 15_000..32_000;
/// How many ports are tried.
const TRIES: usize = 50;

/// A folder that no other server uses.
#[derive(Debug)]
pub(crate) struct Folder {
    /// Its path, absolute and without links.
    pub(crate) path: PathBuf,
    /// Locked for as long as it is open. Its text tells the server's pid, and then its URL.
    lock: File,
}

impl Folder {
    /// Makes the folder, if need be, and locks it.
    pub(crate) async fn open(dir: &Path) -> Result<Self, ServeError> {
        Self::open_within(dir, PATIENCE).await
    }

    /// The same, where a lock that is held is waited for no longer than that.
    pub(crate) async fn open_within(dir: &Path, patience: Duration) -> Result<Self, ServeError> {
        let unusable = |source| ServeError::Dir { dir: dir.to_owned(), source };
        // It holds credentials and other people's data.
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(unusable)?;
        let path = fs::canonicalize(dir).map_err(unusable)?;
        let found = fs::metadata(&path).map_err(unusable)?;
        if found.mode() & OTHERS != 0 {
            if found.uid() != rustix::process::geteuid().as_raw() {
                return Err(ServeError::Exposed { dir: dir.to_owned() });
            }
            fs::set_permissions(&path, Permissions::from_mode(0o700)).map_err(unusable)?;
        }
        let mut lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(path.join(LOCK))
            .map_err(unusable)?;
        let deadline = Instant::now() + patience;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                // A process that a killed server has just forked holds it until it becomes its
                // program.
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                Err(TryLockError::WouldBlock) => {
                    let mut pid = String::new();
                    // Without the pid, the message is less helpful, and right all the same.
                    let _ = lock.read_to_string(&mut pid);
                    let pid = pid.lines().next().map(|pid| pid.trim().to_owned());
                    let pid = pid.filter(|pid| !pid.is_empty());
                    return Err(ServeError::InUse { dir: dir.to_owned(), pid });
                }
                Err(TryLockError::Error(error)) => return Err(unusable(error)),
            }
        }
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(unusable)?;
        let folder = Self { path, lock };
        for database in [ledger::FILE, dynamodb::FILE] {
            folder.keep_private(database).map_err(unusable)?;
        }
        Ok(folder)
    }

    /// Says where the server serves, for [`crate::Installation`].
    pub(crate) fn announce(&mut self, url: &str) -> io::Result<()> {
        writeln!(self.lock, "{url}")
    }

    /// Makes a SQLite file, and what SQLite keeps beside it, its owner's alone. What SQLite makes
    /// later has the file's mode.
    fn keep_private(&self, database: &str) -> io::Result<()> {
        let file = self.path.join(database);
        OpenOptions::new().create(true).append(true).mode(0o600).open(file)?;
        for end in ["", "-wal", "-shm"] {
            let file = self.path.join(format!("{database}{end}"));
            match fs::set_permissions(file, Permissions::from_mode(0o600)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// The internal port of the folder's server, for somebody else than the server.
    pub(crate) fn port_of(dir: &Path) -> io::Result<u16> {
        let text = fs::read_to_string(dir.join(PORT))?;
        text.trim().parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Listens on the internal port: the one that was chosen when the folder was made.
    pub(crate) async fn listen(&self) -> Result<TcpListener, ServeError> {
        let file = self.path.join(PORT);
        let unusable =
            |error: io::Error| ServeError::File { file: file.clone(), source: error.into() };
        match Self::port_of(&self.path) {
            Ok(port) => self.listen_again(port, &file).await,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let (listener, port) = choose().await.map_err(unusable)?;
                write_private(&file, format!("{port}\n").as_bytes()).map_err(unusable)?;
                Ok(listener)
            }
            Err(error) => Err(unusable(error)),
        }
    }

    async fn listen_again(&self, port: u16, file: &Path) -> Result<TcpListener, ServeError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match TcpListener::bind(("127.0.0.1", port)).await {
                Ok(listener) => return Ok(listener),
                Err(_) if Instant::now() < deadline => tokio::time::sleep(LOOK_EVERY).await,
                Err(source) => {
                    return Err(ServeError::InternalPort { port, file: file.to_owned(), source });
                }
            }
        }
    }
}

async fn choose() -> io::Result<(TcpListener, u16)> {
    let mut last = io::Error::other("no port was tried");
    for _ in 0..TRIES {
        let mut random = [0; 2];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let port = PORTS.start + u16::from_ne_bytes(random) % (PORTS.end - PORTS.start);
        match TcpListener::bind(("127.0.0.1", port)).await {
            Ok(listener) => return Ok((listener, port)),
            Err(error) => last = error,
        }
    }
    Err(last)
}
