//! What operators see and order. HTTP carries it, and the command line calls it over the socket or, where no daemon
//! runs, in its own process; neither of them decides anything.
//!
//! Looking needs a [`Reader`](crate::store::Reader) and nothing else; orders go to the engine as inputs like any other.

mod case;
pub mod definitions;
mod journal;
mod live;
mod messages;
pub mod offline;
mod orders;
mod select;
pub mod settings;
mod views;
mod why;
mod words;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use crate::api;
use crate::bus::envelope::Addresses;
use crate::saga::compile;
use crate::saga::instance::DefinitionNo;
use crate::saga::machine::Machine;
use crate::saga::time::Timestamp;
use crate::store::{Reader, StoreError};

pub use live::{Desk, Parts};
pub use orders::Reasons;
pub use words::{Arriving, CountBy, DeskError, InboxLook, Look, Order, Publish, Select, View};

/// What a look needs to know beside the database.
#[derive(Clone, Debug)]
pub struct Scene {
    pub now: Timestamp,
    pub addresses: Addresses,
    /// `None`: none runs.
    pub daemon: Option<api::Daemon>,
    pub broker: api::Broker,
    /// `None`: as the database tells.
    pub definitions: Option<api::DefinitionsLoaded>,
}

/// Looks into a database, over a connection of its own.
#[derive(Debug)]
pub struct Looker {
    reader: Reader,
    /// Definitions of instances that were looked at; `None`: this version cannot load it.
    machines: HashMap<DefinitionNo, Option<Arc<Machine>>>,
}

impl Looker {
    pub fn open(path: &Path) -> Result<Looker, StoreError> {
        Ok(Looker { reader: Reader::open(path)?, machines: HashMap::new() })
    }

    pub fn look(&mut self, scene: &Scene, look: &Look) -> Result<View, DeskError> {
        Ok(match look {
            Look::List { select, after } => View::Instances(self.list(scene, select, after.as_deref())?),
            Look::Show { id } => View::Detail(Box::new(self.show(scene, id)?)),
            Look::Why { id } => View::Why(self.why(scene, id)?),
            Look::Process { saga, key } => View::Process(Box::new(self.process(saga, key)?)),
            Look::Journal { id, reverse, after, limit } => {
                View::Turns(self.journal(scene, id, *reverse, *after, *limit)?)
            }
            Look::Verify { select } => View::Verified(self.verify(scene, select)?),
            Look::Status => View::Status(Box::new(self.status(scene)?)),
            Look::Count { select, by } => View::Counts(self.count(scene, select, by)?),
            Look::Inbox(look) => View::Inbox(self.inbox(scene, look)?),
            Look::Outbox => View::Outbox(self.outbox(scene)?),
            Look::Definitions => View::Definitions(self.definitions()?),
        })
    }

    /// The definition of an instance, as the database keeps it.
    fn machine(&mut self, no: DefinitionNo) -> Result<Option<Arc<Machine>>, StoreError> {
        if let Some(machine) = self.machines.get(&no) {
            return Ok(machine.clone());
        }
        let row = self.reader.definitions()?.into_iter().find(|row| row.no == no);
        let source = self.reader.definition_source(no)?;
        let machine = match (row, source) {
            (Some(row), Some(source)) => compile::compile_stored(&source, &row.file).ok().map(Arc::new),
            _ => None,
        };
        self.machines.insert(no, machine.clone());
        Ok(machine)
    }
}
