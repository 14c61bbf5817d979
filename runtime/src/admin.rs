//! The admin port of every daemon: `/healthz`, `/readyz`, `/metrics`, `/loops`. Plain HTTP, nothing secret on it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;
use tracing::{error, info};

use crate::{Background, GrpcError, Shutdown, Step, grpc::bind, telemetry};

/// How often the metrics recorder is emptied, so that it stays small when nobody reads `/metrics`.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Whether a process may be sent work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// It may.
    Ready,
    /// It may not yet, or no more.
    NotReady {
        /// What it waits for.
        reason: String,
    },
}

/// Answers `/readyz`; must not block.
pub type ReadinessProbe = Arc<dyn Fn() -> Readiness + Send + Sync>;

/// The simplest probe: not ready until somebody says so.
#[derive(Debug, Clone, Default)]
pub struct ReadyFlag(Arc<AtomicBool>);

impl ReadyFlag {
    /// Makes a flag that is not set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says that the process may be sent work.
    pub fn set_ready(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Says that the process may not be sent work.
    pub fn set_not_ready(&self) {
        self.0.store(false, Ordering::Release);
    }

    /// The flag as a probe.
    pub fn probe(&self) -> ReadinessProbe {
        let flag = self.0.clone();
        Arc::new(move || {
            if flag.load(Ordering::Acquire) {
                Readiness::Ready
            } else {
                Readiness::NotReady { reason: "starting or stopping".to_owned() }
            }
        })
    }
}

struct Page {
    name: String,
    readiness: ReadinessProbe,
    loops: Background,
    shutdown: Shutdown,
}

/// The admin server.
#[derive(Debug)]
pub struct Admin;

impl Admin {
    /// Binds the address, then answers in the background until shutdown; the loop is joined with `loops`.
    pub async fn serve(
        listen: &str,
        name: &str,
        readiness: ReadinessProbe,
        loops: &Background,
        shutdown: Shutdown,
    ) -> Result<SocketAddr, GrpcError> {
        let listener = bind(listen).await?;
        let address = listener
            .local_addr()
            .map_err(|source| GrpcError::Listen { address: listen.to_owned(), source })?;
        let page =
            Page { name: name.to_owned(), readiness, loops: loops.clone(), shutdown: shutdown.clone() };
        let router = Router::new()
            .route("/healthz", get(health))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics_page))
            .route("/loops", get(loop_states))
            .with_state(Arc::new(page));
        info!(name, %address, "admin port open");
        loops.spawn_loop("metrics-upkeep", UPKEEP_EVERY, || {
            telemetry::metrics_upkeep();
            std::future::ready(Ok::<_, std::convert::Infallible>(Step::Idle))
        });
        loops.spawn("admin", async move {
            // Pages are short: whoever still reads when the process ends is cut off by the outer select.
            let served = axum::serve(listener, router);
            if let Some(Err(error)) = shutdown.or(served.into_future()).await {
                error!(%error, "admin port closed");
            }
        });
        Ok(address)
    }
}

async fn health(State(page): State<Arc<Page>>) -> Response {
    let dead = page.loops.panicked();
    let status = if dead.is_empty() { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
    (status, Json(json!({ "name": page.name, "healthy": dead.is_empty(), "panicked-loops": dead })))
        .into_response()
}

async fn ready(State(page): State<Arc<Page>>) -> Response {
    let readiness = if page.shutdown.is_triggered() {
        Readiness::NotReady { reason: "shutting down".to_owned() }
    } else {
        (page.readiness)()
    };
    match readiness {
        Readiness::Ready => {
            (StatusCode::OK, Json(json!({ "name": page.name, "ready": true }))).into_response()
        }
        Readiness::NotReady { reason } => {
            let body = json!({ "name": page.name, "ready": false, "reason": reason });
            (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
        }
    }
}

async fn metrics_page() -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], telemetry::render_metrics()).into_response()
}

async fn loop_states(State(page): State<Arc<Page>>) -> Response {
    Json(page.loops.report()).into_response()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::SystemRandom;

    async fn page(address: SocketAddr, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn the_pages_tell_the_truth() {
        let shutdown = Shutdown::new();
        let loops = Background::new(shutdown.clone(), Arc::new(SystemRandom));
        let flag = ReadyFlag::new();
        let address =
            Admin::serve("127.0.0.1:0", "w1", flag.probe(), &loops, shutdown.clone()).await.unwrap();
        assert!(page(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        assert!(page(address, "/readyz").await.starts_with("HTTP/1.1 503"));
        flag.set_ready();
        assert!(page(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        assert!(page(address, "/metrics").await.starts_with("HTTP/1.1 200"));
        assert!(page(address, "/loops").await.contains("\"name\":\"admin\""));
        let taken = Admin::serve(&address.to_string(), "w2", flag.probe(), &loops, shutdown.clone()).await;
        assert!(taken.unwrap_err().to_string().contains(&address.to_string()));
        shutdown.trigger();
        loops.join(Duration::from_secs(5)).await;
    }
}
