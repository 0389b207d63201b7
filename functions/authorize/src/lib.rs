//! authorize: says whose token a request came with.
//!
//! API Gateway asks before it calls any other function (a REQUEST authorizer, payload format 2.0,
//! simple responses). One item is read; nothing is written.

use std::{collections::HashMap, sync::Arc};

use serde::{Deserialize, Serialize};
use stepwes_cloud::{
    Aws,
    env::{self, SettingError},
    step::StepFailure,
};
use stepwes_core::{
    Clock, SystemClock,
    caller_token::{CallerToken, SecretDigest},
};
use stepwes_store::{RunStore, StoreError};

/// The settings of authorize.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The run table's name (`STEPWES_TABLE`).
    pub table: String,
}

impl Settings {
    /// From the environment variable named at the field.
    ///
    /// # Errors
    /// [`SettingError`] when it is missing.
    pub fn from_env() -> Result<Self, SettingError> {
        Ok(Self { table: env::required("STEPWES_TABLE")? })
    }
}

/// What the function works with.
#[derive(Clone)]
pub struct State {
    /// The table that has the tokens.
    pub store: RunStore,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

impl State {
    /// With the clients of `aws` and the system's clock.
    #[must_use]
    pub fn new(aws: &Aws, settings: &Settings) -> Self {
        Self { store: aws.store(&settings.table), clock: Arc::new(SystemClock) }
    }
}

/// What the function reads of a request.
/// <https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-lambda-authorizer.html>
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Event {
    /// The request's headers. One that came more than once has its values in one, with commas.
    #[serde(default)]
    pub headers: HashMap<String, String>,
}

/// What API Gateway is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// Whether the request may go on.
    pub is_authorized: bool,
    /// Whose it is: what the API functions find as `authorizer.lambda`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<Context>,
}

/// Whose a request is, as API Gateway hands it on: texts alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Context {
    /// The owner of the token.
    pub owner: String,
    /// The owner's groups, with commas between them.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub groups: String,
}

/// Whose a request is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The owner of the token.
    pub owner: String,
    /// The owner's groups.
    pub groups: Vec<String>,
}

/// Decides about one request.
///
/// # Errors
/// When the table cannot be read: API Gateway answers 500 then, and nobody is let in.
pub async fn handle(state: &State, event: Event) -> Result<Decision, StepFailure> {
    let header = event
        .headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("authorization"))
        .map(|(_, value)| value.as_str());
    let identity = identify(state, header).await?;
    Ok(Decision {
        is_authorized: identity.is_some(),
        context: identity
            .map(|Identity { owner, groups }| Context { owner, groups: groups.join(",") }),
    })
}

/// Whose the token in an `Authorization` header is; `None` when it is nobody's, has expired or is
/// no token. A name that does not exist takes the same reading and hashing as one that does.
///
/// # Errors
/// When the table cannot be read.
pub async fn identify(state: &State, header: Option<&str>) -> Result<Option<Identity>, StoreError> {
    let Some(presented) = header.and_then(CallerToken::from_authorization) else {
        return Ok(None);
    };
    let name = presented.name();
    let found = state.store.token(name).await?;
    let digest = found.as_ref().map_or_else(SecretDigest::nobodys, |token| token.digest.clone());
    let is_right = digest.is_of(&presented);
    let Some(token) = found else { return Ok(None) };
    // A name that exists is no secret, and one that is tried again and again is worth a line.
    if !is_right {
        tracing::info!(token = %name, "refused: not the token's secret");
        return Ok(None);
    }
    if token.has_expired(state.clock.now()) {
        tracing::info!(token = %name, "refused: the token has expired");
        return Ok(None);
    }
    Ok(Some(Identity { owner: token.owner, groups: token.groups }))
}
