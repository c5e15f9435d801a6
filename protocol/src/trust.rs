//! Whom to believe when verifying offline: the policy key is the root, and `nodes.cose`, signed by it,
//! names the nodes with their statement keys and validity and the ledger's key.
//! As files it is the folder `trust/`: every byte in it is either signed or derived from what is signed,
//! so that no file can be changed unnoticed. Where the policy key comes from is the reader's own decision.

use crate::codec;
use crate::cose::{self, CoseError, KeyId, Keys, PublicKey, Signer};
use crate::id::NodeId;
use crate::ledger::{LedgerError, LedgerKey};
use crate::limits;
use crate::time::Timestamp;
use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};
use std::collections::BTreeMap;

/// Payload of `nodes.cose`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Nodes {
    /// Signed-note verifier key of the ledger.
    #[n(0)]
    pub ledger_vkey: String,
    #[n(1)]
    pub issued: Timestamp,
    #[n(2)]
    pub nodes: Vec<TrustedNode>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct TrustedNode {
    #[n(0)]
    pub node: NodeId,
    #[n(1)]
    pub department: Option<String>,
    #[n(2)]
    pub department_code: Option<String>,
    /// Present and past statement keys.
    #[n(3)]
    pub keys: Vec<TrustedKey>,
}

/// A statement key and when statements signed by it are good.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct TrustedKey {
    #[n(0)]
    pub key: ByteArray<32>,
    #[n(1)]
    pub from: Timestamp,
    /// None while it is in use.
    #[n(2)]
    pub until: Option<Timestamp>,
}

impl Nodes {
    /// Signs the list with the policy key.
    pub fn sign(&self, coordinator: &NodeId, signer: &dyn Signer) -> Result<Vec<u8>, CoseError> {
        let claims = cose::Claims::new(coordinator.clone(), self.ledger_vkey.as_str(), self.issued);
        cose::seal(CONTENT_TYPE, &claims, &codec::encode(self), signer)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    #[error("it is missing")]
    Missing,
    #[error("it is not a public key in PEM as Posthouse writes it")]
    Pem,
    #[error("it is not what the signed list of nodes says")]
    NotDerived,
    #[error("it does not belong here")]
    Unknown,
    #[error("its list of nodes is malformed: {0}")]
    Nodes(String),
    #[error(transparent)]
    Envelope(#[from] CoseError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Names, statement keys with validity, the ledger's key and the policy key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustStore {
    policy_key: PublicKey,
    coordinator: NodeId,
    ledger: LedgerKey,
    nodes: Nodes,
    nodes_cose: Vec<u8>,
}

impl TrustStore {
    /// From the signed list of nodes and the key it must be signed with.
    pub fn open(nodes_cose: &[u8], policy_key: &PublicKey) -> Result<Self, TrustError> {
        let opened = cose::open(nodes_cose, limits::NODES_BYTES_MAX, CONTENT_TYPE, policy_key)?;
        let nodes: Nodes = codec::decode_strict(&opened.payload, limits::NODES_BYTES_MAX)
            .map_err(|e| TrustError::Nodes(e.to_string()))?;
        let ledger = LedgerKey::parse(&nodes.ledger_vkey)?;
        let coordinator = ledger.coordinator()?;
        if opened.claims.issuer != coordinator || opened.claims.subject != nodes.ledger_vkey {
            return Err(TrustError::Nodes("it is issued by another coordinator than its ledger's".to_owned()));
        }
        Ok(Self { policy_key: *policy_key, coordinator, ledger, nodes, nodes_cose: nodes_cose.to_vec() })
    }

    /// From the files of a `trust/` folder, by name. `policy.pem` and `nodes.cose` must be there; every other
    /// file must be one that [`TrustStore::files`] writes, byte for byte. Errors come with the file's name.
    pub fn from_files(files: &BTreeMap<String, Vec<u8>>) -> Result<Self, (String, TrustError)> {
        let read = |name: &str| files.get(name).ok_or_else(|| (name.to_owned(), TrustError::Missing));
        let policy_key =
            cose::parse_public_key_pem(read(POLICY_PEM)?).ok_or_else(|| (POLICY_PEM.to_owned(), TrustError::Pem))?;
        let trust = Self::open(read(NODES_COSE)?, &policy_key).map_err(|e| (NODES_COSE.to_owned(), e))?;
        let derived: BTreeMap<String, Vec<u8>> = trust.files().into_iter().collect();
        for (name, bytes) in files {
            match derived.get(name) {
                Some(expected) if expected == bytes => {}
                Some(_) => return Err((name.clone(), TrustError::NotDerived)),
                None => return Err((name.clone(), TrustError::Unknown)),
            }
        }
        Ok(trust)
    }

    /// The files of the folder `trust/`, sorted by name.
    pub fn files(&self) -> Vec<(String, Vec<u8>)> {
        let mut files = BTreeMap::from([
            ("ledger.pem".to_owned(), cose::public_key_pem(self.ledger.key()).into_bytes()),
            ("ledger.vkey".to_owned(), format!("{}\n", self.ledger.vkey()).into_bytes()),
            (POLICY_PEM.to_owned(), cose::public_key_pem(&self.policy_key).into_bytes()),
            (NODES_COSE.to_owned(), self.nodes_cose.clone()),
        ]);
        for node in &self.nodes.nodes {
            for key in &node.keys {
                files.insert(Self::pem_name(&node.node, &key.key), cose::public_key_pem(&key.key).into_bytes());
            }
        }
        files.into_iter().collect()
    }

    /// Name of the PEM file of one statement key: `<node>.<first 16 digits of its fingerprint>.pem`.
    pub fn pem_name(node: &NodeId, key: &PublicKey) -> String {
        let fingerprint = cose::fingerprint(key);
        format!("{node}.{}.pem", fingerprint.get(..16).unwrap_or_default())
    }

    pub fn policy_key(&self) -> &PublicKey {
        &self.policy_key
    }
    pub fn ledger(&self) -> &LedgerKey {
        &self.ledger
    }
    pub fn coordinator(&self) -> &NodeId {
        &self.coordinator
    }
    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }
    /// What to compare with what the managing authority published: (whose, SHA-256 of the key).
    pub fn fingerprints(&self) -> Vec<(String, String)> {
        vec![
            (format!("{} policy", self.coordinator), cose::fingerprint(&self.policy_key)),
            (self.ledger.origin().to_owned(), cose::fingerprint(self.ledger.key())),
        ]
    }
}

impl Keys for TrustStore {
    fn find(&self, issuer: &NodeId, key: &KeyId, issued: Timestamp) -> Option<PublicKey> {
        if *issuer == self.coordinator {
            return [self.policy_key, *self.ledger.key()].into_iter().find(|own| cose::key_id(own) == *key);
        }
        // Clocks may differ by a little: a statement of the minute in which its key was registered is good.
        let node = self.nodes.nodes.iter().find(|node| node.node == *issuer)?;
        node.keys
            .iter()
            .filter(|trusted| issued >= trusted.from.plus_ms(-limits::CLOCK_SKEW_MS))
            .filter(|trusted| trusted.until.is_none_or(|until| issued <= until.plus_ms(limits::CLOCK_SKEW_MS)))
            .map(|trusted| *trusted.key)
            .find(|trusted| cose::key_id(trusted) == *key)
    }
}

/// Content type of `nodes.cose`.
pub const CONTENT_TYPE: &str = "application/vnd.posthouse.nodes+cbor";
const POLICY_PEM: &str = "policy.pem";
const NODES_COSE: &str = "nodes.cose";
