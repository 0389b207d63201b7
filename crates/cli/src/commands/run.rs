//! `stepwes run`: submit, watch, fetch the outputs, and end as the engine did.

use std::{
    collections::HashMap,
    io::{IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::Context as _;
use futures::TryStreamExt as _;
use serde_json::{Value, json};
use stepwes_core::wes::OutputEntry;
use stepwes_local::Server;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

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

/// How much of the end of its log is read for them.
const LAST_BYTES: u64 = 64 << 10;

/// Every how many looks at an unchanged state the tasks are looked at: they may be many pages.
const LOOKS_PER_TASKS: u32 = 4;

/// Runs a workflow to its end.
pub(crate) async fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let submission = Submission::read(&args.workflow)?;
    let embedded = match args.server.url() {
        Some(_) => None,
        None => Some(serve::embedded(&args.embedded).await?),
    };
    let client = Client::new(&args.server, embedded.as_ref().map(Server::url)).await?;
    let mut interrupts = Interrupts::new()?;
    let result = tokio::select! {
        submitted = client.submit(&submission) => match submitted {
            Ok(run_id) => {
                let further = match embedded {
                    Some(_) => format!("`stepwes serve --dir {}` takes it to its end", args.embedded.dir.display()),
                    None => format!("`stepwes status {run_id}` shows it"),
                };
                interrupts.say_at_the_end(format!("run {run_id} goes on; {further}"));
                submitted_run(&args, &client.patient(), &run_id, &further, &mut interrupts)
                    .await
                    .with_context(|| format!("run {run_id} was submitted, and may go on; {further}"))
            }
            Err(error) => Err(error),
        },
        () = interrupts.next() => {
            ui::say("interrupted while the run was being submitted; `stepwes list` shows whether it was");
            Ok(ExitCode::from(CANCELED))
        }
    };
    if let Some(server) = embedded {
        tokio::select! {
            left = server.shutdown() => serve::say_left(&left, &args.embedded.dir),
            () = interrupts.next() => return Ok(ExitCode::from(CANCELED)),
        }
    }
    result
}

/// Watches a submitted run, and gives its results; `further` says how to see more of it.
async fn submitted_run(
    args: &RunArgs,
    client: &Client,
    run_id: &str,
    further: &str,
    interrupts: &mut Interrupts,
) -> anyhow::Result<ExitCode> {
    let mut progress = Progress::new(args.server.json);
    let style = Style::of_stderr();
    progress.say(&format!("{} {run_id} at {}", style.paint(Colour::Bold, "run"), client.base()));
    let state = match watch(args, client, run_id, &mut progress, interrupts).await? {
        Watched::Ended(state) => state,
        Watched::Left(state) => {
            progress.say(&format!("the run goes on; {further}"));
            if args.server.json {
                print_json(&json!({"run_id": run_id, "state": state}))?;
            }
            return Ok(ExitCode::from(CANCELED));
        }
    };
    progress.finish(&state, run_id);
    tokio::select! {
        code = results(args, client, run_id, style) => code,
        () = interrupts.next() => {
            ui::say(&format!("interrupted: run {run_id} is {}; {further}", state.0));
            Ok(ExitCode::from(CANCELED))
        }
    }
}

/// Fetches and prints what a run that has ended came to.
async fn results(
    args: &RunArgs,
    client: &Client,
    run_id: &str,
    style: Style,
) -> anyhow::Result<ExitCode> {
    let run = client.run(run_id).await?;
    if run.state.0 == "COMPLETE" {
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

/// How watching a run ended.
enum Watched {
    /// The run has ended so.
    Ended(State),
    /// The person went away from it, when it was so.
    Left(State),
}

/// Watches the run to its end.
async fn watch(
    args: &RunArgs,
    client: &Client,
    run_id: &str,
    progress: &mut Progress,
    interrupts: &mut Interrupts,
) -> anyhow::Result<Watched> {
    let mut follower = args.follow.then(|| Follower::new(client, run_id, false));
    let mut pauses = Pauses::new();
    let mut state = State("UNKNOWN".to_owned());
    let mut tasks = Vec::new();
    let mut looks = 0;
    loop {
        let look = async {
            let now = client.state(run_id).await?;
            let counted = if now != state || looks % LOOKS_PER_TASKS == 0 {
                client.tasks(run_id).await.unwrap_or_default()
            } else {
                tasks.clone()
            };
            anyhow::Ok((now, counted))
        };
        let (now, counted) = tokio::select! {
            looked = look => looked?,
            () = interrupts.next() => match ask(client, run_id, progress, interrupts).await? {
                Answer::Wait => continue,
                Answer::Leave => return Ok(Watched::Left(state)),
            },
        };
        looks += 1;
        if now != state || counted.len() != tasks.len() {
            pauses.reset();
        }
        (state, tasks) = (now, counted);
        progress.update(&state, &tasks);
        if let Some(follower) = &mut follower {
            let mut new = Vec::new();
            follower.catch_up(&mut new).await?;
            // Standard error is where the engine would have written it. The run is worth its end
            // also when nobody reads that any more.
            progress.suspend(|| {
                let _ = std::io::stderr().write_all(&new);
            });
        }
        if state.is_terminal() {
            return Ok(Watched::Ended(state));
        }
        tokio::select! {
            () = pauses.next() => {}
            () = interrupts.next() => if let Answer::Leave = ask(client, run_id, progress, interrupts).await? {
                return Ok(Watched::Left(state));
            },
        }
    }
}

/// Ctrl-C, kept until somebody looks. A second one, before the first has been settled, ends the
/// command at once.
struct Interrupts {
    received: mpsc::UnboundedReceiver<()>,
    unsettled: Arc<AtomicBool>,
    last_words: Arc<OnceLock<String>>,
}

impl Interrupts {
    fn new() -> anyhow::Result<Self> {
        let mut signal =
            signal(SignalKind::interrupt()).context("interrupts cannot be listened for")?;
        let (sender, received) = mpsc::unbounded_channel();
        let unsettled = Arc::new(AtomicBool::new(false));
        let last_words = Arc::new(OnceLock::new());
        let interrupts = Self {
            received,
            unsettled: Arc::clone(&unsettled),
            last_words: Arc::clone(&last_words),
        };
        tokio::spawn(async move {
            while signal.recv().await.is_some() {
                if unsettled.swap(true, Ordering::SeqCst) || sender.send(()).is_err() {
                    if let Some(words) = last_words.get() {
                        ui::say(&format!("\n{words}"));
                    }
                    std::process::exit(i32::from(CANCELED));
                }
            }
        });
        Ok(interrupts)
    }

    /// What to say when an interrupt ends the command at once.
    fn say_at_the_end(&self, words: String) {
        // Only the first submission has a run, and there is one.
        let _ = self.last_words.set(words);
    }

    /// The next interrupt.
    async fn next(&mut self) {
        if self.received.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    /// The last one was for nothing: the next asks again.
    fn settle(&self) {
        self.unsettled.store(false, Ordering::SeqCst);
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
    interrupts: &Interrupts,
) -> anyhow::Result<Answer> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        progress.say("interrupted: cancelling the run");
        client.cancel(run_id).await?;
        return Ok(Answer::Wait);
    }
    progress.stand(true);
    progress.suspend(|| {
        let _ = std::io::stderr().write_all(b"\nCancel the run? [y]es, [n]o, [l]eave it running: ");
    });
    let answer = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map(|_| line)
    })
    .await
    .context("the answer cannot be read")?
    .context("the answer cannot be read")?;
    progress.stand(false);
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => {
            client.cancel(run_id).await?;
            Ok(Answer::Wait)
        }
        "l" | "leave" => Ok(Answer::Leave),
        _ => {
            interrupts.settle();
            Ok(Answer::Wait)
        }
    }
}

