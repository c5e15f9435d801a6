//! RFC 9457 problem JSON with the PH code, in the language that the asker prefers.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use posthouse_protocol::problem::{Code, Lang, Problem};
use serde::Serialize;

/// A problem on its way out.
pub(crate) struct Failure {
    problem: Problem,
    status: StatusCode,
    lang: Lang,
}

/// As it is sent: `application/problem+json`.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Body {
    /// `urn:posthouse:PH3015`
    #[serde(rename = "type")]
    kind: String,
    title: String,
    status: u16,
    /// What was seen, where the title does not say it all.
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
    code: String,
    hint: String,
}

impl Failure {
    pub(crate) fn new(problem: Problem, headers: &HeaderMap) -> Self {
        Self { status: status_of(problem.code), lang: lang_of(headers), problem }
    }

    pub(crate) fn not_found(request: &Request, kind: &str, name: &str) -> Self {
        let problem = Problem::new(Code::UnknownName).with("kind", kind).with("name", name);
        Self { status: StatusCode::NOT_FOUND, lang: lang_of(request.headers()), problem }
    }
}

/// For handlers, which have no headers at hand: English, until [`localized`] by the guard.
impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self { status: status_of(problem.code), lang: Lang::En, problem }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Self { problem, status, lang } = self;
        if status.is_server_error() {
            tracing::error!(%problem, "Failed to answer over HTTP");
        }
        let body = body(&problem, status, lang);
        let text = serde_json::to_string(&body).unwrap_or_default();
        let mut response = (status, text).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"posthouse\""));
        }
        if status == StatusCode::TOO_MANY_REQUESTS {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
        }
        // Kept, so that the guard can say the same in the asker's language.
        response.extensions_mut().insert(Told { problem, status });
        response
    }
}

/// What a failed answer said.
#[derive(Clone)]
struct Told {
    problem: Problem,
    status: StatusCode,
}

/// The same answer in the language that the request prefers.
pub(crate) fn localized(response: Response, headers: &HeaderMap) -> Response {
    match response.extensions().get::<Told>().cloned() {
        Some(Told { problem, status }) if lang_of(headers) == Lang::Zh => {
            Failure { problem, status, lang: Lang::Zh }.into_response()
        }
        _ => response,
    }
}

fn body(problem: &Problem, status: StatusCode, lang: Lang) -> Body {
    Body {
        kind: format!("urn:posthouse:{}", problem.code),
        title: problem.title(lang),
        status: status.as_u16(),
        detail: problem.cause.clone(),
        code: problem.code.to_string(),
        hint: problem.hint(lang),
    }
}

/// By who must act: the asker (4xx) or the operator (5xx).
fn status_of(code: Code) -> StatusCode {
    match code {
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::RoleDenied => StatusCode::FORBIDDEN,
        Code::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        Code::UnknownName | Code::NoReceipt => StatusCode::NOT_FOUND,
        Code::UsageInvalid => StatusCode::BAD_REQUEST,
        Code::Busy => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Chinese where the first language that is asked for is Chinese.
fn lang_of(headers: &HeaderMap) -> Lang {
    let asked = headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if asked.trim_start().get(..2).is_some_and(|first| first.eq_ignore_ascii_case("zh")) { Lang::Zh } else { Lang::En }
}
