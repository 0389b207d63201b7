//! The processes of a task: started in a session of their own, found again by a later server,
//! and gone to the last one when the task has stopped.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _},
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::{fs::OpenOptionsExt as _, process::CommandExt as _},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::signal::{Signal, kill},
    unistd::{Pid, getpid, getsid, setsid, write},
};
use serde::{Deserialize, Serialize};
use tokio::io::{Interest, unix::AsyncFd};

/// How often a process is looked at where the kernel cannot tell of its end.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long a started process may take to say its pid, which is the first thing it does.
const PID_PATIENCE: Duration = Duration::from_secs(2);
/// How long the kernel may take to end killed processes before it is logged and left.
const DEATH_PATIENCE: Duration = Duration::from_secs(10);

/// A process, told from a later one of the same number by when it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    /// The pid, which is its session's id too.
    pub(crate) pid: i32,
    /// Clock ticks since the machine was started (`/proc/<pid>/stat`, field 22).
    pub(crate) start_time: u64,
}

/// What is to be started.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    pub(crate) environment: Vec<(OsString, OsString)>,
    /// The task's folder: where it starts, and where its files are.
    pub(crate) folder: PathBuf,
}

/// The files of a task in its folder.
pub(crate) mod file {
    /// What the engine task writes to standard output and error.
    pub(crate) const LOG: &str = "log";
    /// How it ended, written by itself.
    pub(crate) const EXIT: &str = "exit.json";
    /// Holds its pid, and is locked for as long as it lives.
    pub(crate) const ALIVE: &str = "alive";
    /// Where it works.
    pub(crate) const WORK: &str = "work";
}

/// The id of the machine's present boot.
pub(crate) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

/// Starts the program in a session of its own. From the very fork on it holds the lock of its
/// `alive` file, and it writes its pid there before it becomes the program: whoever comes later
/// can tell whether it was started, and whether it lives, whenever this process is killed.
#[expect(unsafe_code, reason = "a new session can only be made between fork and exec")]
pub(crate) fn start(program: &Program) -> io::Result<Child> {
    fs::create_dir_all(program.folder.join(file::WORK))?;
    let open = |name: &str| {
        OpenOptions::new().create(true).append(true).mode(0o600).open(program.folder.join(name))
    };
    let log = open(file::LOG)?;
    let alive = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(program.folder.join(file::ALIVE))?;
    alive.try_lock().map_err(|error| match error {
        TryLockError::Error(error) => error,
        TryLockError::WouldBlock => io::Error::other("the task is running already"),
    })?;
    let handed_on = alive.as_fd().as_raw_fd();
    let mut command = Command::new(&program.path);
    command
        .env_clear()
        .envs(program.environment.iter().map(|(name, value)| (name, value)))
        .current_dir(&program.folder)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    // SAFETY: between fork and exec only async-signal-safe calls are allowed: setsid, getpid,
    // write and fcntl are, and nothing here allocates. The descriptor is open: `alive` lives until
    // after the spawn.
    unsafe {
        command.pre_exec(move || {
            setsid()?;
            let alive = std::os::fd::BorrowedFd::borrow_raw(handed_on);
            let mut digits = [0; 12];
            let text = decimal(getpid().as_raw(), &mut digits);
            if write(alive, text)? != text.len() {
                return Err(io::ErrorKind::WriteZero.into());
            }
            // Kept across exec, and with it the lock.
            fcntl(alive, FcntlArg::F_SETFD(FdFlag::empty()))?;
            Ok(())
        });
    }
    command.spawn()
}

/// The number's digits and a newline, without allocating.
fn decimal(number: i32, buffer: &mut [u8; 12]) -> &[u8] {
    let mut rest = number.unsigned_abs();
    let mut at = buffer.len() - 1;
    buffer[at] = b'\n';
    while at > 0 {
        at -= 1;
        buffer[at] = b'0' + u8::try_from(rest % 10).unwrap_or_default();
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    &buffer[at..]
}

/// What became of a task that an earlier server may have started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// It never was.
    NeverStarted,
    /// Its process is alive.
    Alive(ProcessId),
    /// Its process has ended; the pid it had.
    Ended(i32),
}

