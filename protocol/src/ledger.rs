//! 存证台账: the mathematics of the centre's append-only log. An RFC 6962 SHA-256 tree whose leaves are
//! statements, its signed heads (C2SP checkpoints), proofs of inclusion and consistency, the COSE receipt
//! (RFC 9942) and the C2SP tlog-proof of one leaf.
//! The coordinator proves each leaf in the tree that ends with it: then tree size and index are both bound
//! by the root, and no other pair of numbers fits the same proof. Hashes are stored elsewhere, behind [`HashReader`].

use crate::cose::{self, CoseError, PublicKey, Signer};
use crate::id::NodeId;
use crate::limits;
use crate::time::Timestamp;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use minicbor::Decoder;
use signed_note::{Note, Signature, VerificationError, Verifiers};
use tlog_tiles::tlog;

pub type Hash = [u8; 32];

/// Stored hashes of a log, by their index in the one dense order of [`stored_index`].
pub trait HashReader {
    /// As many hashes as indexes, in their order; the text of an error is for people.
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, String>;
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    #[error("the stored hashes cannot be read: {0}")]
    Storage(String),
    #[error("leaf {index} is not in a tree of {size}")]
    OutOfRange { index: u64, size: u64 },
    #[error("the proof does not lead to the tree's root")]
    Proof,
    #[error("the checkpoint is malformed")]
    Checkpoint,
    #[error("the checkpoint is not signed by the ledger {0} alone")]
    CheckpointSignature(String),
    #[error("the ledger's key is malformed")]
    Key,
    #[error(transparent)]
    Receipt(#[from] CoseError),
}

/// RFC 6962 leaf hash of a statement's bytes.
pub fn leaf_hash(data: &[u8]) -> Hash {
    tlog::record_hash(data).0
}

/// Where the hash of node `n` of `level` (0 = leaves) is stored. A node beyond the largest log is nowhere.
pub fn stored_index(level: u8, n: u64) -> u64 {
    match limits::LEDGER_SIZE_MAX.checked_shr(u32::from(level)) {
        Some(last) if n <= last => tlog::stored_hash_index(level, n),
        _ => u64::MAX,
    }
}

/// How many hashes are stored for a tree of this size.
pub fn stored_count(size: u64) -> u64 {
    tlog::stored_hash_count(size)
}

/// The hashes to store when a leaf is appended to a tree of `size`, with their indexes, ascending.
pub fn append(size: u64, leaf: Hash, reader: &dyn HashReader) -> Result<Vec<(u64, Hash)>, LedgerError> {
    check_size(size)?;
    let hashes = tlog::stored_hashes_for_record_hash(size, tlog::Hash(leaf), &Reader(reader)).map_err(storage)?;
    let first = stored_index(0, size);
    Ok(hashes.into_iter().enumerate().map(|(i, hash)| (first + i as u64, hash.0)).collect())
}

/// The root of the tree of the first `size` leaves.
pub fn root(size: u64, reader: &dyn HashReader) -> Result<Hash, LedgerError> {
    check_size(size)?;
    tlog::tree_hash(size, &Reader(reader)).map(|hash| hash.0).map_err(storage)
}

/// Audit path of leaf `index` in the tree of `size`, from the leaf upwards.
pub fn prove_inclusion(size: u64, index: u64, reader: &dyn HashReader) -> Result<Vec<Hash>, LedgerError> {
    check_size(size)?;
    if index >= size {
        return Err(LedgerError::OutOfRange { index, size });
    }
    let proof = tlog::prove_record(size, index, &Reader(reader)).map_err(storage)?;
    Ok(proof.into_iter().map(|hash| hash.0).collect())
}

/// Proof that the tree of `size` begins with the tree of `old`.
pub fn prove_consistency(size: u64, old: u64, reader: &dyn HashReader) -> Result<Vec<Hash>, LedgerError> {
    check_size(size)?;
    if old > size {
        return Err(LedgerError::OutOfRange { index: old, size });
    }
    if old == 0 || old == size {
        return Ok(Vec::new());
    }
    let proof = tlog::prove_tree(size, old, &Reader(reader)).map_err(storage)?;
    Ok(proof.into_iter().map(|hash| hash.0).collect())
}

pub fn verify_inclusion(size: u64, root: &Hash, index: u64, leaf: &Hash, path: &[Hash]) -> Result<(), LedgerError> {
    match root_from_path(size, index, leaf, path)? == *root {
        true => Ok(()),
        false => Err(LedgerError::Proof),
    }
}

pub fn verify_consistency(
    size: u64,
    root: &Hash,
    old: u64,
    old_root: &Hash,
    proof: &[Hash],
) -> Result<(), LedgerError> {
    check_size(size)?;
    if old > size || proof.len() > PATH_MAX {
        return Err(LedgerError::Proof);
    }
    if old == 0 {
        return if proof.is_empty() && *old_root == tlog::EMPTY_HASH.0 { Ok(()) } else { Err(LedgerError::Proof) };
    }
    let proof = proof.iter().copied().map(tlog::Hash).collect();
    tlog::check_tree(&proof, size, tlog::Hash(*root), old, tlog::Hash(*old_root)).map_err(|_| LedgerError::Proof)
}

/// The root that a path leads to; refuses a path of another length than this leaf has in this tree.
fn root_from_path(size: u64, index: u64, leaf: &Hash, path: &[Hash]) -> Result<Hash, LedgerError> {
    check_size(size)?;
    if index >= size {
        return Err(LedgerError::OutOfRange { index, size });
    }
    // From the leaf upwards: whether this node is the right one of its pair decides the order. At the
    // tree's ragged right edge a node without a sibling moves up unchanged.
    let (mut node, mut last, mut hash) = (index, size - 1, tlog::Hash(*leaf));
    let mut rest = path.iter().copied().map(tlog::Hash);
    while last > 0 {
        if node % 2 == 1 {
            hash = tlog::node_hash(rest.next().ok_or(LedgerError::Proof)?, hash);
        } else if node < last {
            hash = tlog::node_hash(hash, rest.next().ok_or(LedgerError::Proof)?);
        }
        node /= 2;
        last /= 2;
    }
    if rest.next().is_some() { Err(LedgerError::Proof) } else { Ok(hash.0) }
}

/// The ledger's public key with its name, as C2SP's signed notes write it: `<name>+<id>+<base64>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerKey {
    origin: String,
    key: PublicKey,
}

