//! The sandbox of an engine: bubblewrap (<https://github.com/containers/bubblewrap>), where the
//! machine has it. An engine in it reads what its user reads, and writes its own work folder alone.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::fs::{MetadataExt as _, symlink},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use stepwes_core::task::env;
use tokio::process::Command;
use tracing::info;

use crate::{
    container::{Container, find_program},
    workdir::WorkDir,
};

const PROGRAM: &str = "bwrap";

/// How long the trial may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Folders that programs write to whatever `TMPDIR` says: each run gets its own.
const SHARED: [&str; 2] = ["/tmp", "/var/tmp"];

/// Where in such a folder what others have in it is seen.
const ALL: &str = ".shared";

/// What is the same for all runs: the machine's files, read-only, processes and shared memory of
/// the run's own, no capabilities, and an end when whoever started it ends. Devices stay, since
/// tools compute on them, and so does the network, on whose loopback interface the way to AWS's
/// credentials is.
const BASE: [&str; 16] = [
    "--ro-bind",
    "/",
    "/",
    "--dev-bind",
    "/dev",
    "/dev",
    "--tmpfs",
    "/dev/shm",
    "--unshare-pid",
    "--unshare-ipc",
    "--proc",
    "/proc",
    // A group of processes of the engine's own, which it may signal.
    "--new-session",
    "--die-with-parent",
    "--cap-drop",
    "ALL",
];

/// What root needs to unpack an archive with its owners, as tar does for root; whose user is another
/// one has none of it outside either.
const OF_ROOT: [&str; 6] =
    ["--cap-add", "CAP_CHOWN", "--cap-add", "CAP_FOWNER", "--cap-add", "CAP_DAC_OVERRIDE"];

/// A bubblewrap that works here.
#[derive(Clone, Debug)]
pub(crate) struct Sandbox {
    program: PathBuf,
}

/// What is put before a command to run it in the sandbox.
#[derive(Clone, Debug)]
pub(crate) struct Wrapper {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
}

impl Sandbox {
    /// Reads the operator's setting: `none`; `bwrap`, which must then work; `auto`, bubblewrap where
    /// it works and the steps need no container runtime, which it would keep from what it does.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub(crate) async fn detect(
        setting: &str,
        container: Container,
    ) -> Result<Option<Self>, String> {
        let asked = match setting {
            "none" => return Ok(None),
            "auto" if container != Container::None => return Ok(None),
            "auto" => false,
            "bwrap" => true,
            _ => {
                return Err(format!(
                    "{}={setting:?} is not one of auto, bwrap, none",
                    env::SANDBOX
                ));
            }
        };
        if matches!(container, Container::Podman | Container::Singularity) {
            return Err(format!(
                "{}=bwrap, but podman and singularity start no containers in a sandbox: set {0} to auto, or {} to none",
                env::SANDBOX,
                env::CONTAINER
            ));
        }
        let found = match find_program(PROGRAM) {
            Some(program) => match trial(&program).await {
                Ok(()) => return Ok(Some(Self { program })),
                Err(why) => format!("{PROGRAM} makes no sandbox here: {why}"),
            },
            None => format!("there is no {PROGRAM} on PATH"),
        };
        if asked {
            Err(format!(
                "{}=bwrap, but {found}; install bubblewrap where user namespaces are allowed, or set {0} to auto or none",
                env::SANDBOX
            ))
        } else {
            info!("engines run without a sandbox: {found}");
            Ok(None)
        }
    }

    /// How a command is run so that it writes in `work` alone. `hides` is a folder whose files nobody
    /// in the sandbox sees, nor the work folders of others in it, nor that in which its host keeps
    /// its tasks, which the `link` to the work folder is in.
    ///
    /// # Errors
    /// When the run's own temporary folders cannot be made, or what is hidden is not there.
    pub(crate) fn wrapper(
        &self,
        work: &WorkDir,
        hides: Option<&Path>,
        link: Option<&Path>,
    ) -> io::Result<Wrapper> {
        let task = link.and_then(Path::parent).map(Path::canonicalize).transpose()?;
        // As the work folder is named.
        let hides = hides.map(Path::canonicalize).transpose()?;
        let hides = hides.as_deref();
        let mut arguments = words(BASE);
        // The work folder is our own.
        if fs::metadata(work.root())?.uid() == 0 {
            arguments.extend(words(OF_ROOT));
        }
        for (number, shared) in SHARED.iter().map(Path::new).enumerate() {
            if !shared.symlink_metadata().is_ok_and(|data| data.is_dir()) {
                continue;
            }
            // What is in the shared folder stays where it is, read-only. A mount for each entry
            // would take seconds where there are many: the whole folder is mounted once, in itself,
            // and links lead there. They are short, since a file system keeps those for little.
            let own = work.sandbox().join(format!("own-{number}"));
            fs::create_dir_all(&own)?;
            arguments.extend(words(["--bind".as_ref(), own.as_os_str(), shared.as_ref()]));
            let all = shared.join(ALL);
            arguments.extend(words(["--ro-bind".as_ref(), shared.as_os_str(), all.as_ref()]));
            for path in entries(shared) {
                let is_above = |folder: &Path| folder.starts_with(&path);
                if is_above(work.root()) || hides.is_some_and(is_above) {
                    arguments.extend(words([
                        "--ro-bind-try".as_ref(),
                        path.as_os_str(),
                        path.as_ref(),
                    ]));
                } else if let Some(name) = path.file_name().filter(|name| *name != ALL) {
                    symlink(Path::new(ALL).join(name), own.join(name))?;
                }
            }
        }
        if let Some(hides) = hides {
            arguments.extend(words(["--tmpfs".as_ref(), hides.as_os_str()]));
            for path in entries(hides).filter(|path| path.is_dir()) {
                let has_tasks = task.as_ref().is_some_and(|task| task.starts_with(&path));
                if !work.root().starts_with(&path) && !has_tasks {
                    arguments.extend(words([
                        "--ro-bind-try".as_ref(),
                        path.as_os_str(),
                        path.as_ref(),
                    ]));
                }
            }
        }
        let root = work.root().as_os_str();
        arguments.extend(words(["--bind".as_ref(), root, root]));
        if let Some(hides) = hides {
            // Now that all that is in it is in its place.
            arguments.extend(words(["--remount-ro".as_ref(), hides.as_os_str()]));
        }
        arguments.extend(words(["--chdir".as_ref(), work.execution().as_os_str(), "--".as_ref()]));
        Ok(Wrapper { program: self.program.clone(), arguments })
    }
}

