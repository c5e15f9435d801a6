//! TDS 7.4 as it is on the line: packets, the greeting, the login, types and values, tokens, calls and bulk loads.
//! Nothing here runs a statement.

pub mod bulk;
pub mod greeting;
pub mod handshake;
pub mod login;
pub mod packet;
pub mod reading;
pub mod rpc;
pub mod tokens;
pub mod types;
