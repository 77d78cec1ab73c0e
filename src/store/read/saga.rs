//! One saga with everything that is known about it.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::types::Json;
use sqlx::{FromRow, Postgres, QueryBuilder, Transaction};
use utoipa::ToSchema;
use uuid::Uuid;

use super::commands::{self, Command};
use super::sagas::{COLUMNS, JOINS, Saga};
use super::tasks::{self, Task};
use super::timeline::{self, Entry};
use super::{Error, ReadStore};

/// A step of a saga, begun or not.
#[derive(Clone, Debug, FromRow, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Place in the definition, from 0.
    pub seq: i16,
    /// Name in the definition.
    pub name: String,
    /// `pending`, `running`, `waiting`, `backoff`, `succeeded`, `failed`, `unknown`, `skipped` or `cancelled`.
    pub status: String,
    /// How far undoing it has come.
    pub compensation: String,
    /// Calls made to do it.
    pub attempts: i32,
    /// The reply's body.
    #[schema(value_type = Option<Object>)]
    pub output: Option<Json<Box<RawValue>>>,
    /// What the undo is given.
    #[schema(value_type = Option<Object>)]
    pub context: Option<Json<Box<RawValue>>>,
    /// How far a long step has come.
    #[schema(value_type = Option<Object>)]
    pub progress: Option<Json<Box<RawValue>>>,
    /// What it, or its undo, waits for: `callback`, `event`, `timer`, `human`, `child` or `service`.
    pub wait: Option<String>,
    /// Which one: the event's type with the value it must have, the human task, or the saga.
    pub waits_for: Option<String>,
    /// When that wait is given up; of a timer, when it rings.
    pub wait_until: Option<DateTime<Utc>>,
    /// When its next attempt is due.
    pub due_at: Option<DateTime<Utc>>,
    /// What the service had to say.
    pub message: Option<String>,
    /// What went wrong last.
    pub error: Option<String>,
    /// When its first call was committed to.
    pub started_at: Option<DateTime<Utc>>,
    /// When its status became final.
    pub finished_at: Option<DateTime<Utc>>,
}

/// One try of a step or of its undo.
#[derive(Clone, Debug, FromRow, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// The step.
    pub step: String,
    /// `do`, `undo` or `verify`.
    pub action: String,
    /// Number of the attempt, from 1.
    pub attempt: i32,
    /// The fence the call carried.
    pub fence: i64,
    /// `succeeded`, `failed`, `unknown`, `lost`; null while under way.
    pub outcome: Option<String>,
    /// Status of the reply, where one came.
    pub http_status: Option<i16>,
    /// What went wrong.
    pub error: Option<String>,
    /// The worker that recorded it.
    pub worker_id: Option<Uuid>,
    /// When the call was committed to.
    pub started_at: Option<DateTime<Utc>>,
    /// When the outcome was recorded.
    pub finished_at: Option<DateTime<Utc>>,
}

/// A saga that is a step of another one.
#[derive(Clone, Debug, FromRow, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Child {
    /// Identity.
    pub id: Uuid,
    /// Full id of its definition.
    pub definition: String,
    /// Where it stands.
    pub state: String,
    /// Whether everything that was done, if it was to be undone, was.
    pub clean: bool,
    /// The step that it is.
    pub step: Option<String>,
    /// Whether it does that step or undoes it.
    pub action: String,
}

/// A saga with everything that is known about it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Detail {
    /// The saga.
    #[serde(flatten)]
    pub saga: Saga,
    /// The event's data.
    #[schema(value_type = Option<Object>)]
    pub data: Option<Json<Box<RawValue>>>,
    /// An order that is not applied yet.
    pub pending_command: Option<String>,
    /// One sentence: why it waits, or how it ended.
    pub why: Option<String>,
    /// Its steps in the order of the definition.
    pub steps: Vec<Step>,
    /// Its attempts in the order they were made.
    pub attempts: Vec<Attempt>,
    /// What people are and were asked about it.
    pub tasks: Vec<Task>,
    /// What was ordered of it.
    pub commands: Vec<Command>,
    /// The sagas that its steps are, at most 200.
    pub children: Vec<Child>,
    /// Its forks, at most 200.
    pub forks: Vec<Uuid>,
    /// What happened, in order.
    pub timeline: Vec<Entry>,
}

