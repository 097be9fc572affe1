//! Instances that were handled lately, decoded: what the next event of a busy instance need not read again. In two
//! generations, so that what is used stays and nothing has to be counted.

use std::collections::HashMap;
use std::sync::Arc;

use crate::saga::ids::InstanceNo;
use crate::store::Stored;

/// Instances of one generation; of two there are some ten megabytes at most, where instances are of usual size.
const GENERATION: usize = 2_048;

#[derive(Debug, Default)]
pub(super) struct Recent {
    young: HashMap<InstanceNo, Arc<Stored>>,
    old: HashMap<InstanceNo, Arc<Stored>>,
}

impl Recent {
    pub fn get(&mut self, no: InstanceNo) -> Option<Arc<Stored>> {
        if let Some(stored) = self.young.get(&no) {
            return Some(Arc::clone(stored));
        }
        let stored = self.old.remove(&no)?;
        self.insert(no, Arc::clone(&stored));
        Some(stored)
    }

    pub fn insert(&mut self, no: InstanceNo, stored: Arc<Stored>) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(no, stored);
    }

    pub fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}
