//! `posthouse explain PHnnnn`: the page of a code, from the program itself.
//! The pages are `docs/errors/PHnnnn.md` and `docs/errors/PHnnnn.zh-CN.md`, embedded when building.

use crate::render::Screen;
use crate::{Done, Outcome};
use posthouse_protocol::problem::{CODES, Code, Lang, Problem};

#[derive(clap::Args)]
pub(crate) struct Command {
    /// A code such as PH3001; without one, the list of all codes
    code: Option<String>,
}

pub(crate) fn run(command: Command, screen: &Screen) -> Outcome {
    let Some(text) = command.code else {
        let rows: Vec<Vec<String>> =
            CODES.iter().map(|text| vec![text.code.to_string(), screen.say(text.en, text.zh).to_owned()]).collect();
        if screen.json {
            for row in rows {
                screen.object(&serde_json::json!({"code": row[0], "title": row[1]}));
            }
        } else {
            screen.table(&[screen.say("code", "代码"), screen.say("meaning", "含义")], &rows);
        }
        return Ok(Done::Yes);
    };
    let code = Code::parse(&text).ok_or_else(|| {
        let what = format!("{text}: {}", screen.say("there is no such code", "没有这个代码"));
        Problem::new(Code::UsageInvalid).with("what", what)
    })?;
    let page = page(code, screen.lang);
    if screen.json {
        screen.object(&serde_json::json!({"code": code.to_string(), "page": page}));
    } else {
        screen.line(page.trim_end());
    }
    Ok(Done::Yes)
}

/// The page of a code in one language.
fn page(code: Code, lang: Lang) -> &'static str {
    PAGES
        .iter()
        .find(|(number, ..)| *number == code.number())
        .map(|(_, en, zh)| match lang {
            Lang::En => *en,
            Lang::Zh => *zh,
        })
        .unwrap_or_default()
}

/// Number, English page, Chinese page.
const PAGES: &[(u16, &str, &str)] = &include!(concat!(env!("OUT_DIR"), "/error_pages.rs"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_page_in_both_languages() {
        for text in CODES {
            for lang in [Lang::En, Lang::Zh] {
                let page = page(text.code, lang);
                assert!(page.starts_with(&format!("# {}", text.code)), "{} has no page", text.code);
                assert!(page.lines().count() > 6, "the page of {} says too little", text.code);
            }
        }
        assert_eq!(PAGES.len(), CODES.len(), "a page without a code");
    }
}
