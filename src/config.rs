//! What the daemon is told before it starts: a struct per section, the checks in the operator's words, the defaults.
//!
//! Values come from the file, then the environment, then flags; each remembers where it came from. How they are
//! gathered is in `config/gather.rs`, how one is read in `config/keys.rs`. Nothing here prints, and a secret leaves
//! this module only through [`Secret::reveal`].

mod gather;
mod keys;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;

pub use gather::{Flags, Origin, Problem};
use keys::Keys;

use crate::saga::duration::Span;

/// Ids, names of exchanges and queues, and routing keys are short strings on the wire.
const NAME_BYTES: usize = 255;
/// The largest body that RabbitMQ 4 takes.
const BODY_BYTES: u64 = 16 * 1024 * 1024;
/// Deeper JSON than this is not read whatever the configuration says: the stack has an end.
const DEPTH: u64 = 128;

#[derive(Clone, Debug)]
pub struct Config {
    pub bus: Bus,
    pub store: Store,
    pub sagas: Sagas,
    pub engine: Engine,
    pub admin: Admin,
    pub telemetry: Telemetry,
    pub retention: Retention,
    /// Every key with its value as it may be shown, and where that came from; in the order of the documentation.
    pub explained: Vec<Explained>,
    /// The file that was read.
    pub file: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Bus {
    pub url: Secret,
    pub ca_file: Option<PathBuf>,
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    pub queue: String,
    pub queue_type: QueueType,
    pub events_exchange: String,
    pub commands_exchange: String,
    pub dead: String,
    pub declare: bool,
    pub delivery_limit: u32,
    pub prefetch: u16,
    pub max_body: usize,
    pub max_depth: usize,
    pub lifecycle_events: bool,
    pub addresses: IndexMap<String, Address>,
}

/// Where commands for an address go instead of the usual exchange and routing key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub exchange: String,
    /// `None`: the usual one, `<address>.<Command>`.
    pub routing_key: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueType {
    Quorum,
    Classic,
}

impl QueueType {
    pub fn name(self) -> &'static str {
        match self {
            QueueType::Quorum => "quorum",
            QueueType::Classic => "classic",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    pub path: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sagas {
    pub dir: PathBuf,
    /// Somebody named the folder: then it has to be there.
    pub named: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine {
    pub max_batch: usize,
    /// Timers that fire in a second at most, after an outage.
    pub timer_rate: u32,
    pub max_held: usize,
    pub grace: Span,
    pub shutdown_after: Span,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// `None`: beside the database.
    pub socket: Option<PathBuf>,
    pub listen: Option<SocketAddr>,
    pub tls_cert_file: Option<PathBuf>,
    pub tls_key_file: Option<PathBuf>,
    pub require_reason: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telemetry {
    pub log: String,
    pub format: LogFormat,
    pub otlp_endpoint: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    pub ended: Span,
    pub inbox: Span,
    pub orders: Span,
    pub aside: Span,
    pub aside_rows: u64,
}

/// A text that is never printed whole: its `Debug` and its place in `check --explain` hide the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text itself, for who connects with it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The URL with its password (and what may be one in its query) hidden.
    pub fn masked(&self) -> String {
        let text = &self.0;
        let Some(start) = text.find("://").map(|at| at + 3) else { return "***".to_owned() };
        let authority_end = text[start..].find(['/', '?', '#']).map_or(text.len(), |at| start + at);
        let (scheme, authority) = (&text[..start], &text[start..authority_end]);
        let path = text[authority_end..].split(['?', '#']).next().unwrap_or("");
        let query = if text[authority_end..].len() > path.len() { "?***" } else { "" };
        match authority.rsplit_once('@') {
            Some((user, host)) => {
                let user = match user.split_once(':') {
                    Some((name, _)) => format!("{name}:***"),
                    None => user.to_owned(),
                };
                format!("{scheme}{user}@{host}{path}{query}")
            }
            None => format!("{scheme}{authority}{path}{query}"),
        }
    }

    /// Whether a password stands in it.
    pub fn has_password(&self) -> bool {
        let Some(start) = self.0.find("://").map(|at| at + 3) else { return self.0.contains(':') };
        let end = self.0[start..].find(['/', '?', '#']).map_or(self.0.len(), |at| start + at);
        self.0[start..end].rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.masked())
    }
}

/// One line of `check --explain`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    pub key: String,
    /// The value as it would be written in the file; secrets masked, empty where there is none.
    pub value: String,
    pub origin: Origin,
}

impl Config {
    /// The configuration that holds, or everything that is wrong with it.
    pub fn load(flags: &Flags, environment: &[(String, String)]) -> Result<Config, Vec<Problem>> {
        let gathered = gather::gather(flags, environment)?;
        let file = gathered.file.clone();
        let mut keys = Keys::new(gathered);
        let mut config = Config {
            bus: bus(&mut keys),
            store: Store { path: keys.path("store.path", "sagad.db") },
            sagas: Sagas { dir: keys.path("sagas.dir", "sagas"), named: keys.was_given("sagas.dir") },
            engine: engine(&mut keys),
            admin: admin(&mut keys),
            telemetry: telemetry(&mut keys),
            retention: retention(&mut keys),
            explained: Vec::new(),
            file,
        };
        config.check(&mut keys);
        let (explained, problems) = keys.finish();
        config.explained = explained;
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }

