//! The story itself: what is done, in which order, and what it shows. Each step checks what it claims;
//! a step that goes another way ends the story with what was said.

use super::stage::{CENTRE, HOUSING, POLICE, Ran, Stage};
use super::{residents, scans};
use crate::render::{Screen, count, size};
use posthouse_protocol::job::State;
use posthouse_protocol::problem::{Code, Problem};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

pub(super) struct Story<'a> {
    screen: &'a Screen,
    pub(super) stage: Stage,
    step: usize,
    since: Instant,
    transfers: Vec<Value>,
    findings: Vec<Value>,
    verified: bool,
    planted: String,
    viewer: Option<String>,
}

type Told = Result<(), Problem>;

impl<'a> Story<'a> {
    pub(super) fn new(screen: &'a Screen, stage: Stage) -> Self {
        Self {
            screen,
            stage,
            step: 0,
            since: Instant::now(),
            transfers: Vec::new(),
            findings: Vec::new(),
            verified: false,
            planted: String::new(),
            viewer: None,
        }
    }

    pub(super) async fn tell(&mut self) -> Told {
        self.say(
            "Posthouse: the police hand data to the housing bureau, and three parties can prove it.",
            "驿站演示：公安局向住建局交接数据，三方都能证明交接了什么。",
        );
        self.say(
            "All data is fictitious. Everything runs on this machine, in this folder:",
            "全部数据均为虚构。一切都在本机运行，数据都在这个目录：",
        );
        self.detail(&self.stage.text(""));
        self.data().await?;
        self.centre().await?;
        self.nodes().await?;
        self.table().await?;
        self.folder_with_a_kill().await?;
        self.increment().await?;
        self.withdrawal().await?;
        self.receipts().await?;
        self.balance().await?;
        self.tampering().await?;
        self.statistics().await?;
        let seconds = self.since.elapsed().as_secs();
        self.say(&format!("Done in {seconds} s."), &format!("演示完成，用时 {seconds} 秒。"));
        Ok(())
    }

    /// The closing object.
    pub(super) fn end(&self) -> Value {
        json!({"transfers": self.transfers, "verified": self.verified, "findings": self.findings})
    }

    /// The planted difference was found, and only it.
    pub(super) fn as_planted(&self) -> bool {
        let found = |finding: &Value| {
            finding["verdict"] == "mismatched"
                && finding["party"] == "consumer"
                && finding["keys"].as_array().is_some_and(|keys| keys.len() == 1 && keys[0] == self.planted.as_str())
        };
        self.verified && self.findings.len() == 1 && self.findings.iter().all(found)
    }

    /// What is there to look at while it stays up.
    pub(super) fn stay_up(&self) {
        self.say("It stays up. Look around, and end it with Ctrl-C:", "演示保持运行，可随意查看；按 Ctrl-C 结束：");
        self.detail(&format!("http://127.0.0.1:{}/", self.stage.http_port));
        if let Some(token) = &self.viewer {
            self.detail(&format!("{} {token}", self.screen.say("viewer's token:", "查看者令牌：")));
        }
        self.detail(&format!("posthouse transfer list --config {}", self.stage.config(HOUSING)));
    }

    async fn data(&mut self) -> Told {
        self.title("Make fictitious data", "生成虚构数据");
        let (table, papers, archive) = (
            self.stage.path("police-residents.db"),
            self.stage.path("police-scans"),
            self.stage.path("police-archive"),
        );
        blocking(move || {
            residents::create(&table, ROWS)?;
            scans::create(&papers)?;
            scans::create_archive(&archive)
        })
        .await?;
        let (rows, files) = (count(ROWS), scans::SCANS);
        self.tell_of(
            &format!("{rows} residents in a SQLite table, one of them with a value that no date can have; {files} scanned papers"),
            &format!("SQLite 表中 {rows} 名居民，其中一行的日期不合法；另有 {files} 份扫描件"),
        );
        self.stage.configure()
    }

    async fn centre(&mut self) -> Told {
        self.title(
            "The coordinator: private authority, policy, ledger. No data ever passes through it.",
            "建立协调中心：自有证书机构、授权策略、存证台账。数据从不经过它。",
        );
        let (dir, listen, http) = (
            self.stage.text("centre"),
            format!("127.0.0.1:{}", self.stage.centre_port),
            format!("127.0.0.1:{}", self.stage.http_port),
        );
        self.done(&["coordinator", "init", "--data-dir", &dir, "--name", CENTRE, "--listen", &listen, "--http", &http])
            .await?;
        self.stage.start(CENTRE)?;
        let config = self.stage.config(CENTRE);
        self.until("the coordinator answers", &["coordinator", "node", "list", "--config", &config, "--json"], |ran| {
            ran.code == 0
        })
        .await
        .map(|_| ())
    }

