//! Runs that files start: a RunRequest that is dropped into the runs bucket, and objects that
//! triggers wait for.
//!
//! S3 tells of an object at least once, of two objects in any order, and both at once. Whatever it
//! tells, the run is identified by what is there: a dropped request by its version, as GET tells it,
//! the objects of a trigger by theirs, as HEAD does. So every event of the same objects comes to the same
//! idempotency key, and [`submit`] makes one run of them. Of a pair, the event of the object that
//! came last finds both: S3 is consistent, and tells of an object when it is there.
//!
//! An invocation that fails is repeated by Lambda; one that is cut off anywhere is repeated whole.
//! Every step here may be done again.

use bytes::Bytes;
use futures::{StreamExt as _, future::try_join_all, stream};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use stepwes_cloud::{
    lambda::invocation_trace,
    object_version::{ObjectVersion, Read},
    objects::ObjectError,
    step::StepFailure,
};
use stepwes_core::{
    ApiError, RunId,
    attachment::AttachmentName,
    caller_token::check_owner,
    keys,
    request_file::{self, RequestFile},
    trigger::{MAX_BYTES, Match, TRIGGERED_BY, Trigger, attachments_prefix, name_of_file},
};

use crate::{
    State,
    event::{EventFailure, Landed},
    rejection::{Subject, report, withdraw},
    submission::{IdempotencyKey, ReceivedAttachment, check_limits, submit, too_many_attachments},
    triggers::{file_of, files, load},
};

/// How many attachments are on their way from S3 at once.
const READS_AT_ONCE: usize = 8;

/// What an event has come to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// The runs that there are of it now, started by this event or by an earlier one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<Started>,
    /// The triggers that wait for other objects.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<Waiting>,
    /// Why nothing was to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nothing: Option<&'static str>,
}

/// A run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Started {
    /// The trigger; none for a dropped request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trigger: Option<String>,
    /// The run's id.
    pub run_id: RunId,
}

/// A trigger that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// The trigger.
    pub trigger: String,
    /// The keys that it waits for.
    pub missing: Vec<String>,
}

impl Outcome {
    fn nothing(why: &'static str) -> Self {
        Self { nothing: Some(why), ..Self::default() }
    }

    fn run(run_id: RunId) -> Self {
        Self { runs: vec![Started { trigger: None, run_id }], ..Self::default() }
    }
}

/// Deals with one `Object Created` event.
///
/// # Errors
/// [`EventFailure`]: what is refused has been reported below `rejected/`; an event of another kind,
/// or a service that fails, has not.
pub async fn handle(state: &State, event: Value) -> Result<Outcome, EventFailure> {
    let event = Landed::read(event)?;
    let outcome = if event.bucket == state.settings.bucket {
        landed_in_runs(state, &event).await
    } else {
        landed(state, &event).await
    };
    let (bucket, key, event_id) = (&event.bucket, &event.key, &event.event_id);
    match &outcome {
        Ok(outcome) => {
            let runs: Vec<_> = outcome.runs.iter().map(|run| run.run_id.to_string()).collect();
            let run_id = runs.join(",");
            let waiting = outcome.waiting.len();
            let nothing = outcome.nothing;
            tracing::info!(bucket, key, event_id, run_id, waiting, nothing, "an object landed");
        }
        Err(failure) => {
            let error_type = failure.error_type();
            tracing::warn!(bucket, key, event_id, %failure, error_type, "the event failed");
        }
    }
    outcome
}

async fn landed_in_runs(state: &State, event: &Landed) -> Result<Outcome, EventFailure> {
    let key = event.key.as_str();
    if key.starts_with(keys::SUBMIT) {
        if !key.ends_with(request_file::SUFFIX) {
            return Ok(Outcome::nothing("no RunRequest: its name does not end in .run.json"));
        }
        let subject = Subject { what: "run request", trigger: None, place: key };
        return reported(state, event, subject, dropped(state, event).await).await;
    }
    if let Some(file) = file_of(key) {
        let subject = Subject { what: "trigger", trigger: None, place: key };
        return reported(state, event, subject, trigger_file(state, event, file).await).await;
    }
    if keys::OURS.iter().any(|prefix| key.starts_with(prefix)) {
        return Ok(Outcome::nothing("one of the service's own files"));
    }
    landed(state, event).await
}

/// Reports what was refused, and withdraws the report of what is taken by now.
async fn reported<T>(
    state: &State,
    event: &Landed,
    subject: Subject<'_>,
    outcome: Result<T, EventFailure>,
) -> Result<T, EventFailure> {
    match &outcome {
        Err(EventFailure::Rejected(why)) => report(state, subject, event, why).await?,
        Ok(_) => withdraw(state, subject.place).await,
        Err(EventFailure::Failed(_)) => {}
    }
    outcome
}

