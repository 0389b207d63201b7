//! `stepwes run`: submit, watch, fetch the outputs, and end as the engine did.

use std::{
    collections::HashMap,
    io::{IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use serde_json::{Value, json};
use stepwes_core::wes::OutputEntry;
use stepwes_local::Server;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    args::RunArgs,
    client::{Client, RunView, State},
    commands::serve,
    download,
    follow::Follower,
    progress::Progress,
    ui::{self, Colour, Style, bytes, print_json},
    wait::Pauses,
    workflow::Submission,
};

/// What `run` exits with when the run was cancelled, as a shell does for an interrupt.
const CANCELED: u8 = 130;

/// How many lines of a failed engine's log are shown.
const LAST_LINES: usize = 20;

/// Runs a workflow to its end.
pub(crate) async fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let submission = Submission::read(&args.workflow)?;
    let embedded = match args.server.url {
        Some(_) => None,
        None => Some(serve::embedded(&args.embedded).await?),
    };
    let client = Client::new(&args.server, embedded.as_ref().map(Server::url))?;
    let result = submitted(&args, &client, &submission).await;
    if let Some(server) = embedded {
        let left = server.shutdown().await;
        serve::say_left(&left, &args.embedded.dir);
    }
    result
}

async fn submitted(
    args: &RunArgs,
    client: &Client,
    submission: &Submission,
) -> anyhow::Result<ExitCode> {
    let run_id = client.submit(submission).await?;
    let mut progress = Progress::new(args.server.json);
    let style = Style::of_stderr();
    progress.say(&format!("{} {run_id} at {}", style.paint(Colour::Bold, "run"), client.base()));
    let watched = watch(args, client, &run_id, &mut progress).await?;
    let Some(state) = watched else {
        progress.say(&format!("the run goes on; `stepwes status {run_id}` shows it"));
        return Ok(ExitCode::from(CANCELED));
    };
    progress.finish(&state, &run_id);
    let run = client.run(&run_id).await?;
    if state.0 == "COMPLETE" {
        let outputs = fetch_outputs(args, client, &run).await?;
        print_json(&if args.server.json { finished(&run, &outputs) } else { outputs })?;
    } else {
        explain(args, client, &run, style).await;
        if args.server.json {
            print_json(&finished(&run, &run.outputs))?;
        }
    }
    Ok(exit_code(&run))
}

/// What `--json` prints.
fn finished(run: &RunView, outputs: &Value) -> Value {
    json!({
        "run_id": run.run_id,
        "state": run.state,
        "exit_code": run.run_log.exit_code,
        "system_logs": run.run_log.system_logs,
        "outputs": outputs,
    })
}

/// Watches the run to its end; `None` when the person went away from it.
async fn watch(
    args: &RunArgs,
    client: &Client,
    run_id: &str,
    progress: &mut Progress,
) -> anyhow::Result<Option<State>> {
    let mut follower = args.follow.then(|| Follower::new(client, run_id, false));
    let mut interrupts = Interrupts::new()?;
    let mut pauses = Pauses::new();
    let mut before = (State(String::new()), 0);
    loop {
        let look = async {
            let state = client.state(run_id).await?;
            let tasks = client.tasks(run_id).await.unwrap_or_default();
            anyhow::Ok((state, tasks))
        };
        let (state, tasks) = tokio::select! {
            looked = look => looked?,
            () = interrupts.next() => match ask(client, run_id, progress, &mut interrupts).await? {
                Answer::Wait => continue,
                Answer::Leave => return Ok(None),
            },
        };
        let now = (state.clone(), tasks.len());
        if now != before {
            pauses.reset();
            before = now;
        }
        progress.update(&state, &tasks);
        if let Some(follower) = &mut follower {
            let mut new = Vec::new();
            follower.catch_up(&mut new).await?;
            // Standard error is where the engine would have written it.
            progress
                .suspend(|| std::io::stderr().write_all(&new))
                .context("the log cannot be shown")?;
        }
        if state.is_terminal() {
            return Ok(Some(state));
        }
        tokio::select! {
            () = pauses.next() => {}
            () = interrupts.next() => if let Answer::Leave = ask(client, run_id, progress, &mut interrupts).await? {
                return Ok(None);
            },
        }
    }
}

/// Ctrl-C, kept until somebody looks: one that comes between two looks is not lost.
struct Interrupts(Signal);

impl Interrupts {
    fn new() -> anyhow::Result<Self> {
        signal(SignalKind::interrupt()).map(Self).context("interrupts cannot be listened for")
    }

    async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

enum Answer {
    /// Go on watching (the run may have been told to cancel).
    Wait,
    /// Stop watching; the run goes on.
    Leave,
}

/// Asks whether to cancel. Without a person to ask, an interrupt means cancel.
async fn ask(
    client: &Client,
    run_id: &str,
    progress: &Progress,
    interrupts: &mut Interrupts,
) -> anyhow::Result<Answer> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        progress.say("interrupted: cancelling the run");
        client.cancel(run_id).await?;
        return Ok(Answer::Wait);
    }
    progress.suspend(|| eprint!("\nCancel the run? [y]es, [n]o, [l]eave it running: "));
    let line = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map(|_| line)
    });
    let answer = tokio::select! {
        line = line => line.context("the answer cannot be read")?.context("the answer cannot be read")?,
        () = interrupts.next() => "l".to_owned(),
    };
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => {
            client.cancel(run_id).await?;
            Ok(Answer::Wait)
        }
        "l" | "leave" => Ok(Answer::Leave),
        _ => Ok(Answer::Wait),
    }
}

