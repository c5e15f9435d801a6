//! Small cases: one file of 64 MiB, 2,000 small files, one table of 200,000 rows.

use crate::files::same;
use crate::measure::{Run, measured};
use crate::report::{Case, Suite, machine};
use crate::site::Site;
use anyhow::{bail, ensure};
use std::io::Write;
use std::path::Path;
use std::process::Command;

const ROWS: u64 = 200_000;

pub fn run(program: &Path, cases: &[String], runs: u32) -> anyhow::Result<Suite> {
    let known = ["random-64m", "small-2k", "sqlite-sqlite-200k"];
    if let Some(unknown) = cases.iter().find(|case| !known.contains(&case.as_str())) {
        bail!("the suite smoke has no case `{unknown}`; it has: {}", known.join(", "));
    }
    let data = tempfile::Builder::new().prefix("posthouse-bench-data-").tempdir()?;
    let mut result = Suite::new("smoke", machine());
    for case in known {
        if !cases.is_empty() && !cases.iter().any(|wanted| wanted == case) {
            continue;
        }
        let source = data.path().join(case);
        std::fs::create_dir_all(&source)?;
        match case {
            "random-64m" => folder_case(program, case, runs, &source, 1, 64 << 20, &mut result)?,
            "small-2k" => folder_case(program, case, runs, &source, 2000, 20_000, &mut result)?,
            _ => table_case(program, case, runs, &source, &mut result)?,
        }
    }
    Ok(result)
}

fn folder_case(
    program: &Path,
    case: &str,
    runs: u32,
    source: &Path,
    files: u64,
    size: u64,
    result: &mut Suite,
) -> anyhow::Result<()> {
    let mut noise = blake3::Hasher::new().update(case.as_bytes()).finalize_xof();
    let mut content = vec![0; usize::try_from(size)?];
    for number in 0..files {
        noise.fill(&mut content);
        let folder = source.join(format!("{:03}", number / 100));
        std::fs::create_dir_all(&folder)?;
        std::fs::File::create(folder.join(format!("{number:06}")))?.write_all(&content)?;
    }
    let mut ours: Vec<Run> = Vec::new();
    let mut copied: Vec<Run> = Vec::new();
    for _ in 0..runs {
        let provider = format!("[[resource]]\nid = \"data\"\nfolder = \"{}\"\n", source.display());
        let consumer = "[[job]]\nname = \"data\"\nresource = \"provider.bench.example/data\"\ninto = { folder = \"{dir}/inbox\" }\nmode = \"full\"\nwrite = \"upsert\"\nschedule = \"manual\"\n";
        let site = Site::start(program, &provider, consumer, &["data"])?;
        let pids = site.pids();
        let mut end = serde_json::Value::Null;
        ours.push(measured(None, &pids, || {
            end = site.take("data")?;
            Ok(())
        })?);
        ensure!(end["state"] == "settled", "{end}");
        same(source, Path::new(&site.path("inbox")))?;

        let target = tempfile::tempdir()?;
        copied.push(measured(None, &[], || {
            let status = Command::new("cp").arg("-r").arg(source).arg(target.path().join("copy")).status()?;
            ensure!(status.success(), "cp failed");
            // Durable, as the other subject's is; by a process of its own, whose CPU is counted.
            let status = Command::new("sync").arg("-f").arg(target.path()).status()?;
            ensure!(status.success(), "sync failed");
            Ok(())
        })?);
        same(source, &target.path().join("copy"))?;
    }
    let bytes = files * size;
    for (subject, runs, note) in [
        ("posthouse", ours, "verified, synced, receipted; both ends on this machine"),
        ("cp", copied, "cp -r and sync -f; no network, verifies nothing"),
    ] {
        result.cases.push(Case {
            case: case.to_owned(),
            subject: subject.to_owned(),
            bytes,
            rows: None,
            runs,
            line: None,
            note: note.to_owned(),
        });
    }
    Ok(())
}

fn table_case(program: &Path, case: &str, runs: u32, source: &Path, result: &mut Suite) -> anyhow::Result<()> {
    let path = source.join("source.db");
    let mut database = rusqlite::Connection::open(&path)?;
    database.execute_batch("CREATE TABLE person (id INTEGER PRIMARY KEY, name TEXT NOT NULL, id_card TEXT, born DATE, balance DECIMAL(12,2), note TEXT)")?;
    let transaction = database.transaction()?;
    {
        let mut insert = transaction.prepare("INSERT INTO person VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
        for id in 0..ROWS {
            let number = i64::try_from(id)?;
            insert.execute(rusqlite::params![
                number,
                format!("测试{id}"),
                format!("{:018}", id * 7919),
                format!("19{:02}-{:02}-{:02}", id % 100, id % 12 + 1, id % 28 + 1),
                format!("{}.{:02}", id % 100_000, id % 100),
                format!("备注 {}", id.wrapping_mul(2_654_435_761)),
            ])?;
        }
    }
    transaction.commit()?;
    let bytes: u64 = std::fs::metadata(&path)?.len();
    let rows = |path: &Path| -> anyhow::Result<String> {
        let database = rusqlite::Connection::open(path)?;
        Ok(database.query_row(
            "SELECT count(*) || ' ' || sum(id) || ' ' || sum(length(name) + length(note)) || ' ' || total(balance) FROM person",
            [],
            |row| row.get(0),
        )?)
    };
    let mut ours = Vec::new();
    for _ in 0..runs {
        let provider = format!(
            "[connection.db]\nkind = \"sqlite\"\npath = \"{}\"\n\n[[resource]]\nid = \"person\"\nconnection = \"db\"\ntable = \"person\"\nkey = [\"id\"]\n",
            path.display()
        );
        let consumer = "[connection.db]\nkind = \"sqlite\"\npath = \"{dir}/target.db\"\n\n[[job]]\nname = \"person\"\nresource = \"provider.bench.example/person\"\ninto = { connection = \"db\", table = \"person\" }\nmode = \"full\"\nwrite = \"replace\"\nschedule = \"manual\"\n";
        let site = Site::start(program, &provider, consumer, &["person"])?;
        let pids = site.pids();
        let mut end = serde_json::Value::Null;
        ours.push(measured(None, &pids, || {
            end = site.take("person")?;
            Ok(())
        })?);
        ensure!(end["state"] == "settled", "{end}");
        ensure!(rows(&path)? == rows(Path::new(&site.path("target.db")))?, "the table differs");
    }
    result.cases.push(Case {
        case: case.to_owned(),
        subject: "posthouse".to_owned(),
        bytes,
        rows: Some(ROWS),
        runs: ours,
        line: None,
        note: "bytes are those of the source's database file".to_owned(),
    });
    Ok(())
}
