//! 接收校验: takes chunks from the data channels and gives what was checked.
//! The machine says before a body is read whether it is wanted; a body is hashed at its place, and only a
//! [`VerifiedChunk`] goes on to `stage`. A bad chunk is asked again. Nothing here is durable. How a chunk is read and
//! checked is said here also for whoever takes it in a consumer's place.

use crate::buffers::Buffers;
use crate::stage::Stage;
use bytes::Bytes;
use posthouse_platform::blocking::Blocking;
use posthouse_platform::endpoint::Reader;
use posthouse_protocol::chunk::{self, CHUNK_HEADER_BYTES, ChunkError, ChunkHeader, Form, Layout, VerifiedChunk};
use posthouse_protocol::consumer::{Consumer, Expected};
use posthouse_protocol::id::NodeId;
use posthouse_protocol::problem::{Code, Problem};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncRead, AsyncReadExt, BufReader};
use tokio::sync::{Semaphore, mpsc};

/// What comes from a data channel.
#[derive(Debug)]
pub enum Received {
    Chunk(VerifiedChunk),
    /// Its content was not what its header says.
    Bad(ChunkHeader),
    /// It was read and dropped: not wanted any more.
    Dropped,
    /// The channel ended; the transfer goes on over a new connection.
    Lost(Problem),
}

/// Shared by the data channels of one transfer.
#[derive(Clone)]
pub struct Receiving {
    pub machine: Arc<Mutex<Consumer>>,
    pub blocking: Arc<dyn Blocking>,
    pub provider: NodeId,
    pub buffers: Arc<Buffers>,
    /// Where deltas are put together with what is there.
    pub stage: Arc<Stage>,
    pub out: mpsc::Sender<Received>,
}

impl Receiving {
    /// Reads one data channel to its end, and says how it ended.
    pub async fn run(self, reader: Reader) {
        let mut reader = BufReader::with_capacity(BUFFER_BYTES, reader);
        let hashing = Arc::new(Semaphore::new(HASHING_MAX));
        let problem = loop {
            match self.next(&mut reader, &hashing).await {
                Ok(true) => {}
                Ok(false) => break self.lost("a data channel ended"),
                Err(problem) => break problem,
            }
        };
        // A receiver that is gone has stopped listening for good reason.
        let _ = self.out.send(Received::Lost(problem)).await;
    }

    async fn next(&self, reader: &mut BufReader<Reader>, hashing: &Arc<Semaphore>) -> Result<bool, Problem> {
        let Some(header) = next_header(reader, &self.provider).await? else { return Ok(false) };
        let expected = self.machine.lock().unwrap_or_else(PoisonError::into_inner).expect(&header)?;
        match expected {
            Expected::Take(layout) => {
                let body = read_body(reader, &header, &self.buffers, &self.provider).await?;
                self.verify(header, layout, body, hashing).await;
            }
            Expected::Skip => {
                drop_body(reader, &header, &self.provider).await?;
                let _ = self.out.send(Received::Dropped).await;
            }
        }
        Ok(true)
    }

    /// Long bodies are hashed on other threads, while the next one is read.
    async fn verify(&self, header: ChunkHeader, layout: Layout, body: Bytes, hashing: &Arc<Semaphore>) {
        let (buffers, stage) = (self.buffers.clone(), self.stage.clone());
        let check = move || {
            checked(&header, layout, body, &buffers, |delta, content| stage.put_together(&header, delta, content))
        };
        if header.bytes <= INLINE_BYTES && header.form != Form::Delta {
            let _ = self.out.send(received(header, check())).await;
            return;
        }
        let Ok(permit) = hashing.clone().acquire_owned().await else { return };
        let (blocking, out) = (self.blocking.clone(), self.out.clone());
        tokio::spawn(async move {
            let received = match blocking.run(check).await {
                Ok(checked) => received(header, checked),
                Err(panicked) => Received::Lost(Problem::new(Code::InsideFailed).cause(panicked)),
            };
            let _ = out.send(received).await;
            drop(permit);
        });
    }

