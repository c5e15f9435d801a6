//! What was found of connections, folders and the machine's lines, as people and machines read it: what is wrong or worth
//! a note with what mends it, and of all that is well how much it was.

use crate::render::Screen;
use posthouse_connectors::examine::{Finding, Grade, Topic};
use posthouse_node::config::Config;
use posthouse_node::doctor::{self, Examined};
use posthouse_platform::World;
use posthouse_protocol::id::JobId;
use posthouse_protocol::problem::{Code, Lang, Problem};

pub(crate) struct Place {
    at: At,
    findings: Vec<Finding>,
    unknown: Vec<JobId>,
}

enum At {
    Connection(String),
    /// All of them together.
    Folders,
    /// What the system gives to lines.
    Line,
}

pub(crate) struct Examination {
    pub(crate) places: Vec<Place>,
    pub(crate) unreached: Vec<Problem>,
}

/// Examines all of them, one after the other: a database is not asked by many at once.
pub(crate) async fn examine(config: &Config) -> Result<Examination, Problem> {
    let config = config.clone();
    let work = tokio::task::spawn_blocking(move || {
        let World { clock, disk, network, .. } = World::real();
        let (mut places, mut unreached) = (Vec::new(), Vec::new());
        for name in config.connections.keys() {
            match doctor::connection(&config, name, clock.as_ref()) {
                Ok(Examined { findings, unknown }) => {
                    places.push(Place { at: At::Connection(name.clone()), findings, unknown });
                }
                Err(problem) => unreached.push(problem),
            }
        }
        let findings = doctor::folders(&config, disk.as_ref(), clock.now());
        if !findings.is_empty() {
            places.push(Place { at: At::Folders, findings, unknown: Vec::new() });
        }
        let findings = network.allowed().map(|allowed| doctor::line(config.node.transport, &allowed));
        places.extend(findings.map(|findings| Place { at: At::Line, findings, unknown: Vec::new() }));
        Examination { places, unreached }
    });
    work.await.map_err(|error| Problem::new(Code::InsideFailed).cause(error))
}

/// Whether something of it is wrong.
pub(crate) fn print(place: &Place, screen: &Screen) -> bool {
    let (connection, name) = match &place.at {
        At::Connection(name) => (Some(name), name.as_str()),
        At::Folders => (None, screen.say("folders", "目录")),
        At::Line => (None, screen.say("line", "线路")),
    };
    if screen.json {
        for finding in &place.findings {
            screen.object(&serde_json::json!({
                "item": "finding",
                "connection": connection,
                "topic": finding.topic,
                "object": finding.object,
                "ok": finding.grade != Grade::Wrong,
                "grade": finding.grade,
                "detail": finding.en,
                "fix": finding.fix,
            }));
        }
    } else {
        let is_granted = |finding: &&Finding| finding.topic == Topic::Rights && finding.grade == Grade::Well;
        let granted = place.findings.iter().filter(is_granted).count();
        if granted > 0 {
            let (en, zh) = Topic::Rights.name();
            let what = screen.say("are there", "项具备");
            screen.line(format!("{}  {name}  {}  {granted} {what}", screen.say("ok   ", "正常"), screen.say(en, zh)));
        }
        for finding in place.findings.iter().filter(|finding| !is_granted(finding)) {
            tell(name, finding, screen);
        }
    }
    for job in &place.unknown {
        let (en, zh) = (
            format!("{name}: what job {job} needs there is known once it has run, even in vain"),
            format!("{name}：任务 {job} 至少运行一次（失败亦可）之后才知道其所需权限"),
        );
        screen.note(screen.say(&en, &zh));
    }
    place.findings.iter().any(|finding| finding.grade == Grade::Wrong)
}

fn tell(name: &str, finding: &Finding, screen: &Screen) {
    let grade = match finding.grade {
        Grade::Well => screen.say("ok   ", "正常"),
        Grade::Note => screen.say("note ", "注意"),
        Grade::Wrong => screen.say("wrong", "异常"),
    };
    let (en, zh) = finding.topic.name();
    let detail = match screen.lang {
        Lang::En => &finding.en,
        Lang::Zh => &finding.zh,
    };
    screen.line(format!("{grade}  {name}  {}  {}: {detail}", screen.say(en, zh), finding.object));
    if let Some(fix) = &finding.fix {
        screen.line(format!("       {fix}"));
    }
}
