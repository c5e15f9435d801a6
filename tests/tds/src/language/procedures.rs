//! Procedures by name, from EXEC and from calls: the few that anyone here uses.

use super::bind::no_object;
use super::catalogue::split_name;
use super::engine::{Event, Flow, Gone, Outcome, Session, Sink, Work};
use super::tree::{Given, Name};
use super::{parse, scalar};
use crate::store::catalog::{Body, Property};
use crate::store::convert::{Mode, convert};
use crate::store::error::Step;
use crate::store::table::same_name;
use crate::store::{SqlError, Type, Value};

/// Arguments by name, in small letters and without their `@`, or by place.
struct Arguments {
    values: Vec<(Option<String>, Value)>,
}

impl Arguments {
    fn text(&self, name: &str, place: usize) -> Option<String> {
        let named = self.values.iter().find(|(given, _)| given.as_deref() == Some(name));
        let (_, value) = named.or_else(|| self.values.get(place).filter(|(given, _)| given.is_none()))?;
        scalar::text_of(value).map(|text| text.to_string())
    }

    /// That nothing was given which is not known.
    fn only(&self, names: &[&str]) -> Result<(), SqlError> {
        match self.values.iter().filter_map(|(name, _)| name.as_deref()).find(|name| !names.contains(name)) {
            Some(other) => Err(SqlError::unknown(format!("argument @{other}"))),
            None => Ok(()),
        }
    }
}

impl Work<'_> {
    pub fn execute(&mut self, name: &Name, given: &[(Option<String>, Given)]) -> Step<Outcome> {
        let mut values = Vec::with_capacity(given.len());
        for (name, value) in given {
            let name = name.as_ref().map(|name| name.trim_start_matches('@').to_lowercase());
            let value = match value {
                Given::Expression(expression) => self.binder().value(expression)?.0,
                Given::Word(word) => Value::text(word),
                Given::Default => Value::Null,
            };
            values.push((name, value));
        }
        let arguments = Arguments { values };
        match name.last().map(|name| name.to_lowercase()).unwrap_or_default().as_str() {
            "sp_rename" => self.rename(&arguments),
            "sp_addextendedproperty" => self.property(&arguments, false),
            "sp_updateextendedproperty" => self.property(&arguments, true),
            "sp_getapplock" => {
                arguments.only(&["resource", "lockmode", "lockowner", "locktimeout"])?;
                let resource = arguments.text("resource", 0).unwrap_or_default();
                self.database.lock_name(self.own, &resource)?;
                Ok(Outcome::default())
            }
            _ => Err(SqlError::unknown(format!("procedure {}", name.join("."))).into()),
        }
    }

    fn rename(&mut self, arguments: &Arguments) -> Step<Outcome> {
        arguments.only(&["objname", "newname", "objtype"])?;
        let from = split_name(&arguments.text("objname", 0).unwrap_or_default());
        let to = arguments.text("newname", 1).unwrap_or_default();
        let kind = arguments.text("objtype", 2).unwrap_or_else(|| "OBJECT".to_owned()).to_uppercase();
        if kind != "OBJECT" {
            return Err(SqlError::unknown(format!("sp_rename of a {kind}")).into());
        }
        let Some(object) = self.binder().find_object(&from).cloned() else {
            return Err(SqlError::new(15225, format!("No item by the name of '{}' could be found in the current database, given that @itemtype was input as '(null)'.", from.join("."))).into());
        };
        if let Body::Table(at) = object.body {
            self.database.lock(self.own, at, true)?;
        }
        self.database.end_object(self.own, object.id)?;
        self.database.add_object(self.own, Some(object.id), &object.schema, &to, object.body)?;
        Ok(Outcome::default())
    }

    /// A comment, or another property of a table or a column.
    fn property(&mut self, arguments: &Arguments, there: bool) -> Step<Outcome> {
        arguments.only(&[
            "name",
            "value",
            "level0type",
            "level0name",
            "level1type",
            "level1name",
            "level2type",
            "level2name",
        ])?;
        let named = |name: &str, place: usize| arguments.text(name, place).unwrap_or_default();
        let (schema, table) = (named("level0name", 3), named("level1name", 5));
        let target = self.target(&[schema, table])?;
        let column = match arguments.text("level2name", 7) {
            None => 0,
            Some(name) => {
                let at = target.columns.iter().position(|column| same_name(&column.name, &name));
                at.map(|at| at as i64 + 1).ok_or_else(|| no_object(&[target.name.clone(), name]))?
            }
        };
        let property = Property { object: target.id, column, name: named("name", 0), value: named("value", 1) };
        let mut properties = self.database.properties.clone();
        let same = |have: &Property| {
            have.object == property.object && have.column == property.column && same_name(&have.name, &property.name)
        };
        let found = properties.iter().position(same);
        match (found, there) {
            (Some(at), true) => {
                properties.remove(at);
            }
            (None, true) => {
                return Err(SqlError::new(
                    15217,
                    format!("Cannot update or delete property. Property '{}' does not exist.", property.name),
                )
                .into());
            }
            (Some(_), false) => {
                return Err(SqlError::new(
                    15233,
                    format!("Property cannot be added. Property '{}' already exists.", property.name),
                )
                .into());
            }
            (None, false) => {}
        }
        properties.push(property);
        self.database.set_properties(self.own, properties);
        Ok(Outcome::default())
    }
}

