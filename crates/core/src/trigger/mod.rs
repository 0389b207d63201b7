//! Triggers: which objects that land in a bucket start which run.
//!
//! A trigger is a file below [`crate::keys::TRIGGERS`], JSON or YAML:
//!
//! ```yaml
//! bucket: lab-data
//! key: fastq/{sample}_R1.fastq.gz
//! wait_for: fastq/{sample}_R2.fastq.gz
//! owner: ada
//! request:
//!   workflow_url: https://example.org/align.cwl
//!   workflow_type: CWL
//!   workflow_type_version: v1.2
//!   workflow_params:
//!     sample: "{sample}"
//!     reads: ["{key.url}", "{mate.url}"]
//! ```
//!
//! Reading, matching and substitution are here, without IO; the function submit asks what of the
//! objects is there.

mod pattern;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

pub use pattern::{Parts, Pattern, PatternError};

use crate::{
    attachment::AttachmentName, caller_token::check_owner, error::ApiError, keys,
    request::WorkflowUrl, request_file::RequestFile, run::Run,
};
use pattern::{Split, is_name, split};

/// The tag that names the objects that started a run: a JSON list of `s3://` URLs. Requests cannot
/// set it.
pub const TRIGGERED_BY: &str = "stepwes.triggered_by";

/// The largest file of a trigger, in bytes.
pub const MAX_BYTES: u64 = 64 * 1024;

/// How many objects a trigger waits for at most, beside that of its key.
pub const MAX_MATES: usize = 9;

/// The largest request that a trigger makes, in bytes of JSON.
pub const MAX_REQUEST_BYTES: usize = 1024 * 1024;

/// How many events of a YAML file its aliases may repeat.
const MAX_REPLAYED: usize = 10_000;

/// The name of the object that a trigger's key stands for, in its request.
const KEY: &str = "key";

/// The name of the object that `wait_for` stands for when it is one pattern.
const MATE: &str = "mate";

/// The longest name of a trigger, in bytes.
const MAX_NAME_BYTES: usize = 64;

/// Why a file is no trigger, or not one for this service. The message says what to change.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct TriggerError(String);

impl TriggerError {
    fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

/// A trigger.
#[derive(Clone, Debug, PartialEq)]
pub struct Trigger {
    /// Its name: that of its file, without the extension.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// The bucket whose objects it looks at.
    pub bucket: String,
    /// Whose the runs are; where callers are not told apart, nobody need be named.
    pub owner: Option<String>,
    /// The objects that make a run, by their names in the request: that of `key` first.
    patterns: Vec<(String, Pattern)>,
    request: Map<String, Value>,
}

/// A trigger's file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: Option<String>,
    description: Option<String>,
    bucket: String,
    key: String,
    wait_for: Option<WaitFor>,
    owner: Option<String>,
    request: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "wait_for must be a pattern, or an object of names and patterns")]
enum WaitFor {
    One(String),
    Named(BTreeMap<String, String>),
}

/// Objects that belong together: one run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Match {
    /// What the trigger's parts stand for.
    pub parts: Parts,
    /// The objects, that of the trigger's `key` first.
    pub objects: Vec<MatchedObject>,
}

/// One of the objects that a run needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MatchedObject {
    /// Its name in the request.
    pub name: String,
    /// Its key.
    pub key: String,
}

/// The name of the trigger in a file; `None` when its extension is none of a trigger's.
#[must_use]
pub fn name_of_file(file: &str) -> Option<&str> {
    let (name, extension) = file.rsplit_once('.')?;
    matches!(extension, "yaml" | "yml" | "json").then_some(name)
}

/// The prefix of the files that a trigger attaches.
#[must_use]
pub fn attachments_prefix(name: &str) -> String {
    format!("{}{name}/", keys::TRIGGERS)
}

impl Trigger {
    /// Reads the file `file` (such as `pair.yaml`) with this content.
    ///
    /// # Errors
    /// [`TriggerError`], which says what to change.
    pub fn parse(file: &str, content: &[u8]) -> Result<Self, TriggerError> {
        let name = name_of_file(file).ok_or_else(|| {
            TriggerError::new(format!(
                "{file:?} is no name of a trigger's file; it ends in .yaml, .yml or .json"
            ))
        })?;
        let good = (1..=MAX_NAME_BYTES).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !good {
            return Err(TriggerError::new(format!(
                "{name:?} is no name of a trigger: letters, digits, hyphens and underscores, \
                 {MAX_NAME_BYTES} bytes at most"
            )));
        }
        if content.len() as u64 > MAX_BYTES {
            return Err(TriggerError::new(format!(
                "a trigger has {MAX_BYTES} bytes at most; put large values into a file that \
                 workflow_attachment names"
            )));
        }
        let text = std::str::from_utf8(content)
            .map_err(|_| TriggerError::new("the trigger is not UTF-8"))?;
        Self::of(name, read(file, text)?)
    }

