//! Tasks that go well, or well enough.

use std::fs;

use serde_json::{Value, json};
use sha1::{Digest as _, Sha1};
use tokio::net::TcpListener;

use crate::{
    aws::{Aws, TRACE, Verdict},
    world::{RUN, World},
};

/// A stub that makes one output from its inputs and says so as cwltool does.
const GOOD: &str = r#"
for last; do :; done
while [ "$1" != --outdir ]; do shift; done
out=$2
echo "INFO [job hello] /tmp/x\$ echo \\
    'a b'" >&2
cat "$last" > "$out/in puts.json"
echo "INFO [job hello] completed success" >&2
printf '{"o": {"class": "File", "basename": "in puts.json", "location": "file://%s/in%%20puts.json", "path": "x"}}' "$out"
"#;

fn sha1_of(content: &[u8]) -> String {
    hex::encode(Sha1::digest(content))
}

#[tokio::test]
async fn a_run_goes_from_its_request_to_its_result_in_order() {
    let mut world = World::new(GOOD).await;
    world.set("LC_ALL", "C.UTF-8");
    world.request(&json!({
        "workflow_engine_parameters": {"--debug": null, "--outdir": "/somewhere"},
        "workflow_url": "main.cwl#main",
        "attachments": [{"name": "main.cwl", "size": 17}, {"name": "d e/x.txt", "size": 1}],
    }));
    world.attach("d e/x.txt", "x");
    let ended = world.run().await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);

    let result = world.result().expect("a result");
    assert_eq!(result["outcome"], "COMPLETE");
    assert_eq!(result["exit_code"], 0);
    assert_eq!(result["reason"], Value::Null);
    let content = r#"{"text":"hello"}"#;
    let file = &result["files"][0];
    assert_eq!((&file["path"], &file["size"]), (&json!("in puts.json"), &json!(content.len())));
    assert_eq!(file["sha1"], sha1_of(content.as_bytes()));
    let checksum = format!("sha1${}", sha1_of(content.as_bytes()));
    assert_eq!(
        result["outputs"],
        json!({"kind": "cwl", "object": {"o": {
            "class": "File", "basename": "in puts.json", "location": "outdir:in%20puts.json",
            "size": content.len(), "checksum": checksum,
        }}})
    );
    let uploaded = world.aws.object(&format!("outputs/{RUN}/1/in puts.json")).expect("uploaded");
    assert_eq!(uploaded, content.as_bytes());

    let cmd: Vec<_> =
        result["cmd"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    assert_eq!(cmd[..4], ["cwltool", "--no-container", "--disable-color", "--debug"]);
    let outdir = cmd.iter().position(|word| *word == "--outdir").expect("an output folder");
    assert_eq!(cmd[outdir + 2..], ["main.cwl#main", "wes_inputs.json"]);

    let reports = world.aws.reports();
    let actions: Vec<_> = reports.iter().map(|report| report["action"].clone()).collect();
    assert_eq!(actions, ["claim", "run"]);
    for report in &reports {
        assert_eq!(report["task_arn"], "arn:task/1");
        assert_eq!(report["token"], "the-token");
    }
    assert_eq!(reports[1]["cmd"], result["cmd"]);
    assert_eq!(reports[1]["start_time"], result["start_time"]);

    let stderr = world.work("logs/stderr").expect("a log");
    assert!(stderr.starts_with("INFO [job hello]"), "{stderr}");
    assert!(world.work("logs/stdout").expect("a log").starts_with("{\"o\""));
    let tasks: Value =
        serde_json::from_str(&world.work("tasks.json").expect("tasks")).expect("JSON");
    assert_eq!(tasks["tasks"][0]["cmd"], json!(["echo", "a b"]));
    assert_eq!(tasks["tasks"][0]["exit_code"], 0);

    let writes: Vec<_> =
        world.aws.s3_calls().into_iter().filter(|call| call.starts_with("PUT")).collect();
    assert_eq!(writes.last(), Some(&format!("PUT work/{RUN}/1/result.json")));
    assert_eq!(world.aws.access_keys(), ["SCOPED1"], "the task's own role is not for S3");
}

