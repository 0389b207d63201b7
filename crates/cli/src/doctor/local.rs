//! Checks of this machine, and of a folder of `stepwes serve`.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, SystemTime},
};

use stepwes_local::{Disk, FoundEngine, Installation, Rights};
use tokio::process::Command;

use super::{
    Check,
    service::{self, OURS},
};
use crate::{
    args::{Container, DoctorArgs},
    engine_home,
    ui::bytes,
};

/// How long a program may take to tell its version.
const PATIENCE: Duration = Duration::from_secs(20);

/// Free space below which runs fail, and below which they soon may.
const LEAST_FREE: u64 = 200 << 20;
const LITTLE_FREE: u64 = 5 << 30;
/// The same for the number of files.
const LEAST_FILES: u64 = 1000;
const FEW_FILES: u64 = 50_000;

/// How far files may be in the future: file systems round.
const FUTURE: Duration = Duration::from_secs(60);

/// What `python3` is asked.
const PYTHON: &str = "import ensurepip, sys, venv; print('.'.join(map(str, sys.version_info[:3]))); \
                      sys.exit(sys.version_info < (3, 11))";

/// Every check of this machine.
pub(crate) async fn checks(args: &DoctorArgs) -> Vec<Check> {
    let dir = args.dir.clone().unwrap_or_else(|| PathBuf::from(".stepwes"));
    let mut checks = vec![engine_task(std::env::current_exe().ok()).await, folder(&dir)];
    checks.push(match Disk::of(&dir) {
        Ok(disk) => space(&dir, disk),
        Err(error) => Check::problem(
            "disk",
            format!("{} cannot be looked at: {error}", dir.display()),
            "use --dir to name another folder",
        ),
    });
    checks.extend(engines(&dir, args.container).await);
    checks.push(python(Path::new("python3")).await);
    checks.push(container(args.container).await);
    match Installation::look(&dir) {
        Ok(found) => {
            checks.push(clock(found.newest, SystemTime::now()));
            checks.push(tasks(&found, &dir));
            checks.push(left_behind(&found, &dir));
            checks.push(server(&found, &dir));
            match found.server.as_ref().and_then(|server| server.url.clone()) {
                Some(url) => checks.extend(service::checks(&url, &args.server).await),
                None => checks.extend(ports(&found, args.port, &dir)),
            }
        }
        Err(error) => checks.push(Check::problem(
            "server",
            format!("{} cannot be looked into: {error}", dir.display()),
            "it may be damaged, or from another version: move what is named away to start afresh",
        )),
    }
    checks
}

/// The program of the engine task, beside this one.
async fn engine_task(current: Option<PathBuf>) -> Check {
    let name = "engine task";
    let then = "the programs stepwes and stepwes-engine must lie in the same folder, and be of one \
                version: install both there";
    let Some(path) = current.map(|path| path.with_file_name("stepwes-engine")) else {
        return Check::problem(name, "this program's own folder is not known", then);
    };
    let shown = path.display();
    if !path.is_file() {
        return Check::problem(name, format!("{shown} is not there"), then);
    }
    match said(&path, &["--version"]).await {
        Ok((true, text)) if text.trim() == format!("stepwes-engine {OURS}") => {
            Check::ok(name, format!("{} is {shown}", text.trim()))
        }
        Ok((true, text)) => {
            let found = format!("{shown} says {:?}, this command is {OURS}", text.trim());
            Check::problem(name, found, then)
        }
        Ok((false, _)) => Check::problem(name, format!("{shown} does not tell its version"), then),
        Err(why) => Check::problem(name, format!("{shown} {why}"), then),
    }
}

