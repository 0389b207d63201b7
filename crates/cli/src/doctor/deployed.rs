//! Checks of a deployed stack, with the AWS credentials of the environment: as far as they allow.
//! Every call only reads.

use std::{collections::BTreeMap, error::Error, fmt::Display};

use aws_config::SdkConfig;
use aws_sdk_cloudformation::types::StackStatus;
use aws_sdk_dynamodb::types::{IndexStatus, TableStatus};
use aws_sdk_ecr::types::ImageIdentifier;
use aws_sdk_lambda::types::{LastUpdateStatus, State};
use aws_sdk_sfn::types::StateMachineStatus;
use aws_sdk_sqs::types::QueueAttributeName;
use aws_smithy_types::error::{display::DisplayErrorContext, metadata::ProvideErrorMetadata};
use futures::future::join_all;
use stepwes_cloud::Aws;

use super::{Check, service};
use crate::args::ServerArgs;

/// The resources of a stack by their types: their names in the template and in the account.
type Resources = BTreeMap<String, Vec<(String, String)>>;

/// What to do where a resource is not as the template has it.
const DEPLOY: &str = "deploy the stack again: `sam build && sam deploy`";

/// The queues whose messages somebody has to deal with, and what is in them.
const QUEUES: [(&str, &str); 3] = [
    ("ReconcileDlq", "events that reconcile could not deal with"),
    ("SubmitDlq", "files that were to start runs, and were refused or could not be dealt with"),
    ("StateChangeDlq", "state changes that were not delivered"),
];

/// The log groups' common beginning, as template.yaml has it.
fn log_prefix(stack: &str) -> String {
    format!("/stepwes/{stack}/")
}

/// Every check of the stack, and of its API: at `url`, or where the stack says that it is.
pub(crate) async fn checks(stack: &str, url: Option<String>, args: &ServerArgs) -> Vec<Check> {
    let credentials = "log in to the stack's account, or set AWS_PROFILE; and set AWS_REGION";
    let aws = match Aws::from_env().await {
        Ok(aws) => aws,
        Err(error) => return vec![Check::problem("credentials", error.to_string(), credentials)],
    };
    let sdk = aws.sdk();
    let who = aws_sdk_sts::Client::new(sdk).get_caller_identity().send().await;
    let mut checks = match who {
        Ok(who) => vec![Check::ok("credentials", who.arn().unwrap_or("unknown"))],
        Err(error) => {
            return vec![Check::problem("credentials", told(&error), credentials)];
        }
    };
    let (found, outputs) = match described(sdk, stack).await {
        Ok(described) => described,
        Err(check) => {
            checks.push(check);
            return checks;
        }
    };
    checks.push(found);
    let resources = match resources(sdk, stack).await {
        Ok(resources) => resources,
        Err(check) => {
            checks.push(check);
            return checks;
        }
    };
    checks.push(table(sdk, &resources).await);
    checks.push(bucket(&aws, &resources).await);
    checks.push(machine(sdk, &resources).await);
    checks.push(functions(sdk, &resources).await);
    checks.push(cluster(sdk, &resources).await);
    checks.push(image(sdk, &resources).await);
    checks.extend(
        join_all(QUEUES.map(|queue| waiting(sdk, &resources, queue))).await.into_iter().flatten(),
    );
    checks.push(logs(sdk, stack).await);
    match url.or_else(|| outputs.get("ApiUrl").cloned()) {
        Some(url) => checks.extend(service::checks(&url, args).await),
        None => checks.push(Check::problem("service", "the stack has no output ApiUrl", DEPLOY)),
    }
    checks
}

/// What AWS said, with its causes.
fn told(error: &(impl Error + ProvideErrorMetadata)) -> String {
    match (error.code(), error.message()) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        _ => DisplayErrorContext(error).to_string(),
    }
}

