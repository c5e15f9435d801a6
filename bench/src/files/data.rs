//! What the suites carry as files. The same on all machines: everything follows from a case's name and a number.

use crate::dice::Dice;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What lies in a case's folder.
#[derive(Debug, Clone, Copy)]
pub enum Data {
    /// One file that no one can make shorter, of so many bytes.
    Random(u64),
    /// One file of text rows as a department exports them; zstd makes it about a quarter.
    Csv(u64),
    /// So many files of 1 to 50 KiB, by turns text and noise, 200 a folder.
    Small(u64),
    /// So many files of 1 KiB, 200 a folder.
    Tiny(u64),
    /// One file of so many bytes, nearly all of it a hole.
    Sparse(u64),
    /// `Random` of so many bytes after edits; an older version, without them, lies where it is to come to lie.
    Changed(u64, Edits),
}

/// So many edits in a file, at random places that are aligned to nothing.
#[derive(Debug, Clone, Copy)]
pub struct Edits {
    pub count: u64,
    pub bytes: u64,
    /// Half of them overwrite, a quarter inserts, a quarter deletes; otherwise all overwrite.
    pub moves: bool,
}

impl Data {
    /// Makes it below a folder and syncs it; gives the number of bytes.
    pub fn make(self, folder: &Path) -> anyhow::Result<u64> {
        let bytes = match self {
            Self::Random(bytes) => noise(&folder.join("data.bin"), bytes)?,
            Self::Csv(bytes) => csv(&folder.join("data.csv"), bytes)?,
            Self::Small(files) => many(folder, files, |dice, rows, content| {
                let share = (dice.roll() >> 11) as f64 / (1u64 << 53) as f64;
                let length = (1024.0 + share * share * 15_000.0 + share * 34_000.0) as usize;
                match dice.roll() % 2 {
                    0 => text(content, length, rows, dice),
                    _ => dice.fill(content, length),
                }
            })?,
            Self::Tiny(files) => many(folder, files, |dice, _, content| dice.fill(content, 1024))?,
            Self::Sparse(bytes) => sparse(&folder.join("data.bin"), bytes)?,
            Self::Changed(bytes, edits) => changed(&folder.join("data.bin"), bytes, edits)?,
        };
        rustix::fs::syncfs(File::open(folder)?)?;
        Ok(bytes)
    }
}

impl Data {
    /// What lies in the target before each run, if anything.
    pub fn older(self) -> Option<Self> {
        if let Self::Changed(bytes, _) = self { Some(Self::Random(bytes)) } else { None }
    }
}

/// What `noise` makes, with edits.
fn changed(path: &Path, bytes: u64, edits: Edits) -> anyhow::Result<u64> {
    let (mut dice, mut fresh) = (Dice::new(bytes), Dice::new(edits.bytes));
    let mut places: Vec<u64> = (0..edits.count).map(|_| dice.below(bytes - edits.bytes)).collect();
    places.sort_unstable();
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut old = blake3::Hasher::new().update(b"files").finalize_xof();
    let mut written = 0;
    let mut block = Vec::new();
    for (number, place) in (0u64..).zip(places) {
        // One that begins within the edit before it begins where that ends.
        let place = place.max(old.position());
        written += part_of(&mut old, place, &mut file)?;
        let (inserts, deletes) = (edits.moves && number % 4 == 1, edits.moves && number % 4 == 3);
        if !inserts {
            old.set_position((old.position() + edits.bytes).min(bytes));
        }
        if !deletes {
            fresh.fill(&mut block, usize::try_from(edits.bytes)?);
            file.write_all(&block)?;
            written += edits.bytes;
        }
    }
    written += part_of(&mut old, bytes, &mut file)?;
    file.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
    Ok(written)
}

/// Copies up to a place of it; gives how much that was.
fn part_of(old: &mut blake3::OutputReader, end: u64, into: &mut impl Write) -> anyhow::Result<u64> {
    let mut block = vec![0; 1 << 20];
    let bytes = end - old.position();
    while old.position() < end {
        let part = usize::try_from(end - old.position())?.min(block.len());
        old.fill(&mut block[..part]);
        into.write_all(&block[..part])?;
    }
    Ok(bytes)
}

/// Bytes that no one can make shorter.
fn noise(path: &Path, bytes: u64) -> anyhow::Result<u64> {
    let mut file = File::create(path)?;
    let mut noise = blake3::Hasher::new().update(b"files").finalize_xof();
    let (mut block, mut rest) = (vec![0; 1 << 20], bytes);
    while rest > 0 {
        let part = usize::try_from(rest)?.min(block.len());
        noise.fill(&mut block[..part]);
        file.write_all(&block[..part])?;
        rest -= part as u64;
    }
    file.sync_all()?;
    Ok(bytes)
}

