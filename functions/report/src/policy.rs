//! The session policy: what one attempt of one run may do in S3.

use serde_json::json;
use stepwes_core::{
    RunId,
    destination::{Destination, OutputsPlace, is_bucket_name},
    keys,
};
use thiserror::Error;

/// The longest session policy that STS takes, in characters
/// (<https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html>, `Policy`).
pub const MAX_POLICY: usize = 2048;

/// The buckets cannot be written into a session policy, or must not be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PolicyError {
    /// A name that no bucket can have: it would widen the policy, or break it.
    #[error(
        "{0:?} is no bucket's name; STEPWES_BUCKET, STEPWES_INPUT_BUCKETS, STEPWES_OUTPUT_BUCKETS and \
         STEPWES_TRIGGER_BUCKETS take plain names (3 to 63 of a-z, 0-9, '-' and '.'), without s3://, paths or wildcards"
    )]
    Name(String),
    /// The runs bucket among the input or output buckets: every run could read every other's files,
    /// or put its own in their place.
    #[error(
        "take the runs bucket {0:?} out of STEPWES_INPUT_BUCKETS and STEPWES_OUTPUT_BUCKETS: it would open every run's files to every other run"
    )]
    RunsBucket(String),
    /// More buckets than a session policy has room for.
    #[error(
        "STEPWES_INPUT_BUCKETS names {count} buckets, which makes a session policy of {length} \
         characters; STS takes {MAX_POLICY}: name fewer"
    )]
    TooLong {
        /// How many buckets are named.
        count: usize,
        /// How long the policy would be.
        length: usize,
    },
    /// The role's ARN is no ARN.
    #[error(
        "STEPWES_DATA_ROLE_ARN {0:?} is no ARN of a role (arn:aws:iam::123456789012:role/name)"
    )]
    Role(String),
}

/// What session policies are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What a bucket's ARN begins with.
    all: String,
    runs: String,
    inputs: Vec<String>,
    /// The buckets, by their names, whose objects start runs.
    triggers: Vec<String>,
}

