//! What a write of a saga brings along beside its own rows: human tasks, waits, callbacks, children, answered orders, locks.
//!
//! Most writes bring none of it. These statements run in the transaction of the main one and after it, each only for the sagas
//! whose write has just landed there: `landed` looks for the rev that the write has made.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio_postgres::Statement;
use tokio_postgres::types::Json;
use uuid::Uuid;

use super::commit::SagaWrite;
use super::{Client, Error, time};
use crate::core::human::NewTask;
use crate::core::order::Order;
use crate::core::outcome::Action;

/// What else a write does.
#[derive(Debug, Default)]
pub struct Extras {
    /// Inputs that it applied, or found void.
    pub inputs: Vec<i64>,
    /// Orders that it answered.
    pub commands: Vec<Answered>,
    /// Human tasks that it opens, with their ids.
    pub tasks: Vec<(Uuid, NewTask)>,
    /// Open tasks of these steps and kinds that nobody need answer any more.
    pub withdrawn: Vec<(usize, &'static str)>,
    /// Tasks whose decision was refused: they are open again, or void where their step has moved on.
    pub reopened: Vec<(Uuid, bool)>,
    /// Events that it waits for from now on.
    pub waits: Vec<WaitRow>,
    /// Steps that wait for no event any more.
    pub waits_over: Vec<i16>,
    /// Callback tokens that it gives out.
    pub callbacks: Vec<CallbackRow>,
    /// Steps whose callbacks come too late from now on.
    pub callbacks_over: Vec<(usize, Action)>,
    /// Waits that cannot begin, and why: the step is told by an input.
    pub failures: Vec<(usize, Action, String)>,
    /// Child sagas that it starts.
    pub children: Vec<ChildRow>,
    /// Orders to its children.
    pub child_orders: Vec<(Uuid, Order, String)>,
    /// It ended: whoever waits for its locks, and its parent, are told.
    pub ended: Option<Ended>,
}

/// An order that was answered.
#[derive(Debug)]
pub struct Answered {
    /// The command.
    pub id: Uuid,
    /// Applied or refused.
    pub applied: bool,
    /// What came of it.
    pub result: String,
}

/// An event to wait for.
#[derive(Clone, Debug)]
pub struct WaitRow {
    /// The waiting step; below 0, the number of a `cancelOn`.
    pub seq: i16,
    /// The event's type.
    pub event_type: String,
    /// `path=value` of the equality in `match`; empty for any.
    pub key: String,
    /// The router's number of the event since which it waits.
    pub since: i64,
}

/// A callback token.
#[derive(Clone, Debug)]
pub struct CallbackRow {
    /// SHA-256 of the token.
    pub digest: Vec<u8>,
    /// The step.
    pub seq: usize,
    /// Do or undo.
    pub action: Action,
}

/// A child saga.
#[derive(Debug)]
pub struct ChildRow {
    /// Its id, made from the parent's step.
    pub id: Uuid,
    /// The step of the parent.
    pub seq: usize,
    /// Whether it does that step or undoes it.
    pub action: Action,
    /// What it is.
    pub what: Child,
}

/// What a child saga is.
#[derive(Debug)]
pub enum Child {
    /// An instance of a definition, with the lock keys that it needs.
    New {
        /// The revision.
        definition_no: i32,
        /// Its lock keys.
        keys: Option<Vec<String>>,
    },
    /// The undo of a child that ended.
    Undo(Uuid),
    /// There is none, and why.
    Impossible(String),
}

/// How a saga ended, for those who wait for that.
#[derive(Debug)]
pub struct Ended {
    /// It had object locks.
    pub had_locks: bool,
    /// It had event waits, callbacks or tasks.
    pub had_waits: bool,
    /// It is a step of another saga.
    pub has_parent: bool,
}

impl Extras {
    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self {
            inputs,
            commands,
            tasks,
            withdrawn,
            reopened,
            waits,
            waits_over,
            callbacks,
            callbacks_over,
            failures,
            children,
            child_orders,
            ended,
        } = self;
        inputs.is_empty()
            && commands.is_empty()
            && tasks.is_empty()
            && withdrawn.is_empty()
            && reopened.is_empty()
            && waits.is_empty()
            && waits_over.is_empty()
            && callbacks.is_empty()
            && callbacks_over.is_empty()
            && failures.is_empty()
            && children.is_empty()
            && child_orders.is_empty()
            && ended.as_ref().is_none_or(|ended| !ended.had_locks && !ended.had_waits && !ended.has_parent)
    }
}