/// A parameter of a call, as it came.
#[derive(Clone, Debug)]
pub struct Parameter {
    pub name: String,
    pub value: Value,
    pub ty: Type,
    /// It goes back to who called.
    pub back: bool,
}

impl Session {
    /// A statement with parameters, as sp_executesql and sp_execute run it. Gives back those that are to return.
    pub fn with_parameters(
        &mut self,
        text: &str,
        declared: &str,
        given: Vec<Parameter>,
        sink: &mut dyn Sink,
    ) -> Result<(), Gone> {
        let before = self.variables.clone();
        let bound = parse::parameters(declared).and_then(|declared| {
            if declared.len() != given.len() {
                return Err(SqlError::new(
                    8178,
                    format!(
                        "The parameterized query expects {} parameters, and {} were supplied.",
                        declared.len(),
                        given.len()
                    ),
                ));
            }
            for (place, (name, to, _)) in declared.iter().enumerate() {
                // By name where it has one, else by place.
                let parameter = given
                    .iter()
                    .find(|parameter| same_name(&parameter.name, name))
                    .or_else(|| given.get(place).filter(|parameter| parameter.name.is_empty()))
                    .ok_or_else(|| {
                        SqlError::new(
                            8178,
                            format!("The parameterized query expects the parameter '{name}', which was not supplied."),
                        )
                    })?;
                let value = convert(&parameter.value, parameter.ty, to.ty, Mode::Cast, None)?;
                self.variables.insert(name.to_lowercase(), (to.ty, value));
            }
            Ok(())
        });
        let ran = match bound {
            Ok(()) => self.batch(text, sink),
            Err(error) => {
                self.engine.note(&error, text);
                self.error = i64::from(error.number);
                sink.put(Event::Error(error)).and_then(|()| sink.put(Event::Done { count: None, failed: true }))
            }
        };
        self.variables = before;
        ran
    }

    /// A procedure that was called by its name, with parameters of the line.
    pub fn procedure(&mut self, name: &str, given: &[Parameter], sink: &mut dyn Sink) -> Result<(), Gone> {
        self.engine.hear(name);
        let name = split_name(name);
        let before = self.variables.clone();
        let mut arguments = Vec::with_capacity(given.len());
        for (at, parameter) in given.iter().enumerate() {
            let variable = format!("@\u{1}{at}");
            self.variables.insert(variable.clone(), (parameter.ty, parameter.value.clone()));
            let own = (!parameter.name.is_empty()).then(|| parameter.name.clone());
            arguments.push((own, Given::Expression(super::tree::Expression::Variable(variable))));
        }
        let flow = self.statement(&super::tree::Statement::Execute { name, arguments }, sink);
        self.variables = before;
        flow.map(|_: Flow| ())
    }
}
