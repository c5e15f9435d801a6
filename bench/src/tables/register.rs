//! A population register (人口库) of 22 columns, about 358 bytes a row: CJK names and addresses, nulls, tabs and
//! newlines inside texts, exact decimals, JSON, bytes. Every person is made up and says so: the name begins
//! with 测试, divisions are of a province 99 that does not exist, phone numbers of a prefix that is not given out.
//! A row follows from its number alone, so that all machines measure the same data.

use super::values::Values;
use crate::dice::Dice;
use std::fmt::Write as _;

pub const COLUMNS: &[(&str, &str)] = &[
    ("person_id", "bigint NOT NULL"),
    ("id_number", "varchar(18) NOT NULL"),
    ("full_name", "varchar(60) NOT NULL"),
    ("name_pinyin", "varchar(80)"),
    ("gender", "smallint NOT NULL"),
    ("birth_date", "date NOT NULL"),
    ("nation", "varchar(30)"),
    ("region_code", "varchar(12) NOT NULL"),
    ("address", "text"),
    ("phone", "varchar(20)"),
    ("email", "varchar(80)"),
    ("marital", "smallint"),
    ("household_id", "bigint NOT NULL"),
    ("income", "numeric(18,2)"),
    ("balance", "numeric(18,2) NOT NULL"),
    ("is_resident", "boolean NOT NULL"),
    ("is_deceased", "boolean"),
    ("registered_at", "timestamp NOT NULL"),
    ("updated_at", "timestamptz NOT NULL"),
    ("remark", "text"),
    ("ext", "jsonb"),
    ("photo_hash", "bytea"),
];

/// Of `ext`.
pub const MEMBERS: &[&str] = &["lv", "src", "made_up"];

pub fn write(rows: u64, out: &mut dyn Values) -> std::io::Result<()> {
    let mut text = String::new();
    for id in 1..=rows {
        row(&mut Dice::new(id), id as i64, out, &mut text);
        out.end()?;
    }
    Ok(())
}

fn row(dice: &mut Dice, id: i64, out: &mut dyn Values, text: &mut String) {
    // Formatting into a String cannot fail; the result is dropped for that reason throughout.
    let mut put = |out: &mut dyn Values, words: std::fmt::Arguments| {
        text.clear();
        let _ = text.write_fmt(words);
        out.text(text);
    };
    out.begin(COLUMNS.len() as i16);
    out.int8(id);
    let born = BORN_FROM + dice.below(BORN_DAYS) as i32;
    let district = 990_000 + dice.below(1_000);
    put(out, format_args!("{district:06}{:08}{:04}", dice.below(100_000_000), dice.below(10_000)));
    let (surname, surname_pinyin) = dice.one_of(SURNAMES);
    let (given, given_pinyin) = dice.one_of(GIVEN);
    let (third, third_pinyin) = if dice.share(66) { dice.one_of(GIVEN) } else { ("", "") };
    put(out, format_args!("测试{surname}{given}{third}"));
    match dice.share(90) {
        true => put(out, format_args!("ceshi {surname_pinyin} {given_pinyin}{third_pinyin}")),
        false => out.null(),
    }
    out.int2(1 + dice.below(2) as i16);
    out.date(born);
    out.text(dice.one_of(NATIONS));
    put(out, format_args!("{district:06}{:06}", dice.below(1_000_000)));
    match dice.share(95) {
        true => {
            let (city, road) = (dice.one_of(CITIES), dice.one_of(ROADS));
            let (number, block, door) = (1 + dice.below(998), 1 + dice.below(40), 101 + dice.below(2_800));
            put(out, format_args!("虚构省{city}{road}{number}号{block}栋{door}室"));
        }
        false => out.null(),
    }
    match dice.share(80) {
        true => put(out, format_args!("100{:08}", dice.below(100_000_000))),
        false => out.null(),
    }
    match dice.share(33) {
        true => put(out, format_args!("p{:09}@person.example", dice.below(1_000_000_000))),
        false => out.null(),
    }
    out.option(dice.share(86).then(|| dice.below(4) as i16), |out, value| out.int2(value));
    out.int8(id / 3);
    out.option(dice.share(75).then(|| dice.below(100_000_000) as i64), |out, value| out.hundredths(value));
    out.hundredths(dice.below(10_000_000_000) as i64 - 5_000_000_000);
    out.boolean(dice.share(87));
    out.option(dice.share(98).then(|| dice.share(3)), |out, value| out.boolean(value));
    out.timestamp(REGISTERED_FROM + dice.below(REGISTERED_MICROS) as i64);
    out.timestamp(UPDATED_FROM + id * 17_000_123);
    match dice.share(8) {
        true => put(out, format_args!("备注\t含制表符\n与换行 \\反斜杠 \"引号\" {:016x}", dice.roll())),
        false => out.null(),
    }
    match dice.share(75) {
        true => {
            text.clear();
            // In the order and spacing in which the server gives a jsonb back.
            let (level, department) = (dice.below(9), dice.below(60));
            let _ = write!(text, "{{\"lv\": {level}, \"src\": \"部门{department}\", \"made_up\": true}}");
            out.jsonb(text);
        }
        false => out.null(),
    }
    match dice.share(83) {
        true => {
            let mut hash = [0; 32];
            for eight in hash.chunks_exact_mut(8) {
                eight.copy_from_slice(&dice.roll().to_be_bytes());
            }
            out.bytea(&hash);
        }
        false => out.null(),
    }
}

