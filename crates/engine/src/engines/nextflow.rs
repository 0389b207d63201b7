//! Nextflow, by its documentation (<https://docs.seqera.io/nextflow/reference/cli/run>,
//! <https://docs.seqera.io/nextflow/reports>): it has not been run here.

use std::{ffi::OsString, path::Path};

use chrono::{DateTime, Local, NaiveDateTime, TimeDelta, Utc};
use stepwes_core::{keys::LogStream, task::Task};

use super::{
    Engine, Order, Results, TaskLog, TaskParser, because, ended, is_not_started, last_line,
    options::{
        self, AFRESH, ELSEWHERE, ENVIRONMENT, FOREIGN, INPUTS, LISTENER, NO_RUN, PLACES, RUNTIME,
        Rule, Rules,
    },
    tasks::TaskTable,
};
use crate::{container::Container, process::Exit, state::Saved};

/// `nextflow run`.
pub(super) struct Nextflow;

/// What Nextflow keeps, below the engine's own folder: intermediate files, the tasks, the log, and
/// what would be in the user's home.
const WORK: &str = "work";
const TRACE: &str = "trace.txt";
const LOG_FILE: &str = "nextflow.log";
const HOME: &str = "nextflow";

/// Its cache of tasks and its history of runs, as paths below the work folder; what `-resume` looks
/// into (<https://docs.seqera.io/nextflow/cache-and-resume>).
const RECORDS: [&str; 2] = ["state/nextflow/", "execution/.nextflow/"];

/// Of the engine's own folder only these are of use to another attempt: a trace that is there already
/// is an error.
const KEPT: [&str; 2] = ["nextflow", "work"];

const TOLD: Rule = Rule::Refused("the service keeps its runs to itself");

/// Options of `nextflow run`. A pipeline's own parameters start with two hyphens, and are
/// workflow_params here.
const RULES: &[(&str, Rule)] = &[
    ("-profile", Rule::Value),
    ("-entry", Rule::Value),
    ("-name", Rule::Value),
    ("-qs", Rule::Value),
    ("-queue-size", Rule::Value),
    ("-cache", Rule::Value),
    ("-stub", Rule::Flag),
    ("-stub-run", Rule::Flag),
    ("-dump-channels", Rule::Flag),
    ("-dump-hashes", Rule::Flag),
    ("-offline", Rule::Flag),
    ("-without-docker", Rule::Flag),
    ("-without-podman", Rule::Flag),
    ("-without-conda", Rule::Flag),
    ("-without-spack", Rule::Flag),
    ("-without-wave", Rule::Flag),
    ("-with-conda", Rule::Value),
    ("-with-spack", Rule::Value),
    // A log is no terminal.
    ("-ansi-log", Rule::Dropped),
    ("-q", Rule::Dropped),
    ("-quiet", Rule::Dropped),
    // As Toil has it: clients send it.
    ("--outdir", Rule::Dropped),
    ("-w", PLACES),
    ("-work-dir", PLACES),
    ("-bucket-dir", PLACES),
    ("-o", PLACES),
    ("-output-dir", PLACES),
    ("-with-trace", PLACES),
    ("-with-report", PLACES),
    ("-with-timeline", PLACES),
    ("-with-dag", PLACES),
    ("-with-cloudcache", PLACES),
    ("-log", PLACES),
    ("-params-file", INPUTS),
    ("-resume", AFRESH),
    ("-c", FOREIGN),
    ("-C", FOREIGN),
    ("-config", FOREIGN),
    ("-lib", FOREIGN),
    ("-plugins", FOREIGN),
    ("-main-script", FOREIGN),
    ("-hub", FOREIGN),
    ("-user", FOREIGN),
    ("-r", FOREIGN),
    ("-revision", FOREIGN),
    ("-latest", FOREIGN),
    ("-d", FOREIGN),
    ("-deep", FOREIGN),
    ("-E", ENVIRONMENT),
    ("-with-docker", RUNTIME),
    ("-with-podman", RUNTIME),
    ("-with-singularity", RUNTIME),
    ("-with-apptainer", RUNTIME),
    ("-with-charliecloud", RUNTIME),
    ("-dockerize", RUNTIME),
    ("-with-weblog", TOLD),
    ("-with-tower", TOLD),
    ("-with-notification", TOLD),
    ("-N", TOLD),
    ("-syslog", TOLD),
    ("-with-wave", ELSEWHERE),
    ("-bg", ELSEWHERE),
    ("-disable-jobs-cancellation", ELSEWHERE),
    ("-remote-debug", LISTENER),
    ("-preview", NO_RUN),
    ("-test", NO_RUN),
    ("-h", NO_RUN),
    ("-help", NO_RUN),
    ("-v", NO_RUN),
    ("-version", NO_RUN),
];
pub(super) const OPTIONS: Rules = Rules::new("nextflow", &[RULES]).with_values_apart();