impl LedgerKey {
    /// `origin` is `<coordinator name>/log1`.
    pub fn new(origin: &str, key: PublicKey) -> Result<Self, LedgerError> {
        let named = origin.split_once('/').is_some_and(|(name, log)| {
            NodeId::parse(name).is_ok()
                && log.strip_prefix("log").is_some_and(|n| n.parse::<u32>().is_ok_and(|v| v.to_string() == n))
        });
        if named { Ok(Self { origin: origin.to_owned(), key }) } else { Err(LedgerError::Key) }
    }
    /// Reads exactly what [`LedgerKey::vkey`] writes.
    pub fn parse(vkey: &str) -> Result<Self, LedgerError> {
        let mut parts = vkey.splitn(3, '+');
        let (Some(origin), Some(_), Some(encoded)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(LedgerError::Key);
        };
        let bytes = STANDARD.decode(encoded).map_err(|_| LedgerError::Key)?;
        let key = match bytes.split_first() {
            Some((&NOTE_ED25519, key)) => PublicKey::try_from(key).map_err(|_| LedgerError::Key)?,
            _ => return Err(LedgerError::Key),
        };
        let parsed = Self::new(origin, key)?;
        if parsed.vkey() == vkey { Ok(parsed) } else { Err(LedgerError::Key) }
    }
    pub fn vkey(&self) -> String {
        format!("{}+{:08x}+{}", self.origin, self.note_id(), STANDARD.encode(self.note_key()))
    }
    pub fn origin(&self) -> &str {
        &self.origin
    }
    pub fn key(&self) -> &PublicKey {
        &self.key
    }
    /// The coordinator whose ledger it is.
    pub fn coordinator(&self) -> Result<NodeId, LedgerError> {
        let (name, _) = self.origin.split_once('/').ok_or(LedgerError::Key)?;
        NodeId::parse(name).map_err(|_| LedgerError::Key)
    }
    fn note_key(&self) -> Vec<u8> {
        [&[NOTE_ED25519], &self.key[..]].concat()
    }
    fn note_id(&self) -> u32 {
        signed_note::key_id(&self.origin, &self.note_key())
    }
}

