//! How a verb reaches the sagas: over the socket of the daemon that has the database, or in its own process.

use serde::de::DeserializeOwned;

use super::exit::{Exit, Failure};
use crate::api;
use crate::config::Config;
use crate::desk::{DeskError, Look, Order, Publish, Scene, View, offline};
use crate::engine::wall_clock;
use crate::http::client::{Answer, Client, ClientError};
use crate::http::params;
use crate::saga::event::Verb;
use crate::store::{Holder, StoreError};

pub struct Reach {
    config: Config,
    scene: Scene,
    link: Link,
}

enum Link {
    Daemon(Client),
    /// Nobody has the database.
    Alone,
    /// Somebody has it and does not answer: looking works all the same.
    Deaf {
        holder: Holder,
        error: Option<ClientError>,
    },
}

impl Reach {
    /// For what needs a database.
    pub fn open(config: Config) -> Result<Reach, Failure> {
        if !config.store.path.exists() {
            let error = StoreError::Missing { path: config.store.path.clone() };
            return Err(told(&DeskError::Store(error)));
        }
        Reach::for_publishing(config)
    }

    /// Without a daemon publishing goes straight to the broker, and needs no database.
    pub fn for_publishing(config: Config) -> Result<Reach, Failure> {
        let holder = offline::holder(&config).map_err(|error| told(&DeskError::Store(error)))?;
        let link = match holder {
            None => Link::Alone,
            Some(holder) => match holder.socket.as_deref().map(Client::connect) {
                Some(Ok(client)) => Link::Daemon(client),
                Some(Err(error)) => Link::Deaf { holder, error: Some(error) },
                None => Link::Deaf { holder, error: None },
            },
        };
        let scene = offline::scene(&config, wall_clock()).map_err(|error| told(&error))?;
        Ok(Reach { config, scene, link })
    }

    pub fn look(&mut self, look: &Look) -> Result<View, Failure> {
        match &mut self.link {
            Link::Daemon(client) => {
                let (path, params) = params::of_look(look);
                let answer = client.get(&path, &params.to_query()).map_err(|error| broken(&error))?;
                let text = document(answer)?;
                View::read(look, &text).map_err(|error| strange(&error))
            }
            Link::Alone | Link::Deaf { .. } => {
                self.scene.now = wall_clock();
                offline::look(&self.config, &self.scene, look).map_err(|error| told(&error))
            }
        }
    }

    pub fn order(&mut self, order: &Order) -> Result<api::Orders, Failure> {
        match &mut self.link {
            Link::Daemon(client) => {
                let path = format!("/v1/{}", verb(&order.verb));
                post(client, &path, &params::of_order(order).to_body())
            }
            Link::Alone => offline::order(&self.config, &self.scene, order).map_err(|error| told(&error)),
            Link::Deaf { holder, error } => Err(deaf(&self.config, holder, error.as_ref())),
        }
    }

    pub fn publish(&mut self, event: Publish) -> Result<api::Published, Failure> {
        match &mut self.link {
            Link::Daemon(client) => post(client, "/v1/publish", &params::of_publish(&event).to_body()),
            Link::Alone => offline::publish(&self.config, event, wall_clock()).map_err(|error| told(&error)),
            Link::Deaf { holder, error } => Err(deaf(&self.config, holder, error.as_ref())),
        }
    }

    pub fn reload(&mut self) -> Result<api::Reloaded, Failure> {
        match &mut self.link {
            Link::Daemon(client) => {
                let empty = serde_json::Value::Object(serde_json::Map::new());
                let answer = client.post("/v1/reload", &empty).map_err(|error| broken(&error))?;
                // Wrong definitions are an answer, not an error.
                if answer.status == 200 || answer.status == 422 {
                    return serde_json::from_str(&answer.text).map_err(|error| strange(&error));
                }
                Err(refusal(&answer))
            }
            Link::Alone => Err(Failure::new(Exit::NoDatabase, "no daemon runs, so there is nothing to load again")
                .hint("definitions are read when it starts; sagad check tells whether they are right")),
            Link::Deaf { holder, error } => Err(deaf(&self.config, holder, error.as_ref())),
        }
    }
}

/// What the desk says, with its exit code.
pub fn told(error: &DeskError) -> Failure {
    let exit = match error {
        DeskError::Usage { .. } => Exit::Usage,
        DeskError::NotFound { .. } => Exit::NotFound,
        DeskError::Store(StoreError::Missing { .. } | StoreError::Held { .. } | StoreError::Busy { .. }) => {
            Exit::NoDatabase
        }
        DeskError::Store(_) | DeskError::Failed { .. } | DeskError::Stopping => Exit::Failed,
    };
    let failure = Failure::new(exit, error.to_string());
    let hint = match error {
        DeskError::Store(StoreError::Missing { .. }) => {
            Some("start the daemon (sagad run), or name another database with --db")
        }
        other => other.hint(),
    };
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn verb(verb: &Verb) -> &'static str {
    verb.name()
}

fn post<T: DeserializeOwned>(client: &mut Client, path: &str, body: &serde_json::Value) -> Result<T, Failure> {
    let text = document(client.post(path, body).map_err(|error| broken(&error))?)?;
    serde_json::from_str(&text).map_err(|error| strange(&error))
}

fn document(answer: Answer) -> Result<String, Failure> {
    if answer.status < 300 { Ok(answer.text) } else { Err(refusal(&answer)) }
}

fn refusal(answer: &Answer) -> Failure {
    let Ok(told) = serde_json::from_str::<api::Error>(&answer.text) else {
        return Failure::new(Exit::Failed, format!("the daemon answered {}", answer.status));
    };
    let exit = match told.error.code.as_str() {
        "usage" => Exit::Usage,
        "not-found" => Exit::NotFound,
        "conflict" => Exit::Conflict,
        "not-allowed" => Exit::NotAllowed,
        _ => Exit::Failed,
    };
    let failure = Failure::new(exit, told.error.message);
    match told.error.hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn broken(error: &ClientError) -> Failure {
    Failure::new(Exit::Failed, error.to_string()).hint("sagad status tells whether the daemon still runs")
}

/// A document that this version does not understand.
fn strange(error: &serde_json::Error) -> Failure {
    Failure::new(Exit::Failed, format!("the daemon's answer is not understood: {error}"))
        .hint("daemon and command line are of different versions")
}

fn deaf(config: &Config, holder: &Holder, error: Option<&ClientError>) -> Failure {
    let why = error.map_or_else(|| "it takes no orders".to_owned(), ToString::to_string);
    let path = config.store.path.display();
    Failure::new(Exit::NoDatabase, format!("the database {path} belongs to pid {} and {why}", holder.pid))
        .hint("wait until it has ended or has started, and try again")
}
