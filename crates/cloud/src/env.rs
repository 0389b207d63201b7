//! Settings from environment variables, with errors that name the variable.

use std::{fmt::Display, ops::RangeInclusive, str::FromStr};

use stepwes_core::{
    destination::{Destination, Destinations},
    resources::ResourceBounds,
};
use thiserror::Error;

/// A setting is missing or cannot be read. Deploying again with the variable set mends it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SettingError {
    /// The variable is not set, or empty.
    #[error("the environment variable {0} is not set")]
    Missing(&'static str),
    /// The variable's value cannot be read.
    #[error("the environment variable {name} cannot be read: {why}")]
    Unreadable {
        /// The variable.
        name: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

/// The value of `name`.
///
/// # Errors
/// [`SettingError::Missing`] when it is not set or empty.
pub fn required(name: &'static str) -> Result<String, SettingError> {
    optional(name).ok_or(SettingError::Missing(name))
}

/// The value of `name`; `None` when it is not set or empty.
#[must_use]
pub fn optional(name: &'static str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The value of `name` as a `T`, `default` when it is not set.
///
/// # Errors
/// [`SettingError::Unreadable`] when it is set to something else.
pub fn parsed<T>(name: &'static str, default: T) -> Result<T, SettingError>
where
    T: FromStr,
    T::Err: Display,
{
    optional(name).map_or(Ok(default), |value| {
        value
            .parse()
            .map_err(|error: T::Err| SettingError::Unreadable { name, why: error.to_string() })
    })
}

/// How many runs may be at work at once (`STEPWES_MAX_RUNS`, 0 to 10,000; 0, and so `None`, for as
/// many as there are).
///
/// # Errors
/// [`SettingError::Unreadable`] when it is no number or not within its range.
pub fn max_runs() -> Result<Option<u32>, SettingError> {
    let limit = bounded("STEPWES_MAX_RUNS", 0, 0..=10_000)?;
    Ok((limit > 0).then_some(limit))
}

/// The number in `name`, `default` when it is not set.
///
/// # Errors
/// [`SettingError::Unreadable`] when it is no number or not within `range`.
pub fn bounded(
    name: &'static str,
    default: u32,
    range: RangeInclusive<u32>,
) -> Result<u32, SettingError> {
    let value = parsed(name, default)?;
    if range.contains(&value) {
        return Ok(value);
    }
    let why = format!("{value} is not within {} and {}", range.start(), range.end());
    Err(SettingError::Unreadable { name, why })
}

/// The value of `name` read as JSON.
///
/// # Errors
/// [`SettingError`] when it is missing or not of that form.
pub fn json<T: serde::de::DeserializeOwned>(name: &'static str) -> Result<T, SettingError> {
    serde_json::from_str(&required(name)?)
        .map_err(|error| SettingError::Unreadable { name, why: error.to_string() })
}

/// What a run gets, and may ask for (`STEPWES_RESOURCES`, JSON).
///
/// # Errors
/// [`SettingError`] when it is missing, not of that form, or out of its range.
pub fn resources() -> Result<ResourceBounds, SettingError> {
    let name = "STEPWES_RESOURCES";
    let bounds: ResourceBounds = json(name)?;
    match bounds.check() {
        Ok(()) => Ok(bounds),
        Err(why) => Err(SettingError::Unreadable { name, why }),
    }
}

/// Where runs may put their outputs (`STEPWES_OUTPUT_BUCKETS`, names separated by commas; none), and
/// where those go that do not say (`STEPWES_DEST_BUCKET_BASE`, `s3://BUCKET/PREFIX`, a bucket among
/// them; the runs bucket).
///
/// # Errors
/// [`SettingError::Unreadable`] for what is no destination, or in another bucket.
pub fn destinations() -> Result<Destinations, SettingError> {
    let name = "STEPWES_DEST_BUCKET_BASE";
    let unreadable = |why: String| SettingError::Unreadable { name, why };
    let buckets = list("STEPWES_OUTPUT_BUCKETS");
    let default = optional(name)
        .map(|text| text.parse::<Destination>().map_err(|error| unreadable(error.to_string())))
        .transpose()?;
    match &default {
        Some(default) if !buckets.iter().any(|bucket| bucket == default.bucket()) => {
            Err(unreadable("its bucket is none of STEPWES_OUTPUT_BUCKETS".to_owned()))
        }
        _ => Ok(Destinations { buckets, default }),
    }
}

/// The comma-separated values of `name`; none when it is not set.
#[must_use]
pub fn list(name: &'static str) -> Vec<String> {
    optional(name)
        .map(|value| {
            value
                .split(',')
                .map(|item| item.trim().to_owned())
                .filter(|item| !item.is_empty())
                .collect()
        })
        .unwrap_or_default()
}
