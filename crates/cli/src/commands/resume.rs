//! `stepwes resume`: go on, as a new run, where a run has ended.

use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::json;

use crate::{
    args::ResumeArgs,
    client::Client,
    ui::{Style, print, print_json, printable},
    wait,
};

/// Makes the new run and prints its id; with `--wait`, its end.
pub(crate) async fn resume(args: ResumeArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.server, None).await?;
    let run_id = client
        .resume(&args.run_id)
        .await
        .with_context(|| format!("run {} cannot be resumed", args.run_id))?;
    if !args.wait {
        if args.server.json {
            print_json(&json!({"run_id": run_id, "resumed_from": args.run_id}))?;
        } else {
            print(&format!("{run_id}\n"))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let state = wait::until_ended(&client.patient(), &run_id).await?;
    if args.server.json {
        print_json(&json!({"run_id": run_id, "resumed_from": args.run_id, "state": state}))?;
    } else {
        let style = Style::of_stdout();
        print(&format!("{} {run_id}\n", style.state(&printable(&state.0))))?;
    }
    Ok(if state.0 == "COMPLETE" { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
