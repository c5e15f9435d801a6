//! Parquet files and the folders they are in: written beside their name, synced, then renamed. A reader of a
//! standing file bounds what its foot declares before it is read.

use crate::{Applied, types};
use arrow::array::BooleanArray;
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use posthouse_protocol::batch::{arrow_schema, arrow_type};
use posthouse_protocol::limits::{BATCH_ROWS, SPLIT_ROWS};
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::schema::{Contract, ContractType};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// What went wrong, and where.
#[derive(Debug)]
pub(super) enum Fault {
    Io(PathBuf, io::Error),
    Other(PathBuf, String),
}

impl Fault {
    pub(super) fn problem(self, folder: &Path) -> Problem {
        match self {
            Self::Io(path, e) if e.kind() == io::ErrorKind::StorageFull => {
                Problem::new(Code::DiskFull).with("path", path.display()).cause(e)
            }
            Self::Io(path, e) => Problem::new(Code::StorageFailed).with("path", path.display()).cause(e),
            Self::Other(path, what) => {
                let problem = Problem::new(Code::DestinationFailed).with("target", folder.display());
                problem.with("file", path.display()).cause(what)
            }
        }
    }
}

fn io(path: &Path) -> impl Fn(io::Error) -> Fault {
    let path = path.to_owned();
    move |e| Fault::Io(path.clone(), e)
}

fn of_parquet(path: &Path, error: ParquetError) -> Fault {
    match error {
        ParquetError::External(inner) => match inner.downcast::<io::Error>() {
            Ok(e) => Fault::Io(path.to_owned(), *e),
            Err(e) => Fault::Other(path.to_owned(), e.to_string()),
        },
        other => Fault::Other(path.to_owned(), other.to_string()),
    }
}

/// One Parquet file that stands or is staged.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Part {
    pub(super) path: PathBuf,
}