/// A question that was not answered: by `action`, about `what`.
fn unanswered<E>(name: &'static str, action: &str, what: impl Display, error: &E) -> Check
where
    E: Error + ProvideErrorMetadata,
{
    let code = error.code().unwrap_or_default();
    let said = format!("{what}: {}", told(error));
    if ["AccessDenied", "Unauthorized", "NotAuthorized", "Forbidden"]
        .iter()
        .any(|denied| code.contains(denied))
    {
        return Check::warning(
            name,
            said,
            format!("your credentials lack {action}; ask who has it"),
        );
    }
    if code.contains("NotFound")
        || code.contains("DoesNotExist")
        || code.contains("NoSuch")
        || code == "404"
    {
        return Check::problem(name, said, format!("it is gone; {DEPLOY}"));
    }
    Check::problem(name, said, "is AWS reachable, and AWS_REGION the stack's region?")
}

/// The one resource of that name in the template.
fn one<'a>(
    check: &'static str,
    resources: &'a Resources,
    kind: &str,
    logical: &str,
) -> Result<&'a str, Check> {
    let found = resources.get(kind).into_iter().flatten().find(|(name, _)| name == logical);
    found.map(|(_, physical)| physical.as_str()).ok_or_else(|| {
        Check::problem(
            check,
            format!("the stack has no {logical}"),
            format!("is it a stack of stepwes's? {DEPLOY}"),
        )
    })
}

async fn described(
    sdk: &SdkConfig,
    stack: &str,
) -> Result<(Check, BTreeMap<String, String>), Check> {
    let name = "stack";
    let client = aws_sdk_cloudformation::Client::new(sdk);
    let answer = client.describe_stacks().stack_name(stack).send().await;
    let answer = answer.map_err(|error| {
        if error.code() == Some("ValidationError") {
            let then = "is the name right, and AWS_REGION the stack's region?";
            return Check::problem(name, told(&error), then);
        }
        unanswered(name, "cloudformation:DescribeStacks", stack, &error)
    })?;
    let Some(found) = answer.stacks().first() else {
        return Err(Check::problem(
            name,
            format!("there is no stack {stack}"),
            "is the name right?",
        ));
    };
    let outputs = found
        .outputs()
        .iter()
        .filter_map(|output| {
            Some((output.output_key()?.to_owned(), output.output_value()?.to_owned()))
        })
        .collect();
    Ok((deployed(stack, found.stack_status(), found.stack_status_reason()), outputs))
}

fn deployed(stack: &str, status: Option<&StackStatus>, reason: Option<&str>) -> Check {
    let name = "stack";
    let said = status.map_or("unknown", StackStatus::as_str);
    let found = match reason.filter(|reason| !reason.is_empty()) {
        Some(reason) => format!("{stack} is {said}: {reason}"),
        None => format!("{stack} is {said}"),
    };
    match said {
        "CREATE_COMPLETE" | "UPDATE_COMPLETE" | "IMPORT_COMPLETE" => Check::ok(name, found),
        "UPDATE_ROLLBACK_COMPLETE" => Check::warning(
            name,
            found,
            "the last deployment failed, and the one before it serves; its events say why",
        ),
        said if said.ends_with("_IN_PROGRESS") => {
            Check::warning(name, found, "wait until the deployment has ended, and look again")
        }
        _ => Check::problem(
            name,
            found,
            "`sam list stack-outputs` and the stack's events say why; deploy again",
        ),
    }
}

async fn resources(sdk: &SdkConfig, stack: &str) -> Result<Resources, Check> {
    let client = aws_sdk_cloudformation::Client::new(sdk);
    let mut pages = client.list_stack_resources().stack_name(stack).into_paginator().send();
    let mut found = Resources::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| {
            unanswered("stack", "cloudformation:ListStackResources", stack, &error)
        })?;
        for resource in page.stack_resource_summaries() {
            if let (Some(kind), Some(logical), Some(physical)) = (
                resource.resource_type(),
                resource.logical_resource_id(),
                resource.physical_resource_id(),
            ) {
                let resource = (logical.to_owned(), physical.to_owned());
                found.entry(kind.to_owned()).or_default().push(resource);
            }
        }
    }
    Ok(found)
}