    fn of(name: &str, file: File) -> Result<Self, TriggerError> {
        if let Some(other) = file.name.filter(|other| other != name) {
            return Err(TriggerError::new(format!(
                "the trigger says that its name is {other:?}; its file says {name:?}"
            )));
        }
        if !is_bucket_name(&file.bucket) {
            return Err(TriggerError::new(format!(
                "bucket: {:?} is no bucket's name; write it without s3:// and without a path",
                file.bucket
            )));
        }
        if let Some(owner) = &file.owner {
            check_owner(owner).map_err(|error| TriggerError::new(format!("owner: {error}")))?;
        }
        let parse = |field: &str, text: &str| {
            Pattern::parse(text).map_err(|error| TriggerError::new(format!("{field}: {error}")))
        };
        let mut patterns = vec![(KEY.to_owned(), parse("key", &file.key)?)];
        let mates = match file.wait_for {
            None => BTreeMap::new(),
            Some(WaitFor::One(text)) => BTreeMap::from([(MATE.to_owned(), text)]),
            Some(WaitFor::Named(named)) => named,
        };
        if mates.len() > MAX_MATES {
            return Err(TriggerError::new(format!(
                "wait_for: a trigger waits for {MAX_MATES} objects at most"
            )));
        }
        for (object, text) in mates {
            if !is_name(&object) || object == KEY {
                return Err(TriggerError::new(format!(
                    "wait_for: {object:?} is no name of an object: lower-case letters, digits and \
                     underscores, a letter first, and not key"
                )));
            }
            let pattern = parse(&format!("wait_for {object}"), &text)?;
            let (key, mine) = (sorted(&patterns[0].1), sorted(&pattern));
            if key != mine {
                return Err(TriggerError::new(format!(
                    "wait_for {object}: it must have the parts of key, since any of the objects \
                     may come last; key has {key:?}, it has {mine:?}"
                )));
            }
            if patterns.iter().any(|(_, other)| other.as_str() == text) {
                return Err(TriggerError::new(format!(
                    "wait_for {object}: the pattern {text:?} is there already"
                )));
            }
            patterns.push((object, pattern));
        }
        let trigger = Self {
            name: name.to_owned(),
            description: file.description,
            bucket: file.bucket,
            owner: file.owner,
            patterns,
            request: file.request,
        };
        trigger.check_request()?;
        Ok(trigger)
    }

    /// That the request is one, and names nothing that there is not.
    fn check_request(&self) -> Result<(), TriggerError> {
        for name in self.request.keys() {
            if !crate::request::FIELDS.contains(&name.as_str()) && name != "workflow_attachment" {
                return Err(TriggerError::new(format!(
                    "request: {name:?} is no field of a RunRequest; there are {} and \
                     workflow_attachment",
                    crate::request::FIELDS.join(", ")
                )));
            }
        }
        let example = self.example();
        let file = self
            .request(&example)
            .map_err(|error| TriggerError::new(format!("request: {error}")))?;
        let literal = |text: &str| matches!(split(text).as_deref(), Ok([] | [Split::Literal(_)]));
        let listed = self.request.get("workflow_attachment").and_then(Value::as_array);
        let named = listed.into_iter().flatten().filter_map(Value::as_str);
        let relative = matches!(
            WorkflowUrl::parse(&file.request.workflow_url),
            Ok(WorkflowUrl::Relative { .. })
        );
        let url = self.request.get("workflow_url").and_then(Value::as_str).filter(|_| relative);
        if let Some(text) = named.chain(url).find(|text| !literal(text)) {
            return Err(TriggerError::new(format!(
                "request: the attachment {text:?} must be named without braces: attachments are \
                 the trigger's own files"
            )));
        }
        Ok(())
    }

    /// Objects as they might be: every part is `x`.
    #[must_use]
    pub fn example(&self) -> Match {
        let parts = self.patterns[0].1.names().map(|name| (name.to_owned(), "x".to_owned()));
        self.objects_of(parts.collect())
    }

