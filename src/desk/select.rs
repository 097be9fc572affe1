//! From what a person says to instances: names, and selectors in pages.

use super::words::{DeskError, Select};
use super::{Looker, Scene};
use crate::saga::ids::InstanceNo;
use crate::saga::instance::Marks;
use crate::store::{InstanceRow, Selector, StoreError, Wanted};

/// Instances of one page where nothing else is said.
pub(super) const PAGE: u64 = 1_000;
/// Names that one request may give.
const MOST_IDS: usize = 10_000;

/// A page of instances, and the number after which the next one begins.
pub(super) struct Page {
    pub rows: Vec<InstanceRow>,
    pub next: Option<InstanceNo>,
}

impl Looker {
    /// The instance that a person names.
    pub(super) fn find(&self, name: &str) -> Result<InstanceNo, DeskError> {
        match self.reader.find(name)? {
            Wanted::One(no) => Ok(no),
            Wanted::Several(ids) => {
                let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
                Err(DeskError::usage(
                    format!("'{name}' begins the ids of several instances"),
                    format!("give more of it; the newest are {}", ids.join(", ")),
                ))
            }
            Wanted::Nothing => Err(DeskError::not_found(
                format!("there is no instance '{name}'"),
                "name it by its id, by 8 or more characters of it, or as saga/key; sagad list shows them",
            )),
        }
    }

    /// A page of what a selector chooses, newest first. A page may be short and yet not the last.
    pub(super) fn page(&self, scene: &Scene, select: &Select, after: Option<InstanceNo>) -> Result<Page, DeskError> {
        let Some(selector) = self.selector(scene, select)? else { return Ok(Page { rows: Vec::new(), next: None }) };
        let limit = usize::try_from(select.limit.unwrap_or(PAGE).min(PAGE)).unwrap_or(usize::MAX);
        if limit == 0 {
            return Ok(Page { rows: Vec::new(), next: None });
        }
        let page = self.reader.instances(&selector, after, limit)?;
        let mut rows = Vec::with_capacity(page.rows.len());
        for row in page.rows {
            if self.holds(scene, select, &row)? {
                rows.push(row);
            }
        }
        Ok(Page { rows, next: page.next })
    }

    /// Every instance that a selector chooses, by its number.
    pub(super) fn all(
        &self,
        scene: &Scene,
        select: &Select,
        mut each: impl FnMut(InstanceRow) -> Result<(), DeskError>,
    ) -> Result<(), DeskError> {
        let mut after = None;
        let mut left = select.limit.unwrap_or(u64::MAX);
        while left > 0 {
            let page = self.page(scene, &Select { limit: Some(left.min(PAGE)), ..select.clone() }, after)?;
            left = left.saturating_sub(page.rows.len() as u64);
            page.rows.into_iter().try_for_each(&mut each)?;
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// `None`: nothing can be chosen, for none of the names is known.
    fn selector(&self, scene: &Scene, select: &Select) -> Result<Option<Selector>, DeskError> {
        if select.ids.len() > MOST_IDS {
            return Err(DeskError::usage(
                format!("{} ids are more than one request may give", select.ids.len()),
                format!("give at most {MOST_IDS}, or a selector"),
            ));
        }
        let mut ids = Vec::new();
        for name in &select.ids {
            match self.find(name) {
                Ok(no) => ids.push(no),
                Err(DeskError::NotFound { .. }) => {}
                Err(other) => return Err(other),
            }
        }
        if ids.is_empty() && !select.ids.is_empty() {
            return Ok(None);
        }
        ids.sort_unstable();
        ids.dedup();
        let stuck = select.stuck || select.stuck_for.is_some() || select.error.is_some();
        let marks = Marks { stuck, paused: select.paused, settling: select.settling };
        Ok(Some(Selector {
            ids,
            saga: select.saga.clone(),
            key: select.key.clone(),
            status: select.status.clone(),
            marks: (marks.stuck || marks.paused || marks.settling).then_some(marks),
            state: select.state.clone(),
            incident: select.incident,
            started_before: select.older_than.map(|span| scene.now.minus(span)),
        }))
    }

    /// What no column of the list can tell: the errors and times of open incidents.
    fn holds(&self, scene: &Scene, select: &Select, row: &InstanceRow) -> Result<bool, StoreError> {
        if select.error.is_none() && select.stuck_for.is_none() {
            return Ok(true);
        }
        let mut open = self.reader.incidents(row.no)?;
        open.retain(|incident| incident.closed_at.is_none());
        let since = select.stuck_for.map(|span| scene.now.minus(span));
        let long_enough = since.is_none_or(|since| open.iter().any(|incident| incident.opened_at <= since));
        let says = |text: &String| open.iter().any(|incident| incident.error.contains(text.as_str()));
        Ok(long_enough && select.error.as_ref().is_none_or(says))
    }
}
