//! Instances: one by its name, and many by a selector, in pages. Lists come from columns; no body is read for them.

use rusqlite::Row;
use rusqlite::types::Value as Sql;
use uuid::Uuid;

use super::Reader;
use crate::saga::ids::{InstanceId, InstanceNo};
use crate::saga::incident::IncidentKind;
use crate::saga::instance::{DefinitionNo, Marks, Status};
use crate::saga::machine::{Digest, Place};
use crate::saga::time::Timestamp;
use crate::store::codes::{self, PAUSED, SETTLING, STUCK, signed, small, unsigned};
use crate::store::error::StoreError;
use crate::store::rows::{Clock, TimerRow};
use crate::store::timers::timers_of;

/// Rows that one page looks at: a selector that matches little gets a short page and goes on from there.
const ROWS_LOOKED_AT: i64 = 20_000;
/// Hexadecimal digits of an id that are enough to ask for it.
const SHORTEST_PREFIX: usize = 8;
/// Instances that an ambiguous prefix names.
const MOST_NAMED: usize = 10;
/// Ids in one selector: each is a parameter of the statement, of which SQLite takes some 32,000.
const MOST_IDS: usize = 10_000;

/// Which instances. Conditions of several kinds must all hold; an empty one holds for every instance.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selector {
    pub ids: Vec<InstanceNo>,
    pub saga: Option<String>,
    pub key: Option<String>,
    /// One of these.
    pub status: Vec<Status>,
    /// Each of the marks that are set here.
    pub marks: Option<Marks>,
    pub state: Option<String>,
    /// An open incident of this kind is its first.
    pub incident: Option<IncidentKind>,
    pub started_before: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct InstanceRow {
    pub no: InstanceNo,
    pub id: InstanceId,
    pub saga: String,
    pub key: String,
    pub status: Status,
    pub state: String,
    pub marks: Marks,
    /// Kind of the first open incident.
    pub incident: Option<IncidentKind>,
    pub outcome: Option<String>,
    pub turn: u64,
    /// What `--expect-turn` is held against.
    pub moved: u64,
    pub definition: DefinitionNo,
    pub digest: Digest,
    pub started_at: Timestamp,
    pub updated_at: Timestamp,
    pub ended_at: Option<Timestamp>,
}

/// A page of a list, newest first.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    pub rows: Vec<InstanceRow>,
    /// Where the next page begins; `None`: that was all. A page may be short, even empty, and yet not the last.
    pub next: Option<InstanceNo>,
}

/// What an operator's name for an instance led to.
#[derive(Clone, Debug, PartialEq)]
pub enum Wanted {
    One(InstanceNo),
    Nothing,
    /// A prefix of several, the newest of them here.
    Several(Vec<InstanceId>),
}

/// An incident, open or closed.
#[derive(Clone, Debug, PartialEq)]
pub struct IncidentRow {
    pub number: u32,
    pub kind: IncidentKind,
    pub state: String,
    pub step: Option<String>,
    pub error: String,
    pub place: Option<Place>,
    pub opened_at: Timestamp,
    pub closed_at: Option<Timestamp>,
}

/// A timer's row, with the listening clock where it runs on that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerView {
    pub row: TimerRow,
    /// The saga's listening clock as last written: `due` minus this is what is left.
    pub listening_ms: Option<u64>,
}

macro_rules! columns {
    () => {
        "i.no, i.key, i.status, i.marks, i.incident, i.outcome, i.turn, i.moved, i.definition, i.started_at, \
         i.updated_at, i.ended_at, i.saga, i.state"
    };
}

const NAMED: &str = "SELECT c.no, s.name, c.key, c.status, n.name, c.marks, c.incident, c.outcome, c.turn, c.moved,
        c.definition, d.digest, c.started_at, c.updated_at, c.ended_at
    FROM chosen c JOIN saga s ON s.no = c.saga JOIN state n ON n.no = c.state JOIN definition d ON d.no = c.definition
    ORDER BY c.no DESC";

