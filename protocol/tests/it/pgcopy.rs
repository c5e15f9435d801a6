//! Binary COPY against itself: in any slices a stream has the hashes of its batches, what is written reads back,
//! and no damage makes anything panic. What a real server says of it is asked in `postgres`.

use posthouse_protocol::batch::{Batch, BatchBuilder, Value};
use posthouse_protocol::digest::{Digester, RowHash};
use posthouse_protocol::pgcopy::decode::Decoded;
use posthouse_protocol::pgcopy::{
    BadRow, CopyError, Decoder, Encoder, HEADER, NativeType, RowHasher, Shape, Sifted, Sifter, TRAILER, Walker,
    complete_prefix, render,
};
use posthouse_protocol::schema::{Contract, Item};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_stream_has_the_hashes_of_its_batches_in_any_slices(seed: u64, rows in 0usize..40, slices in slices()) {
        let (shape, stream) = sample(seed, rows);
        let whole = walk(&shape, [stream.as_slice()].into_iter()).unwrap();
        prop_assert_eq!(whole.len(), rows);
        prop_assert_eq!(&walk(&shape, cut(&stream, &slices)).unwrap(), &whole);
        let (batches, bad) = decode(&shape, cut(&stream, &slices));
        prop_assert_eq!(bad, vec![]);
        let mut hashed = Vec::new();
        for batch in &batches {
            Digester::new(KEY).each(batch, |row| hashed.push((row.hash, row.bucket))).unwrap();
        }
        let walked: Vec<_> = whole.iter().map(|row| (row.hash, row.bucket)).collect();
        prop_assert_eq!(walked, hashed);
    }

    #[test]
    fn what_is_written_reads_back(seed: u64, rows in 1usize..40) {
        let (shape, stream) = sample(seed, rows);
        let (batches, _) = decode(&shape, [stream.as_slice()].into_iter());
        prop_assert_eq!(encode(&batches), stream);
    }

    #[test]
    fn whole_tuples_are_found_from_any_cut(seed: u64, rows in 0usize..20, cut in any::<prop::sample::Index>()) {
        let (shape, stream) = sample(seed, rows);
        let columns = NATIVES.len();
        let tuples = &stream[HEADER.len()..stream.len() - TRAILER.len()];
        prop_assert_eq!(complete_prefix(tuples, columns, u64::MAX), Ok((tuples.len(), rows as u64)));
        let (bytes, found) = complete_prefix(&tuples[..cut.index(tuples.len() + 1)], columns, u64::MAX).unwrap();
        prop_assert_eq!(complete_prefix(&stream[HEADER.len()..], columns, found), Ok((bytes, found)));
        // Split there, either part is a stream, and both have the rows of the whole.
        let parts = [&tuples[..bytes], &tuples[bytes..]].map(|part| [&HEADER[..], part, &TRAILER].concat());
        let apart: Vec<_> = parts.iter().flat_map(|part| walk(&shape, [part.as_slice()].into_iter()).unwrap()).map(|row| row.hash).collect();
        let whole: Vec<_> = walk(&shape, [stream.as_slice()].into_iter()).unwrap().iter().map(|row| row.hash).collect();
        prop_assert_eq!(apart, whole);
    }

    #[test]
    fn damage_is_an_error_or_other_rows_and_never_a_panic(seed: u64, at in any::<prop::sample::Index>(), to: u8, slices in slices()) {
        let (shape, mut stream) = sample(seed, 3);
        let at = at.index(stream.len());
        let _ = walk(&shape, cut(&stream[..at], &slices)).map(|_| panic!("a cut stream is whole"));
        stream[at] = to;
        let one = walk(&shape, [stream.as_slice()].into_iter());
        prop_assert_eq!(one.is_ok(), walk(&shape, cut(&stream, &slices)).is_ok());
        let mut decoder = Decoder::new(&shape);
        let _ = decoder.feed(&stream, &mut |_| Ok(())).map(|()| decoder.finish(&mut |_| Ok(())));
        let _ = complete_prefix(&stream, NATIVES.len(), 10);
    }

    #[test]
    fn no_bytes_make_rendering_panic(bytes in prop::collection::vec(any::<u8>(), 0..80), small in prop::collection::vec(0u8..5, 0..60)) {
        for native in RENDERED {
            let native: NativeType = native.parse().unwrap();
            for bytes in [&bytes, &small] {
                let _ = render(&native, bytes, &mut String::new());
            }
        }
    }
}

