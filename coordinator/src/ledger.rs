//! 存证台账: takes each statement exactly once and proves that it has it.
//! Statements are verified against the registered keys, appended in one durable transaction, and only then
//! answered: a repeat, also after a crash between the two, gets the same leaf. Submissions that come at the
//! same time share a transaction. The coordinator signs tree heads, and its own acts; never what others say.
//! Hashes and proofs are RFC 6962 (`protocol::ledger`); tiles are served by `api`.

use crate::store::records::registered;
use crate::store::{Store, StoredLeaf};
use posthouse_platform::World;
use posthouse_protocol::centre::Proof;
use posthouse_protocol::cose::{self, Signer};
use posthouse_protocol::id::{NodeId, TransferId};
use posthouse_protocol::ledger::{self as log, HashReader, LedgerError};
use posthouse_protocol::limits;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::statement::{Body, Statement};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// A verified statement on its way into the log.
#[derive(Debug, Clone)]
pub(crate) struct Leaf(Statement);

impl Leaf {
    #[cfg(test)]
    pub(crate) fn of(statement: Statement) -> Self {
        Self(statement)
    }
    pub(crate) fn statement(&self) -> &Statement {
        &self.0
    }
    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }
    pub(crate) fn sha256(&self) -> &[u8; 32] {
        self.0.sha256()
    }
    pub(crate) fn issuer(&self) -> &NodeId {
        self.0.issuer()
    }
    pub(crate) fn kind(&self) -> &'static str {
        self.0.body().kind()
    }
    pub(crate) fn transfer(&self) -> Option<&TransferId> {
        self.0.body().transfer()
    }
}

/// The one way into the log.
pub(crate) struct Ledger {
    world: World,
    store: Arc<dyn Store>,
    origin: String,
    name: NodeId,
    log_key: Arc<dyn Signer>,
    act_key: Arc<dyn Signer>,
    queue: mpsc::Sender<Submission>,
}

/// What became of a submission.
pub(crate) struct Taken {
    pub(crate) proofs: Vec<Proof>,
    /// What the statements taken speak of.
    pub(crate) transfers: BTreeSet<TransferId>,
}

struct Submission {
    leaves: Vec<Leaf>,
    answer: oneshot::Sender<Result<Vec<(u64, bool)>, Problem>>,
}

/// Runs until the ledger is dropped; appends what is queued, many submissions in one transaction.
pub(crate) struct Writer {
    queue: mpsc::Receiver<Submission>,
    world: World,
    store: Arc<dyn Store>,
}

impl Ledger {
    pub(crate) fn new(
        world: World,
        store: Arc<dyn Store>,
        name: NodeId,
        origin: String,
        log_key: Arc<dyn Signer>,
        act_key: Arc<dyn Signer>,
    ) -> (Self, Writer) {
        let (send, receive) = mpsc::channel(QUEUE);
        let writer = Writer { queue: receive, world: world.clone(), store: store.clone() };
        (Self { world, store, origin, name, log_key, act_key, queue: send }, writer)
    }

    /// One answer per statement, in order. A statement that can't be taken is answered with its reason;
    /// the others are taken.
    pub(crate) async fn submit(&self, statements: &[Vec<u8>]) -> Result<Taken, Problem> {
        if statements.len() > limits::SUBMIT_MAX {
            return Err(Problem::new(Code::StatementRefused).cause(format!("more than {} at once", limits::SUBMIT_MAX)));
        }
        let mut good = Vec::new();
        let mut answers = Vec::with_capacity(statements.len());
        for bytes in statements {
            match self.verify(bytes).await? {
                Ok(leaf) => {
                    answers.push(Ok(*leaf.sha256()));
                    good.push(leaf);
                }
                Err(refused) => answers.push(Err((posthouse_protocol::codec::sha256(bytes), refused))),
            }
        }
        let transfers = good.iter().filter_map(|leaf: &Leaf| leaf.transfer().cloned()).collect();
        let hashes: Vec<[u8; 32]> = good.iter().map(|leaf| *leaf.sha256()).collect();
        if !good.is_empty() {
            self.append(good).await?;
        }
        let mut proofs = self.proofs(&hashes).await?.into_iter();
        let mut out = Vec::with_capacity(answers.len());
        for answer in answers {
            out.push(match answer {
                Ok(_) => proofs.next().ok_or_else(|| Problem::new(Code::InsideFailed).cause("a proof is missing"))?,
                Err((sha256, refused)) => unproven(sha256, refused),
            });
        }
        Ok(Taken { proofs: out, transfers })
    }

