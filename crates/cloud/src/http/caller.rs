//! Who asks, and for which run.

use axum::extract::{FromRequestParts, Path};
use http::{Extensions, HeaderValue, header, request::Parts};
use lambda_http::{
    aws_lambda_events::apigw::ApiGatewayRequestAuthorizer as Authorizer, request::RequestContext,
};
use serde::de::DeserializeOwned;
use stepwes_core::{ApiError, Run, RunId, RunState, caller_token::check_owner};
use stepwes_store::{RunStore, StoreError};

use super::error::{HttpError, api_error};
use crate::env::{self, SettingError};

/// The owner of what the request makes, and the one whose runs it sees.
///
/// A front end that has authenticated the caller itself puts one into the request's extensions;
/// else it is what API Gateway's authorizer found, by the function's [`Callers`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The owner's name, opaque to us.
    pub owner: String,
    /// Whether the caller is of the admin group, and so sees and cancels everybody's runs.
    pub sees_all: bool,
}

impl Caller {
    /// Somebody who sees their own runs.
    #[must_use]
    pub fn named(owner: impl Into<String>) -> Self {
        Self { owner: owner.into(), sees_all: false }
    }

    /// Everybody, where nobody is told apart.
    #[must_use]
    pub fn anonymous() -> Self {
        Self::named("anonymous")
    }

    /// The caller's run of that id, read consistently.
    ///
    /// # Errors
    /// The same 404 for a malformed id, an unknown one, and somebody else's.
    pub async fn run(&self, store: &RunStore, run_id: &str) -> Result<Run, ApiError> {
        let (_, run) = self.own(run_id, |id| store.get(id), |run| &run.owner).await?;
        Ok(run)
    }

    /// The state of the run of that id, read consistently, and the id as it is kept, if the caller
    /// may see it.
    ///
    /// # Errors
    /// As [`Caller::run`].
    pub async fn run_state(
        &self,
        store: &RunStore,
        run_id: &str,
    ) -> Result<(RunId, RunState), ApiError> {
        let (id, (_, state)) = self.own(run_id, |id| store.state(id), |(owner, _)| owner).await?;
        Ok((id, state))
    }

    /// What `read` finds of a run, if the caller may see it, with the run's id.
    async fn own<T, F>(
        &self,
        run_id: &str,
        read: impl FnOnce(RunId) -> F,
        owner: impl FnOnce(&T) -> &str,
    ) -> Result<(RunId, T), ApiError>
    where
        F: Future<Output = Result<Option<T>, StoreError>>,
    {
        let unknown = || ApiError::run_not_found(run_id);
        let id = run_id.parse().map_err(|_| unknown())?;
        let found = read(id).await.map_err(api_error)?;
        let seen = found.filter(|found| self.sees_all || owner(found) == self.owner);
        seen.map(|seen| (id, seen)).ok_or_else(unknown)
    }
}

impl<S: HasCallers + Sync> FromRequestParts<S> for Caller {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, HttpError> {
        state.callers().of(&parts.extensions)
    }
}

/// By what callers say who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// By nothing: all of them are one.
    None,
    /// A Lambda authorizer has checked their token.
    Token,
    /// A JWT authorizer has checked their token.
    Jwt,
    /// API Gateway has checked their AWS signature.
    Iam,
}

/// How a function knows its callers. Only what the mode names is looked at, so that a header or a
/// claim of another mode is nobody's identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Callers {
    mode: Mode,
    owner_claim: String,
    groups_claim: String,
    admin_group: Option<String>,
}

/// A function's state that knows how callers are known.
pub trait HasCallers {
    /// How they are.
    fn callers(&self) -> &Callers;
}

impl Callers {
    /// Nobody is asked: every caller is `anonymous`.
    #[must_use]
    pub fn anonymous() -> Self {
        Self::by(Mode::None)
    }

    /// By tokens, as the authorizer found them; members of `admin_group` see everybody's runs.
    #[must_use]
    pub fn by_token(admin_group: Option<String>) -> Self {
        Self { admin_group, ..Self::by(Mode::Token) }
    }

    /// By the `sub` claim of a JWT.
    #[must_use]
    pub fn by_jwt() -> Self {
        Self::by(Mode::Jwt)
    }

