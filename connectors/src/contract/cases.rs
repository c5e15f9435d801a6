//! The cases of the suite, each a sentence that holds for every connector.

pub(crate) use super::fronts::{
    a_flag_is_set_of_rows_that_are_as_they_were_read, rows_that_say_what_they_do_are_upserted_and_deleted,
};

use super::{Bench, digest, item, land, landing, people, read_all, small, spec, standing};
use crate::{Destination, Landing, Publishing, Read, types};
use arrow::record_batch::RecordBatch;
use posthouse_protocol::batch::{BatchBuilder, Value};
use posthouse_protocol::job::Write;
use posthouse_protocol::problem::Code;
use posthouse_protocol::schema::{Contract, ContractType};

pub(crate) fn values_survive_the_round_trip<B: Bench>() {
    let bench = B::new();
    let contract = every_type();
    let landing = landing(1, Write::Append, &contract);
    let rows = extremes(&contract, B::HOLDS_NUL, B::HOLDS_INFINITIES);
    let expected = digest(&contract, std::slice::from_ref(&rows));
    assert_eq!(land(&bench, &landing, rows).rows, expected.count);
    let back = standing(&bench, &landing);
    assert_eq!((back.digest(&contract), back.bad), (expected, vec![]));
    if let Some(mut source) = bench.source(&spec(&landing.table)) {
        let (plan, rows) = read_all(source.as_mut(), &Read::default());
        assert_eq!(types::schema_text(&plan.contract), types::schema_text(&contract));
        assert_eq!((rows.digest(&contract), rows.bad), (expected, vec![]));
    }
}

pub(crate) fn a_repeated_publish_changes_nothing<B: Bench>() {
    let bench = B::new();
    let contract = small();
    let landing = landing(1, Write::Append, &contract);
    let first = land(&bench, &landing, people(&contract, &[(1, "王", 1), (2, "李", 2)]));
    let mut again = bench.destination(&landing).unwrap();
    assert_eq!(again.published().unwrap(), Some(first.clone()));
    again.prepare().unwrap();
    assert_eq!(again.publish().unwrap(), first);
    drop(again);
    assert_eq!(standing(&bench, &landing).count(), 2);
}

pub(crate) fn a_split_staged_twice_lands_once<B: Bench>() {
    let bench = B::new();
    let contract = Contract { key: vec![], ..small() };
    let landing = landing(1, Write::Append, &contract);
    let mut destination = bench.destination(&landing).unwrap();
    destination.prepare().unwrap();
    let rows = || [Ok(people(&contract, &[(1, "王", 1)]))].into_iter();
    let first = destination.stage("a", [1; 32], &mut rows()).unwrap();
    assert_eq!(destination.stage("a", [1; 32], &mut rows()).unwrap(), first);
    assert_eq!(destination.applied().unwrap().len(), 1);
    assert_eq!(destination.publish().unwrap().rows, 1);
    assert_eq!(standing(&bench, &landing).count(), 1);
}

pub(crate) fn splits_staged_beside_each_other_land_once_each<B: Bench>() {
    let bench = B::new();
    let contract = Contract { key: vec![], ..small() };
    let landing = landing(1, Write::Append, &contract);
    let mut one = bench.destination(&landing).unwrap();
    one.prepare().unwrap();
    let beside = one.beside();
    assert_eq!(beside.is_some(), B::TAKES_SEVERAL);
    let Some(mut two) = beside else { return };
    let stage = |destination: &mut dyn Destination, split: u8| {
        let rows = [Ok(people(&contract, &[(i64::from(split), "王", 1), (i64::from(split), "李", 2)]))];
        let landed = destination.stage(&format!("split {split}"), [split; 32], &mut rows.into_iter()).unwrap();
        assert_eq!((landed.landed, landed.bad), (2, vec![]));
    };
    // Each goes through all of them, from either end: some are staged at once, and in the middle the same one is.
    std::thread::scope(|scope| {
        scope.spawn(|| (0..20).for_each(|split| stage(&mut *one, split)));
        scope.spawn(|| (0..20).rev().for_each(|split| stage(&mut *two, split)));
    });
    assert_eq!(one.applied().unwrap().len(), 20);
    assert_eq!(two.publish().unwrap().rows, 40);
    assert_eq!(standing(&bench, &landing).count(), 40);
    assert!(one.stage("late", [99; 32], &mut std::iter::empty()).is_err(), "it is published already");
}

