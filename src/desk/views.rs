//! The documents of looking: lists, one instance, figures.

use std::collections::HashMap;

use indexmap::IndexMap;
use serde_json::{Map, Value};

use super::case::Case;
use super::select::PAGE;
use super::words::{CountBy, DeskError, Select};
use super::{Looker, Scene, why};
use crate::api::{self, Format, Time};
use crate::saga::ids::{CommandId, InstanceId};
use crate::saga::incident::IncidentKind;
use crate::saga::instance::Instance;
use crate::saga::time::Timestamp;
use crate::store::{AsideFilter, AsideKind, Clock, Count, IncidentRow, InstanceRow};

/// Unmatched messages that are looked through for near misses of one instance.
const NEAR_LOOKED_AT: usize = 1_000;
/// Near misses that are told.
const NEAR_TOLD: usize = 20;

impl Looker {
    pub(super) fn list(
        &self,
        scene: &Scene,
        select: &Select,
        after: Option<&str>,
    ) -> Result<api::Instances, DeskError> {
        let after = match after {
            None => None,
            Some(id) => {
                let wrong =
                    || DeskError::usage(format!("'after' is '{id}'"), "give what 'next' of the page before said");
                let id = uuid::Uuid::try_parse(id).map_err(|_| wrong())?;
                Some(InstanceId(id).no())
            }
        };
        let page = self.page(scene, &Select { limit: Some(select.limit.unwrap_or(PAGE)), ..select.clone() }, after)?;
        let next = page.next.map(|no| InstanceId::new(no, self.reader.database()).to_string());
        Ok(api::Instances { format: Format, instances: page.rows.iter().map(row_view).collect(), next })
    }

    pub(super) fn show(&mut self, scene: &Scene, id: &str) -> Result<api::Detail, DeskError> {
        let (row, instance) = self.instance(id)?;
        let machine = self.machine(instance.definition)?;
        let case = Case { due: self.due(scene, &instance)?, machine: machine.as_deref(), instance: &instance };
        let file = machine.as_ref().map_or("", |machine| machine.file.as_str());
        let steps_of: HashMap<u32, Option<u32>> =
            instance.incidents.iter().map(|incident| (incident.number, incident.step)).collect();
        let incidents = self.reader.incidents(row.no)?;
        let incidents = incidents.into_iter().map(|incident| {
            let known = steps_of.get(&incident.number).copied().flatten();
            let step = known
                .and_then(|index| instance.steps.get(index as usize))
                .map(super::super::saga::instance::Step::name);
            incident_view(incident, step, file)
        });
        let may = case.may();
        let list = row_view(&row);
        Ok(api::Detail {
            format: Format,
            why: why::paragraph(&case, &may),
            failure: failure(&instance),
            steps: case.steps(),
            timers: case.timers(),
            waiting: case.waiting(),
            decision: case.decision(),
            incidents: incidents.collect(),
            may,
            data: instance.data.clone(),
            id: list.id,
            saga: list.saga,
            key: list.key,
            status: list.status,
            state: list.state,
            stuck: list.stuck,
            paused: list.paused,
            settling: list.settling,
            incident: list.incident,
            outcome: list.outcome,
            turn: list.turn,
            definition: list.definition,
            started_at: list.started_at,
            updated_at: list.updated_at,
            ended_at: list.ended_at,
        })
    }

    pub(super) fn why(&mut self, scene: &Scene, id: &str) -> Result<api::Why, DeskError> {
        let (row, instance) = self.instance(id)?;
        let machine = self.machine(instance.definition)?;
        let case = Case { due: self.due(scene, &instance)?, machine: machine.as_deref(), instance: &instance };
        Ok(api::Why {
            format: Format,
            id: row.id.to_string(),
            why: why::paragraph(&case, &case.may()),
            waiting: case.waiting(),
            next: why::next(&case),
            near: self.near(&row)?,
        })
    }

    pub(super) fn process(&self, saga: &str, key: &str) -> Result<api::Process, DeskError> {
        let (row, instance) = self.instance(&format!("{saga}/{key}"))?;
        let list = row_view(&row);
        Ok(api::Process {
            format: Format,
            failure: failure(&instance),
            data: instance.data,
            id: list.id,
            saga: list.saga,
            key: list.key,
            status: list.status,
            state: list.state,
            stuck: list.stuck,
            paused: list.paused,
            settling: list.settling,
            incident: list.incident,
            outcome: list.outcome,
            turn: list.turn,
            definition: list.definition,
            started_at: list.started_at,
            updated_at: list.updated_at,
            ended_at: list.ended_at,
        })
    }

