use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const PAIR: &str = r#"
bucket: lab-data
key: fastq/{sample}_R1.fastq.gz
wait_for: fastq/{sample}_R2.fastq.gz
owner: ada
request:
  workflow_url: https://example.org/align.cwl
  workflow_type: CWL
  workflow_type_version: v1.2
  tags: {sample: "{sample}", literal: "{{x}}"}
  workflow_params:
    "{sample}": kept
    reads: ["{key.url}", "{mate.url}"]
    names: {r1: "{key.name}", r2: "{mate.key}"}
    number: 7
"#;

fn pair() -> Trigger {
    Trigger::parse("pair.yaml", PAIR.as_bytes()).expect("a trigger")
}

/// A trigger like [`PAIR`] with some fields changed; null takes one away.
fn with(changes: &Value) -> Result<Trigger, TriggerError> {
    let mut file = json!({
        "bucket": "lab-data", "key": "fastq/{sample}_R1.fastq.gz",
        "request": {
            "workflow_url": "https://example.org/a.cwl", "workflow_type": "CWL",
            "workflow_type_version": "v1.2",
        },
    });
    for (name, value) in changes.as_object().expect("an object") {
        file[name] = value.clone();
    }
    file.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
    Trigger::parse("t.json", file.to_string().as_bytes())
}

fn request(changes: &Value) -> Result<Trigger, TriggerError> {
    let mut request = json!({
        "workflow_url": "https://example.org/a.cwl", "workflow_type": "CWL",
        "workflow_type_version": "v1.2",
    });
    for (name, value) in changes.as_object().expect("an object") {
        request[name] = value.clone();
    }
    with(&json!({"request": request}))
}

#[test]
fn both_objects_of_a_pair_make_the_same_request() {
    let trigger = pair();
    let first = trigger.matches("lab-data", "fastq/s 1_R1.fastq.gz");
    let second = trigger.matches("lab-data", "fastq/s 1_R2.fastq.gz");
    assert_eq!(first.len(), 1);
    assert_eq!(first, second);
    let set = &first[0];
    let objects: Vec<_> = set.objects.iter().map(|o| (o.name.as_str(), o.key.as_str())).collect();
    assert_eq!(objects, [("key", "fastq/s 1_R1.fastq.gz"), ("mate", "fastq/s 1_R2.fastq.gz")]);
    let rendered = trigger.rendered(set).expect("a request");
    assert_eq!(
        Value::Object(rendered),
        json!({
            "workflow_url": "https://example.org/align.cwl", "workflow_type": "CWL",
            "workflow_type_version": "v1.2",
            "tags": {"sample": "s 1", "literal": "{x}"},
            "workflow_params": {
                "{sample}": "kept",
                "reads": [
                    "s3://lab-data/fastq/s 1_R1.fastq.gz", "s3://lab-data/fastq/s 1_R2.fastq.gz",
                ],
                "names": {"r1": "s 1_R1.fastq.gz", "r2": "fastq/s 1_R2.fastq.gz"},
                "number": 7,
            },
        })
    );
}

#[test]
fn what_is_not_the_triggers_matches_nothing() {
    let trigger = pair();
    for (bucket, key) in [
        ("lab-data", "fastq/s1_R3.fastq.gz"),
        ("other", "fastq/s1_R1.fastq.gz"),
        ("lab-data", "fastq/.._x/../_R1.fastq.gz"),
    ] {
        assert_eq!(trigger.matches(bucket, key), [], "{bucket}/{key}");
    }
}

#[test]
fn an_object_that_could_be_split_in_two_ways_belongs_to_the_set_that_all_patterns_agree_in() {
    let trigger = with(&json!({"key": "{a}_{b}.r1", "wait_for": "{b}/{a}.r2"})).expect("a trigger");
    let from_key = trigger.matches("lab-data", "x_y_z.r1");
    assert_eq!(from_key.len(), 1);
    assert_eq!(from_key, trigger.matches("lab-data", "y_z/x.r2"));
    // The key that it would belong to is split in another way.
    assert_eq!(trigger.matches("lab-data", "z/x_y.r2"), []);
}

#[test]
fn an_object_may_belong_to_two_sets() {
    let trigger = with(&json!({"key": "{a}.gz", "wait_for": "{a}.b.gz"})).expect("a trigger");
    let keys: Vec<Vec<String>> = trigger
        .matches("lab-data", "x.b.gz")
        .into_iter()
        .map(|set| set.objects.into_iter().map(|object| object.key).collect())
        .collect();
    assert_eq!(keys, [["x.b.gz", "x.b.b.gz"], ["x.gz", "x.b.gz"]]);
}