    /// The files that it attaches, by their names below [`attachments_prefix`].
    ///
    /// # Errors
    /// None for a trigger that could be read; the type is that of [`Trigger::request`].
    pub fn attachments(&self) -> Result<Vec<AttachmentName>, ApiError> {
        self.request(&self.example()).map(|file| file.attachments)
    }

    /// Holds it against a service: the buckets that triggers may name, and the runs bucket, whose
    /// own prefixes they may not reach.
    ///
    /// # Errors
    /// [`TriggerError`], which says what to change.
    pub fn check(&self, allowed: &[String], runs_bucket: &str) -> Result<(), TriggerError> {
        if self.bucket == runs_bucket {
            self.check_prefixes()?;
        }
        if !allowed.contains(&self.bucket) {
            return Err(TriggerError::new(format!(
                "bucket: objects of {:?} start no runs here; {}",
                self.bucket,
                if allowed.is_empty() {
                    "the operator names the buckets that do (TriggerBuckets)".to_owned()
                } else {
                    format!("those of {} do", allowed.join(", "))
                }
            )));
        }
        Ok(())
    }

    /// That no pattern reaches what the service itself writes into the runs bucket: a run would
    /// start the next.
    ///
    /// # Errors
    /// [`TriggerError`] naming pattern and prefix.
    pub fn check_prefixes(&self) -> Result<(), TriggerError> {
        for (_, pattern) in &self.patterns {
            if let Some(prefix) = keys::OURS.iter().find(|prefix| pattern.reaches(prefix)) {
                return Err(TriggerError::new(format!(
                    "the pattern {:?} reaches {prefix} of the runs bucket, which is the service's \
                     own; let it begin with another folder",
                    pattern.as_str()
                )));
            }
        }
        Ok(())
    }

    /// The patterns by the names of their objects, that of `key` first.
    pub fn patterns(&self) -> impl Iterator<Item = (&str, &str)> {
        self.patterns.iter().map(|(name, pattern)| (name.as_str(), pattern.as_str()))
    }

    /// The sets of objects that an object belongs to; none when it is none of the trigger's.
    ///
    /// Whichever object of a set is asked for, the answer has the same set: of an object that
    /// could be split in more than one way, only a split that all patterns agree in counts.
    #[must_use]
    pub fn matches(&self, bucket: &str, key: &str) -> Vec<Match> {
        let mut found: Vec<Match> = Vec::new();
        if bucket != self.bucket {
            return found;
        }
        for (_, pattern) in &self.patterns {
            let Some(parts) = pattern.find(key) else { continue };
            let set = self.objects_of(parts);
            let agreed = self.patterns.iter().zip(&set.objects).all(|((_, pattern), object)| {
                object.key.len() <= keys::MAX_KEY_BYTES
                    && pattern.find(&object.key).as_ref() == Some(&set.parts)
            });
            if agreed && !found.contains(&set) {
                found.push(set);
            }
        }
        found
    }

    /// The value of [`TRIGGERED_BY`] for the run of a set of objects.
    #[must_use]
    pub fn tag(&self, set: &Match) -> String {
        let urls = set.objects.iter().map(|object| format!("s3://{}/{}", self.bucket, object.key));
        json!(urls.collect::<Vec<_>>()).to_string()
    }

    fn objects_of(&self, parts: Parts) -> Match {
        let objects = self
            .patterns
            .iter()
            .map(|(name, pattern)| MatchedObject {
                name: name.clone(),
                // All patterns have the same parts.
                key: pattern.key(&parts).unwrap_or_default(),
            })
            .collect();
        Match { parts, objects }
    }

    /// The RunRequest that a set of objects makes: the trigger's own, with the names in its
    /// strings replaced. Its structure is never another.
    ///
    /// # Errors
    /// 400 naming what is wrong with it.
    pub fn request(&self, set: &Match) -> Result<RequestFile, ApiError> {
        let rendered = self.rendered(set)?;
        RequestFile::from_object(rendered)
    }

