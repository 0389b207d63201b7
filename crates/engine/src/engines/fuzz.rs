//! What must hold of every engine's options and log.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use super::{
    TaskParser, cwltool, cwltool_log, miniwdl, nextflow,
    options::{self, Rules},
    snakemake,
    tasks::{MAX_COMMAND, MAX_MESSAGES},
    toil, toil_bus,
};

const RULES: [&Rules; 7] = [
    &cwltool::OPTIONS,
    &miniwdl::OPTIONS,
    &nextflow::OPTIONS,
    &snakemake::OPTIONS,
    &toil::CWL_OPTIONS,
    &toil::WDL_OPTIONS,
    &toil::PYTHON_OPTIONS,
];

/// What is passed on to an engine says what may be said to it, and nothing else.
pub(crate) fn options(parameters: &Map<String, Value>) {
    for rules in RULES {
        options::check(rules, parameters);
    }
}

/// Whatever a log says, and wherever it is cut off.
pub(crate) fn log(engine: usize, log: &str, at: DateTime<Utc>) {
    let parsers: [fn() -> Box<dyn TaskParser>; 5] = [
        || Box::<cwltool_log::CwltoolTasks>::default(),
        || Box::new(miniwdl::MiniwdlTasks::of("/nowhere".into())),
        || Box::<nextflow::TraceTasks>::default(),
        || Box::<snakemake::SnakemakeTasks>::default(),
        || Box::<toil_bus::BusTasks>::default(),
    ];
    let mut parser = parsers[engine % parsers.len()]();
    let mut before: Vec<String> = Vec::new();
    for line in log.lines() {
        let revision = parser.revision();
        parser.line(line, at);
        let ids: Vec<_> = parser.tasks().iter().map(|task| task.id.clone()).collect();
        assert!(ids.starts_with(&before), "tasks are only ever added: a page token counts them");
        assert!(ids == before || parser.revision() != revision, "a change is one that is noticed");
        before = ids;
    }
    parser.end(at);
    for task in parser.tasks() {
        assert!(task.end_time.is_some(), "{task:?}");
        assert!(task.system_logs.len() <= MAX_MESSAGES, "{task:?}");
        assert!(task.cmd.iter().map(String::len).sum::<usize>() <= MAX_COMMAND);
    }
}
