//! `stepwes submit`: start a run and print its id.

use std::process::ExitCode;

use serde_json::json;

use crate::{
    args::SubmitArgs,
    client::Client,
    ui::{print, print_json},
    workflow::Submission,
};

/// Submits a workflow.
pub(crate) async fn submit(args: SubmitArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.server, None).await?;
    let submission = Submission::read(&args.workflow)?;
    let run_id = client.submit(&submission).await?;
    if args.server.json {
        print_json(&json!({"run_id": run_id}))?;
    } else {
        print(&format!("{run_id}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}
