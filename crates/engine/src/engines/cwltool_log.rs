//! cwltool's log: which jobs it ran, and why it failed.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    str::FromStr as _,
};

use chrono::{DateTime, Utc};
use nix::sys::signal::Signal;
use stepwes_core::task::Task;

use super::{
    MAX_CAUSE, MAX_ERROR_LINES, TaskParser, shortened,
    tasks::{MAX_COMMAND, MAX_MESSAGES, MAX_TASKS, MAX_TEXT, end_all},
};

/// cwltool writes ` \` and the next line's indentation between the arguments of a command.
const BETWEEN_ARGUMENTS: &str = " \\\n    ";

/// What a shell command of a tool (ShellCommandRequirement) starts with.
const SHELL: &str = "/bin/sh \\\n    -c \\\n    ";

/// How a job's last message starts.
const COMPLETED: &str = "completed ";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Debug,
    Info,
    Warning,
    Error,
}

/// Levels by their names.
const LEVELS: [(&str, Level); 5] = [
    ("DEBUG", Level::Debug),
    ("INFO", Level::Info),
    ("WARNING", Level::Warning),
    ("ERROR", Level::Error),
    ("CRITICAL", Level::Error),
];

/// A line without its colours.
fn plain(line: &str) -> Cow<'_, str> {
    if !line.contains('\u{1b}') {
        return Cow::Borrowed(line);
    }
    let mut text = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        text.push_str(before);
        rest = after.find(|c: char| c.is_ascii_alphabetic()).map_or("", |end| &after[end + 1..]);
    }
    text.push_str(rest);
    Cow::Owned(text)
}

/// Reads a log record that starts somewhere in the line: a tool's last line may have no end, and
/// cwltool's next record follows in the same line.
fn record_within(line: &str) -> Option<(Level, &str)> {
    let at_start = record(line);
    if at_start.is_some_and(|(_, text)| is_of_job(text)) {
        return at_start;
    }
    let within = line.rmatch_indices(" [").find_map(|(at, _)| {
        let text = &line[at + 1..];
        let (_, level) = LEVELS.into_iter().find(|(name, _)| line[..at].ends_with(name))?;
        is_of_job(text).then_some((level, text))
    });
    within.or(at_start)
}

/// Whether a record's text speaks of a part of the workflow.
fn is_of_job(text: &str) -> bool {
    ["[job ", "[step ", "[workflow "].iter().any(|start| text.starts_with(start))
}

/// Reads the start of a log record, with or without `--timestamps`.
fn record(line: &str) -> Option<(Level, &str)> {
    let line = match line.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some((stamp, rest)) if stamp.len() == "2026-01-31 12:00:00".len() => rest,
        _ => line,
    };
    let (level, text) = line.split_once(' ')?;
    let (_, level) = LEVELS.into_iter().find(|(name, _)| *name == level)?;
    Some((level, text))
}

/// Reads `[job NAME] message`.
fn job(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix("[job ")?.split_once("] ")
}

/// Whether a message tells how a job's process ended.
fn exit_code(message: &str) -> Option<i32> {
    if let Some(status) = message.strip_prefix("exited with status: ") {
        return status.trim().parse().ok();
    }
    let signal = message.strip_prefix("was terminated by signal: ")?;
    Signal::from_str(signal.trim()).ok().map(|signal| 128 + signal as i32)
}

/// Why cwltool failed, from the end of its log: a job's exit status before an error of its own,
/// an error before what only follows from it, and anything before nothing.
pub(super) fn cause(stderr: &str) -> Option<String> {
    let mut exited = None;
    let mut error = None;
    let mut consequence = None;
    let mut last = None;
    let mut lines = stderr.lines().map(plain).peekable();
    while let Some(line) = lines.next() {
        if line.trim().is_empty() {
            continue;
        }
        match record_within(&line) {
            Some((Level::Error, text)) => {
                let mut text = text.trim().to_owned();
                let mut more = 0;
                while more < MAX_ERROR_LINES
                    && let Some(next) = lines.next_if(|next| record_within(next).is_none())
                {
                    more += 1;
                    if !next.trim().is_empty() {
                        text.push(' ');
                        text.push_str(next.trim());
                    }
                }
                let follows = text.starts_with("Exception on step")
                    || text.contains("Output is missing expected field");
                *(if follows { &mut consequence } else { &mut error }) = Some(text);
            }
            Some((_, text)) => {
                if job(text).is_some_and(|(_, message)| exit_code(message).is_some()) {
                    exited = Some(text.to_owned());
                }
            }
            None => last = Some(line.trim().to_owned()),
        }
    }
    let cause = exited.or(error).or(consequence).or(last)?;
    // Whoever reads this is not at cwltool's command line.
    let cause = cause.replace(", try again with --debug for more information", "");
    Some(shortened(&cause, MAX_CAUSE))
}

