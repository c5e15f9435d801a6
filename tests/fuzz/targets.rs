//! One function per parser: any bytes in, no panic, and what is accepted means itself: written again it is
//! the same. The fuzzer calls them with what it invents, an ordinary test with the corpora beside this file.
//! Adding a parser: a function here, its line in [`TARGETS`], a file in `fuzz_targets/`, a folder in `corpus/`.

use posthouse_node::ferry::{Label, Trailer};
use posthouse_platform::identity::JoinToken;
use posthouse_protocol::batch::{Batch, BatchReader};
use posthouse_protocol::chunk::{CHUNK_HEADER_BYTES, ChunkHeader};
use posthouse_protocol::codec;
use posthouse_protocol::cose::{self, KeyId, Keys, PublicKey};
use posthouse_protocol::digest::{Digester, RowHash};
use posthouse_protocol::filter::Filter;
use posthouse_protocol::frame::{Frame, FrameDecoder};
use posthouse_protocol::id::{GrantId, JobId, NodeId, ReceiptId, ResourceId, ResourceRef, TransferId};
use posthouse_protocol::ledger::{Checkpoint, Inclusion, LedgerKey};
use posthouse_protocol::limits;
use posthouse_protocol::manifest::{Entry, EntryName, Manifest};
use posthouse_protocol::pgcopy::decode::Decoded;
use posthouse_protocol::pgcopy::{CopyError, Decoder, NativeType, Shape, Walker, complete_prefix, render};
use posthouse_protocol::policy::{Freshness, Grant, Policy};
use posthouse_protocol::receipt::{Receipt, TrustStore};
use posthouse_protocol::schema::{Contract, ContractType, Item};
use posthouse_protocol::statement::{Body, Statement};
use posthouse_protocol::time::Timestamp;
use std::path::Path;

pub type Target = fn(&[u8]);

/// Every target by the name of its fuzzing program and its corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("frame", frame),
    ("chunk_header", chunk_header),
    ("manifest", manifest),
    ("statement", statement),
    ("receipt", receipt),
    ("policy", policy),
    ("filter", filter),
    ("checkpoint", checkpoint),
    ("id", id),
    ("join_token", join_token),
    ("node_config", node_config),
    ("coordinator_config", coordinator_config),
    ("entry_name", entry_name),
    ("split", split),
    ("native_type", native_type),
    ("copy_stream", copy_stream),
    ("copy_value", copy_value),
    ("part_label", part_label),
];