    /// Proofs of statements by their SHA-256; one that has not come (yet) is left out. Each leaf is proven in
    /// the tree that ends with it, dated when it was taken: asked again, the proof is the same byte for byte.
    pub(crate) async fn proofs(&self, statements: &[[u8; 32]]) -> Result<Vec<Proof>, Problem> {
        let mut out = Vec::with_capacity(statements.len());
        for leaf in self.store.find_leaves(statements.to_vec()).await?.into_iter().flatten() {
            out.push(self.proof(&leaf).await?);
        }
        Ok(out)
    }

    pub(crate) async fn proof(&self, leaf: &StoredLeaf) -> Result<Proof, Problem> {
        let size = leaf.index + 1;
        let computed = |reader: &Known| Ok((log::root(size, reader)?, log::prove_inclusion(size, leaf.index, reader)?));
        let (root, path) = self.with_hashes(computed).await?;
        let inclusion = log::Inclusion { index: leaf.index, size, path, root, issued: leaf.taken_at };
        let (claims, _) = cose::peek(&leaf.bytes, limits::STATEMENT_BYTES_MAX).map_err(inside)?;
        Ok(Proof {
            statement: leaf.sha256.into(),
            index: leaf.index,
            inclusion: inclusion.sign(&self.name, &claims.subject, &*self.log_key).map_err(inside)?.into(),
            checkpoint: self.sign_head(size, root)?,
            refused: None,
        })
    }

    /// The log as it is now: its size and its signed head.
    pub(crate) async fn checkpoint(&self) -> Result<(u64, String), Problem> {
        let size = self.store.ledger_size().await?;
        let root = self.with_hashes(|reader| log::root(size, reader)).await?;
        Ok((size, self.sign_head(size, root)?))
    }

    /// RFC 6962 consistency proof between two sizes.
    pub(crate) async fn consistency(&self, old: u64, new: u64) -> Result<Vec<[u8; 32]>, Problem> {
        self.with_hashes(|reader| log::prove_consistency(new, old, reader)).await
    }

    /// A C2SP tile: up to 256 hashes of `level`, `width` of them, from `index` × 256.
    pub(crate) async fn tile(&self, level: u8, index: u64, width: u64) -> Result<Vec<[u8; 32]>, Problem> {
        let first = index.saturating_mul(TILE_WIDTH);
        let positions =
            (first..first.saturating_add(width)).map(|n| log::stored_index(level * TILE_HEIGHT, n)).collect();
        self.store.hashes(positions).await
    }

    /// Says what an administrator did, as a statement of the coordinator in its own ledger.
    pub(crate) async fn act(&self, what: &str, who: &str, details: &str) -> Result<(), Problem> {
        let details: String = details.chars().take(ACT_CHARS_MAX).collect();
        let body = Body::Act(what.to_owned(), who.to_owned(), details);
        let statement = Statement::sign(body, &self.name, self.world.clock.now(), &*self.act_key).map_err(inside)?;
        self.append(vec![Leaf(statement)]).await?;
        Ok(())
    }

    async fn append(&self, leaves: Vec<Leaf>) -> Result<Vec<(u64, bool)>, Problem> {
        let stopped = || Problem::new(Code::Busy).with("peer", &self.name).cause("the coordinator is stopping");
        let (answer, answered) = oneshot::channel();
        self.queue.send(Submission { leaves, answer }).await.map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }

