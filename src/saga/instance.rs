//! A running process, in the form in which it is stored. Data and questions about it; nothing here decides.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::effect::{Json, Stamp};
use super::event::Message;
use super::exact;
use super::ids::{CommandId, InstanceId};
use super::incident::{Incident, IncidentKind};
use super::machine::Machine;
use super::time::Timestamp;

/// The store's number of a definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DefinitionNo(pub i64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    Running,
    Compensating,
    Completed,
    Compensated,
    Abandoned,
}

impl Status {
    pub const ALL: [Status; 5] =
        [Status::Running, Status::Compensating, Status::Completed, Status::Compensated, Status::Abandoned];

    pub fn name(self) -> &'static str {
        match self {
            Status::Running => "running",
            Status::Compensating => "compensating",
            Status::Completed => "completed",
            Status::Compensated => "compensated",
            Status::Abandoned => "abandoned",
        }
    }

    pub fn parse(name: &str) -> Option<Status> {
        Status::ALL.into_iter().find(|status| status.name() == name)
    }

    pub fn is_end(self) -> bool {
        matches!(self, Status::Completed | Status::Compensated | Status::Abandoned)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    pub id: InstanceId,
    pub definition: DefinitionNo,
    pub saga: String,
    pub key: String,
    pub started_at: Timestamp,
    /// When a turn last moved it.
    pub updated_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// Number of its last row in the journal, from 1.
    pub turn: u64,
    /// Number of the last row that moved it: what an order's `expect_turn` is held against.
    pub moved: u64,
    pub status: Status,
    /// The state it is in; compensating, the one that failed; ended, the last.
    pub state: String,
    /// Counts entries into states, from 1; 0 before the first.
    pub entry: u32,
    pub entered_at: Timestamp,
    #[serde(deserialize_with = "exact::value")]
    pub data: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub past_pivot: bool,
    /// A deadline came while the pivot was open: a refusal of the pivot compensates.
    #[serde(default, skip_serializing_if = "is_false")]
    pub deadline_noted: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub paused: bool,
    /// Commands in order of sending: the undo list, and what was answered otherwise. Never shrinks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timers: Vec<Timer>,
    /// The serial that the next timer gets.
    pub serial: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub incidents: Vec<Incident>,
    /// The number that the last incident got.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub incident_number: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<OpenDecision>,
    /// The number that the last decision got.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub decision_number: u32,
    /// What is left to send of an `each`, and what was collected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<Parts>,
    pub origin: Sender,
    /// Answers seen: a digest of source, type and message id, and one of the body.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seen: Vec<(u64, u64)>,
}

/// Whom a `reply` goes to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sender {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<String>,
    /// Trace id of the message, where it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    pub kind: FailureKind,
    pub state: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<u32>,
    pub reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    Refused,
    Timeout,
    Deadline,
    Fail,
    Operator,
}

impl FailureKind {
    pub fn name(self) -> &'static str {
        match self {
            FailureKind::Refused => "refused",
            FailureKind::Timeout => "timeout",
            FailureKind::Deadline => "deadline",
            FailureKind::Fail => "fail",
            FailureKind::Operator => "operator",
        }
    }
}

/// Which of a state's steps.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Part {
    /// The state's only one.
    Whole,
    Branch(String),
    /// Place in the list, from 0.
    Item(u32),
}

impl Part {
    pub fn is_whole(&self) -> bool {
        matches!(self, Part::Whole)
    }
}

/// What is known about the participant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepEffect {
    Sent,
    InDoubt,
    Done,
    Refused,
    Undoing,
    Undone,
    Skipped,
}

impl StepEffect {
    pub const ALL: [StepEffect; 7] = [
        StepEffect::Sent,
        StepEffect::InDoubt,
        StepEffect::Done,
        StepEffect::Refused,
        StepEffect::Undoing,
        StepEffect::Undone,
        StepEffect::Skipped,
    ];

    pub fn name(self) -> &'static str {
        match self {
            StepEffect::Sent => "sent",
            StepEffect::InDoubt => "in-doubt",
            StepEffect::Done => "done",
            StepEffect::Refused => "refused",
            StepEffect::Undoing => "undoing",
            StepEffect::Undone => "undone",
            StepEffect::Skipped => "skipped",
        }
    }
}

/// One command, and what became of it. A question that was asked again after its answer is a step of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    pub state: String,
    /// Which entry into the state.
    pub entry: u32,
    #[serde(default = "whole", skip_serializing_if = "Part::is_whole")]
    pub part: Part,
    /// Counts the questions of this entry and part, from 1.
    pub question: u32,
    pub effect: StepEffect,
    /// The state still waits for the answer: an answer takes the way that the state declares.
    #[serde(default, skip_serializing_if = "is_false")]
    pub open: bool,
    /// Off the undo list: a pivot succeeded after it, or a person said that it stands.
    #[serde(default, skip_serializing_if = "is_false")]
    pub kept: bool,
    /// Body of the command.
    pub body: Json,
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty", deserialize_with = "exact::fields")]
    pub headers: serde_json::Map<String, Value>,
    /// The header `saga-attempt` of the last that went out.
    pub attempt: u32,
    /// Attempts used in this round, counted over the questions of this entry and part.
    pub tries: u32,
    pub sent_at: Timestamp,
    /// The element of an `each`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "exact::optional")]
    pub item: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<Undo>,
    /// A refusal under `retry`: asked again when its delay is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
}