impl signed_note::Verifier for LedgerKey {
    fn name(&self) -> &str {
        &self.origin
    }
    fn key_id(&self) -> u32 {
        self.note_id()
    }
    fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        use crate::cose::Verifier;
        cose::Ed25519.verify(&self.key, message, signature)
    }
}

impl Verifiers for LedgerKey {
    fn verifier(&self, name: &str, id: u32) -> Result<&dyn signed_note::Verifier, VerificationError> {
        if name == self.origin && id == self.note_id() {
            Ok(self)
        } else {
            Err(VerificationError::UnknownKey { name: name.to_owned(), id })
        }
    }
}

/// 台账签名点: the signed head of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    pub origin: String,
    pub size: u64,
    pub root: Hash,
}

impl Checkpoint {
    /// The signed note. The signer must hold the ledger's key.
    pub fn sign(&self, signer: &dyn Signer) -> Result<String, LedgerError> {
        let key = LedgerKey::new(&self.origin, signer.public_key())?;
        let text = self.text();
        let signature = Signature::new(self.origin.clone(), key.note_id(), signer.sign(text.as_bytes())?)
            .map_err(|_| LedgerError::Checkpoint)?;
        let note = Note::new(text.as_bytes(), &[signature]).map_err(|_| LedgerError::Checkpoint)?;
        String::from_utf8(note.to_bytes()).map_err(|_| LedgerError::Checkpoint)
    }

    /// Reads exactly what [`Checkpoint::sign`] writes: the ledger's signature alone, no extension lines.
    pub fn open(text: &str, key: &LedgerKey) -> Result<Self, LedgerError> {
        if text.len() > limits::CHECKPOINT_BYTES_MAX {
            return Err(LedgerError::Checkpoint);
        }
        let note = Note::from_bytes(text.as_bytes()).map_err(|_| LedgerError::Checkpoint)?;
        let unsigned = || LedgerError::CheckpointSignature(key.origin.clone());
        let (known, unknown) = note.verify(key).map_err(|_| unsigned())?;
        // A signature line that is not checked would be bytes that anybody may change.
        if known.len() != 1 || !unknown.is_empty() || note.to_bytes() != text.as_bytes() {
            return Err(unsigned());
        }
        let again = Note::new(note.text(), &known).map_err(|_| LedgerError::Checkpoint)?;
        if again.to_bytes() != text.as_bytes() {
            return Err(unsigned());
        }
        let checkpoint = Self::parse_text(note.text())?;
        if checkpoint.origin != key.origin {
            return Err(unsigned());
        }
        Ok(checkpoint)
    }

    fn parse_text(text: &[u8]) -> Result<Self, LedgerError> {
        let text = std::str::from_utf8(text).map_err(|_| LedgerError::Checkpoint)?;
        let mut lines = text.split('\n');
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
            return Err(LedgerError::Checkpoint);
        };
        let size = size.parse().map_err(|_| LedgerError::Checkpoint)?;
        let root = STANDARD.decode(root).ok().and_then(|root| Hash::try_from(root).ok());
        let parsed = Self { origin: origin.to_owned(), size, root: root.ok_or(LedgerError::Checkpoint)? };
        if parsed.text() == text && size <= limits::LEDGER_SIZE_MAX { Ok(parsed) } else { Err(LedgerError::Checkpoint) }
    }

    fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root))
    }
}

/// Evidence that one leaf is in the log: the COSE receipt, taken apart and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inclusion {
    pub index: u64,
    pub size: u64,
    pub path: Vec<Hash>,
    /// The root that path and leaf lead to, which the ledger signed.
    pub root: Hash,
    pub issued: Timestamp,
}

