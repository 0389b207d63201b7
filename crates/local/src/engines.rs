//! Which workflow engines this machine has, and in what version.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use stepwes_core::engines::{Engines, KNOWN, Known, SCRIPT_HEAD, python_of_script};

use crate::options::{ServeError, ServeOptions};

/// How long `--version` may take: engines in Python start slowly on a cold disk.
const PROBE_LIMIT: Duration = Duration::from_secs(60);
/// How much of Nextflow's launcher is read to find its version.
const LAUNCHER_HEAD: u64 = 16 * 1024;

/// Where engines are looked for: these folders first, then `PATH`.
#[derive(Clone, Debug)]
pub(crate) struct SearchPath(Vec<PathBuf>);

impl SearchPath {
    pub(crate) fn new(first: Vec<PathBuf>, path: Option<&OsStr>) -> Self {
        let mut folders = first;
        folders.extend(path.iter().flat_map(std::env::split_paths));
        folders.retain(|folder| folder.is_absolute());
        Self(folders)
    }

    /// The `PATH` of the engine tasks.
    pub(crate) fn variable(&self) -> OsString {
        // A folder whose name has a colon cannot be in a PATH.
        std::env::join_paths(self.0.iter().filter(|folder| !has_colon(folder))).unwrap_or_default()
    }

    /// The first executable file of that name.
    fn find(&self, program: &str) -> Option<PathBuf> {
        self.0.iter().map(|folder| folder.join(program)).find(|path| {
            fs::metadata(path)
                .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        })
    }
}

fn has_colon(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().contains(&b':')
}

/// An engine for one workflow type, and what was found of it.
#[derive(Clone, Debug)]
pub struct FoundEngine {
    /// The engine.
    pub known: &'static Known,
    /// Its program, when it is installed.
    pub program: Option<PathBuf>,
    /// Its version, as far as it is known.
    pub version: Option<String>,
}

/// What a service says of them, with the operator's options.
///
/// # Errors
/// [`ServeError::UnknownEngine`].
pub(crate) fn engines(
    found: &[FoundEngine],
    options: &ServeOptions,
) -> Result<Engines, ServeError> {
    let mut engines = Engines::new(
        found.iter().map(|one| one.known.engine(one.version.iter().cloned().collect())).collect(),
    );
    for (name, option, value) in &options.engine_defaults {
        engines
            .add_default(name, option, value.as_deref())
            .map_err(|known| ServeError::UnknownEngine { name: name.clone(), known })?;
    }
    Ok(engines)
}

/// Looks for every engine without starting anything. Takes some system calls.
pub(crate) fn find(path: &SearchPath) -> Vec<FoundEngine> {
    KNOWN
        .iter()
        .map(|known| {
            let program = path.find(known.program);
            let version = program.as_deref().and_then(|program| installed_version(known, program));
            FoundEngine { known, program, version }
        })
        .collect()
}

/// Whether [`ask`] can tell more.
pub(crate) fn is_askable(found: &FoundEngine) -> bool {
    // Nextflow downloads itself when it is started for the first time.
    found.program.is_some() && found.version.is_none() && found.known.name != NEXTFLOW
}

/// Asks the programs that [`find`] could not tell the version of.
pub(crate) async fn ask(found: &mut [FoundEngine], path: &SearchPath) {
    for one in found.iter_mut().filter(|one| is_askable(one)) {
        if let Some(program) = &one.program {
            one.version = ask_program(program, path).await;
        }
    }
}

/// Every engine that stepwes knows, looked for in these folders and then on `PATH`; programs whose
/// version no file tells are started to ask them, which takes seconds.
pub async fn find_engines(first: Vec<PathBuf>) -> Vec<FoundEngine> {
    let path = SearchPath::new(first, std::env::var_os("PATH").as_deref());
    let mut found = find(&path);
    ask(&mut found, &path).await;
    found
}