impl Engine for Nextflow {
    fn name(&self) -> &'static str {
        "nextflow"
    }

    fn workflow_type(&self) -> &'static str {
        "NFL"
    }

    fn installation(&self) -> &'static str {
        "install it with Java as https://docs.seqera.io/nextflow/install says, and put it on the service's PATH; `stepwes engines` shows which engines are found"
    }

    fn command(&self, order: &Order<'_>) -> Result<Vec<String>, String> {
        order.whole(self.name())?;
        let chosen = options::sort(&OPTIONS, order)?;
        let at = |name: &str| order.state.join(name).to_string_lossy().into_owned();
        let mut command: Vec<_> =
            [self.program(), "-log", &at(LOG_FILE), "run"].map(str::to_owned).to_vec();
        command.extend(chosen);
        if order.resumed {
            command.push("-resume".to_owned());
        }
        let runtime = match order.container {
            Container::Docker => Some("-with-docker"),
            Container::Podman => Some("-with-podman"),
            Container::Singularity => Some("-with-singularity"),
            Container::None => None,
        };
        command.extend(runtime.map(str::to_owned));
        command.extend([
            "-ansi-log".to_owned(),
            "false".to_owned(),
            "-params-file".to_owned(),
            Order::INPUTS.to_owned(),
            "-work-dir".to_owned(),
            at(WORK),
            "-with-trace".to_owned(),
            at(TRACE),
            // What is no path could be the name of a project on the network.
            format!("./{}", order.workflow),
        ]);
        Ok(command)
    }

    fn environment(&self, order: &Order<'_>, _executable: &Path) -> Vec<(OsString, OsString)> {
        let mut variables: Vec<(OsString, OsString)> = vec![
            ("NXF_ANSI_LOG".into(), "false".into()),
            ("NXF_DISABLE_CHECK_LATEST".into(), "true".into()),
            ("NXF_CACHE_DIR".into(), order.state.join(HOME).into()),
        ];
        // Where Java is, and where Nextflow's own jars are kept, is the machine's.
        for name in ["JAVA_HOME", "JAVA_CMD", "NXF_HOME", "NXF_VER", "NXF_OFFLINE"] {
            variables.extend(std::env::var_os(name).map(|value| (name.into(), value)));
        }
        variables
    }

    fn saved(&self, order: &Order<'_>) -> Option<Saved> {
        Some(Saved {
            folders: vec![order.state.to_owned(), order.execution.to_owned()],
            left_out,
            is_guard,
        })
    }

    fn results(&self, _order: &Order<'_>) -> Results {
        Results::Execution { own: |path| path.starts_with(".nextflow") || path == WORK }
    }

    fn log(&self) -> LogStream {
        // Without a terminal all that it says goes to its console, which is standard output
        // (`nextflow.util.LoggerHelper`).
        LogStream::Stdout
    }

    fn failure(&self, exit: Exit, log: &str) -> String {
        because(ended(self.name(), exit), cause(log))
    }

    fn is_broken(&self, exit: Exit, log: &str) -> bool {
        // After its banner it may end with a process' exit code.
        is_not_started(exit) && !log.contains("N E X T F L O W")
    }

    fn tasks(&self, order: &Order<'_>) -> (TaskLog, Box<dyn TaskParser>) {
        (TaskLog::File(order.state.join(TRACE)), Box::<TraceTasks>::default())
    }
}

fn left_out(path: &str) -> bool {
    let own = path.strip_prefix("state/").and_then(|own| own.split('/').next());
    own.is_some_and(|name| !KEPT.contains(&name))
}

fn is_guard(path: &str) -> bool {
    RECORDS.iter().any(|records| path.starts_with(records))
}