pub(crate) fn an_empty_table_is_created<B: Bench>() {
    let bench = B::new();
    let contract = every_type();
    let landing = landing(1, Write::Append, &contract);
    let mut destination = bench.destination(&landing).unwrap();
    destination.prepare().unwrap();
    assert_eq!(destination.published().unwrap(), None);
    assert_eq!(destination.publish().unwrap().rows, 0);
    assert_eq!(standing(&bench, &landing).count(), 0);
    if let Some(mut source) = bench.source(&spec(&landing.table)) {
        let (plan, rows) = read_all(source.as_mut(), &Read::default());
        assert_eq!((plan.splits.len(), rows.count()), (0, 0));
        assert_eq!(plan.contract.key, contract.key);
    }
}

pub(crate) fn drift_is_refused_with_both_schemas_shown<B: Bench>() {
    let bench = B::new();
    let contract = small();
    land(&bench, &landing(1, Write::Append, &contract), people(&contract, &[(1, "王", 1)]));
    let mut wider = contract.clone();
    wider.items.push(item("phone", ContractType::Text));
    let mut narrower = contract.clone();
    narrower.items.retain(|item| item.name != "seen");
    let mut other = contract.clone();
    other.items[1].r#type = ContractType::Integer;
    let mut drifted = vec![wider, other];
    if B::HAS_OWN_COLUMNS {
        let landing = landing(9, Write::Append, &narrower);
        bench.destination(&landing).unwrap().prepare().unwrap();
    } else {
        drifted.push(narrower);
    }
    for (number, drifted) in drifted.into_iter().enumerate() {
        let landing = landing(10 + number as u8, Write::Append, &drifted);
        let problem = bench.destination(&landing).unwrap().prepare().unwrap_err();
        assert_eq!(problem.code, Code::SchemaDrift, "{problem}");
        let facts = format!("{:?}", problem.facts);
        assert!(facts.contains("resource's columns") && facts.contains("table's columns"), "{facts}");
        assert!(drifted.items.iter().all(|item| facts.contains(&item.name)), "{facts}");
    }
    assert_eq!(standing(&bench, &landing(1, Write::Append, &contract)).count(), 1);
}

pub(crate) fn a_refused_row_is_told_apart_from_a_lost_connection<B: Bench>() {
    let bench = B::new();
    let contract = small();
    let landing = landing(1, Write::Append, &contract);
    let rows = || people(&contract, &[(1, "王", 1), (2, "", 2), (3, "李", 3)]);
    let is_strict = bench.make_strict(&landing.table, &contract, "name");
    let mut destination = bench.destination(&landing).unwrap();
    destination.prepare().unwrap();
    let staged = destination.stage("a", [1; 32], &mut [Ok(rows())].into_iter()).unwrap();
    let published = destination.publish().unwrap();
    drop(destination);
    let refused = if is_strict { 1 } else { 0 };
    assert_eq!(staged.bad.len() as u64 + published.quarantined, refused);
    assert_eq!(published.rows, 3 - refused);
    assert_eq!(standing(&bench, &landing).count() as u64, 3 - refused);
    bench.lose();
    let after = super::landing(2, Write::Append, &contract);
    let lost = bench.destination(&after).and_then(|mut destination| destination.prepare());
    let code = lost.unwrap_err().code;
    assert!(matches!(code, Code::ConnectionFailed | Code::StorageFailed), "{code}");
}

pub(crate) fn a_kill_at_any_step_between_stage_and_publish_resumes<B: Bench>() {
    let bench = B::new();
    let contract = small();
    let landing = landing(1, Write::Append, &contract);
    let split = |first: i64| [Ok(people(&contract, &[(first, "王", 1), (first + 1, "李", 2)]))].into_iter();
    bench.destination(&landing).unwrap().prepare().unwrap();
    for (name, first) in [("a", 1), ("b", 11), ("c", 21)] {
        let mut destination = bench.destination(&landing).unwrap();
        destination.prepare().unwrap();
        // A source that breaks off leaves nothing of its split.
        let broken = [split(first).next().unwrap(), Err(posthouse_protocol::problem::Problem::new(Code::Mismatch))];
        assert!(destination.stage(name, [1; 32], &mut broken.into_iter()).is_err());
        drop(destination);
        let mut destination = bench.destination(&landing).unwrap();
        destination.prepare().unwrap();
        assert!(destination.applied().unwrap().iter().all(|applied| applied.split != name));
        destination.stage(name, [first as u8; 32], &mut split(first)).unwrap();
    }
    assert_eq!(standing(&bench, &landing).count(), 0, "staged rows are not visible");
    let mut destination = bench.destination(&landing).unwrap();
    destination.prepare().unwrap();
    let mut applied = destination.applied().unwrap();
    applied.sort_by(|a, b| a.split.cmp(&b.split));
    let told: Vec<_> =
        applied.iter().map(|applied| (applied.split.as_str(), applied.root[0], applied.landed)).collect();
    assert_eq!(told, [("a", 1, 2), ("b", 11, 2), ("c", 21, 2)]);
    assert_eq!(destination.published().unwrap(), None);
    assert_eq!(destination.publish().unwrap().inserted, 6);
    drop(destination);
    assert_eq!(standing(&bench, &landing).count(), 6);
}

