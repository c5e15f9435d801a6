//! A provider's folder, a line, and a consumer's disk, all in memory and driven by one seed.
//! The consumer's disk keeps only what was made durable when the line breaks.

use bytes::Bytes;
use posthouse_protocol::chunk::{ChunkError, ChunkHeader, Layout, Packing, Subtrees, VerifiedChunk, pack, unpack};
use posthouse_protocol::codec;
use posthouse_protocol::consumer::{Consumer, ConsumerEvent, Expected, Have, Verdict};
use posthouse_protocol::frame::{FrameDecoder, Handover, Offer, Request};
use posthouse_protocol::govern::Quality;
use posthouse_protocol::id::{GrantId, JobId, NodeId, ResourceId, ResourceRef, TransferId};
use posthouse_protocol::job::{Mode, Write};
use posthouse_protocol::limits;
use posthouse_protocol::manifest::{Entry, EntryKind, LeftOut, Manifest};
use posthouse_protocol::provider::{Provider, ProviderEvent, SendChunk, Turn};
use posthouse_protocol::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

#[derive(Debug, Clone)]
pub(crate) struct FileSpec {
    pub(crate) size: u64,
    /// The provider knows its root when it lists it.
    pub(crate) cached: bool,
    /// 0 directory, 1 link, 2 bad name, else a file.
    pub(crate) kind: u8,
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Trouble {
    pub(crate) breaks: u32,
    pub(crate) flips: u32,
    pub(crate) changes: u32,
    /// The consumer cannot land some names.
    pub(crate) refuse_names: bool,
}

/// A file at the provider.
#[derive(Clone)]
struct Given {
    name: Vec<u8>,
    kind: EntryKind,
    content: Vec<u8>,
    mtime_ns: i64,
    cached: bool,
    /// Left out for good, with the reason.
    out: bool,
}

/// A file at the consumer.
#[derive(Default, Clone)]
struct Taken {
    size: u64,
    mtime_ns: i64,
    content: Vec<u8>,
    durable: BTreeMap<u32, [u8; 32]>,
    whole: Option<[u8; 32]>,
}

pub(crate) struct Scene {
    files: Vec<Given>,
    disk: BTreeMap<Vec<u8>, Taken>,
    rng: Rng,
    trouble: Trouble,
    /// The provider's stored statement with the files and omissions it was made of.
    signed: Option<(Handover, Vec<Entry>, Vec<LeftOut>)>,
    /// The consumer has committed: its statement.
    statement: Option<Vec<u8>>,
    settled: bool,
    provider_settled: bool,
    pub(crate) connections: u32,
    pub(crate) resent_chunks: u64,
    pub(crate) rewritten_durable: u64,
    pub(crate) flipped: u64,
    pub(crate) bad_chunks: u64,
}

/// What one connection holds: machines, the two directions of the control channel, data channels.
struct Line {
    provider: Provider,
    consumer: Consumer,
    to_provider: (FrameDecoder, VecDeque<Vec<u8>>),
    to_consumer: (FrameDecoder, VecDeque<Vec<u8>>),
    data: [VecDeque<(ChunkHeader, Bytes)>; 3],
    /// Index of an entry → the file, its revision, whether it is sealed.
    listed: Vec<(usize, u32, bool)>,
    next: usize,
    accepted: bool,
    ended: bool,
    /// Entries at the consumer, by number; and chunks written since the last sync.
    entries: BTreeMap<u64, Entry>,
    volatile: Vec<(Vec<u8>, u32, [u8; 32], u64)>,
}

impl Scene {
    pub(crate) fn new(specs: Vec<FileSpec>, seed: u64, trouble: Trouble) -> Self {
        let mut rng = Rng(seed | 1);
        let files = specs.iter().enumerate().map(|(at, spec)| Given::new(at, spec, &mut rng)).collect();
        Self {
            files,
            disk: BTreeMap::new(),
            rng,
            trouble,
            signed: None,
            statement: None,
            settled: false,
            provider_settled: false,
            connections: 0,
            resent_chunks: 0,
            rewritten_durable: 0,
            flipped: 0,
            bad_chunks: 0,
        }
    }

