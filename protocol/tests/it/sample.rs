//! A small world for tests: a coordinator with its keys, two nodes, and a transfer they receipt.
//! Everything is derived from fixed seeds, so that the same call gives the same bytes.

#![expect(clippy::unwrap_used, reason = "a test's helpers end it where they fail")]

use posthouse_protocol::codec::{encode, sha256};
use posthouse_protocol::cose::{Ed25519Signer, Signer};
use posthouse_protocol::id::{GrantId, NodeId, ResourceRef, TransferId};
use posthouse_protocol::job::{Mode, Write};
use posthouse_protocol::ledger::{self, Checkpoint, Hash, HashReader, Inclusion, LedgerKey};
use posthouse_protocol::manifest::{Counts, Manifest};
use posthouse_protocol::receipt::{Nodes, Receipt, TrustStore, TrustedKey, TrustedNode};
use posthouse_protocol::statement::{Body, Chain, Ending, Landing, Outcome, Proof, Statement};
use posthouse_protocol::time::Timestamp;

pub(crate) const NOW: Timestamp = Timestamp(1_795_000_000_000);

pub(crate) struct World {
    pub(crate) coordinator: NodeId,
    pub(crate) policy: Ed25519Signer,
    pub(crate) ledger: Ed25519Signer,
    pub(crate) provider: NodeId,
    pub(crate) provider_key: Ed25519Signer,
    pub(crate) consumer: NodeId,
    pub(crate) consumer_key: Ed25519Signer,
    pub(crate) nodes_cose: Vec<u8>,
    pub(crate) trust: TrustStore,
}

impl World {
    pub(crate) fn new() -> Self {
        let key = |seed: u8| Ed25519Signer::from_seed(&[seed; 32]).unwrap();
        let (policy, ledger, provider_key, consumer_key) = (key(1), key(2), key(3), key(4));
        let coordinator = NodeId::parse("centre.xian.example").unwrap();
        let provider = NodeId::parse("police.xian.example").unwrap();
        let consumer = NodeId::parse("housing.xian.example").unwrap();
        let node = |name: &NodeId, key: &Ed25519Signer| TrustedNode {
            node: name.clone(),
            department: Some("西安市住建局".to_owned()),
            department_code: None,
            keys: vec![TrustedKey { key: key.public_key().into(), from: NOW.plus_ms(-86_400_000), until: None }],
        };
        let ledger_key = LedgerKey::new(&format!("{coordinator}/log1"), ledger.public_key()).unwrap();
        let nodes = Nodes {
            ledger_vkey: ledger_key.vkey(),
            issued: NOW,
            nodes: vec![node(&consumer, &consumer_key), node(&provider, &provider_key)],
        };
        let nodes_cose = nodes.sign(&coordinator, &policy).unwrap();
        let trust = TrustStore::open(&nodes_cose, &policy.public_key()).unwrap();
        Self { coordinator, policy, ledger, provider, provider_key, consumer, consumer_key, nodes_cose, trust }
    }

    pub(crate) fn resource(&self) -> ResourceRef {
        format!("{}/scans", self.provider).parse().unwrap()
    }

    pub(crate) fn manifest(&self, files_b3: &[u8]) -> Manifest {
        Manifest {
            transfer: TransferId::from_random([7; 16]),
            job: "scans-daily".parse().unwrap(),
            mode: Mode::Full,
            write: Write::Upsert,
            resource: self.resource(),
            catalog: None,
            contract_sha256: None,
            filter_sha256: None,
            grant: GrantId::from_random([8; 16]),
            policy_epoch: 1,
            policy_sequence: 4,
            route: Vec::new(),
            provider: self.provider.clone(),
            provider_department: Some("西安市公安局".to_owned()),
            provider_epoch: 3,
            consumer: self.consumer.clone(),
            consumer_epoch: 2,
            watermark_from: None,
            watermark_to: None,
            counts: Counts { files: 2, directories: 1, bytes: 11, ..Counts::default() },
            chunk_size: 1 << 20,
            entries: 3,
            content_root: [5; 32].into(),
            entries_sha256: [6; 32].into(),
            files_b3_sha256: Some(sha256(files_b3).into()),
            digest_commitment: None,
            left_out: Vec::new(),
            left_out_sha256: None,
            started: NOW.plus_ms(-5_000),
            sealed: NOW.plus_ms(-1_000),
            succeeds: None,
            algorithms: ["blake3", "sha-256", "ed25519"].map(str::to_owned).to_vec(),
            governed: None,
            quality: None,
            database_line: None,
        }
    }

