//! The `stepwes` command: serve WES on this machine, and talk to any WES.

mod archive;
mod args;
mod attach;
mod client;
mod commands;
mod doctor;
mod download;
mod engine_home;
mod follow;
mod json;
mod progress;
mod secondary;
mod sign;
mod ui;
mod wait;
mod workflow;

use std::process::ExitCode;

use args::{Cli, Command};
use clap::Parser as _;

/// A request to the server is answered in many small pieces of memory, on two threads at once.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        // Only a second call can fail, and then a provider is there.
        tracing::debug!("a TLS provider had been installed before");
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            return ui::fail(
                &anyhow::Error::new(error).context("the asynchronous runtime cannot start"),
            );
        }
    };
    let result = runtime.block_on(async {
        match cli.command {
            Command::Serve(args) => commands::serve::serve(args).await,
            Command::Run(args) => commands::run::run(*args).await,
            Command::Submit(args) => commands::submit::submit(args).await,
            Command::List(args) => commands::list::list(args).await,
            Command::Status(args) => commands::status::status(args).await,
            Command::Logs(args) => commands::logs::logs(args).await,
            Command::Cancel(args) => commands::cancel::cancel(args).await,
            Command::Resume(args) => commands::resume::resume(args).await,
            Command::Delete(args) => commands::delete::delete(args).await,
            Command::Outputs(args) => commands::outputs::outputs(args).await,
            Command::RoCrate(args) => commands::ro_crate::ro_crate(args).await,
            Command::Info(args) => commands::info::info(args).await,
            Command::Token(args) => commands::token::token(args).await,
            Command::Engines(args) => commands::engines::engines(args).await,
            Command::Trigger(args) => commands::trigger::trigger(args).await,
            Command::Doctor(args) => doctor::doctor(args).await,
        }
    });
    runtime.shutdown_background();
    result.unwrap_or_else(|error| ui::fail(&error))
}
