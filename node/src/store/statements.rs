//! The evidence a node keeps: statements of both parties, the chains of its own, the outbox to the centre,
//! proofs that came back, and receipts. All functions run inside the caller's transaction, so that a
//! statement is signed in the same transaction that records what it says.
//! A fact is signed once: a second call for the same fact gives the first statement.

use super::{failed, signed, unsigned};
use posthouse_protocol::cose::{KeyId, Keys, PublicKey, key_id};
use posthouse_protocol::id::{JobId, NodeId, ReceiptId, ResourceRef, TransferId};
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::receipt::Receipt;
use posthouse_protocol::statement::{Body, Chain, Signer, Statement};
use posthouse_protocol::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

/// Who signs, and when.
pub struct Hand<'a> {
    pub name: &'a NodeId,
    pub signer: &'a dyn Signer,
    /// The node's epoch: each start begins new chains.
    pub epoch: u64,
    pub now: Timestamp,
}

/// Which chain a statement belongs to.
#[derive(Debug, Clone, Copy)]
pub struct ChainKey<'a> {
    pub peer: &'a NodeId,
    pub resource: &'a ResourceRef,
    pub job: &'a JobId,
}

/// Draws the next place in the chain, signs, stores, and queues for the centre. Where this node has stated
/// the same fact (kind and transfer) before, that statement is given again.
pub fn sign(
    tx: &Transaction<'_>,
    hand: &Hand<'_>,
    key: ChainKey<'_>,
    body: impl FnOnce(Chain) -> Body,
) -> Result<Statement, Problem> {
    let resource = key.resource.to_string();
    let last: Option<(u64, [u8; 32])> = tx
        .query_row(
            "SELECT sequence, sha256 FROM chains WHERE peer = ?1 AND resource = ?2 AND job = ?3 AND epoch = ?4",
            params![key.peer.as_str(), resource, key.job.as_str(), signed(hand.epoch)],
            |row| Ok((unsigned(row.get(0)?), row.get(1)?)),
        )
        .optional()
        .map_err(failed)?;
    let sequence = last.map_or(1, |(sequence, _)| sequence + 1);
    let chain = Chain { epoch: hand.epoch, sequence, previous: last.map(|(_, sha256)| sha256.into()) };
    let body = body(chain);
    if body.is_said_once()
        && let Some(transfer) = body.transfer()
        && let Some(made) = own(tx, transfer, body.kind(), &OwnKey::of(hand))?
    {
        return Ok(made);
    }
    let statement = Statement::sign(body, hand.name, hand.now, hand.signer)
        .map_err(|e| Problem::new(Code::InsideFailed).cause(format!("failed to sign a statement: {e}")))?;
    keep(tx, &statement, true, hand.now)?;
    tx.execute(
        "INSERT INTO chains VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT DO UPDATE SET sequence = excluded.sequence, sha256 = excluded.sha256",
        params![
            key.peer.as_str(),
            resource,
            key.job.as_str(),
            signed(hand.epoch),
            signed(sequence),
            statement.sha256()
        ],
    )
    .map_err(failed)?;
    tx.execute("INSERT INTO outbox (sha256, queued) VALUES (?1, ?2)", params![statement.sha256(), hand.now.0])
        .map_err(failed)?;
    Ok(statement)
}

/// Keeps the peer's statement, which the caller has verified. A repeat changes nothing.
pub fn take(tx: &Transaction<'_>, statement: &Statement, now: Timestamp) -> Result<(), Problem> {
    keep(tx, statement, false, now)
}

fn keep(tx: &Transaction<'_>, statement: &Statement, own: bool, now: Timestamp) -> Result<(), Problem> {
    tx.execute(
        "INSERT INTO statements VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING",
        params![
            statement.sha256(),
            statement.body().transfer().map(TransferId::as_str),
            own,
            statement.body().kind(),
            statement.bytes(),
            now.0
        ],
    )
    .map_err(failed)?;
    Ok(())
}

/// This node's own statement of a kind (`provider`, `consumer`, `refusal`, `failure`) about a transfer.
pub fn own(db: &Connection, transfer: &TransferId, kind: &str, keys: &dyn Keys) -> Result<Option<Statement>, Problem> {
    let bytes: Option<Vec<u8>> = db
        .query_row(
            "SELECT bytes FROM statements WHERE transfer = ?1 AND own AND kind = ?2",
            params![transfer.as_str(), kind],
            |row| row.get(0),
        )
        .optional()
        .map_err(failed)?;
    bytes
        .map(|bytes| {
            Statement::open(&bytes, keys)
                .map_err(|e| Problem::new(Code::StoreDamaged).with("path", super::STORE_FILE).cause(e))
        })
        .transpose()
}

/// Whether the other party has stated that this transfer ended without a receipt.
pub fn has_peers_ending(db: &Connection, transfer: &TransferId) -> Result<bool, Problem> {
    db.query_row(
        "SELECT EXISTS (SELECT 1 FROM statements WHERE transfer = ?1 AND NOT own AND kind IN ('refusal', 'failure'))",
        [transfer.as_str()],
        |row| row.get(0),
    )
    .map_err(failed)
}

