//! Frames on a line: versions N and N−1, and a peer that sends garbage.

#![expect(clippy::unwrap_used, reason = "a test's helpers end it where they fail")]

use minicbor::Encoder;
use posthouse_protocol::codec;
use posthouse_protocol::frame::line::{FEED_BYTES_MAX, VERSION_MAX, length};
use posthouse_protocol::frame::{Frame, FrameDecoder, FrameError, Hello, Purpose, Want};
use posthouse_protocol::id::NodeId;
use posthouse_protocol::limits::{FRAME_BYTES_MAX, NESTING_MAX};
use posthouse_protocol::problem::Code;

#[test]
fn a_key_of_a_later_version_is_ignored() {
    let mut bytes = Vec::new();
    let mut e = Encoder::new(&mut bytes);
    e.array(2).unwrap().u32(3).unwrap().array(1).unwrap();
    e.map(4).unwrap().u32(0).unwrap().u32(2).unwrap().u32(1).unwrap().u32(500).unwrap();
    e.u32(77).unwrap().str("later").unwrap().u32(78).unwrap().array(1).unwrap().map(0).unwrap();
    let Frame::Accept(accept) = Frame::decode(&bytes).unwrap() else { unreachable!("frame 3 is accept") };
    assert_eq!((accept.data_channels, accept.credit), (2, 500));
    // What is signed is read strictly: the same bytes are refused there.
    assert!(codec::decode_strict::<Frame>(&bytes, FRAME_BYTES_MAX).is_err());
}

#[test]
fn a_frame_of_a_later_version_is_an_error_with_its_code() {
    let mut bytes = Vec::new();
    Encoder::new(&mut bytes).array(2).unwrap().u32(999).unwrap().array(0).unwrap();
    let error = Frame::decode(&bytes).unwrap_err();
    assert_eq!(error.problem(&peer()).code, Code::FrameInvalid);
}

#[test]
fn a_length_over_the_limit_is_refused_before_a_byte_of_it_came() {
    let mut decoder = FrameDecoder::new();
    decoder.feed(&(FRAME_BYTES_MAX as u32 + 1).to_be_bytes()).unwrap();
    assert!(matches!(decoder.take(), Err(FrameError::TooLong { .. })));
    assert!(length([0xff; 4], FRAME_BYTES_MAX).is_err());
}

#[test]
fn what_waits_to_be_read_is_bounded() {
    let mut decoder = FrameDecoder::new();
    let piece = vec![0; FEED_BYTES_MAX];
    let mut fed = 0;
    while decoder.feed(&piece).is_ok() {
        fed += piece.len();
        assert!(fed <= FRAME_BYTES_MAX + FEED_BYTES_MAX + 4);
    }
}

#[test]
fn garbage_is_an_error_and_never_a_panic() {
    let frame = Frame::Want(vec![Want { entry: 1, revision: 0, chunks: vec![(0, 9), (12, 13)] }]);
    let bytes = frame.encode();
    for at in 4..bytes.len() {
        for value in 0..=255 {
            let mut changed = bytes.clone();
            changed[at] = value;
            let _ = Frame::decode(&changed[4..]);
        }
    }
    for end in 4..bytes.len() {
        assert!(Frame::decode(&bytes[4..end]).is_err());
    }
    let deep = [vec![0x81; NESTING_MAX + 1], vec![0]].concat();
    assert!(Frame::decode(&deep).is_err());
}

#[test]
fn versions_meet_at_the_highest_that_both_speak() {
    let hello = |min, max| Hello { version_min: min, version_max: max, ..Hello::new(Purpose::Ask, 1) };
    assert_eq!(hello(1, VERSION_MAX + 5).negotiate(&peer()).unwrap(), VERSION_MAX);
    let problem = hello(VERSION_MAX + 1, VERSION_MAX + 5).negotiate(&peer()).unwrap_err();
    assert_eq!(problem.code, Code::VersionUnsupported);
}

fn peer() -> NodeId {
    NodeId::parse("police.xian.example").unwrap()
}
