//! Asks the provider for its digest and for the keys in the buckets that differ, and checks what it answers.

use super::buckets::{KEY_OVERHEAD, Rows, from_bitmap};
use super::{Comparison, DIGEST_EPOCH};
use crate::store::{Side, Transfer, exchange, transfers};
use crate::transfer::ask;
use posthouse_protocol::batch;
use posthouse_protocol::digest::{BucketDigest, digest_key};
use posthouse_protocol::frame::{DigestRequest, Frame, KeysAnswer, KeysRequest, Refused};
use posthouse_protocol::govern::{Governed, said_otherwise};
use posthouse_protocol::id::{JobId, NodeId};
use posthouse_protocol::job::State;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::schema::Contract;
use rusqlite::Connection;
use std::collections::BTreeSet;
use std::time::Duration;

/// The provider's answer, checked.
pub(super) struct Theirs {
    pub contract: Contract,
    pub buckets: BucketDigest,
    /// Buckets that are no longer what its last receipt says; None where it has none.
    pub left: Option<BTreeSet<u16>>,
    /// The column that the watermark bounds on its side.
    pub watermark_column: Option<String>,
}

impl Comparison {
    pub(super) async fn ask_digest(&self) -> Result<Theirs, Problem> {
        let request = DigestRequest {
            job: self.provider_job(),
            resource: self.resource.resource.clone(),
            watermark: self.watermark.clone(),
            rules: self.job.asked_rules(),
        };
        let answer = match ask(&self.ctx, &self.resource, &self.job, &Frame::Digest(request), ANSWERED_WITHIN).await? {
            Frame::DigestAnswer(answer) => answer,
            _ => return Err(self.invalid("it answered a digest by something else")),
        };
        if let Some(refused) = &answer.refused {
            return Err(self.refusal(refused));
        }
        self.check_governed(answer.governed.as_deref()).await?;
        let contract = answer.contract.ok_or_else(|| self.invalid("its digest has no contract"))?;
        batch::check_contract(&contract)?;
        // Both derive the key: a digest under another one could not be compared.
        if *answer.key != digest_key(&self.resource, &contract, DIGEST_EPOCH) {
            return Err(self.invalid("its digest has another key than its contract"));
        }
        let buckets = BucketDigest::from_bytes(&answer.buckets)
            .ok_or_else(|| self.invalid("its digest has not the size of one"))?;
        let left = answer.left.map(|bits| from_bitmap(&bits));
        Ok(Theirs { contract, buckets, left, watermark_column: answer.watermark_column })
    }

    /// Rows that were landed under other masks or rules than those of now differ all of them, and nobody has changed one.
    async fn check_governed(&self, now: Option<&[Governed]>) -> Result<(), Problem> {
        // An older node does not say.
        let Some(now) = now else { return Ok(()) };
        let (name, provider) = (self.job.name.clone(), self.resource.node.clone());
        let landed = self.ctx.store.read(move |db| last_governed(db, &name, &provider)).await?;
        let Some(landed) = landed else { return Ok(()) };
        match said_otherwise(&landed, now, &Governed::changes_values) {
            None => Ok(()),
            Some(words) => Err(Problem::new(Code::MasksChanged)
                .with("resource", &self.resource)
                .with("job", &self.job.name)
                .cause(words)),
        }
    }

    /// Few buckets at a time, so that their keys fit into a frame; a table in which everything differs needs no
    /// full list.
    pub(super) async fn ask_keys(&self, buckets: &BTreeSet<u16>, digest: &BucketDigest) -> Result<Rows, Problem> {
        let mut keys = Rows::new();
        for some in questions(buckets, digest) {
            let request = KeysRequest {
                job: self.provider_job(),
                resource: self.resource.resource.clone(),
                buckets: some,
                watermark: self.watermark.clone(),
                rules: self.job.asked_rules(),
            };
            match ask(&self.ctx, &self.resource, &self.job, &Frame::Keys(request), ANSWERED_WITHIN).await? {
                Frame::KeysAnswer(KeysAnswer { refused: Some(refused), .. }) => return Err(self.refusal(&refused)),
                Frame::KeysAnswer(answer) => {
                    keys.extend(answer.keys.into_iter().map(|key| (key.key, (key.bucket, key.hash.into()))));
                }
                _ => return Err(self.invalid("it answered keys by something else")),
            }
        }
        Ok(keys)
    }