/// Makes tasks of cwltool's `[job …]` records.
#[derive(Default)]
pub(super) struct CwltoolTasks {
    tasks: Vec<Task>,
    /// The latest task of each name, and how many there were.
    by_name: HashMap<String, (usize, u32)>,
    /// A command line that goes on in the next line, and the task that it belongs to.
    command: Option<(usize, String)>,
    /// A message that goes on in the next lines: its task, and how many lines more.
    message: Option<(usize, usize)>,
    ids: HashSet<String>,
    revision: u64,
    text: usize,
}

impl CwltoolTasks {
    fn start(&mut self, name: &str, at: Option<DateTime<Utc>>) -> Option<usize> {
        let at_end = self.tasks.len();
        if at_end >= MAX_TASKS {
            return None;
        }
        let mut count = self.by_name.get(name).map_or(1, |(_, count)| count + 1);
        let mut id = name.to_owned();
        while !self.ids.insert(id.clone()) {
            id = format!("{name}-{count}");
            count += 1;
        }
        self.by_name.insert(name.to_owned(), (at_end, count));
        self.text += 3 * name.len();
        self.tasks.push(Task { id, name: name.to_owned(), start_time: at, ..Task::default() });
        Some(at_end)
    }

    /// The task of that name that has not ended.
    fn running(&self, name: &str) -> Option<usize> {
        let (at, _) = self.by_name.get(name)?;
        self.tasks[*at].end_time.is_none().then_some(*at)
    }

    fn message(&mut self, name: &str, message: &str, at: DateTime<Utc>) {
        if let Some(command) = start_of_command(message) {
            if let Some(task) = self.start(name, Some(at)) {
                self.command = Some((task, String::new()));
                self.continue_command(command);
            }
            self.revision += 1;
            return;
        }
        // Only what tells of a process makes a task: cwltool also talks of jobs that are never run.
        let of_process = exit_code(message).is_some() || message.starts_with(COMPLETED);
        let index = match self.running(name) {
            None if of_process => self.start(name, None),
            running => running,
        };
        let Some(index) = index else { return };
        self.revision += 1;
        let room = self.text + message.len() <= MAX_TEXT;
        let task = &mut self.tasks[index];
        if let Some(status) = message.strip_prefix(COMPLETED) {
            let default = if matches!(status.trim(), "success" | "skipped") { 0 } else { 1 };
            task.exit_code.get_or_insert(default);
            task.end_time = Some(at);
            return;
        }
        if let Some(code) = exit_code(message) {
            task.exit_code = Some(code);
        }
        if room && task.system_logs.len() < MAX_MESSAGES {
            self.text += message.len();
            task.system_logs.push(message.to_owned());
            if message.ends_with(':') {
                self.message = Some((index, MAX_ERROR_LINES));
            }
        }
    }

    fn continue_message(&mut self, line: &str) {
        let Some((task, left)) = self.message else { return };
        self.message = (left > 1).then_some((task, left - 1));
        let line = line.trim();
        if let Some(message) = self.tasks[task].system_logs.last_mut()
            && !line.is_empty()
            && self.text + line.len() < MAX_TEXT
        {
            self.text += line.len() + 1;
            message.push(' ');
            message.push_str(line);
            self.revision += 1;
        }
    }

    fn continue_command(&mut self, line: &str) {
        let Some((_, text)) = &mut self.command else { return };
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(line);
        if is_shell_command(text) {
            // Nothing tells where it ends: what follows may be the tool's output.
            if text.ends_with('\\') || is_open(text) {
                text.push_str(" …");
            }
            return self.end_command();
        }
        if text.len() > MAX_COMMAND || !(text.ends_with(" \\") || is_open(text)) {
            self.end_command();
        }
    }

    fn end_command(&mut self) {
        let Some((task, text)) = self.command.take() else { return };
        if self.text + text.len() > MAX_TEXT {
            return;
        }
        self.text += text.len();
        self.tasks[task].cmd = split(&text);
        self.revision += 1;
    }
}

