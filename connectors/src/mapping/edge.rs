//! Values at the edges of a type, which one engine has and another has not, and what is true of all values of some
//! types. Each stands in docs/TYPES.md under its letter, in both languages.

/// What is to be known of some values of a type, or of all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Edge {
    /// `infinity` and `-infinity` of dates and times.
    Endless,
    /// Dates before the year 0, as the proleptic calendar counts: BC.
    BeforeYearZero,
    YearZero,
    AfterYear9999,
    /// Infinities of floats.
    Infinite,
    NotANumber,
    /// U+0000 in a text.
    Nul,
    /// More than 255 characters in a char.
    LongChar,
    /// U+0000 in a text within JSON.
    JsonNul,
    /// A number within JSON of more digits than PostgreSQL keeps.
    JsonNumber,
    /// `0000-00-00`, and dates with parts of zero.
    ZeroDate,
    /// A NaN among decimals of declared digits.
    DecimalNaN,
    /// A seventh digit of a second.
    Finer,
    /// Bytes that are no characters of their charset.
    Undecodable,
    /// Half of a character of UTF-16.
    HalfCharacter,
    /// JSON with a member twice, and other texts without one meaning.
    JsonTwice,
    /// A value that is not of the kind that its column declares.
    OtherKind,
    /// A text that the engine writes of a value of its own.
    AsText,
    /// A time without a zone.
    NoZone,
    /// The zone in which a time was written.
    WrittenZone,
    /// Three-hundredths of a second.
    Thirds,
    /// Spatial values.
    Spatial,
}

/// Where it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Becomes {
    /// The contract has it; a destination that has not makes it a quarantined row.
    ByDestination,
    /// The contract has it not: a quarantined row, whatever the destination.
    BadAtSource,
    /// It moves, as is said.
    Said,
}

impl Edge {
    pub const ALL: [Self; 22] = [
        Self::Endless,
        Self::BeforeYearZero,
        Self::YearZero,
        Self::AfterYear9999,
        Self::Infinite,
        Self::NotANumber,
        Self::Nul,
        Self::LongChar,
        Self::JsonNul,
        Self::JsonNumber,
        Self::ZeroDate,
        Self::DecimalNaN,
        Self::Finer,
        Self::Undecodable,
        Self::HalfCharacter,
        Self::JsonTwice,
        Self::OtherKind,
        Self::AsText,
        Self::NoZone,
        Self::WrittenZone,
        Self::Thirds,
        Self::Spatial,
    ];

    pub fn becomes(self) -> Becomes {
        match self {
            Self::Endless
            | Self::BeforeYearZero
            | Self::YearZero
            | Self::AfterYear9999
            | Self::Infinite
            | Self::NotANumber
            | Self::Nul
            | Self::LongChar
            | Self::JsonNul
            | Self::JsonNumber => Becomes::ByDestination,
            Self::ZeroDate
            | Self::DecimalNaN
            | Self::Finer
            | Self::Undecodable
            | Self::HalfCharacter
            | Self::JsonTwice
            | Self::OtherKind => Becomes::BadAtSource,
            Self::AsText | Self::NoZone | Self::WrittenZone | Self::Thirds | Self::Spatial => Becomes::Said,
        }
    }

    /// Under which it stands in a table.
    pub fn letter(self) -> char {
        let at = Self::ALL.iter().position(|edge| *edge == self).unwrap_or_default();
        u8::try_from(at).map_or('?', |at| char::from(b'a' + at))
    }

    /// In English and in Chinese.
    pub fn say(self) -> [&'static str; 2] {
        match self {
            Self::Endless => ["`infinity` and `-infinity`", "`infinity` 与 `-infinity`"],
            Self::BeforeYearZero => ["days before the year 0", "公元 0 年之前的日期"],
            Self::YearZero => ["days of the year 0", "公元 0 年的日期"],
            Self::AfterYear9999 => ["days after the year 9999", "公元 9999 年之后的日期"],
            Self::Infinite => ["infinities of floats", "浮点数的正负无穷"],
            Self::NotANumber => ["NaN among floats", "浮点数的 NaN"],
            Self::Nul => ["the character U+0000 in a text", "文本中的 U+0000"],
            Self::LongChar => ["more than 255 characters, blanks at the end aside", "去除尾部空格后仍超过 255 个字符"],
            Self::JsonNul => ["JSON with the character U+0000 in it", "含有 U+0000 的 JSON"],
            Self::JsonNumber => [
                "JSON with a number of more than 131,072 digits before or 16,383 behind the point",
                "JSON 中小数点前超过 131072 位或小数点后超过 16383 位的数",
            ],
            Self::ZeroDate => [
                "dates of zeros, and dates with a part of zero; of the former `zero_dates = \"null\"` makes NULL",
                "零日期及含零的日期；`zero_dates = \"null\"` 可将零日期视为空值",
            ],
            Self::DecimalNaN => ["NaN among decimals of declared digits", "声明了位数的小数中的 NaN"],
            Self::Finer => ["times with a seventh digit of a second that is not zero", "秒的第七位小数不为零的时间"],
            Self::Undecodable => ["bytes that are no characters of their charset", "不是所用字符集中字符的字节"],
            Self::HalfCharacter => ["half of a character of UTF-16", "UTF-16 的半个字符"],
            Self::JsonTwice => [
                "JSON without one meaning, such as a member that stands there twice",
                "含义不唯一的 JSON，如重复的成员",
            ],
            Self::OtherKind => [
                "values of another kind than their column declares, which SQLite lets in",
                "与列的声明不符的值（SQLite 允许存入）",
            ],
            Self::AsText => ["it moves as the text that the engine writes of it", "以数据库对其书写的文本形式交换"],
            Self::NoZone => ["a time without a zone is taken as UTC", "不带时区的时间按 UTC 看待"],
            Self::WrittenZone => [
                "the instant moves, and not the zone in which it was written: a `query` with CONVERT keeps that as text",
                "交换的是时刻本身，不含书写时所用的时区；如需保留，可在 `query` 中用 CONVERT 转为文本",
            ],
            Self::Thirds => [
                "three-hundredths of a second move as they are shown: .000, .003, .007",
                "三百分之一秒按其显示值交换：.000、.003、.007",
            ],
            Self::Spatial => [
                "they move as the server keeps them: the SRID in four bytes, then WKB",
                "按服务器的存储形式交换：四字节 SRID，随后是 WKB",
            ],
        }
    }
}
