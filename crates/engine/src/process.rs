//! The engine as a process: started in its own group, stopped with everything that it started.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        prctl,
        signal::{Signal, kill, killpg},
        wait::{Id, WaitPidFlag, waitid, waitpid},
    },
    unistd::{Pid, getpid},
};
use tokio::{
    fs::File,
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::Command,
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};
use tracing::{info, warn};

use crate::{error::is_full, sandbox::Wrapper};

/// How often orphans are reaped while the engine is at work.
const REAP_EVERY: Duration = Duration::from_secs(2);

/// For how long killed processes are waited for: one that is stuck in the kernel must not keep the
/// task from its end.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// For how long the end of the output of an engine that is gone is waited for: somebody who is not
/// below us may hold its pipes open.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);

/// How many signals there are (signal(7)).
const SIGNALS: i32 = 64;

/// How much of the engine's output is copied at once, in bytes: what a pipe holds.
const PIECE: usize = 64 * 1024;

/// Shields this process from what the engine runs: its memory and environment cannot be read by
/// others of its uid, and orphans become its children, so that none escapes.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn harden() -> io::Result<()> {
    prctl::set_dumpable(false)?;
    prctl::set_child_subreaper(true)?;
    Ok(())
}

/// What to start, and where.
#[derive(Debug)]
pub(crate) struct Job {
    /// The program.
    pub(crate) program: PathBuf,
    /// The command line; its first word is what the program sees as its name.
    pub(crate) argv: Vec<String>,
    /// All of its environment.
    pub(crate) environment: Vec<(OsString, OsString)>,
    /// The folder that it starts in.
    pub(crate) folder: PathBuf,
    /// Where its standard output goes.
    pub(crate) stdout: PathBuf,
    /// Where its standard error goes.
    pub(crate) stderr: PathBuf,
    /// The sandbox that it runs in.
    pub(crate) sandbox: Option<Wrapper>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exit {
    /// The exit code, 128 + n when signal n ended it.
    pub(crate) code: i32,
    /// The signal that ended it.
    pub(crate) signal: Option<i32>,
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        let signal = status.signal();
        Self { code: status.code().unwrap_or_else(|| 128 + signal.unwrap_or_default()), signal }
    }
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// How its process ended.
    pub(crate) exit: Exit,
    /// Whether that was after it had been told to stop.
    pub(crate) stopped: bool,
    /// Whether a part of its output was lost, since the disk was full.
    pub(crate) disk_full: bool,
}

/// Why a job was not run to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The program cannot be started.
    #[error("{0}")]
    Start(io::Error),
    /// Our own files or processes.
    #[error("{0}")]
    Local(io::Error),
}