impl Inclusion {
    /// Makes the COSE receipt of leaf `index` in the tree of `size`. `subject` is the statement's own.
    pub fn sign(&self, coordinator: &NodeId, subject: &str, signer: &dyn Signer) -> Result<Vec<u8>, LedgerError> {
        let claims = cose::Claims::new(coordinator.clone(), subject, self.issued);
        Ok(cose::seal_inclusion(&claims, &self.root, &self.encode_proof(), signer)?)
    }

    /// Opens a COSE receipt for the leaf with these bytes and this subject: signed by this ledger, no byte otherwise.
    pub fn open(bytes: &[u8], leaf: &[u8], subject: &str, key: &LedgerKey) -> Result<Self, LedgerError> {
        let parts = cose::parse_inclusion(bytes, limits::INCLUSION_BYTES_MAX)?;
        let proof = parts.proof.as_deref().unwrap_or_default();
        let (size, index, path) = decode_proof(proof).map_err(|_| LedgerError::Proof)?;
        let root = root_from_path(size, index, &leaf_hash(leaf), &path)?;
        let inclusion = Self { index, size, path, root, issued: parts.claims.issued };
        if inclusion.encode_proof() != proof {
            return Err(CoseError::NotCanonical.into());
        }
        parts.verify(&root, key.key())?;
        if parts.claims.issuer != key.coordinator()? || parts.claims.subject != subject {
            return Err(CoseError::Malformed("it is a receipt for something else").into());
        }
        Ok(inclusion)
    }

    /// The same evidence as a C2SP tlog-proof: index, path and checkpoint as text.
    pub fn tlog_proof(&self, checkpoint: &str) -> String {
        let mut out = format!("{TLOG_PROOF}\nindex {}\n", self.index);
        for hash in &self.path {
            out.push_str(&STANDARD.encode(hash));
            out.push('\n');
        }
        out.push('\n');
        out.push_str(checkpoint);
        out
    }

    fn encode_proof(&self) -> Vec<u8> {
        cose::written(|e| {
            e.array(3)?.u64(self.size)?.u64(self.index)?.array(self.path.len() as u64)?;
            for hash in &self.path {
                e.bytes(hash)?;
            }
            e.ok()
        })
    }
}

fn decode_proof(bytes: &[u8]) -> Result<(u64, u64, Vec<Hash>), minicbor::decode::Error> {
    let wrong = minicbor::decode::Error::message;
    let mut d = Decoder::new(bytes);
    if d.array()? != Some(3) {
        return Err(wrong("no inclusion proof"));
    }
    let (size, index) = (d.u64()?, d.u64()?);
    let length = d.array()?.filter(|length| *length <= PATH_MAX as u64).ok_or_else(|| wrong("path too long"))?;
    let mut path = Vec::new();
    for _ in 0..length {
        path.push(Hash::try_from(d.bytes()?).map_err(|_| wrong("a hash has 32 bytes"))?);
    }
    Ok((size, index, path))
}

fn check_size(size: u64) -> Result<(), LedgerError> {
    match size <= limits::LEDGER_SIZE_MAX {
        true => Ok(()),
        false => Err(LedgerError::OutOfRange { index: size, size: limits::LEDGER_SIZE_MAX }),
    }
}

fn storage(error: tlog::Error) -> LedgerError {
    LedgerError::Storage(match error {
        tlog::Error::InvalidInput(text) => text,
        other => other.to_string(),
    })
}

/// tlog's reader over ours; it relies on getting as many hashes as it asked for.
struct Reader<'a>(&'a dyn HashReader);

impl tlog::HashReader for Reader<'_> {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<tlog::Hash>, tlog::Error> {
        let hashes = self.0.read_hashes(indexes).map_err(tlog::Error::InvalidInput)?;
        if hashes.len() != indexes.len() {
            return Err(tlog::Error::InvalidInput(format!("{} of {} hashes", hashes.len(), indexes.len())));
        }
        Ok(hashes.into_iter().map(tlog::Hash).collect())
    }
}

const TLOG_PROOF: &str = "c2sp.org/tlog-proof@v1";
const NOTE_ED25519: u8 = 1;
const PATH_MAX: usize = 64;
