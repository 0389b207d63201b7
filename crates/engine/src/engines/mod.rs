//! Workflow engines behind one trait, one file an engine.

mod cwltool;
mod cwltool_log;
mod options;

use std::{path::Path, process::Stdio, time::Duration};

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use stepwes_core::{
    attachment::INPUTS_FILE,
    task::{EngineOutputs, Task},
};

use crate::{
    container::{Container, find_program},
    outputs::Outputs,
    process::Exit,
};

/// How long `--version` may take: engines in Python start slowly on a cold disk.
const PROBE_LIMIT: Duration = Duration::from_secs(60);

/// Every engine that a task can run.
const ENGINES: [&dyn Engine; 1] = [&cwltool::Cwltool];

/// What an engine is asked to run.
#[derive(Debug)]
pub(crate) struct Order<'a> {
    /// `workflow_engine_parameters`.
    pub(crate) parameters: &'a Map<String, Value>,
    /// The workflow's path below the execution folder, where the engine starts.
    pub(crate) workflow: &'a str,
    /// The part of the workflow that is meant.
    pub(crate) fragment: Option<&'a str>,
    /// The execution folder, absolute.
    pub(crate) execution: &'a Path,
    /// Where the outputs go, absolute.
    pub(crate) outdir: &'a Path,
    /// How containers are run.
    pub(crate) container: Container,
    /// The variables of the engine's environment by which AWS's SDKs find credentials that only
    /// read. They lead to the task's loopback interface, which containers do not share.
    pub(crate) aws: &'a [String],
}

impl Order<'_> {
    /// The file of `workflow_params`, below the execution folder.
    pub(crate) const INPUTS: &'static str = INPUTS_FILE;
}

/// What the task has to know of a workflow engine.
pub(crate) trait Engine: Sync {
    /// Its name in requests.
    fn name(&self) -> &'static str;

    /// The program to look for on `PATH`.
    fn program(&self) -> &'static str;

    /// How a person installs it: completes "… is not installed: ".
    fn installation(&self) -> &'static str;

    /// The command line, its first word the program.
    ///
    /// # Errors
    /// A sentence for whoever made the request, such as an option that is not allowed.
    fn command(&self, order: &Order<'_>) -> Result<Vec<String>, String>;

    /// Whether an exit code means that the workflow is complete.
    fn succeeded(&self, exit: Exit) -> bool {
        exit.code == 0
    }

    /// Why it failed, in one sentence; `stderr` is the end of its standard error.
    fn failure(&self, exit: Exit, stderr: &str) -> String;

    /// Whether an engine that failed is not installed as it should be, rather than given a bad
    /// workflow; `stderr` is the end of its standard error.
    fn is_broken(&self, exit: Exit, stderr: &str) -> bool;

    /// The output object, from what it wrote to standard output and what was uploaded.
    ///
    /// # Errors
    /// A sentence for whoever wrote the workflow, such as an output that was never made.
    fn outputs(
        &self,
        stdout: &[u8],
        outdir: &Path,
        uploaded: &Outputs,
    ) -> Result<EngineOutputs, String>;

    /// A reader of the tasks in its standard error.
    fn tasks(&self) -> Box<dyn TaskParser>;

    /// What service-info says of it, in the `versions` that are installed.
    fn describe(&self, versions: Vec<String>) -> stepwes_core::engines::Engine;

    /// Its version, from what `--version` prints.
    fn version(&self, printed: &str) -> Option<String> {
        printed.split_whitespace().last().map(str::to_owned)
    }
}

/// Makes tasks of log lines.
pub(crate) trait TaskParser: Send {
    /// Takes the next line, without its end, read at `at`.
    fn line(&mut self, line: &str, at: DateTime<Utc>);

    /// The log is at its end, and the engine has ended by `at`: so has every task.
    fn end(&mut self, at: DateTime<Utc>);

    /// The tasks so far, in the order in which they started.
    fn tasks(&self) -> &[Task];

    /// Changes whenever the tasks do; 0 while there are none.
    fn revision(&self) -> u64;
}

/// The engine of that name.
pub(crate) fn find(name: &str) -> Option<&'static dyn Engine> {
    ENGINES.into_iter().find(|engine| engine.name() == name)
}

/// The names of all engines, for a message.
pub(crate) fn names() -> String {
    ENGINES.map(Engine::name).join(", ")
}

/// Every engine that this task knows, with the versions that are on this process' `PATH`: none
/// when it is not installed. Starts each engine once, which takes seconds.
pub async fn installed() -> Vec<stepwes_core::engines::Engine> {
    let mut found = Vec::new();
    for engine in ENGINES {
        found.push(engine.describe(probe(engine).await.into_iter().collect()));
    }
    found
}

async fn probe(engine: &dyn Engine) -> Option<String> {
    let program = find_program(engine.program())?;
    let output = tokio::process::Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PROBE_LIMIT, output).await.ok()?.ok()?;
    let printed = String::from_utf8_lossy(&output.stdout);
    if output.status.success() { engine.version(&printed) } else { None }
}
