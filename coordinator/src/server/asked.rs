//! What a certified node asks, and what it is answered.

use crate::Centre;
use crate::ledger::Taken;
use crate::policy::concerned;
use crate::store::records::GrantRecord;
use posthouse_protocol::centre::{CentreAnswer, CentreRequest, Dial, Heartbeat, HeartbeatAnswer, Profile};
use posthouse_protocol::id::NodeId;
use posthouse_protocol::limits;
use posthouse_protocol::problem::{Code, Problem};
use std::sync::Arc;

pub(super) async fn answer(
    centre: &Arc<Centre>,
    node: &NodeId,
    request: CentreRequest,
) -> Result<CentreAnswer, Problem> {
    match request {
        CentreRequest::Heartbeat(heartbeat) => heartbeat_answer(centre, node, *heartbeat).await,
        CentreRequest::Policy => Ok(CentreAnswer::Policy(centre.policy_of(node).await?.into())),
        CentreRequest::Renew(renew) => Ok(CentreAnswer::Renewed(centre.renew(node, &renew).await?)),
        CentreRequest::Submit(statements) => {
            let statements: Vec<Vec<u8>> = statements.into_iter().map(Into::into).collect();
            let Taken { proofs, transfers } = centre.ledger.submit(&statements).await?;
            centre.counted.statements(proofs.iter().filter(|proof| proof.refused.is_none()).count());
            for (code, cause) in proofs.iter().filter_map(|proof| proof.refused.as_ref()) {
                tracing::warn!(%node, code, cause, "Refused a statement");
            }
            centre.watch_verdicts(transfers).await?;
            Ok(CentreAnswer::Proofs(proofs))
        }
        CentreRequest::Proofs(wanted) => {
            if wanted.len() > limits::SUBMIT_MAX {
                return Err(Problem::new(Code::StatementRefused).cause("more proofs at once than fit in an answer"));
            }
            let wanted: Vec<[u8; 32]> = wanted.into_iter().map(Into::into).collect();
            Ok(CentreAnswer::Proofs(centre.ledger.proofs(&wanted).await?))
        }
        CentreRequest::AskDial(peer) => ask_dial(centre, node, &peer).await,
        CentreRequest::Join(_) | CentreRequest::Return(_) => {
            Err(Problem::new(Code::AlreadyJoined).with("node", node).cause("it holds a valid certificate"))
        }
        CentreRequest::PolicyChanged | CentreRequest::Dial(_) | CentreRequest::Reconcile(_) => {
            Err(Problem::new(Code::FrameInvalid).with("peer", node).cause("that is the coordinator's to say"))
        }
    }
}

async fn heartbeat_answer(centre: &Arc<Centre>, node: &NodeId, heartbeat: Heartbeat) -> Result<CentreAnswer, Problem> {
    let now = centre.world.clock.now();
    let fenced = match centre.check_epoch(node, heartbeat.epoch).await {
        Ok(()) => false,
        Err(problem) if problem.code == Code::Fenced => true,
        Err(problem) => return Err(problem),
    };
    centre.counted.heartbeat();
    if !fenced {
        let profile = heartbeat.profile.clone();
        let before = match centre.reported(node, heartbeat, now) {
            Some(previous) => previous.profile,
            None => centre.member(node).await?.profile,
        };
        if shown_otherwise(&before, &profile) || before.resources != profile.resources {
            centre.profile_changed(node, profile).await?;
        }
    }
    Ok(CentreAnswer::Heartbeat(HeartbeatAnswer { freshness: centre.freshness_of(node).await?.into(), fenced, now }))
}

/// Whether what of a profile stands in the policies of others is no longer the same.
fn shown_otherwise(before: &Profile, now: &Profile) -> bool {
    before.advertise != now.advertise
        || before.department != now.department
        || before.department_code != now.department_code
        || before.division != now.division
        || before.ferry_key != now.ferry_key
}

/// One node can't reach another: the other is asked to dial, if the two have anything to do with each other.
async fn ask_dial(centre: &Arc<Centre>, node: &NodeId, peer: &NodeId) -> Result<CentreAnswer, Problem> {
    let material = centre.store.policy_material(node).await?;
    // A relay is reached by the nodes beside it.
    let shares = |grant: &GrantRecord| concerned(grant).contains(peer);
    if !material.is_some_and(|material| material.grants.iter().chain(&material.ended).any(shares)) {
        return Err(Problem::new(Code::NoGrant)
            .with("consumer", node)
            .with("resource", peer)
            .cause(format!("{node} and {peer} have no grant in common")));
    }
    let addresses = match centre.live(node).report {
        Some((report, _)) => report.profile.advertise,
        None => centre.member(node).await?.profile.advertise,
    };
    let dial = Dial { peer: node.clone(), addresses: addresses.into_iter().map(|(_, address)| address).collect() };
    match centre.ask(peer, CentreRequest::Dial(dial), super::NOTICE).await? {
        CentreAnswer::Done => Ok(CentreAnswer::Done),
        _ => Err(Problem::new(Code::PeerUnreachable).with("peer", peer).cause("it does not dial")),
    }
}
