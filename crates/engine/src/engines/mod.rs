//! Workflow engines behind one trait, one file an engine and workflow type.

mod cwltool;
mod cwltool_log;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod miniwdl;
mod nextflow;
mod options;
mod snakemake;
mod tasks;
mod toil;
mod toil_bus;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use stepwes_core::{
    attachment::INPUTS_FILE,
    keys::LogStream,
    task::{EngineOutputs, Task},
};

use crate::{container::Container, outputs::Outputs, process::Exit, state::Saved};

/// Every engine that a task can run; `stepwes_core::engines::KNOWN` says it to the service.
const ENGINES: [&dyn Engine; 7] = [
    &cwltool::Cwltool,
    &toil::Toil::Cwl,
    &miniwdl::Miniwdl,
    &toil::Toil::Wdl,
    &toil::Toil::Python,
    &snakemake::Snakemake,
    &nextflow::Nextflow,
];

/// What a shell, or `env`, exits with when it cannot start a program.
const NOT_EXECUTABLE: i32 = 126;
const NOT_FOUND: i32 = 127;

/// The longest cause of a failure, in characters.
const MAX_CAUSE: usize = 500;

/// How many lines after an error's first are taken for a part of it.
const MAX_ERROR_LINES: usize = 6;

/// What an engine is asked to run.
#[derive(Debug)]
pub(crate) struct Order<'a> {
    /// The operator's `workflow_engine_parameters`.
    pub(crate) defaults: &'a Map<String, Value>,
    /// The request's, which win.
    pub(crate) parameters: &'a Map<String, Value>,
    /// The workflow's path below the execution folder, where the engine starts.
    pub(crate) workflow: &'a str,
    /// The part of the workflow that is meant.
    pub(crate) fragment: Option<&'a str>,
    /// The execution folder, absolute.
    pub(crate) execution: &'a Path,
    /// Where the outputs go, absolute.
    pub(crate) outdir: &'a Path,
    /// A folder for what the engine keeps while it runs, absolute.
    pub(crate) state: &'a Path,
    /// Whether the engine goes on where it was: what it has saved is back in its place.
    pub(crate) resumed: bool,
    /// How containers are run.
    pub(crate) container: Container,
    /// The variables of the engine's environment by which AWS's SDKs find credentials that only
    /// read. They lead to the task's loopback interface, which containers do not share.
    pub(crate) aws: &'a [String],
}

impl Order<'_> {
    /// The file of `workflow_params`, below the execution folder.
    pub(crate) const INPUTS: &'static str = INPUTS_FILE;

    /// The workflow as an argument that no engine takes for an option.
    fn workflow_argument(&self) -> String {
        if self.workflow.starts_with('-') {
            format!("./{}", self.workflow)
        } else {
            self.workflow.to_owned()
        }
    }

    /// Refuses a part of a workflow, for engines that know none.
    fn whole(&self, engine: &str) -> Result<(), String> {
        match self.fragment {
            None => Ok(()),
            Some(fragment) => {
                Err(format!("workflow_url: {engine} runs whole workflows; leave #{fragment} out"))
            }
        }
    }
}

/// Where an engine leaves its outputs.
#[derive(Debug)]
pub(crate) enum Results {
    /// In a folder of their own; a folder that is not there holds none.
    Folder(PathBuf),
    /// Anywhere in the execution folder: what was not staged, save what is the engine's own.
    Execution {
        /// Whether a path below the folder is the engine's own, with all below it.
        own: fn(&str) -> bool,
    },
}

/// Whether a path is that of Python's byte code, which no workflow in Python means to make.
fn is_byte_code(path: &str) -> bool {
    path.rsplit('/').next() == Some("__pycache__")
}

/// Where an engine tells what it does.
#[derive(Debug)]
pub(crate) enum TaskLog {
    /// On its standard error.
    Stderr,
    /// In a file, which need not be there yet.
    File(PathBuf),
    /// In the first file that there is in a folder, whose name ends so.
    First {
        /// The folder, which need not be there yet.
        folder: PathBuf,
        /// The end of the name.
        suffix: &'static str,
    },
}

