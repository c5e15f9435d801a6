//! Types of columns as the seed draws them: each with its declaration, values at its edges, how a column of it
//! lands where there is no table yet, and values that no transfer can carry.

use super::random::Random;

/// A column's type.
#[derive(Debug, Clone)]
pub(super) struct Kind {
    /// As the source declares it.
    pub(super) declared: String,
    /// Statements that make it.
    pub(super) made_by: Vec<String>,
    /// SQL expressions, to be cast.
    pub(super) values: Vec<String>,
    /// Such that the row is quarantined.
    pub(super) bad: Vec<String>,
    pub(super) lands: Lands,
    /// Bytes that a row keeps of it in its place, at most.
    pub(super) inline: usize,
    /// The type that takes part in no exchange, where this is one or has one within it.
    pub(super) unsupported: bool,
}

/// What a column is where the transfer makes the table.
#[derive(Debug, Clone)]
pub(super) enum Lands {
    /// Declared like this.
    As(String),
    /// What a contract without the engine's own types says of it, too: the declaration, and the value of `{}` in it.
    Or { own: String, contract: String, value: String },
}

impl Kind {
    /// Of a table that travels by its contract alone: what is json but no jsonb, where it has to land as that, and what
    /// only the engine's own form cannot carry.
    pub(super) fn goes_by_contract(&mut self, is_made: bool) {
        if is_made && self.lands.contract().0 == "jsonb" {
            let (bad, good) = self.values.drain(..).partition(|value| value.contains("\\u0000"));
            self.values = good;
            self.bad.extend::<Vec<_>>(bad);
        }
        let (good, bad) = self.bad.drain(..).partition(|value| value == EMPTY_QUERY);
        self.bad = bad;
        self.values.extend::<Vec<_>>(good);
    }
}

impl Lands {
    pub(super) fn own(&self) -> &str {
        match self {
            Self::As(own) | Self::Or { own, .. } => own,
        }
    }
    /// By the contract alone: most types are a text there.
    pub(super) fn contract(&self) -> (&str, &str) {
        match self {
            Self::As(_) => ("text", "({})::text"),
            Self::Or { contract, value, .. } => (contract, value),
        }
    }
}

/// What makes types: a schema of their own for each table, with a number for each.
pub(super) struct Maker<'a> {
    pub(super) random: &'a mut Random,
    /// Quoted.
    pub(super) schema: String,
    pub(super) made: usize,
}

