//! Orders and decisions through the database, in the name of its role, or through a server, in the name of the API key.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use uuid::Uuid;

use super::code::{Code, Stop};
use super::output;
use super::source::Source;
use crate::core::form;
use crate::core::payload::Payload;
use crate::store::bulk::{self, Bulk};
use crate::store::orders::{self, By, Decision, OrderError, Verb};

/// How long a command waits for a worker to come to its order.
const PATIENCE: Duration = Duration::from_secs(2);

impl Source {
    /// Orders something of one saga: the receipt, also of a refusal.
    pub async fn order(&self, verb: Verb, saga: Uuid, step: Option<&str>, reason: &str) -> Result<Value> {
        match self {
            Self::Database { store, .. } => {
                let commands = orders::order(store, By::Session, verb, &[saga], step, reason).await.map_err(stop)?;
                self.receipt(&commands).await
            }
            Self::Server(remote) => {
                let path = format!("/v1/sagas/{saga}/{}", verb.as_str());
                let answer = remote.order(&path, &json!({"reason": reason, "step": step})).await?;
                Ok(answer.unwrap_or_else(|why| refused(verb.as_str(), Some(saga), &why)))
            }
        }
    }

    /// Starts an ended saga anew from a step.
    pub async fn fork(&self, saga: Uuid, from_step: &str, reason: &str) -> Result<Value> {
        match self {
            Self::Database { store, .. } => {
                let command = orders::fork(store, By::Session, saga, Some(from_step), reason).await.map_err(stop)?;
                self.receipt(&[command]).await
            }
            Self::Server(remote) => {
                let answer = remote.order(&format!("/v1/sagas/{saga}/fork"), &json!({"reason": reason, "step": from_step})).await?;
                Ok(answer.unwrap_or_else(|why| refused("fork", Some(saga), &why)))
            }
        }
    }

    /// Orders the same of many; the document of the interface.
    pub async fn order_many(&self, order: Bulk<'_>) -> Result<Value> {
        match self {
            Self::Database { store, read } => {
                let outcome = bulk::order(store, read, By::Session, order, PATIENCE).await.map_err(stop)?;
                Ok(serde_json::to_value(outcome)?)
            }
            Self::Server(remote) => {
                let Bulk { verb, filter, step, reason, dry_run, limit } = order;
                let states = (!filter.states.is_empty()).then(|| filter.states.join(","));
                let mut wanted = json!({
                    "state": states, "definition": filter.definition, "waitingFor": filter.waiting_for,
                    "correlationId": filter.correlation_id, "lockKey": filter.lock_key,
                });
                if wanted.as_object().is_some_and(|wanted| wanted.values().all(Value::is_null)) {
                    // Every saga that has not ended: the server wants that said.
                    wanted["state"] = UNFINISHED.into();
                }
                let document = json!({"reason": reason, "step": step, "filter": wanted, "dryRun": dry_run, "limit": limit});
                remote.post(&format!("/v1/sagas/{}", verb.as_str()), &document).await
            }
        }
    }

    /// Decides about a human task: the receipt, also of a refusal.
    pub async fn decide(&self, task: Uuid, decision: &str, note: &str, output: Option<&Payload>) -> Result<Value> {
        match self {
            Self::Database { store, read } => {
                let found = read.task(task).await?.ok_or_else(|| output::not_found(format!("no human task has the id {task}")))?;
                let invalid = |reason: String| Stop::new(Code::Invalid, reason);
                if found.status == "open" && !found.decisions.contains(&decision) {
                    return Err(invalid(format!("a task of kind {} takes {}", found.kind, found.decisions.join(", "))).into());
                }
                if let Some(form) = found.form.filter(|_| decision == "approve" && found.status == "open") {
                    let form = serde_json::from_str(form.0.get())?;
                    form::validate(&form, output.map(Payload::value))
                        .map_err(|findings| invalid(format!("the output does not meet the form: {}", findings.join("; "))))?;
                }
                let command = orders::decide(store, By::Session, Decision { task, decision, note, output }).await.map_err(stop)?;
                self.receipt(&[command]).await
            }
            Self::Server(remote) => {
                let document = json!({"decision": decision, "note": note, "output": output.map(Payload::value)});
                let answer = remote.order(&format!("/v1/human-tasks/{task}/decide"), &document).await?;
                Ok(answer.unwrap_or_else(|why| refused("decide", None, &why)))
            }
        }
    }

    async fn receipt(&self, commands: &[Uuid]) -> Result<Value> {
        let Self::Database { store, .. } = self else { return Ok(Value::Null) };
        let receipts = orders::settled(store, commands, PATIENCE).await?;
        Ok(serde_json::to_value(receipts.into_iter().next())?)
    }
}

/// All states that are not final.
const UNFINISHED: &str = "pending,lock_wait,running,hitl,draining,compensating,comp_failed,paused,aborting";

/// The receipt of a refusal that a server told as a problem.
fn refused(order: &str, saga: Option<Uuid>, why: &str) -> Value {
    json!({"order": order, "sagaId": saga, "status": "refused", "result": why})
}

fn stop(error: OrderError) -> anyhow::Error {
    match error {
        OrderError::Unknown(what) => output::not_found(what),
        OrderError::Invalid(what) => output::usage(what),
        OrderError::Store(error) => error.into(),
    }
}
