//! Asks the provider for its digest and for the keys in the buckets that differ, and checks what it answers.

use super::buckets::from_bitmap;
use super::{BUCKETS_A_QUESTION, DIGEST_EPOCH, DIGEST_WITHIN, KEY_GUESS, KEYS_BYTES_MAX, QUESTIONS_MAX};
use crate::config::Job;
use crate::context::Context;
use crate::transfer::ask;
use posthouse_protocol::batch;
use posthouse_protocol::digest::{BucketDigest, digest_key};
use posthouse_protocol::frame::{DigestRequest, Frame, KeysAnswer, KeysRequest, Refused};
use posthouse_protocol::id::{JobId, ResourceRef};
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::schema::Contract;
use posthouse_protocol::watermark::Watermark;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The provider's answer, checked.
pub(super) struct Theirs {
    pub contract: Contract,
    pub buckets: BucketDigest,
    /// Buckets that are no longer what its last receipt says; None where it has none.
    pub left: Option<BTreeSet<u16>>,
    /// The column that the watermark bounds on its side.
    pub watermark_column: Option<String>,
}

pub(super) async fn ask_digest(
    ctx: &Arc<Context>,
    job: &Job,
    resource: &ResourceRef,
    watermark: Option<Watermark>,
) -> Result<Theirs, Problem> {
    let peer = &resource.node;
    let request = DigestRequest { job: provider_job(job), resource: resource.resource.clone(), watermark };
    let invalid = |cause: &str| Problem::new(Code::FrameInvalid).with("peer", peer).cause(cause);
    let answer = match ask(ctx, peer, &Frame::Digest(request), DIGEST_WITHIN).await? {
        Frame::DigestAnswer(answer) => answer,
        _ => return Err(invalid("it answered a digest by something else")),
    };
    if let Some(refused) = &answer.refused {
        return Err(refusal(ctx, resource, refused));
    }
    let contract = answer.contract.ok_or_else(|| invalid("its digest has no contract"))?;
    batch::check_contract(&contract)?;
    // Both derive the key: a digest under another one could not be compared.
    if *answer.key != digest_key(resource, &contract, DIGEST_EPOCH) {
        return Err(invalid("its digest has another key than its contract"));
    }
    let buckets =
        BucketDigest::from_bytes(&answer.buckets).ok_or_else(|| invalid("its digest has not the size of one"))?;
    let left = answer.left.map(|bits| from_bitmap(&bits));
    Ok(Theirs { contract, buckets, left, watermark_column: answer.watermark_column })
}

pub(super) async fn ask_keys(
    ctx: &Arc<Context>,
    job: &Job,
    resource: &ResourceRef,
    buckets: &BTreeSet<u16>,
    digest: &BucketDigest,
    watermark: Option<Watermark>,
) -> Result<BTreeMap<String, (u16, [u8; 32])>, Problem> {
    let peer = &resource.node;
    let mut keys = BTreeMap::new();
    // Few buckets at a time, so that their keys fit into a frame; a table in which everything differs needs no full list.
    for some in questions(buckets, digest) {
        let request = KeysRequest {
            job: provider_job(job),
            resource: resource.resource.clone(),
            buckets: some,
            watermark: watermark.clone(),
        };
        match ask(ctx, peer, &Frame::Keys(request), DIGEST_WITHIN).await? {
            Frame::KeysAnswer(KeysAnswer { refused: Some(refused), .. }) => {
                return Err(refusal(ctx, resource, &refused));
            }
            Frame::KeysAnswer(answer) => {
                keys.extend(answer.keys.into_iter().map(|key| (key.key, (key.bucket, key.hash.into()))));
            }
            _ => {
                return Err(Problem::new(Code::FrameInvalid)
                    .with("peer", peer)
                    .cause("it answered keys by something else"));
            }
        }
    }
    Ok(keys)
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

fn refusal(ctx: &Context, resource: &ResourceRef, refused: &Refused) -> Problem {
    let code = Code::from_number(refused.code).unwrap_or(Code::InsideFailed);
    Problem::new(code)
        .with("consumer", &ctx.name)
        .with("provider", &resource.node)
        .with("peer", &resource.node)
        .with("resource", resource)
        .cause(&refused.cause)
}

/// The name under which the provider knows transfers of this job: the consumer's.
fn provider_job(job: &Job) -> JobId {
    job.name.clone()
}

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