#[test]
fn a_runs_key_tells_versions_parts_and_triggers_apart_and_nothing_else() {
    let trigger = pair();
    let set = |key: &str| trigger.matches("lab-data", key).remove(0);
    let versions = |one: &str, two: &str| [one.to_owned(), two.to_owned()];
    let key = trigger.run_key(&set("fastq/a_R1.fastq.gz"), &versions("1", "2"));
    assert_eq!(key, trigger.run_key(&set("fastq/a_R2.fastq.gz"), &versions("1", "2")));
    let mut renamed = trigger.clone();
    renamed.name = "other".to_owned();
    for other in [
        trigger.run_key(&set("fastq/a_R1.fastq.gz"), &versions("1", "3")),
        trigger.run_key(&set("fastq/a_R1.fastq.gz"), &versions("2", "1")),
        trigger.run_key(&set("fastq/b_R1.fastq.gz"), &versions("1", "2")),
        renamed.run_key(&set("fastq/a_R1.fastq.gz"), &versions("1", "2")),
    ] {
        assert_ne!(key, other);
    }
}

#[test]
fn a_bad_trigger_says_what_to_change() {
    for (changes, told) in [
        (json!({"bucket": null}), "missing field `bucket`"),
        (json!({"key": null}), "missing field `key`"),
        (json!({"request": null}), "missing field `request`"),
        (json!({"wait_fro": "x"}), "wait_fro"),
        (json!({"name": "other"}), "its file says \"t\""),
        (json!({"bucket": "s3://lab-data/"}), "without s3://"),
        (json!({"bucket": "Lab"}), "no bucket's name"),
        (json!({"owner": ""}), "owner"),
        (json!({"key": "fastq/{sample}"}), "key: the pattern does not say how keys end"),
        (json!({"key": "{a}/{a}.gz"}), "twice"),
        (json!({"wait_for": "{other}.gz"}), "it must have the parts of key"),
        (json!({"wait_for": "fastq/x.gz"}), "it must have the parts of key"),
        (json!({"wait_for": ["x"]}), "wait_for must be a pattern, or an object"),
        (json!({"wait_for": {"key": "{sample}.gz"}}), "no name of an object"),
        (json!({"wait_for": {"A": "{sample}.gz"}}), "no name of an object"),
        (json!({"wait_for": "fastq/{sample}_R1.fastq.gz"}), "is there already"),
    ] {
        let error = with(&changes).expect_err(&changes.to_string()).to_string();
        assert!(error.contains(told), "{changes}: {error} lacks {told}");
    }
    let many: Map<_, _> =
        (0..10).map(|n| (format!("m{n}"), json!(format!("{{sample}}.{n}")))).collect();
    let error = with(&json!({"wait_for": many})).expect_err("many").to_string();
    assert!(error.contains("9 objects at most"), "{error}");
}

#[test]
fn a_bad_request_of_a_trigger_says_what_to_change() {
    for (changes, told) in [
        (json!({"workflow_parms": {}}), "\"workflow_parms\" is no field of a RunRequest"),
        (json!({"workflow_type": null}), "workflow_type is missing"),
        (json!({"workflow_params": "x"}), "workflow_params must be a JSON object"),
        (json!({"tags": {"a": "{lane}"}}), "nothing is named {lane}; there are {key.key}"),
        (json!({"tags": {"a": "{mate.url}"}}), "nothing is named {mate.url}"),
        (json!({"tags": {"a": "{sample"}}), "has no }"),
        (json!({"workflow_attachment": ["{sample}.cwl"]}), "named without braces"),
        (json!({"workflow_attachment": ["../a.cwl"]}), "must not contain '..'"),
        (json!({"workflow_url": "{sample}.cwl"}), "named without braces"),
        (json!({"workflow_url": "a/../b.cwl"}), "workflow_url"),
    ] {
        let error = request(&changes).expect_err(&changes.to_string()).to_string();
        assert!(error.contains(told), "{changes}: {error} lacks {told}");
    }
    assert!(request(&json!({"workflow_url": "https://example.org/{sample}.cwl"})).is_ok());
    let attached = request(&json!({"workflow_url": "a.cwl"})).expect("a trigger").attachments();
    assert_eq!(
        attached.expect("names"),
        [AttachmentName::parse(Some("a.cwl"), 1).expect("a name")]
    );
}

