//! A filter as a condition of SQL with bound parameters: names are quoted by the connector, values are
//! never part of the text. Parentheses stand around every part, so that no engine's precedence matters.

use super::{Filter, Literal};

impl Filter {
    /// The condition and its parameters in order. `quote` writes a column's name; `placeholder` writes the
    /// parameter of this number (from 1) for this literal, with the cast that the engine needs.
    pub fn to_sql(
        &self,
        quote: &dyn Fn(&str) -> String,
        placeholder: &dyn Fn(usize, &Literal) -> String,
    ) -> (String, Vec<Literal>) {
        let mut writer = Writer { sql: String::new(), literals: Vec::new(), quote, placeholder };
        writer.write(self);
        (writer.sql, writer.literals)
    }
}

struct Writer<'a> {
    sql: String,
    literals: Vec<Literal>,
    quote: &'a dyn Fn(&str) -> String,
    placeholder: &'a dyn Fn(usize, &Literal) -> String,
}

impl Writer<'_> {
    fn write(&mut self, filter: &Filter) {
        self.sql.push('(');
        match filter {
            Filter::Compare(column, comparison, literal) => {
                self.column(column);
                self.sql.push(' ');
                self.sql.push_str(comparison.as_str());
                self.sql.push(' ');
                self.literal(literal);
            }
            Filter::In(column, literals) => {
                self.column(column);
                self.sql.push_str(" IN (");
                for (i, literal) in literals.iter().enumerate() {
                    if i > 0 {
                        self.sql.push_str(", ");
                    }
                    self.literal(literal);
                }
                self.sql.push(')');
            }
            Filter::Between(column, low, high) => {
                self.column(column);
                self.sql.push_str(" BETWEEN ");
                self.literal(low);
                self.sql.push_str(" AND ");
                self.literal(high);
            }
            Filter::IsNull(column) => {
                self.column(column);
                self.sql.push_str(" IS NULL");
            }
            Filter::And(all) => self.joined(all, " AND "),
            Filter::Or(all) => self.joined(all, " OR "),
            Filter::Not(inner) => {
                self.sql.push_str("NOT ");
                self.write(inner);
            }
        }
        self.sql.push(')');
    }
    fn joined(&mut self, all: &[Filter], joint: &str) {
        for (i, filter) in all.iter().enumerate() {
            if i > 0 {
                self.sql.push_str(joint);
            }
            self.write(filter);
        }
    }
    fn column(&mut self, column: &str) {
        let quoted = (self.quote)(column);
        self.sql.push_str(&quoted);
    }
    fn literal(&mut self, literal: &Literal) {
        self.literals.push(literal.clone());
        let text = (self.placeholder)(self.literals.len(), literal);
        self.sql.push_str(&text);
    }
}