/// Downloads the output files, and gives the output object with their local places.
async fn fetch_outputs(args: &RunArgs, client: &Client, run: &RunView) -> anyhow::Result<Value> {
    let mut outputs = run.outputs.clone();
    if args.no_download {
        return Ok(outputs);
    }
    let files = client.outputs(&run.run_id).await?;
    let total: u64 = files.iter().map(|file| file.size).sum();
    download::download(client, &files, &args.outdir, |_| ()).await?;
    if !args.server.json {
        eprintln!("{} files, {}, in {}", files.len(), bytes(total), args.outdir.display());
    }
    let outdir =
        std::path::absolute(&args.outdir).context("the output folder has no absolute path")?;
    localise(&mut outputs, &places(&files, &outdir)?);
    Ok(outputs)
}

/// Where each location was downloaded to; folders above files too.
fn places(files: &[OutputEntry], outdir: &Path) -> anyhow::Result<HashMap<String, PathBuf>> {
    let mut places = HashMap::new();
    for file in files {
        let target = download::target(outdir, &file.path)?;
        let mut location = file.location.as_str();
        let mut path = target.as_path();
        places.insert(location.to_owned(), target.clone());
        while let (Some((parent, _)), Some(folder)) = (location.rsplit_once('/'), path.parent()) {
            if folder == outdir {
                break;
            }
            places.insert(parent.to_owned(), folder.to_owned());
            (location, path) = (parent, folder);
        }
    }
    Ok(places)
}

/// Puts local paths for the locations that were downloaded.
fn localise(value: &mut Value, places: &HashMap<String, PathBuf>) {
    match value {
        Value::Object(object) => {
            let place = object
                .get("location")
                .and_then(Value::as_str)
                .and_then(|location| places.get(location.trim_end_matches('/')))
                .cloned();
            if let Some(place) = place {
                if let Ok(url) = url::Url::from_file_path(&place) {
                    object.insert("location".to_owned(), Value::String(url.to_string()));
                }
                object
                    .insert("path".to_owned(), Value::String(place.to_string_lossy().into_owned()));
            }
            object.values_mut().for_each(|member| localise(member, places));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| localise(item, places)),
        _ => {}
    }
}

/// Says why a run did not end well: its reasons, and the end of the engine's log.
async fn explain(args: &RunArgs, client: &Client, run: &RunView, style: Style) {
    if !args.follow && run.run_log.exit_code.is_some() {
        let mut log = Vec::new();
        let mut follower = Follower::new(client, &run.run_id, false);
        match follower.catch_up(&mut log).await {
            Ok(_) => {
                let text = String::from_utf8_lossy(&log);
                let lines: Vec<_> = text.lines().collect();
                for line in &lines[lines.len().saturating_sub(LAST_LINES)..] {
                    eprintln!("{} {}", style.paint(Colour::Dim, "│"), ui::printable(line));
                }
            }
            Err(error) => eprintln!("the engine's log cannot be shown: {error:#}"),
        }
    }
    for reason in run.run_log.system_logs.iter().flatten() {
        eprintln!("{} {}", style.paint(Colour::Red, "reason:"), ui::printable(reason));
    }
}

/// The engine's exit code where there is one.
fn exit_code(run: &RunView) -> ExitCode {
    match run.state.0.as_str() {
        "COMPLETE" => ExitCode::SUCCESS,
        "CANCELED" => ExitCode::from(CANCELED),
        _ => match run.run_log.exit_code.and_then(|code| u8::try_from(code).ok()) {
            Some(0) | None => ExitCode::FAILURE,
            Some(code) => ExitCode::from(code),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_shown_where_they_were_put() {
        let file = |path: &str| OutputEntry {
            path: path.to_owned(),
            location: format!("s3://b/outputs/r/1/{path}"),
            url: String::new(),
            size: 1,
            checksum: String::new(),
        };
        let places =
            places(&[file("a b.txt"), file("d/e/f.txt")], Path::new("/out")).expect("safe names");
        let mut outputs = json!({
            "x": {"class": "File", "location": "s3://b/outputs/r/1/a b.txt"},
            "y": [{"class": "Directory", "location": "s3://b/outputs/r/1/d",
                "listing": [{"class": "Directory", "location": "s3://b/outputs/r/1/d/e"}]}],
            "z": {"class": "File", "location": "s3://elsewhere/z"},
        });
        localise(&mut outputs, &places);
        assert_eq!(
            outputs,
            json!({
                "x": {"class": "File", "location": "file:///out/a%20b.txt", "path": "/out/a b.txt"},
                "y": [{"class": "Directory", "location": "file:///out/d",
                    "listing": [{"class": "Directory", "location": "file:///out/d/e", "path": "/out/d/e"}],
                    "path": "/out/d"}],
                "z": {"class": "File", "location": "s3://elsewhere/z"},
            })
        );
    }
}
