//! `[[resource]]`: what this node offers.

use super::exchange::{self, Exchange};
use super::govern::{self, Govern};
use super::read::{Place, bad_name};
use posthouse_connectors::TableSpec;
use posthouse_connectors::folder::{FolderOptions, Links};
use posthouse_platform::settings::{Interval, Table, say};
use posthouse_protocol::catalog::{CatalogRef, Sharing};
use posthouse_protocol::id::ResourceId;
use std::path::PathBuf;

#[derive(Debug, Clone)]
pub struct Resource {
    pub id: ResourceId,
    pub origin: Origin,
    pub catalog: Option<CatalogRef>,
    /// What its rows go through before they are handed over.
    pub govern: Govern,
    /// Set for a front-end table.
    pub exchange: Option<Exchange>,
}

/// Where the data of a resource lies.
#[derive(Debug, Clone)]
pub enum Origin {
    Table { connection: String, spec: TableSpec },
    Folder { path: PathBuf, options: FolderOptions },
}

impl Resource {
    pub fn is_table(&self) -> bool {
        matches!(self.origin, Origin::Table { .. })
    }
    /// The watermark's column under the name that it is offered with.
    pub fn watermark_offered(&self, spec: &TableSpec) -> Option<String> {
        spec.watermark.as_deref().map(|watermark| self.govern.governing.outward(watermark).to_owned())
    }
}

pub(super) fn read(table: &Table<'_>, place: &Place<'_>) -> Option<Resource> {
    let id: Option<ResourceId> = table.require_parse("id", "资源名称");
    let catalog = catalog(table);
    let kinds = ["table", "query", "folder"].into_iter().filter(|key| table.has(key)).count();
    if kinds != 1 {
        table.mistake_here(say(
            "a resource has exactly one of `table`, `query` and `folder`",
            "资源须恰好写明 `table`、`query`、`folder` 之一",
        ));
    }
    let origin = if table.has("folder") { folder(table, place) } else { rows(table, place, id.as_ref()) };
    let exchange = match &origin {
        Some(Origin::Table { spec, .. }) => exchange::read(table, spec),
        // A folder's is told already; of a broken table nothing can be said.
        _ => {
            table.known("exchange");
            None
        }
    };
    let govern = match &origin {
        Some(Origin::Table { spec, .. }) => govern::read(table, place, spec),
        // A folder's are told already; of a broken table nothing can be said.
        _ => {
            govern::KEYS.iter().for_each(|key| table.known(key));
            Govern::default()
        }
    };
    if let Some(CatalogRef { sharing: Sharing::None, .. }) = catalog {
        table.mistake(
            "catalog",
            say(
                "a resource with sharing = \"none\" can be neither offered nor granted; remove it",
                "不予共享的资源不能提供或授权；请删除该资源",
            ),
            None,
        );
    }
    Some(Resource { id: id?, origin: origin?, catalog, govern, exchange })
}

fn folder(table: &Table<'_>, place: &Place<'_>) -> Option<Origin> {
    let path: Option<PathBuf> = table.get("folder");
    let root = place.folder_connection(table);
    let options = FolderOptions {
        include: table.or("include", Vec::new()),
        exclude: table.or("exclude", Vec::new()),
        links: table.choice("links", &[("inside", Links::Inside), ("keep", Links::Keep)]).unwrap_or(Links::Inside),
        quiet_ms: table.or("quiet", Interval(0)).as_ms(),
        xattrs: table.or("xattrs", false),
    };
    for error in options.check() {
        let key = if table.has(&error.key) { error.key.as_str() } else { "include" };
        table.mistake(key, say(error.what.clone(), format!("{} 有误：{}", error.key, error.what)), error.nearest);
    }
    for key in ["key", "watermark", "late", "exchange"].into_iter().chain(govern::KEYS) {
        if table.has(key) {
            table.mistake_at_key(
                key,
                say(
                    format!("`{key}` belongs to tables, this resource is a folder"),
                    format!("`{key}` 只用于库表，此资源是目录"),
                ),
                None,
            );
        }
    }
    Some(Origin::Folder { path: root.join(path?), options })
}

fn rows(table: &Table<'_>, place: &Place<'_>, id: Option<&ResourceId>) -> Option<Origin> {
    let connection = place.table_connection(table);
    for key in ["include", "exclude", "links", "quiet", "xattrs"] {
        if table.has(key) {
            table.mistake_at_key(
                key,
                say(
                    format!("`{key}` belongs to folders, this resource is a table"),
                    format!("`{key}` 只用于目录，此资源是库表"),
                ),
                None,
            );
        }
    }
    let name: Option<String> = table.get("table");
    if let Some(name) = &name
        && bad_name(name)
    {
        table.mistake(
            "table",
            say(
                "a table's name is neither empty nor longer than 256 characters",
                "表名不能为空，也不能超过 256 个字符",
            ),
            None,
        );
    }
    let late: Option<Interval> = table.get("late");
    let watermark: Option<String> = table.get("watermark");
    let spec = TableSpec {
        table: name,
        query: table.get("query"),
        key: table.or("key", Vec::new()),
        late_ms: late.map_or(if watermark.is_some() { LATE_MS } else { 0 }, |late| late.as_ms()),
        watermark,
        resource: format!("{}/{}", place.node, id.map_or("", ResourceId::as_str)),
    };
    if spec.late_ms > 0 && spec.watermark.is_none() {
        table.mistake("late", say("`late` needs a `watermark`", "`late` 需要同时设置 `watermark`"), None);
    }
    Some(Origin::Table { connection: connection?, spec })
}

fn catalog(table: &Table<'_>) -> Option<CatalogRef> {
    let entry = table.table("catalog")?;
    let code: Option<String> = entry.require("code");
    let title: Option<String> = entry.require("title");
    entry.has("sharing").then_some(()).or_else(|| {
        entry.mistake_here(say("`resource.catalog.sharing` is missing", "缺少 `resource.catalog.sharing`"));
        None
    });
    let sharing = entry.choice(
        "sharing",
        &[("unconditional", Sharing::Unconditional), ("conditional", Sharing::Conditional), ("none", Sharing::None)],
    );
    let level: Option<u8> = entry.get("level");
    if level.is_some_and(|level| !(1..=4).contains(&level)) {
        entry.mistake("level", say("`level` is 1 to 4", "`level` 为 1 至 4"), None);
    }
    let basis: Option<String> = entry.get("basis");
    if sharing == Some(Sharing::None) && basis.is_none() {
        entry.mistake("sharing", say("sharing = \"none\" needs its legal `basis`", "不予共享须写明依据 `basis`"), None);
    }
    let update = entry.or("update", String::new());
    let version = entry.get("version");
    Some(CatalogRef {
        code: code?,
        title: title?,
        sharing: sharing?,
        level: level.unwrap_or(1),
        update,
        basis,
        version,
    })
}

/// A row written while a run reads may carry a mark from before it: a minute covers ordinary transactions.
const LATE_MS: i64 = 60_000;