fn words<'a>(words: impl IntoIterator<Item = impl AsRef<OsStr> + 'a>) -> Vec<OsString> {
    words.into_iter().map(|word| word.as_ref().to_owned()).collect()
}

/// The paths of what is in a folder.
fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// Why bubblewrap makes no sandbox here: the kernel, its settings, or a container around us may
/// forbid it.
async fn trial(program: &Path) -> Result<(), String> {
    let tried = Command::new(program)
        .args(BASE)
        .args(["--", "true"])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    match tokio::time::timeout(PATIENCE, tried).await {
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(said.lines().next_back().map_or_else(|| output.status.to_string(), str::to_owned))
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("it did not answer within {PATIENCE:?}")),
    }
}

/// Whether what an engine has said to the end of its log is only that there was no sandbox for it.
pub(crate) fn said_nothing_but(log: &str) -> Option<&str> {
    let mut lines = log.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().filter(|line| line.starts_with("bwrap: "))?;
    lines.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_setting_that_cannot_be_kept_is_refused_with_what_to_change() {
        let detect = Sandbox::detect;
        for container in [Container::Podman, Container::Singularity] {
            let refused = detect("bwrap", container).await.expect_err("refused");
            assert!(refused.contains("set STEPWES_SANDBOX to auto"), "{refused}");
            assert!(detect("auto", container).await.expect("none").is_none());
        }
        assert!(detect("none", Container::None).await.expect("none").is_none());
        let unknown = detect("chroot", Container::None).await.expect_err("unknown");
        assert!(unknown.contains("auto, bwrap, none"), "{unknown}");
    }

    #[test]
    fn only_what_bubblewrap_itself_says_is_taken_for_its_failure() {
        assert_eq!(said_nothing_but("bwrap: no\n"), Some("bwrap: no"));
        assert_eq!(said_nothing_but("bwrap: no\nINFO cwltool"), None);
        assert_eq!(said_nothing_but("INFO cwltool\nbwrap: no\n"), None);
    }
}