/// A RunRequest that was dropped.
async fn dropped(state: &State, event: &Landed) -> Result<Outcome, EventFailure> {
    let owner = owner_of(state, &event.key).map_err(EventFailure::Rejected)?;
    let max = state.settings.limits.max_field_bytes;
    let read = state.objects.get_limited(&event.key, max).await;
    let (content, version) = match read.map_err(StepFailure::from)? {
        Read::Found { content, version } => (content, version),
        Read::TooLarge { size } => {
            return Err(EventFailure::Rejected(format!(
                "the request has {size} bytes, and {max} at most are taken; put large values into a file that workflow_attachment names"
            )));
        }
        Read::Missing => return Ok(Outcome::nothing("removed meanwhile")),
    };
    let RequestFile { request, attachments } = RequestFile::from_json(&content)?;
    let folder = event.key.rfind('/').map_or("", |slash| &event.key[..=slash]);
    let attachments = fetch(state, folder, attachments).await?;
    let identity = json!([event.bucket, event.key, version.identity()]).to_string();
    let key = IdempotencyKey::of_event(&hex::encode(Sha256::digest(identity)));
    match submit(state, &owner, Some(key), request, attachments, invocation_trace()).await {
        Ok(run_id) => Ok(Outcome::run(run_id)),
        // The attachments were changed between two tellings of the same event.
        Err(ApiError::Conflict(_)) => Ok(Outcome::nothing("this version has had its run")),
        Err(error) => Err(error.into()),
    }
}

/// Whose a dropped request is: its first folder below `submit/` says so, percent-encoded where the
/// name has a slash. Where callers are not told apart, everything is everybody's.
fn owner_of(state: &State, key: &str) -> Result<String, String> {
    if let Some(everybody) = state.settings.callers.everybody() {
        return Ok(everybody);
    }
    let folder = key.strip_prefix(keys::SUBMIT).and_then(|rest| rest.split_once('/'));
    let Some((folder, _)) = folder else {
        return Err(
            "the request lies in nobody's folder; put it into submit/OWNER/, whose run it is to be"
                .to_owned(),
        );
    };
    let owner = percent_decode_str(folder).decode_utf8().map_err(|_| {
        format!("the folder {folder:?} is no owner's: it is not UTF-8 when percent-decoded")
    })?;
    check_owner(&owner).map_err(|error| error.to_string())?;
    Ok(owner.into_owned())
}

/// Fetches attachments from a folder of the runs bucket.
async fn fetch(
    state: &State,
    folder: &str,
    names: Vec<AttachmentName>,
) -> Result<Vec<ReceivedAttachment>, EventFailure> {
    let limits = &state.settings.limits;
    if names.len() > limits.max_attachments {
        return Err(too_many_attachments(limits).into());
    }
    let max = limits.max_request_bytes;
    let too_large = |name: &AttachmentName| {
        EventFailure::Rejected(format!(
            "the attachments have more than {max} bytes together with {name}; name large files by URL in workflow_params"
        ))
    };
    let mut left = max;
    let mut fetched = Vec::with_capacity(names.len());
    let mut reads = stream::iter(names)
        .map(|name| async move {
            let read = state.objects.get_limited(&format!("{folder}{name}"), max).await;
            (name, read)
        })
        .buffered(READS_AT_ONCE);
    while let Some((name, read)) = reads.next().await {
        let content: Bytes = match read.map_err(StepFailure::from)? {
            Read::Found { content, .. } => content,
            Read::TooLarge { .. } => return Err(too_large(&name)),
            Read::Missing => {
                return Err(EventFailure::Rejected(format!(
                    "the attachment {name} is not there; put it at {}, and then the file that names it again",
                    state.objects.url(&format!("{folder}{name}"))
                )));
            }
        };
        left = left.checked_sub(content.len() as u64).ok_or_else(|| too_large(&name))?;
        fetched.push(ReceivedAttachment { name, content });
    }
    Ok(fetched)
}

/// A trigger's file: checked now, so that its author learns at once what is wrong with it.
async fn trigger_file(state: &State, event: &Landed, file: &str) -> Result<Outcome, EventFailure> {
    let rejected = |error: &dyn std::fmt::Display| EventFailure::Rejected(error.to_string());
    let read = state.objects.get_limited(&event.key, MAX_BYTES).await;
    let content = match read.map_err(StepFailure::from)? {
        Read::Found { content, .. } => content,
        Read::TooLarge { size } => {
            return Err(EventFailure::Rejected(format!(
                "the trigger has {size} bytes, and {MAX_BYTES} at most are read"
            )));
        }
        Read::Missing => {
            return Ok(Outcome::nothing("removed meanwhile"));
        }
    };
    let trigger = Trigger::parse(file, &content).map_err(|error| rejected(&error))?;
    trigger
        .check(&state.settings.trigger_buckets, &state.settings.bucket)
        .map_err(|error| rejected(&error))?;
    owner_of_trigger(state, &trigger)?;
    let others = files(state).await.map_err(StepFailure::from)?;
    let same = |key: &str| file_of(key).and_then(name_of_file) == Some(trigger.name.as_str());
    if let Some(other) = others.iter().find(|other| other.key != event.key && same(&other.key)) {
        return Err(EventFailure::Rejected(format!(
            "there is {} already, a trigger of the same name; remove one of them",
            other.key
        )));
    }
    let RequestFile { request, attachments } = trigger.request(&trigger.example())?;
    request.validate(&state.settings.engines, &state.settings.schemes, &attachments)?;
    check_limits(&request, attachments.len(), &state.settings.limits)?;
    fetch(state, &attachments_prefix(&trigger.name), attachments).await?;
    Ok(Outcome::nothing("a good trigger"))
}

