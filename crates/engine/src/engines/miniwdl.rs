//! miniwdl, for WDL (<https://miniwdl.readthedocs.io/en/latest/runner_reference.html>).

use std::{
    collections::HashMap,
    ffi::OsString,
    io::Read as _,
    path::{Path, PathBuf},
};

use chrono::{DateTime, Local, NaiveDateTime, Utc};
use serde_json::{Map, Value};
use stepwes_core::task::{EngineOutputs, Task};

use super::{
    Engine, Order, Results, TaskLog, TaskParser, because, ended, last_line,
    options::{self, FOREIGN, INPUTS, NO_RUN, PLACES, Rule, Rules},
    python_is_broken,
    tasks::{MAX_COMMAND, TaskTable},
};
use crate::{container::Container, outputs::Outputs, process::Exit, reachable, state::Saved, wdl};

/// `miniwdl run`.
pub(super) struct Miniwdl;

/// The folder of the run, below the engine's own, and that of its outputs in it. A run that goes on
/// has the folders of those before it beside its own.
const RUN: &str = "miniwdl";
const OUTPUTS: &str = "out";

/// The call cache, below the engine's own folder: which calls have been done, and where their
/// outputs are.
const CALLS: &str = "calls";
const CALLS_BELOW: &str = "state/calls/";

/// The most tasks whose commands are waited for.
const MAX_WAITING: usize = 10_000;

/// The shell that runs a task's command.
const SHELL: &str = "/bin/bash";

/// miniwdl's options (`miniwdl run --help`, 1.16).
const RULES: &[(&str, Rule)] = &[
    ("--task", Rule::Value),
    ("--empty", Rule::Value),
    ("--none", Rule::Value),
    ("--env", Rule::Value),
    ("--runtime-defaults", Rule::Value),
    ("--copy-input-files", Rule::Flag),
    ("--copy-input-files-for", Rule::Value),
    ("--as-me", Rule::Flag),
    ("--no-cache", Rule::Flag),
    ("--no-outside-imports", Rule::Flag),
    ("--no-quant-check", Rule::Flag),
    ("--debug", Rule::Flag),
    // What it says: the service reads its tasks there, and always wants the tasks' standard error.
    ("--verbose", Rule::Dropped),
    ("-v", Rule::Dropped),
    ("--no-color", Rule::Dropped),
    ("--log-json", Rule::Dropped),
    ("--error-json", Rule::Dropped),
    // As Toil has it: clients send it.
    ("--outdir", Rule::Dropped),
    ("--dir", PLACES),
    ("-d", PLACES),
    ("-o", PLACES),
    ("--input", INPUTS),
    ("-i", INPUTS),
    ("--json", NO_RUN),
    ("-j", NO_RUN),
    ("--help", NO_RUN),
    ("-h", NO_RUN),
    ("--cfg", FOREIGN),
    ("--path", FOREIGN),
    ("-p", FOREIGN),
];
pub(super) const OPTIONS: Rules = Rules::new("miniwdl", &[RULES]);