    async fn nodes(&mut self) -> Told {
        self.title(
            "Two nodes join with single-use tokens; the managing authority grants what the housing bureau may take",
            "两个节点凭一次性令牌加入；管理方授权住建局可以获取哪些资源",
        );
        let centre = self.stage.config(CENTRE);
        for party in [POLICE, HOUSING] {
            let token = self.done(&["coordinator", "token", "--config", &centre, "--node", party]).await?;
            let config = self.stage.config(party);
            self.show(&["node", "join", "--config", &config, "--token", "…"]);
            let joined =
                self.stage.posthouse(&["node", "join", "--config", &config, "--token", token.stdout.trim()]).await?;
            self.needs(&joined, 0)?;
            self.stage.start(party)?;
        }
        for resource in ["residents", "scans", "archive"] {
            let resource = format!("{POLICE}/{resource}");
            self.done(&[
                "grant",
                "add",
                "--config",
                &centre,
                "--consumer",
                HOUSING,
                "--resource",
                &resource,
                "--until",
                UNTIL,
            ])
            .await?;
        }
        self.until("both nodes are up", &["coordinator", "node", "list", "--config", &centre, "--json"], |ran| {
            let nodes = ran.items("nodes");
            [POLICE, HOUSING].iter().all(|name| nodes.iter().any(|node| node["name"] == *name && node["state"] == "up"))
        })
        .await
        .map(|_| ())
    }

    async fn table(&mut self) -> Told {
        self.title("A whole table, from one snapshot, landed exactly once", "整张库表，取自同一快照，恰好入库一次");
        let end = self.take("residents", 0).await?;
        self.result(&end);
        self.tell_of(
            "The row that cannot move is not lost and not bent: it lies in quarantine with its reason and original bytes.",
            "无法交换的那一行既没有丢失，也没有被改写：它连同原因和原始字节进入问题数据。",
        );
        self.check(end["state"] == "settled" && end["quarantined"] == 1, "one row in quarantine", &end)
    }

    async fn folder_with_a_kill(&mut self) -> Told {
        self.title(
            "A folder of scans; half-way through, the housing bureau's node is killed (SIGKILL) and started again",
            "一个扫描件目录；传到一半时强杀住建局节点（SIGKILL），再重新启动",
        );
        let config = self.stage.config(HOUSING);
        self.show(&["job", "run", "--config", &config, "scans"]);
        let begun = self.stage.begin(&["job", "run", "--config", &config, "scans", "--json"]);
        let inbox = self.stage.path("housing-scans");
        self.until_landed(&inbox, KILL_AT).await?;
        self.stage.kill(HOUSING).await?;
        // Its command line was talking to the node that is gone.
        begun.abort();
        let landed = count_files(&inbox, &|name| !name.starts_with('.'));
        let on_the_way = size(landed_bytes(&inbox));
        self.tell_of(
            &format!("killed: {on_the_way} were on the disk, {landed} files visible, none of them torn"),
            &format!("已强杀：磁盘上已有 {on_the_way}，可见文件 {landed} 个，没有一个残缺"),
        );
        self.stage.start(HOUSING)?;
        self.until("the node is back", &["job", "list", "--config", &config, "--json"], |ran| ran.code == 0).await?;
        let end = self.take("scans", 0).await?;
        self.result(&end);
        let (chunks, resent) =
            (count(end["chunks"].as_u64().unwrap_or(0)), count(end["resent_chunks"].as_u64().unwrap_or(0)));
        self.tell_of(
            &format!("It went on where it stood: of {chunks} chunks, {resent} that were on the way at the kill were sent again; there is one receipt."),
            &format!("交换从中断处继续：共 {chunks} 个分块，只重传了强杀时尚在途中的 {resent} 个；回执只有一份。"),
        );
        self.check(end["state"] == "settled", "the folder settled", &end)
    }

    async fn increment(&mut self) -> Told {
        self.title("The source changes; only what changed moves", "来源有变化；只交换变化的部分");
        let table = self.stage.path("police-residents.db");
        let (updated, inserted) = blocking(move || residents::change(&table)).await?;
        self.tell_of(
            &format!("at the police: {} rows updated, {} inserted", count(updated), count(inserted)),
            &format!("公安局侧：更新 {} 行，新增 {} 行", count(updated), count(inserted)),
        );
        let end = self.take("residents", 0).await?;
        self.result(&end);
        let moved = end["rows"].as_u64().unwrap_or(u64::MAX);
        self.check(
            end["state"] == "settled" && moved >= updated + inserted && moved < ROWS / 2,
            "only changed rows",
            &end,
        )
    }

