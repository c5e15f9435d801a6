//! What every connector promises, as tests. A connector gives a [`Bench`], which says how to make a place to
//! land in and how to spoil it, and names it in `contract::suite!(…)` in its tests; the cases are in [`cases`].
//! What only one kind of database can do is tested beside that connector.

pub(crate) mod cases;
pub(crate) mod fronts;
pub(crate) mod random;

use crate::front::{FrontSpec, FrontTable};
use crate::{BadRow, Destination, Landing, Plan, Published, Read, Sink, Source, TableSpec};
use arrow::record_batch::RecordBatch;
use posthouse_protocol::batch::{Batch, BatchBuilder, Value};
use posthouse_protocol::digest::{Digester, RowDigest};
use posthouse_protocol::id::{JobId, TransferId};
use posthouse_protocol::job::Write;
use posthouse_protocol::problem::Problem;
use posthouse_protocol::schema::{Contract, ContractType, Item};
use std::path::PathBuf;

/// A fresh place for one case.
pub(crate) trait Bench: Sized {
    /// Whether rows are known by their key: what upsert and mirror need.
    const KEYED: bool;
    /// Whether a text may hold a character 0.
    const HOLDS_NUL: bool = true;
    /// Whether floats, dates and times may be infinite.
    const HOLDS_INFINITIES: bool = true;
    /// Whether a table may have columns of its own, which landing leaves as they are.
    const HAS_OWN_COLUMNS: bool = false;
    /// Whether splits of one transfer may be staged beside each other.
    const TAKES_SEVERAL: bool = false;
    fn new() -> Self;
    fn destination(&self, landing: &Landing) -> Result<Box<dyn Destination>, Problem>;
    /// None where nothing can be read from such a place.
    fn source(&self, spec: &TableSpec) -> Option<Box<dyn Source>>;
    /// Makes a table of this contract that takes no NULL in `column`; false where a place has no such rule.
    fn make_strict(&self, table: &str, contract: &Contract, column: &str) -> bool;
    /// Whether rows that say what they do can be landed, and an application's flags be kept.
    const HAS_FRONT_TABLES: bool = false;
    /// None where there are no such tables.
    fn front(&self, _: &FrontSpec) -> Option<Box<dyn FrontTable>> {
        None
    }
    /// Makes the table of `id`, `name` and `clzt`, where one that landing makes would be no front-end table.
    fn make_front(&self, _: &str) {}
    /// From now on the place cannot be reached.
    fn lose(&self);
}

/// Runs every case on one bench.
macro_rules! suite {
    ($bench:ty) => {
        $crate::contract::suite!($bench:
            values_survive_the_round_trip,
            a_repeated_publish_changes_nothing,
            a_split_staged_twice_lands_once,
            splits_staged_beside_each_other_land_once_each,
            an_empty_table_is_created,
            drift_is_refused_with_both_schemas_shown,
            a_refused_row_is_told_apart_from_a_lost_connection,
            a_kill_at_any_step_between_stage_and_publish_resumes,
            a_transfer_that_is_discarded_leaves_nothing,
            what_two_transfers_stage_stays_apart,
            replacing_leaves_the_new_rows_only,
            appending_what_came_before_again_neither_loses_nor_doubles,
            rows_without_a_key_are_appended_by_their_count,
            upserting_adds_and_changes_by_key,
            mirroring_deletes_what_is_gone_but_never_over_a_tenth,
            a_mirror_keeps_the_older_row_of_one_that_is_refused,
            a_mirror_deletes_nothing_where_rows_were_held_back,
            a_key_that_comes_twice_is_a_bad_row,
            more_refused_rows_than_may_be_publish_nothing,
            a_dry_run_tells_and_changes_nothing,
            an_older_copy_of_the_node_is_fenced,
            tables_of_any_shape_land_as_they_are,
            rows_that_say_what_they_do_are_upserted_and_deleted,
            a_flag_is_set_of_rows_that_are_as_they_were_read,
        );
    };
    ($bench:ty: $($case:ident),* $(,)?) => {
        $(#[test]
        fn $case() {
            $crate::contract::cases::$case::<$bench>();
        })*
    };
}
pub(crate) use suite;

