//! `[[job]]`: what this node takes, pushes, or accepts when it is pushed.

use super::dialect;
use super::govern::{self, Checks};
use super::read::{Place, bad_name};
use super::{Bandwidth, TIMEZONE_DEFAULT};
use crate::schedule::{Cron, zone};
use posthouse_platform::settings::{FromValue, Interval, Say, Table, nearest, say};
use posthouse_protocol::govern::{Dialect, Governed};
use posthouse_protocol::id::{JobId, NodeId, ResourceId, ResourceRef};
use posthouse_protocol::job::{Mode, Write};
use posthouse_protocol::schema::Contract;
use posthouse_protocol::statement::Proof;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use toml::de::DeValue;

#[derive(Debug, Clone)]
pub struct Job {
    pub name: JobId,
    pub kind: Kind,
    /// Of pushed jobs that are accepted: the pusher's own word counts, this is `full`.
    pub mode: Mode,
    pub write: Write,
    /// None only where this node pushes: the taker chooses where it lands.
    pub into: Option<Target>,
    pub schedule: Schedule,
    pub proof: Proof,
    /// More quarantined rows than this stop the transfer; None = never.
    pub quarantine_max: Option<RowLimit>,
    pub overlap: Overlap,
    /// A run missed while the node was off is made up once.
    pub missed_once: bool,
    /// Relays, in order from the consumer to the provider, as this node's operator expects them in the grant.
    pub via: Option<Vec<NodeId>>,
    /// What moves for it per second at most.
    pub bandwidth: Option<Bandwidth>,
    /// What values are to be taken for; the provider does it, where it is asked.
    pub rules: Dialect,
    /// What rows must be to count as qualified here.
    pub check: Checks,
}

/// The name of a node in a list.
struct Name(NodeId);

impl FromValue for Name {
    fn from_value(value: &DeValue<'_>) -> Result<Self, Say> {
        let text = String::from_value(value)?;
        NodeId::parse(&text).map(Self).map_err(|e| say(e.to_string(), format!("`{text}` 不是有效的节点名称")))
    }
}

/// How many rows of a transfer: so many, or a share of those that were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowLimit {
    Rows(u64),
    /// In millionths.
    Share(u32),
}

impl RowLimit {
    /// In rows, where `read` were read.
    pub fn of(self, read: u64) -> u64 {
        match self {
            Self::Rows(rows) => rows,
            Self::Share(millionths) => (u128::from(read) * u128::from(millionths) / 1_000_000) as u64,
        }
    }
}

impl FromValue for RowLimit {
    fn from_value(value: &DeValue<'_>) -> Result<Self, Say> {
        let Some(text) = value.as_str() else { return u64::from_value(value).map(Self::Rows) };
        let share = text.trim().strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
        match share.filter(|share| (0.0..=100.0).contains(share)) {
            Some(share) => Ok(Self::Share((share * 10_000.0).round() as u32)),
            None => Err(say(
                format!("`{text}` is neither a number of rows nor a share such as \"0.5%\""),
                format!("`{text}` 既不是行数，也不是比例；写法如 \"0.5%\""),
            )),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Take { resource: ResourceRef },
    Push { resource: ResourceId, to: NodeId },
    Accept { from: NodeId, job: JobId },
}

/// Where a job lands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Table { connection: String, table: String, names: Names },
    Folder { path: PathBuf, versions: Option<KeptVersions> },
    Parquet { path: PathBuf },
}

/// How a table's columns are named, by the names under which they come. A row's digest does not hold names: it is the
/// same whichever they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Names {
    #[default]
    Keep,
    /// Letters of ASCII; what has no cases stays.
    Upper,
    Lower,
}

impl Names {
    /// The contract with the names that columns have at the destination; the name that two of them would have, if so.
    pub fn of(self, contract: &Contract) -> Result<Contract, String> {
        let mut renamed = contract.clone();
        renamed.items.iter_mut().for_each(|item| self.change(&mut item.name));
        renamed.key.iter_mut().for_each(|name| self.change(name));
        let mut seen = BTreeSet::new();
        let twice = renamed.items.iter().map(|item| item.name.clone()).find(|name| !seen.insert(name.clone()));
        match twice {
            Some(name) => Err(name),
            None => Ok(renamed),
        }
    }