fn owner_of_trigger(state: &State, trigger: &Trigger) -> Result<String, EventFailure> {
    state.settings.callers.everybody().or_else(|| trigger.owner.clone()).ok_or_else(|| {
        EventFailure::Rejected(
            "owner is missing: name the owner of the runs that the trigger starts".to_owned(),
        )
    })
}

/// An object that triggers may wait for.
async fn landed(state: &State, event: &Landed) -> Result<Outcome, EventFailure> {
    if !state.settings.trigger_buckets.contains(&event.bucket) {
        return Ok(Outcome::nothing("no bucket of triggers"));
    }
    let triggers = load(state).await.map_err(StepFailure::from)?;
    let mut outcome = Outcome::default();
    let mut failure = None;
    for trigger in &triggers {
        for set in trigger.matches(&event.bucket, &event.key) {
            // One trigger's trouble does not keep the others from their runs.
            match of_set(state, event, trigger, &set).await {
                Ok(Set::Run(run_id)) => {
                    outcome.runs.push(Started { trigger: Some(trigger.name.clone()), run_id });
                }
                Ok(Set::Waits(missing)) => {
                    outcome.waiting.push(Waiting { trigger: trigger.name.clone(), missing });
                }
                Ok(Set::Had) => outcome.nothing = Some("these versions have had their run"),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
    }
    match failure {
        Some(failure) => Err(failure),
        None if outcome == Outcome::default() => Ok(Outcome::nothing("no trigger waits for it")),
        None => Ok(outcome),
    }
}

/// What a set of objects comes to.
enum Set {
    Run(RunId),
    /// It is not whole yet: the missing keys.
    Waits(Vec<String>),
    /// It has had its run, of another request: the trigger was changed since.
    Had,
}

async fn of_set(
    state: &State,
    event: &Landed,
    trigger: &Trigger,
    set: &Match,
) -> Result<Set, EventFailure> {
    let bucket = state.objects.in_bucket(&trigger.bucket);
    let looks = set.objects.iter().map(|object| bucket.version(&object.key));
    let found = try_join_all(looks).await.map_err(|error| unreadable(&trigger.bucket, error))?;
    let missing: Vec<_> =
        set.objects.iter().zip(&found).filter(|(_, found)| found.is_none()).collect();
    if !missing.is_empty() {
        return Ok(Set::Waits(missing.iter().map(|(object, _)| object.key.clone()).collect()));
    }
    let versions: Vec<_> = found.iter().flatten().map(ObjectVersion::identity).collect();
    let place =
        format!("{}{}/{}", attachments_prefix(&trigger.name), trigger.bucket, set.objects[0].key);
    let subject = Subject { what: "run", trigger: Some(&trigger.name), place: &place };
    let run = run_of_set(state, trigger, set, &versions).await;
    reported(state, event, subject, run).await
}

async fn run_of_set(
    state: &State,
    trigger: &Trigger,
    set: &Match,
    versions: &[String],
) -> Result<Set, EventFailure> {
    let owner = owner_of_trigger(state, trigger)?;
    let RequestFile { mut request, attachments } = trigger.request(set)?;
    request.tags.insert(TRIGGERED_BY.to_owned(), trigger.tag(set));
    let attachments = fetch(state, &attachments_prefix(&trigger.name), attachments).await?;
    let key = IdempotencyKey::of_event(&trigger.run_key(set, versions));
    match submit(state, &owner, Some(key), request, attachments, invocation_trace()).await {
        Ok(run_id) => Ok(Set::Run(run_id)),
        Err(ApiError::Conflict(_)) => Ok(Set::Had),
        Err(error) => Err(error.into()),
    }
}

/// A bucket of the operator's that cannot be looked into.
fn unreadable(bucket: &str, error: ObjectError) -> EventFailure {
    if error.is_retryable() {
        return StepFailure::from(error).into();
    }
    tracing::error!(error = &error as &dyn std::error::Error, bucket, "the bucket refused");
    StepFailure::Internal(format!(
        "the bucket {bucket} refused; it must let the function submit read and list it"
    ))
    .into()
}