    /// Runs connections until both sides hold both statements, then compares what landed with what was there.
    pub(crate) fn run(&mut self) {
        while !(self.settled && self.provider_settled) {
            self.connections += 1;
            assert!(self.connections <= 40, "it does not end");
            let mut line = self.connect();
            let breaks = self.trouble.breaks > 0;
            let steps = if breaks { self.rng.below(400) + 1 } else { u64::MAX };
            self.trouble.breaks = self.trouble.breaks.saturating_sub(1);
            let mut idle = 0;
            for _ in 0..steps {
                if (self.settled && self.provider_settled) || idle > 2000 {
                    break;
                }
                idle = if self.step(&mut line) { 0 } else { idle + 1 };
            }
            assert!(breaks || (self.settled && self.provider_settled), "it hangs: {}", line.describe());
            self.resent_chunks += line.consumer.counters().resent_chunks;
            self.bad_chunks += line.consumer.counters().bad_chunks;
            // What was not synced is lost with the line (and here the process with it).
            for (name, chunk, _, _) in line.volatile.drain(..) {
                if let Some(taken) = self.disk.get_mut(&name) {
                    wipe(taken, chunk);
                }
            }
        }
        let (_, entries, left_out) = self.signed.as_ref().expect("it was signed");
        for entry in entries.iter().filter(|entry| entry.kind == EntryKind::File) {
            let file = self.files.iter().find(|file| file.name == entry.name).expect("nothing that was not there");
            let taken = &self.disk[&entry.name];
            assert!(taken.content == file.content, "{} landed torn", entry.name.escape_ascii());
            assert_eq!(taken.whole, entry.root.map(|root| *root));
        }
        for file in &self.files {
            let landed = entries.iter().any(|entry| entry.name == file.name);
            let omitted = left_out.iter().any(|what| what.name == file.name);
            assert!(landed != omitted, "{} is both or neither", file.name.escape_ascii());
        }
    }

    fn connect(&mut self) -> Line {
        let now = Timestamp(0);
        let consumer = match &self.statement {
            Some(statement) => Consumer::committed(request(), provider_name(), statement.clone(), now),
            None => Consumer::new(request(), provider_name(), now),
        };
        Line {
            provider: Provider::new(consumer_name(), now),
            consumer,
            to_provider: Default::default(),
            to_consumer: Default::default(),
            data: Default::default(),
            listed: Vec::new(),
            next: 0,
            accepted: false,
            ended: false,
            entries: BTreeMap::new(),
            volatile: Vec::new(),
        }
    }

    /// One thing happens somewhere; false if it could not.
    fn step(&mut self, line: &mut Line) -> bool {
        let now = Timestamp(0);
        match self.rng.below(8) {
            0 => self.list(line),
            1 => self.seal(line),
            2 => match line.provider.poll_send() {
                Some(send) => {
                    let channel = self.rng.below(3) as usize;
                    let chunk = self.read(line, send);
                    line.data[channel].push_back(chunk);
                    self.provider_events(line);
                    true
                }
                None => false,
            },
            3 => {
                let channel = self.rng.below(3) as usize;
                let Some((header, body)) = line.data[channel].pop_front() else { return false };
                self.arrive(line, header, body);
                true
            }
            4 => {
                let Some(bytes) = line.to_provider.1.pop_front() else { return false };
                line.to_provider.0.feed(&bytes).unwrap();
                while let Some(frame) = line.to_provider.0.take().unwrap() {
                    line.provider.handle_frame(frame, now).unwrap();
                    self.provider_events(line);
                }
                true
            }
            5 => {
                let Some(bytes) = line.to_consumer.1.pop_front() else { return false };
                line.to_consumer.0.feed(&bytes).unwrap();
                while let Some(frame) = line.to_consumer.0.take().unwrap() {
                    line.consumer.handle_frame(frame, now).unwrap();
                    self.consumer_events(line);
                }
                true
            }
            6 => {
                let mut moved = false;
                while let Some(frame) = line.provider.poll_transmit(now) {
                    line.to_consumer.1.extend(self.rng.pieces(&frame.encode()));
                    moved = true;
                }
                while let Some(frame) = line.consumer.poll_transmit(now) {
                    line.to_provider.1.extend(self.rng.pieces(&frame.encode()));
                    moved = true;
                }
                moved
            }
            _ => self.sync(line),
        }
    }

