//! How long a row of binary COPY takes on one core: hashed as it lies, taken apart into batches, written from them.
//!   cargo run --release -p posthouse-protocol --example pgcopy_speed [FILE [PART]]
//! FILE is a stream of the register that the benchmarks copy; without it, or for `-`, rows like those are made up.
//! Of PART only what is named so is measured. Times are of the processor, which a busy machine does not change.

#![expect(clippy::print_stdout, reason = "it prints what it measured")]
#![expect(clippy::unwrap_used, reason = "it ends where something is wrong")]

use posthouse_protocol::batch::{Batch, BatchBuilder, Value};
use posthouse_protocol::digest::Digester;
use posthouse_protocol::pgcopy::decode::Decoded;
use posthouse_protocol::pgcopy::{Decoder, Encoder, HEADER, NativeType, Shape, TRAILER, Walker, complete_prefix};
use posthouse_protocol::schema::{Contract, Item};

fn main() {
    let natives: Vec<NativeType> = NATIVES.iter().map(|native| native.parse().unwrap()).collect();
    let item = |(index, native): (usize, &NativeType)| Item {
        name: format!("c{index}"),
        r#type: native.contract_type(),
        nullable: true,
        comment: None,
    };
    let contract = Contract { items: natives.iter().enumerate().map(item).collect(), key: vec!["c0".to_owned()] };
    let shape = Shape::new(&contract, &natives).unwrap();
    let part = std::env::args().nth(2).unwrap_or_default();
    let stream = match std::env::args().nth(1).filter(|path| path != "-") {
        Some(path) => std::fs::read(path).unwrap(),
        None => made_up(&contract, &natives),
    };
    let (bytes, rows) = complete_prefix(&stream[HEADER.len()..], natives.len(), u64::MAX).unwrap();
    println!("{rows} rows of {} bytes", bytes as u64 / rows);
    let say = |what: &str, work: &mut dyn FnMut()| {
        if !what.contains(&part) {
            return work();
        }
        let best = (0..7).map(|_| {
            let start = processor_ns();
            work();
            processor_ns() - start
        });
        let ns = best.min().unwrap_or(0) / rows;
        println!("{what:<28} {ns:6} ns a row, {:9} rows/s", 1_000_000_000 / ns.max(1));
    };
    say("tuples found", &mut || {
        std::hint::black_box(complete_prefix(&stream[HEADER.len()..], natives.len(), u64::MAX).unwrap());
    });
    say("bare hash of each tuple", &mut || {
        let mut rest = &stream[HEADER.len()..];
        while let Ok((length @ 1.., _)) = complete_prefix(rest, natives.len(), 1) {
            std::hint::black_box(blake3::keyed_hash(&[7; 32], &rest[..length]));
            rest = &rest[length..];
        }
    });
    say("walked and hashed", &mut || {
        let mut walker = Walker::new(&shape, [7; 32]);
        for slice in stream.chunks(256 << 10) {
            walker.feed(slice, &mut |row| _ = std::hint::black_box(row)).unwrap();
        }
        assert_eq!(walker.finish().unwrap(), rows);
    });
    let mut batches = Vec::new();
    say("taken apart into batches", &mut || {
        batches.clear();
        let mut take = |decoded| {
            if let Decoded::Batch(record) = decoded {
                batches.push(record);
            }
            Ok(())
        };
        let mut decoder = Decoder::new(&shape);
        stream.chunks(256 << 10).for_each(|slice| decoder.feed(slice, &mut take).unwrap());
        decoder.finish(&mut take).unwrap();
    });
    let batches: Vec<Batch> = batches.into_iter().map(|record| Batch::new(&contract, record).unwrap()).collect();
    say("batches hashed", &mut || {
        let mut digester = Digester::new([7; 32]);
        batches.iter().for_each(|batch| digester.each(batch, |row| _ = std::hint::black_box(row)).unwrap());
    });
    let mut out = Vec::new();
    say("written from batches", &mut || {
        out.clear();
        let mut encoder = Encoder::new(&contract, &natives).unwrap();
        batches.iter().for_each(|batch| encoder.batch(batch, &mut out, &mut |_, _| {}));
    });
    assert_eq!(out.len(), bytes);
}

