//! Who is told of state changes: a URL or a command.

use std::{
    ffi::OsString,
    fmt,
    fs::File,
    io,
    os::unix::{fs::FileExt as _, process::ExitStatusExt as _},
    process::Stdio,
    str::FromStr,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use reqwest::{Client, header::CONTENT_TYPE, redirect::Policy};
use rustix::fs::{MemfdFlags, memfd_create};
use stepwes_core::{state_change::StateChange, trace};
use thiserror::Error;
use tokio::{
    io::AsyncWriteExt as _,
    process::{Child, Command},
};
use url::Url;

/// How much of what a command that failed has written to its standard error is logged, in bytes.
const LOGGED: usize = 1024;

/// Who is told of every state change of a run.
#[derive(Clone, PartialEq, Eq)]
pub enum StateChangeReceiver {
    /// Gets each event by POST, as JSON; a user and password in it are sent as basic
    /// authentication.
    Url(Url),
    /// Is run by `/bin/sh -c` for each event, with the event as JSON on its standard input.
    Command(String),
}

/// Neither a URL nor a command.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("it is neither a URL with a host, such as https://example.org/wes, nor a command")]
pub struct NoReceiver;

impl FromStr for StateChangeReceiver {
    type Err = NoReceiver;

    fn from_str(text: &str) -> Result<Self, NoReceiver> {
        if text.starts_with("http://") || text.starts_with("https://") {
            return Url::parse(text).map(Self::Url).map_err(|_| NoReceiver);
        }
        if text.trim().is_empty() || text.contains('\0') {
            return Err(NoReceiver);
        }
        Ok(Self::Command(text.to_owned()))
    }
}

/// Without what a URL may hold beside its host: it may be secret.
impl fmt::Debug for StateChangeReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => write!(f, "Url({})", url.host_str().unwrap_or_default()),
            Self::Command(_) => f.write_str("Command"),
        }
    }
}

/// Why a state change was not taken, fit for a log.
#[derive(Debug, Error)]
pub(super) enum NotTaken {
    #[error("the URL answered {0}")]
    Status(u16),
    #[error("the URL did not answer: {0}")]
    Http(#[source] reqwest::Error),
    #[error("the command exited with {code}: {said}")]
    Exit { code: i32, said: String },
    #[error("the command was ended by signal {0}")]
    Signal(i32),
    #[error("the command took longer than {} s and was killed", .0.as_secs_f64())]
    TimedOut(Duration),
    #[error("the command could not be run: {0}")]
    Io(#[from] io::Error),
}

/// A receiver that is ready to be told.
pub(super) enum Sender {
    Url { client: Client, url: Url },
    Command { text: String, environment: Vec<(String, OsString)>, timeout: Duration },
}

impl Sender {
    /// `environment` is what a command has beside the event.
    pub(super) fn new(
        receiver: StateChangeReceiver,
        environment: Vec<(String, OsString)>,
        url_timeout: Duration,
        command_timeout: Duration,
    ) -> reqwest::Result<Self> {
        Ok(match receiver {
            StateChangeReceiver::Url(url) => {
                // Fails only when it was done before, which is as good.
                let _ = rustls::crypto::ring::default_provider().install_default();
                let client = Client::builder()
                    .user_agent(concat!("stepwes/", env!("CARGO_PKG_VERSION")))
                    .timeout(url_timeout)
                    .redirect(Policy::none())
                    .build()?;
                Self::Url { client, url }
            }
            StateChangeReceiver::Command(text) => {
                Self::Command { text, environment, timeout: command_timeout }
            }
        })
    }

    /// Tells the receiver; it has taken the change when this is well.
    pub(super) async fn send(&self, change: &StateChange, event: String) -> Result<(), NotTaken> {
        match self {
            Self::Url { client, url } => {
                let post = client.post(url.clone());
                let post = post.header(CONTENT_TYPE, "application/json; charset=utf-8").body(event);
                let answer =
                    post.send().await.map_err(|error| NotTaken::Http(error.without_url()))?;
                let status = answer.status();
                if status.is_success() { Ok(()) } else { Err(NotTaken::Status(status.as_u16())) }
            }
            Self::Command { text, environment, timeout } => {
                let mut command = Command::new("/bin/sh");
                command.arg("-c").arg(text).env_clear().envs(environment.iter().cloned());
                for (name, value) in variables(change) {
                    command.env(name, value);
                }
                // Not a pipe: whatever goes on in the background may keep it open.
                let stderr = memfd_create("stderr", MemfdFlags::CLOEXEC);
                let stderr = File::from(stderr.map_err(io::Error::from)?);
                let child = command
                    .stdin(Stdio::piped())
                    .stdout(Stdio::null())
                    .stderr(stderr.try_clone()?)
                    .process_group(0)
                    .spawn()?;
                let group = Group::of(&child);
                let ended = tokio::time::timeout(*timeout, run(child, event, &stderr)).await;
                let ended = ended.map_err(|_| NotTaken::TimedOut(*timeout))?;
                // What it left in the background may go on.
                group.spare();
                ended
            }
        }
    }
}

/// The main fields of a change, for those who do not want to read JSON.
fn variables(change: &StateChange) -> [(&'static str, &str); 9] {
    [
        ("STEPWES_RUN_ID", &change.run_id),
        ("STEPWES_VERSION", &change.version),
        ("STEPWES_OWNER", &change.owner),
        ("STEPWES_EVENT", &change.event),
        ("STEPWES_FROM", &change.from),
        ("STEPWES_TO", &change.to),
        ("STEPWES_TIME", &change.time),
        ("STEPWES_OUTPUTS", if change.has_outputs { &change.outputs } else { "" }),
        (trace::VARIABLE, &change.traceparent),
    ]
}

async fn run(mut child: Child, event: String, stderr: &File) -> Result<(), NotTaken> {
    let stdin = child.stdin.take();
    let write = async move {
        if let Some(mut stdin) = stdin {
            // Whoever does not read it has what it wants.
            let _ = stdin.write_all(event.as_bytes()).await;
        }
    };
    let (status, ()) = tokio::join!(child.wait(), write);
    let status = status?;
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(NotTaken::Exit { code, said: said(stderr) }),
        (None, signal) => Err(NotTaken::Signal(signal.unwrap_or_default())),
    }
}

/// The beginning of what was said.
fn said(stderr: &File) -> String {
    let mut buffer = [0; LOGGED];
    // What cannot be read is missing in the log.
    let length = stderr.read_at(&mut buffer, 0).unwrap_or_default();
    String::from_utf8_lossy(&buffer[..length]).trim().to_owned()
}

/// A command's processes, which end with whoever waits for them.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        Self(pid.map(Pid::from_raw))
    }