pub(crate) fn a_transfer_that_is_discarded_leaves_nothing<B: Bench>() {
    let bench = B::new();
    let contract = small();
    let landing = landing(1, Write::Append, &contract);
    let mut destination = bench.destination(&landing).unwrap();
    destination.prepare().unwrap();
    destination.stage("a", [1; 32], &mut [Ok(people(&contract, &[(1, "王", 1)]))].into_iter()).unwrap();
    destination.discard().unwrap();
    assert_eq!(destination.applied().unwrap(), []);
    drop(destination);
    assert_eq!(standing(&bench, &landing).count(), 0);
    assert_eq!(land(&bench, &super::landing(2, Write::Append, &contract), people(&contract, &[(1, "李", 1)])).rows, 1);
}

pub(crate) fn what_two_transfers_stage_stays_apart<B: Bench>() {
    let bench = B::new();
    let contract = small();
    let (one, two) = (landing(1, Write::Append, &contract), landing(2, Write::Append, &contract));
    let mut first = bench.destination(&one).unwrap();
    first.prepare().unwrap();
    first.stage("a", [1; 32], &mut [Ok(people(&contract, &[(1, "王", 1)]))].into_iter()).unwrap();
    let mut second = bench.destination(&two).unwrap();
    second.prepare().unwrap();
    assert_eq!(second.applied().unwrap(), []);
    second.stage("a", [2; 32], &mut [Ok(people(&contract, &[(2, "李", 1)]))].into_iter()).unwrap();
    second.publish().unwrap();
    assert_eq!(standing(&bench, &two).json(&contract).len(), 1);
    first.publish().unwrap();
    assert_eq!(standing(&bench, &two).json(&contract).len(), 2);
}

pub(crate) fn replacing_leaves_the_new_rows_only<B: Bench>() {
    let bench = B::new();
    let contract = small();
    let (one, two) = (landing(1, Write::Replace, &contract), landing(2, Write::Replace, &contract));
    assert_eq!(land(&bench, &one, people(&contract, &[(1, "王", 1), (2, "李", 2)])).rows, 2);
    let after = people(&contract, &[(2, "李四", 3), (3, "赵", 4), (4, "钱", 5)]);
    let expected = digest(&contract, std::slice::from_ref(&after));
    let published = land(&bench, &two, after);
    assert_eq!((published.rows, published.deleted), (3, 2));
    assert_eq!(standing(&bench, &two).digest(&contract), expected);
    assert_eq!(land(&bench, &landing(3, Write::Replace, &contract), people(&contract, &[])).rows, 0);
    assert_eq!(standing(&bench, &two).count(), 0);
}

pub(crate) fn appending_what_came_before_again_neither_loses_nor_doubles<B: Bench>() {
    let bench = B::new();
    let contract = small();
    let with_mark = |number| {
        let mut landing = landing(number, Write::Append, &contract);
        landing.watermark_column = Some("seen".to_owned());
        landing
    };
    land(&bench, &with_mark(1), people(&contract, &[(1, "王", 10), (2, "李", 20), (3, "赵", 30)]));
    // The window is widened backwards: 2 and 3 come again, 4 came late, 5 is new.
    let again = people(&contract, &[(2, "李", 20), (3, "赵", 30), (4, "钱", 25), (5, "孙", 40)]);
    let published = land(&bench, &with_mark(2), again);
    assert_eq!((published.rows, published.inserted, published.quarantined), (4, 2, 0));
    let expected = people(&contract, &[(1, "王", 10), (2, "李", 20), (3, "赵", 30), (4, "钱", 25), (5, "孙", 40)]);
    assert_eq!(standing(&bench, &with_mark(2)).digest(&contract), digest(&contract, &[expected]));
}

