//! Bodies that arrive: counted, limited, timed, and read to their end even when the answer is already on its way.

use crate::http::problem::Refusal;
use crate::limits::{BODY_IDLE_TIMEOUT, BODY_TIMEOUT};
use api::upload::UPLOAD_BODY_BYTES_MAX;
use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use prometheus::IntCounter;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Instant;

/// Longest a refused body is read to nowhere, so that the client can finish writing and see the answer.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(20);

/// Counts the bytes of a body, in either direction. One that is dropped before its end is read on in the background,
/// within bounds: closing a connection with unread bytes would destroy the answer under way to the client.
pub(crate) struct CountedBody {
    inner: Option<Body>,
    bytes: IntCounter,
    discard_rest: bool,
}

impl CountedBody {
    /// A request's body.
    pub(crate) fn received(body: Body, bytes: IntCounter) -> Self {
        CountedBody { inner: Some(body), bytes, discard_rest: true }
    }

    /// An answer's body.
    pub(crate) fn sent(body: Body, bytes: IntCounter) -> Self {
        CountedBody { inner: Some(body), bytes, discard_rest: false }
    }
}

impl hyper::body::Body for CountedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(inner) = self.inner.as_mut() else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(inner).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.bytes.inc_by(data.len() as u64);
                }
            }
            None | Some(Err(_)) => self.inner = None,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(hyper::body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), hyper::body::Body::size_hint)
    }
}

impl Drop for CountedBody {
    fn drop(&mut self) {
        let Some(mut rest) = self.inner.take() else { return };
        if !self.discard_rest || hyper::body::Body::is_end_stream(&rest) {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            let mut left = UPLOAD_BODY_BYTES_MAX;
            let discard = async {
                while let Some(Ok(frame)) = rest.frame().await {
                    left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
                    if left == 0 {
                        break;
                    }
                }
            };
            // Too long or too slow: the connection is closed instead.
            let _ = tokio::time::timeout(DISCARD_TIMEOUT, discard).await;
        });
    }
}

/// Reads a body piece by piece within its limits.
pub(crate) struct BodyReader {
    body: Body,
    bytes_left: usize,
    bytes_max: usize,
    deadline: Instant,
}

impl BodyReader {
    /// At most `bytes_max` bytes. A declared length above that is refused at once.
    pub(crate) fn new(body: Body, bytes_max: usize) -> Result<Self, Refusal> {
        let declared = hyper::body::Body::size_hint(&body).lower();
        let reader = BodyReader { body, bytes_left: bytes_max, bytes_max, deadline: Instant::now() + BODY_TIMEOUT };
        if declared > bytes_max as u64 { Err(reader.too_large()) } else { Ok(reader) }
    }

    fn too_large(&self) -> Refusal {
        Refusal::TooLarge(format!("the body is larger than the {} bytes allowed here", self.bytes_max))
    }

    /// The next piece, `None` at the end that the client declared.
    pub(crate) async fn next_piece(&mut self) -> Result<Option<Bytes>, Refusal> {
        let deadline = self.deadline.min(Instant::now() + BODY_IDLE_TIMEOUT);
        loop {
            let frame = tokio::time::timeout_at(deadline, self.body.frame())
                .await
                .map_err(|_| Refusal::TruncatedBody("the body came too slowly".into()))?;
            let Some(frame) = frame else { return Ok(None) };
            let frame = frame.map_err(|_| Refusal::TruncatedBody("the connection ended before the body did".into()))?;
            let Ok(data) = frame.into_data() else { continue };
            self.bytes_left = self.bytes_left.checked_sub(data.len()).ok_or_else(|| self.too_large())?;
            return Ok(Some(data));
        }
    }

    /// All of it.
    pub(crate) async fn read_all(mut self) -> Result<Vec<u8>, Refusal> {
        let mut bytes = Vec::new();
        while let Some(piece) = self.next_piece().await? {
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{StreamExt, stream};
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn pieces(count: usize, len: usize) -> impl futures_util::Stream<Item = Result<Bytes, Infallible>> {
        stream::iter((0..count).map(move |_| Ok(Bytes::from(vec![7; len]))))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_is_truncated() {
        let body = Body::from_stream(pieces(1, 10).chain(stream::pending()));
        let mut reader = BodyReader::new(body, 100).unwrap();
        assert_eq!(reader.next_piece().await.unwrap().unwrap().len(), 10);
        let started = Instant::now();
        assert!(matches!(reader.next_piece().await, Err(Refusal::TruncatedBody(_))));
        assert_eq!(started.elapsed().as_secs(), BODY_IDLE_TIMEOUT.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_trickles_has_an_end() {
        let trickle = pieces(1_000_000, 1).then(|piece| async {
            tokio::time::sleep(BODY_IDLE_TIMEOUT / 2).await;
            piece
        });
        let started = Instant::now();
        let reader = BodyReader::new(Body::from_stream(trickle), 1_000_000).unwrap();
        assert!(matches!(reader.read_all().await, Err(Refusal::TruncatedBody(_))));
        assert!(started.elapsed() <= BODY_TIMEOUT + BODY_IDLE_TIMEOUT);
    }

    #[tokio::test]
    async fn the_limit_is_exact() {
        let reader = BodyReader::new(Body::from_stream(pieces(10, 10)), 100).unwrap();
        assert_eq!(reader.read_all().await.unwrap().len(), 100);
        let reader = BodyReader::new(Body::from_stream(pieces(10, 10)), 99).unwrap();
        assert!(matches!(reader.read_all().await, Err(Refusal::TooLarge(_))));
        assert!(matches!(BodyReader::new(Body::from(vec![0; 100]), 99), Err(Refusal::TooLarge(_))));
    }

    #[tokio::test]
    async fn a_refused_body_is_read_to_its_end_within_bounds() {
        let read = Arc::new(AtomicUsize::new(0));
        let (done, mut finished) = tokio::sync::mpsc::channel::<()>(1);
        let counting = |count: usize, len: usize| {
            let (read, done) = (read.clone(), done.clone());
            Body::from_stream(pieces(count, len).map(move |piece| {
                let _held_until_dropped = &done;
                read.fetch_add(len, Ordering::Relaxed);
                piece
            }))
        };
        let counter = IntCounter::new("a", "a").unwrap();
        drop(CountedBody::received(counting(10, 1000), counter.clone()));
        drop(CountedBody::sent(counting(10, 1000), counter.clone()));
        drop(CountedBody::received(counting(1_000_000, 1 << 20), counter.clone()));
        drop(done);
        // Ends when every body has been dropped for good.
        assert_eq!(finished.recv().await, None);
        let expected = 10_000 + UPLOAD_BODY_BYTES_MAX;
        assert!((expected..=expected + (1 << 20)).contains(&read.load(Ordering::Relaxed)));
        assert_eq!(counter.get(), 0);
    }
}
