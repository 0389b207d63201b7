//! `stepwes cancel`: stop runs.

use std::process::ExitCode;

use serde_json::json;

use crate::{
    args::CancelArgs,
    client::{Client, State},
    ui::{Style, print, print_json},
    wait,
};

/// Cancels runs; with `--wait`, until they have ended.
pub(crate) async fn cancel(args: CancelArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.server, None)?;
    for run_id in &args.run_ids {
        client.cancel(run_id).await?;
    }
    let mut states: Vec<(String, State)> = Vec::new();
    for run_id in &args.run_ids {
        let state = if args.wait {
            wait::until_ended(&client, run_id).await?
        } else {
            client.state(run_id).await?
        };
        states.push((run_id.clone(), state));
    }
    if args.server.json {
        let answer: Vec<_> = states
            .iter()
            .map(|(run_id, state)| json!({"run_id": run_id, "state": state}))
            .collect();
        print_json(&answer)?;
    } else {
        let style = Style::of_stdout();
        for (run_id, state) in &states {
            print(&format!("{} {run_id}\n", style.state(&state.0)))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
