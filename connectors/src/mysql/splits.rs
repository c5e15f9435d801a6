//! Plans the splits of a read: ranges of the primary key. A number's cuts fall on the roundest numbers there are, and how
//! many rows lie between them is asked of the optimizer, which looks into the index and counts nothing; a later
//! snapshot's splits have the same names where no rows came or went. The values of other keys are read from the index.
//! What has no such key, and what no snapshot holds still, is one split.

use super::catalog::{Kind, Relation};
use super::client::{Client, number};
use super::fail::Fail;
use super::place::{quote, quoted, short_hash};
use super::source::Condition;
use mysql_async::Value;
use posthouse_protocol::limits::SPLIT_ROWS;
use posthouse_protocol::schema::ContractType;

/// Its name, and the statement that reads it.
#[derive(Debug, Clone)]
pub(super) struct Split {
    pub(super) name: String,
    pub(super) sql: String,
    pub(super) values: Vec<Value>,
}

/// A part of the rows: its name, what holds for it, and the values bound there.
type Range = (String, String, Vec<Value>);

/// Splits that have each of the rows once, in order; beside them about how many rows there are.
pub(super) fn plan(
    client: &mut Client,
    relation: &Relation,
    from: &str,
    select: &str,
    condition: &Condition,
) -> Result<(Vec<Split>, Option<u64>), Fail> {
    let all = if condition.sql.is_empty() { "1 = 1" } else { &condition.sql };
    if client.rows(&format!("SELECT 1 FROM {from} WHERE {all} LIMIT 1"), condition.values.clone())?.is_empty() {
        return Ok((Vec::new(), Some(0)));
    }
    let rows = match condition.is_above {
        false => relation.rows,
        true => {
            let few = format!("SELECT COUNT(*) FROM (SELECT 1 FROM {from} WHERE {all} LIMIT {}) x", FEW + 1);
            Some(client.count(&few, condition.values.clone())?)
        }
    };
    let is_walked = relation.kind == Kind::Table && relation.has_snapshots();
    let is_few = rows.is_none_or(|rows| rows <= FEW);
    let first = relation.primary.first().and_then(|name| relation.column(name));
    let ranges = match first {
        Some(column) if is_walked && !is_few => match column.contract_type() {
            Some(ContractType::Integer) => by_number(client, from, &column.name, rows.unwrap_or(0))?,
            Some(ContractType::Decimal { .. }) if column.r#type == "bigint" => {
                by_number(client, from, &column.name, rows.unwrap_or(0))?
            }
            Some(ContractType::Text | ContractType::Char | ContractType::Date | ContractType::Timestamp) => {
                by_value(client, from, &column.name)?
            }
            Some(ContractType::Bytes) => by_value(client, from, &column.name)?,
            _ => whole(),
        },
        _ => whole(),
    };
    // Rows of a table come as they lie there.
    let is_keyed = relation.kind == Kind::Table && !relation.primary.is_empty();
    let index = if is_keyed && (!condition.is_above || !is_few) { " FORCE INDEX (PRIMARY)" } else { "" };
    let order = match is_keyed {
        true => format!(" ORDER BY {}", quoted(relation.primary.iter().map(String::as_str))),
        false => String::new(),
    };
    let split = |(name, range, bound): Range| {
        let name = if condition.suffix.is_empty() { name } else { format!("{name} {}", condition.suffix) };
        let sql = format!("SELECT {select} FROM {from}{index} WHERE {all} AND {range}{order}");
        Split { name, sql, values: condition.values.iter().cloned().chain(bound).collect() }
    };
    Ok((ranges.into_iter().map(split).collect(), rows))
}

fn whole() -> Vec<Range> {
    vec![("all".to_owned(), "1 = 1".to_owned(), Vec::new())]
}

