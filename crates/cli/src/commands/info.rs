//! `stepwes info`: what a service is and what it runs.

use std::process::ExitCode;

use serde_json::Value;

use crate::{
    args::InfoArgs,
    client::Client,
    ui::{Colour, Style, print, print_json, printable},
};

/// Shows the service-info.
pub(crate) async fn info(args: InfoArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.server, None).await?;
    let info = client.service_info().await?;
    if args.server.json {
        print_json(&info)?;
        return Ok(ExitCode::SUCCESS);
    }
    let style = Style::of_stdout();
    let text = |value: &Value| printable(value.as_str().unwrap_or("-"));
    let mut shown =
        format!("{} {}\n", style.paint(Colour::Bold, &text(&info["name"])), text(&info["version"]));
    shown.push_str(&format!("  at {}\n", client.base()));
    for (title, key, inner) in [
        ("workflow types", "workflow_type_versions", "workflow_type_version"),
        ("engines", "workflow_engine_versions", "workflow_engine_version"),
    ] {
        shown.push_str(&format!("  {title}\n"));
        for (name, versions) in info[key].as_object().into_iter().flatten() {
            let versions: Vec<_> = versions[inner]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(printable)
                .collect();
            let versions =
                if versions.is_empty() { "not installed".to_owned() } else { versions.join(", ") };
            shown.push_str(&format!("    {} {versions}\n", printable(name)));
        }
    }
    shown.push_str("  runs\n");
    for (state, count) in info["system_state_counts"].as_object().into_iter().flatten() {
        if count.as_i64() != Some(0) {
            shown.push_str(&format!("    {} {count}\n", style.state(&printable(state))));
        }
    }
    print(&shown)?;
    Ok(ExitCode::SUCCESS)
}
