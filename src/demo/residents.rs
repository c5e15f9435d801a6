//! Fictitious residents in a SQLite table. The division code in their numbers exists nowhere, so that no
//! number is anybody's; the check digits are right, names carry rare characters, and exactly one row has
//! a birth date that no calendar knows.

use jiff::ToSpan;
use jiff::civil::{Date, DateTime, date};
use posthouse_protocol::problem::{Code, Problem};
use rusqlite::{Connection, params};
use std::path::Path;
use std::time::Duration;

/// Makes the table with so many rows.
pub(super) fn create(path: &Path, rows: u64) -> Result<(), Problem> {
    let mut database = open(path)?;
    let work = |database: &mut Connection| -> Result<(), rusqlite::Error> {
        database.execute_batch(
            "PRAGMA journal_mode = WAL;
             CREATE TABLE residents (
                 resident_id TEXT NOT NULL PRIMARY KEY,
                 name TEXT NOT NULL,
                 birth_date DATE,
                 district TEXT NOT NULL,
                 housing_area DECIMAL(8,2),
                 updated_at TIMESTAMP NOT NULL,
                 note TEXT
             );",
        )?;
        let transaction = database.transaction()?;
        insert(&transaction, 0..rows)?;
        transaction
            .execute("UPDATE residents SET birth_date = '1987-02-30' WHERE resident_id = ?1", [resident_id(BAD_ROW)])?;
        transaction.commit()
    };
    work(&mut database).map_err(|e| failed(path, &e))
}

/// What a day brings: some rows change, some come. Gives how many of each.
pub(super) fn change(path: &Path) -> Result<(u64, u64), Problem> {
    let mut database = open(path)?;
    let work = |database: &mut Connection| -> Result<(u64, u64), rusqlite::Error> {
        let transaction = database.transaction()?;
        let rows: i64 = transaction.query_row("SELECT count(*) FROM residents", [], |row| row.get(0))?;
        let updated = transaction.execute(
            "UPDATE residents SET district = '浐灞', updated_at = '2026-01-02 09:00:00' WHERE rowid % 199 = 7",
            [],
        )?;
        let first = rows.unsigned_abs();
        insert(&transaction, first..first + NEW_ROWS)?;
        transaction.execute("UPDATE residents SET updated_at = '2026-01-02 09:30:00' WHERE rowid > ?1", [rows])?;
        transaction.commit()?;
        Ok((updated as u64, NEW_ROWS))
    };
    work(&mut database).map_err(|e| failed(path, &e))
}

/// Changes one cell as somebody with the database's password could. Gives the row's key.
pub(super) fn tamper(path: &Path) -> Result<String, Problem> {
    let key = resident_id(TAMPERED_ROW);
    let changed = open(path)?
        .execute("UPDATE residents SET housing_area = '999.99' WHERE resident_id = ?1", [&key])
        .map_err(|e| failed(path, &e))?;
    if changed == 1 { Ok(key) } else { Err(failed(path, &rusqlite::Error::QueryReturnedNoRows)) }
}

fn insert(database: &Connection, numbers: std::ops::Range<u64>) -> Result<(), rusqlite::Error> {
    let mut row = database.prepare("INSERT INTO residents VALUES (?1, ?2, ?3, ?4, ?5, ?6, '虚构数据')")?;
    for number in numbers {
        let area = (number % 11 != 0).then(|| format!("{}.{:02}", 30 + number % 170, number % 100));
        let pick = |from: &[&'static str], step: u64| {
            from.get((number / step) as usize % from.len()).copied().unwrap_or_default()
        };
        let name = format!("{}{}{}", pick(SURNAMES, 1), pick(GIVEN, 7), pick(GIVEN, 131));
        row.execute(params![
            resident_id(number),
            name,
            birth_date(number).to_string(),
            pick(DISTRICTS, 3),
            area,
            written_at(number).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        ])?;
    }
    Ok(())
}