const INPUTS: &str = "
delete from syncor.input i using unnest($1::bigint[], $2::uuid[], $3::int[], $4::int[]) as x(id, saga_id, epoch, rev)
 where i.id = x.id and i.saga_id = x.saga_id
   and exists (select from syncor.saga s where s.id = x.saga_id and s.epoch = x.epoch and s.rev = x.rev)";

const COMMANDS: &str = "
update syncor.command c
   set status = case when (x.doc ->> 'applied')::boolean then 'applied' else 'refused' end, result = x.doc ->> 'result', settled_at = now()
  from jsonb_array_elements($1::jsonb) as x(doc)
 where c.id = (x.doc ->> 'id')::uuid and c.status = 'pending' and syncor.landed(x.doc)";

const TASKS: &str = "
insert into syncor.task (id, saga_id, seq, step, kind, queue, reason, prompt, form, assignee, four_eyes, status, due_at)
select t.id, t.saga_id, t.seq, t.step, t.kind, t.queue, t.reason, t.prompt, t.form, t.assignee, t.four_eyes, 'open', t.due_at
  from jsonb_array_elements($1::jsonb) as x(doc),
       jsonb_to_record(x.doc) as t(id uuid, saga_id uuid, seq smallint, step text, kind text, queue text, reason text, prompt text, form jsonb,
                                   assignee text, four_eyes boolean, due_at timestamptz)
 where syncor.landed(x.doc)
on conflict do nothing";

const WITHDRAWN: &str = "
update syncor.task t set status = 'withdrawn'
  from jsonb_array_elements($1::jsonb) as x(doc)
 where t.saga_id = (x.doc ->> 'saga_id')::uuid and t.seq = (x.doc ->> 'seq')::smallint and t.kind = x.doc ->> 'kind' and t.status = 'open'
   and syncor.landed(x.doc)";

const REOPENED: &str = "
update syncor.task t set status = case when (x.doc ->> 'open')::boolean then 'open' else 'withdrawn' end, decision = null, decided_by = null, note = null, output = null, decided_at = null
  from jsonb_array_elements($1::jsonb) as x(doc)
 where t.id = (x.doc ->> 'task')::uuid and t.status = 'decided' and syncor.landed(x.doc)
   and not exists (select from syncor.saga s where s.id = t.saga_id and s.finished_at is not null)";

const WAITS: &str = "
insert into syncor.wait (saga_id, seq, event_type, key, since)
select (x.doc ->> 'saga_id')::uuid, (x.doc ->> 'seq')::smallint, x.doc ->> 'event_type', x.doc ->> 'key', (x.doc ->> 'since')::bigint
  from jsonb_array_elements($1::jsonb) as x(doc)
 where syncor.landed(x.doc)
on conflict do nothing";

const WAITS_OVER: &str = "
delete from syncor.wait w using jsonb_array_elements($1::jsonb) as x(doc)
 where w.saga_id = (x.doc ->> 'saga_id')::uuid and w.seq = (x.doc ->> 'seq')::smallint and syncor.landed(x.doc)";

const CALLBACKS: &str = "
insert into syncor.callback (digest, saga_id, seq, action)
select decode(x.doc ->> 'digest', 'base64'), (x.doc ->> 'saga_id')::uuid, (x.doc ->> 'seq')::smallint, x.doc ->> 'action'
  from jsonb_array_elements($1::jsonb) as x(doc)
 where syncor.landed(x.doc)
on conflict do nothing";

const CALLBACKS_OVER: &str = "
update syncor.callback c set settled_at = now()
  from jsonb_array_elements($1::jsonb) as x(doc)
 where c.saga_id = (x.doc ->> 'saga_id')::uuid and c.seq = (x.doc ->> 'seq')::smallint and c.action = x.doc ->> 'action' and c.settled_at is null
   and syncor.landed(x.doc)";

const FAILURES: &str = "
insert into syncor.input (saga_id, kind, key, seq, action, payload)
select (x.doc ->> 'saga_id')::uuid, 'failed', 'failed:' || (x.doc ->> 'seq') || ':' || (x.doc ->> 'action'), (x.doc ->> 'seq')::smallint,
       x.doc ->> 'action', jsonb_build_object('error', x.doc ->> 'error')
  from jsonb_array_elements($1::jsonb) as x(doc)
 where syncor.landed(x.doc)
