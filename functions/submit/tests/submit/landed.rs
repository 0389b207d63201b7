//! Objects that land: RunRequests that are dropped, triggers, and what triggers wait for.

use std::collections::BTreeSet;

use futures::future::join_all;
use serde_json::{Value, json};
use stepwes_cloud::http::Callers;
use stepwes_core::{RunId, keys, trigger::triggered_by};
use stepwes_submit::{
    EventFailure, Settings, State,
    events::{Outcome, handle},
};

use crate::{
    settings, state,
    support::{BUCKET, Fault, World, run_id},
};

const TOOL: &str = "cwlVersion: v1.2";

const PAIR: &str = r#"
bucket: lab-data
key: fastq/{sample}_R1.fastq.gz
wait_for: fastq/{sample}_R2.fastq.gz
owner: ada
request:
  workflow_url: align.cwl
  workflow_type: CWL
  workflow_type_version: v1.2
  tags: {sample: "{sample}"}
  workflow_params: {reads: ["{key.url}", "{mate.url}"]}
"#;

/// A sample event, as if it were of the tests' bucket.
fn sample(name: &str) -> Value {
    let text = match name {
        "run-request" => include_str!("../../../../events/submit/object-created-run-request.json"),
        "trigger" => include_str!("../../../../events/submit/object-created-trigger.json"),
        "r1" => include_str!("../../../../events/submit/object-created-pair-r1.json"),
        "r2" => include_str!("../../../../events/submit/object-created-pair-r2.json"),
        "deleted" => include_str!("../../../../events/submit/object-deleted.json"),
        other => panic!("no sample {other}"),
    };
    let mut event: Value = serde_json::from_str(text).expect("JSON");
    let detail = &mut event["detail"];
    if detail["bucket"]["name"] == "stepwes-runs" {
        detail["bucket"]["name"] = BUCKET.into();
    }
    event
}

/// The event of another key.
fn of(name: &str, key: &str) -> Value {
    let mut event = sample(name);
    event["detail"]["object"]["key"] = key.into();
    event
}

fn request(url: &str) -> String {
    json!({"workflow_type": "CWL", "workflow_type_version": "v1.2", "workflow_url": url})
        .to_string()
}

fn runs(outcome: &Outcome) -> Vec<RunId> {
    outcome.runs.iter().map(|run| run.run_id).collect()
}

async fn run(state: &State, event: Value) -> RunId {
    let outcome = handle(state, event).await.expect("a run");
    assert_eq!(outcome.runs.len(), 1, "{outcome:?}");
    outcome.runs[0].run_id
}

/// That an event is refused; gives the reason.
async fn refused(state: &State, event: Value) -> String {
    match handle(state, event).await {
        Err(EventFailure::Rejected(why)) => why,
        other => panic!("not refused: {other:?}"),
    }
}

fn report(world: &World, place: &str) -> Value {
    serde_json::from_slice(&world.object(&format!("rejected/{place}.json"))).expect("JSON")
}

fn reports(world: &World) -> Vec<String> {
    world.keys().into_iter().filter(|key| key.starts_with("rejected/")).collect()
}

/// A world with the pair's trigger and the workflow that it attaches.
async fn with_pair() -> (World, State) {
    let world = World::new().await;
    world.put("triggers/pair/align.cwl", TOOL);
    world.put("triggers/pair.yaml", PAIR);
    let state = state(&world, settings());
    (world, state)
}

const R1: &str = "/lab-data/fastq/s1_R1.fastq.gz";
const R2: &str = "/lab-data/fastq/s1_R2.fastq.gz";

