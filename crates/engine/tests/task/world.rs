//! A task to be: a request in S3, a stub of cwltool on PATH, and the real binary.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    path::PathBuf,
    process::{Output, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::aws::{Aws, BUCKET};

/// The run of every test.
pub(crate) const RUN: &str = "01890000-0000-7000-8000-000000000000";

/// Everything that one task needs.
pub(crate) struct World {
    pub(crate) aws: Aws,
    folder: TempDir,
    path: String,
    variables: Vec<(&'static str, String)>,
}

/// How a task ended.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) log: String,
}

impl World {
    /// A world whose cwltool is the shell script `stub`.
    pub(crate) async fn new(stub: &str) -> Self {
        Self::with(Aws::start().await, stub)
    }

    /// As [`Self::new`], with an AWS of one's own.
    pub(crate) fn with(aws: Aws, stub: &str) -> Self {
        let folder = TempDir::new().expect("a folder");
        let bin = folder.path().join("bin");
        fs::create_dir_all(folder.path().join("work")).expect("made");
        fs::create_dir(&bin).expect("made");
        let path = format!("{}:/usr/bin:/bin", bin.display());
        let world = Self { aws, folder, path, variables: Vec::new() };
        world.program("cwltool", &format!("#!/bin/sh\n{stub}\n"));
        world.request(&json!({}));
        world.attach("main.cwl", "cwlVersion: v1.2\n");
        world
    }

    /// Stores the request, with `change` on top of a plain one.
    pub(crate) fn request(&self, change: &Value) {
        let mut request = json!({
            "workflow_params": {"text": "hello"}, "workflow_type": "CWL",
            "workflow_type_version": "v1.2", "workflow_url": "main.cwl",
        });
        for (name, value) in change.as_object().expect("an object") {
            request[name] = value.clone();
        }
        let attachments = match request["attachments"].take() {
            Value::Null => json!([{"name": "main.cwl", "size": 17}]),
            given => given,
        };
        let engine = match request["engine"].take() {
            Value::Null => json!("cwltool"),
            given => given,
        };
        let defaults = match request["default_parameters"].take() {
            Value::Null => json!({}),
            given => given,
        };
        let fields = request.as_object_mut().expect("an object");
        fields.retain(|_, value| !value.is_null());
        let stored = json!({
            "run_id": RUN, "request": request, "engine": engine, "attachments": attachments,
            "default_parameters": defaults,
        });
        self.aws.put(&format!("requests/{RUN}/request.json"), stored.to_string());
    }

    /// Stores an attachment; the request has to name it.
    pub(crate) fn attach(&self, name: &str, content: &str) {
        self.aws.put(&format!("requests/{RUN}/attachments/{name}"), content);
    }

    /// Puts a program on the task's PATH.
    pub(crate) fn program(&self, name: &str, content: &str) {
        let path = self.place("bin").join(name);
        fs::write(&path, content).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("set");
    }

    /// Sets a variable of the task.
    pub(crate) fn set(&mut self, name: &'static str, value: &str) {
        self.variables.push((name, value.to_owned()));
    }

    /// Lets the task find programs only here.
    pub(crate) fn set_path(&mut self, path: &str) {
        path.clone_into(&mut self.path);
    }

    /// A path in the test's own folder, outside of the task's.
    pub(crate) fn place(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The task's command, before it is started.
    pub(crate) fn command(&self) -> Command {
        self.command_under(&[])
    }

    /// As [`Self::command`], started by another program.
    pub(crate) fn command_under(&self, wrapper: &[&str]) -> Command {
        let binary = env!("CARGO_BIN_EXE_stepwes-engine");
        let mut command = match wrapper {
            [] => Command::new(binary),
            [program, arguments @ ..] => {
                let mut command = Command::new(program);
                command.args(arguments).arg(binary);
                command
            }
        };
        let endpoint = format!("http://{}", self.aws.address);
        command
            .env_clear()
            .env("PATH", &self.path)
            // Nobody's, and no UTF-8: what a task does not read must not end it.
            .env("ODD", OsStr::from_bytes(b"\xff"))
            .env("AWS_ENDPOINT_URL", &endpoint)
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "TASKROLE")
            .env("AWS_SECRET_ACCESS_KEY", "task-role-secret")
            .env("ECS_CONTAINER_METADATA_URI_V4", format!("{endpoint}/metadata"))
            .env("STEPWES_RUN_ID", RUN)
            .env("STEPWES_ATTEMPT", "1")
            .env("STEPWES_TOKEN", "the-token")
            .env("STEPWES_BUCKET", BUCKET)
            .env("STEPWES_REPORT_FUNCTION", "report")
            .env("STEPWES_S3_PATH_STYLE", "true")
            .env("STEPWES_CONTAINER", "none")
            .env("STEPWES_ALLOWED_HOSTS", "127.0.0.0/8")
            .env("STEPWES_WORK_DIR", self.place("work"))
            .env("STEPWES_EXIT_FILE", self.place("exit.json"))
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Starts the task.
    pub(crate) fn start(&self) -> Child {
        self.command().spawn().expect("the binary starts")
    }

    /// Runs the task to its end, and checks what holds for every end.
    pub(crate) async fn run(&self) -> Ended {
        self.end(self.start()).await
    }

    /// Waits for a started task, and checks what holds for every end: the exit file tells the
    /// code, the work folder is gone, and no secret is in the log.
    pub(crate) async fn end(&self, child: Child) -> Ended {
        let Output { status, stderr, .. } = child.wait_with_output().await.expect("it ends");
        let log = String::from_utf8(stderr).expect("UTF-8");
        let record: Value =
            serde_json::from_slice(&fs::read(self.place("exit.json")).expect("an exit file"))
                .expect("JSON");
        assert_eq!(record["exit_code"].as_i64(), status.code().map(i64::from), "{log}");
        let work = self.place("work");
        if work.is_dir() {
            let left: Vec<_> = fs::read_dir(work).expect("listed").flatten().collect();
            assert!(left.is_empty(), "left behind: {left:?}\n{log}");
        }
        for secret in ["the-token", "task-role-secret", "scoped-secret", "scoped-session"] {
            assert!(!log.contains(secret), "{secret} is in the log: {log}");
        }
        Ended { code: status.code(), log }
    }

    /// The attempt's result, once it is there.
    pub(crate) fn result(&self) -> Option<Value> {
        let body = self.aws.object(&format!("work/{RUN}/1/result.json"))?;
        Some(serde_json::from_slice(&body).expect("JSON"))
    }

    /// An object of the attempt's `work/` prefix as text.
    pub(crate) fn work(&self, name: &str) -> Option<String> {
        let body = self.aws.object(&format!("work/{RUN}/1/{name}"))?;
        Some(String::from_utf8(body).expect("UTF-8"))
    }

    /// What the segments of a log make together, and whether each is named by its offset.
    pub(crate) fn segments(&self, stream: &str) -> String {
        let prefix = format!("work/{RUN}/1/logs/{stream}.segments/");
        let mut text = String::new();
        for key in self.aws.keys(&prefix) {
            assert_eq!(key[prefix.len()..], format!("{:020}", text.len()), "{key}");
            text.push_str(
                std::str::from_utf8(&self.aws.object(&key).expect("listed")).expect("UTF-8"),
            );
        }
        text
    }
}

/// Sends a signal to a started task.
pub(crate) fn signal(child: &Child, signal: nix::sys::signal::Signal) {
    let pid = i32::try_from(child.id().expect("it runs")).expect("a pid");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("sent");
}

/// Whether a process is there and not a zombie.
pub(crate) fn is_alive(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{}/stat", pid.trim())).is_ok_and(|stat| {
        !stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z')
    })
}
