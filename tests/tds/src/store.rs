//! What the server holds: values and their types, tables with the versions of their rows, transactions.
//! Nothing here knows of the line or of the language.

pub mod calendar;
pub mod catalog;
pub mod collation;
pub mod convert;
pub mod database;
pub mod decimal;
pub mod error;
pub mod table;
pub mod types;
pub mod value;

pub use collation::Collation;
pub use decimal::Decimal;
pub use error::{SqlError, Stop};
pub use types::{Kind, Type};
pub use value::{Key, Moment, Row, Value};
