//! 上报: statements to the centre in the order they were made, and proofs back. A statement leaves the outbox
//! only when the centre has acknowledged it, and repeating one changes nothing there: exactly once,
//! however often the line is cut. What the centre cannot take is set aside with its reason, never dropped.

use crate::context::Context;
use crate::join;
use crate::store::statements::{self, KeptProof};
use minicbor::bytes::{ByteArray, ByteVec};
use posthouse_protocol::centre::{CentreAnswer, CentreRequest, Proof};
use posthouse_protocol::cose;
use posthouse_protocol::ledger::{Checkpoint, Inclusion, LedgerKey};
use posthouse_protocol::limits;
use posthouse_protocol::problem::{Code, Problem};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Runs until the node drains.
pub async fn run(context: Arc<Context>) {
    let mut connection = context.centre.connection_changes();
    let mut wait = ASK_AGAIN;
    loop {
        let again = tokio::select! {
            biased;
            () = context.drain.cancelled() => return,
            () = context.outbox.notified() => true,
            changed = connection.changed() => changed.is_ok(),
            () = tokio::time::sleep(wait) => true,
        };
        if !again {
            return;
        }
        if !context.centre.connected() {
            wait = ASK_AGAIN;
            continue;
        }
        wait = match deliver(&context).await {
            // Proofs follow the next checkpoint: look again soon while some are missing.
            Ok(0) => ASK_AGAIN,
            Ok(_) => PROOF_WAIT,
            Err(problem) => {
                tracing::info!(%problem, "Statements wait for the coordinator");
                PROOF_WAIT
            }
        };
    }
}

/// Sends what waits, then asks for missing proofs; gives how many are still missing.
pub async fn deliver(context: &Arc<Context>) -> Result<usize, Problem> {
    loop {
        let batch = context.store.read(|db| statements::outbox(db, limits::SUBMIT_MAX)).await?;
        if batch.is_empty() {
            break;
        }
        let sent: BTreeSet<[u8; 32]> = batch.iter().map(|queued| queued.sha256).collect();
        let request = CentreRequest::Submit(batch.into_iter().map(|queued| ByteVec::from(queued.bytes)).collect());
        let answered = take(context, proofs(context, request).await?, &sent).await?;
        if answered == 0 {
            let cause = "it answered for none of the statements sent";
            return Err(Problem::new(Code::StatementRefused).cause(cause));
        }
    }
    let missing = context.store.read(|db| statements::unproven(db, PROOFS_MAX)).await?;
    for some in missing.chunks(limits::SUBMIT_MAX) {
        let asked: BTreeSet<[u8; 32]> = some.iter().copied().collect();
        let request = CentreRequest::Proofs(some.iter().copied().map(ByteArray::from).collect());
        take(context, proofs(context, request).await?, &asked).await?;
    }
    if missing.is_empty() {
        return Ok(0);
    }
    Ok(context.store.read(|db| statements::unproven(db, PROOFS_MAX)).await?.len())
}

async fn proofs(context: &Context, request: CentreRequest) -> Result<Vec<Proof>, Problem> {
    match context.centre.ask(request).await? {
        CentreAnswer::Proofs(proofs) => Ok(proofs),
        other => Err(join::unexpected(context.centre.name(), &other)),
    }
}

/// Records the answers about statements that were asked about; gives how many.
async fn take(context: &Arc<Context>, proofs: Vec<Proof>, asked: &BTreeSet<[u8; 32]>) -> Result<usize, Problem> {
    let ledger = LedgerKey::parse(&context.centre.pinned().ledger_vkey)
        .map_err(|e| Problem::new(Code::StoreDamaged).with("path", crate::store::STORE_FILE).cause(e))?;
    let (asked, now, keeper) = (asked.clone(), context.world.clock.now(), context.clone());
    context
        .store
        .write(move |tx| {
            let mut answered = 0;
            for proof in proofs.into_iter().filter(|proof| asked.contains(&*proof.statement)) {
                answered += 1;
                let sha256 = *proof.statement;
                if let Some((code, cause)) = proof.refused {
                    let code = Code::from_number(code).unwrap_or(Code::StatementRefused);
                    tracing::error!(statement = hex::encode(sha256), %code, cause, "The coordinator cannot take a statement");
                    statements::set_aside(tx, &sha256, &format!("{code}: {cause}"))?;
                    keeper.note_error(&Problem::new(Code::StatementRefused).cause(cause));
                    continue;
                }
                if !proof.inclusion.is_empty() {
                    let kept = KeptProof { leaf: proof.index, inclusion: proof.inclusion.to_vec(), checkpoint: proof.checkpoint };
                    match statements::by_sha256(tx, &sha256)? {
                        Some(bytes) => match verify(&bytes, &kept, &ledger) {
                            Ok(()) => statements::keep_proof(tx, &sha256, &kept, now)?,
                            Err(cause) => {
                                tracing::error!(statement = hex::encode(sha256), cause, "A proof from the coordinator does not verify");
                                keeper.note_error(&Problem::new(Code::EvidenceInvalid).with("file", "proof").cause(cause));
                                continue;
                            }
                        },
                        None => continue,
                    }
                }
                statements::acknowledge(tx, &sha256)?;
            }
            Ok(answered)
        })
        .await
}

/// A proof counts only when it leads from this very statement to a checkpoint signed by the pinned ledger key.
/// The statement itself was verified when it was taken; its party may have left the policy since.
fn verify(bytes: &[u8], proof: &KeptProof, ledger: &LedgerKey) -> Result<(), String> {
    let (claims, _) = cose::peek(bytes, limits::STATEMENT_BYTES_MAX).map_err(|e| e.to_string())?;
    let inclusion = Inclusion::open(&proof.inclusion, bytes, &claims.subject, ledger).map_err(|e| e.to_string())?;
    let checkpoint = Checkpoint::open(&proof.checkpoint, ledger).map_err(|e| e.to_string())?;
    if inclusion.size != checkpoint.size || inclusion.root != checkpoint.root {
        return Err("it does not lead to its checkpoint".to_owned());
    }
    Ok(())
}

/// While proofs are missing, and otherwise.
const PROOF_WAIT: Duration = Duration::from_secs(2);
const ASK_AGAIN: Duration = Duration::from_secs(30);
/// Proofs asked for in one round. Some may not come for long (a peer's statement that has not arrived), so
/// that a round looks well past them.
const PROOFS_MAX: usize = 2048;
