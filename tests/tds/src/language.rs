//! The part of T-SQL that this server knows: read by recursive descent, bound to tables and types, and run.
//! What is not in it is an error, and noted as unknown.

pub mod bind;
pub mod catalogue;
pub mod change;
pub mod control;
pub mod define;
pub mod engine;
pub mod expression;
pub mod functions;
pub mod lex;
pub mod parse;
pub mod procedures;
pub mod run;
pub mod scalar;
pub mod tree;
