//! The life of a connection: greeting, TLS, login, then one request after another until it ends.

mod answer;
mod begin;
mod requests;

use crate::language::engine::Session;
use crate::line::Faulty;
use crate::server::Shared;
use crate::wire::packet::{self, ATTENTION, END, IGNORE, MESSAGE_MAX, Packet, RESET, RESET_KEEP, Writer};
use crate::wire::tokens;
use std::io::{Error, ErrorKind, Result};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};
use tokio::sync::{Notify, mpsc};

/// A line, encrypted or not.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}
type Boxed = Box<dyn Stream>;

pub(crate) async fn serve(line: Faulty, shared: Arc<Shared>, spid: u16) -> Result<()> {
    let Some((stream, session, size)) = begin::begin(line, &shared, spid).await? else { return Ok(()) };
    let (reading, writing) = tokio::io::split(stream);
    let (packets, incoming) = mpsc::channel(64);
    let closed = Arc::new(Notify::new());
    let cancelled = Arc::clone(&session.cancelled);
    let reader = tokio::spawn(take_packets(reading, packets, Arc::clone(&closed), cancelled));
    let mut writer = Writer::new(writing, spid);
    writer.size = size;
    let served = Serving { shared, session: Some(session), incoming, writer, closed }.run().await;
    reader.abort();
    served
}

/// Reads ahead of what is served, so that a call to stop is heard while an answer is on its way.
async fn take_packets(
    mut reading: ReadHalf<Boxed>,
    packets: mpsc::Sender<Packet>,
    closed: Arc<Notify>,
    cancelled: Arc<std::sync::atomic::AtomicBool>,
) {
    while let Ok(Some(packet)) = packet::read(&mut reading).await {
        if packet.kind == ATTENTION {
            cancelled.store(true, Ordering::Release);
        }
        if packets.send(packet).await.is_err() {
            return;
        }
    }
    cancelled.store(true, Ordering::Release);
    closed.notify_one();
}

struct Serving {
    shared: Arc<Shared>,
    session: Option<Session>,
    incoming: mpsc::Receiver<Packet>,
    writer: Writer<WriteHalf<Boxed>>,
    closed: Arc<Notify>,
}

impl Serving {
    async fn run(mut self) -> Result<()> {
        while let Some(message) = self.message().await? {
            if message.kind == ATTENTION {
                self.heard_attention().await?;
                continue;
            }
            if message.status & (RESET | RESET_KEEP) != 0
                && let Some(session) = self.session.as_mut()
            {
                session.reset();
                let mut out = Vec::new();
                tokens::reset(&mut out);
                self.writer.write(&out).await?;
            }
            if !self.request(message).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The next message, its packets put together; none at the end.
    async fn message(&mut self) -> Result<Option<Packet>> {
        let Some(mut message) = self.incoming.recv().await else { return Ok(None) };
        while message.status & END == 0 {
            let Some(next) = self.incoming.recv().await else { return Ok(None) };
            if next.kind == ATTENTION {
                // The request was called off before it was whole.
                return Ok(Some(next));
            }
            if next.kind != message.kind {
                return Err(Error::new(ErrorKind::InvalidData, "packets of one message differ in kind"));
            }
            if message.body.len() + next.body.len() > MESSAGE_MAX {
                return Err(Error::new(ErrorKind::InvalidData, "a message is too long"));
            }
            message.body.extend_from_slice(&next.body);
            message.status |= next.status;
        }
        if message.status & IGNORE != 0 {
            return Err(Error::new(ErrorKind::InvalidData, "a message that is to be ignored is not known here"));
        }
        Ok(Some(message))
    }

    async fn heard_attention(&mut self) -> Result<()> {
        if let Some(session) = &self.session {
            session.cancelled.store(false, Ordering::Release);
        }
        let mut out = Vec::new();
        tokens::done(&mut out, tokens::DONE, tokens::CALLED_OFF, 0, 0);
        self.writer.write(&out).await?;
        self.writer.end().await
    }

    /// Serves one request; false when the connection is to end.
    async fn request(&mut self, message: Packet) -> Result<bool> {
        let Some(mut session) = self.session.take() else { return Ok(false) };
        let cancelled = Arc::clone(&session.cancelled);
        let (bytes, mut made) = mpsc::channel::<Vec<u8>>(16);
        let strict = self.shared.options.strict_char;
        let running = tokio::task::spawn_blocking(move || {
            let goes_on = requests::run(&mut session, &message, strict, bytes);
            (session, goes_on)
        });
        let mut written = Ok(());
        loop {
            let part = tokio::select! {
                biased;
                () = self.closed.notified() => {
                    written = Err(Error::new(ErrorKind::ConnectionReset, "the client is gone"));
                    break;
                }
                part = made.recv() => part,
            };
            let Some(part) = part else { break };
            let sent = tokio::select! {
                biased;
                () = self.closed.notified() => Err(Error::new(ErrorKind::ConnectionReset, "the client is gone")),
                sent = self.writer.write(&part) => sent,
            };
            if sent.is_err() {
                cancelled.store(true, Ordering::Release);
                written = sent;
                break;
            }
        }
        drop(made);
        let (session, goes_on) = running.await.map_err(Error::other)?;
        let cut = session.cut;
        self.session = Some(session);
        written?;
        if cut {
            return Ok(false);
        }
        if cancelled.load(Ordering::Acquire) {
            // The answer was left where it stood: what remains is to say that it was heard.
            while let Some(packet) = self.incoming.recv().await {
                if packet.kind == ATTENTION {
                    self.heard_attention().await?;
                    return Ok(goes_on);
                }
            }
            return Ok(false);
        }
        tokio::select! {
            biased;
            () = self.closed.notified() => Ok(false),
            ended = self.writer.end() => ended.map(|()| goes_on),
        }
    }
}