    /// From the environment: `STEPWES_AUTH_MODE` (`none`, which is the default, `token`, `jwt` or
    /// `iam`), `STEPWES_OWNER_CLAIM` (`sub`), `STEPWES_GROUPS_CLAIM` (`groups`) and
    /// `STEPWES_ADMIN_GROUP` (nobody sees all when it is not set).
    ///
    /// # Errors
    /// [`SettingError`] for another mode.
    pub fn from_env() -> Result<Self, SettingError> {
        Self::read(env::optional)
    }

    fn read(variable: impl Fn(&'static str) -> Option<String>) -> Result<Self, SettingError> {
        const MODE: &str = "STEPWES_AUTH_MODE";
        let mode = match variable(MODE).as_deref() {
            None | Some("none") => Mode::None,
            Some("token") => Mode::Token,
            Some("jwt") => Mode::Jwt,
            Some("iam") => Mode::Iam,
            Some(other) => {
                let why = format!("{other:?} is none of none, token, jwt and iam");
                return Err(SettingError::Unreadable { name: MODE, why });
            }
        };
        let by = Self::by(mode);
        Ok(Self {
            owner_claim: variable("STEPWES_OWNER_CLAIM").unwrap_or(by.owner_claim),
            groups_claim: variable("STEPWES_GROUPS_CLAIM").unwrap_or(by.groups_claim),
            admin_group: variable("STEPWES_ADMIN_GROUP"),
            mode,
        })
    }

    fn by(mode: Mode) -> Self {
        Self {
            mode,
            owner_claim: "sub".to_owned(),
            groups_claim: "groups".to_owned(),
            admin_group: None,
        }
    }

    /// The owner of every run, where callers are not told apart.
    #[must_use]
    pub fn everybody(&self) -> Option<String> {
        (self.mode == Mode::None).then(|| Caller::anonymous().owner)
    }

    /// The caller of that name and those groups.
    #[must_use]
    pub fn caller(&self, owner: String, groups: &[impl AsRef<str>]) -> Caller {
        let sees_all = self
            .admin_group
            .as_deref()
            .is_some_and(|admins| groups.iter().any(|group| group.as_ref() == admins));
        Caller { owner, sees_all }
    }

    /// The answer to a request that does not say whose it is: how to say it.
    #[must_use]
    pub fn unauthorized(&self) -> HttpError {
        let (msg, challenge) = match self.mode {
            Mode::None | Mode::Token => (
                "no token that counts came with the request; send Authorization: Bearer with one, or Basic with its name and secret. Who runs this service makes tokens with `stepwes token create`",
                Some("Bearer, Basic realm=\"stepwes\""),
            ),
            Mode::Jwt => (
                "no token that names its owner came with the request; send Authorization: Bearer with one of this service's issuer",
                Some("Bearer"),
            ),
            Mode::Iam => (
                "the request is not signed with AWS credentials; sign it for execute-api (Signature Version 4), as `stepwes --aws` does",
                None,
            ),
        };
        let error = HttpError::from(ApiError::Unauthorized(msg.to_owned()));
        match challenge {
            Some(challenge) => {
                error.with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
            }
            None => error,
        }
    }

    fn of(&self, extensions: &Extensions) -> Result<Caller, HttpError> {
        if let Some(caller) = extensions.get::<Caller>() {
            return Ok(caller.clone());
        }
        if self.mode == Mode::None {
            return Ok(Caller::anonymous());
        }
        let identity = match extensions.get::<RequestContext>() {
            Some(RequestContext::ApiGatewayV2(context)) => {
                context.authorizer.as_ref().and_then(|authorizer| self.identity(authorizer))
            }
            _ => None,
        };
        identity
            .filter(|caller| check_owner(&caller.owner).is_ok())
            .ok_or_else(|| self.unauthorized())
    }

    fn identity(&self, authorizer: &Authorizer) -> Option<Caller> {
        match self.mode {
            Mode::None => None,
            Mode::Token => {
                let field = |name: &str| authorizer.fields.get(name)?.as_str();
                let groups: Vec<_> = field("groups").unwrap_or_default().split(',').collect();
                Some(self.caller(field("owner")?.to_owned(), &groups))
            }
            Mode::Jwt => {
                let claims = &authorizer.jwt.as_ref()?.claims;
                let groups = claims.get(&self.groups_claim).map(|claim| listed(claim));
                let owner = claims.get(&self.owner_claim)?.clone();
                Some(self.caller(owner, &groups.unwrap_or_default()))
            }
            Mode::Iam => {
                // A role is the group of those who may assume it.
                let owner = principal(authorizer.iam.as_ref()?.user_arn.as_deref()?);
                Some(self.caller(owner.clone(), &[owner]))
            }
        }
    }
}

/// The values of a claim that is a list. API Gateway makes text of it: `[a b]` as an HTTP API
/// writes it, or with commas.
fn listed(claim: &str) -> Vec<&str> {
    claim
        .trim_start_matches('[')
        .trim_end_matches(']')
        .split([' ', ','])
        .map(|group| group.trim_matches('"'))
        .filter(|group| !group.is_empty())
        .collect()
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

    /// A request with this authorizer's findings in its context.
    fn extensions(authorizer: &Value) -> Extensions {
        let context: RequestContext = serde_json::from_value(json!({
            "http": {"method": "GET"}, "timeEpoch": 0, "authorizer": authorizer,
        }))
        .expect("a request context");
        let mut extensions = Extensions::new();
        extensions.insert(context);
        extensions
    }

    fn admin(mode: Mode) -> Callers {
        Callers { admin_group: Some("admins".to_owned()), ..Callers::by(mode) }
    }

    /// The owner, with an `*` behind it for one who sees all; the status of a refusal.
    fn found(callers: &Callers, authorizer: &Value) -> String {
        match callers.of(&extensions(authorizer)) {
            Ok(Caller { owner, sees_all: false }) => owner,
            Ok(Caller { owner, sees_all: true }) => format!("{owner}*"),
            Err(error) => error.api_error().status().to_string(),
        }
    }

    #[test]
    fn a_mode_believes_its_own_authorizer_and_no_other() {
        let everything = json!({
            "lambda": {"owner": "by-token"},
            "jwt": {"claims": {"sub": "by-jwt"}, "scopes": null},
            "iam": {"userArn": "arn:aws:iam::123456789012:user/by-iam"},
        });
        for (mode, key, owner) in [
            (Mode::Token, "lambda", "by-token"),
            (Mode::Jwt, "jwt", "by-jwt"),
            (Mode::Iam, "iam", "123456789012:user/by-iam"),
        ] {
            let callers = Callers::by(mode);
            assert_eq!(found(&callers, &everything), owner);
            let mut others = everything.clone();
            others.as_object_mut().expect("an object").remove(key);
            assert_eq!(found(&callers, &others), "401", "{mode:?}");
            assert_eq!(found(&callers, &json!(null)), "401", "{mode:?}");
            let error = callers.of(&Extensions::new()).expect_err("nobody");
            assert_eq!(error.api_error().status(), 401, "{mode:?}");
        }
        assert_eq!(found(&Callers::anonymous(), &everything), "anonymous");
    }

    #[test]
    fn a_tokens_owner_and_groups_are_the_authorizers() {
        let callers = admin(Mode::Token);
        for (context, expected) in [
            (json!({"owner": "ada"}), "ada"),
            (json!({"owner": "ada", "groups": "lab,admins"}), "ada*"),
            (json!({"owner": "ada", "groups": "lab,admins2"}), "ada"),
            (json!({"owner": "ada", "groups": ""}), "ada"),
            (json!({"owner": ""}), "401"),
            (json!({"owner": 1}), "401"),
            (json!({"owner": "x".repeat(1025)}), "401"),
            (json!({"groups": "admins"}), "401"),
        ] {
            assert_eq!(found(&callers, &json!({"lambda": context})), expected, "{context}");
        }
    }

    #[test]
    fn a_claim_names_the_owner_and_another_the_groups() {
        let callers = Callers {
            owner_claim: "email".to_owned(),
            groups_claim: "cognito:groups".to_owned(),
            ..admin(Mode::Jwt)
        };
        for (groups, expected) in [
            ("[lab admins]", "a@example.org*"),
            ("[admins]", "a@example.org*"),
            ("admins", "a@example.org*"),
            ("lab,admins", "a@example.org*"),
            ("[\"lab\",\"admins\"]", "a@example.org*"),
            ("[lab]", "a@example.org"),
            ("[]", "a@example.org"),
            ("", "a@example.org"),
        ] {
            let claims = json!({"sub": "1", "email": "a@example.org", "cognito:groups": groups});
            assert_eq!(found(&callers, &json!({"jwt": {"claims": claims}})), expected, "{groups}");
        }
        let claims = json!({"sub": "1", "cognito:groups": "admins"});
        assert_eq!(found(&callers, &json!({"jwt": {"claims": claims}})), "401");
        let claims = json!({"sub": "auth0|1"});
        assert_eq!(found(&Callers::by_jwt(), &json!({"jwt": {"claims": claims}})), "auth0|1");
    }

    #[test]
    fn a_role_owns_what_its_sessions_make_and_may_be_the_admins() {
        let callers = Callers {
            admin_group: Some("123456789012:role/Admins".to_owned()),
            ..Callers::by(Mode::Iam)
        };
        for (arn, expected) in [
            ("arn:aws:iam::123456789012:user/lab/ada", "123456789012:user/lab/ada"),
            ("arn:aws:sts::123456789012:assumed-role/Lab/ada@x", "123456789012:role/Lab"),
            ("arn:aws:sts::123456789012:assumed-role/Admins/ada", "123456789012:role/Admins*"),
            ("arn:aws:sts::210987654321:assumed-role/Admins/eve", "210987654321:role/Admins"),
            ("odd", "odd"),
            ("", "401"),
        ] {
            assert_eq!(found(&callers, &json!({"iam": {"userArn": arn}})), expected, "{arn}");
        }
    }

    #[test]
    fn the_settings_name_a_mode_or_nothing_starts() {
        let read = |pairs: &[(&str, &str)]| {
            Callers::read(|name| {
                let found = pairs.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        assert_eq!(read(&[]), Ok(Callers::anonymous()));
        assert_eq!(read(&[("STEPWES_AUTH_MODE", "none")]), Ok(Callers::anonymous()));
        assert_eq!(read(&[("STEPWES_AUTH_MODE", "jwt")]), Ok(Callers::by_jwt()));
        assert_eq!(read(&[("STEPWES_AUTH_MODE", "iam")]), Ok(Callers::by(Mode::Iam)));
        assert_eq!(
            read(&[("STEPWES_AUTH_MODE", "token"), ("STEPWES_ADMIN_GROUP", "admins")]),
            Ok(Callers::by_token(Some("admins".to_owned())))
        );
        assert_eq!(
            read(&[
                ("STEPWES_AUTH_MODE", "jwt"),
                ("STEPWES_OWNER_CLAIM", "email"),
                ("STEPWES_GROUPS_CLAIM", "roles"),
            ]),
            Ok(Callers {
                owner_claim: "email".to_owned(),
                groups_claim: "roles".to_owned(),
                ..Callers::by_jwt()
            })
        );
        for wrong in ["None", "tokens", "off", " "] {
            let error = read(&[("STEPWES_AUTH_MODE", wrong)]).expect_err(wrong);
            assert!(error.to_string().contains("STEPWES_AUTH_MODE"), "{error}");
        }
    }

    #[test]
    fn without_an_admin_group_nobody_sees_all() {
        let context = json!({"lambda": {"owner": "ada", "groups": ",admins,"}});
        assert_eq!(found(&Callers::by_token(None), &context), "ada");
    }

    #[test]
    fn a_front_end_that_knows_the_caller_is_believed() {
        for callers in [Callers::anonymous(), Callers::by_token(None)] {
            let mut extensions = extensions(&json!({"lambda": {"owner": "ada"}}));
            extensions.insert(Caller::named("bob"));
            assert_eq!(callers.of(&extensions).expect("known"), Caller::named("bob"));
        }
    }

    #[test]
    fn who_is_refused_learns_how_to_say_who_they_are() {
        use axum::response::IntoResponse as _;
        for (mode, challenge, word) in [
            (Mode::Token, Some("Bearer, Basic realm=\"stepwes\""), "stepwes token create"),
            (Mode::Jwt, Some("Bearer"), "issuer"),
            (Mode::Iam, None, "stepwes --aws"),
        ] {
            let refusal = Callers::by(mode).unauthorized();
            assert!(refusal.api_error().to_string().contains(word), "{refusal:?}");
            let response = refusal.into_response();
            assert_eq!(response.status(), 401);
            let told = response.headers().get(header::WWW_AUTHENTICATE);
            assert_eq!(told.map(|value| value.to_str().expect("text")), challenge);
        }
    }
}
