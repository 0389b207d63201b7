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

use stepwes_core::engines::{Engine, Engines};

/// How long `--version` may take: engines in Python start slowly on a cold disk.
const PROBE_LIMIT: Duration = Duration::from_secs(60);
/// The program, and the name of its Python distribution.
const CWLTOOL: &str = "cwltool";
/// How much of a script is read to find its interpreter: some are wrapped in a line of shell.
const SCRIPT_HEAD: u64 = 1024;

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

/// What was found without starting anything.
#[derive(Debug)]
pub(crate) struct Found {
    /// The engines, as far as they are known.
    pub(crate) engines: Engines,
    /// A program that has to be asked for its version.
    pub(crate) unknown: Option<PathBuf>,
}

/// Looks for engines. Takes a few system calls.
pub(crate) fn find(path: &SearchPath) -> Found {
    let Some(program) = path.find(CWLTOOL) else {
        return Found { engines: engines(Vec::new()), unknown: None };
    };
    match installed_version(&program) {
        Some(version) => Found { engines: engines(vec![version]), unknown: None },
        None => Found { engines: engines(Vec::new()), unknown: Some(program) },
    }
}

fn engines(versions: Vec<String>) -> Engines {
    Engines::new(vec![Engine::cwltool(versions)])
}

/// Asks a program that [`find`] could not tell the version of.
pub(crate) async fn ask(program: &Path, path: &SearchPath) -> Option<Engines> {
    let mut command = tokio::process::Command::new(program);
    command
        .arg("--version")
        .env("PATH", path.variable())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let told = match tokio::time::timeout(PROBE_LIMIT, command.output()).await {
        Ok(Ok(output)) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Ok(Err(error)) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "cwltool cannot be started");
            return None;
        }
        Err(_) => {
            tracing::warn!("cwltool --version does not answer");
            return None;
        }
    };
    // Such as `/opt/cwl/bin/cwltool 3.1.20240508115724`.
    let version = told.lines().next()?.split_whitespace().last()?;
    version.starts_with(|c: char| c.is_ascii_digit()).then(|| engines(vec![version.to_owned()]))
}

/// The version that the package's metadata beside the program says, as `pip` wrote it.
fn installed_version(program: &Path) -> Option<String> {
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
            let metadata = match name.strip_prefix("cwltool-")?.rsplit_once('.')?.1 {
                "dist-info" => "METADATA",
                "egg-info" => "PKG-INFO",
                _ => return None,
            };
            let file = BufReader::new(File::open(entry.join(metadata)).ok()?);
            file.lines()
                .map_while(Result::ok)
                .take_while(|line| !line.is_empty())
                .find_map(|line| line.strip_prefix("Version:").map(|text| text.trim().to_owned()))
        },
    )
}

/// The interpreter that a script names in its first lines. Not resolved: a virtual environment's
/// interpreter is a link out of it.
fn interpreter(script: &Path) -> Option<PathBuf> {
    let mut head = Vec::new();
    File::open(script).ok()?.take(SCRIPT_HEAD).read_to_end(&mut head).ok()?;
    let head = String::from_utf8_lossy(&head);
    let mut words = head
        .strip_prefix("#!")?
        .lines()
        .take(3)
        .flat_map(str::split_whitespace)
        .map(|word| word.trim_matches(['"', '\'']));
    let word = words.find(|word| {
        word.starts_with('/')
            && Path::new(word)
                .file_name()
                .and_then(OsStr::to_str)
                .is_some_and(|name| name.starts_with("python"))
    })?;
    Some(PathBuf::from(word))
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
            assert_eq!(found.engines, engines(vec!["3.1.2".to_owned()]), "{head}");
            assert_eq!(found.unknown, None);
        }
    }

    #[tokio::test]
    async fn a_program_without_metadata_is_asked() {
        let folder = tempfile::tempdir().expect("a folder");
        let program = folder.path().join("cwltool");
        executable(&program, "#!/bin/sh\necho \"$0 3.9.9\"\n");
        let path =
            SearchPath::new(vec![folder.path().to_owned()], std::env::var_os("PATH").as_deref());
        let found = find(&path);
        assert_eq!(found.unknown.as_deref(), Some(program.as_path()));
        assert_eq!(ask(&program, &path).await, Some(engines(vec!["3.9.9".to_owned()])));
        executable(&program, "#!/bin/sh\necho broken\n");
        assert_eq!(ask(&program, &path).await, None);
    }

    #[test]
    fn no_engine_is_no_version() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("cwltool"), "not executable").expect("written");
        let path = SearchPath::new(vec![folder.path().to_owned(), "relative".into()], None);
        let found = find(&path);
        assert_eq!((found.engines, found.unknown), (engines(Vec::new()), None));
        assert_eq!(path.variable(), folder.path().as_os_str());
    }
}
