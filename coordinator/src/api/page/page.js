"use strict";
// Shows what the API says, in two languages. The token stays in this tab's session storage.

const TEXT = {
  en: {
    role: "coordinator",
    leave: "Sign out",
    enter: "Open the board",
    enterWhy: "The board only reads. It asks for a viewer's token, which stays in this tab.",
    token: "Access token",
    open: "Open",
    glance: "At a glance",
    differences: "Not reconciled today",
    nodes: "Nodes",
    transfers: "Transfers today",
    foot: "Times are this computer's local time. Each section says as of when it is true; a node's values were true at its last report.",
    asOf: "as of",
    nodesUp: "nodes up",
    nodesStale: "nodes stale",
    moved: "transfers today",
    matched: "matched",
    pending: "pending",
    open_differences: "not reconciled",
    ledger: "statements in the ledger",
    alarms: "open alarms",
    node: "node",
    state: "state",
    report: "last report",
    version: "version",
    disk: "disk free",
    lag: "waiting for the centre",
    certificate: "certificate until",
    job: "job",
    route: "from → to",
    amount: "moved",
    verdict: "balance",
    ended: "ended",
    what: "what",
    ask: "whom to ask",
    noDifferences: "Everything that was handed over today balances, or is still on its way.",
    noNodes: "No node has joined yet.",
    noTransfers: "Nothing has moved today.",
    more: "The latest are shown; the API has all.",
    never: "never",
    nothing: "nothing",
    rows: "rows",
    files: "files",
    running: "since",
    lost: "The coordinator does not answer. What is shown is as old as it says.",
    denied: "This token is not valid here.",
    wait: "Too many attempts. Wait a minute.",
    up: "up",
    stale: "stale",
    revoked: "revoked",
    planned: "planned",
    offered: "offered",
    moving: "moving",
    staged: "staged",
    committed: "committed",
    settled: "settled",
    paused: "paused",
    refused: "refused",
    failed: "failed",
    cancelled: "cancelled",
    v_matched: "matched",
    v_mismatched: "mismatched",
    v_one_sided: "one-sided",
    v_pending: "pending",
    v_overdue: "overdue",
    v_ungranted: "ungranted",
    provider: "provider",
    consumer: "consumer",
    both: "both",
    unanswered: "handed over, nobody has answered",
    oneSided: "only one party has spoken",
    ungranted: "no grant covers it",
    w_transfer: "transfer",
    w_job: "job",
    w_resource: "resource",
    w_provider: "provider",
    w_consumer: "consumer",
    w_provider_statement: "provider's statement",
    w_manifest: "manifest",
    w_content_root: "content",
    w_left_out: "left out",
    w_rows: "rows",
    w_files: "files",
    w_directories: "directories",
    w_links: "links",
    w_refused: "refused",
    w_bytes: "bytes",
    w_row_digest: "row digest",
    w_rows_read: "rows read",
    w_outcome: "outcome",
  },
  zh: {
    role: "协调中心",
    leave: "退出",
    enter: "打开看板",
    enterWhy: "看板只读，需要一个 viewer 角色的访问令牌；令牌只保存在本标签页。",
    token: "访问令牌",
    open: "打开",
    glance: "概览",
    differences: "今日对账差异",
    nodes: "交换节点",
    transfers: "今日交换批次",
    foot: "时间为本机当地时间。每一栏都注明数据的时点；节点的各项数值以其最近上报时为准。",
    asOf: "截至",
    nodesUp: "在线节点",
    nodesStale: "失联节点",
    moved: "今日批次",
    matched: "一致",
    pending: "待对账",
    open_differences: "对账差异",
    ledger: "台账陈述数",
    alarms: "未处理告警",
    node: "节点",
    state: "状态",
    report: "最近上报",
    version: "版本",
    disk: "剩余空间",
    lag: "待上报积压",
    certificate: "证书有效至",
    job: "任务",
    route: "提供方 → 使用方",
    amount: "交换量",
    verdict: "对账",
    ended: "结束时间",
    what: "差异",
    ask: "应询问",
    noDifferences: "今日已交接的批次均已对平，或仍在途中。",
    noNodes: "尚无节点加入。",
    noTransfers: "今日尚无交换。",
    more: "此处显示最近的批次，全部数据见接口。",
    never: "从未",
    nothing: "无",
    rows: "行",
    files: "个文件",
    running: "开始于",
    lost: "协调中心没有应答，所示内容以标注的时间为准。",
    denied: "访问令牌无效。",
    wait: "尝试次数过多，请等待一分钟。",
    up: "在线",
    stale: "失联",
    revoked: "已吊销",
    planned: "待执行",
    offered: "待接收",
    moving: "传输中",
    staged: "已暂存",
    committed: "已入库",
    settled: "已签收",
    paused: "已暂停",
    refused: "已拒绝",
    failed: "失败",
    cancelled: "已取消",
    v_matched: "一致",
    v_mismatched: "不一致",
    v_one_sided: "单边",
    v_pending: "待对账",
    v_overdue: "逾期未回",
    v_ungranted: "未经授权",
    provider: "提供方",
    consumer: "使用方",
    both: "双方",
    unanswered: "已交接，无人应答",
    oneSided: "只有一方作出陈述",
    ungranted: "没有授权覆盖",
    w_transfer: "批次",
    w_job: "任务",
    w_resource: "资源",
    w_provider: "提供方",
    w_consumer: "使用方",
    w_provider_statement: "提供方陈述",
    w_manifest: "数据交接单",
    w_content_root: "内容",
    w_left_out: "未交接清单",
    w_rows: "行数",
    w_files: "文件数",
    w_directories: "目录数",
    w_links: "链接数",
    w_refused: "拒绝数",
    w_bytes: "字节数",
    w_row_digest: "行摘要",
    w_rows_read: "读取行数",
    w_outcome: "结果",
  },
};

