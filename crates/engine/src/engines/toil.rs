//! Toil, for CWL, WDL and its own workflows in Python, as its WES server starts it
//! (`toil.server.wes.tasks`, 9.6).

use std::{
    ffi::OsString,
    fs::File,
    io::Read as _,
    path::{Component, Path, PathBuf},
};

use stepwes_core::{
    engines::{SCRIPT_HEAD, python_of_script},
    task::EngineOutputs,
};

use super::{
    Engine, MAX_ERROR_LINES, Order, Results, TaskLog, TaskParser, because,
    cwltool::{
        LEFT, NETWORK, PROVENANCE, ROOT, container_option, ended_as_cwltool, workflow_argument,
    },
    is_byte_code, last_line,
    options::{
        self, AFRESH, ELSEWHERE, ENVIRONMENT, FOREIGN, INPUTS, LISTENER, NO_RUN, PLACES, RUNTIME,
        Rule, Rules,
    },
    python_is_broken,
    toil_bus::BusTasks,
};
use crate::{container::Container, cwl, outputs::Outputs, process::Exit, state::Saved, wdl};

/// Toil, by the workflow type that it runs.
pub(super) enum Toil {
    /// `toil-cwl-runner`.
    Cwl,
    /// `toil-wdl-runner`.
    Wdl,
    /// A workflow in Python by Toil's library.
    Python,
}

/// Toil's message bus, below the engine's own folder.
const BUS: &str = "messages";
/// The job store when a request names none, and the folder of those that it names.
const JOB_STORE: &str = "jobstore";
const NAMED_JOB_STORES: &str = "jobstores";

/// Either of them, as a path below the work folder; and what in a job store says which jobs there
/// are (`toil.jobStores.fileJobStore`).
const STATE: &str = "state/";
const STORES_BELOW: &str = "state/jobstore";
const RECORDS: [&str; 2] = ["jobs", "shared"];

/// What is in a job store once the workflow has begun (`rootJobStoreIDFileName`).
const ROOT_JOB: &str = "shared/rootJobStoreID";

const TOLD: Rule = Rule::Refused("the service keeps its runs to itself");

