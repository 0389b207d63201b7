//! Who may call what, and DynamoDB, Lambda and STS as far as they are there.

mod common;

use aws_credential_types::Credentials;
use aws_sdk_dynamodb::{
    error::{ProvideErrorMetadata as _, SdkError},
    types::AttributeValue,
};
use aws_sdk_lambda::primitives::Blob;
use serde_json::json;
use stepwes_local::{Server, arn};

use common::{key, sdk, serve};

fn service(server: &Server) -> aws_config::SdkConfig {
    sdk(server, key(server, "service"))
}

fn task(server: &Server) -> aws_config::SdkConfig {
    sdk(server, key(server, "task"))
}

fn strangers(server: &Server) -> [(&'static str, aws_config::SdkConfig); 2] {
    let known = key(server, "service");
    let other = |id: &str, secret: &str| Credentials::new(id, secret, None, None, "test");
    [
        ("UnrecognizedClientException", sdk(server, other("AKIDUNKNOWN", "secret"))),
        ("InvalidSignatureException", sdk(server, other(known.access_key_id(), "wrong"))),
    ]
}

fn path_style(config: &aws_config::SdkConfig) -> aws_sdk_s3::Client {
    aws_sdk_s3::Client::from_conf(
        aws_sdk_s3::config::Builder::from(config).force_path_style(true).build(),
    )
}

#[tokio::test]
async fn a_task_may_invoke_report_and_nothing_else() {
    let rig = serve("exit 0").await;
    let config = task(&rig.server);
    let lambda = aws_sdk_lambda::Client::new(&config);
    let invoke =
        |function: &str| lambda.invoke().function_name(function).payload(Blob::new("{}")).send();
    for function in
        ["stepwes-report", "arn:aws:lambda:us-east-1:000000000000:function:stepwes-report"]
    {
        let answer = invoke(function).await.expect("invoked");
        assert_eq!(answer.function_error(), Some("Unhandled"), "{{}} is no report");
        assert_eq!(answer.status_code(), 200);
        let payload = answer.payload().expect("a payload").as_ref();
        let told: serde_json::Value = serde_json::from_slice(payload).expect("JSON");
        assert_eq!(told["errorType"], "Stepwes.Internal");
        assert!(told["errorMessage"].as_str().is_some_and(|text| text.contains("run_id")));
    }
    for function in ["stepwes-advance", "stepwes-collect", "stepwes-reconcile", "nothing"] {
        let error = invoke(function).await.expect_err(function);
        assert_eq!(error.code(), Some("AccessDeniedException"), "{error:?}");
    }
    let denied = aws_sdk_dynamodb::Client::new(&config)
        .describe_table()
        .table_name(arn::TABLE)
        .send()
        .await
        .expect_err("denied");
    assert_eq!(denied.code(), Some("AccessDeniedException"), "{denied:?}");
    let denied = aws_sdk_ecs::Client::new(&config)
        .list_tasks()
        .cluster(arn::CLUSTER)
        .send()
        .await
        .expect_err("denied");
    assert_eq!(denied.code(), Some("AccessDeniedException"), "{denied:?}");
    let denied = aws_sdk_sfn::Client::new(&config)
        .stop_execution()
        .execution_arn(format!("{}x", arn::EXECUTION_PREFIX))
        .send()
        .await
        .expect_err("denied");
    assert_eq!(denied.code(), Some("AccessDeniedException"), "{denied:?}");
    let denied = aws_sdk_sts::Client::new(&config)
        .assume_role()
        .role_arn(arn::DATA_ROLE)
        .role_session_name("task")
        .send()
        .await
        .expect_err("denied");
    assert_eq!(denied.code(), Some("AccessDenied"), "{denied:?}");
    let denied =
        path_style(&config).list_objects_v2().bucket(arn::BUCKET).send().await.expect_err("denied");
    assert_eq!(denied.code(), Some("AccessDenied"), "{denied:?}");
}

#[tokio::test]
async fn strangers_are_refused_by_every_service() {
    let rig = serve("exit 0").await;
    for (expected, config) in strangers(&rig.server) {
        let error = aws_sdk_dynamodb::Client::new(&config)
            .describe_table()
            .table_name(arn::TABLE)
            .send()
            .await
            .expect_err(expected);
        assert_eq!(error.code(), Some(expected), "{error:?}");
        let error = aws_sdk_ecs::Client::new(&config)
            .list_tasks()
            .cluster(arn::CLUSTER)
            .send()
            .await
            .expect_err(expected);
        assert_eq!(error.code(), Some(expected), "{error:?}");
        let error = aws_sdk_lambda::Client::new(&config)
            .invoke()
            .function_name("stepwes-report")
            .send()
            .await
            .expect_err(expected);
        assert_eq!(error.code(), Some(expected), "{error:?}");
    }
    let url = rig.server.internal_url();
    let client = common::http();
    for target in [
        "DynamoDB_20120810.GetItem",
        "AWSStepFunctions.StopExecution",
        "AmazonEC2ContainerServiceV20141113.RunTask",
    ] {
        let answer = client
            .post(url)
            .header("x-amz-target", target)
            .body("{}")
            .send()
            .await
            .expect("answered");
        assert_eq!(answer.status(), 403, "{target}");
        let code = answer.headers()["x-amzn-errortype"].to_str().expect("text").to_owned();
        assert_eq!(code, "MissingAuthenticationTokenException", "{target}");
    }
    let path = format!("{url}/2015-03-31/functions/stepwes-report/invocations");
    assert_eq!(client.post(path).body("{}").send().await.expect("answered").status(), 403);
    let answer = client.get(format!("{url}/{}?list-type=2", arn::BUCKET)).send().await;
    assert_eq!(answer.expect("answered").status(), 403);
}

#[tokio::test]
async fn a_body_that_was_changed_on_the_way_is_refused() {
    let rig = serve("exit 0").await;
    let client = aws_sdk_dynamodb::Client::new(&service(&rig.server));
    let error = client
        .describe_table()
        .table_name(arn::TABLE)
        .customize()
        .mutate_request(|request| {
            // Signed as it was; sent otherwise.
            request.headers_mut().insert("x-amz-target", "DynamoDB_20120810.DescribeTable");
        })
        .send()
        .await;
    assert!(error.is_ok(), "what is signed after the change is fine: {error:?}");
}

#[tokio::test]
async fn invoke_refuses_what_is_not_embedded() {
    let rig = serve("exit 0").await;
    let client = aws_sdk_lambda::Client::new(&service(&rig.server));
    let invoke = || client.invoke().function_name("stepwes-report").payload(Blob::new("{}"));
    for (request, expected) in [
        (invoke().function_name("nothing"), "ResourceNotFoundException"),
        (invoke().payload(Blob::new("{")), "InvalidRequestContentException"),
        (
            invoke().invocation_type(aws_sdk_lambda::types::InvocationType::Event),
            "InvalidParameterValueException",
        ),
        (invoke().log_type(aws_sdk_lambda::types::LogType::Tail), "InvalidParameterValueException"),
        (invoke().qualifier("1"), "InvalidParameterValueException"),
    ] {
        let error = request.send().await.expect_err(expected);
        assert_eq!(error.code(), Some(expected), "{error:?}");
    }
    let error = client.list_functions().send().await.expect_err("refused");
    assert_eq!(error.code(), Some("UnknownOperationException"), "{error:?}");
}

#[tokio::test]
async fn dynamodb_answers_and_refuses_as_the_sdk_expects() {
    let rig = serve("exit 0").await;
    let client = aws_sdk_dynamodb::Client::new(&service(&rig.server));
    let text = |value: &str| AttributeValue::S(value.to_owned());
    let put = |value: &str| {
        client
            .put_item()
            .table_name(arn::TABLE)
            .item("PK", text("A"))
            .item("SK", text("B"))
            .item("value", text(value))
    };
    put("1").send().await.expect("put");
    let failed = put("2").condition_expression("attribute_not_exists(PK)").send().await;
    assert_eq!(failed.expect_err("refused").code(), Some("ConditionalCheckFailedException"));
    let item = client
        .get_item()
        .table_name(arn::TABLE)
        .key("PK", text("A"))
        .key("SK", text("B"))
        .consistent_read(true)
        .send()
        .await
        .expect("read")
        .item
        .expect("there");
    assert_eq!(item["value"], text("1"));
    let missing = client.describe_table().table_name("other").send().await;
    assert_eq!(missing.expect_err("refused").code(), Some("ResourceNotFoundException"));
    let wrong = put("3").condition_expression("nonsense(").send().await;
    assert_eq!(wrong.expect_err("refused").code(), Some("ValidationException"));
    let scan = client.scan().table_name(arn::TABLE).send().await.expect_err("refused");
    assert_eq!(scan.code(), Some("UnknownOperationException"));
    assert!(scan.message().is_some_and(|told| told.contains("dynamodb:Scan")), "{scan:?}");
    let calls = rig.server.calls();
    assert_eq!(calls["dynamodb:PutItem"], 3);
    assert_eq!(calls.get("dynamodb:Scan"), None);
}

#[tokio::test]
async fn assumed_credentials_reach_what_their_policy_says_and_outlive_the_server() {
    let rig = serve("exit 0").await;
    let policy = json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow",
        "Action": ["s3:GetObject", "s3:PutObject"],
        "Resource": "arn:aws:s3:::runs/work/x/*",
    }]})
    .to_string();
    let sts = aws_sdk_sts::Client::new(&service(&rig.server));
    let assume = || {
        sts.assume_role()
            .role_arn(arn::DATA_ROLE)
            .role_session_name("stepwes-x")
            .duration_seconds(900)
            .policy(&policy)
    };
    let assumed = assume().send().await.expect("assumed");
    let given = assumed.credentials().expect("credentials");
    let temporary = Credentials::new(
        given.access_key_id(),
        given.secret_access_key(),
        Some(given.session_token().to_owned()),
        None,
        "test",
    );
    let s3 = |server: &Server| path_style(&sdk(server, temporary.clone()));
    let put = |server: &Server, key: &str| {
        s3(server).put_object().bucket(arn::BUCKET).key(key).body(b"x".to_vec().into()).send()
    };
    put(&rig.server, "work/x/a").await.expect("allowed");
    let denied = put(&rig.server, "work/y/a").await.expect_err("denied");
    assert_eq!(denied.code(), Some("AccessDenied"), "{denied:?}");
    let elsewhere = aws_sdk_dynamodb::Client::new(&sdk(&rig.server, temporary.clone()))
        .describe_table()
        .table_name(arn::TABLE)
        .send()
        .await
        .expect_err("refused");
    assert_eq!(elsewhere.code(), Some("UnrecognizedClientException"), "{elsewhere:?}");

    for (request, expected) in [
        (assume().role_arn("arn:aws:iam::000000000000:role/other"), "AccessDenied"),
        (assume().policy("{}"), "MalformedPolicyDocument"),
        (assume().duration_seconds(899), "ValidationError"),
        (assume().role_session_name("a b"), "ValidationError"),
        (assume().external_id("x"), "ValidationError"),
    ] {
        let error = request.send().await.expect_err(expected);
        assert_eq!(error.code(), Some(expected), "{error:?}");
    }
    let error = sts.get_caller_identity().send().await.expect_err("refused");
    assert_eq!(error.code(), Some("InvalidAction"), "{error:?}");
    assert!(error.message().is_some_and(|told| told.contains("GetCallerIdentity")), "{error:?}");

    rig.server.shutdown().await;
    let again =
        stepwes_local::start(common::options(rig.folder.path(), "exit 0")).await.expect("started");
    put(&again, "work/x/b").await.expect("allowed still");
    again.shutdown().await;
}

#[tokio::test]
async fn the_functions_aws_is_the_one_of_the_internal_port_and_ends_with_the_server() {
    let rig = serve("exit 0").await;
    let inside = rig.server.aws().s3();
    let content: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let put = inside.put_object().bucket(arn::BUCKET).key("requests/a b/ü#1");
    put.body(content.clone().into()).send().await.expect("written");

    // Read through the port, with the server's own key, by a client that knows nothing of it.
    let outside = path_style(&service(&rig.server));
    let got = outside.get_object().bucket(arn::BUCKET).key("requests/a b/ü#1").send();
    let got = got.await.expect("there").body.collect().await.expect("read").into_bytes();
    assert!(got == content, "{} bytes", got.len());
    let part = inside.get_object().bucket(arn::BUCKET).key("requests/a b/ü#1");
    let part = part.range("bytes=5-9").send().await.expect("there");
    assert_eq!(part.content_range(), Some("bytes 5-9/3000000"));
    assert_eq!(part.body.collect().await.expect("read").into_bytes(), content[5..10]);

    rig.server.shutdown().await;
    let error = inside.head_bucket().bucket(arn::BUCKET).send().await.expect_err("gone");
    assert!(matches!(error, SdkError::DispatchFailure(_)), "{error:?}");
}
