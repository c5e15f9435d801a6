//! The refused rows of one split, until they are kept: so many of them, and so many bytes. What goes beyond that is a
//! fault of the whole and not of single rows.

use super::control::Refused;
use super::fail::Fail;
use crate::publishing::BAD_ROWS_MAX;
use crate::too_many_refused;

/// Bounded by rows and by bytes.
#[derive(Debug)]
pub(super) struct Refusals {
    /// For the problem's text.
    target: String,
    rows: Vec<Refused>,
    bytes: usize,
    bytes_max: usize,
    /// Keys as literals of a statement, of rows whose key the table can hold.
    keys: Vec<Vec<u8>>,
}

impl Refusals {
    pub(super) fn new(target: String) -> Self {
        Self { target, rows: Vec::new(), bytes: 0, bytes_max: BAD_BYTES_MAX, keys: Vec::new() }
    }

    pub(super) fn push(&mut self, row: Refused, key: Option<Vec<u8>>) -> Result<(), Fail> {
        self.bytes += row.key.len() + row.reason.len() + row.original.len() + key.as_ref().map_or(0, Vec::len);
        self.rows.push(row);
        self.keys.extend(key);
        // One alone may be as long as a value, which is bounded elsewhere.
        let is_bounded = self.bytes <= self.bytes_max || self.rows.len() == 1;
        if is_bounded && self.rows.len() <= BAD_ROWS_MAX {
            return Ok(());
        }
        Err(too_many_refused(&self.target, self.rows.len(), None, None).into())
    }

    pub(super) fn take_keys(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.keys)
    }

    pub(super) fn into_rows(self) -> Vec<Refused> {
        self.rows
    }
}

/// What refused rows of one split may take in memory.
const BAD_BYTES_MAX: usize = 256 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use posthouse_protocol::problem::Code;

    #[test]
    fn more_than_may_be_is_a_fault_of_the_whole() {
        let row = |bytes: usize| Refused { original: "x".repeat(bytes), ..Refused::default() };
        let code = |fail: Result<(), Fail>| match fail {
            Err(Fail::Problem(problem)) => Some(problem.code),
            _ => None,
        };
        let mut refusals = Refusals::new("t".to_owned());
        for _ in 0..BAD_ROWS_MAX {
            refusals.push(row(1), None).unwrap();
        }
        assert_eq!(code(refusals.push(row(1), None)), Some(Code::RowsRefused));
        let mut refusals = Refusals { bytes_max: 100, ..Refusals::new("t".to_owned()) };
        refusals.push(row(1_000), Some(b"7".to_vec())).unwrap();
        assert_eq!(code(refusals.push(row(1), None)), Some(Code::RowsRefused));
        assert_eq!(refusals.take_keys(), [b"7".to_vec()]);
    }
}
