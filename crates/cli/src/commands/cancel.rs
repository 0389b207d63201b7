//! `stepwes cancel`: stop runs.

use std::process::ExitCode;

use serde_json::json;

use crate::{
    args::CancelArgs,
    client::Client,
    ui::{Style, fail, print, print_json, printable},
    wait,
};

/// Cancels every run that it can; with `--wait`, until they have ended. Fails when one could not be.
pub(crate) async fn cancel(args: CancelArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.server, None).await?;
    let mut asked = Vec::new();
    for run_id in &args.run_ids {
        asked.push((run_id, client.cancel(run_id).await));
    }
    let client = client.patient();
    let mut failed = false;
    let mut answers = Vec::new();
    for (run_id, asked) in asked {
        let state = match asked {
            Ok(()) if args.wait => wait::until_ended(&client, run_id).await,
            Ok(()) => client.state(run_id).await,
            Err(error) => Err(error),
        };
        match state {
            Ok(state) if args.server.json => {
                answers.push(json!({"run_id": run_id, "state": state}));
            }
            Ok(state) => {
                let style = Style::of_stdout();
                print(&format!("{} {run_id}\n", style.state(&printable(&state.0))))?;
            }
            Err(error) => {
                failed = true;
                if args.server.json {
                    answers.push(json!({"run_id": run_id, "error": format!("{error:#}")}));
                }
                fail(&error.context(format!("run {run_id} cannot be cancelled")));
            }
        }
    }
    if args.server.json {
        print_json(&answers)?;
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
