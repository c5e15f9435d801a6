//! Bearer tokens and roles. A token is compared by its SHA-256; failures of one address are counted and,
//! when there are too many, not even looked at for a while.

use super::From;
use super::failure::{Failure, localized};
use crate::Centre;
use crate::admin::Role;
use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use posthouse_protocol::codec;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::time::Timestamp;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Failed attempts by address, and when each access was last written down as used.
#[derive(Default)]
pub(crate) struct Attempts {
    failed: Mutex<BTreeMap<IpAddr, (u32, Timestamp)>>,
    touched: Mutex<BTreeMap<String, Timestamp>>,
}

/// Lets a request through whose token has the role that its path needs.
pub(crate) async fn guard(
    State(centre): State<Arc<Centre>>,
    Extension(attempts): Extension<Arc<Attempts>>,
    Extension(from): Extension<From>,
    request: Request,
    next: Next,
) -> Response {
    let headers = request.headers().clone();
    let needed = needed(request.uri().path());
    match admit(&centre, &attempts, from.0, &headers, needed).await {
        Ok(()) => localized(next.run(request).await, &headers),
        Err(problem) => Failure::new(problem, &headers).into_response(),
    }
}

/// What a path needs: what speaks of single statements is the auditor's.
fn needed(path: &str) -> Role {
    let statements = path.starts_with("/api/v1/ledger/tile/")
        || path.starts_with("/api/v1/ledger/entries")
        || path.ends_with("/receipt.cose");
    if statements { Role::Auditor } else { Role::Viewer }
}

async fn admit(
    centre: &Centre,
    attempts: &Attempts,
    from: IpAddr,
    headers: &HeaderMap,
    needed: Role,
) -> Result<(), Problem> {
    let now = centre.world.clock.now();
    let token = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim());
    let Some(token) = token else { return Err(Problem::new(Code::Unauthenticated)) };
    let hash = codec::sha256(token.as_bytes());
    let Some(access) = centre.store.access().await?.into_iter().find(|access| access.hash == hash) else {
        // Others at the same address, behind a proxy say, keep their access.
        if attempts.exhausted(from, now) {
            return Err(Problem::new(Code::RateLimited));
        }
        attempts.failed(from, now);
        return Err(Problem::new(Code::Unauthenticated).cause("the token is not known here"));
    };
    if attempts.touch(&access.name, now) {
        centre.store.touch_access(&access.name, now).await?;
    }
    if access.role < needed {
        return Err(Problem::new(Code::RoleDenied).with("role", needed));
    }
    Ok(())
}

impl Attempts {
    fn exhausted(&self, from: IpAddr, now: Timestamp) -> bool {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.get(&from).is_some_and(|(count, since)| *count >= FAILURES_MAX && now.since_ms(*since) < WINDOW_MS)
    }

    fn failed(&self, from: IpAddr, now: Timestamp) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.len() >= ADDRESSES_MAX {
            failed.retain(|_, (_, since)| now.since_ms(*since) < WINDOW_MS);
        }
        if failed.len() >= ADDRESSES_MAX && !failed.contains_key(&from) {
            return;
        }
        let entry = failed.entry(from).or_insert((0, now));
        *entry = if now.since_ms(entry.1) < WINDOW_MS { (entry.0.saturating_add(1), entry.1) } else { (1, now) };
    }

    /// Whether this use is to be written down: once a minute for each access.
    fn touch(&self, name: &str, now: Timestamp) -> bool {
        let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        let due = touched.get(name).is_none_or(|last| now.since_ms(*last) >= WINDOW_MS);
        if due {
            touched.insert(name.to_owned(), now);
        }
        due
    }
}

/// Wrong tokens from one address within a window.
const FAILURES_MAX: u32 = 20;
const WINDOW_MS: i64 = 60_000;
const ADDRESSES_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_wrong_tokens_close_an_address_for_a_minute_and_no_other() {
        let attempts = Attempts::default();
        let (bad, good) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let start = Timestamp(1_000_000);
        for _ in 0..FAILURES_MAX {
            assert!(!attempts.exhausted(bad, start));
            attempts.failed(bad, start);
        }
        assert!(attempts.exhausted(bad, start.plus_ms(WINDOW_MS - 1)));
        assert!(!attempts.exhausted(bad, start.plus_ms(WINDOW_MS)));
        assert!(!attempts.exhausted(good, start));
    }

    #[test]
    fn what_speaks_of_single_statements_needs_an_auditor() {
        for path in ["/api/v1/ledger/tile/0/000", "/api/v1/ledger/entries", "/api/v1/receipts/rc-x/receipt.cose"] {
            assert_eq!(needed(path), Role::Auditor, "{path}");
        }
        for path in ["/api/v1/ledger", "/api/v1/ledger/checkpoint", "/api/v1/receipts", "/metrics"] {
            assert_eq!(needed(path), Role::Viewer, "{path}");
        }
    }
}