impl TaskParser for CwltoolTasks {
    fn line(&mut self, line: &str, at: DateTime<Utc>) {
        let line = plain(line);
        // An argument that is a record is none, unless it starts a line.
        let found = if self.command.is_some() { record(&line) } else { record_within(&line) };
        match found {
            Some((level, text)) => {
                self.end_command();
                self.message = None;
                // Debug records tell the service's paths, over many lines.
                if level != Level::Debug
                    && let Some((name, message)) = job(text)
                {
                    self.message(name, message, at);
                }
            }
            None if self.command.is_some() => self.continue_command(&line),
            None => self.continue_message(&line),
        }
    }

    fn end(&mut self, at: DateTime<Utc>) {
        self.end_command();
        self.revision += end_all(&mut self.tasks, at);
    }

    fn tasks(&self) -> &[Task] {
        &self.tasks
    }

    fn revision(&self) -> u64 {
        self.revision
    }
}

/// Reads `/folder$ command`.
fn start_of_command(message: &str) -> Option<&str> {
    let (folder, command) = message.split_once("$ ")?;
    folder.starts_with('/').then_some(command)
}

/// Whether a command is that of a shell (ShellCommandRequirement), up to the end of its first line.
/// Its last argument is not quoted, whatever is in it; other tools' are, where they need it.
fn is_shell_command(text: &str) -> bool {
    text.strip_prefix(SHELL).is_some_and(|command| {
        let command = command.strip_suffix(" \\").unwrap_or(command);
        !command.starts_with('\'') && (is_open(command) || command.contains(char::is_whitespace))
    })
}

/// Whether a command ends inside a quotation: an argument with a line break goes on.
fn is_open(text: &str) -> bool {
    let mut quote = None;
    for c in text.chars() {
        match quote {
            None if matches!(c, '\'' | '"') => quote = Some(c),
            Some(open) if open == c => quote = None,
            _ => {}
        }
    }
    quote.is_some()
}

/// Splits a command as cwltool prints it: an argument a line, quoted by Python's `shlex.quote`
/// where it needs it (not at all under ShellCommandRequirement); redirections after the last.
fn split(text: &str) -> Vec<String> {
    let mut lines: Vec<_> = text.split(BETWEEN_ARGUMENTS).collect();
    let last = lines.pop().unwrap_or_default();
    let mut words: Vec<_> = lines.into_iter().map(whole_word).collect();
    match first_word(last) {
        Some((word, rest)) if redirections(rest).is_some() => {
            words.push(word);
            words.extend(redirections(rest).into_iter().flatten());
        }
        _ => words.push(whole_word(last)),
    }
    words
}

/// An argument that has its own line.
fn whole_word(text: &str) -> String {
    match first_word(text) {
        Some((word, "")) => word,
        _ => text.to_owned(),
    }
}

/// The first word and what follows it. Only what starts with `'` is quoted (`shlex.quote` quotes
/// all or nothing): a backslash elsewhere is a backslash.
fn first_word(text: &str) -> Option<(String, &str)> {
    if !text.starts_with('\'') {
        let end = text.find(char::is_whitespace).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    }
    let mut word = String::new();
    let mut rest = text;
    loop {
        let Some(quote) = rest.chars().next().filter(|c| matches!(c, '\'' | '"')) else {
            return Some((word, rest));
        };
        let (inside, after) = rest[1..].split_once(quote)?;
        word.push_str(inside);
        rest = after;
    }
}

