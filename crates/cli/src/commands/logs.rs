//! `stepwes logs`: what the engine wrote, byte for byte.

use std::process::ExitCode;

use crate::{args::LogsArgs, client::Client, follow::Follower, ui::print_json};

/// Prints a run's log; follows it with `-f`.
pub(crate) async fn logs(args: LogsArgs) -> anyhow::Result<ExitCode> {
    let mut client = Client::new(&args.server, None).await?;
    if args.follow {
        // A wrong URL or run is said at once; only then it is worth to be patient.
        client.state(&args.run_id).await?;
        client = client.patient();
    }
    let mut follower = Follower::new(&client, &args.run_id, args.stdout);
    if args.server.json {
        let mut text = Vec::new();
        if args.follow {
            follower.until_the_end(&mut text).await?;
        } else {
            follower.catch_up(&mut text).await?;
        }
        let stream = if args.stdout { "stdout" } else { "stderr" };
        print_json(
            &serde_json::json!({"run_id": args.run_id, stream: String::from_utf8_lossy(&text)}),
        )?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = tokio::io::stdout();
    if args.follow {
        follower.until_the_end(&mut out).await?;
    } else {
        follower.catch_up(&mut out).await?;
    }
    Ok(ExitCode::SUCCESS)
}