impl Engine for Miniwdl {
    fn name(&self) -> &'static str {
        "miniwdl"
    }

    fn workflow_type(&self) -> &'static str {
        "WDL"
    }

    fn installation(&self) -> &'static str {
        "run `stepwes engines install miniwdl`, or `pip install miniwdl miniwdl-backend-bare` and put it on the service's PATH (the second is for tasks without containers); `stepwes engines` shows which engines are found"
    }

    fn command(&self, order: &Order<'_>) -> Result<Vec<String>, String> {
        order.whole(self.name())?;
        let chosen = options::sort(&OPTIONS, order)?;
        let mut command = vec![self.program().to_owned(), "run".to_owned()];
        command.extend(chosen);
        command.extend([
            "--verbose".to_owned(),
            "--no-color".to_owned(),
            "--error-json".to_owned(),
            "--dir".to_owned(),
            // With a dot at its end it is the folder itself, not one with the time as its name in it.
            format!("{}/.", run_folder(order).display()),
            "--input".to_owned(),
            Order::INPUTS.to_owned(),
            // A relative path with a colon could be a URL.
            order.execution.join(order.workflow).to_string_lossy().into_owned(),
        ]);
        Ok(command)
    }

    fn environment(&self, order: &Order<'_>, _executable: &Path) -> Vec<(OsString, OsString)> {
        let backend = match order.container {
            Container::Docker => "docker_swarm",
            Container::Podman => "podman",
            Container::Singularity => "singularity",
            Container::None => "bare",
        };
        // Within a run that begins, calls with the same inputs are calls of their own.
        let get = if order.resumed { "true" } else { "false" };
        vec![
            ("MINIWDL__SCHEDULER__CONTAINER_BACKEND".into(), backend.into()),
            // Otherwise it wants sudo for podman.
            ("MINIWDL__PODMAN__EXE".into(), r#"["podman"]"#.into()),
            ("MINIWDL__CALL_CACHE__DIR".into(), order.state.join(CALLS).into()),
            ("MINIWDL__CALL_CACHE__GET".into(), get.into()),
            ("MINIWDL__CALL_CACHE__PUT".into(), "true".into()),
            // A cache would be shared by all runs.
            ("MINIWDL__DOWNLOAD_CACHE__GET".into(), "false".into()),
            ("MINIWDL__DOWNLOAD_CACHE__PUT".into(), "false".into()),
        ]
    }

    fn results(&self, order: &Order<'_>) -> Results {
        Results::Folder(run_folder(order).join(OUTPUTS))
    }

    fn failure(&self, exit: Exit, stderr: &str) -> String {
        because(ended(self.name(), exit), cause(stderr))
    }

    fn is_broken(&self, exit: Exit, stderr: &str) -> bool {
        // It ends with the exit code of the task that failed: 127 is most likely a tool's that is
        // not there.
        let has_begun = stderr.lines().any(|line| record(line).is_some());
        // A backend that no plug-in brings.
        let lacks_backend = stderr.contains(r#" ERROR 'bare' :: error: "KeyError""#);
        !has_begun && python_is_broken(exit, stderr) || lacks_backend
    }

    fn outputs(
        &self,
        stdout: &[u8],
        folder: &Path,
        uploaded: &Outputs,
    ) -> Result<EngineOutputs, String> {
        wdl::outputs(self.name(), stdout, folder, uploaded)
    }

    fn tasks(&self, order: &Order<'_>) -> (TaskLog, Box<dyn TaskParser>) {
        (TaskLog::Stderr, Box::new(MiniwdlTasks::of(run_folder(order))))
    }

    fn saved(&self, order: &Order<'_>) -> Option<Saved> {
        Some(Saved {
            folders: vec![order.state.to_owned()],
            left_out: |_| false,
            is_guard: |path| path.starts_with(CALLS_BELOW),
        })
    }
}

/// The first folder for a run that there is not yet: miniwdl makes it when it starts.
fn run_folder(order: &Order<'_>) -> PathBuf {
    let mut number = 1;
    loop {
        let name = if number == 1 { RUN.to_owned() } else { format!("{RUN}-{number}") };
        let folder = order.state.join(name);
        if !folder.exists() {
            return folder;
        }
        number += 1;
    }
}

/// One record of miniwdl's log.
struct Record<'a> {
    at: Option<DateTime<Utc>>,
    source: &'a str,
    level: &'a str,
    message: &'a str,
    fields: Map<String, Value>,
}

/// Reads `date time source LEVEL message :: name: value, name: value`, the values being JSON.
fn record(line: &str) -> Option<Record<'_>> {
    let (date, rest) = line.split_once(' ')?;
    let (time, rest) = rest.split_once(' ')?;
    let (source, rest) = rest.split_once(' ')?;
    let (level, message) = rest.split_once(' ').unwrap_or((rest, ""));
    let is_level = !level.is_empty() && level.bytes().all(|byte| byte.is_ascii_uppercase());
    if date.len() != "2026-01-31".len() || !is_level {
        return None;
    }
    let (message, fields) = match message.split_once(" :: ") {
        Some((message, fields)) => (message, read_fields(fields)),
        None => (message, Map::new()),
    };
    Some(Record { at: instant(date, time), source, level, message, fields })
}

/// The times are this machine's.
fn instant(date: &str, time: &str) -> Option<DateTime<Utc>> {
    let written = NaiveDateTime::parse_from_str(&format!("{date} {time}"), "%Y-%m-%d %H:%M:%S%.f");
    Some(written.ok()?.and_local_timezone(Local).earliest()?.to_utc())
}

fn read_fields(mut text: &str) -> Map<String, Value> {
    let mut fields = Map::new();
    while let Some((name, rest)) = text.split_once(": ") {
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
        let Some(Ok(value)) = values.next() else { break };
        fields.insert(name.to_owned(), value);
        text = rest[values.byte_offset()..].trim_start_matches(", ");
    }
    fields
}

/// A task's id, from the source of its records: `wdl.w:FLOW.w:call-SUB.t:call-TASK` is
/// `call-SUB.call-TASK`, and a task that is run alone has its name.
fn task_id(source: &str) -> Option<String> {
    let calls: Vec<_> = source.strip_prefix("wdl.")?.split('.').collect();
    let (last, above) = calls.split_last()?;
    let task = last.strip_prefix("t:")?;
    let above = above.iter().skip(1).filter_map(|call| call.strip_prefix("w:"));
    Some(above.chain([task]).collect::<Vec<_>>().join("."))
}

