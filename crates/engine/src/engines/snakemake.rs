//! Snakemake (<https://snakemake.readthedocs.io/en/stable/executing/cli.html>).

use std::{ffi::OsString, path::Path};

use chrono::{DateTime, Local, NaiveDateTime, Utc};
use stepwes_core::task::Task;

use super::{
    Engine, MAX_ERROR_LINES, Order, Results, TaskLog, TaskParser, because, ended, is_byte_code,
    last_line,
    options::{
        self, AFRESH, ELSEWHERE, ENVIRONMENT, FOREIGN, INPUTS, LISTENER, NO_RUN, PLACES, RUNTIME,
        Rule, Rules,
    },
    python_is_broken,
    tasks::{MAX_COMMAND, TaskTable},
};
use crate::{container::Container, process::Exit, state::Saved};

/// `snakemake`.
pub(super) struct Snakemake;

/// What Snakemake keeps of its own in the folder that it works in.
const OWN: &str = ".snakemake";

/// The file that Snakemake puts into output folders.
const TIMESTAMP: &str = ".snakemake_timestamp";
/// The same, as a path below the work folder, and what of it another attempt goes on from: which
/// files are done, by which inputs and rules, and which are only begun. Its locks would keep the next
/// one out, and the rest is made again.
const OWN_BELOW: &str = "execution/.snakemake/";
const RECORDS: [&str; 2] = ["metadata", "incomplete"];

/// What is before the exit code in the line that tells the one of a rule's command.
const EXIT_STATUS: &str = "returned non-zero exit status ";

const TARGETS: Rule = Rule::Refused("workflow_url names the workflow, and a target behind #");

