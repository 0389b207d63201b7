//! What a person sees while a run goes on: a spinner on a terminal, a line a change elsewhere.

use std::{io::IsTerminal as _, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    client::{State, TaskView},
    ui::{Colour, Style, say},
};

/// How often the spinner turns.
const TICK: Duration = Duration::from_millis(100);

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
            bar.enable_steady_tick(TICK);
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
            None if now != self.last => say(&now),
            None => {}
        }
        self.last = now;
    }

    /// A line above the spinner.
    pub(crate) fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None if self.last == "quiet" => {}
            None => say(text),
        }
    }

    /// Lets the spinner stand, so that a question stays where it was asked, or turn again.
    pub(crate) fn stand(&self, still: bool) {
        match &self.bar {
            Some(bar) if still => bar.disable_steady_tick(),
            Some(bar) => bar.enable_steady_tick(TICK),
            None => {}
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
            let run_id = self.style.paint(Colour::Dim, run_id);
            say(&format!("{} {run_id}", self.style.state(&state.0)));
        }
    }
}