on conflict do nothing";

/// All keys of the batch at once, in their order: two transactions that each ask once cannot wait for each other.
const HOLD_KEYS: &str = "select syncor.hold_keys($1::uuid[], $2::text[])";

const CHILDREN: &str = "select count(syncor.start_child(x.doc)) from jsonb_array_elements($1::jsonb) as x(doc) where syncor.landed(x.doc)";

const CHILD_ORDERS: &str = "
insert into syncor.input (saga_id, kind, key, payload)
select (x.doc ->> 'child')::uuid, 'order', 'order:parent:' || (x.doc ->> 'order'),
       jsonb_build_object('order', x.doc ->> 'order', 'reason', x.doc ->> 'reason', 'by', 'parent')
  from jsonb_array_elements($1::jsonb) as x(doc)
 where syncor.landed(x.doc)
on conflict do nothing";

/// Closes what an ended saga leaves behind: tells its parent, gives its locks to the next, and nothing of it waits any more.
const ENDED: &str = "select count(syncor.close_saga(x.doc)) from jsonb_array_elements($1::jsonb) as x(doc) where syncor.landed(x.doc)";

const RELEASE: &str = "select syncor.release_locks($1::uuid[])";

/// The statements of a batch, to be sent behind its main statement.
pub(super) struct Statements {
    documents: Vec<(&'static str, Json<Value>)>,
    inputs: Inputs,
    released: Vec<Uuid>,
    child_keys: Vec<String>,
}

impl Statements {
    /// Gathers what the writes bring along; `None` for a batch that brings nothing.
    pub(super) fn of(batch: &[SagaWrite]) -> Option<Self> {
        let writes: Vec<_> = batch.iter().filter_map(|write| Some((write, write.extras.as_deref()?))).collect();
        if writes.is_empty() {
            return None;
        }
        let mut inputs = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut released = Vec::new();
        for (write, extras) in &writes {
            for id in &extras.inputs {
                inputs.0.push(*id);
                inputs.1.push(write.id);
                inputs.2.push(write.epoch);
                inputs.3.push(write.rev + 1);
            }
            if extras.ended.as_ref().is_some_and(|ended| ended.had_locks) {
                released.push(write.id);
            }
        }
        let keys = |child: &ChildRow| if let Child::New { keys: Some(keys), .. } = &child.what { keys.clone() } else { Vec::new() };
        let child_keys = writes.iter().flat_map(|(_, extras)| extras.children.iter().flat_map(keys)).collect();
        let mut documents = Vec::new();
        let mut add = |sql: &'static str, rows: &dyn Fn(&SagaWrite, &Extras) -> Vec<Value>| {
            let rows: Vec<Value> = writes.iter().flat_map(|(write, extras)| rows(write, extras).into_iter().map(|row| marked(write, row))).collect();
            if !rows.is_empty() {
                documents.push((sql, Json(Value::Array(rows))));
            }
        };
        add(COMMANDS, &|_, extras| extras.commands.iter().map(|c| json!({"id": c.id, "applied": c.applied, "result": c.result})).collect());
        add(WITHDRAWN, &|_, extras| extras.withdrawn.iter().map(|(seq, kind)| json!({"seq": seq, "kind": kind})).collect());
        add(TASKS, &|write, extras| extras.tasks.iter().map(|(id, task)| task_row(write, *id, task)).collect());
        add(REOPENED, &|_, extras| extras.reopened.iter().map(|(task, open)| json!({"task": task, "open": open})).collect());
        add(WAITS_OVER, &|_, extras| extras.waits_over.iter().map(|seq| json!({"seq": seq})).collect());
        add(WAITS, &|_, extras| extras.waits.iter().map(wait_row).collect());
        add(CALLBACKS, &|_, extras| {
            extras.callbacks.iter().map(|c| json!({"digest": BASE64.encode(&c.digest), "seq": c.seq, "action": c.action.as_str()})).collect()
        });
        add(CALLBACKS_OVER, &|_, extras| extras.callbacks_over.iter().map(|(seq, action)| json!({"seq": seq, "action": action.as_str()})).collect());
        add(FAILURES, &|_, extras| {
            extras.failures.iter().map(|(seq, action, error)| json!({"seq": seq, "action": action.as_str(), "error": error})).collect()
        });
        add(CHILDREN, &|_, extras| extras.children.iter().map(child_row).collect());
        add(CHILD_ORDERS, &|_, extras| {
            extras.child_orders.iter().map(|(child, order, reason)| json!({"child": child, "order": order.as_str(), "reason": reason})).collect()
        });
        add(ENDED, &|_, extras| extras.ended.iter().filter(|ended| ended.had_waits || ended.has_parent).map(|_| json!({})).collect());
        Some(Self { documents, inputs, released, child_keys })
    }