/// A number of 18 characters with the right check character (ISO 7064 MOD 11-2).
fn resident_id(number: u64) -> String {
    let birth = birth_date(number).strftime("%Y%m%d");
    let digits = format!("{NO_DIVISION}{birth}{:03}", number % PER_DAY * 10 + number % 10);
    let sum: u32 = digits.bytes().zip(WEIGHTS).map(|(digit, weight)| u32::from(digit - b'0') * weight).sum();
    let check = CHECKS.get(sum as usize % 11).copied().unwrap_or('?');
    format!("{digits}{check}")
}

fn birth_date(number: u64) -> Date {
    let days = i64::try_from(number / PER_DAY).unwrap_or(0);
    date(1950, 1, 1).saturating_add(days.days())
}

/// Spread over half a day, long before the changes.
fn written_at(number: u64) -> DateTime {
    let seconds = i64::try_from(number / 5).unwrap_or(0);
    date(2026, 1, 1).at(0, 0, 0, 0).saturating_add(seconds.seconds())
}

fn open(path: &Path) -> Result<Connection, Problem> {
    let database = Connection::open(path).map_err(|e| failed(path, &e))?;
    database.busy_timeout(Duration::from_secs(10)).map_err(|e| failed(path, &e))?;
    Ok(database)
}

fn failed(path: &Path, error: &rusqlite::Error) -> Problem {
    Problem::new(Code::StorageFailed).with("path", path.display()).cause(error)
}

/// No division of China has this code.
const NO_DIVISION: &str = "619999";
/// Residents born on one day.
const PER_DAY: u64 = 10;
const NEW_ROWS: u64 = 300;
const BAD_ROW: u64 = 4_242;
const TAMPERED_ROW: u64 = 123_456;
const WEIGHTS: [u32; 17] = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
const CHECKS: [char; 11] = ['1', '0', 'X', '9', '8', '7', '6', '5', '4', '3', '2'];
const SURNAMES: &[&str] = &["张", "王", "李", "亓", "仝", "買", "买买提·", "欧阳", "䶮", "𠮷", "乜", "禤", "逄"];
const GIVEN: &[&str] = &["伟", "芳", "喆", "龘", "㛃", "𬎆", "昇", "堃", "玥", "艾力", "犇", "淼", "𫖯"];
const DISTRICTS: &[&str] = &["雁塔", "碑林", "莲湖", "未央", "灞桥", "长安"];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_number_is_unique_has_the_right_check_character_and_no_division() {
        let numbers: BTreeSet<String> = (0..200_300).map(resident_id).collect();
        assert_eq!(numbers.len(), 200_300);
        // The example of GB 11643: 11010519491231002X.
        let sum: u32 = "11010519491231002".bytes().zip(WEIGHTS).map(|(d, w)| u32::from(d - b'0') * w).sum();
        assert_eq!(CHECKS[sum as usize % 11], 'X');
        for number in &numbers {
            assert!(number.len() == 18 && number.starts_with(NO_DIVISION), "{number}");
        }
    }

    #[test]
    fn one_row_is_bad_some_change_and_one_cell_can_be_edited() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("residents.db");
        create(&path, 130_000).unwrap();
        let database = Connection::open(&path).unwrap();
        let one = |sql: &str| database.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap().unsigned_abs();
        assert_eq!(one("SELECT count(*) FROM residents WHERE birth_date = '1987-02-30'"), 1);
        assert_eq!(one("SELECT count(*) FROM residents WHERE note <> '虚构数据'"), 0);
        assert_eq!(one("SELECT count(*) FROM residents WHERE updated_at >= '2026-01-01 12:00:00'"), 0);
        let (updated, inserted) = change(&path).unwrap();
        assert_eq!(one("SELECT count(*) FROM residents WHERE updated_at > '2026-01-02'"), updated + inserted);
        assert_eq!(one("SELECT count(*) FROM residents"), 130_000 + inserted);
        let key = tamper(&path).unwrap();
        assert_eq!(
            one(&format!("SELECT count(*) FROM residents WHERE resident_id = '{key}' AND housing_area = 999.99")),
            1
        );
    }
}
