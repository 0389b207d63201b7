//! Following a log while it is written: byte ranges, so that each byte crosses the wire once.

use std::time::Duration;

use anyhow::Context as _;
use futures::TryStreamExt as _;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use crate::{
    client::{Client, LogPiece},
    ui,
};

/// How long to wait for more when there is nothing new, and after an answer that broke off.
const PAUSE: Duration = Duration::from_secs(1);

/// How many answers may break off while one log is caught up with.
const BROKEN_ANSWERS: u32 = 10;

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
        let mut written = 0;
        let mut broken = 0;
        // A live log is answered in pieces of bounded size.
        loop {
            let (response, whole) = match self.client.log(&url, self.offset).await? {
                LogPiece::Bytes(response) => (response, false),
                LogPiece::Whole(response) => (response, true),
                LogPiece::Nothing => return Ok(written),
                LogPiece::Shorter => {
                    self.start_again();
                    continue;
                }
            };
            let before = written;
            let mut known = if whole { self.offset } else { 0 };
            let mut chunks = response.bytes_stream();
            let end = loop {
                match chunks.try_next().await {
                    Ok(Some(chunk)) => {
                        let skipped = known.min(chunk.len() as u64);
                        known -= skipped;
                        let new = chunk.slice(usize::try_from(skipped)?..);
                        out.write_all(&new).await.map_err(ui::unwritable)?;
                        self.offset += new.len() as u64;
                        written += new.len() as u64;
                    }
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error.without_url()),
                }
            };
            out.flush().await.map_err(ui::unwritable)?;
            match end {
                Err(error) if broken == BROKEN_ANSWERS => {
                    return Err(error).context("the log cannot be read");
                }
                Err(_) => {
                    broken += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                Ok(()) if known > 0 => self.start_again(),
                Ok(()) if whole || written == before => return Ok(written),
                Ok(()) => {}
            }
        }
    }

    /// The log is shorter than what has been shown: the engine was started again, and this is its
    /// new log.
    fn start_again(&mut self) {
        ui::say("the log starts again: the engine was started once more");
        self.offset = 0;
    }

    /// Writes the log until the run has ended and nothing is left.
    pub(crate) async fn until_the_end(
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