/// A kept statement as it stands in listings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub sha256: [u8; 32],
    pub own: bool,
    pub kind: String,
    pub bytes: Vec<u8>,
    pub at: Timestamp,
    pub proven: bool,
}

/// All statements about a transfer, oldest first.
pub fn of_transfer(db: &Connection, transfer: &TransferId) -> Result<Vec<Kept>, Problem> {
    let mut statement = db
        .prepare_cached(
            "SELECT s.sha256, own, kind, bytes, s.at, p.sha256 IS NOT NULL FROM statements s LEFT JOIN proofs p USING (sha256)
             WHERE transfer = ?1 ORDER BY s.at, kind DESC",
        )
        .map_err(failed)?;
    let rows = statement
        .query_map([transfer.as_str()], |row| {
            Ok(Kept {
                sha256: row.get(0)?,
                own: row.get(1)?,
                kind: row.get(2)?,
                bytes: row.get(3)?,
                at: Timestamp(row.get(4)?),
                proven: row.get(5)?,
            })
        })
        .map_err(failed)?;
    rows.map(|row| row.map_err(failed)).collect()
}

/// The bytes of the statement of a kind that this node holds about a transfer, whoever made it.
pub fn bytes(db: &Connection, transfer: &TransferId, kind: &str) -> Result<Option<Vec<u8>>, Problem> {
    db.query_row(
        "SELECT bytes FROM statements WHERE transfer = ?1 AND kind = ?2",
        params![transfer.as_str(), kind],
        |row| row.get(0),
    )
    .optional()
    .map_err(failed)
}

pub fn by_sha256(db: &Connection, sha256: &[u8; 32]) -> Result<Option<Vec<u8>>, Problem> {
    db.query_row("SELECT bytes FROM statements WHERE sha256 = ?1", [sha256], |row| row.get(0))
        .optional()
        .map_err(failed)
}

/// Both statements of a transfer are here: its receipt stands.
pub fn settle(
    tx: &Transaction<'_>,
    transfer: &TransferId,
    provider: &Statement,
    consumer: &Statement,
    now: Timestamp,
) -> Result<ReceiptId, Problem> {
    let id = ReceiptId::from_statement(consumer.sha256());
    tx.execute(
        "INSERT INTO receipts VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING",
        params![id.as_str(), transfer.as_str(), provider.sha256(), consumer.sha256(), now.0],
    )
    .map_err(failed)?;
    Ok(id)
}

/// A receipt in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiptRow {
    pub id: ReceiptId,
    pub transfer: TransferId,
    pub at: Timestamp,
    pub proven: bool,
}

/// Newest first.
pub fn receipts(db: &Connection, limit: u32) -> Result<Vec<ReceiptRow>, Problem> {
    let mut statement = db
        .prepare_cached(
            "SELECT id, transfer, r.at, p.sha256 IS NOT NULL FROM receipts r LEFT JOIN proofs p ON p.sha256 = r.consumer_sha256
             ORDER BY r.at DESC, id LIMIT ?1",
        )
        .map_err(failed)?;
    let rows = statement
        .query_map([limit], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, Timestamp(row.get(2)?), row.get(3)?))
        })
        .map_err(failed)?;
    rows.map(|row| {
        let (id, transfer, at, proven) = row.map_err(failed)?;
        Ok(ReceiptRow { id: id.parse().map_err(strange)?, transfer: transfer.parse().map_err(strange)?, at, proven })
    })
    .collect()
}

