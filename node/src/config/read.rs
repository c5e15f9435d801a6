//! From the root table to a checked configuration; what `[node]`, `[coordinator]` and
//! `[connection.X]` hold, and how parts refer to each other.

use super::{
    Bandwidth, Config, ConnectionConfig, Ferry, MEMORY_DEFAULT, MEMORY_MIN, Node, Origin, PART_SIZE_DEFAULT,
    PART_SIZE_MIN, PART_SUFFIX_DEFAULT, Resource, SPOOL_MAX_DEFAULT, STAGING_MAX_DEFAULT, job, resource,
};
use posthouse_connectors::registry;
use posthouse_platform::endpoint::TransportChoice;
use posthouse_platform::settings::{Table, nearest, say};
use posthouse_protocol::govern::identity::credit_code;
use posthouse_protocol::id::{NodeId, ResourceId};
use posthouse_protocol::job::Mode;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub(super) fn config(root: &Table<'_>, base: &Path) -> Option<Config> {
    let node = root.require_table("node").and_then(|table| node(&table, base));
    let coordinator = root.require_table("coordinator").and_then(|table| {
        let address: Option<String> = table.require("address");
        address.filter(|address| checked_address(&table, "address", address))
    });
    let connections = connections(root, base);
    // Without a name for the node the rest is still read, so that its mistakes are told too.
    let anonymous = "this-node".parse().ok()?;
    let name = node.as_ref().map_or(&anonymous, |node| &node.name);
    let mut place = Place { node: name, base, connections: &connections, resources: BTreeMap::new() };
    let mut broken = false;
    for table in root.tables("resource") {
        let Some(found) = resource::read(&table, &place) else {
            broken = true;
            // A broken resource still has a name, so that jobs that refer to it are not blamed.
            if let Some(id) = table.quiet_parse("id") {
                place.resources.entry(id).or_insert(None);
            }
            continue;
        };
        if place.resources.contains_key(&found.id) {
            table.mistake(
                "id",
                say(
                    format!("duplicate id: a resource `{}` is above already", found.id),
                    format!("名称重复：上面已有资源 `{}`", found.id),
                ),
                None,
            );
        }
        place.resources.insert(found.id.clone(), Some(found));
    }
    let (peers, ferries) = peers(root, base);
    let mut jobs = BTreeMap::new();
    let mut accepted = std::collections::BTreeSet::new();
    for table in root.tables("job") {
        let Some(found) = job::read(&table, &place) else {
            broken = true;
            continue;
        };
        check_carried(&table, &found, &ferries);
        if let job::Kind::Accept { from, job } = &found.kind
            && !accepted.insert((from.clone(), job.clone()))
        {
            table.mistake(
                "accept",
                say(
                    format!("duplicate: another job accepts {from}/{job} already"),
                    format!("重复：已有任务接收 {from}/{job}"),
                ),
                None,
            );
        }
        if jobs.contains_key(&found.name) {
            table.mistake(
                "name",
                say(
                    format!("duplicate name: a job `{}` is above already", found.name),
                    format!("名称重复：上面已有任务 `{}`", found.name),
                ),
                None,
            );
        }
        jobs.insert(found.name.clone(), found);
    }
    let resources =
        std::mem::take(&mut place.resources).into_iter().filter_map(|(id, found)| Some((id, found?))).collect();
    if broken {
        return None;
    }
    let connections = connections.into_iter().filter_map(|(name, found)| Some((name, found?))).collect();
    Some(Config { node: node?, coordinator: coordinator?, connections, resources, jobs, peers, ferries })
}

/// What resources and jobs may refer to.
pub(super) struct Place<'a> {
    pub(super) node: &'a NodeId,
    pub(super) base: &'a Path,
    /// None: named, but with mistakes of its own.
    connections: &'a BTreeMap<String, Option<ConnectionConfig>>,
    resources: BTreeMap<ResourceId, Option<Resource>>,
}

