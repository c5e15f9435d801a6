//! Messages on one line. What comes in is read in large pieces and taken apart where it lies: the payload of a COPY
//! goes from there to the caller in pieces, however long its message is; every other message is bounded before it is
//! collected. A line that failed once answers nothing any more.

use super::error::{ServerError, WireError};
use super::stream::Stream;
use bytes::{BufMut, BytesMut};
use postgres_protocol::message::backend::{self, Message};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::time::Duration;

pub(super) struct Link {
    stream: Stream,
    incoming: Box<[u8]>,
    /// What of `incoming` was read and not yet taken.
    start: usize,
    end: usize,
    /// Messages that are put together here before they are sent.
    pub(super) out: BytesMut,
    /// What the server tells of itself.
    pub(super) parameters: BTreeMap<String, String>,
    broken: bool,
}

/// The beginning of a message: what it is, how long its content is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) tag: u8,
    pub(super) length: usize,
}

impl Link {
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            stream,
            incoming: vec![0; INCOMING].into_boxed_slice(),
            start: 0,
            end: 0,
            out: BytesMut::new(),
            parameters: BTreeMap::new(),
            broken: false,
        }
    }

    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }
    pub(super) fn break_off(&mut self) {
        self.broken = true;
    }

    /// Sends what was put together.
    pub(super) fn send(&mut self) -> Result<(), WireError> {
        let out = std::mem::take(&mut self.out);
        let sent = self.send_both(&out, &[]);
        self.out = out;
        self.out.clear();
        sent
    }

    pub(super) fn send_both(&mut self, head: &[u8], body: &[u8]) -> Result<(), WireError> {
        self.whole()?;
        let sent = self.stream.write_both(head, body);
        sent.map_err(|error| self.lost(error))
    }

    /// The next message; what a server may say at any time is taken note of on the way.
    pub(super) fn message(&mut self) -> Result<Message, WireError> {
        let head = self.head()?;
        self.message_of(head)
    }

    /// The message whose head was read.
    pub(super) fn message_of(&mut self, head: Head) -> Result<Message, WireError> {
        let mut frame = BytesMut::new();
        let kept = if head.tag == backend::ERROR_RESPONSE_TAG { head.length.min(ERROR_MAX) } else { head.length };
        let cut = head.length - kept;
        frame.put_u8(head.tag);
        // An error that quotes a whole value is cut where no reader needs more, and ended as its format wants it.
        let ending: &[u8] = if cut > 0 { &[0, 0] } else { &[] };
        frame.put_u32(u32::try_from(4 + kept + ending.len()).unwrap_or(u32::MAX));
        self.content(kept, head.tag, &mut frame)?;
        frame.put_slice(ending);
        self.skip(cut)?;
        match Message::parse(&mut frame) {
            Ok(Some(message)) => Ok(message),
            Ok(None) => Err(self.garbled("a message is shorter than it says")),
            Err(error) => Err(self.garbled(&error.to_string())),
        }
    }

    /// The content of a message as it came.
    pub(super) fn raw(&mut self, head: Head) -> Result<BytesMut, WireError> {
        let mut content = BytesMut::new();
        self.content(head.length, head.tag, &mut content)?;
        Ok(content)
    }

    /// The head of the next message that belongs to what is going on.
    pub(super) fn head(&mut self) -> Result<Head, WireError> {
        loop {
            let head = self.any_head()?;
            if !self.noted(head)? {
                return Ok(head);
            }
        }
    }

    /// As [`Link::head`], of what has come by now.
    pub(super) fn head_if_any(&mut self) -> Result<Option<Head>, WireError> {
        while self.has_word()? {
            let head = self.any_head()?;
            if !self.noted(head)? {
                return Ok(Some(head));
            }
        }
        Ok(None)
    }

    /// Takes in what a server may say at any time.
    fn noted(&mut self, head: Head) -> Result<bool, WireError> {
        match head.tag {
            backend::NOTICE_RESPONSE_TAG | backend::NOTIFICATION_RESPONSE_TAG => self.skip(head.length)?,
            backend::PARAMETER_STATUS_TAG => {
                let Message::ParameterStatus(told) = self.message_of(head)? else { return Ok(true) };
                let told = told.name().and_then(|name| Ok((name.to_owned(), told.value()?.to_owned())));
                let (name, value) = told.map_err(|e| self.garbled(&e.to_string()))?;
                self.parameters.insert(name, value);
                if self.parameters.len() > PARAMETERS_MAX {
                    return Err(self.garbled("parameters without end"));
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Appends up to `max` bytes of the current message to `to`; at least one, and what is there already first.
    pub(super) fn take(&mut self, max: usize, to: &mut impl BufMut) -> Result<usize, WireError> {
        if self.start == self.end {
            self.fill()?;
        }
        let piece = &self.incoming[self.start..self.end];
        let piece = &piece[..piece.len().min(max)];
        to.put_slice(piece);
        self.start += piece.len();
        Ok(piece.len())
    }

    pub(super) fn skip(&mut self, mut length: usize) -> Result<(), WireError> {
        while length > 0 {
            if self.start == self.end {
                self.fill()?;
            }
            let step = length.min(self.end - self.start);
            self.start += step;
            length -= step;
        }
        Ok(())
    }

    fn has_word(&mut self) -> Result<bool, WireError> {
        self.whole()?;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            match self.stream.read_ready(&mut self.incoming) {
                Ok(None) => {}
                Ok(Some(0)) => return Err(self.lost(io::ErrorKind::UnexpectedEof.into())),
                Ok(Some(read)) => self.end = read,
                Err(error) => return Err(self.lost(error)),
            }
        }
        Ok(self.start < self.end)
    }

    /// The last word of a server to which nothing can be sent any more.
    pub(super) fn last_word(&mut self) -> Option<ServerError> {
        self.broken = self.stream.set_timeout(Some(LAST_WORD)).is_err();
        let word = loop {
            match self.message() {
                Ok(Message::ErrorResponse(error)) => break ServerError::parse(error.fields()).ok(),
                Ok(_) => {}
                Err(_) => break None,
            }
        };
        self.broken = true;
        word
    }

    fn any_head(&mut self) -> Result<Head, WireError> {
        self.whole()?;
        while self.end - self.start < 5 {
            self.fill()?;
        }
        let Some(([tag, length @ ..], _)) = self.incoming[self.start..self.end].split_first_chunk::<5>() else {
            return Err(self.garbled("a message without a head"));
        };
        let (tag, length) = (*tag, u32::from_be_bytes(*length));
        match usize::try_from(length).ok().and_then(|length| length.checked_sub(4)) {
            Some(content) if length <= i32::MAX as u32 => {
                self.start += 5;
                Ok(Head { tag, length: content })
            }
            _ => Err(self.garbled("a message with an impossible length")),
        }
    }

    fn content(&mut self, mut length: usize, tag: u8, to: &mut BytesMut) -> Result<(), WireError> {
        let max = match tag {
            backend::DATA_ROW_TAG => ROW_MAX,
            backend::ERROR_RESPONSE_TAG | backend::ROW_DESCRIPTION_TAG => ERROR_MAX,
            _ => OTHER_MAX,
        };
        if length > max {
            return Err(self.garbled(&format!("a message `{}` of {length} bytes, over {max}", tag.escape_ascii())));
        }
        to.reserve(length);
        while length > 0 {
            length -= self.take(length, to)?;
        }
        Ok(())
    }

    /// Reads at least one byte more.
    fn fill(&mut self) -> Result<(), WireError> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.incoming.len() {
            self.incoming.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        loop {
            match self.stream.read(&mut self.incoming[self.end..]) {
                Ok(0) => return Err(self.lost(io::ErrorKind::UnexpectedEof.into())),
                Ok(read) => {
                    self.end += read;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.lost(error)),
            }
        }
    }

    fn whole(&self) -> Result<(), WireError> {
        if self.broken {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "the connection was lost before").into());
        }
        Ok(())
    }

    fn lost(&mut self, error: io::Error) -> WireError {
        self.broken = true;
        match error.kind() {
            io::ErrorKind::WouldBlock => {
                io::Error::new(io::ErrorKind::TimedOut, "the server did not answer in time").into()
            }
            io::ErrorKind::UnexpectedEof => io::Error::new(error.kind(), "the server closed the connection").into(),
            _ => error.into(),
        }
    }

    pub(super) fn garbled(&mut self, what: &str) -> WireError {
        self.broken = true;
        WireError::Protocol(format!("the server sent what its protocol does not have: {what}"))
    }
}

/// One read of the kernel fills it where the server is fast.
const INCOMING: usize = 256 << 10;
/// A row of a catalog query.
const ROW_MAX: usize = 64 << 20;
/// An error's texts, the names of a result's columns.
const ERROR_MAX: usize = 1 << 20;
const OTHER_MAX: usize = 256 << 10;
/// PostgreSQL tells of about fifteen.
const PARAMETERS_MAX: usize = 256;
const LAST_WORD: Duration = Duration::from_secs(2);