/// Snakemake's options (`snakemake --help`, 9), with their names in 7 and 8.
const RULES: &[(&str, Rule)] = &[
    // What is run, and how much at once.
    ("--cores", Rule::Value),
    ("-c", Rule::Value),
    ("--jobs", Rule::Value),
    ("-j", Rule::Value),
    ("--local-cores", Rule::Value),
    ("--resources", Rule::Values),
    ("--res", Rule::Values),
    ("--set-threads", Rule::Values),
    ("--max-threads", Rule::Value),
    ("--set-resources", Rule::Values),
    ("--set-scatter", Rule::Values),
    ("--set-resource-scopes", Rule::Values),
    ("--default-resources", Rule::Values),
    ("--default-res", Rule::Values),
    ("--config", Rule::Values),
    ("-C", Rule::Values),
    ("--replace-workflow-config", Rule::Flag),
    ("--keep-going", Rule::Flag),
    ("-k", Rule::Flag),
    ("--retries", Rule::Value),
    ("--restart-times", Rule::Value),
    ("-T", Rule::Value),
    ("--rerun-triggers", Rule::Values),
    ("--force", Rule::Flag),
    ("-f", Rule::Flag),
    ("--forceall", Rule::Flag),
    ("-F", Rule::Flag),
    ("--forcerun", Rule::Values),
    ("-R", Rule::Values),
    ("--prioritize", Rule::Values),
    ("-P", Rule::Values),
    ("--batch", Rule::Value),
    ("--until", Rule::Values),
    ("-U", Rule::Values),
    ("--omit-from", Rule::Values),
    ("-O", Rule::Values),
    ("--consider-ancient", Rule::Values),
    ("--allowed-rules", Rule::Values),
    ("--strict-dag-evaluation", Rule::Values),
    ("--scheduler", Rule::Value),
    ("--scheduler-greediness", Rule::Value),
    ("--greediness", Rule::Value),
    ("--no-hooks", Rule::Flag),
    ("--force-use-threads", Rule::Flag),
    ("--allow-ambiguity", Rule::Flag),
    ("-a", Rule::Flag),
    ("--latency-wait", Rule::Value),
    ("--output-wait", Rule::Value),
    ("-w", Rule::Value),
    ("--max-jobs-per-second", Rule::Value),
    ("--max-status-checks-per-second", Rule::Value),
    ("--nolock", Rule::Flag),
    // What is kept.
    ("--notemp", Rule::Flag),
    ("--no-temp", Rule::Flag),
    ("--nt", Rule::Flag),
    ("--all-temp", Rule::Flag),
    ("--keep-incomplete", Rule::Flag),
    ("--benchmark-extended", Rule::Flag),
    // Software.
    ("--use-conda", Rule::Flag),
    ("--conda-frontend", Rule::Value),
    ("--software-deployment-method", Rule::Values),
    ("--sdm", Rule::Values),
    // What it says: the tasks are read from its log.
    ("--verbose", Rule::Flag),
    ("--debug-dag", Rule::Flag),
    ("--show-failed-logs", Rule::Flag),
    ("--printshellcmds", Rule::Dropped),
    ("-p", Rule::Dropped),
    ("--quiet", Rule::Dropped),
    ("-q", Rule::Dropped),
    ("--nocolor", Rule::Dropped),
    // As Toil has it: clients send it.
    ("--outdir", Rule::Dropped),
    // What the service decides.
    ("--snakefile", TARGETS),
    ("-s", TARGETS),
    ("--configfile", INPUTS),
    ("--configfiles", INPUTS),
    ("--directory", PLACES),
    ("-d", PLACES),
    ("--shadow-prefix", PLACES),
    ("--cache", PLACES),
    ("--archive", PLACES),
    ("--conda-prefix", PLACES),
    ("--apptainer-prefix", PLACES),
    ("--singularity-prefix", PLACES),
    ("--runtime-source-cache-path", PLACES),
    ("--persistence-backend-db-url", PLACES),
    ("--default-storage-provider", PLACES),
    ("--default-storage-prefix", PLACES),
    ("--local-storage-prefix", PLACES),
    ("--stats", PLACES),
    ("--profile", FOREIGN),
    ("--workflow-profile", FOREIGN),
    ("--logger", FOREIGN),
    ("--log-handler-script", FOREIGN),
    ("--jobscript", FOREIGN),
    ("--js", FOREIGN),
    ("--precommand", FOREIGN),
    ("--wrapper-prefix", FOREIGN),
    ("--conda-base-path", FOREIGN),
    ("--use-envmodules", FOREIGN),
    ("--reporter", FOREIGN),
    ("--envvars", ENVIRONMENT),
    ("--use-apptainer", RUNTIME),
    ("--use-singularity", RUNTIME),
    ("--apptainer-args", RUNTIME),
    ("--singularity-args", RUNTIME),
    ("--container-image", RUNTIME),
    ("--executor", ELSEWHERE),
    ("-e", ELSEWHERE),
    ("--cluster", ELSEWHERE),
    ("--cluster-config", ELSEWHERE),
    ("--drmaa", ELSEWHERE),
    ("--slurm", ELSEWHERE),
    ("--kubernetes", ELSEWHERE),
    ("--tibanna", ELSEWHERE),
    ("--tes", ELSEWHERE),
    ("--google-lifesciences", ELSEWHERE),
    ("--immediate-submit", ELSEWHERE),
    ("--preemptible-rules", ELSEWHERE),
    ("--notebook-listen", LISTENER),
    ("--edit-notebook", LISTENER),
    ("--draft-notebook", LISTENER),
    ("--gui", LISTENER),
    ("--wms-monitor", LISTENER),
    ("--rerun-incomplete", AFRESH),
    ("--ri", AFRESH),
    ("--ignore-incomplete", AFRESH),
    ("--dry-run", NO_RUN),
    ("--dryrun", NO_RUN),
    ("-n", NO_RUN),
    ("--touch", NO_RUN),
    ("-t", NO_RUN),
    ("--dag", NO_RUN),
    ("--rulegraph", NO_RUN),
    ("--filegraph", NO_RUN),
    ("--d3dag", NO_RUN),
    ("--summary", NO_RUN),
    ("-S", NO_RUN),
    ("--detailed-summary", NO_RUN),
    ("-D", NO_RUN),
    ("--lint", NO_RUN),
    ("--report", NO_RUN),
    ("--generate-unit-tests", NO_RUN),
    ("--containerize", NO_RUN),
    ("--export-cwl", NO_RUN),
    ("--list-rules", NO_RUN),
    ("--list", NO_RUN),
    ("-l", NO_RUN),
    ("--list-target-rules", NO_RUN),
    ("--list-conda-envs", NO_RUN),
    ("--conda-create-envs-only", NO_RUN),
    ("--unlock", NO_RUN),
    ("--cleanup-metadata", NO_RUN),
    ("--cleanup-shadow", NO_RUN),
    ("--delete-all-output", NO_RUN),
    ("--delete-temp-output", NO_RUN),
    ("--print-compilation", NO_RUN),
    ("--debug", NO_RUN),
    ("--version", NO_RUN),
    ("-v", NO_RUN),
    ("--help", NO_RUN),
    ("-h", NO_RUN),
];
pub(super) const OPTIONS: Rules = Rules::new("snakemake", &[RULES]);