    /// Where the daemon listens: beside the database unless the configuration says otherwise.
    pub fn socket(&self) -> Option<&Path> {
        self.admin.socket.as_deref()
    }

    /// What no single value shows.
    fn check(&self, keys: &mut Keys) {
        check_names(&self.bus, keys);
        if self.bus.cert_file.is_some() != self.bus.key_file.is_some() {
            let (there, missing) = if self.bus.cert_file.is_some() {
                ("bus.cert_file", "bus.key_file")
            } else {
                ("bus.key_file", "bus.cert_file")
            };
            keys.problem(
                there,
                format!("'{there}' is given and '{missing}' is not"),
                "a client certificate needs both, the certificate and its key".to_owned(),
            );
        }
        for (key, path) in [
            ("bus.ca_file", &self.bus.ca_file),
            ("bus.cert_file", &self.bus.cert_file),
            ("bus.key_file", &self.bus.key_file),
        ] {
            if let Some(path) = path
                && let Err(error) = std::fs::File::open(path)
            {
                keys.problem(
                    key,
                    format!("'{}' cannot be read: {error}", path.display()),
                    "name a PEM file that the daemon's user may read".to_owned(),
                );
            }
        }
        for (key, given) in [
            ("admin.listen", self.admin.listen.is_some()),
            ("admin.tls_cert_file", self.admin.tls_cert_file.is_some()),
            ("admin.tls_key_file", self.admin.tls_key_file.is_some()),
            ("telemetry.otlp_endpoint", self.telemetry.otlp_endpoint.is_some()),
        ] {
            if given {
                keys.problem(
                    key,
                    format!("'{key}' is not available in this version of sagad"),
                    "leave it out; the admin interface is reached through the Unix socket, logs are on stderr"
                        .to_owned(),
                );
            }
        }
        if tracing_subscriber::EnvFilter::try_new(&self.telemetry.log).is_err() {
            keys.problem(
                "telemetry.log",
                format!("'{}' is not a log filter", self.telemetry.log),
                "write a level such as info or debug, or one per part: info,sagad::bus=debug".to_owned(),
            );
        }
    }
}

fn bus(keys: &mut Keys) -> Bus {
    let url = keys.url("bus.url", "bus.url_file", "amqp://127.0.0.1:5672");
    Bus {
        url,
        ca_file: keys.optional_path("bus.ca_file"),
        cert_file: keys.optional_path("bus.cert_file"),
        key_file: keys.optional_path("bus.key_file"),
        queue: keys.text("bus.queue", "sagad"),
        queue_type: keys.choice("bus.queue_type", &[("quorum", QueueType::Quorum), ("classic", QueueType::Classic)]),
        events_exchange: keys.text("bus.events_exchange", "events"),
        commands_exchange: keys.text("bus.commands_exchange", "commands"),
        dead: keys.text("bus.dead", "sagad.dead"),
        declare: keys.boolean("bus.declare", true),
        delivery_limit: small(keys.number("bus.delivery_limit", 50, 1..=1_000_000)),
        prefetch: u16::try_from(keys.number("bus.prefetch", 512, 1..=65_535)).unwrap_or(u16::MAX),
        max_body: size(keys.bytes("bus.max_body", 1024 * 1024, 1..=BODY_BYTES)),
        max_depth: size(keys.number("bus.max_depth", 64, 1..=DEPTH)),
        lifecycle_events: keys.boolean("bus.lifecycle_events", true),
        addresses: keys.addresses("bus.addresses"),
    }
}

fn engine(keys: &mut Keys) -> Engine {
    Engine {
        max_batch: size(keys.number("engine.max_batch", 256, 1..=100_000)),
        timer_rate: small(keys.number("engine.timer_rate", 2_000, 1..=1_000_000)),
        max_held: size(keys.number("engine.max_held", 10_000, 1..=100_000_000)),
        grace: keys.span("engine.grace", Span::from_secs(5)),
        shutdown_after: keys.span("engine.shutdown_after", Span::from_secs(5)),
    }
}

fn admin(keys: &mut Keys) -> Admin {
    Admin {
        socket: keys.optional_path("admin.socket"),
        listen: keys.optional_address("admin.listen"),
        tls_cert_file: keys.optional_path("admin.tls_cert_file"),
        tls_key_file: keys.optional_path("admin.tls_key_file"),
        require_reason: keys.boolean("admin.require_reason", false),
    }
}

fn telemetry(keys: &mut Keys) -> Telemetry {
    Telemetry {
        log: keys.text("telemetry.log", "info"),
        format: keys.choice("telemetry.format", &[("text", LogFormat::Text), ("json", LogFormat::Json)]),
        otlp_endpoint: keys.optional_text("telemetry.otlp_endpoint"),
    }
}

fn retention(keys: &mut Keys) -> Retention {
    let days = |days: u64| Span::from_secs(days * 86_400);
    Retention {
        ended: keys.span("retention.ended", days(30)),
        inbox: keys.span("retention.inbox", days(7)),
        orders: keys.span("retention.orders", days(400)),
        aside: keys.span("retention.aside", days(30)),
        aside_rows: keys.number("retention.aside_rows", 100_000, 1..=1_000_000_000),
    }
}

fn check_names(bus: &Bus, keys: &mut Keys) {
    for (key, name) in [
        ("bus.queue", &bus.queue),
        ("bus.events_exchange", &bus.events_exchange),
        ("bus.commands_exchange", &bus.commands_exchange),
        ("bus.dead", &bus.dead),
    ] {
        if name.is_empty() || name.len() > NAME_BYTES {
            keys.problem(
                key,
                format!("'{key}' has {} bytes", name.len()),
                format!("a name on the broker has 1 to {NAME_BYTES} bytes"),
            );
        } else if name.starts_with("amq.") {
            keys.problem(
                key,
                format!("'{name}' begins with 'amq.'"),
                "such names belong to the broker; choose another".to_owned(),
            );
        }
    }
    if bus.queue == bus.dead {
        keys.problem(
            "bus.dead",
            format!("'bus.dead' and 'bus.queue' are both '{}'", bus.dead),
            "what passes the delivery limit needs a queue of its own".to_owned(),
        );
    }
}

/// Reads are bounded, so that a value always fits.
fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(file: &str, environment: &[(&str, &str)], flags: Flags) -> Result<Config, Vec<Problem>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sagad.toml");
        std::fs::write(&path, file).unwrap();
        let environment: Vec<_> =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Config::load(&Flags { config: Some(path), ..flags }, &environment)
    }