/// Collects what is read.
#[derive(Default)]
pub(crate) struct Rows {
    pub(crate) batches: Vec<RecordBatch>,
    pub(crate) bad: Vec<BadRow>,
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

impl Rows {
    /// What the rows are, whatever their order.
    pub(crate) fn digest(&self, contract: &Contract) -> RowDigest {
        digest(contract, &self.batches)
    }
    pub(crate) fn count(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }
    /// Each row as JSON, sorted.
    pub(crate) fn json(&self, contract: &Contract) -> Vec<String> {
        let mut rows = Vec::new();
        for record in &self.batches {
            let batch = Batch::new(contract, record.clone()).unwrap();
            rows.extend((0..batch.rows()).map(|row| batch.json(row)));
        }
        rows.sort();
        rows
    }
}

pub(crate) fn digest(contract: &Contract, batches: &[RecordBatch]) -> RowDigest {
    let (mut digester, mut digest) = (Digester::new([7; 32]), RowDigest::default());
    for record in batches {
        digester.rows(&Batch::new(contract, record.clone()).unwrap(), &mut digest).unwrap();
    }
    digest
}

pub(crate) fn landing(number: u8, write: Write, contract: &Contract) -> Landing {
    Landing {
        transfer: TransferId::from_random([number; 16]),
        job: JobId::parse("suite").unwrap(),
        table: "人口 base".to_owned(),
        write,
        contract: contract.clone(),
        native: None,
        watermark_column: None,
        operation: None,
        node_epoch: 1,
        work_dir: PathBuf::new(),
    }
}

pub(crate) fn spec(table: &str) -> TableSpec {
    TableSpec {
        table: Some(table.to_owned()),
        query: None,
        key: Vec::new(),
        watermark: None,
        late_ms: 0,
        resource: "node.example/suite".to_owned(),
    }
}

/// Prepares, stages the rows as one split and publishes.
pub(crate) fn land<B: Bench>(bench: &B, landing: &Landing, batch: RecordBatch) -> Published {
    let mut destination = bench.destination(landing).unwrap();
    destination.prepare().unwrap();
    destination.stage("only", [1; 32], &mut [Ok(batch)].into_iter()).unwrap();
    destination.publish().unwrap()
}

pub(crate) fn standing<B: Bench>(bench: &B, landing: &Landing) -> Rows {
    let mut rows = Rows::default();
    let count = bench.destination(landing).unwrap().read_standing(None, &mut rows).unwrap();
    assert_eq!(count as usize, rows.count() + rows.bad.len());
    rows
}

/// Reads all splits of a source.
pub(crate) fn read_all(source: &mut dyn Source, read: &Read) -> (Plan, Rows) {
    let plan = source.begin(read).unwrap();
    let mut rows = Rows::default();
    for split in &plan.splits {
        let before = (rows.count() as u64, rows.bad.len() as u64);
        let counts = source.read(split, &mut rows).unwrap();
        assert_eq!(counts.read, counts.sent + counts.filtered + counts.quarantined);
        assert_eq!(
            (rows.count() as u64 - before.0, rows.bad.len() as u64 - before.1),
            (counts.sent, counts.quarantined)
        );
    }
    (plan, rows)
}

pub(crate) fn item(name: &str, r#type: ContractType) -> Item {
    Item { name: name.to_owned(), r#type, nullable: true, comment: None }
}

/// `id`, `name`, `seen` with the key on `id`.
pub(crate) fn small() -> Contract {
    let mut id = item("id", ContractType::Integer);
    id.nullable = false;
    let items = vec![id, item("name", ContractType::Text), item("seen", ContractType::Timestamp)];
    Contract { items, key: vec!["id".to_owned()] }
}

/// Rows of [`small`]: the time is in seconds.
pub(crate) fn people(contract: &Contract, rows: &[(i64, &str, i64)]) -> RecordBatch {
    let mut builder = BatchBuilder::new(contract);
    for (id, name, seen) in rows {
        let name = if name.is_empty() { Value::Null } else { Value::Text(name) };
        builder.push(&[Value::Integer(*id), name, Value::Timestamp(seen * 1_000_000)]).unwrap();
    }
    builder.finish().unwrap()
}
