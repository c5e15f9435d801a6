//! Tables that are made, and what a DBA runs so that an account needs no right to make them.

use super::client::{Client, SqlError, param};
use super::control;
use super::kind::{self, BINARY, Kind, Mark};
use super::name::{TableName, literal, quote, quoted};
use super::place::Place;
use super::staging::Staging;
use crate::TableSpec;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::schema::Item;

/// The kinds of the columns of the table that a landing makes.
pub(super) fn kinds(place: &Place) -> Result<Vec<Kind>, Problem> {
    let contract = &place.landing.contract;
    kind::created(contract).map_err(|at| {
        let item = contract.items.get(at);
        let r#type = item.map(|item| crate::types::type_name(item.r#type)).unwrap_or_default();
        Problem::new(Code::TypeUnsupported)
            .with("column", item.map_or("", |item| item.name.as_str()))
            .with("type", r#type)
            .cause("SQL Server has no decimal of more than 38 digits")
    })
}

/// The statement that makes the target. Texts are told apart character by character there, as the contract does.
pub(super) fn create_target(place: &Place) -> Result<String, Problem> {
    let contract = &place.landing.contract;
    let column = |(item, kind): (&Item, Kind)| {
        kind::column(&item.name, kind, Some(BINARY), !item.nullable || contract.key.contains(&item.name))
    };
    let mut lines: Vec<String> = contract.items.iter().zip(kinds(place)?).map(column).collect();
    if !contract.key.is_empty() {
        lines.push(format!("PRIMARY KEY ({})", quoted("", contract.key.iter().map(String::as_str))));
    }
    Ok(format!("CREATE TABLE {} ({})", place.target, lines.join(", ")))
}

/// What is said of the target's columns beside their types: by name, the property and its value.
fn properties(place: &Place) -> Vec<(&str, &'static str, &str)> {
    let mut found = Vec::new();
    for item in &place.landing.contract.items {
        if let Some(mark) = Mark::of(item.r#type) {
            found.push((item.name.as_str(), "posthouse_type", mark));
        }
        if let Some(comment) = item.comment.as_deref().filter(|comment| !comment.is_empty()) {
            found.push((item.name.as_str(), "MS_Description", comment));
        }
    }
    found
}

/// Makes the target, and says of its columns what their types do not.
pub(super) fn make_target(client: &mut Client, place: &Place, create: &str) -> Result<(), SqlError> {
    client.batch(create)?;
    for (column, property, value) in properties(place) {
        let params = [property, value, &place.target.schema, &place.target.table, column].map(param);
        client.execute(PROPERTY, &params)?;
    }
    Ok(())
}

/// What a DBA runs, so that an account can read these tables and land those with no right to make anything: the rights on
/// what is read; of each landing the target, a staging table for the job, the two tables beside them, and the rights.
pub(super) fn script(account: &str, reads: &[TableSpec], places: &[Place]) -> Result<String, Problem> {
    let account = quote(account);
    let mut lines: Vec<String> = Vec::new();
    let mut say = |line: String| {
        if !lines.contains(&line) {
            lines.push(line);
        }
    };
    for read in reads {
        match read.table.as_deref().map(|table| TableName::parse(table).ok_or(table)) {
            Some(Ok(name)) => say(format!("GRANT SELECT ON {name} TO {account};")),
            Some(Err(table)) => {
                let cause = format!("`{table}` is no table's name: write `schema.table`");
                return Err(Problem::new(Code::SourceFailed).with("resource", &read.resource).cause(cause));
            }
            None => say(format!(
                "-- {} is a query: GRANT SELECT on each table it names. 该资源为查询，请对其涉及的每张表授予 SELECT。",
                read.resource
            )),
        }
    }
    if !reads.is_empty() {
        say("-- Readers and writers do not wait for each other once snapshots are allowed. 允许快照后读写互不等待："
            .to_owned());
        say("-- ALTER DATABASE CURRENT SET ALLOW_SNAPSHOT_ISOLATION ON;".to_owned());
    }
    for place in places {
        landing(place, &account)?.into_iter().for_each(&mut say);
    }
    Ok(lines.into_iter().map(|line| line + "\n").collect())
}

fn landing(place: &Place, account: &str) -> Result<Vec<String>, Problem> {
    let mut lines = Vec::new();
    let control = &place.control;
    let schema = format!("CREATE SCHEMA {}", quote(control));
    lines.push(format!("IF SCHEMA_ID({}) IS NULL EXEC({});", literal(control), literal(&schema)));
    let [applied, quarantine] = control::names(place);
    let [create_applied, create_quarantine] = control::create(place);
    let mut target = vec![format!("{};", create_target(place)?)];
    for (column, property, value) in properties(place) {
        let levels = format!(
            "N'SCHEMA', {}, N'TABLE', {}, N'COLUMN', {}",
            literal(&place.target.schema),
            literal(&place.target.table),
            literal(column)
        );
        target.push(format!("EXEC sys.sp_addextendedproperty {}, {}, {levels};", literal(property), literal(value)));
    }
    let once = |name: &TableName, make: &str| {
        format!("IF OBJECT_ID({}) IS NULL BEGIN {make} END;", literal(&name.to_string()))
    };
    lines.push(once(&place.target, &target.join(" ")));
    lines.push(once(&applied, &format!("{create_applied};")));
    lines.push(once(&quarantine, &format!("{create_quarantine};")));
    let (known, number) = (literal(&applied.to_string()), literal(control::FIRST_NUMBER));
    lines.push(format!("IF COL_LENGTH({known}, {number}) IS NULL {};", control::add_numbers(place)));
    let staging = Staging::beside_made(place, &kinds(place)?);
    lines.push(once(&staging.name, &format!("{};", staging.create())));
    for table in [&place.target, &applied, &quarantine, &staging.name] {
        lines.push(format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {account};"));
    }
    Ok(lines)
}

const PROPERTY: &str = "EXEC sys.sp_addextendedproperty @name = @P1, @value = @P2, @level0type = N'SCHEMA', \
     @level0name = @P3, @level1type = N'TABLE', @level1name = @P4, @level2type = N'COLUMN', @level2name = @P5";

#[cfg(test)]
mod tests {
    use super::super::settings::Settings;
    use super::*;
    use crate::contract::{item, landing, small, spec};
    use posthouse_protocol::job::Write;
    use posthouse_protocol::schema::{Contract, ContractType};

    fn place(contract: &Contract) -> Place {
        let keys = [("url", "sqlserver://u@127.0.0.1/d"), ("control_schema", "post]house")];
        let keys = keys.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect();
        Place::new(&landing(1, Write::Append, contract), &Settings::parse(&keys).unwrap()).unwrap()
    }

    #[test]
    fn a_table_is_made_with_binary_texts_and_a_key_that_fits() {
        let mut contract = small();
        contract.key = vec!["name".to_owned(), "id".to_owned()];
        assert_eq!(
            create_target(&place(&contract)).unwrap(),
            "CREATE TABLE [dbo].[人口 base] ([id] bigint NOT NULL, \
             [name] nvarchar(446) COLLATE Latin1_General_100_BIN2 NOT NULL, [seen] datetime2(6) NULL, PRIMARY KEY ([name], [id]))"
        );
        let wide = Contract { items: vec![item("d", ContractType::Decimal { precision: 38, scale: -1 })], key: vec![] };
        let problem = create_target(&place(&wide)).unwrap_err();
        assert!(problem.code == Code::TypeUnsupported && format!("{:?}", problem.facts).contains("\"d\""), "{problem}");
    }

    #[test]
    fn the_script_says_each_thing_once_and_quotes_every_name() {
        let mut contract = small();
        contract.items[1].comment = Some("姓名; it's".to_owned());
        contract.items.push(item("extra", ContractType::Json));
        let place = place(&contract);
        let read = spec("源.Ta]]b");
        let named = TableSpec { table: Some("[源].[Ta]]b]".to_owned()), ..spec("x") };
        assert!(script("u", &[read], &[]).is_err(), "a bracket outside of brackets");
        let made = script("网]", &[named.clone(), named], &[place.clone(), place]).unwrap();
        let count = |part: &str| made.matches(part).count();
        assert_eq!(count("GRANT SELECT ON [源].[Ta]]b] TO [网]]];"), 1, "{made}");
        assert_eq!(count("IF SCHEMA_ID(N'post]house') IS NULL EXEC(N'CREATE SCHEMA [post]]house]');"), 1);
        assert_eq!((count("N'MS_Description', N'姓名; it''s'"), count("N'posthouse_type', N'json'")), (1, 1));
        assert_eq!(
            count("GRANT SELECT, INSERT, UPDATE, DELETE ON [post]]house].[posthouse_staging_suite] TO [网]]];"),
            1
        );
        assert_eq!((count("GRANT CREATE"), count("ALTER, ")), (0, 0), "rows and nothing else");
    }
}
