//! The description of the API: OpenAPI 3.1, made from the code, served, and committed as
//! `coordinator/openapi.json`, which a test compares.

use super::{alarms, ledger, metrics, nodes, receipts, reconciliations, statistics, status, transfers};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

/// As JSON, with an end of line.
pub fn description() -> String {
    let mut text = Description::openapi().to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

pub(super) async fn serve() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], description()).into_response()
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Posthouse coordinator",
        description = "Reads the state of exchange: nodes, transfers, receipts, balance and ledger. Times are \
                       RFC 3339 in UTC; each value says as of when it was true. Errors are RFC 9457 problems \
                       with the PH code.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    paths(
        status::status,
        nodes::list,
        nodes::one,
        transfers::list,
        transfers::one,
        receipts::list,
        receipts::one,
        receipts::evidence,
        reconciliations::day,
        statistics::statistics,
        alarms::list,
        ledger::head,
        ledger::checkpoint,
        ledger::consistency,
        ledger::entries,
        ledger::tile,
        metrics::metrics,
        status::healthy,
        status::ready
    ),
    modifiers(&Bearer)
)]
struct Description;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("A token of `posthouse coordinator access add`; roles viewer, operator, auditor, admin"))
            .build();
        let components = description.components.get_or_insert_with(Default::default);
        components.add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_description_is_what_the_code_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
        if std::env::var_os("POSTHOUSE_WRITE").is_some() {
            std::fs::write(path, description()).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(committed == description(), "run this test with POSTHOUSE_WRITE=1 and look at the difference");
    }

    #[test]
    fn every_path_says_which_role_it_needs_or_that_it_needs_none() {
        let description: serde_json::Value = serde_json::from_str(&description()).unwrap();
        assert_eq!(description["openapi"], "3.1.0");
        let mut names = std::collections::BTreeSet::new();
        for (path, item) in description["paths"].as_object().unwrap() {
            assert!(names.insert(item["get"]["operationId"].to_string()), "{path}");
            let open = ["/healthz", "/readyz"].contains(&path.as_str());
            assert_eq!(item["get"]["security"].is_array(), !open, "{path}");
        }
    }
}