#[tokio::test]
async fn a_dropped_request_makes_one_run_of_its_folders_owner() {
    let world = World::new().await;
    let state = state(&world, settings());
    let content = json!({
        "workflow_type": "CWL", "workflow_type_version": "v1.2", "workflow_url": "main.cwl",
        "workflow_params": {"message": "hello"}, "workflow_attachment": ["tools/echo.cwl"],
    });
    world.put("submit/ada/hello.run.json", content.to_string());
    world.put("submit/ada/main.cwl", TOOL);
    world.put("submit/ada/tools/echo.cwl", TOOL);
    let id = run(&state, sample("run-request")).await;
    let run = world.store.get(id).await.expect("a table").expect("the run");
    assert_eq!(run.owner, "ada");
    for name in ["main.cwl", "tools/echo.cwl"] {
        assert_eq!(world.object(&keys::attachment(id, name)), TOOL);
    }
    let stored: Value = serde_json::from_slice(&world.object(&keys::request(id))).expect("JSON");
    assert_eq!(stored["request"]["workflow_params"]["message"], "hello");
    assert_eq!(world.starts(), [(id.to_string(), json!({"run_id": id.to_string()}))]);

    assert!(run.summary.tags.is_empty());

    // S3 tells of it again, even under another id, and all at once.
    let mut again = sample("run-request");
    again["id"] = "another".into();
    again["detail"]["object"]["sequencer"] = "00617F08299329D18F".into();
    let told = join_all((0..4).map(|_| handle(&state, again.clone()))).await;
    for outcome in told {
        assert_eq!(runs(&outcome.expect("the run")), [id]);
    }
    // An attachment that was changed between two tellings makes no second run.
    world.put("submit/ada/main.cwl", "cwlVersion: v1.1");
    let outcome = handle(&state, again.clone()).await.expect("nothing");
    assert_eq!((runs(&outcome), outcome.nothing.is_some()), (vec![], true));
    // Dropped once more, it is another one.
    world.put("submit/ada/hello.run.json", content.to_string());
    let second = self::run(&state, again).await;
    assert_ne!(second, id);
    // Also when the first one's event is told once more: what is there counts.
    assert_eq!(self::run(&state, sample("run-request")).await, second);
    assert_eq!(reports(&world), [""; 0]);
}

#[tokio::test]
async fn an_owner_with_a_slash_is_written_percent_encoded() {
    let world = World::new().await;
    let state = state(&world, settings());
    let key = "submit/123456789012:role%2FLab/x/a.run.json";
    world.put(key, request("https://example.org/a.cwl"));
    let id = run(&state, of("run-request", key)).await;
    let run = world.store.get(id).await.expect("a table").expect("the run");
    assert_eq!(run.owner, "123456789012:role/Lab");
}

#[tokio::test]
async fn where_callers_are_not_told_apart_the_folder_is_nobodys() {
    let world = World::new().await;
    let state = state(&world, Settings { callers: Callers::anonymous(), ..settings() });
    for key in ["submit/a.run.json", "submit/ada/a.run.json"] {
        world.put(key, request("https://example.org/a.cwl"));
        let id = run(&state, of("run-request", key)).await;
        let run = world.store.get(id).await.expect("a table").expect("the run");
        assert_eq!(run.owner, "anonymous");
    }
}

#[tokio::test]
async fn a_bad_request_is_reported_and_the_report_goes_when_it_is_mended() {
    let world = World::new().await;
    let state = state(&world, settings());
    let key = "submit/ada/bad.run.json";
    for (content, told) in [
        ("{".to_owned(), "not JSON"),
        (request("https://example.org/a.cwl").replace("CWL", "WDL"), "CWL"),
        (request("ftp://example.org/a.cwl"), "ftp"),
        (request("../main.cwl"), "workflow_url"),
        (request("missing.cwl"), "s3://bucket/submit/ada/missing.cwl"),
        (" ".repeat(2 << 20), "1048576 at most"),
    ] {
        world.put(key, content);
        let why = refused(&state, of("run-request", key)).await;
        assert!(why.contains(told), "{why} lacks {told}");
        let report = report(&world, key);
        assert_eq!(report["why"], why);
        assert_eq!(report["what"], "run request");
        assert_eq!(report["key"], key);
        assert_eq!(report["when"], "2026-01-02T03:04:05Z");
        assert_eq!(report["event_id"], "17793124-05d4-b198-2fde-7ededc63b103");
    }
    assert_eq!((world.items().await, world.starts().len()), (0, 0));
    world.put(key, request("https://example.org/a.cwl"));
    run(&state, of("run-request", key)).await;
    assert_eq!(reports(&world), [""; 0]);
    // Outside of everybody's folder.
    world.put("submit/a.run.json", request("https://example.org/a.cwl"));
    let why = refused(&state, of("run-request", "submit/a.run.json")).await;
    assert!(why.contains("submit/OWNER/"), "{why}");
}

