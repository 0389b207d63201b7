//! `stepwes outputs`: list or download output files.

use std::process::ExitCode;

use crate::{
    archive::archive,
    args::OutputsArgs,
    client::Client,
    download::{Item, download},
    ui::{bytes, hint, print, print_json, say, table},
};

/// Lists a run's output files, or downloads them: into a folder, or as one archive.
pub(crate) async fn outputs(args: OutputsArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.server, None).await?;
    let Some(files) = client.outputs(&args.run_id).await? else {
        // Whether it is the run that is unknown.
        client.state(&args.run_id).await?;
        return Err(hint(
            "the server does not list output files",
            format!("`stepwes status {}` shows the run's outputs", args.run_id),
        ));
    };
    let items: Vec<_> = files.iter().map(Item::from).collect();
    if let Some(folder) = &args.download {
        download(&client, &items, folder).await?;
    }
    if let Some(zip) = &args.zip {
        archive(&client, Vec::new(), &items, zip).await?;
    }
    let place = args.download.as_ref().or(args.zip.as_ref());
    if let Some(place) = place {
        let total: u64 = files.iter().map(|file| file.size).sum();
        say(&format!("{} files, {}, in {}", files.len(), bytes(total), place.display()));
    }
    if args.server.json {
        print_json(&files)?;
    } else if place.is_none() {
        let rows: Vec<_> = files
            .iter()
            .map(|file| vec![file.path.clone(), bytes(file.size), file.location.clone()])
            .collect();
        print(&table(&["PATH", "SIZE", "LOCATION"], &rows))?;
    }
    Ok(ExitCode::SUCCESS)
}