/// What every runner of Toil's understands (`toil.options.common`, 9.6).
const COMMON: &[(&str, Rule)] = &[
    // `sort` puts it where it belongs.
    ("--jobStore", Rule::Value),
    ("--jobstore", Rule::Value),
    ("--clean", Rule::Value),
    ("--cleanWorkDir", Rule::Value),
    // What it says.
    ("--logCritical", Rule::Flag),
    ("--logError", Rule::Flag),
    ("--logWarning", Rule::Flag),
    ("--logInfo", Rule::Flag),
    ("--logDebug", Rule::Flag),
    ("--logTrace", Rule::Flag),
    ("--logOff", Rule::Flag),
    ("--logLevel", Rule::Value),
    ("--logColors", Rule::Value),
    ("--maxLogFileSize", Rule::Value),
    ("--writeLogsFromAllJobs", Rule::Value),
    ("--noStdOutErr", Rule::Flag),
    ("--disableWorkerOutputCapture", Rule::Flag),
    ("--disableProgress", Rule::Flag),
    ("--statusWait", Rule::Value),
    ("--realTimeLogging", Rule::Value),
    ("--stats", Rule::Flag),
    // What jobs get, and how often.
    ("--maxJobs", Rule::Value),
    ("--maxLocalJobs", Rule::Value),
    ("--scale", Rule::Value),
    ("--defaultMemory", Rule::Value),
    ("--defaultCores", Rule::Value),
    ("--defaultDisk", Rule::Value),
    ("--defaultAccelerators", Rule::Value),
    ("--defaultPreemptible", Rule::Value),
    ("--defaultPreemptable", Rule::Value),
    ("--defaultWalltime", Rule::Value),
    ("--maxCores", Rule::Value),
    ("--maxMemory", Rule::Value),
    ("--maxDisk", Rule::Value),
    ("--maxServiceJobs", Rule::Value),
    ("--maxPreemptibleServiceJobs", Rule::Value),
    ("--retryCount", Rule::Value),
    ("--retryBackoffSeconds", Rule::Value),
    ("--retryBackoffFactor", Rule::Value),
    ("--stopOnFirstFailure", Rule::Value),
    ("--enableUnlimitedPreemptibleRetries", Rule::Value),
    ("--enableUnlimitedPreemptableRetries", Rule::Value),
    ("--doubleMem", Rule::Value),
    ("--doubleTime", Rule::Value),
    ("--maxJobDuration", Rule::Value),
    ("--rescueJobsFrequency", Rule::Value),
    ("--jobStoreTimeout", Rule::Value),
    ("--deadlockWait", Rule::Value),
    ("--deadlockCheckInterval", Rule::Value),
    ("--servicePollingInterval", Rule::Value),
    ("--statePollingWait", Rule::Value),
    ("--statePollingTimeout", Rule::Value),
    ("--setEnv", Rule::Value),
    ("-e", Rule::Value),
    // How files get about.
    ("--symlinkImports", Rule::Value),
    ("--moveOutputs", Rule::Value),
    ("--caching", Rule::Value),
    ("--symlinkJobStoreReads", Rule::Value),
    ("--disableJobStoreChecksumVerification", Rule::Value),
    ("--disableChaining", Rule::Value),
    ("--disableHotDeployment", Rule::Flag),
    ("--disableAutoDeployment", Rule::Value),
    ("--runLocalJobsOnWorkers", Rule::Flag),
    ("--runCwlInternalJobsOnWorkers", Rule::Flag),
    ("--runImportsOnWorkers", Rule::Flag),
    ("--run-imports-on-workers", Rule::Flag),
    ("--importWorkersBatchSize", Rule::Value),
    ("--import-workers-batch-size", Rule::Value),
    ("--importWorkersDisk", Rule::Value),
    ("--import-workers-disk", Rule::Value),
    ("--debugWorker", Rule::Flag),
    ("--badWorker", Rule::Value),
    ("--badWorkerFailInterval", Rule::Value),
    // What the service decides.
    ("--outdir", Rule::Dropped),
    ("-o", Rule::Dropped),
    ("--workDir", PLACES),
    ("--coordinationDir", PLACES),
    ("--runDir", PLACES),
    ("--logFile", PLACES),
    ("--rotatingLogging", PLACES),
    ("--writeLogs", PLACES),
    ("--writeLogsGzip", PLACES),
    ("--batchLogsDir", PLACES),
    ("--clusterStats", PLACES),
    ("--writeMessages", Rule::Refused("the service reads the tasks there")),
    ("--restart", AFRESH),
    ("--config", FOREIGN),
    ("--sseKey", FOREIGN),
    ("--metrics", LISTENER),
    ("--publishWorkflowMetrics", TOLD),
    ("--version", NO_RUN),
    ("--help", NO_RUN),
    ("-h", NO_RUN),
    ("--batchSystem", ELSEWHERE),
    ("--provisioner", ELSEWHERE),
    ("-p", ELSEWHERE),
    ("--nodeTypes", ELSEWHERE),
    ("--maxNodes", ELSEWHERE),
    ("--minNodes", ELSEWHERE),
    ("--targetTime", ELSEWHERE),
    ("--betaInertia", ELSEWHERE),
    ("--scaleInterval", ELSEWHERE),
    ("--preemptibleCompensation", ELSEWHERE),
    ("--preemptableCompensation", ELSEWHERE),
    ("--nodeStorage", ELSEWHERE),
    ("--nodeStorageOverrides", ELSEWHERE),
    ("--assumeZeroOverhead", ELSEWHERE),
    ("--forceDockerAppliance", ELSEWHERE),
    ("--manualMemArgs", ELSEWHERE),
    ("--memoryIsProduct", ELSEWHERE),
    ("--coalesceStatusCalls", ELSEWHERE),
    ("--awsBatchRegion", ELSEWHERE),
    ("--awsBatchQueue", ELSEWHERE),
    ("--awsBatchJobRoleArn", ELSEWHERE),
    ("--slurmAllocateMem", ELSEWHERE),
    ("--slurmDefaultAllMem", ELSEWHERE),
    ("--slurmTime", ELSEWHERE),
    ("--slurmPartition", ELSEWHERE),
    ("--slurmQOS", ELSEWHERE),
    ("--slurmGPUPartition", ELSEWHERE),
    ("--slurmGPUQOS", ELSEWHERE),
    ("--slurmPE", ELSEWHERE),
    ("--slurmArgs", ELSEWHERE),
    ("--mesosEndpoint", ELSEWHERE),
    ("--mesosFrameworkId", ELSEWHERE),
    ("--mesosRole", ELSEWHERE),
    ("--mesosName", ELSEWHERE),
    ("--kubernetesHostPath", ELSEWHERE),
    ("--kubernetesOwner", ELSEWHERE),
    ("--kubernetesServiceAccount", ELSEWHERE),
    ("--kubernetesPodTimeout", ELSEWHERE),
    ("--kubernetesPrivileged", ELSEWHERE),
    ("--kubernetesPodSecurityContext", ELSEWHERE),
    ("--kubernetesSecurityContext", ELSEWHERE),
];

