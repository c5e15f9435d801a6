//! Help in both languages: clap holds the English text, this table its Chinese.
//! A test walks the whole command tree, so that no text is left in one language.

use crate::Cli;
use clap::CommandFactory;
use posthouse_protocol::problem::Lang;

/// The command tree in one language.
pub(crate) fn localized(lang: Lang) -> clap::Command {
    let mut command = Cli::command();
    command.build();
    match lang {
        Lang::En => command,
        Lang::Zh => chinese(command),
    }
}

fn chinese(mut command: clap::Command) -> clap::Command {
    if let Some(about) = command.get_about().and_then(|text| translate(&text.to_string())) {
        command = command.about(about).long_about(None::<&str>);
    }
    command = command.help_template("{before-help}{about-with-newline}\n用法：{usage}\n\n{all-args}{after-help}");
    command = command.subcommand_help_heading("命令");
    let names: Vec<String> = command.get_arguments().map(|arg| arg.get_id().to_string()).collect();
    for name in names {
        command = command.mut_arg(&name, |arg| {
            let text = arg.get_help().map(ToString::to_string).unwrap_or_default();
            let heading = if arg.is_positional() { "参数" } else { "选项" };
            let arg = arg.help_heading(heading);
            match translate(&text) {
                Some(text) => arg.help(text).long_help(None::<&str>),
                None => arg,
            }
        });
    }
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    for name in names {
        command = command.mut_subcommand(name, chinese);
    }
    command
}

fn translate(english: &str) -> Option<&'static str> {
    CHINESE.iter().find(|(en, _)| *en == english).map(|(_, zh)| *zh)
}

