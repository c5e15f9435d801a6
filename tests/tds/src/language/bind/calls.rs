//! Calls: aggregates, windows, what looks at the session and the catalogue, and functions of values.

use super::{Binder, Scope, together};
use crate::language::engine::VERSION;
use crate::language::expression::{Bound, Said, Typed};
use crate::language::run::{Aggregate, Window};
use crate::language::tree::{Expression, Over};
use crate::language::{catalogue, functions, scalar};
use crate::store::error::Step;
use crate::store::{Collation, Kind, SqlError, Type, Value};

impl Binder<'_> {
    pub(super) fn call(
        &mut self,
        name: &str,
        arguments: &[Expression],
        (star, distinct): (bool, bool),
        over: Option<&Over>,
        scope: &Scope,
    ) -> Step<Typed> {
        if let Some(over) = over {
            return self.window(name, arguments, over, scope);
        }
        if let Some(function) = AGGREGATES.iter().find(|aggregate| **aggregate == name) {
            return self.aggregate(function, arguments, star, distinct, scope);
        }
        if star || distinct {
            return Err(SqlError::unknown(format!("{name} of a star or of distinct values")).into());
        }
        match name {
            "COALESCE" | "ISNULL" => return self.first_there(name, arguments, scope),
            "NULLIF" => {
                let [value, other] = arguments else { return Err(SqlError::unknown("NULLIF of these").into()) };
                let (value, other) = (self.expression(value, scope)?, self.expression(other, scope)?);
                let ty = value.ty;
                let equal = super::compare(crate::language::tree::Comparison::Equal, value.clone(), other)?;
                let whens = vec![(equal, Bound::Constant(Value::Null))];
                return Ok(Typed::new(Bound::Case { whens, otherwise: Box::new(value.bound) }, ty));
            }
            "IIF" => {
                let [when, then, otherwise] = arguments else { return Err(SqlError::unknown("IIF of these").into()) };
                return self.case(None, &[(when.clone(), then.clone())], Some(otherwise), scope);
            }
            _ => {}
        }
        let mut bound = Vec::with_capacity(arguments.len());
        for (at, argument) in arguments.iter().enumerate() {
            // The first argument of these is a bare word.
            bound.push(match (name, at, argument) {
                ("DATEADD" | "DATEDIFF", 0, Expression::Column(word)) => {
                    Typed::constant(Value::text(word.concat()), Type::of(Kind::NVarChar(Some(32))))
                }
                _ => self.expression(argument, scope)?,
            });
        }
        if let Some(found) = self.of_session(name, &bound)? {
            return Ok(found);
        }
        let types: Vec<Type> = bound.iter().map(|typed| typed.ty).collect();
        let Some((function, ty)) = functions::known(name, &types) else {
            return Err(SqlError::unknown(format!("function {name}")).into());
        };
        let said = bound.first().map_or(Said::Not, |typed| typed.said);
        let nullable = function != "NEWID" && function != "CONCAT";
        let arguments = bound.into_iter().map(|typed| (typed.bound, typed.ty)).collect();
        Ok(Typed { nullable, said, ..Typed::new(Bound::Call { function, arguments }, ty) })
    }

    fn first_there(&mut self, name: &str, arguments: &[Expression], scope: &Scope) -> Step<Typed> {
        let mut values = Vec::with_capacity(arguments.len());
        for argument in arguments {
            values.push(self.expression(argument, scope)?);
        }
        let Some(last) = values.last() else { return Err(SqlError::unknown(format!("{name} of nothing")).into()) };
        let nullable = last.nullable;
        let (common, said) = together(&values)?;
        // ISNULL has the type of what it tests.
        let ty = match values.first() {
            Some(first) if name == "ISNULL" && !first.is_null() => first.ty,
            _ => common,
        };
        let mut bounds: Vec<Bound> = values.into_iter().map(|value| value.cast(ty).bound).collect();
        let otherwise = Box::new(bounds.pop().unwrap_or(Bound::Constant(Value::Null)));
        let whens = bounds.into_iter().map(|bound| (Bound::IsNull(Box::new(bound.clone()), true), bound)).collect();
        Ok(Typed { nullable, said, ..Typed::new(Bound::Case { whens, otherwise }, ty) })
    }

    fn aggregate(
        &mut self,
        function: &'static str,
        arguments: &[Expression],
        star: bool,
        distinct: bool,
        scope: &Scope,
    ) -> Step<Typed> {
        if !scope.grouped.get() {
            return Err(SqlError::new(147, "An aggregate may not appear in the WHERE clause.").into());
        }
        let argument = match (star, arguments) {
            (true, []) => None,
            (false, [argument]) => {
                scope.grouped.set(false);
                let bound = self.expression(argument, scope);
                scope.grouped.set(true);
                Some(bound?)
            }
            _ => return Err(SqlError::unknown(format!("{function} of these")).into()),
        };
        let from = argument.as_ref().map_or(Type::of(Kind::Int), |typed| typed.ty);
        if matches!(from.kind, Kind::Text | Kind::NText | Kind::Image | Kind::Xml)
            || (from.kind == Kind::Bit && !function.starts_with("COUNT"))
        {
            return Err(SqlError::new(
                8117,
                format!("Operand data type {} is invalid for {} operator.", from.kind.name(), function.to_lowercase()),
            )
            .into());
        }
        let ty = scalar::aggregate_type(function, from)?;
        let said = argument.as_ref().map_or(Said::Not, |typed| typed.said);
        let aggregate = Aggregate { function, argument: argument.map(|typed| typed.bound), distinct, ty, from };
        let mut aggregates = scope.aggregates.borrow_mut();
        let at = match aggregates.iter().position(|other| *other == aggregate) {
            Some(at) => at,
            None => {
                aggregates.push(aggregate);
                aggregates.len() - 1
            }
        };
        Ok(Typed { said, ..Typed::new(Bound::Column { up: 0, at: scope.keys.len() + at }, ty) })
    }

    fn window(&mut self, name: &str, arguments: &[Expression], over: &Over, scope: &Scope) -> Step<Typed> {
        let function = match name {
            "ROW_NUMBER" => "ROW_NUMBER",
            "NTILE" => "NTILE",
            other => return Err(SqlError::unknown(format!("{other} OVER")).into()),
        };
        if scope.grouped.get() || !scope.windows_allowed.get() {
            return Err(
                SqlError::new(4108, "Windowed functions can only appear in the SELECT or ORDER BY clauses.").into()
            );
        }
        if over.order.is_empty() {
            return Err(
                SqlError::new(4112, format!("The function '{name}' must have an OVER clause with ORDER BY.")).into()
            );
        }
        let buckets = match (function, arguments) {
            ("ROW_NUMBER", []) => None,
            ("NTILE", [count]) => match self.expression(count, scope)?.bound {
                Bound::Constant(Value::Int(count)) if count > 0 => Some(count),
                _ => return Err(SqlError::unknown("NTILE of no constant").into()),
            },
            _ => return Err(SqlError::unknown(format!("{name} of these")).into()),
        };
        let mut partition: Vec<(Bound, &'static Collation)> = Vec::new();
        for by in &over.partition {
            let typed = self.expression(by, scope)?;
            partition.push((typed.bound, typed.ty.collation));
        }
        let mut order = Vec::new();
        for (by, falls) in &over.order {
            let typed = self.expression(by, scope)?;
            order.push((typed.bound, *falls, typed.ty.collation));
        }
        let mut windows = scope.windows.borrow_mut();
        windows.push(Window { buckets, partition, order });
        let at = scope.columns.len() + windows.len() - 1;
        Ok(Typed::new(Bound::Column { up: 0, at }, Type::of(Kind::BigInt)))
    }

    /// `@@…`
    pub(super) fn global(&mut self, name: &str) -> Step<Typed> {
        let int = |value: i64| Typed { nullable: false, ..Typed::constant(Value::Int(value), Type::of(Kind::Int)) };
        let text = |value: &str| Typed::constant(Value::text(value), Type::of(Kind::NVarChar(Some(300))));
        Ok(match name.to_ascii_uppercase().as_str() {
            "@@TRANCOUNT" => int(self.session.trancount()),
            "@@ROWCOUNT" => int(self.session.rowcount),
            "@@ERROR" => int(self.session.error),
            "@@SPID" => Typed::constant(Value::Int(i64::from(self.session.spid)), Type::of(Kind::SmallInt)),
            "@@VERSION" => text(VERSION),
            "@@SERVERNAME" | "@@SERVICENAME" => text("POSTHOUSE-TEST"),
            "@@LANGUAGE" => text("us_english"),
            "@@LOCK_TIMEOUT" => int(self.session.lock_timeout_ms.unwrap_or(-1)),
            "@@MAX_PRECISION" => Typed::constant(Value::Int(38), Type::of(Kind::TinyInt)),
            "@@MICROSOFTVERSION" => int(0x0b00_0834),
            "@@IDENTITY" => identity(self.session.identity),
            "@@DBTS" => rowversion(self.database.last_rowversion()),
            other => return Err(SqlError::unknown(format!("variable {other}")).into()),
        })
    }

    /// What follows from the session or the catalogue: a constant of the statement.
    fn of_session(&mut self, name: &str, arguments: &[Typed]) -> Step<Option<Typed>> {
        let constant = |at: usize| -> Option<Value> {
            match arguments.get(at).map(|typed| &typed.bound) {
                Some(Bound::Constant(value)) => Some(value.clone()),
                _ => None,
            }
        };
        let text = |at: usize| constant(at).as_ref().and_then(scalar::text_of);
        let number = |at: usize| match constant(at) {
            Some(Value::Int(number)) => Some(number),
            _ => None,
        };
        let name_of = |value: Option<&str>| {
            let value = value.map_or(Value::Null, Value::text);
            Typed { nullable: true, ..Typed::constant(value, Type::of(Kind::NVarChar(Some(128)))) }
        };
        let int = |value: Option<i64>| Typed {
            nullable: true,
            ..Typed::constant(value.map_or(Value::Null, Value::Int), Type::of(Kind::Int))
        };
        let view = self.database.names(self.own);
        let now = self.session.now;
        Ok(Some(match (name, arguments.len()) {
            ("XACT_STATE", 0) => {
                Typed::constant(Value::Int(i64::from(self.session.trancount() > 0)), Type::of(Kind::SmallInt))
            }
            ("MIN_ACTIVE_ROWVERSION", 0) => rowversion(self.database.min_active_rowversion()),
            ("SCOPE_IDENTITY", 0) => identity(self.session.identity),
            ("DB_NAME", 0) => name_of(Some(&self.database.name)),
            ("DB_ID", 0) => int(Some(5)),
            ("SCHEMA_NAME", 0) => name_of(Some("dbo")),
            ("SCHEMA_NAME", 1) => {
                let at = number(0).and_then(|id| usize::try_from(id - 1).ok());
                name_of(at.and_then(|at| self.database.schemas.get(at)).map(String::as_str))
            }
            ("SCHEMA_ID", 1) => int(text(0).and_then(|name| catalogue::schema_id(self.database, &name))),
            ("SUSER_SNAME" | "SUSER_NAME" | "ORIGINAL_LOGIN" | "SYSTEM_USER", 0) => name_of(Some(&self.session.user)),
            ("USER_NAME" | "CURRENT_USER", 0) => name_of(Some("dbo")),
            ("APP_NAME", 0) => name_of(Some("")),
            ("HOST_NAME", 0) => name_of(Some("")),
            ("OBJECT_ID", 1 | 2) => {
                let parts = text(0).map(|name| catalogue::split_name(&name)).unwrap_or_default();
                let kind = text(1);
                let found = self.find_object(&parts).filter(|object| {
                    kind.as_ref().is_none_or(|kind| catalogue::object_type(object).trim_end() == kind.trim_end())
                });
                int(found.map(|object| object.id))
            }
            ("OBJECT_NAME", 1) => {
                let object = number(0).and_then(|id| self.database.object_by_id(view, id));
                name_of(object.map(|object| object.name.as_str()))
            }
            ("SERVERPROPERTY", 1) => match text(0).unwrap_or_default().to_ascii_lowercase().as_str() {
                "productversion" => name_of(Some("11.0.2100.60")),
                "edition" => name_of(Some("Posthouse test server")),
                "engineedition" => int(Some(3)),
                "collation" => name_of(Some(Collation::usual().name)),
                "productmajorversion" => name_of(Some("11")),
                other => return Err(SqlError::unknown(format!("SERVERPROPERTY {other}")).into()),
            },
            ("DATABASEPROPERTYEX", 2) => match text(1).unwrap_or_default().to_ascii_lowercase().as_str() {
                "collation" => name_of(Some(Collation::usual().name)),
                other => return Err(SqlError::unknown(format!("DATABASEPROPERTYEX {other}")).into()),
            },
            ("HAS_PERMS_BY_NAME", 3) => {
                let makes = matches!(text(2).as_deref(), Some("CREATE TABLE" | "ALTER"));
                int(Some(if makes && self.session.has_rows_only() { 0 } else { 1 }))
            }
            ("IS_SRVROLEMEMBER" | "IS_MEMBER" | "IS_ROLEMEMBER", 1) => int(Some(1)),
            ("GETDATE" | "CURRENT_TIMESTAMP", 0) => {
                let value = crate::store::calendar::round_to_datetime(now).map_or(Value::Null, Value::Moment);
                Typed { nullable: false, ..Typed::constant(value, Type::of(Kind::DateTime)) }
            }
            ("GETUTCDATE", 0) => {
                let value = crate::store::calendar::round_to_datetime(now).map_or(Value::Null, Value::Moment);
                Typed { nullable: false, ..Typed::constant(value, Type::of(Kind::DateTime)) }
            }
            ("SYSDATETIME" | "SYSUTCDATETIME", 0) => Typed::constant(Value::Moment(now), Type::of(Kind::DateTime2(7))),
            ("SYSDATETIMEOFFSET", 0) => Typed::constant(Value::Offset(now, 0), Type::of(Kind::DateTimeOffset(7))),
            _ => return Ok(None),
        }))
    }
}

fn identity(last: Option<i64>) -> Typed {
    let value = last.map_or(Value::Null, |id| Value::Decimal(crate::store::Decimal::new(i128::from(id), 0)));
    Typed { nullable: true, ..Typed::constant(value, Type::of(Kind::Numeric { precision: 38, scale: 0 })) }
}

fn rowversion(given: u64) -> Typed {
    Typed { nullable: false, ..Typed::constant(Value::bytes(given.to_be_bytes()), Type::of(Kind::Binary(8))) }
}

const AGGREGATES: &[&str] = &["COUNT", "COUNT_BIG", "SUM", "MIN", "MAX", "AVG"];