/// Downloads the output files, and gives the output object with their local places. A server that
/// is not stepwes hands out no files: they stay where it put them.
async fn fetch_outputs(args: &RunArgs, client: &Client, run: &RunView) -> anyhow::Result<Value> {
    let mut outputs = whole_outputs(client, run).await?;
    if args.no_download {
        return Ok(outputs);
    }
    let Some(files) = client.outputs(&run.run_id).await? else {
        ui::say("warning: the server hands out no output files; they stay where `location` says");
        return Ok(outputs);
    };
    let total: u64 = files.iter().map(|file| file.size).sum();
    let items: Vec<_> = files.iter().map(download::Item::from).collect();
    download::download(client, &items, &args.outdir).await?;
    if !args.server.json {
        ui::say(&format!("{} files, {}, in {}", files.len(), bytes(total), args.outdir.display()));
    }
    let outdir =
        std::path::absolute(&args.outdir).context("the output folder has no absolute path")?;
    localise(&mut outputs, &places(&files, &outdir)?);
    Ok(outputs)
}

/// The output object, also when it was too large for the run: then `outputs` says where it is.
pub(crate) async fn whole_outputs(client: &Client, run: &RunView) -> anyhow::Result<Value> {
    let pointer = run
        .outputs
        .as_object()
        .filter(|outputs| outputs.len() == 1)
        .and_then(|outputs| outputs.get("outputs.json")?.get("url")?.as_str());
    match pointer {
        Some(url) => {
            let collected = client.json(url).await.context("the outputs cannot be read")?;
            collected.get("outputs").cloned().context("outputs.json holds no outputs")
        }
        None => Ok(run.outputs.clone()),
    }
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
    if let (false, Some(_), Some(url)) = (args.follow, run.run_log.exit_code, &run.run_log.stderr) {
        match last_lines(client, url).await {
            Ok(lines) => {
                for line in lines {
                    let line = ui::printable(&line);
                    ui::say(&format!("{} {line}", style.paint(Colour::Dim, "│")));
                }
            }
            Err(error) => ui::say(&format!("the engine's log cannot be shown: {error:#}")),
        }
    }
    for reason in run.run_log.system_logs.iter().flatten() {
        let reason = ui::printable(reason);
        ui::say(&format!("{} {reason}", style.paint(Colour::Red, "reason:")));
    }
}

/// The last lines of a log.
async fn last_lines(client: &Client, url: &str) -> anyhow::Result<Vec<String>> {
    let Some(response) = client.log_end(url, LAST_BYTES).await? else { return Ok(Vec::new()) };
    let keep = usize::try_from(LAST_BYTES)?;
    let mut end = Vec::new();
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.try_next().await.map_err(reqwest::Error::without_url)? {
        end.extend_from_slice(&chunk);
        end.drain(..end.len().saturating_sub(keep));
    }
    let text = String::from_utf8_lossy(&end);
    let lines: Vec<_> = text.lines().map(str::to_owned).collect();
    Ok(lines[lines.len().saturating_sub(LAST_LINES)..].to_vec())
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