    fn lost(&self, cause: impl std::fmt::Display) -> Problem {
        lost(&self.provider, cause)
    }
}

/// The header of the next chunk on a data channel; None where that has ended.
pub(crate) async fn next_header<R: AsyncRead + Unpin>(
    reader: &mut R,
    peer: &NodeId,
) -> Result<Option<ChunkHeader>, Problem> {
    let mut header = [0; CHUNK_HEADER_BYTES];
    let first = reader.read(&mut header).await.map_err(|e| lost(peer, e))?;
    if first == 0 {
        return Ok(None);
    }
    if let Some(rest) = header.get_mut(first..) {
        reader.read_exact(rest).await.map_err(|e| lost(peer, e))?;
    }
    let invalid = |e: ChunkError| Problem::new(Code::FrameInvalid).with("peer", peer).cause(e);
    ChunkHeader::decode(&header).map(Some).map_err(invalid)
}

/// What follows a header, as it came.
pub(crate) async fn read_body<R: AsyncRead + Unpin>(
    reader: &mut R,
    header: &ChunkHeader,
    buffers: &Buffers,
    peer: &NodeId,
) -> Result<Bytes, Problem> {
    let mut body = buffers.take(header.wire_bytes as usize);
    let mut rest = reader.take(u64::from(header.wire_bytes));
    while body.len() < header.wire_bytes as usize {
        if rest.read_buf(&mut body).await.map_err(|e| lost(peer, e))? == 0 {
            return Err(cut_short(peer));
        }
    }
    Ok(buffers.filled(body))
}

/// The same, where nobody wants it.
pub(crate) async fn drop_body<R: AsyncRead + Unpin>(
    reader: &mut R,
    header: &ChunkHeader,
    peer: &NodeId,
) -> Result<(), Problem> {
    let mut body = reader.take(u64::from(header.wire_bytes));
    let read = tokio::io::copy(&mut body, &mut tokio::io::sink()).await.map_err(|e| lost(peer, e))?;
    if read < u64::from(header.wire_bytes) { Err(cut_short(peer)) } else { Ok(()) }
}

/// What a body says, hashed at its place. `put_together` makes the content of a delta, with whatever is here of it.
pub(crate) fn checked(
    header: &ChunkHeader,
    layout: Layout,
    body: Bytes,
    buffers: &Buffers,
    put_together: impl FnOnce(&[u8], &mut [u8]) -> Result<(), ChunkError>,
) -> Result<VerifiedChunk, ChunkError> {
    if header.is_raw() {
        return VerifiedChunk::verify(header, layout, body);
    }
    // Either of these puts in all of it, or fails.
    let mut content = buffers.take_full(header.bytes as usize);
    match header.form {
        Form::Delta => put_together(&body[..], &mut content[..])?,
        Form::Plain | Form::Lz4 => chunk::unpack(header, &body, &mut content)?,
    }
    VerifiedChunk::verify(header, layout, buffers.filled(content))
}

fn cut_short(peer: &NodeId) -> Problem {
    lost(peer, io::Error::from(io::ErrorKind::UnexpectedEof))
}

fn lost(peer: &NodeId, cause: impl std::fmt::Display) -> Problem {
    Problem::new(Code::PeerUnreachable).with("peer", peer).cause(cause)
}

fn received(header: ChunkHeader, checked: Result<VerifiedChunk, ChunkError>) -> Received {
    match checked {
        Ok(chunk) => Received::Chunk(chunk),
        Err(error) if header.form == Form::Delta => {
            tracing::debug!(entry = header.entry, chunk = header.chunk, %error, "A delta does not fit what is here");
            Received::Bad(header)
        }
        Err(error) => {
            tracing::warn!(entry = header.entry, chunk = header.chunk, %error, "A bad chunk is asked again");
            Received::Bad(header)
        }
    }
}

/// For headers and small bodies; what is longer goes past it.
const BUFFER_BYTES: usize = 64 << 10;
/// Up to here a hash takes less time than handing it to another thread.
const INLINE_BYTES: u32 = 64 << 10;
/// Bodies of one channel that are hashed while the next is read.
const HASHING_MAX: usize = 2;