impl Policy {
    /// Checks the names, and that a policy of any run and attempt fits. The partition (`aws`,
    /// `aws-cn`, …) is the role's.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub fn new(
        role_arn: &str,
        bucket: &str,
        inputs: &[String],
        outputs: &[String],
        triggers: &[String],
    ) -> Result<Self, PolicyError> {
        let partition = match role_arn.split(':').collect::<Vec<_>>().as_slice() {
            ["arn", partition, "iam", _, _, role]
                if !partition.is_empty() && role.starts_with("role/") =>
            {
                *partition
            }
            _ => return Err(PolicyError::Role(role_arn.to_owned())),
        };
        let named = inputs.iter().chain(outputs).chain(triggers);
        for name in named.map(String::as_str).chain([bucket]) {
            if !is_bucket_name(name) {
                return Err(PolicyError::Name(name.to_owned()));
            }
        }
        if inputs.iter().chain(outputs).any(|name| name == bucket) {
            return Err(PolicyError::RunsBucket(bucket.to_owned()));
        }
        let arn = |name: &str| format!("arn:{partition}:s3:::{name}");
        let policy = Self {
            all: arn(""),
            runs: arn(bucket),
            inputs: inputs.iter().map(|name| arn(name)).collect(),
            triggers: triggers.to_vec(),
        };
        let destinations = outputs.iter().map(|name| Some(Destination::longest(name)));
        for destination in destinations.chain([None]) {
            let run = RunId::from_uuid(uuid::Uuid::max());
            let length =
                policy.of_attempt(run, u32::MAX, Some(run), destination.as_ref(), &[]).len();
            if length > MAX_POLICY {
                return Err(PolicyError::TooLong { count: inputs.len(), length });
            }
        }
        Ok(policy)
    }

    /// The policy of one attempt's task: the request and every attempt's work can be read (an engine that
    /// resumes reads what the lost attempt left), its own work and outputs be written, its own
    /// outputs be read again, the inputs be read; and of the run that it goes on from, `resumed_from`,
    /// the state that was saved. Nothing can be deleted. The outputs are those of the attempt, or what
    /// is below the run's prefix of its `destination`. The objects that started the run,
    /// `triggered_by` (bucket and key), can be read, as in [`Policy::of_engine`].
    #[must_use]
    pub fn of_attempt(
        &self,
        run_id: RunId,
        attempt: u32,
        resumed_from: Option<RunId>,
        destination: Option<&Destination>,
        triggered_by: &[(String, String)],
    ) -> String {
        let runs = &self.runs;
        let request = keys::request_prefix(run_id);
        let work = keys::work_prefix(run_id, attempt);
        let all_work = work.strip_suffix(&format!("{attempt}/")).unwrap_or(&work);
        let place = OutputsPlace::new(run_id, attempt, destination);
        let (listed, outputs) = match &place.bucket {
            None => (vec![request.as_str(), all_work, &place.prefix], None),
            Some(bucket) => {
                let outputs = format!("{}{bucket}/{}*", self.all, place.prefix);
                (vec![request.as_str(), all_work], Some(outputs))
            }
        };
        let own = outputs.clone().unwrap_or_else(|| format!("{runs}/{}*", place.prefix));
        let write = json!({
            "Effect": "Allow",
            "Action": ["s3:PutObject", "s3:AbortMultipartUpload"],
            "Resource": [format!("{runs}/{work}*"), own],
        });
        let saved =
            resumed_from.map(|from| format!("{runs}/{}*/state/*", keys::all_work_prefix(from)));
        let unlisted = saved.into_iter().chain(outputs).collect();
        self.reading(&listed, unlisted, triggered_by, Some(&write))
    }

    /// The policy of what a task runs, the engine and its tools: the request and the inputs can be
    /// read. Nothing can be written: the task uploads what counts, and who keeps these credentials
    /// beyond the run's end must not be able to change what it came to.
    ///
    /// Of the objects that started the run, `triggered_by`, those can be read that lie in a bucket
    /// of triggers, and in the runs bucket below no prefix of the service's own; as many as a
    /// session policy has room for, the first ones first.
    #[must_use]
    pub fn of_engine(&self, run_id: RunId, triggered_by: &[(String, String)]) -> String {
        self.reading(&[&keys::request_prefix(run_id)], Vec::new(), triggered_by, None)
    }

    /// A policy that lets everything below `prefixes` of the runs bucket be read and listed, and
    /// the inputs; the objects `unlisted`, by their ARNs, be read, and `triggered_by`; with one more
    /// statement.
    fn reading(
        &self,
        prefixes: &[&str],
        unlisted: Vec<String>,
        triggered_by: &[(String, String)],
        more: Option<&serde_json::Value>,
    ) -> String {
        let mut unlisted = unlisted;
        let mut policy = self.document(prefixes, &unlisted, more);
        let mut left_out = 0;
        for (bucket, key) in triggered_by {
            let Some(arn) = self.triggering(bucket, key) else { continue };
            unlisted.push(arn);
            let longer = self.document(prefixes, &unlisted, more);
            if longer.len() > MAX_POLICY {
                unlisted.pop();
                left_out += 1;
            } else {
                policy = longer;
            }
        }
        if left_out > 0 {
            tracing::warn!(
                left_out,
                "a session policy has no room for objects of the run's trigger"
            );
        }
        policy
    }

    /// The ARN of an object that started a run, unless it is none that a trigger may wait for, or
    /// one that every run may read.
    fn triggering(&self, bucket: &str, key: &str) -> Option<String> {
        let arn = format!("{}{bucket}", self.all);
        let is_ours = arn == self.runs && keys::OURS.iter().any(|prefix| key.starts_with(prefix));
        let is_trigger = self.triggers.iter().any(|name| name == bucket);
        if is_ours || !is_trigger || self.inputs.contains(&arn) {
            return None;
        }
        // What would stand for something else in an ARN
        // (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html).
        let escaped = key.chars().fold(String::with_capacity(key.len()), |mut text, char| {
            match char {
                '*' | '?' | '$' => text.extend(['$', '{', char, '}']),
                plain => text.push(plain),
            }
            text
        });
        Some(format!("{arn}/{escaped}"))
    }

    fn document(
        &self,
        prefixes: &[&str],
        unlisted: &[String],
        more: Option<&serde_json::Value>,
    ) -> String {
        let runs = &self.runs;
        let objects: Vec<_> = prefixes
            .iter()
            .map(|prefix| format!("{runs}/{prefix}*"))
            .chain(unlisted.iter().cloned())
            .collect();
        let listed: Vec<_> = prefixes.iter().map(|prefix| format!("{prefix}*")).collect();
        let mut statements =
            vec![json!({"Effect": "Allow", "Action": "s3:GetObject", "Resource": objects})];
        statements.extend(more.cloned());
        statements.push(json!({
            "Effect": "Allow",
            "Action": "s3:ListBucket",
            "Resource": runs,
            "Condition": {"StringLike": {"s3:prefix": listed}},
        }));
        if !self.inputs.is_empty() {
            let objects = self.inputs.iter().map(|arn| format!("{arn}/*"));
            let resources: Vec<_> = objects.chain(self.inputs.iter().cloned()).collect();
            statements.push(json!({
                "Effect": "Allow",
                "Action": ["s3:GetObject", "s3:ListBucket"],
                "Resource": resources,
            }));
        }
        let policy = json!({"Version": "2012-10-17", "Statement": statements}).to_string();
        // STS takes no characters beyond U+00FF; JSON has another way to write them.
        let mut plain = String::with_capacity(policy.len());
        for char in policy.chars() {
            if char.is_ascii() {
                plain.push(char);
            } else {
                let units = char.encode_utf16(&mut [0; 2]).to_vec();
                plain.extend(units.iter().map(|unit| format!("\\u{unit:04x}")));
            }
        }
        plain
    }
}
