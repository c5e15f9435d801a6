//! `posthouse receipt`: list, show and export what a node holds, and verify anywhere, offline.
//! Verifying reads files and computes; it asks nobody. Exit 3 on anything that does not verify, 0 while
//! the centre's proof has not come yet. What is checked, and why, is `protocol::receipt`.

use crate::render::{Screen, count, size};
use crate::{Done, Outcome};
use base64::Engine;
use posthouse_node::admin::Request;
use posthouse_platform::admin_socket::Answer;
use posthouse_protocol::manifest::Counts;
use posthouse_protocol::problem::{Code, Exit, Problem};
use posthouse_protocol::receipt::{FILES_B3, Receipt, Standing, TRUST, TrustStore, Verified, verify_export};
use posthouse_protocol::statement::{Body, Outcome as Landed, Statement};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

#[derive(clap::Subcommand)]
pub(crate) enum Verb {
    /// List the receipts of a running node, newest first
    List {
        /// The node's configuration file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Only this receipt or transfer
        id: Option<String>,
    },
    /// Show one receipt
    Show {
        /// The node's configuration file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Id of a receipt or of its transfer
        id: String,
    },
    /// Write a receipt with its parts and the trust it verifies with into a folder
    Export {
        /// The node's configuration file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Id of a receipt or of its transfer
        id: String,
        /// Folder to write into; it is made when missing, and must be empty
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Verify receipts offline: whole files, single statements, or folders written by export
    Verify {
        /// Files or folders
        #[arg(required = true, value_name = "FILE|DIR")]
        paths: Vec<PathBuf>,
        /// Folder with the keys to trust, as the managing authority gave it
        #[arg(long, value_name = "DIR")]
        trust: PathBuf,
    },
}

pub(crate) async fn run(verb: Verb, screen: &Screen) -> Outcome {
    match verb {
        Verb::List { config, id } => list(&config, id, screen).await,
        Verb::Show { config, id } => show(&config, &id, screen).await,
        Verb::Export { config, id, out } => export(&config, &id, &out, screen).await,
        Verb::Verify { paths, trust } => verify(&paths, &trust, screen),
    }
}

async fn list(config: &Path, id: Option<String>, screen: &Screen) -> Outcome {
    let (items, _) = ask(config, &Request::ReceiptList, screen).await?;
    let wanted = |item: &Value| {
        let is = |key: &str| id.as_deref().is_some_and(|id| item[key].as_str() == Some(id));
        id.is_none() || is("receipt") || is("transfer")
    };
    let items: Vec<Value> = items.into_iter().filter(wanted).collect();
    if screen.json {
        items.iter().for_each(|item| screen.object(item));
        return Ok(Done::Yes);
    }
    let text = |item: &Value, key: &str| item[key].as_str().unwrap_or("–").to_owned();
    let rows: Vec<Vec<String>> = items
        .iter()
        .map(|item| ["at", "transfer", "job", "verdict", "receipt"].map(|key| text(item, key)).to_vec())
        .collect();
    let headings = match screen.lang {
        posthouse_protocol::problem::Lang::En => ["at", "transfer", "job", "verdict", "receipt"],
        posthouse_protocol::problem::Lang::Zh => ["时间", "交换批次", "任务", "对账", "回执"],
    };
    screen.table(&headings, &rows);
    Ok(Done::Yes)
}

async fn show(config: &Path, id: &str, screen: &Screen) -> Outcome {
    let (_, done) = ask(config, &Request::ReceiptShow { id: id.to_owned() }, screen).await?;
    if screen.json {
        screen.object(&done);
    } else if let Some(fields) = done.as_object() {
        let rows: Vec<Vec<String>> = fields
            .iter()
            .map(|(name, value)| vec![name.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned)])
            .collect();
        screen.table(&[screen.say("what", "项目"), screen.say("value", "值")], &rows);
    }
    Ok(Done::Yes)
}

