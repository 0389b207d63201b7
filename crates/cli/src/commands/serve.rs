//! `stepwes serve`: WES on this machine, over the embedded AWS.

use std::{
    io::IsTerminal as _,
    num::NonZeroUsize,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, Mutex},
};

use anyhow::Context as _;
use serde_json::json;
use stepwes_core::{
    destination::{Destination, Destinations, is_bucket_name},
    drs_tokens::DrsTokens,
};
use stepwes_local::{
    Auth, LeftRunning, ServeError, ServeOptions, Server, StateChangeReceiver, arn,
    faults::FaultPlan,
};
use stepwes_log::Lines;
use tokio::signal::unix::{SignalKind, signal};
use tracing::Level;
use tracing_subscriber::{
    filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::{
    args::{AuthArg, EmbeddedArgs, ServeArgs, environment},
    engine_home,
    ui::{Colour, Style, hint, print, print_json, say},
};

/// Serves until it is told to stop; with `--stop-runs`, ends what an earlier server left running.
pub(crate) async fn serve(args: ServeArgs) -> anyhow::Result<ExitCode> {
    log_to_stderr();
    let options = ServeOptions {
        host: args.host.to_string(),
        port: args.port,
        public_url: args.public_url.clone(),
        auth: args.auth.map(|how| match how {
            AuthArg::Token => Auth::Token,
            AuthArg::None => Auth::None,
        }),
        admin_group: args.admin_group.clone(),
        retention_days: args.retention_days,
        on_state_change: args
            .on_state_change
            .clone()
            .or_else(|| environment("STEPWES_ON_STATE_CHANGE"))
            .map(|text| receiver(&text))
            .transpose()?,
        faults: args.chaos.clone().map(|plan| Arc::new(plan) as Arc<dyn FaultPlan>),
        ..options(&args.embedded)?
    };
    if options.faults.is_some() {
        tracing::warn!("calls of the embedded AWS go wrong on purpose (--chaos)");
    }
    if args.stop_runs {
        // On any port of this machine alone: it serves nobody.
        let host = ServeOptions::default().host;
        let options = ServeOptions { port: 0, host, ..options };
        let stopped = stepwes_local::stop_runs(options, |left| {
            say(&format!("{left} runs are still going on"));
        })
        .await
        .map_err(|error| explain(&error))?;
        if args.json {
            print_json(&json!({"stopped": stopped}))?;
        } else {
            print(&format!("{stopped} runs were going on; none is now\n"))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut interrupt =
        signal(SignalKind::interrupt()).context("interrupts cannot be listened for")?;
    let mut terminate =
        signal(SignalKind::terminate()).context("signals cannot be listened for")?;
    let server = stepwes_local::start(options).await.map_err(|error| explain(&error))?;
    let dir = server.dir().to_owned();
    if args.json {
        let auth = match server.auth() {
            Auth::Token => "token",
            Auth::None => "none",
        };
        print_json(&json!({"url": server.url(), "dir": dir, "auth": auth}))?;
    } else {
        let style = Style::of_stdout();
        let callers = match server.auth() {
            Auth::None => String::new(),
            Auth::Token => format!(
                "  callers `stepwes token create NAME --dir {}` makes a token for one\n",
                dir.display()
            ),
        };
        print(&format!(
            "{} at {}/ga4gh/wes/v1\n  files   {}\n{callers}  try     stepwes run WORKFLOW.cwl INPUTS.json --url {}\n  end     Ctrl-C; runs go on without the server\n",
            style.paint(Colour::Bold, "stepwes serves WES 1.1"),
            server.url(),
            dir.display(),
            server.url(),
        ))?;
    }
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    let left = server.shutdown().await;
    say_left(&left, &dir);
    Ok(ExitCode::SUCCESS)
}

fn receiver(text: &str) -> anyhow::Result<StateChangeReceiver> {
    text.parse().map_err(|error| {
        hint(format!("--on-state-change cannot be used: {error}"), "give a URL or a command")
    })
}

/// Says what goes on without the server, and how to go on or end it.
pub(crate) fn say_left(left: &LeftRunning, dir: &Path) {
    if left.tasks.is_empty() && left.waiting == 0 {
        return;
    }
    for task in &left.tasks {
        say(&format!(
            "still running: run {} (pid {})",
            task.run_id.as_deref().unwrap_or("unknown"),
            task.pid
        ));
    }
    if left.waiting > 0 {
        say(&format!("still waiting to start: {}", left.waiting));
    }
    say(&format!(
        "`stepwes serve --dir {dir}` takes them to their end, `stepwes serve --stop-runs --dir {dir}` cancels them",
        dir = dir.display()
    ));
}

/// An embedded server for one command, on any free port.
pub(crate) async fn embedded(args: &EmbeddedArgs) -> anyhow::Result<Server> {
    let options = ServeOptions { port: 0, ..options(args)? };
    let server = stepwes_local::start(options).await.map_err(|error| match error {
        ServeError::InUse { .. } => {
            hint(first_line(&error), "send the run to that server with --url, or give this one a folder of its own with --dir")
        }
        error => explain(&error),
    })?;
    // Only now the folder is there, and no other server's.
    log_to_file(&server.dir().join("server.log"))?;
    Ok(server)
}

fn options(args: &EmbeddedArgs) -> anyhow::Result<ServeOptions> {
    let max_engines = args
        .max_engines
        .map(|count| {
            NonZeroUsize::new(count).ok_or_else(|| {
                hint("--max-engines is 0, so no run would ever start", "give 1 or more")
            })
        })
        .transpose()?;
    Ok(ServeOptions {
        dir: args.dir.clone(),
        destinations: destinations(args)?,
        container: args.container.as_str().to_owned(),
        sandbox: args.sandbox.as_str().to_owned(),
        engine_defaults: args
            .engine_defaults
            .iter()
            .map(|text| engine_default(text))
            .collect::<anyhow::Result<_>>()?,
        engines_path_dirs: engine_home::of_user().map(|home| home.bin()).into_iter().collect(),
        max_engines,
        allowed_hosts: args.allowed_hosts.clone(),
        input_buckets: args.input_buckets.clone(),
        workflow_dirs: args
            .workflow_dirs
            .iter()
            .map(|dir| workflow_dir(dir))
            .collect::<anyhow::Result<_>>()?,
        max_input_mib: args.max_input_mib,
        drs_tokens: args.drs_tokens.as_deref().map(drs_tokens).transpose()?.unwrap_or_default(),
        ..ServeOptions::default()
    })
}

/// The tokens in a file that nobody else can read.
fn drs_tokens(file: &Path) -> anyhow::Result<DrsTokens> {
    let cannot = || format!("--drs-tokens {} cannot be used", file.display());
    let others = std::fs::metadata(file).with_context(cannot)?.permissions().mode() & 0o077;
    if others != 0 {
        return Err(hint(
            format!("{}: others on this machine may read it", cannot()),
            format!("chmod 600 {}", file.display()),
        ));
    }
    let text = std::fs::read_to_string(file).with_context(cannot)?;
    DrsTokens::parse(&text).map_err(|error| hint(cannot(), error.to_string()))
}

/// A folder as it really is.
fn workflow_dir(dir: &Path) -> anyhow::Result<PathBuf> {
    let real = dir.canonicalize().ok().filter(|real| real.is_dir());
    // They are handed on in a list with colons between them.
    real.filter(|real| !real.as_os_str().as_encoded_bytes().contains(&b':')).ok_or_else(|| {
        hint(
            format!("--workflow-dir {} cannot be used", dir.display()),
            "name a folder that is there, without a colon in its path",
        )
    })
}

/// Where outputs may go. The default's bucket need not be named twice.
fn destinations(args: &EmbeddedArgs) -> anyhow::Result<Destinations> {
    let mut buckets = args.output_buckets.clone();
    let default =
        match &args.dest_bucket_base {
            Some(text) => Some(text.parse::<Destination>().map_err(|error| {
                hint(format!("--dest-bucket-base is {text:?}"), error.to_string())
            })?),
            None => None,
        };
    buckets.extend(default.iter().map(|default| default.bucket().to_owned()));
    buckets.sort();
    buckets.dedup();
    if let Some(name) = buckets.iter().find(|name| !is_bucket_name(name) || *name == arn::BUCKET) {
        return Err(hint(
            format!("outputs cannot go to the bucket {name:?}"),
            "give another name, of 3 to 63 of a-z, 0-9, '-' and '.'; the runs' own cannot be named",
        ));
    }
    Ok(Destinations { buckets, default })
}

/// Reads `ENGINE:OPTION[=VALUE]`.
fn engine_default(text: &str) -> anyhow::Result<(String, String, Option<String>)> {
    let (engine, option) =
        text.split_once(':').filter(|(_, option)| option.starts_with('-')).ok_or_else(|| {
            hint(
                format!("{text:?} is no option for an engine"),
                "give it as ENGINE:OPTION, such as toil:--maxCores=2",
            )
        })?;
    let (name, value) = match option.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (option, None),
    };
    Ok((engine.to_owned(), name.to_owned(), value))
}

/// A server's error, whose lines after the first say what to do.
pub(crate) fn explain(error: &ServeError) -> anyhow::Error {
    let text = error.to_string();
    match text.split_once('\n') {
        Some((what, then)) => hint(what, then),
        None => anyhow::anyhow!(text),
    }
}

fn first_line(error: &ServeError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// Logs to standard error: lines for a person on a terminal, JSON elsewhere. `STEPWES_LOG` says how
/// much, such as `debug` or `stepwes_local=debug,warn`.
fn log_to_stderr() {
    let terminal = std::io::stderr().is_terminal();
    let registry =
        tracing_subscriber::registry().with(log_level(if terminal { "warn" } else { "info" }));
    if terminal {
        // What cannot be logged cannot be reported either, and trying to would panic.
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .log_internal_errors(false)
            .with_target(false);
        registry.with(layer).init();
    } else {
        registry.with(Lines::new(std::io::stderr)).init();
    }
}

/// Logs to a file, after what is in it: the server of one command shares its terminal with a person
/// who looks at the run.
fn log_to_file(path: &Path) -> anyhow::Result<()> {
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("{} cannot be written", path.display()))?;
    tracing_subscriber::registry()
        .with(log_level("info"))
        .with(Lines::new(Mutex::new(file)))
        .init();
    Ok(())
}

/// What `STEPWES_LOG` says, else `default`; but never the lines in which s3s shows whole requests,
/// with signatures and session tokens.
fn log_level(default: &str) -> Targets {
    let level = std::env::var("STEPWES_LOG").ok().and_then(|text| text.parse::<Targets>().ok());
    let level = level.unwrap_or_else(|| default.parse().unwrap_or_default());
    if level.would_enable("s3s::service", &Level::DEBUG) {
        return level.with_target("s3s", Level::INFO).with_target("s3s::service", Level::INFO);
    }
    level
}
