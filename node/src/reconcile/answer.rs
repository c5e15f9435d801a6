//! Answers another node's questions: this node's digest of a resource, and the keys in some buckets.

use super::DIGEST_EPOCH;
use super::buckets::{bitmap, left_buckets};
use super::standing::{provider_standing, read_source};
use crate::config::Origin;
use crate::context::Context;
use crate::settle;
use crate::store::{Side, exchange};
use minicbor::bytes::ByteVec;
use posthouse_protocol::digest::digest_key;
use posthouse_protocol::frame::{DigestAnswer, DigestRequest, KeysAnswer, KeysRequest, RowKey};
use posthouse_protocol::id::{NodeId, ResourceId, ResourceRef};
use posthouse_protocol::limits::BUCKETS;
use posthouse_protocol::policy::Permit;
use posthouse_protocol::problem::Problem;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Answers another node's question for this node's digest of a resource.
pub(crate) async fn answer_digest(ctx: &Arc<Context>, peer: &NodeId, request: DigestRequest) -> DigestAnswer {
    let answer = async {
        let permit = permit(ctx, peer, &request.resource)?;
        let (contract, buckets, governed) =
            provider_standing(ctx, &permit, request.watermark.clone(), request.rules.clone()).await?;
        let (consumer, job) = (peer.clone(), request.job.clone());
        let standing = ctx.store.read(move |db| exchange::standing(db, Side::Provider, &consumer, &job)).await?;
        let left = left_buckets(standing.as_ref(), &contract, &buckets);
        let key = digest_key(permit.resource(), &contract, DIGEST_EPOCH);
        Ok(DigestAnswer {
            key: key.into(),
            rows: buckets.total().count,
            buckets: buckets.to_bytes().into(),
            contract: Some(contract),
            refused: None,
            left: left.map(|left| bitmap(&left)),
            watermark_column: request.watermark.as_ref().and_then(|_| watermark_column(ctx, &request.resource)),
            governed: Some(governed),
        })
    };
    answer.await.unwrap_or_else(|problem: Problem| DigestAnswer {
        key: [0; 32].into(),
        contract: None,
        buckets: ByteVec::from(Vec::new()),
        rows: 0,
        refused: Some(settle::refused(&problem, None)),
        left: None,
        watermark_column: None,
        governed: None,
    })
}

fn watermark_column(ctx: &Context, resource: &ResourceId) -> Option<String> {
    let resource = ctx.config().resources.get(resource)?.clone();
    match &resource.origin {
        Origin::Table { spec, .. } => resource.watermark_offered(spec),
        Origin::Folder { .. } => None,
    }
}

/// Answers another node's question for the keys in some buckets.
pub(crate) async fn answer_keys(ctx: &Arc<Context>, peer: &NodeId, request: KeysRequest) -> KeysAnswer {
    let answer = async {
        let permit = permit(ctx, peer, &request.resource)?;
        let wanted: BTreeSet<u16> = request.buckets.iter().copied().filter(|b| usize::from(*b) < BUCKETS).collect();
        let rows =
            read_source(ctx, &permit, request.watermark.clone(), request.rules.clone(), wanted, u64::MAX).await?;
        let row = |(key, (bucket, hash)): (String, (u16, [u8; 32]))| RowKey { key, bucket, hash: hash.into() };
        let truncated = rows.kept.truncated;
        let keys = rows.kept.into_rows().into_iter().map(row).collect();
        Ok(KeysAnswer { keys, truncated, refused: None })
    };
    answer.await.unwrap_or_else(|problem: Problem| KeysAnswer {
        keys: Vec::new(),
        truncated: false,
        refused: Some(settle::refused(&problem, None)),
    })
}

fn permit(ctx: &Context, peer: &NodeId, resource: &ResourceId) -> Result<Permit, Problem> {
    let resource = ResourceRef { node: ctx.name.clone(), resource: resource.clone() };
    ctx.authority.permit(peer, &resource, None)
}
