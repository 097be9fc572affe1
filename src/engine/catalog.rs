//! The definitions in memory: the newest of each saga, older ones that instances still need, and which of them are to
//! be asked about a type of message. What cannot be loaded is known too, with the reason.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use indexmap::IndexMap;

use super::Consumed;
use crate::saga::instance::DefinitionNo;
use crate::saga::machine::{Actions, Digest, Machine};
use crate::store::SagaNo;

/// One saga: its definitions, and its number in the store.
#[derive(Clone, Debug)]
pub struct Saga {
    pub no: SagaNo,
    pub name: String,
    /// What new instances take; `None`: its file is gone, nothing new starts.
    pub newest: Option<DefinitionNo>,
    /// All that have live or settling instances, the newest among them or not; in the order in which they are asked.
    pub versions: Vec<DefinitionNo>,
}

/// A definition of the store's, as far as it could be loaded.
#[derive(Clone, Debug)]
pub enum Loaded {
    Machine(Arc<Machine>),
    /// This version of the daemon cannot load it; its instances are stopped by an incident.
    Broken {
        saga: String,
        error: String,
    },
}

impl Loaded {
    pub fn machine(&self) -> Option<&Machine> {
        match self {
            Loaded::Machine(machine) => Some(machine),
            Loaded::Broken { .. } => None,
        }
    }
}

#[derive(Debug, Default)]
pub struct Catalog {
    definitions: HashMap<DefinitionNo, Loaded>,
    sagas: BTreeMap<String, Saga>,
    /// Sagas that name a type in `start` or `events` of any version.
    openings: HashMap<String, Vec<String>>,
    consumed: Consumed,
}

impl Catalog {
    pub fn new(sagas: Vec<Saga>, definitions: HashMap<DefinitionNo, Loaded>) -> Catalog {
        let mut catalog = Catalog { definitions, ..Catalog::default() };
        for saga in sagas {
            catalog.sagas.insert(saga.name.clone(), saga);
        }
        catalog.index();
        catalog
    }

    pub fn definition(&self, no: DefinitionNo) -> Option<&Loaded> {
        self.definitions.get(&no)
    }

    pub fn machine(&self, no: DefinitionNo) -> Option<&Arc<Machine>> {
        match self.definitions.get(&no)? {
            Loaded::Machine(machine) => Some(machine),
            Loaded::Broken { .. } => None,
        }
    }

    pub fn saga(&self, name: &str) -> Option<&Saga> {
        self.sagas.get(name)
    }

    pub fn sagas(&self) -> impl Iterator<Item = &Saga> {
        self.sagas.values()
    }

    /// Sagas that may take a message of this type though it answers none of their commands, by name.
    pub fn interested(&self, kind: &str) -> &[String] {
        self.openings.get(kind).map_or(&[], Vec::as_slice)
    }

    /// Whether any definition consumes the type.
    pub fn knows(&self, kind: &str) -> bool {
        self.consumed.contains_key(kind)
    }

    pub fn consumed(&self) -> &Consumed {
        &self.consumed
    }

    /// How many definitions new instances may take.
    pub fn loaded(&self) -> usize {
        self.sagas.values().filter(|saga| saga.newest.is_some()).count()
    }

    /// Adds a definition that was loaded because an ended instance needs it. Its saga is known from then on, for its
    /// listening clock runs.
    pub fn add(&mut self, no: DefinitionNo, loaded: Loaded, saga: Saga) {
        self.definitions.insert(no, loaded);
        self.sagas.entry(saga.name.clone()).or_insert(saga);
    }

    /// Older versions without live instances are asked no more. Returns whether the consumed types changed.
    pub fn retain_versions(&mut self, live: &HashSet<DefinitionNo>) -> bool {
        for saga in self.sagas.values_mut() {
            saga.versions.retain(|no| Some(*no) == saga.newest || live.contains(no));
        }
        let before = std::mem::take(&mut self.consumed);
        self.index();
        before != self.consumed
    }

    /// What an instance is given whose own definition cannot be loaded: enough to tell of it, to pause it, to give it up.
    pub fn blank(saga: &str) -> Machine {
        Machine {
            name: saga.to_owned(),
            digest: Digest([0; 32]),
            source: Arc::from(""),
            file: String::new(),
            about: None,
            starts: IndexMap::new(),
            events: IndexMap::new(),
            on: IndexMap::new(),
            pivot_at_start: false,
            deadline: None,
            states: IndexMap::new(),
            sensitive: Vec::new(),
            completed: Actions::default(),
            compensated: Actions::default(),
        }
    }

    fn index(&mut self) {
        let mut openings: HashMap<String, BTreeSet<&str>> = HashMap::new();
        let mut consumed = Consumed::new();
        for saga in self.sagas.values() {
            for no in &saga.versions {
                let Some(Loaded::Machine(machine)) = self.definitions.get(no) else { continue };
                for kind in machine.starts.keys().chain(machine.events.keys()) {
                    openings.entry(kind.clone()).or_default().insert(&saga.name);
                }
                for kind in machine.consumed() {
                    let origin = consumed.entry(kind.to_owned()).or_default();
                    if origin.is_none() {
                        *origin = machine.origin(kind).cloned();
                    }
                }
            }
        }
        self.openings =
            openings.into_iter().map(|(kind, sagas)| (kind, sagas.into_iter().map(str::to_owned).collect())).collect();
        self.consumed = consumed;
    }
}