async fn ask_program(program: &Path, path: &SearchPath) -> Option<String> {
    let mut command = tokio::process::Command::new(program);
    command
        .arg("--version")
        .env("PATH", path.variable())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let shown = program.display();
    let told = match tokio::time::timeout(PROBE_LIMIT, command.output()).await {
        Ok(Ok(output)) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Ok(Err(error)) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "{shown} cannot be started");
            return None;
        }
        Err(_) => {
            tracing::warn!("{shown} --version does not answer");
            return None;
        }
    };
    // Such as `/opt/cwl/bin/cwltool 3.1.20240508115724`, `miniwdl v1.16.0` or `9.6.0-<commit>`.
    let version = told.lines().next()?.split_whitespace().last()?;
    let version = version.trim_start_matches('v').split('-').next()?;
    version.starts_with(|c: char| c.is_ascii_digit()).then(|| version.to_owned())
}

const NEXTFLOW: &str = "nextflow";

/// The version that files tell: the metadata of a Python package, as `pip` wrote it, or Nextflow's
/// launcher.
fn installed_version(known: &Known, program: &Path) -> Option<String> {
    match known.name {
        NEXTFLOW => launcher_version(program),
        // Each is the name of its distribution too.
        distribution => python_version(distribution, program),
    }
}

/// Reads `NXF_VER=${NXF_VER:-'24.10.0'}`.
fn launcher_version(launcher: &Path) -> Option<String> {
    let head = head(launcher, LAUNCHER_HEAD)?;
    let head = String::from_utf8_lossy(&head);
    let (_, rest) = head.split_once("NXF_VER:-")?;
    let version = rest.trim_start_matches(['\'', '"']);
    let end = version.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-')))?;
    version.starts_with(|c: char| c.is_ascii_digit()).then(|| version[..end].to_owned())
}

/// The version that the package's metadata beside the program says.
fn python_version(distribution: &str, program: &Path) -> Option<String> {
    let script = fs::canonicalize(program).ok();
    let roots = script
        .as_deref()
        .and_then(interpreter)
        .into_iter()
        .chain(script.clone())
        .filter_map(|path| path.parent()?.parent().map(Path::to_owned));
    roots.flat_map(|root| python_folders(&root)).flat_map(|packages| entries(&packages)).find_map(
        |entry| {
            let name = entry.file_name()?.to_str()?;
            let rest = name.strip_prefix(distribution)?.strip_prefix('-')?;
            let metadata = match rest.rsplit_once('.')?.1 {
                "dist-info" => "METADATA",
                "egg-info" => "PKG-INFO",
                _ => return None,
            };
            // Such as that of `miniwdl-backend-bare`, in the old way of naming.
            if !rest.starts_with(|c: char| c.is_ascii_digit()) {
                return None;
            }
            let file = BufReader::new(File::open(entry.join(metadata)).ok()?);
            file.lines()
                .map_while(Result::ok)
                .take_while(|line| !line.is_empty())
                .find_map(|line| line.strip_prefix("Version:").map(|text| text.trim().to_owned()))
        },
    )
}

fn interpreter(script: &Path) -> Option<PathBuf> {
    python_of_script(&head(script, SCRIPT_HEAD)?)
}

/// The first bytes of a file.
fn head(path: &Path, most: u64) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    File::open(path).ok()?.take(most).read_to_end(&mut head).ok()?;
    Some(head)
}

