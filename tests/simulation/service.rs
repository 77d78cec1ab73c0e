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
    /// One call arrives. `calm` services do as they are told.
    pub fn call(&mut self, call: &StepCall, chance: &mut Chance, calm: bool) -> Result<Reply, String> {
        let dice = if calm { 99 } else { chance.below(100) };
        match dice {
            0..3 => Ok(answer(chance.one_of(&[400, 409, 422, 409]), &json!({"detail": "no"}))),
            3..9 => Ok(answer(chance.one_of(&[500, 503, 429, 408, 425]), &json!({"message": "not now"}))),
            9..12 => Ok(Reply::Broken("reset before it was read".to_owned())),
            12..18 => {
                self.act(call)?;
                Ok(if chance.happens(50) { answer(504, &Value::Null) } else { Reply::Broken("timeout after it was done".to_owned()) })
            }
            18..20 => {
                self.act(call)?;
                Ok(Reply::Answered { status: 200, headers: Vec::new(), body: None, retry_after: None })
            }
            _ => self.act(call),
        }
    }

    fn act(&mut self, call: &StepCall) -> Result<Reply, String> {
        let body: Value = serde_json::from_slice(&call.body).map_err(|error| format!("the body is no JSON: {error}"))?;
        let step = &body["step"];
        let account = (call.saga_id, call.step.clone());
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
                *self.balance.entry(account).or_default() += 1;
            }
            return Ok(answer(200, &json!({"message": "booked", "context": {"booking": call.idempotency_key}})));
        }
        let do_key = step["doKey"].as_str().ok_or("an undo without the key of its do")?.to_owned();
        if do_key != call.idempotency_key.replace("/undo", "/do") {
            return Err(format!("{} undoes {do_key}", call.idempotency_key));
        }
        if !(step["context"].is_null() || step["context"]["booking"] == do_key.as_str()) {
            return Err(format!("an undo with another's context: {body}"));
        }
        let done = self.keys.entry(do_key).or_default();
        let landed = done.effects > 0;
        done.blocked = true;
        let key = self.keys.entry(call.idempotency_key.clone()).or_default();
        if key.effects == 0 {
            key.effects += 1;
            if landed {
                self.effects += 1;
                *self.balance.entry(account).or_default() -= 1;
            }
        }
        // Nothing to undo: half of the services call that gone.
        let status = if !landed && call.fence % 2 == 0 { 410 } else { 200 };
        Ok(answer(status, &json!({"message": "undone"})))
    }
}

fn answer(status: u16, body: &Value) -> Reply {
    let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
    Reply::Answered { status, headers: Vec::new(), body: Some(body), retry_after: None }
}
