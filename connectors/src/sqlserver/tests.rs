//! The suite on SQL Server: against the TDS test server, and against a real one where `POSTHOUSE_TEST_MSSQL_URL` names
//! it. Beside it what SQL Server and its driver alone can do wrong, trap by trap. The test server tells what it did not
//! know; a bench that ends asserts that there was nothing.

mod examining;
mod landing;
mod lines;
mod place;
mod reading;
mod real;
mod refusing;

use super::*;
use crate::Published;
use crate::contract::{Bench, Rows, item, land, landing, people, read_all, small, spec, standing};
use place::SqlBench;
use posthouse_protocol::batch::{BatchBuilder, Value};
use posthouse_protocol::job::Write;
use posthouse_protocol::schema::{Contract, ContractType};

type TdsBench = SqlBench<false>;

crate::contract::suite!(TdsBench);

const TARGET: &str = "[dbo].[人口 base]";

/// One row of a contract.
fn row(contract: &Contract, values: &[Value<'_>]) -> arrow::record_batch::RecordBatch {
    let mut builder = BatchBuilder::new(contract);
    builder.push(values).unwrap();
    builder.finish().unwrap()
}

/// Reads all of a table as it is.
fn read_table(bench: &TdsBench, table: &str) -> (crate::Plan, Rows) {
    let mut source = bench.source(&spec(table)).unwrap();
    read_all(source.as_mut(), &crate::Read::default())
}
