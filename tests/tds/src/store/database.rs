//! The one database: its objects, and the transactions over them.
//! A transaction keeps a list of what it did; committing and undoing both walk it.

use super::catalog::{Body, Object, Property};
use super::error::Step;
use super::table::{Index, Stamp, Table, Transaction, View};
use super::{Row, SqlError, Stop};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    #[default]
    ReadCommitted,
    ReadUncommitted,
    RepeatableRead,
    Serializable,
    Snapshot,
}

/// One thing that a transaction did.
#[derive(Clone, Debug)]
enum Done {
    Began { table: usize, slot: usize },
    Ended { table: usize, slot: usize },
    Named { object: usize },
    Unnamed { object: usize },
    Indexed { table: usize, name: String },
    Unindexed { table: usize, index: Box<Index> },
    Schema(String),
    Properties(Vec<Property>),
}

#[derive(Debug)]
struct Running {
    isolation: Isolation,
    /// Where a snapshot stands, from its first statement on.
    at: Option<u64>,
    log: Vec<Done>,
    held: BTreeSet<usize>,
    marks: Vec<(String, usize)>,
    /// The first rowversion that it gave: no reader may go past it yet.
    rowversion: Option<u64>,
    /// Names held by sp_getapplock.
    names: BTreeSet<String>,
}

#[derive(Debug)]
pub struct Database {
    pub name: String,
    pub allow_snapshot: bool,
    pub schemas: Vec<String>,
    pub objects: Vec<Object>,
    pub properties: Vec<Property>,
    tables: Vec<Table>,
    running: BTreeMap<Transaction, Running>,
    /// Rows, by table and slot, that a transaction holds without having changed them.
    held_rows: BTreeMap<(usize, usize), Transaction>,
    waiting: BTreeMap<Transaction, Transaction>,
    commits: u64,
    next_transaction: Transaction,
    next_object: i64,
    rowversions: u64,
}

impl Database {
    pub fn new(name: &str) -> Self {
        Database {
            name: name.to_owned(),
            allow_snapshot: true,
            schemas: vec!["dbo".to_owned(), "guest".to_owned(), "INFORMATION_SCHEMA".to_owned(), "sys".to_owned()],
            objects: Vec::new(),
            properties: Vec::new(),
            tables: Vec::new(),
            running: BTreeMap::new(),
            held_rows: BTreeMap::new(),
            waiting: BTreeMap::new(),
            commits: 0,
            next_transaction: 1,
            next_object: 245_575_913,
            rowversions: 2000,
        }
    }

    pub fn begin(&mut self, isolation: Isolation) -> Result<Transaction, SqlError> {
        let id = self.next_transaction;
        self.next_transaction += 1;
        self.running.insert(
            id,
            Running {
                isolation,
                at: None,
                log: Vec::new(),
                held: BTreeSet::new(),
                marks: Vec::new(),
                rowversion: None,
                names: BTreeSet::new(),
            },
        );
        Ok(id)
    }

    pub fn set_isolation(&mut self, own: Transaction, isolation: Isolation) {
        if let Some(running) = self.running.get_mut(&own) {
            running.isolation = isolation;
        }
    }

    /// What a statement that starts now sees.
    pub fn view(&mut self, own: Transaction) -> Result<View, SqlError> {
        let now = self.commits;
        let allowed = self.allow_snapshot;
        let name = self.name.clone();
        let at = match self.running.get_mut(&own) {
            Some(running) if running.isolation == Isolation::Snapshot => {
                if !allowed {
                    return Err(SqlError::new(
                        3952,
                        format!(
                            "Snapshot isolation transaction failed accessing database '{name}' because snapshot isolation is not allowed in this database."
                        ),
                    ));
                }
                *running.at.get_or_insert(now)
            }
            _ => now,
        };
        Ok(View { at, own })
    }

    pub fn isolation(&self, own: Transaction) -> Isolation {
        self.running.get(&own).map_or(Isolation::ReadCommitted, |running| running.isolation)
    }

