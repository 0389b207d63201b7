//! A folder with engines that stepwes has installed: an environment for each lock file, and `bin`
//! with links to their programs.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, bail};
use sha1::{Digest as _, Sha1};
use tokio::process::Command;

use crate::{args::Installable, ui::hint};

/// The copy of its lock file that an environment gets last: one without it is not complete.
const LOCK: &str = "lock.txt";

/// How much of what pip says of a failure is shown, in lines.
const LAST_LINES: usize = 15;

/// What `python3` is asked.
const CHECK: &str = "import sys; sys.exit(sys.version_info < (3, 11))";

impl Installable {
    /// Its name, as in requests.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Cwltool => "cwltool",
            Self::Miniwdl => "miniwdl",
            Self::Toil => "toil",
            Self::Snakemake => "snakemake",
        }
    }

    /// All packages that it needs, with versions and hashes.
    const fn lock(self) -> &'static str {
        match self {
            Self::Cwltool => include_str!("../../../requirements/engine-cwltool.txt"),
            Self::Miniwdl => include_str!("../../../requirements/engine-miniwdl.txt"),
            Self::Toil => include_str!("../../../requirements/engine-toil.txt"),
            Self::Snakemake => include_str!("../../../requirements/engine-snakemake.txt"),
        }
    }

    /// The programs that the service looks for.
    const fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Cwltool => &["cwltool"],
            Self::Miniwdl => &["miniwdl"],
            Self::Toil => &["toil", "toil-cwl-runner", "toil-wdl-runner"],
            Self::Snakemake => &["snakemake"],
        }
    }

    /// The version in its lock file.
    pub(crate) fn version(self) -> &'static str {
        let package = |line: &'static str| {
            let (name, rest) = line.split_once("==")?;
            // Extras are behind the name.
            (name.split('[').next() == Some(self.name())).then_some(rest)
        };
        let pinned = self.lock().lines().find_map(package).unwrap_or_default();
        pinned.split_whitespace().next().unwrap_or_default()
    }

    /// How many packages its lock file has.
    pub(crate) fn packages(self) -> usize {
        let is_package = |line: &&str| line.starts_with(|c: char| c.is_ascii_alphanumeric());
        self.lock().lines().filter(is_package).count()
    }
}

/// A folder with engines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EngineHome(PathBuf);

/// The folder of the user's (XDG Base Directory Specification), when there is a home.
pub(crate) fn of_user() -> Option<EngineHome> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
    let data =
        absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")))?;
    Some(EngineHome(data.join("stepwes/engines")))
}

/// The folder of one server's.
pub(crate) fn of_server(dir: &Path) -> io::Result<EngineHome> {
    Ok(EngineHome(std::path::absolute(dir)?.join("engines")))
}

impl EngineHome {
    /// Where the links to the programs are.
    pub(crate) fn bin(&self) -> PathBuf {
        self.0.join("bin")
    }

    /// Installs an engine, unless it is there in this very version: all of it, or nothing that
    /// anybody sees. Gives whether there was something to do.
    ///
    /// # Errors
    /// With the last words of what failed.
    pub(crate) async fn install(&self, engine: Installable, tools: &Tools) -> anyhow::Result<bool> {
        let root = &self.0;
        let unwritable = || format!("{} cannot be written", root.display());
        fs::create_dir_all(self.bin()).with_context(unwritable)?;
        let guard = File::create(root.join(".lock")).with_context(unwritable)?;
        // Somebody else may be installing here; the lock ends with the file.
        let guard = tokio::task::spawn_blocking(move || guard.lock().map(|()| guard))
            .await
            .context("the folder cannot be locked")?
            .with_context(unwritable)?;
        // Named for what is in it: an engine that runs keeps the environment that it started with.
        let digest = hex::encode(Sha1::digest(engine.lock()));
        let environment =
            root.join(format!("{}-{}-{}", engine.name(), engine.version(), &digest[..8]));
        let is_complete =
            fs::read(environment.join(LOCK)).is_ok_and(|lock| lock == engine.lock().as_bytes());
        if !is_complete {
            make(&environment, engine, tools).await?;
        }
        for program in engine.programs() {
            link(&environment.join("bin").join(program), &self.bin().join(program))
                .with_context(unwritable)?;
        }
        drop(guard);
        Ok(!is_complete)
    }
}

/// What environments are made with.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    python: PathBuf,
    /// uv, which is quicker than pip, where it is there.
    uv: Option<PathBuf>,
}

impl Tools {
    /// That Python, and what is on `PATH`.
    pub(crate) fn new(python: PathBuf) -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let uv = std::env::split_paths(&path)
            .map(|dir| dir.join("uv"))
            .find(|program| program.is_file());
        Self { python, uv }
    }
}