/// Why Nextflow failed. Of a process it writes `Caused by:`, and the reason in the next line; of
/// itself `ERROR ~ what`, which some versions leave out.
fn cause(log: &str) -> Option<String> {
    let mut lines = log.lines();
    let mut error = None;
    while let Some(line) = lines.next() {
        if line.trim() == "Caused by:" {
            return lines.next().map(|reason| reason.trim().to_owned());
        }
        if let Some(text) = line.strip_prefix("ERROR ~ ") {
            error.get_or_insert(text.trim().to_owned());
        }
    }
    let advice = |line: &&str| !line.trim_start().starts_with("-- Check '");
    error.or_else(|| last_line(&log.lines().filter(advice).collect::<Vec<_>>().join("\n")))
}

/// Makes tasks of the trace file: a line of names, then one for each task that has ended, with tabs
/// between. Which fields there are, and whether they are for people or raw, is the pipeline's
/// choice (`trace.fields`, `trace.raw`).
#[derive(Default)]
pub(super) struct TraceTasks {
    table: TaskTable,
    names: Vec<String>,
}

impl TraceTasks {
    fn task(&mut self, values: &[&str], at: DateTime<Utc>) {
        let field = |name: &str| {
            let at = self.names.iter().position(|known| known == name)?;
            values.get(at).map(|value| value.trim()).filter(|value| !matches!(*value, "" | "-"))
        };
        let Some(id) = field("task_id").or_else(|| field("hash")).map(str::to_owned) else {
            return;
        };
        let name = field("name").or_else(|| field("process")).unwrap_or(&id).to_owned();
        let submit = field("submit").and_then(instant);
        let ended = field("complete")
            .and_then(instant)
            .or_else(|| Some(submit? + span(field("duration")?)?));
        let started =
            field("start").and_then(instant).or_else(|| Some(ended? - span(field("realtime")?)?));
        // A task that was killed has the largest integer there.
        let code =
            field("exit").and_then(|code| code.parse().ok()).filter(|code| *code != i32::MAX);
        let status = field("status").unwrap_or_default().to_owned();
        self.table.start(&id, &name, started.or(submit));
        let failed = matches!(status.as_str(), "FAILED" | "ABORTED").then_some(1);
        let done = matches!(status.as_str(), "COMPLETED" | "CACHED").then_some(0);
        self.table.end(&id, code.or(failed).or(done), ended.unwrap_or(at));
        if !matches!(status.as_str(), "" | "COMPLETED") {
            self.table.note(&id, &status);
        }
    }
}