/// Runs the job to its end. When `stop` returns, the whole group gets SIGTERM, and SIGKILL when it
/// is still there after `grace`. Either way nothing that it started is left.
///
/// Its output goes through pipes, not into the files themselves: a tool that opens `/dev/stderr` to
/// write would truncate a file for everybody.
///
/// # Errors
/// [`Error`].
pub(crate) async fn run(
    job: &Job,
    stop: impl Future<Output = ()>,
    grace: Duration,
) -> Result<Ended, Error> {
    let (stdout, stderr) = (create(&job.stdout)?, create(&job.stderr)?);
    let mut command = match &job.sandbox {
        None => {
            let mut command = Command::new(&job.program);
            command.arg0(job.argv.first().map_or("", String::as_str));
            command
        }
        Some(sandbox) => {
            let mut command = Command::new(&sandbox.program);
            command.args(&sandbox.arguments).arg(&job.program);
            command
        }
    };
    command
        .args(job.argv.iter().skip(1))
        .env_clear()
        .envs(job.environment.iter().map(|(name, value)| (name, value)))
        .current_dir(&job.folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = command.spawn().map_err(Error::Start)?;
    let copies = [
        child.stdout.take().map(|pipe| tokio::spawn(copy(pipe, stdout))),
        child.stderr.take().map(|pipe| tokio::spawn(copy(pipe, stderr))),
    ];
    let leader = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    let mut stop = std::pin::pin!(stop);
    let mut reap = tokio::time::interval_at(Instant::now() + REAP_EVERY, REAP_EVERY);
    let mut stopped = false;
    let status = loop {
        tokio::select! {
            biased;
            status = child.wait() => break status.map_err(Error::Local)?,
            () = &mut stop => {
                info!("stopping the engine");
                stopped = true;
                if job.sandbox.is_some() {
                    // Whoever watches over the sandbox would end it at once, and the engine with it.
                    signal_below(leader, Signal::SIGTERM);
                } else {
                    signal_all(leader, Signal::SIGTERM);
                }
                if let Ok(status) = timeout(grace, child.wait()).await {
                    break status.map_err(Error::Local)?;
                }
                warn!("the engine did not end within {grace:?}; killing it");
                signal_all(leader, Signal::SIGKILL);
                if let Ok(status) = timeout(KILL_PATIENCE, child.wait()).await {
                    break status.map_err(Error::Local)?;
                }
                warn!("the killed engine is still there");
                break ExitStatus::from_raw(Signal::SIGKILL as i32);
            }
            _ = reap.tick() => reap_orphans(leader),
        }
    };
    end_descendants().await;
    let disk_full = drain(copies.into_iter().flatten()).await;
    let mut exit = Exit::from(status);
    if job.sandbox.is_some() && exit.signal.is_none() && (129..129 + SIGNALS).contains(&exit.code) {
        // As a shell, bubblewrap ends with 128 + n for a command that signal n ended.
        exit.signal = Some(exit.code - 128);
    }
    Ok(Ended { exit, stopped, disk_full })
}

/// Makes a log that is only appended to.
fn create(log: &Path) -> Result<File, Error> {
    let file = std::fs::File::options().create(true).append(true).open(log);
    file.map(File::from_std).map_err(Error::Local)
}

/// Copies what comes out of `pipe` into `log` until nobody can write to it any more. What cannot be
/// stored is lost, since an engine must not wait for room that may never come. Gives whether that
/// was because the disk was full.
async fn copy(mut pipe: impl AsyncRead + Unpin, mut log: File) -> bool {
    let mut piece = vec![0; PIECE];
    let mut lost = false;
    let mut full = false;
    loop {
        let length = match pipe.read(&mut piece).await {
            Ok(0) => return full,
            Ok(length) => length,
            Err(error) => {
                warn!("the engine's output cannot be read: {error}");
                return full;
            }
        };
        let stored = async {
            log.write_all(&piece[..length]).await?;
            // Only now is it seen whether there was room.
            log.flush().await
        };
        if let Err(error) = stored.await {
            if !lost {
                warn!("a part of the engine's output is lost: {error}");
            }
            lost = true;
            full |= is_full(&error);
        }
    }
}

/// Waits for the rest of the engine's output, and gives whether the disk was full for it.
async fn drain(copies: impl Iterator<Item = JoinHandle<bool>>) -> bool {
    let end = Instant::now() + DRAIN_PATIENCE;
    let mut full = false;
    for mut copy in copies {
        match timeout_at(end, &mut copy).await {
            Ok(Ok(was_full)) => full |= was_full,
            Ok(Err(error)) => warn!("copying the engine's output: {error}"),
            Err(_) => {
                warn!("the engine is gone, but somebody holds its output open");
                copy.abort();
            }
        }
    }
    full
}

/// Sends a signal to the engine's group, and to its processes that have left the group.
fn signal_all(leader: Option<Pid>, signal: Signal) {
    let group = leader.map(|leader| killpg(leader, signal));
    if let Some(Err(error)) = group
        && error != Errno::ESRCH
    {
        warn!("the engine's group could not be sent {signal}: {error}");
    }
    for process in descendants() {
        if leader != Some(process.group) {
            send(process.pid, signal);
        }
    }
}

/// Sends a signal to every process below us but `watcher`.
fn signal_below(watcher: Option<Pid>, signal: Signal) {
    for process in descendants().into_iter().filter(|process| watcher != Some(process.pid)) {
        send(process.pid, signal);
    }
}

fn send(pid: Pid, signal: Signal) {
    match kill(pid, signal) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => warn!("process {pid} could not be sent {signal}: {error}"),
    }
}