    fn the_problem(file: &str, environment: &[(&str, &str)]) -> Problem {
        let mut problems = load(file, environment, Flags::default()).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        problems.remove(0)
    }

    fn shipped() -> String {
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/sagad.toml")).unwrap()
    }

    #[test]
    fn the_shipped_file_says_the_defaults_and_explains_every_key() {
        let shipped = shipped();
        let with = load(&shipped, &[], Flags::default()).unwrap();
        let without = load("", &[], Flags::default()).unwrap();
        assert_eq!(with.bus, without.bus);
        assert_eq!(with.store, without.store);
        assert_eq!(with.sagas.dir, without.sagas.dir);
        assert_eq!(with.engine, without.engine);
        assert_eq!(with.admin, without.admin);
        assert_eq!(with.telemetry, without.telemetry);
        assert_eq!(with.retention, without.retention);
        for line in &with.explained {
            let (_, name) = line.key.split_once('.').unwrap();
            let written = shipped.lines().any(|text| text.starts_with(&format!("{name} =")));
            let shown = shipped.lines().any(|text| text.starts_with(&format!("# {name} =")));
            assert!(written != shown, "{} is neither set nor shown, or both", line.key);
            assert_eq!(written, matches!(line.origin, Origin::File { .. }), "{}", line.key);
        }
    }

    #[test]
    fn the_documentation_names_every_key() {
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md")).unwrap();
        for line in load("", &[], Flags::default()).unwrap().explained {
            assert!(page.contains(&format!("`{}`", line.key)), "{} is missing", line.key);
        }
    }

    #[test]
    fn flags_win_over_the_environment_and_that_over_the_file() {
        let file = "[store]\npath = \"a.db\"\n[bus]\nqueue = \"q\"\n[sagas]\ndir = \"x\"\n";
        let environment = [("SAGAD_STORE__PATH", "b.db"), ("SAGAD_SAGAS__DIR", "y")];
        let flags = Flags { db: Some("c.db".into()), ..Flags::default() };
        let config = load(file, &environment, flags).unwrap();
        assert_eq!(config.store.path, PathBuf::from("c.db"));
        assert_eq!(config.sagas.dir, PathBuf::from("y"));
        assert_eq!(config.bus.queue, "q");
        let origin = |key: &str| config.explained.iter().find(|line| line.key == key).unwrap().origin.to_string();
        assert_eq!(origin("store.path"), "--db");
        assert_eq!(origin("sagas.dir"), "$SAGAD_SAGAS__DIR");
        assert!(origin("bus.queue").ends_with("sagad.toml:4"), "{}", origin("bus.queue"));
        assert_eq!(origin("bus.prefetch"), "default");
    }