async fn table(sdk: &SdkConfig, resources: &Resources) -> Check {
    let name = "table";
    let table = match one(name, resources, "AWS::DynamoDB::Table", "RunTable") {
        Ok(table) => table,
        Err(check) => return check,
    };
    let client = aws_sdk_dynamodb::Client::new(sdk);
    let answer = match client.describe_table().table_name(table).send().await {
        Ok(answer) => answer,
        Err(error) => return unanswered(name, "dynamodb:DescribeTable", table, &error),
    };
    let Some(found) = answer.table() else {
        return Check::problem(name, format!("{table} is not told of"), DEPLOY);
    };
    let idle: Vec<_> = found
        .global_secondary_indexes()
        .iter()
        .filter(|index| index.index_status().is_some_and(|status| *status != IndexStatus::Active))
        .filter_map(|index| index.index_name())
        .collect();
    let status = found.table_status().map_or("unknown", TableStatus::as_str);
    if status != "ACTIVE" || !idle.is_empty() {
        let idle =
            if idle.is_empty() { String::new() } else { format!(", not its {}", idle.join(", ")) };
        return Check::problem(
            name,
            format!("{table} is {status}{idle}"),
            "wait until it is ACTIVE with its indexes",
        );
    }
    if found.deletion_protection_enabled() != Some(true) {
        let then = "`aws dynamodb update-table --deletion-protection-enabled`: the runs are in it";
        return Check::warning(name, format!("{table} can be deleted by one call"), then);
    }
    Check::ok(name, format!("{table} is ACTIVE"))
}

async fn bucket(aws: &Aws, resources: &Resources) -> Check {
    let name = "bucket";
    let bucket = match one(name, resources, "AWS::S3::Bucket", "RunsBucket") {
        Ok(bucket) => bucket,
        Err(check) => return check,
    };
    match aws.s3().head_bucket().bucket(bucket).send().await {
        Ok(_) => Check::ok(name, format!("{bucket} is there")),
        // HEAD has no body, so the status is all that S3 says.
        Err(error) => match error.raw_response().map(|answer| answer.status().as_u16()) {
            Some(403) => Check::warning(
                name,
                format!("{bucket} is closed to your credentials"),
                "they lack s3:ListBucket; ask who has it",
            ),
            Some(404) => Check::problem(
                name,
                format!("{bucket} is gone"),
                "requests, logs and outputs were in it; a new stack makes a new one",
            ),
            _ => unanswered(name, "s3:ListBucket", bucket, &error),
        },
    }
}

async fn machine(sdk: &SdkConfig, resources: &Resources) -> Check {
    let name = "state machine";
    let arn = match one(name, resources, "AWS::StepFunctions::StateMachine", "RunMachine") {
        Ok(arn) => arn,
        Err(check) => return check,
    };
    let client = aws_sdk_sfn::Client::new(sdk);
    match client.describe_state_machine().state_machine_arn(arn).send().await {
        Err(error) => unanswered(name, "states:DescribeStateMachine", arn, &error),
        Ok(found) if found.status().is_none_or(|status| *status == StateMachineStatus::Active) => {
            Check::ok(name, format!("{} is ACTIVE", found.name()))
        }
        Ok(found) => Check::problem(name, format!("{} is being deleted", found.name()), DEPLOY),
    }
}

async fn functions(sdk: &SdkConfig, resources: &Resources) -> Check {
    let name = "functions";
    let client = aws_sdk_lambda::Client::new(sdk);
    let table = one(name, resources, "AWS::DynamoDB::Table", "RunTable").unwrap_or_default();
    let all = resources.get("AWS::Lambda::Function").map(Vec::as_slice).unwrap_or_default();
    if all.is_empty() {
        return Check::problem(name, "the stack has no functions", DEPLOY);
    }
    for (logical, physical) in all {
        let found = match client.get_function_configuration().function_name(physical).send().await {
            Ok(found) => found,
            Err(error) => {
                return unanswered(name, "lambda:GetFunctionConfiguration", logical, &error);
            }
        };
        let state = found.state().map_or("Active", State::as_str);
        let update = found.last_update_status().map_or("Successful", LastUpdateStatus::as_str);
        // One that was not invoked for weeks is Inactive, and wakes up by itself.
        if !matches!(state, "Active" | "Inactive") || update == "Failed" {
            let why = found.state_reason().or_else(|| found.last_update_status_reason());
            let why = why.map(|why| format!(": {why}")).unwrap_or_default();
            return Check::problem(
                name,
                format!("{logical} is {state}, its update {update}{why}"),
                DEPLOY,
            );
        }
        let variables = found.environment().and_then(|environment| environment.variables());
        let used = variables.and_then(|variables| variables.get("STEPWES_TABLE"));
        if used.is_some_and(|used| used != table) {
            let found = format!(
                "{logical} uses another table than the stack's: {}",
                used.map_or("", String::as_str)
            );
            return Check::problem(name, found, format!("it was changed by hand; {DEPLOY}"));
        }
    }
    Check::ok(name, format!("{} are active", all.len()))
}

