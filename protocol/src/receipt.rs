//! 回执: the provider's statement, the consumer's, and the centre's proof when it has come.
//! Deterministic CBOR array [provider, consumer or null, inclusion or null, checkpoint or null], whole in
//! itself; an export holds the same parts for other people's tools, each derived from it byte for byte,
//! so that no bit of any exported file can change unnoticed. Whom to believe is `trust`.

use crate::codec;
use crate::cose;
use crate::id::{ReceiptId, TransferId};
use crate::ledger::{Checkpoint, Inclusion, LedgerError};
use crate::limits;
use crate::problem::{Code, Problem};
use crate::reconciliation::{self, Difference};
use crate::statement::{Statement, StatementError};
use minicbor::Decoder;
use std::collections::BTreeMap;

pub use crate::trust::{Nodes, TrustError, TrustStore, TrustedKey, TrustedNode};

/// The evidence of one transfer, as bytes; [`Receipt::verify`] says whether it is true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    pub provider: Vec<u8>,
    /// None while the consumer has not answered.
    pub consumer: Option<Vec<u8>>,
    /// COSE receipt of inclusion of the consumer's statement, or of the provider's where there is no other.
    pub inclusion: Option<Vec<u8>>,
    /// The signed checkpoint that the inclusion leads to.
    pub checkpoint: Option<String>,
}

/// A receipt that verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    pub standing: Standing,
    pub provider: Statement,
    pub consumer: Option<Statement>,
    pub inclusion: Option<Inclusion>,
    pub checkpoint: Option<Checkpoint>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Both parties signed and the centre has countersigned.
    Proven,
    /// Both parties signed; the centre's proof has not come yet.
    Pending,
    /// The provider alone has signed; with a proof, a withheld answer is shown.
    Unanswered,
}

impl Standing {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Proven => "proven",
            Self::Pending => "pending",
            Self::Unanswered => "unanswered",
        }
    }
}

impl Verified {
    pub fn transfer(&self) -> Option<&TransferId> {
        self.provider.body().transfer()
    }
    pub fn id(&self) -> Option<ReceiptId> {
        self.consumer.as_ref().map(|consumer| ReceiptId::from_statement(consumer.sha256()))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    #[error("it is not a receipt in its one canonical encoding")]
    Malformed,
    #[error("the provider's statement does not verify: {0}")]
    Provider(StatementError),
    #[error("the consumer's statement does not verify: {0}")]
    Consumer(StatementError),
    #[error("it holds a statement of another kind where the {0}'s belongs")]
    Kind(&'static str),
    #[error("the two statements differ: {what} is {provider} at the provider, {consumer} at the consumer")]
    Difference { what: String, provider: String, consumer: String },
    #[error("the centre's proof does not verify: {0}")]
    Proof(LedgerError),
    #[error("the centre's proof does not lead to the checkpoint")]
    Checkpoint,
    #[error("inclusion and checkpoint belong together, one is missing")]
    HalfProof,
}

impl From<Difference> for ReceiptError {
    fn from(difference: Difference) -> Self {
        let Difference { what, provider, consumer } = difference;
        Self::Difference { what, provider, consumer }
    }
}

impl Receipt {
    pub fn new(provider: &Statement, consumer: Option<&Statement>) -> Self {
        Self {
            provider: provider.bytes().to_vec(),
            consumer: consumer.map(|consumer| consumer.bytes().to_vec()),
            inclusion: None,
            checkpoint: None,
        }
    }
    #[must_use]
    pub fn with_proof(self, inclusion: Vec<u8>, checkpoint: String) -> Self {
        Self { inclusion: Some(inclusion), checkpoint: Some(checkpoint), ..self }
    }
    /// By the consumer's statement; None while there is none.
    pub fn id(&self) -> Option<ReceiptId> {
        self.consumer.as_ref().map(|consumer| ReceiptId::from_statement(&codec::sha256(consumer)))
    }

    pub fn encode(&self) -> Vec<u8> {
        cose::written(|e| {
            e.array(4)?.bytes(&self.provider)?;
            for part in [&self.consumer, &self.inclusion] {
                match part {
                    Some(bytes) => e.bytes(bytes)?,
                    None => e.null()?,
                };
            }
            match &self.checkpoint {
                Some(text) => e.str(text)?,
                None => e.null()?,
            };
            e.ok()
        })
    }

    /// Reads exactly what [`Receipt::encode`] writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, ReceiptError> {
        if bytes.len() > limits::RECEIPT_BYTES_MAX {
            return Err(ReceiptError::Malformed);
        }
        let receipt = Self::decode_loosely(bytes).map_err(|_| ReceiptError::Malformed)?;
        if receipt.encode() == bytes { Ok(receipt) } else { Err(ReceiptError::Malformed) }
    }

    fn decode_loosely(bytes: &[u8]) -> Result<Self, minicbor::decode::Error> {
        use minicbor::data::Type;
        let mut d = Decoder::new(bytes);
        if d.array()? != Some(4) {
            return Err(minicbor::decode::Error::message("a receipt has four parts"));
        }
        let provider = d.bytes()?.to_vec();
        let optional = |d: &mut Decoder<'_>| match d.datatype()? {
            Type::Null => d.null().map(|()| None),
            _ => d.bytes().map(|bytes| Some(bytes.to_vec())),
        };
        let (consumer, inclusion) = (optional(&mut d)?, optional(&mut d)?);
        let checkpoint = match d.datatype()? {
            Type::Null => d.null().map(|()| None)?,
            _ => Some(d.str()?.to_owned()),
        };
        Ok(Self { provider, consumer, inclusion, checkpoint })
    }

