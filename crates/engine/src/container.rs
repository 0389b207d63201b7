//! How the engine gets containers.

use std::{
    ffi::{OsStr, OsString},
    fs::{DirEntry, File, FileType},
    io::{Read as _, Write as _},
    net::{TcpStream, ToSocketAddrs as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use stepwes_core::task::env;
use tracing::{info, warn};
use url::Url;

/// Where Docker's daemon listens unless `DOCKER_HOST` says otherwise.
const DOCKER_SOCKET: &str = "/var/run/docker.sock";

/// How Docker's daemon is asked whether it is there (Docker Engine API, "Ping").
const PING: &[u8] = b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n";

/// How long the daemon may take to answer.
const PING_PATIENCE: Duration = Duration::from_secs(2);

/// What engines write when a step needs a container and gets none.
const LACKING: [&str; 9] = [
    // cwltool, and Toil by its code: a requirement, a hint, an image that cannot be had.
    "has DockerRequirement under 'requirements'",
    "is required to run this tool: ",
    "Docker is not available for this tool",
    // Docker's command.
    "Cannot connect to the Docker daemon",
    "permission denied while trying to connect to the Docker daemon",
    // miniwdl.
    r#"error: "DockerException""#,
    "No such file or directory: 'podman'",
    "No such file or directory: 'singularity'",
    // Snakemake.
    "The apptainer or singularity command has to be available",
];

/// The length of a container's id, in hexadecimal digits.
const ID_LENGTH: usize = 64;

/// The most containers that are ended, and how many at once: a tool can write what looks like one.
const MAX_LEFT: usize = 1000;
const AT_ONCE: usize = 100;

/// How long ending containers may take.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// A container runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Container {
    Docker,
    Podman,
    Singularity,
    /// Tools run on the task's own system.
    None,
}

impl Container {
    /// Reads the operator's setting; `auto` takes what is there. `on_path` finds a program,
    /// `docker_answers` tells whether Docker's daemon can be reached.
    ///
    /// # Errors
    /// A sentence for the operator.
    fn choose(
        setting: &str,
        on_path: impl Fn(&str) -> bool,
        docker_answers: impl FnOnce() -> bool,
    ) -> Result<Self, String> {
        let named = |container, program: &str| {
            if on_path(program) {
                Ok(container)
            } else {
                Err(format!(
                    "{}={setting}, but there is no {program} on PATH: install it, or set {0} to auto or none",
                    env::CONTAINER
                ))
            }
        };
        match setting {
            // A docker command alone does not mean that there is a daemon.
            "auto" if on_path("docker") && docker_answers() => Ok(Self::Docker),
            "auto" if on_path("podman") => Ok(Self::Podman),
            // Apptainer installs itself under this name too, and cwltool calls it by this name.
            "auto" if on_path("singularity") => Ok(Self::Singularity),
            "auto" | "none" => Ok(Self::None),
            "docker" => named(Self::Docker, "docker"),
            "podman" => named(Self::Podman, "podman"),
            "singularity" => named(Self::Singularity, "singularity"),
            _ => Err(format!(
                "{}={setting:?} is not one of auto, docker, podman, singularity, none",
                env::CONTAINER
            )),
        }
    }

    /// Ends the containers that an engine has left behind: those whose ids it kept in `*.cid` files
    /// (`--cidfile` of cwltool) in the `temporary` folder or in one below that. A daemon's containers
    /// are none of our processes. What does not succeed is only logged.
    pub(crate) async fn end_all(self, temporary: &Path, environment: &[(OsString, OsString)]) {
        let program = match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Singularity | Self::None => return,
        };
        let left = container_ids(temporary);
        let ended = async {
            for ids in left.chunks(AT_ONCE) {
                let status = tokio::process::Command::new(program)
                    .arg("kill")
                    .args(ids)
                    .env_clear()
                    .envs(environment.iter().map(|(name, value)| (name, value)))
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .kill_on_drop(true)
                    .status()
                    .await;
                match status {
                    Ok(status) if status.success() => info!("ended {} containers", ids.len()),
                    // Most likely they had ended already.
                    Ok(status) => info!("{program} kill: {status}"),
                    Err(error) => warn!("{program} cannot be started: {error}"),
                }
            }
        };
        if tokio::time::timeout(END_PATIENCE, ended).await.is_err() {
            warn!("{program} did not end the containers in time");
        }
    }

    /// Why a step that needs a container got none, when the log of an engine that failed tells that
    /// it did: in words for whoever made the request.
    pub(crate) fn is_lacking(self, log: &str) -> Option<String> {
        if !LACKING.iter().any(|words| log.contains(words)) {
            return None;
        }
        let why = match self {
            Self::None => {
                "this service runs none: STEPWES_CONTAINER is none, or nothing that it could be was found to work"
            }
            Self::Docker if !docker_answers() => {
                "the service is to use Docker, whose daemon does not answer"
            }
            Self::Docker => "Docker did not give it one",
            Self::Podman => "Podman did not give it one",
            Self::Singularity => "Singularity did not give it one",
        };
        Some(format!("a step needs a container, and {why}"))
    }

    /// As [`Self::choose`], on this machine.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub(crate) fn detect(setting: &str) -> Result<Self, String> {
        Self::choose(setting, |program| find_program(program).is_some(), docker_answers)
    }
}