    /// Outer error: the centre can't judge now. Inner: the statement can't be taken.
    async fn verify(&self, bytes: &[u8]) -> Result<Result<Leaf, (u16, String)>, Problem> {
        let refuse = |cause: String| Ok(Err((Code::StatementRefused.number(), cause)));
        let issuer = match Statement::peek_issuer(bytes) {
            Ok(issuer) => issuer,
            Err(error) => return refuse(error.to_string()),
        };
        let Some(node) = self.store.node(&issuer).await? else {
            return refuse(format!("{issuer} is not registered here"));
        };
        match Statement::open(bytes, &registered(&node)) {
            Ok(statement) if matches!(statement.body(), Body::Act(..)) => {
                refuse("an administrative act is the coordinator's to state".to_owned())
            }
            // Once its time has come it will do, and what a revoked key signs can't be dated past its end.
            Ok(statement) if statement.issued() > self.world.clock.now().plus_ms(limits::CLOCK_SKEW_MS) => {
                let ahead = statement.issued().since_ms(self.world.clock.now());
                let problem = Problem::new(Code::ClockWrong).with("seconds", ahead / 1000);
                Err(problem.cause(format!("{issuer} dated a statement {}", statement.issued())))
            }
            Ok(statement) => Ok(Ok(Leaf(statement))),
            Err(error) => refuse(error.to_string()),
        }
    }

    fn sign_head(&self, size: u64, root: [u8; 32]) -> Result<String, Problem> {
        log::Checkpoint { origin: self.origin.clone(), size, root }.sign(&*self.log_key).map_err(inside)
    }

    /// Runs a computation over stored hashes: as often as it takes to learn which it needs, then with them.
    async fn with_hashes<T>(&self, compute: impl Fn(&Known) -> Result<T, LedgerError>) -> Result<T, Problem> {
        let mut hashes = BTreeMap::new();
        for _ in 0..ROUNDS {
            let known = Known { hashes, asked: RefCell::default() };
            let computed = compute(&known);
            let Known { hashes: at_hand, asked } = known;
            let wanted = asked.into_inner();
            hashes = at_hand;
            if wanted.is_empty() {
                return computed.map_err(inside);
            }
            let found = self.store.hashes(wanted.clone()).await?;
            hashes.extend(wanted.into_iter().zip(found));
        }
        Err(Problem::new(Code::InsideFailed).cause("a proof asks for ever more hashes"))
    }
}

impl Writer {
    pub(crate) async fn run(mut self) {
        while let Some(first) = self.queue.recv().await {
            let mut batch = vec![first];
            while batch.iter().map(|s| s.leaves.len()).sum::<usize>() < BATCH {
                match self.queue.try_recv() {
                    Ok(next) => batch.push(next),
                    Err(_) => break,
                }
            }
            let leaves = batch.iter().flat_map(|s| s.leaves.iter().cloned()).collect();
            match self.store.append(leaves, self.world.clock.now()).await {
                Ok(appended) => {
                    let mut taken = appended.leaves.into_iter();
                    for submission in batch {
                        let own = taken.by_ref().take(submission.leaves.len()).collect();
                        // Nobody waits any more: the statement is in the log all the same.
                        let _ = submission.answer.send(Ok(own));
                    }
                }
                Err(problem) => {
                    tracing::error!(%problem, "Failed to append to the ledger");
                    for submission in batch {
                        let _ = submission.answer.send(Err(problem.clone()));
                    }
                }
            }
        }
    }
}

/// Hashes at hand, and those that were asked for.
#[derive(Default)]
struct Known {
    hashes: BTreeMap<u64, [u8; 32]>,
    asked: RefCell<Vec<u64>>,
}

impl HashReader for Known {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<[u8; 32]>, String> {
        let found: Option<Vec<[u8; 32]>> = indexes.iter().map(|index| self.hashes.get(index).copied()).collect();
        found.ok_or_else(|| {
            self.asked.borrow_mut().extend(indexes);
            "they are to be read first".to_owned()
        })
    }
}

fn unproven(sha256: [u8; 32], refused: (u16, String)) -> Proof {
    Proof {
        statement: sha256.into(),
        index: 0,
        inclusion: Vec::new().into(),
        checkpoint: String::new(),
        refused: Some(refused),
    }
}

fn inside(error: impl std::fmt::Display) -> Problem {
    Problem::new(Code::InsideFailed).cause(error)
}

/// Submissions waiting for the writer.
const QUEUE: usize = 256;
/// Statements in one transaction.
const BATCH: usize = 512;
/// An act's details; a statement is bounded.
const ACT_CHARS_MAX: usize = 2_000;
/// A proof asks for its root's hashes, then for its path's.
const ROUNDS: usize = 4;
/// Tiles of C2SP tlog-tiles are 8 levels high.
const TILE_HEIGHT: u8 = 8;
pub(crate) const TILE_WIDTH: u64 = 256;
