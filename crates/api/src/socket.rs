//! A client's connection, closed so that the last answer arrives.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};
use tokio_util::sync::CancellationToken;

/// A connection that lingers: once all is said, it stays with the client for a moment before it closes.
///
/// To close while the client still sends makes the kernel reset the connection, and a reset can overtake the answer: the
/// one that says why the client is not being listened to (413, 408). See RFC 9112, section 9.6.
pub(crate) struct Socket {
    stream: TcpStream,
    hurry: CancellationToken,
    farewell: Option<Farewell>,
}

/// What is left of a connection that was closed on this side.
struct Farewell {
    end: Pin<Box<Sleep>>,
    unread: usize,
}

/// The moment.
const LINGER: Duration = Duration::from_secs(1);
/// With hyper's read-ahead this keeps what is read of a body that is too long below the limit and 64 KiB.
const MAX_UNREAD: usize = 32 * 1024;

impl Socket {
    /// Takes a connection; once `hurry` fires it closes without lingering.
    pub(crate) fn new(stream: TcpStream, hurry: CancellationToken) -> Self {
        Self { stream, hurry, farewell: None }
    }
}

impl Farewell {
    fn poll(&mut self, stream: &mut TcpStream, context: &mut Context<'_>) -> Poll<()> {
        let mut scratch = [0; 4096];
        while self.end.as_mut().poll(context).is_pending() {
            // Enough was read; what is left of the time is for the client to read in.
            if self.unread == 0 {
                return Poll::Pending;
            }
            let mut buffer = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => self.unread = self.unread.saturating_sub(buffer.filled().len()),
                _ => break,
            }
        }
        Poll::Ready(())
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
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
        let farewell = this.farewell.get_or_insert_with(|| Farewell { end: Box::pin(sleep(LINGER)), unread: MAX_UNREAD });
        farewell.poll(&mut this.stream, context).map(Ok)
    }
}
