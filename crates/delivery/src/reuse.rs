//! Detects that a request was lost with a reused connection and may be sent again on a new connection.
//!
//! A receiver may close an idle connection while a request is written to it (RFC 9112, section 9.3.1). The
//! sender then sees a reset or the end of the stream, and no byte of a response.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::task::{Context, Poll};

use http::{Extensions, Uri};
use hyper::rt::{Read, Write};
use hyper_util::client::legacy::connect::{CaptureConnection, Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tower_service::Service;

/// Counters of one connection.
#[derive(Debug, Default)]
struct Counters {
    /// Bytes read so far.
    read: AtomicU64,
    /// Responses that were read to their end.
    answers: AtomicU64,
    /// Requests that use the connection now.
    in_flight: AtomicU64,
}

/// State of a connection at the moment when the pool assigned it to a request.
///
/// hyper-util's pool clones the metadata of a connection when it assigns the connection to a request and
/// before it writes the request ([`CaptureConnection`]). The pool offers no other hook at that moment. So the
/// first clone takes a snapshot, and later clones share it.
#[derive(Debug)]
struct Checkout {
    counters: Arc<Counters>,
    snapshot: Option<Arc<Snapshot>>,
}

#[derive(Debug)]
struct Snapshot {
    counters: Arc<Counters>,
    read: u64,
    earlier_answers: u64,
    others_in_flight: u64,
}

impl Snapshot {
    fn take(counters: &Arc<Counters>) -> Self {
        Self {
            read: counters.read.load(SeqCst),
            earlier_answers: counters.answers.load(SeqCst),
            others_in_flight: counters.in_flight.fetch_add(1, SeqCst),
            counters: Arc::clone(counters),
        }
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        self.counters.in_flight.fetch_sub(1, SeqCst);
    }
}

impl Clone for Checkout {
    fn clone(&self) -> Self {
        let snapshot = self.snapshot.clone().unwrap_or_else(|| Arc::new(Snapshot::take(&self.counters)));
        Self { counters: Arc::clone(&self.counters), snapshot: Some(snapshot) }
    }
}

/// Records that a response with these extensions was read to its end.
pub(crate) fn note_answer(extensions: &Extensions) {
    if let Some(checkout) = extensions.get::<Checkout>() {
        checkout.counters.answers.fetch_add(1, SeqCst);
    }
}

/// Returns true if the receiver did not process the failed request, so it is safe to send the request again.
/// In HTTP/2, the receiver has then refused the stream, or has sent a GOAWAY that does not cover the stream
/// (RFC 9113, section 8.7).
pub(crate) fn is_unprocessed(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            let is_refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
            return error.is_remote() && (error.is_go_away() || is_refused);
        }
        next = error.source();
    }
    false
}

/// Returns true if the failed request used a connection that was idle after an earlier request, and no byte
/// was read from the connection after its assignment to the failed request.
pub(crate) fn is_lost_with_reused_connection(captured: &CaptureConnection) -> bool {
    let mut extensions = Extensions::new();
    let metadata = captured.connection_metadata();
    let Some(connected) = metadata.as_ref() else { return false };
    connected.get_extras(&mut extensions);
    let Some(Checkout { counters, snapshot: Some(snapshot) }) = extensions.get() else { return false };
    // HTTP/1 assigns a connection to one request at a time, so a reused connection was idle.
    let was_idle = !connected.is_negotiated_h2() || snapshot.others_in_flight == 0;
    snapshot.earlier_answers > 0 && was_idle && counters.read.load(SeqCst) == snapshot.read
}

/// A connector whose connections count bytes and responses.
#[derive(Clone)]
pub(crate) struct Counting<C>(pub(crate) C);

impl<C> Service<Uri> for Counting<C>
where
    C: Service<Uri>,
    C::Future: Send + 'static,
{
    type Response = TokioIo<Counted<C::Response>>;
    type Error = C::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, C::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), C::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.0.call(uri);
        Box::pin(async move {
            Ok(TokioIo::new(Counted { stream: TokioIo::new(connecting.await?), counters: Arc::default() }))
        })
    }
}

/// A stream that counts the bytes read from it. Under TLS, the stream counts only bytes of HTTP: an alert
/// that closes the connection does not count.
pub(crate) struct Counted<S> {
    /// A stream of tokio's type, whose buffers show how much was read.
    stream: TokioIo<S>,
    counters: Arc<Counters>,
}

impl<S: Connection> Connection for Counted<S> {
    fn connected(&self) -> Connected {
        self.stream
            .inner()
            .connected()
            .extra(Checkout { counters: Arc::clone(&self.counters), snapshot: None })
    }
}

impl<S: Read + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        let read = u64::try_from(buffer.filled().len() - before).unwrap_or(u64::MAX);
        self.counters.read.fetch_add(read, SeqCst);
        polled
    }
}

impl<S: Write + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }
}
