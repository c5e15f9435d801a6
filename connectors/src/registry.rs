//! The list of connectors: one line each. The command line's help, the configuration reference and the
//! console's list come from it.

use crate::Connector;

pub const CONNECTORS: &[&dyn Connector] = &[];

/// The connector of `kind = "…"`.
pub fn find(kind: &str) -> Option<&'static dyn Connector> {
    CONNECTORS.iter().copied().find(|connector| connector.kind() == kind)
}

/// All kinds, for a message about one that does not exist.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    CONNECTORS.iter().map(|connector| connector.kind())
}
