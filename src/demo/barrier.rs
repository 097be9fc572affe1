//! The barrier: one row for each command id. It knows what was answered and what was taken back, and nothing of what the
//! command means.
//!
//! A participant with a database writes the row in the transaction that carries the command out; see
//! `examples/participant.rs` for one that does.

use std::collections::BTreeMap;

use serde_json::Value;

use super::command::Answer;

#[derive(Clone, Debug, Default)]
pub struct Barrier {
    rows: BTreeMap<String, Row>,
}

#[derive(Clone, Debug, Default)]
struct Row {
    /// What was asked and what was answered; absent while only the undo has come.
    handled: Option<Handled>,
    taken_back: bool,
}

#[derive(Clone, Debug)]
struct Handled {
    asked: Value,
    answer: Answer,
}

/// What a command that comes in is, in the light of what came before.
#[derive(Clone, Debug, PartialEq)]
pub enum Before {
    /// Never heard of.
    Nothing,
    /// Handled: the same answer again.
    Answered(Answer),
    /// The id is known with another body: two commands share an id, and neither can be trusted.
    Contradicted,
    /// Its undo was here first: it must not be carried out any more.
    TakenBack,
}

impl Barrier {
    pub fn before(&self, id: &str, asked: &Value) -> Before {
        match self.rows.get(id) {
            None => Before::Nothing,
            Some(Row { handled: Some(handled), .. }) if handled.asked != *asked => Before::Contradicted,
            Some(Row { handled: Some(handled), .. }) => Before::Answered(handled.answer.clone()),
            Some(Row { handled: None, .. }) => Before::TakenBack,
        }
    }

    pub fn remember(&mut self, id: &str, asked: &Value, answer: &Answer) {
        let row = self.rows.entry(id.to_owned()).or_default();
        row.handled = Some(Handled { asked: asked.clone(), answer: answer.clone() });
    }

    /// Notes that a command was taken back, whether it ever came or not.
    pub fn take_back(&mut self, id: &str) {
        self.rows.entry(id.to_owned()).or_default().taken_back = true;
    }

    pub fn is_taken_back(&self, id: &str) -> bool {
        self.rows.get(id).is_some_and(|row| row.taken_back)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_command_that_was_answered_is_answered_the_same_even_after_its_undo() {
        let mut barrier = Barrier::default();
        let asked = json!({"group": "g1"});
        assert_eq!(barrier.before("c1", &asked), Before::Nothing);
        let answer = Answer::new("SlotReserved", json!({}));
        barrier.remember("c1", &asked, &answer);
        barrier.take_back("c1");
        assert_eq!(barrier.before("c1", &asked), Before::Answered(answer));
        assert_eq!(barrier.before("c1", &json!({"group": "g2"})), Before::Contradicted);
    }

    #[test]
    fn an_undo_that_comes_first_is_remembered_until_its_command_comes() {
        let mut barrier = Barrier::default();
        barrier.take_back("c1");
        assert!(barrier.is_taken_back("c1"));
        assert_eq!(barrier.before("c1", &json!({})), Before::TakenBack);
    }
}
