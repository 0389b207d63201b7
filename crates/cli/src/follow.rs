//! Following a log while it is written: byte ranges, so that each byte crosses the wire once.

use std::time::Duration;

use anyhow::Context as _;
use futures::TryStreamExt as _;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use crate::client::{Client, LogPiece};

/// How long to wait for more when there is nothing new.
const PAUSE: Duration = Duration::from_secs(1);

/// One log of one run, and how much of it has been seen.
#[derive(Debug)]
pub(crate) struct Follower<'a> {
    client: &'a Client,
    run_id: &'a str,
    stdout: bool,
    offset: u64,
}

impl<'a> Follower<'a> {
    /// The run's standard output or standard error from its beginning.
    pub(crate) const fn new(client: &'a Client, run_id: &'a str, stdout: bool) -> Self {
        Self { client, run_id, stdout, offset: 0 }
    }

    /// Writes what is new to `out`, once; gives how many bytes that was.
    pub(crate) async fn catch_up(
        &mut self,
        out: &mut (impl AsyncWrite + Unpin),
    ) -> anyhow::Result<u64> {
        let log = self.client.run(self.run_id).await?.run_log;
        let Some(url) = (if self.stdout { log.stdout } else { log.stderr }) else { return Ok(0) };
        let start = self.offset;
        // A live log is answered in pieces of bounded size.
        loop {
            let before = self.offset;
            if let LogPiece::Bytes(response) = self.client.log(&url, self.offset).await? {
                let mut chunks = response.bytes_stream();
                while let Some(chunk) =
                    chunks.try_next().await.map_err(reqwest::Error::without_url)?
                {
                    out.write_all(&chunk).await.context("the log cannot be written")?;
                    self.offset += chunk.len() as u64;
                }
            }
            out.flush().await.context("the log cannot be written")?;
            if self.offset == before {
                return Ok(self.offset - start);
            }
        }
    }

    /// Writes the log until the run has ended and nothing is left.
    pub(crate) async fn to_the_end(
        &mut self,
        out: &mut (impl AsyncWrite + Unpin),
    ) -> anyhow::Result<()> {
        loop {
            // The state first: what is written before the end is then seen by the last catch-up.
            let ended = self.client.state(self.run_id).await?.is_terminal();
            let new = self.catch_up(out).await?;
            if ended {
                return Ok(());
            }
            if new == 0 {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