    /// Verifies everything in it: signatures, that the statements belong together and agree, the proof.
    pub fn verify(&self, trust: &TrustStore) -> Result<Verified, ReceiptError> {
        let provider = Statement::open(&self.provider, trust).map_err(ReceiptError::Provider)?;
        let manifest = provider.manifest().ok_or(ReceiptError::Kind("provider"))?;
        let consumer = match &self.consumer {
            None => None,
            Some(bytes) => {
                let consumer = Statement::open(bytes, trust).map_err(ReceiptError::Consumer)?;
                let landing = consumer.landing().ok_or(ReceiptError::Kind("consumer"))?;
                if let Some(difference) = reconciliation::differences(&provider, manifest, landing).into_iter().next() {
                    return Err(difference.into());
                }
                Some(consumer)
            }
        };
        let leaf = consumer.as_ref().unwrap_or(&provider);
        let (inclusion, checkpoint) = match (&self.inclusion, &self.checkpoint) {
            (None, None) => (None, None),
            (Some(inclusion), Some(checkpoint)) => {
                let inclusion = Inclusion::open(inclusion, leaf.bytes(), &leaf.body().subject(), trust.ledger())
                    .map_err(ReceiptError::Proof)?;
                let checkpoint = Checkpoint::open(checkpoint, trust.ledger()).map_err(ReceiptError::Proof)?;
                if checkpoint.size != inclusion.size || checkpoint.root != inclusion.root {
                    return Err(ReceiptError::Checkpoint);
                }
                (Some(inclusion), Some(checkpoint))
            }
            _ => return Err(ReceiptError::HalfProof),
        };
        let standing = match (&consumer, &inclusion) {
            (None, _) => Standing::Unanswered,
            (Some(_), None) => Standing::Pending,
            (Some(_), Some(_)) => Standing::Proven,
        };
        Ok(Verified { standing, provider, consumer, inclusion, checkpoint })
    }