/// What this thread has used.
fn processor_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

fn made_up(contract: &Contract, natives: &[NativeType]) -> Vec<u8> {
    let mut out = HEADER.to_vec();
    let mut encoder = Encoder::new(contract, natives).unwrap();
    let mut builder = BatchBuilder::new(contract);
    for row in 0..200_000i64 {
        let mixed = row.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64).unsigned_abs();
        let sometimes = |every: u64, value| if mixed % every == 0 { Value::Null } else { value };
        let number = format!("{:06}19{:02}0102{:03}X", 110_000 + mixed % 659_004, mixed % 90 + 10, mixed % 1_000);
        let place =
            format!("浙江省杭州市西湖区人民路{}号{}栋{}单元{}室", mixed % 999, mixed % 30, mixed % 32, mixed % 3_300);
        let (pinyin, region) = (format!("pinyin {:012x}", mixed % (1 << 48)), format!("{:012}", mixed % 1_000_000));
        let (phone, email) =
            (format!("1{:010}", mixed % 10_000_000_000), format!("{:010x}@example.gov.cn", mixed % (1 << 40)));
        let remark = format!("备注\t含制表符\n与换行 \\反斜杠 {:016x}", mixed);
        let extra = format!("{{\"lv\": {}, \"src\": \"dept{}\", \"tag\": \"王\"}}", mixed % 9, mixed % 60);
        let hash = [mixed as u8; 32];
        builder
            .push(&[
                Value::Integer(row),
                Value::Text(&number),
                Value::Text("王小明"),
                sometimes(10, Value::Text(&pinyin)),
                Value::Integer((mixed % 2) as i64 + 1),
                Value::Date((mixed % 32_767) as i32 - 14_610),
                Value::Text("汉族"),
                Value::Text(&region),
                sometimes(20, Value::Text(&place)),
                sometimes(5, Value::Text(&phone)),
                if mixed % 3 == 0 { Value::Text(&email) } else { Value::Null },
                sometimes(7, Value::Integer((mixed % 4) as i64)),
                Value::Integer(row / 3),
                sometimes(4, Value::Decimal((mixed % 100_000_000).into(), 2)),
                Value::Decimal(i128::from(mixed % 10_000_000_000) - 5_000_000_000, 2),
                Value::Boolean(mixed % 8 > 0),
                sometimes(50, Value::Boolean(false)),
                Value::Timestamp(978_307_200_000_000 + (mixed % 757_382_400) as i64 * 1_000_000),
                Value::Timestamp(1_672_500_000_000_000 + row * 17_000_123),
                if mixed % 12 == 0 { Value::Text(&remark) } else { Value::Null },
                sometimes(4, Value::Text(&extra)),
                sometimes(6, Value::Bytes(&hash)),
            ])
            .unwrap();
        if builder.is_full() {
            encoder.batch(&Batch::new(contract, builder.finish().unwrap()).unwrap(), &mut out, &mut |_, _| {});
        }
    }
    encoder.batch(&Batch::new(contract, builder.finish().unwrap()).unwrap(), &mut out, &mut |_, _| {});
    out.extend_from_slice(&TRAILER);
    out
}

const NATIVES: &[&str] = &[
    "int8",
    "varchar(18)",
    "varchar(60)",
    "varchar(80)",
    "int2",
    "date",
    "varchar(30)",
    "varchar(12)",
    "text",
    "varchar(20)",
    "varchar(80)",
    "int2",
    "int8",
    "numeric(18,2)",
    "numeric(18,2)",
    "bool",
    "bool",
    "timestamp",
    "timestamptz",
    "text",
    "jsonb",
    "bytea",
];