impl Part {
    fn open(&self) -> Result<ParquetRecordBatchReaderBuilder<File>, Fault> {
        let fault = io(&self.path);
        let mut file = File::open(&self.path).map_err(&fault)?;
        let mut foot = [0u8; 8];
        file.seek(SeekFrom::End(-8)).map_err(&fault)?;
        file.read_exact(&mut foot).map_err(&fault)?;
        let [a, b, c, d, magic @ ..] = foot;
        let bytes = u32::from_le_bytes([a, b, c, d]);
        if magic != *b"PAR1" || bytes > META_BYTES_MAX {
            return Err(Fault::Other(self.path.clone(), format!("its foot declares {bytes} bytes of metadata")));
        }
        ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| of_parquet(&self.path, e))
    }
    pub(super) fn rows(&self) -> Result<u64, Fault> {
        Ok(u64::try_from(self.open()?.metadata().file_metadata().num_rows()).unwrap_or(0))
    }
    /// The file's columns as text where they are not the contract's.
    pub(super) fn other_than(&self, contract: &Contract) -> Result<Option<String>, Fault> {
        let reader = self.open()?;
        let fields = reader.schema().fields();
        let same = fields.len() == contract.items.len()
            && contract.items.iter().all(|item| {
                fields.iter().any(|field| field.name() == &item.name && *field.data_type() == arrow_type(item.r#type))
            });
        let text = || fields.iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect::<Vec<_>>();
        Ok(if same { None } else { Some(text().join(", ")) })
    }
    /// Its rows with the contract's schema.
    pub(super) fn read(
        &self,
        contract: &Contract,
    ) -> Result<impl Iterator<Item = Result<RecordBatch, Fault>> + use<>, Fault> {
        let reader = self.open()?.with_batch_size(BATCH_ROWS).build().map_err(|e| of_parquet(&self.path, e))?;
        let (path, schema, names) = (self.path.clone(), arrow_schema(contract), names(contract));
        Ok(reader.map(move |batch| {
            let wrong = |what: String| Fault::Other(path.clone(), what);
            let batch = batch.map_err(|e| wrong(e.to_string()))?;
            let column = |name: &String| {
                batch.column_by_name(name).cloned().ok_or_else(|| wrong(format!("it has no column `{name}`")))
            };
            let columns = names.iter().map(column).collect::<Result<Vec<_>, _>>()?;
            RecordBatch::try_new(schema.clone(), columns).map_err(|e| wrong(e.to_string()))
        }))
    }
    /// The largest value of a column of numbers by the file's statistics; none where they do not say.
    pub(super) fn max(&self, contract: &Contract, column: usize) -> Result<Option<i64>, Fault> {
        use parquet::file::statistics::Statistics;
        let Some(item) = contract.items.get(column) else { return Ok(None) };
        if !matches!(item.r#type, ContractType::Integer | ContractType::Timestamp | ContractType::Date) {
            return Ok(None);
        }
        let reader = self.open()?;
        let Some(index) = reader.schema().fields().iter().position(|field| field.name() == &item.name) else {
            return Ok(None);
        };
        let mut largest = None;
        for group in reader.metadata().row_groups() {
            let statistics = group.columns().get(index).and_then(|column| column.statistics());
            let value = match statistics {
                // A NULL has no place in the order, so a file that has one is always read.
                Some(statistics) if statistics.null_count_opt() != Some(0) => None,
                Some(Statistics::Int64(values)) => values.max_opt().copied(),
                Some(Statistics::Int32(values)) => values.max_opt().copied().map(i64::from),
                _ => None,
            };
            let Some(value) = value else { return Ok(None) };
            largest = largest.max(Some(value));
        }
        Ok(largest)
    }
}

fn names(contract: &Contract) -> Vec<String> {
    contract.items.iter().map(|item| item.name.clone()).collect()
}

/// Writes one file under another name first.
pub(super) struct PartWriter {
    path: PathBuf,
    temporary: PathBuf,
    writer: ArrowWriter<File>,
}

impl PartWriter {
    pub(super) fn create(path: &Path, contract: &Contract) -> Result<Self, Fault> {
        let temporary = path.with_extension("tmp");
        let file = File::create(&temporary).map_err(io(&temporary))?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_row_count(Some(SPLIT_ROWS as usize))
            .set_created_by("posthouse".to_owned())
            .build();
        let writer = ArrowWriter::try_new(file, arrow_schema(contract), Some(properties));
        let writer = writer.map_err(|e| of_parquet(path, e))?;
        Ok(Self { path: path.to_owned(), temporary, writer })
    }
    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<(), Fault> {
        self.writer.write(batch).map_err(|e| of_parquet(&self.path, e))?;
        // Wide rows would otherwise gather in memory until the group has all its rows.
        if self.writer.memory_size() > GROUP_BYTES_MAX {
            self.writer.flush().map_err(|e| of_parquet(&self.path, e))?;
        }
        Ok(())
    }
    /// The file under its name, durable.
    pub(super) fn finish(self) -> Result<(), Fault> {
        let file = self.writer.into_inner().map_err(|e| of_parquet(&self.path, e))?;
        file.sync_all().map_err(io(&self.path))?;
        rename(&self.temporary, &self.path)
    }
}

/// What is known of a staged split.
#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct Note {
    split: String,
    root: String,
    pub(super) landed: u64,
    pub(super) node_epoch: u64,
}

impl Note {
    pub(super) fn new(split: &str, root: [u8; 32], landed: u64, node_epoch: u64) -> Self {
        Self { split: split.to_owned(), root: hex::encode(root), landed, node_epoch }
    }
    pub(super) fn applied(self) -> Option<Applied> {
        let mut root = [0; 32];
        hex::decode_to_slice(&self.root, &mut root).ok()?;
        Some(Applied { split: self.split, root, landed: self.landed, quarantined: 0 })
    }
}