    pub fn change(self, name: &mut str) {
        match self {
            Self::Keep => {}
            Self::Upper => name.make_ascii_uppercase(),
            Self::Lower => name.make_ascii_lowercase(),
        }
    }
}

/// 旧版本: where a job keeps what it takes the place of in its folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptVersions {
    pub path: PathBuf,
    /// None = until somebody removes them.
    pub keep: Option<Interval>,
}

#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "a node has few jobs, and each has one")]
pub enum Schedule {
    Manual,
    Every(Interval),
    Cron(Cron),
    /// When the folder that it pushes changes.
    Watch,
}

/// What happens when a run is due while the previous one is still under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlap {
    /// The due run is left out.
    Skip,
    /// It starts when the previous one has ended.
    Queue,
}

impl Job {
    /// Whether this node starts runs of this job by itself or on request.
    pub fn starts_here(&self) -> bool {
        !matches!(self.kind, Kind::Accept { .. })
    }
    pub fn pushes(&self) -> bool {
        matches!(self.kind, Kind::Push { .. })
    }
    /// The other node.
    pub fn peer(&self) -> &NodeId {
        match &self.kind {
            Kind::Take { resource } => &resource.node,
            Kind::Push { to, .. } => to,
            Kind::Accept { from, .. } => from,
        }
    }
    /// The rules that its requests name.
    pub fn asked_rules(&self) -> Option<Vec<Governed>> {
        let rules = self.rules.governed();
        (!rules.is_empty()).then_some(rules)
    }
    pub fn lands_rows(&self) -> bool {
        matches!(self.into, Some(Target::Table { .. } | Target::Parquet { .. }))
    }
}

pub(super) fn read(table: &Table<'_>, place: &Place<'_>) -> Option<Job> {
    let name: Option<JobId> = table.require_parse("name", "任务名称");
    let kind = kind(table, place);
    let via = table.get::<Vec<Name>>("via").map(|names| names.into_iter().map(|Name(node)| node).collect());
    // By what was meant, so that a mistake in a name is not followed by others that it caused.
    let pushes = table.has("push");
    let accepts = table.has("accept") && !pushes;
    let into = if pushes {
        refuse(table, "into", "the taker chooses where a push lands", "推送的落地位置由接收方决定")
    } else {
        target(table, place)
    };
    if !pushes && !table.has("into") {
        table.mistake_here(say("`job.into` is missing", "缺少 `job.into`"));
    }
    let rows = match (&kind, &into) {
        (Some(Kind::Push { resource, .. }), _) => place.is_table(resource),
        (_, Some(Target::Folder { .. })) => Some(false),
        (_, Some(_)) => Some(true),
        _ => None,
    };
    let mode = if accepts {
        refuse(table, "mode", "mode belongs to the pusher", "模式由推送方决定")
    } else {
        mode(table, rows)
    };
    let mode = mode.unwrap_or(Mode::Full);
    let write = if pushes {
        refuse(table, "write", "the taker chooses how a push lands", "写入方式由接收方决定")
    } else {
        write(table, into.as_ref(), mode)
    };
    let schedule = if accepts {
        table.known("timezone");
        refuse(table, "schedule", "schedule belongs to the pusher", "计划由推送方决定")
    } else {
        schedule(table)
    };
    if let Some(Kind::Push { resource, .. }) = &kind
        && mode == Mode::Incremental
        && place.has_watermark(resource) == Some(false)
    {
        table.mistake(
            "mode",
            say(
                format!("the resource `{resource}` has no `watermark`, which incremental needs"),
                format!("资源 `{resource}` 没有 `watermark`，无法增量"),
            ),
            None,
        );
    }
    if matches!(schedule, Some(Schedule::Watch)) && !place.pushes_folder(kind.as_ref()) {
        table.mistake(
            "schedule",
            say(
                "only a job that pushes a folder can watch it; others run at times, such as \"every 30s\"",
                "只有推送目录的任务可以监视（watch）；其他任务按时间运行，如 \"every 30s\"",
            ),
            None,
        );
    }
    let proof =
        table.choice("proof", &[("written", Proof::Written), ("reread", Proof::Reread)]).unwrap_or(Proof::Written);
    let quarantine_max = table.get("quarantine_max");
    let overlap =
        table.choice("overlap", &[("skip", Overlap::Skip), ("queue", Overlap::Queue)]).unwrap_or(Overlap::Skip);
    let bandwidth = table.get("bandwidth");
    let check = check(table, place, pushes, rows, mode);
    let rules = rules(table, pushes, rows);
    let missed_once = table.choice("missed", &[("once", true), ("skip", false)]).unwrap_or(true);
    Some(Job {
        name: name?,
        kind: kind?,
        mode,
        write: write.unwrap_or(Write::Upsert),
        into,
        schedule: schedule.unwrap_or(Schedule::Manual),
        proof,
        quarantine_max,
        overlap,
        missed_once,
        via,
        bandwidth,
        rules,
        check,
    })
}