impl Place<'_> {
    /// The connection of a table, which must exist and hold tables.
    pub(super) fn table_connection(&self, table: &Table<'_>) -> Option<String> {
        let name: String = table.require("connection")?;
        let found = self.connection(table, &name)?;
        if found.is_some_and(|found| found.kind == FOLDER) {
            table.mistake(
                "connection",
                say(format!("`{name}` is a folder, it has no tables"), format!("`{name}` 是目录，没有库表")),
                None,
            );
            return None;
        }
        Some(name)
    }

    /// The folder that a relative `folder` is beneath: a connection of kind folder, or the configuration's own.
    pub(super) fn folder_connection(&self, table: &Table<'_>) -> PathBuf {
        let Some(name) = table.get::<String>("connection") else { return self.base.to_owned() };
        match self.connection(table, &name) {
            Some(Some(found)) if found.kind == FOLDER => {
                let path = found.settings.get("path").and_then(serde_json::Value::as_str).unwrap_or_default();
                self.base.join(path)
            }
            Some(Some(_)) => {
                table.mistake(
                    "connection",
                    say(format!("`{name}` is not a folder"), format!("`{name}` 不是目录")),
                    None,
                );
                self.base.to_owned()
            }
            _ => self.base.to_owned(),
        }
    }

    fn connection(&self, table: &Table<'_>, name: &str) -> Option<Option<&ConnectionConfig>> {
        let found = self.connections.get(name);
        if found.is_none() {
            let near = nearest(name, self.connections.keys().map(String::as_str));
            table.mistake(
                "connection",
                say(format!("there is no connection `{name}`"), format!("没有名为 `{name}` 的连接")),
                near,
            );
        }
        found.map(Option::as_ref)
    }

    pub(super) fn check_resource(&self, table: &Table<'_>, key: &str, id: &ResourceId) {
        if !self.resources.contains_key(id) {
            let near = nearest(id.as_str(), self.resources.keys().map(ResourceId::as_str));
            table.mistake(key, say(format!("there is no resource `{id}`"), format!("没有名为 `{id}` 的资源")), near);
        }
    }

    pub(super) fn is_table(&self, id: &ResourceId) -> Option<bool> {
        self.resources.get(id)?.as_ref().map(Resource::is_table)
    }

    pub(super) fn has_watermark(&self, id: &ResourceId) -> Option<bool> {
        let found = self.resources.get(id)?.as_ref()?;
        match &found.origin {
            // Of a front-end table the flags say what is new.
            Origin::Table { spec, .. } => Some(spec.watermark.is_some() || found.exchange.is_some()),
            Origin::Folder { .. } => None,
        }
    }

    /// Also where the resource is not known: that is told already.
    pub(super) fn pushes_folder(&self, kind: Option<&job::Kind>) -> bool {
        match kind {
            Some(job::Kind::Push { resource, .. }) => match self.resources.get(resource) {
                Some(Some(resource)) => !resource.is_table(),
                _ => true,
            },
            Some(_) => false,
            None => true,
        }
    }
}

fn node(table: &Table<'_>, base: &Path) -> Option<Node> {
    let name: Option<NodeId> = table.require_parse("name", "节点名称");
    let data_dir: Option<PathBuf> = table.require("data_dir");
    let department_code: Option<String> = table.get("department_code");
    if department_code.as_deref().is_some_and(|code| credit_code(code).is_err()) {
        table.mistake(
            "department_code",
            say(
                "it is not a unified social credit code: 18 characters with a correct check digit",
                "不是有效的统一社会信用代码（18 位，末位为校验码）",
            ),
            None,
        );
    }
    let division: Option<String> = table.get("division");
    if division
        .as_deref()
        .is_some_and(|code| !matches!(code.len(), 6 | 9 | 12) || !code.bytes().all(|b| b.is_ascii_digit()))
    {
        table.mistake(
            "division",
            say("a division code has 6, 9 or 12 digits", "行政区划代码为 6、9 或 12 位数字"),
            None,
        );
    }
    let listen: Option<String> = table.get("listen").filter(|text| text != "none");
    if let Some(listen) = &listen
        && listen.parse::<std::net::SocketAddr>().is_err()
    {
        table.mistake(
            "listen",
            say(
                "it is an address and a port such as \"[::]:7843\", or \"none\"",
                "应为地址和端口，如 \"[::]:7843\"，或 \"none\"",
            ),
            None,
        );
    }
    let transports = [("auto", TransportChoice::Auto), ("quic", TransportChoice::Quic), ("tcp", TransportChoice::Tcp)];
    let memory = table.or("memory", MEMORY_DEFAULT);
    if memory < MEMORY_MIN {
        table.mistake(
            "memory",
            say(format!("a node needs at least {MEMORY_MIN}"), format!("节点至少需要 {MEMORY_MIN}")),
            None,
        );
    }
    let bandwidth = table.get("bandwidth");
    // Every key is read before anything is given up, or the rest would count as unknown.
    let department = table.get("department");
    let transport = table.choice("transport", &transports).unwrap_or_default();
    let advertise = advertise(table);
    let spool_max = table.or("spool_max", SPOOL_MAX_DEFAULT);
    let staging_max = table.or("staging_max", STAGING_MAX_DEFAULT);
    Some(Node {
        name: name?,
        department,
        department_code,
        division,
        data_dir: base.join(data_dir?),
        listen,
        transport,
        advertise,
        memory,
        spool_max,
        staging_max,
        bandwidth,
    })
}