impl Reader {
    /// A page of the instances that a selector chooses: those with numbers below `after`, newest first.
    pub fn instances(&self, selector: &Selector, after: Option<InstanceNo>, limit: usize) -> Result<Page, StoreError> {
        self.begin();
        let after = after.map_or(Ok(i64::MAX), |no| signed(no.0, "instance number"))?;
        self.snapshot(|reader| {
            let Some(choice) = Choice::of(reader, selector)? else { return Ok(Page { rows: Vec::new(), next: None }) };
            let rows = reader.chosen(&choice, after, limit)?;
            let next = if !rows.is_empty() && rows.len() == limit {
                rows.last().map(|row| row.no)
            } else {
                reader.looked_at(&choice, after)?
            };
            Ok(Page { rows, next })
        })
    }

    /// The row of one instance.
    pub fn instance_row(&self, no: InstanceNo) -> Result<Option<InstanceRow>, StoreError> {
        let selector = Selector { ids: vec![no], ..Selector::default() };
        Ok(self.instances(&selector, None, 1)?.rows.pop())
    }

    /// By id, by a prefix of at least 8 digits, or as `saga/key`: the newest with that key.
    pub fn find(&self, name: &str) -> Result<Wanted, StoreError> {
        self.begin();
        if let Some((saga, key)) = name.split_once('/') {
            let selector = Selector { saga: Some(saga.to_owned()), key: Some(key.to_owned()), ..Selector::default() };
            let newest = self.instances(&selector, None, 1)?.rows.pop();
            return Ok(newest.map_or(Wanted::Nothing, |row| Wanted::One(row.no)));
        }
        let digits: String = name.chars().filter(|next| *next != '-').collect::<String>().to_ascii_lowercase();
        if digits.len() < SHORTEST_PREFIX || digits.len() > 32 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit())
        {
            return Ok(Wanted::Nothing);
        }
        let (low, high) = numbers_with(&digits);
        let mut statement =
            self.connection.prepare_cached("SELECT no FROM instance WHERE no BETWEEN ?1 AND ?2 ORDER BY no DESC")?;
        let mut rows = statement.query((signed(low.0, "number")?, signed(high.0, "number")?))?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let id = InstanceId::new(InstanceNo(unsigned(row.get(0)?, "instance number")?), self.database);
            if id.0.simple().to_string().starts_with(&digits) {
                found.push(id);
                if found.len() == MOST_NAMED {
                    break;
                }
            }
        }
        Ok(match found.as_slice() {
            [] => Wanted::Nothing,
            [one] => Wanted::One(one.no()),
            _ => Wanted::Several(found),
        })
    }

    pub fn timers(&self, no: InstanceNo) -> Result<Vec<TimerView>, StoreError> {
        self.begin();
        let mut clock = self.connection.prepare_cached("SELECT listening_ms FROM saga WHERE no = ?1")?;
        let mut views = Vec::new();
        for row in timers_of(&self.connection, no)? {
            let listening_ms = match row.clock {
                Clock::Wall => None,
                Clock::Listening(saga) => Some(unsigned(clock.query_row((saga.0,), |row| row.get(0))?, "clock")?),
            };
            views.push(TimerView { row, listening_ms });
        }
        Ok(views)
    }

    /// All incidents of an instance, open and closed, in order.
    pub fn incidents(&self, no: InstanceNo) -> Result<Vec<IncidentRow>, StoreError> {
        self.begin();
        let mut statement = self.connection.prepare_cached(
            "SELECT i.number, i.kind, n.name, i.step, i.error, i.place, i.opened_at, i.closed_at
             FROM incident i JOIN state n ON n.no = i.state WHERE i.instance = ?1 ORDER BY i.number",
        )?;
        let mut rows = statement.query((signed(no.0, "instance number")?,))?;
        let mut incidents = Vec::new();
        while let Some(row) = rows.next()? {
            let place: Option<String> = row.get(5)?;
            incidents.push(IncidentRow {
                number: small(row.get(0)?, "number")?,
                kind: codes::incident_of(row.get(1)?)?,
                state: row.get(2)?,
                step: row.get(3)?,
                error: row.get(4)?,
                place: place
                    .map(|text| serde_json::from_str(&text))
                    .transpose()
                    .map_err(|error| StoreError::corrupt(format!("the place of an incident: {error}")))?,
                opened_at: Timestamp(row.get(6)?),
                closed_at: row.get::<_, Option<i64>>(7)?.map(Timestamp),
            });
        }
        Ok(incidents)
    }

    fn chosen(&self, choice: &Choice, after: i64, limit: usize) -> Result<Vec<InstanceRow>, StoreError> {
        let sql = format!(
            "WITH looked AS (SELECT {} FROM instance i {} WHERE i.no < ? AND {} ORDER BY i.no DESC LIMIT ?),
                  chosen AS (SELECT * FROM looked WHERE {} LIMIT ?) {NAMED}",
            columns!(),
            choice.index,
            choice.walk.sql,
            choice.filter.sql,
        );
        let mut params: Vec<Sql> = vec![after.into()];
        params.extend(choice.walk.params.iter().cloned());
        params.push(ROWS_LOOKED_AT.into());
        params.extend(choice.filter.params.iter().cloned());
        params.push(codes::count(limit).into());
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query(rusqlite::params_from_iter(params))?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(self.read(row)?);
        }
        Ok(found)
    }

    /// The last row that a page looked at, where there are rows beyond it.
    fn looked_at(&self, choice: &Choice, after: i64) -> Result<Option<InstanceNo>, StoreError> {
        let sql = format!(
            "SELECT i.no FROM instance i {} WHERE i.no < ? AND {} ORDER BY i.no DESC LIMIT 1 OFFSET ?",
            choice.index, choice.walk.sql
        );
        let mut params: Vec<Sql> = vec![after.into()];
        params.extend(choice.walk.params.iter().cloned());
        params.push((ROWS_LOOKED_AT - 1).into());
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query(rusqlite::params_from_iter(params))?;
        rows.next()?.map(|row| Ok(InstanceNo(unsigned(row.get(0)?, "instance number")?))).transpose()
    }

    fn read(&self, row: &Row<'_>) -> Result<InstanceRow, StoreError> {
        let no = InstanceNo(unsigned(row.get(0)?, "instance number")?);
        Ok(InstanceRow {
            no,
            id: InstanceId::new(no, self.database),
            saga: row.get(1)?,
            key: row.get(2)?,
            status: codes::status_of(row.get(3)?)?,
            state: row.get(4)?,
            marks: codes::marks_of(row.get(5)?),
            incident: row.get::<_, Option<i64>>(6)?.map(codes::incident_of).transpose()?,
            outcome: row.get(7)?,
            turn: unsigned(row.get(8)?, "turn")?,
            moved: unsigned(row.get(9)?, "turn")?,
            definition: DefinitionNo(row.get(10)?),
            digest: Digest(row.get(11)?),
            started_at: Timestamp(row.get(12)?),
            updated_at: Timestamp(row.get(13)?),
            ended_at: row.get::<_, Option<i64>>(14)?.map(Timestamp),
        })
    }
}