    /// Makes them ready to be sent without a pause between them.
    pub(super) async fn prepare(self, client: &Client) -> Result<Prepared, Error> {
        let mut documents = Vec::with_capacity(self.documents.len());
        for (sql, document) in self.documents {
            documents.push((client.prepare_cached(sql).await?, document));
        }
        let inputs = if self.inputs.0.is_empty() { None } else { Some((client.prepare_cached(INPUTS).await?, self.inputs)) };
        let held = if self.released.is_empty() && self.child_keys.is_empty() {
            None
        } else {
            Some((client.prepare_cached(HOLD_KEYS).await?, self.released.clone(), self.child_keys))
        };
        let released = if self.released.is_empty() { None } else { Some((client.prepare_cached(RELEASE).await?, self.released)) };
        Ok(Prepared { documents, inputs, held, released })
    }
}

type Inputs = (Vec<i64>, Vec<Uuid>, Vec<i32>, Vec<i32>);

/// Statements that can be sent.
pub(super) struct Prepared {
    documents: Vec<(Statement, Json<Value>)>,
    inputs: Option<(Statement, Inputs)>,
    held: Option<(Statement, Vec<Uuid>, Vec<String>)>,
    released: Option<(Statement, Vec<Uuid>)>,
}

impl Prepared {
    /// Each of them, in their order: polled together they go out in one packet.
    pub(super) fn sendings<'a>(&'a self, client: &'a Client) -> Vec<BoxFuture<'a, Result<(), tokio_postgres::Error>>> {
        let mut sendings: Vec<BoxFuture<'a, Result<(), tokio_postgres::Error>>> = Vec::new();
        if let Some((statement, (ids, sagas, epochs, revs))) = &self.inputs {
            sendings.push(Box::pin(async move { client.execute(statement, &[ids, sagas, epochs, revs]).await.map(drop) }));
        }
        if let Some((statement, sagas, keys)) = &self.held {
            sendings.push(Box::pin(async move { client.execute(statement, &[sagas, keys]).await.map(drop) }));
        }
        for (statement, document) in &self.documents {
            sendings.push(Box::pin(async move { client.execute(statement, &[document]).await.map(drop) }));
        }
        if let Some((statement, sagas)) = &self.released {
            sendings.push(Box::pin(async move { client.execute(statement, &[sagas]).await.map(drop) }));
        }
        sendings
    }
}

/// A row with the mark that `syncor.landed` looks for.
fn marked(write: &SagaWrite, mut row: Value) -> Value {
    if let Value::Object(map) = &mut row {
        map.insert("saga_id".to_owned(), json!(write.id));
        map.insert("epoch".to_owned(), json!(write.epoch));
        map.insert("rev".to_owned(), json!(write.rev + 1));
    }
    row
}

fn task_row(write: &SagaWrite, id: Uuid, task: &NewTask) -> Value {
    let due_at: Option<DateTime<Utc>> = task.due_at.map(time::to_sql);
    json!({
        "id": id, "seq": task.seq, "step": write.steps.iter().find(|step| step.seq == task.seq).map(|step| &step.name), "kind": task.kind.as_str(),
        "queue": task.queue, "reason": task.reason, "prompt": task.prompt, "form": task.form, "assignee": task.assignee,
        "four_eyes": task.four_eyes, "due_at": due_at,
    })
}

pub(super) fn wait_row(wait: &WaitRow) -> Value {
    json!({"seq": wait.seq, "event_type": wait.event_type, "key": wait.key, "since": wait.since})
}

fn child_row(child: &ChildRow) -> Value {
    let mut row = json!({"child": child.id, "seq": child.seq, "action": child.action.as_str()});
    match &child.what {
        Child::New { definition_no, keys } => (row["definition_no"], row["keys"]) = (json!(definition_no), json!(keys)),
        Child::Undo(undone) => row["undoes"] = json!(undone),
        Child::Impossible(error) => row["error"] = json!(error),
    }
    row
}