/// The receipt of a transfer in its listing, once both parties have signed.
pub fn receipt_of(db: &Connection, transfer: &TransferId) -> Result<Option<ReceiptRow>, Problem> {
    let found: Option<(String, i64, bool)> = db
        .query_row(
            "SELECT id, r.at, p.sha256 IS NOT NULL FROM receipts r LEFT JOIN proofs p ON p.sha256 = r.consumer_sha256 WHERE transfer = ?1",
            [transfer.as_str()],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .optional()
        .map_err(failed)?;
    found
        .map(|(id, at, proven)| {
            Ok(ReceiptRow { id: id.parse().map_err(strange)?, transfer: transfer.clone(), at: Timestamp(at), proven })
        })
        .transpose()
}

/// The transfer that an id of a receipt or of a transfer means.
pub fn transfer_of(db: &Connection, id: &str) -> Result<Option<TransferId>, Problem> {
    let found: Option<String> = db
        .query_row(
            "SELECT transfer FROM receipts WHERE id = ?1 UNION SELECT id FROM transfers WHERE id = ?1",
            [id],
            |row| row.get(0),
        )
        .optional()
        .map_err(failed)?;
    found.map(|text| text.parse().map_err(strange)).transpose()
}

/// The receipt of a transfer with the centre's proof where it has come; none before both parties signed,
/// except at a provider whose consumer has not answered.
pub fn receipt(db: &Connection, transfer: &TransferId) -> Result<Option<Receipt>, Problem> {
    let Some(provider) = bytes(db, transfer, "provider")? else { return Ok(None) };
    let consumer = bytes(db, transfer, "consumer")?;
    let about = posthouse_protocol::codec::sha256(consumer.as_ref().unwrap_or(&provider));
    let receipt = Receipt { provider, consumer, inclusion: None, checkpoint: None };
    Ok(Some(match proof(db, &about)? {
        Some(proof) => receipt.with_proof(proof.inclusion, proof.checkpoint),
        None => receipt,
    }))
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptProof {
    pub leaf: u64,
    pub inclusion: Vec<u8>,
    pub checkpoint: String,
}

pub fn proof(db: &Connection, statement: &[u8; 32]) -> Result<Option<KeptProof>, Problem> {
    db.query_row("SELECT leaf, inclusion, checkpoint FROM proofs WHERE sha256 = ?1", [statement], |row| {
        Ok(KeptProof { leaf: unsigned(row.get(0)?), inclusion: row.get(1)?, checkpoint: row.get(2)? })
    })
    .optional()
    .map_err(failed)
}

pub fn keep_proof(
    tx: &Transaction<'_>,
    statement: &[u8; 32],
    proof: &KeptProof,
    now: Timestamp,
) -> Result<(), Problem> {
    tx.execute(
        "INSERT INTO proofs VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING",
        params![statement, signed(proof.leaf), proof.inclusion, proof.checkpoint, now.0],
    )
    .map_err(failed)?;
    Ok(())
}

/// A statement that waits for the centre.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queued {
    pub sha256: [u8; 32],
    pub bytes: Vec<u8>,
}

/// The oldest statements that wait for the centre, in order; refused ones are left aside.
pub fn outbox(db: &Connection, limit: usize) -> Result<Vec<Queued>, Problem> {
    let mut statement = db
        .prepare_cached(
            "SELECT o.sha256, s.bytes FROM outbox o JOIN statements s USING (sha256) WHERE refused IS NULL ORDER BY position LIMIT ?1",
        )
        .map_err(failed)?;
    let rows = statement
        .query_map([i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
            Ok(Queued { sha256: row.get(0)?, bytes: row.get(1)? })
        })
        .map_err(failed)?;
    rows.map(|row| row.map_err(failed)).collect()
}

/// The centre has taken it.
pub fn acknowledge(tx: &Transaction<'_>, statement: &[u8; 32]) -> Result<(), Problem> {
    tx.execute("DELETE FROM outbox WHERE sha256 = ?1", [statement]).map_err(failed)?;
    Ok(())
}

/// The centre cannot take it: it stays, with the reason, and does not hold up the others.
pub fn set_aside(tx: &Transaction<'_>, statement: &[u8; 32], why: &str) -> Result<(), Problem> {
    tx.execute("UPDATE outbox SET refused = ?2 WHERE sha256 = ?1", params![statement, why]).map_err(failed)?;
    Ok(())
}

/// How many statements wait (refused ones included), and since when the oldest does.
pub fn waiting(db: &Connection) -> Result<(u64, Option<Timestamp>), Problem> {
    db.query_row("SELECT count(*), min(queued) FROM outbox", [], |row| {
        Ok((unsigned(row.get(0)?), row.get::<_, Option<i64>>(1)?.map(Timestamp)))
    })
    .map_err(failed)
}

/// Statements of either party that the centre has taken, or that complete a receipt here, but whose proof
/// has not come.
pub fn unproven(db: &Connection, limit: usize) -> Result<Vec<[u8; 32]>, Problem> {
    let mut statement = db
        .prepare_cached(
            "SELECT sha256 FROM (SELECT sha256, at FROM statements WHERE own AND sha256 NOT IN (SELECT sha256 FROM outbox)
             UNION SELECT consumer_sha256, at FROM receipts) WHERE sha256 NOT IN (SELECT sha256 FROM proofs) ORDER BY at LIMIT ?1",
        )
        .map_err(failed)?;
    let rows = statement.query_map([i64::try_from(limit).unwrap_or(i64::MAX)], |row| row.get(0)).map_err(failed)?;
    rows.map(|row| row.map_err(failed)).collect()
}

/// The statement key of this node, for reading back what it signed.
pub struct OwnKey {
    name: NodeId,
    key: PublicKey,
}

impl OwnKey {
    pub fn new(name: &NodeId, signer: &dyn Signer) -> Self {
        Self { name: name.clone(), key: signer.public_key() }
    }
    fn of(hand: &Hand<'_>) -> Self {
        Self::new(hand.name, hand.signer)
    }
}

impl Keys for OwnKey {
    fn find(&self, issuer: &NodeId, key: &KeyId, _: Timestamp) -> Option<PublicKey> {
        (*issuer == self.name && *key == key_id(&self.key)).then_some(self.key)
    }
}

fn strange(error: impl std::fmt::Display) -> Problem {
    Problem::new(Code::StoreDamaged).with("path", super::STORE_FILE).cause(error)
}
