//! The chain of digests over an instance's journal: each row's covers the row before it, the row itself, and the instance
//! after it. Pure functions; the writer makes links with them and `journal --verify` tries them.

use sha2::{Digest as _, Sha256};

use super::codes;
use super::reader::JournalRow;
use super::rows::{ChainDigest, Head, Stand, Weight};

/// Everything that a link covers but the link before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link<'a> {
    pub(super) instance: u64,
    pub(super) turn: u64,
    pub(super) at: i64,
    pub(super) rules: u16,
    pub(super) weight: Weight,
    pub(super) from: Option<&'a Stand>,
    pub(super) to: Option<&'a Stand>,
    pub(super) given: &'a str,
    pub(super) messages: &'a str,
    pub(super) changed: &'a str,
    pub(super) notes: &'a str,
    /// Digest of the instance after the turn.
    pub(super) after: Option<ChainDigest>,
}

/// Where a chain does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    pub turn: u64,
    pub what: BrokenLink,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokenLink {
    #[error("the row is not the one that was written")]
    Digest,
    #[error("a row is missing before this one")]
    Gap,
    #[error("the instance's row does not point to the end of its journal")]
    Head,
    #[error("the instance is not the one that its last turn left")]
    Instance,
}

pub(super) fn cut(hash: Sha256) -> ChainDigest {
    let hash = hash.finalize();
    let mut digest = [0_u8; 16];
    digest.copy_from_slice(&hash[..16]);
    ChainDigest(digest)
}

/// Digest of an instance in its stored form.
pub(super) fn body_digest(body: &[u8]) -> ChainDigest {
    let mut hash = Sha256::new();
    hash.update(body);
    cut(hash)
}

pub(super) fn link_digest(before: Option<ChainDigest>, link: &Link<'_>) -> ChainDigest {
    let mut hash = Sha256::new();
    hash.update(before.map_or([0; 16], |digest| digest.0));
    hash.update(link.instance.to_le_bytes());
    hash.update(link.turn.to_le_bytes());
    hash.update(link.at.to_le_bytes());
    hash.update(link.rules.to_le_bytes());
    hash.update(codes::weight(link.weight).to_le_bytes());
    for stand in [link.from, link.to] {
        hash.update(stand.map_or(0, |stand| codes::status(stand.status)).to_le_bytes());
        text(&mut hash, stand.map_or("", |stand| &stand.state));
    }
    for part in [link.given, link.messages, link.changed, link.notes] {
        text(&mut hash, part);
    }
    hash.update(link.after.map_or([0; 16], |digest| digest.0));
    cut(hash)
}

/// With its length before it, so that no two lists of texts look alike.
fn text(hash: &mut Sha256, text: &str) {
    hash.update(text.len().to_le_bytes());
    hash.update(text.as_bytes());
}

/// Tries a journal's chain: all rows from turn 1, in order, what the instance's row points to, and the instance's
/// stored bytes. Reports the first place where it does not hold.
pub fn verify_chain(rows: &[JournalRow], head: Head, body: &[u8]) -> Option<Broken> {
    let mut before: Option<(i64, ChainDigest)> = None;
    for (turn, row) in (1..).zip(rows) {
        let broken = |what| Some(Broken { turn, what });
        if row.turn != turn || row.prev != before.map(|(seq, _)| seq) {
            return broken(BrokenLink::Gap);
        }
        if link_digest(before.map(|(_, digest)| digest), &row.link()) != row.digest {
            return broken(BrokenLink::Digest);
        }
        before = Some((row.seq, row.digest));
    }
    let turn = rows.last().map_or(0, |row| row.turn);
    if before != Some((head.seq, head.digest)) {
        return Some(Broken { turn, what: BrokenLink::Head });
    }
    (rows.last().and_then(|row| row.after) != Some(body_digest(body)))
        .then_some(Broken { turn, what: BrokenLink::Instance })
}