/// What `toil-cwl-runner` understands besides (`toil.options.cwl`).
const CWL: &[(&str, Rule)] = &[
    ("--not-strict", Rule::Flag),
    ("--enable-dev", Rule::Flag),
    ("--enable-ext", Rule::Flag),
    ("--quiet", Rule::Flag),
    ("--no-container", Rule::Flag),
    ("--default-container", Rule::Value),
    ("--no-prepull", Rule::Flag),
    ("--force-docker-pull", Rule::Flag),
    ("--no-read-only", Rule::Flag),
    ("--strict-memory-limit", Rule::Flag),
    ("--strict-cpu-limit", Rule::Flag),
    ("--relax-path-checks", Rule::Flag),
    ("--rm-tmpdir", Rule::Flag),
    ("--leave-tmpdir", Rule::Flag),
    ("--compute-checksum", Rule::Flag),
    ("--no-compute-checksum", Rule::Flag),
    ("--eval-timeout", Rule::Value),
    ("--overrides", Rule::Value),
    ("--bypass-file-store", Rule::Flag),
    ("--reference-inputs", Rule::Flag),
    ("--disable-streaming", Rule::Flag),
    ("--cwl-default-ram", Rule::Flag),
    ("--no-cwl-default-ram", Rule::Flag),
    ("--cwl-min-ram", Rule::Value),
    ("--cwl-loop-iteration-limit", Rule::Value),
    ("--basedir", PLACES),
    ("--log-dir", PLACES),
    ("--tmpdir-prefix", PLACES),
    ("--tmp-outdir-prefix", PLACES),
    ("--destBucket", PLACES),
    ("--cachedir", PLACES),
    ("--cidfile-dir", PLACES),
    ("--cidfile-prefix", PLACES),
    ("--singularity", RUNTIME),
    ("--podman", RUNTIME),
    ("--user-space-docker-cmd", RUNTIME),
    ("--custom-net", NETWORK),
    ("--no-match-user", ROOT),
    ("--leave-container", LEFT),
    ("--preserve-environment", ENVIRONMENT),
    ("--preserve-entire-environment", ENVIRONMENT),
    ("--provenance", PROVENANCE),
    ("--enable-user-provenance", PROVENANCE),
    ("--disable-user-provenance", PROVENANCE),
    ("--enable-host-provenance", PROVENANCE),
    ("--disable-host-provenance", PROVENANCE),
    ("--orcid", PROVENANCE),
    ("--full-name", PROVENANCE),
    ("--mpi-config-file", FOREIGN),
    ("--beta-dependency-resolvers-configuration", FOREIGN),
    ("--beta-dependencies-directory", FOREIGN),
    ("--beta-use-biocontainers", FOREIGN),
    ("--beta-conda-dependencies", FOREIGN),
];

/// What `toil-wdl-runner` understands besides (`toil.options.wdl`).
const WDL: &[(&str, Rule)] = &[
    ("--wdlReferenceInputs", Rule::Value),
    ("--referenceInputs", Rule::Value),
    ("--wdlAllCallOutputs", Rule::Value),
    ("--allCallOutputs", Rule::Value),
    ("--wdlStrict", Rule::Value),
    ("--strict", Rule::Value),
    ("--wdlQuantCheck", Rule::Value),
    ("--quantCheck", Rule::Value),
    // As --outdir: the service reads the outputs.
    ("--wdlOutputDirectory", Rule::Dropped),
    ("--outputDirectory", Rule::Dropped),
    ("--wdlOutputDialect", Rule::Dropped),
    ("--outputDialect", Rule::Dropped),
    ("--wdlOutputFile", PLACES),
    ("--outputFile", PLACES),
    ("-m", PLACES),
    ("--wdlContainer", RUNTIME),
    ("--container", RUNTIME),
    ("--input", INPUTS),
    ("--inputs", INPUTS),
    ("-i", INPUTS),
];

