//! `stepwes status`: one run.

use std::process::ExitCode;

use serde_json::Value;

use crate::{
    args::StatusArgs,
    client::{Client, RunView},
    ui::{Colour, Style, print, print_json, printable},
};

/// Shows a run: its state, times, request and reasons.
pub(crate) async fn status(args: StatusArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.server, None).await?;
    if args.server.json {
        print_json(&client.run_json(&args.run_id).await?)?;
        return Ok(ExitCode::SUCCESS);
    }
    print(&describe(&client.run(&args.run_id).await?, Style::of_stdout()))?;
    Ok(ExitCode::SUCCESS)
}

/// A run in words.
fn describe(run: &RunView, style: Style) -> String {
    let mut text = format!(
        "{} {}\n",
        style.state(&printable(&run.state.0)),
        style.paint(Colour::Dim, &printable(&run.run_id))
    );
    let mut line = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            text.push_str(&format!("  {name:<10} {value}\n"));
        }
    };
    let request =
        |name: &str| run.request[name].as_str().filter(|text| !text.is_empty()).map(printable);
    line("workflow", request("workflow_url"));
    line(
        "type",
        request("workflow_type")
            .map(|name| format!("{name} {}", request("workflow_type_version").unwrap_or_default())),
    );
    line("engine", request("workflow_engine"));
    let tags: Vec<_> = run.request["tags"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| {
            printable(&format!(
                "{name}={}",
                value.as_str().map_or_else(|| value.to_string(), str::to_owned)
            ))
        })
        .collect();
    line("tags", (!tags.is_empty()).then(|| tags.join(" ")));
    line("started", run.run_log.start_time.as_deref().map(printable));
    line("ended", run.run_log.end_time.as_deref().map(printable));
    line("exit code", run.run_log.exit_code.map(|code| code.to_string()));
    line(
        "command",
        run.run_log.cmd.as_ref().filter(|cmd| !cmd.is_empty()).map(|cmd| printable(&cmd.join(" "))),
    );
    for reason in run.run_log.system_logs.iter().flatten() {
        line("note", Some(printable(reason)));
    }
    if run.outputs.as_object().is_some_and(|outputs| !outputs.is_empty()) {
        let pretty =
            serde_json::to_string_pretty(&run.outputs).unwrap_or_else(|_| Value::Null.to_string());
        text.push_str("  outputs\n");
        for row in pretty.lines() {
            text.push_str(&format!("    {row}\n"));
        }
    }
    text
}