pub(crate) fn rows_without_a_key_are_appended_by_their_count<B: Bench>() {
    let bench = B::new();
    let contract = Contract { key: vec![], ..small() };
    let with_mark = |number| {
        let mut landing = landing(number, Write::Append, &contract);
        landing.watermark_column = Some("seen".to_owned());
        landing
    };
    land(&bench, &with_mark(1), people(&contract, &[(1, "王", 10), (1, "王", 10), (2, "", 20)]));
    let again = people(&contract, &[(1, "王", 10), (1, "王", 10), (1, "王", 10), (2, "", 20), (3, "赵", 30)]);
    let published = land(&bench, &with_mark(2), again);
    assert_eq!((published.rows, published.inserted), (5, 2));
    let mut rows = standing(&bench, &with_mark(2)).json(&contract);
    rows.dedup();
    assert_eq!((standing(&bench, &with_mark(2)).count(), rows.len()), (5, 3));
}

pub(crate) fn upserting_adds_and_changes_by_key<B: Bench>() {
    let bench = B::new();
    let contract = small();
    let (one, two) = (landing(1, Write::Upsert, &contract), landing(2, Write::Upsert, &contract));
    if !B::KEYED {
        assert!(bench.destination(&one).is_err());
        return;
    }
    land(&bench, &one, people(&contract, &[(1, "王", 1), (2, "李", 2), (3, "赵", 3)]));
    let published = land(&bench, &two, people(&contract, &[(2, "李", 2), (3, "赵六", 9), (4, "", 4)]));
    assert_eq!((published.rows, published.inserted, published.updated, published.deleted), (3, 1, 1, 0));
    let expected = people(&contract, &[(1, "王", 1), (2, "李", 2), (3, "赵六", 9), (4, "", 4)]);
    assert_eq!(standing(&bench, &two).digest(&contract), digest(&contract, &[expected]));
    let keyless = Contract { key: vec![], ..contract };
    let refused = bench.destination(&landing(3, Write::Upsert, &keyless)).and_then(|mut d| d.prepare());
    assert_eq!(refused.unwrap_err().code, Code::KeyMissing);
}

pub(crate) fn mirroring_deletes_what_is_gone_but_never_over_a_tenth<B: Bench>() {
    let bench = B::new();
    let contract = small();
    if !B::KEYED {
        assert!(bench.destination(&landing(1, Write::Mirror, &contract)).is_err());
        return;
    }
    let all: Vec<(i64, &str, i64)> = (0..20).map(|id| (id, "王", id)).collect();
    land(&bench, &landing(1, Write::Mirror, &contract), people(&contract, &all));
    let published = land(&bench, &landing(2, Write::Mirror, &contract), people(&contract, &all[2..]));
    assert_eq!((published.deleted, published.updated), (2, 0));
    let mut destination = bench.destination(&landing(3, Write::Mirror, &contract)).unwrap();
    destination.prepare().unwrap();
    destination.stage("a", [1; 32], &mut [Ok(people(&contract, &all[..10]))].into_iter()).unwrap();
    assert_eq!(destination.publish().unwrap_err().code, Code::MirrorUnsafe);
    drop(destination);
    assert_eq!(standing(&bench, &landing(3, Write::Mirror, &contract)).count(), 18);
}