pub(super) const CWL_OPTIONS: Rules = Rules::new("toil-cwl-runner", &[COMMON, CWL]);
pub(super) const WDL_OPTIONS: Rules = Rules::new("toil-wdl-runner", &[COMMON, WDL]);
pub(super) const PYTHON_OPTIONS: Rules = Rules::new("toil", &[COMMON]).with_workflow_options();

/// Toil's `sort_options`: a job store that the request names is taken out for its own place, and the
/// default one is cleaned up unless something else is asked for; but only of a workflow that
/// succeeded (Toil has `always`), since from the others it can go on. Without its two errors: an option
/// beside one that is taken out stays, and `--clean` of the request's holds. Gives the options, and
/// the job store's path.
///
/// A request names a job store by a relative path, with or without `file:`. It lies in the run's
/// own folder all the same: elsewhere it could be another run's.
fn sort(rules: &Rules, order: &Order<'_>) -> Result<(Vec<String>, PathBuf), String> {
    let mut named = None;
    let mut clean = false;
    let mut options = options::sort(rules, order)?;
    options.retain(|option| match option.split_once('=') {
        Some(("--jobStore" | "--jobstore", store)) => {
            named = Some(store.to_owned());
            false
        }
        Some(("--clean", _)) => {
            clean = true;
            true
        }
        _ => true,
    });
    let store = match named {
        Some(store) => named_store(order, &store)?,
        None => {
            if !clean {
                options.push("--clean=onSuccess".to_owned());
            }
            order.state.join(JOB_STORE)
        }
    };
    if order.resumed {
        options.push("--restart".to_owned());
    }
    options.push(format!("--writeMessages={}", order.state.join(BUS).display()));
    Ok((options, store))
}

fn named_store(order: &Order<'_>, store: &str) -> Result<PathBuf, String> {
    let path = Path::new(store.strip_prefix("file:").unwrap_or(store));
    let is_name = path.components().all(|part| matches!(part, Component::Normal(_)))
        && path.components().next().is_some()
        && !path.to_string_lossy().contains(':');
    if is_name {
        // Toil makes the store's folder, but none above it.
        let flat = path.to_string_lossy().replace('/', "_");
        Ok(order.state.join(format!("{NAMED_JOB_STORES}-{flat}")))
    } else {
        Err(format!(
            "workflow_engine_parameters: the job store {store:?} is not in the run's own folder; name it by a relative path, or leave --jobStore out"
        ))
    }
}

