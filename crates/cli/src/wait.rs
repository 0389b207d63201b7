//! Waiting for a run to end.

use std::time::Duration;

use crate::client::{Client, State};

/// The first pause between two looks; each next one is half as long again.
const FIRST: Duration = Duration::from_millis(100);

/// The longest pause between two looks.
const LONGEST: Duration = Duration::from_secs(2);

/// Pauses that grow, and start again when something changed.
#[derive(Debug)]
pub(crate) struct Pauses(Duration);

impl Pauses {
    /// From the shortest.
    pub(crate) const fn new() -> Self {
        Self(FIRST)
    }

    /// Something changed: look again soon.
    pub(crate) const fn reset(&mut self) {
        self.0 = FIRST;
    }

    /// Waits for the next pause.
    pub(crate) async fn next(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 3 / 2).min(LONGEST);
    }
}

/// Waits until the run has ended; gives its state.
pub(crate) async fn until_ended(client: &Client, run_id: &str) -> anyhow::Result<State> {
    let mut pauses = Pauses::new();
    loop {
        let state = client.state(run_id).await?;
        if state.is_terminal() {
            return Ok(state);
        }
        pauses.next().await;
    }
}