fn advertise(table: &Table<'_>) -> Vec<(Option<String>, String)> {
    if !table.is_list("advertise") {
        let address: Option<String> = table.get("advertise");
        return address
            .into_iter()
            .filter(|address| checked_address(table, "advertise", address))
            .map(|address| (None, address))
            .collect();
    }
    let mut list = Vec::new();
    for item in table.tables("advertise") {
        let zone = item.get("zone");
        let address: Option<String> = item.require("address");
        if let Some(address) = address.filter(|address| checked_address(&item, "address", address)) {
            list.push((zone, address));
        }
    }
    list
}

fn checked_address(table: &Table<'_>, key: &str, address: &str) -> bool {
    let ok = address
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0));
    if !ok {
        table.mistake(
            key,
            say("it is a host and a port such as \"10.1.2.3:7843\"", "应为主机和端口，如 \"10.1.2.3:7843\""),
            None,
        );
    }
    ok
}

/// `[peer."NAME"]`: what is sent to it, and how it is reached where no line leads to it.
fn peers(root: &Table<'_>, base: &Path) -> (BTreeMap<NodeId, Bandwidth>, BTreeMap<NodeId, Ferry>) {
    let (mut bandwidths, mut ferries) = (BTreeMap::new(), BTreeMap::new());
    for (name, table) in root.named_tables("peer") {
        let is_carried = table.has("ferry");
        let bandwidth = if is_carried { table.get("bandwidth") } else { table.require("bandwidth") };
        let ferry = table.table("ferry").and_then(|table| ferry(&table, base));
        match name.parse::<NodeId>() {
            Ok(node) => {
                bandwidths.extend(bandwidth.map(|bandwidth| (node.clone(), bandwidth)));
                ferries.extend(ferry.map(|ferry| (node, ferry)));
            }
            Err(error) => {
                let zh = format!("`{name}` 不是有效的节点名称");
                table.mistake_here(say(format!("`{name}` is no name of a node: {error}"), zh));
            }
        }
    }
    (bandwidths, ferries)
}

fn ferry(table: &Table<'_>, base: &Path) -> Option<Ferry> {
    let outbox: Option<PathBuf> = table.require("outbox");
    let inbox: Option<PathBuf> = table.require("inbox");
    let part_size = table.or("part_size", PART_SIZE_DEFAULT);
    if part_size < PART_SIZE_MIN {
        table.mistake(
            "part_size",
            say(format!("a part has at least {PART_SIZE_MIN}"), format!("分件至少为 {PART_SIZE_MIN}")),
            None,
        );
    }
    let suffix: String = table.or("suffix", PART_SUFFIX_DEFAULT.to_owned());
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if !suffix.starts_with('.') || suffix.len() > 32 || !suffix.chars().all(is_plain) {
        table.mistake(
            "suffix",
            say(
                "it begins with a dot and has letters, digits, dots and dashes, such as \".dat\"",
                "以点开头，只含字母、数字、点和横线，如 \".dat\"",
            ),
            None,
        );
    }
    let (outbox, inbox) = (base.join(outbox?), base.join(inbox?));
    if outbox == inbox {
        let what = say("what goes out and what comes in stand in two folders", "发件与收件须为两个目录");
        table.mistake("inbox", what, None);
    }
    Some(Ferry { outbox, inbox, part_size, suffix })
}

