//! Temporary credentials for one run.

use chrono::DateTime;
use stepwes_cloud::step::StepFailure;
use stepwes_core::{RunId, task::TaskCredentials};

/// How long the credentials live: the longest that a role assumed by a role's session may
/// (<https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles.html>, "role chaining").
const SECONDS: i32 = 3600;

/// For whom credentials are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// The engine task itself.
    Task,
    /// What it runs.
    Engine,
}

/// Assumes the data role with the rights of `policy` alone. The session is named by the run and by
/// who has it, so that CloudTrail and S3's access logs tell whose it was.
///
/// # Errors
/// [`StepFailure`] when STS does not answer or refuses.
pub(crate) async fn assume(
    sts: &aws_sdk_sts::Client,
    role_arn: &str,
    policy: String,
    run_id: RunId,
    holder: Holder,
) -> Result<TaskCredentials, StepFailure> {
    let answer = sts
        .assume_role()
        .role_arn(role_arn)
        .role_session_name(session_name(run_id, holder))
        .duration_seconds(SECONDS)
        .policy(policy)
        .send()
        .await
        .map_err(|error| StepFailure::from_sdk("sts:AssumeRole", error))?;
    let broken =
        || StepFailure::Internal("sts:AssumeRole answered without usable credentials".to_owned());
    let credentials = answer.credentials.ok_or_else(broken)?;
    let expiration = DateTime::from_timestamp(
        credentials.expiration.secs(),
        credentials.expiration.subsec_nanos(),
    )
    .ok_or_else(broken)?;
    Ok(TaskCredentials {
        access_key_id: credentials.access_key_id,
        secret_access_key: credentials.secret_access_key,
        session_token: credentials.session_token,
        expiration,
    })
}

/// At most 64 of STS's letters, digits and `-`.
fn session_name(run_id: RunId, holder: Holder) -> String {
    match holder {
        Holder::Task => format!("stepwes-{run_id}"),
        Holder::Engine => format!("stepwes-{run_id}-engine"),
    }
}