fn sparse(path: &Path, bytes: u64) -> anyhow::Result<u64> {
    let file = File::create(path)?;
    file.set_len(bytes)?;
    let (mut dice, mut block) = (Dice::new(bytes), Vec::new());
    for _ in 0..8 {
        dice.fill(&mut block, 1 << 20);
        file.write_all_at(&block, dice.below(bytes - (1 << 20)))?;
    }
    file.sync_all()?;
    Ok(bytes)
}

fn csv(path: &Path, bytes: u64) -> anyhow::Result<u64> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let (mut dice, mut rows, mut rest, mut block) = (Dice::new(1), 0, bytes, Vec::new());
    while rest > 0 {
        let part = usize::try_from(rest)?.min(1 << 20);
        text(&mut block, part, &mut rows, &mut dice);
        file.write_all(&block)?;
        rest -= part as u64;
    }
    file.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
    Ok(bytes)
}

fn many(folder: &Path, files: u64, mut content: impl FnMut(&mut Dice, &mut u64, &mut Vec<u8>)) -> anyhow::Result<u64> {
    let (mut rows, mut bytes, mut block) = (0, 0, Vec::new());
    for number in 0..files {
        let inner = folder.join(format!("d{:05}", number / 200));
        if number % 200 == 0 {
            std::fs::create_dir(&inner)?;
        }
        content(&mut Dice::new(number + 1), &mut rows, &mut block);
        std::fs::write(inner.join(format!("f{number:07}")), &block)?;
        bytes += block.len() as u64;
    }
    Ok(bytes)
}

/// Rows of an export up to a length; the last one is cut off.
fn text(into: &mut Vec<u8>, length: usize, rows: &mut u64, dice: &mut Dice) {
    let mut lines = String::with_capacity(length + 256);
    while lines.len() < length {
        *rows += 1;
        let (id, one, two) = (*rows, dice.roll(), dice.roll());
        let pick = |of: &[&'static str], by: u64| of[(by % of.len() as u64) as usize];
        let _ = writeln!(
            lines,
            "{},{:06}19{:02}{:02}{:02}{:04},测试{}{},{}{}{}号,{},{},2026-{:02}-{:02} {:02}:{:02}:{:02},{}.{:02}",
            9_900_000_000 + id,
            990_100 + one % 80,
            (one >> 8) % 60 + 40,
            (one >> 16) % 12 + 1,
            (one >> 24) % 28 + 1,
            (one >> 32) % 10_000,
            pick(&["甲", "乙", "丙", "丁", "戊", "己", "庚", "辛", "壬", "癸"], one >> 40),
            pick(&["一", "二", "三", "四", "五", "六", "七", "八", "九", "十"], one >> 48),
            pick(&["杭州市", "宁波市", "温州市", "嘉兴市", "湖州市", "绍兴市", "金华市", "衢州市"], two),
            pick(&["解放路", "人民东路", "中山北路", "建设街", "文化路", "滨江大道", "学院路", "和平街"], two >> 4),
            (two >> 8) % 900 + 1,
            pick(
                &["企业设立登记", "社会保险登记", "不动产转移登记", "道路运输经营许可", "食品经营许可", "户口迁移"],
                two >> 20,
            ),
            pick(&["已受理", "审核中", "已办结", "已办结", "已办结", "退回补正"], two >> 24),
            (id >> 20) % 12 + 1,
            (id >> 15) % 28 + 1,
            (id >> 10) % 24,
            (id >> 4) % 60,
            (two >> 28) % 60,
            (two >> 36) % 50_000,
            (two >> 56) % 100,
        );
    }
    into.clear();
    into.extend_from_slice(&lines.as_bytes()[..length]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_the_same_each_time_and_of_the_size_that_is_told() {
        let edits = Edits { count: 8, bytes: 10_000, moves: true };
        let changed = Data::Changed(3 << 20, edits);
        for data in [
            Data::Random(3 << 20),
            Data::Csv((2 << 20) + 7),
            Data::Small(450),
            Data::Tiny(201),
            changed,
            Data::Sparse(9 << 20),
        ] {
            let made = [(); 2].map(|()| {
                let folder = tempfile::tempdir().expect("a folder");
                let bytes = data.make(folder.path()).expect("data");
                let mut found = Vec::new();
                let mut open = vec![folder.path().to_owned()];
                while let Some(inner) = open.pop() {
                    for entry in std::fs::read_dir(&inner).expect("a folder") {
                        let path = entry.expect("an entry").path();
                        if path.is_dir() {
                            open.push(path);
                            continue;
                        }
                        let name = path.strip_prefix(folder.path()).expect("it is below").to_owned();
                        found.push((name, std::fs::read(path).expect("a file")));
                    }
                }
                found.sort();
                assert_eq!(found.iter().map(|(_, content)| content.len() as u64).sum::<u64>(), bytes, "{data:?}");
                found
            });
            assert!(made[0] == made[1], "{data:?}");
            let distinct: std::collections::BTreeSet<_> = made[0].iter().map(|(_, content)| content).collect();
            assert_eq!(distinct.len(), made[0].len(), "{data:?}: two files alike");
        }
    }
}