fn folder(dir: &Path) -> Check {
    let (name, shown) = ("folder", dir.display());
    let other = "use --dir to name a folder of your own";
    match Rights::of(dir) {
        Err(error) => Check::problem(name, format!("{shown} cannot be used: {error}"), other),
        Ok(None) => match Rights::of(&above(dir)) {
            Ok(Some(rights)) if rights.is_writable => {
                Check::ok(name, format!("{shown} is made when a server starts"))
            }
            _ => Check::problem(
                name,
                format!("{shown} is not there, and cannot be made"),
                "use --dir to name a folder that you may write to",
            ),
        },
        Ok(Some(Rights { is_own: false, is_open: true, .. })) => Check::problem(
            name,
            format!(
                "{shown} is another user's and not closed to others, but is to hold credentials"
            ),
            other,
        ),
        Ok(Some(Rights { is_writable: false, .. })) => {
            Check::problem(name, format!("{shown} cannot be written"), other)
        }
        Ok(Some(Rights { is_open: true, .. })) => Check::warning(
            name,
            format!("{shown} can be looked into by others"),
            format!("`chmod 700 {shown}`, or start a server, which does the same"),
        ),
        Ok(Some(_)) => Check::ok(name, format!("{shown} is yours alone")),
    }
}

/// The nearest folder above that is there.
fn above(dir: &Path) -> PathBuf {
    let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let there = dir.ancestors().skip(1).find(|folder| folder.is_dir());
    there.map_or_else(|| PathBuf::from("/"), Path::to_owned)
}

fn space(dir: &Path, disk: Disk) -> Check {
    let (name, free) = ("disk", bytes(disk.free));
    let files = disk.free_files.unwrap_or(u64::MAX);
    let then = "make room, or use --dir to name a folder on a larger disk: work folders, logs and \
                outputs are there";
    if disk.is_remote {
        Check::problem(
            name,
            format!("{} is on another machine's disk", dir.display()),
            "use --dir to name a folder on a disk of this machine: SQLite's databases break on \
             network file systems; workflows may read their inputs from there",
        )
    } else if disk.free < LEAST_FREE {
        Check::problem(name, format!("{free} are free"), then)
    } else if files < LEAST_FILES {
        Check::problem(name, format!("{files} more files can be made"), then)
    } else if disk.free < LITTLE_FREE {
        Check::warning(name, format!("{free} are free"), then)
    } else if files < FEW_FILES {
        Check::warning(name, format!("{files} more files can be made"), then)
    } else {
        Check::ok(name, format!("{free} are free"))
    }
}

async fn engines(dir: &Path, setting: Container) -> Vec<Check> {
    // In the order in which a server looks.
    let homes = [engine_home::of_server(dir).ok(), engine_home::of_user()];
    let first = homes.into_iter().flatten().map(|home| home.bin()).collect();
    let found = stepwes_local::find_engines(first).await;
    let mut checks = vec![installed(&found)];
    let has = |name: &str| found.iter().any(|one| one.known.name == name && one.program.is_some());
    if has("cwltool") || has("toil") {
        // Docker can run it, too, if there is Docker.
        let node = on_path("node").or_else(|| on_path("nodejs"));
        checks.push(javascript(node.as_deref(), setting));
    }
    checks
}

fn installed(found: &[FoundEngine]) -> Check {
    let name = "engines";
    let there: Vec<_> = found.iter().filter(|one| one.program.is_some()).collect();
    if there.is_empty() {
        return Check::problem(
            name,
            "there is no workflow engine, so no run can be submitted",
            "`stepwes engines install cwltool` gets the one for CWL",
        );
    }
    let mute: Vec<_> =
        there.iter().filter(|one| one.version.is_none()).map(|one| one.known.name).collect();
    let shown = |one: &&FoundEngine| {
        format!(
            "{} {} ({})",
            one.known.name,
            one.version.as_deref().unwrap_or("?"),
            one.known.workflow_type
        )
    };
    let list = there.iter().map(shown).collect::<Vec<_>>().join(", ");
    if mute.is_empty() || mute.iter().all(|name| *name == "nextflow") {
        // Nextflow is not started only to be asked: it would download itself.
        return Check::ok(name, list);
    }
    let then = format!(
        "start it by hand to see what is wrong with it, or `stepwes engines install {}`",
        mute[0]
    );
    Check::warning(name, format!("{list}; {} does not tell its version", mute.join(", ")), then)
}

fn javascript(node: Option<&Path>, setting: Container) -> Check {
    let name = "node";
    match node {
        Some(node) => {
            Check::ok(name, format!("{} is for CWL's JavaScript expressions", node.display()))
        }
        None => Check::warning(
            name,
            "there is no Node on PATH: CWL's JavaScript expressions need it",
            match setting {
                Container::None => "install Node (nodejs)",
                _ => "install Node (nodejs); without it cwltool takes a container of it, if it can",
            },
        ),
    }
}

