//! Whether a staging table still is like the table that its rows are to land in. What a column would round, pad, shorten
//! or take for something else is found when a row is staged, and only there: that holds as long as both have the same
//! columns. A table that is to take another one's place has to be like it in all that its owner said of it.

use super::catalog::Relation;
use super::client::Client;
use super::ddl::{NUMBER_COLUMN, REFUSED_COLUMN, TRANSFER_COLUMN};
use super::fail::Fail;
use super::place::{Place, TableName};
use super::staging::Staging;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::schema::Contract;

/// Refuses to land rows that were staged in other columns than the target has now.
pub(super) fn check(client: &mut Client, place: &Place, staging: &Staging, target: &Relation) -> Result<(), Fail> {
    let Some(found) = Relation::find(client, &staging.name)? else {
        return Err(Problem::new(Code::DestinationFailed)
            .with("target", &place.landing.table)
            .cause(format!("the staging table {} is gone; run the job again", staging.name))
            .into());
    };
    if staging.premade {
        return check_premade(place, &found, target).map_err(Fail::from);
    }
    let why = columns(&place.landing.contract, &found, target);
    if why.is_empty() { Ok(()) } else { Err(changed(place, &why.join("; ")).into()) }
}

/// Refuses a staging table that was made beforehand and is not as the script makes it.
pub(super) fn check_premade(place: &Place, staging: &Relation, target: &Relation) -> Result<(), Problem> {
    let contract = &place.landing.contract;
    let mut why = columns(contract, staging, target);
    if staging.column(REFUSED_COLUMN).is_none() {
        why.push(format!("it has no column `{REFUSED_COLUMN}`"));
    }
    for item in &contract.items {
        let (here, there) = (staging.column(&item.name), target.column(&item.name));
        if here.is_some_and(|here| here.not_null) {
            why.push(format!("its `{}` takes no NULL", item.name));
        }
        if let (Some(here), Some(there)) = (here, there)
            && here.check.is_some()
            && here.check != there.check
        {
            why.push(format!("its `{}` has a CHECK of its own", item.name));
        }
    }
    if let Some(name) = &place.landing.operation {
        match staging.column(name) {
            Some(column) if column.is_text() && !column.not_null => {}
            Some(column) => {
                why.push(format!("its `{name}` is {}, and has to be a text that takes NULL", column.declared))
            }
            None => why.push(format!("it has no column `{name}` for what a row does")),
        }
    }
    let ours = [NUMBER_COLUMN, TRANSFER_COLUMN, REFUSED_COLUMN];
    for column in &staging.columns {
        let is_known = ours.contains(&column.name.as_str()) || contract.position(&column.name).is_some();
        if !is_known && column.not_null && !column.has_default && !column.generated {
            why.push(format!("its `{}` takes neither NULL nor a default", column.name));
        }
    }
    if !staging.column(NUMBER_COLUMN).is_some_and(|number| number.auto_increment) {
        why.push(format!("its `{NUMBER_COLUMN}` does not count"));
    }
    let key = keyed(contract);
    if !contract.key.is_empty() && !staging.is_unique(&key) {
        why.push(format!("it has no unique index on ({})", key.join(", ")));
    }
    // Rows of two transfers may be equal; no index but that one may keep them apart.
    let is_own = |index: &Vec<String>| {
        index.iter().any(|name| name == NUMBER_COLUMN)
            || (index.len() == key.len() && index.iter().all(|name| key.contains(name)))
    };
    if let Some(other) = staging.unique.iter().find(|index| !is_own(index)) {
        why.push(format!("it has a unique index on ({}) too", other.join(", ")));
    }
    if !staging.has_snapshots() {
        why.push(format!("its engine is {}, which has no transactions", staging.engine));
    }
    if why.is_empty() {
        return Ok(());
    }
    let cause = format!(
        "the staging table that was made beforehand is not as {} needs it: {}; drop it while no transfer of the job is \
         under way, and have the DBA run the script that `posthouse doctor --config FILE --sql CONNECTION` prints",
        target.name,
        why.join("; ")
    );
    Err(Problem::new(Code::DestinationFailed).with("target", staging.name.to_string()).cause(cause))
}