impl TaskParser for TraceTasks {
    fn line(&mut self, line: &str, at: DateTime<Utc>) {
        let values: Vec<_> = line.split('\t').collect();
        if self.names.is_empty() {
            self.names = values.into_iter().map(|name| name.trim().to_owned()).collect();
        } else if values.len() == self.names.len() {
            self.task(&values, at);
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

/// Reads `2014-10-23 16:33:16.288` in this machine's time, or the milliseconds of a raw trace.
fn instant(text: &str) -> Option<DateTime<Utc>> {
    if let Ok(milliseconds) = text.parse() {
        return DateTime::from_timestamp_millis(milliseconds);
    }
    let written = NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f").ok()?;
    Some(written.and_local_timezone(Local).earliest()?.to_utc())
}

/// Reads `1d 2h 3m 4s`, `4.5s`, `352ms`, or the milliseconds of a raw trace.
fn span(text: &str) -> Option<TimeDelta> {
    if let Ok(milliseconds) = text.parse() {
        return TimeDelta::try_milliseconds(milliseconds);
    }
    let mut total = 0.0;
    for word in text.split_whitespace() {
        let unit = word.find(|c: char| c.is_ascii_alphabetic())?;
        let (number, unit) = word.split_at(unit);
        let milliseconds = match unit {
            "ms" => 1.0,
            "s" => 1000.0,
            "m" => 60_000.0,
            "h" => 3_600_000.0,
            "d" => 86_400_000.0,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * milliseconds;
    }
    let total = std::time::Duration::try_from_secs_f64(total / 1000.0).ok()?;
    TimeDelta::from_std(total).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use super::*;

    fn command(parameters: &Value, container: Container) -> Result<String, String> {
        let none = Map::new();
        let order = Order {
            defaults: &none,
            parameters: parameters.as_object().unwrap_or(&none),
            workflow: "main.nf",
            fragment: None,
            execution: Path::new("/w/execution"),
            outdir: Path::new("/w/outputs"),
            state: Path::new("/w/state"),
            resumed: false,
            container,
            aws: &[],
        };
        Nextflow.command(&order).map(|command| command.join(" "))
    }

    fn read(trace: &str) -> Vec<Task> {
        let mut tasks = TraceTasks::default();
        let at = "2026-01-02T03:04:05Z".parse().expect("a time");
        trace.lines().for_each(|line| tasks.line(line, at));
        tasks.end(at);
        tasks.tasks().to_vec()
    }

    #[test]
    fn the_options_are_documented() {
        options::assert_documented(RULES);
    }

    #[test]
    fn the_command_line_is_that_of_the_documentation() {
        assert_eq!(
            command(&json!({"-profile": "test", "-stub": null}), Container::Docker).as_deref(),
            Ok(
                "nextflow -log /w/state/nextflow.log run -profile test -stub -with-docker -ansi-log false -params-file wes_inputs.json -work-dir /w/state/work -with-trace /w/state/trace.txt ./main.nf"
            )
        );
        let bare = command(&json!({}), Container::None).expect("a command");
        assert!(!bare.contains("-with-docker") && bare.contains("run -ansi-log"));
    }

    #[test]
    fn no_option_leads_out_of_the_run() {
        for option in [
            "-work-dir",
            "-c",
            "-C",
            "-resume",
            "-with-weblog",
            "-with-tower",
            "-plugins",
            "-r",
            "-output-dir",
            "-bg",
            "-params-file",
            "-e.PATH",
            "-process.executor",
            "--input",
        ] {
            let refused = command(&json!({option: "x"}), Container::None).expect_err(option);
            assert!(refused.starts_with("workflow_engine_parameters"), "{refused}");
        }
    }

    #[test]
    fn the_trace_of_the_documentation_is_read() {
        let tasks = read(include_str!("../../tests/logs/nextflow-trace.txt"));
        let seen: Vec<_> = tasks[..4]
            .iter()
            .map(|task| {
                let took = (task.end_time.zip(task.start_time)).map(|(end, start)| end - start);
                (&*task.id, &*task.name, took.map(|t| t.num_milliseconds()), task.exit_code)
            })
            .collect();
        assert_eq!(
            seen,
            [
                ("19", "blast (1)", Some(5_000), Some(0)),
                ("28", "exonerate (1)", Some(71_000), Some(0)),
                ("52", "similarity (1)", Some(352), Some(0)),
                ("53", "similarity (2)", Some(0), Some(127)),
            ]
        );
        // It has not said when this one ended.
        let last = &tasks[4];
        assert_eq!((last.exit_code, last.system_logs.join("")), (Some(1), "ABORTED".to_owned()));
        assert!(last.start_time < last.end_time);
        let local = tasks[0].end_time.expect("an end").with_timezone(&Local);
        assert_eq!(local.format("%H:%M:%S%.3f").to_string(), "16:34:16.288");
        assert_eq!(tasks[3].system_logs, ["FAILED"]);
    }

    #[test]
    fn a_raw_trace_with_other_fields_is_read() {
        let tasks = read(
            "hash\tname\tstatus\texit\tstart\tcomplete\n\
             ab/1\tone\tCACHED\t-\t1414082000000\t1414082005000\n\
             ab/2\tcut\n",
        );
        let [task] = tasks.as_slice() else { panic!("one task") };
        assert_eq!((task.id.as_str(), task.exit_code), ("ab/1", Some(0)));
        assert_eq!(task.start_time.map(|time| time.timestamp()), Some(1_414_082_000));
    }

    #[test]
    fn spans_are_read_as_they_are_written() {
        for (text, milliseconds) in [
            ("1m 30s", Some(90_000)),
            ("4.5s", Some(4_500)),
            ("1d 1h", Some(90_000_000)),
            ("17", Some(17)),
            ("x", None),
        ] {
            assert_eq!(span(text).map(|span| span.num_milliseconds()), milliseconds, "{text}");
        }
    }

    #[test]
    fn the_reason_is_the_process_s() {
        let log = include_str!("../../tests/logs/nextflow-failing.log");
        let told = Nextflow.failure(Exit { code: 1, signal: None }, log);
        let not_found = Exit { code: 127, signal: None };
        assert!(Nextflow.is_broken(not_found, "") && !Nextflow.is_broken(not_found, log));
        assert_eq!(
            told,
            "nextflow exited with code 1: Process `bad` terminated with an error exit status (7)"
        );
        assert_eq!(cause("ERROR ~ No such variable: x\n").as_deref(), Some("No such variable: x"));
        let bare = "No such variable: x\n\n -- Check '.nextflow.log' file for details\n";
        assert_eq!(cause(bare).as_deref(), Some("No such variable: x"));
    }
}
