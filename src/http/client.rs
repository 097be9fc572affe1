//! The command line's end of the socket: one request, one answer, and no decision about either.

use std::io;
use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

/// A daemon that runs accepts at once.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// The longest that an answer may take: a replay of many journals, or an order behind a slow disk.
const ANSWER_LIMIT: Duration = Duration::from_secs(600);
/// More than any page; what is longer is a mistake.
const ANSWER_BYTES: usize = 512 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no daemon answers at the socket: {0}")]
    Unreachable(io::Error),
    #[error("the daemon at the socket runs as user {theirs}, not as this one")]
    Stranger { theirs: u32 },
    #[error("the daemon did not answer: {0}")]
    Broken(String),
}

#[derive(Debug)]
pub struct Client {
    runtime: tokio::runtime::Runtime,
    sender: hyper::client::conn::http1::SendRequest<Full<Bytes>>,
}

/// The status and the text of an answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub text: String,
}

impl Client {
    pub fn connect(socket: &Path) -> Result<Client, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| ClientError::Broken(error.to_string()))?;
        let sender = runtime.block_on(async {
            let connecting = tokio::time::timeout(CONNECT_LIMIT, UnixStream::connect(socket));
            let stream = connecting
                .await
                .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)))
                .map_err(ClientError::Unreachable)?;
            check_peer(&stream)?;
            let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|error| ClientError::Broken(error.to_string()))?;
            tokio::spawn(connection);
            Ok(sender)
        })?;
        Ok(Client { runtime, sender })
    }

    pub fn get(&mut self, path: &str, query: &str) -> Result<Answer, ClientError> {
        let target = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
        self.ask("GET", &target, Bytes::new())
    }

    pub fn post(&mut self, path: &str, body: &Value) -> Result<Answer, ClientError> {
        self.ask("POST", path, Bytes::from(body.to_string()))
    }

    fn ask(&mut self, method: &str, target: &str, body: Bytes) -> Result<Answer, ClientError> {
        let request = hyper::Request::builder()
            .method(method)
            .uri(target)
            .header("host", "sagad")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(|error| ClientError::Broken(error.to_string()))?;
        let sender = &mut self.sender;
        self.runtime.block_on(async {
            let broken = |error: String| ClientError::Broken(error);
            let asking = async {
                let response = sender.send_request(request).await.map_err(|error| broken(error.to_string()))?;
                let status = response.status().as_u16();
                let body = Limited::new(response.into_body(), ANSWER_BYTES);
                let bytes = body.collect().await.map_err(|error| broken(error.to_string()))?.to_bytes();
                let text = String::from_utf8(bytes.to_vec()).map_err(|error| broken(error.to_string()))?;
                Ok(Answer { status, text })
            };
            tokio::time::timeout(ANSWER_LIMIT, asking)
                .await
                .unwrap_or_else(|_| Err(broken(format!("nothing came for {} s", ANSWER_LIMIT.as_secs()))))
        })
    }
}

/// In a folder that all may write to, anybody may listen: orders go to the own user's daemon alone.
fn check_peer(stream: &UnixStream) -> Result<(), ClientError> {
    let theirs = stream.peer_cred().map_err(ClientError::Unreachable)?.uid();
    let ours = rustix::process::geteuid().as_raw();
    if theirs == ours || theirs == 0 || ours == 0 { Ok(()) } else { Err(ClientError::Stranger { theirs }) }
}