/// Ranges of a whole number. The optimizer counts a page at either end and takes the rest for like them, and is wrong by
/// half: where the table as a whole says that a range is small, it need not be as sure.
fn by_number(client: &mut Client, from: &str, column: &str, rows: u64) -> Result<Vec<Range>, Fail> {
    let key = quote(column);
    let bounds = client.rows(&format!("SELECT MIN({key}), MAX({key}) FROM {from}"), vec![])?;
    let Some([Some(first), Some(last)]) = bounds.first().map(|row| [row.first(), row.get(1)].map(wide)) else {
        return Ok(whole());
    };
    let width = last - first + 1;
    let (mut ranges, mut left) = (Vec::new(), vec![(first, last)]);
    while let Some((first, last)) = left.pop() {
        let range = format!("{key} BETWEEN {first} AND {last}");
        let by_width = share(rows, last - first + 1, width);
        let limit = if by_width <= i128::from(LIMIT) { LIMIT * DOUBT } else { LIMIT };
        let is_small = ranges.len() + left.len() >= SPLITS_MAX || first >= last;
        if is_small || estimate(client, &format!("SELECT 1 FROM {from} FORCE INDEX (PRIMARY) WHERE {range}"))? <= limit
        {
            ranges.push((format!("key {first} to {last}"), range, Vec::new()));
            continue;
        }
        let next = roundest(first, last);
        left.extend([(next, last), (first, next - 1)]);
    }
    Ok(ranges)
}

/// How many of the rows lie in a part of a range, were they spread evenly; of more than there can be it is very many.
fn share(rows: u64, part: i128, width: i128) -> i128 {
    i128::from(rows).saturating_mul(part) / width.max(1)
}

/// Ranges that end at values which are there.
fn by_value(client: &mut Client, from: &str, column: &str) -> Result<Vec<Range>, Fail> {
    let key = quote(column);
    let (mut ranges, mut above): (Vec<Range>, Option<Value>) = (Vec::new(), None);
    let name =
        |bound: &Option<Value>| bound.as_ref().map_or_else(String::new, |value| short_hash(&value.as_sql(false)));
    loop {
        let (beyond, mut bound) = match &above {
            None => ("1 = 1".to_owned(), Vec::new()),
            Some(value) => (format!("{key} > ?"), vec![value.clone()]),
        };
        let sql = format!(
            "SELECT {key} FROM {from} FORCE INDEX (PRIMARY) WHERE {beyond} ORDER BY {key} LIMIT 1 OFFSET {}",
            SPLIT_ROWS - 1
        );
        let next = client.rows(&sql, bound.clone())?.into_iter().next().and_then(|row| row.into_iter().next());
        let Some(next) = next.filter(|_| ranges.len() < SPLITS_MAX) else {
            ranges.push((format!("key {}-", name(&above)), beyond, bound));
            return Ok(ranges);
        };
        let end = Some(next);
        bound.extend(end.clone());
        ranges.push((format!("key {}-{}", name(&above), name(&end)), format!("{beyond} AND {key} <= ?"), bound));
        above = end;
    }
}

/// How many rows the optimizer expects.
fn estimate(client: &mut Client, sql: &str) -> Result<u64, Fail> {
    let told = client.ask(&format!("EXPLAIN {sql}"))?;
    let Some(row) = told.first() else { return Ok(0) };
    let at = row.columns_ref().iter().position(|column| column.name_str().eq_ignore_ascii_case("rows"));
    Ok(at.and_then(|at| row.as_ref(at)).map_or(0, number))
}

fn wide(value: Option<&Value>) -> Option<i128> {
    match value? {
        Value::Int(number) => Some(i128::from(*number)),
        Value::UInt(number) => Some(i128::from(*number)),
        _ => None,
    }
}

/// The number in (low, high] with the most zero bits at its end.
fn roundest(low: i128, high: i128) -> i128 {
    for bits in (0..64).rev() {
        let candidate = high >> bits << bits;
        if candidate > low {
            return candidate;
        }
    }
    high
}

/// So many rows are read at once.
const FEW: u64 = SPLIT_ROWS + SPLIT_ROWS / 2;
/// The optimizer's word is no count: a range that it takes for larger is cut.
const LIMIT: u64 = FEW;
/// By so much its word may be too high.
const DOUBT: u64 = 3;
const SPLITS_MAX: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_roundest_number_is_found_on_both_sides_of_zero() {
        assert_eq!(roundest(-5, 3), 0);
        assert_eq!(roundest(5, 9), 8);
        assert_eq!(roundest(-9, -5), -8);
        assert_eq!(roundest(1, 200_000), 131_072);
        assert_eq!(roundest(i128::from(u64::MAX) - 1, i128::from(u64::MAX)), i128::from(u64::MAX));
    }

    #[test]
    fn a_share_of_any_rows_is_a_number() {
        let all = i128::from(u64::MAX) - i128::from(i64::MIN) + 1;
        assert_eq!(share(1_000, 10, 100), 100);
        assert_eq!(share(1_000, 10, 0), 10_000);
        assert!(share(u64::MAX, all, all) > i128::from(LIMIT));
    }
}
