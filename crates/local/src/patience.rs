//! Reading and writing that ends when the other side does nothing for too long, or too little.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::BoxError;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep},
};

/// The least that the other side must send or take for each second that it is waited for in all, in
/// bytes: who sends a byte now and then would else keep a connection for weeks.
const LEAST_RATE: u64 = 4096;

/// A request's body whose next piece, or a connection whose next write, may take so long and no
/// longer, and all of them together so long and a second for each [`LEAST_RATE`] bytes. Only time in
/// which the other side is waited for counts. A connection may be read from for ever: while a
/// request is being answered, nothing comes.
#[derive(Debug)]
pub(crate) struct Patient<T> {
    inner: T,
    patience: Duration,
    /// How long the other side has been waited for before.
    waited: Duration,
    /// The bytes that it has sent or taken.
    moved: u64,
    /// Runs while the other side is waited for, since then.
    timer: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl<T: Unpin> Patient<T> {
    pub(crate) const fn new(inner: T, patience: Duration) -> Self {
        Self { inner, patience, waited: Duration::ZERO, moved: 0, timer: None }
    }

    /// What `poll` gives, or `None` when it has given nothing for too long.
    fn wait<R>(
        &mut self,
        context: &mut Context<'_>,
        poll: impl FnOnce(Pin<&mut T>, &mut Context<'_>) -> Poll<R>,
    ) -> Poll<Option<R>> {
        if let Poll::Ready(done) = poll(Pin::new(&mut self.inner), context) {
            if let Some((since, _)) = self.timer.take() {
                self.waited += since.elapsed();
            }
            return Poll::Ready(Some(done));
        }
        let earned = Duration::from_secs(self.moved / LEAST_RATE);
        let left = self.patience.saturating_add(earned).saturating_sub(self.waited);
        let patience = left.min(self.patience);
        let (_, timer) =
            self.timer.get_or_insert_with(|| (Instant::now(), Box::pin(sleep(patience))));
        ready!(timer.as_mut().poll(context));
        Poll::Ready(None)
    }

    /// What a write gives, counted.
    fn wrote(&mut self, wrote: Option<io::Result<usize>>) -> io::Result<usize> {
        let wrote = wrote.unwrap_or_else(|| Err(too_slow()));
        if let Ok(bytes) = wrote {
            self.moved += bytes as u64;
        }
        wrote
    }
}

fn too_slow() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the client does nothing, or too little")
}

impl<B> Body for Patient<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let frame = ready!(this.wait(context, B::poll_frame));
        if let Some(Some(Ok(frame))) = &frame {
            this.moved += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        Poll::Ready(match frame {
            Some(frame) => frame.map(|frame| frame.map_err(Into::into)),
            None => Some(Err(too_slow().into())),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl AsyncRead for Patient<TcpStream> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl AsyncWrite for Patient<TcpStream> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let wrote = ready!(this.wait(context, |inner, context| inner.poll_write(context, data)));
        Poll::Ready(this.wrote(wrote))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let wrote =
            ready!(this.wait(context, |inner, context| inner.poll_write_vectored(context, data)));
        Poll::Ready(this.wrote(wrote))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body as AnyBody;
    use futures::{StreamExt as _, stream};
    use http_body_util::BodyExt as _;

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(50);

    /// A body of such pieces, one each five milliseconds.
    fn paced(pieces: impl Iterator<Item = Bytes> + Send + 'static) -> Patient<AnyBody> {
        let pieces = stream::unfold(pieces, |mut pieces| async move {
            sleep(Duration::from_millis(5)).await;
            Some((Ok::<_, io::Error>(pieces.next()?), pieces))
        });
        Patient::new(AnyBody::from_stream(Box::pin(pieces)), PATIENCE)
    }

    #[tokio::test]
    async fn a_body_that_drips_is_given_up_and_one_that_is_only_slow_is_not() {
        let drop = Bytes::from_static(b"x");
        assert!(paced(std::iter::repeat(drop)).collect().await.is_err(), "it has no end");
        let second = Bytes::from_static(&[b'x'; LEAST_RATE as usize]);
        let slow = paced(std::iter::repeat_n(second.clone(), 20)).collect().await;
        assert_eq!(slow.expect("whole").to_bytes().len(), 20 * second.len());
    }

    #[tokio::test]
    async fn a_pause_is_no_longer_than_patience_however_much_came_before() {
        let much = Bytes::from_static(&[b'x'; 1 << 20]);
        let stops = stream::iter([Ok::<_, io::Error>(much)]).chain(stream::pending());
        let body = Patient::new(AnyBody::from_stream(stops), PATIENCE);
        assert!(body.collect().await.is_err());
    }
}