#[tokio::test]
async fn the_engine_sees_no_secret_and_none_of_our_variables() {
    // Root may read everything; whoever is not root is refused by the kernel.
    const LOOK: &str = r#"env >&2
        [ "$(id -u)" = 0 ] || ! cat /proc/$PPID/environ > /dev/null || echo READABLE=1 >&2; echo {}"#;
    let mut world = World::new(LOOK).await;
    world.set("LC_ALL", "C.UTF-8");
    world.set("http_proxy", "http://127.0.0.1:9");
    world.set("no_proxy", "127.0.0.1");
    world.set("ANOTHER", "variable");
    let ended = world.run().await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    let seen = world.work("logs/stderr").expect("a log");
    let mut names: Vec<_> = seen
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, _)| name)
        // What the shell sets itself.
        .filter(|name| !matches!(*name, "PWD" | "OLDPWD" | "SHLVL" | "_"))
        .collect();
    names.sort_unstable();
    let (aws, names): (Vec<_>, Vec<_>) =
        names.into_iter().partition(|name| name.starts_with("AWS_"));
    assert_eq!(
        names,
        ["HOME", "LC_ALL", "PATH", "TMPDIR", "TRACEPARENT", "http_proxy", "no_proxy"]
    );
    assert!(
        seen.contains(&format!("TRACEPARENT={TRACE}\n")),
        "its spans hang below the run's caller's"
    );
    let way_to_its_own = [
        "AWS_CONTAINER_AUTHORIZATION_TOKEN",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_DEFAULT_REGION",
        "AWS_ENDPOINT_URL",
        "AWS_REGION",
    ];
    assert_eq!(aws, way_to_its_own);
    let home = seen.lines().find_map(|line| line.strip_prefix("HOME=")).expect("a home");
    assert!(home.starts_with(world.place("work").to_str().expect("UTF-8")), "{home}");
}

#[tokio::test]
async fn log_and_tasks_are_seen_while_the_engine_runs() {
    let world = World::new(
        r#"echo "INFO [job a] /t\$ x" >&2; echo first; while [ ! -e "$(dirname "$0")/../go" ]; do sleep 0.05; done
        echo second; echo "INFO [job a] completed success" >&2; echo {} >&2; exit 0"#,
    )
    .await;
    let task = world.start();
    world
        .aws
        .wait_until(|aws| {
            aws.keys(&format!("work/{RUN}/1/logs/stdout.segments/")).len() == 1
                && !aws.keys(&format!("work/{RUN}/1/tasks.json")).is_empty()
        })
        .await;
    assert_eq!(world.segments("stdout"), "first\n");
    assert_eq!(world.segments("stderr"), "INFO [job a] /t$ x\n");
    let tasks: Value =
        serde_json::from_str(&world.work("tasks.json").expect("tasks")).expect("JSON");
    assert_eq!(tasks["tasks"][0]["exit_code"], Value::Null);
    assert_eq!(world.result(), None);
    fs::write(world.place("go"), "").expect("written");
    world.end(task).await;
    assert_eq!(world.work("logs/stdout").as_deref(), Some("first\nsecond\n"));
    assert!("first\nsecond\n".starts_with(&world.segments("stdout")));
}

#[tokio::test]
async fn a_tool_that_opens_its_standard_error_and_output_anew_takes_nothing_away() {
    let world = World::new(
        r#"echo "INFO [job a] /t\$ x" >&2; printf 'a\000\377' >/dev/stdout; echo more >/dev/stderr
        echo last >&2; printf b; exit 1"#,
    )
    .await;
    let ended = world.run().await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert_eq!(world.work("logs/stderr").as_deref(), Some("INFO [job a] /t$ x\nmore\nlast\n"));
    let stdout = world.aws.object(&format!("work/{RUN}/1/logs/stdout")).expect("a log");
    assert_eq!(stdout, b"a\0\xffb");
}

