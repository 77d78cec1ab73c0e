//! What holds of every saga, whatever happens to it: laws of their own, without the model.

use std::collections::{BTreeMap, BTreeSet};

use syncor::core::definition::{Definition, OnCompensationFailure, OnExhausted, StepKind, Work};
use syncor::core::machine::{Advance, Attempt, Emission};
use syncor::core::outcome::{Action, Class};
use syncor::core::saga::{Compensation, Saga, SagaState, StepProgress, StepStatus, Wait};
use syncor::core::time::Timestamp;

use super::told::{Act, Told};

/// One input and what became of it.
#[derive(Debug)]
pub struct Judged<'a> {
    pub before: &'a Saga,
    pub after: &'a Saga,
    pub advance: &'a Advance,
    pub told: Told,
    pub now: Timestamp,
    /// The worker is not about to stop.
    pub go_on: bool,
    /// The open tasks, after it.
    pub tasks: &'a BTreeSet<(usize, &'static str)>,
}

/// The history that the laws speak of.
#[derive(Debug, Default)]
pub struct Laws {
    /// Attempts on record, and those that count.
    ended: BTreeMap<(usize, Act), u32>,
    counted: BTreeMap<(usize, Act), u32>,
    /// Steps that may have been done without anybody knowing.
    doubt: BTreeSet<usize>,
    /// Some undo was begun.
    undoing: bool,
    told: Vec<Emission>,
    fence: i64,
    judged: bool,
}

type Checked = Result<(), String>;

fn ensure(holds: bool, law: &str) -> Checked {
    if holds { Ok(()) } else { Err(format!("law broken: {law}")) }
}

impl Laws {
    /// Judges one turn.
    ///
    /// # Errors
    /// The law that does not hold.
    pub fn judge(&mut self, definition: &Definition, turn: &Judged<'_>) -> Checked {
        let Judged { before, after, advance, told, go_on, .. } = *turn;
        self.judged = true;
        if let Told::Answer { seq, act, number, .. } = told {
            let awaited = before.steps[seq].in_flight() == Some(act.action()) && before.steps[seq].attempt(act.action()) == number;
            ensure(advance.stale != (awaited && !before.state.is_terminal()), "only the reply to a call in flight counts")?;
        }
        let nothing = advance.steps.is_empty() && advance.attempts.is_empty() && advance.calls.is_empty() && advance.children.is_empty();
        let quiet = before == after && nothing && advance.emissions.is_empty() && advance.tasks.is_empty() && advance.child_orders.is_empty();
        ensure(!advance.stale || quiet, "a stale input changes nothing")?;
        ensure(!before.state.is_terminal() || advance.stale, "a terminal state never changes")?;
        ensure(go_on || advance.calls.is_empty() && advance.children.is_empty(), "recording begins nothing")?;
        ensure(advance.steps.is_sorted_by(|a, b| a < b), "written steps are ascending")?;
        for (seq, (old, new)) in before.steps.iter().zip(&after.steps).enumerate() {
            let stored = |step: &StepProgress| StepProgress { beat_at: None, ..step.clone() };
            ensure(stored(old) == stored(new) || advance.steps.contains(&seq), "every step that changed is written")?;
        }
        if let (Told::Decision { seq: Some(seq), word: "not_done", .. }, false) = (told, advance.stale) {
            self.doubt.remove(&seq);
        }
        self.attempts_end(definition, turn)?;
        self.attempts_begin(definition, turn)?;
        for emission in &advance.emissions {
            self.emit(before, after, emission)?;
        }
        time_stands_still(turn)?;
        for (seq, step) in after.steps.iter().enumerate() {
            tasks_fit(definition, turn, seq, step)?;
        }
        of_state(definition, after)?;
        if go_on && !advance.stale {
            goes_on(turn)?;
        }
        Ok(())
    }

