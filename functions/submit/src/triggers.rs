//! The triggers of the runs bucket, read anew when they have changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use stepwes_cloud::{
    object_version::Read,
    objects::{Listed, ObjectError},
};
use stepwes_core::{
    keys,
    trigger::{MAX_BYTES, Trigger, name_of_file},
};

use crate::State;

/// How many are read at once.
const READS_AT_ONCE: usize = 16;

/// The triggers by their keys, as they were last read: the ETag, and the trigger unless it is bad.
#[derive(Debug, Default)]
pub struct Triggers(Mutex<BTreeMap<String, Known>>);

type Known = (String, Option<Arc<Trigger>>);

/// The file's name when a key is that of a trigger's file: directly in the folder of triggers.
pub(crate) fn file_of(key: &str) -> Option<&str> {
    key.strip_prefix(keys::TRIGGERS).filter(|file| !file.is_empty() && !file.contains('/'))
}

/// Every trigger that can be read and that the service takes. A bad one has been reported when it
/// landed. One listing, and one read for each that has changed since.
///
/// # Errors
/// [`ObjectError`].
pub(crate) async fn load(state: &State) -> Result<Vec<Arc<Trigger>>, ObjectError> {
    let mut names = BTreeSet::new();
    let mut files = files(state).await?;
    // Two files of one name are one trigger: the first; the second was refused when it landed.
    files.retain(|file| {
        file_of(&file.key).and_then(name_of_file).is_some_and(|name| names.insert(name.to_owned()))
    });
    let before = state.triggers.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let now: BTreeMap<String, Known> = stream::iter(files)
        .map(|Listed { key, etag, .. }| {
            let known = before.get(&key).filter(|(before, _)| *before == etag).cloned();
            async move {
                let known = match known {
                    Some(known) => known,
                    None => (etag, read(state, &key).await?.map(Arc::new)),
                };
                Ok::<_, ObjectError>((key, known))
            }
        })
        .buffer_unordered(READS_AT_ONCE)
        .try_collect()
        .await?;
    let found = now.values().filter_map(|(_, trigger)| trigger.clone()).collect();
    *state.triggers.0.lock().unwrap_or_else(PoisonError::into_inner) = now;
    Ok(found)
}

/// The files that are triggers by their keys, in the order of their keys.
///
/// # Errors
/// [`ObjectError`].
pub(crate) async fn files(state: &State) -> Result<Vec<Listed>, ObjectError> {
    let mut files = state.objects.list(keys::TRIGGERS).await?;
    files.retain(|file| file_of(&file.key).is_some());
    Ok(files)
}

async fn read(state: &State, key: &str) -> Result<Option<Trigger>, ObjectError> {
    let Read::Found { content, .. } = state.objects.get_limited(key, MAX_BYTES).await? else {
        return Ok(None);
    };
    let file = file_of(key).unwrap_or_default();
    let trigger = Trigger::parse(file, &content).and_then(|trigger| {
        trigger.check(&state.settings.trigger_buckets, &state.settings.bucket)?;
        Ok(trigger)
    });
    match trigger {
        Ok(trigger) => Ok(Some(trigger)),
        Err(error) => {
            tracing::warn!(key, %error, "a trigger that is refused starts nothing");
            Ok(None)
        }
    }
}
