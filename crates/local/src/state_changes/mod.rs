//! Tells a URL or a command of every committed state change of a run: what the table's stream, the
//! pipe and the bus do in AWS.
//!
//! At least once, each run's changes in their order, several runs at once. A receiver that is slow
//! or fails is waited for; runs are not.

mod outbox;
mod receiver;

use std::{
    collections::{HashMap, VecDeque},
    ffi::OsString,
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use stepwes_core::RunId;
use stepwes_store::RunStore;
use tokio::{
    sync::{Semaphore, mpsc},
    task::spawn_blocking,
};

pub(crate) use self::outbox::{FILE, Outbox};
pub use self::receiver::{NoReceiver, StateChangeReceiver};
use self::{outbox::Noted, receiver::Sender};
use crate::{arn, life::Life};

/// Where what could not be delivered is written, a line of JSON each, in the server's folder.
pub const DEAD_LETTERS: &str = "state-changes.dead-letters.jsonl";

/// How many changes are delivered at once.
const AT_ONCE: usize = 4;
/// How often a change is tried before it is given up, however old it is: the server itself may
/// have been away for longer.
const LEAST_TRIES: u32 = 5;

/// How patiently state changes are delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The pause after the first failure; each is twice the last.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
    /// From when on a change that cannot be delivered is given up.
    pub give_up_after: Duration,
    /// How long a URL has to answer.
    pub url_timeout: Duration,
    /// How long a command may run.
    pub command_timeout: Duration,
}

impl Default for Delivery {
    /// A day, as EventBridge tries a target; five seconds, as it gives an API destination.
    /// <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-rule-retry-policy.html>
    /// <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-api-destinations.html>
    fn default() -> Self {
        Self {
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(300),
            give_up_after: Duration::from_secs(24 * 3600),
            url_timeout: Duration::from_secs(5),
            command_timeout: Duration::from_secs(60),
        }
    }
}

/// Why state changes cannot be told.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What tells a receiver.
struct Publisher {
    outbox: Arc<Outbox>,
    store: RunStore,
    sender: Sender,
    delivery: Delivery,
    dead_letters: PathBuf,
    slots: Semaphore,
    /// What each run has yet to tell; a run that is here has a task that tells it.
    queues: Mutex<HashMap<RunId, VecDeque<Noted>>>,
    life: Life,
}

/// Tells `receiver` of what an earlier server has left and of what is committed from now on, by way
/// of the outbox that this gives. Nothing may change the table meanwhile.
///
/// # Errors
/// When the outbox cannot be opened.
pub(crate) async fn start(
    receiver: StateChangeReceiver,
    delivery: Delivery,
    environment: Vec<(String, OsString)>,
    dir: &Path,
    store: RunStore,
    life: &Life,
) -> Result<Arc<Outbox>, Failure> {
    let Delivery { url_timeout, command_timeout, .. } = delivery;
    let sender = Sender::new(receiver, environment, url_timeout, command_timeout)?;
    let (outbox, left, mut committed) = Outbox::open(dir)?;
    let publisher = Arc::new(Publisher {
        outbox: Arc::clone(&outbox),
        store,
        sender,
        delivery,
        dead_letters: dir.join(DEAD_LETTERS),
        slots: Semaphore::new(AT_ONCE),
        queues: Mutex::default(),
        life: life.clone(),
    });
    for noted in left {
        // The server may have been killed before it committed what it had noted.
        if publisher.store.event(noted.run_id, noted.version).await?.is_some() {
            publisher.enqueue(noted);
        } else {
            outbox.forget(noted)?;
        }
    }
    life.spawn(async move { publisher.follow(&mut committed).await });
    Ok(outbox)
}

impl Publisher {
    async fn follow(self: Arc<Self>, committed: &mut mpsc::UnboundedReceiver<Noted>) {
        while let Some(noted) = committed.recv().await {
            self.enqueue(noted);
        }
    }

    fn queues(&self) -> MutexGuard<'_, HashMap<RunId, VecDeque<Noted>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enqueue(self: &Arc<Self>, noted: Noted) {
        let mut queues = self.queues();
        if let Some(queue) = queues.get_mut(&noted.run_id) {
            queue.push_back(noted);
            return;
        }
        queues.insert(noted.run_id, VecDeque::from([noted]));
        let publisher = Arc::clone(self);
        self.life.spawn(async move { publisher.tell(noted.run_id).await });
    }

    /// Tells a run's changes, one after the other, until there is none left.
    async fn tell(self: Arc<Self>, run_id: RunId) {
        loop {
            let next = {
                let mut queues = self.queues();
                let next = queues.get_mut(&run_id).and_then(VecDeque::pop_front);
                if next.is_none() {
                    queues.remove(&run_id);
                }
                next
            };
            let Some(noted) = next else { return };
            self.deliver(noted).await;
            let outbox = Arc::clone(&self.outbox);
            let forgotten = spawn_blocking(move || outbox.forget(noted)).await;
            if !matches!(forgotten, Ok(Ok(()))) {
                tracing::warn!(%run_id, version = noted.version, "a state change was delivered, and will be again");
            }
        }
    }

    /// Returns when a change has been delivered or given up.
    async fn deliver(&self, noted: Noted) {
        let Noted { run_id, version, .. } = noted;
        let mut pause = self.delivery.first_pause;
        let mut tries = 0;
        loop {
            match self.try_to_deliver(noted).await {
                Ok(()) => return,
                Err(error) => {
                    tries += 1;
                    if tries < LEAST_TRIES || !self.is_old(noted.at, Utc::now()) {
                        tracing::warn!(%run_id, version, tries, error = &*error as &dyn std::error::Error, "a state change was not delivered; trying again");
                    } else if self.bury(noted, tries, error.to_string()).await {
                        tracing::error!(%run_id, version, tries, error = &*error as &dyn std::error::Error, "a state change is given up");
                        return;
                    }
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(self.delivery.longest_pause);
        }
    }

    fn is_old(&self, noted_at: DateTime<Utc>, now: DateTime<Utc>) -> bool {
        (now - noted_at).to_std().is_ok_and(|age| age >= self.delivery.give_up_after)
    }

    async fn try_to_deliver(&self, noted: Noted) -> Result<(), Failure> {
        let _slot = self.slots.acquire().await?;
        let Some(event) = self.store.event(noted.run_id, noted.version).await? else {
            // Its run has been removed meanwhile.
            return Ok(());
        };
        let change = event.state_change(arn::BUCKET);
        let event = change.event(arn::ACCOUNT, arn::REGION).to_string();
        self.sender.send(&change, event).await.map_err(Into::into)
    }

    /// Writes a change down that is given up; whether that is done.
    async fn bury(&self, noted: Noted, tries: u32, error: String) -> bool {
        let Ok(Some(event)) = self.store.event(noted.run_id, noted.version).await else {
            return false;
        };
        let event = event.state_change(arn::BUCKET).event(arn::ACCOUNT, arn::REGION);
        let line = json!({ "error": error, "tries": tries, "event": event });
        let file = self.dead_letters.clone();
        let written = spawn_blocking(move || append(&file, &line)).await;
        let error = match written {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => error,
            Err(panicked) => io::Error::other(panicked),
        };
        tracing::error!(
            error = &error as &dyn std::error::Error,
            run_id = %noted.run_id,
            "a state change that is given up could not be written down; trying again"
        );
        false
    }
}

fn append(file: &Path, line: &Value) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(file)?;
    file.write_all(format!("{line}\n").as_bytes())?;
    file.sync_data()
}
