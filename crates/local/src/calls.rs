//! Counts the AWS calls, so that what a run costs can be pinned by a test.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, PoisonError},
};

/// The AWS services that are embedded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// DynamoDB.
    DynamoDb,
    /// ECS.
    Ecs,
    /// Lambda.
    Lambda,
    /// S3.
    S3,
    /// Step Functions.
    States,
    /// STS.
    Sts,
}

impl Service {
    /// The name that requests to the service are signed for.
    #[must_use]
    pub const fn signing_name(self) -> &'static str {
        match self {
            Self::DynamoDb => "dynamodb",
            Self::Ecs => "ecs",
            Self::Lambda => "lambda",
            Self::S3 => "s3",
            Self::States => "states",
            Self::Sts => "sts",
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.signing_name())
    }
}

/// The operation under which state transitions of Step Functions are counted: that is what AWS
/// charges for, though it is no call.
pub const STATE_TRANSITION: &str = "StateTransition";

/// How often each operation of each service was called since the server started.
///
/// Every AWS request passes here once it is known what it asks for and that it may, before it is
/// carried out.
#[derive(Debug, Default)]
pub(crate) struct Calls(Mutex<BTreeMap<Service, BTreeMap<String, u64>>>);

impl Calls {
    /// Counts one call.
    pub(crate) fn enter(&self, service: Service, operation: &str) {
        self.add(service, operation, 1);
    }

    /// Counts `count` of something.
    pub(crate) fn add(&self, service: Service, operation: &str, count: u64) {
        if count == 0 {
            return;
        }
        let mut calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let operations = calls.entry(service).or_default();
        if let Some(counted) = operations.get_mut(operation) {
            *counted += count;
        } else {
            operations.insert(operation.to_owned(), count);
        }
    }

    /// The counts, as `<service>:<operation>`, such as `dynamodb:TransactWriteItems`.
    pub(crate) fn snapshot(&self) -> BTreeMap<String, u64> {
        let calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        calls
            .iter()
            .flat_map(|(service, operations)| {
                operations.iter().map(move |(name, count)| (format!("{service}:{name}"), *count))
            })
            .collect()
    }
}
