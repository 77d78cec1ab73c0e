//! The services: a bank that books one unit per step, keeps the key of everything it did, and fails in every way there is.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Value, json};
use syncor::core::call::{Reply, StepCall};
use syncor::core::outcome::Action;
use uuid::Uuid;

use super::chance::Chance;

#[derive(Debug, Default)]
struct Key {
    /// Times the effect was made: 0 or 1.
    effects: u32,
    /// Its undo was here: it will never be done.
    blocked: bool,
}

#[derive(Debug, Default)]
pub struct Services {
    /// What each step holds, in units.
    pub balance: BTreeMap<(Uuid, String), i64>,
    keys: BTreeMap<String, Key>,
    pub effects: u64,
}

impl Services {
    /// One call arrives. `calm` services do as they are told. The second value: how its callback will end, if it was only accepted.
    pub fn call(&mut self, call: &StepCall, is_async: bool, chance: &mut Chance, calm: bool) -> Result<(Reply, Option<bool>), String> {
        let at_once = |reply: Result<Reply, String>| reply.map(|reply| (reply, None));
        let dice = if calm { 99 } else { chance.below(100) };
        match dice {
            0..3 => at_once(Ok(answer(chance.one_of(&[400, 409, 422, 409]), &json!({"detail": "no"})))),
            3..9 => at_once(Ok(answer(chance.one_of(&[500, 503, 429, 408, 425]), &json!({"message": "not now"})))),
            9..12 => at_once(Ok(Reply::Broken("reset before it was read".to_owned()))),
            12..18 => {
                self.act(call)?;
                let reply = if chance.happens(50) { answer(504, &Value::Null) } else { Reply::Broken("timeout after it was done".to_owned()) };
                at_once(Ok(reply))
            }
            18..20 => {
                self.act(call)?;
                at_once(Ok(Reply::Answered { status: 200, headers: Vec::new(), body: None, retry_after: None }))
            }
            _ if is_async && call.action != Action::Verify && chance.happens(70) => {
                let refused = !calm && chance.happens(10) && !self.is_done(&call.idempotency_key);
                let reply = if refused { answer(202, &Value::Null) } else { self.act(call)? };
                let done = matches!(reply, Reply::Answered { status: 200, .. });
                if done || refused { Ok((answer(202, &Value::Null), Some(!refused))) } else { at_once(Ok(reply)) }
            }
            _ => at_once(self.act(call)),
        }
    }

    fn is_done(&self, key: &str) -> bool {
        self.keys.get(key).is_some_and(|key| key.effects > 0)
    }

    /// What a step holds.
    pub fn held(&self, saga: Uuid, step: &str) -> i64 {
        self.balance.get(&(saga, step.to_owned())).copied().unwrap_or(0)
    }

    /// It was not done, and never will be.
    pub fn block(&mut self, saga: Uuid, step: &str) {
        self.keys.entry(format!("{saga}/{step}/do")).or_default().blocked = true;
    }

    /// Undoes a step, once; true if there was anything to undo.
    pub fn undo(&mut self, saga: Uuid, step: &str) -> bool {
        let done = self.keys.entry(format!("{saga}/{step}/do")).or_default();
        let landed = done.effects > 0;
        done.blocked = true;
        let key = self.keys.entry(format!("{saga}/{step}/undo")).or_default();
        if key.effects == 0 {
            key.effects += 1;
            if landed {
                self.effects += 1;
                *self.balance.entry((saga, step.to_owned())).or_default() -= 1;
            }
        }
        landed
    }

    fn act(&mut self, call: &StepCall) -> Result<Reply, String> {
        let body: Value = serde_json::from_slice(&call.body).map_err(|error| format!("the body is no JSON: {error}"))?;
        let step = &body["step"];
        if (step["action"].as_str(), step["attempt"].as_u64()) != (Some(call.action.as_str()), Some(call.attempt.into())) {
            return Err(format!("body and headers differ: {body}"));
        }
        if call.action == Action::Do {
            let key = self.keys.entry(call.idempotency_key.clone()).or_default();
            if key.blocked {
                return Ok(answer(409, &json!({"detail": "its undo came first"})));
            }
            if key.effects == 0 {
                key.effects += 1;
                self.effects += 1;
                *self.balance.entry((call.saga_id, call.step.clone())).or_default() += 1;
            }
            return Ok(answer(200, &json!({"message": "booked", "context": {"booking": call.idempotency_key}})));
        }
        let do_key = step["doKey"].as_str().ok_or("an undo without the key of its do")?.to_owned();
        if do_key != format!("{}/{}/do", call.saga_id, call.step) {
            return Err(format!("{} is about {do_key}", call.idempotency_key));
        }
        if call.action == Action::Verify {
            if self.is_done(&do_key) {
                return Ok(answer(200, &json!({"outcome": "done", "context": {"booking": do_key}})));
            }
            // Whoever says that it was not done sees to it that it never will be.
            self.block(call.saga_id, &call.step);
            return Ok(answer(200, &json!({"outcome": "not_done"})));
        }
        if !(step["context"].is_null() || step["context"] == json!({}) || step["context"]["booking"] == do_key.as_str()) {
            return Err(format!("an undo with another's context: {body}"));
        }
        // Nothing to undo: half of the services call that gone.
        let status = if !self.undo(call.saga_id, &call.step) && call.fence % 2 == 0 { 410 } else { 200 };
        Ok(answer(status, &json!({"message": "undone"})))
    }
}

fn answer(status: u16, body: &Value) -> Reply {
    let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
    Reply::Answered { status, headers: Vec::new(), body: Some(body), retry_after: None }
}