    /// Everything an export holds, as (name, bytes) sorted by name, the trust in `trust/`. `files_b3` is the
    /// list of a folder's files; fails where the receipt does not verify or the list is not the manifest's.
    pub fn export(&self, trust: &TrustStore, files_b3: Option<&[u8]>) -> Result<Vec<(String, Vec<u8>)>, Problem> {
        let verified = self.verify(trust).map_err(|e| invalid(RECEIPT_COSE, e))?;
        let mut files = self.parts(&verified);
        if let Some(list) = files_b3 {
            check_files_b3(&verified, list)?;
            files.insert(FILES_B3.to_owned(), list.to_vec());
        }
        for (name, bytes) in trust.files() {
            files.insert(format!("{TRUST}{name}"), bytes);
        }
        Ok(files.into_iter().collect())
    }

    /// The files that follow from the receipt alone.
    fn parts(&self, verified: &Verified) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::from([
            (RECEIPT_COSE.to_owned(), self.encode()),
            ("provider.cose".to_owned(), self.provider.clone()),
        ]);
        if let Some(consumer) = &self.consumer {
            files.insert("consumer.cose".to_owned(), consumer.clone());
        }
        if let (Some(bytes), Some(text), Some(inclusion)) = (&self.inclusion, &self.checkpoint, &verified.inclusion) {
            files.insert("inclusion.cose".to_owned(), bytes.clone());
            files.insert("checkpoint.txt".to_owned(), text.clone().into_bytes());
            files.insert("proof.txt".to_owned(), inclusion.tlog_proof(text).into_bytes());
        }
        files
    }
}

/// Verifies the files of an export, by name relative to its folder (`trust/…` included where it is there).
/// Fails on any byte that is not what the receipt says, on a missing part and on a file that does not belong.
pub fn verify_export(files: &BTreeMap<String, Vec<u8>>, trust: &TrustStore) -> Result<Verified, Problem> {
    let bytes = files.get(RECEIPT_COSE).ok_or_else(|| invalid(RECEIPT_COSE, TrustError::Missing))?;
    let receipt = Receipt::decode(bytes).map_err(|e| invalid(RECEIPT_COSE, e))?;
    let verified = receipt.verify(trust).map_err(|e| invalid(RECEIPT_COSE, e))?;
    let derived = receipt.parts(&verified);
    if let Some(missing) = derived.keys().find(|name| !files.contains_key(*name)) {
        return Err(invalid(missing, TrustError::Missing));
    }
    let mut beside = BTreeMap::new();
    for (name, bytes) in files {
        if let Some(name) = name.strip_prefix(TRUST) {
            beside.insert(name.to_owned(), bytes.clone());
        } else if name == FILES_B3 {
            check_files_b3(&verified, bytes)?;
        } else {
            match derived.get(name) {
                Some(expected) if expected == bytes => {}
                Some(_) => return Err(invalid(name, "it is not the same as in receipt.cose")),
                None => return Err(invalid(name, TrustError::Unknown)),
            }
        }
    }
    if !beside.is_empty() {
        let own = TrustStore::from_files(&beside).map_err(|(name, e)| invalid(&format!("{TRUST}{name}"), e))?;
        if own.policy_key() != trust.policy_key() {
            return Err(invalid(&format!("{TRUST}policy.pem"), "it is another policy key than the trusted one"));
        }
    }
    Ok(verified)
}

fn check_files_b3(verified: &Verified, list: &[u8]) -> Result<(), Problem> {
    let bound = verified.provider.manifest().and_then(|manifest| manifest.files_b3_sha256.as_ref());
    match bound {
        Some(sha256) if **sha256 == codec::sha256(list) => Ok(()),
        Some(_) => Err(invalid(FILES_B3, "its SHA-256 is not the one in the manifest")),
        None => Err(invalid(FILES_B3, "the manifest names no list of files")),
    }
}

fn invalid(file: &str, why: impl std::fmt::Display) -> Problem {
    Problem::new(Code::EvidenceInvalid).with("file", file).cause(why)
}

/// The whole receipt's name in an export.
pub const RECEIPT_COSE: &str = "receipt.cose";
/// The list of a folder's files, as b3sum prints it.
pub const FILES_B3: &str = "files.b3";
/// The folder of trust in an export, with its slash.
pub const TRUST: &str = "trust/";
