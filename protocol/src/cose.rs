//! COSE_Sign1 (RFC 9052), the envelope of everything that is signed: statements, policies, freshness,
//! node lists and the ledger's receipts. There is one encoding: the protected header holds algorithm,
//! content type, key id and CWT claims (issuer, subject, issued at), the unprotected header is empty
//! (the ledger's receipts carry their proof there), and any other byte is refused.
//! Algorithms are behind [`Signer`] and [`Verifier`]; what a payload means is elsewhere.

use crate::codec::sha256;
use crate::id::NodeId;
use crate::limits;
use crate::time::Timestamp;
use minicbor::{Decoder, Encoder};
use std::convert::Infallible;

/// Signs for one party. Ed25519 now; other algorithms name themselves in what they sign.
pub trait Signer: Send + Sync {
    /// COSE algorithm number, −8 for Ed25519.
    fn algorithm(&self) -> i64;
    fn public_key(&self) -> PublicKey;
    /// Fails where the key is not at hand, as with a module that was pulled.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, CoseError>;
}

/// Checks what a [`Signer`] of one algorithm signed.
pub trait Verifier: Send + Sync {
    fn algorithm(&self) -> i64;
    /// As it stands in a manifest's list of algorithms.
    fn name(&self) -> &'static str;
    fn verify(&self, key: &PublicKey, message: &[u8], signature: &[u8]) -> bool;
}

/// Hashes what is identified by its hash: keys and statements.
pub trait Digest: Send + Sync {
    /// As it stands in a manifest's list of algorithms.
    fn name(&self) -> &'static str;
    fn digest(&self, bytes: &[u8]) -> [u8; 32];
}

pub type PublicKey = [u8; 32];
/// SHA-256 of a public key.
pub type KeyId = [u8; 32];

/// All algorithms that are accepted.
pub const VERIFIERS: &[&dyn Verifier] = &[&Ed25519];

pub fn key_id(key: &PublicKey) -> KeyId {
    Sha256.digest(key)
}

/// Finds the key that an issuer signed with.
pub trait Keys {
    /// None where the issuer never had such a key, or not at that time.
    fn find(&self, issuer: &NodeId, key: &KeyId, issued: Timestamp) -> Option<PublicKey>;
}

/// One key that signs for whoever is named in the claims: the policy key, the ledger key.
impl Keys for PublicKey {
    fn find(&self, _: &NodeId, key: &KeyId, _: Timestamp) -> Option<PublicKey> {
        (key_id(self) == *key).then_some(*self)
    }
}

/// Why an envelope was not made or not opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CoseError {
    #[error("it has {bytes} bytes, at most {max} are allowed")]
    TooLong { bytes: usize, max: usize },
    #[error("it is not a COSE_Sign1 as Posthouse writes it: {0}")]
    Malformed(&'static str),
    #[error("it is not in the one canonical encoding")]
    NotCanonical,
    #[error("its content type is `{0}`")]
    ContentType(String),
    #[error("it is signed with algorithm {0}, which is not accepted")]
    Algorithm(i64),
    #[error("no key {key} of {issuer} is trusted for that time")]
    UnknownKey { issuer: NodeId, key: String },
    #[error("the signature of {issuer} does not match")]
    Signature { issuer: NodeId },
    #[error("the key could not sign")]
    Signer,
}

/// Who says it, about what, when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    pub issuer: NodeId,
    pub subject: String,
    /// Whole seconds on the wire (CWT).
    pub issued: Timestamp,
}

impl Claims {
    pub fn new(issuer: NodeId, subject: impl Into<String>, now: Timestamp) -> Self {
        Self { issuer, subject: subject.into(), issued: Timestamp(now.0.div_euclid(1000).saturating_mul(1000)) }
    }
}

/// What an envelope held, after its signature was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    pub claims: Claims,
    pub key_id: KeyId,
    pub payload: Vec<u8>,
}

/// Signs a payload.
pub fn seal(content_type: &str, claims: &Claims, payload: &[u8], signer: &dyn Signer) -> Result<Vec<u8>, CoseError> {
    let protected = header(signer.algorithm(), Some(content_type), &key_id(&signer.public_key()), claims, None);
    let signature = signer.sign(&to_be_signed(&protected, payload))?;
    Ok(envelope(&protected, None, Some(payload), &signature))
}

