//! A peer that says whatever it likes: true frames out of turn, changed bytes, numbers at the edges.
//! Each machine takes them or ends in an error; it never panics, never says more than it was asked for, stays bounded.

use crate::scene::{FileSpec, Rng, consumer_name, offer, provider_name, request};
use minicbor::bytes::ByteVec;
use posthouse_protocol::chunk::{ChunkHeader, Form};
use posthouse_protocol::consumer::{Consumer, ConsumerEvent, Have};
use posthouse_protocol::delta::{Cut, PIECE_WIRE_BYTES};
use posthouse_protocol::frame::{Accept, EntriesEnd, Frame, Handover, Offer, Omission, Pieces, Refused, Want};
use posthouse_protocol::limits;
use posthouse_protocol::manifest::{Attribute, Entry, EntryKind, LeftOut, SplitCounts};
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::provider::{Provider, ProviderEvent};
use posthouse_protocol::schema::Contract;
use posthouse_protocol::time::Timestamp;

pub(crate) fn attack(files: Vec<FileSpec>, seed: u64) {
    let mut rng = Rng(seed | 1);
    let mut consumer = Consumer::new(request(), provider_name(), Timestamp(0));
    let mut provider = Provider::new(consumer_name(), Timestamp(0));
    let (mut consumer_ok, mut provider_ok, mut listed) = (true, true, 0);
    for step in 0..300 {
        let now = Timestamp(step * 100);
        let mut frame = if step < 2 && rng.below(4) > 0 { opening(step) } else { frame(&mut rng, &files) };
        if rng.below(4) == 0 {
            // Bytes changed on the way either decode to another frame or to none.
            let mut bytes = frame.encode();
            let at = rng.below(bytes.len() as u64) as usize;
            bytes[at] = rng.next() as u8;
            match Frame::decode(&bytes[4..]) {
                Ok(other) => frame = other,
                Err(_) => continue,
            }
        }
        if consumer_ok {
            consumer_ok = consumer.handle_frame(frame.clone(), now).is_ok() && chunks(&mut consumer, &mut rng);
            drain_consumer(&mut consumer, now, &mut rng);
        }
        if provider_ok {
            provider_ok = provider.handle_frame(frame, now).is_ok();
            drain_provider(&mut provider, now, &files, &mut listed);
        }
    }
    consumer.handle_timeout(Timestamp(i64::MAX));
    provider.handle_timeout(Timestamp(i64::MAX));
}

#[test]
fn a_name_that_comes_again_or_too_late_ends_it_by_that_name() {
    for (names, ends) in
        [(["a", "b"], None), (["b", "b"], Some("b")), (["b", "a"], Some("a")), (["a/b", "a"], Some("a"))]
    {
        let mut consumer = offered(offer());
        let listed =
            (0..).zip(names).map(|(index, name)| Entry { name: name.into(), ..entry(index, EntryKind::File, 0, true) });
        let listed = consumer.handle_frame(Frame::Entries(listed.collect()), Timestamp(0));
        let named =
            |problem: Problem| (problem.code, problem.facts.into_iter().find(|(fact, _)| fact == "name").unwrap().1);
        assert_eq!(listed.err().map(named), ends.map(|name| (Code::ListedTwice, name.to_owned())), "{names:?}");
    }
}

#[test]
fn a_split_is_never_left_out_of_its_table() {
    let contract = Contract { items: Vec::new(), key: Vec::new() };
    let mut consumer = offered(Offer { contract: Some(contract), ..offer() });
    let split = entry(0, EntryKind::Split(SplitCounts::default()), 10, true);
    let name = split.name.clone();
    consumer.handle_frame(Frame::Entries(vec![split]), Timestamp(0)).unwrap();
    let what = LeftOut { name, code: 2011, reason: "unreadable".into() };
    let left_out = consumer.handle_frame(Frame::LeftOut(vec![Omission { entry: Some(0), what }]), Timestamp(0));
    assert_eq!(left_out.unwrap_err().code, Code::Mismatch);
}