    async fn withdrawal(&mut self) -> Told {
        self.title("The authority withdraws a grant while data is on the way", "数据正在传输时，管理方撤回授权");
        let (centre, config) = (self.stage.config(CENTRE), self.stage.config(HOUSING));
        let grants = self.stage.posthouse(&["grant", "list", "--config", &centre, "--json"]).await?;
        let resource = format!("{POLICE}/archive");
        let grant = grants.items("grants").iter().find(|grant| grant["resource"] == resource.as_str()).cloned();
        let Some(grant) = grant.as_ref().and_then(|grant| grant["id"].as_str()) else {
            return Err(grants.unexpected("grant list"));
        };
        self.show(&["job", "run", "--config", &config, "archive", "--wait"]);
        let running = self.stage.begin(&["job", "run", "--config", &config, "archive", "--wait", "--json"]);
        self.until_landed(&self.stage.path("housing-archive"), WITHDRAW_AT).await?;
        self.done(&["grant", "revoke", "--config", &centre, grant]).await?;
        let since = Instant::now();
        let ran = match tokio::time::timeout(PATIENCE, running).await {
            Ok(Ok(ran)) => ran?,
            _ => {
                return Err(Problem::new(Code::InsideFailed)
                    .with("step", "grant revoke")
                    .cause("the transfer went on"));
            }
        };
        let took = since.elapsed();
        self.needs(&ran, 4)?;
        let end = ran.object().ok_or_else(|| ran.unexpected("job run archive"))?;
        self.transfers.push(end.clone());
        self.result(&end);
        let files = count_files(&self.stage.path("housing-archive"), &|name| !name.starts_with('.'));
        self.tell_of(
            &format!(
                "stopped after {:.1} s with {files} files landed; both sides signed that it was refused",
                took.as_secs_f64()
            ),
            &format!("{:.1} 秒后停止，落盘文件 {files} 个；双方都签署了拒绝陈述", took.as_secs_f64()),
        );
        self.check(end["state"] == "refused" && took < Duration::from_secs(5) && files == 0, "refused within 5 s", &end)
    }

    async fn receipts(&mut self) -> Told {
        self.title(
            "Receipts: exported, then verified offline with nothing but the public keys",
            "回执：导出后仅凭公钥离线验证",
        );
        let config = self.stage.config(HOUSING);
        let mut trust = None;
        for (number, transfer) in self.transfers.clone().iter().enumerate() {
            let Some(id) = transfer["transfer"].as_str().filter(|_| transfer["state"] == "settled") else { continue };
            self.until(
                "the centre's proof is there",
                &["transfer", "show", "--config", &config, id, "--json"],
                |ran| ran.object().is_some_and(|shown| shown["verdict"] == "matched"),
            )
            .await?;
            let out = self.stage.text(&format!("receipts/{}", number + 1));
            self.done(&["receipt", "export", "--config", &config, id, "--out", &out]).await?;
            // What is trusted is fixed once and kept apart from the receipts.
            let kept = self.stage.text("trust");
            if trust.is_none() {
                copy_folder(&Path::new(&out).join("trust"), Path::new(&kept))?;
                trust = Some(kept.clone());
            }
            let verified = self.done(&["receipt", "verify", &out, "--trust", &kept, "--json"]).await?;
            self.check(
                !verified.stdout.contains("\"pending\""),
                "verified with the centre's proof",
                &json!(verified.stdout),
            )?;
            if let Some(listed) = self.transfers.get_mut(number) {
                listed["verdict"] = json!("matched");
            }
        }
        let forged = self.stage.path("receipts/forged");
        copy_folder(&self.stage.path("receipts/1"), &forged)?;
        flip_a_bit(&forged.join("receipt.cose"))?;
        let (forged, kept) = (self.stage.text("receipts/forged"), self.stage.text("trust"));
        self.show(&["receipt", "verify", &forged, "--trust", &kept]);
        let refused = self.stage.posthouse(&["receipt", "verify", &forged, "--trust", &kept]).await?;
        self.needs(&refused, 3)?;
        self.tell_of("One flipped bit in a copy, and it is refused.", "副本中翻转一个比特，验证即不通过。");
        self.verified = trust.is_some();
        Ok(())
    }

