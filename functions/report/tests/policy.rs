//! The session policy.

use stepwes_core::{RunId, destination::Destination};
use stepwes_report::policy::{MAX_POLICY, Policy, PolicyError};

const ROLE: &str = "arn:aws:iam::123456789012:role/stepwes-data";

fn run() -> RunId {
    "01890a5d-ac96-774b-bcce-b302099a8057".parse().expect("a run id")
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn policy(inputs: &[&str]) -> Result<Policy, PolicyError> {
    Policy::new(ROLE, "runs-bucket", &names(inputs), &[], &[])
}

fn shown(policy: &Policy) -> String {
    let text = policy.of_attempt(run(), 2, None, None, &[]);
    let value: serde_json::Value = serde_json::from_str(&text).expect("a policy is JSON");
    serde_json::to_string_pretty(&value).expect("JSON")
}

#[test]
fn a_task_reads_its_run_and_writes_its_attempt() {
    let policy = policy(&[]).expect("a policy");
    insta::assert_snapshot!(shown(&policy), @r#"
    {
      "Version": "2012-10-17",
      "Statement": [
        {
          "Effect": "Allow",
          "Action": "s3:GetObject",
          "Resource": [
            "arn:aws:s3:::runs-bucket/requests/01890a5d-ac96-774b-bcce-b302099a8057/*",
            "arn:aws:s3:::runs-bucket/work/01890a5d-ac96-774b-bcce-b302099a8057/*",
            "arn:aws:s3:::runs-bucket/outputs/01890a5d-ac96-774b-bcce-b302099a8057/2/*"
          ]
        },
        {
          "Effect": "Allow",
          "Action": [
            "s3:PutObject",
            "s3:AbortMultipartUpload"
          ],
          "Resource": [
            "arn:aws:s3:::runs-bucket/work/01890a5d-ac96-774b-bcce-b302099a8057/2/*",
            "arn:aws:s3:::runs-bucket/outputs/01890a5d-ac96-774b-bcce-b302099a8057/2/*"
          ]
        },
        {
          "Effect": "Allow",
          "Action": "s3:ListBucket",
          "Resource": "arn:aws:s3:::runs-bucket",
          "Condition": {
            "StringLike": {
              "s3:prefix": [
                "requests/01890a5d-ac96-774b-bcce-b302099a8057/*",
                "work/01890a5d-ac96-774b-bcce-b302099a8057/*",
                "outputs/01890a5d-ac96-774b-bcce-b302099a8057/2/*"
              ]
            }
          }
        }
      ]
    }
    "#);
}

#[test]
fn a_run_with_a_destination_writes_there_below_its_own_prefix_alone() {
    let policy = policy(&[]).expect("a policy");
    let destination = "s3://lab-results/project".parse().expect("a destination");
    let text = policy.of_attempt(run(), 2, None, Some(&destination), &[]);
    let value: serde_json::Value = serde_json::from_str(&text).expect("a policy is JSON");
    let outputs = format!("arn:aws:s3:::lab-results/project/{}/*", run());
    let writes = &value["Statement"][1];
    assert_eq!(writes["Action"][0], "s3:PutObject");
    let work = format!("arn:aws:s3:::runs-bucket/work/{}/2/*", run());
    assert_eq!(writes["Resource"], serde_json::json!([work, outputs]));
    let reads = value["Statement"][0]["Resource"].as_array().expect("a list");
    assert!(reads.contains(&outputs.into()));
    assert_eq!(text.matches("lab-results").count(), 2, "{text}");
    assert!(!text.contains("runs-bucket/outputs"), "{text}");
}

#[test]
fn the_named_inputs_can_be_read_and_nothing_else() {
    let policy = policy(&["reference-data", "lab.fastq"]).expect("a policy");
    insta::assert_snapshot!(shown(&policy), @r#"
    {
      "Version": "2012-10-17",
      "Statement": [
        {
          "Effect": "Allow",
          "Action": "s3:GetObject",
          "Resource": [
            "arn:aws:s3:::runs-bucket/requests/01890a5d-ac96-774b-bcce-b302099a8057/*",
            "arn:aws:s3:::runs-bucket/work/01890a5d-ac96-774b-bcce-b302099a8057/*",
            "arn:aws:s3:::runs-bucket/outputs/01890a5d-ac96-774b-bcce-b302099a8057/2/*"
          ]
        },
        {
          "Effect": "Allow",
          "Action": [
            "s3:PutObject",
            "s3:AbortMultipartUpload"
          ],
          "Resource": [
            "arn:aws:s3:::runs-bucket/work/01890a5d-ac96-774b-bcce-b302099a8057/2/*",
            "arn:aws:s3:::runs-bucket/outputs/01890a5d-ac96-774b-bcce-b302099a8057/2/*"
          ]
        },
        {
          "Effect": "Allow",
          "Action": "s3:ListBucket",
          "Resource": "arn:aws:s3:::runs-bucket",
          "Condition": {
            "StringLike": {
              "s3:prefix": [
                "requests/01890a5d-ac96-774b-bcce-b302099a8057/*",
                "work/01890a5d-ac96-774b-bcce-b302099a8057/*",
                "outputs/01890a5d-ac96-774b-bcce-b302099a8057/2/*"
              ]
            }
          }
        },
        {
          "Effect": "Allow",
          "Action": [
            "s3:GetObject",
            "s3:ListBucket"
          ],
          "Resource": [
            "arn:aws:s3:::reference-data/*",
            "arn:aws:s3:::lab.fastq/*",
            "arn:aws:s3:::reference-data",
            "arn:aws:s3:::lab.fastq"
          ]
        }
      ]
    }
    "#);
}

#[test]
fn what_a_task_runs_reads_its_request_and_the_inputs_and_writes_nothing() {
    let policy = policy(&["reference-data"]).expect("a policy");
    let value: serde_json::Value =
        serde_json::from_str(&policy.of_engine(run(), &[])).expect("a policy is JSON");
    let shown = serde_json::to_string_pretty(&value).expect("JSON");
    insta::assert_snapshot!(shown, @r#"
    {
      "Version": "2012-10-17",
      "Statement": [
        {
          "Effect": "Allow",
          "Action": "s3:GetObject",
          "Resource": [
            "arn:aws:s3:::runs-bucket/requests/01890a5d-ac96-774b-bcce-b302099a8057/*"
          ]
        },
        {
          "Effect": "Allow",
          "Action": "s3:ListBucket",
          "Resource": "arn:aws:s3:::runs-bucket",
          "Condition": {
            "StringLike": {
              "s3:prefix": [
                "requests/01890a5d-ac96-774b-bcce-b302099a8057/*"
              ]
            }
          }
        },
        {
          "Effect": "Allow",
          "Action": [
            "s3:GetObject",
            "s3:ListBucket"
          ],
          "Resource": [
            "arn:aws:s3:::reference-data/*",
            "arn:aws:s3:::reference-data"
          ]
        }
      ]
    }
    "#);
}

#[test]
fn a_policy_never_says_more_than_two_wildcard_free_things_about_other_runs() {
    let policy = policy(&["reference-data"]).expect("a policy");
    let text = policy.of_attempt(run(), 2, None, None, &[]);
    let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    for statement in value["Statement"].as_array().expect("statements") {
        let resources = match &statement["Resource"] {
            serde_json::Value::Array(resources) => resources.clone(),
            one => vec![one.clone()],
        };
        for resource in resources.iter().filter_map(serde_json::Value::as_str) {
            let own = resource.contains(&run().to_string());
            let input = resource.starts_with("arn:aws:s3:::reference-data");
            let listing = resource == "arn:aws:s3:::runs-bucket"
                && statement["Condition"]["StringLike"]["s3:prefix"].as_array().is_some_and(
                    |prefixes| {
                        prefixes.iter().all(|prefix| {
                            prefix.as_str().is_some_and(|p| p.contains(&run().to_string()))
                        })
                    },
                );
            assert!(own || input || listing, "{resource}");
        }
    }
    assert!(!text.contains("Delete"));
}

#[test]
fn a_run_that_goes_on_from_another_reads_what_that_one_saved_and_nothing_else_of_it() {
    let from: RunId = "01890a5d-ac96-774b-bcce-b302099a0000".parse().expect("a run id");
    let policy = policy(&[]).expect("a policy");
    let (with, without) = (
        policy.of_attempt(run(), 1, Some(from), None, &[]),
        policy.of_attempt(run(), 1, None, None, &[]),
    );
    let saved = format!(r#""arn:aws:s3:::runs-bucket/work/{from}/*/state/*""#);
    assert_eq!(with.matches(&from.to_string()).count(), 1);
    assert_eq!(with.replace(&format!(",{saved}"), ""), without, "reading is all that is added");
    let value: serde_json::Value = serde_json::from_str(&with).expect("JSON");
    assert_eq!(value["Statement"][0]["Action"], "s3:GetObject");
    assert!(value["Statement"][0]["Resource"].to_string().contains(&saved));
    assert!(!policy.of_engine(run(), &[]).contains("/work/"), "what a task runs reads none of it");
}

#[test]
fn the_partition_is_the_roles() {
    let role = "arn:aws-cn:iam::123456789012:role/stepwes-data";
    let policy = Policy::new(role, "runs-bucket", &names(&["inputs"]), &[], &[]).expect("a policy");
    let text = policy.of_attempt(run(), 1, None, None, &[]);
    assert!(text.contains("arn:aws-cn:s3:::runs-bucket") && !text.contains("arn:aws:"));
}

#[test]
fn a_policy_of_any_attempt_fits_into_what_sts_takes_or_is_refused_at_the_start() {
    let long = |n: usize| format!("{n:03}-{}", "x".repeat(59));
    let (bucket, output) = (long(999), long(998));
    let mut inputs = Vec::new();
    let count = loop {
        match Policy::new(ROLE, &bucket, &inputs, std::slice::from_ref(&output), &[]) {
            Ok(policy) => {
                let run = RunId::from_uuid(uuid::Uuid::max());
                for destination in [None, Some(Destination::longest(&output))] {
                    let text =
                        policy.of_attempt(run, u32::MAX, Some(run), destination.as_ref(), &[]);
                    assert!(text.len() <= MAX_POLICY, "{} characters", text.len());
                }
            }
            Err(PolicyError::TooLong { count, length }) => {
                assert!(length > MAX_POLICY);
                break count;
            }
            Err(other) => panic!("{other}"),
        }
        inputs.push(long(inputs.len()));
    };
    assert!(count > 3, "there is room for {} buckets with the longest names", count - 1);
}

/// The objects of the runs that a policy's first statement lets be read.
fn read_by(text: &str) -> Vec<String> {
    let value: serde_json::Value = serde_json::from_str(text).expect("JSON");
    assert_eq!(value["Statement"][0]["Action"], "s3:GetObject");
    let resources = value["Statement"][0]["Resource"].as_array().expect("a list");
    resources.iter().filter_map(|arn| arn.as_str().map(str::to_owned)).collect()
}

#[test]
fn a_run_reads_the_objects_that_started_it_and_none_that_only_looks_like_one() {
    let policy = Policy::new(
        ROLE,
        "runs-bucket",
        &names(&["reference-data"]),
        &names(&["lab-results"]),
        &names(&["runs-bucket", "incoming", "reference-data"]),
    );
    let policy = policy.expect("a policy");
    let objects: Vec<_> = [
        ("runs-bucket", "fastq/a b_R1.fastq.gz"),
        ("incoming", "what*?/${aws:userid}$"),
        ("incoming", "\u{8aad}\u{1f9ec}.gz"),
        // Below the service's own prefixes, in no bucket of triggers, and in one that all may read.
        ("runs-bucket", "requests/01890a5d-ac96-774b-bcce-b302099a0000/request.json"),
        ("runs-bucket", "submit/ann/x.run.json"),
        ("lab-results", "x"),
        ("*", "x"),
        ("reference-data", "x"),
    ]
    .map(|(bucket, key)| (bucket.to_owned(), key.to_owned()))
    .into();
    let expected = [
        "arn:aws:s3:::runs-bucket/fastq/a b_R1.fastq.gz",
        "arn:aws:s3:::incoming/what${*}${?}/${$}{aws:userid}${$}",
        "arn:aws:s3:::incoming/\u{8aad}\u{1f9ec}.gz",
    ];
    for (with, without) in [
        (policy.of_engine(run(), &objects), policy.of_engine(run(), &[])),
        (
            policy.of_attempt(run(), 1, None, None, &objects),
            policy.of_attempt(run(), 1, None, None, &[]),
        ),
    ] {
        assert!(with.is_ascii(), "STS takes nothing beyond U+00FF: {with}");
        let (with, without) = (read_by(&with), read_by(&without));
        assert_eq!(with, [&without[..], &expected.map(str::to_owned)].concat());
    }
}

#[test]
fn objects_for_which_a_policy_has_no_room_are_left_out() {
    let policy = Policy::new(ROLE, "runs-bucket", &[], &[], &names(&["incoming"]));
    let policy = policy.expect("a policy");
    let key = |length: usize| ("incoming".to_owned(), "k".repeat(length));
    let text = policy.of_engine(run(), &[key(900), key(1024), key(20)]);
    assert!(text.len() <= MAX_POLICY, "{} characters", text.len());
    let read: Vec<_> = read_by(&text).into_iter().filter(|arn| arn.contains("incoming")).collect();
    let expected = [900, 20].map(|length| format!("arn:aws:s3:::incoming/{}", "k".repeat(length)));
    assert_eq!(read, expected);
}

#[test]
fn names_that_would_widen_the_policy_are_refused() {
    for name in ["*", "a*b", "b/other", "s3://bucket", "", "ab", "UPPER", "a\"b", "${aws:x}", "-ab"]
    {
        assert!(matches!(policy(&[name]), Err(PolicyError::Name(_))), "{name}");
        assert!(Policy::new(ROLE, name, &[], &[], &[]).is_err(), "{name}");
    }
    assert!(matches!(policy(&["runs-bucket"]), Err(PolicyError::RunsBucket(_))));
    let outputs = |name: &str| Policy::new(ROLE, "runs-bucket", &[], &names(&[name]), &[]);
    assert!(matches!(outputs("runs-bucket"), Err(PolicyError::RunsBucket(_))));
    assert!(matches!(outputs("b*"), Err(PolicyError::Name(_))));
    let triggers = Policy::new(ROLE, "runs-bucket", &[], &[], &names(&["b*"]));
    assert!(matches!(triggers, Err(PolicyError::Name(_))));
}

#[test]
fn a_role_that_is_no_role_is_refused() {
    for role in
        ["", "stepwes-data", "arn:aws:s3:::x", "arn::iam::1:role/x", "arn:aws:iam::1:user/x"]
    {
        let refused = Policy::new(role, "runs-bucket", &[], &[], &[]);
        assert_eq!(refused, Err(PolicyError::Role(role.to_owned())));
    }
}