/// Why miniwdl failed: what its task says, else what it says itself.
fn cause(stderr: &str) -> Option<String> {
    let mut of_task = None;
    let mut own = None;
    let mut in_source = None;
    for line in stderr.lines() {
        if let Some(record) = record(line) {
            let text = |name| record.fields.get(name).and_then(Value::as_str);
            let is_error = matches!(record.level, "ERROR" | "CRITICAL");
            let is_end = record.message.ends_with(" failed") && task_id(record.source).is_some();
            // What was stopped since another task failed says nothing of the reason.
            if is_error && is_end && text("error") != Some("Terminated") {
                let what = match record.fields.get("exit_status") {
                    Some(code) => format!("exit status {code}"),
                    None => text("message").or(text("error")).unwrap_or_default().to_owned(),
                };
                of_task.get_or_insert(format!("{}: {what}", record.message));
            } else if is_error && record.source == "miniwdl-run" {
                own = Some(record.message.to_owned());
            }
        } else if line.starts_with('(') && line.contains(" Ln ") {
            in_source = Some(line.to_owned());
        }
    }
    of_task.or(own).or(in_source).or_else(|| last_line(stderr))
}

/// Makes tasks of miniwdl's log.
#[derive(Default)]
pub(super) struct MiniwdlTasks {
    table: TaskTable,
    /// The run's folder.
    run: PathBuf,
    /// The folders, below it, of tasks whose commands have not been written yet.
    folders: HashMap<String, PathBuf>,
}

impl MiniwdlTasks {
    /// Of the run whose folder this is.
    pub(super) fn of(run: PathBuf) -> Self {
        Self { run, ..Self::default() }
    }

    fn end_task(&mut self, id: &str, record: &Record<'_>, at: DateTime<Utc>) {
        let text = |name| record.fields.get(name).and_then(Value::as_str);
        let code = match record.message {
            "done" => Some(0),
            _ => record.fields.get("exit_status").and_then(Value::as_i64),
        };
        self.table.end(id, code.and_then(|code| i32::try_from(code).ok()), at);
        if let Some(error) = text("error") {
            let more = text("message").map(|message| format!(": {message}")).unwrap_or_default();
            self.table.note(id, &format!("{error}{more}"));
        }
    }

    fn read_command(&mut self, id: &str) {
        let Some(folder) = self.folders.get(id) else { return };
        if let Some(command) = read_below(&self.run, &folder.join("command")) {
            let words = [SHELL, "-c", command.trim()].map(str::to_owned);
            self.table.command(id, words.to_vec());
            self.folders.remove(id);
        }
    }
}

impl TaskParser for MiniwdlTasks {
    fn line(&mut self, line: &str, at: DateTime<Utc>) {
        let Some(record) = record(line) else { return };
        let Some(id) = task_id(record.source) else { return };
        let at = record.at.unwrap_or(at);
        if record.message == "task setup" {
            let name = record.fields.get("name").and_then(Value::as_str).unwrap_or(&id);
            self.table.start(&id, name, Some(at));
            if let Some(Value::String(folder)) = record.fields.get("dir")
                && self.folders.len() < MAX_WAITING
            {
                self.folders.insert(id, folder.into());
            }
            return;
        }
        self.read_command(&id);
        if record.message == "done" || record.message.ends_with(" failed") {
            self.folders.remove(&id);
            self.end_task(&id, &record, at);
        }
    }

    fn end(&mut self, at: DateTime<Utc>) {
        self.table.end_all(at);
    }

    fn tasks(&self) -> &[Task] {
        self.table.tasks()
    }

    fn revision(&self) -> u64 {
        self.table.revision()
    }
}