/// Opens what [`seal`] made: right type, known key, good signature, and no byte otherwise.
pub fn open(bytes: &[u8], max: usize, content_type: &str, keys: &dyn Keys) -> Result<Opened, CoseError> {
    let parts = parse(bytes, max)?;
    if parts.content_type.as_deref() != Some(content_type) {
        return Err(CoseError::ContentType(parts.content_type.unwrap_or_default()));
    }
    let (Some(payload), None, None) = (&parts.payload, &parts.proof, parts.structure) else {
        return Err(CoseError::Malformed("it has a proof where none belongs, or no payload"));
    };
    parts.verify(payload, keys)?;
    Ok(Opened { payload: payload.clone(), claims: parts.claims, key_id: parts.key_id })
}

/// Who a sealed thing says it is from, before anything was checked; to find out which keys are needed.
pub fn peek(bytes: &[u8], max: usize) -> Result<(Claims, KeyId), CoseError> {
    parse(bytes, max).map(|parts| (parts.claims, parts.key_id))
}

/// A COSE receipt of inclusion (RFC 9942): the proof travels in the unprotected header, the payload
/// (the tree's root) is detached.
pub(crate) fn seal_inclusion(
    claims: &Claims,
    root: &[u8; 32],
    proof: &[u8],
    signer: &dyn Signer,
) -> Result<Vec<u8>, CoseError> {
    let protected = header(signer.algorithm(), None, &key_id(&signer.public_key()), claims, Some(RFC9162_SHA256));
    let signature = signer.sign(&to_be_signed(&protected, root))?;
    Ok(envelope(&protected, Some(proof), None, &signature))
}

/// A receipt whose form is right; its signature is checked once the root is known.
pub(crate) fn parse_inclusion(bytes: &[u8], max: usize) -> Result<Parts, CoseError> {
    let parts = parse(bytes, max)?;
    match &parts {
        Parts { payload: None, proof: Some(_), structure: Some(RFC9162_SHA256), content_type: None, .. } => Ok(parts),
        _ => Err(CoseError::Malformed("it is not a receipt of inclusion")),
    }
}

/// An envelope taken apart; nothing in it is true before `verify`.
pub(crate) struct Parts {
    pub(crate) claims: Claims,
    pub(crate) key_id: KeyId,
    pub(crate) proof: Option<Vec<u8>>,
    algorithm: i64,
    content_type: Option<String>,
    structure: Option<i64>,
    payload: Option<Vec<u8>>,
    protected: Vec<u8>,
    signature: Vec<u8>,
}

impl Parts {
    pub(crate) fn verify(&self, payload: &[u8], keys: &dyn Keys) -> Result<(), CoseError> {
        let verifier = VERIFIERS
            .iter()
            .find(|verifier| verifier.algorithm() == self.algorithm)
            .ok_or(CoseError::Algorithm(self.algorithm))?;
        let key = keys.find(&self.claims.issuer, &self.key_id, self.claims.issued).ok_or_else(|| {
            CoseError::UnknownKey { issuer: self.claims.issuer.clone(), key: hex::encode(&self.key_id[..8]) }
        })?;
        match verifier.verify(&key, &to_be_signed(&self.protected, payload), &self.signature) {
            true => Ok(()),
            false => Err(CoseError::Signature { issuer: self.claims.issuer.clone() }),
        }
    }
}

fn parse(bytes: &[u8], max: usize) -> Result<Parts, CoseError> {
    if bytes.len() > max {
        return Err(CoseError::TooLong { bytes: bytes.len(), max });
    }
    let parts = parse_loosely(bytes).map_err(|_| CoseError::Malformed("its structure is wrong"))?;
    let protected =
        header(parts.algorithm, parts.content_type.as_deref(), &parts.key_id, &parts.claims, parts.structure);
    let again = envelope(&protected, parts.proof.as_deref(), parts.payload.as_deref(), &parts.signature);
    if protected == parts.protected && again == bytes { Ok(parts) } else { Err(CoseError::NotCanonical) }
}

