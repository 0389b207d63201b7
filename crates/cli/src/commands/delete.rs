//! `stepwes delete`: remove runs that have ended, for good.

use std::process::ExitCode;

use serde_json::json;

use crate::{
    args::DeleteArgs,
    client::Client,
    ui::{fail, print, print_json},
};

/// Deletes every run that it can. Fails when one could not be.
pub(crate) async fn delete(args: DeleteArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.server, None).await?;
    let mut failed = false;
    let mut answers = Vec::new();
    for run_id in &args.run_ids {
        match client.delete(run_id).await {
            Ok(()) if args.server.json => answers.push(json!({"run_id": run_id, "deleted": true})),
            Ok(()) => print(&format!("deleted {run_id}\n"))?,
            Err(error) => {
                failed = true;
                if args.server.json {
                    answers.push(json!({"run_id": run_id, "error": format!("{error:#}")}));
                }
                fail(&error.context(format!("run {run_id} cannot be deleted")));
            }
        }
    }
    if args.server.json {
        print_json(&answers)?;
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