const BORN_FROM: i32 = -14_610; // 1930-01-01
const BORN_DAYS: u64 = 34_698; // to 2024-12-31
const REGISTERED_FROM: i64 = 978_307_200_000_000; // 2001-01-01
const REGISTERED_MICROS: u64 = 757_382_400_000_000; // 24 years
const UPDATED_FROM: i64 = 1_672_502_400_000_000; // 2023-01-01 00:00 +08

const SURNAMES: &[(&str, &str)] = &[
    ("王", "wang"),
    ("李", "li"),
    ("张", "zhang"),
    ("刘", "liu"),
    ("陈", "chen"),
    ("杨", "yang"),
    ("黄", "huang"),
    ("赵", "zhao"),
    ("吴", "wu"),
    ("周", "zhou"),
    ("欧阳", "ouyang"),
    ("司马", "sima"),
];
const GIVEN: &[(&str, &str)] = &[
    ("伟", "wei"),
    ("芳", "fang"),
    ("娜", "na"),
    ("敏", "min"),
    ("静", "jing"),
    ("强", "qiang"),
    ("磊", "lei"),
    ("洋", "yang"),
    ("艳", "yan"),
    ("勇", "yong"),
    ("杰", "jie"),
    ("涛", "tao"),
    ("明", "ming"),
    ("超", "chao"),
    ("霞", "xia"),
    ("桂", "gui"),
];
const NATIONS: &[&str] = &["汉族", "汉族", "汉族", "汉族", "汉族", "壮族", "回族", "满族", "藏族", "维吾尔族"];
const CITIES: &[&str] = &["示例市东区", "范本市经济技术开发区", "演示自治州山前县", "样例市滨江区", "范例市高新技术区"];
const ROADS: &[&str] = &["人民路", "建设大道", "解放中路", "滨河东路", "文化街"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::tuples::Tuples;
    use std::io::Write;

    #[test]
    fn every_row_says_that_its_person_is_made_up() {
        let mut stream = Vec::new();
        let mut tuples = Tuples::new(&mut stream as &mut dyn Write).expect("a vector takes all");
        write(1_000, &mut tuples).expect("a vector takes all");
        tuples.finish().expect("a vector takes all");
        let mark = "测试".as_bytes();
        assert_eq!(stream.windows(mark.len()).filter(|part| *part == mark).count(), 1_000);
    }
}