    pub fn commit(&mut self, own: Transaction) {
        let Some(running) = self.running.remove(&own) else { return };
        self.commits += 1;
        let at = Stamp::Committed(self.commits);
        for done in &running.log {
            match done {
                Done::Began { table, slot } => {
                    if let Some(version) = self.tables.get_mut(*table).and_then(|t| t.versions.get_mut(*slot)) {
                        version.begin = at;
                    }
                }
                Done::Ended { table, slot } => {
                    if let Some(version) = self.tables.get_mut(*table).and_then(|t| t.versions.get_mut(*slot)) {
                        version.end = at;
                    }
                }
                Done::Named { object } => {
                    if let Some(object) = self.objects.get_mut(*object) {
                        object.begin = at;
                    }
                }
                Done::Unnamed { object } => {
                    if let Some(object) = self.objects.get_mut(*object) {
                        object.end = at;
                    }
                }
                Done::Indexed { .. } | Done::Unindexed { .. } | Done::Schema(_) | Done::Properties(_) => {}
            }
        }
        self.let_go(own, &running.held);
        if self.running.is_empty() {
            self.forget_dropped();
            for table in &mut self.tables {
                table.compact();
            }
        }
    }

    /// Leaves nothing of tables that were dropped: nobody who still sees their rows runs.
    fn forget_dropped(&mut self) {
        let of = |object: &Object| match object.body {
            Body::Table(at) => Some(at),
            _ => None,
        };
        let stands = |object: &&Object| object.begin != Stamp::Never && object.end == Stamp::Never;
        let standing: BTreeSet<usize> = self.objects.iter().filter(stands).filter_map(of).collect();
        let dropped = self.objects.iter().filter_map(of).filter(|at| !standing.contains(at));
        for at in dropped.collect::<BTreeSet<usize>>() {
            if let Some(table) = self.tables.get_mut(at) {
                table.clear();
            }
        }
    }

    pub fn roll_back(&mut self, own: Transaction) {
        self.undo_to(own, 0);
        if let Some(running) = self.running.remove(&own) {
            self.let_go(own, &running.held);
        }
    }

    fn let_go(&mut self, own: Transaction, held: &BTreeSet<usize>) {
        self.waiting.remove(&own);
        self.held_rows.retain(|_, holder| *holder != own);
        for table in held.iter().copied() {
            if let Some(table) = self.tables.get_mut(table) {
                table.writers.remove(&own);
                table.shared.remove(&own);
                table.exclusive = table.exclusive.filter(|other| *other != own);
            }
        }
    }

    /// How much the transaction has done, to come back to.
    pub fn mark(&self, own: Transaction) -> usize {
        self.running.get(&own).map_or(0, |running| running.log.len())
    }

    pub fn undo_to(&mut self, own: Transaction, mark: usize) {
        loop {
            let Some(running) = self.running.get_mut(&own) else { return };
            if running.log.len() <= mark {
                return;
            }
            let Some(done) = running.log.pop() else { return };
            match done {
                Done::Began { table, slot } => {
                    if let Some(version) = self.tables.get_mut(table).and_then(|t| t.versions.get_mut(slot)) {
                        version.begin = Stamp::Never;
                    }
                }
                Done::Ended { table, slot } => {
                    if let Some(version) = self.tables.get_mut(table).and_then(|t| t.versions.get_mut(slot)) {
                        version.end = Stamp::Never;
                    }
                }
                Done::Named { object } => {
                    if let Some(object) = self.objects.get_mut(object) {
                        object.begin = Stamp::Never;
                    }
                }
                Done::Unnamed { object } => {
                    if let Some(object) = self.objects.get_mut(object) {
                        object.end = Stamp::Never;
                    }
                }
                Done::Indexed { table, name } => {
                    if let Some(table) = self.tables.get_mut(table) {
                        table.indexes.retain(|index| index.name != name);
                    }
                }
                Done::Unindexed { table, index } => {
                    if let Some(table) = self.tables.get_mut(table) {
                        // Rows may have come since it was taken away: it is built anew over all that is there.
                        let mut fresh = Index::new(index.name.clone(), index.columns.clone(), false);
                        fresh.descending.clone_from(&index.descending);
                        fresh.included.clone_from(&index.included);
                        (fresh.primary, fresh.constraint, fresh.clustered) =
                            (index.primary, index.constraint, index.clustered);
                        let unique = index.unique;
                        if table.build(fresh, "", View { at: 0, own: 0 }).is_ok()
                            && let Some(index) = table.indexes.last_mut()
                        {
                            index.unique = unique;
                        }
                    }
                }
                Done::Schema(name) => self.schemas.retain(|schema| *schema != name),
                Done::Properties(before) => self.properties = before,
            }
        }
    }

    pub fn save(&mut self, own: Transaction, name: &str) {
        if let Some(running) = self.running.get_mut(&own) {
            let mark = running.log.len();
            running.marks.push((name.to_ascii_lowercase(), mark));
        }
    }

