//! The control stream of a connection over TCP: proof of life both ways, questions for channels, the end.
//! Words: `1` ping; `2` pong; `3`, number (4): open a channel for me; `4`, code (2), length (1), reason.

use super::TcpConnection;
use super::channel::Tls;
use crate::endpoint::shared::{IDLE, KEEP_ALIVE};
use crate::network::within;
use std::io;
use std::sync::{Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Word {
    Ping,
    Pong,
    Open(u32),
    Close(u16, String),
}

/// Runs until either side closes or falls silent; then the connection and all its channels are closed.
pub(super) async fn run(
    connection: Weak<TcpConnection>,
    closed: CancellationToken,
    stream: Tls,
    mut words: mpsc::Receiver<Word>,
) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let pinged = Mutex::new(None);
    let result = tokio::select! { biased;
        () = closed.cancelled() => Ok(()),
        result = listen(&connection, &mut reader, &pinged) => result,
        result = speak(&connection, &mut writer, &mut words, &pinged) => result,
    };
    if let Err(error) = result {
        tracing::debug!(%error, "Control stream ended");
    }
    closed.cancel();
    // What was still to be said, in particular why it was closed.
    words.close();
    let goodbye = async {
        while let Ok(word) = words.try_recv() {
            write(&mut writer, &word).await?;
        }
        writer.shutdown().await
    };
    let _ = within(GOODBYE, goodbye).await;
}

async fn listen(
    connection: &Weak<TcpConnection>,
    reader: &mut ReadHalf<Tls>,
    pinged: &Mutex<Option<Duration>>,
) -> io::Result<()> {
    loop {
        let word = within(IDLE, read(reader)).await?;
        let Some(connection) = connection.upgrade() else { return Ok(()) };
        match word {
            // A queue that is full has other proof of life in it.
            Word::Ping => drop(connection.words.try_send(Word::Pong)),
            Word::Pong => {
                let sent = pinged.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(sent) = sent {
                    let took = connection.shared.world.clock.monotonic().saturating_sub(sent);
                    connection.note_round_trip(took);
                }
            }
            Word::Open(number) if connection.to.is_some() => {
                // Beyond the bound the question stays unanswered, which the asker's own bound forbids.
                let Ok(permit) = connection.room.clone().try_acquire_owned() else { continue };
                tokio::spawn(async move {
                    let Some(to) = &connection.to else { return };
                    let opened = tokio::select! { biased;
                        () = connection.closed.cancelled() => return,
                        opened = connection.dial_channel(to, number) => opened,
                    };
                    match opened {
                        Ok(stream) => drop(connection.arrived.try_send((stream, permit))),
                        Err(problem) => tracing::debug!(%problem, "Channel that was asked for could not be opened"),
                    }
                });
            }
            Word::Open(_) => return Err(io::Error::other("the dialler asked for a channel")),
            Word::Close(code, reason) => {
                tracing::debug!(code, reason, "Closed by the peer");
                *connection.told.lock().unwrap_or_else(PoisonError::into_inner) = Some((code, reason));
                return Ok(());
            }
        }
    }
}

async fn speak(
    connection: &Weak<TcpConnection>,
    writer: &mut WriteHalf<Tls>,
    words: &mut mpsc::Receiver<Word>,
    pinged: &Mutex<Option<Duration>>,
) -> io::Result<()> {
    let mut beat = tokio::time::interval(KEEP_ALIVE);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let word = tokio::select! { biased;
            _ = beat.tick() => {
                let Some(connection) = connection.upgrade() else { return Ok(()) };
                let now = connection.shared.world.clock.monotonic();
                pinged.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(now);
                Word::Ping
            }
            word = words.recv() => match word { Some(word) => word, None => return Ok(()) },
        };
        within(IDLE, write(writer, &word)).await?;
    }
}

async fn read(reader: &mut ReadHalf<Tls>) -> io::Result<Word> {
    match reader.read_u8().await? {
        1 => Ok(Word::Ping),
        2 => Ok(Word::Pong),
        3 => Ok(Word::Open(reader.read_u32().await?)),
        4 => {
            let code = reader.read_u16().await?;
            let mut reason = vec![0; usize::from(reader.read_u8().await?)];
            reader.read_exact(&mut reason).await?;
            Ok(Word::Close(code, String::from_utf8_lossy(&reason).into_owned()))
        }
        other => Err(io::Error::new(io::ErrorKind::InvalidData, format!("unknown control word {other}"))),
    }
}

async fn write(writer: &mut WriteHalf<Tls>, word: &Word) -> io::Result<()> {
    let mut out = Vec::new();
    match word {
        Word::Ping => out.push(1),
        Word::Pong => out.push(2),
        Word::Open(number) => {
            out.push(3);
            out.extend_from_slice(&number.to_be_bytes());
        }
        Word::Close(code, reason) => {
            let reason = reason.as_bytes().get(..usize::from(u8::MAX)).unwrap_or(reason.as_bytes());
            out.push(4);
            out.extend_from_slice(&code.to_be_bytes());
            out.push(u8::try_from(reason.len()).unwrap_or(u8::MAX));
            out.extend_from_slice(reason);
        }
    }
    writer.write_all(&out).await?;
    writer.flush().await
}

const GOODBYE: Duration = Duration::from_secs(1);
