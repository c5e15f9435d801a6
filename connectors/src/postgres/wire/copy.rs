//! COPY in both directions, a stream of bytes each: what a row is and where it ends is for others to know. Memory does
//! not depend on how large a row is.

use super::Client;
use super::error::{ServerError, WireError, unsayable};
use postgres_protocol::message::backend::{self, Message};
use postgres_protocol::message::frontend;
use std::time::Duration;

/// A running `COPY … TO STDOUT`. Dropped before its end it is cancelled; the connection is good for more then, or is
/// known to be lost.
pub(crate) struct CopyOut<'a> {
    client: &'a mut Client,
    /// What is still to come of the message that is being read.
    left: usize,
    done: bool,
}

/// What [`CopyOut::fill`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Copied {
    More,
    /// The stream is whole, and had so many rows.
    End(u64),
}

impl<'a> CopyOut<'a> {
    pub(super) fn start(client: &'a mut Client, sql: &str, next: Option<&str>) -> Result<Self, WireError> {
        match client.ahead.as_deref() == Some(sql) {
            true => client.ahead = None,
            false => client.ask(sql)?,
        }
        if let Some(next) = next {
            client.ask_ahead(next)?;
        }
        match client.link.message()? {
            Message::CopyOutResponse(_) => Ok(Self { client, left: 0, done: false }),
            Message::ErrorResponse(error) => Err(client.refused(ServerError::parse(error.fields())?)),
            _ => Err(client.link.garbled("no COPY TO STDOUT follows")),
        }
    }

    /// Appends to `buffer` until it holds `at_least` bytes, and not one more, or the stream has ended.
    pub(crate) fn fill(&mut self, buffer: &mut Vec<u8>, at_least: usize) -> Result<Copied, WireError> {
        while buffer.len() < at_least {
            if self.left > 0 {
                self.left -= self.client.link.take(self.left.min(at_least - buffer.len()), buffer)?;
                continue;
            }
            let head = self.client.link.head()?;
            match head.tag {
                backend::COPY_DATA_TAG => self.left = head.length,
                backend::COPY_DONE_TAG => {
                    self.client.link.skip(head.length)?;
                    self.done = true;
                    return Ok(Copied::End(self.client.finish()?));
                }
                _ => {
                    self.done = true;
                    return match self.client.link.message_of(head)? {
                        Message::ErrorResponse(error) => Err(self.client.refused(ServerError::parse(error.fields())?)),
                        _ => Err(self.client.link.garbled("something else in a COPY")),
                    };
                }
            }
        }
        Ok(Copied::More)
    }

    fn cancel(&mut self) -> Result<(), WireError> {
        self.client.cancel_handle().send()?;
        // What was on its way is read and forgotten; the server has been told to stop.
        self.client.link.stream().set_timeout(Some(WIND_UP))?;
        self.client.link.skip(self.left)?;
        loop {
            let head = self.client.link.head()?;
            match head.tag {
                backend::COPY_DATA_TAG | backend::COPY_DONE_TAG => self.client.link.skip(head.length)?,
                _ => match self.client.link.message_of(head)? {
                    Message::ReadyForQuery(ready) => {
                        self.client.note(ready.status());
                        break;
                    }
                    // It was faster than the cancel, or says that it was cancelled.
                    Message::CommandComplete(_) | Message::ErrorResponse(_) => {}
                    _ => return Err(self.client.link.garbled("something else in a COPY")),
                },
            }
        }
        Ok(self.client.link.stream().set_timeout(None)?)
    }
}

impl Drop for CopyOut<'_> {
    fn drop(&mut self) {
        if !self.done && !self.client.link.is_broken() && self.cancel().is_err() {
            self.client.link.break_off();
        }
    }
}

/// A running `COPY … FROM STDIN`. Dropped before [`CopyIn::finish`] it is given up and nothing of it stays.
pub(crate) struct CopyIn<'a> {
    client: &'a mut Client,
    /// Small pieces, until they are worth a message.
    small: Vec<u8>,
    done: bool,
}

impl<'a> CopyIn<'a> {
    pub(super) fn start(client: &'a mut Client, sql: &str) -> Result<Self, WireError> {
        client.ask(sql)?;
        match client.link.message()? {
            Message::CopyInResponse(_) => Ok(Self { client, small: Vec::new(), done: false }),
            Message::ErrorResponse(error) => Err(client.refused(ServerError::parse(error.fields())?)),
            _ => Err(client.link.garbled("no COPY FROM STDIN follows")),
        }
    }

    /// Sends bytes of the stream; pieces may end anywhere. An error of the server shows here as soon as it has come.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        if self.small.len() + bytes.len() < SMALL {
            self.small.extend_from_slice(bytes);
            return Ok(());
        }
        self.flush()?;
        for piece in bytes.chunks(MESSAGE) {
            self.message(piece)?;
        }
        Ok(())
    }

    /// Ends the stream; the rows that the server took.
    pub(crate) fn finish(mut self) -> Result<u64, WireError> {
        self.flush()?;
        self.done = true;
        frontend::copy_done(&mut self.client.link.out);
        self.client.send()?;
        self.client.finish()
    }

    /// Gives up: the server forgets what came, and notes why.
    #[cfg(test)]
    pub(crate) fn abort(mut self, reason: &str) -> Result<(), WireError> {
        self.give_up(reason)
    }

    fn give_up(&mut self, reason: &str) -> Result<(), WireError> {
        self.done = true;
        frontend::copy_fail(reason, &mut self.client.link.out).map_err(unsayable)?;
        self.client.send()?;
        match self.client.finish() {
            Err(WireError::Server(error)) if !error.is_fatal() => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(self.client.link.garbled("it took a COPY that was given up")),
        }
    }

    fn flush(&mut self) -> Result<(), WireError> {
        if self.small.is_empty() {
            return Ok(());
        }
        let small = std::mem::take(&mut self.small);
        let sent = self.message(&small);
        self.small = small;
        self.small.clear();
        sent
    }

    fn message(&mut self, piece: &[u8]) -> Result<(), WireError> {
        let [a, b, c, d] = u32::try_from(piece.len() + 4).unwrap_or(u32::MAX).to_be_bytes();
        let link = &mut self.client.link;
        // In this direction a server speaks up only to refuse.
        if let Some(head) = link.head_if_any()? {
            self.done = true;
            return match link.message_of(head)? {
                Message::ErrorResponse(error) => Err(self.client.refused(ServerError::parse(error.fields())?)),
                _ => Err(link.garbled("something else in a COPY")),
            };
        }
        if let Err(error) = link.send_both(&[backend::COPY_DATA_TAG, a, b, c, d], piece) {
            self.done = true;
            return Err(self.client.last_word(error));
        }
        Ok(())
    }
}

impl Drop for CopyIn<'_> {
    fn drop(&mut self) {
        if self.done || self.client.link.is_broken() {
            return;
        }
        let timed = self.client.link.stream().set_timeout(Some(WIND_UP));
        let given_up = timed.map_err(WireError::from).and_then(|()| self.give_up("the sender gave up"));
        if given_up.is_err() || self.client.link.stream().set_timeout(None).is_err() {
            self.client.link.break_off();
        }
    }
}

/// One CopyData message: large enough that its head and its checks cost nothing.
const MESSAGE: usize = 1 << 20;
/// Pieces under this are joined before they are sent.
const SMALL: usize = 64 << 10;
/// How long the end of a COPY that nobody wants any more may take.
const WIND_UP: Duration = Duration::from_secs(10);
