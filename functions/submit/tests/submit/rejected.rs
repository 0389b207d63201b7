//! Every kind of request that is refused, what it is told, and that it leaves nothing.

use serde_json::{Value, json};

use crate::{
    Form, JSON, MULTIPART, assert_untouched, post, post_keyed, routes,
    support::{World, request, send},
};
use axum::body::Body;

fn with(name: &str, value: &str) -> Vec<u8> {
    Form::good().field(name, value).end()
}

fn without(name: &str) -> Vec<u8> {
    [("workflow_type", "CWL"), ("workflow_type_version", "v1.2"), ("workflow_url", "main.cwl")]
        .into_iter()
        .filter(|(field, _)| *field != name)
        .fold(Form::default(), |form, (field, value)| form.field(field, value))
        .attach("main.cwl", "x")
        .end()
}

fn of_type(workflow_type: &str, version: &str) -> Form {
    Form::default()
        .field("workflow_type", workflow_type)
        .field("workflow_type_version", version)
        .field("workflow_url", "https://example.org/a.cwl")
}

fn attached(disposition: &str) -> Vec<u8> {
    Form::good().part(&format!("name=\"workflow_attachment\"{disposition}"), b"x").end()
}

fn object(name: &str, value: Value) -> Vec<u8> {
    let mut request = json!({
        "workflow_type": "CWL", "workflow_type_version": "v1.2",
        "workflow_url": "https://example.org/a.cwl",
    });
    request[name] = value;
    request.to_string().into_bytes()
}