    /// The name under which the provider knows transfers of this job: the consumer's.
    fn provider_job(&self) -> JobId {
        self.job.name.clone()
    }

    fn invalid(&self, cause: &str) -> Problem {
        Problem::new(Code::FrameInvalid).with("peer", &self.resource.node).cause(cause)
    }

    fn refusal(&self, refused: &Refused) -> Problem {
        let provider = &self.resource.node;
        refused.problem(&[
            ("consumer", &self.ctx.name),
            ("provider", provider),
            ("peer", provider),
            ("resource", &self.resource),
        ])
    }
}

/// What was done to the rows that a job has landed last. None where it has landed none that is remembered.
pub(crate) fn last_governed(db: &Connection, job: &JobId, provider: &NodeId) -> Result<Option<Vec<Governed>>, Problem> {
    let filter = transfers::Filter {
        job: Some(job.clone()),
        side: Some(Side::Consumer),
        limit: Some(LOOKED_BACK),
        ..Default::default()
    };
    let rows = transfers::list(db, &filter)?;
    let is_landed = |row: &Transfer| matches!(row.state, State::Committed | State::Settled) && row.peer == *provider;
    let Some(row) = rows.into_iter().find(is_landed) else { return Ok(None) };
    let offer = exchange::landing_offer(db, &row.id)?;
    Ok(offer.map(|offer| offer.governed.unwrap_or_default()))
}

/// Which buckets are asked for together: about as many as fit into an answer, and no more questions than a few.
fn questions(buckets: &BTreeSet<u16>, digest: &BucketDigest) -> Vec<Vec<u16>> {
    let mut questions: Vec<Vec<u16>> = Vec::new();
    let mut bytes = 0;
    for bucket in buckets {
        let more = usize::try_from(digest.get(*bucket).count).unwrap_or(usize::MAX).saturating_mul(KEY_GUESS);
        match questions.last_mut() {
            Some(last) if last.len() < BUCKETS_A_QUESTION && more <= KEYS_BYTES_MAX - bytes => {
                bytes += more;
                last.push(*bucket);
            }
            _ => {
                if questions.len() == QUESTIONS_MAX {
                    break;
                }
                bytes = more.min(KEYS_BYTES_MAX);
                questions.push(vec![*bucket]);
            }
        }
    }
    questions
}

const ANSWERED_WITHIN: Duration = Duration::from_secs(600);
/// Transfers among which one that landed is looked for, newest first.
const LOOKED_BACK: u32 = 100;
const BUCKETS_A_QUESTION: usize = 64;
pub(super) const QUESTIONS_MAX: usize = 16;
/// What a row of a list takes, before its key is known.
const KEY_GUESS: usize = KEY_OVERHEAD + 16;
/// What the keys of one answer take.
pub(super) const KEYS_BYTES_MAX: usize = 900 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use posthouse_protocol::limits::BUCKETS;

    #[test]
    fn questions_ask_for_about_as_much_as_an_answer_holds() {
        let mut digest = BucketDigest::new();
        let hash = [1; 32];
        (0..40_000u32).for_each(|row| digest.add((row % 10) as u16, &hash));
        let asked = questions(&(0..12).collect(), &digest);
        assert_eq!(asked, [vec![0, 1, 2], vec![3, 4, 5], vec![6, 7, 8], vec![9, 10, 11]]);
        assert_eq!(questions(&(0..BUCKETS as u16).collect(), &BucketDigest::new()).len(), QUESTIONS_MAX);
    }
}