    /// The same, as JSON.
    ///
    /// # Errors
    /// 400 naming what is wrong with it.
    pub fn rendered(&self, set: &Match) -> Result<Map<String, Value>, ApiError> {
        let mut names: BTreeMap<String, String> = set.parts.clone();
        for MatchedObject { name, key } in &set.objects {
            let file = key.rsplit('/').next().unwrap_or(key);
            names.insert(format!("{name}.url"), format!("s3://{}/{key}", self.bucket));
            names.insert(format!("{name}.key"), key.clone());
            names.insert(format!("{name}.name"), file.to_owned());
        }
        let mut room = MAX_REQUEST_BYTES;
        substitute_in(&self.request, &names, &mut room)
    }

    /// What identifies the run of a set of objects, so that every event of it comes to the same:
    /// a digest of the trigger's name, the parts, and the objects' versions in the set's order.
    #[must_use]
    pub fn run_key(&self, set: &Match, versions: &[String]) -> String {
        let objects: Vec<_> = set.objects.iter().map(|object| &object.key).zip(versions).collect();
        let identity = json!([self.name, self.bucket, set.parts, objects]);
        hex::encode(Sha256::digest(identity.to_string()))
    }
}

/// Bucket and key of each object that started the run. The tag is the service's: submit writes it
/// for the run of a trigger, and takes it from nobody.
#[must_use]
pub fn triggered_by(run: &Run) -> Vec<(String, String)> {
    let urls = run.summary.tags.get(TRIGGERED_BY);
    let urls: Vec<String> =
        urls.and_then(|urls| serde_json::from_str(urls).ok()).unwrap_or_default();
    let places = urls.iter().filter_map(|url| url.strip_prefix("s3://")?.split_once('/'));
    places.map(|(bucket, key)| (bucket.to_owned(), key.to_owned())).collect()
}

fn sorted(pattern: &Pattern) -> Vec<&str> {
    let mut names: Vec<_> = pattern.names().collect();
    names.sort_unstable();
    names
}

fn read(file: &str, text: &str) -> Result<File, TriggerError> {
    if file.ends_with(".json") {
        return serde_json::from_str(text)
            .map_err(|error| TriggerError::new(format!("the trigger cannot be read: {error}")));
    }
    let options = serde_saphyr::options! {
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_REPLAYED },
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| TriggerError::new(format!("the trigger cannot be read: {error}")))
}

/// S3's rules for the names of buckets, as far as they keep a name from being something else.
fn is_bucket_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (3..=63).contains(&name.len())
        && name.bytes().all(|b| plain(b) || b == b'-' || b == b'.')
        && name.bytes().next().is_some_and(plain)
        && name.bytes().last().is_some_and(plain)
}

fn substitute_in(
    object: &Map<String, Value>,
    names: &BTreeMap<String, String>,
    room: &mut usize,
) -> Result<Map<String, Value>, ApiError> {
    object
        .iter()
        .map(|(name, value)| Ok((name.clone(), substituted(value, names, room)?)))
        .collect()
}

/// A value with the names in its strings replaced; the names of fields stay.
fn substituted(
    value: &Value,
    names: &BTreeMap<String, String>,
    room: &mut usize,
) -> Result<Value, ApiError> {
    Ok(match value {
        Value::String(text) => Value::String(substitute(text, names, room)?),
        Value::Array(items) => {
            let items: Result<_, ApiError> =
                items.iter().map(|item| substituted(item, names, room)).collect();
            Value::Array(items?)
        }
        Value::Object(object) => Value::Object(substitute_in(object, names, room)?),
        other => other.clone(),
    })
}

fn substitute(
    text: &str,
    names: &BTreeMap<String, String>,
    room: &mut usize,
) -> Result<String, ApiError> {
    let pieces = split(text).map_err(|error| ApiError::BadRequest(format!("{text:?}: {error}")))?;
    let mut whole = String::new();
    for piece in pieces {
        let piece = match piece {
            Split::Literal(literal) => literal,
            Split::Name(name) => names.get(name).ok_or_else(|| {
                let known: Vec<_> = names.keys().map(|name| format!("{{{name}}}")).collect();
                ApiError::BadRequest(format!(
                    "{text:?}: nothing is named {{{name}}}; there are {}; write {{{{ and }}}} for \
                     braces",
                    known.join(", ")
                ))
            })?,
        };
        *room = room.checked_sub(piece.len()).ok_or_else(|| {
            ApiError::PayloadTooLarge(format!(
                "the request has more than {MAX_REQUEST_BYTES} bytes with its names replaced"
            ))
        })?;
        whole.push_str(piece);
    }
    Ok(whole)
}

#[cfg(test)]
mod tests;
