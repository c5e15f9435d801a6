//! Cursors: where the next page begins, opaque to the asker and checked when it comes back.

use crate::reconcile::TransferRow;
use crate::store::records::Page;
use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use posthouse_protocol::id::TransferId;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::failure::Failure;

/// `?limit=…&cursor=…`
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Paging {
    /// Items of one page, 1 to 500; 50 when absent.
    #[param(minimum = 1, maximum = 500)]
    pub(crate) limit: Option<u64>,
    /// `next` of the page before.
    pub(crate) cursor: Option<String>,
    /// A day in the coordinator's time zone, such as 2026-11-22; all days when absent.
    pub(crate) day: Option<String>,
}

/// One page of a list.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Items<T> {
    pub(crate) items: Vec<T>,
    /// Cursor of the next page; null on the last.
    pub(crate) next: Option<String>,
    /// When the list was made. Each item says for itself when it was true.
    #[schema(value_type = String, format = DateTime)]
    pub(crate) as_of: Timestamp,
}

impl Paging {
    pub(crate) fn limit(&self) -> Result<u64, Problem> {
        match self.limit {
            None => Ok(LIMIT),
            Some(limit) if (1..=LIMIT_MAX).contains(&limit) => Ok(limit),
            Some(_) => Err(usage("`limit` is from 1 to 500")),
        }
    }

    /// For lists of transfers. One more than asked for is read, to know whether there is a next page.
    pub(crate) fn page(&self) -> Result<Page, Problem> {
        let after = match &self.cursor {
            None => None,
            Some(cursor) => Some(read(cursor).ok_or_else(|| usage("`cursor` is not one that was given here"))?),
        };
        Ok(Page { after, limit: self.limit()? + 1 })
    }

    /// Cuts what was read to the page and gives the cursor of the next.
    pub(crate) fn cut(
        &self,
        rows: &mut Vec<TransferRow>,
        by: impl Fn(&TransferRow) -> Timestamp,
    ) -> Result<Option<String>, Problem> {
        let limit = usize::try_from(self.limit()?).unwrap_or(usize::MAX);
        if rows.len() <= limit {
            return Ok(None);
        }
        rows.truncate(limit);
        Ok(rows.last().map(|row| write(by(row), &row.transfer)))
    }
}

/// A query that does not parse is a problem with a code, like everything else that goes wrong.
impl<S: Send + Sync> FromRequestParts<S> for Paging {
    type Rejection = Failure;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match Query::<Self>::from_request_parts(parts, state).await {
            Ok(Query(paging)) => Ok(paging),
            Err(error) => Err(Failure::new(usage(error.body_text()), &parts.headers)),
        }
    }
}

fn write(at: Timestamp, transfer: &TransferId) -> String {
    URL_SAFE_NO_PAD.encode(format!("{} {transfer}", at.0))
}

fn read(cursor: &str) -> Option<(Timestamp, TransferId)> {
    if cursor.len() > CURSOR_CHARS_MAX {
        return None;
    }
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
    let (at, transfer) = text.split_once(' ')?;
    Some((Timestamp(at.parse().ok()?), TransferId::parse(transfer).ok()?))
}

pub(crate) fn usage(what: impl std::fmt::Display) -> Problem {
    Problem::new(Code::UsageInvalid).with("what", what)
}

const LIMIT: u64 = 50;
const LIMIT_MAX: u64 = 500;
const CURSOR_CHARS_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_cursor_reads_back_as_it_was_given(at in any::<i64>(), bytes in any::<[u8; 16]>()) {
            let place = (Timestamp(at), TransferId::from_random(bytes));
            prop_assert_eq!(read(&write(place.0, &place.1)), Some(place));
        }

        #[test]
        fn no_text_makes_reading_a_cursor_fail_badly(text in ".{0,200}") {
            let _ = read(&text);
        }
    }
}
