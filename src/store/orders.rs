//! What people did: who, when, why, and what came of it. A table of its own, which purging instances does not touch.

use super::batch::Batch;
use super::codes::{count, signed, unsigned};
use super::error::StoreError;
use super::open::Store;
use crate::saga::ids::InstanceNo;
use crate::saga::time::Timestamp;

/// An order that has been carried out, or refused.
#[derive(Clone, Copy, Debug)]
pub struct OrderRecord<'a> {
    pub at: Timestamp,
    pub verb: &'a str,
    pub by: &'a str,
    pub reason: Option<&'a str>,
    pub request_id: Option<&'a str>,
    /// `None`: it concerned no instance.
    pub instance: Option<InstanceNo>,
    pub saga: Option<&'a str>,
    pub key: Option<&'a str>,
    /// What was asked, as JSON.
    pub asked: &'a str,
    /// What came of it, as JSON: what the same request id is answered with.
    pub result: &'a str,
}

#[derive(Clone, Debug, PartialEq)]
pub struct OrderRow {
    pub n: u64,
    pub at: Timestamp,
    pub verb: String,
    pub by: String,
    pub reason: Option<String>,
    pub request_id: Option<String>,
    pub instance: Option<InstanceNo>,
    pub saga: Option<String>,
    pub key: Option<String>,
    pub asked: String,
    pub result: String,
}

impl Store {
    /// What came of a request that was carried out before, an entry for each of its instances.
    pub fn orders_of_request(&self, request_id: &str) -> Result<Vec<OrderRow>, StoreError> {
        let mut statement = self.connection.prepare_cached(concat!(
            "SELECT n, at, verb, by, reason, request_id, instance, saga, key, asked, result FROM orders ",
            "WHERE request_id = ?1 ORDER BY n"
        ))?;
        collect(statement.query((request_id,))?)
    }
}

pub(super) fn newest(
    connection: &rusqlite::Connection,
    before: Option<u64>,
    limit: usize,
) -> Result<Vec<OrderRow>, StoreError> {
    let before = before.map(|n| signed(n, "number")).transpose()?.unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(
        "SELECT n, at, verb, by, reason, request_id, instance, saga, key, asked, result FROM orders
         WHERE n < ?1 ORDER BY n DESC LIMIT ?2",
    )?;
    collect(statement.query((before, count(limit)))?)
}

fn collect(mut rows: rusqlite::Rows<'_>) -> Result<Vec<OrderRow>, StoreError> {
    let mut orders = Vec::new();
    while let Some(row) = rows.next()? {
        let instance: Option<i64> = row.get(6)?;
        orders.push(OrderRow {
            n: unsigned(row.get(0)?, "number")?,
            at: Timestamp(row.get(1)?),
            verb: row.get(2)?,
            by: row.get(3)?,
            reason: row.get(4)?,
            request_id: row.get(5)?,
            instance: instance
                .map(|no| Ok::<_, StoreError>(InstanceNo(unsigned(no, "instance number")?)))
                .transpose()?,
            saga: row.get(7)?,
            key: row.get(8)?,
            asked: row.get(9)?,
            result: row.get(10)?,
        });
    }
    Ok(orders)
}

impl Batch<'_> {
    /// Puts an order on record, in the transaction of what it changed.
    pub fn record_order(&mut self, order: &OrderRecord<'_>) -> Result<u64, StoreError> {
        self.run(
            "INSERT INTO orders (at, verb, by, reason, request_id, instance, saga, key, asked, result)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            (
                order.at.0,
                order.verb,
                order.by,
                order.reason,
                order.request_id,
                order.instance.map(|no| signed(no.0, "instance number")).transpose()?,
                order.saga,
                order.key,
                order.asked,
                order.result,
            ),
        )?;
        unsigned(self.store.connection.last_insert_rowid(), "number")
    }
}