#[test]
fn splits_that_are_kept_are_told_to_the_provider_and_nothing_else_is_one() {
    let now = Timestamp(0);
    let table = || Offer { contract: Some(Contract { items: Vec::new(), key: Vec::new() }), ..offer() };
    let split =
        |index| Entry { kind: EntryKind::Split(SplitCounts::default()), ..entry(index, EntryKind::File, 10, true) };
    let giving = |offer: Offer, entry: Entry| {
        let mut provider = Provider::new(consumer_name(), now);
        provider.handle_frame(Frame::Request(request()), now).unwrap();
        provider.offer(offer).unwrap();
        provider.handle_frame(Frame::Accept(Accept { data_channels: 1, credit: 1 << 20 }), now).unwrap();
        provider.entry(entry).unwrap();
        while provider.poll_event().is_some() {}
        provider
    };
    let mut provider = giving(table(), split(0));
    provider.handle_frame(Frame::Kept(vec![0]), now).unwrap();
    assert_eq!(provider.poll_event(), Some(ProviderEvent::Kept(vec![0])));
    let refused = |mut provider: Provider, kept| provider.handle_frame(Frame::Kept(kept), now).unwrap_err().code;
    assert_eq!(refused(giving(table(), split(0)), vec![0, 1]), Code::FrameInvalid);
    assert_eq!(refused(giving(table(), split(0)), vec![0; limits::ENTRIES_PER_FRAME_MAX + 1]), Code::FrameInvalid);
    assert_eq!(refused(giving(offer(), entry(0, EntryKind::File, 10, true)), vec![0]), Code::FrameInvalid);

    let mut consumer = offered(table());
    consumer.handle_frame(Frame::Entries(vec![split(0), split(1)]), now).unwrap();
    while consumer.poll_transmit(now).is_some() {}
    for index in [0, 1, 2] {
        consumer.kept(index);
    }
    assert_eq!(consumer.poll_transmit(now), Some(Frame::Kept(vec![0, 1])), "what is not listed is not said");
}

