//! What types become in a Parquet file. Nothing is read from such files but what was landed there.

use crate::mapping::{Made, Mapping};
use posthouse_protocol::schema::ContractType;

pub(crate) fn mapping() -> Mapping {
    Mapping { native: Vec::new(), made }
}

/// A file has a place for every value of each type that it has.
pub(super) fn made(r#type: ContractType) -> Made {
    let declared = match r#type {
        ContractType::Boolean => "BOOLEAN".to_owned(),
        ContractType::Integer => "INT64".to_owned(),
        // Digits that end before the point it has none of.
        ContractType::Decimal { scale, .. } if scale < 0 => return Made { declared: None, lacks: &[] },
        ContractType::Decimal { precision, scale } => format!("DECIMAL({precision},{scale})"),
        ContractType::Float => "DOUBLE".to_owned(),
        ContractType::Text | ContractType::Char | ContractType::Json | ContractType::Number => "STRING".to_owned(),
        ContractType::Bytes => "BYTE_ARRAY".to_owned(),
        ContractType::Date => "DATE".to_owned(),
        ContractType::Timestamp => "TIMESTAMP(MICROS,UTC)".to_owned(),
    };
    Made { declared: Some(declared), lacks: &[] }
}
