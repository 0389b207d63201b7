//! Fills the table of a server's folder with runs that have ended, for measuring:
//! `seed FOLDER NUMBER`. No server may use the folder meanwhile.

use std::{path::PathBuf, sync::Arc, time::Instant};

use anyhow::Context as _;
use aws_sdk_dynamodb::{
    Client, Config,
    config::{BehaviorVersion, Credentials, Region},
};
use chrono::{DateTime, TimeDelta, Utc};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use stepwes_core::{
    Clock, IdGenerator as _, RandomIds, SystemClock, resources::Resources, run::RequestSummary,
    run_state::RunEvent,
};
use stepwes_store::{NewRun, RunStore};

/// How many runs are written at once, and how many such writes are under way.
const AT_ONCE: usize = 1000;
const WRITERS: usize = 4;

/// Of so many runs one fails.
const ONE_FAILS_OF: usize = 50;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(folder), Some(number)) = (args.next(), args.next()) else {
        anyhow::bail!("seed FOLDER NUMBER")
    };
    let number: usize = number.parse().context("NUMBER is no number")?;
    let folder = PathBuf::from(folder);
    std::fs::create_dir_all(&folder)?;
    let file = folder.join("dynamodb.sqlite");
    let database = dynoxide::Database::new(file.to_str().context("the folder is not UTF-8")?)?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(dynoxide::server::serve_on(listener, database));
    let client = Client::from_conf(
        Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .endpoint_url(url)
            .credentials_provider(Credentials::new("nobody", "nothing", None, None, "seed"))
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .build(),
    );
    let store = RunStore::new(client, "stepwes", Arc::new(SystemClock));
    store.create_table().await?;

    // A run every ten seconds until yesterday.
    let first =
        SystemClock.now() - TimeDelta::days(1) - TimeDelta::seconds(10) * i32::try_from(number)?;
    let begun = Instant::now();
    let some = (0..number.div_ceil(AT_ONCE)).map(|part| {
        let store = store.clone();
        async move {
            let runs = part * AT_ONCE..number.min((part + 1) * AT_ONCE);
            let (failed, good): (Vec<_>, Vec<_>) =
                runs.map(|n| (n, new(n, first))).partition(|(n, _)| n % ONE_FAILS_OF == 0);
            let only = |runs: Vec<(usize, NewRun)>| {
                runs.into_iter().map(|(_, run)| run).collect::<Vec<_>>()
            };
            let attempt = 1;
            let started = [RunEvent::Initialize, RunEvent::Run { attempt }];
            store
                .seed(&only(good), &[started[0], started[1], RunEvent::Complete { attempt }])
                .await?;
            store
                .seed(&only(failed), &[started[0], started[1], RunEvent::ExecutorError { attempt }])
                .await?;
            anyhow::Ok(part)
        }
    });
    let mut done = stream::iter(some).buffer_unordered(WRITERS);
    let mut parts = 0;
    while let Some(_part) = done.try_next().await? {
        parts += 1;
        if parts % 50 == 0 {
            println!("{} runs in {:.0} s", parts * AT_ONCE, begun.elapsed().as_secs_f64());
        }
    }
    println!("{number} runs in {:.0} s", begun.elapsed().as_secs_f64());
    Ok(())
}

fn new(n: usize, first: DateTime<Utc>) -> NewRun {
    let seconds = TimeDelta::seconds(10) * i32::try_from(n).unwrap_or(i32::MAX);
    NewRun {
        run_id: RandomIds.run_id(first + seconds),
        owner: "anonymous".to_owned(),
        summary: RequestSummary {
            workflow_type: if n.is_multiple_of(10) { "WDL" } else { "CWL" }.to_owned(),
            workflow_type_version: "v1.2".to_owned(),
            workflow_engine: "cwltool".to_owned(),
            workflow_url: "workflow.cwl".to_owned(),
            tags: [
                ("project".to_owned(), format!("p{}", n % 20)),
                ("sample".to_owned(), format!("s{n:07}")),
            ]
            .into(),
        },
        resources: Resources::default(),
        destination: None,
        idempotency: None,
        trace: None,
        waits: false,
    }
}
