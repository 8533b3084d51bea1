//! One TCP connection as the SSH library sees it: buffered for reading, counted, and cut from outside whenever we want,
//! also while the library waits for a peer that does not read.

use crate::observer::EndReason;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::TcpStream;

/// SSH packets of requests are some 80 bytes; without a buffer each costs two calls of the system.
const READ_BUFFER_BYTES: usize = 32 * 1024;
/// A write of less than this is no progress: keep-alives and the like.
const PROGRESS_BYTES_MIN: usize = 512;

/// What is known of a connection, shared by all who deal with it.
pub(crate) struct Line {
    since: Instant,
    received: AtomicU64,
    sent: AtomicU64,
    /// Milliseconds after `since`.
    last_moved: AtomicU64,
    cut: AtomicBool,
    reason: Mutex<Option<EndReason>>,
    readers: AtomicWaker,
    writers: AtomicWaker,
    /// Files and commands under way.
    pub(crate) busy: AtomicUsize,
    /// Memory held by replies that wait.
    pub(crate) output_bytes: Arc<AtomicUsize>,
}

impl Line {
    pub(crate) fn new() -> Arc<Line> {
        Arc::new(Line {
            since: Instant::now(),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            last_moved: AtomicU64::new(0),
            cut: AtomicBool::new(false),
            reason: Mutex::new(None),
            readers: AtomicWaker::new(),
            writers: AtomicWaker::new(),
            busy: AtomicUsize::new(0),
            output_bytes: Arc::default(),
        })
    }

    /// Ends the connection at once. The first reason stays.
    pub(crate) fn cut(&self, reason: EndReason) {
        self.because(reason);
        self.cut.store(true, Ordering::SeqCst);
        self.readers.wake();
        self.writers.wake();
    }

    /// Says why the connection ends, which it does by other means.
    pub(crate) fn because(&self, reason: EndReason) {
        self.reason.lock().get_or_insert(reason);
    }

    /// Why it was ended, if we did it.
    pub(crate) fn reason(&self) -> Option<EndReason> {
        *self.reason.lock()
    }

    /// Something of use came or went.
    pub(crate) fn moved(&self) {
        self.last_moved.store(self.since.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// For how long nothing moved.
    pub(crate) fn still_for(&self) -> Duration {
        self.since.elapsed().saturating_sub(Duration::from_millis(self.last_moved.load(Ordering::Relaxed)))
    }

    /// Since the connection was made.
    pub(crate) fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// Encrypted bytes from the client.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Encrypted bytes to the client.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    fn check(&self) -> io::Result<()> {
        if self.cut.load(Ordering::SeqCst) { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }
}

/// The stream handed to the SSH library.
pub(crate) struct GuardedStream {
    inner: BufReader<TcpStream>,
    line: Arc<Line>,
    /// Added to as bytes go out, for the whole gateway.
    total_sent: Arc<AtomicU64>,
}

impl GuardedStream {
    pub(crate) fn new(stream: TcpStream, line: Arc<Line>, total_sent: Arc<AtomicU64>) -> GuardedStream {
        GuardedStream { inner: BufReader::with_capacity(READ_BUFFER_BYTES, stream), line, total_sent }
    }
}

impl AsyncRead for GuardedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.line.readers.register(context.waker());
        self.line.check()?;
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        self.line.received.fetch_add((buffer.filled().len() - before) as u64, Ordering::Relaxed);
        read
    }
}

impl AsyncWrite for GuardedStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.line.writers.register(context.waker());
        self.line.check()?;
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        if let Poll::Ready(Ok(count)) = written {
            self.line.sent.fetch_add(count as u64, Ordering::Relaxed);
            self.total_sent.fetch_add(count as u64, Ordering::Relaxed);
            if count >= PROGRESS_BYTES_MIN {
                self.line.moved();
            }
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
