//! The processes of a task: started in a session of their own, found again by a later server,
//! and gone to the last one when the task has stopped.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _},
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::{ffi::OsStrExt as _, fs::OpenOptionsExt as _, process::CommandExt as _},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::signal::{Signal, kill},
    unistd::{Pid, getpid, getsid, setsid, write},
};
use rustix::process::{Resource, setrlimit};
use serde::{Deserialize, Serialize};
use tokio::io::{Interest, unix::AsyncFd};

use crate::process_limits;

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
    /// Clock ticks since the machine was started (`/proc/<pid>/stat`, field 22); none where `/proc`
    /// does not show the process (`hidepid`, as an engine task is not dumpable).
    pub(crate) start_time: Option<u64>,
}

impl ProcessId {
    /// The process that `child` is, be it alive or a zombie.
    pub(crate) fn of(child: &Child) -> Self {
        let pid = child.id().cast_signed();
        Self { pid, start_time: Stat::read(&proc(), pid).map(|stat| stat.start_time) }
    }

    /// Whether the two are one, as far as is known.
    fn is(self, other: Self) -> bool {
        let times = self.start_time.zip(other.start_time);
        self.pid == other.pid && times.is_none_or(|(one, other)| one == other)
    }
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
    /// A link to where it works; and the folder of all such places, beside that of the tasks.
    pub(crate) const WORK: &str = "work";
}

/// Starts the program in a session of its own. From the very fork on it holds the lock of its
/// `alive` file, and it writes its pid there before it becomes the program: whoever comes later
/// can tell whether it was started, and whether it lives, whenever this process is killed.
#[expect(unsafe_code, reason = "a new session can only be made between fork and exec")]
pub(crate) fn start(program: &Program) -> io::Result<Child> {
    fs::create_dir_all(&program.folder)?;
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(program.folder.join(file::LOG))?;
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
    let files = process_limits::files_of_children();
    // SAFETY: between fork and exec only async-signal-safe calls are allowed: setsid, getpid, write,
    // fcntl and setrlimit are, and nothing here allocates. The descriptor is open: `alive` lives
    // until after the spawn.
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
            if let Some(files) = files {
                setrlimit(Resource::Nofile, files)?;
            }
            Ok(())
        });
    }
    command.spawn()
}

/// Whether a start that failed so may go well a little later: the machine is short of something that
/// others give back, or the program is just being replaced.
pub(crate) fn is_passing(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|number| {
        matches!(
            Errno::from_raw(number),
            Errno::EAGAIN | Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ETXTBSY
        )
    })
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
    /// Its process has ended.
    Ended,
}

/// Looks for the process of a task of this boot, by its `alive` file. Blocks for a moment when the
/// process has only just been forked.
pub(crate) fn find(folder: &Path, known: Option<ProcessId>) -> io::Result<Found> {
    find_in(&proc(), folder, known)
}

fn find_in(proc: &Path, folder: &Path, known: Option<ProcessId>) -> io::Result<Found> {
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
            (None, false) if text.is_empty() => return Ok(Found::NeverStarted),
            (None, true) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            (None, _) => {
                return Err(io::Error::other(format!("{} says no pid", path.display())));
            }
            (Some(_), false) => return Ok(Found::Ended),
            (Some(pid), true) => {
                // The lock may also be held by what the process left behind.
                let alive = identify(proc, pid)
                    .filter(|found| known.is_none_or(|known| known.is(*found)))
                    .filter(|_| session_of(pid) == Some(pid));
                return Ok(alive.map_or(Found::Ended, Found::Alive));
            }
        }
    }
}

fn proc() -> PathBuf {
    PathBuf::from("/proc")
}

/// The process of that number, unless there is none or it is a zombie.
fn identify(proc: &Path, pid: i32) -> Option<ProcessId> {
    match Stat::read(proc, pid) {
        Some(stat) => {
            (!stat.is_dead).then_some(ProcessId { pid, start_time: Some(stat.start_time) })
        }
        // It may only be hidden. Not as a zombie: those are shown to their owner.
        None => exists(pid).then_some(ProcessId { pid, start_time: None }),
    }
}

/// Whether the process, which leads a session, is alive.
fn lives(process: ProcessId) -> bool {
    identify(&proc(), process.pid).is_some_and(|found| found.is(process))
        && session_of(process.pid) == Some(process.pid)
}

