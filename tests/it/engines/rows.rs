//! Rows through connectors within this process, read and landed as a node does it.

use super::Place;
use crate::support::PROVIDER;
use arrow::record_batch::RecordBatch;
use posthouse_connectors::{BadRow, Landing, Read, Sink, TableSpec};
use posthouse_protocol::id::{JobId, TransferId};
use posthouse_protocol::job::Write;
use posthouse_protocol::problem::Problem;
use posthouse_protocol::schema::Contract;
use std::path::PathBuf;

/// Collects what is read.
#[derive(Default)]
pub(super) struct Rows {
    pub(super) batches: Vec<RecordBatch>,
    pub(super) bad: Vec<BadRow>,
}

impl Sink for Rows {
    fn batch(&mut self, batch: RecordBatch) -> Result<(), Problem> {
        self.batches.push(batch);
        Ok(())
    }
    fn bad_row(&mut self, row: BadRow) -> Result<(), Problem> {
        self.bad.push(row);
        Ok(())
    }
}

/// All rows of a table, and what its columns mean.
pub(super) fn read(place: &Place, table: &str, key: &[&str]) -> (Contract, Rows) {
    let mut source = place.connect().source(&spec(place, table, key)).expect("a source");
    let plan = source.begin(&Read::default()).unwrap_or_else(|problem| panic!("{table}: {problem}"));
    let mut rows = Rows::default();
    for split in &plan.splits {
        source.read(split, &mut rows).unwrap_or_else(|problem| panic!("{table}: {problem}"));
    }
    (plan.contract, rows)
}

pub(super) fn contract_of(place: &Place, table: &str, key: &[&str]) -> Contract {
    let mut source = place.connect().source(&spec(place, table, key)).expect("a source");
    source.begin(&Read::default()).unwrap_or_else(|problem| panic!("{table}: {problem}")).contract
}

/// Lands batches as one split; how many rows were refused.
pub(super) fn land(place: &Place, landing: &Landing, batches: Vec<RecordBatch>) -> u64 {
    let mut destination = place.connect().destination(landing).expect("a destination");
    let table = &landing.table;
    destination.prepare().unwrap_or_else(|problem| panic!("{table}: {problem}"));
    let staged = destination.stage("all", [1; 32], &mut batches.into_iter().map(Ok));
    let staged = staged.unwrap_or_else(|problem| panic!("{table}: {problem}"));
    let published = destination.publish().unwrap_or_else(|problem| panic!("{table}: {problem}"));
    staged.bad.len() as u64 + published.quarantined
}

/// A transfer of its own for each job.
pub(super) fn landing(job: &str, table: String, contract: &Contract) -> Landing {
    let hash = blake3::hash(job.as_bytes());
    Landing {
        transfer: TransferId::from_random(std::array::from_fn(|index| hash.as_bytes()[index])),
        job: JobId::parse(job).expect("a job's name"),
        table,
        write: Write::Append,
        contract: contract.clone(),
        native: None,
        watermark_column: None,
        operation: None,
        node_epoch: 1,
        work_dir: PathBuf::new(),
    }
}

fn spec(place: &Place, table: &str, key: &[&str]) -> TableSpec {
    TableSpec {
        table: Some(place.table(table)),
        query: None,
        key: key.iter().map(|name| (*name).to_owned()).collect(),
        watermark: None,
        late_ms: 0,
        resource: format!("{PROVIDER}/table"),
    }
}