/// Reads the structure; that it was written in the one right way is seen by writing it again.
fn parse_loosely(bytes: &[u8]) -> Result<Parts, minicbor::decode::Error> {
    let wrong = minicbor::decode::Error::message;
    let mut d = Decoder::new(bytes);
    if d.tag()?.as_u64() != SIGN1_TAG || d.array()? != Some(4) {
        return Err(wrong("no COSE_Sign1"));
    }
    let protected = d.bytes()?.to_vec();
    let proof = match d.map()? {
        Some(0) => None,
        Some(1) => {
            if d.i64()? != PROOFS || d.map()? != Some(1) || d.i64()? != INCLUSION_PROOFS || d.array()? != Some(1) {
                return Err(wrong("no inclusion proof"));
            }
            Some(d.bytes()?.to_vec())
        }
        _ => return Err(wrong("unprotected header")),
    };
    let payload = if d.datatype()? == minicbor::data::Type::Null {
        d.null()?;
        None
    } else {
        Some(d.bytes()?.to_vec())
    };
    let signature = d.bytes()?.to_vec();

    let mut d = Decoder::new(&protected);
    let entries = d.map()?.ok_or_else(|| wrong("protected header"))?;
    let (mut algorithm, mut content_type, mut key, mut claims, mut structure) = (None, None, None, None, None);
    for _ in 0..entries.min(PROTECTED_MAX) {
        match d.i64()? {
            ALGORITHM => algorithm = Some(d.i64()?),
            CONTENT_TYPE => content_type = Some(d.str()?.to_owned()),
            KEY_ID => key = KeyId::try_from(d.bytes()?).ok(),
            CLAIMS => claims = Some(parse_claims(&mut d)?),
            STRUCTURE => structure = Some(d.i64()?),
            _ => return Err(wrong("protected header")),
        }
    }
    let (Some(algorithm), Some(key_id), Some(claims)) = (algorithm, key, claims) else {
        return Err(wrong("protected header"));
    };
    Ok(Parts { claims, key_id, proof, algorithm, content_type, structure, payload, protected, signature })
}

fn parse_claims(d: &mut Decoder<'_>) -> Result<Claims, minicbor::decode::Error> {
    let wrong = minicbor::decode::Error::message;
    if d.map()? != Some(3) || d.i64()? != ISSUER {
        return Err(wrong("claims"));
    }
    let issuer = d.decode()?;
    if d.i64()? != SUBJECT {
        return Err(wrong("claims"));
    }
    let subject = d.str()?.to_owned();
    if d.i64()? != ISSUED_AT {
        return Err(wrong("claims"));
    }
    let issued = Timestamp(d.i64()?.checked_mul(1000).ok_or_else(|| wrong("time"))?);
    Ok(Claims { issuer, subject, issued })
}

fn header(algorithm: i64, content_type: Option<&str>, key: &KeyId, claims: &Claims, structure: Option<i64>) -> Vec<u8> {
    written(|e| {
        let entries = 3 + u64::from(content_type.is_some()) + u64::from(structure.is_some());
        e.map(entries)?.i64(ALGORITHM)?.i64(algorithm)?;
        if let Some(content_type) = content_type {
            e.i64(CONTENT_TYPE)?.str(content_type)?;
        }
        e.i64(KEY_ID)?.bytes(key)?;
        e.i64(CLAIMS)?.map(3)?;
        e.i64(ISSUER)?.encode(&claims.issuer)?.i64(SUBJECT)?.str(&claims.subject)?;
        e.i64(ISSUED_AT)?.i64(claims.issued.0.div_euclid(1000))?;
        if let Some(structure) = structure {
            e.i64(STRUCTURE)?.i64(structure)?;
        }
        e.ok()
    })
}

fn envelope(protected: &[u8], proof: Option<&[u8]>, payload: Option<&[u8]>, signature: &[u8]) -> Vec<u8> {
    written(|e| {
        e.tag(minicbor::data::Tag::new(SIGN1_TAG))?.array(4)?.bytes(protected)?;
        match proof {
            None => e.map(0)?,
            Some(proof) => e.map(1)?.i64(PROOFS)?.map(1)?.i64(INCLUSION_PROOFS)?.array(1)?.bytes(proof)?,
        };
        match payload {
            None => e.null()?,
            Some(payload) => e.bytes(payload)?,
        };
        e.bytes(signature)?.ok()
    })
}

/// RFC 9052 section 4.4.
fn to_be_signed(protected: &[u8], payload: &[u8]) -> Vec<u8> {
    written(|e| e.array(4)?.str("Signature1")?.bytes(protected)?.bytes(&[])?.bytes(payload)?.ok())
}

