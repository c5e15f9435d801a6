//! Tables of any shape with any values, by a seed: what the suite's own rows did not think of.

use super::item;
use arrow::record_batch::RecordBatch;
use posthouse_protocol::batch::{BatchBuilder, Value, power_of_ten};
use posthouse_protocol::number;
use posthouse_protocol::schema::{Contract, ContractType};

/// Numbers that the seed decides (SplitMix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
    fn wide(&mut self) -> i128 {
        let bits = self.below(127);
        let value = ((i128::from(self.next()) << 64) | i128::from(self.next())) >> 1;
        let value = value & ((1 << bits) - 1);
        if self.below(2) == 0 { value } else { -value }
    }
}

/// One to nine columns; with a key of one integer, of a text and a date, or none.
pub(crate) fn contract(random: &mut Random) -> Contract {
    let count = 1 + random.below(9) as usize;
    let mut items: Vec<_> = (0..count).map(|index| item(&format!("列 {index}"), any_type(random))).collect();
    let mut key = Vec::new();
    match random.below(3) {
        0 => {
            items[0].r#type = ContractType::Integer;
            key.push(items[0].name.clone());
        }
        1 if count > 1 => {
            items[0].r#type = ContractType::Text;
            items[1].r#type = ContractType::Date;
            key.extend([items[1].name.clone(), items[0].name.clone()]);
        }
        _ => {}
    }
    items.iter_mut().filter(|item| key.contains(&item.name)).for_each(|item| item.nullable = false);
    Contract { items, key }
}

fn any_type(random: &mut Random) -> ContractType {
    match random.below(11) {
        0 => ContractType::Boolean,
        1 => ContractType::Integer,
        2 => {
            let precision = 1 + random.below(38) as u8;
            ContractType::Decimal { precision, scale: random.below(u64::from(precision) + 1) as i8 }
        }
        3 => ContractType::Float,
        4 => ContractType::Text,
        5 => ContractType::Char,
        6 => ContractType::Bytes,
        7 => ContractType::Date,
        8 => ContractType::Timestamp,
        9 => ContractType::Number,
        _ => ContractType::Json,
    }
}

/// Rows whose keys are their own.
pub(crate) fn rows(contract: &Contract, count: usize, random: &mut Random) -> RecordBatch {
    let mut builder = BatchBuilder::new(contract);
    for number in 0..count {
        let texts: Vec<String> = contract.items.iter().map(|item| text(item.r#type, random)).collect();
        let bytes: Vec<Vec<u8>> =
            contract.items.iter().map(|_| (0..random.below(20)).map(|_| random.next() as u8).collect()).collect();
        let keyed = texts.iter().map(|text| format!("{number} {text}")).collect::<Vec<_>>();
        let row: Vec<Value<'_>> = (0..contract.items.len())
            .map(|index| {
                let item = &contract.items[index];
                let is_key = contract.key.contains(&item.name);
                if item.nullable && random.below(6) == 0 {
                    return Value::Null;
                }
                match item.r#type {
                    ContractType::Integer if is_key => Value::Integer(number as i64 * 1_000_003 - 5_000_000),
                    ContractType::Text if is_key => Value::Text(&keyed[index]),
                    ContractType::Boolean => Value::Boolean(random.below(2) == 0),
                    ContractType::Integer => Value::Integer(random.next() as i64 >> random.below(64)),
                    ContractType::Decimal { precision, scale } => {
                        Value::Decimal(random.wide() % power_of_ten(precision) as i128, scale)
                    }
                    // A bit pattern that is no number becomes one.
                    ContractType::Float => Value::Float(match f64::from_bits(random.next()) {
                        number if number.is_nan() => 0.25,
                        number => number,
                    }),
                    ContractType::Text | ContractType::Char | ContractType::Json => Value::Text(&texts[index]),
                    ContractType::Number => Value::Number(&texts[index]),
                    ContractType::Bytes => Value::Bytes(&bytes[index]),
                    ContractType::Date => Value::Date(random.below(3_650_000) as i32 - 719_000),
                    ContractType::Timestamp => {
                        Value::Timestamp(random.below(315_000_000_000_000_000) as i64 - 62_000_000_000_000_000)
                    }
                }
            })
            .collect();
        builder.push(&row).unwrap();
    }
    builder.finish().unwrap()
}

fn text(r#type: ContractType, random: &mut Random) -> String {
    const PARTS: &[&str] =
        &["", "a", "王", "𠮷", "'", "\"", "\\", "\n", "%", "0", " ", "ﬀ", "e\u{301}", "--", "NULL", "1e3"];
    let text: String = (0..random.below(12)).map(|_| PARTS[random.below(PARTS.len() as u64) as usize]).collect();
    match r#type {
        ContractType::Json => match random.below(4) {
            0 => serde_json::Value::String(text).to_string(),
            1 => format!("{{\"x\": [{}, null], \"y\": {{}}}}", random.next() as i64),
            2 => format!("{}.{}", random.next() as i64, random.below(1_000_000)),
            _ => "[true , false ]".to_owned(),
        },
        ContractType::Number => number(random),
        _ => text,
    }
}

fn number(random: &mut Random) -> String {
    if random.below(20) == 0 {
        return ["NaN", "Infinity", "-Infinity"][random.below(3) as usize].to_owned();
    }
    let mut text = format!("{}", random.next() as i64 >> random.below(64));
    (0..random.below(4)).for_each(|_| text.push_str(&random.next().to_string()));
    text.push('.');
    (0..random.below(3)).for_each(|_| text.push_str(&random.next().to_string()));
    number::canonical(&text).unwrap().into_owned()
}