/// Columns by which a staging table of several transfers knows its rows.
pub(super) fn keyed(contract: &Contract) -> Vec<String> {
    contract.key.iter().cloned().chain([TRANSFER_COLUMN.to_owned()]).collect()
}

/// What a transfer has staged does not fit any more.
pub(super) fn changed(place: &Place, why: &str) -> Problem {
    let cause = format!("the table has changed while rows were on their way to it ({why}); run the job again");
    Problem::new(Code::DestinationFailed).with("target", &place.landing.table).cause(cause)
}

/// Where columns of the contract differ in what they do to a value, or in how it is compared.
fn columns(contract: &Contract, staging: &Relation, target: &Relation) -> Vec<String> {
    let mut why = Vec::new();
    for item in &contract.items {
        let declared = |relation: &Relation| {
            relation.column(&item.name).map(|column| {
                let collation = column.collation.as_ref().map(|name| format!(" collate {name}"));
                format!("{}{}", column.declared, collation.unwrap_or_default())
            })
        };
        let (here, there) = (declared(staging), declared(target));
        if here != there {
            let said = |declared: Option<String>| declared.unwrap_or_else(|| "missing".to_owned());
            why.push(format!("`{}` is {} there and {} in the table", item.name, said(here), said(there)));
        }
    }
    why
}

/// Whether two tables have other definitions than each other, their names and the next number aside.
pub(super) fn differ(client: &mut Client, one: &TableName, other: &TableName) -> Result<bool, Fail> {
    Ok(definition(client, one)? != definition(client, other)?)
}

fn definition(client: &mut Client, table: &TableName) -> Result<String, Fail> {
    let rows = client.ask(&format!("SHOW CREATE TABLE {table}"))?;
    let text = rows.first().and_then(|row| row.as_ref(1)).map(super::client::text).unwrap_or_default();
    Ok(without_names(&text, client.server.mariadb))
}

fn without_names(definition: &str, keeps_check_names: bool) -> String {
    let (_, body) = definition.split_once('\n').unwrap_or(("", definition));
    let line = |line: &str| -> String {
        // MySQL names a CHECK after its table, and a copy's after the copy.
        match line.split_once("` CHECK ") {
            Some((name, check)) if !keeps_check_names && name.trim_start().starts_with("CONSTRAINT `") => {
                format!("CHECK {check}")
            }
            _ => line.to_owned(),
        }
    };
    let mut text = body.lines().map(line).collect::<Vec<_>>().join("\n");
    while let Some(at) = text.find(NEXT_NUMBER) {
        let rest = text.get(at + NEXT_NUMBER.len()..).unwrap_or_default();
        let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        text = format!("{}{rest}", text.get(..at).unwrap_or_default());
    }
    text
}

const NEXT_NUMBER: &str = " AUTO_INCREMENT=";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_is_compared_without_its_name_and_its_next_number() {
        let of = |name: &str, next: &str, declared: &str, check: &str| {
            format!(
                "CREATE TABLE `{name}` (\n  `id` {declared} NOT NULL AUTO_INCREMENT,\n  PRIMARY KEY (`id`),\n  \
                 CONSTRAINT `{check}` CHECK ((`id` > 1))\n) ENGINE=InnoDB{next} DEFAULT CHARSET=utf8mb4"
            )
        };
        let plain = |text: &str| without_names(text, false);
        let one = plain(&of("a", " AUTO_INCREMENT=17", "int", "a_chk_1"));
        assert_eq!(one, plain(&of("b", "", "int", "b_chk_1")));
        assert_ne!(one, plain(&of("a", "", "bigint", "a_chk_1")));
        assert!(one.contains("NOT NULL AUTO_INCREMENT,") && !one.contains("17"), "{one}");
        // MariaDB keeps the names of CHECKs in a copy.
        assert_ne!(without_names(&of("a", "", "int", "x"), true), without_names(&of("a", "", "int", "y"), true));
    }
}