#[tokio::test]
async fn a_segment_that_is_sent_again_is_the_same() {
    let world = World::new(
        r#"echo one; while [ ! -e "$(dirname "$0")/../go" ]; do sleep 0.05; done; echo two
        while [ ! -e "$(dirname "$0")/../end" ]; do sleep 0.05; done; echo {} >&2; exit 1"#,
    )
    .await;
    let key = |offset: usize| format!("work/{RUN}/1/logs/stdout.segments/{offset:020}");
    world.aws.stumble(&key(0), 3);
    let task = world.start();
    world.aws.wait_until(|aws| aws.s3_calls().contains(&format!("PUT {}", key(0)))).await;
    fs::write(world.place("go"), "").expect("written");
    world.aws.wait_until(|aws| aws.object(&key(4)).is_some()).await;
    fs::write(world.place("end"), "").expect("written");
    world.end(task).await;
    assert_eq!(world.aws.object(&key(0)).as_deref(), Some(&b"one\n"[..]));
    assert_eq!(world.aws.object(&key(4)).as_deref(), Some(&b"two\n"[..]));
}

#[tokio::test]
async fn large_and_empty_files_arrive_whole() {
    let world = World::new(
        r#"while [ "$1" != --outdir ]; do shift; done; cd "$2" && mkdir empty void && : > empty/file
        seq 1 3000000 > large; ln -s large link
        echo '{"v": {"class": "Directory", "location": "file://'"$2"'/void"}}'"#,
    )
    .await;
    let key = format!("outputs/{RUN}/1/large");
    world.aws.stumble(&key, 2);
    let ended = world.run().await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    let expected: String = (1..=3_000_000).map(|n| format!("{n}\n")).collect();
    let large = world.aws.object(&key).expect("uploaded");
    assert_eq!(large.len(), expected.len());
    assert!(large == expected.as_bytes());
    let result = world.result().expect("a result");
    let sha1 = sha1_of(expected.as_bytes());
    assert_eq!(
        result["files"],
        json!([
            {"path": "empty/file", "size": 0, "sha1": "da39a3ee5e6b4b0d3255bfef95601890afd80709"},
            {"path": "large", "size": expected.len(), "sha1": sha1},
            {"path": "link", "size": expected.len(), "sha1": sha1},
        ])
    );
    assert_eq!(
        result["outputs"]["object"],
        json!({"v": {"class": "Directory", "location": "outdir:void", "listing": []}})
    );
}

#[tokio::test]
async fn a_large_file_whose_completion_was_not_answered_is_found_complete() {
    let world = World::new(
        r#"while [ "$1" != --outdir ]; do shift; done; cd "$2" && seq 1 3000000 > large
        echo '{}'"#,
    )
    .await;
    let key = format!("outputs/{RUN}/1/large");
    world.aws.leave_unsaid(&key);
    let ended = world.run().await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    let result = world.result().expect("a result");
    assert_eq!(result["outcome"], "COMPLETE", "{result}");
    assert_eq!(result["files"][0]["size"], world.aws.object(&key).expect("there").len());
}

#[tokio::test]
async fn a_report_function_that_is_away_is_waited_for() {
    // A port that is taken, but on which nobody listens yet.
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let address = socket.local_addr().expect("an address");
    let late = Aws::start().await;
    late.answer(Verdict::FunctionError);
    let mut world = World::with(late.clone(), GOOD);
    // The metadata endpoint is there, the rest of the host is not.
    world.set("AWS_ENDPOINT_URL", &format!("http://{address}"));
    let mut task = world.start();
    let mut log = tokio::io::BufReader::new(task.stderr.take().expect("piped"));
    let mut line = String::new();
    while !line.contains("reporting: ") {
        line.clear();
        let read = tokio::io::AsyncBufReadExt::read_line(&mut log, &mut line).await;
        assert!(read.expect("a log") > 0, "it ended");
    }
    let listener: TcpListener = socket.listen(64).expect("listening");
    let inner = late.address;
    tokio::spawn(async move {
        while let Ok((mut outside, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut inside = tokio::net::TcpStream::connect(inner).await.expect("connected");
                tokio::io::copy_bidirectional(&mut outside, &mut inside).await
            });
        }
    });
    tokio::spawn(async move { tokio::io::copy(&mut log, &mut tokio::io::sink()).await });
    assert_eq!(world.end(task).await.code, Some(0));
    assert_eq!(world.result().expect("a result")["outcome"], "COMPLETE");
}