    async fn balance(&mut self) -> Told {
        self.title("The day's three-party balance at the centre", "协调中心的当日三方对账");
        let centre = self.stage.config(CENTRE);
        let balanced = self
            .until("nothing is pending", &["reconcile", "--config", &centre, "--json"], |ran| {
                ran.object()
                    .is_some_and(|day| day["counts"]["pending"] == 0 && day["counts"]["matched"].as_u64() >= Some(3))
            })
            .await?;
        let day = balanced.object().unwrap_or_default();
        self.show(&["reconcile", "--config", &centre]);
        let number = |name: &str| day["counts"][name].as_u64().unwrap_or(0);
        self.tell_of(
            &format!(
                "matched {}, mismatched {}, one-sided {}, overdue {}, ungranted {}",
                number("matched"),
                number("mismatched"),
                number("one_sided"),
                number("overdue"),
                number("ungranted")
            ),
            &format!(
                "一致 {}，不一致 {}，单边 {}，逾期未回 {}，未经授权 {}",
                number("matched"),
                number("mismatched"),
                number("one_sided"),
                number("overdue"),
                number("ungranted")
            ),
        );
        self.check(balanced.code == 0, "a balanced day", &day)
    }

    async fn tampering(&mut self) -> Told {
        self.title(
            "Somebody edits one cell of the housing bureau's copy by hand; deep reconciliation names it",
            "有人手工改动了住建局表中的一个单元格；深度对账指出是哪一条",
        );
        let table = self.stage.path("housing.db");
        self.planted = blocking(move || residents::tamper(&table)).await?;
        let config = self.stage.config(HOUSING);
        self.show(&["reconcile", "--config", &config, "--deep", "residents"]);
        let ran = self.stage.posthouse(&["reconcile", "--config", &config, "--deep", "residents", "--json"]).await?;
        self.needs(&ran, 3)?;
        let answer = ran.object().ok_or_else(|| ran.unexpected("reconcile --deep"))?;
        for finding in answer["findings"].as_array().into_iter().flatten() {
            let keys = finding["keys"].as_array().cloned().unwrap_or_default();
            let (first, party) =
                (keys.first().and_then(Value::as_str).unwrap_or("?"), finding["party"].as_str().unwrap_or("?"));
            self.tell_of(
                &format!("key {first}: the {party}'s copy is no longer what its receipt says"),
                &format!(
                    "主键 {first}：{} 的数据已不是回执所载",
                    if party == "consumer" { "使用方" } else { "提供方" }
                ),
            );
            self.findings.push(json!({
                "verdict": finding["verdict"], "job": "residents", "keys": keys, "party": finding["party"],
            }));
        }
        let planted = self.as_planted();
        self.check(planted, &format!("exactly {}", self.planted), &answer)
    }

    async fn statistics(&mut self) -> Told {
        self.title("The day in figures", "当日统计");
        let centre = self.stage.config(CENTRE);
        let ran = self.done(&["statistics", "--config", &centre]).await?;
        for line in ran.stdout.lines() {
            self.detail(line);
        }
        let viewer = self
            .stage
            .posthouse(&["coordinator", "access", "add", "--config", &centre, "demo", "--role", "viewer"])
            .await?;
        self.needs(&viewer, 0)?;
        self.viewer = Some(viewer.stdout.trim().to_owned());
        Ok(())
    }

    /// Runs a job of the housing bureau to its end.
    async fn take(&mut self, job: &str, code: i32) -> Result<Value, Problem> {
        let config = self.stage.config(HOUSING);
        self.show(&["job", "run", "--config", &config, job, "--wait"]);
        let ran = self.stage.posthouse(&["job", "run", "--config", &config, job, "--wait", "--json"]).await?;
        self.needs(&ran, code)?;
        let end = ran.object().ok_or_else(|| ran.unexpected(job))?;
        self.transfers.push(end.clone());
        Ok(end)
    }

    async fn done(&self, args: &[&str]) -> Result<Ran, Problem> {
        self.show(args);
        let ran = self.stage.posthouse(args).await?;
        self.needs(&ran, 0)?;
        Ok(ran)
    }

