//! A table of persons in SQLite, read as a consumer gets it. What values mean is in [`rules`].

mod rules;

use super::*;
use posthouse_connectors::{Connection, Settings, registry};
use posthouse_protocol::batch::Batch;
use posthouse_protocol::filter::Filter;
use posthouse_protocol::govern::{Check, Mask, Rule, Severity};
use posthouse_protocol::schema::Contract;

struct Scene {
    // The file lives as long as it.
    _folder: tempfile::TempDir,
    connection: Box<dyn Connection>,
}

/// What a consumer would get, and what stays behind.
#[derive(Default)]
struct Got {
    batches: Vec<arrow::record_batch::RecordBatch>,
    bad: Vec<BadRow>,
}

impl Sink for Got {
    fn batch(&mut self, batch: arrow::record_batch::RecordBatch) -> Result<(), Problem> {
        self.batches.push(batch);
        Ok(())
    }
    fn bad_row(&mut self, row: BadRow) -> Result<(), Problem> {
        self.bad.push(row);
        Ok(())
    }
}

impl Got {
    fn rows(&self, contract: &Contract) -> Vec<Vec<String>> {
        let batches = self.batches.iter().map(|batch| Batch::new(contract, batch.clone()).unwrap());
        let row = |batch: &Batch, row| (0..contract.items.len()).map(|at| batch.value(at, row).to_string()).collect();
        batches.flat_map(|batch| (0..batch.rows()).map(|at| row(&batch, at)).collect::<Vec<_>>()).collect()
    }
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("persons.db");
        let database = rusqlite::Connection::open(&path).unwrap();
        database
            .execute_batch(
                "CREATE TABLE person (sfzh TEXT PRIMARY KEY NOT NULL, xm TEXT, phone TEXT, secret TEXT, district TEXT);
                 INSERT INTO person VALUES
                    ('11010519491231002X', '张三', '13812345678', 'a', '610102'),
                    ('440524188001010014', '李四', '13987654321', 'b', '610102'),
                    ('110105194912310021', '王五', '13700000000', 'c', '610102'),
                    ('110105491231002', NULL, NULL, 'd', '610103');",
            )
            .unwrap();
        let settings = Settings::from([("path".to_owned(), path.to_str().unwrap().into())]);
        let connection = registry::find("sqlite").unwrap().connect("db", &settings).unwrap();
        Self { _folder: folder, connection }
    }

    fn begin(&mut self, read: &Read, orders: &Orders) -> Result<(Governor, Plan), Problem> {
        let table = TableSpec {
            table: Some("person".to_owned()),
            query: None,
            key: vec!["sfzh".to_owned()],
            watermark: None,
            late_ms: 0,
            resource: "police.example/persons".to_owned(),
        };
        let source = self.connection.source(&table).unwrap();
        Governor::begin(source, &table, read, orders)
    }
}

fn orders(granted: &[&str]) -> Orders {
    let own = |text: &str| text.to_owned();
    let checks = vec![Check { column: own("sfzh"), rules: vec![Rule::IdCard], severity: Severity::Quarantine }];
    Orders {
        governing: Governing {
            columns: Some(["sfzh", "xm", "phone"].map(str::to_owned).to_vec()),
            rename: [("sfzh", "id_number"), ("xm", "name")].map(|(a, b)| (own(a), own(b))).into(),
            masks: [(own("sfzh"), "hmac-sm3".parse().unwrap()), (own("phone"), Mask::Keep(3, 4))].into(),
            checks,
            ..Governing::default()
        },
        key: MaskKey::new(b"0123456789abcdef".to_vec()),
        granted: granted.iter().map(|text| text.parse().unwrap()).collect(),
        wishes: Dialect::default(),
    }
}

fn read(columns: Option<&[&str]>, filter: Option<&str>) -> Read {
    Read {
        columns: columns.map(|columns| columns.iter().map(|column| (*column).to_owned()).collect()),
        filter: filter.map(|text| Filter::parse(text).unwrap()),
        ..Read::default()
    }
}

/// All splits, with their counts added up.
fn all(governor: &mut Governor, plan: &Plan) -> (Got, SplitCounts, Quality) {
    let (mut got, mut sum, mut quality) = (Got::default(), SplitCounts::default(), Quality::default());
    for split in &plan.splits {
        let counts = governor.read(split, &mut got).unwrap();
        sum.read += counts.read;
        sum.sent += counts.sent;
        sum.filtered += counts.filtered;
        sum.quarantined += counts.quarantined;
        quality.merge(&governor.take_quality().unwrap_or_default());
    }
    (got, sum, quality)
}