/// What values are to be taken for.
fn rules(table: &Table<'_>, pushes: bool, rows: Option<bool>) -> Dialect {
    if pushes {
        refuse::<()>(table, "rules", "rules of what is pushed are its resource's", "推送内容的规则写在资源上");
        return Dialect::default();
    }
    if rows == Some(false) {
        refuse::<()>(table, "rules", "rules are about the rows of a table", "规则只用于库表的行");
        return Dialect::default();
    }
    dialect::read(table, None)
}

/// What rows must be that land here.
fn check(table: &Table<'_>, place: &Place<'_>, pushes: bool, rows: Option<bool>, mode: Mode) -> Checks {
    if pushes {
        refuse::<()>(table, "check", "the taker checks what lands with it", "落地数据由接收方校验");
        return Checks::default();
    }
    let check = govern::checks(table, place.base, &|_, _| {});
    let wrong = match (rows, mode) {
        _ if check.is_empty() => None,
        (Some(false), _) => Some(say("rows are checked, this job lands files", "校验针对库表的行，此任务落地的是文件")),
        (_, Mode::Observe) => Some(say("an observe job moves nothing", "observe 任务不传输数据")),
        _ => None,
    };
    if let Some(wrong) = wrong {
        table.mistake("check", wrong, None);
    }
    check
}

fn kind(table: &Table<'_>, place: &Place<'_>) -> Option<Kind> {
    let given: Vec<&str> = ["resource", "push", "accept"].into_iter().filter(|key| table.has(key)).collect();
    if given.len() != 1 {
        for key in ["resource", "push", "accept", "to"] {
            table.known(key);
        }
        table.mistake_here(say(
            "a job has exactly one of `resource` (take), `push` and `accept`",
            "任务须恰好写明 `resource`（获取）、`push`（推送）、`accept`（接收）之一",
        ));
        return None;
    }
    if given != ["push"] {
        refuse::<()>(table, "to", "`to` belongs to a push", "`to` 只用于推送");
    }
    let not_self = |key: &str, node: &NodeId| {
        if node == place.node {
            table.mistake(
                key,
                say("a node exchanges with other nodes, this is itself", "节点只与其他节点交换，这里写的是自己"),
                None,
            );
        }
    };
    match given.as_slice() {
        ["resource"] => {
            let resource: ResourceRef = table.parse("resource", "资源（写作 节点/资源）")?;
            not_self("resource", &resource.node);
            Some(Kind::Take { resource })
        }
        ["push"] => {
            let resource: Option<ResourceId> = table.parse("push", "资源名称");
            let to: Option<NodeId> = table.require_parse("to", "节点名称");
            if let Some(resource) = &resource {
                place.check_resource(table, "push", resource);
            }
            if let Some(to) = &to {
                not_self("to", to);
            }
            Some(Kind::Push { resource: resource?, to: to? })
        }
        _ => {
            let text: String = table.get("accept")?;
            let parsed = text.split_once('/').and_then(|(node, job)| Some((node.parse().ok()?, job.parse().ok()?)));
            match parsed {
                Some((from, job)) => {
                    not_self("accept", &from);
                    Some(Kind::Accept { from, job })
                }
                None => {
                    table.mistake("accept", say("it is written NODE/JOB", "写作 节点/任务"), None);
                    None
                }
            }
        }
    }
}

