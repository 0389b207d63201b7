//! Items and what they stand for.

use std::{collections::HashMap, str::FromStr};

use aws_sdk_dynamodb::{primitives::Blob, types::AttributeValue};
use chrono::{DateTime, SecondsFormat, Utc};
use stepwes_core::{
    caller_token::SecretDigest,
    resources::Resources,
    run::{Place, RequestSummary, Run, RunId},
    run_state::RunState,
    token::AttemptToken,
    trace::TraceParent,
};

use crate::{
    error::StoreError,
    model::{IdempotentRun, ListedRun, RunEventItem, StoredToken},
    schema as at,
};

/// An item as the SDK has it.
pub(crate) type Item = HashMap<String, AttributeValue>;

/// A string attribute.
pub(crate) fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

/// A number attribute.
pub(crate) fn number(value: impl ToString + Copy) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

/// An instant as the table has it: RFC 3339, UTC, milliseconds, so that text sorts as time does.
pub(crate) fn instant(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// The two keys of an item.
pub(crate) fn key(pk: impl Into<String>, sk: impl Into<String>) -> Item {
    Item::from([(at::PK.to_owned(), text(pk)), (at::SK.to_owned(), text(sk))])
}

fn texts(values: &[String]) -> AttributeValue {
    AttributeValue::L(values.iter().map(text).collect())
}

fn tags_text(tags: &std::collections::BTreeMap<String, String>) -> AttributeValue {
    text(tags_json(tags))
}

/// Tags as the table has them: a JSON object.
pub(crate) fn tags_json(tags: &std::collections::BTreeMap<String, String>) -> String {
    serde_json::Value::from_iter(tags.iter().map(|(k, v)| (k.as_str(), v.as_str()))).to_string()
}

fn json_text(resources: &Resources) -> AttributeValue {
    // Numbers under names of ours: there is nothing in it that could not be written.
    text(serde_json::to_string(resources).unwrap_or_default())
}

/// A place as the table has it.
pub(crate) fn place_text(place: Place) -> String {
    match place {
        Place::Waiting => at::WAITING.to_owned(),
        Place::Slot(slot) => slot.to_string(),
    }
}

/// The whole item of a run; an attribute without a value is absent.
pub(crate) fn encode_run(run: &Run) -> Item {
    let mut item = key(at::run_pk(run.run_id), at::RUN_SK);
    let mut set = |name: &str, value: Option<AttributeValue>| {
        if let Some(value) = value {
            item.insert(name.to_owned(), value);
        }
    };
    set(at::RUN_ID, Some(text(run.run_id.to_string())));
    set(at::OWNER, Some(text(&run.owner)));
    set(at::OWNER_SHARD, Some(text(at::owner_shard(&run.owner, at::shard_of(run.run_id)))));
    set(at::STATE, Some(text(run.state.as_str())));
    set(at::PHASE, Some(text(at::phase(run.run_id, run.state, run.place))));
    set(at::PLACE, run.place.map(|place| text(place_text(place))));
    set(at::VERSION, Some(number(run.version)));
    set(at::ATTEMPT, Some(number(run.attempt)));
    set(at::TOKEN, run.token.as_ref().map(|token| text(token.secret())));
    set(at::TASK_ARN, run.task_arn.as_ref().map(text));
    set(at::WORKFLOW_TYPE, Some(text(&run.summary.workflow_type)));
    set(at::WORKFLOW_TYPE_VERSION, Some(text(&run.summary.workflow_type_version)));
    set(at::WORKFLOW_ENGINE, Some(text(&run.summary.workflow_engine)));
    set(at::WORKFLOW_URL, Some(text(&run.summary.workflow_url)));
    set(at::TAGS, Some(tags_text(&run.summary.tags)));
    set(at::RESOURCES, (!run.resources.is_empty()).then(|| json_text(&run.resources)));
    set(at::DESTINATION, run.destination.as_ref().map(|place| text(place.to_string())));
    set(at::CREATED_AT, Some(text(instant(run.created_at))));
    set(at::UPDATED_AT, Some(text(instant(run.updated_at))));
    set(at::START_TIME, run.start_time.map(|time| text(instant(time))));
    set(at::END_TIME, run.end_time.map(|time| text(instant(time))));
    set(at::EXIT_CODE, run.exit_code.map(number));
    set(at::CMD, (!run.cmd.is_empty()).then(|| texts(&run.cmd)));
    set(at::SYSTEM_LOGS, (!run.system_logs.is_empty()).then(|| texts(&run.system_logs)));
    set(at::HAS_OUTPUTS, Some(AttributeValue::Bool(run.has_outputs)));
    let trace = run.trace.map(|trace| Blob::new(trace.to_bytes()));
    set(at::TRACE, trace.map(AttributeValue::B));
    item
}

/// Reads a run's item.
pub(crate) fn decode_run(item: &Item) -> Result<Run, StoreError> {
    let fields = Fields::of(item);
    Ok(Run {
        run_id: fields.parsed(at::RUN_ID)?,
        owner: fields.text(at::OWNER)?,
        state: fields.state(at::STATE)?,
        version: fields.number(at::VERSION)?,
        attempt: fields.number(at::ATTEMPT)?,
        place: fields.optional(at::PLACE, Fields::place)?,
        token: fields.optional(at::TOKEN, Fields::text)?.map(AttemptToken::from_secret),
        task_arn: fields.optional(at::TASK_ARN, Fields::text)?,
        summary: RequestSummary {
            workflow_type: fields.text(at::WORKFLOW_TYPE)?,
            workflow_type_version: fields.text(at::WORKFLOW_TYPE_VERSION)?,
            workflow_engine: fields.text(at::WORKFLOW_ENGINE)?,
            workflow_url: fields.text(at::WORKFLOW_URL)?,
            tags: fields.tags(at::TAGS)?,
        },
        resources: fields.optional(at::RESOURCES, Fields::resources)?.unwrap_or_default(),
        destination: fields.optional(at::DESTINATION, Fields::parsed)?,
        created_at: fields.parsed(at::CREATED_AT)?,
        updated_at: fields.parsed(at::UPDATED_AT)?,
        start_time: fields.optional(at::START_TIME, Fields::parsed)?,
        end_time: fields.optional(at::END_TIME, Fields::parsed)?,
        exit_code: fields.optional(at::EXIT_CODE, Fields::number)?,
        cmd: fields.optional(at::CMD, Fields::texts)?.unwrap_or_default(),
        system_logs: fields.optional(at::SYSTEM_LOGS, Fields::texts)?.unwrap_or_default(),
        has_outputs: fields.flag(at::HAS_OUTPUTS)?,
        trace: fields.optional(at::TRACE, Fields::trace)?,
    })
}

/// Reads a run's owner and state.
pub(crate) fn decode_state(item: &Item) -> Result<(String, RunState), StoreError> {
    let fields = Fields::of(item);
    Ok((fields.text(at::OWNER)?, fields.state(at::STATE)?))
}

/// Reads a run as the index of owners has it.
pub(crate) fn decode_listed(item: &Item) -> Result<ListedRun, StoreError> {
    let fields = Fields::of(item);
    Ok(ListedRun {
        run_id: fields.parsed(at::RUN_ID)?,
        state: fields.state(at::STATE)?,
        start_time: fields.optional(at::START_TIME, Fields::parsed)?,
        end_time: fields.optional(at::END_TIME, Fields::parsed)?,
        tags: fields.tags(at::TAGS)?,
    })
}

/// Reads a slot and the run that has it; `None` for one that is free.
pub(crate) fn decode_slot(item: &Item) -> Result<Option<(u32, RunId)>, StoreError> {
    let fields = Fields::of(item);
    let run_id = fields.optional(at::RUN_ID, Fields::parsed)?;
    run_id.map(|run_id| Ok((fields.parsed(at::SK)?, run_id))).transpose()
}

/// Reads what lists show of a run's own item, whose it is, and what was asked for as far as filters
/// look at it.
pub(crate) fn decode_listed_run(
    item: &Item,
) -> Result<(String, ListedRun, RequestSummary), StoreError> {
    let fields = Fields::of(item);
    let request = RequestSummary {
        workflow_type: fields.text(at::WORKFLOW_TYPE)?,
        workflow_engine: fields.text(at::WORKFLOW_ENGINE)?,
        ..RequestSummary::default()
    };
    Ok((fields.text(at::OWNER)?, decode_listed(item)?, request))
}

/// Reads the run id in an item's partition key.
pub(crate) fn decode_run_pk(item: &Item) -> Result<RunId, StoreError> {
    let fields = Fields::of(item);
    let pk = fields.text(at::PK)?;
    at::run_id_of(&pk).ok_or_else(|| fields.wrong(at::PK, "it is no run's key"))
}

/// The event item of a run's last change: `run` as it is after it.
pub(crate) fn encode_event(
    run: &Run,
    from: Option<RunState>,
    event: &str,
    cause: String,
    change_id: &str,
) -> Item {
    let mut item = key(at::run_pk(run.run_id), at::event_sk(run.version));
    let mut set = |name: &str, value: Option<AttributeValue>| {
        if let Some(value) = value {
            item.insert(name.to_owned(), value);
        }
    };
    set(at::RUN_ID, Some(text(run.run_id.to_string())));
    set(at::VERSION, Some(number(run.version)));
    set(at::FROM, from.map(|state| text(state.as_str())));
    set(at::TO, Some(text(run.state.as_str())));
    set(at::EVENT, Some(text(event)));
    set(at::ATTEMPT, Some(number(run.attempt)));
    set(at::TIME, Some(text(instant(run.updated_at))));
    set(at::CAUSE, Some(text(cause)));
    set(at::OWNER, Some(text(&run.owner)));
    set(at::TAGS, Some(tags_text(&run.summary.tags)));
    set(at::START_TIME, run.start_time.map(|time| text(instant(time))));
    set(at::END_TIME, run.end_time.map(|time| text(instant(time))));
    set(at::HAS_OUTPUTS, Some(AttributeValue::Bool(run.has_outputs)));
    set(at::TRACEPARENT, run.trace.map(|trace| text(trace.to_string())));
    set(at::CHANGE_ID, Some(text(change_id)));
    item
}

/// Reads an event item.
pub(crate) fn decode_event(item: &Item) -> Result<RunEventItem, StoreError> {
    let fields = Fields::of(item);
    Ok(RunEventItem {
        run_id: fields.parsed(at::RUN_ID)?,
        version: fields.number(at::VERSION)?,
        from: fields.optional(at::FROM, Fields::state)?,
        to: fields.state(at::TO)?,
        event: fields.text(at::EVENT)?,
        attempt: fields.number(at::ATTEMPT)?,
        time: fields.parsed(at::TIME)?,
        cause: fields.text(at::CAUSE)?,
        owner: fields.text(at::OWNER)?,
        tags: fields.tags(at::TAGS)?,
        start_time: fields.optional(at::START_TIME, Fields::parsed)?,
        end_time: fields.optional(at::END_TIME, Fields::parsed)?,
        has_outputs: fields.flag(at::HAS_OUTPUTS)?,
        trace: fields.optional(at::TRACEPARENT, Fields::parsed)?,
    })
}

/// Reads an idempotency item and when it expires, in seconds since 1970.
pub(crate) fn decode_idempotent(item: &Item) -> Result<(IdempotentRun, i64), StoreError> {
    let fields = Fields::of(item);
    let run = IdempotentRun {
        run_id: fields.parsed(at::RUN_ID)?,
        fingerprint: fields.text(at::FINGERPRINT)?,
    };
    Ok((run, fields.number(at::EXPIRES_AT)?))
}

/// Reads one shard of the counts; a state that it does not name counts nothing.
pub(crate) fn decode_counts(item: &Item) -> Result<[(RunState, i64); 9], StoreError> {
    let fields = Fields::of(item);
    let mut counts = RunState::ALL.map(|state| (state, 0));
    for (state, count) in &mut counts {
        *count = fields.optional(state.as_str(), Fields::number)?.unwrap_or_default();
    }
    Ok(counts)
}

/// The item of a caller's token.
pub(crate) fn encode_token(token: &StoredToken) -> Item {
    let mut item = key(at::TOKENS_PK, token.name.as_str());
    let mut set = |name: &str, value: AttributeValue| {
        item.insert(name.to_owned(), value);
    };
    set(at::OWNER, text(&token.owner));
    set(at::GROUPS, texts(&token.groups));
    set(at::SALT, text(&token.digest.salt));
    set(at::HASH, text(&token.digest.hash));
    set(at::CREATED_AT, text(instant(token.created_at)));
    if let Some(end) = token.expires_at {
        set(at::EXPIRES_AT, number(end.timestamp()));
    }
    if let Some(description) = &token.description {
        set(at::DESCRIPTION, text(description));
    }
    item
}

/// Reads a caller's token.
pub(crate) fn decode_token(item: &Item) -> Result<StoredToken, StoreError> {
    let fields = Fields::of(item);
    let expires_at = fields
        .optional(at::EXPIRES_AT, Fields::number)?
        .map(|seconds| {
            DateTime::from_timestamp(seconds, 0)
                .ok_or_else(|| fields.wrong(at::EXPIRES_AT, "it is no time"))
        })
        .transpose()?;
    Ok(StoredToken {
        name: fields.parsed(at::SK)?,
        owner: fields.text(at::OWNER)?,
        groups: fields.texts(at::GROUPS)?,
        digest: SecretDigest { salt: fields.text(at::SALT)?, hash: fields.text(at::HASH)? },
        created_at: fields.parsed(at::CREATED_AT)?,
        expires_at,
        description: fields.optional(at::DESCRIPTION, Fields::text)?,
    })
}

/// An item that is being read; its errors name the item and the field.
struct Fields<'a> {
    item: &'a Item,
}