    fn attempts_end(&mut self, definition: &Definition, turn: &Judged<'_>) -> Checked {
        for Attempt { seq, action, number, outcome, .. } in &turn.advance.attempts {
            let act = Act::of(*action);
            let ended = self.ended.entry((*seq, act)).or_default();
            ensure(*number == *ended + 1, "attempts are numbered without a gap, and end once")?;
            *ended = *number;
            ensure(outcome.class == Class::Succeeded || outcome.error.is_some(), "an attempt that did not succeed says why")?;
            if outcome.class != Class::Lost && !outcome.free {
                *self.counted.entry((*seq, act)).or_default() += 1;
            }
            let is_function = matches!(definition.steps[*seq].work, Work::Sql(_));
            match (act, outcome.class) {
                (Act::Do, Class::Unknown) => drop(self.doubt.insert(*seq)),
                (Act::Do, Class::Lost) if !is_function => drop(self.doubt.insert(*seq)),
                (Act::Ask, Class::NotDone) => drop(self.doubt.remove(seq)),
                _ => {}
            }
        }
        for (seq, (old, new)) in turn.before.steps.iter().zip(&turn.after.steps).enumerate() {
            for (act, was, is) in [(Act::Do, old.spent, new.spent), (Act::Undo, old.undo_spent, new.undo_spent)] {
                if is < was {
                    self.counted.remove(&(seq, act)); // A human gave it all its attempts again.
                }
            }
        }
        Ok(())
    }

    fn attempts_begin(&mut self, definition: &Definition, turn: &Judged<'_>) -> Checked {
        let Judged { before, after, advance, now, .. } = *turn;
        for &(seq, action) in &advance.calls {
            let step = &after.steps[seq];
            ensure(step.in_flight() == Some(action) && step.called_at == Some(now), "a call that is made is in flight")?;
            ensure(step.fence > self.fence, "fences rise")?;
            self.fence = step.fence;
            let tries = match action {
                Action::Do => definition.steps[seq].retry.attempts,
                Action::Undo => definition.steps[seq].compensate.as_ref().map_or(0, |undo| undo.retry.attempts),
                Action::Verify => u32::MAX,
            };
            ensure(self.counted.get(&(seq, Act::of(action))).is_none_or(|counted| *counted < tries), "no more attempts than there may be")?;
        }
        for (seq, (old, new)) in before.steps.iter().zip(&after.steps).enumerate() {
            if new.attempts > old.attempts && !new.status.is_final() && advance.attempts.iter().all(|attempt| attempt.seq != seq) {
                // What is begun side by side with a step that fails at once is begun all the same.
                let beside = advance.attempts.iter().any(|attempt| attempt.started_at == now && attempt.outcome.class == Class::Refused);
                ensure(after.state == SagaState::Running && after.target.is_none() || beside, "steps are done while going forward")?;
                ensure(!self.undoing, "nothing is done after something was undone")?;
            }
            if new.undo_attempts > old.undo_attempts && new.compensation.is_under_way() && new.compensation != Compensation::Backoff {
                ensure(after.state == SagaState::Compensating, "steps are undone while going back")?;
                let forward = |step: &StepProgress| matches!(step.status, StepStatus::Running | StepStatus::Waiting | StepStatus::Backoff);
                ensure(!after.steps.iter().any(forward), "nothing is undone while something is being done")?;
                let goes_on = definition.on_compensation_failure == OnCompensationFailure::Continue;
                for (other, step) in after.steps.iter().enumerate().filter(|(other, _)| *other != seq) {
                    let waits = matches!(step.compensation, Compensation::Compensating | Compensation::Waiting | Compensation::Backoff);
                    ensure(!waits, "one undo at a time")?;
                    let later = (step.order, other) > (new.order, seq);
                    // What a human orders to be tried again waits for the one that is under way.
                    let anew = step.undo_attempts > 0;
                    ensure(!later || anew || step.compensation != Compensation::Pending, "undos run strictly backwards")?;
                    ensure(!later || goes_on || step.compensation != Compensation::Failed, "a failed undo stops those before it")?;
                }
                self.undoing = true;
            }
        }
        Ok(())
    }