/// A channel's bytes, fed in two pieces; what was decoded is encoded and decoded again.
pub fn frame(data: &[u8]) {
    let mut decoder = FrameDecoder::new();
    let (first, rest) = data.split_at(data.len() / 2);
    for piece in [first, rest] {
        if decoder.feed(piece).is_err() {
            return;
        }
        loop {
            match decoder.take() {
                Ok(Some(frame)) => {
                    let bytes = frame.encode();
                    let again = bytes.get(4..).map(Frame::decode);
                    assert!(matches!(again, Some(Ok(again)) if again == frame), "{}", frame.name());
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

pub fn chunk_header(data: &[u8]) {
    let Some(bytes) = data.first_chunk::<CHUNK_HEADER_BYTES>() else { return };
    if let Ok(header) = ChunkHeader::decode(bytes) {
        assert_eq!(&header.encode(), bytes);
        assert!(header.bytes <= limits::CHUNK_BYTES_LARGE && header.wire_bytes <= header.bytes);
    }
}

/// What a provider's statement holds, and the entries beside it.
pub fn manifest(data: &[u8]) {
    if let Ok(manifest) = codec::decode_strict::<Manifest>(data, limits::STATEMENT_BYTES_MAX) {
        assert_eq!(codec::encode(&manifest), data);
    }
    if let Ok(entry) = codec::decode_strict::<Entry>(data, limits::FRAME_BYTES_MAX) {
        assert_eq!(codec::encode(&entry), data);
    }
}

pub fn statement(data: &[u8]) {
    let peeked = Statement::peek_issuer(data);
    if let Ok(statement) = Statement::open(data, &OneKey) {
        assert_eq!(statement.bytes(), data);
        assert_eq!(peeked.as_ref(), Ok(statement.issuer()));
    }
    if let Ok(body) = codec::decode_strict::<Body>(data, limits::STATEMENT_BYTES_MAX) {
        assert_eq!(codec::encode(&body), data);
        let _ = (body.subject(), body.parties().is_some());
    }
}

pub fn receipt(data: &[u8]) {
    if let Ok(receipt) = Receipt::decode(data) {
        assert_eq!(receipt.encode(), data);
        let _ = receipt.id();
    }
    let _ = TrustStore::open(data, &KEY);
    let _ = cose::parse_public_key_pem(data);
}

pub fn policy(data: &[u8]) {
    if let Ok(policy) = codec::decode_strict::<Policy>(data, limits::POLICY_BYTES_MAX) {
        assert_eq!(codec::encode(&policy), data);
    }
    if let Some(grant) = Grant::decode(data) {
        assert_eq!(grant.encode().as_slice(), data);
    }
    if let Ok(node) = NodeId::parse("housing.xian.example") {
        let _ = Policy::open(data, &node, &KEY);
        let _ = Freshness::open(data, &node, &KEY);
    }
}

pub fn filter(data: &[u8]) {
    if let Ok(filter) = codec::decode_strict::<Filter>(data, limits::FILTER_BYTES_MAX) {
        assert_eq!(codec::encode(&filter), data);
        let _ = (filter.to_string(), filter.columns());
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(filter) = Filter::parse(text) {
        assert_eq!(Filter::parse(&filter.to_string()).as_ref(), Ok(&filter), "{filter}");
        assert_eq!(codec::decode_strict::<Filter>(&codec::encode(&filter), 1 << 20).ok().as_ref(), Some(&filter));
        let (sql, literals) = filter.to_sql(&|_| "c".to_owned(), &|_, _| "?".to_owned());
        assert_eq!(sql.matches('?').count(), literals.len());
        assert!(!sql.contains(['\'', '"', ';']), "no value stands in the text: {sql}");
    }
}

pub fn checkpoint(data: &[u8]) {
    let Ok(key) = LedgerKey::new("centre.xian.example/log1", KEY) else { return };
    let _ = Inclusion::open(data, b"leaf", "subject", &key);
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(checkpoint) = Checkpoint::open(text, &key) {
        assert!(checkpoint.size <= limits::LEDGER_SIZE_MAX);
    }
    if let Ok(key) = LedgerKey::parse(text) {
        assert_eq!(key.vkey(), text);
    }
}

pub fn id(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    macro_rules! each {
        ($($kind:ident),*) => {$(
            if let Ok(id) = $kind::parse(text) {
                assert_eq!(id.as_str(), text);
                assert!(!text.contains(['/', '\0', ' ']) && text != "." && text != "..", "{text:?}");
            }
        )*};
    }
    each!(NodeId, ResourceId, JobId, TransferId, GrantId, ReceiptId);
    if let Ok(resource) = text.parse::<ResourceRef>() {
        assert_eq!(resource.to_string(), text);
    }
    if let Some(time) = Timestamp::parse(text) {
        assert_eq!(Timestamp::parse(&time.to_string()), Some(time));
    }
}

pub fn join_token(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(token) = JoinToken::parse(text) {
        assert_eq!(token.encode(), text.trim());
    }
}

/// A file that was carried here, by its last bytes: the label they lead to lies within it. And what a label's maker has
/// signed.
pub fn part_label(data: &[u8]) {
    if let Ok(label) = Label::parse(data) {
        assert_eq!(codec::encode(&label), data);
    }
    let Some(trailer) = data.last_chunk().and_then(Trailer::parse) else { return };
    let bytes = data.len() as u64;
    if let Ok((start, length)) = trailer.label(bytes) {
        assert_eq!(start + (length + Trailer::BYTES) as u64, bytes);
        assert!(length > 0 && length <= limits::STATEMENT_BYTES_MAX);
    }
}

/// Mistakes are named at places that exist.
pub fn node_config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(mistakes) = posthouse_node::config::Config::read(Path::new("node.toml"), text) {
        assert!(!mistakes.list.is_empty());
        for lang in [posthouse_protocol::problem::Lang::En, posthouse_protocol::problem::Lang::Zh] {
            assert!(!mistakes.render(lang).is_empty());
        }
    }
}

pub fn coordinator_config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(mistakes) = posthouse_coordinator::config::Config::parse(Path::new("coordinator.toml"), text) {
        assert!(!mistakes.list.is_empty());
        for lang in [posthouse_protocol::problem::Lang::En, posthouse_protocol::problem::Lang::Zh] {
            assert!(!mistakes.render(lang).is_empty());
        }
    }
}

/// A name that is accepted stays beneath its folder, whatever joins it to a path.
pub fn entry_name(data: &[u8]) {
    use std::os::unix::ffi::OsStrExt;
    if let Ok(name) = EntryName::parse(data) {
        assert_eq!(name.as_bytes(), data);
        let path = Path::new(std::ffi::OsStr::from_bytes(data));
        assert!(path.components().all(|part| matches!(part, std::path::Component::Normal(_))), "{name:?}");
        assert_eq!(path.components().count(), name.components().count());
    }
}

/// A split's bytes as they came from a peer, read as rows of this contract.
pub fn split(data: &[u8]) {
    let item = |name: &str, r#type| Item { name: name.to_owned(), r#type, nullable: true, comment: None };
    let contract = Contract {
        items: vec![
            item("id", ContractType::Integer),
            item("name", ContractType::Text),
            item("area", ContractType::Decimal { precision: 10, scale: 2 }),
            item("ok", ContractType::Boolean),
            item("scan", ContractType::Bytes),
            item("seen", ContractType::Timestamp),
        ],
        key: vec!["id".to_owned()],
    };
    let Ok(reader) = BatchReader::new(data, data.len() as u64, &contract) else { return };
    for batch in reader {
        let Ok(batch) = batch else { return };
        assert_eq!(batch.record().num_columns(), contract.items.len());
    }
}

/// A type's text has one way to be written.
pub fn native_type(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(native) = text.parse::<NativeType>() {
        assert_eq!(native.to_string(), text);
        let _ = native.contract_type();
    }
}

/// A binary COPY: in two slices it means what it means in one, and its rows have the hashes of its batches.
pub fn copy_stream(data: &[u8]) {
    let natives = COPY_NATIVES.map(|native| native.parse::<NativeType>());
    let Ok(natives) = natives.into_iter().collect::<Result<Vec<_>, _>>() else { return };
    let item = |native: &NativeType| Item {
        name: native.to_string(),
        r#type: native.contract_type(),
        nullable: true,
        comment: None,
    };
    let contract = Contract { items: natives.iter().map(item).collect(), key: vec!["int4".to_owned()] };
    let Ok(shape) = Shape::new(&contract, &natives) else { return };
    let walk = |pieces: [&[u8]; 2]| -> Result<Vec<RowHash>, CopyError> {
        let (mut rows, mut walker) = (Vec::new(), Walker::new(&shape, [7; 32]));
        for piece in pieces {
            walker.feed(piece, &mut |row| rows.push(row))?;
        }
        walker.finish().map(|_| rows)
    };
    let (first, rest) = data.split_at(data.len() / 2);
    let walked = walk([data, &[]]);
    assert_eq!(walked.is_ok(), walk([first, rest]).is_ok());
    let _ = complete_prefix(data, natives.len(), 3);
    let (mut hashed, mut bad) = (Vec::new(), 0);
    let mut take = |decoded: Decoded| {
        match decoded {
            Decoded::Bad(_) => bad += 1,
            Decoded::Batch(record) => {
                let batch = Batch::new(&contract, record)?;
                Digester::new([7; 32]).each(&batch, |row| hashed.push(row.hash))?;
            }
        }
        Ok(())
    };
    let mut decoder = Decoder::new(&shape);
    let decoded = decoder.feed(first, &mut take).and_then(|()| decoder.feed(rest, &mut take));
    let decoded = decoded.and_then(|()| decoder.finish(&mut take));
    if let Ok(walked) = walked {
        assert!(decoded.is_ok() && bad == 0, "{decoded:?}");
        assert_eq!(walked.iter().map(|row| row.hash).collect::<Vec<_>>(), hashed);
    }
}

/// A value of one of these types as text.
pub fn copy_value(data: &[u8]) {
    let Some((which, value)) = data.split_first() else { return };
    let Ok(native) = COPY_VALUES[usize::from(*which) % COPY_VALUES.len()].parse::<NativeType>() else { return };
    let mut out = String::new();
    if render(&native, value, &mut out).is_ok() {
        assert!(out.len() <= limits::VALUE_HELD_BYTES_MAX);
    }
}

const COPY_NATIVES: [&str; 10] =
    ["int4", "text", "numeric(10,2)", "numeric", "jsonb", "int4[]", "bpchar(4)", "timestamptz", "bool", "bytea"];

/// An input of `copy_value` begins with the place of its type here.
const COPY_VALUES: [&str; 24] = [
    "interval",
    "timetz",
    "inet",
    "cidr",
    "path",
    "polygon",
    "circle",
    "tsvector",
    "tsquery",
    "varbit",
    "numeric",
    "jsonpath",
    "text[]",
    "box[]",
    "float8[]",
    "float4[]",
    "range<numeric>",
    "range<text>",
    "multirange<int4>",
    "composite<int4,text>",
    "composite<composite<int4,text>,bool>[]",
    "timestamptz",
    "money",
    "\"char\"",
];

/// A key for everybody, so that what follows the signature's check is reached by what it signed.
struct OneKey;

impl Keys for OneKey {
    fn find(&self, _: &NodeId, _: &KeyId, _: Timestamp) -> Option<PublicKey> {
        Some(KEY)
    }
}

/// Public half of the seed of 32 threes, which signed the statements in the corpus.
const KEY: PublicKey = [
    0xed, 0x49, 0x28, 0xc6, 0x28, 0xd1, 0xc2, 0xc6, 0xea, 0xe9, 0x03, 0x38, 0x90, 0x59, 0x95, 0x61, 0x29, 0x59, 0x27,
    0x3a, 0x5c, 0x63, 0xf9, 0x36, 0x36, 0xc1, 0x46, 0x14, 0xac, 0x87, 0x37, 0xd1,
];
