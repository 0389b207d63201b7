//! How the engine gets containers.

use std::{
    ffi::OsStr,
    net::{TcpStream, ToSocketAddrs as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::{Path, PathBuf},
    time::Duration,
};

use stepwes_core::task::env;
use url::Url;

/// Where Docker's daemon listens unless `DOCKER_HOST` says otherwise.
const DOCKER_SOCKET: &str = "/var/run/docker.sock";

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

    /// As [`Self::choose`], on this machine.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub(crate) fn detect(setting: &str) -> Result<Self, String> {
        Self::choose(setting, |program| find_program(program).is_some(), docker_answers)
    }
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

/// Whether somebody listens where Docker's command would look for the daemon.
fn docker_answers() -> bool {
    match std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()) {
        None => listens(Path::new(DOCKER_SOCKET)),
        Some(host) => daemon_listens(&host),
    }
}

fn daemon_listens(host: &str) -> bool {
    if let Some(path) = host.strip_prefix("unix://") {
        return listens(Path::new(path));
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

fn listens(socket: &Path) -> bool {
    UnixStream::connect(socket).is_ok()
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
    fn a_socket_file_that_nobody_listens_on_is_no_daemon() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("docker.sock");
        let host = format!("unix://{}", path.display());
        let listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
        assert!(daemon_listens(&host));
        drop(listener);
        assert!(path.exists() && !daemon_listens(&host));
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let host = format!("tcp://{}", tcp.local_addr().expect("an address"));
        assert!(daemon_listens(&host));
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
