//! HTTP under `/v1`: carries the desk over the daemon's Unix socket, and decides nothing.
//!
//! `GET /v1/<verb>` for each verb that looks, `POST /v1/<verb>` for each that acts; parameters have the names of the
//! flags. The answer is the document that the command line prints with `--json`, or an error document.

pub mod client;
pub mod params;
pub mod socket;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::desk::{Desk, DeskError, Look};
use crate::store::StoreError;
use params::Params;

/// An order's body, or an event's: the largest body on the bus, with room for what stands around it.
const BODY_BYTES: usize = 18 * 1024 * 1024;

/// Serves until `stop`; what is under way is finished.
pub async fn serve(
    listener: tokio::net::UnixListener,
    desk: Arc<Desk>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    axum::serve(listener, router(desk)).with_graceful_shutdown(stop.cancelled_owned()).await
}

fn router(desk: Arc<Desk>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/v1/instances/{id}", get(instance))
        .route("/v1/sagas/{saga}/{key}", get(process))
        .route("/v1/events", axum::routing::post(event))
        .route("/v1/{verb}", get(looking).post(acting))
        .fallback(|| async { error(&unknown_path()) })
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .with_state(desk)
}

async fn ready(State(desk): State<Arc<Desk>>) -> Response {
    if desk.is_ready() {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the broker is away\n").into_response()
    }
}

async fn looking(State(desk): State<Arc<Desk>>, Path(verb): Path<String>, RawQuery(query): RawQuery) -> Response {
    let asked = Params::of_query(query.as_deref().unwrap_or("")).and_then(|params| params::to_look(&verb, params));
    match asked {
        Ok(Some(look)) => answer(desk.look(look).await),
        Ok(None) => error(&unknown_path()),
        Err(wrong) => error(&wrong),
    }
}

async fn instance(State(desk): State<Arc<Desk>>, Path(id): Path<String>) -> Response {
    answer(desk.look(Look::Show { id }).await)
}

async fn process(State(desk): State<Arc<Desk>>, Path((saga, key)): Path<(String, String)>) -> Response {
    answer(desk.look(Look::Process { saga, key }).await)
}

async fn acting(State(desk): State<Arc<Desk>>, Path(verb): Path<String>, body: Bytes) -> Response {
    match act(&desk, &verb, &body).await {
        Ok(response) => response,
        Err(wrong) => error(&wrong),
    }
}

async fn act(desk: &Desk, verb: &str, body: &[u8]) -> Result<Response, DeskError> {
    let params = Params::of_body(body)?;
    match verb {
        "publish" => {
            let event = params::to_publish(params)?;
            Ok(document(StatusCode::OK, &desk.publish(event).await?))
        }
        "reload" => {
            params.finish()?;
            let reloaded = desk.reload().await?;
            let wrong = reloaded.diagnostics.iter().any(|diagnostic| diagnostic.severity == "error");
            let status = if wrong { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
            Ok(document(status, &reloaded))
        }
        _ => match params::to_order(verb, params)? {
            Some(order) => Ok(document(StatusCode::OK, &desk.order(order).await?)),
            None => Err(unknown_path()),
        },
    }
}

/// `POST /v1/events`: an event without a broker.
async fn event(State(desk): State<Arc<Desk>>, body: Bytes) -> Response {
    let taken = async {
        let event = params::to_event(Params::of_body(&body)?)?;
        desk.accept(event).await
    };
    match taken.await {
        Ok(id) => document(StatusCode::ACCEPTED, &id),
        Err(wrong) => error(&wrong),
    }
}

fn answer(view: Result<crate::desk::View, DeskError>) -> Response {
    match view {
        Ok(view) => json(StatusCode::OK, view.json()),
        Err(wrong) => error(&wrong),
    }
}

fn document(status: StatusCode, document: &impl Serialize) -> Response {
    json(status, serde_json::to_string(document).expect("documents always serialise"))
}

fn json(status: StatusCode, mut text: String) -> Response {
    text.push('\n');
    (status, [(header::CONTENT_TYPE, "application/json")], text).into_response()
}

fn error(wrong: &DeskError) -> Response {
    let status = match wrong {
        DeskError::Usage { .. } => StatusCode::BAD_REQUEST,
        DeskError::NotFound { .. } => StatusCode::NOT_FOUND,
        DeskError::Store(StoreError::TooMuch) => StatusCode::UNPROCESSABLE_ENTITY,
        DeskError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        DeskError::Store(_) | DeskError::Failed { .. } => StatusCode::INTERNAL_SERVER_ERROR,
    };
    document(status, &wrong.document())
}

fn unknown_path() -> DeskError {
    DeskError::not_found("there is nothing at this path", "the paths are /v1/<verb>, as in sagad --help")
}