/// What is carried is pushed, and whole.
fn check_carried(table: &Table<'_>, job: &job::Job, ferries: &BTreeMap<NodeId, Ferry>) {
    if !ferries.contains_key(job.peer()) {
        return;
    }
    match &job.kind {
        job::Kind::Take { resource } => table.mistake(
            "resource",
            say(
                format!("{} is reached by a ferry, which cannot be asked: accept what it pushes", resource.node),
                format!("与 {} 以摆渡方式交换，无法主动获取；请用 `accept` 接收其推送", resource.node),
            ),
            None,
        ),
        job::Kind::Push { to, .. } if job.mode != Mode::Full => table.mistake(
            "mode",
            say(
                format!("what is carried to {to} is whole: mode = \"full\""),
                format!("摆渡到 {to} 的内容须为全量：mode = \"full\""),
            ),
            None,
        ),
        job::Kind::Accept { from, .. } if job.rules.changes_values() => table.mistake_at_key(
            "rules",
            say(
                format!("what {from} carries here cannot be asked for otherwise: its resource has the rules"),
                format!("{from} 以摆渡方式送来的内容无法另提要求；规则写在其资源上"),
            ),
            None,
        ),
        job::Kind::Push { .. } | job::Kind::Accept { .. } => {}
    }
}

fn connections(root: &Table<'_>, base: &Path) -> BTreeMap<String, Option<ConnectionConfig>> {
    let mut found = BTreeMap::new();
    for (name, table) in root.named_tables("connection") {
        found.insert(name, connection(&table, base));
    }
    found
}

fn connection(table: &Table<'_>, base: &Path) -> Option<ConnectionConfig> {
    let kind: Option<String> = table.require("kind");
    let window = table.parse("window", "时段");
    let mut settings = table.rest();
    let kind = kind?;
    let Some(connector) = registry::find(&kind) else {
        let here: Vec<&str> = registry::CONNECTORS.iter().map(|connector| connector.kind()).collect();
        let (list, list_zh) = (here.join(", "), here.join("、"));
        let what = if LATER_KINDS.contains(&kind.as_str()) {
            say(
                format!("kind = \"{kind}\" is not available in this version; there are {list}"),
                format!("本版本尚不支持 kind = \"{kind}\"；现有 {list_zh}"),
            )
        } else {
            say(format!("`kind` is one of {list}"), format!("`kind` 只能是 {list_zh} 之一"))
        };
        table.mistake("kind", what, nearest(&kind, here.into_iter()));
        return None;
    };
    let errors = connector.check(&settings);
    let ok = errors.is_empty();
    for error in errors {
        let say = say(error.what.clone(), format!("`{}` 有误：{}", error.key, error.what));
        table.mistake_at_key(&error.key, say, error.nearest);
    }
    // Paths are relative to the configuration file, wherever the program was started.
    for key in ["path", "password_file", "ca_file"] {
        if let Some(serde_json::Value::String(path)) = settings.get_mut(key)
            && path != ":memory:"
            && !(key == "password_file" && is_kept_elsewhere(path))
        {
            *path = base.join(&*path).to_string_lossy().into_owned();
        }
    }
    ok.then_some(ConnectionConfig { kind, window, settings })
}

/// Secrets that systemd or the environment hands over are names, not paths.
fn is_kept_elsewhere(secret: &str) -> bool {
    secret.starts_with("credential:") || secret.starts_with("env:")
}

pub(super) fn bad_name(name: &str) -> bool {
    name.trim().is_empty() || name.chars().count() > 256 || name.contains('\0')
}

const FOLDER: &str = "folder";
/// Kinds that the design names and later versions bring.
const LATER_KINDS: &[&str] = &["odbc", "s3"];
