//! 接收校验: takes chunks from the data channels and gives what was checked.
//! The machine says before a body is read whether it is wanted; a body is hashed at its place, and only a
//! [`VerifiedChunk`] goes on to `stage`. A bad chunk is asked again. Nothing here is durable.

use crate::buffers::Buffers;
use crate::stage::Stage;
use bytes::Bytes;
use posthouse_platform::blocking::Blocking;
use posthouse_platform::endpoint::Reader;
use posthouse_protocol::chunk::{self, CHUNK_HEADER_BYTES, ChunkHeader, Form, Layout, VerifiedChunk};
use posthouse_protocol::consumer::{Consumer, Expected};
use posthouse_protocol::id::NodeId;
use posthouse_protocol::problem::{Code, Problem};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncReadExt, BufReader};
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
        let mut header = [0; CHUNK_HEADER_BYTES];
        let first = reader.read(&mut header).await.map_err(|e| self.lost(e))?;
        if first == 0 {
            return Ok(false);
        }
        if let Some(rest) = header.get_mut(first..) {
            reader.read_exact(rest).await.map_err(|e| self.lost(e))?;
        }
        let header = ChunkHeader::decode(&header).map_err(|e| self.invalid(e))?;
        let expected = self.machine.lock().unwrap_or_else(PoisonError::into_inner).expect(&header)?;
        match expected {
            Expected::Take(layout) => {
                let mut body = self.buffers.take(header.wire_bytes as usize);
                let mut rest = reader.take(u64::from(header.wire_bytes));
                while body.len() < header.wire_bytes as usize {
                    if rest.read_buf(&mut body).await.map_err(|e| self.lost(e))? == 0 {
                        return Err(self.lost(io::Error::from(io::ErrorKind::UnexpectedEof)));
                    }
                }
                self.verify(header, layout, self.buffers.filled(body), hashing).await;
            }
            Expected::Skip => {
                let mut body = reader.take(u64::from(header.wire_bytes));
                let read = tokio::io::copy(&mut body, &mut tokio::io::sink()).await.map_err(|e| self.lost(e))?;
                if read < u64::from(header.wire_bytes) {
                    return Err(self.lost(io::Error::from(io::ErrorKind::UnexpectedEof)));
                }
                let _ = self.out.send(Received::Dropped).await;
            }
        }
        Ok(true)
    }

    /// Long bodies are hashed on other threads, while the next one is read.
    async fn verify(&self, header: ChunkHeader, layout: Layout, body: Bytes, hashing: &Arc<Semaphore>) {
        let (buffers, stage) = (self.buffers.clone(), self.stage.clone());
        let check = move || {
            if header.is_raw() {
                return VerifiedChunk::verify(&header, layout, body);
            }
            // Either of these puts in all of it, or fails.
            let mut content = buffers.take_full(header.bytes as usize);
            match header.form {
                Form::Delta => stage.put_together(&header, &body, &mut content)?,
                Form::Plain | Form::Lz4 => chunk::unpack(&header, &body, &mut content)?,
            }
            VerifiedChunk::verify(&header, layout, buffers.filled(content))
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
        Problem::new(Code::PeerUnreachable).with("peer", &self.provider).cause(cause)
    }
    fn invalid(&self, cause: impl std::fmt::Display) -> Problem {
        Problem::new(Code::FrameInvalid).with("peer", &self.provider).cause(cause)
    }
}

fn received(header: ChunkHeader, checked: Result<VerifiedChunk, chunk::ChunkError>) -> Received {
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