const STEPS: &str = "
select v.seq, v.name, v.status, v.compensation, v.attempts, v.output, v.context, v.progress, v.message, v.error, v.started_at, v.finished_at,
       t.due_at, w.wait, case when w.wait = 'timer' then coalesce(t.wait_until, t.due_at) when w.wait is not null then t.wait_until end as wait_until,
       case w.wait
         when 'event' then (select x.event_type || coalesce(' with ' || nullif(x.key, ''), '') from syncor.wait x where x.saga_id = t.saga_id and x.seq = t.seq)
         when 'human' then (select k.id::text from syncor.task k where k.saga_id = t.saga_id and k.seq = t.seq and k.status = 'open' order by k.id limit 1)
         when 'child' then (select c.id::text from syncor.saga c
                             where c.parent_id = t.saga_id and c.parent_seq = t.seq and c.finished_at is null order by c.id desc limit 1)
       end as waits_for
  from syncor.steps v
  left join syncor.step t on t.saga_id = v.saga_id and t.seq = v.seq
  left join lateral (select t.wait where t.status = 'waiting' or t.compensation = 'waiting') w on true
 where v.saga_id = $1
 order by v.seq";

const ATTEMPTS: &str = "
select step, action, attempt, fence, outcome, http_status, error, worker_id, started_at, finished_at
  from syncor.attempts where saga_id = $1 order by fence, attempt";

const CHILDREN: &str = "
select c.id, d.id as definition, c.state, c.clean, p.steps[c.parent_seq + 1] as step, c.parent_action as action
  from syncor.saga c
  join syncor.definition d on d.no = c.definition_no
  join syncor.saga s on s.id = c.parent_id
  join syncor.definition p on p.no = s.definition_no
 where c.parent_id = $1 order by c.id limit 200";

/// Forks carry the correlation id of what they are forks of, which has an index.
const FORKS: &str = "select f.id from syncor.saga f where f.fork_of = $1 and f.correlation_id = $2 order by f.id limit 200";

impl ReadStore {
    /// One saga with all that belongs to it; `None` if there is none.
    ///
    /// # Errors
    /// `Read` when the database fails or needs more than two seconds.
    pub async fn saga(&self, id: Uuid) -> Result<Option<Detail>, Error> {
        let mut snapshot = self.snapshot().await?;
        let mut query = QueryBuilder::new(COLUMNS);
        query.push(" and s.id = ").push_bind(id).push(JOINS);
        let Some(saga) = query.build_query_as::<Saga>().fetch_optional(&mut *snapshot).await? else { return Ok(None) };
        let (data, pending_command, why) =
            sqlx::query_as("select data, pending_command, syncor.why(id) from syncor.sagas where id = $1").bind(id).fetch_one(&mut *snapshot).await?;
        let steps = all(&mut snapshot, STEPS, id).await?;
        let attempts: Vec<Attempt> = all(&mut snapshot, ATTEMPTS, id).await?;
        let children = all(&mut snapshot, CHILDREN, id).await?;
        let tasks = tasks::of_saga(&mut snapshot, id).await?;
        let commands = commands::of_saga(&mut snapshot, id).await?;
        let forks = sqlx::query_scalar(FORKS).bind(id).bind(&saga.correlation_id).fetch_all(&mut *snapshot).await?;
        let timeline = timeline::read(&mut snapshot, &saga, &attempts).await?;
        Ok(Some(Detail { saga, data, pending_command, why, steps, attempts, tasks, commands, children, forks, timeline }))
    }
}

/// The rows of a query about one saga.
async fn all<T>(snapshot: &mut Transaction<'static, Postgres>, query: &'static str, saga: Uuid) -> Result<Vec<T>, Error>
where
    T: for<'row> FromRow<'row, sqlx::postgres::PgRow> + Send + Unpin,
{
    Ok(sqlx::query_as(query).bind(saga).fetch_all(&mut **snapshot).await?)
}
