//! The control channel of a session: frames come in and leave through tasks of their own, so that no session
//! waits for the line in the midst of its work.

use posthouse_platform::frames::{FrameReader, FrameWriter};
use posthouse_protocol::frame::Frame;
use posthouse_protocol::problem::Problem;
use tokio::sync::mpsc;

pub(super) async fn read_frames(mut reader: FrameReader, out: mpsc::Sender<Result<Frame, Problem>>) {
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

pub(super) async fn write_frames(mut writer: FrameWriter, mut frames: mpsc::Receiver<Frame>) {
    while let Some(frame) = frames.recv().await {
        if writer.send(&frame).await.is_err() {
            // The reader notices that the line is gone.
            return;
        }
    }
    let _ = writer.finish().await;
}
