//! The background tasks of a server, which all end with it.

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

    /// Ends everything, and waits until it has ended.
    pub(crate) async fn end(&self) {
        self.over.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