#[tokio::test]
async fn attachments_together_have_a_bound() {
    let world = World::new().await;
    let limits = stepwes_submit::Limits { max_request_bytes: 30, ..Default::default() };
    let state = state(&world, Settings { limits, ..settings() });
    let content = json!({
        "workflow_type": "CWL", "workflow_type_version": "v1.2", "workflow_url": "main.cwl",
        "workflow_attachment": ["b.txt"],
    });
    world.put("submit/ada/hello.run.json", content.to_string());
    world.put("submit/ada/main.cwl", TOOL);
    world.put("submit/ada/b.txt", "x".repeat(15));
    let why = refused(&state, sample("run-request")).await;
    assert!(why.contains("more than 30 bytes"), "{why}");
    world.put("submit/ada/b.txt", "x".repeat(14));
    run(&state, sample("run-request")).await;
}

#[tokio::test]
async fn what_is_none_of_ours_starts_nothing() {
    let world = World::new().await;
    let state = state(&world, settings());
    for key in [
        "submit/ada/main.cwl",
        "submit/ada/",
        "rejected/submit/ada/a.run.json.json",
        "requests/x/request.json",
        "outputs/x/1/a.run.json",
        "triggers/pair/align.cwl",
        "fastq/s1_R1.fastq.gz",
    ] {
        world.put(key, "x");
        let outcome = handle(&state, of("run-request", key)).await.expect("nothing");
        assert!(outcome.nothing.is_some(), "{key}: {outcome:?}");
    }
    // Gone before we looked.
    let outcome = handle(&state, of("run-request", "submit/ada/gone.run.json")).await;
    assert!(outcome.expect("nothing").nothing.is_some());
    let mut other = sample("r1");
    other["detail"]["bucket"]["name"] = "somebody-elses".into();
    assert!(handle(&state, other).await.expect("nothing").nothing.is_some());
    assert_eq!((world.items().await, reports(&world).len()), (0, 1));
    for event in [sample("deleted"), json!({"source": "aws.s3"}), json!(null)] {
        let failure = handle(&state, event).await.expect_err("an error");
        assert_eq!(failure.error_type(), "Stepwes.Internal");
        assert!(failure.to_string().contains("neither a request of API Gateway"), "{failure}");
    }
}

#[tokio::test]
async fn a_pair_makes_one_run_whichever_comes_first_and_however_often_it_is_told() {
    for (first, second) in [("r1", "r2"), ("r2", "r1")] {
        let (world, state) = with_pair().await;
        world.put(if first == "r1" { R1 } else { R2 }, "reads");
        let outcome = handle(&state, sample(first)).await.expect("it waits");
        let missing = if first == "r1" { "fastq/s1_R2.fastq.gz" } else { "fastq/s1_R1.fastq.gz" };
        assert_eq!(outcome.waiting[0].missing, [missing]);
        assert_eq!(world.items().await, 0);
        world.put(if first == "r1" { R2 } else { R1 }, "reads");
        // Each of both is told twice, all at once.
        let events = [sample(second), sample(first), sample(second), sample(first)];
        let outcomes = join_all(events.map(|event| handle(&state, event))).await;
        let ids: BTreeSet<RunId> =
            outcomes.iter().flat_map(|outcome| runs(outcome.as_ref().expect("a run"))).collect();
        assert_eq!(ids.len(), 1, "{outcomes:?}");
        let id = *ids.first().expect("one");
        let page = world.store.list("ada", 10, None).await.expect("a list");
        assert_eq!(page.runs.len(), 1);
        let stored: Value =
            serde_json::from_slice(&world.object(&keys::request(id))).expect("JSON");
        assert_eq!(
            stored["request"]["workflow_params"]["reads"],
            json!(["s3://lab-data/fastq/s1_R1.fastq.gz", "s3://lab-data/fastq/s1_R2.fastq.gz"])
        );
        assert_eq!(world.object(&keys::attachment(id, "align.cwl")), TOOL);
        let run = world.store.get(id).await.expect("a table").expect("the run");
        let objects = ["fastq/s1_R1.fastq.gz", "fastq/s1_R2.fastq.gz"];
        let objects = objects.map(|key| ("lab-data".to_owned(), key.to_owned()));
        assert_eq!(triggered_by(&run), objects);

        // One of them written again: another run, of the new pair.
        world.put(R1, "reads");
        let again = self::run(&state, sample("r1")).await;
        assert_ne!(again, id);
        assert_eq!(self::run(&state, sample("r2")).await, again);
    }
}

