//! What this family's types mean elsewhere, and what other engines' types become here: one list, read by the functions
//! that tables are read and made with.

use super::ddl;
use crate::mapping::{Edge, Made, Mapping, Native};
use posthouse_protocol::pgcopy::NativeType;
use posthouse_protocol::schema::ContractType;

pub(super) fn mapping() -> Mapping {
    Mapping { native: NATIVE.iter().map(|(declared, holds)| native(declared, holds)).collect(), made }
}

fn native(declared: &str, holds: &'static [Edge]) -> Native {
    let r#type = declared.parse::<NativeType>().ok().map(|native| native.contract_type());
    Native { declared: declared.to_owned(), r#type, holds }
}

fn made(r#type: ContractType) -> Made {
    let native = ddl::of_contract(r#type);
    let lacks: &'static [Edge] = match r#type {
        ContractType::Text | ContractType::Char => &[Edge::Nul],
        ContractType::Json => &[Edge::JsonNul, Edge::JsonNumber],
        _ => &[],
    };
    Made { declared: ddl::sql_type(&native, NEWEST), lacks }
}

/// What an older server lacks has another column there, and is refused nowhere.
const NEWEST: u32 = u32::MAX;

const DAYS: &[Edge] = &[Edge::Endless, Edge::BeforeYearZero, Edge::YearZero, Edge::AfterYear9999];
const LOCAL: &[Edge] = &[Edge::Endless, Edge::BeforeYearZero, Edge::YearZero, Edge::AfterYear9999, Edge::NoZone];
const FLOATS: &[Edge] = &[Edge::Infinite, Edge::NotANumber];
const TEXTS: &[Edge] = &[Edge::Undecodable];
const SHOWN: &[Edge] = &[Edge::AsText];

/// In the grammar of `pgcopy`, with an example of parameters.
const NATIVE: &[(&str, &[Edge])] = &[
    ("bool", &[]),
    ("int2", &[]),
    ("int4", &[]),
    ("int8", &[]),
    ("oid", &[]),
    ("numeric(18,2)", &[Edge::DecimalNaN]),
    ("numeric(5,-3)", &[Edge::DecimalNaN]),
    ("numeric(39,2)", &[]),
    ("numeric", &[]),
    ("float4", FLOATS),
    ("float8", FLOATS),
    ("text", TEXTS),
    ("varchar", TEXTS),
    ("varchar(50)", TEXTS),
    ("name", TEXTS),
    ("\"char\"", TEXTS),
    ("bpchar(18)", &[Edge::LongChar, Edge::Undecodable]),
    ("bpchar", &[Edge::LongChar, Edge::Undecodable]),
    ("bytea", &[]),
    ("date", DAYS),
    ("timestamp", LOCAL),
    ("timestamp(3)", LOCAL),
    ("timestamptz", DAYS),
    ("timestamptz(3)", DAYS),
    ("json", &[Edge::JsonNul, Edge::JsonNumber, Edge::JsonTwice]),
    ("jsonb", &[]),
    ("time", SHOWN),
    ("time(3)", SHOWN),
    ("timetz", SHOWN),
    ("timetz(3)", SHOWN),
    ("interval", SHOWN),
    ("interval(3)", SHOWN),
    ("money", SHOWN),
    ("uuid", SHOWN),
    ("enum", SHOWN),
    ("xml", SHOWN),
    ("bit(8)", SHOWN),
    ("varbit", SHOWN),
    ("varbit(8)", SHOWN),
    ("inet", SHOWN),
    ("cidr", SHOWN),
    ("macaddr", SHOWN),
    ("macaddr8", SHOWN),
    ("pg_lsn", SHOWN),
    ("xid8", SHOWN),
    ("point", SHOWN),
    ("line", SHOWN),
    ("lseg", SHOWN),
    ("box", SHOWN),
    ("path", SHOWN),
    ("polygon", SHOWN),
    ("circle", SHOWN),
    ("tsvector", SHOWN),
    ("tsquery", SHOWN),
    ("jsonpath", SHOWN),
    ("int4[]", SHOWN),
    ("range<date>", SHOWN),
    ("multirange<date>", SHOWN),
    ("composite<text,date>", SHOWN),
    // These refer to objects of their own database, or to its inner state.
    ("regclass", &[]),
    ("xid", &[]),
    ("cid", &[]),
    ("tid", &[]),
    ("int2vector", &[]),
    ("oidvector", &[]),
    ("refcursor", &[]),
    ("txid_snapshot", &[]),
    ("pg_snapshot", &[]),
    ("aclitem", &[]),
];

#[cfg(test)]
mod tests {
    use super::*;
    use posthouse_protocol::batch::{Batch, BatchBuilder};
    use posthouse_protocol::pgcopy::Encoder;
    use posthouse_protocol::pgcopy::native::Plain;
    use posthouse_protocol::schema::Contract;

    #[test]
    fn every_type_that_can_be_carried_is_listed() {
        for plain in Plain::ALL {
            assert!(NATIVE.iter().any(|(declared, _)| *declared == plain.as_str()), "{}", plain.as_str());
        }
    }

    #[test]
    fn what_a_made_column_lacks_is_what_its_encoder_refuses() {
        crate::mapping::tests::hold(made, &|r#type, value| {
            let contract = Contract { items: vec![crate::contract::item("c", r#type)], key: vec![] };
            let mut builder = BatchBuilder::new(&contract);
            builder.push(&[value]).unwrap();
            let batch = Batch::new(&contract, builder.finish().unwrap()).unwrap();
            let mut encoder = Encoder::new(&contract, &[ddl::of_contract(r#type)]).unwrap();
            encoder.row(&batch, 0, &mut Vec::new()).is_ok()
        });
    }
}
