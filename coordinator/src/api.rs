//! The HTTP side: what people and scripts read. Nothing here changes anything that a node sees.
//! HTTPS under the coordinator's CA or a given certificate; plain HTTP on a loopback address only. Everything
//! but health and the page itself needs a bearer token with a role. Each answer says as of when it is true.
//! - `access`: tokens and roles. `failure`: RFC 9457 problems. `paging`: cursors.
//! - one file per noun below; `page`: the console's first form; [`openapi`]: the description of all this.

mod access;
mod alarms;
mod failure;
mod ledger;
mod metrics;
mod nodes;
mod openapi;
mod page;
mod paging;
mod receipts;
mod reconciliations;
mod statistics;
mod status;
mod transfers;

pub use openapi::description;

use crate::Centre;
use crate::config::is_loopback;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use failure::Failure;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use posthouse_platform::https::{Https, Stream};
use posthouse_protocol::problem::{Code, Problem};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Who asks, as far as the line tells.
#[derive(Clone, Copy)]
pub(crate) struct From(pub(crate) IpAddr);

/// Listens at `address` until the coordinator stops; gives where.
pub(crate) async fn serve(centre: &Arc<Centre>, address: &str) -> Result<SocketAddr, Problem> {
    let failed = |e: std::io::Error| Problem::new(Code::ListenFailed).with("address", address).cause(e);
    let https = match (&centre.config.http_certificate, is_loopback(address)) {
        (Some(given), _) => Some(Https::of_files(&given.certificate_file, &given.key_file)?),
        (None, true) => None,
        (None, false) => Some(Https::of_identity(&centre.keys.identity(&centre.world, &centre.config)?)?),
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let https = https.map(Arc::new);
    if let Some(https) = &https
        && centre.config.http_certificate.is_none()
    {
        centre.tasks.spawn(keep_certified(centre.clone(), https.clone()));
    }
    centre.tasks.spawn(accept(centre.clone(), listener, https, router(centre)));
    Ok(bound)
}

fn router(centre: &Arc<Centre>) -> Router {
    let guarded = Router::new()
        .route("/api/v1/status", get(status::status))
        .route("/api/v1/nodes", get(nodes::list))
        .route("/api/v1/nodes/{name}", get(nodes::one))
        .route("/api/v1/transfers", get(transfers::list))
        .route("/api/v1/transfers/{id}", get(transfers::one))
        .route("/api/v1/receipts", get(receipts::list))
        .route("/api/v1/receipts/{id}", get(receipts::one))
        .route("/api/v1/receipts/{id}/receipt.cose", get(receipts::evidence))
        .route("/api/v1/reconciliations", get(reconciliations::day))
        .route("/api/v1/statistics", get(statistics::statistics))
        .route("/api/v1/alarms", get(alarms::list))
        .route("/api/v1/ledger", get(ledger::head))
        .route("/api/v1/ledger/checkpoint", get(ledger::checkpoint))
        .route("/api/v1/ledger/consistency", get(ledger::consistency))
        .route("/api/v1/ledger/entries", get(ledger::entries))
        .route("/api/v1/ledger/tile/{*path}", get(ledger::tile))
        .route("/metrics", get(metrics::metrics))
        .layer(middleware::from_fn_with_state(centre.clone(), access::guard));
    Router::new()
        .merge(guarded)
        .route("/", get(page::html))
        .route("/page.css", get(page::css))
        .route("/page.js", get(page::js))
        .route("/healthz", get(status::healthy))
        .route("/readyz", get(status::ready))
        .route("/api/v1/openapi.json", get(openapi::serve))
        .fallback(absent)
        .layer(middleware::from_fn(headers))
        .layer(Extension(Arc::new(access::Attempts::default())))
        .with_state(centre.clone())
}

async fn accept(centre: Arc<Centre>, listener: TcpListener, https: Option<Arc<Https>>, router: Router) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            biased;
            () = centre.stopping.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "Failed to accept on the HTTP side");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = room.clone().try_acquire_owned() else {
            tracing::warn!(%peer, "Too many HTTP connections at once");
            continue;
        };
        let (centre, https) = (centre.clone(), https.clone());
        let router = router.clone().layer(Extension(From(peer.ip().to_canonical())));
        centre.tasks.clone().spawn(async move {
            let stream: Box<dyn Stream> = match https {
                None => Box::new(stream),
                Some(https) => match https.accept(stream).await {
                    Ok(stream) => stream,
                    Err(error) => return tracing::debug!(%peer, %error, "A TLS handshake of the HTTP side failed"),
                },
            };
            talk(&centre, stream, router).await;
            drop(permit);
        });
    }
}

async fn talk(centre: &Centre, stream: Box<dyn Stream>, router: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .max_buf_size(REQUEST_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let ended = tokio::select! {
        biased;
        () = centre.stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        ended = connection.as_mut() => ended,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "An HTTP connection ended early");
    }
}

/// Renews the certificate of the HTTP side with the coordinator's own.
async fn keep_certified(centre: Arc<Centre>, https: Arc<Https>) {
    loop {
        tokio::select! {
            biased;
            () = centre.stopping.cancelled() => return,
            () = tokio::time::sleep(centre.config.certificate_life.duration() / 3) => {}
        }
        let renewed = centre.keys.identity(&centre.world, &centre.config).and_then(|own| https.set_identity(&own));
        if let Err(problem) = renewed {
            tracing::error!(%problem, "Failed to renew the certificate of the HTTP side");
        }
    }
}

/// What every answer carries: nothing is kept by others, nothing is loaded from elsewhere.
async fn headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, page::POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn absent(State(_): State<Arc<Centre>>, request: Request) -> Failure {
    Failure::not_found(&request, "path", request.uri().path())
}

/// Connections of the HTTP side at a time.
const CONNECTIONS_MAX: usize = 512;
const REQUEST_BYTES_MAX: usize = 16 << 10;
const HEADERS: Duration = Duration::from_secs(20);
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