    /// Back to a save point; false where there is none of that name.
    pub fn undo_to_saved(&mut self, own: Transaction, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        let found = self
            .running
            .get(&own)
            .and_then(|running| running.marks.iter().rev().find(|(saved, _)| *saved == name).map(|(_, mark)| *mark));
        if let Some(mark) = found {
            self.undo_to(own, mark);
        }
        found.is_some()
    }

    /// Every transaction that runs ends undone, as after a loss of power.
    pub fn lose_power(&mut self) {
        let running: Vec<Transaction> = self.running.keys().copied().collect();
        for own in running {
            self.roll_back(own);
        }
    }

    /// Notes who waits for whom; true when the circle is closed.
    pub fn wait(&mut self, own: Transaction, other: Transaction) -> bool {
        self.waiting.insert(own, other);
        let mut at = other;
        for _ in 0..self.waiting.len() {
            if at == own {
                return true;
            }
            match self.waiting.get(&at) {
                Some(next) => at = *next,
                None => return false,
            }
        }
        at == own
    }

    pub fn waited(&mut self, own: Transaction) {
        self.waiting.remove(&own);
    }

    fn log(&mut self, own: Transaction, done: Done) {
        if let Some(running) = self.running.get_mut(&own) {
            running.log.push(done);
        }
    }

    fn hold(&mut self, own: Transaction, table: usize) {
        if let Some(running) = self.running.get_mut(&own) {
            running.held.insert(table);
        }
    }

    // Objects.

    pub fn object(&self, view: View, schema: &str, name: &str) -> Option<&Object> {
        self.objects.iter().rev().find(|object| view.sees(object.begin, object.end) && object.is(schema, name))
    }

    pub fn object_by_id(&self, view: View, id: i64) -> Option<&Object> {
        self.objects.iter().rev().find(|object| view.sees(object.begin, object.end) && object.id == id)
    }

    pub fn seen_objects(&self, view: View) -> impl Iterator<Item = &Object> {
        self.objects.iter().filter(move |object| view.sees(object.begin, object.end))
    }

    /// What the statements of one transaction name is what is committed now, snapshot or not: names have no versions
    /// in SQL Server.
    pub fn names(&self, own: Transaction) -> View {
        View { at: self.commits, own }
    }

    pub fn table(&self, at: usize) -> Result<&Table, SqlError> {
        self.tables.get(at).ok_or_else(|| SqlError::new(208, "Invalid object: its rows are gone."))
    }

    pub fn table_mut(&mut self, at: usize) -> Result<&mut Table, SqlError> {
        self.tables.get_mut(at).ok_or_else(|| SqlError::new(208, "Invalid object: its rows are gone."))
    }

    pub fn add_object(&mut self, own: Transaction, id: Option<i64>, schema: &str, name: &str, body: Body) -> Step<i64> {
        for object in self.objects.iter().filter(|object| object.is(schema, name)) {
            match (object.begin, object.end) {
                (Stamp::Never, _) | (_, Stamp::Committed(_)) => {}
                (Stamp::By(other), _) if other != own => return Err(Stop::Wait(other)),
                (_, Stamp::By(other)) if other != own => return Err(Stop::Wait(other)),
                (_, Stamp::By(_)) => {}
                (_, Stamp::Never) => {
                    return Err(Stop::Error(SqlError::new(
                        2714,
                        format!("There is already an object named '{name}' in the database."),
                    )));
                }
            }
        }
        let id = id.unwrap_or_else(|| {
            self.next_object += 16;
            self.next_object
        });
        self.objects.push(Object {
            id,
            schema: schema.to_owned(),
            name: name.to_owned(),
            body,
            begin: Stamp::By(own),
            end: Stamp::Never,
        });
        self.log(own, Done::Named { object: self.objects.len() - 1 });
        Ok(id)
    }

    /// Takes a name away; its rows stay for those who still see them.
    pub fn end_object(&mut self, own: Transaction, id: i64) -> Step<()> {
        let view = self.names(own);
        let Some(at) = self.objects.iter().rposition(|o| o.id == id && view.sees(o.begin, o.end)) else {
            return Err(Stop::Error(SqlError::new(3701, "Cannot drop the object, because it does not exist.")));
        };
        if let Some(object) = self.objects.get_mut(at) {
            if let Stamp::By(other) = object.end
                && other != own
            {
                return Err(Stop::Wait(other));
            }
            object.end = Stamp::By(own);
        }
        self.log(own, Done::Unnamed { object: at });
        Ok(())
    }

    pub fn add_table(&mut self, table: Table) -> usize {
        self.tables.push(table);
        self.tables.len() - 1
    }