    #[test]
    fn an_unknown_key_is_an_error_with_its_place_and_what_was_meant() {
        let problem = the_problem("[bus]\nqueue = \"q\"\n  prefech = 3\n", &[]);
        assert_eq!((problem.place.line, problem.place.column), (3, 3));
        assert!(problem.message.contains("bus.prefech"), "{problem:?}");
        assert!(problem.hint.contains("prefetch"), "{problem:?}");
        let problem = the_problem("[buss]\n", &[]);
        assert!(problem.hint.contains("[bus]"), "{problem:?}");
        let problem = the_problem("queue = \"q\"\n", &[]);
        assert!(problem.hint.contains("[bus]"), "{problem:?}");
        let problem = the_problem("", &[("SAGAD_BUS__QUEU", "q")]);
        assert_eq!(problem.file, "$SAGAD_BUS__QUEU");
        assert!(problem.hint.contains("SAGAD_BUS__QUEUE"), "{problem:?}");
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let file = "[bus]\nprefetch = \"many\"\nqueue_type = \"fast\"\nmax_body = \"1 MB\"\n[engine]\ngrace = \"5 seconds\"\nmax_batch = 0\n";
        let problems = load(file, &[("SAGAD_BUS__DECLARE", "maybe")], Flags::default()).unwrap_err();
        assert_eq!(problems.len(), 6, "{problems:#?}");
        assert!(problems.iter().all(|problem| !problem.hint.is_empty()));
        assert!(problems.iter().any(|problem| problem.hint.contains("write 5s")));
    }

    #[test]
    fn a_file_that_is_no_toml_is_one_mistake_at_its_place() {
        let problem = the_problem("[bus]\nqueue = \n", &[]);
        assert_eq!(problem.place.line, 2);
    }

    #[test]
    fn a_secret_may_stand_in_a_file_of_its_own_and_is_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("url");
        std::fs::write(&path, "amqps://me:pa%20ss@host/v?password=x\n").unwrap();
        let config = load(&format!("[bus]\nurl_file = {path:?}\n"), &[], Flags::default()).unwrap();
        assert_eq!(config.bus.url.reveal(), "amqps://me:pa%20ss@host/v?password=x");
        assert_eq!(config.bus.url.masked(), "amqps://me:***@host/v?***");
        let all = format!("{config:?}");
        assert!(!all.contains("pa%20ss") && !all.contains("password=x"), "{all}");
        // Both in one place contradict each other; a later source wins over an earlier one.
        let both = format!("[bus]\nurl = \"amqp://a\"\nurl_file = {path:?}\n");
        assert!(the_problem(&both, &[]).message.contains("both"));
        let file = format!("[bus]\nurl_file = {path:?}\n");
        let config = load(&file, &[("SAGAD_BUS__URL", "amqp://u:p@b")], Flags::default()).unwrap();
        assert_eq!(config.bus.url.reveal(), "amqp://u:p@b");
    }

    #[test]
    fn a_password_in_a_url_is_seen() {
        for (url, has) in [
            ("amqp://h", false),
            ("amqp://h:5672", false),
            ("amqp://u@h:5672/v", false),
            ("amqp://u:p@h", true),
            ("amqp://:p@h", true),
            ("amqp://h/a:b@c", false),
        ] {
            assert_eq!(Secret::new(url).has_password(), has, "{url}");
        }
    }

    #[test]
    fn addresses_are_led_elsewhere_from_file_and_environment() {
        let file = "[bus.addresses]\npayments = { exchange = \"\", routing_key = \"payments.inbox\" }\ncells = { exchange = \"x\" }\n";
        let config = load(file, &[], Flags::default()).unwrap();
        assert_eq!(
            config.bus.addresses["payments"],
            Address { exchange: String::new(), routing_key: Some("payments.inbox".to_owned()) }
        );
        assert_eq!(config.bus.addresses["cells"].routing_key, None);
        let config = load("", &[("SAGAD_BUS__ADDRESSES", "{ a = { exchange = \"x\" } }")], Flags::default()).unwrap();
        assert_eq!(config.bus.addresses["a"].exchange, "x");
        let problem = the_problem("[bus.addresses]\na = { exchang = \"x\" }\n", &[]);
        assert!(problem.message.contains("exchang"), "{problem:?}");
    }

    #[test]
    fn what_this_version_cannot_do_is_refused_and_not_ignored() {
        let problem = the_problem("[admin]\nlisten = \"127.0.0.1:8080\"\n", &[]);
        assert!(problem.message.contains("not available"), "{problem:?}");
    }
}