/// Variables for every runner: its workers are found by their name on `PATH`, and what it keeps
/// outside of its job store lies in the run's folder.
fn environment(order: &Order<'_>, executable: &Path) -> Vec<(OsString, OsString)> {
    let real = executable.canonicalize();
    // The interpreter of a virtual environment is a link out of it.
    let is_python =
        executable.file_name().is_some_and(|name| name.to_string_lossy().starts_with("python"));
    let scripts = match &real {
        Ok(real) if !is_python => real.parent(),
        _ => executable.parent(),
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = scripts.map(Path::to_owned).into_iter().chain(std::env::split_paths(&path));
    let path = std::env::join_paths(path).unwrap_or_default();
    vec![
        ("PATH".into(), path),
        ("TOIL_WORKDIR".into(), order.state.into()),
        ("TOIL_COORDINATION_DIR".into(), order.state.into()),
        // Nobody asks for it, and it would be in a home that may be the operator's.
        ("TOIL_HISTORY".into(), "0".into()),
    ]
}

/// Why Toil failed, from the end of its log: a tool's exit status, else the last exception of a
/// worker or of its own, else the last error that was logged, else its last line.
fn cause(stderr: &str) -> Option<String> {
    let mut exited = None;
    let mut raised: Option<String> = None;
    let mut error = None;
    let mut in_traceback = false;
    // How many lines more of an exception's message are kept.
    let mut message = 0;
    for line in stderr.lines() {
        // A worker's log is indented in the leader's.
        let line = line.strip_prefix('\t').unwrap_or(line);
        if line.starts_with("Traceback (most recent call last)") {
            in_traceback = true;
            message = 0;
            continue;
        }
        if let Some((level, text)) = record(line) {
            in_traceback = false;
            message = 0;
            if text.starts_with("[job ") && text.contains("] exited with status: ") {
                exited = Some(text);
            }
            if matches!(level, "E" | "C") && !is_consequence(text) {
                error = Some(text);
            }
        } else if in_traceback && !line.starts_with([' ', '\t']) && !line.trim().is_empty() {
            in_traceback = false;
            if !is_consequence(line) {
                raised = Some(line.trim_end().to_owned());
                message = MAX_ERROR_LINES;
            }
        } else if line.trim().is_empty() || line.starts_with("<=") {
            message = 0;
        } else if message > 0
            && let Some(raised) = &mut raised
        {
            message -= 1;
            raised.push(' ');
            raised.push_str(line.trim());
        }
    }
    let raised_or_told = || raised.or(error.map(str::to_owned));
    exited.map(str::to_owned).or_else(raised_or_told).or_else(|| last_line(stderr))
}

/// Reads `[time] [thread] [L] [logger] text`.
fn record(line: &str) -> Option<(&str, &str)> {
    let mut rest = line;
    let mut fields = [""; 4];
    for field in &mut fields {
        let (inside, after) = rest.strip_prefix('[')?.split_once(']')?;
        *field = inside;
        rest = after.trim_start();
    }
    (fields[2].len() == 1).then_some((fields[2], rest))
}

/// Whether an error only says that there was another one.
fn is_consequence(text: &str) -> bool {
    [
        "toil.exceptions.FailedJobsException",
        "Exiting the worker because",
        "Got exit code ",
        "Failed command standard error",
        "Worker crashed with traceback",
        "The job store ",
    ]
    .iter()
    .any(|start| text.starts_with(start))
}

fn left_out(path: &str) -> bool {
    is_byte_code(path) || path.starts_with(STATE) && !path.starts_with(STORES_BELOW)
}

fn is_guard(path: &str) -> bool {
    let in_store = path.strip_prefix(STORES_BELOW).and_then(|rest| rest.split_once('/'));
    let folder = in_store.and_then(|(_, below)| below.split('/').next());
    folder.is_some_and(|folder| RECORDS.contains(&folder))
}

impl Engine for Toil {
    fn name(&self) -> &'static str {
        "toil"
    }

    fn workflow_type(&self) -> &'static str {
        match self {
            Self::Cwl => "CWL",
            Self::Wdl => "WDL",
            Self::Python => "PY",
        }
    }

    fn program(&self) -> &'static str {
        match self {
            Self::Cwl => "toil-cwl-runner",
            Self::Wdl => "toil-wdl-runner",
            Self::Python => "toil",
        }
    }

    fn installation(&self) -> &'static str {
        "run `stepwes engines install toil`, or `pip install 'toil[cwl,wdl,aws]'` and put it on the service's PATH; `stepwes engines` shows which engines are found"
    }

    /// For a workflow in Python, the interpreter that Toil is installed for.
    fn executable(&self, found: &Path) -> Result<PathBuf, String> {
        match self {
            Self::Cwl | Self::Wdl => Ok(found.to_owned()),
            Self::Python => interpreter(found).ok_or_else(|| {
                format!("{} does not name the Python that Toil is installed for", found.display())
            }),
        }
    }

    fn command(&self, order: &Order<'_>) -> Result<Vec<String>, String> {
        match self {
            Self::Cwl => self.cwl(order),
            Self::Wdl => self.wdl(order),
            Self::Python => self.python(order),
        }
    }

    fn environment(&self, order: &Order<'_>, executable: &Path) -> Vec<(OsString, OsString)> {
        environment(order, executable)
    }

    fn results(&self, order: &Order<'_>) -> Results {
        match self {
            Self::Cwl | Self::Wdl => Results::Folder(order.outdir.to_owned()),
            Self::Python => Results::Execution { own: is_byte_code },
        }
    }

    fn saved(&self, order: &Order<'_>) -> Option<Saved> {
        let mut folders = vec![order.state.to_owned()];
        if matches!(self, Self::Python) {
            // Its outputs are wherever its jobs write them.
            folders.push(order.execution.to_owned());
        }
        Some(Saved { folders, left_out, is_guard })
    }

    /// A job store without a root job cannot be restarted from: nothing has been done yet.
    fn can_go_on(&self, order: &Order<'_>) -> bool {
        let rules = match self {
            Self::Cwl => &CWL_OPTIONS,
            Self::Wdl => &WDL_OPTIONS,
            Self::Python => &PYTHON_OPTIONS,
        };
        sort(rules, order).is_ok_and(|(_, store)| store.join(ROOT_JOB).exists())
    }

    fn failure(&self, exit: Exit, stderr: &str) -> String {
        let runner = match self {
            Self::Cwl | Self::Wdl => self.program(),
            Self::Python => "the workflow",
        };
        because(ended_as_cwltool(runner, exit), cause(stderr))
    }

    fn is_broken(&self, exit: Exit, stderr: &str) -> bool {
        match self {
            Self::Cwl | Self::Wdl => python_is_broken(exit, stderr),
            // What is started is the interpreter itself: whatever it ends with is the workflow's.
            Self::Python => false,
        }
    }

    fn outputs(
        &self,
        stdout: &[u8],
        folder: &Path,
        uploaded: &Outputs,
    ) -> Result<EngineOutputs, String> {
        match self {
            Self::Cwl => cwl::outputs(self.program(), stdout, folder, uploaded),
            Self::Wdl => wdl::outputs(self.program(), stdout, folder, uploaded),
            Self::Python => Ok(EngineOutputs::Listing),
        }
    }

    fn tasks(&self, order: &Order<'_>) -> (TaskLog, Box<dyn TaskParser>) {
        (TaskLog::File(order.state.join(BUS)), Box::<BusTasks>::default())
    }
}

