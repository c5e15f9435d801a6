//! In which form a table's rows travel. Everyone reads Arrow. Between two databases of one family a split may
//! stay as the engine wrote it: nobody takes its rows apart to put them together again, and both nodes digest
//! them where they stand. What the rows mean is the contract's in every form, and so is their digest.

use crate::limits;
use crate::pgcopy::{self, NativeType, Shape};
use crate::problem::{Code, Problem};
use crate::schema::Contract;
use minicbor::{Decode, Encode};

/// A form beside Arrow's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// PostgreSQL's binary COPY, with its header and its end; see [`crate::pgcopy`].
    PgCopy,
}

impl Format {
    pub const ALL: [Self; 1] = [Self::PgCopy];

    /// As it stands in a request and in an offer.
    pub fn name(self) -> &'static str {
        match self {
            Self::PgCopy => pgcopy::FORMAT,
        }
    }
    /// None for one that this version does not know.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }
    /// Those of a peer's list that are known here; it may know others.
    pub fn known(names: &[String]) -> Vec<Self> {
        names.iter().take(limits::FORMATS_MAX).filter_map(|name| Self::parse(name)).collect()
    }
}

/// That the rows travel in an engine's own form, with what its columns are there.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Native {
    /// One that the consumer asked for.
    #[n(0)]
    pub format: String,
    /// The engine's type of each of the contract's items, in the grammar of the format.
    #[n(1)]
    pub columns: Vec<String>,
}

impl Native {
    pub fn new(format: Format, columns: Vec<String>) -> Self {
        Self { format: format.name().to_owned(), columns }
    }
    /// The format, if it was asked for.
    pub fn format(&self, asked: &[Format]) -> Result<Format, Problem> {
        Format::parse(&self.format).filter(|format| asked.contains(format)).ok_or_else(|| {
            Problem::new(Code::FrameInvalid)
                .with("peer", "the provider")
                .cause("its rows travel in a form that nobody asked for")
        })
    }
    /// How a stream of these rows is read, if the columns are what the contract says of them.
    pub fn shape(&self, contract: &Contract) -> Result<Shape, Problem> {
        let natives = self.columns.iter().map(|column| column.parse()).collect::<Result<Vec<NativeType>, _>>();
        let refused =
            |cause: &dyn std::fmt::Display| Problem::new(Code::FrameInvalid).with("peer", "the provider").cause(cause);
        Shape::new(contract, &natives.map_err(|e| refused(&e))?).map_err(|e| refused(&e))
    }
}
