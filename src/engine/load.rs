//! Definitions into the catalog: those that were given, and older ones that instances in the store still need.

use std::collections::HashMap;
use std::sync::Arc;

use super::batch::Work;
use super::catalog::{Catalog, Loaded, Saga};
use crate::saga::compile::compile_stored;
use crate::saga::instance::DefinitionNo;
use crate::saga::machine::{Digest, Machine};
use crate::saga::time::Timestamp;
use crate::store::{Batch, DefinitionText, Store, StoreError, StoredDefinition};

pub(super) fn catalog(store: &mut Store, machines: Vec<Arc<Machine>>, at: Timestamp) -> Result<Catalog, StoreError> {
    let mut tx = store.batch()?;
    let catalog = reload(&mut tx, machines, at)?;
    tx.commit()?;
    Ok(catalog)
}

/// Makes these the newest definitions of their sagas; sagas that are not among them start nothing more.
pub(super) fn reload(tx: &mut Batch<'_>, machines: Vec<Arc<Machine>>, at: Timestamp) -> Result<Catalog, StoreError> {
    let mut given: HashMap<Digest, Arc<Machine>> = HashMap::new();
    for machine in machines {
        tx.definition_no(&DefinitionText {
            saga: &machine.name,
            digest: machine.digest,
            source: &machine.source,
            file: &machine.file,
            loaded_at: at,
        })?;
        given.insert(machine.digest, machine);
    }
    let stored = tx.definitions()?;
    let live = tx.live_definitions()?;
    let mut sagas: HashMap<String, Saga> = HashMap::new();
    let mut definitions: HashMap<DefinitionNo, Loaded> = HashMap::new();
    // Newest first: so they are asked.
    for definition in stored.iter().rev() {
        let machine = given.get(&definition.digest);
        if definition.newest && machine.is_none() {
            tx.retire_saga(&definition.saga)?;
        }
        if machine.is_none() && !live.contains(&definition.no) {
            continue;
        }
        let loaded = machine.map_or_else(|| compiled(definition), |machine| Loaded::Machine(Arc::clone(machine)));
        definitions.insert(definition.no, loaded);
        let saga = match sagas.get_mut(&definition.saga) {
            Some(saga) => saga,
            None => {
                let no = tx.name_saga(&definition.saga)?;
                let name = definition.saga.clone();
                sagas.entry(name.clone()).or_insert(Saga { no, name, newest: None, versions: Vec::new() })
            }
        };
        if machine.is_some() {
            saga.newest = Some(definition.no);
            saga.versions.insert(0, definition.no);
        } else {
            saga.versions.push(definition.no);
        }
    }
    Ok(Catalog::new(sagas.into_values().collect(), definitions))
}

impl Work<'_, '_> {
    /// A definition of the store's; one that only ended instances have is loaded when it is needed.
    pub(super) fn definition(&mut self, no: DefinitionNo) -> Result<Loaded, StoreError> {
        if let Some(loaded) = self.core.catalog.definition(no) {
            return Ok(loaded.clone());
        }
        let stored = self.tx.definitions()?;
        let Some(stored) = stored.iter().find(|stored| stored.no == no) else {
            let error = format!("definition {} is not kept", no.0);
            return Ok(Loaded::Broken { saga: String::new(), error });
        };
        let loaded = compiled(stored);
        let name = stored.saga.clone();
        let saga = Saga { no: self.tx.name_saga(&name)?, name, newest: None, versions: Vec::new() };
        self.core.catalog.add(no, loaded.clone(), saga);
        Ok(loaded)
    }
}

/// Without the checks of loading, so that a stricter daemon does not stop old instances.
fn compiled(stored: &StoredDefinition) -> Loaded {
    match compile_stored(&stored.source, &stored.file) {
        Ok(machine) => Loaded::Machine(Arc::new(machine)),
        Err(problems) => {
            let error = problems.first().map_or_else(String::new, |problem| problem.message.clone());
            Loaded::Broken { saga: stored.saga.clone(), error }
        }
    }
}