fn whole() -> Part {
    Part::Whole
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// What takes a step back: made when the success arrives or the step is given up, kept from then on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Undo {
    pub phase: UndoPhase,
    /// `None`: the command's own body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Json>,
    /// Counts the undo commands of this step, from 1 once one went out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub question: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempt: u32,
    /// Attempts used in this round.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tries: u32,
    /// The last one that went out was refused: sent again, it is a new command.
    #[serde(default, skip_serializing_if = "is_false")]
    pub refused: bool,
    /// Sent when its turn came on the undo list, not beside the path or once more.
    #[serde(default, skip_serializing_if = "is_false")]
    pub in_turn: bool,
    /// To be sent once more when the open one is answered, with a body of its own: the open one's stays as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<NextUndo>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_at: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NextUndo {
    /// `None`: the command's own body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Json>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UndoPhase {
    /// Its `when` did not hold: nothing to take back.
    Needless,
    /// Made, not sent.
    Ready,
    /// Sent; its answer (or confirm) is awaited.
    Open,
    /// Its retries are used up or it was refused; an incident says so. An answer still counts.
    Failed,
    Done,
    /// Given up by a person.
    Skipped,
}

/// A timer as the instance knows it. When it is due stands beside the instance, for a limit begins with a confirm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timer {
    /// Never used twice in an instance.
    pub serial: u32,
    pub what: TimerKind,
    pub start: TimerStart,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TimerKind {
    Deadline,
    /// `timers` of the present state: its name, and how often it has fired.
    State {
        name: String,
        fired: u32,
    },
    /// Limit of the attempt that is out.
    StepLimit {
        index: u32,
    },
    /// Delay before the next attempt, or before asking again after a refusal.
    StepDelay {
        index: u32,
    },
    UndoLimit {
        index: u32,
    },
    UndoDelay {
        index: u32,
    },
}

/// When a timer begins and which clock it runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TimerStart {
    /// Wall time.
    At(Timestamp),
    /// On the listening clock, so long from the commit of the turn that set it.
    Listening { after_ms: u64 },
    /// On the listening clock, so long from the broker's confirm of the message that carries it as its limit.
    Confirm { after_ms: u64 },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenDecision {
    pub number: u32,
    pub ask: String,
    pub since: Timestamp,
}

/// A state with several steps, while it lasts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Parts {
    /// Items of an `each` that have not been sent yet, with their place.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "exact::pairs")]
    pub waiting: Vec<(u32, Value)>,
    /// How many branches or items there are.
    pub total: u32,
    /// Bodies of the successes so far, for `collect`, by branch or place.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "exact::pairs")]
    pub collected: Vec<(Part, Value)>,
    /// Branches or items that were settled by an answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settled: Vec<Part>,
}

/// What a settled instance is not: marks on top of its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    pub stuck: bool,
    pub paused: bool,
    pub settling: bool,
}

impl Instance {
    /// As it is before its first turn, which is the one of the message that starts it.
    pub fn fresh(
        machine: &Machine,
        id: InstanceId,
        definition: DefinitionNo,
        key: String,
        data: Value,
        message: &Message,
        at: Timestamp,
    ) -> Instance {
        Instance {
            id,
            definition,
            saga: machine.name.clone(),
            key,
            started_at: at,
            updated_at: at,
            ended_at: None,
            turn: 0,
            moved: 0,
            status: Status::Running,
            state: machine.states.first().map(|(name, _)| name.clone()).unwrap_or_default(),
            entry: 0,
            entered_at: at,
            data,
            outcome: None,
            failure: None,
            past_pivot: false,
            deadline_noted: false,
            paused: false,
            steps: Vec::new(),
            timers: Vec::new(),
            serial: 1,
            incidents: Vec::new(),
            incident_number: 0,
            decision: None,
            decision_number: 0,
            parts: None,
            origin: super::emit::sender_of(message),
            seen: Vec::new(),
        }
    }

