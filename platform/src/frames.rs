//! Frames on a channel: reading and writing whole frames, and asking one question on a channel of its own.
//! A length is checked before anything is allocated. What frames mean is elsewhere.

use crate::endpoint::{Channel, Connection, Reader, Writer};
use posthouse_protocol::codec;
use posthouse_protocol::frame::{Frame, Hello};
use posthouse_protocol::limits;
use posthouse_protocol::problem::{Code, Problem};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Reads frames until the other side finishes.
pub struct FrameReader {
    reader: Reader,
    peer: String,
}

impl FrameReader {
    /// `peer` stands in problem texts.
    pub fn new(reader: Reader, peer: impl std::fmt::Display) -> Self {
        Self { reader, peer: peer.to_string() }
    }

    /// The next frame; none where the channel ended cleanly between two. Not cancel-safe: a read that is
    /// dropped midway loses its place, so one task reads and hands on.
    pub async fn next(&mut self) -> Result<Option<Frame>, Problem> {
        let mut length = [0; 4];
        let first = self.reader.read(&mut length).await.map_err(|e| self.lost(&e))?;
        if first == 0 {
            return Ok(None);
        }
        self.reader.read_exact(&mut length[first..]).await.map_err(|e| self.lost(&e))?;
        let bytes = u32::from_be_bytes(length) as usize;
        if bytes > limits::FRAME_BYTES_MAX {
            return Err(self.bad(format!("a frame of {bytes} bytes, at most {} are allowed", limits::FRAME_BYTES_MAX)));
        }
        let mut body = vec![0; bytes];
        self.reader.read_exact(&mut body).await.map_err(|e| self.lost(&e))?;
        codec::decode(&body, limits::FRAME_BYTES_MAX).map(Some).map_err(|e| self.bad(e.to_string()))
    }

    /// The next frame, which must come.
    pub async fn expect(&mut self) -> Result<Frame, Problem> {
        self.next().await?.ok_or_else(|| self.lost(&"the channel ended"))
    }

    /// The reader beneath, e.g. for the chunks that follow a data channel's `Hello`.
    pub fn into_inner(self) -> Reader {
        self.reader
    }

    fn bad(&self, cause: String) -> Problem {
        Problem::new(Code::FrameInvalid).with("peer", &self.peer).cause(cause)
    }
    fn lost(&self, cause: &dyn std::fmt::Display) -> Problem {
        Problem::new(Code::PeerUnreachable).with("peer", &self.peer).cause(cause)
    }
}

/// Writes frames.
pub struct FrameWriter {
    writer: Writer,
    peer: String,
}

impl FrameWriter {
    pub fn new(writer: Writer, peer: impl std::fmt::Display) -> Self {
        Self { writer, peer: peer.to_string() }
    }

    /// Writes one frame and passes it on at once.
    pub async fn send(&mut self, frame: &Frame) -> Result<(), Problem> {
        let body = codec::encode(frame);
        if body.len() > limits::FRAME_BYTES_MAX {
            return Err(
                Problem::new(Code::InsideFailed).cause(format!("a frame of {} bytes was to be sent", body.len()))
            );
        }
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
        let bytes = [length.as_slice(), &body].concat();
        self.writer.write_all(&bytes).await.map_err(|e| self.lost(&e))?;
        self.writer.flush().await.map_err(|e| self.lost(&e))
    }

    /// The writer beneath, e.g. for the chunks of a data channel.
    pub fn into_inner(self) -> Writer {
        self.writer
    }

    /// Ends this direction; what was sent arrives.
    pub async fn finish(mut self) -> Result<(), Problem> {
        self.writer.shutdown().await.map_err(|e| self.lost(&e))
    }

    fn lost(&self, cause: &dyn std::fmt::Display) -> Problem {
        Problem::new(Code::PeerUnreachable).with("peer", &self.peer).cause(cause)
    }
}

/// Both directions of one channel.
pub fn split(channel: Channel, peer: impl std::fmt::Display) -> (FrameReader, FrameWriter) {
    (FrameReader::new(channel.reader, &peer), FrameWriter::new(channel.writer, &peer))
}

/// Opens a channel, says hello and asks one question; gives its answer. For longer talks keep the two halves.
pub async fn ask(
    connection: &dyn Connection,
    peer: impl std::fmt::Display,
    hello: Hello,
    question: &Frame,
    limit: Duration,
) -> Result<Frame, Problem> {
    let talk = async {
        let (mut reader, mut writer) = split(connection.open().await?, &peer);
        writer.send(&Frame::Hello(hello)).await?;
        writer.send(question).await?;
        loop {
            match reader.expect().await? {
                Frame::Hello(_) => {}
                answer => {
                    // The answer is here; whether the channel closes cleanly after it changes nothing.
                    let _ = writer.finish().await;
                    return Ok(answer);
                }
            }
        }
    };
    match tokio::time::timeout(limit, talk).await {
        Ok(answer) => answer,
        Err(_) => Err(Problem::new(Code::PeerUnreachable)
            .with("peer", &peer)
            .cause(format!("no answer within {} s", limit.as_secs()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl crate::endpoint::WriteBytes for tokio::io::WriteHalf<tokio::io::DuplexStream> {}

    fn pipe() -> (FrameReader, FrameWriter) {
        let (ours, theirs) = tokio::io::duplex(4 << 20);
        let (reader, _) = tokio::io::split(theirs);
        let (_, writer) = tokio::io::split(ours);
        (FrameReader::new(Box::new(reader), "b"), FrameWriter::new(Box::new(writer), "b"))
    }

    #[tokio::test]
    async fn frames_arrive_as_they_were_sent_and_the_end_is_clean() {
        let (mut reader, mut writer) = pipe();
        for number in 0..3 {
            writer.send(&Frame::Ping(number)).await.unwrap();
        }
        writer.finish().await.unwrap();
        for number in 0..3 {
            assert_eq!(reader.next().await.unwrap(), Some(Frame::Ping(number)));
        }
        assert_eq!(reader.next().await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_length_over_the_bound_is_refused_before_it_is_read() {
        let (mut reader, mut writer) = pipe();
        writer.writer.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
        assert_eq!(reader.next().await.unwrap_err().code, Code::FrameInvalid);
    }

    #[tokio::test]
    async fn a_frame_cut_short_is_a_lost_peer_and_garbage_an_invalid_frame() {
        let (mut reader, mut writer) = pipe();
        writer.writer.write_all(&[0, 0, 0, 2, 0xff, 0xff, 0, 0]).await.unwrap();
        writer.finish().await.unwrap();
        assert_eq!(reader.next().await.unwrap_err().code, Code::FrameInvalid);
        assert_eq!(reader.next().await.unwrap_err().code, Code::PeerUnreachable);
    }
}
