//! From tokens to statements. Each room knows one kind: expressions, queries, changes, definitions, the rest.

mod changes;
mod definitions;
mod expressions;
mod queries;
mod statements;

use super::lex::{Placed, Token, lex};
use super::tree::{Declared, Expression, Name, Query, Statement};
use crate::store::{Collation, Kind, SqlError, Type};

/// A whole batch.
pub fn batch(text: &str) -> Result<Vec<Statement>, SqlError> {
    let mut parser = Parser::new(text)?;
    let mut statements = Vec::new();
    loop {
        while parser.sign(";") {}
        if parser.at_end() {
            return Ok(statements);
        }
        statements.push(parser.statement()?);
    }
}

pub fn query(text: &str) -> Result<Query, SqlError> {
    let mut parser = Parser::new(text)?;
    let query = parser.query()?;
    while parser.sign(";") {}
    parser.end()?;
    Ok(query)
}

pub fn expression(text: &str) -> Result<Expression, SqlError> {
    let mut parser = Parser::new(text)?;
    let expression = parser.condition()?;
    parser.end()?;
    Ok(expression)
}

/// `@P1 int, @P2 nvarchar(4000) OUTPUT`: names, types, and whether they go back.
pub fn parameters(text: &str) -> Result<Vec<(String, Declared, bool)>, SqlError> {
    let mut parser = Parser::new(text)?;
    let mut parameters = Vec::new();
    if parser.at_end() {
        return Ok(parameters);
    }
    loop {
        let name = parser.variable()?;
        parser.word("AS");
        let ty = parser.declared()?;
        let back = parser.word("OUTPUT") || parser.word("OUT");
        parameters.push((name, ty, back));
        if !parser.sign(",") {
            parser.end()?;
            return Ok(parameters);
        }
    }
}

pub struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Placed>,
    at: usize,
    depth: u32,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Result<Self, SqlError> {
        Ok(Parser { text, tokens: lex(text)?, at: 0, depth: 0 })
    }

    fn peek(&self) -> &Token {
        self.peek_at(0)
    }

    fn peek_at(&self, ahead: usize) -> &Token {
        self.tokens.get(self.at + ahead).map_or(&Token::End, |placed| &placed.token)
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn at_end(&self) -> bool {
        *self.peek() == Token::End
    }

    fn end(&self) -> Result<(), SqlError> {
        if self.at_end() { Ok(()) } else { Err(self.wrong()) }
    }

    /// Bytes of the batch before the next token.
    fn place(&self) -> usize {
        self.tokens.get(self.at).map_or(self.text.len(), |placed| placed.from)
    }

    /// The text from a place up to the token that was taken last.
    fn text_since(&self, from: usize) -> String {
        let to = self.at.checked_sub(1).and_then(|at| self.tokens.get(at)).map_or(from, |placed| placed.to);
        self.text.get(from..to).unwrap_or_default().to_owned()
    }

    fn wrong(&self) -> SqlError {
        let placed = self.tokens.get(self.at).or_else(|| self.tokens.last());
        let line = placed.map_or(1, |placed| placed.line);
        let near = placed.and_then(|placed| self.text.get(placed.from..placed.to)).unwrap_or_default();
        SqlError::syntax(if near.is_empty() { "the end" } else { near }, line)
    }

    fn is_word(&self, word: &str) -> bool {
        self.is_word_at(0, word)
    }

    fn is_word_at(&self, ahead: usize, word: &str) -> bool {
        matches!(self.peek_at(ahead), Token::Word(have) if have.eq_ignore_ascii_case(word))
    }

    /// Takes a keyword if it is next.
    fn word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        self.at += usize::from(found);
        found
    }

    fn words(&mut self, words: &[&str]) -> bool {
        let found = words.iter().enumerate().all(|(ahead, word)| self.is_word_at(ahead, word));
        if found {
            self.at += words.len();
        }
        found
    }

    fn need(&mut self, word: &str) -> Result<(), SqlError> {
        if self.word(word) { Ok(()) } else { Err(self.wrong()) }
    }

    fn is_sign(&self, sign: &str) -> bool {
        matches!(self.peek(), Token::Sign(have) if *have == sign)
    }

    fn sign(&mut self, sign: &str) -> bool {
        let found = self.is_sign(sign);
        self.at += usize::from(found);
        found
    }

    fn need_sign(&mut self, sign: &str) -> Result<(), SqlError> {
        if self.sign(sign) { Ok(()) } else { Err(self.wrong()) }
    }

    fn is_name(&self) -> bool {
        match self.peek() {
            Token::Quoted(_) => true,
            Token::Word(word) => !RESERVED.iter().any(|reserved| word.eq_ignore_ascii_case(reserved)),
            _ => false,
        }
    }

    fn identifier(&mut self) -> Result<String, SqlError> {
        if !self.is_name() {
            return Err(self.wrong());
        }
        match self.next() {
            Token::Quoted(name) | Token::Word(name) => Ok(name),
            _ => Err(self.wrong()),
        }
    }

    fn variable(&mut self) -> Result<String, SqlError> {
        match self.next() {
            Token::Variable(name) => Ok(name),
            _ => {
                self.at -= 1;
                Err(self.wrong())
            }
        }
    }

    fn name(&mut self) -> Result<Name, SqlError> {
        let mut parts = vec![self.identifier()?];
        while self.sign(".") {
            // `database..table` leaves the schema out.
            if self.is_sign(".") {
                parts.push(String::new());
                continue;
            }
            parts.push(self.identifier()?);
        }
        if parts.len() > 4 { Err(self.wrong()) } else { Ok(parts) }
    }

    fn names_in_brackets(&mut self) -> Result<Vec<String>, SqlError> {
        self.need_sign("(")?;
        let mut names = vec![self.identifier()?];
        while self.sign(",") {
            names.push(self.identifier()?);
        }
        self.need_sign(")")?;
        Ok(names)
    }

    fn integer(&mut self) -> Result<i64, SqlError> {
        let negative = self.sign("-");
        match self.next() {
            Token::Number(digits) => match digits.parse::<i64>() {
                Ok(number) => Ok(if negative { -number } else { number }),
                Err(_) => Err(self.wrong()),
            },
            _ => {
                self.at -= 1;
                Err(self.wrong())
            }
        }
    }

    fn declared(&mut self) -> Result<Declared, SqlError> {
        let mut name = match self.next() {
            Token::Word(name) | Token::Quoted(name) => name,
            _ => {
                self.at -= 1;
                return Err(self.wrong());
            }
        };
        if name.eq_ignore_ascii_case("sys") && self.sign(".") {
            name = self.identifier()?;
        }
        if name.eq_ignore_ascii_case("double") && self.word("PRECISION") {
            name = "float".to_owned();
        }
        let mut arguments = Vec::new();
        if self.sign("(") {
            if self.word("max") {
                arguments.push(-1);
            } else {
                arguments.push(self.integer()?);
                if self.sign(",") {
                    arguments.push(self.integer()?);
                }
            }
            self.need_sign(")")?;
        }
        let kind = Kind::named(&name, &arguments)?;
        if self.word("COLLATE") {
            let collation = self.collation()?;
            return Ok(Declared { ty: Type::collated(kind, collation), collated: true });
        }
        Ok(Declared { ty: Type::of(kind), collated: false })
    }

    fn collation(&mut self) -> Result<&'static Collation, SqlError> {
        let name = self.identifier()?;
        collation_named(&name)
    }

    fn deeper(&mut self) -> Result<(), SqlError> {
        self.depth += 1;
        if self.depth > 200 {
            Err(SqlError::new(191, "Some part of your SQL statement is nested too deeply."))
        } else {
            Ok(())
        }
    }
}

