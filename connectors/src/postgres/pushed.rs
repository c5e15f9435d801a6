//! What of a row filter the database itself is asked for. COPY takes no parameters: values are bound to settings of the
//! transaction, as a watermark's bounds are, and the statement reads them from there.

use super::catalog::{Relation, quote};
use super::source::{bound_text, mark_type};
use super::splits::Rows;
use super::wire::{Client, WireError};
use crate::pushdown::{Part, Wider};
use posthouse_protocol::filter::{Comparison, Filter, Literal};
use posthouse_protocol::pgcopy::native::{NativeType, Plain};
use posthouse_protocol::schema::ContractType;
use posthouse_protocol::watermark::Watermark;

/// Leaves out rows for which the filter is surely not true, within the transaction that reads.
pub(super) fn narrow(
    client: &mut Client,
    relation: &Relation,
    filter: &Filter,
    rows: &mut Rows,
) -> Result<(), WireError> {
    let is_utf8 = client.charset().is_utf8();
    let is_sure = |part: &Part<'_>| match part {
        Part::Compare(name, comparison, literal) => {
            (is_utf8 || !matches!(literal, Literal::Text(_))) && bound(relation, name, *comparison, literal).is_some()
        }
        // What has no place in the grammar is told when the rows are to be read. Of a composite the engine means its fields.
        Part::Null(name, _) => relation
            .column(name)
            .and_then(|column| column.native.as_ref())
            .is_some_and(|native| !matches!(native, NativeType::Composite(_))),
    };
    let Some(wider) = Wider::of(filter, &is_sure) else { return Ok(()) };
    let mut settings: Vec<(String, String)> = Vec::new();
    let asked = wider.sql(&mut |part| match part {
        Part::Compare(name, comparison, literal) => {
            // None was found to be sure above.
            let Some((text, cast)) = bound(relation, name, *comparison, literal) else { return "true".to_owned() };
            let setting = format!("posthouse.filter_{}", settings.len() + 1);
            let (column, operator) = (quote(name), comparison.as_str());
            // Read once for a statement, and not once for a row.
            let asked = format!("{column} {operator} (SELECT pg_catalog.current_setting('{setting}')::{cast})");
            settings.push((setting, text));
            asked
        }
        Part::Null(name, true) => format!("{} IS NULL", quote(name)),
        Part::Null(name, false) => format!("NOT {} IS NULL", quote(name)),
    });
    if !settings.is_empty() {
        let set = |at: usize| format!("pg_catalog.set_config(${}, ${}, true)", 2 * at + 1, 2 * at + 2);
        let sql = format!("SELECT {}", (0..settings.len()).map(set).collect::<Vec<_>>().join(", "));
        let values: Vec<Option<&str>> =
            settings.iter().flat_map(|(setting, text)| [Some(setting.as_str()), Some(text.as_str())]).collect();
        client.query(&sql, &values)?;
    }
    rows.condition = Some(match rows.condition.take() {
        Some(condition) => format!("{condition} AND {asked}"),
        None => asked,
    });
    Ok(())
}

/// A literal as the engine reads it, and the type it is cast to. None where the engine may not find every row for which
/// the comparison is true: it orders texts by other rules than the filter, and those of them that are the same are equal
/// by all rules.
fn bound(relation: &Relation, name: &str, comparison: Comparison, literal: &Literal) -> Option<(String, &'static str)> {
    let native = relation.column(name)?.native.as_ref()?;
    let cast = match native {
        // Blanks at the end do not count there.
        NativeType::Bpchar(_) => "bpchar",
        // The engine would take the number for one of these, and refuses one that is none.
        NativeType::Plain(Plain::Oid) => return None,
        native => mark_type(native)?,
    };
    let text = match (native.contract_type(), literal) {
        (ContractType::Integer, Literal::Integer(number)) => number.to_string(),
        (ContractType::Text | ContractType::Char, Literal::Text(text)) => {
            return (comparison == Comparison::Equal && !text.contains('\0')).then(|| (text.clone(), cast));
        }
        (ContractType::Date, Literal::Date(days)) => {
            instant(i64::from(*days).saturating_mul(DAY_US), ContractType::Date)?
        }
        (ContractType::Timestamp, Literal::Timestamp(us)) => instant(*us, ContractType::Timestamp)?,
        _ => return None,
    };
    Some((text, cast))
}

/// As it is written in every setting of the server: years of four digits.
fn instant(us: i64, r#type: ContractType) -> Option<String> {
    let is_plain = (FIRST_US..END_US).contains(&us);
    is_plain.then(|| bound_text(&Watermark::Timestamp(us), r#type)).flatten()
}

const DAY_US: i64 = 86_400_000_000;
/// 0001-01-01, and the day after 9999-12-31.
const FIRST_US: i64 = -719_162 * DAY_US;
const END_US: i64 = 2_932_897 * DAY_US;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::parse_date;

    #[test]
    fn years_of_four_digits_are_asked_for() {
        let day = |text: &str| i64::from(parse_date(text).unwrap()) * DAY_US;
        assert_eq!((day("0001-01-01"), day("9999-12-31") + DAY_US), (FIRST_US, END_US));
        assert_eq!(instant(day("2024-02-29"), ContractType::Date).as_deref(), Some("2024-02-29 00:00:00"));
        assert_eq!(instant(FIRST_US - 1, ContractType::Timestamp), None);
        assert_eq!(instant(END_US, ContractType::Timestamp), None);
    }
}