#[tokio::test]
async fn credentials_are_renewed_by_claiming_again() {
    let wait = r#"while [ ! -e "$(dirname "$0")/../go" ]; do sleep 0.05; done"#;
    let world = World::new(&format!("{wait}\n{GOOD}")).await;
    world.aws.credentials_live(1);
    let task = world.start();
    // The engine says nothing, so that only the clock asks for new ones.
    world
        .aws
        .wait_until(|aws| {
            aws.reports().iter().filter(|report| report["action"] == "claim").count() > 2
        })
        .await;
    fs::write(world.place("go"), "").expect("written");
    let ended = world.end(task).await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert!(world.aws.access_keys().len() > 1, "{:?}", world.aws.access_keys());
}

#[tokio::test]
async fn a_workflow_comes_over_http_and_from_s3_with_its_fragment() {
    let web = axum::Router::new().route(
        "/w/other%20one.cwl",
        axum::routing::get(|| async { ([("content-type", "application/zip")], "from the web") }),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, web).await });
    let show =
        r#"for a; do case $a in *.cwl*) echo "$a" >&2; cat "${a%%#*}" >&2;; esac; done; echo {}"#;
    let world = World::new(show).await;
    for (url, argument, content) in [
        (format!("http://{address}/w/other%20one.cwl#main"), "other one.cwl#main", "from the web"),
        ("s3://elsewhere/w/a%2Bb.cwl".to_owned(), "a+b.cwl", "from s3"),
    ] {
        world.aws.put("w/a+b.cwl", "from s3");
        world.request(&json!({"workflow_url": url, "attachments": []}));
        let ended = world.run().await;
        assert_eq!(ended.code, Some(0), "{}", ended.log);
        let seen = world.work("logs/stderr").expect("a log");
        assert_eq!(seen, format!("{argument}\n{content}"));
    }
}

#[tokio::test]
async fn an_engine_without_an_output_object_gives_what_is_new_in_its_folder() {
    let world = World::new("").await;
    // What it prints is longer than any output object.
    world.program(
        "snakemake",
        r#"#!/bin/sh
        echo "$@" > logged
        mkdir -p results .snakemake/log scripts/__pycache__
        echo new > results/a; echo changed > main.cwl; touch .snakemake/state scripts/__pycache__/x
        printf '[Wed Nov 25 15:44:13 2026]\nrule one:\n    jobid: 1\n' > .snakemake/log/1.snakemake.log
        printf '[Wed Nov 25 15:44:15 2026]\nFinished jobid: 1 (Rule: one)\n' >> .snakemake/log/1.snakemake.log
        head -c 20000000 /dev/zero"#,
    );
    world.attach("data/kept.txt", "kept");
    world.attach("main.cwl", "rule one:\n");
    world.request(&json!({
        "engine": "snakemake", "workflow_type": "SMK", "workflow_type_version": "9",
        "default_parameters": {"--cores": "3", "--keep-going": null},
        "workflow_engine_parameters": {"--cores": 2},
        "attachments": [
            {"name": "main.cwl", "size": 10}, {"name": "data/kept.txt", "size": 4},
        ],
    }));
    let ended = world.run().await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    let result = world.result().expect("a result");
    assert_eq!(result["outcome"], "COMPLETE", "{result}");
    assert_eq!(result["outputs"], json!({"kind": "listing"}));
    let files = result["files"].as_array().expect("a list");
    let paths: Vec<_> = files.iter().map(|file| file["path"].as_str().expect("a path")).collect();
    assert_eq!(paths, ["logged", "main.cwl", "results/a"]);
    let arguments = world.aws.object(&format!("outputs/{RUN}/1/logged")).expect("uploaded");
    assert_eq!(
        String::from_utf8_lossy(&arguments),
        "--keep-going --cores=2 --printshellcmds --nocolor --snakefile=main.cwl --configfile=wes_inputs.json\n"
    );
    let tasks: Value =
        serde_json::from_str(&world.work("tasks.json").expect("tasks")).expect("JSON");
    assert_eq!(tasks["tasks"][0]["name"], "one");
    assert_eq!(tasks["tasks"][0]["exit_code"], 0);
}
