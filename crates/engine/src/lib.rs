//! The engine task: claims one attempt of a run, stages it, executes its workflow engine, and
//! uploads logs, outputs and, last of all, the result.

mod attempt;
mod body;
mod bucket;
mod bundle;
mod config;
mod container;
mod cwl;
mod drs;
mod engines;
mod error;
mod exit_file;
mod fetch;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod hosts;
mod http;
mod inputs;
mod lend;
mod logs;
mod outputs;
mod process;
mod reachable;
mod report;
mod sandbox;
mod stage;
mod state;
mod stop;
mod tree;
mod upload;
mod wdl;
mod wdl_inputs;
mod workdir;

use std::path::PathBuf;

use stepwes_core::task;
use tracing::{Instrument as _, error, error_span, field};

/// Executes the attempt that the environment names ([`stepwes_core::task::env`]) and gives the
/// code to exit with ([`stepwes_core::task::exit`]). Whatever happens, the exit file, when one is
/// asked for, is written last.
pub async fn run() -> i32 {
    let exit_file = std::env::var_os(task::env::EXIT_FILE).map(PathBuf::from);
    let code = execute().await;
    if let Some(path) = exit_file
        && let Err(error) = exit_file::write(&path, code)
    {
        error!("the exit file {} could not be written: {error}", path.display());
    }
    code
}

async fn execute() -> i32 {
    let prepared = process::harden()
        .map_err(|error| format!("this process cannot be shielded from the engine: {error}"))
        .and_then(|()| stop::Stop::install().map_err(|error| format!("no signals: {error}")))
        .and_then(|stop| Ok((stop, config::Config::from_env()?)));
    match prepared {
        Ok((stop, config)) => {
            let (run_id, attempt) = (field::display(config.run_id), config.attempt);
            let span = error_span!("attempt", run_id, attempt, trace_id = field::Empty);
            attempt::run(&config, &stop).instrument(span).await
        }
        Err(reason) => {
            error!("{reason}");
            task::exit::FAILED
        }
    }
}