    /// What must hold of every instance between two turns; the first thing that does not.
    pub fn invariants(&self) -> Result<(), String> {
        let ensure = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
        ensure(self.moved <= self.turn, "it moved after its last turn")?;
        ensure(self.status.is_end() == self.ended_at.is_some(), "an end and its time go together")?;
        let listed = self.steps.iter().filter(|step| !step.kept).count();
        ensure(listed <= super::walk::MAX_STEPS, "more commands on the undo list than allowed")?;
        let past_running = self.status != Status::Running;
        ensure(!past_running || self.steps.iter().all(|step| !step.open), "a step is open and the state is not")?;
        ensure(!past_running || self.decision.is_none(), "a decision is open and the state is not")?;
        ensure(
            !matches!(self.status, Status::Compensating | Status::Compensated) || self.failure.is_some(),
            "compensating without a failure",
        )?;
        for (step, index) in self.steps.iter().zip(0_u32..) {
            self.step_invariants(step, index)?;
        }
        let mut serials: Vec<u32> = self.timers.iter().map(|timer| timer.serial).collect();
        serials.sort_unstable();
        serials.dedup();
        ensure(serials.len() == self.timers.len(), "two timers share a serial")?;
        ensure(serials.iter().all(|serial| *serial < self.serial), "a timer has a serial to come")?;
        if self.status == Status::Compensated {
            let left = self.steps.iter().find(|step| {
                step.effect == StepEffect::Done
                    && !step.kept
                    && step.undo.as_ref().is_some_and(|undo| undo.phase == UndoPhase::Ready)
                    && !self.incidents.iter().any(|incident| incident.kind == IncidentKind::LateSuccess)
            });
            ensure(left.is_none(), "compensated, and a step that is done was not taken back")?;
        }
        Ok(())
    }

    fn step_invariants(&self, step: &Step, index: u32) -> Result<(), String> {
        let fail = |what: &str| Err(format!("step {index} ({}): {what}", step.name()));
        let phase = step.undo.as_ref().map(|undo| undo.phase);
        if step.open && !matches!(step.effect, StepEffect::Sent | StepEffect::Refused) {
            return fail("open, but answered");
        }
        if step.effect == StepEffect::Sent && !step.open && self.status == Status::Running {
            return fail("given up, but not in doubt");
        }
        if (step.effect == StepEffect::Undoing) != matches!(phase, Some(UndoPhase::Open | UndoPhase::Failed))
            && self.status != Status::Abandoned
        {
            return fail("undoing, but its undo is not open");
        }
        if phase == Some(UndoPhase::Failed)
            && self.status != Status::Abandoned
            && !self.incidents.iter().any(|open| open.kind == IncidentKind::UndoFailed && open.step == Some(index))
        {
            return fail("its undo failed, but no incident says so");
        }
        Ok(())
    }

    pub fn stamp(&self) -> Stamp {
        Stamp { id: self.id, saga: self.saga.clone(), key: self.key.clone() }
    }

    pub fn marks(&self) -> Marks {
        Marks { stuck: !self.incidents.is_empty(), paused: self.paused, settling: self.is_settling() }
    }

    /// It has reached its end while something it gave up on the way is still being taken back.
    pub fn is_settling(&self) -> bool {
        matches!(self.status, Status::Completed | Status::Compensated)
            && self.steps.iter().any(|step| step.effect == StepEffect::Undoing)
    }

    /// An incident stops the whole instance.
    pub fn is_stopped(&self) -> bool {
        self.incidents.iter().any(|incident| incident.kind.stops_instance())
    }

    /// Events and timers wait.
    pub fn is_held(&self) -> bool {
        self.paused || self.is_stopped()
    }

    pub fn incident_of(&self, kind: IncidentKind) -> Option<&Incident> {
        self.incidents.iter().find(|incident| incident.kind == kind)
    }

    /// The open steps of the present state, by their place in `steps`.
    pub fn open_steps(&self) -> impl Iterator<Item = u32> + '_ {
        self.steps.iter().zip(0_u32..).filter(|(step, _)| step.open).map(|(_, index)| index)
    }

    pub fn step(&self, index: u32) -> Option<&Step> {
        self.steps.get(usize::try_from(index).ok()?)
    }

    pub fn command_id(&self, step: &Step) -> CommandId {
        CommandId::new(self.id, &format!("{}/{}/do/{}", step.entry, part_label(&step.part), step.question))
    }

    pub fn undo_command_id(&self, step: &Step, undo_question: u32) -> CommandId {
        let label = format!("{}/{}/{}/undo/{undo_question}", step.entry, part_label(&step.part), step.question);
        CommandId::new(self.id, &label)
    }
}

impl Part {
    pub fn branch(&self) -> Option<&str> {
        match self {
            Part::Branch(branch) => Some(branch),
            Part::Whole | Part::Item(_) => None,
        }
    }

    pub fn item(&self) -> Option<u32> {
        match self {
            Part::Item(place) => Some(*place),
            Part::Whole | Part::Branch(_) => None,
        }
    }
}

impl Step {
    /// It stands, and nothing will ever take it back: what that would need is not kept either.
    pub fn keep(&mut self) {
        self.kept = true;
        self.body = Json::of(&Value::Null);
        self.headers.clear();
        self.undo = None;
    }

    /// As in the header `saga-state`.
    pub fn name(&self) -> String {
        match &self.part {
            Part::Whole => self.state.clone(),
            Part::Branch(branch) => format!("{}.{branch}", self.state),
            Part::Item(place) => format!("{}[{place}]", self.state),
        }
    }
}

fn part_label(part: &Part) -> String {
    match part {
        Part::Whole => String::new(),
        Part::Branch(branch) => format!(".{branch}"),
        Part::Item(place) => format!("[{place}]"),
    }
}