async fn python(program: &Path) -> Check {
    let name = "python";
    let then = "install Python 3.11 or later with its venv module (python3-venv): `stepwes engines \
                install` needs it, engines that are there do not";
    let shown = program.display();
    match said(program, &["-c", PYTHON]).await {
        Ok((true, version)) => Check::ok(name, format!("{shown} is {}", version.trim())),
        Ok((false, version)) if !version.trim().is_empty() => {
            Check::warning(name, format!("{shown} is {}", version.trim()), then)
        }
        Ok((false, _)) => Check::warning(name, format!("{shown} has no venv module"), then),
        Err(why) => Check::warning(name, format!("{shown} {why}"), then),
    }
}

/// The container runtime that engines get, as `stepwes-engine` chooses it.
async fn container(setting: Container) -> Check {
    let name = "containers";
    let programs: &[&str] = match setting {
        Container::None => {
            return Check::ok(name, "steps run on this machine (--container none)");
        }
        Container::Auto => &["docker", "podman", "singularity"],
        Container::Docker => &["docker"],
        Container::Podman => &["podman"],
        Container::Singularity => &["singularity"],
    };
    let mut silent = Vec::new();
    for program in programs {
        if on_path(program).is_none() {
            continue;
        }
        // Docker's command alone does not mean that there is a daemon.
        let question: &[&str] = if *program == "docker" {
            &["version", "--format", "{{.Server.Version}}"]
        } else {
            &["--version"]
        };
        match said(Path::new(program), question).await {
            Ok((true, version)) => {
                let version = version.trim().trim_start_matches(&format!("{program} version "));
                return Check::ok(name, format!("{program} {version}"));
            }
            _ => silent.push(*program),
        }
    }
    let then = "start Docker's daemon, or install Docker, Podman or Apptainer; workflows that name no \
                container need none";
    let found = match silent.as_slice() {
        [] => "there is no container runtime".to_owned(),
        silent => format!("{} does not answer", silent.join(", ")),
    };
    if setting == Container::Auto {
        Check::warning(name, found, then)
    } else {
        Check::problem(name, format!("{found} (--container {})", setting.as_str()), then)
    }
}

fn clock(newest: Option<SystemTime>, now: SystemTime) -> Check {
    let name = "clock of the folder";
    match newest.and_then(|newest| newest.duration_since(now).ok()) {
        Some(ahead) if ahead > FUTURE => Check::problem(
            name,
            format!(
                "the newest file is {} s in the future: the clock was set back",
                ahead.as_secs()
            ),
            "set this machine's clock by NTP: runs, tokens and presigned URLs count by it",
        ),
        _ => Check::ok(name, "no file is from the future"),
    }
}

fn server(found: &Installation, dir: &Path) -> Check {
    let name = "server";
    let Some(server) = &found.server else {
        return Check::ok(name, format!("none runs on {}", dir.display()));
    };
    let pid = server.pid.as_deref().unwrap_or("unknown");
    match &server.url {
        Some(url) => Check::ok(name, format!("pid {pid} serves {url}")),
        None => Check::warning(
            name,
            format!("pid {pid} has {}, and does not serve yet", dir.display()),
            "look again in a moment; when it stays so, stop that process: it is no server, or one \
             of an earlier version",
        ),
    }
}

/// The ports that a server of the folder would take.
fn ports(found: &Installation, port: u16, dir: &Path) -> Vec<Check> {
    let taken = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).err();
    let public = match (port, taken(port)) {
        (0, _) => Check::ok("port", "any that is free"),
        (_, None) => Check::ok("port", format!("{port} is free")),
        (_, Some(error)) => Check::warning(
            "port",
            format!("{port} cannot be listened on: {error}"),
            "use --port to choose another port for `stepwes serve`, or --port 0 for any",
        ),
    };
    let Some(internal) = found.internal_port else { return vec![public] };
    let internal = match taken(internal) {
        None => Check::ok("internal port", format!("{internal} is free")),
        Some(error) => Check::problem(
            "internal port",
            format!("{internal}, which engines report to, cannot be listened on: {error}"),
            format!(
                "stop the program that took it; or, if you can do without what engines still do, \
                 delete {}",
                dir.join("internal-port").display()
            ),
        ),
    };
    vec![public, internal]
}