#[test]
fn values_too_large_to_be_kept_are_hashed_as_they_pass() {
    let natives = ["text", "int4", "bytea", "jsonb", "bpchar", "text"];
    let text = "大".repeat(700_000);
    let json = format!("{{\"b\":1,\"a\":\"{}\"}}", "x".repeat(1 << 20));
    let bytes = vec![0xab; 3 << 20];
    let char = format!("{}   ", "c".repeat(1_200_000));
    let rows = [
        vec![
            Value::Text(&text),
            Value::Integer(1),
            Value::Bytes(&bytes),
            Value::Text(&json),
            Value::Text(&char),
            Value::Null,
        ],
        vec![Value::Null, Value::Integer(2), Value::Null, Value::Null, Value::Null, Value::Text("small")],
        vec![
            Value::Text(""),
            Value::Integer(3),
            Value::Bytes(&[]),
            Value::Text("1.50"),
            Value::Text(" "),
            Value::Text(&text),
        ],
    ];
    for key in [&[][..], &["c1"], &["c5", "c0"]] {
        let contract = contract(&natives, key);
        let mut builder = BatchBuilder::new(&contract);
        rows.iter().for_each(|row| builder.push(row).unwrap());
        let batch = Batch::new(&contract, builder.finish().unwrap()).unwrap();
        let shape = shape(&contract, &natives);
        let mut stream = HEADER.to_vec();
        let mut encoder = Encoder::new(&contract, &parsed(&natives)).unwrap();
        encoder.batch(&batch, &mut stream, &mut |_, fault| panic!("{fault}"));
        stream.extend_from_slice(&TRAILER);
        let mut hashed = Vec::new();
        Digester::new(KEY).each(&batch, |row| hashed.push(row)).unwrap();
        for slice in [stream.len(), 1 << 20, 65_536, 999] {
            assert_eq!(walk(&shape, stream.chunks(slice)).as_ref(), Ok(&hashed), "{key:?} in slices of {slice}");
        }
        // The last character of the large text is cut in two.
        let at = HEADER.len() + 2 + 4 + text.len() - 1;
        stream[at] = b'x';
        let wrong = walk(&shape, stream.chunks(4_096)).unwrap_err().to_string();
        assert!(wrong.contains("`c0` of row 0 has bytes that are no characters"), "{wrong}");
    }
}

