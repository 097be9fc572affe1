//! The integers under which enums are stored. They are part of the stored form: a number is never given a second meaning.

use super::aside::AsideKind;
use super::error::StoreError;
use super::outbox::StragglerOutcome;
use super::rows::Weight;
use crate::saga::incident::IncidentKind;
use crate::saga::instance::{Marks, Status};

pub(super) const STUCK: i64 = 1;
pub(super) const PAUSED: i64 = 2;
pub(super) const SETTLING: i64 = 4;

pub(super) fn status(status: Status) -> i64 {
    match status {
        Status::Running => 1,
        Status::Compensating => 2,
        Status::Completed => 3,
        Status::Compensated => 4,
        Status::Abandoned => 5,
    }
}

pub(super) fn status_of(code: i64) -> Result<Status, StoreError> {
    found(Status::ALL.into_iter().find(|known| status(*known) == code), "status", code)
}

pub(super) fn incident(kind: IncidentKind) -> i64 {
    match kind {
        IncidentKind::UndoFailed => 1,
        IncidentKind::NoWayBack => 2,
        IncidentKind::Unroutable => 3,
        IncidentKind::LateSuccess => 4,
        IncidentKind::Raised => 5,
        IncidentKind::Stalled => 6,
        IncidentKind::Expression => 7,
        IncidentKind::Endless => 8,
        IncidentKind::TooLarge => 9,
        IncidentKind::Panic => 10,
        IncidentKind::Definition => 11,
    }
}

pub(super) fn incident_of(code: i64) -> Result<IncidentKind, StoreError> {
    found(IncidentKind::ALL.into_iter().find(|known| incident(*known) == code), "incident kind", code)
}

pub(super) fn marks(marks: Marks) -> i64 {
    i64::from(marks.stuck) * STUCK + i64::from(marks.paused) * PAUSED + i64::from(marks.settling) * SETTLING
}

pub(super) fn marks_of(code: i64) -> Marks {
    Marks { stuck: code & STUCK != 0, paused: code & PAUSED != 0, settling: code & SETTLING != 0 }
}

pub(super) fn weight(weight: Weight) -> i64 {
    match weight {
        Weight::Noted => 0,
        Weight::Moved => 1,
    }
}

pub(super) fn weight_of(code: i64) -> Result<Weight, StoreError> {
    found([Weight::Noted, Weight::Moved].into_iter().find(|known| weight(*known) == code), "weight", code)
}

/// In the column stands also 9: done with, kept until the cursor has passed it.
pub(super) fn outcome(outcome: StragglerOutcome) -> i64 {
    match outcome {
        StragglerOutcome::UnderWay => 1,
        StragglerOutcome::Unknown => 2,
        StragglerOutcome::Nacked => 3,
        StragglerOutcome::Returned => 4,
        StragglerOutcome::Rejected => 5,
    }
}

pub(super) fn outcome_of(code: i64) -> Result<StragglerOutcome, StoreError> {
    found(StragglerOutcome::ALL.into_iter().find(|known| outcome(*known) == code), "outcome", code)
}

pub(super) fn aside(kind: AsideKind) -> i64 {
    match kind {
        AsideKind::Dead => 1,
        AsideKind::Unmatched => 2,
    }
}

pub(super) fn aside_of(code: i64) -> Result<AsideKind, StoreError> {
    found([AsideKind::Dead, AsideKind::Unmatched].into_iter().find(|known| aside(*known) == code), "kind", code)
}

fn found<T>(value: Option<T>, what: &str, code: i64) -> Result<T, StoreError> {
    value.ok_or_else(|| StoreError::corrupt(format!("{code} is no {what}")))
}

/// A number that counts or names something is never negative.
pub(super) fn unsigned(value: i64, what: &str) -> Result<u64, StoreError> {
    u64::try_from(value).map_err(|_| StoreError::corrupt(format!("{value} is no {what}")))
}

pub(super) fn small(value: i64, what: &str) -> Result<u32, StoreError> {
    u32::try_from(value).map_err(|_| StoreError::corrupt(format!("{value} is no {what}")))
}

/// Into the signed column; what is past it (it never is, by the clock or by count) is a defect.
pub(super) fn signed(value: u64, what: &str) -> Result<i64, StoreError> {
    i64::try_from(value).map_err(|_| StoreError::defect(format!("the {what} {value} is too large to be stored")))
}

/// How many there are of something that is in memory.
pub(super) fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