fn exists(pid: i32) -> bool {
    matches!(kill(Pid::from_raw(pid), None), Ok(()) | Err(Errno::EPERM))
}

fn session_of(pid: i32) -> Option<i32> {
    getsid(Some(Pid::from_raw(pid))).ok().map(Pid::as_raw)
}

struct Stat {
    is_dead: bool,
    has_terminal: bool,
    start_time: u64,
}

impl Stat {
    fn read(proc: &Path, pid: i32) -> Option<Self> {
        let text = fs::read(proc.join(pid.to_string()).join("stat")).ok()?;
        let text = String::from_utf8_lossy(&text);
        // The name, in parentheses, may hold anything; the fields after it, from the third, not.
        let mut fields = text.rsplit_once(") ")?.1.split(' ');
        let is_dead = matches!(fields.next()?, "Z" | "X");
        let has_terminal = fields.nth(3)? != "0";
        Some(Self { is_dead, has_terminal, start_time: fields.nth(14)?.parse().ok()? })
    }
}

/// Asks the process, and only it, to end: what ECS does to a container.
pub(crate) fn terminate(process: ProcessId) {
    if lives(process) {
        // It may have ended in between, which is what was wanted.
        let _ = kill(Pid::from_raw(process.pid), Signal::SIGTERM);
    }
}

/// Kills every process of a task, again and again until none is left, and blocks until then: those
/// of the session that `leader` made, and those that left it. `folder` is the task's, absolute and
/// without links. No other process is touched, whatever numbers are used again.
pub(crate) fn kill_all(folder: &Path, leader: Option<ProcessId>) {
    let deadline = Instant::now() + DEATH_PATIENCE;
    let mut pause = Duration::from_millis(1);
    loop {
        let members = members(folder, leader);
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

/// The processes of a task that are alive.
fn members(folder: &Path, leader: Option<ProcessId>) -> Vec<i32> {
    let own = getpid().as_raw();
    let Ok(processes) = fs::read_dir(proc()) else { return Vec::new() };
    let mut folders = vec![folder.to_owned()];
    folders.extend(work_of(folder));
    // While the leader is there, be it as a zombie, its number names its session and no other.
    let session = leader.filter(|leader| {
        let now = Stat::read(&proc(), leader.pid).map(|stat| stat.start_time);
        exists(leader.pid) && leader.is(ProcessId { pid: leader.pid, start_time: now })
    });
    let is_of_session =
        |pid: i32| session.is_some_and(|leader| session_of(pid) == Some(leader.pid));
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid != own)
        .filter(|pid| is_of_session(*pid) || works_in(*pid, &folders, leader))
        .filter(|pid| identify(&proc(), *pid).is_some())
        .collect()
}

/// The folder that the task with this folder works in, if it has made one: one of those that are made
/// for that, wherever the link may lead by now.
pub(crate) fn work_of(folder: &Path) -> Option<PathBuf> {
    let all = folder.parent()?.parent()?.join(file::WORK).canonicalize().ok()?;
    fs::read_link(folder.join(file::WORK)).ok().filter(|work| work.parent() == Some(&all))
}

/// Whether the process is one of this user that was started in the task: it works in one of the
/// task's folders, or has its temporary folder there, and is too young to be another's. A person who
/// looks at the folder in a shell has a terminal, which no task has.
fn works_in(pid: i32, folders: &[PathBuf], leader: Option<ProcessId>) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let process = proc().join(pid.to_string());
    let is_own = fs::metadata(&process)
        .is_ok_and(|found| found.uid() == rustix::process::geteuid().as_raw());
    let Some(stat) = Stat::read(&proc(), pid).filter(|_| is_own) else { return false };
    let since = leader.and_then(|leader| leader.start_time).unwrap_or_default();
    if stat.has_terminal || stat.start_time < since {
        return false;
    }
    let is_below = |path: &Path| folders.iter().any(|folder| path.starts_with(folder));
    fs::read_link(process.join("cwd")).is_ok_and(|cwd| is_below(&cwd))
        || fs::read(process.join("environ")).is_ok_and(|text| {
            text.split(|byte| *byte == 0)
                .filter_map(|variable| variable.strip_prefix(b"TMPDIR="))
                .any(|value| is_below(Path::new(OsStr::from_bytes(value))))
        })
}

