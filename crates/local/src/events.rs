//! EventBridge: the `Object Created` events of the runs bucket, delivered to the function submit.
//!
//! An object that has come through S3's own operations is told of at once. What lies in the folder
//! is looked at every few seconds besides, and held against what has been told: so files that a
//! person put there are told of, and whatever a killed server did not get to. That an object has
//! been told of is recorded once submit has dealt with it; what is told twice makes one run.
//!
//! A file that came by hand counts as whole when it is the same in two looks.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use chrono::Utc;
use serde_json::{Value, json};
use stepwes_core::clock::wes_time;
use tokio::{
    sync::{
        Semaphore,
        mpsc::{UnboundedReceiver, UnboundedSender},
    },
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use uuid::Uuid;

use crate::{
    arn,
    calls::{Calls, Service},
    lambda::{FunctionError, Functions, name},
    ledger::Ledger,
    s3::{CreatedHook, ObjectCreated, Present, S3Endpoint},
};

/// The least time between two looks into the folder.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How much longer than a look takes the pause after it is, so that a folder with very many files
/// keeps a twentieth of a processor busy at most.
const PAUSE_PER_LOOK: u32 = 20;
/// How many events are delivered at once.
const AT_ONCE: usize = 4;
/// How often an event that is refused is delivered, as by Lambda: what it names may be on its way.
const REFUSALS: u32 = 3;
/// The pause before the second delivery; it doubles from one to the next.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// The longest pause between two deliveries.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// The folders at the top of the bucket that nothing is told of: the service's own, but for those
/// into which people put files.
const SKIPPED: &[&str] = &["requests", "work", "outputs", "results", "rejected"];

/// Tells [`Watch::run`] of what S3 has created.
pub(crate) fn hook(landed: UnboundedSender<String>) -> CreatedHook {
    Arc::new(move |object: &ObjectCreated| {
        if object.bucket == arn::BUCKET && is_told(&object.key) {
            // Closed, the server is going down: the next one looks for itself.
            let _ = landed.send(object.key.clone());
        }
    })
}

fn is_told(key: &str) -> bool {
    key.split_once('/').is_none_or(|(folder, _)| !SKIPPED.contains(&folder))
}

/// What watches the bucket.
pub(crate) struct Watch {
    ledger: Arc<Ledger>,
    s3: S3Endpoint,
    /// The version of each object that has been told of.
    told: HashMap<String, String>,
    /// What the last look found that has not been told of.
    seen: HashMap<String, String>,
    /// What is being told of; whether it has to be looked at again afterwards.
    under_way: HashMap<String, bool>,
    deliveries: JoinSet<Told>,
    delivery: Delivery,
}

/// An object that submit has dealt with.
struct Told {
    key: String,
    version: String,
}

/// What one delivery needs. Cheap to clone.
#[derive(Clone)]
struct Delivery {
    s3: S3Endpoint,
    functions: Arc<Functions>,
    calls: Arc<Calls>,
    slots: Arc<Semaphore>,
}

impl Watch {
    pub(crate) fn new(
        ledger: Arc<Ledger>,
        told: HashMap<String, String>,
        s3: S3Endpoint,
        functions: Arc<Functions>,
        calls: Arc<Calls>,
    ) -> Self {
        let delivery =
            Delivery { s3: s3.clone(), functions, calls, slots: Arc::new(Semaphore::new(AT_ONCE)) };
        Self {
            ledger,
            s3,
            told,
            seen: HashMap::new(),
            under_way: HashMap::new(),
            deliveries: JoinSet::new(),
            delivery,
        }
    }

    /// Watches until the server goes down.
    pub(crate) async fn run(mut self, mut landed: UnboundedReceiver<String>) {
        let mut next = Instant::now();
        loop {
            tokio::select! {
                Some(key) = landed.recv() => self.landed(key).await,
                Some(done) = self.deliveries.join_next(), if !self.deliveries.is_empty() => {
                    match done {
                        Ok(told) => self.told(told).await,
                        Err(error) => tracing::error!(%error, "a delivery was lost"),
                    }
                }
                () = sleep_until(next) => {
                    let begun = Instant::now();
                    self.look().await;
                    let pause = (begun.elapsed() * PAUSE_PER_LOOK).max(LOOK_EVERY);
                    next = Instant::now() + pause;
                }
            }
        }
    }

    /// An object that is whole.
    async fn landed(&mut self, key: String) {
        match self.s3.present_version(arn::BUCKET, key.clone()).await {
            Ok(Some(version)) => self.tell(key, version),
            Ok(None) => {}
            // The next look meets it.
            Err(error) => tracing::warn!(%error, key, "an object that landed cannot be looked at"),
        }
    }

    fn tell(&mut self, key: String, version: String) {
        if self.told.get(&key) == Some(&version) {
            return;
        }
        if let Some(again) = self.under_way.get_mut(&key) {
            *again = true;
            return;
        }
        self.under_way.insert(key.clone(), false);
        self.deliveries.spawn(self.delivery.clone().deliver(key, version));
    }

    async fn told(&mut self, Told { key, version }: Told) {
        let again = self.under_way.remove(&key) == Some(true);
        self.seen.remove(&key);
        if let Err(error) = self.ledger.add_told_object(key.clone(), version.clone()).await {
            // Told once more by the next server, it makes no second run.
            tracing::warn!(%error, key, "an event that was delivered is not recorded");
        }
        self.told.insert(key.clone(), version);
        if again {
            self.landed(key).await;
        }
    }

    /// One look at everything.
    async fn look(&mut self) {
        let found = match self.s3.present(arn::BUCKET, SKIPPED).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "the bucket's folder cannot be looked at; trying again");
                return;
            }
        };
        let there: HashSet<&str> = found.iter().map(|present| present.key.as_str()).collect();
        let gone: Vec<_> =
            self.told.keys().filter(|key| !there.contains(key.as_str())).cloned().collect();
        if !gone.is_empty() {
            for key in &gone {
                self.told.remove(key);
            }
            if let Err(error) = self.ledger.forget_told_objects(gone).await {
                tracing::warn!(%error, "objects that are gone are not forgotten");
            }
        }
        let mut seen = HashMap::new();
        for Present { key, version } in found {
            if self.told.get(&key) == Some(&version) {
                continue;
            }
            if self.seen.get(&key) == Some(&version) {
                self.tell(key, version);
            } else {
                seen.insert(key, version);
            }
        }
        self.seen = seen;
    }
}