#[test]
fn pieces_are_told_before_the_answer_and_as_many_as_may_be() {
    let now = Timestamp(0);
    let giving = || {
        let mut provider = Provider::new(consumer_name(), now);
        provider.handle_frame(Frame::Request(request()), now).unwrap();
        provider.offer(offer()).unwrap();
        provider.handle_frame(Frame::Accept(Accept { data_channels: 1, credit: 1 << 20 }), now).unwrap();
        for index in [0, 1] {
            provider.entry(entry(index, EntryKind::File, 10, false)).unwrap();
        }
        while provider.poll_event().is_some() {}
        provider
    };
    let told = |entry: u64, mean: u32, pieces: usize| {
        Frame::Pieces(Pieces { entry, revision: 0, mean, pieces: vec![1; pieces * PIECE_WIRE_BYTES].into() })
    };
    let wanted = |entry| Frame::Want(vec![Want { entry, revision: 0, chunks: vec![(0, 1)] }]);
    const MEAN: u32 = 16 << 10;
    const HALF: usize = limits::PIECES_MAX / 2;

    let mut provider = giving();
    for _ in 0..2 {
        provider.handle_frame(told(0, MEAN, HALF), now).unwrap();
        assert!(matches!(provider.poll_event(), Some(ProviderEvent::Pieces(_))));
    }
    // What is void makes room, as what is done does.
    provider.handle_frame(told(0, MEAN, 0), now).unwrap();
    provider.handle_frame(told(1, MEAN, 2 * HALF), now).unwrap();
    provider.handle_frame(wanted(1), now).unwrap();
    provider.handle_frame(told(1, MEAN, 0), now).unwrap();
    provider.handle_frame(told(0, MEAN, 2 * HALF), now).unwrap();
    assert_eq!(provider.handle_frame(told(0, MEAN, 1), now).unwrap_err().code, Code::FrameInvalid, "too many");

    let mut done = giving();
    done.handle_frame(told(0, MEAN, 2 * HALF), now).unwrap();
    done.handle_frame(wanted(0), now).unwrap();
    assert!(done.poll_send().is_some());
    done.sealed(entry(0, EntryKind::File, 10, true)).unwrap();
    done.handle_frame(told(1, MEAN, 2 * HALF), now).unwrap();
    // Also where an entry before it is not: the consumer does not wait for that one.
    let mut later = giving();
    later.handle_frame(told(1, MEAN, 2 * HALF), now).unwrap();
    later.handle_frame(wanted(1), now).unwrap();
    later.sealed(entry(1, EntryKind::File, 10, true)).unwrap();
    assert!(later.poll_send().is_some());
    later.handle_frame(told(0, MEAN, 2 * HALF), now).unwrap();

    let refused = |first: Option<Frame>, then: Frame| {
        let mut provider = giving();
        if let Some(first) = first {
            provider.handle_frame(first, now).unwrap();
        }
        provider.handle_frame(then, now).unwrap_err().code
    };
    assert_eq!(refused(None, told(2, MEAN, 1)), Code::FrameInvalid, "it was not listed");
    assert_eq!(refused(None, told(0, MEAN + 1, 1)), Code::FrameInvalid, "nobody cuts so");
    assert_eq!(refused(Some(wanted(0)), told(0, MEAN, 1)), Code::FrameInvalid, "it was answered");
    let torn = Pieces { entry: 0, revision: 0, mean: MEAN, pieces: vec![1; PIECE_WIRE_BYTES + 1].into() };
    assert_eq!(refused(None, Frame::Pieces(torn)), Code::FrameInvalid);

    let mut consumer = offered(offer());
    let listed = entry(0, EntryKind::File, 10, false);
    consumer.handle_frame(Frame::Entries(vec![listed.clone()]), now).unwrap();
    while consumer.poll_transmit(now).is_some() {}
    let cut = Cut::new(MEAN).unwrap();
    consumer.pieces(&listed, cut, &vec![1; 30_000 * PIECE_WIRE_BYTES]);
    consumer.have(&listed, Have::Nothing).unwrap();
    consumer.pieces(&listed, cut, &[1; PIECE_WIRE_BYTES]);
    let said: Vec<Frame> = std::iter::from_fn(|| consumer.poll_transmit(now)).collect();
    let lengths: Vec<usize> = said
        .iter()
        .map(|frame| match frame {
            Frame::Pieces(told) => told.pieces.len() / PIECE_WIRE_BYTES,
            Frame::Want(_) => 0,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        (lengths.len(), lengths[0], lengths[10], lengths[11]),
        (12, 2_730, 2_700, 0),
        "in frames that are not too long, before the answer and not after it"
    );
}

#[test]
fn what_is_read_again_is_answered_again_and_may_be_left_out_by_then() {
    let now = Timestamp(0);
    let file = |revision, bytes| Entry {
        revision,
        attributes: Some(vec![attribute(b"user.a", bytes)]),
        ..entry(0, EntryKind::File, 10, false)
    };
    for is_left_out in [false, true] {
        let mut provider = Provider::new(consumer_name(), now);
        provider.handle_frame(Frame::Request(request()), now).unwrap();
        provider.offer(offer()).unwrap();
        provider.handle_frame(Frame::Accept(Accept { data_channels: 1, credit: 1 << 20 }), now).unwrap();
        let mut consumer = offered(offer());
        provider.entry(file(0, 1)).unwrap();
        let passed = |provider: &mut Provider, consumer: &mut Consumer| {
            while let Some(frame) = provider.poll_transmit(now) {
                // The offer has come by other means.
                if !matches!(frame, Frame::Offer(_)) {
                    consumer.handle_frame(frame, now).unwrap();
                }
            }
        };
        let said = |consumer: &mut Consumer| {
            std::iter::from_fn(|| consumer.poll_transmit(now))
                .filter(|frame| matches!(frame, Frame::Want(_) | Frame::LeftOut(_)))
                .collect::<Vec<_>>()
        };
        passed(&mut provider, &mut consumer);
        assert!(consumer.awaits_answer(0));
        consumer.have(&file(0, 1), Have::Nothing).unwrap();
        assert!(!consumer.awaits_answer(0));
        let first = said(&mut consumer);
        assert_eq!(first, [Frame::Want(vec![Want { entry: 0, revision: 0, chunks: vec![(0, 1)] }])]);
        // It changes before that has come.
        provider.again(file(1, 60_000)).unwrap();
        first.into_iter().for_each(|frame| provider.handle_frame(frame, now).unwrap());
        passed(&mut provider, &mut consumer);
        while let Some(event) = consumer.poll_event() {
            assert!(!matches!(event, ConsumerEvent::LeftOut(..) | ConsumerEvent::Complete(_)), "{event:?}");
        }
        assert!(consumer.awaits_answer(0) && said(&mut consumer).is_empty(), "nothing is asked by itself");
        let name = b"f0".to_vec();
        let what = LeftOut { name, code: Code::AttributesRefused.number(), reason: "too many".into() };
        if is_left_out {
            consumer.leave_out(&file(1, 60_000), what.clone()).unwrap();
        } else {
            // What is said of the former state counts for nothing.
            consumer.have(&file(0, 1), Have::Whole([1; 32])).unwrap();
        }
        said(&mut consumer).into_iter().for_each(|frame| provider.handle_frame(frame, now).unwrap());
        let events: Vec<ProviderEvent> = std::iter::from_fn(|| provider.poll_event()).collect();
        assert_eq!(events.contains(&ProviderEvent::LeftOut(0, what)), is_left_out, "{events:?}");
        assert_eq!(provider.has_wanted(), !is_left_out);
        assert_eq!(consumer.left_out().len(), usize::from(is_left_out));
        assert_eq!(provider.left_out_list().len(), usize::from(is_left_out));
    }
}

#[test]
fn attributes_that_no_entry_may_have_are_refused_and_so_are_more_than_may_be_open() {
    let now = Timestamp(0);
    let with = |index: u64, kind: EntryKind, attributes: Vec<Attribute>| Entry {
        attributes: Some(attributes),
        ..entry(index, kind, 0, false)
    };
    let listed = |entry: Entry| offered(offer()).handle_frame(Frame::Entries(vec![entry]), now);
    let one = |name: &str, bytes: usize| vec![attribute(name.as_bytes(), bytes)];
    let two = |first: &str, second: &str| vec![attribute(first.as_bytes(), 1), attribute(second.as_bytes(), 1)];
    let most = limits::ATTRIBUTES_BYTES_MAX;
    for (kind, attributes) in [
        (EntryKind::File, one("security.capability", 20)),
        (EntryKind::File, one("system.posix_acl_access", 20)),
        (EntryKind::File, one("trusted.x", 1)),
        (EntryKind::File, one("user.", 1)),
        (EntryKind::File, one(&format!("user.{}", "x".repeat(251)), 1)),
        (EntryKind::File, one("user.a", most)),
        (EntryKind::File, two("user.b", "user.a")),
        (EntryKind::Directory, two("user.a", "user.a")),
        (EntryKind::Link(b"x".to_vec()), one("user.a", 1)),
    ] {
        let size = if let EntryKind::Link(text) = &kind { text.len() as u64 } else { 0 };
        let entry = Entry { size, ..with(0, kind, attributes) };
        assert_eq!(listed(entry.clone()).unwrap_err().code, Code::FrameInvalid, "{entry:?}");
    }
    listed(with(0, EntryKind::File, two("user.a", "user.b"))).unwrap();
    listed(with(0, EntryKind::Directory, one("user.a", most - 6))).unwrap();

    // What is sealed and what is read again is looked at too.
    let file = |attributes| Entry { size: 10, ..with(0, EntryKind::File, attributes) };
    let refused = |frame: Frame| {
        let mut consumer = offered(offer());
        consumer.handle_frame(Frame::Entries(vec![file(one("user.a", 1))]), now).unwrap();
        consumer.handle_frame(frame, now).map_err(|problem| problem.code).err()
    };
    let sealed = |attributes| Entry { root: Some([1; 32].into()), ..file(attributes) };
    assert_eq!(refused(Frame::Sealed(vec![sealed(one("user.a", 1))])), None);
    assert_eq!(refused(Frame::Sealed(vec![sealed(one("user.a", 2))])), Some(Code::FrameInvalid));
    let again = |attributes| Frame::Again(Entry { revision: 1, ..file(attributes) });
    assert_eq!(refused(again(one("user.b", 2))), None);
    assert_eq!(refused(again(one("trusted.b", 2))), Some(Code::FrameInvalid));

    // A provider that lists on and on: it is stopped where a true one would have waited.
    let mut consumer = offered(offer());
    let large = |index: u64| {
        let name = format!("{index:09}").into_bytes();
        Entry { name, size: 10, ..with(index, EntryKind::File, one("user.a", 60_000)) }
    };
    let bytes = large(0).attribute_bytes();
    let (ahead, open) = (limits::ATTRIBUTES_AHEAD_BYTES_MAX / bytes, limits::ATTRIBUTES_OPEN_BYTES_MAX / bytes);
    let refused_at = (0..10_000).find(|index| {
        while consumer.poll_event().is_some() {}
        consumer.handle_frame(Frame::Entries(vec![large(*index)]), now).is_err()
    });
    assert_eq!(refused_at, Some(open as u64));
    let mut provider = Provider::new(consumer_name(), now);
    provider.handle_frame(Frame::Request(request()), now).unwrap();
    provider.offer(offer()).unwrap();
    provider.handle_frame(Frame::Accept(Accept { data_channels: 1, credit: 1 << 20 }), now).unwrap();
    let mut listed = 0;
    while provider.room() > 0 {
        provider.entry(large(listed)).unwrap();
        listed += 1;
        while let Some(frame) = provider.poll_transmit(now) {
            assert!(frame.encode().len() <= limits::FRAME_BYTES_MAX);
        }
    }
    assert_eq!(listed, ahead as u64 + 1);
    // It goes on once the first ones are done.
    provider.handle_frame(Frame::Want(vec![Want { entry: 0, revision: 0, chunks: Vec::new() }]), now).unwrap();
    provider.sealed(Entry { root: Some([1; 32].into()), ..large(0) }).unwrap();
    assert!(provider.room() > 0);
}

#[test]
fn what_is_finished_counts_from_the_first_entry_and_stays_as_it_is() {
    let now = Timestamp(0);
    let want = |entry| Frame::Want(vec![Want { entry, revision: 0, chunks: Vec::new() }]);
    let what = |index: u64| LeftOut { name: format!("f{index}").into_bytes(), code: 2010, reason: "out".into() };
    let refused = |index: u64| Frame::LeftOut(vec![Omission { entry: Some(index), what: what(index) }]);
    let mut provider = Provider::new(consumer_name(), now);
    provider.handle_frame(Frame::Request(request()), now).unwrap();
    provider.offer(offer()).unwrap();
    provider.handle_frame(Frame::Accept(Accept { data_channels: 1, credit: 1 << 20 }), now).unwrap();
    for index in 0..4 {
        provider.entry(entry(index, EntryKind::File, 10, index > 0)).unwrap();
    }
    // Of those behind the first, one is done, one is left out and one is not answered.
    provider.handle_frame(want(1), now).unwrap();
    provider.handle_frame(refused(2), now).unwrap();
    provider.handle_frame(want(0), now).unwrap();
    assert_eq!(provider.finished(), 0, "the first has no root yet");
    provider.sealed(entry(0, EntryKind::File, 10, true)).unwrap();
    assert_eq!(provider.finished(), 3);
    let events: Vec<ProviderEvent> = std::iter::from_fn(|| provider.poll_event()).collect();
    assert!(events.contains(&ProviderEvent::LeftOut(2, what(2))), "{events:?}");
    // None of the finished ones is taken back, by whomever.
    for index in [0, 1] {
        assert!(provider.left_out(Some(index), what(index)).is_err());
        let changed = Entry { revision: 1, ..entry(index, EntryKind::File, 10, false) };
        assert!(provider.again(changed).is_err());
    }
    provider.handle_frame(refused(2), now).unwrap();
    assert_eq!(provider.handle_frame(refused(1), now).unwrap_err().code, Code::FrameInvalid);
    assert_eq!((provider.finished(), provider.left_out_list().len()), (3, 1));
    assert_eq!(provider.poll_event(), None);
}

#[test]
fn of_finished_entries_a_provider_remembers_as_many_as_a_consumer_may_have_open() {
    let now = Timestamp(0);
    let want = |entry, chunks| Frame::Want(vec![Want { entry, revision: 0, chunks }]);
    let mut provider = Provider::new(consumer_name(), now);
    provider.handle_frame(Frame::Request(request()), now).unwrap();
    provider.offer(offer()).unwrap();
    provider.handle_frame(Frame::Accept(Accept { data_channels: 1, credit: 1 << 20 }), now).unwrap();
    let listed = limits::ENTRIES_OPEN_MAX + 2;
    for index in 0..listed {
        provider.entry(entry(index, EntryKind::File, 10, true)).unwrap();
        provider.handle_frame(want(index, Vec::new()), now).unwrap();
        while provider.poll_transmit(now).is_some() {}
        while provider.poll_event().is_some() {}
    }
    assert_eq!(provider.finished(), listed);
    for index in [2, listed - 1] {
        provider.handle_frame(want(index, vec![(0, 1)]), now).unwrap();
        let send = provider.poll_send().unwrap();
        assert_eq!((send.entry, send.chunk, send.again), (index, 0, true));
    }
    for index in [0, 1] {
        provider.handle_frame(want(index, vec![(0, 1)]), now).unwrap();
        assert!(!provider.has_wanted() && provider.poll_event().is_none(), "{index} is forgotten");
    }
}

fn offered(offer: Offer) -> Consumer {
    let mut consumer = Consumer::new(request(), provider_name(), Timestamp(0));
    consumer.handle_frame(Frame::Offer(offer), Timestamp(0)).unwrap();
    consumer.accept(2, limits::CREDIT_BYTES).unwrap();
    consumer
}

fn opening(step: i64) -> Frame {
    match step {
        0 => Frame::Offer(offer()),
        _ => Frame::Accept(Accept { data_channels: 2, credit: limits::CREDIT_BYTES }),
    }
}

fn chunks(consumer: &mut Consumer, rng: &mut Rng) -> bool {
    let header = ChunkHeader {
        entry: number(rng) % 20,
        revision: number(rng) as u32 % 3,
        chunk: number(rng) as u32,
        bytes: (number(rng) as u32).clamp(1, limits::CHUNK_BYTES_LARGE),
        form: Form::Plain,
        wire_bytes: 1,
        value: [0; 32].into(),
    };
    match rng.below(4) {
        0 => consumer.expect(&header).is_ok(),
        1 => consumer.handle_bad_chunk(&header).is_ok(),
        _ => true,
    }
}

fn drain_consumer(consumer: &mut Consumer, now: Timestamp, rng: &mut Rng) {
    while let Some(event) = consumer.poll_event() {
        match event {
            ConsumerEvent::Offered(_) => consumer.accept(2, limits::CREDIT_BYTES).unwrap(),
            ConsumerEvent::Entry(entry) => {
                let have = match rng.below(3) {
                    0 => Have::Nothing,
                    1 => Have::Whole([rng.below(2) as u8; 32]),
                    _ => Have::Chunks(vec![(number(rng) as u32, [0; 32]), (0, [1; 32])]),
                };
                let _ = consumer.have(&entry, have);
            }
            ConsumerEvent::Refused(_) | ConsumerEvent::Failed(_) => consumer.noted(Vec::new()),
            ConsumerEvent::Complete(entry) => assert!(entry.kind != EntryKind::File || entry.root.is_some()),
            ConsumerEvent::Settled => panic!("nothing was landed that could be settled"),
            _ => {}
        }
    }
    let mut frames = 0;
    while let Some(frame) = consumer.poll_transmit(now) {
        assert!(frame.encode().len() <= limits::FRAME_BYTES_MAX + 4);
        assert!(!matches!(frame, Frame::Landed(_)), "only `landed` says so");
        frames += 1;
        assert!(frames <= 64, "more is answered than was asked");
    }
}

fn drain_provider(provider: &mut Provider, now: Timestamp, files: &[FileSpec], listed: &mut u64) {
    while let Some(event) = provider.poll_event() {
        match event {
            ProviderEvent::Requested(request) if !request.committed => provider.offer(offer()).unwrap(),
            ProviderEvent::Accepted(_) => {
                for (index, file) in (0..).zip(files) {
                    let entry = entry(index, EntryKind::File, file.size, file.cached);
                    provider.entry(entry).unwrap();
                    *listed += 1;
                }
            }
            ProviderEvent::Landed(_) => assert!(provider.request().is_some_and(|request| request.committed)),
            ProviderEvent::Refused(_) | ProviderEvent::Failed(_) => provider.noted(Vec::new()),
            _ => {}
        }
    }
    while provider.poll_transmit(now).is_some() {}
    let mut sent = 0u64;
    while let Some(chunk) = provider.poll_send() {
        assert!(chunk.entry < *listed && chunk.chunk < chunk.layout.chunks());
        sent += u64::from(chunk.layout.bytes(chunk.chunk));
        if sent > 64 << 20 {
            break;
        }
    }
}

fn frame(rng: &mut Rng, files: &[FileSpec]) -> Frame {
    let index = number(rng) % (files.len() as u64 + 3);
    let some_entry = |rng: &mut Rng, index: u64| {
        let kind = match rng.below(6) {
            0 => EntryKind::Directory,
            1 => EntryKind::Link(vec![b'x'; number(rng) as usize % 6000]),
            2 => EntryKind::Split(SplitCounts::default()),
            _ => EntryKind::File,
        };
        let size = if rng.below(2) == 0 { 0 } else { number(rng) };
        let sealed = rng.below(2) == 0;
        let mut entry = entry(index, kind, size, sealed);
        entry.revision = number(rng) as u32 % 4;
        entry.same_as = (rng.below(4) == 0).then(|| number(rng));
        entry.attributes = (rng.below(4) == 0).then(|| {
            let names = [&b"user.a"[..], b"user.b", b"user.", b"trusted.c"];
            let attribute = |name: &[u8], bytes: u64| attribute(name, bytes as usize % 70_000);
            (0..rng.below(3)).map(|_| attribute(names[rng.below(4) as usize], number(rng))).collect()
        });
        if rng.below(8) == 0 {
            entry.name = [&b""[..], b"/etc/x", b"../x", b"a\0", &[b'y'; 300]][rng.below(5) as usize].to_vec();
        }
        entry
    };
    let what = |rng: &mut Rng| LeftOut {
        name: format!("f{}", number(rng) % 30).into_bytes(),
        code: number(rng) as u16,
        reason: "x".repeat(number(rng) as usize % 3000),
    };
    let ending =
        || Refused { code: 3001, cause: "no".into(), statement: ByteVec::from(vec![1]), temporary: true, facts: None };
    match rng.below(26) {
        0 => Frame::Request(request()),
        25 => Frame::Pieces(Pieces {
            entry: index,
            revision: number(rng) as u32 % 2,
            mean: 1 << rng.below(20),
            pieces: vec![1; number(rng) as usize % 3000].into(),
        }),
        1 => Frame::Offer(offer()),
        2 => Frame::Accept(Accept { data_channels: number(rng) as u8, credit: number(rng) }),
        3..=6 => Frame::Entries((0..rng.below(4)).map(|more| some_entry(rng, more)).collect()),
        7 => Frame::EntriesEnd(EntriesEnd { entries: index, bytes: number(rng) }),
        8..=11 => {
            let chunks = (0..rng.below(3)).map(|_| (number(rng) as u32, number(rng) as u32)).collect();
            Frame::Want(vec![Want { entry: index, revision: number(rng) as u32 % 2, chunks }])
        }
        12 => Frame::Credit(number(rng)),
        13 | 14 => Frame::Sealed(vec![some_entry(rng, index)]),
        15 | 16 => Frame::Again(some_entry(rng, index)),
        17 | 18 => {
            let entry = (rng.below(2) == 0).then_some(index);
            Frame::LeftOut(vec![Omission { entry, what: what(rng) }])
        }
        19 => Frame::Handover(Handover {
            statement: vec![0; number(rng) as usize % 20_000].into(),
            digest: None,
            spent: None,
        }),
        20 => Frame::Landed(vec![1; number(rng) as usize % 20_000].into()),
        21 => Frame::Settled([rng.below(2) as u8; 32].into()),
        22 if rng.below(10) == 0 => Frame::Refused(ending()),
        23 if rng.below(10) == 0 => Frame::Failed(ending()),
        24 => Frame::Kept((0..rng.below(3)).map(|_| number(rng)).collect()),
        _ => Frame::Ping(number(rng)),
    }
}

fn entry(index: u64, kind: EntryKind, size: u64, sealed: bool) -> Entry {
    let content: &[u8] = if let EntryKind::Link(text) = &kind { text } else { b"" };
    let root = sealed.then(|| (*blake3::hash(content).as_bytes()).into());
    Entry {
        index,
        name: format!("f{index}").into_bytes(),
        kind,
        size,
        mode: 0o600,
        mtime_ns: 0,
        root,
        revision: 0,
        same_as: None,
        attributes: None,
    }
}

fn attribute(name: &[u8], bytes: usize) -> Attribute {
    Attribute { name: name.to_vec(), value: vec![1; bytes] }
}

/// Small, or at an edge.
fn number(rng: &mut Rng) -> u64 {
    match rng.below(6) {
        0 => [u64::MAX, u64::MAX - 1, 1 << 63, 1 << 32, (1 << 32) - 1, 1 << 50][rng.below(6) as usize],
        1 => rng.next(),
        _ => rng.below(8),
    }
}
