//! The credentials of what a task runs.

use std::{collections::BTreeMap, fs};

use reqwest::{Client, Method, StatusCode};
use serde_json::Value;
use tokio::process::Child;

use crate::{
    aws::Verdict,
    world::{Ended, World},
};

/// Tells its environment, and ends when it is let go.
const WAIT: &str = r#"cd "$(dirname "$0")/.."
env > env.new
mv env.new env
echo ready
while [ ! -e go ]; do sleep 0.05; done
echo {}"#;

/// A task whose engine is at work.
struct Running {
    world: World,
    task: Child,
    environment: BTreeMap<String, String>,
}

impl Running {
    async fn start(world: World) -> Self {
        let task = world.start();
        world.aws.wait_until(|_| world.segments("stdout").contains("ready")).await;
        let environment = fs::read_to_string(world.place("env"))
            .expect("told")
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Self { world, task, environment }
    }

    fn variable(&self, name: &str) -> &str {
        self.environment.get(name).unwrap_or_else(|| panic!("{name} is not set"))
    }

    /// What a request to the URL that the engine was given is answered, with that token.
    async fn ask(&self, method: Method, path: &str, token: Option<&str>) -> (StatusCode, Value) {
        let url = self.variable("AWS_CONTAINER_CREDENTIALS_FULL_URI");
        let request = client().request(method, format!("{url}{path}"));
        let request = match token {
            Some(token) => request.header("authorization", token),
            None => request,
        };
        let answer = request.send().await.expect("an answer");
        (answer.status(), answer.json().await.expect("JSON"))
    }

    async fn credentials(&self) -> (StatusCode, Value) {
        let token = self.variable("AWS_CONTAINER_AUTHORIZATION_TOKEN");
        self.ask(Method::GET, "", Some(token)).await
    }

    /// What the report function was asked for.
    fn actions(&self) -> Vec<String> {
        let reports = self.world.aws.reports();
        reports
            .iter()
            .map(|report| report["action"].as_str().expect("an action").to_owned())
            .collect()
    }

    async fn end(self) -> (World, Ended) {
        fs::write(self.world.place("go"), "").expect("written");
        let ended = self.world.end(self.task).await;
        (self.world, ended)
    }
}

fn client() -> Client {
    // Nothing but plain HTTP is asked, yet there is no client without a provider of TLS.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().no_proxy().tls_certs_only([]).build().expect("a client")
}

#[tokio::test]
async fn the_engine_gets_credentials_when_it_asks_and_by_its_token_alone() {
    let mut world = World::new(WAIT).await;
    // Of ECS, for the task's own role. SDKs look at it first.
    world.set("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/of-the-task");
    let running = Running::start(world).await;
    for name in running.environment.keys() {
        let secret = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];
        assert!(!secret.contains(&name.as_str()) && !name.contains("RELATIVE"), "{name}");
        assert!(!name.starts_with("STEPWES_") && !name.starts_with("ECS_"), "{name}");
    }
    assert_eq!(running.variable("AWS_REGION"), "us-east-1");
    assert_eq!(running.variable("AWS_DEFAULT_REGION"), "us-east-1");
    let endpoint = format!("http://{}", running.world.aws.address);
    assert_eq!(running.variable("AWS_ENDPOINT_URL"), endpoint);

    let token = running.variable("AWS_CONTAINER_AUTHORIZATION_TOKEN").to_owned();
    let forged = "0".repeat(token.len());
    for (method, path, given, status) in [
        (Method::GET, "", None, 401),
        (Method::GET, "", Some(""), 401),
        (Method::GET, "", Some(&token[1..]), 401),
        (Method::GET, "", Some(&forged), 401),
        (Method::POST, "", Some(&forged), 401),
        (Method::POST, "", Some(&token), 405),
        (Method::GET, "/more", Some(&token), 404),
    ] {
        let (answered, body) = running.ask(method, path, given).await;
        assert_eq!(answered, status, "{body}");
        assert!(body["code"].is_string() && body["message"].is_string(), "{body}");
    }
    assert_eq!(running.actions(), ["claim", "run"], "nobody has asked for any yet");

    let (status, given) = running.credentials().await;
    assert_eq!(status, StatusCode::OK, "{given}");
    assert_eq!(given["AccessKeyId"], "SCOPED3");
    assert_eq!(given["SecretAccessKey"], "scoped-secret");
    assert_eq!(given["Token"], "scoped-session");
    let expiration = given["Expiration"].as_str().expect("a time");
    assert!(expiration.ends_with('Z') && expiration.len() == 20, "{expiration}");
    assert_eq!(running.credentials().await, (StatusCode::OK, given), "they serve on");
    assert_eq!(running.actions(), ["claim", "run", "credentials"]);

    let url = running.variable("AWS_CONTAINER_CREDENTIALS_FULL_URI").to_owned();
    let (world, ended) = running.end().await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert!(!ended.log.contains(&token), "{}", ended.log);
    assert_eq!(world.aws.access_keys(), ["SCOPED1"], "the task's own are others");
    let gone = client().get(url).header("authorization", token).send().await;
    assert!(gone.is_err_and(|error| error.is_connect()), "they end with the run");
}

#[tokio::test]
async fn what_the_engine_was_given_is_renewed() {
    let world = World::new(WAIT).await;
    world.aws.credentials_live(1);
    let running = Running::start(world).await;
    let (_, first) = running.credentials().await;
    // Of its life a part of a second is not shown.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let (status, second) = running.credentials().await;
    assert_eq!(status, StatusCode::OK, "{second}");
    assert_ne!(first["AccessKeyId"], second["AccessKeyId"]);
    let (_, ended) = running.end().await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
}

#[tokio::test]
async fn who_is_refused_credentials_is_told_why_and_the_task_ends() {
    let running = Running::start(World::new(WAIT).await).await;
    running.world.aws.answer(Verdict::RefusedAction("credentials", "over"));
    let (status, body) = running.credentials().await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert_eq!(body["message"], "the attempt is over");
    let ended = running.world.end(running.task).await;
    assert_eq!(ended.code, Some(64), "{}", ended.log);
}

#[tokio::test]
async fn while_the_function_fails_the_engine_is_told_to_ask_again() {
    let mut world = World::new(WAIT).await;
    world.set("STEPWES_PATIENCE_SECONDS", "0");
    let running = Running::start(world).await;
    running.world.aws.answer(Verdict::FunctionError);
    let (status, body) = running.credentials().await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body["message"].as_str().is_some_and(|text| text.contains("ask again")), "{body}");
    assert!(!body.to_string().contains("table"), "what failed is not the workflow's: {body}");
    assert_eq!(running.credentials().await.0, StatusCode::OK);
    let (_, ended) = running.end().await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
}