const GOOD = ["up", "settled", "v_matched"];
const WARN = ["stale", "paused", "v_pending", "refused", "cancelled"];
const BAD = ["failed", "v_mismatched", "v_one_sided", "v_overdue", "v_ungranted"];
const EVERY_MS = 10000;
// A coordinator that takes longer for an answer is as good as away.
const PATIENCE_MS = 8000;
const SHOWN = 100;
const KEEP = "posthouse-token";
const SPEAK = "posthouse-language";

let language = localStorage.getItem(SPEAK) || (navigator.language.startsWith("zh") ? "zh" : "en");
let seen = null;
let timer = null;

const at = (id) => document.getElementById(id);
const say = (key) => TEXT[language][key] || key;

function element(tag, text, kind) {
  const made = document.createElement(tag);
  if (text !== undefined && text !== null) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function tone(key) {
  if (GOOD.includes(key)) return "good";
  if (WARN.includes(key)) return "warn";
  return BAD.includes(key) ? "bad" : "";
}

function badge(key) {
  return element("span", say(key), "badge " + tone(key));
}

function time(text) {
  if (!text) return say("never");
  const when = new Date(text);
  const pad = (n) => String(n).padStart(2, "0");
  const clock = pad(when.getHours()) + ":" + pad(when.getMinutes()) + ":" + pad(when.getSeconds());
  const sameDay = when.toDateString() === new Date().toDateString();
  return sameDay ? clock : when.getFullYear() + "-" + pad(when.getMonth() + 1) + "-" + pad(when.getDate()) + " " + clock;
}

function stamp(id, text) {
  at(id).textContent = say("asOf") + " " + time(text);
}

function size(bytes) {
  if (bytes === null || bytes === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit + 1 < units.length) {
    value /= 1024;
    unit += 1;
  }
  return (unit === 0 ? value : value.toFixed(1)) + " " + units[unit];
}

function count(number) {
  return String(number).replace(/\B(?=(\d{3})+(?!\d))/g, " ");
}

function span(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds === 0) return say("nothing");
  if (seconds < 120) return seconds + " s";
  return seconds < 7200 ? Math.floor(seconds / 60) + " min" : Math.floor(seconds / 3600) + " h";
}

// Columns: [heading key, kind, cell of a row]; a cell is a text, an element, or [main, small].
function table(columns, rows, none) {
  if (rows.length === 0) return none;
  const made = element("table");
  const head = made.createTHead().insertRow();
  for (const [key, kind] of columns) head.append(element("th", say(key), kind === "lead" ? "" : kind));
  for (const th of head.cells) th.scope = "col";
  const body = made.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    for (const [key, kind, cell] of columns) {
      const td = element("td", null, kind);
      td.dataset.label = say(key);
      const value = cell(row);
      const [main, small] = Array.isArray(value) ? value : [value, null];
      td.append(main instanceof Node ? main : element("span", main));
      if (small) td.append(element("small", small));
      line.append(td);
    }
  }
  return made;
}

function show(id, ...children) {
  at(id).replaceChildren(...children);
}

// Hashes are told apart by their beginning.
function short(text) {
  if (!text) return "–";
  return text.length > 24 ? text.slice(0, 12) + "…" : text;
}

function difference(finding) {
  const named = { overdue: "unanswered", one_sided: "oneSided", ungranted: "ungranted" }[finding.verdict];
  const details = (finding.differences || []).map(
    (d) => say("w_" + d.what.replaceAll(" ", "_")) + ": " + say("provider") + " " + short(d.provider) + ", " + say("consumer") + " " + short(d.consumer),
  );
  const texts = (named ? [say(named)] : []).concat(details);
  return texts.join("; ") || say("v_" + finding.verdict);
}

