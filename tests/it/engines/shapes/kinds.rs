//! Types of columns as the seed draws them, engine by engine: each with its declaration, what it means, values at its
//! edges as the engine's own SQL has them, and where a value of them is refused with its row, if anywhere.

mod values;

use super::super::Engine;
use super::super::look::Means;
use crate::schemas::random::Random;
use values::{ALL, MARIADB, NOWHERE, POSTGRES, Row, SQLITE, SQLSERVER};

/// A column's type.
#[derive(Debug, Clone)]
pub(super) struct Kind {
    pub(super) declared: String,
    pub(super) means: Means,
    /// How the engine shows its values, where not as is usual for what they mean.
    pub(super) by: Option<&'static str>,
    pub(super) values: Vec<Literal>,
    /// Where such a column is refused by name before anything moves.
    pub(super) refused_at: Vec<Engine>,
}

/// A value as SQL has it.
#[derive(Debug, Clone)]
pub(super) struct Literal {
    pub(super) sql: String,
    /// Where it makes its row a bad one; at the source already where this is everywhere.
    pub(super) bad_at: &'static [Engine],
}

impl Kind {
    /// Any type that the engine has.
    pub(super) fn any(engine: Engine, random: &mut Random) -> Self {
        match engine {
            Engine::Postgres if random.chance(20) => decimal_of_postgres(random),
            Engine::Postgres => Self::of(random.pick(POSTGRES)),
            Engine::MariaDb => Self::of(random.pick(MARIADB)),
            Engine::Sqlite => Self::of(random.pick(SQLITE)),
            Engine::SqlServer => Self::of(random.pick(SQLSERVER)),
        }
    }

    /// One that no other engine has a place for; none where the engine has no such type.
    pub(super) fn unsupported(engine: Engine, random: &mut Random) -> Option<Self> {
        let declared = match engine {
            Engine::Postgres => *random.pick(&["regclass", "xid", "tid", "aclitem"]),
            Engine::Sqlite => "DECIMAL(99,2)",
            Engine::SqlServer => "sql_variant",
            Engine::MariaDb => return None,
        };
        let values = vec![Literal { sql: "NULL".to_owned(), bad_at: NOWHERE }];
        Some(Self { declared: declared.to_owned(), means: Means::Text, by: None, values, refused_at: ALL.to_vec() })
    }

    /// A whole number, for a key.
    pub(super) fn number(engine: Engine, random: &mut Random) -> Self {
        let declared: &[&str] = match engine {
            Engine::Postgres => &["int4", "int8"],
            Engine::MariaDb => &["int", "bigint", "mediumint unsigned"],
            Engine::Sqlite => &["INTEGER", "BIGINT"],
            Engine::SqlServer => &["int", "bigint"],
        };
        Self::plain(random.pick::<&str>(declared), Means::Exact)
    }

    /// A short text, for a key.
    pub(super) fn name(engine: Engine) -> Self {
        let declared = match engine {
            Engine::Postgres => "text",
            Engine::MariaDb => "varchar(40)",
            Engine::Sqlite => "TEXT",
            Engine::SqlServer => "nvarchar(40)",
        };
        let texts = ["'a'", "'A'", "'a b'", "'it''s'", "'é'", "'王'", "'姓名 1'"];
        let literal = |text: &&str| Literal {
            sql: if engine == Engine::SqlServer { format!("N{text}") } else { (*text).to_owned() },
            bad_at: NOWHERE,
        };
        Self { values: texts.iter().map(literal).collect(), ..Self::plain(declared, Means::Text) }
    }

    fn plain(declared: &str, means: Means) -> Self {
        Self { declared: declared.to_owned(), means, by: None, values: Vec::new(), refused_at: Vec::new() }
    }

    fn of((declared, means, by, values): &Row) -> Self {
        let literal = |(sql, bad_at): &(&str, &'static [Engine])| Literal { sql: (*sql).to_owned(), bad_at };
        let by = if by.is_empty() { None } else { Some(*by) };
        Self { by, values: values.iter().map(literal).collect(), ..Self::plain(declared, *means) }
    }
}

/// A `numeric(p,s)` of any size: a decimal up to 38 digits, a number beyond.
fn decimal_of_postgres(random: &mut Random) -> Kind {
    let precision: i64 = *random.pick(&[1, 5, 15, 16, 18, 37, 38, 39, 100]);
    let scale = match random.below(4) {
        0 => 0,
        1 => precision,
        2 => -(random.below(20) as i64),
        _ => random.below(precision as u64 + 1) as i64,
    };
    let is_decimal = precision <= 38;
    let digits = "9".repeat(precision as usize);
    let of = |number: &str| Literal { sql: format!("'{number}e{}'", -scale), bad_at: NOWHERE };
    let mut values = vec![of(&digits), of(&format!("-{digits}")), of("1"), of("0")];
    values.push(Literal { sql: "'NaN'".to_owned(), bad_at: if is_decimal { ALL } else { NOWHERE } });
    let mut kind = Kind { values, ..Kind::plain(&format!("numeric({precision},{scale})"), Means::Exact) };
    // Zeros before the point are digits of a decimal too.
    if is_decimal && precision - scale > 38 {
        kind.refused_at.push(Engine::SqlServer);
    }
    kind
}
