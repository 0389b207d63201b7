//! What a person sees while a run goes on: a spinner on a terminal, a line a change elsewhere.

use std::{io::IsTerminal as _, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    client::{State, TaskView},
    ui::{Colour, Style},
};

/// The progress of one run, on standard error.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    style: Style,
    last: String,
}

impl Progress {
    /// Progress that shows nothing when `quiet`.
    pub(crate) fn new(quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal() && !quiet;
        let bar = terminal.then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {msg} {elapsed:.dim}")
            {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        let last = if quiet { "quiet".to_owned() } else { String::new() };
        Self { bar, style: Style::of_stderr(), last }
    }

    /// The run's state and tasks as they are now.
    pub(crate) fn update(&mut self, state: &State, tasks: &[TaskView]) {
        if self.last == "quiet" {
            return;
        }
        let done =
            tasks.iter().filter(|task| task.end_time.is_some() || task.exit_code.is_some()).count();
        let counts = if tasks.is_empty() {
            String::new()
        } else {
            format!("  {done} of {} tasks done", tasks.len())
        };
        let now = format!("{}{counts}", self.style.state(&state.0));
        match &self.bar {
            Some(bar) => bar.set_message(now.clone()),
            None if now != self.last => eprintln!("{now}"),
            None => {}
        }
        self.last = now;
    }

    /// A line above the spinner.
    pub(crate) fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None if self.last == "quiet" => {}
            None => eprintln!("{text}"),
        }
    }

    /// Runs `work`, which writes to the terminal, without the spinner in between.
    pub(crate) fn suspend<T>(&self, work: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(work),
            None => work(),
        }
    }

    /// Says what the run came to.
    pub(crate) fn finish(self, state: &State, run_id: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if self.last != "quiet" {
            eprintln!("{} {}", self.style.state(&state.0), self.style.paint(Colour::Dim, run_id));
        }
    }
}
