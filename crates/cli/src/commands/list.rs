//! `stepwes list`: runs, newest first.

use std::process::ExitCode;

use crate::{
    args::ListArgs,
    client::Client,
    ui::{print, print_json, table},
};

/// Lists the newest runs.
pub(crate) async fn list(args: ListArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.server, None).await?;
    let runs = client.list(args.limit, args.owner.as_deref()).await?;
    if args.server.json {
        print_json(&runs)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> = runs
        .iter()
        .map(|run| {
            let tags: Vec<_> = run
                .tags
                .iter()
                .map(|(name, value)| match value.as_str() {
                    Some(value) => format!("{name}={value}"),
                    None => format!("{name}={value}"),
                })
                .collect();
            let time = |time: &Option<String>| time.clone().unwrap_or_else(|| "-".to_owned());
            vec![
                run.run_id.clone(),
                run.state.0.clone(),
                time(&run.start_time),
                time(&run.end_time),
                tags.join(" "),
            ]
        })
        .collect();
    print(&table(&["RUN", "STATE", "STARTED", "ENDED", "TAGS"], &rows))?;
    Ok(ExitCode::SUCCESS)
}
