//! The background tasks of a server, which all end with it.

use std::{future::ready, time::Duration};

use axum::body::Body;
use futures::{StreamExt as _, stream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::worker::Closed;

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

    /// A body that breaks when the server goes down, for what would be waited for to its end.
    pub(crate) fn while_lasts(&self, body: Body) -> Body {
        let over = self.over.clone();
        let broken = {
            let over = over.clone();
            move || over.is_cancelled().then(|| Err(axum::Error::new(Closed)))
        };
        let pieces = body.into_data_stream().take_until(over.cancelled_owned());
        Body::from_stream(pieces.chain(stream::once(async move { broken() }).filter_map(ready)))
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn a_body_that_has_not_come_whole_breaks_when_the_server_goes_down() {
        let life = Life::default();
        let whole = life.while_lasts(Body::from("whole")).collect().await.expect("a body");
        assert_eq!(whole.to_bytes(), "whole");
        let half = stream::iter([Ok::<_, axum::Error>(Bytes::from("ha"))]).chain(stream::pending());
        let mut half = life.while_lasts(Body::from_stream(half));
        let first = half.frame().await.expect("a frame").expect("data");
        assert_eq!(first.into_data().expect("data"), "ha");
        life.end().await;
        assert!(half.frame().await.expect("a frame").is_err());
    }
}