/// Engines that go on without a server.
fn tasks(found: &Installation, dir: &Path) -> Check {
    let name = "engines at work";
    let (living, waiting, ended) = (found.living.len(), found.waiting, found.ended);
    if found.server.is_some() {
        return Check::ok(name, format!("{living} at work, {waiting} waiting"));
    }
    if living + waiting + ended == 0 {
        return Check::ok(name, "none");
    }
    let pids: Vec<_> = found
        .living
        .iter()
        .map(|task| {
            format!("run {} (pid {})", task.run_id.as_deref().unwrap_or("unknown"), task.pid)
        })
        .collect();
    let mut what = format!("without a server {living} go on, {ended} have ended, {waiting} wait");
    if !pids.is_empty() {
        what.push_str(&format!(": {}", pids.join(", ")));
    }
    let dir = dir.display();
    Check::warning(
        name,
        what,
        format!(
            "`stepwes serve --dir {dir}` takes them to their end, `stepwes serve --stop-runs --dir {dir}` cancels them"
        ),
    )
}

/// What somebody should look at.
fn left_behind(found: &Installation, dir: &Path) -> Check {
    let name = "left behind";
    let mut what = Vec::new();
    let mut then = Vec::new();
    if found.rejected > 0 {
        what.push(format!("{} files that were to start runs were refused", found.rejected));
        then.push(format!(
            "read {}, mend them and write them again",
            dir.join("s3/runs/rejected").display()
        ));
    }
    if found.dead_letters > 0 {
        what.push(format!("{} state changes could not be told", found.dead_letters));
        let file = dir.join(stepwes_local::DEAD_LETTERS);
        then.push(format!(
            "mend the receiver, tell it what is in {}, and delete that file",
            file.display()
        ));
    }
    if what.is_empty() {
        return Check::ok(name, "nothing");
    }
    Check::warning(name, what.join("; "), then.join("; "))
}

/// Whether a program ended well, and what it wrote to standard output.
///
/// # Errors
/// Why it did not end.
async fn said(program: &Path, arguments: &[&str]) -> Result<(bool, String), String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(PATIENCE, command.output()).await {
        Err(_) => Err(format!("does not answer within {} s", PATIENCE.as_secs())),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            Err("is not there".to_owned())
        }
        Ok(Err(error)) => Err(format!("cannot be started: {error}")),
        Ok(Ok(output)) => {
            Ok((output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned()))
        }
    }
}