    pub(super) fn status(&self, scene: &Scene) -> Result<api::Status, DeskError> {
        let figures = self.reader.figures()?;
        let definitions = if let Some(definitions) = &scene.definitions {
            definitions.clone()
        } else {
            let newest = self.reader.definitions()?.iter().filter(|row| row.newest).count();
            api::DefinitionsLoaded { loaded: newest as u64, error: None }
        };
        Ok(api::Status {
            format: Format,
            daemon: scene.daemon.clone(),
            broker: scene.broker.clone(),
            outbox: figures.outbox,
            counts: figures.counts.iter().map(|(status, n)| (status.name().to_owned(), *n)).collect(),
            stuck: figures.stuck,
            paused: figures.paused,
            settling: figures.settling,
            foreign: figures.foreign,
            dropped: figures.dropped,
            oldest_stuck_at: figures.oldest_stuck_at.map(Time),
            database: api::Database {
                path: figures.path.map_or_else(String::new, |path| path.display().to_string()),
                bytes: figures.bytes,
                wal_bytes: figures.wal_bytes,
            },
            definitions,
        })
    }

    /// From the tally where that knows what was asked; else the instances are counted.
    pub(super) fn count(&self, scene: &Scene, select: &Select, by: &[CountBy]) -> Result<api::Counts, DeskError> {
        let mut groups: IndexMap<Vec<Option<String>>, u64> = IndexMap::new();
        let field = |by: CountBy, saga: &str, status: &str, state: &str, incident: Option<IncidentKind>| match by {
            CountBy::Saga => Some(saga.to_owned()),
            CountBy::Status => Some(status.to_owned()),
            CountBy::State => Some(state.to_owned()),
            CountBy::Incident => incident.map(|kind| kind.name().to_owned()),
        };
        if tally_knows(select) {
            for count in self.reader.counts()?.iter().filter(|count| chosen(select, count)) {
                let fields =
                    by.iter().map(|by| field(*by, &count.saga, count.status.name(), &count.state, count.incident));
                *groups.entry(fields.collect()).or_default() += count.count;
            }
        } else {
            self.all(scene, select, |row| {
                let fields = by.iter().map(|by| field(*by, &row.saga, row.status.name(), &row.state, row.incident));
                *groups.entry(fields.collect()).or_default() += 1;
                Ok(())
            })?;
        }
        groups.sort_unstable_keys();
        let groups = groups.into_iter().map(|(fields, n)| {
            let mut group = Map::new();
            for (by, value) in by.iter().zip(fields) {
                group.insert(by.name().to_owned(), value.map_or(Value::Null, Value::String));
            }
            group.insert("count".to_owned(), Value::from(n));
            group
        });
        Ok(api::Counts { format: Format, groups: groups.collect() })
    }

    pub(super) fn definitions(&self) -> Result<api::Definitions, DeskError> {
        let definitions = self.reader.definitions()?.into_iter().map(|row| api::Definition {
            saga: row.saga,
            digest: row.digest.to_string(),
            loaded_at: Time(row.loaded_at),
            newest: row.newest,
            live: row.live,
            ended: row.ended,
        });
        Ok(api::Definitions { format: Format, definitions: definitions.collect() })
    }

    /// A whole instance, its checksum tried.
    pub(super) fn instance(&self, name: &str) -> Result<(InstanceRow, Instance), DeskError> {
        let no = self.find(name)?;
        let gone = || DeskError::not_found(format!("there is no instance '{name}' any more"), "it was purged just now");
        let row = self.reader.instance_row(no)?.ok_or_else(gone)?;
        let stored = self.reader.instance(no)?.ok_or_else(gone)?;
        Ok((row, stored.instance))
    }