/// Makes an environment anew.
async fn make(environment: &Path, engine: Installable, tools: &Tools) -> anyhow::Result<()> {
    check(&tools.python).await?;
    match fs::remove_dir_all(environment) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error)
                .with_context(|| format!("{} cannot be removed", environment.display()));
        }
        _ => {}
    }
    match &tools.uv {
        Some(uv) => {
            let places = [tools.python.as_os_str(), environment.as_os_str()];
            run(uv, &[&words(&["venv", "--quiet", "--python"])[..], &places].concat()).await?;
        }
        None => {
            let place = [environment.as_os_str()];
            run(&tools.python, &[&words(&["-m", "venv"])[..], &place].concat()).await?;
        }
    }
    let inside = environment.join("bin/python");
    let requirements = environment.join("requirements.txt");
    fs::write(&requirements, engine.lock())
        .with_context(|| format!("{} cannot be written", requirements.display()))?;
    // The lock file is complete: there is nothing to resolve.
    let mut packages = words(&["--quiet", "--no-deps", "--require-hashes", "--requirement"]);
    packages.push(requirements.as_os_str());
    match &tools.uv {
        Some(uv) => {
            let mut into = words(&["pip", "install", "--python"]);
            into.push(inside.as_os_str());
            run(uv, &[into, packages].concat()).await?;
        }
        None => {
            let pip = ["-m", "pip", "install", "--disable-pip-version-check", "--no-input"];
            run(&inside, &[words(&pip), packages].concat()).await?;
        }
    }
    fs::rename(&requirements, environment.join(LOCK))
        .with_context(|| format!("{} cannot be written", environment.display()))?;
    Ok(())
}

/// Arguments.
fn words<'a>(words: &[&'a str]) -> Vec<&'a OsStr> {
    words.iter().map(|word| OsStr::new(*word)).collect()
}

async fn check(python: &Path) -> anyhow::Result<()> {
    let status = Command::new(python).args(["-c", CHECK]).stdin(Stdio::null()).status().await;
    if status.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    Err(hint(
        format!("{} is no Python of version 3.11 or later", python.display()),
        "install one, or name it with --python",
    ))
}

async fn run(program: &Path, arguments: &[&OsStr]) -> anyhow::Result<()> {
    let shown = program.display();
    let output = Command::new(program)
        .args(arguments)
        // What a user has set for other environments is not meant for this one.
        .env_remove("PYTHONPATH")
        .env_remove("PYTHONHOME")
        .env_remove("VIRTUAL_ENV")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("{shown} cannot be started"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<_> = said.trim_end().lines().collect();
    let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
    bail!("{shown} failed ({}):\n{last}", output.status);
}

/// Puts a link where there may be another one, at once.
fn link(target: &Path, link: &Path) -> io::Result<()> {
    let mut new = link.as_os_str().to_owned();
    new.push(".new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::os::unix::fs::symlink(target, &new)?;
    fs::rename(&new, link)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const ALL: [Installable; 4] =
        [Installable::Cwltool, Installable::Miniwdl, Installable::Toil, Installable::Snakemake];

    #[test]
    fn every_lock_file_pins_its_engine_and_each_package_by_hash() {
        for engine in ALL {
            assert!(engine.version().starts_with(|c: char| c.is_ascii_digit()), "{engine:?}");
            let lock = engine.lock();
            assert!(
                engine.packages() > 5 && lock.matches("--hash=sha256:").count() > engine.packages()
            );
            assert!(!lock.contains("http"), "{engine:?} names a host");
        }
    }

    #[test]
    fn the_programs_are_those_that_the_service_looks_for() {
        let known: std::collections::BTreeSet<_> = stepwes_core::engines::KNOWN
            .iter()
            .filter(|known| known.name != "nextflow")
            .map(|known| (known.name, known.program))
            .collect();
        let ours = ALL
            .iter()
            .flat_map(|engine| engine.programs().iter().map(|program| (engine.name(), *program)));
        assert_eq!(ours.collect::<std::collections::BTreeSet<_>>(), known);
    }

    /// A Python that makes environments whose pip says something and exits so.
    fn tools(folder: &Path, code: u8) -> Tools {
        let path = folder.join("python");
        let script = format!(
            "#!/bin/sh\n[ \"$1\" = -c ] && exit 0\n\
             mkdir -p \"$3/bin\"\n\
             printf '#!/bin/sh\\necho no luck >&2; exit {code}\\n' > \"$3/bin/python\"\n\
             chmod +x \"$3/bin/python\"\n"
        );
        fs::write(&path, script).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
        Tools { python: path, uv: None }
    }

    #[tokio::test]
    async fn an_installation_that_fails_is_not_seen_and_one_that_is_there_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let home = of_server(folder.path()).expect("a folder");
        let bad = tools(folder.path(), 3);
        let error = home.install(Installable::Toil, &bad).await.expect_err("it fails");
        assert!(format!("{error:#}").contains("no luck"), "{error:#}");
        assert!(!home.bin().join("toil").is_symlink());
        let good = tools(folder.path(), 0);
        assert!(home.install(Installable::Toil, &good).await.expect("installed"));
        for program in Installable::Toil.programs() {
            assert!(home.bin().join(program).is_symlink(), "{program}");
        }
        assert!(!home.install(Installable::Toil, &bad).await.expect("there"));
    }

    #[tokio::test]
    async fn what_is_no_python_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let home = of_server(folder.path()).expect("a folder");
        let error = home.install(Installable::Miniwdl, &Tools::new("/bin/false".into())).await;
        let error = format!("{:#}", error.expect_err("no Python"));
        assert!(error.contains("/bin/false is no Python"), "{error}");
    }

    #[test]
    fn a_link_replaces_another_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path().join("program");
        for target in ["one", "two"] {
            link(Path::new(target), &at).expect("linked");
            assert_eq!(fs::read_link(&at).expect("a link"), Path::new(target));
        }
    }
}