/// The first executable file of that name.
fn on_path(program: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| {
        std::fs::metadata(path)
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use stepwes_core::engines::KNOWN;
    use stepwes_local::{LeftTask, RunningServer};
    use tempfile::TempDir;

    use super::*;
    use crate::doctor::Status::{Ok, Problem, Warning};

    fn script(dir: &TempDir, name: &str, text: &str) -> PathBuf {
        let path = dir.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("set");
        path
    }

    #[tokio::test]
    async fn the_engine_task_has_to_be_there_and_of_this_version() {
        let dir = TempDir::new().expect("a folder");
        let own = dir.path().join("stepwes");
        assert_eq!(engine_task(Some(own.clone())).await.status, Problem);
        for (says, expected) in [
            (format!("echo stepwes-engine {OURS}"), Ok),
            ("echo stepwes-engine 0.0.1".to_owned(), Problem),
            ("exit 1".to_owned(), Problem),
        ] {
            script(&dir, "stepwes-engine", &says);
            let check = engine_task(Some(own.clone())).await;
            assert_eq!(check.status, expected, "{check:?}");
        }
        assert_eq!(engine_task(None).await.status, Problem);
    }

    #[test]
    fn a_folder_is_ones_own_closed_and_writable_or_can_be_made() {
        let dir = TempDir::new().expect("a folder");
        let mode =
            |mode| fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).expect("set");
        mode(0o700);
        assert_eq!(folder(dir.path()).status, Ok);
        assert_eq!(folder(&dir.path().join("a/b")).status, Ok);
        mode(0o755);
        assert_eq!(folder(dir.path()).status, Warning);
        let file = script(&dir, "file", "");
        assert_eq!(folder(&file).status, Problem);
        assert_eq!(folder(&file.join("below")).status, Problem);
        assert_eq!(folder(Path::new("/proc/1/stepwes")).status, Problem);
    }

    #[test]
    fn a_disk_has_room_and_is_this_machines() {
        let disk = |free, free_files, is_remote| {
            space(Path::new("/x"), Disk { free, free_files, is_remote })
        };
        let room = 100 << 30;
        for (check, expected) in [
            (disk(room, None, false), Ok),
            (disk(room, Some(1 << 20), false), Ok),
            (disk(1 << 30, None, false), Warning),
            (disk(room, Some(2000), false), Warning),
            (disk(100 << 20, None, false), Problem),
            (disk(room, Some(10), false), Problem),
            (disk(room, None, true), Problem),
        ] {
            assert_eq!(
                (check.status, check.then.is_some()),
                (expected, expected != Ok),
                "{check:?}"
            );
        }
    }

    #[test]
    fn an_engine_has_to_be_there_and_tell_its_version() {
        let found = |program: bool, version: Option<&str>| {
            KNOWN
                .iter()
                .map(|known| FoundEngine {
                    known,
                    program: (program && known.name == "cwltool").then(|| "/bin/cwltool".into()),
                    version: version.map(str::to_owned),
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(installed(&found(true, Some("3.1"))).status, Ok);
        assert_eq!(installed(&found(true, None)).status, Warning);
        assert_eq!(installed(&found(false, None)).status, Problem);
        assert_eq!(javascript(Some(Path::new("/bin/node")), Container::Auto).status, Ok);
        assert_eq!(javascript(None, Container::None).status, Warning);
    }

    #[tokio::test]
    async fn python_is_of_a_version_and_has_its_modules() {
        let dir = TempDir::new().expect("a folder");
        for (says, expected) in
            [("echo 3.13.1", Ok), ("echo 3.9.2; exit 1", Warning), ("exit 1", Warning)]
        {
            let check = python(&script(&dir, "python3", says)).await;
            assert_eq!(check.status, expected, "{check:?}");
        }
        assert_eq!(python(&dir.path().join("none")).await.status, Warning);
    }

    #[test]
    fn files_of_the_future_show_that_the_clock_was_set_back() {
        let now = SystemTime::now();
        assert_eq!(clock(None, now).status, Ok);
        assert_eq!(clock(Some(now + Duration::from_secs(30)), now).status, Ok);
        assert_eq!(clock(Some(now + Duration::from_secs(90)), now).status, Problem);
    }

    #[test]
    fn engines_without_a_server_and_what_was_left_behind_are_said() {
        let dir = Path::new("/x");
        let none = Installation::default();
        assert_eq!(
            [tasks(&none, dir).status, left_behind(&none, dir).status, server(&none, dir).status],
            [Ok; 3]
        );
        let left = Installation {
            living: vec![LeftTask { run_id: Some("r1".to_owned()), pid: 77 }],
            rejected: 2,
            dead_letters: 1,
            ..none
        };
        let (running, behind) = (tasks(&left, dir), left_behind(&left, dir));
        assert_eq!((running.status, behind.status), (Warning, Warning));
        assert!(running.found.contains("run r1 (pid 77)"), "{running:?}");
        assert!(
            behind.found.contains("2 files") && behind.found.contains("1 state changes"),
            "{behind:?}"
        );
        let with = |url: Option<&str>| Installation {
            server: Some(RunningServer { pid: Some("7".to_owned()), url: url.map(str::to_owned) }),
            ..left.clone()
        };
        assert_eq!(tasks(&with(None), dir).status, Ok);
        assert_eq!(server(&with(None), dir).status, Warning);
        assert_eq!(server(&with(Some("http://127.0.0.1:1")), dir).status, Ok);
    }

    #[test]
    fn ports_are_free_or_said_to_be_taken() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = taken.local_addr().expect("bound").port();
        let found = Installation { internal_port: Some(port), ..Installation::default() };
        let both = |port| {
            ports(&found, port, Path::new("/x"))
                .into_iter()
                .map(|check| check.status)
                .collect::<Vec<_>>()
        };
        assert_eq!(both(port), [Warning, Problem]);
        drop(taken);
        assert_eq!(both(0), [Ok, Ok]);
    }
}
