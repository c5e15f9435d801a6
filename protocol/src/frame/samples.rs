//! One of each frame, for tests of the line and of the documentation.

use super::*;
use crate::centre::{CentreAnswer, CentreRequest};
use crate::manifest::{Attribute, EntryKind};

pub(crate) fn samples() -> Vec<Frame> {
    let transfer = TransferId::from_random([1; 16]);
    let job = || JobId::parse("scans").unwrap();
    let resource = || ResourceId::parse("permits").unwrap();
    let refused = || Refused {
        code: 3002,
        cause: "no grant".into(),
        statement: vec![1, 2].into(),
        temporary: false,
        facts: Some(vec![("until".into(), "2026-11-22T00:00:00Z".into())]),
    };
    let entry = Entry {
        index: 7,
        name: "人口/a.pdf".into(),
        kind: EntryKind::File,
        size: 1 << 33,
        mode: 0o640,
        mtime_ns: -1,
        root: Some([3; 32].into()),
        revision: 0,
        same_as: Some(6),
        attributes: Some(vec![Attribute { name: b"user.tag".to_vec(), value: vec![0, 255] }]),
    };
    let omission = Omission { entry: Some(7), what: LeftOut { name: b"a".to_vec(), code: 2009, reason: "why".into() } };
    vec![
        Frame::Hello(Hello::new(Purpose::Data(transfer.clone(), 1), 3)),
        Frame::Request(Request {
            transfer: transfer.clone(),
            job: job(),
            resource: resource(),
            mode: Mode::Incremental,
            write: Write::Upsert,
            watermark: Some(Watermark::Timestamp(-5)),
            route: Vec::new(),
            consumer_epoch: 2,
            succeeds: None,
            committed: false,
            formats: Some(vec!["pg-copy/1".into()]),
            rules: Some(vec![Governed { column: Some("born".into()), what: "dates = yyyyMMdd".into() }]),
        }),
        Frame::Offer(Offer {
            transfer: transfer.clone(),
            grant: GrantId::from_random([2; 16]),
            policy_epoch: 1,
            policy_sequence: 2,
            provider_epoch: 3,
            contract: Some(Contract { items: Vec::new(), key: vec!["id".into()] }),
            catalog: None,
            watermark_to: None,
            salt: [4; 32].into(),
            data_channels: 2,
            digest_key: [5; 32].into(),
            watermark_column: Some("updated_at".into()),
            native: Some(Native { format: "pg-copy/1".into(), columns: vec!["int8".into()] }),
            governed: Some(vec![Governed { column: Some("phone".into()), what: "keep 3+4".into() }]),
            operation: Some("posthouse_operation".into()),
            database_line: Some("not encrypted".into()),
        }),
        Frame::Accept(Accept { data_channels: 2, credit: 32 << 20 }),
        Frame::Entries(vec![entry.clone()]),
        Frame::EntriesEnd(EntriesEnd { entries: 8, bytes: 9 }),
        Frame::Want(vec![Want { entry: 7, revision: 0, chunks: vec![(0, 5), (9, 10)] }]),
        Frame::Pieces(Pieces { entry: 7, revision: 0, mean: 16 << 10, pieces: vec![1; 24].into() }),
        Frame::Credit(1 << 20),
        Frame::Kept(vec![0, 1 << 20]),
        Frame::Sealed(vec![entry.clone()]),
        Frame::Again(entry),
        Frame::LeftOut(vec![omission]),
        Frame::Handover(Handover {
            statement: vec![1].into(),
            digest: Some(([6; 32].into(), 10)),
            spent: Some(Spent { source_ms: 11, line_ms: 12 }),
        }),
        Frame::Landed(vec![2].into()),
        Frame::Settled([7; 32].into()),
        Frame::Refused(refused()),
        Frame::Failed(refused()),
        Frame::Noted(Vec::new().into()),
        Frame::Invite(Invite { job: job(), resource: resource(), mode: Mode::Full, run: Some([5; 16].into()) }),
        Frame::Invited(Invited { transfer: Some(transfer), refused: None }),
        Frame::Ping(1),
        Frame::Pong(1),
        Frame::Digest(DigestRequest {
            job: job(),
            resource: resource(),
            watermark: Some(Watermark::Integer(4)),
            rules: None,
        }),
        Frame::DigestAnswer(DigestAnswer {
            key: [8; 32].into(),
            contract: None,
            buckets: vec![0; 40].into(),
            rows: 0,
            refused: None,
            left: Some(vec![1; 8].into()),
            watermark_column: Some("updated_at".into()),
            governed: Some(vec![Governed { column: Some("phone".into()), what: "keep 3+4".into() }]),
        }),
        Frame::Keys(KeysRequest {
            job: job(),
            resource: resource(),
            buckets: vec![1, 4095],
            watermark: None,
            rules: Some(vec![Governed { column: None, what: "empty = null".into() }]),
        }),
        Frame::KeysAnswer(KeysAnswer {
            keys: vec![RowKey { key: "1,a".into(), bucket: 7, hash: [9; 32].into() }],
            truncated: true,
            refused: Some(refused()),
        }),
        Frame::Centre(CentreRequest::Policy),
        Frame::CentreAnswer(CentreAnswer::Policy(vec![1, 2, 3].into())),
        Frame::Plan(PlanRequest {
            job: job(),
            resource: resource(),
            mode: Mode::Incremental,
            watermark: Some(Watermark::Integer(4)),
            formats: Some(vec!["pg-copy/1".into()]),
            rules: None,
        }),
        Frame::PlanAnswer(PlanAnswer {
            contract: Some(Contract { items: Vec::new(), key: vec!["id".into()] }),
            native: Some(Native { format: "pg-copy/1".into(), columns: vec!["int8".into()] }),
            entries: 3,
            rows: Some(1_000),
            bytes: Some(1 << 20),
            watermark_to: Some(Watermark::Integer(5)),
            watermark_column: Some("updated_at".into()),
            apart: Some("a row filter applies".into()),
            refused: Some(refused()),
        }),
    ]
}