pub(crate) fn a_mirror_keeps_the_older_row_of_one_that_is_refused<B: Bench>() {
    let (bench, contract) = (B::new(), small());
    if !B::KEYED {
        return;
    }
    let first = landing(1, Write::Mirror, &contract);
    let is_strict = bench.make_strict(&first.table, &contract, "name");
    let all: Vec<(i64, &str, i64)> = (0..30).map(|id| (id, "王", id)).collect();
    land(&bench, &first, people(&contract, &all));
    // The last is gone. Of three others some kind of place has no room for what they became, be it when they are staged
    // or when they are published.
    let mut builder = BatchBuilder::new(&contract);
    for (id, name, seen) in &all[..29] {
        let (name, seen) = match id {
            3 => (Value::Null, seen * 1_000_000),
            5 => (Value::Text("a\0b"), seen * 1_000_000),
            7 => (Value::Text("李"), i64::MAX),
            _ => (Value::Text(name), seen * 1_000_000),
        };
        builder.push(&[Value::Integer(*id), name, Value::Timestamp(seen)]).unwrap();
    }
    let second = landing(2, Write::Mirror, &contract);
    let mut destination = bench.destination(&second).unwrap();
    destination.prepare().unwrap();
    let staged = destination.stage("a", [1; 32], &mut [Ok(builder.finish().unwrap())].into_iter()).unwrap();
    drop(destination);
    // Whoever goes on after a kill knows of them, too.
    let mut destination = bench.destination(&second).unwrap();
    destination.prepare().unwrap();
    let published = destination.publish().unwrap();
    drop(destination);
    let kinds = [(3, is_strict), (5, !B::HOLDS_NUL), (7, !B::HOLDS_INFINITIES)];
    let refused: Vec<i64> = kinds.into_iter().filter(|(_, is_refused)| *is_refused).map(|(id, _)| id).collect();
    assert_eq!(staged.bad.len() as u64 + published.quarantined, refused.len() as u64, "{:?}", staged.bad);
    assert_eq!((published.deleted, published.kept), (1, 0), "{refused:?}");
    let left = standing(&bench, &second).json(&contract);
    assert_eq!(left.len(), 29, "{left:?}");
    for id in refused {
        let older = format!(r#"{{"id":{id},"name":"王","seen":"1970-01-01T00:00:0{id}Z"}}"#);
        assert!(left.contains(&older), "{left:?}");
    }
}

pub(crate) fn a_mirror_deletes_nothing_where_rows_were_held_back<B: Bench>() {
    let (bench, contract) = (B::new(), small());
    if !B::KEYED {
        return;
    }
    let all: Vec<(i64, &str, i64)> = (0..20).map(|id| (id, "王", id)).collect();
    land(&bench, &landing(1, Write::Mirror, &contract), people(&contract, &all));
    // Also where that is no tenth any more: nothing is deleted, so that nothing is refused either.
    for (number, gone) in [(2, 1), (3, 15)] {
        let landing = landing(number, Write::Mirror, &contract);
        let mut destination = bench.destination(&landing).unwrap();
        destination.prepare().unwrap();
        destination.stage("a", [1; 32], &mut [Ok(people(&contract, &all[gone..]))].into_iter()).unwrap();
        let published = destination.publish_with(&Publishing { refused_max: None, held_back: 1 }).unwrap();
        assert_eq!((published.rows, published.deleted, published.kept), (20 - gone as u64, 0, gone as u64));
        assert_eq!(destination.published().unwrap(), Some(published), "a repeat tells the same");
        drop(destination);
        assert_eq!(standing(&bench, &landing).count(), 20);
    }
    let last = landing(4, Write::Mirror, &contract);
    let published = land(&bench, &last, people(&contract, &all[1..]));
    assert_eq!((published.deleted, published.kept, standing(&bench, &last).count()), (1, 0, 19));
}

pub(crate) fn a_key_that_comes_twice_is_a_bad_row<B: Bench>() {
    let bench = B::new();
    if !B::KEYED {
        return;
    }
    let mut text_key = small();
    text_key.key = vec!["name".to_owned(), "id".to_owned()];
    text_key.items[1].nullable = false;
    for (number, contract) in [small(), text_key].into_iter().enumerate() {
        let mut landing = landing(number as u8, Write::Replace, &contract);
        landing.table = format!("t{number}");
        let mut destination = bench.destination(&landing).unwrap();
        destination.prepare().unwrap();
        destination
            .stage("a", [1; 32], &mut [Ok(people(&contract, &[(1, "王", 1), (2, "李", 2)]))].into_iter())
            .unwrap();
        let again = [Ok(people(&contract, &[(1, "王", 9), (3, "赵", 3)]))];
        // It is told at once, or where the key is made.
        let staged = destination.stage("b", [2; 32], &mut again.into_iter()).unwrap();
        assert_eq!(staged.landed + staged.bad.len() as u64, 2);
        assert!(staged.bad.iter().all(|bad| bad.original.contains("王")), "{:?}", staged.bad);
        let published = destination.publish().unwrap();
        assert_eq!((published.rows, published.quarantined + staged.bad.len() as u64), (3, 1));
        let first = people(&contract, &[(1, "王", 1), (2, "李", 2), (3, "赵", 3)]);
        assert_eq!(standing(&bench, &landing).digest(&contract), digest(&contract, &[first]), "the first one stays");
    }
}

pub(crate) fn more_refused_rows_than_may_be_publish_nothing<B: Bench>() {
    let (bench, contract) = (B::new(), small());
    if !B::KEYED {
        return;
    }
    land(&bench, &landing(1, Write::Append, &contract), people(&contract, &[(1, "王", 1), (2, "李", 2)]));
    let landing = landing(2, Write::Append, &contract);
    let mut destination = bench.destination(&landing).unwrap();
    destination.prepare().unwrap();
    let others = people(&contract, &[(1, "赵", 1), (2, "钱", 2), (3, "孙", 3)]);
    destination.stage("a", [1; 32], &mut [Ok(others)].into_iter()).unwrap();
    let problem = destination.publish_with(&Publishing { refused_max: Some(1), held_back: 0 }).unwrap_err();
    assert_eq!(problem.code, Code::RowsRefused, "{problem}");
    assert!(problem.cause.contains("append changes nothing"), "{problem}");
    assert_eq!(standing(&bench, &landing).count(), 2);
    let published = destination.publish_with(&Publishing { refused_max: Some(2), held_back: 0 }).unwrap();
    assert_eq!((published.rows, published.quarantined), (1, 2));
    let mut refused: Vec<_> = destination.refused().unwrap().into_iter().map(|row| row.key).collect();
    refused.sort();
    assert_eq!(refused, ["1", "2"]);
}

pub(crate) fn a_dry_run_tells_and_changes_nothing<B: Bench>() {
    let bench = B::new();
    let contract = small();
    let landing = landing(1, Write::Append, &contract);
    let before = bench.destination(&landing).unwrap().dry_run().unwrap();
    assert!(before.iter().any(|line| line.to_lowercase().contains("create")), "{before:?}");
    assert_eq!(bench.destination(&landing).unwrap().published().unwrap(), None);
    land(&bench, &landing, people(&contract, &[(1, "王", 1)]));
    let after = bench.destination(&super::landing(2, Write::Append, &contract)).unwrap().dry_run().unwrap();
    assert!(after.len() >= 2 && after != before, "{after:?}");
    assert_eq!(standing(&bench, &landing).count(), 1);
}

pub(crate) fn an_older_copy_of_the_node_is_fenced<B: Bench>() {
    let bench = B::new();
    let contract = small();
    let mut newer = landing(1, Write::Append, &contract);
    newer.node_epoch = 5;
    let mut destination = bench.destination(&newer).unwrap();
    destination.prepare().unwrap();
    destination.stage("a", [1; 32], &mut [Ok(people(&contract, &[(1, "王", 1)]))].into_iter()).unwrap();
    let mut older = bench.destination(&Landing { node_epoch: 4, ..newer.clone() }).unwrap();
    let rows = || [Ok(people(&contract, &[(2, "李", 1)]))].into_iter();
    let fenced = older.prepare().and_then(|()| older.stage("b", [2; 32], &mut rows()).map(drop));
    assert_eq!(fenced.unwrap_err().code, Code::Fenced);
    destination.stage("b", [2; 32], &mut rows()).unwrap();
    assert_eq!(destination.publish().unwrap().rows, 2);
}

pub(crate) fn tables_of_any_shape_land_as_they_are<B: Bench>() {
    for seed in 0..40 {
        let random = &mut super::random::Random(seed);
        let contract = super::random::contract(random);
        let rows = super::random::rows(&contract, 1 + seed as usize * 7, random);
        let expected = digest(&contract, std::slice::from_ref(&rows));
        let bench = B::new();
        let landing = landing(seed as u8, Write::Append, &contract);
        let published = land(&bench, &landing, rows.clone());
        assert_eq!((published.rows, published.quarantined), (expected.count, 0), "seed {seed}");
        let back = standing(&bench, &landing);
        assert_eq!((back.digest(&contract), back.bad), (expected, vec![]), "seed {seed}");
        let Some(mut source) = bench.source(&spec(&landing.table)) else { continue };
        // What was read from one place lands in another, and reads from there as the same.
        let (plan, read) = read_all(source.as_mut(), &Read::default());
        let other = B::new();
        let mut destination =
            other.destination(&Landing { contract: plan.contract.clone(), ..landing.clone() }).unwrap();
        destination.prepare().unwrap();
        destination.stage("a", [1; 32], &mut read.batches.into_iter().map(Ok)).unwrap();
        destination.publish().unwrap();
        drop(destination);
        assert_eq!(standing(&other, &landing).digest(&contract), expected, "seed {seed}");
    }
}

/// A column of every type, with nulls everywhere but in the key.
fn every_type() -> Contract {
    let mut id = item("id", ContractType::Integer);
    id.nullable = false;
    let mut items = vec![id];
    items.extend([
        item("flag", ContractType::Boolean),
        item("number", ContractType::Integer),
        item("amount", ContractType::Decimal { precision: 15, scale: 4 }),
        item("exact", ContractType::Decimal { precision: 38, scale: 10 }),
        item("ratio", ContractType::Float),
        item("姓名 \"name\"", ContractType::Text),
        item("code", ContractType::Char),
        item("photo", ContractType::Bytes),
        item("born", ContractType::Date),
        item("seen", ContractType::Timestamp),
        item("extra", ContractType::Json),
        item("measure", ContractType::Number),
    ]);
    Contract { items, key: vec!["id".to_owned()] }
}

fn extremes(contract: &Contract, with_nul: bool, with_infinities: bool) -> RecordBatch {
    let nines = |digits: u32| 10i128.pow(digits) - 1;
    let long = "長".repeat(40_000);
    let date = |text| Value::Date(types::parse_date(text).unwrap());
    let time = |text| Value::Timestamp(types::parse_timestamp(text).unwrap());
    let digits = format!("-{}.{}1", "9".repeat(1_000), "0".repeat(300));
    let mut columns: [Vec<Value<'_>>; 12] = [
        vec![Value::Boolean(true), Value::Boolean(false)],
        vec![Value::Integer(i64::MIN), Value::Integer(i64::MAX), Value::Integer(0), Value::Integer(-1)],
        [nines(15), -nines(15), 1, -12_500, 0].map(|unscaled| Value::Decimal(unscaled, 4)).to_vec(),
        [nines(38), -nines(38), 1, -10i128.pow(30), 0].map(|unscaled| Value::Decimal(unscaled, 10)).to_vec(),
        [f64::MAX, f64::MIN, f64::MIN_POSITIVE, 5e-324, -0.0, 0.1, f64::INFINITY, f64::NEG_INFINITY]
            .map(Value::Float)
            .to_vec(),
        [
            "",
            " ",
            "𠮷田 䶮 㛃 𫍯",
            "it's \"quoted\"; --",
            if with_nul { "a\0b" } else { "a\u{1}b" },
            "line\r\nbreak\ttab",
            "NULL",
            "e\u{301}",
            long.as_str(),
        ]
        .map(Value::Text)
        .to_vec(),
        ["", "610101", "ab  "].map(Value::Text).to_vec(),
        [&b""[..], &[0, 255, 128, 10], "字".as_bytes()].map(Value::Bytes).to_vec(),
        [date("0001-01-01"), date("9999-12-31"), date("1969-12-31"), date("2000-02-29"), date("infinity")].to_vec(),
        [
            time("0001-01-01 00:00:00"),
            time("9999-12-31 23:59:59.999999"),
            time("1969-12-31 23:59:59.999999"),
            time("2026-11-22 05:09:25.123"),
            time("-infinity"),
        ]
        .to_vec(),
        ["{}", "null", "[1,\"二\",{\"x\":1.50}]", "\"text\"", "12345678901234567890.5", "1e300", "7"]
            .map(Value::Text)
            .to_vec(),
        ["0", "-12.5", "1000000", digits.as_str(), "NaN", "Infinity", "-Infinity"].map(Value::Number).to_vec(),
    ];
    if !with_infinities {
        let is_finite = |value: &Value<'_>| match value {
            Value::Float(value) => value.is_finite(),
            Value::Date(days) => ![i32::MIN, i32::MAX].contains(days),
            Value::Timestamp(us) => ![i64::MIN, i64::MAX].contains(us),
            _ => true,
        };
        columns.iter_mut().for_each(|column| column.retain(is_finite));
    }
    let mut builder = BatchBuilder::new(contract);
    let height = columns.iter().map(Vec::len).max().unwrap();
    for row in 0..height {
        let mut values = vec![Value::Integer(if row == 0 { i64::MIN } else { row as i64 })];
        values.extend(columns.iter().map(|column| column.get(row).copied().unwrap_or(Value::Null)));
        builder.push(&values).unwrap();
    }
    builder.finish().unwrap()
}