    fn spare(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            // One that is gone needs no signal.
            let _ = killpg(pid, Signal::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change() -> StateChange {
        StateChange {
            run_id: "01890a5d-ac96-774b-bcce-b302099a8057".to_owned(),
            version: "4".to_owned(),
            attempt: "1".to_owned(),
            owner: "ada".to_owned(),
            event: "complete".to_owned(),
            from: "RUNNING".to_owned(),
            to: "COMPLETE".to_owned(),
            time: "2026-11-25T01:00:00.000Z".to_owned(),
            start_time: String::new(),
            end_time: String::new(),
            tags: "{}".to_owned(),
            has_outputs: false,
            outputs: "s3://runs/x".to_owned(),
            traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned(),
        }
    }

    async fn told(command: &str, timeout: Duration) -> Result<(), String> {
        let receiver = command.parse().expect("a command");
        let environment = vec![("PATH".to_owned(), std::env::var_os("PATH").unwrap_or_default())];
        let sender = Sender::new(receiver, environment, timeout, timeout).expect("a sender");
        sender.send(&change(), "{}".to_owned()).await.map_err(|error| error.to_string())
    }

    #[test]
    fn a_receiver_is_a_url_or_a_command() {
        let read = |text: &str| text.parse::<StateChangeReceiver>();
        let url = read("https://ada:secret@example.org/hook?key=secret").expect("a URL");
        assert!(matches!(url, StateChangeReceiver::Url(_)));
        assert_eq!(format!("{url:?}"), "Url(example.org)");
        let command = read("notify-send $STEPWES_TO").expect("a command");
        assert!(matches!(command, StateChangeReceiver::Command(_)));
        for none in ["", "  ", "https://", "http://[", "a\0b"] {
            assert_eq!(read(none), Err(NoReceiver), "{none:?}");
        }
    }

    #[tokio::test]
    async fn a_command_gets_the_event_the_main_fields_and_nothing_of_the_servers() {
        let minute = Duration::from_secs(60);
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("told");
        let command = format!("env | sort > {0}; cat >> {0}", file.display());
        assert_eq!(told(&command, minute).await, Ok(()));
        let written = std::fs::read_to_string(file).expect("written");
        assert!(written.contains("STEPWES_TO=COMPLETE\n") && written.ends_with("{}"), "{written}");
        assert!(written.contains("STEPWES_OUTPUTS=\n"), "there are none yet: {written}");
        assert!(written.contains(&format!("TRACEPARENT={}\n", change().traceparent)), "{written}");
        assert!(!written.contains("CARGO"), "{written}");
    }

    #[tokio::test]
    async fn a_command_that_fails_tells_how() {
        let minute = Duration::from_secs(60);
        let large = "yes stepwes | head -c 1000000 >&2; exit 3";
        let said = told(large, minute).await.expect_err("failed");
        assert!(said.starts_with("the command exited with 3: stepwes"), "{said}");
        assert!(said.len() < 2000, "{}", said.len());
        let killed = told("kill -9 $$", minute).await;
        assert_eq!(killed, Err("the command was ended by signal 9".to_owned()));
        let none = told("no-such-command", minute).await.expect_err("failed");
        assert!(none.starts_with("the command exited with 127: "), "{none}");
        assert_eq!(told("true", minute).await, Ok(()), "one that does not read its input");
        let background = "sleep 300 >&2 & echo $! >&2; exit 4";
        let said = told(background, minute).await.expect_err("failed");
        let pid = said.rsplit(' ').next().and_then(|pid| pid.parse().ok()).expect("a pid");
        end(pid);
    }

    /// Ends what a command left in the background.
    fn end(pid: i32) {
        let pid = Pid::from_raw(pid);
        nix::sys::signal::kill(pid, Signal::SIGKILL).expect("it goes on");
    }

    #[tokio::test]
    async fn a_command_that_takes_too_long_is_killed_with_what_it_started() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("pid");
        let command = format!("sleep 300 & echo $! > {}; wait", file.display());
        let said = told(&command, Duration::from_secs(5)).await.expect_err("killed");
        assert!(said.contains("took longer"), "{said}");
        let pid = std::fs::read_to_string(file).expect("written");
        let is_alive = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
            stat.is_ok_and(|stat| {
                stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
            })
        };
        let gone = async {
            while is_alive() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), gone).await.expect("it is killed");
    }
}