#[tokio::test]
async fn the_services_own_tag_counts_for_no_limit() {
    let (world, _) = with_pair().await;
    let limits = stepwes_submit::Limits { max_tags: 1, max_tag_bytes: 8, ..Default::default() };
    let state = state(&world, Settings { limits, ..settings() });
    world.put(R1, "reads");
    world.put(R2, "reads");
    let id = run(&state, sample("r1")).await;
    let run = world.store.get(id).await.expect("a table").expect("the run");
    assert_eq!(run.summary.tags.len(), 2, "{:?}", run.summary.tags);
}

#[tokio::test]
async fn a_trigger_that_was_changed_does_not_run_the_same_objects_again() {
    let (world, state) = with_pair().await;
    world.put(R1, "reads");
    world.put(R2, "reads");
    run(&state, sample("r1")).await;
    world.put("triggers/pair.yaml", PAIR.replace("tags:", "workflow_engine: cwltool\n  tags:"));
    let outcome = handle(&state, sample("r2")).await.expect("nothing");
    assert_eq!(runs(&outcome), []);
    // Objects that are new are run as it says now.
    world.put(R1, "others");
    let id = run(&state, sample("r1")).await;
    let stored: Value = serde_json::from_slice(&world.object(&keys::request(id))).expect("JSON");
    assert_eq!(stored["request"]["workflow_engine"], "cwltool");
    // Removed, it starts nothing.
    world.take("triggers/pair.yaml");
    world.put(R1, "third");
    assert_eq!(runs(&handle(&state, sample("r1")).await.expect("nothing")), []);
}

#[tokio::test]
async fn one_trigger_that_fails_does_not_keep_the_others_from_their_runs() {
    let (world, state) = with_pair().await;
    world.put("triggers/also.yaml", PAIR.replace("align.cwl", "https://example.org/a.cwl"));
    world.put("triggers/bad.yaml", "bucket: [");
    world.put("triggers/bad/x.yaml", "no trigger");
    world.take("triggers/pair/align.cwl");
    world.put(R1, "reads");
    world.put(R2, "reads");
    let why = refused(&state, sample("r1")).await;
    assert!(why.contains("s3://bucket/triggers/pair/align.cwl"), "{why}");
    let place = "triggers/pair/lab-data/fastq/s1_R1.fastq.gz";
    let told = report(&world, place);
    assert_eq!((&told["what"], &told["trigger"]), (&json!("run"), &json!("pair")));
    let page = world.store.list("ada", 10, None).await.expect("a list");
    assert_eq!(page.runs.len(), 1);
    // Repeated once the attachment is there, it makes the run that was missing, and no other.
    world.put("triggers/pair/align.cwl", TOOL);
    let outcome = handle(&state, sample("r2")).await.expect("both");
    assert_eq!(outcome.runs.len(), 2);
    assert_eq!(world.store.list("ada", 10, None).await.expect("a list").runs.len(), 2);
    assert_eq!(reports(&world), [""; 0]);
}