impl Engine for Snakemake {
    fn name(&self) -> &'static str {
        "snakemake"
    }

    fn workflow_type(&self) -> &'static str {
        "SMK"
    }

    fn installation(&self) -> &'static str {
        "run `stepwes engines install snakemake`, or `pip install snakemake` and put it on the service's PATH; `stepwes engines` shows which engines are found"
    }

    fn command(&self, order: &Order<'_>) -> Result<Vec<String>, String> {
        let chosen = options::sort(&OPTIONS, order)?;
        let mut command = vec![self.program().to_owned()];
        match order.fragment {
            Some(target) if target.starts_with('-') => {
                return Err(format!("workflow_url: the target {target:?} must not start with -"));
            }
            // Before the options, some of which take all words that follow.
            target => command.extend(target.map(str::to_owned)),
        }
        let says_cores = |option: &String| {
            ["--cores", "-c", "--jobs", "-j"].iter().any(|name| option.starts_with(name))
        };
        if !chosen.iter().any(says_cores) {
            command.push("--cores=all".to_owned());
        }
        // Without it, rules that name a container run on the task's own system.
        if order.container == Container::Singularity {
            command.push("--use-singularity".to_owned());
        }
        command.extend(chosen);
        command.extend([
            "--printshellcmds".to_owned(),
            "--nocolor".to_owned(),
            format!("--snakefile={}", order.workflow),
            format!("--configfile={}", Order::INPUTS),
        ]);
        if order.resumed {
            command.push("--rerun-incomplete".to_owned());
        }
        Ok(command)
    }

    fn environment(&self, order: &Order<'_>, _executable: &Path) -> Vec<(OsString, OsString)> {
        // Its cache of sources would otherwise be in a home that may be the operator's.
        vec![("XDG_CACHE_HOME".into(), order.state.join("cache").into())]
    }

    fn results(&self, _order: &Order<'_>) -> Results {
        Results::Execution { own: is_own }
    }

    fn saved(&self, order: &Order<'_>) -> Option<Saved> {
        Some(Saved { folders: vec![order.execution.to_owned()], left_out, is_guard })
    }

    fn failure(&self, exit: Exit, stderr: &str) -> String {
        because(ended(self.name(), exit), cause(stderr))
    }

    fn is_broken(&self, exit: Exit, stderr: &str) -> bool {
        python_is_broken(exit, stderr)
    }

    fn tasks(&self, order: &Order<'_>) -> (TaskLog, Box<dyn TaskParser>) {
        // Unlike standard error, it has nothing of what the rules' commands say.
        let folder = order.execution.join(OWN).join("log");
        let log = TaskLog::First { folder, suffix: ".snakemake.log" };
        (log, Box::<SnakemakeTasks>::default())
    }
}

/// Whether a path is what Snakemake keeps for itself: its folder, and the file by which it knows how
/// old an output is that is a folder.
fn is_own(path: &str) -> bool {
    path == OWN || path.rsplit('/').next() == Some(TIMESTAMP) || is_byte_code(path)
}

fn is_guard(path: &str) -> bool {
    let own = path.strip_prefix(OWN_BELOW).and_then(|own| own.split_once('/'));
    own.is_some_and(|(folder, _)| RECORDS.contains(&folder))
}

fn left_out(path: &str) -> bool {
    is_byte_code(path)
        || path
            .strip_prefix(OWN_BELOW)
            .is_some_and(|own| !RECORDS.contains(&own.split('/').next().unwrap_or_default()))
}

/// Why Snakemake failed: the first rule that did and its command's exit code, else the first error
/// with what follows it, else its last line.
fn cause(stderr: &str) -> Option<String> {
    let goes_on = |next: &&str| {
        !next.trim().is_empty() && !next.starts_with('[') && failed_rule(next).is_none()
    };
    let mut status = None;
    let mut error: Option<String> = None;
    let mut lines = stderr.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(code) = exit_status(line) {
            status.get_or_insert(code);
        } else if let Some(rule) = failed_rule(line) {
            return Some(match status {
                Some(code) => format!("rule {rule} failed: exit status {code}"),
                None => match error {
                    Some(error) => format!("rule {rule} failed: {error}"),
                    None => format!("rule {rule} failed"),
                },
            });
        } else if error.is_none() && is_exception(line) {
            let mut told = line.trim().to_owned();
            // Up to an empty line: what is missing is listed, one in a line.
            for _ in 0..MAX_ERROR_LINES {
                let Some(next) = lines.next_if(goes_on) else { break };
                told.push(' ');
                told.push_str(next.trim());
                status = status.or_else(|| exit_status(next));
            }
            error = Some(told);
        }
    }
    error.or_else(|| last_line(stderr))
}

