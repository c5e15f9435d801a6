//! Every statement by its first word; those of control, transactions and settings here.

use super::super::lex::Token;
use super::super::tree::{Given, Statement};
use super::Parser;
use crate::store::SqlError;
use crate::store::database::Isolation;

type Parsed = Result<Statement, SqlError>;

impl Parser<'_> {
    pub(super) fn statement(&mut self) -> Parsed {
        self.deeper()?;
        let statement = self.one_statement()?;
        self.depth -= 1;
        Ok(statement)
    }

    fn one_statement(&mut self) -> Parsed {
        if self.is_word("SELECT") || self.is_sign("(") {
            return Ok(Statement::Select(self.query()?));
        }
        let Token::Word(word) = self.next() else {
            self.at -= 1;
            return Err(self.wrong());
        };
        match word.to_ascii_uppercase().as_str() {
            "INSERT" => self.insert(),
            "UPDATE" => self.update(),
            "DELETE" => self.delete(),
            "TRUNCATE" => {
                self.need("TABLE")?;
                Ok(Statement::Truncate(self.name()?))
            }
            "CREATE" => self.create(),
            "ALTER" => self.alter(),
            "DROP" => self.drop(),
            "SET" => self.set(),
            "BEGIN" => self.begin(),
            "COMMIT" => {
                self.transaction_name()?;
                Ok(Statement::Commit)
            }
            "ROLLBACK" => Ok(Statement::RollBack(self.transaction_name()?)),
            "SAVE" => {
                let name = self.transaction_name()?;
                name.map(Statement::Save).ok_or_else(|| self.wrong())
            }
            "DECLARE" => self.declare(),
            "IF" => {
                let condition = self.condition()?;
                while self.sign(";") {}
                let then = Box::new(self.statement()?);
                let semicolon = self.is_sign(";") && self.is_word_at(1, "ELSE");
                self.at += usize::from(semicolon);
                let otherwise = if self.word("ELSE") { Some(Box::new(self.statement()?)) } else { None };
                Ok(Statement::If { condition, then, otherwise })
            }
            "EXEC" | "EXECUTE" => self.execute(),
            "USE" => Ok(Statement::Use(self.identifier()?)),
            "PRINT" => Ok(Statement::Print(self.condition()?)),
            "THROW" => {
                let number = self.value()?;
                self.need_sign(",")?;
                let text = self.value()?;
                self.need_sign(",")?;
                self.value()?;
                Ok(Statement::RaiseError { number, text })
            }
            "WAITFOR" => {
                self.need("DELAY")?;
                match self.next() {
                    Token::Text(text, _) => Ok(Statement::WaitFor(text)),
                    _ => Err(self.wrong()),
                }
            }
            "RETURN" => Ok(Statement::Return),
            _ => {
                self.at -= 1;
                // A batch may begin with a procedure's name.
                if self.at == 0 && self.is_name() {
                    return self.execute();
                }
                Err(SqlError::unknown(format!("statement {word}")))
            }
        }
    }

    fn begin(&mut self) -> Parsed {
        if self.is_word("TRAN") || self.is_word("TRANSACTION") {
            return Ok(Statement::Begin(self.transaction_name()?));
        }
        if self.is_word("TRY") {
            return Err(SqlError::unknown("BEGIN TRY"));
        }
        let mut statements = Vec::new();
        loop {
            while self.sign(";") {}
            if self.word("END") {
                return Ok(Statement::Block(statements));
            }
            statements.push(self.statement()?);
        }
    }

    /// `TRANSACTION name`, both left out at will.
    fn transaction_name(&mut self) -> Result<Option<String>, SqlError> {
        if !(self.word("TRANSACTION") || self.word("TRAN")) {
            self.word("WORK");
            return Ok(None);
        }
        let next = ["IF", "SET", "SELECT", "INSERT"].iter().any(|word| self.is_word(word));
        if self.is_name() && !next { self.identifier().map(Some) } else { Ok(None) }
    }

    fn set(&mut self) -> Parsed {
        if let Token::Variable(name) = self.peek().clone() {
            self.at += 1;
            self.need_sign("=")?;
            return Ok(Statement::SetVariable(name, self.condition()?));
        }
        if self.words(&["TRANSACTION", "ISOLATION", "LEVEL"]) {
            for (words, isolation) in ISOLATIONS {
                if self.words(words) {
                    return Ok(Statement::SetIsolation(*isolation));
                }
            }
            return Err(self.wrong());
        }
        if self.word("IDENTITY_INSERT") {
            let table = self.name()?;
            return Ok(Statement::SetIdentityInsert { table, on: self.on_or_off()? });
        }
        let Token::Word(name) = self.next() else { return Err(self.wrong()) };
        let value = match self.next() {
            Token::Word(word) => word.to_ascii_uppercase(),
            Token::Number(number) => number,
            Token::Sign("-") => format!("-{}", self.integer()?),
            Token::Text(text, _) => text,
            _ => return Err(self.wrong()),
        };
        Ok(Statement::SetOption { name: name.to_ascii_uppercase(), value })
    }

    fn declare(&mut self) -> Parsed {
        let mut variables = Vec::new();
        loop {
            let name = self.variable()?;
            self.word("AS");
            let ty = self.declared()?;
            let value = if self.sign("=") { Some(self.condition()?) } else { None };
            variables.push((name, ty, value));
            if !self.sign(",") {
                return Ok(Statement::Declare(variables));
            }
        }
    }

    fn execute(&mut self) -> Parsed {
        if self.is_sign("(") {
            return Err(SqlError::unknown("EXEC of a text"));
        }
        let name = self.name()?;
        let mut arguments = Vec::new();
        let given = !matches!(self.peek(), Token::End | Token::Sign(";")) && !self.begins_statement();
        // One after another, up to the first that no comma follows.
        let mut is_more = given;
        while is_more {
            let follows = self.peek_at(1) == &Token::Sign("=");
            let named = match self.peek().clone() {
                Token::Variable(name) if follows => {
                    self.at += 2;
                    Some(name)
                }
                _ => None,
            };
            let value = if self.word("DEFAULT") {
                Given::Default
            } else if self.is_name() && !matches!(self.peek_at(1), Token::Sign("(")) {
                Given::Word(self.identifier()?)
            } else {
                Given::Expression(self.value()?)
            };
            if self.word("OUTPUT") || self.word("OUT") {
                return Err(SqlError::unknown("EXEC with OUTPUT"));
            }
            arguments.push((named, value));
            is_more = self.sign(",");
        }
        Ok(Statement::Execute { name, arguments })
    }

    fn begins_statement(&self) -> bool {
        ["SELECT", "INSERT", "UPDATE", "DELETE", "SET", "IF", "EXEC", "COMMIT", "ROLLBACK", "BEGIN", "END", "ELSE"]
            .iter()
            .any(|word| self.is_word(word))
    }
}

const ISOLATIONS: &[(&[&str], Isolation)] = &[
    (&["READ", "UNCOMMITTED"], Isolation::ReadUncommitted),
    (&["READ", "COMMITTED"], Isolation::ReadCommitted),
    (&["REPEATABLE", "READ"], Isolation::RepeatableRead),
    (&["SERIALIZABLE"], Isolation::Serializable),
    (&["SNAPSHOT"], Isolation::Snapshot),
];