/// The requests: name, content type, body, status.
fn cases() -> Vec<(&'static str, &'static str, Vec<u8>, u16)> {
    let long = "x".repeat(2100);
    let four: Form = (0..4).fold(Form::good(), |form, n| form.attach(&format!("{n}"), "x"));
    let tags = |n: usize| {
        let tags: serde_json::Map<_, _> = (0..n).map(|n| (n.to_string(), json!("x"))).collect();
        Value::Object(tags).to_string()
    };
    vec![
        // Bodies
        ("no content type", "", Form::good().end(), 400),
        (
            "another content type",
            "application/x-www-form-urlencoded",
            b"workflow_type=CWL".into(),
            415,
        ),
        ("multipart of another kind", "multipart/mixed; boundary=x", Form::good().end(), 415),
        ("no boundary", "multipart/form-data", Form::good().end(), 400),
        ("another boundary", "multipart/form-data; boundary=y", Form::good().end(), 400),
        ("an empty form", MULTIPART, b"".into(), 400),
        ("a form without parts", MULTIPART, Form::default().end(), 400),
        ("garbage", MULTIPART, b"\x00\xff--x\r\n\r\n".into(), 400),
        ("a form that breaks off", MULTIPART, Form::good().0, 400),
        ("a part without headers", MULTIPART, b"--x\r\n\r\nabc\r\n--x--\r\n".into(), 400),
        ("JSON that is none", JSON, b"{".into(), 400),
        ("no JSON", JSON, b"".into(), 400),
        ("a JSON array", JSON, b"[]".into(), 400),
        ("JSON that is deep", JSON, "[".repeat(500).into(), 400),
        // Fields
        ("no workflow_type", MULTIPART, without("workflow_type"), 400),
        ("no workflow_type_version", MULTIPART, without("workflow_type_version"), 400),
        ("no workflow_url", MULTIPART, without("workflow_url"), 400),
        ("a field twice", MULTIPART, with("workflow_type", "CWL"), 400),
        (
            "a field that is not UTF-8",
            MULTIPART,
            Form::good().part("name=\"tags\"", b"\xff").end(),
            400,
        ),
        ("params that are no JSON", MULTIPART, with("workflow_params", "{"), 400),
        ("params that are an array", MULTIPART, with("workflow_params", "[1]"), 400),
        ("tags that are a string", MULTIPART, with("tags", "\"x\""), 400),
        ("tags within tags", MULTIPART, with("tags", r#"{"a": {}}"#), 400),
        ("tags that are null", MULTIPART, with("tags", r#"{"a": null}"#), 400),
        (
            "engine parameters that are an array",
            MULTIPART,
            with("workflow_engine_parameters", "[]"),
            400,
        ),
        (
            "an engine parameter that is an array",
            MULTIPART,
            with("workflow_engine_parameters", r#"{"--a": []}"#),
            400,
        ),
        (
            "a parameter of ours that there is not",
            MULTIPART,
            with("workflow_engine_parameters", r#"{"stepwes.gpu": 1}"#),
            400,
        ),
        (
            "a destination that there is not",
            MULTIPART,
            with("workflow_engine_parameters", r#"{"stepwes.dest": "s3://elsewhere/x"}"#),
            400,
        ),
        (
            "memory without a unit",
            MULTIPART,
            with("workflow_engine_parameters", r#"{"stepwes.memory": 16}"#),
            400,
        ),
        (
            "more memory than there is",
            MULTIPART,
            with("workflow_engine_parameters", r#"{"stepwes.memory": "64 GiB"}"#),
            400,
        ),
        (
            "more time than there is",
            MULTIPART,
            with("workflow_engine_parameters", r#"{"stepwes.time": "2d"}"#),
            400,
        ),
        ("a type that is a number", JSON, object("workflow_type", json!(1)), 400),
        ("params that are a number", JSON, object("workflow_params", json!(1)), 400),
        // What the service has
        ("an unknown type", MULTIPART, of_type("WDL", "1.0").end(), 400),
        ("an unknown version", MULTIPART, of_type("CWL", "v9").end(), 400),
        ("a version in other letters", MULTIPART, of_type("CWL", "V1.2").end(), 400),
        (
            "an unknown engine",
            MULTIPART,
            of_type("CWL", "v1.2").field("workflow_engine", "toil").end(),
            400,
        ),
        (
            "an unknown engine version",
            MULTIPART,
            of_type("CWL", "v1.2")
                .field("workflow_engine", "cwltool")
                .field("workflow_engine_version", "1")
                .end(),
            400,
        ),
        (
            "an engine version alone",
            MULTIPART,
            of_type("CWL", "v1.2").field("workflow_engine_version", "3.1").end(),
            400,
        ),
        // Where the workflow is
        ("a relative URL without attachments", MULTIPART, Form::fields("main.cwl").end(), 400),
        ("a relative URL in JSON", JSON, object("workflow_url", json!("main.cwl")), 400),
        (
            "a relative URL of no attachment",
            MULTIPART,
            Form::fields("other.cwl").attach("main.cwl", "x").end(),
            400,
        ),
        ("a file URL", MULTIPART, Form::fields("file:///etc/passwd").end(), 400),
        (
            "an absolute path",
            MULTIPART,
            Form::fields("/etc/passwd").attach("main.cwl", "x").end(),
            400,
        ),
        (
            "a path that climbs",
            MULTIPART,
            Form::fields("../main.cwl").attach("main.cwl", "x").end(),
            400,
        ),
        ("a URL without a host", MULTIPART, Form::fields("https://").end(), 400),
        (
            "a long URL",
            MULTIPART,
            Form::fields(&format!("https://example.org/{}", "x".repeat(200))).end(),
            400,
        ),
        // Attachments
        ("an attachment without filename", MULTIPART, attached(""), 400),
        ("an attachment with an empty filename", MULTIPART, attached("; filename=\"\""), 400),
        ("an absolute filename", MULTIPART, attached("; filename=\"/etc/passwd\""), 400),
        ("a filename that climbs", MULTIPART, attached("; filename=\"a/../../b\""), 400),
        ("a filename with a NUL", MULTIPART, attached("; filename*=UTF-8''a%00b"), 400),
        ("a filename that is a folder", MULTIPART, attached("; filename=\"a/\""), 400),
        ("a filename that is ours", MULTIPART, attached("; filename=\"wes_inputs.json\""), 400),
        ("a filename twice", MULTIPART, attached("; filename=\"./main.cwl\""), 400),
        ("a file below a file", MULTIPART, attached("; filename=\"main.cwl/x\""), 400),
        // Sizes
        ("a large attachment", MULTIPART, Form::good().attach("big", &"x".repeat(4001)).end(), 413),
        (
            "large attachments together",
            MULTIPART,
            Form::good().attach("a", &long).attach("b", &long).end(),
            413,
        ),
        (
            "a large unknown field",
            MULTIPART,
            Form::good().field("other", &"x".repeat(4001)).end(),
            413,
        ),
        (
            "a large field",
            MULTIPART,
            with("workflow_params", &format!("{{\"a\": \"{long}\"}}")),
            413,
        ),
        ("large JSON", JSON, object("workflow_params", json!({"a": long})), 413),
        ("many attachments", MULTIPART, four.end(), 413),
        ("many tags", MULTIPART, with("tags", &tags(4)), 413),
        ("large tags", MULTIPART, with("tags", &json!({"a": "x".repeat(100)}).to_string()), 413),
    ]
}

#[tokio::test]
async fn what_is_refused_is_told_why_and_leaves_nothing() {
    let world = World::new().await;
    let router = routes(&world);
    let mut told = String::new();
    for (name, content_type, body, status) in cases() {
        let answer = post(&router, content_type, body).await;
        assert_eq!(answer.status, status, "{name}: {answer:?}");
        let msg = answer.json()["msg"].as_str().expect("a message").to_owned();
        told.push_str(&format!("{status} {name}: {msg}\n"));
        assert_untouched(&world, name).await;
    }
    insta::assert_snapshot!("told", told);
}

#[tokio::test]
async fn a_request_without_the_header_is_refused_too() {
    let world = World::new().await;
    let request = request("ada", "POST", crate::RUNS).body(Body::from("x")).expect("a request");
    assert_eq!(send(&routes(&world), request).await.status, 400);
    assert_untouched(&world, "no Content-Type").await;
}

#[tokio::test]
async fn a_bad_idempotency_key_is_refused() {
    let world = World::new().await;
    let router = routes(&world);
    for key in ["", "a b", &"k".repeat(256)] {
        let answer = post_keyed(&router, "ada", key, Form::good()).await;
        assert_eq!(answer.status, 400, "{key:?}");
    }
    let twice = request("ada", "POST", crate::RUNS)
        .header("content-type", MULTIPART)
        .header("idempotency-key", "a")
        .header("idempotency-key", "b")
        .body(Body::from(Form::good().end()))
        .expect("a request");
    assert_eq!(send(&router, twice).await.status, 400);
    assert_untouched(&world, "bad keys").await;
}

#[tokio::test]
async fn in_aws_the_refusal_of_a_large_attachment_names_the_limit_and_the_way_around() {
    let world = World::new().await;
    let router = crate::routes_with(&world, stepwes_submit::Limits::default());
    let form = Form::good().attach("reads.bam", &"x".repeat(50_000_000));
    let answer = post(&router, MULTIPART, form.end()).await;
    assert_eq!(answer.status, 413);
    let msg = answer.json()["msg"].to_string();
    assert!(msg.contains("4500000 bytes (4.5 MB)") && msg.contains("by URL"), "{msg}");
    assert_untouched(&world, "a large attachment").await;
}

#[tokio::test]
async fn a_packed_body_is_refused_whatever_is_in_it() {
    let world = World::new().await;
    let router = routes(&world);
    for (coding, status) in [("gzip", 415), ("identity, br", 415), ("", 415), ("Identity", 400)] {
        let request = request("ada", "POST", crate::RUNS).header("content-type", JSON);
        let request = request.header("content-encoding", coding).body(Body::from("{}"));
        let answer = send(&router, request.expect("a request")).await;
        assert_eq!(answer.status, status, "{coding}: {answer:?}");
        assert_untouched(&world, coding).await;
    }
}
