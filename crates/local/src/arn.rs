//! The names of things in the embedded AWS. Region and account are as fictional as in AWS's own
//! examples; the partition is the real one, so that ARNs look as they do in the cloud.

/// The region that requests are signed for.
pub const REGION: &str = "us-east-1";
/// The account.
pub const ACCOUNT: &str = "000000000000";
/// The partition of every ARN.
pub(crate) const PARTITION: &str = "aws";
/// The run table.
pub const TABLE: &str = "stepwes";
/// The bucket of the runs' files.
pub const BUCKET: &str = "runs";
/// The state machine.
pub const STATE_MACHINE: &str = "arn:aws:states:us-east-1:000000000000:stateMachine:stepwes";
/// The state machine's name.
pub(crate) const STATE_MACHINE_NAME: &str = "stepwes";
/// What the ARN of an execution begins with; its name follows.
pub const EXECUTION_PREFIX: &str = "arn:aws:states:us-east-1:000000000000:execution:stepwes:";
/// The ECS cluster.
pub const CLUSTER: &str = "arn:aws:ecs:us-east-1:000000000000:cluster/stepwes";
/// The cluster's name.
pub(crate) const CLUSTER_NAME: &str = "stepwes";
/// What the ARN of a task begins with; its id follows.
pub const TASK_PREFIX: &str = "arn:aws:ecs:us-east-1:000000000000:task/stepwes/";
/// What the ARN of a container begins with; `<task id>/<task id>` follows.
pub(crate) const CONTAINER_PREFIX: &str = "arn:aws:ecs:us-east-1:000000000000:container/stepwes/";
/// The task definition.
pub const TASK_DEFINITION: &str =
    "arn:aws:ecs:us-east-1:000000000000:task-definition/stepwes-engine:1";
/// The task definition's family, under which it can be asked for too.
pub(crate) const TASK_FAMILY: &str = "stepwes-engine";
/// The role whose sessions reach the runs' files, each as far as its session policy says.
pub const DATA_ROLE: &str = "arn:aws:iam::000000000000:role/stepwes-task-data";
/// A session of [`DATA_ROLE`]; `/<session name>` follows.
pub(crate) const DATA_SESSION: &str = "arn:aws:sts::000000000000:assumed-role/stepwes-task-data";
/// What the ARN of a function begins with; its name follows.
pub(crate) const FUNCTION_PREFIX: &str = "arn:aws:lambda:us-east-1:000000000000:function:";
/// The capacity provider that the state machine asks for.
pub(crate) const CAPACITY_PROVIDER: &str = "LOCAL";