/// Reads `Command '…' returned non-zero exit status 7.`, where what another rule writes at the same
/// time may come before the line's end.
fn exit_status(line: &str) -> Option<i32> {
    let rest = line.split_once(EXIT_STATUS)?.1;
    rest.split_once('.').map_or(rest, |(number, _)| number).parse().ok()
}

/// Reads `Error in rule NAME:`.
fn failed_rule(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("Error in ")?;
    let (kind, name) = rest.strip_suffix(':')?.split_once(' ')?;
    matches!(kind, "rule" | "checkpoint").then_some(name)
}

/// Whether a line starts an error as Python names them.
fn is_exception(line: &str) -> bool {
    let word = line.split([' ', ':']).next().unwrap_or_default();
    ["Error", "Exception"].iter().any(|end| word.ends_with(end))
        && word.starts_with(|first: char| first.is_ascii_uppercase())
}

/// What the lines that follow belong to.
#[derive(Default)]
enum Block {
    #[default]
    None,
    /// A rule of that name that starts; its job is named further on.
    Rule(String),
    /// A rule that has failed.
    Error,
    /// A job's command.
    Command(String, String),
}

/// Makes tasks of Snakemake's log, in the form of its versions 7 to 9.
#[derive(Default)]
pub(super) struct SnakemakeTasks {
    table: TaskTable,
    block: Block,
    /// The time that the log has told last.
    time: Option<DateTime<Utc>>,
    /// The exit code of the command that failed last.
    status: Option<i32>,
    /// The job that started last.
    last: Option<String>,
    shell: Option<String>,
}

impl SnakemakeTasks {
    fn end_block(&mut self) {
        if let Block::Command(job, text) = std::mem::take(&mut self.block) {
            let shell = self.shell.as_deref().unwrap_or("bash");
            self.table.command(&job, vec![shell.to_owned(), "-c".to_owned(), dedented(&text)]);
        }
    }
}

impl TaskParser for SnakemakeTasks {
    fn line(&mut self, line: &str, at: DateTime<Utc>) {
        if let Some(time) = stamp(line) {
            self.end_block();
            self.time = Some(time);
            return;
        }
        let now = self.time.unwrap_or(at);
        if let Some(job) = finished(line) {
            self.end_block();
            self.table.end(job, Some(0), now);
            // Rules with a message are not named before.
            let rule = line.split_once("(Rule: ").and_then(|(_, rule)| rule.strip_suffix(')'));
            if let Some(rule) = rule {
                self.table.rename(job, rule);
            }
        } else if let Some(rule) = started_rule(line) {
            self.end_block();
            self.block = Block::Rule(rule.to_owned());
        } else if failed_rule(line).is_some() {
            self.end_block();
            self.block = Block::Error;
        } else if let Some(code) = exit_status(line) {
            self.end_block();
            self.status = Some(code);
        } else if let Some(command) = line.strip_prefix("Shell command: ") {
            self.end_block();
            if let Some(job) = self.last.take().filter(|_| command != "None") {
                self.block = Block::Command(job, command.to_owned());
            }
        } else if let Some(shell) = line.strip_prefix("Using shell: ") {
            self.shell = Some(shell.trim().to_owned());
        } else if let Some((job, message)) = with_message(line) {
            self.end_block();
            self.table.start(job, &format!("job {job}"), Some(now));
            self.table.note(job, message);
            self.last = Some(job.to_owned());
        } else if let Some(job) = line.strip_prefix("    jobid: ") {
            let job = job.trim();
            match &self.block {
                Block::Rule(rule) => {
                    self.table.start(job, rule, Some(now));
                    self.last = Some(job.to_owned());
                }
                Block::Error => {
                    let status = self.status.take();
                    self.table.end(job, status.or(Some(1)), now);
                    if let Some(code) = status {
                        self.table.note(job, &format!("exit status {code}"));
                    }
                }
                Block::Command(..) | Block::None => {}
            }
        } else if is_progress(line) {
            self.end_block();
        } else if let Block::Command(_, text) = &mut self.block
            && text.len() <= MAX_COMMAND
        {
            text.push('\n');
            text.push_str(line);
        }
    }

    fn end(&mut self, at: DateTime<Utc>) {
        self.end_block();
        self.table.end_all(at);
    }

