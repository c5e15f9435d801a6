//! The verdict of one transfer from the statements that the ledger holds of it (`protocol::reconciliation`).
//! What does not depend on time is kept with the transfer when a statement is taken; the rest is judged
//! again whenever somebody asks.

use super::TransferRow;
use crate::store::records::{StatementKeys, Taken, registered};
use crate::store::{Store, StoredLeaf};
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::reconciliation::{Arrived, Evidence, Finding, Judgement, Verdict, judge};
use posthouse_protocol::statement::Statement;
use posthouse_protocol::time::Timestamp;

impl TransferRow {
    /// Keeps the verdict that all statements taken so far give, where no further time can change it.
    pub(crate) fn settle_verdict(&mut self, statements: &[(Statement, Timestamp)], now: Timestamp) {
        let judgement = self.judgement(statements, now, i64::MAX);
        self.ended_by_both = judgement == Judgement::Ended;
        self.verdict = judgement.verdict().filter(|verdict| *verdict != Verdict::Pending);
        self.findings = match self.verdict {
            Some(verdict) if verdict.is_difference() => judgement.finding().cloned().into_iter().collect(),
            _ => Vec::new(),
        };
    }

    /// Verdict and finding as of `now`; no verdict = nothing has been stated, or both say that it ended.
    pub(crate) async fn verdict_now(
        &self,
        store: &dyn Store,
        now: Timestamp,
        overdue_after_ms: i64,
    ) -> Result<(Option<Verdict>, Vec<Finding>), Problem> {
        let unstated = self.provider_leaf.is_none() && self.consumer_leaf.is_none() && self.ending_leaves.is_empty();
        if self.verdict.is_some() || self.ended_by_both || unstated {
            return Ok((self.verdict, self.findings.clone()));
        }
        let mut statements = Vec::new();
        for leaf in store.leaves_of(&self.transfer).await? {
            statements.push((reopen(store, &leaf).await?, leaf.taken_at));
        }
        let judgement = self.judgement(&statements, now, overdue_after_ms);
        let verdict = judgement.verdict();
        let shown = verdict.is_some_and(Verdict::is_difference);
        Ok((verdict, judgement.finding().filter(|_| shown).cloned().into_iter().collect()))
    }

    fn judgement(&self, statements: &[(Statement, Timestamp)], now: Timestamp, overdue_after_ms: i64) -> Judgement {
        let own = statements.iter().filter(|(statement, _)| self.is_between(statement.body()));
        let arrived: Vec<Arrived<'_>> = own.map(|(statement, at)| Arrived { statement, at: *at }).collect();
        // The centre takes a statement and includes it in one step.
        let evidence = Evidence { statements: &arrived, proven: true };
        judge(evidence, now, overdue_after_ms, &|_| self.ungranted.is_none())
    }
}

/// A statement of the ledger, verified again on reading it back.
pub(crate) async fn reopen(store: &dyn Store, leaf: &StoredLeaf) -> Result<Statement, Problem> {
    let issuer = Statement::peek_issuer(&leaf.bytes).map_err(damaged)?;
    let keys: StatementKeys = match store.node(&issuer).await? {
        Some(node) => registered(&node),
        None => return Err(damaged(format!("{issuer} is not registered"))),
    };
    Statement::open(&leaf.bytes, &Taken(&keys)).map_err(damaged)
}

fn damaged(error: impl std::fmt::Display) -> Problem {
    Problem::new(Code::StoreDamaged).with("path", "the ledger").cause(error)
}
