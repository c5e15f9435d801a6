//! What of a row filter the server itself is asked for, its values bound as parameters.

use super::calendar;
use super::client::id;
use super::kind::Kind;
use super::name::quote;
use super::reading::Wanted;
use super::source::Origin;
use crate::pushdown::{Part, Wider};
use posthouse_protocol::filter::{Comparison, Filter, Literal};
use tiberius::ColumnData;

/// Leaves out rows for which the filter is surely not true.
/// `is_recoded`: texts of a code page are read as another than the server's.
pub(super) fn narrow(origin: &mut Origin, columns: &[Wanted], filter: &Filter, is_recoded: bool) {
    let kind = |name: &str| {
        let kind = columns.iter().find(|column| column.name == name).map(|column| column.kind);
        kind.filter(|kind| !is_recoded || kind.page().is_none())
    };
    let is_sure = |part: &Part<'_>| match part {
        Part::Compare(name, comparison, literal) => {
            kind(name).is_some_and(|kind| bound(kind, *comparison, literal).is_some())
        }
        Part::Null(name, _) => kind(name).is_some(),
    };
    let Some(wider) = Wider::of(filter, &is_sure) else { return };
    let bounds = &mut origin.bounds;
    let asked = wider.sql(&mut |part| match part {
        Part::Compare(name, comparison, literal) => {
            // None was found to be sure above.
            let value = kind(name).and_then(|kind| bound(kind, *comparison, literal));
            bounds.push(value.unwrap_or(ColumnData::I64(None)));
            format!("t.{} {} @P{}", quote(name), comparison.as_str(), bounds.len())
        }
        Part::Null(name, true) => format!("t.{} IS NULL", quote(name)),
        Part::Null(name, false) => format!("t.{} IS NOT NULL", quote(name)),
    });
    origin.condition.push_str(&format!(" AND {asked}"));
}

/// A literal as a parameter. None where the server may not find every row for which the comparison is true: texts that
/// are the same are equal in every collation, but not where their bytes are other characters than it thinks; times of
/// thirds of a millisecond are compared as others by some versions.
fn bound(kind: Kind, comparison: Comparison, literal: &Literal) -> Option<ColumnData<'static>> {
    Some(match (kind, literal) {
        (Kind::TinyInt | Kind::SmallInt | Kind::Int | Kind::BigInt, Literal::Integer(number)) => id(*number),
        (kind, Literal::Text(text)) if kind.is_text() && comparison == Comparison::Equal => {
            // For some rare characters the server's tables of a code page are not those of its standard.
            if kind.page().is_some() && !text.chars().all(is_common) {
                return None;
            }
            ColumnData::String(Some(text.clone().into()))
        }
        (Kind::Date, Literal::Date(days)) => {
            let us = i64::from(*days).checked_mul(DAY_US)?;
            ColumnData::DateTime2(Some(calendar::datetime2(us, 6)?))
        }
        (Kind::DateTime2(0..=6), Literal::Timestamp(us)) => ColumnData::DateTime2(Some(calendar::datetime2(*us, 6)?)),
        _ => return None,
    })
}

/// What every table of a code page that has it has at one place.
fn is_common(letter: char) -> bool {
    letter.is_ascii() || ('\u{4e00}'..='\u{9fa5}').contains(&letter)
}

const DAY_US: i64 = 86_400_000_000;

#[cfg(test)]
mod tests {
    use super::super::codepage::Page;
    use super::*;
    use posthouse_protocol::schema::ContractType;

    fn narrowed(filter: &str, is_recoded: bool) -> (String, usize) {
        let page = Page::of(936).unwrap();
        let column = |name: &str, kind, r#type| Wanted { name: name.to_owned(), kind, r#type };
        let columns = [
            column("i]d", Kind::Int, ContractType::Integer),
            column("name", Kind::NVarChar(Some(20)), ContractType::Text),
            column("code", Kind::VarChar(Some(20), page), ContractType::Text),
            column("at", Kind::DateTime2(7), ContractType::Timestamp),
        ];
        let condition = "1 = 1".to_owned();
        let from = "[dbo].[t] AS t".to_owned();
        let mut origin = Origin { relation: None, from, is_fixed: true, condition, bounds: vec![id(7)] };
        narrow(&mut origin, &columns, &Filter::parse(filter).unwrap(), is_recoded);
        (origin.condition, origin.bounds.len())
    }

    #[test]
    fn what_the_server_is_sure_of_is_bound_and_the_rest_is_not_asked_for() {
        let (sql, bounds) = narrowed("\"i]d\" >= 5 AND name = '张三' AND NOT name = 'x' AND code = '610100'", false);
        assert_eq!(
            sql, "1 = 1 AND ((t.[i]]d] >= @P2) AND (t.[name] = @P3) AND (t.[code] = @P4))",
            "another text than a given one is not asked for"
        );
        assert_eq!(bounds, 4);
        assert_eq!(narrowed("code = '610100'", true), ("1 = 1".to_owned(), 1));
        assert_eq!(narrowed("code = '\u{9fb4}'", false), ("1 = 1".to_owned(), 1));
        assert_eq!(narrowed("at >= TIMESTAMP '2026-01-01T00:00:00Z'", false), ("1 = 1".to_owned(), 1));
        assert_eq!(narrowed("name > 'a' OR \"i]d\" = 1", false), ("1 = 1".to_owned(), 1));
    }
}
