//! The list of PH codes, and a problem as it travels to a person: code, facts, cause. What another node is told
//! of it is in [`told`].
//! Each code has a title and a hint in both languages here and a page in `docs/errors/PHnnnn.md`.
//! Titles and hints are templates: `{name}` is replaced by the fact of that name.

mod told;

use std::fmt;

/// Which exit code a problem leads to (design: 1 failed, 2 usage, 3 difference, 4 not permitted, 5 unreachable).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Failed = 1,
    Usage = 2,
    Difference = 3,
    NotPermitted = 4,
    Unreachable = 5,
}

pub struct CodeText {
    pub code: Code,
    pub exit: Exit,
    pub en: &'static str,
    pub zh: &'static str,
    pub hint_en: &'static str,
    pub hint_zh: &'static str,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $exit:ident, $en:literal, $zh:literal, $hint_en:literal, $hint_zh:literal;)*) => {
        /// A problem's number, stable for ever.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum Code { $($(#[$doc])* $name = $number,)* }

        /// All codes, ascending.
        pub const CODES: &[CodeText] = &[$(CodeText {
            code: Code::$name, exit: Exit::$exit, en: $en, zh: $zh, hint_en: $hint_en, hint_zh: $hint_zh,
        },)*];
    };
}

// Groups: 1xxx configuration and usage, 2xxx exchange, 3xxx identity and permission, 4xxx storage and
// connectors, 5xxx evidence and reconciliation, 6xxx coordinator, 9xxx inside.
codes! {
    ConfigInvalid = 1001, Usage, "the configuration in {file} is not valid", "配置文件 {file} 有误",
        "correct the places marked above, then run `posthouse check {file}`", "请修正上面标出的位置，然后运行 `posthouse check {file}`";
    ConfigMissing = 1002, Usage, "the file {file} cannot be read", "无法读取文件 {file}",
        "check the path and its permissions", "请检查路径和权限";
    UsageInvalid = 1003, Usage, "the command line is not valid: {what}", "命令行有误：{what}",
        "see `posthouse --help`", "请查看 `posthouse --help`";
    UnknownName = 1004, Usage, "there is no {kind} `{name}` here", "这里没有名为 `{name}` 的 {kind}",
        "list what exists, such as with `posthouse job list`", "请先列出已有的名称，例如 `posthouse job list`";
    NotRunning = 1005, Unreachable, "no running {role} answers at {socket}", "{socket} 处没有正在运行的{role}",
        "start it, or check `data_dir` in the configuration", "请先启动，或检查配置中的 `data_dir`";
    AlreadyRunning = 1006, Failed, "another process already answers at {socket}", "已有另一个进程在 {socket} 处运行",
        "stop it first, or give this one another `data_dir`", "请先停止它，或为本进程换一个 `data_dir`";
    ListenFailed = 1007, Failed, "cannot listen on {address}", "无法监听 {address}",
        "check whether another program uses the port, and the address in `listen`", "请检查端口是否被占用，以及 `listen` 中的地址";
    SecretExposed = 1008, Usage, "the secret in {file} is not kept secret", "{file} 中的机密未得到保护",
        "make it yours alone: `chown` to the service's user and `chmod 600`", "请只允许本服务的用户读取：`chown` 后执行 `chmod 600`";
    NotJoined = 1009, Usage, "{node} has not joined a coordinator", "{node} 尚未加入协调中心",
        "ask the managing authority for a token, then `posthouse node join`", "请向管理方索取令牌，然后运行 `posthouse node join`";
    PeerUnreachable = 2001, Unreachable, "{peer} cannot be reached", "无法连接 {peer}",
        "check the address, the port (UDP and TCP) and whether {peer} is running", "请检查地址、端口（UDP 与 TCP）以及 {peer} 是否在运行";
    FrameInvalid = 2002, Failed, "{peer} sent something that is not a valid frame", "{peer} 发来了无效的帧",
        "the connection was closed; if it repeats, compare the versions of both nodes", "连接已关闭；若反复出现，请比较两端版本";
    Mismatch = 2003, Failed, "what {peer} handed over is not what arrived", "{peer} 交接的内容与收到的不一致",
        "nothing was receipted; the transfer starts again", "未签回执；交换将重新开始";
    SnapshotLost = 2004, Failed, "the source's snapshot was lost before its last split was sealed", "源端快照在最后一个分片封装前丢失",
        "a new transfer takes a new snapshot and adopts the splits already sealed", "新的交换批次会重新取快照，并沿用已封装的分片";
    Cancelled = 2005, Failed, "the transfer was cancelled", "交换批次已取消",
        "run the job again when ready", "准备好后重新运行任务";
    VersionUnsupported = 2006, Failed, "{peer} speaks protocol versions {theirs}, this node speaks {ours}", "{peer} 支持的协议版本为 {theirs}，本节点为 {ours}",
        "upgrade the older node", "请升级较旧的节点";
    Busy = 2007, Failed, "{peer} cannot serve this transfer now", "{peer} 目前无法处理该交换批次",
        "it is tried again by itself", "系统会自动重试";
    NameRefused = 2008, Failed, "the name `{name}` is refused", "名称 `{name}` 被拒绝",
        "rename it at the provider; everything else was landed", "请在提供方改名；其余内容已落盘";
    LinkRefused = 2009, Failed, "the link `{name}` leaves its folder", "链接 `{name}` 指向目录之外",
        "set `links = \"keep\"` to land links as they are, or remove it", "如需原样保留链接，请设 `links = \"keep\"`，或删除该链接";
    FileChanged = 2010, Failed, "`{name}` kept changing while it was read", "`{name}` 在读取过程中持续变化",
        "at the provider it is taken with the next run, once it is quiet; at the consumer look for what writes into the target folder", "提供方的文件静止后将在下次运行时交换；若在使用方，请查找正在写入目标目录的程序";
    FileUnreadable = 2011, Failed, "`{name}` cannot be read", "`{name}` 无法读取",
        "check permissions and the disk of the node that says so", "请检查报告此问题的节点的权限和磁盘";
    SpecialFile = 2012, Failed, "`{name}` is neither a file, a folder nor a link", "`{name}` 既不是文件、目录，也不是链接",
        "exclude it in the resource's configuration", "请在资源配置中排除它";
    NameTaken = 2013, Failed, "`{name}` is taken at the destination", "目标处的 `{name}` 已被占用",
        "move away what stands there, or let the job replace it (`write = \"upsert\"`)", "请移走目标处的同名内容，或让任务覆盖它（`write = \"upsert\"`）";
    ListedTwice = 2014, Failed, "`{name}` is listed twice or out of order", "`{name}` 重复列出或顺序有误",
        "nothing was receipted; the providing node is at fault, compare the versions of both nodes", "未签回执；问题出在提供方节点，请比较两端版本";
    OutsideWindow = 2015, Failed, "the exchange window of {node} opens at {until}", "{node} 的交换时段于 {until} 开始",
        "it goes on by itself then; `window` of the connection sets the hours", "届时自动继续；时段由连接的 `window` 设定";
    PartInvalid = 2016, Failed, "the part {path} is not what was sealed for this node", "分件 {path} 并非封装给本节点的内容",
        "carry it again; what was taken of the others stays", "请重新搬运该分件；其他分件已取得的内容保留";
    PartsMissing = 2017, Unreachable, "the parts of {transfer} are not all here", "批次 {transfer} 的分件尚未到齐",
        "bring them into the inbox, or import the disk once more; it then goes on", "请将分件放入收件目录，或再次导入介质；随后自动继续";
    NoFerryKey = 2018, Failed, "nothing can be sealed to {peer}: its key is not known here", "无法为 {peer} 封装：本节点尚无其密钥",
        "its node tells the coordinator its key once it runs this version; the key then comes with the policy", "对方节点升级到本版本后会向协调中心登记密钥，随策略下发";
    Outdated = 2019, Failed, "a later run of {job} has landed already", "任务 {job} 更晚的批次已经落地",
        "nothing is to be done: what landed is newer", "无需处理：已落地的内容更新";
    AttributesRefused = 2020, Failed, "the extended attributes of `{name}` cannot be carried", "`{name}` 的扩展属性无法交换",
        "take some of them away, or land where the file system has room for them", "请减少其扩展属性，或落盘到容得下它们的文件系统";
    NotAsLanded = 2021, Failed, "`{name}` does not stand as it was landed", "`{name}` 已不是落盘时的样子",
        "nothing was receipted; keep scanners and other programs at the consumer off the target folder until the receipt is there", "未签回执；回执签发前，请勿让使用方的杀毒软件和其他程序处理目标目录";
    NoGrant = 3001, NotPermitted, "no grant lets {consumer} take {resource}", "没有授权允许 {consumer} 获取 {resource}",
        "the managing authority adds one with `posthouse grant add`", "请管理方用 `posthouse grant add` 添加授权";
    GrantExpired = 3002, NotPermitted, "the grant {grant} ended at {until}", "授权 {grant} 已于 {until} 到期",
        "ask the managing authority for a new grant", "请向管理方申请新的授权";
    GrantWithdrawn = 3003, NotPermitted, "the grant for {resource} was withdrawn", "{resource} 的授权已被撤回",
        "ask the managing authority why; nothing further was sent", "请向管理方了解原因；此后未再发送任何数据";
    PolicyStale = 3004, NotPermitted, "this node has had no word from the coordinator for too long", "本节点太久未收到协调中心的策略",
        "restore the line to the coordinator; exchange resumes by itself", "请恢复与协调中心的连接；交换会自动恢复";
    NodeRevoked = 3005, NotPermitted, "{node} has been revoked", "{node} 已被吊销",
        "ask the managing authority", "请联系管理方";
    PolicyTooNew = 3006, NotPermitted, "the policy has a restriction that this version does not know", "策略中含有本版本不认识的限制",
        "upgrade this node; until then such grants are denied", "请升级本节点；升级前相关授权一律拒绝";
    CertificateInvalid = 3007, NotPermitted, "the certificate of {peer} is not accepted", "{peer} 的证书不被接受",
        "check that both nodes joined the same coordinator", "请确认两个节点加入了同一个协调中心";
    CertificateExpired = 3008, NotPermitted, "the certificate of {peer} has expired", "{peer} 的证书已过期",
        "it renews by itself when its node reaches the coordinator", "其节点连上协调中心后会自动续期";
    ClockWrong = 3009, Failed, "the clocks differ by {seconds} s", "两端时钟相差 {seconds} 秒",
        "set the clock of the machine that is wrong (NTP)", "请校正有误的机器的时钟（NTP）";
    TokenInvalid = 3010, NotPermitted, "the join token is not valid", "加入令牌无效",
        "make a new one with `posthouse coordinator token`; each is for one node, once, for 15 minutes", "请用 `posthouse coordinator token` 重新生成；每个令牌只供一个节点在 15 分钟内使用一次";
    TokenUsed = 3011, NotPermitted, "the join token has been used already", "加入令牌已被使用过",
        "make a new one; if nobody here used it, tell the managing authority", "请重新生成；若非本人使用，请告知管理方";
    TokenExpired = 3012, NotPermitted, "the join token has expired", "加入令牌已过期",
        "make a new one with `posthouse coordinator token`", "请用 `posthouse coordinator token` 重新生成";
    WrongAuthority = 3013, NotPermitted, "{peer} is not the coordinator that the token names", "{peer} 不是令牌中写明的协调中心",
        "check `[coordinator] address`; if it is right, someone may be in between", "请检查 `[coordinator] address`；若无误，线路中可能有人冒充";
    Fenced = 3014, NotPermitted, "another copy of this node has started since", "本节点的另一副本已在其后启动",
        "stop one of the two; a restored copy must join again", "请停掉其中之一；恢复出来的副本须重新加入";
    Unauthenticated = 3015, NotPermitted, "no valid access token was given", "未提供有效的访问令牌",
        "send `Authorization: Bearer TOKEN`; tokens come from `posthouse coordinator access add`", "请携带 `Authorization: Bearer 令牌`；令牌由 `posthouse coordinator access add` 生成";
    RoleDenied = 3016, NotPermitted, "this needs the role {role}", "此操作需要 {role} 角色",
        "ask an admin for a token with that role", "请向管理员申请相应角色的令牌";
    NotAccepted = 3017, NotPermitted, "{consumer} has no job that accepts {job}", "{consumer} 没有接收 {job} 的任务",
        "the taker adds a `[[job]]` with `accept = \"{job}\"`", "请接收方添加含 `accept = \"{job}\"` 的 `[[job]]`";
    NotOffered = 3018, NotPermitted, "{provider} does not offer `{resource}`", "{provider} 不提供 `{resource}`",
        "check the resource's name with its provider", "请与提供方核对资源名称";
    FilterUnsupported = 3019, NotPermitted, "the grant's row filter cannot be applied to {resource}", "授权的行过滤条件无法用于 {resource}",
        "ask the managing authority to correct the filter", "请管理方修正过滤条件";
    CertificateOfOther = 3020, NotPermitted, "the certificate of {peer} comes from another CA", "{peer} 的证书由另一个 CA 签发",
        "both must have joined the same coordinator; join the stray one again", "两端须加入同一个协调中心；请让加错的一端重新加入";
    SharingNone = 3021, NotPermitted, "{resource} is not to be shared", "{resource} 属于不予共享的数据",
        "its catalog entry says so, with its basis; have the catalog changed first", "其目录条目载明不予共享及依据；须先变更目录";
    FrontTableUnfit = 3040, Failed, "{resource} cannot be exchanged as a front-end table", "{resource} 无法作为前置表交换",
        "the cause names what stands in the way; FRONTEND.md says what such a table needs", "原因中写明障碍所在；前置表的要求见 FRONTEND.zh-CN.md";
    MasksChanged = 3050, Failed, "the rows of {resource} are masked otherwise than those that {job} has landed", "{resource} 的脱敏方式与任务 {job} 已落地的行不同",
        "take the table in full once (`mode = \"full\"` with `write = \"replace\"`), then go back to incremental", "请先全量取一次（`mode = \"full\"`、`write = \"replace\"`），再改回增量";
    GoverningUnknown = 3051, Failed, "{node} runs a version that does not know of governed rows", "{node} 的版本不识别经过治理的行",
        "bring that node to this version", "请将该节点升级到本版本";
    DiskFull = 4001, Failed, "no room left in {path}", "{path} 空间不足",
        "make room; the transfer is paused and resumes by itself", "请清理空间；交换已暂停，会自动恢复";
    StorageFailed = 4002, Failed, "{path} cannot be written", "无法写入 {path}",
        "check permissions and the disk", "请检查权限和磁盘";
    StoreDamaged = 4003, Failed, "the node's store in {path} is damaged", "{path} 中的本地存储已损坏",
        "keep the folder for examination and see `posthouse doctor`", "请保留该目录备查，并运行 `posthouse doctor`";
    ConnectionFailed = 4004, Unreachable, "the connection `{connection}` cannot be opened", "无法打开连接 `{connection}`",
        "check the database or folder and the account", "请检查数据库或目录以及账号";
    SchemaDrift = 4005, Failed, "the table {table} does not have the columns of the resource", "表 {table} 的列与资源不一致",
        "bring the two schemas together, or land into another table", "请统一两边的表结构，或改用另一张目标表";
    TypeUnsupported = 4006, Failed, "the column `{column}` has a type that cannot move: {type}", "列 `{column}` 的类型无法交换：{type}",
        "leave the column out or convert it in a view", "请排除该列，或用视图转换";
    RowsRefused = 4007, Failed, "{rows} rows were refused, more than the job allows", "有 {rows} 行被退回，超过任务允许的数量",
        "look at the quarantine, correct the rows at the provider, run again", "请查看问题数据，在提供方更正后重新运行";
    SourceFailed = 4008, Failed, "the source of {resource} cannot be read", "无法读取 {resource} 的来源",
        "check the database or folder at the provider", "请检查提供方的数据库或目录";
    DestinationFailed = 4009, Failed, "the destination {target} refused the data", "目标 {target} 拒绝写入",
        "check the database or folder at the consumer", "请检查使用方的数据库或目录";
    MirrorUnsafe = 4010, Failed, "mirroring would delete {count} of {total} entries", "镜像将删除 {total} 项中的 {count} 项",
        "check that the source is complete; over 10 % is never deleted by itself", "请确认来源完整；超过 10% 不会自动删除";
    KeyMissing = 4011, Failed, "{table} has no key, which `{write}` needs", "{table} 没有主键，无法使用 `{write}`",
        "name one with `key = [...]`, or use append or replace", "请用 `key = [...]` 指定主键，或改用 append、replace";
    ReplaceUnsupported = 4012, Failed, "{path} cannot be replaced in one instant", "无法在一瞬间替换 {path}",
        "give write rights on the parent folder, on a file system with RENAME_EXCHANGE", "请开放上级目录的写权限，并使用支持 RENAME_EXCHANGE 的文件系统";
    EvidenceInvalid = 5001, Difference, "{file} does not verify", "{file} 验证不通过",
        "it was altered or belongs to another trust; ask for a fresh export", "文件被改动过，或不属于该信任根；请重新导出";
    ReconcileDifference = 5002, Difference, "reconciliation found differences", "对账发现差异",
        "each finding names the transfer and the party to ask", "每条差异都写明了交换批次和应询问的一方";
    NoReceipt = 5003, Failed, "{transfer} has no receipt", "{transfer} 没有回执",
        "a refused or failed transfer has statements only; see `posthouse transfer show`", "被拒绝或失败的批次只有陈述；请查看 `posthouse transfer show`";
    StatementRefused = 5004, Failed, "the centre cannot take a statement", "协调中心无法接收该陈述",
        "the statement stays in the outbox; see the cause", "该陈述仍保留在发件箱；请看原因";
    CoordinatorExists = 6001, Usage, "{path} already holds a coordinator", "{path} 中已有一个协调中心",
        "choose another folder; an existing ledger is never overwritten", "请另选目录；已有的台账绝不会被覆盖";
    AlreadyJoined = 6002, Usage, "{node} has joined already", "{node} 已经加入",
        "revoke it first to let another machine take its name", "如要换机器使用该名称，请先吊销";
    RateLimited = 6003, Failed, "too many attempts", "尝试次数过多",
        "wait a minute", "请等待一分钟";
    GrantTaken = 6004, Usage, "{consumer} has a grant for {resource} already: {grant}, until {until}", "{consumer} 已有 {resource} 的授权：{grant}，有效至 {until}",
        "with the same columns, rows and zone, `grant add` moves its end; for others, first `posthouse grant revoke {grant}`", "列、行条件和网络区域都相同时，`grant add` 会调整其截止时间；不同则先执行 `posthouse grant revoke {grant}`";
    InsideFailed = 9001, Failed, "something inside failed that should not", "发生了不应发生的内部错误",
        "keep the log and report it", "请保留日志并上报";
}

