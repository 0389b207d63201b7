//! SIGTERM and SIGINT: asked once or often, the task stops once.

use std::io;

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tracing::info;

/// Whether the task has been told to stop.
#[derive(Clone, Debug)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Takes over SIGTERM and SIGINT for the rest of the process' life, so that a second one
    /// cannot cut the first one's work short.
    ///
    /// # Errors
    /// When the operating system allows no handler.
    pub(crate) fn install() -> io::Result<Self> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (sender, receiver) = watch::channel(false);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                if !sender.send_replace(true) {
                    info!("told to stop");
                }
            }
        });
        Ok(Self(receiver))
    }

    /// Returns when the task has been told to stop.
    pub(crate) async fn requested(&self) {
        // The sender lives as long as the process; should it not, nobody can tell us to stop.
        if self.0.clone().wait_for(|stop| *stop).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
