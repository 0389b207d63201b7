//! Lines kept in memory, for tests of what is logged.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::Value;
use tracing::{Dispatch, Subscriber};
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    layer::SubscriberExt as _,
};

use crate::{Lines, Metrics};

/// The lines that have been logged so far.
#[derive(Clone, Debug, Default)]
pub struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    /// What logs into it as the service does, and all of ours, with these metrics.
    #[must_use]
    pub fn subscriber(&self, metrics: Option<Metrics>) -> impl Subscriber + Into<Dispatch> + use<> {
        let writer = self.clone();
        let lines = Lines::new(move || writer.clone()).with_metrics(metrics);
        let targets = Targets::new()
            .with_default(LevelFilter::INFO)
            .with_target("stepwes", LevelFilter::TRACE);
        tracing_subscriber::registry().with(lines).with(targets)
    }

    /// Takes the text of all lines.
    #[must_use]
    pub fn take_text(&self) -> String {
        let bytes = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Takes all lines; one that is no JSON is null.
    #[must_use]
    pub fn take(&self) -> Vec<Value> {
        let text = self.take_text();
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_default()).collect()
    }

    /// Takes all lines, and gives those of a target.
    #[must_use]
    pub fn take_of(&self, target: &str) -> Vec<Value> {
        self.take().into_iter().filter(|line| line["target"] == target).collect()
    }
}

impl io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