#[test]
fn a_row_that_cannot_be_carried_is_handed_out_and_the_others_stay() {
    let natives = ["int4", "numeric(4,2)", "timestamp", "text", "json", "int4[]"];
    let contract = contract(&natives, &["c0"]);
    let good: [&[u8]; 6] =
        [&[0, 0, 0, 7], &[0, 1, 0, 0, 0, 0, 0, 0, 0, 5], &[0; 8], "王".as_bytes(), b"{}", &EMPTY_ARRAY];
    let nan: &[u8] = &[0, 0, 0, 0, 0xc0, 0, 0, 0];
    let long: &[u8] = &[0, 1, 0, 0, 0, 0, 0, 0, 0, 100];
    let far = (i64::MAX - 5).to_be_bytes();
    let faults: [(usize, Option<&[u8]>, &str); 7] = [
        (0, Some(&[0; 3]), "the column `c0` has another length than its type"),
        (1, Some(nan), "the column `c1` is no number"),
        (1, Some(long), "the column `c1` has more digits than its column"),
        (2, Some(&far), "the column `c2` is a time too far away"),
        (3, Some(&[0xff, b'a']), "the column `c3` has bytes that are no characters of UTF-8"),
        (4, Some(br#"{"a":1,"a":2}"#), "the column `c4` holds text that is not JSON with one meaning"),
        (5, Some(&[9; 12]), "the column `c5` is an array of an unknown form"),
    ];
    let mut stream = HEADER.to_vec();
    tuple(&good.map(Some), &mut stream);
    for (column, value, _) in &faults {
        let mut fields = good.map(Some);
        fields[*column] = *value;
        tuple(&fields, &mut stream);
        tuple(&[Some(good[0]), None, None, None, None, None], &mut stream);
    }
    stream.extend_from_slice(&TRAILER);
    let mut contract = contract;
    contract.items[0].nullable = false;
    let shape = shape(&contract, &natives);
    let (batches, bad) = decode(&shape, stream.chunks(7));
    assert_eq!(batches.iter().map(Batch::rows).sum::<usize>(), 1 + faults.len());
    assert_eq!(batches[0].value(1, 0), Value::Decimal(500, 2));
    assert_eq!(bad.len(), faults.len());
    for (bad, (number, (_, _, reason))) in bad.iter().zip(faults.iter().enumerate()) {
        assert!(bad.reason.starts_with(reason), "{bad:?}");
        assert_eq!(bad.row, 1 + 2 * number as u64);
    }
    assert_eq!(
        bad[4].original,
        r#"{"c0":"7","c1":"5","c2":"2000-01-01 00:00:00","c3":{"hex":"ff61"},"c4":"{}","c5":"{}"}"#
    );
    // A sifter hands out the same rows, and its others are a stream without them.
    let (mut sifter, mut kept, mut hashes, mut sifted_out) =
        (Sifter::new(&shape, KEY), HEADER.to_vec(), vec![], vec![]);
    for slice in stream.chunks(7) {
        let sifted = sifter.feed(slice, &mut |sifted| {
            match sifted {
                Sifted::Row(bytes, hash) => (kept.extend_from_slice(bytes), hashes.push(hash.hash)).0,
                Sifted::Bad(row) => sifted_out.push(row),
            }
            Ok(())
        });
        sifted.unwrap();
    }
    assert_eq!(sifter.finish(), Ok(1 + 2 * faults.len() as u64));
    assert_eq!(sifted_out, bad);
    kept.extend_from_slice(&TRAILER);
    let walked = walk(&shape, [kept.as_slice()].into_iter()).unwrap();
    assert_eq!(walked.iter().map(|row| row.hash).collect::<Vec<_>>(), hashes);
    assert_eq!(hashes.len(), 1 + faults.len());
    // The walker names the same row, and another hashing goes on behind it.
    let wrong = walk(&shape, stream.chunks(7)).unwrap_err();
    assert!(matches!(&wrong, CopyError::Value { row: 1, column, .. } if column == "c0"), "{wrong}");
    let mut hasher = RowHasher::new(&shape, KEY);
    let (mut rest, mut rows) = (&stream[HEADER.len()..], (0, 0));
    while rest != TRAILER {
        let (length, _) = complete_prefix(rest, natives.len(), 1).unwrap();
        match hasher.row(0, rest) {
            Ok((_, found)) => (assert_eq!(found, length), rows.0 += 1).1,
            Err(_) => rows.1 += 1,
        }
        rest = &rest[length..];
    }
    assert_eq!(rows, (1 + faults.len(), faults.len()));
}

#[test]
fn a_stream_that_is_not_one_is_refused_where_it_goes_wrong() {
    let contract = contract(&["int4"], &[]);
    let shape = shape(&contract, &["int4"]);
    let one = [&HEADER[..], &[0, 1, 0, 0, 0, 4, 0, 0, 0, 1], &TRAILER].concat();
    assert_eq!(walk(&shape, one.chunks(1)).map(|rows| rows.len()), Ok(1));
    let mut flags = one.clone();
    flags[14] = 1;
    let mut null = one.clone();
    null.splice(21..29, [0xff; 4]);
    let mut negative = one.clone();
    negative.splice(21..29, (-2i32).to_be_bytes());
    let mut huge = one.clone();
    huge.splice(21..25, i32::MAX.to_be_bytes());
    let mut strict = contract.clone();
    strict.items[0].nullable = false;
    let strict = Shape::new(&strict, &parsed(&["int4"])).unwrap();
    assert!(walk(&shape, null.chunks(3)).is_ok());
    for (shape, stream, what) in [
        (&shape, flags, "header"),
        (&shape, b"PGCOPY text".to_vec(), "header"),
        (&shape, [&HEADER[..], &[0, 2]].concat(), "another number of fields"),
        (&shape, one[..one.len() - 1].to_vec(), "cut off"),
        (&shape, HEADER.to_vec(), "cut off"),
        (&shape, vec![], "cut off"),
        (&shape, [one.as_slice(), &[0]].concat(), "follow its end"),
        (&shape, negative, "below zero"),
        (&shape, huge, "larger than any"),
        (&strict, null, "NULL where the contract allows none"),
    ] {
        for slice in [1, 3, 1_000] {
            let wrong = walk(shape, stream.chunks(slice)).unwrap_err().to_string();
            assert!(wrong.contains(what), "{what}: {wrong}");
        }
    }
}

#[test]
fn what_the_table_would_round_cut_or_refuse_is_a_fault_of_its_row() {
    for (native, value, what) in [
        ("int2", Value::Integer(32_768), "beyond the bounds"),
        ("int4", Value::Integer(-1 << 40), "beyond the bounds"),
        ("oid", Value::Integer(-1), "beyond the bounds"),
        ("float4", Value::Float(0.1), "round"),
        ("numeric(4,2)", Value::Decimal(1, 2), ""),
        ("text", Value::Text("a\0b"), "character 0"),
        ("varchar(2)", Value::Text("王王王"), "longer than 2 characters"),
        ("varchar(2)", Value::Text("王王"), ""),
        ("bpchar(2)", Value::Text("王王   "), ""),
        ("bpchar(2)", Value::Text("王 王"), "longer than 2 characters"),
        ("name", Value::Text(&"n".repeat(64)), "longer than a name"),
        ("\"char\"", Value::Text("ab"), "one byte"),
        ("uuid", Value::Text("A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"), "canonical form"),
        ("date", Value::Date(i32::MAX - 1), "calendar"),
        ("date", Value::Date(i32::MAX), ""),
        ("timestamp", Value::Timestamp(i64::MIN + 1), "calendar"),
        ("json", Value::Text("{"), "not JSON"),
        ("jsonb", Value::Text(r#"{"a":"\u0000"}"#), "character 0"),
        ("jsonb", Value::Text(r#"{"a":"\\u0000"}"#), ""),
        ("jsonb", Value::Text("[-1e131073]"), "beyond what jsonb keeps"),
        ("json", Value::Text("[-1e131073]"), ""),
        ("jsonb", Value::Text("1e-16384"), "beyond what jsonb keeps"),
    ] {
        let contract = contract(&[native], &[]);
        let mut builder = BatchBuilder::new(&contract);
        builder.push(&[value]).unwrap();
        let batch = Batch::new(&contract, builder.finish().unwrap()).unwrap();
        let mut out = Vec::new();
        let written = Encoder::new(&contract, &parsed(&[native])).unwrap().row(&batch, 0, &mut out);
        match written {
            Ok(()) => assert_eq!(what, "", "{native} took {value:?}"),
            Err(fault) => {
                assert!(!what.is_empty() && fault.to_string().contains(what), "{native}: {fault}");
                assert_eq!((fault.column.as_str(), out.len()), ("c0", 0));
            }
        }
    }
}

#[test]
fn a_decimal_that_a_narrower_column_would_round_is_a_fault() {
    let wide = contract(&["numeric(10,4)"], &[]);
    let mut builder = BatchBuilder::new(&wide);
    [12_345, 12_300, 999_900, 1_000_000]
        .iter()
        .for_each(|unscaled| builder.push(&[Value::Decimal(*unscaled, 4)]).unwrap());
    let batch = Batch::new(&wide, builder.finish().unwrap()).unwrap();
    let mut refused = Vec::new();
    let mut encoder = Encoder::new(&wide, &parsed(&["numeric(4,2)"])).unwrap();
    encoder.batch(&batch, &mut Vec::new(), &mut |row, fault| refused.push((row, fault.to_string())));
    let what = "the column `c0` has more digits than the table's column".to_owned();
    assert_eq!(refused, [(0, what.clone()), (3, what)]);
}

/// Types that are written as text of their own, deep ones among them.
const RENDERED: &[&str] = &[
    "time",
    "timetz",
    "interval",
    "inet",
    "cidr",
    "varbit",
    "path",
    "polygon",
    "tsvector",
    "tsquery",
    "jsonpath",
    "numeric",
    "int4[]",
    "text[][]",
    "range<numeric>",
    "multirange<range<int4>>",
    "composite<text,bool,composite<int2[]>>",
    "money",
    "xml",
];

const NATIVES: &[&str] = &[
    "int8",
    "bool",
    "int2",
    "int4",
    "oid",
    "numeric(20,4)",
    "numeric(38,0)",
    "numeric",
    "float4",
    "float8",
    "text",
    "varchar(40)",
    "bpchar(6)",
    "bytea",
    "date",
    "timestamptz",
    "json",
    "jsonb",
    "uuid",
    "name",
];

/// A stream of rows that the seed decides, with NULLs everywhere but in the key.
fn sample(seed: u64, rows: usize) -> (Shape, Vec<u8>) {
    let contract = contract(NATIVES, &["c10", "c0"]);
    let mut random = Random(seed);
    let mut builder = BatchBuilder::new(&contract);
    let mut out = HEADER.to_vec();
    let mut encoder = Encoder::new(&contract, &parsed(NATIVES)).unwrap();
    for number in 0..rows {
        let text = random.text(10);
        let short = random.text(4).chars().take(6).collect::<String>().trim_end_matches(' ').to_owned();
        let (name, other) = (serde_json::json!(random.text(3) + "x"), serde_json::json!(random.text(2)));
        let json = format!("{{{name}: {}, {other}: [{other}, null]}}", random.next());
        let digits = format!("{}{}", random.next() as i64, "7".repeat(random.below(60) as usize));
        let written = format!("{digits}e-{}", random.below(40));
        let measure = posthouse_protocol::number::canonical(&written).unwrap();
        let bytes: Vec<u8> = (0..random.below(30)).map(|_| random.next() as u8).collect();
        let uuid = format!("{:08x}-0000-4000-8000-{:012x}", random.next() as u32, random.next() >> 16);
        let mut row = vec![
            Value::Integer(number as i64),
            Value::Boolean(random.below(2) == 0),
            Value::Integer((random.next() as i16).into()),
            Value::Integer((random.next() as i32).into()),
            Value::Integer((random.next() as u32).into()),
            Value::Decimal(i128::from(random.next() as i64) * 10i128.pow(random.below(2) as u32), 4),
            Value::Decimal((i128::from(random.next() as i64) << random.below(60)) / 7, 0),
            Value::Number(&measure),
            Value::Float(f32::from_bits(random.next() as u32).into()),
            Value::Float(f64::from_bits(random.next())),
            Value::Text(&text),
            Value::Text(&text),
            Value::Text(&short),
            Value::Bytes(&bytes),
            Value::Date((random.next() as i32) / 1_000),
            Value::Timestamp((random.next() as i64) / 50),
            Value::Text(&json),
            Value::Text(&json),
            Value::Text(&uuid),
            Value::Text(&text),
        ];
        for (index, value) in row.iter_mut().enumerate() {
            if random.below(7) == 0 && index != 0 && index != 10 {
                *value = Value::Null;
            }
        }
        builder.push(&row).unwrap();
        let batch = Batch::new(&contract, builder.finish().unwrap()).unwrap();
        encoder.row(&batch, 0, &mut out).unwrap();
    }
    out.extend_from_slice(&TRAILER);
    (shape(&contract, NATIVES), out)
}

/// Numbers that the seed decides (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
    fn text(&mut self, parts: u64) -> String {
        const PARTS: &[&str] = &["", "a", "王", "𠮷", "\"", "\\", "\n", " ", "é", "0"];
        (0..self.below(parts)).map(|_| PARTS[self.below(PARTS.len() as u64) as usize]).collect()
    }
}

fn contract(natives: &[&str], key: &[&str]) -> Contract {
    let item = |(index, native): (usize, NativeType)| Item {
        name: format!("c{index}"),
        r#type: native.contract_type(),
        nullable: true,
        comment: None,
    };
    let items = parsed(natives).into_iter().enumerate().map(item).collect();
    Contract { items, key: key.iter().map(|name| (*name).to_owned()).collect() }
}

fn shape(contract: &Contract, natives: &[&str]) -> Shape {
    Shape::new(contract, &parsed(natives)).unwrap()
}

fn parsed(natives: &[&str]) -> Vec<NativeType> {
    natives.iter().map(|native| native.parse().unwrap()).collect()
}

fn tuple(fields: &[Option<&[u8]>], out: &mut Vec<u8>) {
    out.extend_from_slice(&(fields.len() as u16).to_be_bytes());
    for field in fields {
        match field {
            Some(value) => {
                out.extend_from_slice(&(value.len() as i32).to_be_bytes());
                out.extend_from_slice(value);
            }
            None => out.extend_from_slice(&(-1i32).to_be_bytes()),
        }
    }
}

fn slices() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1usize..200, 1..20)
}

/// A stream in slices of these lengths, over and over.
fn cut<'a>(mut stream: &'a [u8], lengths: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    lengths.iter().cycle().map_while(move |length| {
        let slice;
        (slice, stream) = stream.split_at((*length).min(stream.len()));
        (!slice.is_empty()).then_some(slice)
    })
}

fn walk<'a>(shape: &Shape, slices: impl Iterator<Item = &'a [u8]>) -> Result<Vec<RowHash>, CopyError> {
    let mut rows = Vec::new();
    let mut walker = Walker::new(shape, KEY);
    for slice in slices {
        walker.feed(slice, &mut |row| rows.push(row))?;
    }
    assert_eq!(walker.rows(), rows.len() as u64);
    walker.finish().map(|count| assert_eq!(count, rows.len() as u64))?;
    Ok(rows)
}

fn decode<'a>(shape: &Shape, slices: impl Iterator<Item = &'a [u8]>) -> (Vec<Batch>, Vec<BadRow>) {
    let (mut batches, mut bad) = (Vec::new(), Vec::new());
    let mut take = |decoded| {
        match decoded {
            Decoded::Batch(record) => batches.push(Batch::new(shape.contract(), record).unwrap()),
            Decoded::Bad(row) => bad.push(row),
        }
        Ok(())
    };
    let mut decoder = Decoder::new(shape);
    slices.for_each(|slice| decoder.feed(slice, &mut take).unwrap());
    decoder.finish(&mut take).unwrap();
    (batches, bad)
}

fn encode(batches: &[Batch]) -> Vec<u8> {
    let mut out = HEADER.to_vec();
    let contract = contract(NATIVES, &["c10", "c0"]);
    let mut encoder = Encoder::new(&contract, &parsed(NATIVES)).unwrap();
    for batch in batches {
        encoder.batch(batch, &mut out, &mut |_, fault| panic!("{fault}"));
    }
    out.extend_from_slice(&TRAILER);
    out
}

const KEY: [u8; 32] = [7; 32];
/// No dimensions, no NULLs, of `int4`.
const EMPTY_ARRAY: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 23];