    async fn until(&self, what: &str, args: &[&str], holds: impl Fn(&Ran) -> bool) -> Result<Ran, Problem> {
        let since = Instant::now();
        loop {
            let ran = self.stage.posthouse(args).await?;
            if holds(&ran) {
                return Ok(ran);
            }
            if since.elapsed() > PATIENCE {
                return Err(self.with_logs(ran.unexpected(what)));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Until so many bytes lie in a folder, visible or on their way.
    async fn until_landed(&self, folder: &Path, bytes: u64) -> Told {
        let since = Instant::now();
        while landed_bytes(folder) < bytes {
            if since.elapsed() > PATIENCE {
                let problem = Problem::new(Code::InsideFailed).with("step", folder.display()).cause("nothing arrives");
                return Err(self.with_logs(problem));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    fn needs(&self, ran: &Ran, code: i32) -> Told {
        let step = format!("step {}", self.step);
        if ran.code == code { Ok(()) } else { Err(self.with_logs(ran.unexpected(&step))) }
    }

    fn check(&self, holds: bool, what: &str, seen: &Value) -> Told {
        if holds {
            return Ok(());
        }
        let cause = format!("expected {what}, seen {seen}");
        Err(self.with_logs(Problem::new(Code::InsideFailed).with("step", self.step).cause(cause)))
    }

    fn with_logs(&self, problem: Problem) -> Problem {
        self.stage.parties().into_iter().fold(problem, |problem, party| problem.with(party, self.stage.log_tail(party)))
    }

    fn title(&mut self, en: &str, zh: &str) {
        self.step += 1;
        self.say("", "");
        self.say(&format!("{}/{STEPS}  {en}", self.step), &format!("{}/{STEPS}  {zh}", self.step));
    }
    fn tell_of(&self, en: &str, zh: &str) {
        self.detail(self.screen.say(en, zh));
    }
    fn result(&self, end: &Value) {
        let number = |name: &str| end[name].as_u64().unwrap_or(0);
        let seconds = end["seconds"].as_f64().unwrap_or(0.0);
        let (rows, files, bytes) = (count(number("rows")), count(number("files")), size(number("bytes")));
        let state = end["state"].as_str().unwrap_or("?");
        let state_zh = state.parse::<State>().map_or_else(|()| state.to_owned(), |known| known.zh().to_owned());
        let bad = number("quarantined");
        self.tell_of(
            &format!("{state}: rows {rows}, files {files}, {bytes}, quarantined {bad}, {seconds:.1} s"),
            &format!("{state_zh}：{rows} 行，{files} 个文件，{bytes}，问题数据 {bad}，{seconds:.1} 秒"),
        );
    }
    fn show(&self, args: &[&str]) {
        let folder = self.stage.text("");
        let words: Vec<String> = args.iter().map(|word| word.replace(&folder, "")).collect();
        self.detail(&format!("$ posthouse {}", words.join(" ")));
    }
    fn detail(&self, line: &str) {
        let line = format!("     {line}");
        self.say(&line, &line);
    }
    /// With --json, stdout is for the closing object alone.
    fn say(&self, en: &str, zh: &str) {
        let text = self.screen.say(en, zh);
        if self.screen.json { self.screen.note(text) } else { self.screen.line(text) }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Problem> + Send + 'static) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Problem::new(Code::InsideFailed).cause(e))?
}

fn count_files(folder: &Path, counts: &dyn Fn(&str) -> bool) -> u64 {
    let mut files = 0;
    each_file(folder, &mut |name, _| files += u64::from(counts(name)));
    files
}

fn landed_bytes(folder: &Path) -> u64 {
    let mut bytes = 0;
    each_file(folder, &mut |_, size| bytes += size);
    bytes
}

/// Files come and go while it looks; what is gone is not counted.
fn each_file(folder: &Path, meet: &mut dyn FnMut(&str, u64)) {
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(found) if found.is_dir() => open.push(entry.path()),
                Ok(found) if found.is_file() => meet(&entry.file_name().to_string_lossy(), found.len()),
                _ => {}
            }
        }
    }
}

fn copy_folder(from: &Path, to: &Path) -> Told {
    let failed = |e: std::io::Error| Problem::new(Code::StorageFailed).with("path", to.display()).cause(e);
    std::fs::create_dir_all(to).map_err(failed)?;
    for entry in std::fs::read_dir(from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let target = to.join(entry.file_name());
        if entry.file_type().map_err(failed)?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), &target).map_err(failed)?;
        }
    }
    Ok(())
}

fn flip_a_bit(file: &Path) -> Told {
    let failed = |e: std::io::Error| Problem::new(Code::StorageFailed).with("path", file.display()).cause(e);
    let mut bytes = std::fs::read(file).map_err(failed)?;
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 1;
    }
    std::fs::write(file, bytes).map_err(failed)
}

const ROWS: u64 = 200_000;
const STEPS: usize = 11;
const UNTIL: &str = "2099-12-31";
const KILL_AT: u64 = 16 << 20;
const WITHDRAW_AT: u64 = 8 << 20;
const POLL: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(30);
