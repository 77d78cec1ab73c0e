//! Human tasks as people look at them.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::types::Json;
use sqlx::{FromRow, Postgres, QueryBuilder, Transaction};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Page, ReadStore, with_one_more};
use crate::core::human::TaskKind;
use crate::store::Error;

/// Which human tasks to list. Absent means any.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// `open`, `decided` or `withdrawn`.
    pub status: Option<String>,
    /// Where it is asked.
    pub queue: Option<String>,
    /// Why it exists.
    pub kind: Option<String>,
    /// The saga that it is about.
    pub saga: Option<Uuid>,
    /// Whom it is meant for.
    pub assignee: Option<String>,
    /// The last task of the page before.
    pub after: Option<Uuid>,
}

/// What people are asked, and what they decided.
#[derive(Clone, Debug, FromRow, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Task {
    /// Identity; sorts by time.
    pub id: Uuid,
    /// The saga that it is about.
    pub saga_id: Option<Uuid>,
    /// That saga's definition; of a task about a family, the family.
    pub definition: Option<String>,
    /// The step that it is about.
    pub step: Option<String>,
    /// `approval`, `policy`, `step_failed`, `comp_failed`, `pivot_unknown`, `late_effect` or `consecutive_failures`.
    pub kind: String,
    /// Where it is asked.
    pub queue: String,
    /// What happened, in one line.
    pub reason: String,
    /// The question.
    pub prompt: Option<String>,
    /// What an approval must fill in: a JSON Schema.
    #[schema(value_type = Option<Object>)]
    pub form: Option<Json<Box<RawValue>>>,
    /// `open`, `decided` or `withdrawn`.
    pub status: String,
    /// Whom it is meant for.
    pub assignee: Option<String>,
    /// Whether whoever published the event may not decide it.
    pub four_eyes: bool,
    /// When the question is given up.
    pub due_at: Option<DateTime<Utc>>,
    /// What was decided.
    pub decision: Option<String>,
    /// By whom.
    pub decided_by: Option<String>,
    /// Why.
    pub note: Option<String>,
    /// What the form was filled in with, or what the step is to have answered.
    #[schema(value_type = Option<Object>)]
    pub output: Option<Json<Box<RawValue>>>,
    /// When it was opened.
    pub opened_at: DateTime<Utc>,
    /// When it was decided.
    pub decided_at: Option<DateTime<Utc>>,
    /// What may be decided.
    #[sqlx(skip)]
    pub decisions: Vec<&'static str>,
}

impl Task {
    fn with_decisions(mut self) -> Self {
        let takes = TaskKind::parse(&self.kind).filter(|_| self.status == "open").map_or(&[][..], TaskKind::decisions);
        self.decisions = takes.iter().map(|decision| decision.as_str()).collect();
        self
    }
}

const COLUMNS: &str = "
select h.id, h.saga_id, coalesce(d.id, k.family) as definition, h.step, h.kind, h.queue, h.reason, h.prompt, h.form, h.status, h.assignee,
       k.four_eyes, h.due_at, h.decision, h.decided_by, h.note, h.output, h.opened_at, h.decided_at
  from syncor.human_tasks h
  join syncor.task k on k.id = h.id
  left join syncor.saga s on s.id = h.saga_id
  left join syncor.definition d on d.no = s.definition_no
 where true";

impl ReadStore {
    /// The tasks that match, newest first.
    ///
    /// # Errors
    /// `Read` when the database fails or needs more than two seconds.
    pub async fn tasks(&self, filter: &Filter, limit: u32) -> Result<Page<Task>, Error> {
        let mut query = QueryBuilder::new(COLUMNS);
        for (column, wanted) in [
            (" and k.status = ", &filter.status),
            (" and k.queue = ", &filter.queue),
            (" and k.kind = ", &filter.kind),
            (" and k.assignee = ", &filter.assignee),
        ] {
            if let Some(wanted) = wanted {
                query.push(column).push_bind(wanted);
            }
        }
        if let Some(saga) = filter.saga {
            query.push(" and k.saga_id = ").push_bind(saga);
        }
        if let Some(after) = filter.after {
            query.push(" and k.id < ").push_bind(after);
        }
        query.push(" order by k.id desc limit ").push_bind(with_one_more(limit));
        let mut snapshot = self.snapshot().await?;
        let tasks: Vec<Task> = query.build_query_as().fetch_all(&mut *snapshot).await?;
        Ok(Page::cut(tasks.into_iter().map(Task::with_decisions).collect(), limit))
    }

    /// One task; `None` if there is none.
    ///
    /// # Errors
    /// `Read` when the database fails or needs more than two seconds.
    pub async fn task(&self, id: Uuid) -> Result<Option<Task>, Error> {
        let mut query = QueryBuilder::new(COLUMNS);
        query.push(" and k.id = ").push_bind(id);
        let mut snapshot = self.snapshot().await?;
        let task: Option<Task> = query.build_query_as().fetch_optional(&mut *snapshot).await?;
        Ok(task.map(Task::with_decisions))
    }
}

/// The tasks of one saga in their order, at most 200.
pub(super) async fn of_saga(snapshot: &mut Transaction<'static, Postgres>, saga: Uuid) -> Result<Vec<Task>, Error> {
    let mut query = QueryBuilder::new(COLUMNS);
    query.push(" and k.saga_id = ").push_bind(saga).push(" order by k.id limit 200");
    let tasks: Vec<Task> = query.build_query_as().fetch_all(&mut **snapshot).await?;
    Ok(tasks.into_iter().map(Task::with_decisions).collect())
}
