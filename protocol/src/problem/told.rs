//! What of a problem another node is told, and what is taken from what another tells.
//! Facts travel by a list: what both sides know by the same name, what their schemas have, and numbers. What says
//! where or how this machine keeps things never does, nor what reads the other way round over there.

use super::{Lang, Problem};

impl Problem {
    /// The facts that another node is told, few and short.
    pub fn told(&self) -> Vec<(String, String)> {
        // A column may be called anything, and is the first thing that the other side has to know.
        let tell =
            |(name, value): &&(String, String)| is_told(name) && (name == "column" || without_paths(value) == *value);
        let facts = self.facts.iter().filter(tell).take(FACTS_MAX);
        facts.map(|(name, value)| (name.clone(), cut(value, FACT_BYTES_MAX))).collect()
    }

    /// What travels beside the code where only a text can: the cause, or what the title says of this case.
    pub fn said(&self) -> String {
        if self.cause.is_empty() && !self.facts.is_empty() {
            return Self { facts: self.told(), ..Self::new(self.code) }.title(Lang::En);
        }
        // A cause may name the place of a fact again, and a path may have spaces.
        let places =
            self.facts.iter().map(|(_, value)| value).filter(|value| value.len() > 1 && value.starts_with('/'));
        without_paths(&places.fold(self.cause.clone(), |cause, place| cause.replace(place.as_str(), WITHHELD)))
    }

    /// Adds what another node told of it. What is known here already counts before that.
    #[must_use]
    pub fn heard(mut self, cause: &str, facts: &[(String, String)]) -> Self {
        for (name, value) in facts.iter().filter(|(name, _)| is_told(name)).take(FACTS_MAX) {
            if self.facts.iter().all(|(known, _)| known != name) {
                self = self.with(name, printable(&cut(value, FACT_BYTES_MAX)));
            }
        }
        let cause = printable(&cut(cause, crate::limits::REASON_BYTES_MAX));
        // The title is said in the reader's language already.
        if self.title(Lang::En) == cause { self } else { self.cause(cause) }
    }
}

/// At a character's boundary.
fn cut(text: &str, bytes_max: usize) -> String {
    text[..text.floor_char_boundary(bytes_max)].to_owned()
}

fn is_told(name: &str) -> bool {
    TOLD.contains(&name)
}

/// Absolute paths are nobody else's business, wherever they stand in a text.
fn without_paths(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let parts = |c: char| c.is_whitespace() || "\"'`()[]<>,;:".contains(c);
    let mut within = false;
    let mut before = ' ';
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        let begins = c == '/' && !before.is_alphanumeric() && rest.peek().is_some_and(|next| !parts(*next));
        if begins && !within {
            out.push_str(WITHHELD);
        }
        within = (within || begins) && !parts(c);
        if !within {
            out.push(c);
        }
        before = c;
    }
    out
}

/// Another node's text is printed on a terminal here.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// As a fact shows that is not known.
const WITHHELD: &str = "…";

/// Nodes, grants and the rest are known to both by their policies and the request; columns, types and tables of
/// where it lands are what has to be brought together; the others are figures.
/// Not among them: `path`, `file`, `socket`, `address`, `connection` and `role` (how this machine is set up),
/// `peer`, `by`, `ours`, `theirs` (the other side reads them the wrong way round) and clocks of this machine.
const TOLD: &[&str] = &[
    "consumer", "provider", "resource", "node", "job", "transfer", "grant", "kind", "name", "what", //
    "table", "target", "column", "type", "write", //
    "rows", "count", "total", "seconds", "until",
];
/// Templates have three facts at most.
const FACTS_MAX: usize = 8;
const FACT_BYTES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Code;

    fn fact(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn the_other_node_reads_the_table_that_does_not_fit() {
        let here = Problem::new(Code::SchemaDrift).with("table", "main.residents").cause("it has no column `age`");
        let there = Problem::new(Code::SchemaDrift).heard(&here.said(), &here.told());
        assert_eq!(there.title(Lang::En), "the table main.residents does not have the columns of the resource");
        assert_eq!(there.cause, "it has no column `age`");
    }

    #[test]
    fn a_title_that_travelled_as_the_cause_is_not_said_twice() {
        let here = Problem::new(Code::KeyMissing).with("table", "main.residents").with("write", "upsert");
        assert_eq!(here.said(), "main.residents has no key, which `upsert` needs");
        let there = Problem::new(Code::KeyMissing).heard(&here.said(), &here.told());
        assert_eq!((there.title(Lang::En), there.cause.as_str()), (here.said(), ""));
    }

    #[test]
    fn no_place_of_this_machine_is_told() {
        let full = Problem::new(Code::DiskFull).with("path", "/srv/数据 of us/in");
        assert_eq!((full.told(), full.said().as_str()), (Vec::new(), "no room left in …"));
        let cause = "opening /srv/数据 of us/in: denied (see '/etc/posthouse/node.toml', \"/a/b\")";
        let named = Problem::new(Code::StorageFailed).with("path", "/srv/数据 of us/in").cause(cause);
        assert_eq!(named.said(), "opening …: denied (see '…', \"…\")");
        let folder = Problem::new(Code::DestinationFailed).with("target", "/srv/in").with("connection", "housing_db");
        assert!(folder.told().is_empty());
        let source = Problem::new(Code::SourceFailed).with("resource", "/srv/scans").with("path", "/srv/scans");
        assert_eq!((source.told(), source.said().as_str()), (Vec::new(), "the source of … cannot be read"));
    }

    #[test]
    fn a_column_is_named_whatever_its_name_looks_like() {
        let here = Problem::new(Code::TypeUnsupported).with("column", "/* a").with("type", "xid");
        let there = Problem::new(Code::TypeUnsupported).heard(&here.said(), &here.told());
        assert_eq!(there.title(Lang::En), "the column `/* a` has a type that cannot move: xid");
    }

    #[test]
    fn what_is_no_path_stays_as_it_was() {
        let text = "10 MB/s of police.example/scans, 1/2 / 3: `人口/a.pdf` at 2026-11-22T00:00:00Z";
        assert_eq!(Problem::new(Code::Busy).cause(text).said(), text);
    }

    #[test]
    fn what_is_told_is_bounded_and_changes_nothing_that_is_known() {
        let mut told: Vec<_> = (0..1_000).map(|_| fact("path", "/etc/passwd")).collect();
        told.push(fact("consumer", "thief.example"));
        told.push(fact("table", &"数\u{1b}[31m".repeat(1_000)));
        let heard = Problem::new(Code::NoGrant).with("consumer", "us.example").heard(&"\u{7}長".repeat(9_000), &told);
        let names: Vec<&str> = heard.facts.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["consumer", "table"]);
        assert_eq!(heard.facts[0].1, "us.example");
        assert!(heard.facts[1].1.len() <= FACT_BYTES_MAX && heard.cause.len() <= crate::limits::REASON_BYTES_MAX);
        assert!(!heard.facts[1].1.chars().chain(heard.cause.chars()).any(char::is_control));
        let many = (0..100).fold(Problem::new(Code::NoGrant), |problem, _| problem.with("rows", "1".repeat(9_000)));
        assert!(many.told().len() == FACTS_MAX && many.told().iter().all(|(_, value)| value.len() <= FACT_BYTES_MAX));
    }
}