/// The ids in the `*.cid` files of `folder` and the folders in it. Only whole ids, which nobody can
/// guess: a tool that writes names must not end other people's containers.
fn container_ids(folder: &Path) -> Vec<String> {
    let entries = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten();
    let is = |entry: &DirEntry, kind: fn(&FileType) -> bool| {
        entry.file_type().is_ok_and(|found| kind(&found))
    };
    let below = entries(folder)
        .filter(|entry| is(entry, FileType::is_dir))
        .flat_map(|entry| entries(&entry.path()));
    entries(folder)
        .chain(below)
        .filter(|entry| is(entry, FileType::is_file))
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "cid"))
        .filter_map(|path| {
            let mut id = String::new();
            let file = File::open(path).ok()?;
            file.take(ID_LENGTH as u64 + 1).read_to_string(&mut id).ok()?;
            let id = id.trim();
            let is_id = id.len() == ID_LENGTH && id.bytes().all(|byte| byte.is_ascii_hexdigit());
            is_id.then(|| id.to_owned())
        })
        .take(MAX_LEFT)
        .collect()
}

/// Finds an executable file on this process' `PATH`.
pub(crate) fn find_program(program: &str) -> Option<PathBuf> {
    find_on(program, &std::env::var_os("PATH")?)
}

fn find_on(program: &str, path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(path).map(|folder| folder.join(program)).find(|file| {
        file.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
    })
}

/// Whether the daemon is where Docker's command would look for it.
fn docker_answers() -> bool {
    match std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()) {
        None => answers(Path::new(DOCKER_SOCKET)),
        Some(host) => daemon_listens(&host),
    }
}

fn daemon_listens(host: &str) -> bool {
    if let Some(path) = host.strip_prefix("unix://") {
        return answers(Path::new(path));
    }
    let Ok(url) = Url::parse(host) else { return false };
    match (url.scheme(), url.host_str()) {
        ("tcp" | "http" | "https", Some(name)) => {
            (name, url.port().unwrap_or(2375)).to_socket_addrs().is_ok_and(|mut addresses| {
                addresses.any(|address| {
                    TcpStream::connect_timeout(&address, Duration::from_secs(2)).is_ok()
                })
            })
        }
        // Whether ssh gets through is docker's to find out.
        (scheme, _) => scheme == "ssh",
    }
}

/// Whether an HTTP server answers on a socket: one that only listens may be a service that systemd
/// fails to start.
fn answers(socket: &Path) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PING_PATIENCE))?;
        stream.set_write_timeout(Some(PING_PATIENCE))?;
        stream.write_all(PING)?;
        let mut start = [0; 5];
        stream.read_exact(&mut start)?;
        Ok(start == *b"HTTP/")
    };
    ask().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(setting: &str, programs: &[&str], daemon: bool) -> Result<Container, String> {
        Container::choose(setting, |program| programs.contains(&program), || daemon)
    }

    #[test]
    fn auto_takes_the_first_runtime_that_works() {
        let all = ["docker", "podman", "singularity"];
        assert_eq!(choose("auto", &all, true), Ok(Container::Docker));
        assert_eq!(choose("auto", &all, false), Ok(Container::Podman));
        assert_eq!(choose("auto", &["docker", "singularity"], false), Ok(Container::Singularity));
        assert_eq!(choose("auto", &["docker"], false), Ok(Container::None));
    }

    #[test]
    fn a_runtime_that_is_named_must_be_there() {
        assert_eq!(choose("podman", &["podman"], false), Ok(Container::Podman));
        assert_eq!(choose("none", &["docker"], true), Ok(Container::None));
        let missing = choose("singularity", &["docker"], true).expect_err("missing");
        assert!(missing.contains("no singularity on PATH"), "{missing}");
        let unknown = choose("lxc", &[], false).expect_err("unknown");
        assert!(unknown.contains("auto, docker, podman, singularity, none"), "{unknown}");
    }

    #[test]
    fn only_a_socket_on_which_somebody_answers_is_a_daemon() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("docker.sock");
        let host = format!("unix://{}", path.display());
        let listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
        let daemon = std::thread::spawn(move || {
            for answer in ["HTTP/1.0 200 OK\r\n\r\nOK", "SSH-2.0-x\r\n", ""] {
                let (mut stream, _) = listener.accept().expect("a question");
                let mut asked = [0; PING.len()];
                stream.read_exact(&mut asked).expect("all of it");
                stream.write_all(answer.as_bytes()).expect("answered");
            }
        });
        assert!(daemon_listens(&host), "one that answers");
        assert!(!daemon_listens(&host), "one that is none");
        assert!(!daemon_listens(&host), "one that hangs up");
        daemon.join().expect("it ended");
        assert!(path.exists() && !daemon_listens(&host), "one that is gone");
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let host = format!("tcp://{}", tcp.local_addr().expect("an address"));
        assert!(daemon_listens(&host));
    }

    #[test]
    fn a_log_tells_whether_a_step_got_no_container() {
        let cwltool = "ERROR Workflow or tool uses unsupported feature:\n--no-container, but this CommandLineTool has DockerRequirement under 'requirements'.\n";
        let why = Container::None.is_lacking(cwltool).expect("a reason");
        assert!(why.starts_with("a step needs a container, and this service runs none"), "{why}");
        let pull =
            "Docker is required to run this tool: Command '['docker', 'pull', 'x']' returned";
        assert!(Container::Docker.is_lacking(pull).is_some());
        assert_eq!(Container::None.is_lacking("[job a] exited with status: 1"), None);
    }

    #[test]
    fn a_file_that_cannot_be_executed_is_no_program() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("engine");
        std::fs::write(&file, "").expect("written");
        assert_eq!(find_on("engine", folder.path().as_os_str()), None);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("set");
        assert_eq!(find_on("engine", folder.path().as_os_str()), Some(file));
    }
}