    /// When each timer is due. One on the listening clock is so only while that runs.
    fn due(&self, scene: &Scene, instance: &Instance) -> Result<HashMap<u32, Timestamp>, DeskError> {
        let mut due = HashMap::new();
        for timer in self.reader.timers(instance.id.no())? {
            let Some(at) = timer.row.due else { continue };
            match (timer.row.clock, timer.listening_ms) {
                (Clock::Wall, _) => {
                    due.insert(timer.row.serial, Timestamp(at));
                }
                (Clock::Listening(_), Some(now)) if scene.broker.connected => {
                    let left = at.saturating_sub(i64::try_from(now).unwrap_or(i64::MAX)).max(0);
                    due.insert(timer.row.serial, Timestamp(scene.now.0.saturating_add(left)));
                }
                (Clock::Listening(_), _) => {}
            }
        }
        Ok(due)
    }

    /// Messages that were set aside though they were about this instance.
    fn near(&self, row: &InstanceRow) -> Result<Vec<api::NearMessage>, DeskError> {
        let filter = AsideFilter { kind: Some(AsideKind::Unmatched), ..AsideFilter::default() };
        let about = |correlation: &Option<String>| {
            let correlation = correlation.as_deref().unwrap_or("");
            correlation == row.id.to_string()
                || CommandId::parse(correlation)
                    .is_some_and(|command| command.instance_no() == row.no && command.tag() == row.id.tag())
        };
        let mut near = Vec::new();
        for message in self.reader.aside(&filter, None, NEAR_LOOKED_AT)? {
            let told = message.near.iter().find(|near| near.id == row.id).map(|near| near.why.clone());
            let why = told.or_else(|| about(&message.correlation_id).then(|| message.reason.clone()));
            if let Some(why) = why {
                near.push(api::NearMessage { message: message.n.to_string(), why });
            }
            if near.len() == NEAR_TOLD {
                break;
            }
        }
        Ok(near)
    }
}

pub(super) fn row_view(row: &InstanceRow) -> api::Instance {
    api::Instance {
        id: row.id.to_string(),
        saga: row.saga.clone(),
        key: row.key.clone(),
        status: row.status.name().to_owned(),
        state: row.state.clone(),
        stuck: row.marks.stuck,
        paused: row.marks.paused,
        settling: row.marks.settling,
        incident: row.incident.map(|kind| kind.name().to_owned()),
        outcome: row.outcome.clone(),
        turn: row.moved,
        definition: row.digest.to_string(),
        started_at: Time(row.started_at),
        updated_at: Time(row.updated_at),
        ended_at: row.ended_at.map(Time),
    }
}

fn failure(instance: &Instance) -> Option<api::Failure> {
    instance.failure.as_ref().map(|failure| api::Failure {
        kind: failure.kind.name().to_owned(),
        state: failure.state.clone(),
        reason: failure.reason.clone(),
    })
}

fn incident_view(incident: IncidentRow, step: Option<String>, file: &str) -> api::Incident {
    let step = step.or(incident.step);
    let stops = if incident.kind.stops_instance() {
        Some("instance")
    } else if incident.kind == IncidentKind::Stalled || (incident.kind == IncidentKind::Unroutable && step.is_none()) {
        None
    } else {
        Some("step")
    };
    api::Incident {
        kind: incident.kind.name().to_owned(),
        state: incident.state,
        step,
        error: incident.error,
        source: incident.place.map(|place| api::Source {
            file: file.to_owned(),
            line: place.line,
            column: place.column,
        }),
        opened_at: Time(incident.opened_at),
        closed_at: incident.closed_at.map(Time),
        open: incident.closed_at.is_none(),
        stops: stops.map(str::to_owned),
    }
}

fn tally_knows(select: &Select) -> bool {
    let Select { ids, key, error, older_than, stuck_for, limit, .. } = select;
    ids.is_empty() && key.is_none() && error.is_none() && older_than.is_none() && stuck_for.is_none() && limit.is_none()
}

fn chosen(select: &Select, count: &Count) -> bool {
    select.saga.as_ref().is_none_or(|saga| *saga == count.saga)
        && select.state.as_ref().is_none_or(|state| *state == count.state)
        && (select.status.is_empty() || select.status.contains(&count.status))
        && select.incident.is_none_or(|kind| count.incident == Some(kind))
        && (!select.stuck || count.marks.stuck)
        && (!select.paused || count.marks.paused)
        && (!select.settling || count.marks.settling)
}
