//! 体检: what stands in the way of what is configured, and whether it is the line or the database that holds a job up.
//! Looks and measures only; works while the node runs and while it does not. What is said of it is the program's.
//!
//! - [`connection`]: rights, settings, charsets and clock of a database that is read or landed in.
//! - [`folders`](mod@folders): those that are read and landed in, and the boxes of ferries.
//! - [`line`](mod@line): what of this machine's settings holds lines back.
//! - [`job`]: what is known of a job: where it reads and lands, and where the time of its latest transfer went.
//! - [`speed`]: a bounded sample of reading, and of writing where that is asked for.
//! - [`verdict`]: the judgement over these figures.

mod folders;
pub mod job;
mod line;
pub mod speed;
pub mod verdict;

pub use folders::folders;
pub use line::line;
pub(crate) use line::tell;

use crate::config::{Config, Origin};
use crate::script::{Needs, find, needs};
use posthouse_connectors::examine::{Columns, Finding, Grade, Reading, Topic};
use posthouse_connectors::front::{FrontSpec, LACKS};
use posthouse_connectors::{Connector, Settings};
use posthouse_platform::clock::Clock;
use posthouse_protocol::id::JobId;
use posthouse_protocol::problem::{Code, Problem};

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
    let Needs { landings, fronts, unknown, .. } = needs(config, name)?;
    let now = || clock.now().0;
    let mut findings = connector.examine(name, &found.settings, &readings(config, name), &landings, &now)?;
    for front in &fronts {
        findings.push(of_front(connector, name, &found.settings, front)?);
    }
    Ok(Examined { findings, unknown })
}

/// What is read of a connection, with the columns that its resources offer.
fn readings(config: &Config, name: &str) -> Vec<Reading> {
    let readings = config.resources.values().filter_map(|resource| {
        let Origin::Table { connection, spec } = &resource.origin else { return None };
        let columns = match (&resource.govern.governing.columns, &resource.exchange) {
            // Its rows are read with all that they have.
            (_, Some(_)) => Columns::All,
            // The watermark is read, whether or not it is offered.
            (Some(columns), None) => {
                let mark = spec.watermark.iter().filter(|mark| !columns.contains(mark));
                Columns::Listed(columns.iter().chain(mark).cloned().collect())
            }
            (None, None) => Columns::Granted,
        };
        (connection == name).then(|| Reading { spec: spec.clone(), columns })
    });
    readings.collect()
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