impl Toil {
    fn cwl(&self, order: &Order<'_>) -> Result<Vec<String>, String> {
        let (chosen, store) = sort(&CWL_OPTIONS, order)?;
        let mut command = vec![self.program().to_owned()];
        if !chosen.iter().any(|option| option == "--no-container") {
            command.extend(container_option(order.container));
        }
        command.extend(chosen);
        command.extend([
            format!("--outdir={}", order.outdir.display()),
            format!("--jobStore=file:{}", store.display()),
            workflow_argument(order),
            Order::INPUTS.to_owned(),
        ]);
        Ok(command)
    }

    fn wdl(&self, order: &Order<'_>) -> Result<Vec<String>, String> {
        order.whole(self.program())?;
        let (chosen, store) = sort(&WDL_OPTIONS, order)?;
        let container = match order.container {
            Container::Docker => "docker",
            Container::Singularity => "singularity",
            Container::Podman | Container::None => {
                return Err("toil-wdl-runner runs every task in a container of docker or singularity, and this service has neither; use the engine miniwdl, or a service with containers".to_owned());
            }
        };
        let mut command = vec![self.program().to_owned(), format!("--container={container}")];
        command.extend(chosen);
        command.extend([
            // Toil's server gives --outdir, which its WDL runner refuses.
            format!("--outputDirectory={}", order.outdir.display()),
            format!("--jobStore=file:{}", store.display()),
            order.execution.join(order.workflow).to_string_lossy().into_owned(),
            Order::INPUTS.to_owned(),
        ]);
        Ok(command)
    }

    fn python(&self, order: &Order<'_>) -> Result<Vec<String>, String> {
        order.whole(self.program())?;
        let (chosen, store) = sort(&PYTHON_OPTIONS, order)?;
        let mut command = vec!["python".to_owned(), order.workflow_argument()];
        command.extend(chosen);
        command.push(format!("file:{}", store.display()));
        Ok(command)
    }
}

