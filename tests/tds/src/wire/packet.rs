//! Packets, and messages of several.

use std::io::{Error, ErrorKind, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

pub const HEADER: usize = 8;
/// Of a message; far beyond what any test sends.
pub const MESSAGE_MAX: usize = 1 << 30;

pub const BATCH: u8 = 1;
pub const CALL: u8 = 3;
pub const REPLY: u8 = 4;
pub const ATTENTION: u8 = 6;
pub const BULK: u8 = 7;
pub const TRANSACTION: u8 = 14;
pub const LOGIN: u8 = 16;
pub const PRELOGIN: u8 = 18;

pub const END: u8 = 0x01;
pub const IGNORE: u8 = 0x02;
pub const RESET: u8 = 0x08;
pub const RESET_KEEP: u8 = 0x10;

#[derive(Clone, Debug)]
pub struct Packet {
    pub kind: u8,
    pub status: u8,
    pub body: Vec<u8>,
}

/// None at the end of the connection, if it comes between packets.
pub async fn read(line: &mut (impl AsyncRead + Unpin)) -> Result<Option<Packet>> {
    let mut header = [0; HEADER];
    let mut have = 0;
    while have < HEADER {
        let came = line.read(header.get_mut(have..).unwrap_or_default()).await?;
        if came == 0 {
            return if have == 0 { Ok(None) } else { Err(Error::new(ErrorKind::UnexpectedEof, "half a packet")) };
        }
        have += came;
    }
    let [kind, status, high, low, ..] = header;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let Some(length) = length.checked_sub(HEADER) else {
        return Err(Error::new(ErrorKind::InvalidData, "a packet is shorter than its header"));
    };
    let mut body = vec![0; length];
    line.read_exact(&mut body).await?;
    Ok(Some(Packet { kind, status, body }))
}

/// A whole message, for the greeting and the login.
pub async fn read_message(line: &mut (impl AsyncRead + Unpin)) -> Result<Option<Packet>> {
    let Some(mut message) = read(line).await? else { return Ok(None) };
    while message.status & END == 0 {
        let Some(next) = read(line).await? else {
            return Err(Error::new(ErrorKind::UnexpectedEof, "half a message"));
        };
        if next.kind != message.kind || message.body.len() + next.body.len() > MESSAGE_MAX {
            return Err(Error::new(ErrorKind::InvalidData, "packets of one message differ"));
        }
        message.body.extend(next.body);
        message.status = next.status;
    }
    Ok(Some(message))
}

/// What goes out, in packets of the size that was agreed.
pub struct Writer<W> {
    line: W,
    pub size: usize,
    kind: u8,
    spid: u16,
    number: u8,
    buffer: Vec<u8>,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    pub fn new(line: W, spid: u16) -> Self {
        Writer { line, size: 4096, kind: REPLY, spid, number: 1, buffer: Vec::new() }
    }

    pub fn into_line(self) -> W {
        self.line
    }

    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.buffer.extend_from_slice(bytes);
        let room = self.size - HEADER;
        while self.buffer.len() > room {
            let rest = self.buffer.split_off(room);
            let body = std::mem::replace(&mut self.buffer, rest);
            self.packet(&body, 0).await?;
        }
        Ok(())
    }

    /// Ends the message.
    pub async fn end(&mut self) -> Result<()> {
        let body = std::mem::take(&mut self.buffer);
        self.packet(&body, END).await?;
        self.number = 1;
        self.line.flush().await
    }

    async fn packet(&mut self, body: &[u8], status: u8) -> Result<()> {
        let mut packet = header(self.kind, status, body.len(), self.spid, self.number).to_vec();
        packet.extend_from_slice(body);
        self.number = self.number.wrapping_add(1);
        self.line.write_all(&packet).await
    }
}

pub fn header(kind: u8, status: u8, length: usize, spid: u16, number: u8) -> [u8; HEADER] {
    let [high, low] = u16::try_from(length + HEADER).unwrap_or(u16::MAX).to_be_bytes();
    let [spid_high, spid_low] = spid.to_be_bytes();
    [kind, status, high, low, spid_high, spid_low, number, 0]
}