fn target(table: &Table<'_>, place: &Place<'_>) -> Option<Target> {
    let into = table.table("into")?;
    let parquet = into.choice("format", &[("parquet", true), ("files", false)]);
    if into.has("table") {
        refuse::<()>(&into, "folder", "`into` is either a table or a folder", "`into` 只能是库表或目录之一");
        if into.has("format") {
            into.mistake("format", say("`format` belongs to a folder", "`format` 只用于目录"), None);
        }
        refuse_versions(&into);
        let name: Option<String> = into.get("table");
        if name.as_deref().is_some_and(bad_name) {
            into.mistake(
                "table",
                say(
                    "a table's name is neither empty nor longer than 256 characters",
                    "表名不能为空，也不能超过 256 个字符",
                ),
                None,
            );
        }
        let connection = place.table_connection(&into);
        let choices = [("keep", Names::Keep), ("upper", Names::Upper), ("lower", Names::Lower)];
        let names = into.choice("names", &choices).unwrap_or_default();
        return Some(Target::Table { connection: connection?, table: name?, names });
    }
    if !into.has("folder") {
        for key in ["connection", "versions", "versions_keep", "names"] {
            into.known(key);
        }
        into.mistake_here(say(
            "`into` is { connection, table } or { folder }",
            "`into` 写作 { connection, table } 或 { folder }",
        ));
        return None;
    }
    refuse::<()>(&into, "names", "only the columns of a table are named", "只有库表的列才有名称规则");
    let root = place.folder_connection(&into);
    let path: Option<PathBuf> = into.get("folder");
    if path.is_none() {
        into.known("versions");
        into.known("versions_keep");
    }
    let path = root.join(path?);
    if parquet == Some(true) {
        refuse_versions(&into);
        return Some(Target::Parquet { path });
    }
    let versions = versions(&into, &root, &path);
    Some(Target::Folder { path, versions })
}

fn versions(into: &Table<'_>, root: &Path, landing: &Path) -> Option<KeptVersions> {
    let path: Option<PathBuf> = into.get("versions");
    let keep: Option<Interval> = into.get("versions_keep");
    if !into.has("versions") && into.has("versions_keep") {
        into.mistake(
            "versions_keep",
            say(
                "`versions_keep` says how long `versions` are kept, and there are none",
                "`versions_keep` 说明 `versions` 保留多久，而此处没有 `versions`",
            ),
            None,
        );
    }
    let path = root.join(path?);
    if path.starts_with(landing) {
        into.mistake(
            "versions",
            say("older versions are kept elsewhere than in the folder that is landed in", "旧版本须保存在落地目录之外"),
            None,
        );
    }
    Some(KeptVersions { path, keep })
}

fn refuse_versions(into: &Table<'_>) {
    for key in ["versions", "versions_keep"] {
        refuse::<()>(into, key, "older versions are kept of the files of a folder", "只有目录中的文件才保留旧版本");
    }
}

fn mode(table: &Table<'_>, rows: Option<bool>) -> Option<Mode> {
    let text: String = table.get("mode")?;
    match text.as_str() {
        "full" => Some(Mode::Full),
        "incremental" if rows == Some(false) => {
            table.mistake(
                "mode",
                say(
                    "a folder is taken with mode = \"full\"; files that are there already are not sent again",
                    "目录使用 mode = \"full\"；已有的文件不会重复传输",
                ),
                None,
            );
            None
        }
        "incremental" => Some(Mode::Incremental),
        "observe" if rows == Some(false) => {
            table.mistake("mode", say("observe compares tables", "observe 只用于库表"), None);
            None
        }
        "observe" => Some(Mode::Observe),
        "follow" => {
            table.mistake(
                "mode",
                say(
                    "mode = \"follow\" is not available in this version; use incremental with a short schedule",
                    "本版本尚不支持 mode = \"follow\"；可用 incremental 加较短的计划",
                ),
                None,
            );
            None
        }
        other => {
            let words = ["full", "incremental", "observe"];
            table.mistake(
                "mode",
                say(
                    format!("`mode` is one of {}", words.join(", ")),
                    format!("`mode` 只能是 {} 之一", words.join("、")),
                ),
                nearest(other, words.into_iter()),
            );
            None
        }
    }
}