/// What the task has to know of a workflow engine.
pub(crate) trait Engine: Sync {
    /// Its name in requests.
    fn name(&self) -> &'static str;

    /// The workflow type that it runs.
    fn workflow_type(&self) -> &'static str;

    /// The program to look for on `PATH`.
    fn program(&self) -> &'static str {
        self.name()
    }

    /// How a person installs it: completes "… is not installed: ".
    fn installation(&self) -> &'static str;

    /// What is started, when it is not the program itself that was found.
    ///
    /// # Errors
    /// A sentence for whoever installed it.
    fn executable(&self, found: &Path) -> Result<PathBuf, String> {
        Ok(found.to_owned())
    }

    /// The command line, its first word the program.
    ///
    /// # Errors
    /// A sentence for whoever made the request, such as an option that is not allowed.
    fn command(&self, order: &Order<'_>) -> Result<Vec<String>, String>;

    /// Variables beside those that every engine gets; `executable` is what is started.
    fn environment(&self, _order: &Order<'_>, _executable: &Path) -> Vec<(OsString, OsString)> {
        Vec::new()
    }

    /// Where it leaves its outputs.
    fn results(&self, order: &Order<'_>) -> Results {
        Results::Folder(order.outdir.to_owned())
    }

    /// What is saved of it while it is at work, for those that can go on from it
    /// (`stepwes_core::engines::resumes`).
    fn saved(&self, _order: &Order<'_>) -> Option<Saved> {
        None
    }

    /// Whether what was saved, which is back in its place, is something to go on from.
    fn can_go_on(&self, _order: &Order<'_>) -> bool {
        true
    }

    /// Whether an exit code means that the workflow is complete.
    fn succeeded(&self, exit: Exit) -> bool {
        exit.code == 0
    }

    /// Where it says what goes wrong.
    fn log(&self) -> LogStream {
        LogStream::Stderr
    }

    /// Why it failed, in one sentence; `log` is the end of its [`Self::log`].
    fn failure(&self, exit: Exit, log: &str) -> String;

    /// Whether an engine that failed is not installed as it should be, rather than given a bad
    /// workflow; `log` is the end of its [`Self::log`].
    fn is_broken(&self, exit: Exit, log: &str) -> bool;

    /// The output object, from what it wrote to standard output and what was uploaded of `folder`,
    /// where its results are.
    ///
    /// # Errors
    /// A sentence for whoever wrote the workflow, such as an output that was never made.
    fn outputs(
        &self,
        _stdout: &[u8],
        _folder: &Path,
        _uploaded: &Outputs,
    ) -> Result<EngineOutputs, String> {
        Ok(EngineOutputs::Listing)
    }

    /// Where its tasks are told, and a reader of them.
    fn tasks(&self, order: &Order<'_>) -> (TaskLog, Box<dyn TaskParser>);
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

/// The engine of that name for a workflow type.
pub(crate) fn find(name: &str, workflow_type: &str) -> Option<&'static dyn Engine> {
    ENGINES.into_iter().find(|engine| {
        engine.name() == name && engine.workflow_type().eq_ignore_ascii_case(workflow_type.trim())
    })
}

/// All engines with their types, for a message.
pub(crate) fn names() -> String {
    ENGINES.map(|engine| format!("{} ({})", engine.name(), engine.workflow_type())).join(", ")
}

/// How an engine ended, in words.
fn ended(name: &str, exit: Exit) -> String {
    match exit {
        Exit { signal: Some(9), .. } => {
            format!("{name} was killed (signal 9), most likely because it ran out of memory")
        }
        Exit { signal: Some(signal), .. } => format!("{name} was ended by signal {signal}"),
        Exit { code, .. } => format!("{name} exited with code {code}"),
    }
}

/// How it ended, and why when that is known.
fn because(what: String, cause: Option<String>) -> String {
    match cause {
        Some(cause) => format!("{what}: {}", shortened(cause.trim(), MAX_CAUSE)),
        None => what,
    }
}

/// A text of so many characters at most.
fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The last line of a log that says something.
fn last_line(log: &str) -> Option<String> {
    log.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
}

/// Whether a program in Python could not be started, or lacks a module of its own.
fn python_is_broken(exit: Exit, stderr: &str) -> bool {
    // What an engine has said before, it has said for itself: an import that failed after that is
    // the workflow's.
    let has_not_begun = stderr.trim_start().starts_with("Traceback (most recent call last)");
    is_not_started(exit) || has_not_begun && stderr.contains("ModuleNotFoundError: ")
}

fn is_not_started(exit: Exit) -> bool {
    exit.signal.is_none() && matches!(exit.code, NOT_EXECUTABLE | NOT_FOUND)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use stepwes_core::engines::KNOWN;

    use super::*;

    /// An order of a run that gives no options.
    fn order(none: &Map<String, Value>) -> Order<'_> {
        Order {
            defaults: none,
            parameters: none,
            workflow: "w",
            fragment: None,
            execution: Path::new("/w/execution"),
            outdir: Path::new("/w/outputs"),
            state: Path::new("/w/state"),
            resumed: false,
            container: Container::None,
            aws: &[],
        }
    }

    #[test]
    fn the_service_knows_which_engines_can_go_on_and_these_do() {
        let none = Map::new();
        let mut order = Order { container: Container::Docker, ..order(&none) };
        for (known, engine) in KNOWN.iter().zip(ENGINES) {
            assert_eq!(engine.saved(&order).is_some(), known.resumes, "{}", known.program);
            order.resumed = false;
            let of = |order: &Order<'_>| {
                let command = engine.command(order).expect("a command");
                (command, engine.environment(order, Path::new("/bin/x")))
            };
            let before = of(&order);
            order.resumed = true;
            assert_eq!(of(&order) != before, known.resumes, "{}", known.program);
        }
    }

    #[test]
    fn records_are_saved_and_locks_are_not() {
        let of = |name: &str, kind: &str| {
            let none = Map::new();
            let order = order(&none);
            find(name, kind).and_then(|engine| engine.saved(&order)).expect("it is saved")
        };
        for (name, kind, guard, saved, left_out) in [
            (
                "toil",
                "CWL",
                "state/jobstore/jobs/x/job",
                "state/jobstore/files/a",
                "state/messages",
            ),
            (
                "toil",
                "WDL",
                "state/jobstores-a/shared/x",
                "state/jobstores-a/stats",
                "state/toilwf-1",
            ),
            ("toil", "PY", "state/jobstore/shared/x", "execution/made", "execution/__pycache__"),
            ("miniwdl", "WDL", "state/calls/t/d/i.json", "state/miniwdl/call-a/work/x", ""),
            (
                "snakemake",
                "SMK",
                "execution/.snakemake/incomplete/YQ==",
                "execution/results/a",
                "execution/.snakemake/locks",
            ),
            ("nextflow", "NFL", "state/nextflow/cache/db", "state/work/ab/cd/x", "state/trace.txt"),
        ] {
            let Saved { left_out: is_left_out, is_guard, .. } = of(name, kind);
            assert!(is_guard(guard) && !is_left_out(guard), "{name}: {guard}");
            assert!(!is_guard(saved) && !is_left_out(saved), "{name}: {saved}");
            assert_eq!(is_left_out(left_out), !left_out.is_empty(), "{name}: {left_out}");
        }
    }

    #[test]
    fn the_service_knows_the_engines_that_a_task_can_run_and_no_others() {
        let known: Vec<_> = KNOWN
            .iter()
            .map(|engine| (engine.name, engine.workflow_type, engine.program))
            .collect();
        let here = ENGINES.map(|engine| (engine.name(), engine.workflow_type(), engine.program()));
        assert_eq!(known, here);
        let named: BTreeSet<_> = here.iter().map(|(name, kind, _)| (name, kind)).collect();
        assert_eq!(named.len(), ENGINES.len());
        assert!(find("toil", " wdl ").is_some_and(|engine| engine.program() == "toil-wdl-runner"));
        assert!(find("miniwdl", "CWL").is_none());
    }
}