#[tokio::test]
async fn a_trigger_is_checked_when_it_lands() {
    let (world, state) = with_pair().await;
    let outcome = handle(&state, sample("trigger")).await.expect("good");
    assert_eq!(outcome.nothing, Some("a good trigger"));
    for (content, told) in [
        ("bucket: [".to_owned(), "cannot be read"),
        (PAIR.replace("lab-data", "others-data"), "those of lab-data, bucket do"),
        (PAIR.replace("owner: ada", ""), "owner is missing"),
        (PAIR.replace("CWL", "WDL"), "WDL"),
        (PAIR.replace("align.cwl", "ftp://x/a.cwl"), "ftp"),
        (PAIR.replace("align.cwl", "other.cwl"), "s3://bucket/triggers/pair/other.cwl"),
        (PAIR.replace("lab-data", BUCKET).replace("fastq/", "outputs/"), "the service's own"),
        (PAIR.replace("{sample}\"}", "{lane}\"}"), "nothing is named {lane}"),
        (format!("{PAIR}\n#{}", "x".repeat(70_000)), "65536 at most"),
    ] {
        world.put("triggers/pair.yaml", content);
        let why = refused(&state, sample("trigger")).await;
        assert!(why.contains(told), "{why} lacks {told}");
        assert_eq!(report(&world, "triggers/pair.yaml")["why"], why);
    }
    world.put("triggers/pair.yaml", PAIR);
    handle(&state, sample("trigger")).await.expect("good");
    assert_eq!(reports(&world), [""; 0]);
    world.put("triggers/pair.json", "{}");
    let why = refused(&state, sample("trigger")).await;
    assert!(why.contains("triggers/pair.json already"), "{why}");
    world.put("triggers/pair.yalm", PAIR);
    let why = refused(&state, of("trigger", "triggers/pair.yalm")).await;
    assert!(why.contains("ends in .yaml"), "{why}");
}

#[tokio::test]
async fn when_a_service_fails_the_event_fails_and_its_repetition_makes_the_run() {
    for (operation, fault, error_type) in [
        ("GetObject", Fault::Busy, "Stepwes.Unavailable"),
        ("GetObject", Fault::Denied, "Stepwes.Internal"),
        ("HeadObject", Fault::Busy, "Stepwes.Unavailable"),
        ("HeadObject", Fault::Denied, "Stepwes.Internal"),
        ("ListObjectsV2", Fault::Busy, "Stepwes.Unavailable"),
        ("PutObject", Fault::Busy, "Stepwes.Unavailable"),
        ("TransactWriteItems", Fault::Busy, "Stepwes.Unavailable"),
        ("GetItem", Fault::Busy, "Stepwes.Unavailable"),
    ] {
        let (world, state) = with_pair().await;
        world.put(R1, "reads");
        world.put(R2, "reads");
        world.fail(operation, fault);
        let failure = handle(&state, sample("r1")).await.expect_err(operation);
        assert_eq!(failure.error_type(), error_type, "{operation}");
        assert!(!failure.to_string().contains("made up"), "{failure}");
        world.mend();
        assert_eq!(reports(&world), [""; 0], "{operation}");
        run(&state, sample("r1")).await;
        assert_eq!(world.store.list("ada", 10, None).await.expect("a list").runs.len(), 1);
    }
}

#[tokio::test]
async fn a_refusal_that_cannot_be_reported_is_tried_again() {
    let world = World::new().await;
    let state = state(&world, settings());
    world.put("submit/ada/hello.run.json", "{");
    world.fail("PutObject", Fault::Busy);
    let failure = handle(&state, sample("run-request")).await.expect_err("no report");
    assert_eq!(failure.error_type(), "Stepwes.Unavailable");
    world.mend();
    refused(&state, sample("run-request")).await;
    assert_eq!(reports(&world), ["rejected/submit/ada/hello.run.json.json"]);
}

#[tokio::test]
async fn a_run_that_was_created_without_an_answer_is_not_made_again() {
    let (world, state) = with_pair().await;
    world.put(R1, "reads");
    world.put(R2, "reads");
    world.fail("StartExecution", Fault::Denied);
    assert_eq!(run(&state, sample("r1")).await, run_id(1));
    world.mend();
    assert_eq!(run(&state, sample("r2")).await, run_id(1));
    assert_eq!(world.starts().len(), 1);
}

#[tokio::test]
async fn triggers_are_read_again_only_when_they_have_changed() {
    let (world, state) = with_pair().await;
    world.put(R1, "reads");
    handle(&state, sample("r1")).await.expect("it waits");
    // What cannot be read again is not asked for.
    world.fail("GetObject", Fault::Denied);
    handle(&state, sample("r1")).await.expect("it waits");
    world.put("triggers/pair.yaml", PAIR.replace("owner: ada", "owner: bob"));
    handle(&state, sample("r1")).await.expect_err("it is asked for");
}
