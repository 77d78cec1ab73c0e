//! What holds of every saga, whatever happens to it: laws of their own, without the model.

use std::collections::BTreeMap;
use std::time::Duration;

use syncor::core::definition::{Definition, OnCompensationFailure};
use syncor::core::machine::{Advance, Attempt, Emission};
use syncor::core::outcome::{Action, Class};
use syncor::core::saga::{Compensation, Saga, SagaState, StepProgress, StepStatus, Target};
use syncor::core::time::Timestamp;

/// A call that was committed to.
#[derive(Clone, Debug)]
struct Call {
    number: u32,
    fence: i64,
    at: Timestamp,
    ended: Option<Ended>,
}

#[derive(Clone, Debug)]
struct Ended {
    attempt: Attempt,
    at: Timestamp,
    wish: Duration,
}

/// One input and what became of it.
#[derive(Debug)]
pub struct Judged<'a> {
    pub before: &'a Saga,
    pub after: &'a Saga,
    pub advance: &'a Advance,
    pub now: Timestamp,
    /// The worker is not about to stop.
    pub go_on: bool,
    /// The reply that it was, if it was one: place, action, number, `Retry-After`.
    pub reply: Option<(usize, Action, u32, Duration)>,
}

/// The history that the laws speak of.
#[derive(Debug, Default)]
pub struct Laws {
    calls: BTreeMap<(usize, Action), Vec<Call>>,
    /// First undos in the order in which they were begun.
    undone: Vec<usize>,
    emissions: Vec<Emission>,
    fence: i64,
}

fn ensure(holds: bool, law: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("law broken: {law}")) }
}

impl Laws {
    /// Judges one turn.
    ///
    /// # Errors
    /// The law that does not hold.
    pub fn judge(&mut self, definition: &Definition, turn: &Judged<'_>) -> Result<(), String> {
        let Judged { before, after, advance, now, go_on, reply } = *turn;
        if let Some((seq, action, number, _)) = reply {
            let awaited = before.steps[seq].in_flight() == Some(action) && before.steps[seq].attempt(action) == number;
            ensure(advance.stale != awaited, "only the reply to the call in flight counts")?;
        }
        let quiet =
            before == after && advance.steps.is_empty() && advance.attempts.is_empty() && advance.calls.is_empty() && advance.emissions.is_empty();
        ensure(!advance.stale || quiet, "a stale input changes nothing")?;
        ensure(!before.state.is_terminal() || (advance.stale && quiet), "a terminal state never changes")?;
        ensure(go_on || (advance.calls.is_empty() && !after.state.is_terminal()) || before == after, "recording makes no calls and ends nothing")?;
        for (seq, (old, new)) in before.steps.iter().zip(&after.steps).enumerate() {
            ensure(old == new || advance.steps.contains(&seq), "every step that changed is written")?;
            ensure(!old.ambiguous || new.ambiguous, "a doubt is never forgotten")?;
        }
        ensure(advance.steps.is_sorted_by(|a, b| a < b), "written steps are ascending")?;
        ensure(after.in_flight().count() <= 1, "one call at a time")?;
        self.attempts_ended(definition, advance, now, reply.map_or(Duration::ZERO, |(.., wish)| wish))?;
        for &(seq, action) in &advance.calls {
            self.call_made(definition, after, seq, action, now)?;
        }
        for emission in &advance.emissions {
            self.emitted(after, *emission)?;
        }
        for (step, defined) in after.steps.iter().zip(&definition.steps) {
            row_is_storable(step)?;
            ensure(
                step.compensation == Compensation::None || step.compensation == Compensation::NotNeeded || defined.compensate.is_some(),
                "no undo without compensate",
            )?;
        }
        saga_is_consistent(definition, after)
    }

    fn attempts_ended(&mut self, definition: &Definition, advance: &Advance, now: Timestamp, wish: Duration) -> Result<(), String> {
        for attempt in &advance.attempts {
            let calls = self.calls.entry((attempt.seq, attempt.action)).or_default();
            let call = calls.last_mut().ok_or("law broken: no attempt ends that was not begun")?;
            let same = (call.number, call.fence, call.at) == (attempt.number, attempt.fence, attempt.started_at);
            ensure(same && call.ended.is_none(), "an attempt ends once, under its number and fence")?;
            call.ended = Some(Ended { attempt: attempt.clone(), at: now, wish });
            ensure(attempt.outcome.class == Class::Succeeded || attempt.outcome.error.is_some(), "an attempt that did not succeed says why")?;
            let counted = calls.iter().filter_map(|call| call.ended.as_ref()).filter(|ended| ended.attempt.outcome.class != Class::Lost).count();
            ensure(counted <= attempts_max(definition, attempt.seq, attempt.action), "attempts never exceed retry.attempts, lost ones aside")?;
        }
        Ok(())
    }

