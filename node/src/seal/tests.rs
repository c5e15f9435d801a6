//! A split from its source's bytes to the spool.

use super::*;
use crate::extract::Extraction;
use crate::govern::Orders;
use posthouse_connectors::{Connection, Destination, Landing, Plan, Read, Sink, Source, TableSpec};
use posthouse_platform::disk::RealDisk;
use posthouse_protocol::chunk::Layout;
use posthouse_protocol::format::{Format, Native};
use posthouse_protocol::id::TransferId;
use posthouse_protocol::pgcopy;
use posthouse_protocol::schema::{Contract, ContractType, Item};

/// Hands out one split of one column of json, as PostgreSQL writes it.
struct Raw(Vec<&'static str>);

impl Raw {
    fn stream(values: &[&str]) -> Vec<u8> {
        let mut bytes = pgcopy::HEADER.to_vec();
        for value in values {
            bytes.extend_from_slice(&[0, 1]);
            bytes.extend_from_slice(&(value.len() as u32).to_be_bytes());
            bytes.extend_from_slice(value.as_bytes());
        }
        bytes.extend_from_slice(&pgcopy::TRAILER);
        bytes
    }
}

impl Connection for Raw {
    fn probe(&mut self) -> Result<(), Problem> {
        Ok(())
    }
    fn source(&mut self, _: &TableSpec) -> Result<Box<dyn Source>, Problem> {
        Ok(Box::new(Self(self.0.clone())))
    }
    fn destination(&mut self, _: &Landing) -> Result<Box<dyn Destination>, Problem> {
        Err(Problem::new(Code::InsideFailed))
    }
}

impl Source for Raw {
    fn begin(&mut self, _: &Read) -> Result<Plan, Problem> {
        let item = Item { name: "said".to_owned(), r#type: ContractType::Json, nullable: true, comment: None };
        Ok(Plan {
            contract: Contract { items: vec![item], key: vec![] },
            watermark: None,
            position: None,
            splits: vec!["all".to_owned()],
            rows_estimate: None,
            bytes_estimate: None,
            native: Some(Native::new(Format::PgCopy, vec!["json".to_owned()])),
            apart: None,
            snapshot_max: None,
        })
    }
    fn read(&mut self, _: &str, sink: &mut dyn Sink) -> Result<SplitCounts, Problem> {
        for piece in Self::stream(&self.0).chunks(5) {
            sink.raw(piece)?;
        }
        let rows = self.0.len() as u64;
        Ok(SplitCounts { read: rows, sent: rows, ..SplitCounts::default() })
    }
}

struct Scene {
    folder: tempfile::TempDir,
    spool: Spool,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let id = TransferId::from_random([7; 16]);
        let spool = Spool::open(folder.path(), &id, Arc::new(RealDisk)).unwrap();
        Self { folder, spool }
    }
    /// As after a restart.
    fn again(&self) -> Spool {
        Spool::open(self.folder.path(), &TransferId::from_random([7; 16]), Arc::new(RealDisk)).unwrap()
    }
    fn seal(&self, position: u64, values: &[&'static str], lease: Option<Lease>) -> Sealed {
        let table = TableSpec {
            table: Some("t".to_owned()),
            query: None,
            key: vec![],
            watermark: None,
            late_ms: 0,
            resource: "node.example/t".to_owned(),
        };
        let raw = Box::new(Raw(values.to_vec()));
        let mut extraction =
            Extraction::begin(raw, &table, &Read::default(), &Orders::default(), Timestamp(0)).unwrap();
        let written = self.spool.write_next(&mut extraction, position, [7; 32], lease).unwrap().unwrap();
        assert!(self.spool.write_next(&mut extraction, position + 1, [7; 32], None).is_none());
        written.seal().unwrap()
    }
    fn is_file(&self, position: u64) -> bool {
        self.spool.path(position).exists()
    }
}

/// What is sent of a split, and whether its chunks have the values that are known of them.
fn bytes(spool: &Spool, position: u64) -> Vec<u8> {
    let (bytes, values) = spool.read(position).unwrap();
    let content = match bytes {
        SplitBytes::File(mut file, _) => {
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut file, &mut content).unwrap();
            content
        }
        SplitBytes::Held(held) => (0..).map_while(|chunk| held.chunk(chunk)).flatten().collect(),
    };
    let layout = Layout::new(content.len() as u64).unwrap();
    for chunk in 0..layout.chunks() {
        let (from, to) = (layout.offset(chunk) as usize, layout.offset(chunk) as usize + layout.bytes(chunk) as usize);
        let value = layout.value(chunk, &content[from..to]);
        assert!(values.as_ref().is_none_or(|values| values[chunk as usize] == value));
    }
    content
}

fn seal(values: &[&'static str]) -> (Sealed, Vec<u8>) {
    let scene = Scene::new();
    let sealed = scene.seal(0, values, None);
    assert!(scene.is_file(0));
    (sealed, bytes(&scene.spool, 0))
}

/// JSON of a length.
fn long(bytes: usize) -> &'static str {
    Box::leak(format!("\"{}\"", "x".repeat(bytes - 2)).into_boxed_str())
}

#[test]
fn a_split_is_held_as_it_would_be_written() {
    for values in [vec!["1"], vec![long(1 << 20), "2"], vec![long((1 << 20) - 32)], vec![long(3 << 20)]] {
        let scene = Scene::new();
        let memory = HeldMemory::new(96 << 20);
        let held = scene.seal(0, &values, memory.try_lease());
        let written = scene.seal(1, &values, None);
        assert!(!scene.is_file(0) && scene.is_file(1));
        assert_eq!((held.split.root, held.split.size), (written.split.root, written.split.size));
        assert_eq!(bytes(&scene.spool, 0), bytes(&scene.spool, 1));
    }
}

#[test]
fn a_split_that_outgrows_its_lease_goes_on_in_its_file() {
    let scene = Scene::new();
    let memory = HeldMemory::new(48 << 20);
    let values = [long(7 << 20), "1", long(7 << 20), "2"];
    let sealed = scene.seal(0, &values, memory.try_lease());
    assert!(scene.is_file(0));
    assert_eq!((sealed.split.counts.sent, bytes(&scene.spool, 0)), (4, Raw::stream(&values)));
    let (first, second) = (memory.try_lease(), memory.try_lease());
    assert!(first.is_some() && second.is_some() && memory.try_lease().is_none(), "its lease is free again");
}

#[test]
fn a_held_split_keeps_what_it_takes_of_the_memory_until_it_is_released_and_read() {
    let scene = Scene::new();
    let memory = HeldMemory::new(48 << 20);
    let leases = |memory: &HeldMemory| std::iter::from_fn(|| memory.try_lease()).collect::<Vec<_>>().len();
    assert_eq!(leases(&memory), 2);
    scene.seal(0, &[long(3 << 20)], memory.try_lease());
    assert_eq!(leases(&memory), 1);
    let reading = scene.spool.read(0).unwrap();
    scene.spool.release(&[0]).unwrap();
    assert_eq!(leases(&memory), 1);
    drop(reading);
    assert_eq!(leases(&memory), 2);
    assert_eq!(leases(&HeldMemory::new(16 << 20)), 0);
}

#[tokio::test]
async fn memory_that_is_too_small_for_one_split_is_not_waited_for() {
    assert!(HeldMemory::new(16 << 20).lease().await.is_none());
    let memory = HeldMemory::new(24 << 20);
    let lease = memory.lease().await.unwrap();
    let waiting = tokio::spawn({
        let memory = memory.clone();
        async move { memory.lease().await.is_some() }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    drop(lease);
    assert!(waiting.await.unwrap());
}

#[test]
fn what_is_written_down_outlives_the_process_and_what_the_consumer_keeps_is_gone() {
    let scene = Scene::new();
    let memory = HeldMemory::new(96 << 20);
    for position in 0..4 {
        scene.seal(position, &["1", long(2 << 20)], memory.try_lease().filter(|_| position < 3));
    }
    let all = bytes(&scene.spool, 0);
    scene.spool.release(&[1]).unwrap();
    scene.spool.write_down().unwrap();
    assert_eq!([0, 1, 2, 3].map(|position| scene.is_file(position)), [true, false, true, true]);
    for position in [0, 2, 3] {
        assert_eq!(bytes(&scene.spool, position), all);
        assert_eq!(bytes(&scene.again(), position), all);
    }
    scene.spool.release(&[3, 3]).unwrap();
    for position in [1, 3] {
        assert!(!scene.is_file(position));
        let problem = scene.spool.read(position).err().unwrap();
        assert_eq!(problem.code, Code::SnapshotLost, "{problem}");
    }
    scene.spool.remove().unwrap();
    assert!(!scene.spool.path(0).parent().unwrap().exists());
}

#[test]
fn a_raw_row_that_cannot_be_carried_leaves_its_split_and_the_others_stay() {
    let (sealed, bytes) = seal(&["1", "{\"a\":1,\"a\":2}", "[2]", "\"\\ud800\"", "3"]);
    let expected = SplitCounts { read: 5, sent: 3, quarantined: 2, ..SplitCounts::default() };
    assert_eq!(sealed.split.counts, expected);
    let mut rows = Vec::new();
    sealed
        .bad
        .each(&mut |row| {
            rows.push(row.clone());
            Ok(())
        })
        .unwrap();
    let bad: Vec<_> = rows.iter().map(|row| (row.key.as_str(), row.original.as_str())).collect();
    assert_eq!(bad, [("row 1", r#"{"said":"{\"a\":1,\"a\":2}"}"#), ("row 3", r#"{"said":"\"\\ud800\""}"#)]);
    assert!(rows[0].reason.starts_with("the column `said` holds text that is not JSON"), "{rows:?}");
    // What is left is what a table without them would have been, to the byte.
    let (without, same) = seal(&["1", "[2]", "3"]);
    assert_eq!(bytes, same);
    assert_eq!((sealed.split.root, sealed.split.digest), (without.split.root, without.split.digest));
    assert_eq!(sealed.buckets.total(), without.buckets.total());
}
