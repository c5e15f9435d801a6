//! Each rule on its own and together; what they leave alone; forms of dates there and back.

use super::dates::FormError;
use super::*;
use crate::batch::date_of;
use proptest::prelude::*;

fn item(name: &str, r#type: ContractType, nullable: bool) -> Item {
    Item { name: name.to_owned(), r#type, nullable, comment: None }
}

/// A key of text, a text, a char, a text of dates, a number of dates, a float.
fn contract() -> Contract {
    use ContractType::*;
    let items = vec![
        item("id", Text, false),
        item("name", Text, false),
        item("code", Char, false),
        item("born", Text, false),
        item("day", Integer, true),
        item("share", Float, true),
    ];
    Contract { items, key: vec!["id".to_owned()] }
}

#[test]
fn what_a_row_of_a_front_end_table_does_is_no_text_of_its_source() {
    let mut contract = contract();
    contract.items.push(operation::item());
    let dialect = Dialect { empty_null: true, trim: true, ..Dialect::default() };
    let (ruled, _) = dialect.plan(&contract, None, true).unwrap();
    assert!(ruled.items.iter().any(|item| item.name == "name" && item.nullable));
    assert!(operation::landed(&ruled, operation::COLUMN).is_some(), "{ruled:?}");
}

fn row<'a>(id: &'a str, name: &'a str, code: &'a str, born: &'a str, day: Value<'a>) -> Vec<Value<'a>> {
    vec![Value::Text(id), Value::Text(name), Value::Text(code), Value::Text(born), day, Value::Float(f64::NAN)]
}

