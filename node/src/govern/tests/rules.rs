//! Rules of a resource on a table whose program wrote GBK, dates as text, and zeros for no date.

use super::*;
use posthouse_protocol::digest::{Digester, RowDigest};
use posthouse_protocol::govern::Dialect;
use posthouse_protocol::schema::ContractType;

/// 王, 李 and 张 in GBK; a name that is none.
const TABLE: &str =
    "CREATE TABLE p (id INTEGER PRIMARY KEY, xm TEXT, rq TEXT, day INTEGER, seen DATETIME NOT NULL, note TEXT);
    INSERT INTO p VALUES
      (1, CAST(x'cdf52020' AS TEXT), '20240229', 20240229, '0000-00-00 00:00:00', ''),
      (2, CAST(x'c0ee' AS TEXT), '20240230', 20240229, '2024-01-01 00:00:00', 'x'),
      (3, CAST(x'd5c5' AS TEXT), '', 0, '2024-01-01 00:00:00', 'y'),
      (4, CAST(x'cdf5ff' AS TEXT), '20240229', 1, '2024-01-01 00:00:00', 'z'),
      (5, '', '00000000', NULL, '2024-01-01 00:00:00', '  ');";

fn scene() -> Scene {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.db");
    rusqlite::Connection::open(&path).unwrap().execute_batch(TABLE).unwrap();
    let path = path.to_str().unwrap().to_owned();
    let settings = Settings::from([("path".to_owned(), path.into()), ("charset".to_owned(), "gbk".into())]);
    let connection = registry::find("sqlite").unwrap().connect("db", &settings).unwrap();
    Scene { _folder: folder, connection }
}

fn table() -> TableSpec {
    TableSpec {
        table: Some("p".to_owned()),
        query: None,
        key: vec!["id".to_owned()],
        watermark: None,
        late_ms: 0,
        resource: "police.example/p".to_owned(),
    }
}

fn begin(scene: &mut Scene, governing: Governing) -> Result<(Governor, Plan), Problem> {
    begin_with(scene, Orders { governing, ..Orders::default() })
}

fn begin_with(scene: &mut Scene, orders: Orders) -> Result<(Governor, Plan), Problem> {
    let source = scene.connection.source(&table()).unwrap();
    Governor::begin(source, &table(), &Read::default(), &orders)
}

fn all_rules() -> Dialect {
    let dates = [("rq", "yyyyMMdd"), ("day", "yyyyMMdd")];
    Dialect {
        empty_null: true,
        trim: true,
        zero_dates_null: true,
        dates: dates.map(|(name, form)| (name.to_owned(), form.parse().unwrap())).into(),
        ..Dialect::default()
    }
}

fn json(got: &Got, contract: &Contract) -> Vec<String> {
    let batches = got.batches.iter().map(|batch| Batch::new(contract, batch.clone()).unwrap());
    batches.flat_map(|batch| (0..batch.rows()).map(|row| batch.json(row)).collect::<Vec<_>>()).collect()
}

/// With the counts of the one split.
fn read_all(governor: &mut Governor, plan: &Plan) -> (Got, SplitCounts) {
    let mut got = Got::default();
    assert_eq!(plan.splits.len(), 1);
    let counts = governor.read(&plan.splits[0], &mut got).unwrap();
    assert_eq!(counts.read, counts.sent + counts.quarantined);
    assert_eq!(counts.quarantined, got.bad.len() as u64);
    (got, counts)
}