    pub(crate) fn hand_over(&self, manifest: Manifest) -> Statement {
        let chain = Chain { epoch: 3, sequence: 9, previous: Some([9; 32].into()) };
        let body = Body::Provider(chain, Box::new(manifest));
        Statement::sign(body, &self.provider, NOW, &self.provider_key).unwrap()
    }

    pub(crate) fn landing(&self, provider: &Statement) -> Landing {
        let manifest = provider.manifest().unwrap();
        Landing {
            transfer: manifest.transfer.clone(),
            job: manifest.job.clone(),
            resource: manifest.resource.clone(),
            provider: manifest.provider.clone(),
            consumer: manifest.consumer.clone(),
            manifest_sha256: sha256(&encode(manifest)).into(),
            provider_statement_sha256: (*provider.sha256()).into(),
            outcome: Outcome::Landed,
            counts: Counts { rows_landed: manifest.counts.rows_sent, ..manifest.counts },
            content_root: manifest.content_root,
            digest_commitment: manifest.digest_commitment,
            left_out: Vec::new(),
            left_out_sha256: None,
            proof: Proof::Written,
            committed: NOW,
            consumer_department: None,
            transport: "quic".to_owned(),
            quality: None,
            database_line: None,
        }
    }

    pub(crate) fn land(&self, landing: Landing) -> Statement {
        let body = Body::Consumer(Chain { epoch: 2, sequence: 1, previous: None }, landing);
        Statement::sign(body, &self.consumer, NOW.plus_ms(1_500), &self.consumer_key).unwrap()
    }

    /// What a transfer ends with when it does not land.
    pub(crate) fn end(&self, by_provider: bool) -> Statement {
        let ending = Ending {
            transfer: TransferId::from_random([7; 16]),
            job: "scans-daily".parse().unwrap(),
            resource: self.resource(),
            provider: self.provider.clone(),
            consumer: self.consumer.clone(),
            code: 3003,
            cause: "the grant was withdrawn".to_owned(),
            ended: NOW,
        };
        let chain = Chain { epoch: 1, sequence: 1, previous: None };
        let (issuer, key) =
            if by_provider { (&self.provider, &self.provider_key) } else { (&self.consumer, &self.consumer_key) };
        Statement::sign(Body::Refusal(chain, ending), issuer, NOW, key).unwrap()
    }

    /// A log of some leaves that ends with this statement, and the receipt of its inclusion.
    pub(crate) fn prove(&self, statement: &Statement, before: u64) -> (Vec<u8>, String) {
        let mut log = Log::default();
        for i in 0..before {
            log.append(&i.to_be_bytes());
        }
        log.append(statement.bytes());
        let size = log.size;
        let root = ledger::root(size, &log).unwrap();
        let inclusion = Inclusion {
            index: size - 1,
            size,
            path: ledger::prove_inclusion(size, size - 1, &log).unwrap(),
            root,
            issued: NOW.plus_ms(3_000),
        };
        let origin = format!("{}/log1", self.coordinator);
        let checkpoint = Checkpoint { origin, size, root }.sign(&self.ledger).unwrap();
        (inclusion.sign(&self.coordinator, &statement.body().subject(), &self.ledger).unwrap(), checkpoint)
    }

    /// A receipt with everything in it.
    pub(crate) fn receipt(&self, files_b3: &[u8]) -> Receipt {
        let provider = self.hand_over(self.manifest(files_b3));
        let consumer = self.land(self.landing(&provider));
        let (inclusion, checkpoint) = self.prove(&consumer, 5);
        Receipt::new(&provider, Some(&consumer)).with_proof(inclusion, checkpoint)
    }
}

/// A ledger in memory.
#[derive(Default)]
pub(crate) struct Log {
    pub(crate) size: u64,
    hashes: Vec<Hash>,
}

impl Log {
    pub(crate) fn append(&mut self, leaf: &[u8]) {
        for (index, hash) in ledger::append(self.size, ledger::leaf_hash(leaf), self).unwrap() {
            assert_eq!(index, self.hashes.len() as u64, "hashes are stored without gaps");
            self.hashes.push(hash);
        }
        self.size += 1;
        assert_eq!(self.hashes.len() as u64, ledger::stored_count(self.size));
    }
}

impl HashReader for Log {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, String> {
        indexes
            .iter()
            .map(|index| self.hashes.get(*index as usize).copied().ok_or_else(|| format!("no hash {index}")))
            .collect()
    }
}

/// Each way to flip one bit of some bytes.
pub(crate) fn flips(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    (0..bytes.len() * 8).map(|bit| {
        let mut flipped = bytes.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        flipped
    })
}
