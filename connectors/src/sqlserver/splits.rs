//! Cuts what is read into ranges of a key, each of about as many rows, by values that the snapshot itself has there: a
//! split is a range between two of them, and every row lies in one. Where there is no such key, or few rows, it is one.

use super::catalog::{Column, Relation};
use super::client::{Client, SqlError, text};
use super::kind::Kind;
use super::name::quote;
use super::source::Origin;
use tiberius::{ColumnData, Row};

/// One split: its name, what is added to the condition, and the parameters of that.
#[derive(Debug, Clone)]
pub(super) struct Split {
    pub(super) name: String,
    pub(super) condition: String,
    pub(super) bounds: Vec<ColumnData<'static>>,
}

/// All rows of `origin` for which its condition holds; `suffix` names that condition.
pub(super) fn cut(client: &mut Client, origin: &Origin, rows: u64, suffix: &str) -> Result<Vec<Split>, SqlError> {
    if rows == 0 {
        return Ok(Vec::new());
    }
    let bounds = match origin.relation.as_ref().and_then(key).filter(|_| rows > ROWS_AT_ONCE && origin.is_fixed) {
        Some(column) => bounds(client, origin, column)?.map(|bounds| (column, bounds)),
        None => None,
    };
    let mut splits = match bounds {
        Some((column, bounds)) => ranges(column, &bounds, origin.bounds.len()),
        None => vec![Split { name: "all".to_owned(), condition: String::new(), bounds: Vec::new() }],
    };
    if !suffix.is_empty() {
        splits.iter_mut().for_each(|split| split.name = format!("{} {suffix}", split.name));
    }
    Ok(splits)
}

/// The first column of an index that orders all rows by values that can be given back exactly.
fn key(relation: &Relation) -> Option<&Column> {
    let firsts = relation.unique.iter().filter_map(|columns| relation.column(columns.first()?));
    let orders = |kind: Kind| {
        matches!(
            kind,
            Kind::TinyInt
                | Kind::SmallInt
                | Kind::Int
                | Kind::BigInt
                | Kind::Date
                | Kind::NChar(_)
                | Kind::NVarChar(Some(_))
                | Kind::Char(..)
                | Kind::VarChar(Some(_), _)
        )
    };
    let mut firsts = firsts.filter(|column| column.not_null && column.kind.is_some_and(orders));
    firsts.next()
}

/// Every so manieth value of the key, in its order; none where one of them could be taken for another.
fn bounds(client: &mut Client, origin: &Origin, column: &Column) -> Result<Option<Vec<ColumnData<'static>>>, SqlError> {
    let name = quote(&column.name);
    let sql = format!(
        "SELECT x.[posthouse_bound] FROM (SELECT t.{name} AS [posthouse_bound], \
         ROW_NUMBER() OVER (ORDER BY t.{name}) AS [posthouse_number] FROM {} WHERE {}) AS x \
         WHERE x.[posthouse_number] % {ROWS_A_RANGE} = 0 ORDER BY x.[posthouse_number]",
        origin.from, origin.condition
    );
    let rows = client.query(&sql, &origin.bounds)?;
    let mut bounds: Vec<ColumnData<'static>> = Vec::with_capacity(rows.len());
    for row in &rows {
        let Some(bound) = bound(row, column) else { return Ok(None) };
        // A key of several columns has the same first value many times.
        if bounds.last() != Some(&bound) {
            bounds.push(bound);
        }
    }
    Ok((!bounds.is_empty()).then_some(bounds))
}

fn bound(row: &Row, column: &Column) -> Option<ColumnData<'static>> {
    match column.kind? {
        Kind::Date => match row.get_column_data(0).ok()? {
            ColumnData::Date(Some(date)) => Some(ColumnData::Date(Some(*date))),
            _ => None,
        },
        // What is beyond ASCII might come to the column in another code page than its own.
        Kind::Char(..) | Kind::VarChar(..) => {
            text(row, 0).filter(|text| text.is_ascii()).map(|text| ColumnData::String(Some(text.to_owned().into())))
        }
        Kind::NChar(_) | Kind::NVarChar(_) => text(row, 0).map(|text| ColumnData::String(Some(text.to_owned().into()))),
        _ => super::client::number(row, 0).map(super::client::id),
    }
}

/// A bound is somebody's number or name, which a split's name does not tell.
fn ranges(column: &Column, bounds: &[ColumnData<'static>], params: usize) -> Vec<Split> {
    let name = format!("t.{}", quote(&column.name));
    let is_bytes = column.kind.and_then(Kind::page).is_some();
    // Compared as what the column is, so that its order is that of its index.
    let place = |at: usize| match is_bytes {
        true => format!("CAST(@P{} AS {})", params + at, column.declared),
        false => format!("@P{}", params + at),
    };
    let lower = std::iter::once(None).chain(bounds.iter().map(Some));
    let upper = bounds.iter().map(Some).chain([None]);
    let count = bounds.len() + 1;
    let split = |(at, (lower, upper)): (usize, (Option<&ColumnData<'static>>, Option<&ColumnData<'static>>))| {
        let (mut condition, mut bounds) = (String::new(), Vec::new());
        for (bound, operator) in [(lower, ">="), (upper, "<")] {
            if let Some(bound) = bound {
                bounds.push(bound.clone());
                condition.push_str(&format!(" AND {name} {operator} {}", place(bounds.len())));
            }
        }
        Split { name: format!("keys {} of {count}", at + 1), condition, bounds }
    };
    lower.zip(upper).enumerate().map(split).collect()
}

/// Fewer rows are one split.
const ROWS_AT_ONCE: u64 = 65_536;
/// About what a range has.
const ROWS_A_RANGE: u64 = 50_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_one_range() {
        let column = Column {
            name: "编]号".to_owned(),
            kind: Some(Kind::BigInt),
            declared: "bigint".to_owned(),
            collation: None,
            not_null: true,
            identity: false,
            computed: false,
            has_default: false,
            mark: None,
            comment: None,
        };
        let bounds = [ColumnData::I64(Some(10)), ColumnData::I64(Some(20))];
        let splits = ranges(&column, &bounds, 1);
        let said: Vec<(&str, &str)> =
            splits.iter().map(|split| (split.name.as_str(), split.condition.as_str())).collect();
        assert_eq!(
            said,
            [
                ("keys 1 of 3", " AND t.[编]]号] < @P2"),
                ("keys 2 of 3", " AND t.[编]]号] >= @P2 AND t.[编]]号] < @P3"),
                ("keys 3 of 3", " AND t.[编]]号] >= @P2"),
            ]
        );
        assert_eq!((splits[1].bounds.as_slice(), splits[2].bounds.as_slice()), (&bounds[..], &bounds[1..]));
        let text = Column {
            kind: Some(Kind::VarChar(Some(18), super::super::codepage::Page::of(936).unwrap())),
            declared: "varchar(18)".to_owned(),
            ..column
        };
        assert!(ranges(&text, &bounds[..1], 0)[0].condition.ends_with("< CAST(@P1 AS varchar(18))"));
    }
}
