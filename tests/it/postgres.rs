//! Tables from one PostgreSQL to another, by the real program and real servers that stand alone. What has landed
//! is compared by the servers' own SQL, which knows nothing of the exchange's digests.

mod answers;
mod followed;
mod held_up;
mod kills;
mod load;
mod refused;
mod rights;
mod shapes;

use crate::support::postgres::{Postgres, command};
use crate::support::{CONSUMER, PROVIDER, Scene, Site, posthouse, wait_for};
use serde_json::Value;
use std::process::Output;
use std::time::Duration;

/// Two servers with a site between them; the site ends first.
pub(crate) struct Pair {
    pub(crate) site: Site,
    pub(crate) source: Postgres,
    pub(crate) destination: Postgres,
}

/// A job that takes a table into one of its name.
pub(crate) struct Job {
    pub(crate) name: &'static str,
    pub(crate) table: &'static str,
    /// Lines of the resource, such as its key; the first job that takes a table says them.
    pub(crate) offered: &'static str,
    /// Lines of the job beside where it comes from and goes to.
    pub(crate) taken: String,
}

impl Job {
    pub(crate) fn new(table: &'static str, offered: &'static str, mode: &str, write: &str) -> Self {
        Self { name: table, table, offered, taken: format!("mode = \"{mode}\"\nwrite = \"{write}\"") }
    }
}

impl Pair {
    /// The consumer's node logs in at `destination`, or at the address given.
    pub(crate) fn start(source: Postgres, destination: Postgres, jobs: &[Job], at: Option<&str>) -> Self {
        Self::of(source, destination, jobs, at, "")
    }

    /// The same, with further lines within the provider's `[node]`.
    pub(crate) fn start_with(source: Postgres, destination: Postgres, jobs: &[Job], provider_node: &str) -> Self {
        Self::of(source, destination, jobs, None, provider_node)
    }

    fn of(source: Postgres, destination: Postgres, jobs: &[Job], at: Option<&str>, provider_node: &str) -> Self {
        let mut scene = Scene {
            provider_node: provider_node.to_owned(),
            provider: connection(&url(&source, "postgres")),
            consumer: connection(at.unwrap_or(&url(&destination, "postgres"))),
            ..Scene::default()
        };
        for Job { name, table, offered, taken } in jobs {
            if !scene.grants.contains(table) {
                scene.grants.push(table);
                scene.provider += &format!(
                    "[[resource]]\nid = \"{table}\"\nconnection = \"db\"\ntable = \"public.{table}\"\n{offered}\n\n"
                );
            }
            scene.consumer += &format!(
                "[[job]]\nname = \"{name}\"\nresource = \"{PROVIDER}/{table}\"\n\
                 into = {{ connection = \"db\", table = \"public.{table}\" }}\nschedule = \"manual\"\n{taken}\n\n"
            );
        }
        Self { site: Site::start(&scene), source, destination }
    }

    /// Both have the same rows of a table.
    pub(crate) fn assert_equal(&self, table: &str) {
        let (source, destination) = (print(&self.source, table), print(&self.destination, table));
        assert_eq!(source, destination, "{table}");
    }

    /// Transfers of a job, the newest first; None while the node is away.
    pub(crate) fn transfers(&self, job: &str) -> Option<Vec<Value>> {
        let ran = posthouse(&[
            "transfer",
            "list",
            "--config",
            &self.site.config(CONSUMER),
            "--job",
            job,
            "--limit",
            MOST,
            "--json",
        ]);
        let lines = ran.stdout.lines().map(|line| serde_json::from_str(line).expect("an object a line"));
        (ran.code == 0).then(|| lines.collect())
    }

    /// Every transfer has ended once, with one receipt that is matched or with this side's signed failure; how many
    /// of each.
    pub(crate) fn assert_ended_once(&self, job: &str) -> (usize, usize) {
        let config = self.site.config(CONSUMER);
        let (mut settled, mut failed) = (0, 0);
        let receipts = || posthouse(&["receipt", "list", "--config", &config, "--json"]).ok().stdout;
        for transfer in self.transfers(job).expect("the node is there") {
            let id = transfer["transfer"].as_str().expect("an id");
            let of_it = || {
                let all = receipts();
                let lines = all.lines().filter(|line| line.contains(id)).map(str::to_owned);
                lines.collect::<Vec<_>>()
            };
            if transfer["state"] == "settled" {
                settled += 1;
                wait_for("its receipt is matched", Duration::from_secs(60), || {
                    let found = of_it();
                    assert_eq!(found.len(), 1, "{transfer}: {found:?}");
                    found[0].contains("\"matched\"")
                });
            } else {
                failed += 1;
                assert_eq!(transfer["state"], "failed", "{transfer}");
                assert_eq!(of_it(), Vec::<String>::new(), "{transfer}");
                let shown = posthouse(&["transfer", "show", "--config", &config, id, "--json"]).ok().json();
                let own = |statement: &&Value| statement["own"] == true;
                let own: Vec<_> = shown["statements"].as_array().expect("a list").iter().filter(own).collect();
                assert_eq!(own.len(), 1, "{shown}");
                assert_eq!(own[0]["kind"], "failure", "{shown}");
            }
        }
        (settled, failed)
    }
}

impl Postgres {
    /// SIGKILL of the server's first process; the others see it and end.
    pub(crate) fn kill(&mut self) {
        let mut server = self.server.take().expect("it runs");
        server.kill().expect("it can be killed");
        server.wait().expect("it ends");
    }

    /// Starts it again. As long as one of the killed server's processes is at work, a new one refuses to.
    pub(crate) fn restart(&mut self) {
        wait_for("the server starts again", Duration::from_secs(60), || self.launch());
    }

    /// One line of one value.
    pub(crate) fn value(&self, sql: &str) -> String {
        String::from_utf8_lossy(&self.psql(sql)).trim().to_owned()
    }
}

/// How many rows, and a checksum over all of them in an order of their own.
pub(crate) fn print(server: &Postgres, table: &str) -> String {
    server.value(&format!(
        "SELECT count(*) || ' ' || coalesce(md5(string_agg(row, '' ORDER BY row)), '') FROM (SELECT md5(t::text) AS row FROM {table} t) r"
    ))
}

pub(crate) fn url(server: &Postgres, user: &str) -> String {
    format!("postgres://{user}@/postgres?host={}", server.socket().display())
}

fn connection(url: &str) -> String {
    format!("[connection.db]\nkind = \"postgres\"\nurl = \"{url}\"\n\n")
}

/// One statement by psql, for a thread that has no server at hand.
pub(crate) fn look(socket: &std::path::Path, sql: &str) -> Output {
    let mut psql = command("psql");
    psql.args(["-X", "-q", "-A", "-t", "-U", "postgres", "-d", "postgres", "-c", sql, "-h"]).arg(socket);
    psql.output().expect("psql ends")
}

/// More transfers than any scene has of a job.
const MOST: &str = "10000";