fn apply(dialect: &Dialect, contract: &Contract, rows: &[Vec<Value<'_>>]) -> (Contract, Ruled) {
    let mut builder = BatchBuilder::new(contract);
    rows.iter().for_each(|row| builder.push(row).unwrap());
    let batch = Batch::new(contract, builder.finish().unwrap()).unwrap();
    let (ruled, mut ruler) = dialect.plan(contract, None, true).unwrap();
    let done = ruler.apply(&batch).unwrap();
    (ruled, done)
}

fn json(contract: &Contract, ruled: &Ruled) -> Vec<String> {
    let batch = Batch::new(contract, ruled.record.clone()).unwrap();
    (0..batch.rows()).map(|row| batch.json(row)).collect()
}

fn nullable(contract: &Contract) -> Vec<&str> {
    contract.items.iter().filter(|item| item.nullable).map(|item| item.name.as_str()).collect()
}

fn dates(pairs: &[(&str, &str)]) -> BTreeMap<String, Form> {
    pairs.iter().map(|(name, form)| ((*name).to_owned(), form.parse().unwrap())).collect()
}

fn said(column: Option<&str>, what: &str) -> Governed {
    Governed { column: column.map(str::to_owned), what: what.to_owned() }
}

#[test]
fn what_is_asked_for_is_what_was_meant_and_nothing_else() {
    let form = dates(&[("born", "yyyy年M月d日"), ("day", "yyyyMMdd")]);
    let all = Dialect { empty_null: true, trim: true, zero_dates_null: true, dates: form, ..Dialect::default() };
    assert_eq!(Dialect::asked(&all.governed()), Ok(all));
    assert_eq!(Dialect::asked(&[]), Ok(Dialect::default()));
    let none = [
        said(None, "upper"),
        said(Some("born"), "empty = null"),
        said(None, "dates = yyyyMMdd"),
        said(Some("born"), "dates = YYYY"),
        said(Some("born"), "keep 3+4"),
    ];
    for rule in none {
        assert_eq!(Dialect::asked(&[said(None, "blanks = trim"), rule.clone()]), Err(rule));
    }
    // What is said twice may be said in two ways.
    for (first, second) in [("dates = yyyyMMdd", "dates = ddMMyyyy"), ("dates = yyyyMMdd", "dates = yyyyMMdd")] {
        let twice = [said(Some("born"), first), said(Some("born"), second)];
        assert_eq!(Dialect::asked(&twice), Err(twice[1].clone()));
    }
    assert!(Dialect::asked(&[said(None, "blanks = trim"), said(None, "blanks = trim")]).is_err());
}

#[test]
fn without_rules_nothing_changes() {
    let rows = [row("a ", "", "  ", "x ", Value::Null)];
    let (ruled, done) = apply(&Dialect::default(), &contract(), &rows);
    assert!(!Dialect::default().changes_values() && Dialect::default().governed().is_empty());
    assert_eq!((ruled.sha256(), done.changed(), done.bad.len()), (contract().sha256(), 0, 0));
    assert_eq!(json(&ruled, &done), [r#"{"id":"a ","name":"","code":"  ","born":"x ","day":null,"share":"NaN"}"#]);
}

#[test]
fn an_empty_text_becomes_null_but_not_one_of_blanks_and_not_a_key() {
    let dialect = Dialect { empty_null: true, ..Dialect::default() };
    let rows = [row("", "", "", "", Value::Integer(0)), row("b", "  ", "  ", "x", Value::Null)];
    let (ruled, done) = apply(&dialect, &contract(), &rows);
    assert_eq!(nullable(&ruled), ["name", "code", "born", "day", "share"]);
    assert_eq!(
        json(&ruled, &done),
        [
            r#"{"id":"","name":null,"code":null,"born":null,"day":0,"share":"NaN"}"#,
            // Blanks of a char are its padding.
            r#"{"id":"b","name":"  ","code":null,"born":"x","day":null,"share":"NaN"}"#,
        ]
    );
    assert_eq!(done.changed(), 4);
    assert_eq!(dialect.governed(), [said(None, "empty = null")]);
}

#[test]
fn blanks_at_the_end_go_and_others_stay() {
    let dialect = Dialect { trim: true, ..Dialect::default() };
    let rows = [row("a  ", " 王 二 ", "x  ", "\t ", Value::Null), row("b", "　", "x", "y", Value::Null)];
    let (ruled, done) = apply(&dialect, &contract(), &rows);
    assert_eq!(ruled, contract());
    assert_eq!(
        json(&ruled, &done),
        [
            r#"{"id":"a  ","name":" 王 二","code":"x","born":"\t","day":null,"share":"NaN"}"#,
            r#"{"id":"b","name":"　","code":"x","born":"y","day":null,"share":"NaN"}"#,
        ]
    );
    assert_eq!(done.changed(), 3);
}

#[test]
fn blanks_go_before_emptiness_is_looked_at() {
    let dialect = Dialect { trim: true, empty_null: true, ..Dialect::default() };
    let (ruled, done) = apply(&dialect, &contract(), &[row("a", "   ", "x", " y", Value::Null)]);
    assert_eq!(json(&ruled, &done), [r#"{"id":"a","name":null,"code":"x","born":" y","day":null,"share":"NaN"}"#]);
}

#[test]
fn texts_and_numbers_that_are_dates_become_dates_and_others_bad_rows() {
    let dialect =
        Dialect { dates: dates(&[("born", "yyyy-MM-dd HH:mm:ss"), ("day", "yyyyMMdd")]), ..Dialect::default() };
    let rows = [
        row("a", "", "", "2024-02-29 08:00:01", Value::Integer(20_240_229)),
        row("b", "", "", "2024-02-30 08:00:01", Value::Integer(20_240_229)),
        row("c", "", "", "2024-02-29", Value::Null),
        row("d", "", "", "2024-02-29 08:00:01  ", Value::Null),
        row("e", "", "", "2024-02-29 08:00:01", Value::Integer(229)),
        row("f", "", "", "", Value::Null),
        row("g", "", "", "0000-00-00 00:00:00", Value::Null),
        row("h", "", "", "2024-02-29 08:00:01", Value::Integer(-1)),
    ];
    let (ruled, done) = apply(&dialect, &contract(), &rows);
    assert_eq!(ruled.items[3].r#type, ContractType::Timestamp);
    assert_eq!(ruled.items[4].r#type, ContractType::Date);
    assert_eq!(nullable(&ruled), ["day", "share"]);
    assert_eq!(
        json(&ruled, &done),
        [
            r#"{"id":"a","name":"","code":"","born":"2024-02-29T08:00:01Z","day":"2024-02-29","share":"NaN"}"#,
            r#"{"id":"d","name":"","code":"","born":"2024-02-29T08:00:01Z","day":null,"share":"NaN"}"#,
        ]
    );
    let numbers: Vec<usize> = done.bad.iter().map(|(row, _)| *row).collect();
    assert_eq!(numbers, [1, 2, 4, 5, 6, 7]);
    let why: Vec<&str> = done.bad.iter().map(|(_, why)| why.as_str()).collect();
    assert_eq!(why[0], "`born`: it is written as 2024-02-30 08:00:01, and there is no such day or time");
    assert_eq!(why[1], "`born`: it is no date of the form yyyy-MM-dd HH:mm:ss");
    assert_eq!(why[2], "`day`: it is written as 00000229, and there is no such day or time");
    assert_eq!(why[4], "`born`: it is a date of zeros");
    assert_eq!(done.changed(), 3);
    assert_eq!(dialect.governed()[1], said(Some("day"), "dates = yyyyMMdd"));
}

#[test]
fn dates_of_zeros_and_empty_texts_are_null_where_the_rules_say_so() {
    let form = dates(&[("born", "yyyyMMdd"), ("day", "yyyyMMdd")]);
    let dialect = Dialect { zero_dates_null: true, empty_null: true, dates: form, ..Dialect::default() };
    let rows = [
        row("a", "x", "x", "00000000", Value::Integer(0)),
        row("b", "x", "x", "", Value::Null),
        row("c", "x", "x", "20240001", Value::Null),
    ];
    let (ruled, done) = apply(&dialect, &contract(), &rows);
    assert_eq!(nullable(&ruled), ["name", "code", "born", "day", "share"]);
    assert_eq!(
        json(&ruled, &done),
        [
            r#"{"id":"a","name":"x","code":"x","born":null,"day":null,"share":"NaN"}"#,
            r#"{"id":"b","name":"x","code":"x","born":null,"day":null,"share":"NaN"}"#,
        ]
    );
    assert_eq!((done.changed(), done.bad.len()), (3, 1));
}

#[test]
fn a_key_of_dates_is_read_and_never_becomes_null() {
    let dialect =
        Dialect { zero_dates_null: true, empty_null: true, dates: dates(&[("id", "yyyyMMdd")]), ..Dialect::default() };
    let rows = [row("20240229", "x", "x", "x", Value::Null), row("00000000", "x", "x", "x", Value::Null)];
    let (ruled, done) = apply(&dialect, &contract(), &rows);
    assert!(!ruled.items[0].nullable);
    assert_eq!(done.record.num_rows(), 1);
    assert_eq!(done.bad, [(1, "`id`: it is a date of zeros".to_owned())]);
}

#[test]
fn the_watermark_keeps_its_values_and_what_is_no_text_is_refused_before_anything_moves() {
    let refused = |dialect: &Dialect, watermark: Option<&str>| dialect.plan(&contract(), watermark, true).err();
    let of = |name: &str| Dialect { dates: dates(&[(name, "yyyyMMdd")]), ..Dialect::default() };
    assert_eq!(refused(&of("born"), None), None);
    for (name, watermark) in [("born", Some("born")), ("share", None), ("nothing", None)] {
        assert_eq!(refused(&of(name), watermark).unwrap().code, Code::TypeUnsupported, "{name}");
    }
    let spelled = Dialect { dates: dates(&[("day", "yyyy-MM-dd")]), ..Dialect::default() };
    assert!(refused(&spelled, None).is_some(), "a number has no dashes");
    // A grant may hide a column that the rules name.
    assert!(of("nothing").plan(&contract(), None, false).is_ok());
    let dialect = Dialect { trim: true, empty_null: true, ..Dialect::default() };
    let (ruled, _) = dialect.plan(&contract(), Some("name"), true).unwrap();
    assert_eq!(nullable(&ruled), ["code", "born", "day", "share"]);
}

#[test]
fn forms_are_those_that_can_be_read_in_one_way() {
    for (form, text) in [
        ("yyyyMMdd", "20240229"),
        ("yyyy-MM-dd", "2024-02-29"),
        ("yyyy/M/d", "2024/2/29"),
        ("yyyy年MM月dd日", "2024年02月29日"),
        ("yyyy年M月d日", "2024年2月29日"),
        ("dd.MM.yyyy", "29.02.2024"),
    ] {
        let read = form.parse::<Form>().unwrap().read(text);
        assert_eq!(read, Ok(Dated::Date(19_782)), "{form}");
    }
    for (form, text) in [
        ("yyyyMMddHHmmss", "20240229080001"),
        ("yyyy-MM-dd HH:mm:ss", "2024-02-29 08:00:01"),
        ("yyyy-MM-ddTHH:mm:ss.SSS", "2024-02-29T08:00:01.000"),
        ("yyyy/M/d H:mm:ss", "2024/2/29 8:00:01"),
    ] {
        assert_eq!(form.parse::<Form>().unwrap().read(text), Ok(Dated::Time(1_709_193_601_000_000)), "{form}");
    }
    let fraction = "yyyyMMddHHmmssSSS".parse::<Form>().unwrap();
    assert_eq!(fraction.read("19700101000000250"), Ok(Dated::Time(250_000)));
    for (form, error) in [
        ("YYYYMMDD", FormError::Unknown("YYYY".to_owned())),
        ("yyyyMM", FormError::Incomplete),
        ("yyyyMMdd HH", FormError::Incomplete),
        ("yyyyMMdd ss", FormError::Incomplete),
        ("yyyyMMddyyyy", FormError::Twice),
        ("yyyyMd", FormError::Open),
        ("MMM d, yyyy", FormError::Unknown("MMM".to_owned())),
        ("", FormError::Incomplete),
    ] {
        assert_eq!(form.parse::<Form>(), Err(error), "{form}");
    }
    assert_eq!("-".repeat(65).parse::<Form>(), Err(FormError::TooLong));
}

proptest! {
    /// Every day of the calendar reads back from each form, and no other text of digits does.
    #[test]
    fn days_read_back_from_their_forms(days in -719_162i32..2_932_896, which in 0usize..4) {
        let date = date_of(days).unwrap();
        let (year, month, day) = (date.year(), date.month(), date.day());
        let (form, text) = match which {
            0 => ("yyyyMMdd", format!("{year:04}{month:02}{day:02}")),
            1 => ("yyyy-MM-dd", format!("{year:04}-{month:02}-{day:02}")),
            2 => ("yyyy年M月d日", format!("{year:04}年{month}月{day}日")),
            _ => ("d/M/yyyy", format!("{day}/{month}/{year:04}")),
        };
        let form: Form = form.parse().unwrap();
        prop_assert_eq!(form.read(&text), Ok(Dated::Date(days)));
        let further = form.read(&format!("{text}0"));
        prop_assert!(matches!(further, Err(Unread::Form(_))), "{:?}", further);
    }

    #[test]
    fn any_text_is_read_or_refused(text in any::<String>(), form in "[yMdHmsST:/ -]{0,20}") {
        if let Ok(form) = form.parse::<Form>() {
            let _ = (form.read(&text), form.read_number(&text));
        }
    }
}

#[test]
fn an_items_type_is_filled_exactly_after_the_other_rules() {
    use ContractType::*;
    let items = [("name", "C(2)"), ("born", "T"), ("day", "N(8,2)")];
    let dialect = Dialect {
        trim: true,
        dates: dates(&[("born", "yyyyMMdd")]),
        items: items.map(|(name, item)| (name.to_owned(), item.parse().unwrap())).into(),
        ..Dialect::default()
    };
    let rows = [
        // What the blanks at its end make too long is not, once they are gone.
        row("a", "王二  ", "x", "19700102", Value::Integer(7)),
        row("b", "王二三", "x", "19700102", Value::Integer(7)),
        row("c", "王", "x", "19700102", Value::Integer(1_000_000)),
        row("d", "王", "x", "19700103", Value::Null),
    ];
    let (ruled, done) = apply(&dialect, &contract(), &rows);
    let types: Vec<ContractType> = ruled.items.iter().map(|item| item.r#type).collect();
    assert_eq!(types, [Text, Text, Char, Timestamp, Decimal { precision: 8, scale: 2 }, Float]);
    assert_eq!(
        json(&ruled, &done),
        [
            r#"{"id":"a","name":"王二","code":"x","born":"1970-01-02T00:00:00Z","day":7.00,"share":"NaN"}"#,
            r#"{"id":"d","name":"王","code":"x","born":"1970-01-03T00:00:00Z","day":null,"share":"NaN"}"#,
        ]
    );
    let bad: Vec<(usize, &str)> = done.bad.iter().map(|(row, why)| (*row, why.as_str())).collect();
    assert_eq!(
        bad,
        [
            (1, "`name`: it has no place in C(2), as its item is declared"),
            (2, "`day`: it has no place in N(8,2), as its item is declared"),
        ]
    );
    // A trimmed name and two dates; that a number is a decimal now changes nothing.
    assert_eq!(done.changed(), 1 + 2);
    let named = [said(None, "blanks = trim"), said(Some("born"), "dates = yyyyMMdd"), said(None, "items = 3 declared")];
    assert_eq!(dialect.governed(), named);
    // A catalogue is the resource's: nobody asks for it.
    assert_eq!(Dialect::asked(&named), Err(named[2].clone()));
}

#[test]
fn a_column_that_cannot_fill_its_item_is_refused_by_name_before_a_row_is_read() {
    let with = |name: &str, item: &str, mark: Option<&str>, whole: bool| {
        let items = [(name.to_owned(), item.parse().unwrap())].into();
        Dialect { items, ..Dialect::default() }.plan(&contract(), mark, whole).map(|(contract, _)| contract)
    };
    for (name, item) in [("share", "N(18,2)"), ("name", "D"), ("name", "N"), ("day", "G"), ("absent", "C")] {
        let refused = with(name, item, None, true).unwrap_err();
        assert_eq!(refused.code, Code::TypeUnsupported);
        assert!(format!("{:?}", refused.facts).contains(name), "{refused}");
    }
    // Of a part of its columns nothing is known of the others.
    assert!(with("absent", "C", None, false).is_ok());
    // A mark keeps its type, and may be as short as it is declared.
    assert!(with("day", "N(8)", Some("day"), true).unwrap_err().cause.contains("watermark"));
    assert_eq!(with("day", "I", Some("day"), true).unwrap(), contract());
    // A key may be of another type, for no two values become one.
    assert_eq!(with("id", "C(3)", None, true).unwrap().key, ["id"]);
}