    fn call_made(&mut self, definition: &Definition, saga: &Saga, seq: usize, action: Action, now: Timestamp) -> Result<(), String> {
        let step = &saga.steps[seq];
        ensure(step.in_flight() == Some(action) && step.called_at == Some(now), "a call that is made is in flight")?;
        ensure(step.fence > self.fence, "fences rise")?;
        self.fence = step.fence;
        if action == Action::Do {
            ensure(saga.state == SagaState::Running, "steps are done while going forward")?;
            ensure(self.undone.is_empty(), "nothing is done after something was undone")?;
            ensure(saga.steps[..seq].iter().all(|earlier| earlier.status == StepStatus::Succeeded), "steps are done in order")?;
            ensure(saga.steps[seq + 1..].iter().all(|later| later.status == StepStatus::Pending), "steps are done one by one")?;
            ensure(saga.deadline_at.is_none_or(|deadline| now < deadline), "nothing is done after the deadline")?;
        } else {
            ensure(saga.state == SagaState::Compensating, "steps are undone while going back")?;
            ensure(saga.steps.iter().all(|other| other.in_flight() != Some(Action::Do)), "nothing is undone while a call to do is in flight")?;
            ensure(matches!(step.status, StepStatus::Succeeded | StepStatus::Unknown), "only what was or may have been done is undone")?;
            let goes_on = definition.on_compensation_failure == OnCompensationFailure::Continue;
            for later in &saga.steps[seq + 1..] {
                let settled = match later.compensation {
                    Compensation::None | Compensation::NotNeeded | Compensation::Compensated => true,
                    Compensation::Failed => goes_on,
                    _ => false,
                };
                ensure(settled, "undos run strictly backwards, one at a time")?;
            }
            if self.undone.last() != Some(&seq) {
                ensure(self.undone.iter().all(|earlier| *earlier > seq), "undos run strictly backwards")?;
                self.undone.push(seq);
            }
        }
        let calls = self.calls.entry((seq, action)).or_default();
        ensure(usize::try_from(step.attempt(action)) == Ok(calls.len() + 1), "attempts are numbered without a gap")?;
        if let Some(previous) = calls.last() {
            let ended = previous.ended.as_ref().ok_or("law broken: no attempt before the one before it has ended")?;
            if ended.attempt.outcome.class != Class::Lost {
                let retry = match (action, &definition.steps[seq].compensate) {
                    (Action::Undo, Some(undo)) => undo.retry,
                    _ => definition.steps[seq].retry,
                };
                let least = retry.backoff.mul_f64(1.0 - retry.jitter).max(ended.wish.min(Duration::from_secs(3600)));
                ensure(now.since(ended.at) + Duration::from_micros(1) >= least, "a retry waits for its backoff, and for Retry-After")?;
            }
        }
        calls.push(Call { number: step.attempt(action), fence: step.fence, at: now, ended: None });
        Ok(())
    }

    fn emitted(&mut self, saga: &Saga, emission: Emission) -> Result<(), String> {
        ensure(!self.emissions.contains(&emission), "nothing is told twice")?;
        ensure((emission == Emission::Started) == self.emissions.is_empty(), "the start is told first")?;
        ensure(!self.emissions.iter().any(|told| matches!(told, Emission::Ended(_))), "nothing is told after the end")?;
        if let Emission::Ended(state) = emission {
            ensure(saga.state == state && state.is_terminal(), "the end is told at the end")?;
        }
        self.emissions.push(emission);
        Ok(())
    }

