//! The console's first form: one read-only page in two languages, embedded; it asks for a viewer's token,
//! keeps it in the tab alone, and shows what the API says. It loads nothing from elsewhere.

use axum::http::header;
use axum::response::{IntoResponse, Response};

/// Own files and the own API, nothing else; no frames, no forms to elsewhere, no inline script.
pub(super) const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                                 img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) async fn html() -> Response {
    file("text/html; charset=utf-8", include_str!("page/page.html"))
}
pub(super) async fn css() -> Response {
    file("text/css; charset=utf-8", include_str!("page/page.css"))
}
pub(super) async fn js() -> Response {
    file("text/javascript; charset=utf-8", include_str!("page/page.js"))
}

fn file(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

#[cfg(test)]
mod tests {
    const HTML: &str = include_str!("page/page.html");
    const CSS: &str = include_str!("page/page.css");
    const JS: &str = include_str!("page/page.js");

    #[test]
    fn the_page_loads_nothing_from_elsewhere_and_has_nothing_inline() {
        for text in [HTML, CSS, JS] {
            assert!(!text.contains("http://") && !text.contains("https://") && !text.contains("@import"), "{text}");
        }
        assert!(!HTML.contains("style=") && !HTML.contains("onclick") && HTML.matches("<script").count() == 1);
        assert!(!JS.contains("innerHTML") && !JS.contains("eval("));
    }

    #[test]
    fn every_text_of_the_page_exists_in_both_languages() {
        let keys = |language: &str| -> Vec<String> {
            let (_, rest) = JS.split_once(&format!("  {language}: {{")).expect("a language");
            let (block, _) = rest.split_once("\n  },").expect("its end");
            block.lines().filter_map(|line| line.trim().split_once(": ")).map(|(key, _)| key.to_owned()).collect()
        };
        let (en, zh) = (keys("en"), keys("zh"));
        assert!(en.len() > 30);
        assert_eq!(en, zh);
        for piece in HTML.split("data-text=\"").skip(1) {
            let key = piece.split('"').next().unwrap_or_default();
            assert!(en.iter().any(|known| known == key), "{key}");
        }
    }
}
