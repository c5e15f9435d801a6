//! Everything printed passes here: data to stdout, words to stderr, problems with code, cause and hint.
//! The only place with colour; colour is never the only signal.

use posthouse_protocol::problem::{Lang, Problem};
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

/// Where and how a command prints.
#[derive(Clone, Copy)]
pub(crate) struct Screen {
    pub(crate) lang: Lang,
    pub(crate) json: bool,
}

impl Screen {
    pub(crate) fn new(lang: Lang, json: bool) -> Self {
        Self { lang, json }
    }

    /// The English or the Chinese text, by the chosen language.
    pub(crate) fn say<'a>(&self, en: &'a str, zh: &'a str) -> &'a str {
        match self.lang {
            Lang::En => en,
            Lang::Zh => zh,
        }
    }

    /// Data: one line to stdout. A reader that has gone away ends nothing that matters.
    pub(crate) fn line(&self, text: impl std::fmt::Display) {
        let _ = writeln!(std::io::stdout().lock(), "{text}");
    }

    /// Words for a person: to stderr.
    pub(crate) fn note(&self, text: impl std::fmt::Display) {
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    }

    /// One JSON object on its own line.
    pub(crate) fn object(&self, value: &impl serde::Serialize) {
        match serde_json::to_string(value) {
            Ok(text) => self.line(text),
            Err(error) => self.note(error),
        }
    }

    /// Rows under headings, columns aligned by display width (Chinese characters are two wide).
    pub(crate) fn table(&self, headings: &[&str], rows: &[Vec<String>]) {
        let columns = headings.len();
        let mut widths: Vec<usize> = headings.iter().map(|text| width(text)).collect();
        for row in rows {
            for (column, cell) in row.iter().take(columns).enumerate() {
                widths[column] = widths[column].max(width(cell));
            }
        }
        let print = |cells: &mut dyn Iterator<Item = &str>| {
            let mut line = String::new();
            for (column, cell) in cells.take(columns).enumerate() {
                line.push_str(cell);
                if column + 1 < columns {
                    line.extend(std::iter::repeat_n(' ', widths[column] - width(cell) + 2));
                }
            }
            self.line(line.trim_end());
        };
        print(&mut headings.iter().copied());
        for row in rows {
            print(&mut row.iter().map(String::as_str));
        }
    }

    /// Prints a problem and gives its exit code.
    pub(crate) fn problem(&self, problem: &Problem) -> ExitCode {
        if self.json {
            self.object(&serde_json::json!({"problem": {
                "code": problem.code.to_string(),
                "title": problem.title(self.lang),
                "facts": problem.facts.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
                "cause": problem.cause,
                "hint": problem.hint(self.lang),
            }}));
        }
        let (error, cause, hint) = match self.lang {
            Lang::En => ("error", "cause", "hint"),
            Lang::Zh => ("错误", "原因", "建议"),
        };
        let (bold, off) = if colour() { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
        self.note(format!("{bold}{error}[{}]{off}: {}", problem.code, problem.title(self.lang)));
        let text = problem.code.text();
        // What the title says already is not said twice.
        let told = |name: &str| text.en.contains(&format!("{{{name}}}"));
        let facts: Vec<(&str, &str)> = problem
            .facts
            .iter()
            .filter(|(name, _)| !told(name))
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .chain((!problem.cause.is_empty()).then_some((cause, problem.cause.as_str())))
            .chain([(hint, "")])
            .collect();
        let widest = facts.iter().map(|(name, _)| width(name)).max().unwrap_or(0);
        let hint_text = problem.hint(self.lang);
        for (name, value) in facts {
            let value = if name == hint { hint_text.as_str() } else { value };
            let pad = " ".repeat(widest - width(name) + 2);
            let indent = format!("\n{}", " ".repeat(widest + 4));
            self.note(format!("  {name}{pad}{}", value.replace('\n', &indent)));
        }
        ExitCode::from(text.exit as u8)
    }
}

/// Columns that a text takes on a terminal.
pub(crate) fn width(text: &str) -> usize {
    text.chars().map(|c| if is_wide(c) { 2 } else { 1 }).sum()
}

fn is_wide(c: char) -> bool {
    matches!(u32::from(c), 0x1100..=0x115f | 0x2e80..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff | 0xfe30..=0xfe6f | 0xff00..=0xff60 | 0xffe0..=0xffe6 | 0x20000..=0x3fffd)
}

/// `4.2 GiB`, `812 B`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Thousands apart: `10 412`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

fn colour() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

pub(crate) fn parse_lang(text: &str) -> Result<Lang, String> {
    match text {
        "zh" => Ok(Lang::Zh),
        "en" => Ok(Lang::En),
        _ => Err("it is zh or en".to_owned()),
    }
}

/// The language before the command line is parsed: `--lang` wherever it stands, then the locale.
pub(crate) fn lang_of_process() -> Lang {
    let args: Vec<String> = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let given = args.iter().enumerate().find_map(|(position, arg)| match arg.strip_prefix("--lang") {
        Some("") => args.get(position + 1).cloned(),
        Some(rest) => rest.strip_prefix('=').map(str::to_owned),
        None => None,
    });
    if let Some(lang) = given.and_then(|text| parse_lang(&text).ok()) {
        return lang;
    }
    let locale = ["LC_ALL", "LC_MESSAGES", "LANG"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
        .unwrap_or_default();
    if locale.starts_with("zh") { Lang::Zh } else { Lang::En }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_like_numbers() {
        assert_eq!(count(10_412), "10 412");
        assert_eq!(count(7), "7");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(12), "12 B");
    }

    #[test]
    fn chinese_characters_take_two_columns() {
        assert_eq!(width("节点 a"), 6);
    }
}