/// Looks for the process of a task of this boot, by its `alive` file. Blocks for a moment when the
/// process has only just been forked.
pub(crate) fn find(folder: &Path, known: Option<ProcessId>) -> io::Result<Found> {
    let path = folder.join(file::ALIVE);
    let deadline = Instant::now() + PID_PATIENCE;
    loop {
        let mut alive = match File::open(&path) {
            Ok(alive) => alive,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Found::NeverStarted);
            }
            Err(error) => return Err(error),
        };
        let held = match alive.try_lock() {
            Ok(()) => false,
            Err(TryLockError::WouldBlock) => true,
            Err(TryLockError::Error(error)) => return Err(error),
        };
        let mut text = String::new();
        alive.read_to_string(&mut text)?;
        let pid = text.strip_suffix('\n').and_then(|digits| digits.parse::<i32>().ok());
        match (pid, held) {
            (None, false) => return Ok(Found::NeverStarted),
            (None, true) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            (None, true) => {
                return Err(io::Error::other(format!(
                    "{} is locked, but says no pid",
                    path.display()
                )));
            }
            (Some(pid), false) => return Ok(Found::Ended(pid)),
            (Some(pid), true) => {
                // The lock may also be held by what the process left behind.
                let alive = identify(pid)
                    .filter(|found| known.is_none_or(|known| known == *found))
                    .filter(|_| session_of(pid) == Some(pid));
                return Ok(alive.map_or(Found::Ended(pid), Found::Alive));
            }
        }
    }
}

/// The process of that number, unless there is none or it is a zombie.
pub(crate) fn identify(pid: i32) -> Option<ProcessId> {
    let stat = Stat::read(pid)?;
    (!stat.is_dead).then_some(ProcessId { pid, start_time: stat.start_time })
}

/// The process of that number, a zombie included.
pub(crate) fn start_of(pid: i32) -> io::Result<ProcessId> {
    let stat =
        Stat::read(pid).ok_or_else(|| io::Error::other("the process cannot be seen in /proc"))?;
    Ok(ProcessId { pid, start_time: stat.start_time })
}

fn session_of(pid: i32) -> Option<i32> {
    getsid(Some(Pid::from_raw(pid))).ok().map(Pid::as_raw)
}

struct Stat {
    is_dead: bool,
    start_time: u64,
}

impl Stat {
    fn read(pid: i32) -> Option<Self> {
        let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
        let text = String::from_utf8_lossy(&text);
        // The name, in parentheses, may hold anything; the fields after it, from the third, not.
        let mut fields = text.rsplit_once(") ")?.1.split(' ');
        let is_dead = matches!(fields.next()?, "Z" | "X");
        Some(Self { is_dead, start_time: fields.nth(18)?.parse().ok()? })
    }
}

/// Asks the process, and only it, to end: what ECS does to a container.
pub(crate) fn terminate(process: ProcessId) {
    if identify(process.pid) == Some(process) {
        // It may have ended in between, which is what was wanted.
        let _ = kill(Pid::from_raw(process.pid), Signal::SIGTERM);
    }
}