/// Kills and reaps whatever is left of the engine's processes.
async fn end_descendants() {
    let end = Instant::now() + KILL_PATIENCE;
    // One look is not enough: while `/proc` is read, a process may start another in the part that
    // has been read already, and end before its own turn.
    let mut seen_none = false;
    loop {
        // Orphans become our children: without a child there is nothing below us. Where an engine
        // leaves nothing, as it should, that is all there is to ask.
        if has_no_child() {
            return;
        }
        let left = descendants();
        let alive = left.iter().filter(|process| !process.zombie);
        let mut any = false;
        for process in alive {
            any = true;
            send(process.pid, Signal::SIGKILL);
        }
        reap_orphans(None);
        if !any && seen_none {
            return;
        }
        seen_none = !any;
        if Instant::now() >= end {
            warn!("{} killed processes are still there", left.len());
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether no process is left below us, not even a dead one that waits to be reaped.
fn has_no_child() -> bool {
    let only_look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    waitid(Id::All, only_look | WaitPidFlag::__WALL) == Err(Errno::ECHILD)
}

/// Reaps our dead children, but not the engine itself, whose status is awaited elsewhere.
fn reap_orphans(engine: Option<Pid>) {
    let me = getpid();
    for process in processes() {
        if process.parent == me && process.zombie && engine != Some(process.pid) {
            // Somebody else's reaping is as good.
            let _ = waitpid(process.pid, Some(WaitPidFlag::WNOHANG));
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    pid: Pid,
    parent: Pid,
    group: Pid,
    zombie: bool,
}

/// Every process below this one.
fn descendants() -> Vec<Process> {
    below(getpid(), processes())
}

fn below(root: Pid, processes: Vec<Process>) -> Vec<Process> {
    let mut children: BTreeMap<Pid, Vec<Process>> = BTreeMap::new();
    for process in processes {
        children.entry(process.parent).or_default().push(process);
    }
    let mut found: Vec<Process> = children.remove(&root).unwrap_or_default();
    let mut next = 0;
    while let Some(process) = found.get(next) {
        found.extend(children.remove(&process.pid).unwrap_or_default());
        next += 1;
    }
    found
}

/// Every process of the machine that `/proc` shows.
fn processes() -> Vec<Process> {
    let entries = match std::fs::read_dir("/proc") {
        Ok(entries) => entries,
        Err(error) => {
            warn!("/proc cannot be read: {error}; processes may be left behind");
            return Vec::new();
        }
    };
    entries
        .flatten()
        .filter(|entry| entry.file_name().as_encoded_bytes()[0].is_ascii_digit())
        // A process that is gone by now is not missed; its name need not be UTF-8.
        .filter_map(|entry| std::fs::read(entry.path().join("stat")).ok())
        .filter_map(|stat| parse_stat(&String::from_utf8_lossy(&stat)))
        .collect()
}

/// Reads `/proc/<pid>/stat` (proc(5)): `pid (name) state parent group …`, the name being anything.
fn parse_stat(stat: &str) -> Option<Process> {
    let (pid, _) = stat.split_once(' ')?;
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    let mut number = || fields.next()?.parse().ok().map(Pid::from_raw);
    Some(Process {
        pid: Pid::from_raw(pid.parse().ok()?),
        parent: number()?,
        group: number()?,
        zombie: matches!(state, "Z" | "X"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, parent: i32) -> Process {
        Process {
            pid: Pid::from_raw(pid),
            parent: Pid::from_raw(parent),
            group: Pid::from_raw(pid),
            zombie: false,
        }
    }

    #[tokio::test]
    async fn output_that_finds_no_room_is_read_to_its_end_and_remembered() {
        let full = || async { File::options().append(true).open("/dev/full").await };
        let output = vec![b'x'; 3 * PIECE];
        let mut rest = &output[..];
        assert!(copy(&mut rest, full().await.expect("opened")).await);
        assert!(rest.is_empty());
        assert!(!copy(&b""[..], full().await.expect("opened")).await);
    }

    #[test]
    fn a_process_name_may_hold_anything() {
        let parsed = parse_stat("42 (a) Z 1 (b)) S 7 9 42 0 -1").expect("a stat line");
        assert_eq!(
            parsed,
            Process {
                pid: Pid::from_raw(42),
                parent: Pid::from_raw(7),
                group: Pid::from_raw(9),
                zombie: false
            }
        );
        assert!(parse_stat("7 (x) Z 1 7 7").expect("a stat line").zombie);
        assert_eq!(parse_stat("nonsense"), None);
    }

    #[test]
    fn only_what_is_below_is_found_however_deep() {
        let all = vec![process(2, 1), process(5, 4), process(4, 3), process(3, 9), process(9, 1)];
        let found: Vec<_> =
            below(Pid::from_raw(9), all).into_iter().map(|p| p.pid.as_raw()).collect();
        assert_eq!(found, [3, 4, 5]);
    }

    #[test]
    fn a_signal_shows_as_128_and_its_number() {
        assert_eq!(Exit::from(ExitStatus::from_raw(9)), Exit { code: 137, signal: Some(9) });
        assert_eq!(Exit::from(ExitStatus::from_raw(33 << 8)), Exit { code: 33, signal: None });
    }
}