function paint() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const spot of document.querySelectorAll("[data-text]")) spot.textContent = say(spot.dataset.text);
  at("language").textContent = language === "zh" ? "English" : "中文";
  at("language").lang = language === "zh" ? "en" : "zh";
  if (!seen) return;
  const { status, nodes, transfers, day } = seen;
  at("name").textContent = status.name;
  document.title = status.name + " · Posthouse 驿站";
  stamp("glance-time", status.as_of);
  const today = status.today;
  const wrong = today.mismatched + today.one_sided + today.overdue + today.ungranted;
  const figures = [
    ["nodesUp", status.nodes_up, "good"],
    ["nodesStale", status.nodes_stale, status.nodes_stale ? "warn" : ""],
    ["moved", status.transfers_today, ""],
    ["matched", today.matched, today.matched ? "good" : ""],
    ["pending", today.pending, today.pending ? "warn" : ""],
    ["open_differences", wrong, wrong ? "bad" : ""],
    ["alarms", status.alarms, status.alarms ? "warn" : ""],
    ["ledger", status.ledger_size, ""],
  ].map(([key, value, kind]) => {
    const figure = element("div", null, kind);
    figure.append(element("dt", say(key)), element("dd", count(value)));
    return figure;
  });
  show("figures", ...figures);

  stamp("differences-time", day.as_of);
  show("differences", table([
    ["job", "lead", (f) => [f.job, f.transfer || f.resource]],
    ["verdict", "", (f) => badge("v_" + f.verdict)],
    ["route", "", (f) => f.provider + " → " + f.consumer],
    ["what", "", difference],
    ["ask", "", (f) => say(f.party)],
  ], day.findings, element("p", say("noDifferences"), "none good")));

  stamp("nodes-time", nodes.as_of);
  show("nodes", table([
    ["node", "lead", (n) => [n.name, [n.department, n.division].filter(Boolean).join(" · ")]],
    ["state", "", (n) => badge(n.state)],
    ["report", "", (n) => time(n.last_report_at)],
    ["version", "", (n) => n.version || "–"],
    ["disk", "number", (n) => size(n.disk_free_bytes)],
    ["lag", "number", (n) => span(n.lag_seconds)],
    ["certificate", "", (n) => time(n.certificate_expires_at)],
  ], nodes.items, element("p", say("noNodes"), "none")));

  stamp("transfers-time", transfers.as_of);
  const amount = (t) => {
    const parts = [];
    if (t.rows) parts.push(count(t.rows) + " " + say("rows"));
    if (t.files) parts.push(count(t.files) + " " + say("files"));
    return [parts.join(", ") || "–", size(t.bytes)];
  };
  const list = table([
    ["job", "lead", (t) => [t.job, t.transfer]],
    ["route", "", (t) => [t.resource + " → " + t.consumer, t.cause ? t.code + " " + t.cause : null]],
    ["state", "", (t) => [badge(t.state), null]],
    ["verdict", "", (t) => (t.verdict ? badge("v_" + t.verdict) : "–")],
    ["amount", "number", amount],
    ["ended", "when", (t) => (t.ended_at ? time(t.ended_at) : [say("running") + " " + time(t.started_at), null])],
  ], transfers.items, element("p", say("noTransfers"), "none"));
  show("transfers", list, ...(transfers.next ? [element("p", say("more"), "more")] : []));
}

function trouble(key) {
  at("trouble").hidden = !key;
  at("trouble").dataset.key = key || "";
  at("trouble").textContent = key ? say(key) : "";
}

async function ask(path, token) {
  const headers = { Authorization: "Bearer " + token };
  const answer = await fetch("/api/v1" + path, { headers, cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
  if (!answer.ok) throw Object.assign(new Error(path), { status: answer.status });
  return answer.json();
}

async function look() {
  const token = sessionStorage.getItem(KEEP);
  clearTimeout(timer);
  if (!token) return enter();
  try {
    const [status, nodes, transfers, day] = await Promise.all([
      ask("/status", token),
      ask("/nodes?limit=500", token),
      ask("/transfers?day=today&limit=" + SHOWN, token),
      ask("/reconciliations", token),
    ]);
    seen = { status, nodes, transfers, day };
    trouble(null);
    at("enter").hidden = true;
    at("board").hidden = false;
    at("leave").hidden = false;
    paint();
  } catch (error) {
    if (error.status === 401 || error.status === 403) {
      sessionStorage.removeItem(KEEP);
      enter();
      return trouble("denied");
    }
    trouble(error.status === 429 ? "wait" : "lost");
  }
  timer = setTimeout(look, EVERY_MS);
}

function enter() {
  seen = null;
  at("board").hidden = true;
  at("leave").hidden = true;
  at("enter").hidden = false;
  at("token").focus();
}

at("form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEEP, at("token").value.trim());
  at("token").value = "";
  look();
});
at("leave").addEventListener("click", () => {
  sessionStorage.removeItem(KEEP);
  trouble(null);
  look();
});
at("language").addEventListener("click", () => {
  language = language === "zh" ? "en" : "zh";
  localStorage.setItem(SPEAK, language);
  trouble(at("trouble").dataset.key);
  paint();
});
setInterval(() => { at("clock").textContent = time(new Date().toISOString()); }, 1000);
paint();
look();
