//! 体检: what stands in the way of what is configured, and whether it is the line or the database that holds a job up.
//! Looks and measures only; works while the node runs and while it does not. What is said of it is the program's.
//!
//! - [`connection`], [`folders`]: rights, settings, charsets and clocks of the places that are read and landed in.
//! - [`job`]: what is known of a job: where it reads and lands, and where the time of its latest transfer went.
//! - [`speed`]: a bounded sample of reading, and of writing where that is asked for.
//! - [`verdict`]: the judgement over these figures.

pub mod job;
pub mod speed;
pub mod verdict;

use crate::config::{Config, Origin, Target};
use crate::script::{Needs, find, needs};
use posthouse_connectors::examine::{Finding, Grade, Topic};
use posthouse_connectors::front::{FrontSpec, LACKS};
use posthouse_connectors::{Connector, Settings};
use posthouse_platform::clock::Clock;
use posthouse_protocol::id::JobId;
use posthouse_protocol::problem::{Code, Problem};
use rustix::fs::{Access, access};
use std::path::Path;

/// What was found of a connection.
#[derive(Debug)]
pub struct Examined {
    pub findings: Vec<Finding>,
    /// Jobs that land there and were never offered anything: what they need is not known yet.
    pub unknown: Vec<JobId>,
}

/// Examines a connection against all that the configuration reads from it and lands in it. A problem says that it cannot
/// be reached. Blocks.
pub fn connection(config: &Config, name: &str, clock: &dyn Clock) -> Result<Examined, Problem> {
    let (connector, found) = find(config, name)?;
    let Needs { reads, landings, fronts, unknown } = needs(config, name)?;
    let now = || clock.now().0;
    let mut findings = connector.examine(name, &found.settings, &reads, &landings, &now)?;
    for front in &fronts {
        findings.push(of_front(connector, name, &found.settings, front)?);
    }
    Ok(Examined { findings, unknown })
}

/// Whether the flag of a front-end table can be set, and its rows deleted where they are to go.
fn of_front(connector: &dyn Connector, name: &str, settings: &Settings, spec: &FrontSpec) -> Result<Finding, Problem> {
    let planned = connector.connect(name, settings).and_then(|mut connection| connection.front(spec)?.plan());
    let object = &spec.table;
    let problem = match planned {
        Ok(_) => {
            let rights = if spec.purges { "UPDATE, DELETE" } else { "UPDATE" };
            return Ok(Finding::new(Topic::Rights, Grade::Well, object, rights, rights));
        }
        Err(problem) if problem.code == Code::ConnectionFailed => return Err(problem),
        // What else was found of the connection is said all the same.
        Err(problem) => problem,
    };
    let cause = if problem.code == Code::FrontTableUnfit { problem.cause.clone() } else { problem.to_string() };
    let (en, zh) = match problem.facts.iter().find(|(fact, _)| fact == LACKS) {
        Some((_, right)) => {
            let (en, zh) = (format!("the account lacks {right}"), format!("账号缺少 {right} 权限"));
            let grants = connector.front_grants(name, settings, spec)?;
            return Ok(Finding::new(Topic::Rights, Grade::Wrong, object, en, zh).fix(grants.join(" ")));
        }
        None => {
            (format!("it cannot be exchanged as a front-end table: {cause}"), format!("无法作为前置表交换：{cause}"))
        }
    };
    Ok(Finding::new(Topic::Settings, Grade::Wrong, object, en, zh))
}

/// Examines folders: that those which are read can be, and that those which are landed in can be written to. Blocks.
pub fn folders(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    for resource in config.resources.values() {
        if let Origin::Folder { path, .. } = &resource.origin {
            let may_read = access(path, Access::READ_OK | Access::EXEC_OK).is_ok();
            findings.push(of_folder(path, "read", "读取", may_read));
        }
    }
    for job in config.jobs.values() {
        let path = match &job.into {
            Some(Target::Folder { path, .. } | Target::Parquet { path }) => path,
            _ => continue,
        };
        // It is made when it is missing, in what there is above it.
        let there = path.ancestors().find(|path| path.exists()).unwrap_or(path);
        let may_write = access(there, Access::WRITE_OK | Access::EXEC_OK).is_ok();
        findings.push(of_folder(there, "write", "写入", may_write));
    }
    findings
}

fn of_folder(path: &Path, right: &str, zh: &str, may: bool) -> Finding {
    let object = path.display();
    if may {
        return Finding::new(Topic::Rights, Grade::Well, object, right, zh);
    }
    let (en, zh) = match path.exists() {
        true => (format!("this program's user lacks the right to {right}"), format!("本程序的用户缺少{zh}权限")),
        false => ("it is not there".to_owned(), "不存在".to_owned()),
    };
    Finding::new(Topic::Rights, Grade::Wrong, object, en, zh)
}
