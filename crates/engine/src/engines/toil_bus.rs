//! Toil's message bus (`--writeMessages`, `toil.bus`): which jobs it ran, and how they ended.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use stepwes_core::task::Task;

use super::{TaskParser, tasks::TaskTable};

/// Makes tasks of the messages, as Toil's server does (`toil.bus.replay_message_bus`). The bus has no
/// times: they are those at which its messages were seen.
#[derive(Default)]
pub(super) struct BusTasks {
    table: TaskTable,
    /// The job of each of Toil's batch ids.
    by_batch: HashMap<String, String>,
}

impl TaskParser for BusTasks {
    fn line(&mut self, line: &str, at: DateTime<Utc>) {
        let mut fields = line.split('\t');
        let topic = fields.next().unwrap_or_default();
        let fields: Vec<_> = fields.map(unescaped).collect();
        match (topic, fields.as_slice()) {
            ("toil.bus.JobIssuedMessage", [name, id, batch]) => {
                self.table.start(id, name, None);
                self.by_batch.insert(batch.clone(), id.clone());
            }
            // A job waits until a worker takes it.
            ("toil.bus.ExternalBatchIdMessage", [batch, ..]) => {
                if let Some(id) = self.by_batch.get(batch)
                    && let Some(task) = self.table.get(id)
                    && task.start_time.is_none()
                {
                    // This message may come after that of the job's end.
                    task.start_time = Some(task.end_time.map_or(at, |end| end.min(at)));
                }
            }
            ("toil.bus.JobCompletedMessage", [name, id, code]) => {
                self.table.rename(id, name);
                let code = code.parse().ok();
                self.table.end(id, code, at);
                if let Some(code @ 1..) = code {
                    self.table.note(id, &format!("exited with status: {code}"));
                }
            }
            // Also for a job that did well itself, when one below it did not.
            ("toil.bus.JobFailedMessage", [name, id]) => {
                self.table.rename(id, name);
                if let Some(task) = self.table.get(id) {
                    if matches!(task.exit_code, None | Some(0)) {
                        task.exit_code = Some(1);
                    }
                    task.end_time.get_or_insert(at);
                }
                self.table.note(id, "failed, and is not tried again");
            }
            _ => {}
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

/// Reads Python's `unicode_escape`, which Toil writes its fields in.
fn unescaped(field: &str) -> String {
    let mut text = String::with_capacity(field.len());
    let mut rest = field;
    while let Some((before, after)) = rest.split_once('\\') {
        text.push_str(before);
        let mut characters = after.chars();
        let digits = match characters.next() {
            Some('x') => 2,
            Some('u') => 4,
            Some('U') => 8,
            Some(other) => {
                text.push(match other {
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    same => same,
                });
                rest = characters.as_str();
                continue;
            }
            None => {
                rest = "";
                continue;
            }
        };
        let code = characters.as_str().get(..digits);
        match code.and_then(|code| char::from_u32(u32::from_str_radix(code, 16).ok()?)) {
            Some(character) => {
                text.push(character);
                rest = &characters.as_str()[digits..];
            }
            None => {
                text.push('\\');
                rest = after;
            }
        }
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bus: &str) -> BusTasks {
        let mut tasks = BusTasks::default();
        let start: DateTime<Utc> = "2026-01-02T03:04:00Z".parse().expect("a time");
        for (second, line) in (0..).zip(bus.lines()) {
            tasks.line(line, start + chrono::TimeDelta::seconds(second));
        }
        tasks
    }

    #[test]
    fn jobs_start_when_a_worker_takes_them_and_end_with_their_exit_code() {
        let mut tasks = read(include_str!("../../tests/logs/toil-scatter.bus"));
        tasks.end("2026-01-02T03:05:00Z".parse().expect("a time"));
        let seen: Vec<_> = tasks
            .tasks()
            .iter()
            .map(|task| {
                let second = |time: Option<DateTime<Utc>>| time.map(|t| t.timestamp() % 60);
                (&*task.name, second(task.start_time), second(task.end_time), task.exit_code)
            })
            .collect();
        assert_eq!(
            seen,
            [
                ("g.cwl", Some(3), Some(3), Some(0)),
                ("g.cwl.0.up.cwl", Some(10), Some(12), Some(0)),
                ("g.cwl.1.up.cwl", Some(11), Some(13), Some(0)),
                ("CWLGather", Some(17), Some(18), Some(0)),
                ("g.cwl._resolve", Some(22), Some(23), Some(0)),
            ]
        );
    }

    #[test]
    fn a_job_that_is_tried_again_is_one_task() {
        let tasks = read(
            "toil.bus.JobIssuedMessage\ta\tkind/1\t1\n\
             toil.bus.ExternalBatchIdMessage\t1\t77\tSingleMachineBatchSystem\n\
             toil.bus.JobCompletedMessage\ta\tkind/1\t1\n\
             toil.bus.JobIssuedMessage\ta\tkind/1\t2\n\
             toil.bus.JobCompletedMessage\ta\tkind/1\t3\n\
             toil.bus.JobFailedMessage\ta\tkind/1\n",
        );
        let [task] = tasks.tasks() else { panic!("one task") };
        assert_eq!((task.id.as_str(), task.exit_code), ("kind/1", Some(3)));
        assert_eq!(
            task.system_logs,
            ["exited with status: 1", "exited with status: 3", "failed, and is not tried again"]
        );
    }

    #[test]
    fn a_job_above_a_failed_one_has_failed() {
        let mut tasks = read(
            "toil.bus.JobIssuedMessage\tparent\tp\t1\n\
             toil.bus.JobCompletedMessage\tparent\tp\t0\n\
             toil.bus.JobFailedMessage\tparent\tp\n\
             toil.bus.JobIssuedMessage\tleft\tl\t2\n",
        );
        tasks.end("2026-01-02T03:05:00Z".parse().expect("a time"));
        assert_eq!(tasks.tasks()[0].exit_code, Some(1));
        assert!(tasks.tasks()[1].end_time.is_some() && tasks.tasks()[1].exit_code.is_none());
    }

    #[test]
    fn names_are_unescaped_and_nonsense_is_none() {
        let tasks = read(
            "toil.bus.JobIssuedMessage\ta\\xfc\\tb \\u20ac\\\\ \\U0001f600\tid\t1\n\
             toil.bus.JobIssuedMessage\tcut\n\
             garbage\n\ntoil.bus.QueueSizeMessage\t1\n",
        );
        let names: Vec<_> = tasks.tasks().iter().map(|task| task.name.as_str()).collect();
        assert_eq!(names, ["aü\tb €\\ 😀"]);
        for (cut, text) in [("\\", ""), ("\\x1", "\\x1"), ("\\uZZZZ", "\\uZZZZ"), ("\\xü", "\\xü")]
        {
            assert_eq!(unescaped(cut), text);
        }
    }
}
