//! Which messages were seen, in two generations: a row is kept for one to two times the retention, and the older
//! generation goes as a whole, so that no index grows for ever and nothing is deleted row by row.

use rusqlite::OptionalExtension;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use super::batch::Batch;
use super::error::StoreError;
use super::open::Store;
use crate::saga::time::Timestamp;

/// What a message is known by: source, type and message id, in 16 bytes. Ids that are ordered by time (UUIDv7) keep
/// their order, which spares the index most of its page changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageKey(pub [u8; 16]);

impl MessageKey {
    pub fn of(source: &str, kind: &str, id: &str) -> MessageKey {
        let mut hash = Sha256::new();
        for part in [source, kind, id] {
            hash.update(part.len().to_le_bytes());
            hash.update(part.as_bytes());
        }
        let hash = hash.finalize();
        let mut bytes = [0_u8; 16];
        match Uuid::try_parse(id) {
            Ok(uuid) if uuid.get_version_num() == 7 => {
                bytes[..6].copy_from_slice(&uuid.as_bytes()[..6]);
                bytes[6..].copy_from_slice(&hash[..10]);
            }
            _ => bytes.copy_from_slice(&hash[..16]),
        }
        MessageKey(bytes)
    }
}

/// What tells two bodies under one id apart.
pub fn body_digest(body: &[u8]) -> u64 {
    xxh3_64(body)
}

impl Store {
    /// The digest of the body with which a message came the first time.
    pub fn seen(&self, key: &MessageKey) -> Result<Option<u64>, StoreError> {
        let digest: Option<i64> = self
            .connection
            .prepare_cached(
                "SELECT body FROM seen_0 WHERE id = ?1 UNION ALL SELECT body FROM seen_1 WHERE id = ?1 LIMIT 1",
            )?
            .query_row((key.0,), |row| row.get(0))
            .optional()?;
        Ok(digest.map(i64::cast_unsigned))
    }
}

impl Batch<'_> {
    /// Remembers a message that was not seen before.
    pub fn remember(&mut self, key: &MessageKey, digest: u64) -> Result<(), StoreError> {
        let sql = match self.store.scalars.generation {
            0 => "INSERT INTO seen_0 (id, body) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            _ => "INSERT INTO seen_1 (id, body) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        };
        self.run(sql, (key.0, digest.cast_signed()))?;
        Ok(())
    }

    /// Drops the older generation once the present one is `retention_ms` old, and begins a new one.
    pub fn turn_inbox(&mut self, now: Timestamp, retention_ms: u64) -> Result<bool, StoreError> {
        let Some(since) = self.store.scalars.generation_since else {
            self.store.scalars.generation_since = Some(now);
            return Ok(false);
        };
        let age = now.0.saturating_sub(since.0);
        if age < 0 || age.unsigned_abs() < retention_ms {
            return Ok(false);
        }
        let next = 1 - self.store.scalars.generation.min(1);
        self.run(if next == 0 { "DELETE FROM seen_0" } else { "DELETE FROM seen_1" }, ())?;
        self.store.scalars.generation = next;
        self.store.scalars.generation_since = Some(now);
        Ok(true)
    }
}
