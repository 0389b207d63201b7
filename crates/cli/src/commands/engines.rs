//! `stepwes engines`: which workflow engines this machine has, and how it gets them.

use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::json;

use crate::{
    args::{EnginesArgs, EnginesCommand, EnginesInstallArgs, EnginesPlace},
    engine_home::{self, EngineHome, Tools},
    ui::{print, print_json, say},
};

/// Lists or installs engines.
pub(crate) async fn engines(args: EnginesArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        Some(EnginesCommand::Install(install)) => self::install(install).await,
        None => list(args.place, args.json).await,
    }
}

async fn list(place: EnginesPlace, json: bool) -> anyhow::Result<ExitCode> {
    // In the order in which a server looks.
    let dir = place.dir.unwrap_or_else(|| ".stepwes".into());
    let of_server = engine_home::of_server(&dir).context("the folder has no absolute path")?;
    let first = [Some(of_server), engine_home::of_user()];
    let first = first.into_iter().flatten().map(|home| home.bin()).collect();
    let found = stepwes_local::find_engines(first).await;
    if json {
        let engines: Vec<_> = found
            .iter()
            .map(|one| {
                json!({
                    "name": one.known.name,
                    "workflow_type": one.known.workflow_type,
                    "program": one.program,
                    "version": one.version,
                })
            })
            .collect();
        print_json(&json!({ "engines": engines }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut shown = String::new();
    for one in &found {
        let (name, kind) = (one.known.name, one.known.workflow_type);
        let line = match (&one.program, &one.version) {
            (Some(program), version) => {
                let version = version.as_deref().unwrap_or("unknown version");
                format!("{kind:<4} {name:<10} {version:<20} {}", program.display())
            }
            (None, _) => format!("{kind:<4} {name:<10} not installed"),
        };
        shown.push_str(line.trim_end());
        shown.push('\n');
    }
    print(&shown)?;
    Ok(ExitCode::SUCCESS)
}

async fn install(args: EnginesInstallArgs) -> anyhow::Result<ExitCode> {
    let home = home(&args.place)?;
    let tools = Tools::new(args.python);
    let mut installed = Vec::new();
    for engine in args.engines {
        let (name, version) = (engine.name(), engine.version());
        if !args.json {
            say(&format!("{name} {version}: {} packages", engine.packages()));
        }
        let is_new = home
            .install(engine, &tools)
            .await
            .with_context(|| format!("{name} cannot be installed"))?;
        if !args.json {
            let what = if is_new { "installed" } else { "is there" };
            print(&format!("{name} {version} {what}, in {}\n", home.bin().display()))?;
        }
        installed.push(json!({"name": name, "version": version, "new": is_new}));
    }
    if args.json {
        print_json(&json!({"engines": installed, "bin": home.bin()}))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn home(place: &EnginesPlace) -> anyhow::Result<EngineHome> {
    match &place.dir {
        Some(dir) => engine_home::of_server(dir).context("the folder has no absolute path"),
        None => engine_home::of_user().context("there is no home; name a folder with --dir"),
    }
}
