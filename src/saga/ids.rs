//! Identities: instances, commands, messages. All are derived, so that the same turn always names the same things.
//!
//! An instance's number is 48 bits of milliseconds and a 12-bit counter; it is the row's integer key. Its id is a UUIDv7
//! around that number. A command id is a UUIDv8 that carries the number too, so that an answer finds its instance
//! without an index, and a tag of the database, so that another daemon's answers are told apart.

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use super::time::Timestamp;

/// `milliseconds << 12 | counter`: unique in a database, ordered by start, and positive as an `i64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct InstanceNo(pub u64);

impl InstanceNo {
    /// The number after `last` for an instance that starts at `at`; never one that was given before.
    pub fn next(last: Option<InstanceNo>, at: Timestamp) -> InstanceNo {
        let by_clock = (at.0.max(0).unsigned_abs() & 0xffff_ffff_ffff) << 12;
        match last {
            Some(InstanceNo(last)) if last >= by_clock => InstanceNo(last + 1),
            _ => InstanceNo(by_clock),
        }
    }
}

/// Which database this is: made once, when the file is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseId(pub Uuid);

impl DatabaseId {
    /// The 16 bits that each id of this database carries.
    pub fn tag(self) -> u16 {
        let bytes = self.0.as_bytes();
        u16::from_be_bytes([bytes[14], bytes[15]])
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InstanceId(pub Uuid);

impl InstanceId {
    pub fn new(no: InstanceNo, database: DatabaseId) -> InstanceId {
        let mut seed = [0_u8; 24];
        seed[..16].copy_from_slice(database.0.as_bytes());
        seed[16..].copy_from_slice(&no.0.to_be_bytes());
        let mut bytes = compose(no, database.tag(), xxh3_64(&seed));
        bytes[6] = (bytes[6] & 0x0f) | 0x70;
        InstanceId(Uuid::from_bytes(bytes))
    }

    pub fn no(self) -> InstanceNo {
        number(self.0)
    }

    pub fn tag(self) -> u16 {
        tag(self.0)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CommandId(pub Uuid);

impl CommandId {
    /// The id of one question: `label` is unique among an instance's questions
    /// (`<entry>/<part>/do/<question>`, `<entry>/<part>/undo/<question>`, `<turn>/send/<place>`).
    pub fn new(instance: InstanceId, label: &str) -> CommandId {
        let mut seed = Vec::with_capacity(16 + label.len());
        seed.extend_from_slice(instance.0.as_bytes());
        seed.extend_from_slice(label.as_bytes());
        let mut bytes = compose(instance.no(), instance.tag(), xxh3_64(&seed));
        bytes[6] = (bytes[6] & 0x0f) | 0x80;
        CommandId(Uuid::from_bytes(bytes))
    }

    /// Reads a correlation id; `None` where it cannot be a command id of any daemon.
    pub fn parse(text: &str) -> Option<CommandId> {
        let id = Uuid::try_parse(text).ok()?;
        (id.get_version_num() == 8).then_some(CommandId(id))
    }

    pub fn instance_no(self) -> InstanceNo {
        number(self.0)
    }

    pub fn tag(self) -> u16 {
        tag(self.0)
    }

    /// The message id of one attempt.
    pub fn message_id(self, attempt: u32) -> Uuid {
        Uuid::new_v5(&self.0, format!("attempt {attempt}").as_bytes())
    }
}

/// The message id of an event: from the turn and the message's place in it.
pub fn event_message_id(instance: InstanceId, turn: u64, place: usize) -> Uuid {
    Uuid::new_v5(&instance.0, format!("turn {turn} message {place}").as_bytes())
}

/// 48 bits of time, a nibble left free for the version, 12 bits of counter, the variant, 16 bits of tag, 46 of hash.
fn compose(no: InstanceNo, tag: u16, hash: u64) -> [u8; 16] {
    let high = ((no.0 >> 12) << 16) | (no.0 & 0xfff);
    let low = (0b10 << 62) | (u64::from(tag) << 46) | (hash & 0x3fff_ffff_ffff);
    let mut bytes = [0_u8; 16];
    bytes[..8].copy_from_slice(&high.to_be_bytes());
    bytes[8..].copy_from_slice(&low.to_be_bytes());
    bytes
}

fn halves(id: Uuid) -> (u64, u64) {
    let bits = id.as_u128();
    let high = u64::try_from(bits >> 64).expect("a shifted u128 fits");
    let low = u64::try_from(bits & u128::from(u64::MAX)).expect("a masked u128 fits");
    (high, low)
}

fn number(id: Uuid) -> InstanceNo {
    let (high, _) = halves(id);
    InstanceNo(((high >> 16) << 12) | (high & 0xfff))
}

fn tag(id: Uuid) -> u16 {
    let (_, low) = halves(id);
    u16::try_from((low >> 46) & 0xffff).expect("masked to 16 bits")
}

macro_rules! shown_as_uuid {
    ($($name:ident),*) => {$(
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(&self.0, f)
            }
        }
    )*};
}
shown_as_uuid!(InstanceId, CommandId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_carries_number_and_tag_there_and_back() {
        let database = DatabaseId(Uuid::from_u128(0x1234_5678_9abc_4def_8123_4567_89ab_cdef));
        let no = InstanceNo::next(None, Timestamp(1_893_456_000_123));
        let no = InstanceNo::next(Some(no), Timestamp(1_893_456_000_123));
        let id = InstanceId::new(no, database);
        assert_eq!(id.no(), no);
        assert_eq!(id.tag(), 0xcdef);
        assert_eq!(id.0.get_version_num(), 7);
        let command = CommandId::new(id, "1//do/1");
        assert_eq!(command.instance_no(), no);
        assert_eq!(command.tag(), 0xcdef);
        assert_eq!(command.0.get_version_num(), 8);
        assert_eq!(CommandId::parse(&command.to_string()), Some(command));
        assert_ne!(command, CommandId::new(id, "1//do/2"));
    }

    #[test]
    fn numbers_never_go_back_with_the_clock() {
        let first = InstanceNo::next(None, Timestamp(1000));
        let second = InstanceNo::next(Some(first), Timestamp(10));
        assert!(second > first);
    }
}