impl Maker<'_> {
    /// Any type that can move.
    pub(super) fn any(&mut self) -> Kind {
        match self.random.below(100) {
            0..=61 => self.scalar(),
            62..=71 => {
                let element = self.scalar();
                self.array(element)
            }
            72..=78 => self.range(),
            79..=83 => self.enumeration(),
            84..=89 => {
                let base = self.scalar();
                self.domain(base)
            }
            90 => {
                let base = self.scalar();
                let domain = self.domain(base);
                self.array(domain)
            }
            91 => {
                let element = self.enumeration();
                self.array(element)
            }
            92 => {
                let element = self.composite();
                self.array(element)
            }
            93 => {
                let element = self.scalar();
                let array = self.array(element);
                self.domain(array)
            }
            94 => {
                let base = self.enumeration();
                self.domain(base)
            }
            95 => {
                let element = self.range();
                self.array(element)
            }
            _ => self.composite(),
        }
    }

    /// A whole number.
    pub(super) fn number(&mut self) -> Kind {
        self.built_in("int8")
    }

    /// A type whose values a unique index can hold, and short ones.
    pub(super) fn key(&mut self) -> Kind {
        let keys = KEYS;
        match self.random.below(keys.len() as u64 + 2) as usize {
            index if index < keys.len() => {
                let name = keys[index];
                let mut kind = self.built_in(name);
                kind.values.retain(|value| !value.contains("repeat") && !value.contains("rpad") && value.len() < 200);
                kind.bad.clear();
                kind
            }
            index if index == keys.len() => self.enumeration(),
            _ => {
                let mut base = self.built_in("varchar(20)");
                base.values.retain(|value| !value.contains("repeat"));
                self.domain(base)
            }
        }
    }

    /// A type that is refused by name, alone or within another.
    pub(super) fn unsupported(&mut self) -> Kind {
        let (name, value) = *self.random.pick(UNSUPPORTED);
        let kind = Kind {
            declared: name.to_owned(),
            made_by: Vec::new(),
            values: vec![format!("'{value}'"), "NULL".to_owned()],
            bad: Vec::new(),
            lands: Lands::As("text".to_owned()),
            inline: 24,
            unsupported: true,
        };
        match self.random.below(6) {
            0 => self.array(kind),
            1 => self.domain(kind),
            2 => self.composite_of(vec![kind]),
            3 => self.own_range(),
            _ => kind,
        }
    }

    fn scalar(&mut self) -> Kind {
        let (name, ..) = *self.random.pick(SCALARS);
        self.built_in(name)
    }

    fn built_in(&mut self, pattern: &str) -> Kind {
        let (_, values, bad, contract, inline) =
            *SCALARS.iter().find(|(name, ..)| *name == pattern).unwrap_or_else(|| panic!("no type {pattern}"));
        let size = |random: &mut Random, most: u64| 1 + random.below(most);
        let declared = match pattern {
            "numeric(p,s)" => {
                let precision = *self.random.pick(&[1, 5, 18, 37, 38, 39, 100, 1000]);
                let scale = match self.random.below(4) {
                    0 => 0,
                    1 => precision,
                    2 => -(self.random.below(20) as i64),
                    _ => self.random.below(precision as u64 + 1) as i64,
                };
                format!("numeric({precision},{scale})")
            }
            "varchar(n)" => format!("varchar({})", size(self.random, 40)),
            "char(n)" => format!("char({})", size(self.random, 40)),
            "bit(n)" => format!("bit({})", size(self.random, 70)),
            "varbit(n)" => format!("varbit({})", size(self.random, 70)),
            "time(p)" => format!("time({})", self.random.below(7)),
            "timetz(p)" => format!("timetz({})", self.random.below(7)),
            "timestamp(p)" => format!("timestamp({})", self.random.below(7)),
            "timestamptz(p)" => format!("timestamptz({})", self.random.below(7)),
            "interval(p)" => format!("interval({})", self.random.below(7)),
            other => other.to_owned(),
        };
        let precise = declared.strip_prefix("numeric(").and_then(|rest| rest.split_once(','));
        let precise = precise.and_then(|(precision, scale)| {
            let scale: i32 = scale.trim_end_matches(')').parse().ok()?;
            Some((precision.parse::<i32>().ok()?, scale))
        });
        let mut values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
        let mut bad: Vec<String> = bad.iter().map(|value| (*value).to_owned()).collect();
        let mut lands = match contract {
            "" => Lands::As(declared.clone()),
            contract => {
                let (contract, value) = contract.split_once(" <- ").unwrap_or((contract, "({})::text"));
                Lands::Or { own: declared.clone(), contract: contract.to_owned(), value: value.to_owned() }
            }
        };
        if let Some((precision, scale)) = precise {
            let digits = "9".repeat(precision as usize);
            values.push(format!("('{digits}e{}')::numeric", -scale));
            values.push(format!("('-{digits}e{}')::numeric", -scale));
            values.push(format!("('1e{}')::numeric", -scale));
            // What has at most 38 digits is a decimal, which knows no NaN.
            let is_decimal = precision <= 38 && scale >= -38;
            if is_decimal {
                bad.push("'NaN'".to_owned());
            } else {
                values.push("'NaN'".to_owned());
            }
            let contract = if is_decimal { declared.clone() } else { "numeric".to_owned() };
            lands = Lands::Or { own: declared.clone(), contract, value: "trim_scale(({})::numeric)::text".to_owned() };
        }
        if pattern.starts_with("interval ") {
            // An interval of some fields only is made as one of all.
            lands = Lands::As(if pattern.contains('(') { "interval(2)" } else { "interval" }.to_owned());
        }
        values.push("NULL".to_owned());
        Kind { declared, made_by: Vec::new(), values, bad, lands, inline, unsupported: false }
    }

    /// Of one or more dimensions, with NULLs, with other lower bounds.
    fn array(&mut self, element: Kind) -> Kind {
        let some = |random: &mut Random, count: usize| {
            let of = |random: &mut Random| format!("({})::{}", random.pick(&element.values), element.declared);
            let list: Vec<String> = (0..count).map(|_| of(random)).collect();
            format!("ARRAY[{}]", list.join(", "))
        };
        let declared = format!("{}[]", element.declared);
        let mut values = vec!["'{}'".to_owned(), "NULL".to_owned(), some(self.random, 1), some(self.random, 3)];
        values.push(format!("ARRAY[{}, {}]", some(self.random, 2), some(self.random, 2)));
        values.push(format!("'[-2:0]=' || ({})::{declared}::text", some(self.random, 3)));
        values.push(format!("ARRAY[NULL]::{declared}"));
        if element.bad.first().is_some_and(|bad| bad != EMPTY_QUERY) {
            // Within an array they are part of a text.
            values.push(format!("ARRAY[({})::{}]", self.random.pick(&element.bad), element.declared));
        }
        // What is made a text for want of a definition is one as a whole.
        let lands = match &element.lands {
            Lands::As(own) if own == "text" => "text".to_owned(),
            lands => format!("{}[]", lands.own()),
        };
        Kind {
            declared,
            made_by: element.made_by,
            values,
            bad: Vec::new(),
            lands: Lands::As(lands),
            inline: 22,
            unsupported: element.unsupported,
        }
    }

    fn range(&mut self) -> Kind {
        let (name, bounds) = *self.random.pick(RANGES);
        let mut values: Vec<String> = vec!["'empty'".to_owned(), "'(,)'".to_owned(), "NULL".to_owned()];
        for _ in 0..4 {
            let (from, to) = (self.random.below(bounds.len() as u64 - 1) as usize, bounds.len() - 1);
            let to = from + 1 + self.random.below((to - from) as u64) as usize;
            let (open, close) = (*self.random.pick(&["[", "("]), *self.random.pick(&["]", ")"]));
            values.push(format!("'{open}{},{}{close}'", bounds[from], bounds[to]));
            values.push(format!("'{open}{},)'", bounds[from]));
            values.push(format!("'(,{}{close}'", bounds[to]));
        }
        if self.random.chance(40) {
            let multi = name.replace("range", "multirange");
            let list: Vec<String> = values
                .iter()
                .filter(|value| value.starts_with('\''))
                .map(|value| value.trim_matches('\'').to_owned())
                .collect();
            let mut values = vec!["'{}'".to_owned(), "NULL".to_owned()];
            for _ in 0..4 {
                values.push(format!("'{{{},{}}}'", self.random.pick(&list), self.random.pick(&list)));
            }
            return plain(&multi, values, 22);
        }
        plain(name, values, 22)
    }

    /// A range of one's own over a type for which the engine has another one.
    fn own_range(&mut self) -> Kind {
        let name = self.name("span");
        let mut kind = plain(&name, vec!["'[1,5]'".to_owned(), "'empty'".to_owned(), "NULL".to_owned()], 22);
        kind.made_by = vec![format!("CREATE TYPE {name} AS RANGE (subtype = int4)")];
        kind.unsupported = true;
        kind
    }

    fn enumeration(&mut self) -> Kind {
        let name = self.name("mood");
        let label = |label: &&str| format!("'{}'", label.replace('\'', "''"));
        let labels: Vec<String> = LABELS.iter().map(label).collect();
        let mut values = labels.clone();
        values.push("NULL".to_owned());
        Kind {
            made_by: vec![format!("CREATE TYPE {name} AS ENUM ({})", labels.join(", "))],
            declared: name,
            values,
            bad: Vec::new(),
            lands: Lands::As("text".to_owned()),
            inline: 22,
            unsupported: false,
        }
    }

    fn domain(&mut self, base: Kind) -> Kind {
        let name = self.name("domain");
        let mut made_by = base.made_by;
        made_by.push(format!("CREATE DOMAIN {name} AS {} CHECK (value IS NULL OR true)", base.declared));
        Kind { declared: name, made_by, ..base }
    }

    fn composite(&mut self) -> Kind {
        let count = 1 + self.random.below(4);
        let fields = (0..count).map(|_| match self.random.below(8) {
            0 => self.enumeration(),
            1 => self.range(),
            2 => {
                let element = self.scalar();
                self.array(element)
            }
            3 => {
                let base = self.scalar();
                self.domain(base)
            }
            4 => {
                let inner = vec![self.scalar(), self.scalar()];
                self.composite_of(inner)
            }
            _ => self.scalar(),
        });
        let fields = fields.collect();
        self.composite_of(fields)
    }

    fn composite_of(&mut self, fields: Vec<Kind>) -> Kind {
        let name = self.name("pair");
        let columns: Vec<String> =
            fields.iter().enumerate().map(|(index, field)| format!("\"字段 {index}\" {}", field.declared)).collect();
        let mut values = vec!["NULL".to_owned()];
        for _ in 0..6 {
            let row: Vec<String> = fields
                .iter()
                .map(|field| format!("({})::{}", self.random.pick(&field.values), field.declared))
                .collect();
            values.push(format!("ROW({})", row.join(", ")));
        }
        let mut made_by: Vec<String> = fields.iter().flat_map(|field| field.made_by.clone()).collect();
        made_by.push(format!("CREATE TYPE {name} AS ({})", columns.join(", ")));
        let unsupported = fields.iter().any(|field| field.unsupported);
        let lands = Lands::As("text".to_owned());
        Kind { declared: name, made_by, values, bad: Vec::new(), lands, inline: 22, unsupported }
    }

    fn name(&mut self, what: &str) -> String {
        self.made += 1;
        format!("{}.\"{what} {}\"", self.schema, self.made)
    }
}