async fn export(config: &Path, id: &str, out: &Path, screen: &Screen) -> Outcome {
    let not_written = |e: std::io::Error| Problem::new(Code::StorageFailed).with("path", out.display()).cause(e);
    if out.exists() && std::fs::read_dir(out).map_err(not_written)?.next().is_some() {
        let what = format!("{}: {}", out.display(), screen.say("the folder is not empty", "目录不为空"));
        return Err(Problem::new(Code::UsageInvalid).with("what", what));
    }
    let (items, done) = ask(config, &Request::ReceiptExport { id: id.to_owned() }, screen).await?;
    std::fs::create_dir_all(out).map_err(not_written)?;
    // A long file comes in several pieces of one name.
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for item in &items {
        let (name, bytes) = exported_file(item).ok_or_else(|| {
            Problem::new(Code::InsideFailed).cause("the node answered with something that is no file")
        })?;
        files.entry(name).or_default().extend(bytes);
    }
    for (name, bytes) in &files {
        let path = out.join(name);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(not_written)?;
        }
        std::fs::write(&path, bytes).map_err(not_written)?;
    }
    let names: Vec<&String> = files.keys().collect();
    if screen.json {
        screen.object(&json!({"out": out, "files": names, "receipt": done["receipt"], "transfer": done["transfer"]}));
    } else {
        names.iter().for_each(|name| screen.line(out.join(name).display()));
        screen.note(screen.say(
            "verify it anywhere with `posthouse receipt verify DIR --trust DIR`, trusting keys that did not come with it",
            "可在任何地方用 `posthouse receipt verify 目录 --trust 目录` 核验；信任的密钥应来自别处，而不是随回执一同得到",
        ));
    }
    Ok(Done::Yes)
}

/// A file of an export as the node sends it. Its name must be one that stays in the folder.
fn exported_file(item: &Value) -> Option<(String, Vec<u8>)> {
    let name = item["name"].as_str()?;
    let plain = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.contains(['/', '\\', '\0']);
    if !plain(name.strip_prefix(TRUST).unwrap_or(name)) {
        return None;
    }
    let bytes = base64::engine::general_purpose::STANDARD.decode(item["base64"].as_str()?).ok()?;
    Some((name.to_owned(), bytes))
}

async fn ask(config: &Path, request: &Request, screen: &Screen) -> Result<(Vec<Value>, Value), Problem> {
    let mut answers = crate::node::ask(config, request, screen).await?;
    let mut items = Vec::new();
    loop {
        match answers.next().await? {
            Answer::Item(item) => items.push(item),
            Answer::Done(done) => return Ok((items, done)),
        }
    }
}

fn verify(paths: &[PathBuf], trust: &Path, screen: &Screen) -> Outcome {
    let mut files = BTreeMap::new();
    read_folder(trust, "", &mut files)?;
    let store = TrustStore::from_files(&files).map_err(|(name, why)| {
        Problem::new(Code::EvidenceInvalid).with("file", trust.join(name).display()).cause(why)
    })?;
    if !screen.json {
        for (whose, fingerprint) in store.fingerprints() {
            screen.note(format!("{} {whose}  SHA-256 {fingerprint}", screen.say("trusting", "信任")));
        }
    }
    let mut all_good = true;
    for path in paths {
        let warning = lies_beside(trust, path).then(|| {
            screen.say(
                "the trust lies beside the receipt: who could change the one could change the other; compare the fingerprints with those that the managing authority published",
                "信任密钥与回执放在一起：能改动其一的人也能改动其二；请与管理方公布的指纹核对",
            )
        });
        let result = verify_path(path, &store);
        if let Err(problem) = &result
            && problem.code != Code::EvidenceInvalid
        {
            return Err(problem.clone());
        }
        all_good &= result.is_ok();
        report(path, &result, &store, warning, screen);
    }
    Ok(if all_good { Done::Yes } else { Done::Exit(Exit::Difference) })
}

/// What was verified: a receipt, or one statement alone.
enum Evidence {
    Receipt(Box<Verified>),
    Statement(Box<Statement>),
}