    pub fn add_schema(&mut self, own: Transaction, name: &str) {
        self.schemas.push(name.to_owned());
        self.log(own, Done::Schema(name.to_owned()));
    }

    pub fn set_properties(&mut self, own: Transaction, properties: Vec<Property>) {
        let before = std::mem::replace(&mut self.properties, properties);
        self.log(own, Done::Properties(before));
    }

    pub fn add_index(&mut self, own: Transaction, table: usize, index: Index, name: &str) -> Step<()> {
        self.lock(own, table, true)?;
        let view = self.names(own);
        let index_name = index.name.clone();
        let target = self.table_mut(table)?;
        if target.indexes.iter().any(|other| other.name.eq_ignore_ascii_case(&index_name)) {
            return Err(Stop::Error(SqlError::new(
                1913,
                format!("The operation failed because an index or statistics with name '{index_name}' already exists."),
            )));
        }
        target.build(index, name, view)?;
        self.log(own, Done::Indexed { table, name: index_name });
        Ok(())
    }

    pub fn drop_index(&mut self, own: Transaction, table: usize, name: &str) -> Step<bool> {
        self.lock(own, table, true)?;
        let target = self.table_mut(table)?;
        let Some(at) = target.indexes.iter().position(|index| index.name.eq_ignore_ascii_case(name)) else {
            return Ok(false);
        };
        let index = target.indexes.remove(at);
        self.log(own, Done::Unindexed { table, index: Box::new(index) });
        Ok(true)
    }

    // Rows.

    /// Holds a table to the end of the transaction, for reading or alone.
    pub fn lock(&mut self, own: Transaction, table: usize, alone: bool) -> Step<()> {
        let target = self.table_mut(table)?;
        target.may_hold(own, alone)?;
        if alone {
            target.exclusive = Some(own);
        } else {
            target.shared.insert(own);
        }
        self.hold(own, table);
        Ok(())
    }

    pub fn insert(&mut self, own: Transaction, table: usize, name: &str, row: Row) -> Step<()> {
        let target = self.table_mut(table)?;
        target.may_write(own)?;
        let slot = target.insert(name, row, own)?;
        target.writers.insert(own);
        self.hold(own, table);
        self.log(own, Done::Began { table, slot });
        Ok(())
    }

    /// Keeps a row from being held or changed by others until the transaction ends.
    pub fn hold_row(&mut self, own: Transaction, table: usize, slot: usize) -> Step<()> {
        match self.held_rows.insert((table, slot), own) {
            Some(other) if other != own => {
                self.held_rows.insert((table, slot), other);
                Err(Stop::Wait(other))
            }
            _ => Ok(()),
        }
    }

    pub fn end_row(&mut self, own: Transaction, table: usize, slot: usize) -> Step<bool> {
        if let Some(other) = self.held_rows.get(&(table, slot)).filter(|other| **other != own) {
            return Err(Stop::Wait(*other));
        }
        let target = self.table_mut(table)?;
        target.may_write(own)?;
        let ended = target.end(slot, own)?;
        target.writers.insert(own);
        self.hold(own, table);
        if ended {
            self.log(own, Done::Ended { table, slot });
        }
        Ok(ended)
    }

    // Rowversions and application locks.

    pub fn next_rowversion(&mut self, own: Transaction) -> u64 {
        self.rowversions += 1;
        let given = self.rowversions;
        if let Some(running) = self.running.get_mut(&own) {
            running.rowversion.get_or_insert(given);
        }
        given
    }

    pub fn last_rowversion(&self) -> u64 {
        self.rowversions
    }

    /// The lowest that a running transaction gave, or the next that will be given.
    pub fn min_active_rowversion(&self) -> u64 {
        self.running.values().filter_map(|running| running.rowversion).min().unwrap_or(self.rowversions + 1)
    }