    // ---- the provider's side

    fn list(&mut self, line: &mut Line) -> bool {
        if !line.accepted || line.ended || line.provider.room() == 0 {
            return false;
        }
        if let Some((_, entries, left_out)) = self.signed.clone() {
            // Signed before: exactly what was signed is listed again.
            for what in left_out {
                line.provider.left_out(None, what).unwrap();
            }
            for entry in entries {
                let file = self.files.iter().position(|file| file.name == entry.name).unwrap();
                line.listed.push((file, 0, true));
                line.provider.entry(entry).unwrap();
            }
            line.ended = true;
            line.provider.entries_end().unwrap();
            self.provider_events(line);
            return true;
        }
        let Some(file) = self.files.get(line.next) else {
            line.ended = true;
            line.provider.entries_end().unwrap();
            self.provider_events(line);
            return true;
        };
        if file.out {
            line.provider
                .left_out(None, LeftOut { name: file.name.clone(), code: 2010, reason: "out".into() })
                .unwrap();
        } else {
            let sealed = file.cached || file.kind != EntryKind::File;
            let entry = file.entry(line.listed.len() as u64, 0, sealed);
            line.listed.push((line.next, 0, sealed));
            line.provider.entry(entry).unwrap();
        }
        line.next += 1;
        true
    }

    /// Seals an entry that is not yet, or finds that its file has changed.
    fn seal(&mut self, line: &mut Line) -> bool {
        if !line.accepted || line.listed.is_empty() {
            return false;
        }
        let index = self.rng.below(line.listed.len() as u64) as usize;
        let (at, revision, sealed) = line.listed[index];
        if sealed {
            return false;
        }
        let file = &mut self.files[at];
        if self.trouble.changes > 0 && self.rng.below(3) == 0 {
            self.trouble.changes -= 1;
            file.mtime_ns += 1;
            if revision >= 2 {
                file.out = true;
                line.listed[index].2 = true;
                let what = LeftOut { name: file.name.clone(), code: 2010, reason: "it kept changing".into() };
                line.provider.left_out(Some(index as u64), what).unwrap();
            } else {
                let size = self.rng.below(3 << 20);
                file.content = content(size, self.rng.next());
                line.listed[index].1 += 1;
                line.provider.again(file.entry(index as u64, revision + 1, false)).unwrap();
            }
        } else {
            line.listed[index].2 = true;
            line.provider.sealed(file.entry(index as u64, revision, true)).unwrap();
        }
        self.provider_events(line);
        true
    }

    fn read(&mut self, line: &mut Line, send: SendChunk) -> (ChunkHeader, Bytes) {
        let (at, revision, _) = line.listed[send.entry as usize];
        assert_eq!(revision, send.revision);
        chunk(&self.files[at].content, send)
    }

