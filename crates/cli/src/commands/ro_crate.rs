//! `stepwes ro-crate`: a finished run as an RO-Crate.

use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::Value;
use stepwes_core::{
    ro_crate::{
        Detail, Files, METADATA, Provenance, attachment_path, log_path, metadata, output_path,
    },
    wes::{AttachmentEntry, OutputEntry, RunLog},
};

use crate::{
    archive::archive,
    args::RoCrateArgs,
    client::Client,
    commands::run::whole_outputs,
    download::{Item, download},
    ui::{bytes, print_json, say},
};

/// Shows a run's provenance, or writes it with the run's files.
pub(crate) async fn ro_crate(args: RoCrateArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.server, None).await?;
    let told = client.ro_crate(&args.run_id).await?;
    if args.dir.is_none() && args.zip.is_none() {
        print_json(&told)?;
        return Ok(ExitCode::SUCCESS);
    }
    let contents = Contents::of(&client, &args.run_id, &told).await?;
    let metadata = contents.metadata()?;
    let files = contents.files();
    let place = if let Some(dir) = &args.dir {
        download(&client, &files, dir).await?;
        let path = dir.join(METADATA);
        // Last: a folder that has it is a crate.
        tokio::fs::write(&path, metadata)
            .await
            .with_context(|| format!("{} cannot be written", path.display()))?;
        dir
    } else if let Some(zip) = &args.zip {
        archive(&client, vec![(METADATA.to_owned(), metadata.into())], &files, zip).await?;
        zip
    } else {
        return Ok(ExitCode::SUCCESS);
    };
    let total = files.iter().filter_map(|file| file.size).sum();
    say(&format!("{} files, {}, in {}", files.len() + 1, bytes(total), place.display()));
    Ok(ExitCode::SUCCESS)
}

/// What a crate is made of.
struct Contents {
    log: RunLog,
    tasks: Vec<stepwes_core::wes::TaskLog>,
    outputs: Vec<OutputEntry>,
    attachments: Vec<AttachmentEntry>,
}

impl Contents {
    /// Asks the server; `told` is the metadata that it makes itself.
    async fn of(client: &Client, run_id: &str, told: &Value) -> anyhow::Result<Self> {
        let whole = client.run(run_id).await?;
        let outputs = whole_outputs(client, &whole).await?;
        let mut log: RunLog = serde_json::from_value(client.run_json(run_id).await?)
            .context("the run is not as the service should tell of it")?;
        log.outputs = outputs;
        // The engine that was chosen, which a run tells only when it was asked for.
        let engine = told["@graph"]
            .as_array()
            .and_then(|entities| entities.iter().find(|entity| entity["@id"] == "#engine"))
            .and_then(|engine| engine["name"].as_str());
        log.request.workflow_engine = engine.map(str::to_owned).or(log.request.workflow_engine);
        Ok(Self {
            tasks: client.task_logs(run_id).await?,
            outputs: client.outputs(run_id).await?.unwrap_or_default(),
            attachments: client.attachments(run_id).await?,
            log,
        })
    }

    fn metadata(&self) -> anyhow::Result<Vec<u8>> {
        let run = Provenance {
            log: &self.log,
            tasks: &self.tasks,
            outputs: &self.outputs,
            attachments: &self.attachments,
        };
        let mut text = serde_json::to_vec_pretty(&metadata(run, Files::Attached, Detail::Full))?;
        text.push(b'\n');
        Ok(text)
    }

    /// The crate's files but for the metadata.
    fn files(&self) -> Vec<Item> {
        let attachments = self.attachments.iter().map(|file| {
            let item = Item::from(file);
            Item { path: attachment_path(&item.path), ..item }
        });
        let outputs = self.outputs.iter().map(|file| {
            let item = Item::from(file);
            Item { path: output_path(&item.path), ..item }
        });
        let log = &self.log.run_log;
        let logs = [("stdout", &log.stdout), ("stderr", &log.stderr)]
            .into_iter()
            .filter(|_| log.cmd.is_some())
            .filter_map(|(stream, url)| {
                let url = url.clone()?;
                Some(Item { path: log_path(stream), url, size: None, checksum: None })
            });
        attachments.chain(outputs).chain(logs).collect()
    }
}
