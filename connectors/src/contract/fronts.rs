//! What every connector promises of front-end tables: rows that say what they do, and flags that are set of rows which
//! still are what was read.

use super::{Bench, digest, item, land, landing, people, read_all, small, standing};
use crate::front::{FrontRow, FrontSpec, Part, version_of};
use crate::{Landing, Read};
use arrow::record_batch::RecordBatch;
use posthouse_protocol::batch::{Batch, BatchBuilder, Value};
use posthouse_protocol::job::Write;
use posthouse_protocol::operation;
use posthouse_protocol::problem::Code;
use posthouse_protocol::schema::{Contract, ContractType};

pub(crate) fn rows_that_say_what_they_do_are_upserted_and_deleted<B: Bench>() {
    let bench = B::new();
    let contract = small();
    let changes_of = |number: u8| Landing {
        operation: Some(operation::COLUMN.to_owned()),
        ..landing(number, Write::Upsert, &contract)
    };
    let (one, two) = (changes_of(1), changes_of(2));
    if !B::HAS_FRONT_TABLES {
        assert!(bench.destination(&one).is_err());
        return;
    }
    assert!(bench.destination(&Landing { write: Write::Append, ..changes_of(3) }).is_err());
    let published = land(&bench, &one, changes(&one, &[(1, "王", "I"), (2, "李", "I"), (3, "赵", "U"), (7, "", "D")]));
    assert_eq!((published.rows, published.inserted, published.updated, published.deleted), (4, 3, 0, 0));
    let published = land(&bench, &two, changes(&two, &[(2, "", "D"), (3, "赵六", "U"), (4, "钱", "I"), (9, "", "D")]));
    assert_eq!((published.rows, published.inserted, published.updated, published.deleted), (4, 1, 1, 1));
    let expected = people(&contract, &[(1, "王", 1), (3, "赵六", 3), (4, "钱", 4)]);
    assert_eq!(standing(&bench, &two).digest(&contract), digest(&contract, &[expected]));
    let mut again = bench.destination(&two).unwrap();
    again.prepare().unwrap();
    assert_eq!(again.publish().unwrap(), published, "a repeat deletes nothing more");

    // Of a row that goes an application fills in the key, also where the table takes no NULL beside it.
    let mut strict = contract.clone();
    strict.items.iter_mut().for_each(|item| item.nullable = false);
    let operation = Some(operation::COLUMN.to_owned());
    let made = Landing { operation, table: "strict".to_owned(), ..landing(5, Write::Upsert, &strict) };
    land(&bench, &made, changes(&made, &[(1, "王", "I"), (2, "李", "I")]));
    let gone = Landing { table: "strict".to_owned(), ..changes_of(6) };
    let published = land(&bench, &gone, changes(&gone, &[(1, "", "D")]));
    assert_eq!((published.rows, published.deleted, published.quarantined), (1, 1, 0));
}

/// Rows of [`small`], whose time is the key's, with what each of them does.
pub(crate) fn changes(landing: &Landing, rows: &[(i64, &str, &str)]) -> RecordBatch {
    let mut builder = BatchBuilder::new(&landing.staged());
    for (id, name, letter) in rows {
        let name = if name.is_empty() { Value::Null } else { Value::Text(name) };
        builder.push(&[Value::Integer(*id), name, Value::Timestamp(id * 1_000_000), Value::Text(letter)]).unwrap();
    }
    builder.finish().unwrap()
}

pub(crate) fn a_flag_is_set_of_rows_that_are_as_they_were_read<B: Bench>() {
    if !B::HAS_FRONT_TABLES {
        return;
    }
    let bench = B::new();
    let mut contract = small();
    contract.items.truncate(2);
    contract.items.push(item("clzt", ContractType::Text));
    let (one, two) = (landing(1, Write::Append, &contract), landing(2, Write::Upsert, &contract));
    bench.make_front(&one.table);
    land(&bench, &one, flagged(&contract, &[(1, "王", "0"), (2, "李", "0"), (3, "赵", "1")]));
    let spec = FrontSpec {
        table: one.table.clone(),
        key: vec!["id".to_owned()],
        flag: "clzt".to_owned(),
        from: "0".to_owned(),
        to: "1".to_owned(),
        purges: true,
        resource: "node.example/front".to_owned(),
    };
    let mut read = unread(&bench, &spec);
    assert_eq!(ids(&read), [1, 2]);
    // Between reading and writing back one of them is changed.
    land(&bench, &two, flagged(&contract, &[(2, "李四", "0")]));
    let mut front = bench.front(&spec).unwrap();
    assert_eq!(front.mark(&mut read).unwrap(), 1);
    assert_eq!(ids(&unread(&bench, &spec)), [2], "it stays unread");
    assert_eq!(front.mark(&mut read.clone()).unwrap(), 0, "a repeat changes nothing");
    // What bears the flag already, and what was not marked, is none of this.
    assert_eq!(front.purge(&read).unwrap(), 1);
    assert_eq!(front.purge(&read).unwrap(), 0);
    let left = flagged(&contract, &[(2, "李四", "0"), (3, "赵", "1")]);
    assert_eq!(standing(&bench, &two).digest(&contract), digest(&contract, &[left]));

    let mut later = unread(&bench, &spec);
    assert_eq!(front.mark(&mut later).unwrap(), 1);
    land(&bench, &landing(3, Write::Upsert, &contract), flagged(&contract, &[(2, "李五", "1")]));
    assert_eq!(front.purge(&later).unwrap(), 0, "what was changed since is kept");

    let nowhere = FrontSpec { flag: "nowhere".to_owned(), ..spec };
    let refused = bench.front(&nowhere).unwrap().plan().unwrap_err();
    assert_eq!(refused.code, Code::FrontTableUnfit, "{refused}");
}

fn flagged(contract: &Contract, rows: &[(i64, &str, &str)]) -> RecordBatch {
    let mut builder = BatchBuilder::new(contract);
    for (id, name, flag) in rows {
        builder.push(&[Value::Integer(*id), Value::Text(name), Value::Text(flag)]).unwrap();
    }
    builder.finish().unwrap()
}

/// The unread rows, in the order of their keys.
fn unread<B: Bench>(bench: &B, spec: &FrontSpec) -> Vec<FrontRow> {
    let plan = bench.front(spec).unwrap().plan().unwrap();
    assert_eq!(plan.row, ["id"]);
    let mut source = bench.source(&plan.source(spec)).unwrap();
    let columns = Some(vec!["id".to_owned(), "clzt".to_owned(), plan.version.clone()]);
    let (read, rows) = read_all(source.as_mut(), &Read { columns, ..Read::default() });
    assert_eq!(rows.bad, vec![]);
    let mut found = Vec::new();
    for record in rows.batches {
        let batch = Batch::new(&read.contract, record).unwrap();
        for row in 0..batch.rows() {
            assert_eq!(batch.value(1, row), Value::Text("0"));
            let Value::Integer(id) = batch.value(0, row) else { panic!("{:?}", batch.value(0, row)) };
            found
                .push(FrontRow { row: vec![Part::Integer(id)], version: version_of(&batch.value(2, row).to_string()) });
        }
    }
    found.sort_by(|a, b| a.row.cmp(&b.row));
    found
}

fn ids(rows: &[FrontRow]) -> Vec<i64> {
    let id = |row: &FrontRow| match row.row.as_slice() {
        [Part::Integer(id)] => *id,
        other => panic!("{other:?}"),
    };
    rows.iter().map(id).collect()
}