fn plain(name: &str, values: Vec<String>, inline: usize) -> Kind {
    Kind {
        declared: name.to_owned(),
        made_by: Vec::new(),
        values,
        bad: Vec::new(),
        lands: Lands::As(name.to_owned()),
        inline,
        unsupported: false,
    }
}

/// Name, values, values that cannot move, what a contract alone makes of it, bytes in place.
type Scalar = (&'static str, &'static [&'static str], &'static [&'static str], &'static str, usize);

const TEXTS: &[&str] = &[
    "''",
    "' '",
    "'a '",
    "'it''s \"quoted\"; --'",
    "'𠮷田 䶮 é'",
    "E'line\\r\\nbreak\\ttab\\\\ \\u0001'",
    "'NULL'",
    "'\\N'",
    "'{a,\"b\"}'",
    "repeat('長', 3000)",
];
const TIMES: &[&str] = &["'00:00:00'", "'24:00:00'", "'23:59:59.999999'", "'12:34:56.5'"];
const ZONED: &[&str] = &["'00:00:00+15:59:59'", "'24:00:00-15:59:59'", "'23:59:59.999999+08'", "'12:34:56.5-03:30'"];
const STAMPS: &[&str] = &[
    "'4713-01-01 00:00:00 BC'",
    "'0001-12-31 23:59:59.999999 BC'",
    "'0001-01-01 00:00:00'",
    "'1969-12-31 23:59:59.999999'",
    "'2026-11-22 05:09:25.123456'",
    "'9999-12-31 23:59:59.999999'",
    "'10000-01-01 00:00:00'",
    "'290000-01-01 00:00:00.000001'",
    "'infinity'",
    "'-infinity'",
];
/// Beyond the microseconds from 1970 that 64 bits hold.
const FAR: &[&str] = &["'294276-12-31 23:59:59'"];
const INTERVALS: &[&str] = &[
    "'0'",
    "'1 month'",
    "'30 days'",
    "'-178000000 years'",
    "'2147483647 days -2147483648 months'",
    "'1 year -1 day 00:00:00.000001'",
    "'-00:00:00.5'",
    "'2562047788:00:54.775807'",
];
/// A server writes it in a binary form that no server reads.
const EMPTY_QUERY: &str = "''::tsquery";
const INTEGERS: &str = "bigint <- ({})::text";

const SCALARS: &[Scalar] = &[
    ("bool", &["true", "false"], &[], "boolean", 8),
    ("int2", &["-32768", "32767", "0"], &[], INTEGERS, 8),
    ("int4", &["-2147483648", "2147483647", "0", "-1"], &[], INTEGERS, 8),
    ("int8", &["-9223372036854775808", "9223372036854775807", "0"], &[], INTEGERS, 8),
    ("oid", &["0", "4294967295"], &[], INTEGERS, 8),
    (
        "float4",
        &["'NaN'", "'Infinity'", "'-Infinity'", "'-0'", "'1e-45'", "'3.4028235e38'", "0.1"],
        &[],
        "double precision <- ({})::float8::text",
        8,
    ),
    (
        "float8",
        &["'NaN'", "'Infinity'", "'-Infinity'", "'-0'", "'5e-324'", "'1.7976931348623157e308'", "0.1"],
        &[],
        "double precision",
        8,
    ),
    (
        "numeric",
        &[
            "'NaN'",
            "'Infinity'",
            "'-Infinity'",
            "'0.000'",
            "'-0.00'",
            "'12.3400'",
            "'1e131071'",
            "'-1e-16383'",
            "rpad('-', 1000, '9')::numeric",
            "'10000'",
            "'0.0001'",
        ],
        &[],
        "numeric <- trim_scale({})::text",
        22,
    ),
    ("numeric(p,s)", &["0"], &[], "", 22),
    ("money", &["'-92233720368547758.08'", "'92233720368547758.07'", "'0'", "'1234.5'"], &[], "", 8),
    ("text", TEXTS, &[], "text", 22),
    ("varchar", TEXTS, &[], "text", 22),
    ("varchar(n)", TEXTS, &[], "text", 22),
    ("varchar(20)", TEXTS, &[], "text", 22),
    ("char(n)", TEXTS, &[], "bpchar", 22),
    ("name", TEXTS, &[], "text", 64),
    ("\"char\"", &["''", "'x'", "'\\'", "'\"'"], &[], "text", 8),
    ("bytea", &["''", "'\\x00ff80'", "repeat('z', 5000)::bytea", "'\\x5c'"], &[], "bytea", 22),
    (
        "date",
        &[
            "'4713-01-01 BC'",
            "'0001-12-31 BC'",
            "'0001-01-01'",
            "'1969-12-31'",
            "'2000-02-29'",
            "'5874897-12-31'",
            "'infinity'",
            "'-infinity'",
        ],
        &[],
        "date",
        8,
    ),
    ("time", TIMES, &[], "", 8),
    ("time(p)", TIMES, &[], "", 8),
    ("timetz", ZONED, &[], "", 16),
    ("timetz(p)", ZONED, &[], "", 16),
    ("timestamp", STAMPS, FAR, "timestamp", 8),
    ("timestamp(p)", STAMPS, FAR, "timestamp", 8),
    ("timestamptz", STAMPS, FAR, "timestamp <- (({}) AT TIME ZONE 'UTC')::text", 8),
    ("timestamptz(p)", STAMPS, FAR, "timestamp <- (({}) AT TIME ZONE 'UTC')::text", 8),
    ("interval", INTERVALS, &[], "", 16),
    ("interval(p)", INTERVALS, &[], "", 16),
    ("interval year to month", INTERVALS, &[], "", 16),
    ("interval day to second(2)", INTERVALS, &[], "", 16),
    (
        "uuid",
        &["'00000000-0000-0000-0000-000000000000'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'", "gen_random_uuid()"],
        &[],
        "",
        16,
    ),
    (
        "json",
        &[
            "'{}'",
            "' { \"b\" : 1.50 , \"a\" : [ true , null ] } '",
            "'\"\\u0000 \\ud842\\udfb7\"'",
            "'12345678901234567890.1e400'",
            "'null'",
        ],
        &[
            "'{\"a\":1,\"a\":2}'",
            "'{\"a\":1,\"\\u0061\":2}'",
            "'\"\\ud800\"'",
            "'1e99999999999'",
            "repeat('[', 200) || repeat(']', 200)",
        ],
        "jsonb <- ({})::jsonb::text",
        22,
    ),
    (
        "jsonb",
        &[
            "'{}'",
            "'{\"b\":1.50,\"aa\":[true,null],\"\":\"\"}'",
            "'\"字\\n\"'",
            "'1e131071'",
            "'null'",
            "jsonb_build_object('x', repeat('y', 9000))",
        ],
        &["(repeat('[', 200) || repeat(']', 200))::jsonb"],
        "jsonb",
        22,
    ),
    (
        "xml",
        &["'<a b=\"c\">字 &amp; <!-- x --></a>'", "''", "'text <b/> text'", "'<?xml version=\"1.0\"?><a/>'"],
        &[],
        // As it is shown: a cast tells the declaration, which no output has.
        "text <- xml_out(({})::xml)::text",
        22,
    ),
    (
        "inet",
        &["'0.0.0.0'", "'10.1.2.3/8'", "'::/0'", "'::ffff:1.2.3.4/128'", "'fe80::1/64'", "'255.255.255.255/32'"],
        &[],
        "",
        22,
    ),
    ("cidr", &["'0.0.0.0/0'", "'10.0.0.0/8'", "'::/0'", "'2001:db8::/32'", "'1.2.3.4/32'"], &[], "", 22),
    ("macaddr", &["'00:00:00:00:00:00'", "'ff:ff:ff:ff:ff:ff'"], &[], "", 8),
    ("macaddr8", &["'00:00:00:00:00:00:00:00'", "'08:00:2b:ff:fe:01:02:03'"], &[], "", 8),
    ("bit(n)", &["B''", "B'1'", "B'0101'", "rpad('1', 70, '01')::varbit"], &[], "", 22),
    ("varbit", &["B''", "B'1'", "rpad('1', 900, '01')::varbit"], &[], "", 22),
    ("varbit(n)", &["B''", "B'1'", "rpad('1', 70, '01')::varbit"], &[], "", 22),
    ("pg_lsn", &["'0/0'", "'FFFFFFFF/FFFFFFFF'", "'16/B374D848'"], &[], "", 8),
    ("xid8", &["'0'", "'18446744073709551615'"], &[], "", 8),
    ("point", &["'(0,0)'", "'(-0,1e308)'", "'(NaN,Infinity)'", "'(0.1,-5e-324)'"], &[], "", 16),
    ("line", &["'{1,2,3}'", "'{0.1,-1,-0}'"], &[], "", 24),
    ("lseg", &["'[(0,0),(1,0.1)]'", "'[(-1e300,1),(NaN,2)]'"], &[], "", 32),
    ("box", &["'(0,0),(1,1)'", "'(3,0.1),(-3,-0.1)'"], &[], "", 32),
    ("path", &["'((0,0),(1,1))'", "'[(0,0),(1,1),(2,0.1)]'", "'((0,0))'"], &[], "", 22),
    ("polygon", &["'((0,0),(1,1),(1,0))'", "'((0.1,0))'"], &[], "", 22),
    ("circle", &["'<(0,0),1>'", "'<(0.1,-1e300),0>'"], &[], "", 24),
    (
        "tsvector",
        &["''", "'a:1 b:2A,3B ''it''''s'':16383'", "'猫 狗:5C'", "to_tsvector('simple', repeat('w ', 400) || 'end')"],
        &[],
        "",
        22,
    ),
    ("tsquery", &["'a & b:*AB | !c'", "'a <-> (b <3> c)'", "'''it''''s'' & 猫'"], &[EMPTY_QUERY], "", 22),
    ("jsonpath", &["'$'", "'strict $.\"a b\"[*] ? (@ > 1.5)'", "'lax $.字.size()'"], &[], "", 22),
];

const RANGES: &[(&str, &[&str])] = &[
    ("int4range", &["-2147483648", "0", "5", "2147483646"]),
    ("int8range", &["-9223372036854775808", "0", "5", "9223372036854775806"]),
    ("numrange", &["-Infinity", "-1.50", "0.000", "12.3", "1e40"]),
    ("daterange", &["4713-01-01 BC", "1999-12-31", "2026-11-26", "5874897-12-30"]),
    ("tsrange", &["\"4713-01-01 00:00:00 BC\"", "\"2026-11-26 12:00:00.5\"", "\"294276-12-31 23:59:59\""]),
    ("tstzrange", &["\"4713-01-01 00:00:00+00 BC\"", "\"2026-11-26 12:00:00.5+08\"", "\"294276-12-31 23:59:59+00\""]),
];

const KEYS: &[&str] = &[
    "bool",
    "int2",
    "int4",
    "int8",
    "oid",
    "float4",
    "float8",
    "money",
    "text",
    "varchar(20)",
    "char(n)",
    "name",
    "\"char\"",
    "bytea",
    "date",
    "time",
    "time(p)",
    "timetz",
    "timestamp",
    "timestamp(p)",
    "timestamptz",
    "interval",
    "uuid",
    "jsonb",
    "inet",
    "cidr",
    "macaddr",
    "macaddr8",
    "bit(n)",
    "varbit(n)",
    "pg_lsn",
];

const LABELS: &[&str] =
    &["", "ok", "so so", "it's", "a\"b", "{x,y}", "NULL", "很好", "長長長長長長長長長長長長長長長長長長長長長"];

const UNSUPPORTED: &[(&str, &str)] = &[
    ("regclass", "pg_class"),
    ("regtype", "int4"),
    ("regnamespace", "pg_catalog"),
    ("xid", "7"),
    ("cid", "7"),
    ("tid", "(1,2)"),
    ("int2vector", "1 2"),
    ("oidvector", "1 2"),
    ("refcursor", "c"),
    ("txid_snapshot", "1:1:"),
    ("pg_snapshot", "1:1:"),
    ("aclitem", "=r/postgres"),
];
