//! SELECT, what it reads from, and sets of several.

use super::super::lex::Token;
use super::super::tree::{Expression, Hints, Item, Join, Name, Query, QueryBody, Select, SetOperation, Source};
use super::Parser;
use crate::store::SqlError;

impl Parser<'_> {
    pub(super) fn query(&mut self) -> Result<Query, SqlError> {
        self.deeper()?;
        let body = self.query_body()?;
        let order = if self.words(&["ORDER", "BY"]) { self.ordering()? } else { Vec::new() };
        let (mut offset, mut fetch) = (None, None);
        if self.word("OFFSET") {
            offset = Some(self.value()?);
            if !self.word("ROWS") {
                self.need("ROW")?;
            }
            if self.word("FETCH") {
                if !self.word("NEXT") {
                    self.need("FIRST")?;
                }
                fetch = Some(self.value()?);
                if !self.word("ROWS") {
                    self.need("ROW")?;
                }
                self.need("ONLY")?;
            }
        }
        self.depth -= 1;
        Ok(Query { body, order, offset, fetch })
    }

    fn query_body(&mut self) -> Result<QueryBody, SqlError> {
        let mut left = self.query_term()?;
        loop {
            let operation = if self.word("UNION") {
                if self.word("ALL") { SetOperation::UnionAll } else { SetOperation::Union }
            } else if self.word("EXCEPT") {
                SetOperation::Except
            } else {
                return Ok(left);
            };
            left = QueryBody::Set { operation, left: Box::new(left), right: Box::new(self.query_term()?) };
        }
    }

    fn query_term(&mut self) -> Result<QueryBody, SqlError> {
        let mut left = self.query_primary()?;
        while self.word("INTERSECT") {
            let right = Box::new(self.query_primary()?);
            left = QueryBody::Set { operation: SetOperation::Intersect, left: Box::new(left), right };
        }
        Ok(left)
    }

    fn query_primary(&mut self) -> Result<QueryBody, SqlError> {
        if self.sign("(") {
            let query = self.query()?;
            self.need_sign(")")?;
            return Ok(QueryBody::Nested(Box::new(query)));
        }
        Ok(QueryBody::Select(Box::new(self.select()?)))
    }

    fn select(&mut self) -> Result<Select, SqlError> {
        self.need("SELECT")?;
        let mut distinct = self.word("DISTINCT");
        if !distinct {
            self.word("ALL");
        }
        let top = self.top()?;
        distinct |= self.word("DISTINCT");
        let mut items = vec![self.item()?];
        while self.sign(",") {
            items.push(self.item()?);
        }
        if self.is_word("INTO") {
            return Err(SqlError::unknown("SELECT … INTO"));
        }
        let from = if self.word("FROM") { Some(self.sources()?) } else { None };
        let filter = if self.word("WHERE") { Some(self.condition()?) } else { None };
        let group = if self.words(&["GROUP", "BY"]) { self.list()? } else { Vec::new() };
        let having = if self.word("HAVING") { Some(self.condition()?) } else { None };
        Ok(Select { distinct, top, items, from, filter, group, having })
    }

    pub(super) fn top(&mut self) -> Result<Option<Expression>, SqlError> {
        if !self.word("TOP") {
            return Ok(None);
        }
        if self.sign("(") {
            let count = self.value()?;
            self.need_sign(")")?;
            return Ok(Some(count));
        }
        Ok(Some(Expression::Integer(self.integer()?)))
    }

    fn item(&mut self) -> Result<Item, SqlError> {
        if self.sign("*") {
            return Ok(Item::Star(None));
        }
        if self.is_name() && self.peek_at(1) == &Token::Sign(".") && self.peek_at(2) == &Token::Sign("*") {
            let qualifier = self.identifier()?;
            self.at += 2;
            return Ok(Item::Star(Some(qualifier)));
        }
        let assigns = self.peek_at(1) == &Token::Sign("=");
        if let Token::Variable(name) = self.peek().clone()
            && assigns
            && !name.starts_with("@@")
        {
            self.at += 2;
            return Ok(Item::Assign(name, self.condition()?));
        }
        if self.is_name() && self.peek_at(1) == &Token::Sign("=") {
            let alias = self.identifier()?;
            self.at += 1;
            return Ok(Item::Expression(self.condition()?, Some(alias)));
        }
        let expression = self.condition()?;
        let alias = self.alias()?;
        Ok(Item::Expression(expression, alias))
    }

    fn alias(&mut self) -> Result<Option<String>, SqlError> {
        if self.word("AS") {
            if let Token::Text(text, _) = self.peek().clone() {
                self.at += 1;
                return Ok(Some(text));
            }
            return self.identifier().map(Some);
        }
        // A word that begins the next clause is no alias.
        let clause = ["OFFSET", "ROWS", "INTERSECT", "WITH"].iter().any(|word| self.is_word(word));
        // Nor is one that begins the next statement: a batch need not part them.
        let statement = ["BEGIN", "SAVE", "WAITFOR", "RAISERROR", "THROW"].iter().any(|word| self.is_word(word));
        if self.is_name() && !clause && !statement { self.identifier().map(Some) } else { Ok(None) }
    }

    pub(super) fn sources(&mut self) -> Result<Source, SqlError> {
        let mut left = self.joined()?;
        while self.sign(",") {
            let right = Box::new(self.joined()?);
            left = Source::Join { kind: Join::Cross, left: Box::new(left), right, on: None };
        }
        Ok(left)
    }

    fn joined(&mut self) -> Result<Source, SqlError> {
        let mut left = self.source()?;
        loop {
            let kind = if self.words(&["INNER", "JOIN"]) || self.word("JOIN") {
                Join::Inner
            } else if self.words(&["LEFT", "JOIN"]) || self.words(&["LEFT", "OUTER", "JOIN"]) {
                Join::Left
            } else if self.words(&["RIGHT", "JOIN"]) || self.words(&["RIGHT", "OUTER", "JOIN"]) {
                Join::Right
            } else if self.words(&["FULL", "JOIN"]) || self.words(&["FULL", "OUTER", "JOIN"]) {
                Join::Full
            } else if self.words(&["CROSS", "JOIN"]) {
                Join::Cross
            } else {
                return Ok(left);
            };
            let right = Box::new(self.source()?);
            let on = if kind == Join::Cross {
                None
            } else {
                self.need("ON")?;
                Some(self.condition()?)
            };
            left = Source::Join { kind, left: Box::new(left), right, on };
        }
    }

    fn source(&mut self) -> Result<Source, SqlError> {
        if self.sign("(") {
            if self.word("VALUES") {
                let rows = self.rows()?;
                self.need_sign(")")?;
                let (alias, columns) = self.derived_names()?;
                return Ok(Source::Values { rows, alias, columns });
            }
            if !self.is_word("SELECT") && !self.is_sign("(") {
                let inner = self.sources()?;
                self.need_sign(")")?;
                return Ok(inner);
            }
            let query = Box::new(self.query()?);
            self.need_sign(")")?;
            let (alias, columns) = self.derived_names()?;
            return Ok(Source::Derived { query, alias, columns });
        }
        let name = self.name()?;
        if self.sign("(") {
            let arguments = if self.is_sign(")") { Vec::new() } else { self.list()? };
            self.need_sign(")")?;
            let alias = self.alias()?.or_else(|| name.last().cloned()).unwrap_or_default();
            return Ok(Source::Function { name, arguments, alias });
        }
        let mut hints = self.hints()?;
        let alias = self.alias()?;
        let after = self.hints()?;
        hints.hold |= after.hold;
        hints.alone |= after.alone;
        hints.update |= after.update;
        Ok(Source::Table { name, alias, hints })
    }

    fn rows(&mut self) -> Result<Vec<Vec<Expression>>, SqlError> {
        let mut rows = Vec::new();
        loop {
            self.need_sign("(")?;
            rows.push(self.list()?);
            self.need_sign(")")?;
            if !self.sign(",") {
                return Ok(rows);
            }
        }
    }

    fn derived_names(&mut self) -> Result<(String, Vec<String>), SqlError> {
        self.word("AS");
        let alias = self.identifier()?;
        let columns = if self.is_sign("(") { self.names_in_brackets()? } else { Vec::new() };
        Ok((alias, columns))
    }

    /// `WITH (TABLOCK, HOLDLOCK)`, where it stands.
    pub(super) fn hints(&mut self) -> Result<Hints, SqlError> {
        let mut hints = Hints::default();
        if !(self.is_word("WITH") && self.peek_at(1) == &Token::Sign("(")) {
            return Ok(hints);
        }
        self.at += 2;
        loop {
            let Token::Word(hint) = self.next() else { return Err(self.wrong()) };
            match hint.to_ascii_uppercase().as_str() {
                "HOLDLOCK" | "SERIALIZABLE" | "REPEATABLEREAD" => hints.hold = true,
                "TABLOCKX" | "XLOCK" => {
                    hints.hold = true;
                    hints.alone = true;
                }
                "UPDLOCK" => hints.update = true,
                "TABLOCK" | "ROWLOCK" | "PAGLOCK" | "READCOMMITTED" | "READCOMMITTEDLOCK" | "NOLOCK" => {}
                "READUNCOMMITTED" => {}
                other => return Err(SqlError::unknown(format!("table hint {other}"))),
            }
            if !self.sign(",") {
                self.need_sign(")")?;
                // Rows that are held for an update are held to the end without HOLDLOCK too.
                hints.hold &= !hints.update || hints.alone;
                return Ok(hints);
            }
        }
    }

    /// The table that an UPDATE or a DELETE names.
    pub(super) fn target(&mut self) -> Result<(Name, Hints), SqlError> {
        let name = self.name()?;
        let hints = self.hints()?;
        Ok((name, hints))
    }
}