/// The package folders of a Python installation.
fn python_folders(root: &Path) -> Vec<PathBuf> {
    entries(&root.join("lib"))
        .into_iter()
        .filter(|folder| {
            folder
                .file_name()
                .and_then(OsStr::to_str)
                .is_some_and(|name| name.starts_with("python"))
        })
        .flat_map(|folder| ["site-packages", "dist-packages"].map(|name| folder.join(name)))
        .collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use super::*;

    fn executable(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(path, text).expect("written");
        fs::set_permissions(path, Permissions::from_mode(0o755)).expect("executable");
    }

    fn venv(root: &Path, script_head: &str) {
        executable(&root.join("bin/cwltool"), script_head);
        let info = root.join("lib/python3.11/site-packages/cwltool-3.1.2.dist-info");
        fs::create_dir_all(&info).expect("made");
        fs::write(
            info.join("METADATA"),
            "Metadata-Version: 2.1\nName: cwltool\nVersion: 3.1.2\n\n",
        )
        .expect("written");
    }

    fn version(found: &[FoundEngine], name: &str, workflow_type: &str) -> Option<String> {
        let one = found
            .iter()
            .find(|one| (one.known.name, one.known.workflow_type) == (name, workflow_type));
        one.expect("a known engine").version.clone()
    }

    #[test]
    fn the_version_is_read_from_the_virtual_environment_of_the_script() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("venv");
        let python = root.join("bin/python3");
        for head in [
            format!("#!{}\nimport re\n", python.display()),
            format!("#!/bin/sh\n'''exec' \"{}\" \"$0\" \"$@\"\n' '''\n", python.display()),
        ] {
            venv(&root, &head);
            // Only a link to the script is on the path, as with pipx.
            let bin = folder.path().join("bin");
            fs::create_dir_all(&bin).expect("made");
            let link = bin.join("cwltool");
            if !link.exists() {
                std::os::unix::fs::symlink(root.join("bin/cwltool"), &link).expect("linked");
            }
            let found = find(&SearchPath::new(vec![bin], None));
            assert_eq!(version(&found, "cwltool", "CWL").as_deref(), Some("3.1.2"), "{head}");
            assert!(!found.iter().any(is_askable));
            // Another distribution's metadata is none of miniwdl's.
            assert_eq!(version(&found, "miniwdl", "WDL"), None);
        }
    }

    #[test]
    fn nextflow_s_version_is_read_from_its_launcher_which_is_not_started() {
        let folder = tempfile::tempdir().expect("a folder");
        let launcher = "#!/usr/bin/env bash\nNXF_VER=${NXF_VER:-'25.10.0'}\nexit 1\n";
        executable(&folder.path().join("nextflow"), launcher);
        let path = SearchPath::new(vec![folder.path().to_owned()], None);
        let found = find(&path);
        assert_eq!(version(&found, "nextflow", "NFL").as_deref(), Some("25.10.0"));
        executable(&folder.path().join("nextflow"), "#!/bin/sh\n");
        let found = find(&path);
        assert_eq!(version(&found, "nextflow", "NFL"), None);
        assert!(!found.iter().any(is_askable));
    }

    #[tokio::test]
    async fn a_program_without_metadata_is_asked() {
        let folder = tempfile::tempdir().expect("a folder");
        let path =
            SearchPath::new(vec![folder.path().to_owned()], std::env::var_os("PATH").as_deref());
        for (name, kind, program, says, told) in [
            ("cwltool", "CWL", "cwltool", "echo \"$0 3.9.9\"", Some("3.9.9")),
            ("miniwdl", "WDL", "miniwdl", "echo miniwdl v1.16.0; echo more", Some("1.16.0")),
            ("toil", "WDL", "toil-wdl-runner", "echo 9.6.0-6793fc7f", Some("9.6.0")),
            ("snakemake", "SMK", "snakemake", "echo broken", None),
        ] {
            executable(&folder.path().join(program), &format!("#!/bin/sh\n{says}\n"));
            let mut found = find(&path);
            assert_eq!(version(&found, name, kind), None);
            assert!(found.iter().any(|one| one.known.name == name && is_askable(one)));
            ask(&mut found, &path).await;
            assert_eq!(version(&found, name, kind).as_deref(), told, "{name}");
        }
    }

    #[test]
    fn no_engine_is_no_version() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("cwltool"), "not executable").expect("written");
        let path = SearchPath::new(vec![folder.path().to_owned(), "relative".into()], None);
        let found = find(&path);
        assert!(found.iter().all(|one| one.program.is_none() && one.version.is_none()));
        assert_eq!(path.variable(), folder.path().as_os_str());
    }
}