fn verify_path(path: &Path, trust: &TrustStore) -> Result<Evidence, Problem> {
    if path.is_dir() {
        let mut files = BTreeMap::new();
        read_folder(path, "", &mut files)?;
        return verify_export(&files, trust).map(|verified| Evidence::Receipt(Box::new(verified)));
    }
    let invalid =
        |why: &dyn std::fmt::Display| Problem::new(Code::EvidenceInvalid).with("file", path.display()).cause(why);
    let bytes = read_file(path)?;
    // A statement alone is a COSE_Sign1 and begins with its tag; a receipt is an array.
    if bytes.first() == Some(&COSE_SIGN1) {
        let statement = Statement::open(&bytes, trust).map_err(|e| invalid(&e))?;
        return Ok(Evidence::Statement(Box::new(statement)));
    }
    let verified = Receipt::decode(&bytes).and_then(|receipt| receipt.verify(trust)).map_err(|e| invalid(&e))?;
    Ok(Evidence::Receipt(Box::new(verified)))
}

/// Reads a folder and its `trust/`; a folder with more in it is no export.
fn read_folder(folder: &Path, prefix: &str, files: &mut BTreeMap<String, Vec<u8>>) -> Result<(), Problem> {
    let unreadable = |e: std::io::Error| Problem::new(Code::ConfigMissing).with("file", folder.display()).cause(e);
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let (path, name) = (entry.path(), entry.file_name());
        let strange = || {
            Problem::new(Code::EvidenceInvalid).with("file", entry.path().display()).cause("it does not belong here")
        };
        let name = name.to_str().ok_or_else(strange)?;
        let kind = entry.file_type().map_err(unreadable)?;
        if kind.is_dir() && prefix.is_empty() && format!("{name}/") == TRUST {
            read_folder(&path, TRUST, files)?;
        } else if kind.is_file() && files.len() < FILES_MAX {
            files.insert(format!("{prefix}{name}"), read_file(&path)?);
        } else {
            return Err(strange());
        }
    }
    Ok(())
}

