//! The tasks of a run, as an engine's log tells them one after the other.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use stepwes_core::task::Task;

/// The most tasks that are kept: a workflow can write what looks like one.
pub(super) const MAX_TASKS: usize = 50_000;

/// How much text of tasks is kept, in bytes.
pub(super) const MAX_TEXT: usize = 8 * 1024 * 1024;

/// The longest command line that is kept, in bytes.
pub(super) const MAX_COMMAND: usize = 64 * 1024;

/// The most messages that are kept of one task.
pub(super) const MAX_MESSAGES: usize = 20;

/// What is said of a task whose end was not logged.
const ENDED_WITH_ENGINE: &str = "the engine ended before it said how this job did";

/// Tasks by what the engine calls them.
#[derive(Default)]
pub(super) struct TaskTable {
    tasks: Vec<Task>,
    by_id: HashMap<String, usize>,
    text: usize,
    revision: u64,
}

impl TaskTable {
    /// Adds a task, or takes up again the one of that id.
    pub(super) fn start(&mut self, id: &str, name: &str, at: Option<DateTime<Utc>>) {
        if let Some(&known) = self.by_id.get(id) {
            let task = &mut self.tasks[known];
            task.start_time = task.start_time.or(at);
            (task.end_time, task.exit_code) = (None, None);
        } else if self.tasks.len() < MAX_TASKS && self.has_room(3 * (id.len() + name.len())) {
            self.by_id.insert(id.to_owned(), self.tasks.len());
            self.tasks.push(Task {
                id: id.to_owned(),
                name: name.to_owned(),
                start_time: at,
                ..Task::default()
            });
        }
        self.revision += 1;
    }

    /// The task, to change it.
    pub(super) fn get(&mut self, id: &str) -> Option<&mut Task> {
        let task = self.tasks.get_mut(*self.by_id.get(id)?)?;
        self.revision += 1;
        Some(task)
    }

    /// Its name, where the engine changes its mind.
    pub(super) fn rename(&mut self, id: &str, name: &str) {
        let known = self.by_id.get(id).is_some_and(|&task| self.tasks[task].name != name);
        if known
            && self.has_room(name.len())
            && let Some(task) = self.get(id)
        {
            name.clone_into(&mut task.name);
        }
    }

    /// Its command line, unless that is too long.
    pub(super) fn command(&mut self, id: &str, command: Vec<String>) {
        let length: usize = command.iter().map(String::len).sum();
        if length <= MAX_COMMAND
            && self.by_id.contains_key(id)
            && self.has_room(length)
            && let Some(task) = self.get(id)
        {
            task.cmd = command;
        }
    }

    /// Its end.
    pub(super) fn end(&mut self, id: &str, exit_code: Option<i32>, at: DateTime<Utc>) {
        if let Some(task) = self.get(id) {
            task.exit_code = exit_code;
            task.end_time = Some(at);
        }
    }

    /// Keeps what the engine said of it.
    pub(super) fn note(&mut self, id: &str, message: &str) {
        let message = super::shortened(message, super::MAX_CAUSE);
        if self.by_id.contains_key(id)
            && self.has_room(message.len())
            && let Some(task) = self.get(id)
            && task.system_logs.len() < MAX_MESSAGES
        {
            task.system_logs.push(message);
        }
    }

    /// The engine has ended: so has every task.
    pub(super) fn end_all(&mut self, at: DateTime<Utc>) {
        self.revision += end_all(&mut self.tasks, at);
    }

    pub(super) fn tasks(&self) -> &[Task] {
        &self.tasks
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    fn has_room(&mut self, length: usize) -> bool {
        let fits = self.text + length <= MAX_TEXT;
        if fits {
            self.text += length;
        }
        fits
    }
}

/// Ends every task that has not ended, saying so: with its last message left out where it has as
/// many as are kept. Gives their number.
pub(super) fn end_all(tasks: &mut [Task], at: DateTime<Utc>) -> u64 {
    let mut ended = 0;
    for task in tasks.iter_mut().filter(|task| task.end_time.is_none()) {
        task.end_time = Some(at);
        task.system_logs.truncate(MAX_MESSAGES - 1);
        task.system_logs.push(ENDED_WITH_ENGINE.to_owned());
        ended += 1;
    }
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_tasks_takes_no_endless_memory() {
        let mut table = TaskTable::default();
        for number in 0..MAX_TASKS + 10 {
            table.start(&number.to_string(), "a", None);
        }
        assert_eq!(table.tasks().len(), MAX_TASKS);
        let mut table = TaskTable::default();
        table.start("a", "a", None);
        for _ in 0..1000 {
            table.command("a", vec!["x".repeat(MAX_COMMAND)]);
            table.note("a", &"y".repeat(MAX_COMMAND));
        }
        assert!(table.text <= MAX_TEXT);
        let task = &table.tasks()[0];
        assert_eq!(task.system_logs.len(), MAX_MESSAGES);
        table.end_all(DateTime::UNIX_EPOCH);
        let messages = &table.tasks()[0].system_logs;
        assert_eq!(messages.len(), MAX_MESSAGES);
        assert_eq!(messages.last().map(String::as_str), Some(ENDED_WITH_ENGINE));
        table.command("a", vec!["z".repeat(MAX_COMMAND + 1)]);
        assert!(!table.tasks()[0].cmd[0].starts_with('z'));
    }

    #[test]
    fn what_had_not_ended_ends_with_the_engine_and_what_is_not_known_is_nothing() {
        let mut table = TaskTable::default();
        assert_eq!(table.revision(), 0);
        let at = "2026-01-02T03:04:05Z".parse().expect("a time");
        table.end("nobody", Some(1), at);
        assert_eq!(table.revision(), 0);
        table.start("done", "done", Some(at));
        table.end("done", Some(0), at);
        table.start("left", "left", Some(at));
        table.end_all(at);
        let seen: Vec<_> =
            table.tasks().iter().map(|t| (t.exit_code, t.system_logs.len())).collect();
        assert_eq!(seen, [(Some(0), 0), (None, 1)]);
        assert!(table.tasks().iter().all(|task| task.end_time == Some(at)));
    }
}
