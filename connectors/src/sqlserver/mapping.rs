//! What SQL Server's types mean elsewhere, and what other engines' types become here: one list, read by the functions
//! that tables are read and made with.

use super::codepage::Page;
use super::kind::{self, Described, Kind, Mark};
use crate::charset::Charset;
use crate::mapping::{Edge, Made, Mapping, Native};
use posthouse_protocol::schema::{Contract, ContractType, Item};

pub(super) fn mapping() -> Mapping {
    let moves = NATIVE.iter().map(|(kind, mark, holds)| {
        let declared = mark.map_or_else(|| kind.declare(), |mark| marked(*kind, mark));
        Native { declared, r#type: Some(kind.contract_type(mark.and_then(Mark::parse))), holds }
    });
    let stays = REFUSED.iter().map(|(declared, id)| {
        let described = Described { id: *id, length: 16, precision: 0, scale: 0, page: None };
        let r#type = Kind::of(described).map(|kind| kind.contract_type(None));
        Native { declared: (*declared).to_owned(), r#type, holds: &[] }
    });
    Mapping { native: moves.chain(stays).collect(), made }
}

fn made(r#type: ContractType) -> Made {
    let item = Item { name: String::new(), r#type, nullable: true, comment: None };
    let kinds = kind::created(&Contract { items: vec![item], key: Vec::new() });
    let kind = kinds.ok().and_then(|kinds| kinds.first().copied());
    let declared = kind.map(|kind| Mark::of(r#type).map_or_else(|| kind.declare(), |mark| marked(kind, mark)));
    let lacks: &'static [Edge] = match r#type {
        ContractType::Float => &[Edge::Infinite, Edge::NotANumber],
        ContractType::Date | ContractType::Timestamp => DAYS,
        _ => &[],
    };
    Made { declared, lacks }
}

/// With what an extended property says of a text.
fn marked(kind: Kind, mark: &str) -> String {
    format!("{} with posthouse_type = {mark}", kind.declare())
}

/// Its years are 1 to 9999.
const DAYS: &[Edge] = &[Edge::Endless, Edge::BeforeYearZero, Edge::YearZero, Edge::AfterYear9999];
const GBK: Page = Page::Ours(Charset::Gbk);
const UTF16: &[Edge] = &[Edge::Nul, Edge::HalfCharacter];
const BYTES: &[Edge] = &[Edge::Nul, Edge::Undecodable];
const SHOWN: &[Edge] = &[Edge::AsText];

/// With the mark of a text that means more.
const NATIVE: &[(Kind, Option<&str>, &[Edge])] = &[
    (Kind::Bit, None, &[]),
    (Kind::TinyInt, None, &[]),
    (Kind::SmallInt, None, &[]),
    (Kind::Int, None, &[]),
    (Kind::BigInt, None, &[]),
    (Kind::RowVersion, None, &[]),
    (Kind::Decimal { precision: 18, scale: 2 }, None, &[]),
    (Kind::Money, None, &[]),
    (Kind::SmallMoney, None, &[]),
    (Kind::NVarChar(None), Some("number"), &[]),
    (Kind::Real, None, &[]),
    (Kind::Float, None, &[]),
    (Kind::NVarChar(Some(50)), None, UTF16),
    (Kind::NVarChar(None), None, UTF16),
    (Kind::NText, None, UTF16),
    (Kind::VarChar(Some(50), GBK), None, BYTES),
    (Kind::VarChar(None, GBK), None, BYTES),
    (Kind::Text(GBK), None, BYTES),
    (Kind::NChar(18), None, &[Edge::Nul, Edge::LongChar, Edge::HalfCharacter]),
    (Kind::NVarChar(None), Some("char"), &[Edge::Nul, Edge::LongChar, Edge::HalfCharacter]),
    (Kind::Char(18, GBK), None, &[Edge::Nul, Edge::LongChar, Edge::Undecodable]),
    (Kind::Binary(16), None, &[]),
    (Kind::VarBinary(Some(50)), None, &[]),
    (Kind::VarBinary(None), None, &[]),
    (Kind::Image, None, &[]),
    (Kind::Date, None, &[]),
    (Kind::DateTime2(6), None, &[Edge::NoZone]),
    (Kind::SmallDateTime, None, &[Edge::NoZone]),
    (Kind::DateTime2(7), None, &[Edge::Finer, Edge::NoZone]),
    (Kind::DateTime, None, &[Edge::NoZone, Edge::Thirds]),
    (Kind::DateTimeOffset(7), None, &[Edge::Finer, Edge::WrittenZone]),
    (Kind::NVarChar(None), Some("json"), &[Edge::JsonNul, Edge::JsonNumber, Edge::HalfCharacter, Edge::JsonTwice]),
    (Kind::Time(7), None, SHOWN),
    (Kind::Guid, None, SHOWN),
    (Kind::Xml, None, SHOWN),
];

/// By the engine's own numbers.
const REFUSED: &[(&str, i64)] = &[("sql_variant", 98), ("hierarchyid", 240), ("geometry", 240), ("geography", 240)];

#[cfg(test)]
mod tests {
    use super::super::writing::Slot;
    use super::*;

    #[test]
    fn what_a_made_column_lacks_is_what_its_writer_refuses() {
        crate::mapping::tests::hold(made, &|r#type, value| {
            let item = crate::contract::item("c", r#type);
            let kind = kind::created(&Contract { items: vec![item], key: vec![] }).unwrap()[0];
            let (name, staged, collation) = ("c".to_owned(), kind.staged(), None);
            Slot { name, kind, staged, collation, not_null: false, identity: false, is_key: false }.write(value).is_ok()
        });
    }

    #[test]
    fn types_of_others_are_none_of_ours() {
        assert!(mapping().native.iter().rev().take(REFUSED.len()).all(|native| native.r#type.is_none()));
        assert_eq!(made(ContractType::Decimal { precision: 38, scale: -1 }).declared, None);
        assert_eq!(made(ContractType::Decimal { precision: 5, scale: -3 }).declared.as_deref(), Some("decimal(8,0)"));
    }
}
