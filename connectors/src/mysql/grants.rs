//! What SHOW GRANTS says an account may do in a database as a whole, roles and patterns of databases included. Making a
//! table is the one right that no statement tries without doing it.

use super::client::{Client, text};
use super::fail::Fail;
use std::collections::BTreeMap;

/// Whether the account may make tables in a database, with the roles that are on when it is let in.
pub(super) fn may_create(client: &mut Client, schema: &str) -> Result<bool, Fail> {
    Ok(lets_create(&lines(client)?, schema))
}

fn lines(client: &mut Client) -> Result<Vec<String>, Fail> {
    // MariaDB tells what comes by roles that are on by itself; MySQL only where they are named.
    if !client.server.mariadb
        && let Some(roles) = first_column(client, "SELECT CURRENT_ROLE()")?.into_iter().flatten().next()
        && roles.starts_with('`')
        && let Some(lines) = first_column(client, &format!("SHOW GRANTS FOR CURRENT_USER() USING {roles}"))?
    {
        return Ok(lines);
    }
    Ok(first_column(client, "SHOW GRANTS")?.unwrap_or_default())
}

/// None where the server does not answer such a question: some know no roles.
fn first_column(client: &mut Client, sql: &str) -> Result<Option<Vec<String>>, Fail> {
    match client.ask(sql) {
        Ok(rows) => Ok(Some(rows.iter().filter_map(|row| row.as_ref(0)).map(text).collect())),
        Err(Fail::Server(_)) => Ok(None),
        Err(fail) => Err(fail),
    }
}

/// Of the patterns that a database's name fits the server heeds the one that says most of it, for the account and for
/// each of its roles by itself; what they give adds up, also with what is given on everything.
fn lets_create(lines: &[String], schema: &str) -> bool {
    // How much of the name is said, and whether making tables comes with it, by who has it.
    let mut nearest: BTreeMap<&str, (usize, bool)> = BTreeMap::new();
    let (mut anywhere, mut but_not_here) = (false, false);
    for grant in lines.iter().filter_map(|line| Grant::parse(line)) {
        let Some(pattern) = grant.databases else {
            anywhere |= grant.creates && !grant.is_revoked;
            continue;
        };
        let signs = signs(&pattern);
        if !is_like(&signs, schema) {
            continue;
        }
        if grant.is_revoked {
            but_not_here |= grant.creates;
            continue;
        }
        let is_literal = |sign: &&Sign| matches!(sign, Sign::Letter(_));
        let said = match signs.iter().take_while(is_literal).count() {
            all if all == signs.len() => usize::MAX,
            some => some,
        };
        let best = nearest.entry(grant.grantee).or_insert((said, false));
        if said > best.0 {
            *best = (said, grant.creates);
        } else if said == best.0 {
            best.1 |= grant.creates;
        }
    }
    (anywhere && !but_not_here) || nearest.values().any(|(_, creates)| *creates)
}

/// A line about everything, or about databases as a whole.
struct Grant<'l> {
    creates: bool,
    /// MySQL takes back for single databases what it gives on everything.
    is_revoked: bool,
    /// The pattern of their names; none: on everything.
    databases: Option<String>,
    grantee: &'l str,
}

impl<'l> Grant<'l> {
    /// None of a line that is about something else: a table, a role, a proxy.
    fn parse(line: &'l str) -> Option<Self> {
        let (is_revoked, rest) = match line.strip_prefix("GRANT ") {
            Some(rest) => (false, rest),
            None => (true, line.strip_prefix("REVOKE ")?),
        };
        let (rights, scope) = rest.split_once(" ON ")?;
        let creates = rights.split(", ").any(|right| matches!(right, "ALL PRIVILEGES" | "CREATE"));
        let (databases, grantee) = match scope.strip_prefix("*.*") {
            Some(rest) => (None, rest),
            None => {
                let (name, rest) = quoted_name(scope)?;
                (Some(name), rest.strip_prefix(".*")?)
            }
        };
        let grantee = grantee.strip_suffix(" WITH GRANT OPTION").unwrap_or(grantee);
        Some(Self { creates, is_revoked, databases, grantee })
    }
}

