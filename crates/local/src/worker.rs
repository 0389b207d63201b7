//! A thread of its own for what must not block the others: SQLite.

use std::{
    sync::mpsc::{Receiver, Sender, channel},
    thread::JoinHandle,
};

use thiserror::Error;
use tokio::sync::oneshot;

type Job<T> = Box<dyn FnOnce(&mut T) + Send>;

/// Owns a `T` on a thread and does one job after the other with it.
#[derive(Debug)]
pub(crate) struct Worker<T> {
    jobs: Option<Sender<Job<T>>>,
    thread: Option<JoinHandle<()>>,
}

/// The thread has ended, after a panic or because the server is going down.
#[derive(Clone, Copy, Debug, Error)]
#[error("the embedded database has been closed")]
pub(crate) struct Closed;

impl<T: Send + 'static> Worker<T> {
    /// Starts the thread.
    pub(crate) fn start(name: &str, mut owned: T) -> std::io::Result<Self> {
        let (jobs, queue): (_, Receiver<Job<T>>) = channel();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            for job in queue {
                job(&mut owned);
            }
        })?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Does `job` after those that were asked for before. It is asked for at once, not when the
    /// answer is waited for, and done even when nobody waits.
    pub(crate) fn call<R: Send + 'static, J: FnOnce(&mut T) -> R + Send + 'static>(
        &self,
        job: J,
    ) -> impl Future<Output = Result<R, Closed>> + Send + use<T, R, J> {
        let (answer, answered) = oneshot::channel();
        let job: Job<T> = Box::new(move |owned| {
            // Nobody may be waiting any more; the job is done all the same.
            let _ = answer.send(job(owned));
        });
        if let Some(jobs) = &self.jobs {
            // When the thread has ended, the job is dropped and with it the sender of its answer.
            let _ = jobs.send(job);
        }
        async move { answered.await.map_err(|_| Closed) }
    }
}

impl<T> Drop for Worker<T> {
    /// Does what is still to do, then drops the `T`.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            // A panic on the thread has been reported by the job that it hit.
            let _ = thread.join();
        }
    }
}