/// Runs an encoder over memory, which cannot fail.
pub(crate) fn written(
    write: impl FnOnce(&mut Encoder<&mut Vec<u8>>) -> Result<(), minicbor::encode::Error<Infallible>>,
) -> Vec<u8> {
    let mut out = Vec::new();
    match write(&mut Encoder::new(&mut out)) {
        Ok(()) => out,
        Err(_) => Vec::new(),
    }
}

/// EdDSA over edwards25519 (COSE −8).
pub struct Ed25519;

impl Verifier for Ed25519 {
    fn algorithm(&self) -> i64 {
        EDDSA
    }
    fn name(&self) -> &'static str {
        "ed25519"
    }
    fn verify(&self, key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
        use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
        UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok()
    }
}

/// A private Ed25519 key in memory.
pub struct Ed25519Signer {
    pair: aws_lc_rs::signature::Ed25519KeyPair,
    public: PublicKey,
}

impl Ed25519Signer {
    /// From 32 random bytes.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, CoseError> {
        aws_lc_rs::signature::Ed25519KeyPair::from_seed_unchecked(seed)
            .map_err(|_| CoseError::Signer)
            .and_then(Self::from_pair)
    }
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, CoseError> {
        aws_lc_rs::signature::Ed25519KeyPair::from_pkcs8(der).map_err(|_| CoseError::Signer).and_then(Self::from_pair)
    }
    fn from_pair(pair: aws_lc_rs::signature::Ed25519KeyPair) -> Result<Self, CoseError> {
        use aws_lc_rs::signature::KeyPair;
        let public = PublicKey::try_from(pair.public_key().as_ref()).map_err(|_| CoseError::Signer)?;
        Ok(Self { pair, public })
    }
}

impl Signer for Ed25519Signer {
    fn algorithm(&self) -> i64 {
        EDDSA
    }
    fn public_key(&self) -> PublicKey {
        self.public
    }
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, CoseError> {
        Ok(self.pair.try_sign(message).map_err(|_| CoseError::Signer)?.as_ref().to_vec())
    }
}

impl std::fmt::Debug for Ed25519Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ed25519Signer({})", hex::encode(&key_id(&self.public)[..8]))
    }
}

/// SHA-256.
pub struct Sha256;

impl Digest for Sha256 {
    fn name(&self) -> &'static str {
        "sha-256"
    }
    fn digest(&self, bytes: &[u8]) -> [u8; 32] {
        sha256(bytes)
    }
}

/// A public Ed25519 key as the PEM that openssl reads.
pub fn public_key_pem(key: &PublicKey) -> String {
    use base64::Engine;
    let der = [&SPKI_ED25519[..], key].concat();
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n")
}

/// Reads exactly what [`public_key_pem`] writes.
pub fn parse_public_key_pem(pem: &[u8]) -> Option<PublicKey> {
    use base64::Engine;
    let text = std::str::from_utf8(pem).ok().filter(|text| text.len() <= limits::PEM_BYTES_MAX)?;
    let line = text.lines().nth(1)?;
    let der = base64::engine::general_purpose::STANDARD.decode(line).ok()?;
    let key = PublicKey::try_from(der.strip_prefix(&SPKI_ED25519[..])?).ok()?;
    (public_key_pem(&key) == text).then_some(key)
}

/// A key's fingerprint as people compare it: SHA-256 of the key in hex.
pub fn fingerprint(key: &PublicKey) -> String {
    hex::encode(key_id(key))
}

const EDDSA: i64 = -8;
const SIGN1_TAG: u64 = 18;
// Header parameters (IANA COSE registry) and CWT claims.
const ALGORITHM: i64 = 1;
const CONTENT_TYPE: i64 = 3;
const KEY_ID: i64 = 4;
const CLAIMS: i64 = 15;
const STRUCTURE: i64 = 395;
const PROOFS: i64 = 396;
const INCLUSION_PROOFS: i64 = -1;
const RFC9162_SHA256: i64 = 1;
const ISSUER: i64 = 1;
const SUBJECT: i64 = 2;
const ISSUED_AT: i64 = 6;
const PROTECTED_MAX: u64 = 8;
/// SubjectPublicKeyInfo of Ed25519 (RFC 8410) up to the key itself.
const SPKI_ED25519: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
