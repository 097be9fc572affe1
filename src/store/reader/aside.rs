//! What was set aside, for `inbox`.

use rusqlite::Row;
use rusqlite::types::Value as Sql;
use serde_json::{Map, Value};

use super::Reader;
use crate::saga::time::Timestamp;
use crate::store::aside::{AsideKind, Near};
use crate::store::codes::{self, signed, unsigned};
use crate::store::error::StoreError;

/// Which of what was set aside. Empty: all of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AsideFilter {
    pub kind: Option<AsideKind>,
    pub reason: Option<String>,
    pub message_type: Option<String>,
    pub received_before: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct AsideRow {
    pub n: u64,
    pub kind: AsideKind,
    pub reason: String,
    pub error: Option<String>,
    pub message_type: Option<String>,
    pub message_id: Option<String>,
    pub source: String,
    pub correlation_id: Option<String>,
    pub exchange: String,
    pub routing_key: String,
    pub received_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub properties: Map<String, Value>,
    pub headers: Map<String, Value>,
    pub near: Vec<Near>,
    pub body: Vec<u8>,
}

macro_rules! columns {
    () => {
        "n, kind, reason, error, type, message_id, source, correlation_id, exchange, routing_key, received_at, \
         expires_at, properties, headers, near, body"
    };
}

impl Reader {
    /// Newest first: those with numbers below `before`.
    pub fn aside(&self, filter: &AsideFilter, before: Option<u64>, limit: usize) -> Result<Vec<AsideRow>, StoreError> {
        self.begin();
        let mut sql = concat!("SELECT ", columns!(), " FROM aside WHERE n < ?").to_owned();
        let before = before.map(|n| signed(n, "number")).transpose()?.unwrap_or(i64::MAX);
        let mut params: Vec<Sql> = vec![before.into()];
        let mut narrow = |condition: &str, value: Option<Sql>| {
            if let Some(value) = value {
                sql.push_str(condition);
                params.push(value);
            }
        };
        narrow(" AND kind = ?", filter.kind.map(|kind| codes::aside(kind).into()));
        narrow(" AND reason = ?", filter.reason.clone().map(Sql::from));
        narrow(" AND type = ?", filter.message_type.clone().map(Sql::from));
        narrow(" AND received_at < ?", filter.received_before.map(|at| at.0.into()));
        sql.push_str(" ORDER BY n DESC LIMIT ?");
        params.push(codes::count(limit).into());
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query(rusqlite::params_from_iter(params))?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(read(row)?);
        }
        Ok(found)
    }

    pub fn aside_by_number(&self, n: u64) -> Result<Option<AsideRow>, StoreError> {
        self.begin();
        let mut statement =
            self.connection.prepare_cached(concat!("SELECT ", columns!(), " FROM aside WHERE n = ?1"))?;
        let mut rows = statement.query((signed(n, "number")?,))?;
        rows.next()?.map(read).transpose()
    }
}

fn read(row: &Row<'_>) -> Result<AsideRow, StoreError> {
    let n: u64 = unsigned(row.get(0)?, "number")?;
    let json = |column: usize| -> Result<Map<String, Value>, StoreError> {
        let text: String = row.get(column)?;
        serde_json::from_str(&text).map_err(|error| StoreError::corrupt(format!("message {n} set aside: {error}")))
    };
    let near: String = row.get(14)?;
    Ok(AsideRow {
        n,
        kind: codes::aside_of(row.get(1)?)?,
        reason: row.get(2)?,
        error: row.get(3)?,
        message_type: row.get(4)?,
        message_id: row.get(5)?,
        source: row.get(6)?,
        correlation_id: row.get(7)?,
        exchange: row.get(8)?,
        routing_key: row.get(9)?,
        received_at: Timestamp(row.get(10)?),
        expires_at: row.get::<_, Option<i64>>(11)?.map(Timestamp),
        properties: json(12)?,
        headers: json(13)?,
        near: serde_json::from_str(&near)
            .map_err(|error| StoreError::corrupt(format!("message {n} set aside: {error}")))?,
        body: row.get(15)?,
    })
}