/// Reads a text file below `root`, unless it is longer than a command line that is kept. A task may
/// have put a link in the place of a folder above it, too.
fn read_below(root: &Path, path: &Path) -> Option<String> {
    let file = reachable::open_below(root, path).ok()?;
    if file.metadata().ok()?.len() > MAX_COMMAND as u64 {
        return None;
    }
    let mut text = String::new();
    file.take(MAX_COMMAND as u64).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const FAILED: &str = include_str!("../../tests/logs/miniwdl-failing.log");
    const NESTED: &str = include_str!("../../tests/logs/miniwdl-nested.log");

    fn read(log: &str) -> MiniwdlTasks {
        let mut tasks = MiniwdlTasks::default();
        let at = "2026-01-02T03:04:05Z".parse().expect("a time");
        log.lines().for_each(|line| tasks.line(line, at));
        tasks.end(at);
        tasks
    }

    #[test]
    fn the_options_are_documented() {
        options::assert_documented(RULES);
    }

    #[test]
    fn tasks_of_subworkflows_and_scatters_are_told_apart() {
        let tasks = read(NESTED);
        let seen: Vec<_> = tasks.tasks().iter().map(|t| (&*t.id, &*t.name, t.exit_code)).collect();
        assert_eq!(
            seen,
            [
                ("call-slow", "slow", None),
                ("call-inner-0-a.call-say", "say", Some(0)),
                ("call-inner-1-b.call-say", "say", Some(0)),
            ]
        );
        assert_eq!(tasks.tasks()[0].system_logs, ["Terminated"]);
        assert!(tasks.tasks().iter().all(|task| task.start_time < task.end_time));
    }

    #[test]
    fn times_are_this_machine_s() {
        let at = instant("2026-11-25", "15:52:32.914").expect("a time");
        assert_eq!(at.with_timezone(&Local).format("%H:%M:%S%.3f").to_string(), "15:52:32.914");
    }

    #[test]
    fn a_failing_task_has_its_exit_code_and_the_run_its_reason() {
        let tasks = read(FAILED);
        assert_eq!(tasks.tasks()[0].exit_code, Some(7));
        assert_eq!(tasks.tasks()[0].system_logs, ["CommandFailed"]);
        assert_eq!(
            cause(FAILED).as_deref(),
            Some("task bad (f.wdl Ln 3 Col 1) failed: exit status 7")
        );
    }

    #[test]
    fn the_reason_of_what_never_ran_is_found() {
        let broken = "2026-11-25 15:52:33.426 miniwdl-run WARNING running as root\n\
                      (b.wdl Ln 2 Col 14) Unexpected token\nExpected one of:\n\t* CNAME\n\n   ^\n";
        assert_eq!(cause(broken).as_deref(), Some("(b.wdl Ln 2 Col 14) Unexpected token"));
        let missing = "\nrequired inputs:\n  Int n\n\nmissing required inputs for w: n\n\n";
        assert_eq!(cause(missing).as_deref(), Some("missing required inputs for w: n"));
        let backend =
            "2026-11-25 15:52:35.214 miniwdl-run ERROR 'bare' :: error: \"KeyError\", dir: \"/x\"";
        let exit = Exit { code: 2, signal: None };
        assert!(Miniwdl.is_broken(exit, backend) && !Miniwdl.is_broken(exit, broken));
        let not_found = Exit { code: 127, signal: None };
        assert!(Miniwdl.is_broken(not_found, "env: python3: not found\n"));
        assert!(!Miniwdl.is_broken(not_found, FAILED));
    }

    #[test]
    fn a_tool_s_words_are_no_records() {
        for line in ["", "hello", "a b c d e", "2026-11-25 15:52:33.426", "(x Ln 1 Col 1) done"] {
            assert!(record(line).is_none(), "{line}");
        }
        let said = "2026-11-25 15:52:32.913 wdl.w:f.t:call-bad.stderr VERBOSE done";
        assert_eq!(task_id(record(said).expect("a record").source), None);
    }

    #[test]
    fn a_command_is_read_where_the_run_is_and_nowhere_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("real");
        let run = root.join("run");
        std::fs::create_dir_all(run.join("call-a")).expect("made");
        std::fs::write(root.join("secret"), "secret").expect("written");
        std::fs::write(run.join("call-a/command"), "  echo hi\n").expect("written");
        symlink(root.join("secret"), run.join("call-a/link")).expect("linked");
        symlink(&root, run.join("up")).expect("linked");
        assert_eq!(read_below(&run, &run.join("call-a/command")).as_deref(), Some("  echo hi\n"));
        for path in ["call-a/link", "up/secret", "call-a", "call-a/none"] {
            assert_eq!(read_below(&run, &run.join(path)), None, "{path}");
        }
        let mut tasks = MiniwdlTasks { run: run.clone(), ..MiniwdlTasks::default() };
        let at = "2026-01-02T03:04:05Z".parse().expect("a time");
        let folder = run.join("call-a");
        let start = format!(
            "2026-11-25 15:52:32.900 wdl.t:a NOTICE task setup :: name: \"a\", dir: {folder:?}"
        );
        tasks.line(&start, at);
        tasks.line("2026-11-25 15:52:32.913 wdl.t:a NOTICE done", at);
        assert_eq!(tasks.tasks()[0].cmd, [SHELL, "-c", "echo hi"]);
    }
}