impl<'a> Fields<'a> {
    const fn of(item: &'a Item) -> Self {
        Self { item }
    }

    fn wrong(&self, field: &'static str, problem: impl Into<String>) -> StoreError {
        let part = |name| match self.item.get(name) {
            Some(AttributeValue::S(text)) => text.as_str(),
            _ => "?",
        };
        let item = format!("{}/{}", part(at::PK), part(at::SK));
        StoreError::Codec { item, field, problem: problem.into() }
    }

    fn value(&self, field: &'static str) -> Result<&'a AttributeValue, StoreError> {
        self.item.get(field).ok_or_else(|| self.wrong(field, "it is missing"))
    }

    fn optional<T>(
        &self,
        field: &'static str,
        read: impl FnOnce(&Self, &'static str) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        if self.item.contains_key(field) { read(self, field).map(Some) } else { Ok(None) }
    }

    fn str(&self, field: &'static str) -> Result<&'a str, StoreError> {
        match self.value(field)? {
            AttributeValue::S(text) => Ok(text),
            _ => Err(self.wrong(field, "it is not a string")),
        }
    }

    fn text(&self, field: &'static str) -> Result<String, StoreError> {
        self.str(field).map(str::to_owned)
    }

    fn parsed<T: FromStr<Err: std::fmt::Display>>(
        &self,
        field: &'static str,
    ) -> Result<T, StoreError> {
        self.str(field)?.parse().map_err(|error: T::Err| self.wrong(field, error.to_string()))
    }

    fn number<T: FromStr<Err: std::fmt::Display>>(
        &self,
        field: &'static str,
    ) -> Result<T, StoreError> {
        match self.value(field)? {
            AttributeValue::N(digits) => {
                digits.parse().map_err(|error: T::Err| self.wrong(field, error.to_string()))
            }
            _ => Err(self.wrong(field, "it is not a number")),
        }
    }

    fn flag(&self, field: &'static str) -> Result<bool, StoreError> {
        match self.value(field)? {
            AttributeValue::Bool(truth) => Ok(*truth),
            _ => Err(self.wrong(field, "it is not a boolean")),
        }
    }

    fn state(&self, field: &'static str) -> Result<RunState, StoreError> {
        RunState::parse(self.str(field)?).ok_or_else(|| self.wrong(field, "it is not a state"))
    }

    fn trace(&self, field: &'static str) -> Result<TraceParent, StoreError> {
        match self.value(field)? {
            AttributeValue::B(bytes) => TraceParent::from_bytes(bytes.as_ref())
                .map_err(|error| self.wrong(field, error.to_string())),
            _ => Err(self.wrong(field, "it is not binary")),
        }
    }

    fn place(&self, field: &'static str) -> Result<Place, StoreError> {
        match self.str(field)? {
            at::WAITING => Ok(Place::Waiting),
            _ => self.parsed(field).map(Place::Slot),
        }
    }

    fn texts(&self, field: &'static str) -> Result<Vec<String>, StoreError> {
        let AttributeValue::L(values) = self.value(field)? else {
            return Err(self.wrong(field, "it is not a list"));
        };
        let read = |value: &AttributeValue| match value {
            AttributeValue::S(text) => Ok(text.clone()),
            _ => Err(self.wrong(field, "it holds what is not a string")),
        };
        values.iter().map(read).collect()
    }

    fn resources(&self, field: &'static str) -> Result<Resources, StoreError> {
        serde_json::from_str(self.str(field)?).map_err(|error| self.wrong(field, error.to_string()))
    }

    fn tags(
        &self,
        field: &'static str,
    ) -> Result<std::collections::BTreeMap<String, String>, StoreError> {
        serde_json::from_str(self.str(field)?).map_err(|error| self.wrong(field, error.to_string()))
    }
}