    fn emit(&mut self, before: &Saga, after: &Saga, emission: &Emission) -> Checked {
        ensure(!self.told.iter().any(|told| matches!(told, Emission::Ended(_))), "nothing is told after the end")?;
        let unbegun = matches!(before.state, SagaState::Pending | SagaState::LockWait) && matches!(emission, Emission::Ended(_));
        ensure((*emission == Emission::Started) == self.told.is_empty() || unbegun, "the start is told first")?;
        match emission {
            Emission::Ended(state) => ensure(after.state == *state && state.is_terminal(), "the end is told at the end")?,
            Emission::Compensate(seq) => ensure(after.steps[*seq].undo_attempts > before.steps[*seq].undo_attempts, "an undo that is told is begun")?,
            Emission::CompensationFailed(seq) => {
                ensure(after.state == SagaState::CompFailed && after.steps[*seq].compensation == Compensation::Failed, "a failed undo is one")?;
            }
            _ => {}
        }
        self.told.push(emission.clone());
        Ok(())
    }

    /// Judges the whole.
    ///
    /// # Errors
    /// The law that does not hold.
    pub fn at_the_end(&self, saga: &Saga, tasks: &BTreeSet<(usize, &'static str)>) -> Checked {
        if !self.judged {
            return Ok(());
        }
        let ends = self.told.iter().filter(|emission| matches!(emission, Emission::Ended(_))).count();
        ensure(ends == 1, "one end is told")?;
        let left = |(_, kind): &(usize, &'static str)| match *kind {
            "late_effect" => true,
            "step_failed" => saga.state != SagaState::Aborted,
            _ => false,
        };
        ensure(tasks.iter().all(left), "no task stays open that nobody need answer")?;
        let rolled_back = matches!(saga.state, SagaState::Failed | SagaState::Cancelled | SagaState::Aborted);
        for (seq, step) in saga.steps.iter().enumerate() {
            for (act, made) in [(Act::Do, step.attempts), (Act::Undo, step.undo_attempts), (Act::Ask, step.verifies)] {
                ensure(self.ended.get(&(seq, act)).copied().unwrap_or(0) == made, "every attempt that was made is on record")?;
            }
            let known = matches!(step.status, StepStatus::Failed | StepStatus::Pending | StepStatus::Cancelled);
            ensure(!rolled_back || !known || !self.doubt.contains(&seq), "what may have been done does not count as undone")?;
        }
        let begun = self.told.first() == Some(&Emission::Started);
        ensure(begun || saga.steps.iter().all(|step| *step == StepProgress::default()), "what was never begun did nothing")
    }
}

/// What holds of every state, however it was reached.
///
/// # Errors
/// The law that does not hold.
pub fn of_state(definition: &Definition, saga: &Saga) -> Checked {
    for (step, defined) in saga.steps.iter().zip(&definition.steps) {
        row_is_storable(step)?;
        let undone = !matches!(step.compensation, Compensation::None | Compensation::NotNeeded);
        ensure(!undone || defined.has_undo(), "no undo without compensate")?;
        ensure(!undone || !pivot_may_be_passed(definition, saga), "nothing is undone once the pivot is passed, or may be")?;
    }
    let whole = saga.steps.iter().zip(&definition.steps).all(|(step, defined)| {
        let on = defined.compensate_on;
        let asked = match step.status {
            StepStatus::Succeeded => on.succeeded,
            StepStatus::Unknown => on.unknown,
            StepStatus::Failed => on.failed,
            _ => false,
        };
        !(asked && defined.has_undo()) || step.compensation == Compensation::Compensated
    });
    let rolled_back = matches!(saga.state, SagaState::Failed | SagaState::Cancelled | SagaState::Aborted);
    let begun = saga.steps.iter().any(|step| step.order > 0);
    ensure(!rolled_back || !begun || saga.clean == whole, "clean means that everything is undone that is to be")?;
    saga_is_consistent(definition, saga)
}

/// After it went as far as it could: something or somebody will wake it, and nothing that is past does.
fn goes_on(turn: &Judged<'_>) -> Checked {
    let saga = turn.after;
    let due = saga.next_due();
    ensure(due.is_none_or(|due| due > turn.now), "what is past wakes nobody")?;
    let is_awaited = |step: &StepProgress| {
        let wait = step.waits_for().or(step.undo_waits_for());
        matches!(wait, Some(Wait::Event | Wait::Human | Wait::Child))
    };
    let awaited = due.is_some() || saga.in_flight().next().is_some() || saga.steps.iter().any(is_awaited);
    let stands = match saga.state {
        SagaState::LockWait | SagaState::Paused | SagaState::Pending => true,
        SagaState::Hitl => turn.tasks.iter().any(|(_, kind)| matches!(*kind, "step_failed" | "pivot_unknown")),
        SagaState::CompFailed => turn.tasks.iter().any(|(_, kind)| *kind == "comp_failed"),
        state => state.is_terminal() || awaited,
    };
    ensure(stands, "nothing is forgotten")?;
    let rests = matches!(saga.state, SagaState::Paused | SagaState::CompFailed | SagaState::Pending | SagaState::Aborting);
    ensure(due.is_none() || !rests && !saga.state.is_terminal(), "who rests is not woken")?;
    ensure(saga.state != SagaState::LockWait || due == saga.lock_until, "who stands in line knows until when")
}

/// A pause freezes every limit: its end moves them by its length.
fn time_stands_still(turn: &Judged<'_>) -> Checked {
    let Judged { before, after, advance, now, .. } = *turn;
    if before.state == SagaState::Paused && after.state == SagaState::Paused {
        ensure(advance.calls.is_empty() && advance.children.is_empty(), "nothing begins in a pause")?;
        ensure(before.deadline_at == after.deadline_at, "a pause moves nothing while it lasts")?;
    }
    let Some(paused) = before.paused.filter(|_| after.paused.is_none() && after.state != SagaState::Aborting && !after.state.is_terminal()) else {
        return Ok(());
    };
    let moved = |time: Option<Timestamp>| time.map(|time| time.plus(now.since(paused.at)));
    ensure(after.deadline_at == moved(before.deadline_at), "a pause freezes the deadline")?;
    for (old, new) in before.steps.iter().zip(&after.steps) {
        let same = (old.status, old.wait, old.compensation) == (new.status, new.wait, new.compensation);
        let rests = matches!(new.status, StepStatus::Waiting | StepStatus::Backoff);
        ensure(!same || !rests || new.deadline_at == moved(old.deadline_at), "a pause freezes the deadline of a step")?;
        ensure(!same || !rests || new.wait_until == moved(old.wait_until), "a pause freezes how long is waited")?;
    }
    Ok(())
}

fn pivot_may_be_passed(definition: &Definition, saga: &Saga) -> bool {
    definition.pivot().is_some_and(|pivot| {
        let step = &saga.steps[pivot];
        match step.status {
            StepStatus::Succeeded | StepStatus::Unknown | StepStatus::Running => true,
            StepStatus::Failed | StepStatus::Cancelled => false,
            _ => step.ambiguous,
        }
    })
}

fn tasks_fit(definition: &Definition, turn: &Judged<'_>, seq: usize, step: &StepProgress) -> Checked {
    let saga = turn.after;
    let mut open = turn.tasks.iter().filter(|(of, kind)| *of == seq && *kind != "late_effect");
    let kind = open.next().map(|(_, kind)| *kind);
    ensure(open.next().is_none(), "one task of a step at a time")?;
    ensure(kind == step.task.map(syncor::core::human::TaskKind::as_str), "a step knows its task")?;
    ensure((kind == Some("approval")) == (step.waits_for() == Some(Wait::Human)), "an approval is open while it is waited for")?;
    ensure(kind != Some("comp_failed") || step.compensation == Compensation::Failed, "people are asked about an undo that failed")?;
    ensure(kind != Some("pivot_unknown") || step.status == StepStatus::Unknown, "people are asked about a pivot in doubt")?;
    let failed = matches!(step.status, StepStatus::Failed | StepStatus::Unknown);
    if turn.go_on && saga.state == SagaState::Hitl && failed && !lets_be(definition, seq, step) {
        ensure(matches!(kind, Some("step_failed" | "pivot_unknown")), "people are asked about every step that failed")?;
    }
    if turn.go_on && saga.state == SagaState::CompFailed && step.compensation == Compensation::Failed {
        ensure(kind == Some("comp_failed"), "people are asked about every undo that failed")?;
    }
    ensure(step.status != StepStatus::Succeeded || kind.is_none() || kind == Some("comp_failed"), "a success settles the task")
}

fn lets_be(definition: &Definition, seq: usize, step: &StepProgress) -> bool {
    let defined = &definition.steps[seq];
    defined.on_exhausted == OnExhausted::Continue && defined.kind != StepKind::Pivot && !step.for_human
}

fn saga_is_consistent(definition: &Definition, saga: &Saga) -> Checked {
    use SagaState::{CompFailed, Compensating, Completed, Draining, Failed};
    let back = matches!(saga.state, Draining | Compensating | CompFailed | Failed);
    ensure(!back || saga.target.is_some() && saga.reason.is_some(), "who turned round has a target and a reason")?;
    ensure(saga.paused.is_some() == (saga.state == SagaState::Paused), "who is paused knows where to go on")?;
    if saga.state.is_terminal() || matches!(saga.state, CompFailed | SagaState::Hitl) {
        ensure(saga.in_flight().next().is_none(), "nothing is in flight at the end, or while people are asked")?;
    }
    if saga.state.is_terminal() {
        let idle = |step: &StepProgress| {
            !matches!(step.status, StepStatus::Running | StepStatus::Waiting | StepStatus::Backoff) && !step.compensation.is_under_way()
        };
        ensure(saga.steps.iter().all(idle), "nothing goes on at the end")?;
    }
    if saga.state == Completed {
        let settled = |(seq, step): (usize, &StepProgress)| match step.status {
            StepStatus::Succeeded | StepStatus::Skipped => true,
            StepStatus::Failed | StepStatus::Unknown => lets_be(definition, seq, step),
            _ => false,
        };
        ensure(saga.clean && saga.target.is_none() && saga.reason.is_none(), "completed is clean, and needs no reason")?;
        ensure(saga.steps.iter().enumerate().all(settled), "completed: all done, left out, or let be")?;
        ensure(saga.steps.iter().all(|step| step.compensation == Compensation::None), "completed: nothing undone")?;
    }
    let stuck = saga.steps.iter().any(|step| matches!(step.compensation, Compensation::Failed | Compensation::Skipped));
    ensure(
        !stuck || !saga.clean || matches!(saga.state, Compensating | SagaState::Paused | SagaState::Aborting),
        "an undo that was not made is not clean",
    )
}

/// The checks of `syncor.step`.
fn row_is_storable(step: &StepProgress) -> Checked {
    use StepStatus::{Backoff, Cancelled, Failed, Pending, Running, Skipped, Succeeded, Unknown, Waiting};
    let last = matches!(step.status, Succeeded | Failed | Unknown | Skipped | Cancelled);
    ensure(step.started_at.is_some() || matches!(step.status, Pending | Skipped | Cancelled), "step_started_has_time")?;
    ensure(step.finished_at.is_some() == last, "step_finished_has_time")?;
    ensure(step.due_at.is_some() || step.status != Backoff && step.compensation != Compensation::Backoff, "step_backoff_has_time")?;
    ensure(step.attempts > 0 || !matches!(step.status, Running | Backoff | Succeeded | Failed | Unknown), "step_running_has_call")?;
    ensure(step.attempts > 0 || step.status != Waiting || step.wait == Some(Wait::Service), "step_waiting_was_begun")?;
    ensure(step.compensation == Compensation::None || last, "step_undo_follows_do")?;
    let waits = step.status == Waiting || step.compensation == Compensation::Waiting;
    ensure(step.wait.is_some() == waits, "a step waits for one thing, while it waits")?;
    ensure(waits || step.wait_until.is_none(), "who does not wait has no limit")
}
