//! A contract together with the native types of its columns, checked against each other: what every reader
//! and writer of tuples works by. What has to be known of a column for each of its values is found out here, once.

use super::native::{NativeType, Plain};
use crate::batch::BatchError;
use crate::schema::{Contract, ContractType};

/// Columns of a stream, in order.
#[derive(Debug, Clone)]
pub struct Shape {
    contract: Contract,
    pub(super) columns: Vec<Column>,
    pub(super) key: Vec<usize>,
}

#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) native: NativeType,
    pub(super) form: Form,
    pub(super) nullable: bool,
}

/// How a value lies in its field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Bool,
    Int2,
    Int4,
    Int8,
    Oid,
    Float4,
    Float8,
    Decimal {
        precision: u8,
        scale: i8,
    },
    Number,
    Text,
    Bpchar,
    Bytes,
    Date,
    Timestamp,
    Json,
    /// Json behind a byte that says its version.
    Jsonb,
    /// Text that is made from it.
    Rendered,
}

/// Why types and contract are no pair.
#[derive(Debug, thiserror::Error)]
pub enum ShapeError {
    #[error("{found} native types for {expected} columns")]
    Count { found: usize, expected: usize },
    #[error("the column `{column}` is {native}, which is not what its contract says")]
    Type { column: String, native: NativeType },
    #[error(transparent)]
    Contract(#[from] BatchError),
}

impl Shape {
    pub fn new(contract: &Contract, natives: &[NativeType]) -> Result<Self, ShapeError> {
        crate::batch::check_contract(contract)?;
        if natives.len() != contract.items.len() {
            return Err(ShapeError::Count { found: natives.len(), expected: contract.items.len() });
        }
        let pair = |(item, native): (&crate::schema::Item, &NativeType)| {
            if native.contract_type() != item.r#type {
                return Err(ShapeError::Type { column: item.name.clone(), native: native.clone() });
            }
            let (name, native, nullable) = (item.name.clone(), native.clone(), item.nullable);
            Ok(Column { name, form: Form::of(&native), native, nullable })
        };
        let columns = contract.items.iter().zip(natives).map(pair).collect::<Result<_, _>>()?;
        Ok(Self { contract: contract.clone(), columns, key: contract.key_positions() })
    }
    pub fn contract(&self) -> &Contract {
        &self.contract
    }
}

impl Form {
    fn of(native: &NativeType) -> Self {
        match (native, native.contract_type()) {
            (_, ContractType::Decimal { precision, scale }) => Self::Decimal { precision, scale },
            (_, ContractType::Number) => Self::Number,
            (NativeType::Bpchar(_), _) => Self::Bpchar,
            (NativeType::Varchar(_), _) => Self::Text,
            (NativeType::Plain(plain) | NativeType::Timed(plain, _), _) => match plain {
                Plain::Bool => Self::Bool,
                Plain::Int2 => Self::Int2,
                Plain::Int4 => Self::Int4,
                Plain::Int8 => Self::Int8,
                Plain::Oid => Self::Oid,
                Plain::Float4 => Self::Float4,
                Plain::Float8 => Self::Float8,
                Plain::Text | Plain::Name | Plain::Xml | Plain::Enum => Self::Text,
                Plain::Bytea => Self::Bytes,
                Plain::Date => Self::Date,
                Plain::Timestamp | Plain::Timestamptz => Self::Timestamp,
                Plain::Json => Self::Json,
                Plain::Jsonb => Self::Jsonb,
                _ => Self::Rendered,
            },
            _ => Self::Rendered,
        }
    }
}