    fn tasks(&self) -> &[Task] {
        self.table.tasks()
    }

    fn revision(&self) -> u64 {
        self.table.revision()
    }
}

/// Reads `[Wed Nov 25 15:44:13 2026]`, in this machine's time.
fn stamp(line: &str) -> Option<DateTime<Utc>> {
    let text = line.strip_prefix('[')?.strip_suffix(']')?;
    let written = NaiveDateTime::parse_from_str(text, "%a %b %e %H:%M:%S %Y").ok()?;
    Some(written.and_local_timezone(Local).earliest()?.to_utc())
}

/// Reads `rule NAME:`, `localrule NAME:` and the same of checkpoints.
fn started_rule(line: &str) -> Option<&str> {
    let (kind, name) = line.strip_suffix(':')?.split_once(' ')?;
    matches!(kind, "rule" | "localrule" | "checkpoint" | "localcheckpoint").then_some(name)
}

/// Reads `Finished jobid: 1 (Rule: up)`, and `Finished job 1.` of older versions.
fn finished(line: &str) -> Option<&str> {
    let job = match line.strip_prefix("Finished jobid: ") {
        Some(rest) => rest.split(' ').next()?,
        None => line.strip_prefix("Finished job ")?.strip_suffix('.')?,
    };
    is_number(job).then_some(job)
}