impl Delivery {
    /// Delivers an event until submit has dealt with it: for as long as a service fails, and a few
    /// times when it is refused, which has been reported.
    async fn deliver(self, key: String, version: String) -> Told {
        let id = Uuid::new_v4().to_string();
        let mut pause = FIRST_PAUSE;
        let mut refusals = 0;
        loop {
            match self.once(&id, &key).await {
                Ok(()) => return Told { key, version },
                Err(Undelivered::Refused) => {
                    refusals += 1;
                    if refusals == REFUSALS {
                        tracing::error!(
                            key,
                            "an object that landed was refused; rejected/ says why"
                        );
                        return Told { key, version };
                    }
                }
                Err(Undelivered::Failed) => {}
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn once(&self, id: &str, key: &str) -> Result<(), Undelivered> {
        // Closed by nobody.
        let _slot = self.slots.acquire().await;
        let version = match self.s3.present_version(arn::BUCKET, key.to_owned()).await {
            Ok(Some(version)) => version,
            Ok(None) => return Ok(()),
            Err(error) => {
                tracing::warn!(%error, key, "an object that landed cannot be looked at");
                return Err(Undelivered::Failed);
            }
        };
        self.calls.enter(Service::Lambda, "Invoke");
        let event = object_created(id, key, &version);
        match self.functions.invoke(name::SUBMIT, event).await {
            Ok(_) => Ok(()),
            // It has been logged.
            Err(FunctionError { error_type, .. }) if error_type == stepwes_submit::REJECTED => {
                Err(Undelivered::Refused)
            }
            Err(_) => Err(Undelivered::Failed),
        }
    }
}

enum Undelivered {
    Refused,
    Failed,
}

/// The event as S3 sends it by EventBridge, but for size and ETag: to know the ETag of a file that
/// came by hand, all of it would have to be read.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html>
fn object_created(id: &str, key: &str, version: &str) -> Value {
    json!({
        "version": "0",
        "id": id,
        "detail-type": "Object Created",
        "source": "aws.s3",
        "account": arn::ACCOUNT,
        "time": wes_time(Utc::now()),
        "region": arn::REGION,
        "resources": [format!("arn:aws:s3:::{}", arn::BUCKET)],
        "detail": {
            "version": "0",
            "bucket": {"name": arn::BUCKET},
            "object": {"key": key, "sequencer": version},
        },
    })
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use stepwes_core::keys;

    use super::*;
    use crate::s3::{Credentials, Hooks};

    #[test]
    fn what_the_service_writes_itself_is_not_told() {
        let ours: HashSet<_> = SKIPPED.iter().map(|folder| format!("{folder}/")).collect();
        for prefix in keys::OURS {
            let told = prefix == keys::SUBMIT || prefix == keys::TRIGGERS;
            assert_eq!(ours.contains(prefix), !told, "{prefix}");
            assert_eq!(is_told(&format!("{prefix}x")), told, "{prefix}");
        }
        assert!(is_told("fastq/a.gz") && is_told("requests") && is_told("x/requests/y"));
    }

    /// A watch of a folder, as a server that has just started has it, but for the functions.
    async fn watch(folder: &Path) -> Watch {
        let keys = Arc::new(Credentials::new());
        let s3 = S3Endpoint::open(&folder.join("s3"), &[arn::BUCKET], keys, Hooks::default());
        let ledger = Arc::new(Ledger::open(folder).expect("a ledger"));
        let told = ledger.told_objects().await.expect("the objects");
        let (functions, calls) = (Arc::default(), Arc::default());
        Watch::new(ledger, told, s3.expect("a folder"), functions, calls)
    }

    /// What is being told of after one more look.
    async fn looked(watch: &mut Watch) -> BTreeSet<&str> {
        watch.look().await;
        watch.under_way.keys().map(String::as_str).collect()
    }

    /// Says that submit has dealt with what is being told of.
    async fn dealt_with(watch: &mut Watch, key: &str) {
        let found = watch.s3.present_version(arn::BUCKET, key.to_owned()).await;
        let version = found.expect("a folder").expect("a file");
        watch.told(Told { key: key.to_owned(), version }).await;
    }

    #[tokio::test]
    async fn a_file_is_told_of_once_it_is_the_same_in_two_looks_and_once_for_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut first = watch(folder.path()).await;
        let runs = folder.path().join("s3").join(arn::BUCKET);
        let write = |key: &str, content: &str| {
            let path = runs.join(key);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, content).expect("written");
        };
        let none = BTreeSet::new();
        assert_eq!(looked(&mut first).await, none);
        write("fastq/a b.gz", "1");
        write("submit/x.run.json", "{}");
        write("requests/1/request.json", "{}");
        write("rejected/submit/y.json", "{}");
        assert_eq!(looked(&mut first).await, none);
        // It is still being written.
        write("fastq/a b.gz", "12");
        assert_eq!(looked(&mut first).await, BTreeSet::from(["submit/x.run.json"]));
        let both = BTreeSet::from(["fastq/a b.gz", "submit/x.run.json"]);
        assert_eq!(looked(&mut first).await, both);
        dealt_with(&mut first, "fastq/a b.gz").await;
        drop(first);

        // The next server tells of what the first one did not get to, and of nothing else.
        let mut second = watch(folder.path()).await;
        assert_eq!(looked(&mut second).await, none);
        assert_eq!(looked(&mut second).await, BTreeSet::from(["submit/x.run.json"]));
        dealt_with(&mut second, "submit/x.run.json").await;
        assert_eq!(looked(&mut second).await, none);
        assert_eq!(looked(&mut second).await, none);

        // Another version is told of, also when it came through S3 itself; the same one is not.
        second.landed("fastq/a b.gz".to_owned()).await;
        assert_eq!(looked(&mut second).await, none);
        write("fastq/a b.gz", "123");
        second.landed("fastq/a b.gz".to_owned()).await;
        assert_eq!(looked(&mut second).await, BTreeSet::from(["fastq/a b.gz"]));
        // While that is told of, it is written again: told of afterwards.
        let before = second.s3.present_version(arn::BUCKET, "fastq/a b.gz".to_owned()).await;
        let version = before.expect("a folder").expect("a file");
        write("fastq/a b.gz", "1234");
        second.landed("fastq/a b.gz".to_owned()).await;
        second.told(Told { key: "fastq/a b.gz".to_owned(), version }).await;
        assert_eq!(looked(&mut second).await, BTreeSet::from(["fastq/a b.gz"]));
        dealt_with(&mut second, "fastq/a b.gz").await;

        // What is gone is forgotten.
        fs::remove_file(runs.join("fastq/a b.gz")).expect("removed");
        assert_eq!(looked(&mut second).await, none);
        let told = second.ledger.told_objects().await.expect("the objects");
        assert_eq!(told.keys().collect::<Vec<_>>(), ["submit/x.run.json"]);
    }
}