/// English help text → Chinese.
const CHINESE: &[(&str, &str)] = &[
    (
        "Moves tables and folders between departments, and leaves receipts that three parties can check",
        "在部门之间交换库表和文件，并留下三方可核验的回执",
    ),
    ("Language of everything printed: zh or en (by default the locale's)", "输出语言：zh 或 en（默认按系统区域设置）"),
    ("Print JSON: one object, or a line per object while it runs", "输出 JSON：一个对象，或运行中每行一个对象"),
    ("List, show, export and verify receipts", "列出、查看、导出和核验回执"),
    ("List the receipts of a running node, newest first", "列出正在运行的节点的回执，最新的在前"),
    ("Only this receipt or transfer", "只列此回执或此交换批次"),
    ("Show one receipt", "查看一份回执"),
    (
        "What is carried on a disk instead of going over a line: export, import",
        "离线报送：以介质搬运代替线路（导出、导入）",
    ),
    ("Run a job that pushes, into sealed parts in a folder", "运行推送任务，将内容封装为目录中的分件"),
    ("The job, which pushes", "推送任务的名称"),
    ("The folder for the parts, which exists", "存放分件的目录（须已存在）"),
    ("How long a part is", "每个分件的大小"),
    (
        "Take up what was carried here in a folder: what others gave, and their statements of what this node gave",
        "收取目录中搬运来的内容：他方提供的数据，以及他方对本节点所提供数据的陈述",
    ),
    ("The folder with the parts", "分件所在目录"),
    (
        "Where statements go that are to be carried back (by default the same folder)",
        "需带回的陈述存放目录（默认同一目录）",
    ),
    ("Rows that were refused: list, show, resubmit", "问题数据：列出、查看、重新提交"),
    (
        "List the transfers that left rows in quarantine here, newest first",
        "列出在本节点留有问题数据的交换批次，最新的在前",
    ),
    ("Show the rows of one transfer: key, reason, and what they were", "查看一个批次的问题数据：主键、原因和原始内容"),
    (
        "Run the job again from where the transfer began, so that its refused rows are read again",
        "从该批次的起点重新运行任务，重新读取被拒绝的行",
    ),
    ("Id of a receipt or of its transfer", "回执编号或其交换批次号"),
    (
        "Write a receipt with its parts and the trust it verifies with into a folder",
        "把回执、其各部分及核验所需的信任密钥写入目录",
    ),
    ("Folder to write into; it is made when missing, and must be empty", "写入的目录；不存在则创建，且必须为空"),
    (
        "Verify receipts offline: whole files, single statements, or folders written by export",
        "离线核验回执：完整文件、单份陈述，或导出的目录",
    ),
    ("Files or folders", "文件或目录"),
    ("Folder with the keys to trust, as the managing authority gave it", "存放可信密钥的目录，由管理方提供"),
    ("Print help", "显示帮助"),
    ("Print version", "显示版本"),
    ("Run the whole exchange on this machine, told step by step", "在本机演示完整的交换过程，逐步讲解"),
    ("Folder for all that the demonstration makes; without it a new temporary one", "演示数据目录；省略则新建临时目录"),
    ("End after the last step instead of staying up", "最后一步之后结束，不再保持运行"),
    (
        "Balance a day between provider, consumer and coordinator, or compare a table row by row",
        "三方对账，或逐行比对库表",
    ),
    (
        "Configuration file of a coordinator (all nodes) or of a node (its own view)",
        "协调中心的配置文件（全部节点）或节点的配置文件（本节点视角）",
    ),
    ("The day, such as 2026-11-22, by default today", "日期，如 2026-11-22；默认当日"),
    (
        "Compare both standing tables of a job row by row; NODE/JOB at a coordinator",
        "逐行比对某任务两侧的库表；在协调中心写作 节点/任务",
    ),
    ("Count what a day or a month moved", "按日或按月统计"),
    ("A month, such as 2026-11", "月份，如 2026-11"),
    ("A day, such as 2026-11-22, by default today", "日期，如 2026-11-22；默认当日"),
    ("Print the page of an error code, offline", "离线显示错误代码的说明"),
    (
        "Check configuration files: every mistake at its place, nothing is started",
        "检查配置文件：逐处列出错误，不启动任何服务",
    ),
    ("Configuration files of nodes and coordinators", "节点或协调中心的配置文件"),
    (
        "Also open every connection and folder, and reach for the coordinator",
        "同时打开每个连接和目录，并尝试连接协调中心",
    ),
    ("Say what is wrong on this machine, and what to do about it", "检查本机存在的问题并给出处理办法"),
    ("The node's configuration", "节点的配置文件"),
    (
        "Print what the DBA of this connection's database runs, so that its account needs no right to create anything",
        "输出由该连接的数据库管理员执行的脚本，使其账号无需任何创建权限",
    ),
    (
        "Say what holds this job up: its source, the line or its destination. At a provider, the consumer's name of it",
        "判断该任务受限于何处：数据源、线路还是目标；在提供方填写使用方的任务名",
    ),
    (
        "With --job at a provider: the consumer that is meant, where several have a job of this name",
        "在提供方与 --job 同用：多个使用方有同名任务时，指明是哪一个",
    ),
    (
        "With --job, also measure its destination: rows of the target are staged once more, and discarded",
        "与 --job 同用：同时测量目标的写入速度；将目标表的部分行再次暂存后丢弃",
    ),
    ("Make, join and run a node", "生成配置、加入并运行节点"),
    ("Print or write a commented node.toml", "输出或写出带注释的 node.toml"),
    ("Write it to this file, which must not exist yet", "写到此文件；文件不得已存在"),
    ("Join a coordinator with a token from the managing authority", "凭管理方给出的令牌加入协调中心"),
    ("The token, as `posthouse coordinator token` printed it", "`posthouse coordinator token` 输出的令牌"),
    ("Run the node until it is stopped", "运行节点，直到停止"),
    ("Change a running node until its next start", "调整正在运行的节点，至其下次启动为止"),
    (
        "What and to what: bandwidth=2MiB, bandwidth=\"2 MiB 08:00-18:00\", bandwidth=none, bandwidth=config",
        "项目与取值：bandwidth=2MiB、bandwidth=\"2 MiB 08:00-18:00\"、bandwidth=none（不限）、bandwidth=config（依配置）",
    ),
    ("Show how a running node is", "查看正在运行的节点的状况"),
    ("The node's configuration file", "节点的配置文件"),
    (
        "The standing arrangements of a node: list, run, pause, resume, remove",
        "节点的交换任务：列出、运行、暂停、恢复、移除",
    ),
    ("List the jobs of a running node", "列出正在运行的节点的任务"),
    ("The job's name", "任务名称"),
    ("Run a job now, or attach to its run under way", "立即运行任务；若正在运行则接上"),
    ("Wait for the end and show progress", "等待结束并显示进度"),
    ("Tell what a run would do, and move nothing", "只说明将做什么，不传输"),
    (
        "Hold a job: nothing new starts, what runs stops at a durable point",
        "暂停任务：不再开始新的运行，正在运行的停在可恢复处",
    ),
    ("Let a held or removed job run again", "恢复被暂停或移除的任务"),
    ("Take a job out of service, whatever its configuration says", "停用任务，不论配置如何"),
    ("What was and is under way: list, show, watch, cancel, retry", "交换批次：列出、查看、跟踪、取消、重试"),
    ("List the transfers of a running node, newest first", "列出节点的交换批次，最新的在前"),
    ("Only those of this job", "只列此任务的批次"),
    ("At most this many", "最多列出的数量"),
    ("Show one transfer with its statements and refused rows", "查看一个批次及其陈述和问题数据"),
    ("The transfer's id", "批次号"),
    ("Follow a transfer to its end", "跟踪一个批次直到结束"),
    ("End a transfer for good; both sides state it", "终止一个批次；双方各留陈述"),
    ("Run the job of a transfer again, or wake one that waits", "重新运行该批次的任务，或唤醒等待中的批次"),
    ("Write man pages or shell completions", "写出手册页或命令补全脚本"),
    ("What to write: man or completions", "写出什么：man 或 completions"),
    ("Folder to write into; it is made when missing", "写入的目录；不存在则创建"),
    ("A code such as PH3001; without one, the list of all codes", "错误代码，如 PH3001；省略则列出全部代码"),
    (
        "Make a coordinator: its folder, configuration, keys and first access token",
        "新建协调中心：目录、配置、密钥和首个访问令牌",
    ),
    ("Run a coordinator until it is stopped", "运行协调中心，直到被停止"),
    ("Print a join token for one node, good for one use", "输出供一个节点使用一次的加入令牌"),
    ("List nodes, or revoke one", "列出节点，或吊销其中之一"),
    ("Hand out and take back tokens of the HTTP API", "发放与收回 HTTP 接口的访问令牌"),
    ("Folder for keys, registry and ledger; it is made when missing", "存放密钥、登记信息和台账的目录；不存在则创建"),
    ("Name of the coordinator, DNS-style; it cannot change later", "协调中心名称（域名形式），确定后不可更改"),
    ("Where nodes reach it (UDP and TCP), by default [::]:7840", "节点接入地址（UDP 与 TCP），默认 [::]:7840"),
    (
        "Where people reach its page and API, by default 127.0.0.1:7880; \"\" turns it off",
        "网页与接口地址，默认 127.0.0.1:7880；\"\" 表示关闭",
    ),
    ("The coordinator's configuration file", "协调中心的配置文件"),
    ("Name of the node that may join with it", "凭此令牌加入的节点名称"),
    ("How long it is good, by default 15m", "有效时长，默认 15m"),
    ("List all nodes with what they last reported", "列出所有节点及其最近上报的情况"),
    ("Revoke a node: it is shut out everywhere within seconds", "吊销节点：数秒内各处均拒绝该节点"),
    ("Name of the node", "节点名称"),
    (
        "Make a bearer token for the HTTP API and print it; it is shown this once",
        "生成 HTTP 接口的访问令牌并输出；仅显示这一次",
    ),
    ("Whose access it is", "访问者名称"),
    ("What it may do: viewer, operator, auditor or admin", "角色：viewer、operator、auditor 或 admin"),
    ("List who has access", "列出已发放的访问权限"),
    ("Take an access back", "收回访问权限"),
    ("Found and look after a coordinator", "新建、运行和管理协调中心"),
    ("Give and withdraw grants", "发放与撤回授权"),
    (
        "Let a node take a resource, or move the end of its grant; prints the grant's id",
        "授权节点获取一项资源，或调整其授权的截止时间；输出授权编号",
    ),
    ("List all grants", "列出所有授权"),
    ("Withdraw a grant: what runs under it stops within seconds", "撤回授权：正在进行的交换数秒内停止"),
    ("Id of the grant", "授权编号"),
    ("Node that may take it", "可获取资源的节点"),
    ("What it may take, as NODE/RESOURCE", "可获取的资源，写作 节点/资源"),
    (
        "Last day of the grant in the coordinator's time zone, or an RFC 3339 time",
        "授权的最后一天（按协调中心时区），或 RFC 3339 时间",
    ),
    ("Columns that may be taken, parted by commas; by default all", "可获取的列，以逗号分隔；默认全部"),
    (
        "Rows that may be taken, such as \"district = '610102' AND status <> 'draft'\"",
        "可获取的行，如 \"district = '610102' AND status <> 'draft'\"",
    ),
    ("Network zone that the consumer must be reached in", "使用方必须所在的网络区域"),
    (
        "Relays that it goes through, from the consumer to the provider, parted by commas; by default none",
        "途经的中转节点，从使用方到提供方依次写明，以逗号分隔；默认不经中转",
    ),
    (
        "Column that is masked beyond what the resource does itself, as COLUMN=keep:FIRST:LAST, =null, =constant:TEXT, =hmac-sm3, =blake3 or =sm3; may be given more than once",
        "在资源自身脱敏之外再脱敏的列，写作 列=keep:前几位:后几位、=null、=constant:文字、=hmac-sm3、=blake3 或 =sm3；可多次给出",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_help_text_exists_in_chinese() {
        let mut missing = Vec::new();
        walk(&localized(Lang::En), &mut missing);
        assert!(missing.is_empty(), "add to src/help.rs: {missing:#?}");
    }

    #[test]
    fn every_command_and_option_has_a_help_text() {
        let mut empty = Vec::new();
        walk_empty(&localized(Lang::En), &mut empty);
        assert!(empty.is_empty(), "{empty:#?}");
    }

    fn walk(command: &clap::Command, missing: &mut Vec<String>) {
        let texts = command.get_about().into_iter().chain(command.get_arguments().filter_map(clap::Arg::get_help));
        for text in texts {
            let text = text.to_string();
            if translate(&text).is_none() && !missing.contains(&text) {
                missing.push(text);
            }
        }
        for sub in command.get_subcommands() {
            walk(sub, missing);
        }
    }

    fn walk_empty(command: &clap::Command, empty: &mut Vec<String>) {
        if command.get_about().is_none() {
            empty.push(command.get_name().to_owned());
        }
        for arg in command.get_arguments() {
            if arg.get_help().is_none() {
                empty.push(format!("{} {}", command.get_name(), arg.get_id()));
            }
        }
        for sub in command.get_subcommands() {
            walk_empty(sub, empty);
        }
    }
}
