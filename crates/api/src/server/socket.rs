//! Connection of a client. Writes have a time limit, and a close lets the last response arrive.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};
use tokio_util::sync::CancellationToken;

use crate::server::limits::Limits;
use crate::server::metrics::ConnectionMetrics;

/// Connection whose writes have a time limit, and which lingers when the server closes it.
///
/// *Time limit*: while a write is pending, the client must read [`MIN_PROGRESS`] bytes, or all pending bytes,
/// within [`Limits::write`]. Otherwise the server resets the connection. Hyper reads no further request
/// during a pending write. So a client that never reads its responses cannot fill the server's memory.
///
/// *Lingering*: after the last response, the connection stays open for up to [`LINGER`] and reads what the
/// client still sends. If the server closed the connection at once, the kernel would reset it. The client
/// could then lose the response that states the error (413, 408). See RFC 9112, section 9.6.
pub(crate) struct Socket<S> {
    stream: S,
    hurry: CancellationToken,
    write: WriteDeadline,
    metrics: Arc<ConnectionMetrics>,
    farewell: Option<Linger>,
}

/// Stream that can be closed with a reset.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Unpin {
    /// Makes the next close a reset (RST), which also drops the bytes that the kernel still holds for the
    /// client.
    fn reset_on_close(&self);
}

impl Transport for TcpStream {
    fn reset_on_close(&self) {
        if let Err(error) = self.set_zero_linger() {
            tracing::debug!(%error, "SO_LINGER could not be set; the connection closes without a reset");
        }
    }
}

/// Minimum number of bytes that a client must read within [`Limits::write`] during a pending write: about
/// 1 KiB/s with the default of 15 s. If any byte counted as progress, a client could keep a connection for
/// hours.
const MIN_PROGRESS: usize = 16 * 1024;

/// Time limit of pending writes.
struct WriteDeadline {
    limit: Duration,
    /// Timer that starts when a write is first pending. The timer ends when [`MIN_PROGRESS`] bytes or all
    /// pending bytes are written.
    timer: Option<Pin<Box<Sleep>>>,
    /// Number of bytes written since the timer was started.
    progress: usize,
}

impl WriteDeadline {
    fn new(limit: Duration) -> Self {
        Self { limit, timer: None, progress: 0 }
    }

    /// Returns the result of a write, or an error if the write is still pending after its time limit.
    fn check(
        &mut self,
        written: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = written {
            self.progress += count;
            if self.progress >= MIN_PROGRESS {
                self.disarm();
            }
        }
        if written.is_pending() {
            let timer = self.timer.get_or_insert_with(|| {
                self.progress = 0;
                Box::pin(sleep(self.limit))
            });
            ready!(timer.as_mut().poll(context));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        written
    }

    fn disarm(&mut self) {
        self.timer = None;
        self.progress = 0;
    }
}

/// Lingering state of a connection that the server has closed.
struct Linger {
    end: Pin<Box<Sleep>>,
    unread: usize,
}

/// Maximum time that a closed connection lingers.
const LINGER: Duration = Duration::from_secs(1);
/// Maximum number of bytes that a lingering connection reads. With hyper's read-ahead, the server reads at
/// most 64 KiB of a body beyond the size limit.
const MAX_UNREAD: usize = 32 * 1024;

impl<S: Transport> Socket<S> {
    /// Wraps a connection. Once `hurry` fires, the connection closes without lingering.
    pub(crate) fn new(stream: S, hurry: CancellationToken, limits: &Limits) -> Self {
        let (write, metrics) = (WriteDeadline::new(limits.write), Arc::clone(&limits.metrics));
        Self { stream, hurry, write, metrics, farewell: None }
    }

    fn check(
        &mut self,
        written: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let checked = self.write.check(written, context);
        self.note_timeout(&checked);
        checked
    }

    /// Counts a write timeout. If the kernel has buffered the whole response, the kernel's timeout
    /// (`TCP_USER_TIMEOUT`) appears here as an error of the next read or write.
    fn note_timeout<T>(&self, outcome: &Poll<io::Result<T>>) {
        if let Poll::Ready(Err(error)) = outcome
            && error.kind() == io::ErrorKind::TimedOut
        {
            self.stream.reset_on_close();
            self.metrics.count_write_timeout();
        }
    }
}

impl Linger {
    fn poll<S: AsyncRead + Unpin>(&mut self, stream: &mut S, context: &mut Context<'_>) -> Poll<()> {
        let mut scratch = [0; 4096];
        while self.end.as_mut().poll(context).is_pending() {
            // Reading stops at the limit. The connection stays open, so that the client can read the
            // response.
            if self.unread == 0 {
                return Poll::Pending;
            }
            let mut buffer = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {
                    self.unread = self.unread.saturating_sub(buffer.filled().len());
                }
                _ => break,
            }
        }
        Poll::Ready(())
    }
}

impl<S: Transport> AsyncRead for Socket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.note_timeout(&read);
        read
    }
}

impl<S: Transport> AsyncWrite for Socket<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.check(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.check(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Ends the time limit of the write. Hyper calls this function after it has written everything.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write.disarm();
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.farewell.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
        }
        if this.hurry.is_cancelled() {
            return Poll::Ready(Ok(()));
        }
        let farewell =
            this.farewell.get_or_insert_with(|| Linger { end: Box::pin(sleep(LINGER)), unread: MAX_UNREAD });
        farewell.poll(&mut this.stream, context).map(Ok)
    }
}