    /// Judges the whole.
    ///
    /// # Errors
    /// The law that does not hold.
    pub fn at_the_end(&self, saga: &Saga) -> Result<(), String> {
        if self.emissions.is_empty() {
            return Ok(()); // The laws did not watch.
        }
        let ends = self.emissions.iter().filter(|emission| matches!(emission, Emission::Ended(_))).count();
        ensure(ends == usize::from(saga.state.is_terminal()), "one end is told, and only if it is one")?;
        let asked = self.emissions.iter().filter(|emission| matches!(emission, Emission::CompensationFailed(_))).count();
        ensure(asked == usize::from(saga.state == SagaState::CompFailed), "a human is asked once")?;
        let told: Vec<_> = self.emissions.iter().filter_map(|e| if let Emission::Compensate(seq) = e { Some(*seq) } else { None }).collect();
        ensure(told == self.undone, "saga.compensate is told once per undone step, in order")?;
        ensure(self.calls.values().flatten().all(|call| call.ended.is_some()), "every call that was made is settled")?;
        for (seq, step) in saga.steps.iter().enumerate() {
            let is_undone = step.compensation == Compensation::Compensated;
            let last = self.calls.get(&(seq, Action::Undo)).and_then(|calls| calls.last()?.ended.clone());
            let granted = last.is_some_and(|e| e.attempt.outcome.class == Class::Succeeded || e.attempt.outcome.status == Some(410));
            ensure(is_undone == granted, "undone is what a service said it has undone")?;
        }
        Ok(())
    }
}

fn attempts_max(definition: &Definition, seq: usize, action: Action) -> usize {
    let step = &definition.steps[seq];
    let retry = match action {
        Action::Do => Some(step.retry),
        Action::Undo => step.compensate.as_ref().map(|undo| undo.retry),
    };
    retry.map_or(0, |retry| retry.attempts as usize)
}

fn saga_is_consistent(definition: &Definition, saga: &Saga) -> Result<(), String> {
    use SagaState::{CompFailed, Compensating, Completed, Draining, Failed, Pending, Running};
    let ours = [Pending, Running, Draining, Compensating, CompFailed, Completed, Failed];
    ensure(ours.contains(&saga.state), "a sequential saga has no other states")?;
    let back = matches!(saga.state, Draining | Compensating | CompFailed | Failed);
    ensure((saga.target == Some(Target::Failed)) == back && saga.reason.is_some() == back, "who turned round has a target and a reason")?;
    let needs_undo = |(step, defined): (&StepProgress, &syncor::core::definition::Step)| {
        matches!(step.status, StepStatus::Succeeded | StepStatus::Unknown) && defined.compensate.is_some()
    };
    let pairs = || saga.steps.iter().zip(&definition.steps);
    match saga.state {
        Completed => {
            ensure(saga.clean, "completed is clean")?;
            ensure(
                saga.steps.iter().all(|step| step.status == StepStatus::Succeeded && step.compensation == Compensation::None),
                "completed: all done, nothing undone",
            )
        }
        Failed => {
            let whole = pairs().filter(|pair| needs_undo(*pair)).all(|(step, _)| step.compensation == Compensation::Compensated);
            ensure(saga.clean && whole, "failed and clean: everything that was or may have been done is undone")?;
            ensure(saga.in_flight().next().is_none(), "nothing is in flight at the end")
        }
        CompFailed => {
            ensure(!saga.clean && saga.steps.iter().any(|step| step.compensation == Compensation::Failed), "a failed undo is not clean")?;
            ensure(saga.in_flight().next().is_none(), "nothing is in flight while a human is asked")?;
            let goes_on = definition.on_compensation_failure == OnCompensationFailure::Continue;
            ensure(!goes_on || pairs().all(|(step, _)| step.compensation != Compensation::Pending), "continue: the human is asked last")
        }
        _ => ensure(saga.clean || saga.steps.iter().any(|step| step.compensation == Compensation::Failed), "not clean only after a failed undo"),
    }
}

/// The checks of `syncor.step`.
fn row_is_storable(step: &StepProgress) -> Result<(), String> {
    use StepStatus::{Backoff, Cancelled, Failed, Pending, Running, Skipped, Succeeded, Unknown};
    let last = matches!(step.status, Succeeded | Failed | Unknown | Skipped | Cancelled);
    ensure(step.started_at.is_some() || matches!(step.status, Pending | Skipped | Cancelled), "step_started_has_time")?;
    ensure(step.finished_at.is_some() == last, "step_finished_has_time")?;
    let waits = step.status == Backoff || step.compensation == Compensation::Backoff;
    ensure(step.due_at.is_some() == waits, "step_backoff_has_time")?;
    ensure(step.attempts > 0 || !matches!(step.status, Running | Backoff | Succeeded | Failed | Unknown), "step_running_has_call")?;
    ensure(step.compensation == Compensation::None || last, "step_undo_follows_do")
}