#[test]
fn without_rules_what_is_no_date_is_a_bad_row_and_nothing_is_counted_as_changed() {
    let mut scene = scene();
    let (mut governor, plan) = begin(&mut scene, Governing::default()).unwrap();
    let (got, counts) = read_all(&mut governor, &plan);
    assert_eq!((counts.sent, counts.quarantined, counts.changed), (3, 2, None));
    assert_eq!(
        json(&got, &plan.contract)[0],
        r#"{"id":2,"xm":"李","rq":"20240230","day":20240229,"seen":"2024-01-01T00:00:00Z","note":"x"}"#
    );
    assert!(got.bad[0].reason.contains("`seen`") && got.bad[0].original.contains(r#""xm":"王  ""#), "{:?}", got.bad[0]);
    assert!(got.bad[1].original.contains(r#""xm":{"hex":"cdf5ff"}"#), "{:?}", got.bad[1]);
    assert_eq!(governor.governed(), None);
}

#[test]
fn rules_act_before_anything_is_handed_over_and_are_counted_and_named() {
    let mut scene = scene();
    let governing = Governing { dialect: all_rules(), ..Governing::default() };
    let (mut governor, plan) = begin(&mut scene, governing).unwrap();
    let types: Vec<_> = plan.contract.items.iter().map(|item| (item.r#type, item.nullable)).collect();
    use ContractType::*;
    assert_eq!(types, [(Integer, false), (Text, true), (Date, true), (Date, true), (Timestamp, true), (Text, true)]);
    let (got, counts) = read_all(&mut governor, &plan);
    assert_eq!(
        json(&got, &plan.contract),
        [
            r#"{"id":1,"xm":"王","rq":"2024-02-29","day":"2024-02-29","seen":null,"note":null}"#,
            r#"{"id":3,"xm":"张","rq":null,"day":null,"seen":"2024-01-01T00:00:00Z","note":"y"}"#,
            r#"{"id":5,"xm":null,"rq":null,"day":null,"seen":"2024-01-01T00:00:00Z","note":null}"#,
        ]
    );
    // The date of zeros that the connector read, and what the rules changed of rows 1, 3 and 5.
    assert_eq!(counts.changed, Some(1 + 4 + 2 + 3));
    let mut bad: Vec<_> = got.bad.iter().map(|bad| (bad.key.as_str(), bad.reason.as_str())).collect();
    bad.sort_unstable();
    assert_eq!(bad[0], ("2", "`rq`: it is written as 20240230, and there is no such day or time"));
    assert_eq!((bad[1].0, bad.len()), ("4", 2));
    let original = &got.bad.iter().find(|bad| bad.key == "2").unwrap().original;
    assert!(original.contains(r#""rq":"20240230","day":20240229"#), "as the source has it: {original}");
    let named: Vec<_> = governor.governed().unwrap().into_iter().map(|one| (one.column, one.what)).collect();
    let of = |column: Option<&str>, what: &str| (column.map(str::to_owned), what.to_owned());
    assert_eq!(
        named,
        [
            of(None, "empty = null"),
            of(None, "blanks = trim"),
            of(None, "zero_dates = null"),
            of(Some("day"), "dates = yyyyMMdd"),
            of(Some("rq"), "dates = yyyyMMdd"),
        ]
    );
}

#[test]
fn a_deep_reconciliation_reads_what_was_handed_over() {
    let mut scene = scene();
    let governing = || Governing { dialect: all_rules(), ..Governing::default() };
    let mut digest = || {
        let (mut governor, plan) = begin(&mut scene, governing()).unwrap();
        let (got, _) = read_all(&mut governor, &plan);
        let (mut digester, mut digest) = (Digester::new([7; 32]), RowDigest::default());
        for batch in got.batches {
            digester.rows(&Batch::new(&plan.contract, batch).unwrap(), &mut digest).unwrap();
        }
        digest
    };
    assert_eq!(digest(), digest());
}

#[test]
fn rules_come_before_checks_masks_and_names() {
    let mut scene = scene();
    let governing = Governing {
        columns: Some(["id", "xm", "rq", "note"].map(str::to_owned).to_vec()),
        rename: [("rq".to_owned(), "issued".to_owned())].into(),
        masks: [("xm".to_owned(), Mask::Keep(1, 0))].into(),
        checks: vec![Check { column: "xm".to_owned(), rules: vec![Rule::Required], severity: Severity::Quarantine }],
        dialect: Dialect { dates: [("rq".to_owned(), "yyyyMMdd".parse().unwrap())].into(), ..all_rules() },
    };
    let (mut governor, plan) = begin(&mut scene, governing).unwrap();
    let (got, counts) = read_all(&mut governor, &plan);
    assert_eq!(
        json(&got, &plan.contract),
        [r#"{"id":1,"xm":"*","issued":"2024-02-29","note":null}"#, r#"{"id":3,"xm":"*","issued":null,"note":"y"}"#,],
        "a name of one character is not shown at all"
    );
    // Row 5 has no name: its text was empty.
    assert_eq!(got.bad.iter().filter(|bad| bad.key == "5").count(), 1);
    assert_eq!((counts.sent, counts.quarantined), (2, 3));
    // Of rows 1 and 3: what was changed of a row that is held back is none.
    assert_eq!(counts.changed, Some(3 + 1));
    assert!(governor.governed().unwrap().iter().any(|one| one.column.as_deref() == Some("issued")));
}

#[test]
fn what_a_taker_asks_for_is_done_to_what_it_would_get_anyway() {
    let mut scene = scene();
    let rule = |column: Option<&str>, what: &str| Governed { column: column.map(str::to_owned), what: what.to_owned() };
    let governing = Governing {
        columns: Some(["id", "xm", "rq", "note"].map(str::to_owned).to_vec()),
        rename: [("rq".to_owned(), "issued".to_owned())].into(),
        masks: [("xm".to_owned(), Mask::Constant("  ".to_owned()))].into(),
        ..Governing::default()
    };
    let orders = |rules: &[Governed]| {
        Orders { governing: governing.clone(), ..Orders::default() }.wishing(Some(rules), &"police.example/p")
    };
    let wishes = [rule(None, "empty = null"), rule(None, "blanks = trim"), rule(Some("issued"), "dates = yyyyMMdd")];
    let (mut governor, plan) = begin_with(&mut scene, orders(&wishes).unwrap()).unwrap();
    let (got, counts) = read_all(&mut governor, &plan);
    assert_eq!(
        json(&got, &plan.contract),
        [r#"{"id":1,"xm":null,"issued":"2024-02-29","note":null}"#, r#"{"id":3,"xm":null,"issued":null,"note":"y"}"#,]
    );
    // Neither a day that is none, nor a text that is none, nor a date of zeros that nobody said is NULL.
    let bad: Vec<&str> = got.bad.iter().map(|bad| bad.key.as_str()).collect();
    assert_eq!((bad.len(), counts.quarantined), (3, 3), "{bad:?}");
    assert_eq!(counts.changed, Some(3 + 2));
    // By what it gets, and not by what the mask hides.
    let original = &got.bad.iter().find(|bad| bad.key == "2").unwrap().original;
    assert!(original.contains(r#""xm":"  ""#), "{original}");
    let governed = governor.governed().unwrap();
    assert!(wishes.iter().all(|wish| governed.contains(wish)), "{governed:?}");
    // The source's own name is none that is offered.
    assert!(begin_with(&mut scene, orders(&[rule(Some("rq"), "dates = yyyyMMdd")]).unwrap()).is_err());
    assert_eq!(orders(&[rule(None, "upper")]).err().unwrap().code, Code::SourceFailed);
}

#[test]
fn a_rule_for_a_column_that_is_not_there_is_refused_before_anything_moves() {
    let mut scene = scene();
    let dialect = Dialect { dates: [("rqq".to_owned(), "yyyyMMdd".parse().unwrap())].into(), ..Dialect::default() };
    let refused = begin(&mut scene, Governing { dialect, ..Governing::default() }).err().unwrap();
    assert_eq!(refused.code, Code::TypeUnsupported);
    assert!(refused.to_string().contains("rqq"), "{refused}");
}

#[test]
fn items_as_a_catalogue_declares_them_are_what_is_handed_over() {
    let mut scene = scene();
    let declared = |items: &[(&str, &str)]| Dialect {
        items: items.iter().map(|(name, item)| ((*name).to_owned(), item.parse().unwrap())).collect(),
        ..Dialect::default()
    };
    let dialect = declared(&[("xm", "C(2)"), ("day", "N(8)"), ("id", "C(4)")]);
    let (mut governor, plan) = begin(&mut scene, Governing { dialect, ..Governing::default() }).unwrap();
    let types: Vec<_> = plan.contract.items.iter().map(|item| item.r#type).collect();
    use ContractType::*;
    assert_eq!(types, [Text, Text, Text, Decimal { precision: 8, scale: 0 }, Timestamp, Text]);
    let (got, counts) = read_all(&mut governor, &plan);
    assert_eq!(
        json(&got, &plan.contract),
        [
            r#"{"id":"2","xm":"李","rq":"20240230","day":20240229,"seen":"2024-01-01T00:00:00Z","note":"x"}"#,
            r#"{"id":"3","xm":"张","rq":"","day":0,"seen":"2024-01-01T00:00:00Z","note":"y"}"#,
            r#"{"id":"5","xm":"","rq":"00000000","day":null,"seen":"2024-01-01T00:00:00Z","note":"  "}"#,
        ]
    );
    // Rows 1 and 4 are none to the source itself.
    assert_eq!((counts.sent, counts.quarantined, counts.changed), (3, 2, Some(0)));
    let governed = governor.governed().unwrap();
    assert_eq!(governed, [Governed { column: None, what: "items = 3 declared".to_owned() }]);
    let refused = begin(&mut scene, Governing { dialect: declared(&[("rq", "D")]), ..Governing::default() });
    let refused = refused.err().unwrap();
    assert!(refused.code == Code::TypeUnsupported && refused.to_string().contains("rq"), "{refused}");
}