/// The interpreter of a Python script.
fn interpreter(script: &Path) -> Option<PathBuf> {
    let mut head = Vec::new();
    File::open(script).ok()?.take(SCRIPT_HEAD).read_to_end(&mut head).ok()?;
    python_of_script(&head)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use serde_json::{Map, Value, json};

    use super::*;

    fn ordered(
        engine: &dyn Engine,
        workflow: &str,
        parameters: &Value,
        container: Container,
    ) -> Result<String, String> {
        let none = Map::new();
        let order = Order {
            defaults: &none,
            parameters: parameters.as_object().unwrap_or(&none),
            workflow,
            fragment: None,
            execution: Path::new("/w/execution"),
            outdir: Path::new("/w/outputs"),
            state: Path::new("/w/state"),
            resumed: false,
            container,
            aws: &[],
        };
        engine.command(&order).map(|command| command.join(" "))
    }

    #[test]
    fn the_options_are_documented() {
        options::assert_documented(COMMON);
        options::assert_documented(CWL);
        options::assert_documented(WDL);
    }

    #[test]
    fn options_are_sorted_as_by_toil_s_server_but_without_its_errors() {
        // Next to --outdir and --jobStore, which are taken out, its server loses an option.
        let given = json!({
            "--jobStore": "store", "--logDebug": null, "--outdir": "/x", "--maxCores": 2, "-o": "/y",
            "--clean": "never",
        });
        assert_eq!(
            ordered(&Toil::Cwl, "a b.cwl", &given, Container::None).as_deref(),
            Ok(
                "toil-cwl-runner --no-container --logDebug --maxCores=2 --clean=never --writeMessages=/w/state/messages --outdir=/w/outputs --jobStore=file:/w/state/jobstores-store a b.cwl wes_inputs.json"
            )
        );
    }

    #[test]
    fn the_default_job_store_is_cleaned_up_unless_the_request_says_otherwise() {
        let options = |given| ordered(&Toil::Cwl, "a", &given, Container::None).expect("a command");
        assert!(options(json!({})).contains(" --clean=onSuccess "));
        assert!(options(json!({})).contains(" --jobStore=file:/w/state/jobstore a "));
        assert!(!options(json!({"--clean": "never"})).contains("onSuccess"));
        assert!(!options(json!({"--jobStore": "s"})).contains("--clean"));
    }

    #[test]
    fn a_job_store_elsewhere_is_refused() {
        for store in ["/etc/x", "../other", "aws:us-east-1:x", "file:/x", "google:p:x", "."] {
            let refused =
                ordered(&Toil::Python, "w.py", &json!({"--jobStore": store}), Container::None);
            assert!(refused.expect_err(store).contains("the run's own folder"), "{store}");
        }
        let kept =
            ordered(&Toil::Python, "w.py", &json!({"--jobStore=file:a/b": null}), Container::None);
        assert!(kept.expect("a command").ends_with(" file:/w/state/jobstores-a_b"));
    }

    #[test]
    fn a_workflow_in_python_gets_the_job_store_last_and_its_own_options() {
        assert_eq!(
            ordered(&Toil::Python, "-w.py", &json!({"--who": "a b"}), Container::Docker).as_deref(),
            Ok(
                "python ./-w.py --who=a b --clean=onSuccess --writeMessages=/w/state/messages file:/w/state/jobstore"
            )
        );
        for option in ["--batchSys", "--jobSt", "--workDir", "-p"] {
            assert!(
                ordered(&Toil::Python, "w.py", &json!({option: "x"}), Container::None).is_err()
            );
        }
    }

    #[test]
    fn wdl_needs_containers_and_says_so() {
        let command =
            ordered(&Toil::Wdl, "a: b.wdl", &json!({"--outdir": "/x"}), Container::Docker);
        assert_eq!(
            command.as_deref(),
            Ok(
                "toil-wdl-runner --container=docker --clean=onSuccess --writeMessages=/w/state/messages --outputDirectory=/w/outputs --jobStore=file:/w/state/jobstore /w/execution/a: b.wdl wes_inputs.json"
            )
        );
        let refused = ordered(&Toil::Wdl, "a.wdl", &json!({}), Container::None);
        assert!(refused.expect_err("no containers").contains("engine miniwdl"));
    }

    #[test]
    fn every_option_has_one_rule_and_none_leads_out_of_the_run() {
        for tables in [[COMMON, CWL], [COMMON, WDL]] {
            let mut names: Vec<_> = tables.concat().into_iter().map(|(name, _)| name).collect();
            names.sort_unstable();
            let all = names.len();
            names.dedup();
            assert_eq!(names.len(), all);
        }
        for option in [
            "--workDir",
            "--coordinationDir",
            "--runDir",
            "--batchSystem",
            "--config",
            "--restart",
            "--writeMessages",
            "--writeLogs",
            "--metrics",
            "--destBucket",
            "--singularity",
            "--cachedir",
            "--mpi-config-file",
            "--stats=x",
            "--provisioner",
        ] {
            assert!(ordered(&Toil::Cwl, "a", &json!({option: "x"}), Container::None).is_err());
        }
    }

    #[test]
    fn the_reason_is_the_tool_s_then_the_exception_s_then_what_was_logged() {
        let worker = "[2026-11-25T15:41:36+0000] [MainThread] [W] [toil.leader] Log follows:\n\
            =========>\n\
            \t[2026-11-25T15:41:36+0000] [MainThread] [W] [cwltool] [job bad.cwl] exited with status: 7\n\
            \tTraceback (most recent call last):\n\
            \t  File \"x\", line 1\n\
            \tcwl_utils.errors.WorkflowException: permanentFail\n";
        assert_eq!(cause(worker).as_deref(), Some("[job bad.cwl] exited with status: 7"));
        let python = "\tTraceback (most recent call last):\n\t  File \"x\"\n\tValueError: it is broken\n\
            Traceback (most recent call last):\n  File \"y\"\n\
            toil.exceptions.FailedJobsException: The job store contains 1 failed jobs\n";
        assert_eq!(cause(python).as_deref(), Some("ValueError: it is broken"));
        let logged = "[2026-11-25T15:41:40+0000] [MainThread] [E] [root] no such thing\n\
            [2026-11-25T15:41:40+0000] [MainThread] [E] [root] The job store '/x' contains 1\n";
        assert_eq!(cause(logged).as_deref(), Some("no such thing"));
        let invalid = "Traceback (most recent call last):\n  File \"x\"\nschema_salad.exceptions.ValidationException: \n\
            main.cwl:3:1: checking field 'inputs'\nmain.cwl:3:10: unknown identifier 'strin'\n\nmore\n";
        assert_eq!(
            cause(invalid).as_deref(),
            Some(
                "schema_salad.exceptions.ValidationException: main.cwl:3:1: checking field 'inputs' main.cwl:3:10: unknown identifier 'strin'"
            )
        );
        let usage = "usage: toil-cwl-runner\ntoil-cwl-runner: error: no file\n";
        assert_eq!(cause(usage).as_deref(), Some("toil-cwl-runner: error: no file"));
        let told = Toil::Cwl.failure(Exit { code: 33, signal: None }, "");
        assert_eq!(told, "toil-cwl-runner exited with code 33 (unsupported feature)");
    }

    #[test]
    fn python_and_the_workers_are_those_of_the_installation() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("real");
        let venv = root.join("venv/bin");
        std::fs::create_dir_all(&venv).expect("made");
        let script = venv.join("toil");
        let python = venv.join("python3");
        std::fs::write(&script, format!("#!{}\nimport toil\n", python.display())).expect("written");
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("set");
        let link = root.join("toil");
        symlink(&script, &link).expect("linked");
        assert_eq!(Toil::Python.executable(&link), Ok(python.clone()));
        std::fs::write(venv.join("odd"), "#!/bin/sh\n").expect("written");
        assert!(Toil::Python.executable(&venv.join("odd")).is_err());
        let none = Map::new();
        let order = Order {
            defaults: &none,
            parameters: &none,
            workflow: "w",
            fragment: None,
            execution: &root,
            outdir: &root,
            state: &root,
            resumed: false,
            container: Container::None,
            aws: &[],
        };
        for executable in [&link, &python] {
            let variables = environment(&order, executable);
            let (_, path) = variables.iter().find(|(name, _)| name == "PATH").expect("a PATH");
            assert_eq!(std::env::split_paths(path).next(), Some(venv.clone()));
        }
    }
}