pub fn collation_named(name: &str) -> Result<&'static Collation, SqlError> {
    if name.eq_ignore_ascii_case("database_default") {
        return Ok(Collation::usual());
    }
    Collation::named(name).ok_or_else(|| SqlError::new(448, format!("Invalid collation '{name}'.")))
}

/// Words that end an expression or a name: never a name without brackets.
const RESERVED: &[&str] = &[
    "ADD",
    "ALL",
    "ALTER",
    "AND",
    "AS",
    "ASC",
    "BEGIN",
    "BETWEEN",
    "BY",
    "CASE",
    "CHECK",
    "COLLATE",
    "COMMIT",
    "CONSTRAINT",
    "CREATE",
    "CROSS",
    "DECLARE",
    "DEFAULT",
    "DELETE",
    "DESC",
    "DISTINCT",
    "DROP",
    "ELSE",
    "END",
    "ESCAPE",
    "EXCEPT",
    "EXEC",
    "EXECUTE",
    "EXISTS",
    "FETCH",
    "FOR",
    "FOREIGN",
    "FROM",
    "FULL",
    "GROUP",
    "HAVING",
    "IDENTITY_INSERT",
    "IF",
    "IN",
    "INDEX",
    "INNER",
    "INSERT",
    "INTERSECT",
    "INTO",
    "IS",
    "JOIN",
    "LEFT",
    "LIKE",
    "NOT",
    "NULL",
    "ON",
    "OPTION",
    "OR",
    "ORDER",
    "OUTER",
    "OVER",
    "PRIMARY",
    "PRINT",
    "REFERENCES",
    "RETURN",
    "RIGHT",
    "ROLLBACK",
    "SAVE",
    "SELECT",
    "SET",
    "TABLE",
    "THEN",
    "TOP",
    "TRUNCATE",
    "UNION",
    "UNIQUE",
    "UPDATE",
    "USE",
    "VALUES",
    "WHEN",
    "WHERE",
    "WHILE",
    "WITH",
];

#[cfg(test)]
mod tests;
