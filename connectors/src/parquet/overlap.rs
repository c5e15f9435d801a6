//! Rows that an incremental run reads again because they may have come late: as many as stand already, equal
//! in all columns, are left out of the staged files. Rows are known by their hash with its count; standing rows
//! are looked at in portions, so that memory does not grow with the table.

use super::files::{self, Fault, Part, PartWriter};
use posthouse_protocol::batch::Batch;
use posthouse_protocol::digest::Digester;
use posthouse_protocol::schema::Contract;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Writes the staged parts into `clean` without the rows that stand already; how many those were. Where there
/// are none, `clean` is not made.
pub(super) fn without(
    contract: &Contract,
    mark: &str,
    staged: &[Part],
    standing: &[Part],
    clean: &Path,
) -> Result<u64, Fault> {
    let Some(mark) = contract.position(mark) else { return Ok(0) };
    let near = near(contract, mark, staged, standing)?;
    let mut rows = 0;
    for part in &near {
        rows += part.rows()?;
    }
    let portions = rows.div_ceil(PORTION_ROWS);
    let mut gone: Vec<Vec<bool>> = Vec::new();
    for part in staged {
        gone.push(vec![false; usize::try_from(part.rows()?).unwrap_or(0)]);
    }
    let mut dropped = 0;
    for portion in 0..portions {
        let mut stand: BTreeMap<[u8; 32], u64> = BTreeMap::new();
        for part in &near {
            each_hash(part, contract, |_, hash| {
                if portion_of(&hash, portions) == portion {
                    *stand.entry(hash).or_default() += 1;
                }
            })?;
        }
        for (part, gone) in staged.iter().zip(&mut gone) {
            each_hash(part, contract, |row, hash| {
                if let (Some(copies), Some(gone)) =
                    (stand.get_mut(&hash).filter(|copies| **copies > 0), gone.get_mut(row))
                {
                    (*copies, *gone) = (*copies - 1, true);
                    dropped += 1;
                }
            })?;
        }
    }
    if dropped > 0 {
        files::make(clean)?;
        for (part, gone) in staged.iter().zip(&gone) {
            rewrite(part, contract, gone, clean)?;
        }
    }
    Ok(dropped)
}

/// Standing parts that can hold a row of the staged ones: by their largest mark, where statistics tell it.
fn near(contract: &Contract, mark: usize, staged: &[Part], standing: &[Part]) -> Result<Vec<Part>, Fault> {
    let mut least: Option<i64> = None;
    for part in staged {
        for batch in part.read(contract)? {
            let batch = checked(part, contract, batch?)?;
            for row in 0..batch.rows() {
                // Marks without a number, and rows without a mark, may stand anywhere.
                let Some(number) = files::number_of(&batch.value(mark, row)) else { return Ok(standing.to_vec()) };
                least = Some(least.map_or(number, |least| least.min(number)));
            }
        }
    }
    let Some(least) = least else { return Ok(Vec::new()) };
    let mut near = Vec::new();
    for part in standing {
        if part.max(contract, mark)?.is_none_or(|max| max >= least) {
            near.push(part.clone());
        }
    }
    Ok(near)
}

fn each_hash(part: &Part, contract: &Contract, mut take: impl FnMut(usize, [u8; 32])) -> Result<(), Fault> {
    // Both sides are this folder's own, so any key serves.
    let mut digester = Digester::new([0; 32]);
    let mut first = 0;
    for batch in part.read(contract)? {
        let batch = checked(part, contract, batch?)?;
        let hashed = digester.each(&batch, |row| take(first + row.row, row.hash));
        hashed.map_err(|e| Fault::Other(part.path.clone(), e.to_string()))?;
        first += batch.rows();
    }
    Ok(())
}

fn rewrite(part: &Part, contract: &Contract, gone: &[bool], clean: &Path) -> Result<(), Fault> {
    let name = part.path.file_name().map(PathBuf::from).unwrap_or_default();
    let mut writer = PartWriter::create(&clean.join(name), contract)?;
    let mut first = 0;
    for batch in part.read(contract)? {
        let batch = batch?;
        let keep: Vec<bool> = (0..batch.num_rows()).map(|row| gone.get(first + row) != Some(&true)).collect();
        first += batch.num_rows();
        writer.write(&files::keep(&batch, &keep)?)?;
    }
    writer.finish()
}

fn checked(part: &Part, contract: &Contract, batch: arrow::record_batch::RecordBatch) -> Result<Batch, Fault> {
    Batch::new(contract, batch).map_err(|e| Fault::Other(part.path.clone(), e.to_string()))
}

fn portion_of(hash: &[u8; 32], portions: u64) -> u64 {
    let [a, b, c, d, ..] = *hash;
    u64::from(u32::from_le_bytes([a, b, c, d])) % portions.max(1)
}

const PORTION_ROWS: u64 = 1_000_000;
