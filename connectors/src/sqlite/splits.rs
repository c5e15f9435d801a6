//! Cuts what is read into splits of at most `SPLIT_ROWS` rows, each a range of integers (rowids, or places in
//! a materialised result). A cut falls on the roundest number there is between two rows far enough apart, so
//! that a row that was added or removed somewhere moves the cuts beside it and no others: a later snapshot's
//! splits have the same names, and a successor adopts those that are unchanged.

use posthouse_protocol::limits::SPLIT_ROWS;
use rusqlite::{Connection, OptionalExtension};

/// Rows whose number lies between the two, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Range {
    pub(super) first: i64,
    pub(super) last: i64,
}

/// All rows of `from`, whose integer key is `number`, cut into ranges in ascending order; none of no rows.
pub(super) fn cut(connection: &Connection, from: &str, number: &str) -> rusqlite::Result<Vec<Range>> {
    // Each alone is a seek; both in one would be a scan.
    let bounds = format!("SELECT (SELECT min({number}) FROM {from}), (SELECT max({number}) FROM {from})");
    let (Some(mut first), Some(max)) =
        connection.query_row(&bounds, [], |row| Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<i64>>(1)?)))?
    else {
        return Ok(Vec::new());
    };
    let after = format!("SELECT {number} FROM {from} WHERE {number} >= ?1 ORDER BY {number} LIMIT 1 OFFSET ?2");
    let mut after = connection.prepare(&after)?;
    let mut number =
        |first: i64, offset: u64| after.query_row((first, offset as i64), |row| row.get::<_, i64>(0)).optional();
    let mut ranges = Vec::new();
    loop {
        // The row at the upper place is the first that must not be in this split any more.
        let (Some(low), Some(high)) = (number(first, SPLIT_ROWS_MIN)?, number(first, SPLIT_ROWS)?) else {
            ranges.push(Range { first, last: max });
            return Ok(ranges);
        };
        let next = roundest(low, high);
        ranges.push(Range { first, last: next - 1 });
        first = next;
    }
}

/// The number in (low, high] with the most zero bits at its end.
fn roundest(low: i64, high: i64) -> i64 {
    for bits in (0..63).rev() {
        let candidate = high >> bits << bits;
        if candidate > low {
            return candidate;
        }
    }
    high
}

/// A split that ends at a round number may be as small as this.
const SPLIT_ROWS_MIN: u64 = SPLIT_ROWS / 4;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn cuts_hold_every_row_once_and_stay_where_they_are_when_rows_come_and_go() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY)").unwrap();
        let fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400000)
                    INSERT INTO t SELECT (i * 7919) - 500000 FROM n";
        connection.execute_batch(fill).unwrap();
        let before = cut(&connection, "t", "id").unwrap();
        let mut total = 0;
        for range in &before {
            let count = "SELECT count(*) FROM t WHERE id BETWEEN ?1 AND ?2";
            let rows: i64 = connection.query_row(count, (range.first, range.last), |row| row.get(0)).unwrap();
            assert!(rows as u64 <= SPLIT_ROWS, "{rows}");
            total += rows;
        }
        assert_eq!(total, 400_000);
        assert!(before.windows(2).all(|pair| pair[0].last < pair[1].first));
        connection.execute_batch("DELETE FROM t WHERE id < 100000000; INSERT INTO t VALUES (-3), (12), (99)").unwrap();
        let after: BTreeSet<_> = cut(&connection, "t", "id").unwrap().into_iter().collect();
        let kept = before.iter().filter(|range| after.contains(range)).count();
        assert!(kept + 3 >= before.len(), "{kept} of {}", before.len());
    }

    #[test]
    fn dense_numbers_make_whole_splits() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY)").unwrap();
        assert_eq!(cut(&connection, "t", "id").unwrap(), []);
        let fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000)
                    INSERT INTO t SELECT i FROM n";
        connection.execute_batch(fill).unwrap();
        let range = |first, last| Range { first, last };
        let expected = [range(1, 65_535), range(65_536, 131_071), range(131_072, 196_607), range(196_608, 200_000)];
        assert_eq!(cut(&connection, "t", "id").unwrap(), expected);
    }

    #[test]
    fn the_roundest_number_is_found_on_both_sides_of_zero() {
        assert_eq!(roundest(-5, 3), 0);
        assert_eq!(roundest(5, 9), 8);
        assert_eq!(roundest(-9, -5), -8);
        assert_eq!(roundest(8, 9), 9);
        assert_eq!(roundest(i64::MAX - 1, i64::MAX), i64::MAX);
        assert_eq!(roundest(i64::MIN, i64::MIN + 1), i64::MIN + 1);
    }
}