/// A name in backticks, and what follows it.
fn quoted_name(text: &str) -> Option<(String, &str)> {
    let mut rest = text.strip_prefix('`')?;
    let mut name = String::new();
    loop {
        let (part, after) = rest.split_once('`')?;
        name.push_str(part);
        match after.strip_prefix('`') {
            // Two of them are one of the name's own.
            Some(more) => {
                name.push('`');
                rest = more;
            }
            None => return Some((name, after)),
        }
    }
}

/// What a pattern of names consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    Letter(char),
    One,
    Any,
}

fn signs(pattern: &str) -> Vec<Sign> {
    let mut signs = Vec::new();
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        signs.push(match letter {
            '%' => Sign::Any,
            '_' => Sign::One,
            '\\' => Sign::Letter(letters.next().unwrap_or('\\')),
            letter => Sign::Letter(letter),
        });
    }
    signs
}

fn is_like(pattern: &[Sign], name: &str) -> bool {
    let name: Vec<char> = name.chars().collect();
    // Which beginnings of the name, by their length, what was read of the pattern fits.
    let mut fits = vec![false; name.len() + 1];
    fits.first_mut().into_iter().for_each(|empty| *empty = true);
    for sign in pattern {
        if *sign == Sign::Any {
            let mut reached = false;
            for fit in &mut fits {
                reached |= *fit;
                *fit = reached;
            }
            continue;
        }
        let is_next = |letter: char| *sign == Sign::One || *sign == Sign::Letter(letter);
        let longer = fits.iter().zip(&name).map(|(fit, letter)| *fit && is_next(*letter));
        fits = std::iter::once(false).chain(longer).collect();
    }
    fits.last() == Some(&true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lets(lines: &[&str]) -> bool {
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        lets_create(&lines, "a_b")
    }

    #[test]
    fn who_may_make_tables_is_read_from_the_grants() {
        for line in [
            "GRANT ALL PRIVILEGES ON *.* TO `root`@`localhost` WITH GRANT OPTION",
            "GRANT SELECT, CREATE ON `a\\_b`.* TO `u`@`%`",
            "GRANT CREATE ON `a_b`.* TO `u`@`%`",
            "GRANT CREATE ON `a%`.* TO `u`@`%`",
            "GRANT CREATE ON `%\\_b`.* TO `role`",
        ] {
            assert!(lets(&[line]), "{line}");
        }
        for not in [
            "GRANT USAGE ON *.* TO `u`@`%`",
            "GRANT SELECT, CREATE VIEW ON `a_b`.* TO `u`@`%`",
            "GRANT CREATE ON `other`.* TO `u`@`%`",
            "GRANT CREATE ON `a\\%`.* TO `u`@`%`",
            "GRANT CREATE ON `a_b`.`t` TO `u`@`%`",
            "GRANT CREATE ON `a``_b`.* TO `u`@`%`",
            "GRANT `role` TO `u`@`%`",
            "GRANT SELECT (`CREATE`, `id`) ON `a_b`.`t` TO `u`@`%`",
        ] {
            assert!(!lets(&[not]), "{not}");
        }
    }

    #[test]
    fn the_pattern_that_says_most_of_a_name_is_heeded_for_each_of_those_who_have_one() {
        let (wide, exact) =
            ("GRANT CREATE ON `a%`.* TO `u`@`%` WITH GRANT OPTION", "GRANT SELECT ON `a\\_b`.* TO `u`@`%`");
        assert!(!lets(&[wide, exact]) && !lets(&[exact, wide]));
        let role = "GRANT CREATE ON `a%`.* TO `role`";
        assert!(lets(&[exact, role]), "what a role gives adds up");
        assert!(lets(&[exact, "GRANT CREATE ON *.* TO `u`@`%`"]));
        let revoked = "REVOKE CREATE ON `a_b`.* FROM `u`@`%`";
        assert!(!lets(&["GRANT CREATE ON *.* TO `u`@`%`", revoked]));
        assert!(lets(&["GRANT CREATE ON *.* TO `u`@`%`", "REVOKE CREATE ON `other`.* FROM `u`@`%`"]));
    }
}