/// How a selector is answered: the rows that are walked, by an index, and which of them are chosen.
#[derive(Debug)]
struct Choice {
    index: &'static str,
    walk: Conditions,
    filter: Conditions,
}

#[derive(Debug)]
struct Conditions {
    sql: String,
    params: Vec<Sql>,
}

impl Conditions {
    fn always() -> Conditions {
        Conditions { sql: "1".to_owned(), params: Vec::new() }
    }

    fn and(&mut self, sql: &str, params: impl IntoIterator<Item = Sql>) {
        self.sql.push_str(" AND ");
        self.sql.push_str(sql);
        self.params.extend(params);
    }
}

impl Choice {
    /// `None`: nothing can be chosen, for a name in it was never heard of.
    fn of(reader: &Reader, selector: &Selector) -> Result<Option<Choice>, StoreError> {
        let mut walk = Conditions::always();
        let mut filter = Conditions::always();
        let mut index = "NOT INDEXED";
        let saga = match &selector.saga {
            Some(name) => match reader.number_of("SELECT no FROM saga WHERE name = ?1", name)? {
                Some(no) => Some(no),
                None => return Ok(None),
            },
            None => None,
        };
        if selector.ids.len() > MOST_IDS {
            return Err(StoreError::defect(format!("a selector names at most {MOST_IDS} ids")));
        }
        if !selector.ids.is_empty() {
            let marks = vec!["?"; selector.ids.len()].join(", ");
            let ids = selector.ids.iter().map(|no| signed(no.0, "instance number"));
            walk.and(&format!("i.no IN ({marks})"), ids.map(|no| no.map(Sql::from)).collect::<Result<Vec<_>, _>>()?);
        } else if let Some(key) = &selector.key {
            index = "INDEXED BY instance_key";
            // Without a saga: each of them, for there are few.
            let sagas = saga.map_or("(SELECT no FROM saga)".to_owned(), |_| "(?)".to_owned());
            walk.and(
                &format!("i.saga IN {sagas} AND i.key = ?"),
                saga.map(Sql::from).into_iter().chain([Sql::from(key.clone())]),
            );
        } else if selector.marks.is_some_and(|marks| codes::marks(marks) != 0) {
            index = "INDEXED BY instance_marked";
            walk.and("i.marks <> 0", []);
        } else if !selector.status.is_empty() && selector.status.iter().all(|status| !status.is_end()) {
            index = "INDEXED BY instance_live";
            walk.and("(i.ended_at IS NULL OR i.marks <> 0)", []);
        }
        if let Some(saga) = saga {
            filter.and("saga = ?", [saga.into()]);
        }
        if let Some(key) = &selector.key {
            filter.and("key = ?", [key.clone().into()]);
        }
        if !selector.status.is_empty() {
            let marks = vec!["?"; selector.status.len()].join(", ");
            filter.and(&format!("status IN ({marks})"), selector.status.iter().map(|one| codes::status(*one).into()));
        }
        if let Some(marks) = selector.marks {
            for mark in [STUCK, PAUSED, SETTLING].into_iter().filter(|mark| codes::marks(marks) & mark != 0) {
                filter.and("marks & ? <> 0", [mark.into()]);
            }
        }
        if let Some(state) = &selector.state {
            match reader.number_of("SELECT no FROM state WHERE name = ?1", state)? {
                Some(no) => filter.and("state = ?", [no.into()]),
                None => return Ok(None),
            }
        }
        if let Some(kind) = selector.incident {
            filter.and("incident = ?", [codes::incident(kind).into()]);
        }
        if let Some(before) = selector.started_before {
            filter.and("started_at < ?", [before.0.into()]);
        }
        Ok(Some(Choice { index, walk, filter }))
    }
}

impl Reader {
    fn number_of(&self, sql: &'static str, name: &str) -> Result<Option<i64>, StoreError> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query((name,))?;
        Ok(rows.next()?.map(|row| row.get(0)).transpose()?)
    }
}

/// The lowest and the highest instance number whose id can begin with these digits.
fn numbers_with(digits: &str) -> (InstanceNo, InstanceNo) {
    let bound = |fill: &str| {
        let whole: String = digits.chars().chain(fill.repeat(32).chars()).take(32).collect();
        let id = Uuid::try_parse(&whole).expect("32 hexadecimal digits are a UUID");
        InstanceId(id).no()
    };
    (bound("0"), bound("f"))
}
