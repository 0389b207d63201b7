//! SIGTERM and SIGINT: asked once or often, the task stops once.

use std::{io, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::Instant,
};
use tracing::info;

/// Whether the task has been told to stop, and when.
#[derive(Clone, Debug)]
pub(crate) struct Stop(watch::Receiver<Option<Instant>>);

impl Stop {
    /// Takes over SIGTERM and SIGINT for the rest of the process' life, so that a second one
    /// cannot cut the first one's work short.
    ///
    /// # Errors
    /// When the operating system allows no handler.
    pub(crate) fn install() -> io::Result<Self> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (sender, receiver) = watch::channel(None);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                let is_first = sender.send_if_modified(|at| {
                    let is_first = at.is_none();
                    at.get_or_insert_with(Instant::now);
                    is_first
                });
                if is_first {
                    info!("told to stop");
                }
            }
        });
        Ok(Self(receiver))
    }

    /// Returns when the task has been told to stop.
    pub(crate) async fn requested(&self) {
        self.first().await;
    }

    /// Returns when `time` has passed since the task was told to stop.
    pub(crate) async fn requested_for(&self, time: Duration) {
        tokio::time::sleep_until(self.first().await + time).await;
    }

    /// Whether the task has been told to stop.
    pub(crate) fn is_requested(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// When the first signal came.
    async fn first(&self) -> Instant {
        match self.0.clone().wait_for(Option::is_some).await.map(|at| *at) {
            Ok(Some(at)) => at,
            // The sender lives as long as the process; should it not, nobody can tell us to stop.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }
}
