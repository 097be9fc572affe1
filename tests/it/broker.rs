//! A RabbitMQ node of the test's own: free ports, a data folder, a node name and an epmd that nobody else uses. It is
//! ended by its process id, also when the test process dies: a guard beside it waits for that.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a node that cannot be driven fails its test, and a test waits by the clock"
)]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use lapin::options::{BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use sagad::bus::{BrokerUrl, BusConfig};

/// How long a node may take to come up on a machine that is busy with other tests.
const START_TIME: Duration = Duration::from_secs(120);
const STOP_TIME: Duration = Duration::from_secs(60);

pub struct Broker {
    folder: PathBuf,
    node: String,
    pub port: u16,
    dist_port: u16,
    epmd_port: u16,
    epmd: Child,
    running: Mutex<Option<Running>>,
}

struct Running {
    process: Child,
    /// Its input is ours: when that closes, it kills the node.
    guard: Child,
}

impl Broker {
    /// A node of one's own, for tests that stop or kill it.
    pub fn start() -> Broker {
        Broker::with(|_| String::new())
    }

    /// A node of one's own that takes TLS alone, and only clients with a certificate of the authority `ca.pem`; it and
    /// `client.pem` with `client.key` lie in the node's folder.
    pub fn with_tls() -> Broker {
        Broker::with(|folder| {
            make_certificates(folder);
            let file = |name: &str| folder.join(name).display().to_string();
            format!(
                "ssl_options.cacertfile = {}\nssl_options.certfile = {}\nssl_options.keyfile = {}\n\
                 ssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true\n",
                file("ca.pem"),
                file("server.pem"),
                file("server.key")
            )
        })
    }

    fn with(settings: impl Fn(&Path) -> String) -> Broker {
        let folder = tempfile::Builder::new().prefix("sagad-broker-").tempdir().unwrap().keep();
        let (port, dist_port, epmd_port) = (free_port(), free_port(), free_port());
        let epmd = Command::new(program("epmd"))
            .args(["-port", &epmd_port.to_string(), "-address", "127.0.0.1"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("epmd comes with RabbitMQ; see CONTRIBUTING.md");
        let node = format!("sagad-{}-{port}@localhost", std::process::id());
        configure(&folder, port, &settings(&folder));
        let broker = Broker { folder, node, port, dist_port, epmd_port, epmd, running: Mutex::new(None) };
        broker.begin();
        broker
    }

    /// A node for all tests of this process that leave it alone. Names must be the test's own.
    pub fn shared() -> Arc<Broker> {
        static SHARED: OnceLock<Arc<Broker>> = OnceLock::new();
        Arc::clone(SHARED.get_or_init(|| Arc::new(Broker::start())))
    }

    /// Starts the node again, on its port and with its data, and waits until it answers.
    pub fn begin(&self) {
        let mut running = self.running.lock().unwrap();
        assert!(running.is_none(), "the node runs already");
        let log = fs::File::create(self.folder.join("console.log")).unwrap();
        let process = self
            .command("rabbitmq-server")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("RabbitMQ is installed; see CONTRIBUTING.md");
        let pids = format!("{} {}", process.id(), self.epmd.id());
        let folder = self.folder.display();
        // The pids are our own children's; once they have been waited for, the guard has been ended before.
        let guard = Command::new("sh")
            .args(["-c", &format!("cat >/dev/null; kill -9 {pids} 2>/dev/null; sleep 1; rm -rf '{folder}'")])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        *running = Some(Running { process, guard });
        drop(running);
        self.await_ready();
    }

    fn await_ready(&self) {
        let until = Instant::now() + START_TIME;
        while !self.answers() {
            assert!(Instant::now() < until, "the node does not come up:\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Whether it speaks AMQP, or TLS where it is to.
    pub fn answers(&self) -> bool {
        use std::io::{Read as _, Write as _};
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let mut first = [0_u8; 1];
        stream.write_all(b"AMQP\x00\x00\x09\x01").is_ok()
            && stream.read_exact(&mut first).is_ok()
            && matches!(first[0], 1 | 21)
    }

    /// Ends it in order.
    pub fn stop(&self) {
        self.signal("TERM");
        self.reap(STOP_TIME);
    }

    /// Ends it without a word.
    pub fn kill(&self) {
        self.signal("KILL");
        self.reap(STOP_TIME);
    }

    /// It holds everything and does nothing.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    pub fn thaw(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let running = self.running.lock().unwrap();
        let process = &running.as_ref().expect("the node runs").process;
        let pid = rustix::process::Pid::from_child(process);
        let signal = match name {
            "TERM" => rustix::process::Signal::TERM,
            "KILL" => rustix::process::Signal::KILL,
            "STOP" => rustix::process::Signal::STOP,
            "CONT" => rustix::process::Signal::CONT,
            other => panic!("no signal {other}"),
        };
        rustix::process::kill_process(pid, signal).unwrap();
    }

    fn reap(&self, limit: Duration) {
        let Some(mut running) = self.running.lock().unwrap().take() else { return };
        running.guard.kill().unwrap();
        running.guard.wait().unwrap();
        let until = Instant::now() + limit;
        while running.process.try_wait().unwrap().is_none() {
            if Instant::now() > until {
                running.process.kill().unwrap();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The broker's own command line tool.
    pub fn ctl(&self, arguments: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.command("rabbitmqctl").args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&stdout).into_owned();
        assert!(status.success(), "rabbitmqctl {arguments:?}: {text}{}", String::from_utf8_lossy(&stderr));
        text
    }

    fn command(&self, script: &str) -> Command {
        let folder = |name: &str| self.folder.join(name);
        let mut command = Command::new(program(script));
        command
            .env("HOME", &self.folder)
            .env("RABBITMQ_NODENAME", &self.node)
            .env("RABBITMQ_DIST_PORT", self.dist_port.to_string())
            .env("ERL_EPMD_PORT", self.epmd_port.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_MNESIA_BASE", folder("data"))
            // A folder of its own: the node enables its features only where it finds it empty.
            .env("RABBITMQ_MNESIA_DIR", folder("data").join("node"))
            .env("RABBITMQ_LOG_BASE", folder("log"))
            .env("RABBITMQ_LOGS", folder("log").join("node.log"))
            .env("RABBITMQ_CONFIG_FILE", folder("rabbitmq.conf"))
            .env("RABBITMQ_CONF_ENV_FILE", folder("no-env.conf"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder("plugins"))
            .env("RABBITMQ_PID_FILE", folder("pid"))
            // Two schedulers that sleep when there is nothing to do: the machine is shared with the test.
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none")
            // Without a shell around it, the process is the node.
            .env("RUNNING_UNDER_SYSTEMD", "true")
            .env_remove("NOTIFY_SOCKET");
        command
    }

    pub fn url(&self) -> String {
        format!("amqp://127.0.0.1:{}", self.port)
    }

    /// A virtual host of the test's own, by its URL: there the default names are free.
    pub fn vhost(&self, name: &str) -> String {
        self.ctl(&["add_vhost", name]);
        self.ctl(&["set_permissions", "-p", name, "guest", ".*", ".*", ".*"]);
        format!("{}/{name}", self.url())
    }

    /// A configuration whose names begin with `prefix`, so that tests on one node do not meet.
    pub fn config(&self, prefix: &str) -> BusConfig {
        BusConfig {
            url: BrokerUrl::parse(&self.url()).unwrap(),
            queue: format!("{prefix}.sagad"),
            events_exchange: format!("{prefix}.events"),
            commands_exchange: format!("{prefix}.commands"),
            dead: format!("{prefix}.sagad.dead"),
            ..BusConfig::default()
        }
    }

    pub async fn client(&self) -> Client {
        Client::connect(&self.url()).await
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub fn logs(&self) -> String {
        let console = fs::read_to_string(self.folder.join("console.log")).unwrap_or_default();
        let node = fs::read_to_string(self.folder.join("log").join("node.log")).unwrap_or_default();
        let tail: Vec<&str> = node.lines().rev().take(60).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        format!("{console}\n{}", tail.join("\n"))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if self.running.lock().unwrap().is_some() {
            self.kill();
        }
        self.epmd.kill().unwrap();
        self.epmd.wait().unwrap();
        // What is left of a temporary folder harms nobody.
        drop(fs::remove_dir_all(&self.folder));
    }
}

/// A plain client beside the daemon's, as a participant has one.
pub struct Client {
    /// Closes when it is dropped.
    _connection: Connection,
    pub channel: Channel,
}

impl Client {
    pub async fn connect(url: &str) -> Client {
        let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        Client { _connection: connection, channel }
    }

    pub async fn declare_queue(&self, name: &str) {
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        self.channel.queue_declare(name.into(), options, FieldTable::default()).await.unwrap();
    }

    pub async fn bind(&self, queue: &str, exchange: &str, routing_key: &str) {
        let options = lapin::options::QueueBindOptions::default();
        let table = FieldTable::default();
        self.channel.queue_bind(queue.into(), exchange.into(), routing_key.into(), options, table).await.unwrap();
    }

    /// Publishes and waits for the confirm.
    pub async fn publish(&self, exchange: &str, routing_key: &str, properties: BasicProperties, body: &[u8]) {
        let options = BasicPublishOptions::default();
        let confirm = self.channel.basic_publish(exchange.into(), routing_key.into(), options, body, properties);
        assert!(confirm.await.unwrap().await.unwrap().is_ack());
    }

    /// Ready messages and consumers, exact at once.
    pub async fn look(&self, queue: &str) -> (u32, u32) {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let queue = self.channel.queue_declare(queue.into(), options, FieldTable::default()).await.unwrap();
        (queue.message_count(), queue.consumer_count())
    }

    pub async fn get(&self, queue: &str) -> Option<lapin::message::BasicGetMessage> {
        self.channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await.unwrap()
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn configure(folder: &Path, port: u16, more: &str) {
    let listeners = if more.is_empty() {
        format!("listeners.tcp.local = 127.0.0.1:{port}")
    } else {
        format!("listeners.tcp = none\nlisteners.ssl.local = 127.0.0.1:{port}\n{more}")
    };
    let settings = format!(
        "{listeners}\n\
         disk_free_limit.absolute = 1MB\n\
         vm_memory_high_watermark.absolute = 2GB\n\
         heartbeat = 10\n\
         log.file.level = info\n"
    );
    fs::write(folder.join("rabbitmq.conf"), settings).unwrap();
    fs::write(folder.join("plugins"), "[].\n").unwrap();
    fs::create_dir_all(folder.join("log")).unwrap();
}

/// An authority, and a certificate of its own for the node and for a client.
fn make_certificates(folder: &Path) {
    let openssl = |arguments: &[&str]| {
        let made = Command::new("openssl").args(arguments).current_dir(folder).output().expect("openssl is installed");
        assert!(made.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&made.stderr));
    };
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let authority = ["-x509", "-days", "2", "-subj", "/CN=Test", "-keyout", "ca.key", "-out", "ca.pem"];
    openssl(&[&["req"], &key[..], &authority].concat());
    fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n").unwrap();
    for name in ["server", "client"] {
        let (key_file, request, certificate) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.pem"));
        let subject = format!("/CN={name}");
        openssl(&[&["req"], &key[..], &["-subj", &subject, "-keyout", &key_file, "-out", &request]].concat());
        openssl(&[
            "x509",
            "-req",
            "-days",
            "2",
            "-in",
            &request,
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-extfile",
            "names",
            "-out",
            &certificate,
        ]);
    }
}

/// The broker's scripts, without the wrapper that changes the user.
fn program(name: &str) -> PathBuf {
    let found = match name {
        "epmd" => None,
        script => {
            let home = fs::read_dir("/usr/lib/rabbitmq/lib").ok();
            home.and_then(|home| {
                home.filter_map(Result::ok)
                    .map(|entry| entry.path().join("sbin").join(script))
                    .find(|path| path.is_file())
            })
        }
    };
    found.unwrap_or_else(|| PathBuf::from(name))
}