/// Reads ` < path > path 2> path`, paths unquoted; `None` when there is something else.
fn redirections(text: &str) -> Option<Vec<String>> {
    const SIGNS: [&str; 3] = [" < ", " > ", " 2> "];
    let mut words = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let sign = SIGNS.into_iter().find(|sign| rest.starts_with(sign))?;
        rest = &rest[sign.len()..];
        // The next redirection starts where an absolute path follows a sign.
        let next = SIGNS
            .into_iter()
            .filter_map(|sign| rest.find(&format!("{sign}/")))
            .min()
            .unwrap_or(rest.len());
        words.push(sign.trim().to_owned());
        words.push(rest[..next].to_owned());
        rest = &rest[next..];
    }
    if words.is_empty() { None } else { Some(words) }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    /// The tasks of a log, a line each, its times in lines.
    fn read(log: &str) -> String {
        let mut parser = CwltoolTasks::default();
        let at = |line: usize| {
            DateTime::from_timestamp(i64::try_from(line).expect("few lines"), 0).expect("a time")
        };
        for (number, line) in log.lines().enumerate() {
            parser.line(line, at(number + 1));
        }
        parser.end(at(log.lines().count() + 1));
        let mut text = String::new();
        for task in parser.tasks() {
            let line = |time: Option<DateTime<Utc>>| time.map(|time| time.timestamp());
            writeln!(
                text,
                "{} ({}) lines {:?}-{:?} exit {:?} {:?} {:?}",
                task.id,
                task.name,
                line(task.start_time),
                line(task.end_time),
                task.exit_code,
                task.cmd,
                task.system_logs,
            )
            .expect("written");
        }
        text
    }

    #[test]
    fn a_scattered_workflow_with_a_subworkflow_has_its_jobs() {
        insta::assert_snapshot!(read(include_str!("../../tests/logs/scatter.log")), @r#"
        upper (upper) lines Some(6)-Some(11) exit Some(0) ["sh", "-c", "echo \"$0\" | tr a-z A-Z; echo noise >&2", "a b", ">", "/work/tmp/l7m5gecq/up.txt"] []
        upper_2 (upper_2) lines Some(13)-Some(18) exit Some(0) ["sh", "-c", "echo \"$0\" | tr a-z A-Z; echo noise >&2", "c", ">", "/work/tmp/a21dxu66/up.txt"] []
        join (join) lines Some(25)-Some(28) exit Some(0) ["cat", "/work/tmp/6e7d7fbi/stgff1e0ee0-0802-4bfa-8a7a-38fcc0e3db02/up.txt", "/work/tmp/6e7d7fbi/stge39e22e8-cde2-45ba-80ed-f00beeeff226/up.txt", ">", "/work/tmp/ka8xos2p/all it.txt"] []
        "#);
    }

    #[test]
    fn a_failed_job_has_its_exit_code() {
        insta::assert_snapshot!(read(include_str!("../../tests/logs/failing.log")), @r#"
        make (make) lines Some(6)-Some(11) exit Some(0) ["sh", "-c", "echo \"$0\" | tr a-z A-Z; echo noise >&2", "x y", ">", "/work/tmp/g6207f0g/up.txt"] []
        bad (bad) lines Some(15)-Some(22) exit Some(3) ["sh", "-c", "echo bad news >&2; exit 3"] ["exited with status: 3", "Job error: Error collecting output for parameter 'out': fail.cwl:5:45: Did not find output file with glob pattern: ['x']."]
        "#);
        insta::assert_snapshot!(read(include_str!("../../tests/logs/signal.log")), @r#"
        sig.cwl (sig.cwl) lines Some(3)-Some(7) exit Some(137) ["sh", "-c", "kill -9 $$"] ["was terminated by signal: SIGKILL"]
        "#);
    }

    #[test]
    fn arguments_with_line_breaks_and_redirections_are_whole() {
        insta::assert_snapshot!(read(include_str!("../../tests/logs/multiline.log")), @r#"
        ml.cwl (ml.cwl) lines Some(3)-Some(10) exit Some(0) ["python3", "-c", "import sys\nprint('it''s')\nsys.exit(0)", "", "plain", "<", "/work/tmp/sgr99v97/stg683b9f1e-1d98-48ba-ba6e-1917bce844f6/given.txt", ">", "/work/tmp/cqk2zpfy/a b.txt", "2>", "/work/tmp/cqk2zpfy/err.txt"] []
        "#);
    }

    #[test]
    fn a_shell_command_is_one_argument() {
        insta::assert_snapshot!(read(include_str!("../../tests/logs/shell.log")), @r#"
        dirsn.cwl (dirsn.cwl) lines Some(3)-Some(6) exit Some(0) ["/bin/sh", "-c", "mkdir -p 'd e/empty' 'd e/sub'; echo hi > 'd e/sub/x%y#z.txt'; mkdir void; echo a > a.bam; echo b > a.bam.bai; ln -s a.bam link.txt; echo 'ü' > 'ü.txt'"] []
        "#);
    }

    #[test]
    fn ids_are_unique_and_quiet_jobs_are_seen_at_their_end() {
        let log = "INFO [job a] /t$ x\nINFO [job a] completed success\nINFO [job a] /t$ y\n\
                   WARNING [job b] completed permanentFail\n";
        insta::assert_snapshot!(read(log), @r#"
        a (a) lines Some(1)-Some(2) exit Some(0) ["x"] []
        a-2 (a) lines Some(3)-Some(5) exit None ["y"] ["the engine ended before it said how this job did"]
        b (b) lines None-Some(4) exit Some(1) [] []
        "#);
    }

    #[test]
    fn a_record_in_a_line_that_a_tool_began_counts() {
        insta::assert_snapshot!(
            [
                read(include_str!("../../tests/logs/unfinished.log")),
                read(include_str!("../../tests/logs/unfinished-failing.log")),
            ]
            .join(""),
            @r#"
        nonl.cwl (nonl.cwl) lines Some(3)-Some(6) exit Some(0) ["sh", "-c", "printf \"pa 50%%\" >&2"] []
        nonlfail.cwl (nonlfail.cwl) lines Some(3)-Some(7) exit Some(3) ["sh", "-c", "printf \"pa 50%%\" >&2; exit 3"] ["exited with status: 3"]
        "#
        );
        let quoted = "INFO [job a] /t$ echo \\\n    'x ERROR [job b] exited with status: 3'\n";
        assert!(!read(quoted).contains("exit Some"), "an argument is none");
    }

    #[test]
    fn what_is_said_of_jobs_that_are_not_run_makes_no_task() {
        assert_eq!(read(include_str!("../../tests/logs/empty-scatter.log")), "");
        let skipping =
            "WARNING [job a] Skipping Docker software container '--cpus' limit despite\n";
        assert_eq!(read(skipping), "");
    }

    #[test]
    fn a_shell_command_of_many_lines_is_cut_after_its_first() {
        insta::assert_snapshot!(read(include_str!("../../tests/logs/shell-cut.log")), @r#"
        shopen.cwl (shopen.cwl) lines Some(3)-Some(12) exit Some(0) ["/bin/sh", "-c", "echo \"two …"] []
        "#);
        let words = "INFO [job a] /t$ /bin/sh \\\n    -c \\\n    ls \\\n    -l\n";
        assert!(read(words).contains(r#"["/bin/sh", "-c", "ls", "-l"]"#), "{}", read(words));
    }

    #[test]
    fn the_revision_moves_only_with_the_tasks() {
        let mut parser = CwltoolTasks::default();
        parser.line("INFO [workflow ] start", Utc::now());
        parser.line("noise", Utc::now());
        assert_eq!(parser.revision(), 0);
        parser.line("INFO [job a] /t$ x", Utc::now());
        assert!(parser.revision() > 0);
    }

    #[test]
    fn what_pretends_to_be_jobs_takes_no_endless_memory() {
        let mut parser = CwltoolTasks::default();
        for n in 0..MAX_TASKS + 10 {
            parser.line(&format!("INFO [job {n}] /t$ {}", "x".repeat(500)), Utc::now());
        }
        assert_eq!(parser.tasks().len(), MAX_TASKS);
        let text: usize = parser.tasks().iter().flat_map(|task| &task.cmd).map(String::len).sum();
        assert!(text <= MAX_TEXT);
    }

    #[test]
    fn the_cause_is_what_a_person_can_act_on() {
        let causes = [
            include_str!("../../tests/logs/failing.log"),
            include_str!("../../tests/logs/unfinished-failing.log"),
            include_str!("../../tests/logs/signal.log"),
            include_str!("../../tests/logs/badname.log"),
            include_str!("../../tests/logs/broken.log"),
            include_str!("../../tests/logs/badinput.log"),
            include_str!("../../tests/logs/unsupported.log"),
            include_str!("../../tests/logs/usage.log"),
        ]
        .map(|log| cause(log).expect("a cause"));
        insta::assert_snapshot!(causes.join("\n"), @r#"
        [job bad] exited with status: 3
        [job nonlfail.cwl] exited with status: 3
        [job sig.cwl] was terminated by signal: SIGKILL
        [step bad] Cannot make job: Invalid filename: 'all it.txt' contains illegal characters
        Tool definition failed validation: broken.cwl:4:1: while parsing a flow node expected the node content, but found '<stream end>'
        Workflow error: Invalid job input record: badin.json:1:2: the 'f' field is not valid because is not a dict. Expected a File object.
        Workflow or tool uses unsupported feature: --no-container, but this CommandLineTool has DockerRequirement under 'requirements'.
        cwltool: error: unrecognized arguments: --nonsense
        "#);
        assert_eq!(cause("INFO all is well\n"), None);
        assert_eq!(
            cause(&format!("ERROR {}", "é".repeat(600))).expect("a cause").chars().count(),
            501
        );
    }
}