#[test]
fn files_are_json_or_yaml_of_a_bounded_size() {
    let bomb = format!(
        "a: &a [x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\n\
         d: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d]\n{PAIR}"
    );
    for (file, content, told) in [
        ("pair", PAIR.to_owned(), "ends in .yaml, .yml or .json"),
        ("pair.txt", PAIR.to_owned(), "ends in .yaml, .yml or .json"),
        (".yaml", PAIR.to_owned(), "no name of a trigger"),
        ("a b.yaml", PAIR.to_owned(), "no name of a trigger"),
        ("pair.json", PAIR.to_owned(), "cannot be read"),
        ("pair.yaml", "bucket: [".to_owned(), "cannot be read"),
        ("pair.yaml", format!("{PAIR}\nbucket: twice\n"), "cannot be read"),
        ("pair.yaml", bomb, "cannot be read"),
        ("pair.yaml", " ".repeat(70_000), "65536 bytes at most"),
    ] {
        let error = Trigger::parse(file, content.as_bytes()).expect_err(file).to_string();
        assert!(error.contains(told), "{file}: {error} lacks {told}");
    }
    assert!(Trigger::parse("pair.yml", PAIR.as_bytes()).is_ok());
    assert!(Trigger::parse("pair.yaml", b"\xff").is_err());
}

#[test]
fn a_service_takes_triggers_on_its_operators_buckets_outside_of_its_own_prefixes() {
    let allowed = ["lab-data".to_owned(), "runs".to_owned()];
    assert_eq!(pair().check(&allowed, "runs"), Ok(()));
    let refused = |trigger: &Trigger, allowed: &[String]| {
        trigger.check(allowed, "runs").expect_err("refused").to_string()
    };
    assert!(refused(&pair(), &allowed[1..]).contains("those of runs do"));
    assert!(refused(&pair(), &[]).contains("TriggerBuckets"));
    for key in [
        "outputs/{sample}.gz",
        "{sample}/x.gz",
        "work/{sample}/x.gz",
        "submit/{sample}.gz",
        "triggers/{sample}.gz",
        "re{sample}/x.gz",
        "results/{sample}/x.gz",
    ] {
        let trigger = with(&json!({"bucket": "runs", "key": key})).expect("a trigger");
        assert!(refused(&trigger, &allowed).contains("the service's own"), "{key}");
        // The same in a bucket that is not ours.
        let other = with(&json!({"key": key})).expect("a trigger");
        assert_eq!(other.check(&allowed, "runs"), Ok(()), "{key}");
    }
    let mate = json!({"bucket": "runs", "key": "in/{a}.r1", "wait_for": "{a}/in.r2"});
    assert!(refused(&with(&mate).expect("a trigger"), &allowed).contains("the service's own"));
    let beside = json!({"bucket": "runs", "key": "fastq/{sample}.gz"});
    assert_eq!(with(&beside).expect("a trigger").check(&allowed, "runs"), Ok(()));
}

#[test]
fn a_request_grows_no_larger_than_a_request_may_be() {
    let long: Vec<_> = (0..1000).map(|_| "{sample}{sample}{sample}{sample}").collect();
    let trigger = request(&json!({"workflow_params": {"long": long}})).expect("a trigger");
    let key = format!("fastq/{}_R1.fastq.gz", "y".repeat(900));
    let set = trigger.matches("lab-data", &key).remove(0);
    assert_eq!(trigger.request(&set).expect_err("too large").status(), 413);
}

proptest! {
    /// Whatever a key holds, it comes out as text in the very places where the names stood.
    #[test]
    fn a_part_is_text_and_changes_nothing_else(sample in "[^/\\p{Cc}]{1,20}") {
        let trigger = pair();
        let key = format!("fastq/{sample}_R1.fastq.gz");
        for set in trigger.matches("lab-data", &key) {
            let rendered = trigger.rendered(&set).expect("a request");
            prop_assert_eq!(&rendered["tags"]["sample"], &set.parts["sample"]);
            let url = format!("s3://lab-data/{key}");
            prop_assert_eq!(&rendered["workflow_params"]["reads"][0], &url);
            prop_assert_eq!(rendered.len(), 5);
            prop_assert_eq!(&rendered["workflow_params"]["number"], &json!(7));
        }
    }
}