/// Kills every process of a session, again and again until none is left, and blocks until then.
/// `leader` is the process that made the session; when it is not known, it must have ended.
pub(crate) fn kill_session(session: i32, leader: Option<ProcessId>) {
    let deadline = Instant::now() + DEATH_PATIENCE;
    let mut pause = Duration::from_millis(1);
    loop {
        let is_anothers = Stat::read(session).is_some_and(|stat| {
            leader.map_or(!stat.is_dead, |leader| leader.start_time != stat.start_time)
        });
        if is_anothers {
            // The kernel reuses a number only when nothing is left of the session it named.
            return;
        }
        let members = members(session);
        if members.is_empty() {
            return;
        }
        for pid in &members {
            // Gone in between is as good.
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        if Instant::now() >= deadline {
            tracing::warn!(?members, "processes of a task cannot be killed");
            return;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// The processes of a session that are alive.
fn members(session: i32) -> Vec<i32> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| session_of(*pid) == Some(session))
        .filter(|pid| Stat::read(*pid).is_some_and(|stat| !stat.is_dead))
        .collect()
}

/// Returns when the process has ended.
pub(crate) async fn ended(process: ProcessId) {
    if let Some(handle) = handle(process)
        && handle.readable().await.is_ok()
    {
        return;
    }
    while identify(process.pid) == Some(process) {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The kernel's handle on a process, where the kernel gives one: readable when it has ended.
#[expect(unsafe_code, reason = "tokio cannot check that a descriptor stays open")]
fn handle(process: ProcessId) -> Option<AsyncFd<OwnedFd>> {
    let pid = rustix::process::Pid::from_raw(process.pid)?;
    let handle = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::NONBLOCK).ok()?;
    // Opened by number: it must be the process that is meant, not a later one.
    if Stat::read(process.pid)?.start_time != process.start_time {
        return None;
    }
    // SAFETY: the descriptor is owned by what is registered, so that it stays open and the same.
    unsafe { AsyncFd::register_with_interest(handle, Interest::READABLE) }.ok()
}

/// The exit code that a task wrote of itself.
pub(crate) fn recorded_exit(folder: &Path) -> Option<i32> {
    #[derive(Deserialize)]
    struct Record {
        exit_code: i32,
    }
    let text = fs::read(folder.join(file::EXIT)).ok()?;
    serde_json::from_slice::<Record>(&text).ok().map(|record| record.exit_code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(folder: &Path, script: &str) -> Program {
        let path = folder.join("program");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("written");
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .expect("executable");
        Program {
            path,
            environment: vec![("PATH".into(), "/usr/bin:/bin".into())],
            folder: folder.join("task"),
        }
    }

    #[test]
    fn a_pid_is_written_without_allocating() {
        let mut buffer = [0; 12];
        for number in [1, 10, 4_194_304, i32::MAX] {
            assert_eq!(decimal(number, &mut buffer), format!("{number}\n").as_bytes());
        }
    }

    #[tokio::test]
    async fn a_process_is_found_by_its_lock_and_by_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let program = program(folder.path(), "read -r line < fifo");
        assert_eq!(find(&program.folder, None).expect("looked"), Found::NeverStarted);
        fs::create_dir(&program.folder).expect("made");
        fs::write(program.folder.join(file::ALIVE), "").expect("written");
        assert_eq!(find(&program.folder, None).expect("looked"), Found::NeverStarted);
        nix::unistd::mkfifo(&program.folder.join("fifo"), nix::sys::stat::Mode::S_IRWXU)
            .expect("made");
        let mut child = start(&program).expect("started");
        let pid = i32::try_from(child.id()).expect("a pid");
        let Found::Alive(process) = find(&program.folder, None).expect("looked") else {
            panic!("not found")
        };
        assert_eq!(process.pid, pid);
        let other = ProcessId { pid, start_time: process.start_time + 1 };
        assert_eq!(find(&program.folder, Some(other)).expect("looked"), Found::Ended(pid));
        fs::write(program.folder.join("fifo"), "go\n").expect("written");
        ended(process).await;
        child.wait().expect("ended");
        assert_eq!(find(&program.folder, Some(process)).expect("looked"), Found::Ended(pid));
        assert_eq!(identify(pid), None);
    }

    #[test]
    fn what_a_process_leaves_in_its_session_is_killed() {
        let folder = tempfile::tempdir().expect("a folder");
        let script = "trap '' TERM; (trap '' TERM; sleep 600) & echo $! > left; exit 3";
        let program = program(folder.path(), script);
        let mut child = start(&program).expect("started");
        let pid = i32::try_from(child.id()).expect("a pid");
        assert_eq!(child.wait().expect("ended").code(), Some(3));
        let left = fs::read_to_string(program.folder.join("left")).expect("written");
        let left: i32 = left.trim().parse().expect("a pid");
        assert!(identify(left).is_some());
        kill_session(pid, None);
        assert!(identify(left).is_none());
        assert!(members(pid).is_empty());
    }
}