fn write(table: &Table<'_>, into: Option<&Target>, mode: Mode) -> Option<Write> {
    let default = match (into, mode) {
        (Some(Target::Folder { .. }) | None, _) | (Some(Target::Table { .. }), Mode::Incremental) => Write::Upsert,
        (Some(Target::Table { .. }), _) => Write::Replace,
        (Some(Target::Parquet { .. }), Mode::Incremental) => Write::Append,
        (Some(Target::Parquet { .. }), _) => Write::Replace,
    };
    let words =
        [("append", Write::Append), ("upsert", Write::Upsert), ("replace", Write::Replace), ("mirror", Write::Mirror)];
    let write = table.choice("write", &words).unwrap_or(default);
    let wrong = match (into, write, mode) {
        (Some(Target::Folder { versions: Some(_), .. }), Write::Append, _) => Some((
            "append takes the place of nothing, and `into.versions` keeps what a job takes the place of",
            "append 不替换任何文件，没有 `into.versions` 可保留的旧版本",
        )),
        (Some(Target::Table { .. }), Write::Mirror, Mode::Incremental) => Some((
            "mirror deletes what the whole table no longer has, and an incremental run reads a part of it; use full",
            "mirror 按整张库表删除已不存在的行，而增量只读取其中一部分；请用 full",
        )),
        (Some(Target::Parquet { .. }), Write::Mirror | Write::Upsert, _) => {
            Some(("parquet files are appended or replaced", "parquet 只支持 append 或 replace"))
        }
        (Some(Target::Table { .. } | Target::Parquet { .. }), Write::Replace, Mode::Incremental) => Some((
            "replace would drop what earlier incremental runs landed; use upsert or append",
            "replace 会丢弃此前增量落地的数据；请用 upsert 或 append",
        )),
        _ => None,
    };
    if let Some((en, zh)) = wrong {
        table.mistake("write", say(en, zh), None);
        return None;
    }
    Some(write)
}

fn schedule(table: &Table<'_>) -> Option<Schedule> {
    let zone_name: Option<String> = table.get("timezone");
    let zone_text = zone_name.as_deref().unwrap_or(TIMEZONE_DEFAULT);
    let zone = zone(zone_text);
    if zone.is_none() {
        table.mistake(
            "timezone",
            say(
                format!("`{zone_text}` is not a time zone such as \"Asia/Shanghai\""),
                format!("`{zone_text}` 不是时区；写法如 \"Asia/Shanghai\""),
            ),
            None,
        );
    }
    let text: String = table.get("schedule")?;
    if text == "manual" {
        return Some(Schedule::Manual);
    }
    if text == "watch" {
        return Some(Schedule::Watch);
    }
    if let Some(every) = text.strip_prefix("every ") {
        return match every.parse::<Interval>() {
            Ok(interval) if interval >= EVERY_MIN => Some(Schedule::Every(interval)),
            Ok(_) => {
                table.mistake(
                    "schedule",
                    say(format!("a job runs at most every {EVERY_MIN}"), format!("任务最短间隔为 {EVERY_MIN}")),
                    None,
                );
                None
            }
            Err(_) => {
                table.mistake(
                    "schedule",
                    say(
                        format!("`{every}` is not a duration such as \"30s\""),
                        format!("`{every}` 不是时长；写法如 \"30s\""),
                    ),
                    None,
                );
                None
            }
        };
    }
    match Cron::parse(&text, zone?) {
        Ok(cron) => Some(Schedule::Cron(cron)),
        Err(cause) => {
            table.mistake(
                "schedule",
                say(format!("`{text}` is neither cron (minute hour day month weekday), \"every 30s\", \"watch\" nor \"manual\": {cause}"), format!("`{text}` 不是 cron（分 时 日 月 周）、\"every 30s\"、\"watch\" 或 \"manual\"：{cause}")),
                nearest(&text, ["manual", "watch"].into_iter()),
            );
            None
        }
    }
}

/// A key that does not belong here; reads as absent.
fn refuse<T>(table: &Table<'_>, key: &str, en: &str, zh: &str) -> Option<T> {
    if table.has(key) {
        table.mistake_at_key(
            key,
            say(format!("`{key}` does not belong here: {en}"), format!("此处不应有 `{key}`：{zh}")),
            None,
        );
    }
    table.known(key);
    None
}

const EVERY_MIN: Interval = Interval::seconds(1);
