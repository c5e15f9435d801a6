//! The control channel of a session: frames come in and leave through tasks of their own, so that no session
//! waits for the line in the midst of its work.

use posthouse_platform::frames::{FrameReader, FrameWriter};
use posthouse_protocol::frame::Frame;
use posthouse_protocol::problem::Problem;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// The session's end of it.
pub(crate) struct Wire {
    /// Ends after a problem, and with the channel.
    pub frames: mpsc::Receiver<Result<Frame, Problem>>,
    pub out: mpsc::Sender<Frame>,
    /// The line takes no more frames at the moment.
    pub blocked: bool,
}

/// The tasks at the line's end of it.
pub(crate) struct Pumps {
    reading: JoinHandle<()>,
    writing: JoinHandle<()>,
}

impl Wire {
    pub(crate) fn start(reader: FrameReader, writer: FrameWriter) -> (Self, Pumps) {
        let (frames_in, frames) = mpsc::channel(FRAMES);
        let (out, frames_out) = mpsc::channel(FRAMES);
        let reading = tokio::spawn(read_frames(reader, frames_in));
        let writing = tokio::spawn(write_frames(writer, frames_out));
        (Self { frames, out, blocked: false }, Pumps { reading, writing })
    }

    /// Sends what `next` has to say, as far as the line takes it.
    pub(crate) fn transmit(&mut self, mut next: impl FnMut() -> Option<Frame>) {
        self.blocked = false;
        loop {
            let Ok(permit) = self.out.try_reserve() else {
                self.blocked = !self.out.is_closed();
                return;
            };
            match next() {
                Some(frame) => permit.send(frame),
                None => return,
            }
        }
    }
}

impl Pumps {
    /// To be called once the wire is dropped: what was said last still leaves.
    pub(crate) async fn close(self) {
        self.reading.abort();
        let _ = tokio::time::timeout(CLOSING, self.writing).await;
    }
}

async fn read_frames(mut reader: FrameReader, out: mpsc::Sender<Result<Frame, Problem>>) {
    loop {
        let next = match reader.next().await {
            Ok(Some(frame)) => Ok(frame),
            Ok(None) => return,
            Err(problem) => Err(problem),
        };
        let last = next.is_err();
        if out.send(next).await.is_err() || last {
            return;
        }
    }
}

async fn write_frames(mut writer: FrameWriter, mut frames: mpsc::Receiver<Frame>) {
    while let Some(frame) = frames.recv().await {
        if writer.send(&frame).await.is_err() {
            // The reader notices that the line is gone.
            return;
        }
    }
    let _ = writer.finish().await;
}

const FRAMES: usize = 64;
const CLOSING: Duration = Duration::from_secs(5);