fn read_file(path: &Path) -> Result<Vec<u8>, Problem> {
    let unreadable = |e: std::io::Error| Problem::new(Code::ConfigMissing).with("file", path.display()).cause(e);
    let list = path.file_name().is_some_and(|name| name == FILES_B3);
    let max = if list { FILES_B3_BYTES_MAX } else { FILE_BYTES_MAX };
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(unreadable)?.take(max + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > max {
        let problem = Problem::new(Code::EvidenceInvalid).with("file", path.display());
        return Err(problem.cause(format!("it has more than {max} bytes")));
    }
    Ok(bytes)
}

/// Whether the folder of trust came with what it shall vouch for.
fn lies_beside(trust: &Path, path: &Path) -> bool {
    let (Ok(trust), Ok(path)) = (trust.canonicalize(), path.canonicalize()) else { return false };
    let home = if path.is_dir() { Some(path.as_path()) } else { path.parent() };
    trust.parent().is_some() && (trust.parent() == home || Some(trust.as_path()) == home)
}

fn report(path: &Path, result: &Result<Evidence, Problem>, trust: &TrustStore, warning: Option<&str>, screen: &Screen) {
    if screen.json {
        let mut object = match result {
            Ok(Evidence::Receipt(verified)) => receipt_json(verified),
            Ok(Evidence::Statement(statement)) => json!({"verified": true, "statement": statement_json(statement)}),
            Err(problem) => json!({"verified": false, "problem": {
                "code": problem.code.to_string(), "title": problem.title(screen.lang), "cause": problem.cause,
            }}),
        };
        let trusted: Vec<Value> =
            trust.fingerprints().into_iter().map(|(whose, sha256)| json!({"whose": whose, "sha256": sha256})).collect();
        object["path"] = json!(path);
        object["trusted"] = Value::Array(trusted);
        object["warning"] = json!(warning);
        screen.object(&object);
        return;
    }
    match result {
        Ok(Evidence::Receipt(verified)) => print_receipt(path, verified, screen),
        Ok(Evidence::Statement(statement)) => {
            screen.line(format!("{}  {}", path.display(), screen.say("statement verified", "陈述核验通过")));
            screen.line(format!("  {}", signed_by(statement, screen)));
        }
        Err(problem) => {
            screen.problem(problem);
        }
    }
    if let Some(warning) = warning {
        screen.note(format!("{}: {warning}", screen.say("warning", "注意")));
    }
}

fn print_receipt(path: &Path, verified: &Verified, screen: &Screen) {
    let standing = match verified.standing {
        Standing::Proven => {
            screen.say("proven: both parties signed, the centre has countersigned", "已存证：双方已签，中心已副署")
        }
        Standing::Pending => screen.say(
            "pending: both parties signed, the centre's proof has not come yet",
            "待对账（pending）：双方已签，中心的存证尚未到达",
        ),
        Standing::Unanswered => {
            screen.say("unanswered: the provider signed, the consumer has not", "未回：提供方已签，使用方尚未签收")
        }
    };
    screen.line(format!("{}  {standing}", path.display()));
    let mut rows = Vec::new();
    if let Some(id) = verified.id() {
        rows.push((screen.say("receipt", "回执"), id.to_string()));
    }
    if let Some(manifest) = verified.provider.manifest() {
        rows.push((screen.say("transfer", "交换批次"), manifest.transfer.to_string()));
        rows.push((screen.say("job", "任务"), format!("{}  {} {}", manifest.job, manifest.mode, manifest.write)));
        rows.push((screen.say("resource", "资源"), manifest.resource.to_string()));
        if !manifest.route.is_empty() {
            let route: Vec<&str> = manifest.route.iter().map(|relay| relay.as_str()).collect();
            rows.push((screen.say("via", "途经"), route.join(", ")));
        }
        rows.push((screen.say("content", "内容"), content(&manifest.counts, screen)));
        rows.push((screen.say("root", "内容根"), hex(&*manifest.content_root)));
        for governed in manifest.governed.iter().flatten() {
            let column = governed.column.as_deref().unwrap_or("*");
            rows.push((screen.say("governed", "数据治理"), format!("{column}  {}", governed.what)));
        }
        if let Some(operations) = manifest.counts.operations {
            rows.push((screen.say("operations", "操作"), operations.to_string()));
        }
        if let Some(changed) = manifest.counts.values_changed {
            let values = screen.say("values by rules", "个值按规则改动");
            rows.push((screen.say("changed", "规则改动"), format!("{} {values}", count(changed))));
        }
    }
    let (manifest, landing) = (verified.provider.manifest(), verified.consumer.as_ref().and_then(Statement::landing));
    for (whose, quality) in [
        (screen.say("qualified at the provider", "提供方合格率"), manifest.and_then(|found| found.quality.as_ref())),
        (screen.say("qualified at the consumer", "使用方合格率"), landing.and_then(|found| found.quality.as_ref())),
    ] {
        if let Some(quality) = quality {
            let rate = quality.rate_text().unwrap_or_else(|| "-".to_owned());
            rows.push((whose, format!("{rate}  ({} / {})", quality.qualified, quality.rows)));
        }
    }
    for (whose, line) in [
        (
            screen.say("provider's database line", "提供方数据库线路"),
            manifest.and_then(|found| found.database_line.as_ref()),
        ),
        (
            screen.say("consumer's database line", "使用方数据库线路"),
            landing.and_then(|found| found.database_line.as_ref()),
        ),
    ] {
        rows.extend(line.map(|line| (whose, line.clone())));
    }
    rows.push((screen.say("provider", "提供方"), signed_by(&verified.provider, screen)));
    if let Some(consumer) = &verified.consumer {
        let partly = consumer.landing().is_some_and(|landing| landing.outcome == Landed::Partly);
        let partly = if partly { screen.say("  (landed partly)", "  （部分落地）") } else { "" };
        rows.push((screen.say("consumer", "使用方"), format!("{}{partly}", signed_by(consumer, screen))));
    }
    if let (Some(inclusion), Some(checkpoint)) = (&verified.inclusion, &verified.checkpoint) {
        let text = format!("{}  #{} / {}  {}", checkpoint.origin, inclusion.index, checkpoint.size, inclusion.issued);
        rows.push((screen.say("ledger", "存证台账"), text));
    }
    for (name, value) in rows {
        screen
            .line(format!("  {name}{}{value}", " ".repeat(12usize.saturating_sub(crate::render::width(name)).max(1))));
    }
}

fn signed_by(statement: &Statement, screen: &Screen) -> String {
    format!("{}  {} {}", statement.issuer(), screen.say("signed", "签于"), statement.issued())
}

fn content(counts: &Counts, screen: &Screen) -> String {
    let (rows, files) = (counts.rows_sent, counts.files);
    let mut text = Vec::new();
    if rows > 0 || files == 0 {
        text.push(format!("{} {}", count(rows), screen.say("rows", "行")));
    }
    if files > 0 {
        text.push(format!("{} {}", count(files), screen.say("files", "个文件")));
    }
    text.push(size(counts.bytes));
    text.join(", ")
}

fn receipt_json(verified: &Verified) -> Value {
    let manifest = verified.provider.manifest();
    json!({
        "verified": true,
        "standing": verified.standing.as_str(),
        "receipt": verified.id(),
        "transfer": verified.transfer(),
        "job": manifest.map(|manifest| &manifest.job),
        "resource": manifest.map(|manifest| &manifest.resource),
        "route": manifest.map(|manifest| &manifest.route),
        "governed": manifest.and_then(|manifest| manifest.governed.as_ref()),
        "provider_quality": manifest.and_then(|manifest| manifest.quality.as_ref()),
        "consumer_quality":
            verified.consumer.as_ref().and_then(Statement::landing).and_then(|landing| landing.quality.as_ref()),
        "provider_database_line": manifest.and_then(|manifest| manifest.database_line.as_ref()),
        "consumer_database_line":
            verified.consumer.as_ref().and_then(Statement::landing).and_then(|landing| landing.database_line.as_ref()),
        "counts": manifest.map(|manifest| manifest.counts),
        "content_root": manifest.map(|manifest| hex(&*manifest.content_root)),
        "outcome": verified.consumer.as_ref().and_then(Statement::landing).map(|landing| landing.outcome),
        "provider": statement_json(&verified.provider),
        "consumer": verified.consumer.as_ref().map(statement_json),
        "ledger": verified.checkpoint.as_ref().zip(verified.inclusion.as_ref()).map(|(checkpoint, inclusion)| json!({
            "origin": checkpoint.origin,
            "size": checkpoint.size,
            "index": inclusion.index,
            "root": hex(&checkpoint.root),
            "at": inclusion.issued,
        })),
    })
}

fn statement_json(statement: &Statement) -> Value {
    let ending = match statement.body() {
        Body::Refusal(_, ending) | Body::Failure(_, ending) => {
            Some(json!({"code": ending.code, "cause": ending.cause}))
        }
        _ => None,
    };
    json!({
        "kind": statement.body().kind(),
        "issuer": statement.issuer(),
        "at": statement.issued(),
        "sha256": hex(statement.sha256()),
        "key_sha256": hex(statement.key_id()),
        "transfer": statement.body().transfer(),
        "ending": ending,
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// CBOR tag 18.
const COSE_SIGN1: u8 = 0xd2;
/// Files in an export: its parts, and a PEM for each key of each node.
const FILES_MAX: usize = 100_000;
const FILE_BYTES_MAX: u64 = 8 << 20;
/// A line per file of the folder that was handed over.
const FILES_B3_BYTES_MAX: u64 = 1 << 30;
