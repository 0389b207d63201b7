//! STS: AssumeRole with a session policy, for credentials that reach one run's files.

use std::{sync::Arc, time::SystemTime};

use axum::body::Body;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use http::{Response, StatusCode};
use uuid::Uuid;

use crate::{
    arn,
    aws_error::{AwsError, answer, xml},
    calls::Service,
    credentials::random,
    ledger::{CredentialRow, Ledger, LedgerError},
    s3::{Credentials, Policy, TemporaryCredential},
};

/// How long an expired credential is kept, so that its holder reads that it expired.
const REMEMBERED: TimeDelta = TimeDelta::hours(24);

/// The temporary credentials.
pub(crate) struct Sts {
    ledger: Arc<Ledger>,
    s3: Arc<Credentials>,
}

/// The parameters of AssumeRole that are honoured.
#[derive(Default)]
struct AssumeRole {
    role_arn: String,
    session_name: String,
    policy: String,
    duration: i64,
}

impl Sts {
    /// Gives S3 the credentials that an earlier server handed out.
    pub(crate) async fn load(
        ledger: Arc<Ledger>,
        s3: Arc<Credentials>,
    ) -> Result<Self, LedgerError> {
        for row in ledger.credentials().await? {
            match Policy::parse(&row.policy) {
                Ok(policy) => s3.add_temporary(credential(&row, policy)),
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "dropped a credential"
                    );
                }
            }
        }
        Ok(Self { ledger, s3 })
    }

    /// Answers one request, a form with its `Action` taken out.
    pub(crate) async fn assume_role(
        &self,
        form: &[(String, String)],
        now: DateTime<Utc>,
    ) -> Result<Response<Body>, AwsError> {
        let asked = read(form)?;
        if asked.role_arn != arn::DATA_ROLE {
            return Err(AwsError::forbidden(
                "AccessDenied",
                format!("not authorized to perform sts:AssumeRole on resource: {}", asked.role_arn),
            ));
        }
        let policy = Policy::parse(&asked.policy).map_err(|error| {
            AwsError::client("MalformedPolicyDocument", format!("Policy: {error}"))
        })?;
        let randomness = |error: std::io::Error| AwsError::internal(Service::Sts, &error);
        let row = CredentialRow {
            access_key: format!("SWTEMP{}", random::<16>().map_err(randomness)?.to_uppercase()),
            secret_key: random::<32>().map_err(randomness)?,
            session_token: random::<32>().map_err(randomness)?,
            policy: asked.policy,
            expires_at: now + TimeDelta::seconds(asked.duration),
        };
        self.ledger
            .add_credential(&row, now - REMEMBERED)
            .await
            .map_err(|error| AwsError::internal(Service::Sts, &error))?;
        self.s3.add_temporary(credential(&row, policy));
        Ok(answer(
            StatusCode::OK,
            "text/xml",
            format!(
                "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
                 <AssumeRoleResult><Credentials><AccessKeyId>{}</AccessKeyId>\
                 <SecretAccessKey>{}</SecretAccessKey><SessionToken>{}</SessionToken>\
                 <Expiration>{}</Expiration></Credentials><AssumedRoleUser>\
                 <AssumedRoleId>AROALOCAL:{name}</AssumedRoleId><Arn>{}/{name}</Arn>\
                 </AssumedRoleUser></AssumeRoleResult><ResponseMetadata><RequestId>{}</RequestId>\
                 </ResponseMetadata></AssumeRoleResponse>",
                row.access_key,
                row.secret_key,
                row.session_token,
                row.expires_at.to_rfc3339_opts(SecondsFormat::Secs, true),
                arn::DATA_SESSION,
                Uuid::new_v4(),
                name = xml(&asked.session_name),
            ),
        ))
    }
}

fn credential(row: &CredentialRow, policy: Policy) -> TemporaryCredential {
    TemporaryCredential {
        access_key: row.access_key.clone(),
        secret_key: row.secret_key.clone(),
        session_token: row.session_token.clone(),
        expires: SystemTime::from(row.expires_at),
        policy,
    }
}

fn read(form: &[(String, String)]) -> Result<AssumeRole, AwsError> {
    let invalid = |message: String| AwsError::client("ValidationError", message);
    let mut asked = AssumeRole { duration: 3600, ..AssumeRole::default() };
    for (name, value) in form {
        match name.as_str() {
            "Version" if value == "2011-06-15" => {}
            "RoleArn" => asked.role_arn.clone_from(value),
            "RoleSessionName" => asked.session_name.clone_from(value),
            "Policy" => asked.policy.clone_from(value),
            "DurationSeconds" => {
                asked.duration = value
                    .parse()
                    .ok()
                    .filter(|seconds| (900..=43_200).contains(seconds))
                    .ok_or_else(|| invalid("DurationSeconds must be from 900 to 43200".into()))?;
            }
            other => {
                return Err(invalid(format!(
                    "sts:AssumeRole: the embedded AWS does not implement the parameter {other}"
                )));
            }
        }
    }
    let name_is_fine = (2..=64).contains(&asked.session_name.len())
        && asked.session_name.chars().all(|c| c.is_ascii_alphanumeric() || "+=,.@-_".contains(c));
    if !name_is_fine {
        return Err(invalid("RoleSessionName must be 2 to 64 of A-Z a-z 0-9 + = , . @ - _".into()));
    }
    if asked.policy.is_empty() {
        return Err(invalid(
            "Policy is required by the embedded AWS: the role has no other".into(),
        ));
    }
    Ok(asked)
}
