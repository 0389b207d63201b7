//! Who asks, and for which run.

use std::convert::Infallible;

use axum::extract::{FromRequestParts, Path};
use http::{Extensions, request::Parts};
use lambda_http::request::RequestContext;
use serde::de::DeserializeOwned;
use stepwes_core::{ApiError, Run, RunId, RunState};
use stepwes_store::RunStore;

use super::error::{HttpError, api_error};

/// The owner of what the request makes, and the one whose runs it sees.
///
/// A front end that has authenticated the caller puts one into the request's extensions. Else it
/// is what API Gateway's authorizer found: a Lambda authorizer's `owner`, a JWT's `sub` claim, or
/// the IAM role or user. Without an authorizer everybody is `anonymous`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The owner's name, opaque to us.
    pub owner: String,
}

impl Caller {
    /// Everybody, where nobody is told apart.
    #[must_use]
    pub fn anonymous() -> Self {
        Self { owner: "anonymous".to_owned() }
    }

    /// The caller's run of that id, read consistently.
    ///
    /// # Errors
    /// The same 404 for a malformed id, an unknown one, and somebody else's.
    pub async fn run(&self, store: &RunStore, run_id: &str) -> Result<Run, ApiError> {
        let unknown = || ApiError::run_not_found(run_id);
        let id = run_id.parse().map_err(|_| unknown())?;
        let run = store.get(id).await.map_err(api_error)?;
        run.filter(|run| run.owner == self.owner).ok_or_else(unknown)
    }

    /// The state of the caller's run of that id, read consistently, and the id as it is kept.
    ///
    /// # Errors
    /// As [`Caller::run`].
    pub async fn run_state(
        &self,
        store: &RunStore,
        run_id: &str,
    ) -> Result<(RunId, RunState), ApiError> {
        let unknown = || ApiError::run_not_found(run_id);
        let id = run_id.parse().map_err(|_| unknown())?;
        let found = store.state(id).await.map_err(api_error)?;
        let (_, state) = found.filter(|(owner, _)| *owner == self.owner).ok_or_else(unknown)?;
        Ok((id, state))
    }

    fn of(extensions: &Extensions) -> Self {
        extensions
            .get::<Self>()
            .cloned()
            .or_else(|| extensions.get().and_then(authorized).map(|owner| Self { owner }))
            .unwrap_or_else(Self::anonymous)
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.extensions))
    }
}

/// The path's parameters, percent-decoded. Bytes that are no UTF-8 name nothing that exists: 404.
#[derive(Clone, Copy, Debug)]
pub struct Params<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Params<T> {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, HttpError> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(params)) => Ok(Self(params)),
            Err(_) => Err(ApiError::NotFound(
                "there is no such thing: a part of the path is not UTF-8".to_owned(),
            )
            .into()),
        }
    }
}

fn authorized(context: &RequestContext) -> Option<String> {
    let RequestContext::ApiGatewayV2(context) = context else { return None };
    let authorizer = context.authorizer.as_ref()?;
    let by_lambda = || authorizer.fields.get("owner")?.as_str().map(str::to_owned);
    let by_jwt = || authorizer.jwt.as_ref()?.claims.get("sub").cloned();
    let by_iam = || authorizer.iam.as_ref()?.user_arn.as_deref().map(principal);
    let known = |owner: &String| !owner.is_empty();
    by_lambda().filter(known).or_else(|| by_jwt().filter(known)).or_else(|| by_iam().filter(known))
}

/// The account and the user or role of an ARN. The session of an assumed role is left out: it
/// changes from one login to the next.
fn principal(arn: &str) -> String {
    let mut fields = arn.splitn(6, ':').skip(4);
    let (Some(account), Some(resource)) = (fields.next(), fields.next()) else {
        return arn.to_owned();
    };
    match resource.strip_prefix("assumed-role/") {
        Some(role) => format!("{account}:role/{}", role.split('/').next().unwrap_or(role)),
        None => format!("{account}:{resource}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn owner(authorizer: &Value) -> String {
        let context: RequestContext = serde_json::from_value(json!({
            "http": {"method": "GET"}, "timeEpoch": 0, "authorizer": authorizer,
        }))
        .expect("a request context");
        let mut extensions = Extensions::new();
        extensions.insert(context);
        Caller::of(&extensions).owner
    }

    #[test]
    fn the_owner_is_what_the_authorizer_found() {
        let iam = |arn| json!({"iam": {"userArn": arn}});
        for (authorizer, expected) in [
            (json!({"lambda": {"owner": "ada"}, "jwt": {"claims": {"sub": "x"}}}), "ada"),
            (json!({"lambda": {"owner": ""}, "jwt": {"claims": {"sub": "x"}}}), "x"),
            (json!({"jwt": {"claims": {"sub": "auth0|1"}, "scopes": null}}), "auth0|1"),
            (iam("arn:aws:iam::123456789012:user/lab/ada"), "123456789012:user/lab/ada"),
            (iam("arn:aws:sts::123456789012:assumed-role/Lab/ada@x"), "123456789012:role/Lab"),
            (iam("odd"), "odd"),
            (json!(null), "anonymous"),
            (json!({"jwt": {"claims": {}}}), "anonymous"),
        ] {
            assert_eq!(owner(&authorizer), expected, "{authorizer}");
        }
    }

    #[test]
    fn a_front_end_that_knows_the_caller_is_believed() {
        let mut extensions = Extensions::new();
        assert_eq!(Caller::of(&extensions), Caller::anonymous());
        extensions.insert(Caller { owner: "bob".to_owned() });
        assert_eq!(Caller::of(&extensions).owner, "bob");
    }
}