/// Reads `Job 1: the message that its rule has`.
fn with_message(line: &str) -> Option<(&str, &str)> {
    let (job, message) = line.strip_prefix("Job ")?.split_once(": ")?;
    is_number(job).then_some((job, message))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a line tells how far the workflow is, which ends what came before.
fn is_progress(line: &str) -> bool {
    ["Select jobs to execute", "Execute ", "RuleException", "Shutting down", "Complete log"]
        .iter()
        .any(|start| line.starts_with(start))
        || line
            .split_once(" of ")
            .is_some_and(|(done, rest)| is_number(done) && rest.contains(" steps ("))
}

/// A command as it was meant: the lines of a Snakefile's string are indented.
fn dedented(text: &str) -> String {
    let indent = text
        .lines()
        .skip(1)
        .filter(|line| !line.trim().is_empty())
        .map(|line| line.len() - line.trim_start_matches(' ').len())
        .min()
        .unwrap_or(0);
    let lines: Vec<_> = text.lines().map(|line| line.get(indent..).unwrap_or("")).collect();
    match text.lines().next() {
        Some(first) if !first.trim().is_empty() => {
            let rest = lines.get(1..).unwrap_or_default();
            [&[first][..], rest].concat().join("\n").trim().to_owned()
        }
        _ => lines.join("\n").trim().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use super::*;

    const SLOW: &str = include_str!("../../tests/logs/snakemake-9.log");
    const BAD: &str = include_str!("../../tests/logs/snakemake-9-failing.log");

    fn read(log: &str) -> SnakemakeTasks {
        let mut tasks = SnakemakeTasks::default();
        let at = "2026-01-02T03:04:05Z".parse().expect("a time");
        log.lines().for_each(|line| tasks.line(line, at));
        tasks.end(at);
        tasks
    }

    fn command(fragment: Option<&str>, parameters: &Value, container: Container) -> String {
        let none = Map::new();
        let here = Path::new("/w");
        let order = Order {
            defaults: &none,
            parameters: parameters.as_object().unwrap_or(&none),
            workflow: "workflow/a b.smk",
            fragment,
            execution: here,
            outdir: here,
            state: here,
            resumed: false,
            container,
            aws: &[],
        };
        Snakemake.command(&order).map_or_else(|error| error, |command| command.join(" "))
    }

    #[test]
    fn the_options_are_documented() {
        options::assert_documented(RULES);
    }

    #[test]
    fn the_target_comes_first_and_the_service_s_options_last() {
        let given = json!({"--set-threads": "a=1 b=2", "--quiet": null, "--cores": 3});
        assert_eq!(
            command(Some("all"), &given, Container::Docker),
            "snakemake all --set-threads a=1 b=2 --cores=3 --printshellcmds --nocolor --snakefile=workflow/a b.smk --configfile=wes_inputs.json"
        );
        assert_eq!(
            command(None, &json!({}), Container::Singularity),
            "snakemake --cores=all --use-singularity --printshellcmds --nocolor --snakefile=workflow/a b.smk --configfile=wes_inputs.json"
        );
        assert!(command(Some("--unlock"), &json!({}), Container::None).contains("must not start"));
    }

    #[test]
    fn no_option_leads_out_of_the_run() {
        for option in [
            "--directory",
            "--profile",
            "--executor",
            "--envvars",
            "--snakefile",
            "--configfile",
            "--conda-prefix",
            "--notebook-listen",
            "--dry-run",
            "--precommand",
            "--logger",
            "--dir",
        ] {
            let refused = command(None, &json!({option: "x"}), Container::None);
            assert!(refused.starts_with("workflow_engine_parameters"), "{refused}");
        }
    }

    #[test]
    fn jobs_have_their_rule_their_times_and_their_command() {
        let tasks = read(SLOW);
        let seen: Vec<_> = tasks
            .tasks()
            .iter()
            .map(|task| {
                let seconds = (task.end_time.zip(task.start_time))
                    .map(|(end, start)| (end - start).num_seconds());
                (&*task.id, &*task.name, seconds, task.exit_code)
            })
            .collect();
        assert_eq!(
            seen,
            [
                ("1", "one", Some(2), Some(0)),
                ("2", "one", Some(2), Some(0)),
                ("0", "all", Some(0), Some(0)),
            ]
        );
        assert_eq!(
            tasks.tasks()[0].cmd,
            ["/usr/bin/bash", "-c", "echo hi\nsleep 2\ntouch 'a b.txt'"]
        );
        assert!(tasks.tasks()[2].cmd.is_empty());
    }

    #[test]
    fn a_failed_rule_has_its_exit_code_and_the_run_its_reason() {
        let tasks = read(BAD);
        let [task] = tasks.tasks() else { panic!("one task") };
        assert_eq!((task.name.as_str(), task.exit_code), ("all", Some(7)));
        assert_eq!(task.cmd[2], "echo it is broken >&2; exit 7");
        assert_eq!(cause(BAD).as_deref(), Some("rule all failed: exit status 7"));
        let mixed = BAD.replace("exit status 7.\n", "exit status 7.another rule's text\n");
        assert_ne!(mixed, BAD);
        assert_eq!(read(&mixed).tasks()[0].exit_code, Some(7));
        assert_eq!(cause(&mixed).as_deref(), Some("rule all failed: exit status 7"));
    }

    #[test]
    fn older_versions_and_rules_with_messages_are_read_too() {
        let tasks = read(
            "Using shell: /bin/bash\n\
             [Tue Jan  6 10:00:00 2026]\nrule a:\n    output: x\n    jobid: 1\n\n\
             [Tue Jan  6 10:00:01 2026]\nFinished job 1.\n1 of 3 steps (33%) done\n\
             [Tue Jan  6 10:00:02 2026]\nJob 2: making y\nReason: Missing output files: y\n\
             [Tue Jan  6 10:00:03 2026]\nFinished jobid: 2 (Rule: b)\n\
             [Tue Jan  6 10:00:04 2026]\ncheckpoint c:\n    jobid: 3\n\
             [Tue Jan  6 10:00:05 2026]\nError in checkpoint c:\n    jobid: 3\n",
        );
        let seen: Vec<_> = tasks.tasks().iter().map(|task| (&*task.name, task.exit_code)).collect();
        assert_eq!(seen, [("a", Some(0)), ("b", Some(0)), ("c", Some(1))]);
        assert_eq!(tasks.tasks()[1].system_logs, ["making y"]);
    }

    #[test]
    fn what_it_keeps_for_itself_is_no_output() {
        for own in [".snakemake", "parts/.snakemake_timestamp", "scripts/__pycache__"] {
            assert!(is_own(own), "{own}");
        }
        assert!(!is_own("parts") && !is_own("parts/.snakemake"));
    }

    #[test]
    fn the_reason_of_what_never_ran_is_found() {
        let missing = "Building DAG of jobs...\nMissingInputException in rule all in file \"/w/Snakefile\", line 1:\nMissing input files for rule all:\n    affected files:\n        x\n";
        assert_eq!(
            cause(missing).as_deref(),
            Some(
                "MissingInputException in rule all in file \"/w/Snakefile\", line 1: Missing input files for rule all: affected files: x"
            )
        );
        assert_eq!(cause("snakemake: error: no\n").as_deref(), Some("snakemake: error: no"));
        let script = "Traceback\nNameError in file \"S\", line 3:\nname 'x' is not defined\n[t]\nError in rule s:\n";
        assert_eq!(
            cause(script).as_deref(),
            Some("rule s failed: NameError in file \"S\", line 3: name 'x' is not defined")
        );
    }
}