/// Returns when the process has ended.
pub(crate) async fn ended(process: ProcessId) {
    if let Some(handle) = handle(process)
        && handle.readable().await.is_ok()
    {
        return;
    }
    while lives(process) {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The kernel's handle on a process, where the kernel gives one: readable when it has ended.
#[expect(unsafe_code, reason = "tokio cannot check that a descriptor stays open")]
fn handle(process: ProcessId) -> Option<AsyncFd<OwnedFd>> {
    let pid = rustix::process::Pid::from_raw(process.pid)?;
    let handle = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::NONBLOCK).ok()?;
    // Opened by number: it must be the process that is meant, not a later one.
    if !lives(process) {
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
        assert_eq!(process, ProcessId::of(&child));
        assert_eq!(process.pid, pid);
        let later = process.start_time.map(|time| time + 1);
        let other = ProcessId { pid, start_time: later };
        assert_eq!(find(&program.folder, Some(other)).expect("looked"), Found::Ended);
        // As where /proc is mounted with hidepid=2.
        let nothing = folder.path().join("proc");
        let hidden = Found::Alive(ProcessId { pid, start_time: None });
        assert_eq!(find_in(&nothing, &program.folder, Some(process)).expect("looked"), hidden);
        fs::write(program.folder.join("fifo"), "go\n").expect("written");
        ended(process).await;
        child.wait().expect("ended");
        assert_eq!(find(&program.folder, Some(process)).expect("looked"), Found::Ended);
        assert_eq!(find_in(&nothing, &program.folder, None).expect("looked"), Found::Ended);
        assert_eq!(identify(&proc(), pid), None);
        assert_eq!(identify(&nothing, pid), None);
    }

    #[test]
    fn what_a_task_left_behind_is_killed_wherever_it_went_and_nothing_else_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = fs::canonicalize(folder.path()).expect("there");
        let script = "left() { echo $! > $1; }\n\
            setsid sleep 600 & left cwd\n\
            mkdir -p ../../work/x && ln -s $(realpath ../../work/x) work\n\
            (cd work && exec setsid sleep 600) & left link\n\
            (cd / && TMPDIR=$PWD_OF_TASK/tmp exec setsid sleep 600) & left tmpdir\n\
            (cd / && exec sleep 600) & left session";
        fs::create_dir(root.join("tasks")).expect("made");
        let mut program = program(&root.join("tasks"), script);
        let task = program.folder.clone();
        program.environment.push(("PWD_OF_TASK".into(), task.clone().into()));
        let mut child = start(&program).expect("started");
        let leader = ProcessId::of(&child);
        let mut stranger =
            Command::new("sleep").arg("600").current_dir(&root).spawn().expect("started");
        let stranger_pid = stranger.id().cast_signed();
        let left = |name: &str| -> i32 {
            let text = fs::read_to_string(task.join(name)).expect("written");
            text.trim().parse().expect("a pid")
        };
        while lives(leader) {
            std::thread::yield_now();
        }
        let is_alive = |pid: i32| identify(&proc(), pid).is_some();
        let names = ["cwd", "link", "tmpdir", "session"];
        assert!(names.iter().all(|name| is_alive(left(name))));
        // A number that is another's by now is not looked at, nor is one that nobody has.
        let another = ProcessId { pid: leader.pid, start_time: Some(u64::MAX) };
        kill_all(&root.join("other"), Some(another));
        assert!(names.iter().all(|name| is_alive(left(name))));
        kill_all(&task, Some(leader));
        assert!(!names.iter().any(|name| is_alive(left(name))));
        child.wait().expect("ended");
        assert!(is_alive(stranger_pid));
        stranger.kill().expect("killed");
        stranger.wait().expect("ended");
    }

    #[test]
    fn what_a_process_leaves_in_its_session_is_killed() {
        let folder = tempfile::tempdir().expect("a folder");
        let script = "trap '' TERM; (trap '' TERM; sleep 600) & echo $! > left; exit 3";
        let program = program(folder.path(), script);
        let mut child = start(&program).expect("started");
        assert_eq!(child.wait().expect("ended").code(), Some(3));
        let left = fs::read_to_string(program.folder.join("left")).expect("written");
        let left: i32 = left.trim().parse().expect("a pid");
        assert!(identify(&proc(), left).is_some());
        kill_all(&fs::canonicalize(&program.folder).expect("there"), None);
        assert!(identify(&proc(), left).is_none());
    }
}
