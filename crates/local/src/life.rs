//! The background tasks of a server, which all end with it.

use std::time::Duration;

use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Spawns what ends when the server does. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Life {
    over: CancellationToken,
    tasks: TaskTracker,
}

impl Life {
    /// Runs `task` until it is done or the server goes down, whichever comes first.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let over = self.over.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = over.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Runs `task` to its end; the server waits for it when it goes down.
    pub(crate) fn spawn_whole(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Runs `task` to its end, whether or not the caller goes on waiting for it, and gives what it
    /// gives; the server waits for it when it goes down.
    pub(crate) async fn whole<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> T {
        match self.tasks.spawn(task).await {
            Ok(done) => done,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Only the end of the runtime cancels it, and nobody is left to be answered.
                Err(_) => std::future::pending().await,
            },
        }
    }

    /// Waits until `pause` is over or the server goes down; whether the server stays.
    pub(crate) async fn pause(&self, pause: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.over.cancelled() => false,
            () = tokio::time::sleep(pause) => true,
        }
    }

    /// Ends everything, and waits until it has ended.
    pub(crate) async fn end(&self) {
        self.over.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