#[test]
fn a_consumer_gets_what_is_offered_as_it_is_offered() {
    let mut scene = Scene::new();
    let (mut governor, plan) = scene.begin(&read(None, None), &orders(&[])).unwrap();
    let names: Vec<&str> = plan.contract.items.iter().map(|item| item.name.as_str()).collect();
    assert_eq!((names, plan.contract.key.join(",")), (vec!["id_number", "name", "phone"], "id_number".to_owned()));
    let (got, counts, quality) = all(&mut governor, &plan);
    let mut rows = got.rows(&plan.contract);
    rows.sort_by(|a, b| a[1].cmp(&b[1]));
    let phones: Vec<&str> = rows.iter().map(|row| row[2].as_str()).collect();
    assert_eq!(phones, ["NULL", "138****5678", "139****4321"]);
    assert_eq!(rows[1][0], "82a850949bc4a2d1c04325d5aad941b2a131908feb5f09f3bbb0e18289f5662e");
    assert!(rows.iter().all(|row| row[0].len() == 64));
    assert_eq!((counts.read, counts.sent, counts.quarantined), (4, 3, 1));
    assert_eq!((quality.rows, quality.qualified, quality.failed[0].column.as_str()), (4, 3, "id_number"));
    // What stays behind is kept here as it was, for those who correct it.
    assert_eq!(got.bad[0].key, "110105194912310021");
    assert!(got.bad[0].original.contains("13700000000") && got.bad[0].reason.contains("check digit"));
    let governed = governor.governed().unwrap();
    assert!(governed.iter().any(|done| done.what.starts_with("hmac-sm3 key ")));
}

#[test]
fn a_grant_filters_by_what_was_there_and_cannot_reach_what_is_not_offered() {
    let mut scene = Scene::new();
    // The filter sees the whole number, and a column that is not offered at all; the consumer sees neither.
    let filter = "phone = '13812345678' AND id_number <> 'x' AND district = '610102'";
    let (mut governor, plan) = scene.begin(&read(Some(&["name", "phone"]), Some(filter)), &orders(&[])).unwrap();
    let (got, counts, _) = all(&mut governor, &plan);
    assert_eq!(got.rows(&plan.contract), [["张三", "138****5678"]]);
    // What the database itself leaves out is not read.
    assert_eq!((counts.read, counts.sent, counts.filtered), (1, 1, 0));
    for hidden in ["secret", "xm", "sfzh"] {
        let refused = scene.begin(&read(Some(&["name", hidden]), None), &orders(&[])).err().unwrap();
        assert!(refused.cause.contains(&format!("`{hidden}` is not offered")), "{refused}");
    }
}

#[test]
fn a_grant_masks_more_and_an_unknown_mask_moves_nothing() {
    let mut scene = Scene::new();
    let (mut governor, plan) = scene.begin(&read(None, None), &orders(&["name=keep:1:0", "phone=null"])).unwrap();
    let (got, ..) = all(&mut governor, &plan);
    let mut rows = got.rows(&plan.contract);
    rows.sort_by(|a, b| a[1].cmp(&b[1]));
    let shown: Vec<[&str; 2]> = rows.iter().map(|row| [row[1].as_str(), row[2].as_str()]).collect();
    assert_eq!(shown, [["NULL", "NULL"], ["张*", "NULL"], ["李*", "NULL"]]);
    for (mask, said) in [("xm=null", "is not offered"), ("id_number=keep:1:1", "belongs to the key")] {
        let refused = scene.begin(&read(None, None), &orders(&[mask])).err().unwrap();
        assert!(refused.cause.contains(said), "{refused}");
    }
}

#[test]
fn the_same_rows_give_the_same_bytes_again() {
    let mut scene = Scene::new();
    let mut once = || {
        let (mut governor, plan) = scene.begin(&read(None, None), &orders(&[])).unwrap();
        let (got, ..) = all(&mut governor, &plan);
        (got.rows(&plan.contract), plan.contract)
    };
    assert_eq!(once(), once());
    let nothing = scene.begin(&read(None, None), &Orders::default()).unwrap();
    assert!(nothing.0.governed().is_none());
    assert_eq!(nothing.1.contract.items.len(), 5);
}