    fn provider_events(&mut self, line: &mut Line) {
        while let Some(event) = line.provider.poll_event() {
            match event {
                ProviderEvent::Requested(request) if request.committed => {}
                ProviderEvent::Requested(_) => line.provider.offer(offer()).unwrap(),
                ProviderEvent::Accepted(_) => line.accepted = true,
                ProviderEvent::Wanted { .. } => {}
                ProviderEvent::LeftOut(index, _) => {
                    let (at, _, sealed) = &mut line.listed[index as usize];
                    self.files[*at].out = true;
                    *sealed = true;
                }
                ProviderEvent::Ready => {
                    let handover = manifest(&line.provider);
                    if let Some((signed, ..)) = &self.signed {
                        assert_eq!(*signed, handover, "the same entries make the same manifest");
                    } else {
                        let files = self.files.iter().filter(|file| !file.out);
                        let entries = files.enumerate().map(|(at, file)| file.entry(at as u64, 0, true)).collect();
                        let left_out = line.provider.left_out_list().iter().collect();
                        self.signed = Some((handover.clone(), entries, left_out));
                    }
                    line.provider.handover(handover).unwrap();
                }
                ProviderEvent::Landed(statement) => {
                    assert_eq!(Some(&statement), self.statement.as_ref());
                    self.provider_settled = true;
                    line.provider.settled(codec::sha256(&statement)).unwrap();
                }
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    // ---- the consumer's side

    fn consumer_events(&mut self, line: &mut Line) {
        while let Some(event) = line.consumer.poll_event() {
            match event {
                ConsumerEvent::Offered(_) => line.consumer.accept(2, limits::CREDIT_BYTES / 4).unwrap(),
                ConsumerEvent::Entry(entry) => self.answer(line, entry),
                ConsumerEvent::Again(entry) => {
                    line.volatile.retain(|(name, ..)| *name != entry.name);
                    self.disk.insert(entry.name.clone(), Taken::new(&entry));
                    let may_refuse = self.trouble.refuse_names && self.signed.is_none();
                    if may_refuse && line.consumer.awaits_answer(entry.index) && self.rng.below(4) == 0 {
                        let what = LeftOut { name: entry.name.clone(), code: 2020, reason: "not any more".into() };
                        line.consumer.leave_out(&entry, what).unwrap();
                    } else {
                        line.consumer.have(&entry, Have::Nothing).unwrap();
                    }
                    line.entries.insert(entry.index, entry);
                }
                ConsumerEvent::Complete(entry) => {
                    if entry.kind == EntryKind::File {
                        let taken = self.disk.get_mut(&entry.name).expect("it was begun");
                        let root = *blake3::hash(&taken.content).as_bytes();
                        assert_eq!(Some(root), entry.root.map(|root| *root), "complete is what adds up");
                        taken.mtime_ns = entry.mtime_ns;
                        self.sync(line);
                        self.disk.get_mut(&entry.name).unwrap().whole = Some(root);
                    }
                }
                ConsumerEvent::LeftOut(..) => {}
                ConsumerEvent::HandedOver(handover) => {
                    let manifest: Manifest = codec::decode_strict(&handover.statement, 16 << 10).unwrap();
                    line.consumer.check(&manifest).unwrap();
                    self.sync(line);
                    let statement = codec::sha256(&handover.statement).to_vec();
                    self.statement = Some(statement.clone());
                    line.consumer.landed(statement).unwrap();
                }
                ConsumerEvent::Settled => self.settled = true,
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    fn answer(&mut self, line: &mut Line, entry: Entry) {
        line.entries.insert(entry.index, entry.clone());
        if entry.kind != EntryKind::File {
            return line.consumer.have(&entry, Have::Nothing).unwrap();
        }
        if self.trouble.refuse_names && self.signed.is_none() && self.rng.below(6) == 0 && entry.revision == 0 {
            let what = LeftOut { name: entry.name.clone(), code: 2008, reason: "not on this disk".into() };
            return line.consumer.leave_out(&entry, what).unwrap();
        }
        let taken = self.disk.entry(entry.name.clone()).or_insert_with(|| Taken::new(&entry));
        let have = if taken.size != entry.size || taken.mtime_ns != entry.mtime_ns {
            *taken = Taken::new(&entry);
            Have::Nothing
        } else if let Some(root) = taken.whole {
            Have::Whole(root)
        } else {
            Have::Chunks(taken.durable.iter().map(|(chunk, value)| (*chunk, *value)).collect())
        };
        line.consumer.have(&entry, have).unwrap();
        self.consumer_events(line);
    }

    fn arrive(&mut self, line: &mut Line, header: ChunkHeader, body: Bytes) {
        let layout = match line.consumer.expect(&header).unwrap() {
            Expected::Take(layout) => layout,
            Expected::Skip => return,
        };
        let flip = self.trouble.flips > 0 && self.rng.below(3) == 0;
        let body = if flip {
            self.trouble.flips -= 1;
            self.flipped += 1;
            flip_bit(&body, self.rng.next())
        } else {
            body
        };
        let verified = unpacked(&header, &body).and_then(|content| VerifiedChunk::verify(&header, layout, content));
        let Ok(verified) = verified else {
            assert!(flip);
            line.consumer.handle_bad_chunk(&header).unwrap();
            return;
        };
        if flip {
            // zstd's own frame has a few bits that mean nothing; only the content counts.
            self.flipped -= 1;
            let given = self.files.iter().find(|file| file.name == line.entries[&header.entry].name).unwrap();
            let at = verified.offset() as usize;
            assert!(given.content[at..].starts_with(verified.content()), "a flipped bit went through");
        }
        let meta = verified.meta();
        if line.consumer.handle_chunk(meta).unwrap() == Verdict::Write {
            let name = line.entries[&meta.entry()].name.clone();
            let taken = self.disk.get_mut(&name).unwrap();
            let at = verified.offset() as usize;
            taken.content[at..at + verified.content().len()].copy_from_slice(verified.content());
            self.rewritten_durable += u64::from(taken.durable.contains_key(&meta.chunk()));
            line.volatile.push((name, meta.chunk(), meta.value(), meta.credit()));
        }
        self.consumer_events(line);
    }

    fn sync(&mut self, line: &mut Line) -> bool {
        let mut credit = 0;
        for (name, chunk, value, cost) in line.volatile.drain(..) {
            self.disk.get_mut(&name).unwrap().durable.insert(chunk, value);
            credit += cost;
        }
        line.consumer.durable(credit);
        credit > 0
    }
}

/// Chunks are at hand in an order of their own, some twice: each is sent once its turn has come, and once only.
pub(crate) fn in_an_order_of_its_own(specs: Vec<FileSpec>, seed: u64) {
    let mut rng = Rng(seed | 1);
    let files: Vec<Given> = specs.iter().enumerate().map(|(at, spec)| Given::new(at, spec, &mut rng)).collect();
    let content = |at: usize| if files[at].kind == EntryKind::File { files[at].content.len() as u64 } else { 0 };
    let chunks = |at: usize| (0..Layout::new(content(at)).unwrap().chunks()).map(move |chunk| (at, chunk));
    let mut at_hand: Vec<(usize, u32)> = (0..files.len()).flat_map(chunks).collect();
    at_hand.extend(at_hand.clone().into_iter().filter(|_| rng.below(3) == 0));
    for at in (1..at_hand.len()).rev() {
        at_hand.swap(at, rng.below(at as u64 + 1) as usize);
    }
    let mut provider = Provider::new(consumer_name(), Timestamp(0));
    let mut consumer = Consumer::new(request(), provider_name(), Timestamp(0));
    let mut landed: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let (mut listed, mut ended, mut sent, mut handed_over) = (0, false, BTreeSet::new(), None);
    for _ in 0..100_000 {
        while let Some(frame) = consumer.poll_transmit(Timestamp(0)) {
            provider.handle_frame(frame, Timestamp(0)).unwrap();
        }
        while let Some(event) = provider.poll_event() {
            match event {
                ProviderEvent::Requested(_) => provider.offer(offer()).unwrap(),
                ProviderEvent::Accepted(_) => ended = true,
                ProviderEvent::Ready => {
                    let handover = manifest(&provider);
                    provider.handover(handover).unwrap();
                }
                _ => {}
            }
        }
        while ended && provider.room() > 0 && listed < files.len() {
            provider.entry(files[listed].entry(listed as u64, 0, true)).unwrap();
            listed += 1;
        }
        if ended && listed == files.len() {
            provider.entries_end().unwrap();
            ended = false;
        }
        while let Some(frame) = provider.poll_transmit(Timestamp(0)) {
            consumer.handle_frame(frame, Timestamp(0)).unwrap();
        }
        while let Some(event) = consumer.poll_event() {
            match event {
                // Room for little at a time.
                ConsumerEvent::Offered(_) => consumer.accept(1, 2 << 20).unwrap(),
                ConsumerEvent::Entry(entry) => {
                    landed.insert(entry.name.clone(), vec![0; entry.size as usize]);
                    consumer.have(&entry, Have::Nothing).unwrap();
                }
                ConsumerEvent::HandedOver(handover) => handed_over = Some(handover),
                _ => {}
            }
        }
        if handed_over.is_some() {
            break;
        }
        let Some((at, number)) = at_hand.pop() else { continue };
        match provider.poll_this(at as u64, 0, number) {
            Turn::NotYet => at_hand.insert(0, (at, number)),
            // A name that is refused, or a repeat.
            Turn::Never => assert!(!landed.contains_key(&files[at].name) || sent.contains(&(at, number))),
            Turn::Now(send) => {
                assert!(sent.insert((at, number)), "it is sent twice");
                let (header, body) = chunk(&files[at].content, send);
                let Expected::Take(layout) = consumer.expect(&header).unwrap() else { panic!("it was wanted") };
                let verified = VerifiedChunk::verify(&header, layout, unpacked(&header, &body).unwrap()).unwrap();
                let (offset, content) = (verified.offset() as usize, verified.content());
                landed.get_mut(&files[at].name).unwrap()[offset..offset + content.len()].copy_from_slice(content);
                assert_eq!(consumer.handle_chunk(verified.meta()).unwrap(), Verdict::Write);
                consumer.durable(verified.meta().credit());
            }
        }
    }
    let handover = handed_over.expect("it was handed over");
    let manifest: Manifest = codec::decode_strict(&handover.statement, 16 << 10).unwrap();
    // No rows have moved, and so none were checked.
    let quality = Some(Quality { rows: 1, qualified: 1, failed: Vec::new() });
    let lie = consumer.check(&Manifest { quality, ..manifest.clone() }).unwrap_err();
    assert!(lie.cause.contains("quality"), "{lie}");
    consumer.check(&manifest).unwrap();
    for file in files.iter().filter(|file| file.kind == EntryKind::File) {
        match landed.get(&file.name) {
            Some(content) => assert!(*content == file.content),
            None => assert!(consumer.left_out().contains(&file.name)),
        }
    }
    assert!(!provider.has_wanted());
}

impl Given {
    pub(crate) fn new(at: usize, spec: &FileSpec, rng: &mut Rng) -> Self {
        let (name, kind) = match spec.kind {
            0 => (format!("{at:04} d"), EntryKind::Directory),
            1 => (format!("{at:04} l"), EntryKind::Link(format!("../target {at}").into_bytes())),
            2 => (format!("{at:04}/../bad"), EntryKind::File),
            _ => (format!("{at:04} 文件"), EntryKind::File),
        };
        let content = match &kind {
            EntryKind::File => content(spec.size, rng.next()),
            EntryKind::Link(text) => text.clone(),
            _ => Vec::new(),
        };
        Self { name: name.into_bytes(), kind, content, mtime_ns: at as i64, cached: spec.cached, out: false }
    }
    fn entry(&self, index: u64, revision: u32, sealed: bool) -> Entry {
        let root = (sealed && self.kind != EntryKind::Directory).then(|| *blake3::hash(&self.content).as_bytes());
        Entry {
            index,
            name: self.name.clone(),
            kind: self.kind.clone(),
            size: self.content.len() as u64,
            mode: 0o644,
            mtime_ns: self.mtime_ns,
            root: root.map(Into::into),
            revision,
            same_as: None,
            attributes: None,
        }
    }
}

impl Taken {
    fn new(entry: &Entry) -> Self {
        let content = vec![0; entry.size as usize];
        Self { size: entry.size, mtime_ns: entry.mtime_ns, content, ..Self::default() }
    }
}

impl Line {
    fn describe(&self) -> String {
        format!(
            "accepted {}, ended {}, listed {:?}, room {}, provider {:?}, consumer {:?}",
            self.accepted,
            self.ended,
            self.listed,
            self.provider.room(),
            self.provider.counters(),
            self.consumer.counters()
        )
    }
}

pub(crate) fn request() -> Request {
    Request {
        transfer: TransferId::from_random([1; 16]),
        job: JobId::parse("scans").unwrap(),
        resource: ResourceId::parse("scans").unwrap(),
        mode: Mode::Full,
        write: Write::Upsert,
        watermark: None,
        route: Vec::new(),
        consumer_epoch: 1,
        succeeds: None,
        committed: false,
        formats: None,
        rules: None,
    }
}

pub(crate) fn offer() -> Offer {
    Offer {
        transfer: request().transfer,
        grant: GrantId::from_random([2; 16]),
        policy_epoch: 1,
        policy_sequence: 1,
        provider_epoch: 1,
        contract: None,
        catalog: None,
        watermark_to: None,
        salt: [3; 32].into(),
        data_channels: 3,
        digest_key: [4; 32].into(),
        watermark_column: None,
        native: None,
        governed: None,
        operation: None,
        database_line: None,
    }
}

fn manifest(provider: &Provider) -> Handover {
    let totals = provider.totals().expect("ready has totals").clone();
    let left_out = provider.left_out_list();
    let manifest = Manifest {
        transfer: request().transfer,
        job: request().job,
        mode: Mode::Full,
        write: Write::Upsert,
        resource: ResourceRef { node: provider_name(), resource: request().resource },
        catalog: None,
        contract_sha256: None,
        filter_sha256: None,
        grant: offer().grant,
        policy_epoch: 1,
        policy_sequence: 1,
        route: Vec::new(),
        provider: provider_name(),
        provider_department: None,
        provider_epoch: 1,
        consumer: consumer_name(),
        consumer_epoch: 1,
        watermark_from: None,
        watermark_to: None,
        counts: totals.counts,
        chunk_size: limits::CHUNK_BYTES,
        entries: totals.entries,
        content_root: totals.content_root.into(),
        entries_sha256: totals.entries_sha256.into(),
        files_b3_sha256: totals.files_b3_sha256.map(Into::into),
        digest_commitment: None,
        left_out: left_out.listed(),
        left_out_sha256: left_out.sha256().map(Into::into),
        started: Timestamp(0),
        sealed: Timestamp(0),
        succeeds: None,
        algorithms: vec!["blake3".into()],
        governed: None,
        quality: None,
        database_line: None,
    };
    Handover { statement: codec::encode(&manifest).into(), digest: None, spent: None }
}

pub(crate) fn provider_name() -> NodeId {
    NodeId::parse("police.xian.example").unwrap()
}
pub(crate) fn consumer_name() -> NodeId {
    NodeId::parse("housing.xian.example").unwrap()
}

fn chunk(content: &[u8], send: SendChunk) -> (ChunkHeader, Bytes) {
    let from = send.layout.offset(send.chunk) as usize;
    let part = Bytes::copy_from_slice(&content[from..from + send.layout.bytes(send.chunk) as usize]);
    let packing = [Packing::Zstd, Packing::Lz4][send.chunk as usize % 2];
    let (form, body) = pack(part.clone(), packing);
    let header = ChunkHeader {
        entry: send.entry,
        revision: send.revision,
        chunk: send.chunk,
        bytes: part.len() as u32,
        form,
        wire_bytes: body.len() as u32,
        value: send.layout.value(send.chunk, &part).into(),
    };
    (ChunkHeader::decode(&header.encode()).unwrap(), body)
}

fn unpacked(header: &ChunkHeader, body: &[u8]) -> Result<Bytes, ChunkError> {
    let mut content = vec![0; header.bytes as usize];
    unpack(header, body, &mut content)?;
    Ok(content.into())
}

/// What a break loses: the chunk's bytes.
fn wipe(taken: &mut Taken, chunk: u32) {
    let layout = Layout::new(taken.size).unwrap();
    let from = layout.offset(chunk) as usize;
    let to = (from + layout.bytes(chunk) as usize).min(taken.content.len());
    taken.content[from..to].fill(0);
}

fn flip_bit(body: &Bytes, at: u64) -> Bytes {
    let mut body = body.to_vec();
    let bit = at % (body.len() as u64 * 8);
    body[(bit / 8) as usize] ^= 1 << (bit % 8);
    body.into()
}

/// Half of it compressible.
fn content(size: u64, seed: u64) -> Vec<u8> {
    let mut out = vec![0; size as usize];
    let half = out.len() / 2;
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut out[..half]);
    let root = Subtrees::new(Layout::new(0).unwrap()).root().unwrap();
    out[half..].iter_mut().enumerate().for_each(|(at, byte)| *byte = root[at / 999 % 32]);
    out
}

pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 33) % bound.max(1)
    }
    /// The line cuts bytes where it likes.
    fn pieces(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let cut = self.below(bytes.len() as u64 + 1) as usize;
        let (left, right) = bytes.split_at(cut);
        [left, right].into_iter().filter(|piece| !piece.is_empty()).map(<[u8]>::to_vec).collect()
    }
}
