//! Everything on its way arrives: writes, calls, replies, words.

use syncor::core::call::{Reply, Sending, StepCall};
use syncor::core::definition::Definition;
use syncor::core::event::Event;
use syncor::core::machine::Emission;
use syncor::core::outcome::Action;
use syncor::core::request;
use syncor::core::saga::{Saga, Wait};
use uuid::Uuid;

use super::store::{Message, Write, Written};
use super::tally::Mistake;
use super::world::{Checked, Occurrence, Parcel, World};

impl World {
    pub fn deliver(&mut self, parcel: Parcel) -> Checked {
        match parcel {
            Parcel::Commit { worker, write, again } => self.commit(worker, write, again)?,
            Parcel::Ghost { worker, write } => {
                self.store(worker, &write)?;
            }
            Parcel::Lookup { worker, write } => {
                let next = match self.store.landed(worker, &write) {
                    Some(written) => committed(worker, &write, written),
                    None => Parcel::Commit { worker, write, again: true },
                };
                self.parcels.push(next);
            }
            Parcel::Committed { worker, id, epoch, rev, written } => self.written(worker, id, (epoch, rev), written)?,
            Parcel::Call { worker, call, seq, heard } => self.call(worker, call, seq, heard)?,
            Parcel::Reply { worker, id, seq, action, attempt, reply } => {
                if !self.calm && self.chance.happens(3) {
                    self.parcels.push(Parcel::Reply { worker, id, seq, action, attempt, reply: reply.clone() });
                }
                self.happen(worker, id, Occurrence::Reply { seq, action, attempt, reply })?;
            }
            Parcel::Message { id, message } => {
                self.tell(id, message);
            }
            Parcel::Wake(id) => {
                if let Some(owner) = self.store.rows[&id].owner {
                    self.happen(owner, id, Occurrence::Look)?;
                }
            }
        }
        Ok(())
    }

    /// A write reaches the database, or its connection breaks before, after or while it does.
    fn commit(&mut self, worker: u32, write: Box<Write>, again: bool) -> Checked {
        let fate = if self.calm { 99 } else { self.chance.below(100) };
        if fate < 15 {
            self.tally.unsure += 1;
            match fate {
                0..5 => {}
                5..10 => {
                    self.store(worker, &write)?;
                }
                // Still being executed when its sender asks whether it landed.
                _ => self.parcels.push(Parcel::Ghost { worker, write: write.clone() }),
            }
            self.parcels.push(Parcel::Lookup { worker, write });
            return Ok(());
        }
        let mut written = self.store(worker, &write)?;
        // An earlier sending may have won the race against this one.
        if written == Written::Fenced && again && self.mistake != Some(Mistake::TrustsTheSecondSending) {
            written = self.store.landed(worker, &write).unwrap_or(Written::Fenced);
        }
        self.parcels.push(committed(worker, &write, written));
        Ok(())
    }

    /// A write that lands is heard by those who undo by event.
    fn store(&mut self, worker: u32, write: &Write) -> Result<Written, String> {
        let written = self.store.commit(worker, write)?;
        if let Written::Done(_) = written {
            for emission in &write.emissions {
                if let Emission::Compensate(seq) = emission
                    && write.saga.steps[*seq].undo_waits_for() == Some(Wait::Event)
                {
                    let step = &self.definitions[self.pinned[&write.id]].steps[*seq].name;
                    self.services.undo(write.id, step);
                    self.parcels.push(Parcel::Message { id: write.id, message: Message::Undone(*seq) });
                }
            }
        }
        Ok(written)
    }

    /// The worker learns what became of its write.
    fn written(&mut self, worker: u32, id: Uuid, version: (i32, i32), written: Written) -> Checked {
        let Some(memory) = self.workers.get_mut(&worker) else { return Ok(()) };
        let Some(live) = memory.live.get_mut(&id) else { return Ok(()) };
        // It may have let go of the saga and claimed it again before it heard of the old write.
        if (live.epoch, live.rev) != version && self.mistake != Some(Mistake::HearsOldAnswers) {
            self.tally.outdated += 1;
            return Ok(());
        }
        let Some((calls, release)) = live.writing.take() else { return Err("an answer to no write".to_owned()) };
        let Written::Done(fences) = written else {
            memory.live.remove(&id);
            return Ok(());
        };
        live.rev += 1;
        live.asked.clear();
        for (seq, fence) in fences {
            live.saga.steps[seq].fence = fence;
        }
        if release {
            memory.live.remove(&id);
            return Ok(());
        }
        for (seq, action) in calls {
            let definition = &self.definitions[self.pinned[&id]];
            let mut call = call_of(definition, &live.saga, &self.event, seq, action)?;
            if self.mistake == Some(Mistake::ChangesTheKey) && call.action == Action::Do {
                call.idempotency_key += &call.attempt.to_string();
            }
            self.parcels.push(Parcel::Call { worker, call, seq, heard: true });
        }
        while let Some(live) = self.memory(worker).and_then(|memory| memory.live.get_mut(&id)) {
            if live.writing.is_some() {
                break;
            }
            let Some(occurrence) = live.waiting.pop_front() else { break };
            self.apply(worker, id, occurrence)?;
        }
        self.happen(worker, id, Occurrence::Look)
    }

    /// A call is made, or its caller loses patience and it arrives later.
    fn call(&mut self, worker: u32, call: Box<StepCall>, seq: usize, heard: bool) -> Checked {
        let key = (call.saga_id, seq, call.action, call.attempt);
        if self.store.intents.get(&key) != Some(&call.fence) {
            return Err(format!("a call without its committed intent: {call:?}"));
        }
        let answered = |reply| Parcel::Reply { worker, id: call.saga_id, seq, action: call.action, attempt: call.attempt, reply };
        if heard && !self.calm && self.chance.happens(6) {
            let gone = answered(Reply::Broken("timeout".to_owned()));
            self.parcels.push(gone);
            self.parcels.push(Parcel::Call { worker, call, seq, heard: false });
            return Ok(());
        }
        if heard && !self.calm && self.chance.happens(3) {
            self.parcels.push(answered(Reply::NotSent("connection refused".to_owned())));
            return Ok(());
        }
        let is_late = self.store.attempts.contains_key(&key);
        self.tally.late_calls += u64::from(is_late);
        let is_async = self.definitions[self.pinned[&call.saga_id]].steps[seq].asynchronous;
        let (reply, callback) = self.services.call(&call, is_async, &mut self.chance, self.calm)?;
        if heard {
            self.parcels.push(answered(reply));
        }
        if let Some(good) = callback {
            self.tally.callbacks += 1;
            self.parcels.push(Parcel::Message { id: call.saga_id, message: Message::Callback(seq, call.action, good) });
        }
        Ok(())
    }
}

fn committed(worker: u32, write: &Write, written: Written) -> Parcel {
    Parcel::Committed { worker, id: write.id, epoch: write.epoch, rev: write.rev, written }
}

pub fn call_of(definition: &Definition, saga: &Saga, event: &Event, seq: usize, action: Action) -> Result<Box<StepCall>, String> {
    match request::build(definition, saga, event, seq, action).map_err(|error| error.to_string())? {
        Some(Sending::Call(call)) => Ok(call),
        other => Err(format!("a call that calls nobody: {other:?}")),
    }
}
