//! The participants of `allocate-cell`: cells guard their capacity, detainees guard that each is in one cell at most, and
//! only while their status allows it.

use std::collections::BTreeMap;

use super::command::Command;
use super::guarded::{No, Rules, Undo, Words};
use super::join_group::field;
use super::slots::{NoSlot, Register};

/// All cells; the slot's key is the reservation, that is the request.
#[derive(Clone, Debug)]
pub struct Cells {
    pub places: Register,
}

impl Cells {
    pub fn new(capacity: usize) -> Cells {
        Cells { places: Register::new(capacity) }
    }
}

impl Rules for Cells {
    fn address(&self) -> &'static str {
        "cells"
    }

    fn words(&self) -> &'static [Words] {
        const WORDS: &[Words] = &[
            Words {
                command: "ReservePlace",
                success: "PlaceReserved",
                failure: Some("PlaceRejected"),
                undo: Some(Undo { command: "ReleasePlace", success: "PlaceReleased" }),
            },
            Words { command: "OccupyPlace", success: "PlaceOccupied", failure: None, undo: None },
        ];
        WORDS
    }

    fn act(&mut self, command: &Command) -> Result<(), No> {
        let cell = field(command, "cell")?;
        let reservation = field(command, "reservation")?;
        let places = self.places.of(cell);
        match command.name.as_str() {
            "OccupyPlace" => Ok(places.confirm(reservation)?),
            _ => places.take(reservation, field(command, "detainee")?, &command.id).map_err(|no| match no {
                NoSlot::Full { limit } => No::Refused(format!("cell {cell} is full with {limit}")),
                NoSlot::Held { whose } => No::Refused(format!("reservation {reservation} is that of {whose}")),
            }),
        }
    }

    fn take_back(&mut self, undo: &Command, undoes: &str) -> Result<(), No> {
        let cell = field(undo, "cell")?;
        Ok(self.places.of(cell).give_back(field(undo, "reservation")?, undoes)?)
    }
}

/// All detainees; the slot's key is the cell, and there is one.
#[derive(Clone, Debug)]
pub struct Detainees {
    pub cells: Register,
    /// Why somebody can be put into no cell at all; who is not in here can.
    away: BTreeMap<String, String>,
}

impl Detainees {
    pub fn new(away: BTreeMap<String, String>) -> Detainees {
        Detainees { cells: Register::new(1), away }
    }
}

impl Rules for Detainees {
    fn address(&self) -> &'static str {
        "detainees"
    }

    fn words(&self) -> &'static [Words] {
        const WORDS: &[Words] = &[Words {
            command: "AllocateDetainee",
            success: "DetaineeAllocated",
            failure: Some("DetaineeNotAllocatable"),
            undo: Some(Undo { command: "DeallocateDetainee", success: "DetaineeDeallocated" }),
        }];
        WORDS
    }

    fn act(&mut self, command: &Command) -> Result<(), No> {
        let detainee = field(command, "detainee")?;
        let cell = field(command, "cell")?;
        let reservation = field(command, "reservation")?;
        if let Some(status) = self.away.get(detainee) {
            return Err(No::Refused(format!("detainee {detainee} is {status}")));
        }
        self.cells.of(detainee).take(cell, reservation, &command.id).map_err(|no| match no {
            NoSlot::Full { .. } => No::Refused(format!("detainee {detainee} is in another cell")),
            NoSlot::Held { .. } => No::Refused(format!("detainee {detainee} is in cell {cell} already")),
        })
    }

    fn take_back(&mut self, undo: &Command, undoes: &str) -> Result<(), No> {
        let detainee = field(undo, "detainee")?;
        Ok(self.cells.of(detainee).give_back(field(undo, "cell")?, undoes)?)
    }
}