/// A split's name as a file name: the same for the same split.
pub(super) fn short(split: &str) -> String {
    blake3::hash(split.as_bytes()).to_hex().as_str().get(..24).unwrap_or_default().to_owned()
}

/// Rows for which `keep` says so.
pub(super) fn keep(batch: &RecordBatch, keep: &[bool]) -> Result<RecordBatch, Fault> {
    let mask = BooleanArray::from(keep.to_vec());
    let kept = arrow::compute::filter_record_batch(batch, &mask);
    kept.map_err(|e| Fault::Other(PathBuf::new(), e.to_string()))
}

/// Parquet files of a folder by name; none where there is no folder.
pub(super) fn parts(folder: &Path) -> Result<Vec<Part>, Fault> {
    Ok(listing(folder, ".parquet")?.into_iter().map(|path| Part { path }).collect())
}

/// Names within a folder that end so, sorted.
pub(super) fn listing(folder: &Path, end: &str) -> Result<Vec<PathBuf>, Fault> {
    let keep = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.ends_with(end));
    Ok(entries(folder)?.into_iter().filter(keep).collect())
}

/// Folders of published transfers, sorted.
pub(super) fn folders(folder: &Path) -> Result<Vec<PathBuf>, Fault> {
    let keep = |path: &PathBuf| {
        let hidden = path.file_name().and_then(|name| name.to_str()).is_none_or(|name| name.starts_with(['.', '_']));
        !hidden && path.is_dir()
    };
    Ok(entries(folder)?.into_iter().filter(keep).collect())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, Fault> {
    let listing = match std::fs::read_dir(folder) {
        Ok(listing) => listing,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Fault::Io(folder.to_owned(), e)),
    };
    let mut paths = Vec::new();
    for entry in listing {
        paths.push(entry.map_err(io(folder))?.path());
    }
    paths.sort();
    Ok(paths)
}

pub(super) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, Fault> {
    match std::fs::read(path) {
        Ok(bytes) => match serde_json::from_slice(&bytes) {
            Ok(value) => Ok(Some(value)),
            Err(e) => Err(Fault::Other(path.to_owned(), e.to_string())),
        },
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(Fault::Io(path.to_owned(), e)),
    }
}

/// The note under its name, durable.
pub(super) fn write_json<T: serde::Serialize>(path: &Path, value: &T) -> Result<(), Fault> {
    let temporary = path.with_extension("tmp");
    let text = serde_json::to_vec(value).map_err(|e| Fault::Other(path.to_owned(), e.to_string()))?;
    let mut file = File::create(&temporary).map_err(io(&temporary))?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(io(&temporary))?;
    rename(&temporary, path)
}

/// Renames, and syncs the folder the new name is in.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), Fault> {
    std::fs::rename(from, to).map_err(io(to))?;
    to.parent().map_or(Ok(()), sync_folder)
}

pub(super) fn make(folder: &Path) -> Result<(), Fault> {
    std::fs::create_dir_all(folder).map_err(io(folder))?;
    folder.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or(Ok(()), sync_folder)
}

pub(super) fn remove(folder: &Path) -> Result<(), Fault> {
    match std::fs::remove_dir_all(folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Fault::Io(folder.to_owned(), e)),
        _ => Ok(()),
    }
}

pub(super) fn sync_folder(folder: &Path) -> Result<(), Fault> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io(folder))
}

/// The watermark as a number, as statistics have it.
pub(super) fn number_of(mark: &posthouse_protocol::batch::Value<'_>) -> Option<i64> {
    use posthouse_protocol::batch::Value;
    match mark {
        Value::Integer(value) | Value::Timestamp(value) => Some(*value),
        Value::Date(days) => Some(i64::from(*days)),
        _ => types::watermark_of(mark).and(None),
    }
}

const META_BYTES_MAX: u32 = 64 << 20;
const GROUP_BYTES_MAX: usize = 32 << 20;