impl Code {
    pub fn text(self) -> &'static CodeText {
        // The list is made by the same macro as the enum, so every code is in it.
        CODES.iter().find(|text| text.code == self).unwrap_or(&CODES[CODES.len() - 1])
    }
    pub fn from_number(number: u16) -> Option<Self> {
        CODES.iter().map(|text| text.code).find(|code| *code as u16 == number)
    }
    /// `PH3001` → code.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("PH").or_else(|| text.strip_prefix("ph"))?;
        digits.parse().ok().and_then(Self::from_number)
    }
    pub fn number(self) -> u16 {
        self as u16
    }
}
impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PH{:04}", self.number())
    }
}

/// A language in which people read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lang {
    En,
    Zh,
}

/// Something that went wrong, as a person meets it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Problem {
    #[serde(with = "code_text")]
    pub code: Code,
    /// Named facts, in order; they fill the templates and are printed below the title.
    pub facts: Vec<(String, String)>,
    /// What was seen, as a lower-case fragment; empty where the title says it all.
    pub cause: String,
}

impl Problem {
    pub fn new(code: Code) -> Self {
        Self { code, facts: Vec::new(), cause: String::new() }
    }
    #[must_use]
    pub fn with(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.facts.push((name.to_owned(), value.to_string()));
        self
    }
    #[must_use]
    pub fn cause(mut self, cause: impl fmt::Display) -> Self {
        self.cause = cause.to_string();
        self
    }
    pub fn title(&self, lang: Lang) -> String {
        let text = self.code.text();
        self.fill(match lang {
            Lang::En => text.en,
            Lang::Zh => text.zh,
        })
    }
    pub fn hint(&self, lang: Lang) -> String {
        let text = self.code.text();
        self.fill(match lang {
            Lang::En => text.hint_en,
            Lang::Zh => text.hint_zh,
        })
    }
    /// A fact that is not known here (it did not travel with the code) shows as an ellipsis.
    fn fill(&self, template: &str) -> String {
        let mut text = String::with_capacity(template.len() + 64);
        let mut rest = template;
        while let Some((before, (name, after))) =
            rest.split_once('{').and_then(|(before, after)| Some((before, after.split_once('}')?)))
        {
            text.push_str(before);
            let value = self.facts.iter().find(|(known, _)| known == name).map_or("…", |(_, value)| value);
            text.push_str(value);
            rest = after;
        }
        text.push_str(rest);
        text
    }
}
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.title(Lang::En))?;
        if self.cause.is_empty() { Ok(()) } else { write!(f, ": {}", self.cause) }
    }
}
impl std::error::Error for Problem {}

mod code_text {
    use super::Code;
    pub(super) fn serialize<S: serde::Serializer>(code: &Code, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(code)
    }
    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Code, D::Error> {
        let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(d)?;
        Code::parse(&text).ok_or_else(|| serde::de::Error::custom("it is a code like PH3001"))
    }
}
