//! One connection to the broker: probed first, then opened, each within its time, and every failure in plain words.
//!
//! The client's own connect hangs for ever on a peer that says nothing, and its own recovery hides an outage: so the
//! peer is asked for its first frame before the client sees it, and recovery stays off. Who reconnects is in
//! `consumer`, `publisher` and `dead`.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lapin::tcp::{OwnedIdentity, OwnedTLSConfig};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Connection, ConnectionProperties};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::words::plain;
use crate::bus::BusConfig;

/// How long a peer may take for its first frame; a broker answers in milliseconds.
const PROBE_TIME: Duration = Duration::from_secs(5);
/// How long the whole of logging in may take.
const CONNECT_TIME: Duration = Duration::from_secs(15);
/// A dead peer is known after two of these; shorter ones end connections of a broker that is merely busy.
const HEARTBEAT_S: u16 = 10;
/// How long a connection may take to be closed in order, before it is dropped.
const CLOSE_TIME: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("{0}")]
    Url(#[from] super::url::UrlError),
    #[error("cannot read {key} {}: {error}", path.display())]
    File { key: &'static str, path: PathBuf, error: std::io::Error },
    #[error("bus.{0} is missing: a certificate and its key belong together")]
    HalfIdentity(&'static str),
    #[error("no connection to {at}: {error}")]
    Unreachable { at: String, error: std::io::Error },
    #[error("{at} takes the connection and says nothing: no answer within {} s", PROBE_TIME.as_secs())]
    Mute { at: String },
    #[error("{at} closes the connection at once: a broker that is going, or a port that speaks TLS (amqps://)")]
    Closed { at: String },
    #[error("{at} speaks TLS; write amqps:// in bus.url")]
    SpeaksTls { at: String },
    #[error("{at} does not speak AMQP 0-9-1")]
    NotAmqp { at: String },
    #[error("{at} did not log us in within {} s", CONNECT_TIME.as_secs())]
    Slow { at: String },
    #[error("the broker refuses user '{user}' or the password")]
    Refused { user: String },
    #[error("the broker does not let user '{user}' into vhost '{vhost}', or there is no such vhost")]
    NoVhost { user: String, vhost: String },
    #[error("TLS with {at}: {error}")]
    Tls { at: String, error: String },
    #[error("{0}")]
    Broker(String),
}

/// Opens connections by the configuration. Certificates are read anew each time, so that renewed ones are taken.
#[derive(Clone, Debug)]
pub struct Connector {
    config: BusConfig,
    /// Told to the broker, so that its operator sees whose connection it is.
    name: String,
}

impl Connector {
    pub fn new(config: &BusConfig, name: &str) -> Connector {
        Connector { config: config.clone(), name: name.to_owned() }
    }

    pub async fn connect(&self) -> Result<Connection, ConnectError> {
        let mut uri = self.config.url.target()?;
        uri.query.heartbeat.get_or_insert(HEARTBEAT_S);
        let at = format!("{}:{}", uri.authority.host, uri.authority.port);
        let tls = self.tls()?;
        probe(&uri, &at).await?;
        let properties = ConnectionProperties::default()
            .with_connection_name(self.name.as_str().into())
            .with_client_property("product".into(), "sagad".into())
            .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into());
        let runtime = lapin::runtime::default_runtime().map_err(|error| ConnectError::Broker(plain(&error)))?;
        let opened = Connection::connect_uri_with_config(uri.clone(), properties, tls, runtime);
        match timeout(CONNECT_TIME, opened).await {
            Err(_) => Err(ConnectError::Slow { at }),
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(explain(&error, &uri, at)),
        }
    }

    fn tls(&self) -> Result<OwnedTLSConfig, ConnectError> {
        let config = &self.config;
        let identity = match (&config.cert_file, &config.key_file) {
            (None, None) => None,
            (Some(_), None) => return Err(ConnectError::HalfIdentity("key_file")),
            (None, Some(_)) => return Err(ConnectError::HalfIdentity("cert_file")),
            (Some(cert), Some(key)) => {
                Some(OwnedIdentity::PKCS8 { pem: read("bus.cert_file", cert)?, key: read("bus.key_file", key)? })
            }
        };
        let cert_chain = match &config.ca_file {
            None => None,
            Some(path) => {
                let file = |error| ConnectError::File { key: "bus.ca_file", path: path.clone(), error };
                let text = String::from_utf8(read("bus.ca_file", path)?);
                Some(text.map_err(|_| file(std::io::Error::other("it is no PEM file")))?)
            }
        };
        Ok(OwnedTLSConfig { identity, cert_chain })
    }
}

/// Ends a connection in order if the broker still listens.
pub async fn close(connection: Connection) {
    // One that is gone already is closed enough.
    drop(timeout(CLOSE_TIME, connection.close(200, "bye".into())).await);
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, ConnectError> {
    std::fs::read(path).map_err(|error| ConnectError::File { key, path: path.to_owned(), error })
}

/// Whether somebody is there who speaks AMQP. Behind TLS only whether somebody is there.
async fn probe(uri: &AMQPUri, at: &str) -> Result<(), ConnectError> {
    let unreachable = |error| ConnectError::Unreachable { at: at.to_owned(), error };
    let mute = || ConnectError::Mute { at: at.to_owned() };
    let target = (uri.authority.host.as_str(), uri.authority.port);
    let opened = timeout(PROBE_TIME, TcpStream::connect(target)).await;
    let late = || std::io::Error::new(ErrorKind::TimedOut, "nobody answers");
    let mut stream = opened.unwrap_or_else(|_| Err(late())).map_err(unreachable)?;
    if uri.scheme == AMQPScheme::AMQPS {
        return Ok(());
    }
    let asked = async {
        stream.write_all(b"AMQP\x00\x00\x09\x01").await?;
        let mut start = [0_u8; 11];
        stream.read_exact(&mut start).await.map(|_| start)
    };
    let start = match timeout(PROBE_TIME, asked).await {
        Err(_) => return Err(mute()),
        Ok(Err(error)) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
            return Err(ConnectError::Closed { at: at.to_owned() });
        }
        Ok(Err(error)) => return Err(unreachable(error)),
        Ok(Ok(start)) => start,
    };
    match start {
        // A method frame on channel 0, Connection.Start.
        [1, 0, 0, _, _, _, _, 0, 10, 0, 10] => Ok(()),
        [21, 3, ..] => Err(ConnectError::SpeaksTls { at: at.to_owned() }),
        _ => Err(ConnectError::NotAmqp { at: at.to_owned() }),
    }
}

fn explain(error: &lapin::Error, uri: &AMQPUri, at: String) -> ConnectError {
    let user = || uri.authority.userinfo.username.clone();
    match error.kind() {
        lapin::ErrorKind::ProtocolError(amqp) if amqp.get_id() == 403 => ConnectError::Refused { user: user() },
        lapin::ErrorKind::ProtocolError(amqp) if amqp.get_id() == 530 => {
            ConnectError::NoVhost { user: user(), vhost: uri.vhost.clone() }
        }
        lapin::ErrorKind::IOError(io) if uri.scheme == AMQPScheme::AMQPS => {
            ConnectError::Tls { at, error: tls_words(&io.to_string()) }
        }
        _ => ConnectError::Broker(plain(error)),
    }
}

/// What the TLS library says, for somebody who has to mend it.
fn tls_words(error: &str) -> String {
    let known = [
        ("InvalidContentType", "this port does not speak TLS; write amqp:// in bus.url, or another port"),
        ("UnknownIssuer", "the broker's certificate is signed by nobody we know; name its authority in bus.ca_file"),
        ("NotValidForName", "the broker's certificate is for another name than the host in bus.url"),
        ("Expired", "the broker's certificate has expired"),
        ("NotValidYet", "the broker's certificate is not valid yet; is the clock right?"),
        ("CertificateRequired", "the broker asks for a certificate; name bus.cert_file and bus.key_file"),
        ("HandshakeFailure", "the broker refuses the handshake; does it ask for a certificate (bus.cert_file)?"),
        ("UnknownCA", "the broker does not know who signed bus.cert_file"),
        ("BadCertificate", "the broker refuses bus.cert_file"),
    ];
    let words = known.iter().find(|(mark, _)| error.contains(mark));
    words.map_or_else(|| error.to_owned(), |(_, words)| (*words).to_owned())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::bus::BrokerUrl;

    /// A peer on a port of its own that answers the first bytes with `answer`, and then nothing.
    async fn peer(answer: &'static [u8]) -> BusConfig {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let mut kept = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                stream.write_all(answer).await.unwrap();
                kept.push(stream);
            }
        });
        let url = BrokerUrl::parse(&format!("amqp://app:s3cret@127.0.0.1:{port}")).unwrap();
        BusConfig { url, ..BusConfig::default() }
    }

    async fn error(config: &BusConfig) -> String {
        Connector::new(config, "test").connect().await.unwrap_err().to_string()
    }

    /// Takes as long as the probe.
    #[tokio::test]
    async fn a_peer_that_says_nothing_is_given_up() {
        let text = error(&peer(b"").await).await;
        assert!(text.contains("says nothing"), "{text}");
    }

    #[tokio::test]
    async fn a_peer_that_is_no_broker_is_named() {
        let text = error(&peer(b"\x15\x03\x01\x00\x02\x02\x16....").await).await;
        assert!(text.contains("amqps://"), "{text}");
        let text = error(&peer(b"HTTP/1.1 400 Bad Request").await).await;
        assert!(text.contains("does not speak AMQP"), "{text}");
        let text = error(&peer(b"AMQP\x00\x01\x00\x00....").await).await;
        assert!(text.contains("does not speak AMQP"), "{text}");
    }

    #[tokio::test]
    async fn nobody_there_is_said_with_the_address_and_without_the_password() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let url = BrokerUrl::parse(&format!("amqp://app:s3cret@127.0.0.1:{port}")).unwrap();
        let text = error(&BusConfig { url, ..BusConfig::default() }).await;
        assert!(text.contains(&format!("127.0.0.1:{port}")) && !text.contains("s3cret"), "{text}");
    }

    #[tokio::test]
    async fn half_an_identity_and_files_that_are_not_there_are_told() {
        let config = BusConfig { cert_file: Some("cert.pem".into()), ..BusConfig::default() };
        assert!(error(&config).await.contains("bus.key_file"));
        let config = BusConfig { ca_file: Some("/nowhere/ca.pem".into()), ..BusConfig::default() };
        assert!(error(&config).await.contains("/nowhere/ca.pem"));
    }

    #[tokio::test]
    async fn amqps_to_a_plain_port_is_said_in_plain_words() {
        let mut config = peer(b"AMQP\x00\x00\x09\x01").await;
        config.url = BrokerUrl::parse(&config.url.to_string().replace("amqp://app:***@", "amqps://")).unwrap();
        let text = error(&config).await;
        assert!(text.contains("does not speak TLS"), "{text}");
    }
}
