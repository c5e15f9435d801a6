//! The HTTP side: what people and scripts read. Nothing here changes anything a node sees.

use crate::Centre;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use posthouse_protocol::problem::{Code, Problem};
use std::net::SocketAddr;
use std::sync::Arc;

/// Listens at `address` until the coordinator stops; gives where.
pub(crate) async fn serve(centre: &Arc<Centre>, address: &str) -> Result<SocketAddr, Problem> {
    let failed = |e: std::io::Error| Problem::new(Code::ListenFailed).with("address", address).cause(e);
    let listener = tokio::net::TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(centre.clone());
    let stopping = centre.stopping.clone();
    centre.tasks.spawn(async move {
        let serving = axum::serve(listener, router).with_graceful_shutdown(async move { stopping.cancelled().await });
        if let Err(error) = serving.await {
            tracing::error!(%error, "The HTTP side has ended");
        }
    });
    Ok(bound)
}

async fn ready(State(centre): State<Arc<Centre>>) -> (StatusCode, &'static str) {
    match centre.store.probe().await {
        Ok(()) => (StatusCode::OK, "ready\n"),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the store does not answer\n"),
    }
}
