//! What the broker does not have yet, for `outbox`.

use super::Reader;
use crate::saga::effect::Outgoing;
use crate::saga::time::Timestamp;
use crate::store::codes::count;
use crate::store::error::StoreError;
use crate::store::outbox::{MessageRef, Straggler, one_message, straggler, unsent};

/// A message without its confirm.
#[derive(Clone, Debug, PartialEq)]
pub struct OutboxRow {
    pub message: MessageRef,
    pub outgoing: Outgoing,
    /// When its turn was.
    pub since: Timestamp,
    /// Present where it fell behind.
    pub straggler: Option<Straggler>,
}

impl Reader {
    /// Unconfirmed messages in the order of their commits, stragglers first: at most `limit`. What has been confirmed and
    /// not yet been written down is still among them.
    pub fn outbox(&self, limit: usize) -> Result<Vec<OutboxRow>, StoreError> {
        self.begin();
        self.snapshot(|reader| {
            let mut found = Vec::new();
            let mut statement = reader.connection.prepare_cached(
                "SELECT seq, place, outcome, reason, tries, maybe_taken, since FROM straggler
                 WHERE outcome <> 9 ORDER BY seq, place LIMIT ?1",
            )?;
            let mut rows = statement.query((count(limit),))?;
            while let Some(row) = rows.next()? {
                let (message, straggler) = straggler(row)?;
                let outgoing = one_message(&reader.connection, reader.database, message)?
                    .ok_or_else(|| StoreError::corrupt(format!("row {} has no such message", message.seq)))?;
                let since = outgoing.at;
                found.push(OutboxRow { message, outgoing, since, straggler: Some(straggler) });
            }
            let rest = limit.saturating_sub(found.len());
            if rest > 0 {
                let cursor = reader.number("cursor")?;
                let rest = unsent(&reader.connection, reader.database, cursor, rest)?;
                found.extend(rest.messages.into_iter().map(|(message, outgoing)| {
                    let since = outgoing.at;
                    OutboxRow { message, outgoing, since, straggler: None }
                }));
                found.truncate(limit);
            }
            Ok(found)
        })
    }

    /// How many messages are unconfirmed.
    pub fn count_outbox(&self) -> Result<u64, StoreError> {
        self.begin();
        let cursor = self.number("cursor")?;
        let count: i64 = self
            .connection
            .prepare_cached(
                "SELECT (SELECT coalesce(sum(outgoing), 0) FROM log WHERE seq > ?1)
                      - (SELECT count(*) FROM straggler WHERE seq > ?1)
                      + (SELECT count(*) FROM straggler WHERE outcome <> 9)",
            )?
            .query_row((cursor,), |row| row.get(0))?;
        Ok(u64::try_from(count).unwrap_or(0))
    }
}
