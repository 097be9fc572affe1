//! The history of incidents. Open ones live in the instance; here stands each with its times, and how many look alike.

use super::batch::Batch;
use super::codes::{self, signed};
use super::error::StoreError;
use super::rows::TurnRow;
use crate::saga::incident::Incident;
use crate::saga::instance::Instance;
use crate::saga::time::Timestamp;

/// How much of an error tells its group: what follows rarely differs in kind, and the group is an index key.
const GROUP_CHARS: usize = 300;

/// An error without what differs from instance to instance: key and id, then UUIDs and quoted text, then every run of
/// digits, also inside a word, become `#`.
pub fn normalize(error: &str, id: &str, key: &str) -> String {
    let mut text = error.to_owned();
    for own in [key, id] {
        if !own.is_empty() {
            text = text.replace(own, "#");
        }
    }
    let text = without_runs(&without_quotes(&without_uuids(&text)));
    text.chars().take(GROUP_CHARS).collect()
}

fn without_uuids(text: &str) -> String {
    const LENGTH: usize = 36;
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        // Only ASCII can be a UUID, so the cut is at the edge of a character.
        if let Some(piece) = bytes.get(at..at + LENGTH)
            && is_uuid(piece)
        {
            out.push('#');
            at += LENGTH;
            continue;
        }
        let next = text[at..].chars().next().expect("there is text left");
        out.push(next);
        at += next.len_utf8();
    }
    out
}

fn is_uuid(piece: &[u8]) -> bool {
    piece.iter().enumerate().all(|(place, byte)| match place {
        8 | 13 | 18 | 23 => *byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    })
}

/// Quoted text, of which both quotes are there; an apostrophe within a word is no quote.
fn without_quotes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut before = ' ';
    while let Some(first) = rest.chars().next() {
        let opens = matches!(first, '"' | '\'' | '`') && !before.is_alphanumeric();
        let after = &rest[first.len_utf8()..];
        if opens && let Some(end) = after.find(first) {
            out.push('#');
            rest = &after[end + first.len_utf8()..];
            before = '#';
            continue;
        }
        out.push(first);
        before = first;
        rest = after;
    }
    out
}

fn without_runs(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_run = false;
    for next in text.chars() {
        let digit = next.is_ascii_digit();
        if !digit {
            out.push(next);
        } else if !in_run {
            out.push('#');
        }
        in_run = digit;
    }
    out
}

impl Batch<'_> {
    pub(super) fn write_incidents(&mut self, row: &TurnRow<'_>) -> Result<(), StoreError> {
        let empty: &[Incident] = &[];
        let old = row.before.map_or(empty, |before| &before.instance.incidents);
        let new = &row.after.incidents;
        if old.is_empty() && new.is_empty() {
            return Ok(());
        }
        for incident in old {
            let same = new.iter().find(|other| other.number == incident.number);
            if same.is_none_or(|other| !looks_alike(incident, other)) {
                self.close_incident(row.after, incident.number, row.given.at)?;
            }
        }
        for incident in new {
            if !old.iter().any(|other| other.number == incident.number && looks_alike(incident, other)) {
                self.open_incident(row.after, incident)?;
            }
        }
        Ok(())
    }

    fn close_incident(&mut self, instance: &Instance, number: u32, at: Timestamp) -> Result<(), StoreError> {
        let no = signed(instance.id.no().0, "instance number")?;
        self.run(
            "UPDATE incident_group SET open = open - 1
             WHERE no = (SELECT grouping FROM incident WHERE instance = ?1 AND number = ?2 AND closed_at IS NULL)",
            (no, number),
        )?;
        // A group lasts as long as one of its incidents is open, or there would be ever more of them.
        self.run(
            "DELETE FROM incident_group WHERE open <= 0
             AND no = (SELECT grouping FROM incident WHERE instance = ?1 AND number = ?2 AND closed_at IS NULL)",
            (no, number),
        )?;
        self.run(
            "UPDATE incident SET closed_at = ?3 WHERE instance = ?1 AND number = ?2 AND closed_at IS NULL",
            (no, number, at.0),
        )?;
        Ok(())
    }

    fn open_incident(&mut self, instance: &Instance, incident: &Incident) -> Result<(), StoreError> {
        let no = signed(instance.id.no().0, "instance number")?;
        let saga = self.name_saga(&instance.saga)?.0;
        let state = self.name_state(&incident.state)?;
        let kind = codes::incident(incident.kind);
        let error = normalize(&incident.error, &instance.id.to_string(), &instance.key);
        self.run(
            "INSERT INTO incident_group (saga, state, kind, error, open) VALUES (?1, ?2, ?3, ?4, 1)
             ON CONFLICT DO UPDATE SET open = open + 1",
            (saga, state, kind, &error),
        )?;
        let step = incident
            .step
            .and_then(|index| usize::try_from(index).ok())
            .and_then(|index| instance.steps.get(index))
            .map(crate::saga::instance::Step::name);
        let place = incident.place.map(|place| serde_json::to_string(&place).expect("a place always serialises"));
        self.run(
            "INSERT INTO incident (instance, number, grouping, kind, state, step, error, place, opened_at)
             SELECT ?1, ?2, no, ?5, ?4, ?7, ?8, ?9, ?10 FROM incident_group
             WHERE saga = ?3 AND state = ?4 AND kind = ?5 AND error = ?6
             ON CONFLICT DO UPDATE SET grouping = excluded.grouping, kind = excluded.kind, state = excluded.state,
                    step = excluded.step, error = excluded.error, place = excluded.place, closed_at = NULL",
            (no, incident.number, saga, state, kind, &error, step, &incident.error, place, incident.opened_at.0),
        )?;
        Ok(())
    }
}

/// Its row and its group stay as they are.
fn looks_alike(one: &Incident, other: &Incident) -> bool {
    one.kind == other.kind && one.state == other.state && one.error == other.error && one.step == other.step
}

#[cfg(test)]
mod tests {
    use super::normalize;

    #[test]
    fn errors_that_differ_by_instance_alone_become_one() {
        let id = "018f2b3c-4d5e-7000-8123-456789abcdef";
        let one = normalize(
            "OrderRefused: order A-17 of 3fa85f64-5717-4562-b3fc-2c963f66afa6 lacks 'apples' (12x3)",
            id,
            "A-17",
        );
        assert_eq!(one, "OrderRefused: order # of # lacks # (#x#)");
        assert_eq!(
            normalize("no answer after 3 attempts to 018f2b3c-4d5e-7000-8123-456789abcdef", id, ""),
            "no answer after # attempts to #"
        );
    }

    #[test]
    fn an_apostrophe_is_no_quote_and_a_digit_inside_a_word_counts() {
        assert_eq!(normalize("can't find user42's \"name\" – don't", "", ""), "can't find user#'s # – don't");
    }

    #[test]
    fn text_of_any_script_is_kept() {
        assert_eq!(normalize("größe 7 ≠ 8 – 部品", "", ""), "größe # ≠ # – 部品");
    }
}