async fn cluster(sdk: &SdkConfig, resources: &Resources) -> Check {
    let name = "cluster";
    let cluster = match one(name, resources, "AWS::ECS::Cluster", "Cluster") {
        Ok(cluster) => cluster,
        Err(check) => return check,
    };
    let client = aws_sdk_ecs::Client::new(sdk);
    let answer = match client.describe_clusters().clusters(cluster).send().await {
        Ok(answer) => answer,
        Err(error) => return unanswered(name, "ecs:DescribeClusters", cluster, &error),
    };
    match answer.clusters().first() {
        Some(found) if found.status() == Some("ACTIVE") => Check::ok(
            name,
            format!(
                "{cluster} is ACTIVE: {} tasks run, {} wait",
                found.running_tasks_count(),
                found.pending_tasks_count()
            ),
        ),
        found => {
            let status = found.and_then(|found| found.status()).unwrap_or("gone");
            Check::problem(name, format!("{cluster} is {status}"), DEPLOY)
        }
    }
}

/// An image in ECR, as its URI names it
/// (<https://docs.aws.amazon.com/AmazonECR/latest/userguide/Registries.html>).
#[derive(Clone, Debug, PartialEq, Eq)]
struct EcrImage {
    registry: String,
    region: String,
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

impl EcrImage {
    fn parse(uri: &str) -> Option<Self> {
        let (host, path) = uri.split_once('/')?;
        let (registry, rest) = host.split_once(".dkr.ecr")?;
        let region = rest.trim_start_matches("-fips").strip_prefix('.')?.split('.').next()?;
        let (path, digest) = match path.split_once('@') {
            Some((path, digest)) => (path, Some(digest.to_owned())),
            None => (path, None),
        };
        let (repository, tag) = match path.rsplit_once(':') {
            Some((repository, tag)) => (repository, Some(tag.to_owned())),
            None => (path, None),
        };
        let tag = tag.or_else(|| digest.is_none().then(|| "latest".to_owned()));
        Some(Self {
            registry: registry.to_owned(),
            region: region.to_owned(),
            repository: repository.to_owned(),
            tag,
            digest,
        })
    }
}

async fn image(sdk: &SdkConfig, resources: &Resources) -> Check {
    let name = "engine image";
    let arn = match one(name, resources, "AWS::ECS::TaskDefinition", "EngineTask") {
        Ok(arn) => arn,
        Err(check) => return check,
    };
    let client = aws_sdk_ecs::Client::new(sdk);
    let answer = match client.describe_task_definition().task_definition(arn).send().await {
        Ok(answer) => answer,
        Err(error) => return unanswered(name, "ecs:DescribeTaskDefinition", arn, &error),
    };
    let container =
        answer.task_definition().and_then(|found| found.container_definitions().first());
    let Some(uri) = container.and_then(|container| container.image()) else {
        return Check::problem(name, "the task definition names none", DEPLOY);
    };
    let Some(image) = EcrImage::parse(uri) else {
        return Check::warning(
            name,
            format!("{uri} is in no repository of ECR's, and was not looked at"),
            "pull it from where tasks run, or copy it into ECR",
        );
    };
    let there = sdk
        .clone()
        .into_builder()
        .region(aws_sdk_ecr::config::Region::new(image.region.clone()))
        .build();
    let id =
        ImageIdentifier::builder().set_image_tag(image.tag).set_image_digest(image.digest).build();
    let asked = aws_sdk_ecr::Client::new(&there)
        .describe_images()
        .registry_id(image.registry)
        .repository_name(image.repository)
        .image_ids(id)
        .send()
        .await;
    match asked {
        Ok(answer) if !answer.image_details().is_empty() => {
            Check::ok(name, format!("{uri} is there"))
        }
        Err(error) if !error.code().is_some_and(|code| code.contains("NotFound")) => {
            unanswered(name, "ecr:DescribeImages", uri, &error)
        }
        _ => Check::problem(
            name,
            format!("{uri} is not there, so no run can start"),
            "push it again (scripts/engine-image --push), or deploy with an EngineImage that is there",
        ),
    }
}

async fn waiting(
    sdk: &SdkConfig,
    resources: &Resources,
    (queue, holds): (&'static str, &str),
) -> Option<Check> {
    // The queue of state changes is there only where they are published.
    let url = one(queue, resources, "AWS::SQS::Queue", queue).ok()?;
    let client = aws_sdk_sqs::Client::new(sdk);
    let number = QueueAttributeName::ApproximateNumberOfMessages;
    let asked = client.get_queue_attributes().queue_url(url).attribute_names(number.clone());
    Some(match asked.send().await {
        Err(error) => unanswered(queue, "sqs:GetQueueAttributes", url, &error),
        Ok(answer) => {
            let told = answer.attributes().and_then(|attributes| attributes.get(&number));
            match told.and_then(|text| text.parse::<u64>().ok()) {
                Some(0) => Check::ok(queue, "empty"),
                Some(count) => Check::problem(
                    queue,
                    format!("{count} messages: {holds}"),
                    format!("docs/deploy.md, under Alarms, says what to do with them; {url}"),
                ),
                None => Check::warning(queue, "its length is not told", "look again in a moment"),
            }
        }
    })
}

async fn logs(sdk: &SdkConfig, stack: &str) -> Check {
    let (name, prefix) = ("logs", log_prefix(stack));
    let client = aws_sdk_cloudwatchlogs::Client::new(sdk);
    let asked = client.describe_log_groups().log_group_name_prefix(&prefix).send().await;
    let groups = match asked {
        Ok(answer) => answer.log_groups().to_vec(),
        Err(error) => return unanswered(name, "logs:DescribeLogGroups", prefix, &error),
    };
    if groups.is_empty() {
        return Check::problem(name, format!("there are no log groups {prefix}…"), DEPLOY);
    }
    let for_ever: Vec<_> = groups
        .iter()
        .filter(|group| group.retention_in_days().is_none())
        .filter_map(|group| group.log_group_name())
        .collect();
    if !for_ever.is_empty() {
        let found = format!("kept for ever: {}", for_ever.join(", "));
        return Check::warning(
            name,
            found,
            format!("they cost more every month; {DEPLOY}, which sets LogDays"),
        );
    }
    Check::ok(name, format!("{} groups {prefix}… are kept for a time", groups.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Status::{Ok, Problem, Warning};

    #[test]
    fn a_stack_is_deployed_or_said_not_to_be() {
        for (status, expected) in [
            (StackStatus::CreateComplete, Ok),
            (StackStatus::UpdateComplete, Ok),
            (StackStatus::UpdateRollbackComplete, Warning),
            (StackStatus::UpdateInProgress, Warning),
            (StackStatus::RollbackComplete, Problem),
            (StackStatus::DeleteFailed, Problem),
            (StackStatus::CreateFailed, Problem),
        ] {
            let check = deployed("x", Some(&status), Some("why"));
            assert_eq!(check.status, expected, "{check:?}");
            assert!(check.found.contains("why"));
        }
    }

    #[test]
    fn an_image_in_ecr_is_told_from_others() {
        let parsed = |uri: &str| {
            EcrImage::parse(uri)
                .map(|image| (image.region, image.repository, image.tag, image.digest))
        };
        let of = |repository: &str, tag: Option<&str>, digest: Option<&str>| {
            Some((
                "eu-central-1".to_owned(),
                repository.to_owned(),
                tag.map(str::to_owned),
                digest.map(str::to_owned),
            ))
        };
        let host = "111122223333.dkr.ecr.eu-central-1.amazonaws.com";
        assert_eq!(parsed(&format!("{host}/a/b:1")), of("a/b", Some("1"), None));
        assert_eq!(parsed(&format!("{host}/a")), of("a", Some("latest"), None));
        assert_eq!(parsed(&format!("{host}/a@sha256:0")), of("a", None, Some("sha256:0")));
        assert_eq!(parsed(&format!("{host}/a:1@sha256:0")), of("a", Some("1"), Some("sha256:0")));
        for other in ["public.ecr.aws/stepwes/engine:1", "docker.io/library/debian", "engine:1"] {
            assert_eq!(parsed(other), None, "{other}");
        }
    }
}
