//! The suite on Parquet files, and what others see of them.

use super::*;
use crate::contract::{Bench, Rows, item, land, landing, people, small};
use crate::{Source, TableSpec};
use posthouse_protocol::batch::{BatchBuilder, Value};
use posthouse_protocol::schema::{Contract, ContractType};

struct ParquetBench(tempfile::TempDir);

impl ParquetBench {
    fn folder(&self) -> PathBuf {
        self.0.path().join("landing")
    }
}

impl Bench for ParquetBench {
    const KEYED: bool = false;
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
    fn destination(&self, landing: &Landing) -> Result<Box<dyn Destination>, Problem> {
        destination(&self.folder(), landing)
    }
    fn source(&self, _: &TableSpec) -> Option<Box<dyn Source>> {
        None
    }
    fn make_strict(&self, _: &str, _: &Contract, _: &str) -> bool {
        false
    }
    fn lose(&self) {
        std::fs::remove_dir_all(self.folder()).unwrap();
        std::fs::write(self.folder(), b"a file where the folder was").unwrap();
    }
}

crate::contract::suite!(ParquetBench);

#[test]
fn what_is_not_published_has_a_hidden_name() {
    let bench = ParquetBench::new();
    let contract = small();
    let one = landing(1, Write::Append, &contract);
    land(&bench, &one, people(&contract, &[(1, "王", 1)]));
    let two = landing(2, Write::Append, &contract);
    let mut destination = bench.destination(&two).unwrap();
    destination.prepare().unwrap();
    destination.stage("a", [1; 32], &mut [Ok(people(&contract, &[(2, "李", 2)]))].into_iter()).unwrap();
    let visible = |folder: &Path| {
        let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| !name.starts_with('.')).collect::<Vec<_>>()
    };
    assert_eq!(visible(&bench.folder()), ["suite"]);
    assert_eq!(visible(&bench.folder().join("suite")), [one.transfer.as_str()]);
    destination.publish().unwrap();
    assert_eq!(visible(&bench.folder().join("suite")).len(), 2);
    assert_eq!(std::fs::read_dir(bench.folder()).unwrap().count(), 1, "nothing of the staging is left");
}

#[test]
fn a_kill_at_each_step_of_publishing_ends_in_one_publication() {
    for write in [Write::Append, Write::Replace] {
        let bench = ParquetBench::new();
        let contract = small();
        land(&bench, &landing(1, Write::Append, &contract), people(&contract, &[(1, "王", 1), (2, "李", 2)]));
        let mut two = landing(2, write, &contract);
        two.watermark_column = Some("seen".to_owned());
        let mut destination = bench.destination(&two).unwrap();
        destination.prepare().unwrap();
        destination
            .stage("a", [1; 32], &mut [Ok(people(&contract, &[(2, "李", 2), (3, "赵", 3)]))].into_iter())
            .unwrap();
        drop(destination);
        // Killed after the new folder was complete and before it was renamed.
        let staging = bench.folder().join(format!(".posthouse-{}", two.transfer));
        let mut killed = ParquetDestination {
            folder: bench.folder(),
            job: bench.folder().join("suite"),
            staging: staging.clone(),
            landing: two.clone(),
        };
        let complete = killed.complete().unwrap();
        let ready = if staging.join("clean").is_dir() { staging.join("clean") } else { staging.join("rows") };
        files::write_json(&ready.join(NOTE), &complete).unwrap();
        files::make(&killed.coming()).unwrap();
        files::rename(&ready, &killed.landed_in(&killed.coming())).unwrap();
        assert_eq!(killed.published().unwrap(), None);
        let mut destination = bench.destination(&two).unwrap();
        destination.prepare().unwrap();
        assert_eq!(destination.publish().unwrap(), complete);
        assert_eq!(destination.publish().unwrap(), complete);
        let mut rows = Rows::default();
        destination.read_standing(None, &mut rows).unwrap();
        assert_eq!(rows.count(), if write == Write::Append { 3 } else { 2 });
    }
}

#[test]
fn a_decimal_with_zeros_that_are_not_written_is_refused_by_name() {
    let bench = ParquetBench::new();
    let mut contract = small();
    contract.items.push(item("thousands", ContractType::Decimal { precision: 5, scale: -3 }));
    let refused = bench.destination(&landing(1, Write::Append, &contract)).err().unwrap();
    assert_eq!(refused.code, Code::TypeUnsupported);
    assert!(format!("{:?}", refused.facts).contains("thousands"), "{refused}");
    assert!(!bench.folder().exists());
}

#[test]
fn a_foot_that_declares_too_much_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("part-x.parquet");
    std::fs::write(&path, [&b"PAR1"[..], &u32::MAX.to_le_bytes(), b"PAR1"].concat()).unwrap();
    assert!(files::Part { path }.rows().is_err());
}

#[test]
fn a_decimal_that_a_file_has_no_form_for_is_refused_before_anything_is_staged() {
    let bench = ParquetBench::new();
    let contract = |scale| {
        let item = crate::contract::item("round", ContractType::Decimal { precision: 5, scale });
        Contract { items: vec![item], key: vec![] }
    };
    let refused = bench.destination(&landing(1, Write::Append, &contract(-3))).err().unwrap();
    assert_eq!(refused.code, Code::TypeUnsupported);
    assert!(format!("{:?}", refused.facts).contains("round"), "{refused}");
    assert!(!bench.folder().exists());
    // Others are there as they are.
    let contract = contract(0);
    let mut builder = BatchBuilder::new(&contract);
    builder.push(&[Value::Decimal(-99_999, 0)]).unwrap();
    assert_eq!(land(&bench, &landing(2, Write::Append, &contract), builder.finish().unwrap()).rows, 1);
}
