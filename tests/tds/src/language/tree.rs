//! Statements as they were read.

use crate::store::Type;

/// One to four parts, the last one the object's or the column's.
pub type Name = Vec<String>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    BitAnd,
    BitOr,
    BitXor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Expression {
    Null,
    Integer(i64),
    Number(String),
    Text(String, bool),
    Binary(Vec<u8>),
    Column(Name),
    Variable(String),
    Negate(Box<Expression>),
    BitNot(Box<Expression>),
    Arithmetic(Operator, Box<Expression>, Box<Expression>),
    Compare(Comparison, Box<Expression>, Box<Expression>),
    And(Box<Expression>, Box<Expression>),
    Or(Box<Expression>, Box<Expression>),
    Not(Box<Expression>),
    IsNull(Box<Expression>, bool),
    In(Box<Expression>, Vec<Expression>, bool),
    InQuery(Box<Expression>, Box<Query>, bool),
    Between(Box<Expression>, Box<Expression>, Box<Expression>, bool),
    Like { text: Box<Expression>, pattern: Box<Expression>, escape: Option<char>, negated: bool },
    Exists(Box<Query>),
    Scalar(Box<Query>),
    Case { operand: Option<Box<Expression>>, whens: Vec<(Expression, Expression)>, otherwise: Option<Box<Expression>> },
    Cast { value: Box<Expression>, to: Declared, style: Option<i64>, attempt: bool },
    Collate(Box<Expression>, String),
    Call { name: String, arguments: Vec<Expression>, star: bool, distinct: bool, over: Option<Over> },
}

/// A type as it was written, with a collation where one was named.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Declared {
    pub ty: Type,
    pub collated: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Over {
    pub partition: Vec<Expression>,
    pub order: Vec<(Expression, bool)>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    pub body: QueryBody,
    /// Expression, and whether the order falls.
    pub order: Vec<(Expression, bool)>,
    pub offset: Option<Expression>,
    pub fetch: Option<Expression>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum QueryBody {
    Select(Box<Select>),
    Set { operation: SetOperation, left: Box<QueryBody>, right: Box<QueryBody> },
    Nested(Box<Query>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetOperation {
    UnionAll,
    Union,
    Intersect,
    Except,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Select {
    pub distinct: bool,
    pub top: Option<Expression>,
    pub items: Vec<Item>,
    pub from: Option<Source>,
    pub filter: Option<Expression>,
    pub group: Vec<Expression>,
    pub having: Option<Expression>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    Star(Option<String>),
    Expression(Expression, Option<String>),
    /// `SELECT @v = …`
    Assign(String, Expression),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    Table { name: Name, alias: Option<String>, hints: Hints },
    Derived { query: Box<Query>, alias: String, columns: Vec<String> },
    Values { rows: Vec<Vec<Expression>>, alias: String, columns: Vec<String> },
    Function { name: Name, arguments: Vec<Expression>, alias: String },
    Join { kind: Join, left: Box<Source>, right: Box<Source>, on: Option<Expression> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Join {
    Inner,
    Left,
    Right,
    Full,
    Cross,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// Held to the end of the transaction.
    pub hold: bool,
    /// Nobody else reads or writes meanwhile.
    pub alone: bool,
    /// The rows that are read are held to the end of the transaction, against others that would hold or change them.
    pub update: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ColumnDefinition {
    pub name: String,
    /// None for a computed column.
    pub ty: Option<Declared>,
    pub nullable: Option<bool>,
    pub identity: Option<(i64, i64)>,
    pub default: Option<(Option<String>, String)>,
    pub computed: Option<(String, bool)>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Constraint {
    Key { name: Option<String>, columns: Vec<(String, bool)>, primary: bool, clustered: Option<bool> },
    Check { name: Option<String>, text: String },
    Foreign { name: Option<String>, columns: Vec<String>, parent: Name, parent_columns: Vec<String>, cascade: bool },
}

#[derive(Clone, Debug, PartialEq)]
pub enum Given {
    Expression(Expression),
    /// A bare word, which a procedure takes as text.
    Word(String),
    Default,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Statement {
    Select(Query),
    Insert {
        target: Name,
        hints: Hints,
        columns: Vec<String>,
        source: InsertSource,
    },
    Update {
        target: Name,
        top: Option<Expression>,
        set: Vec<(String, Expression)>,
        from: Option<Source>,
        filter: Option<Expression>,
    },
    Delete {
        target: Name,
        top: Option<Expression>,
        from: Option<Source>,
        filter: Option<Expression>,
    },
    Truncate(Name),
    CreateTable {
        name: Name,
        columns: Vec<ColumnDefinition>,
        constraints: Vec<Constraint>,
    },
    AlterAdd {
        table: Name,
        columns: Vec<ColumnDefinition>,
        constraints: Vec<Constraint>,
    },
    AlterDrop {
        table: Name,
        columns: Vec<String>,
        constraints: Vec<String>,
    },
    AllowSnapshot {
        database: String,
        on: bool,
    },
    DropTable {
        names: Vec<Name>,
        if_exists: bool,
    },
    CreateIndex {
        name: String,
        table: Name,
        columns: Vec<(String, bool)>,
        included: Vec<String>,
        unique: bool,
        clustered: bool,
    },
    DropIndex {
        name: String,
        table: Name,
    },
    CreateSchema(String),
    CreateView {
        name: Name,
        text: String,
    },
    CreateTrigger {
        name: Name,
        table: Name,
        insert: bool,
        update: bool,
        delete: bool,
        text: String,
    },
    DropObject {
        name: Name,
        view: bool,
    },
    BulkInsert {
        table: Name,
        columns: Vec<(String, Declared)>,
        options: Vec<String>,
    },
    Begin(Option<String>),
    Commit,
    RollBack(Option<String>),
    Save(String),
    SetOption {
        name: String,
        value: String,
    },
    SetIsolation(crate::store::database::Isolation),
    SetIdentityInsert {
        table: Name,
        on: bool,
    },
    SetVariable(String, Expression),
    Declare(Vec<(String, Declared, Option<Expression>)>),
    If {
        condition: Expression,
        then: Box<Statement>,
        otherwise: Option<Box<Statement>>,
    },
    Block(Vec<Statement>),
    Execute {
        name: Name,
        arguments: Vec<(Option<String>, Given)>,
    },
    Use(String),
    Print(Expression),
    RaiseError {
        number: Expression,
        text: Expression,
    },
    WaitFor(String),
    Return,
}

#[derive(Clone, Debug, PartialEq)]
pub enum InsertSource {
    Values(Vec<Vec<Option<Expression>>>),
    Query(Box<Query>),
    Defaults,
}