    pub fn lock_name(&mut self, own: Transaction, name: &str) -> Step<()> {
        if let Some((other, _)) =
            self.running.iter().find(|(other, running)| **other != own && running.names.contains(name))
        {
            return Err(Stop::Wait(*other));
        }
        if let Some(running) = self.running.get_mut(&own) {
            running.names.insert(name.to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::Column;
    use super::super::{Kind, Type, Value};
    use super::*;
    use std::sync::Arc;

    fn database() -> (Database, usize) {
        let mut database = Database::new("test");
        let column = |name: &str| Column {
            name: name.to_owned(),
            ty: Type::of(Kind::Int),
            nullable: false,
            identity: None,
            default: None,
            computed: None,
        };
        let mut table = Table { columns: vec![column("id"), column("n")], ..Table::default() };
        let mut index = Index::new("PK".to_owned(), vec![0], true);
        (index.primary, index.constraint) = (true, true);
        table.indexes.push(index);
        let at = database.add_table(table);
        (database, at)
    }

    fn row(id: i64, n: i64) -> Row {
        Arc::from(vec![Value::Int(id), Value::Int(n)])
    }

    fn count(database: &mut Database, own: Transaction, table: usize) -> usize {
        let view = database.view(own).expect("a view");
        database.table(table).expect("a table").seen(view).count()
    }

    #[test]
    fn a_snapshot_sees_what_was_committed_when_it_began_to_read() {
        let (mut database, table) = database();
        let reader = database.begin(Isolation::Snapshot).expect("begun");
        assert_eq!(count(&mut database, reader, table), 0);
        let writer = database.begin(Isolation::ReadCommitted).expect("begun");
        database.insert(writer, table, "t", row(1, 1)).expect("inserted");
        assert_eq!((count(&mut database, writer, table), count(&mut database, reader, table)), (1, 0));
        database.commit(writer);
        assert_eq!(count(&mut database, reader, table), 0);
        database.commit(reader);
        let later = database.begin(Isolation::ReadCommitted).expect("begun");
        assert_eq!(count(&mut database, later, table), 1);
    }

    #[test]
    fn what_is_undone_was_never_there_and_a_key_is_taken_once() {
        let (mut database, table) = database();
        let first = database.begin(Isolation::ReadCommitted).expect("begun");
        database.insert(first, table, "t", row(1, 1)).expect("inserted");
        let second = database.begin(Isolation::ReadCommitted).expect("begun");
        assert_eq!(database.insert(second, table, "t", row(1, 2)), Err(Stop::Wait(first)));
        database.roll_back(first);
        database.insert(second, table, "t", row(1, 2)).expect("the key is free again");
        let mark = database.mark(second);
        database.insert(second, table, "t", row(2, 2)).expect("inserted");
        database.undo_to(second, mark);
        let Err(Stop::Error(error)) = database.insert(second, table, "t", row(1, 3)) else { unreachable!("taken") };
        assert_eq!(error.number, 2627);
        database.commit(second);
        assert_eq!(count(&mut database, 0, table), 1);
    }

    #[test]
    fn rows_of_a_table_that_was_dropped_go_with_the_last_who_saw_them() {
        let (mut database, table) = database();
        let own = database.begin(Isolation::ReadCommitted).expect("begun");
        let id = database.add_object(own, None, "dbo", "t", Body::Table(table)).expect("named");
        database.insert(own, table, "t", row(1, 1)).expect("inserted");
        database.commit(own);
        let reader = database.begin(Isolation::Snapshot).expect("begun");
        assert_eq!(count(&mut database, reader, table), 1);
        let own = database.begin(Isolation::ReadCommitted).expect("begun");
        database.end_object(own, id).expect("dropped");
        database.commit(own);
        assert_eq!(count(&mut database, reader, table), 1, "somebody sees it still");
        database.commit(reader);
        assert!(database.table(table).expect("a table").versions.is_empty());
    }

    #[test]
    fn two_that_wait_for_each_other_are_found() {
        let (mut database, _) = database();
        assert!(!database.wait(1, 2));
        assert!(!database.wait(3, 1));
        assert!(database.wait(2, 3));
    }

    #[test]
    fn a_table_that_is_held_for_reading_takes_no_rows() {
        let (mut database, table) = database();
        let reader = database.begin(Isolation::ReadCommitted).expect("begun");
        database.lock(reader, table, false).expect("free");
        let writer = database.begin(Isolation::ReadCommitted).expect("begun");
        assert_eq!(database.insert(writer, table, "t", row(1, 1)), Err(Stop::Wait(reader)));
        database.commit(reader);
        database.insert(writer, table, "t", row(1, 1)).expect("free again");
        assert_eq!(database.lock(reader, table, true), Err(Stop::Wait(writer)));
    }

    #[test]
    fn no_reader_goes_past_a_rowversion_that_is_not_committed() {
        let (mut database, _) = database();
        let slow = database.begin(Isolation::ReadCommitted).expect("begun");
        let given = database.next_rowversion(slow);
        let quick = database.begin(Isolation::ReadCommitted).expect("begun");
        database.next_rowversion(quick);
        database.commit(quick);
        assert_eq!(database.min_active_rowversion(), given);
        database.commit(slow);
        assert_eq!(database.min_active_rowversion(), database.last_rowversion() + 1);
    }
}
