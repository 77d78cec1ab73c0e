//! notice-svc: queues a notice for everybody in the register, and cancels the batch.

use axum::{Router, extract::State, routing::post};
use serde_json::{Value, json};

use super::{
    database::{Database, Error},
    once::{self, Begun},
    problem::Problem,
    service::{Answer, Shared, grouped},
    verify::{Action, Call},
};

pub(super) fn routes() -> Router<Shared> {
    Router::new().route("/broadcast", post(broadcast_notices)).route("/cancel", post(cancel_notices))
}

/// Notices that wait, without those of cancelled batches.
pub(super) async fn queued(database: &Database) -> Result<i64, Error> {
    let mut session = database.session().await?;
    let tx = database.begin(&mut session).await?;
    let count = "select count(*) from outbox_notice n join notice_batch b on b.id = n.batch_id
                 where b.state = 'queued'";
    Ok(tx.query_one(count, &[]).await?.get(0))
}

async fn broadcast_notices(State(service): State<Shared>, call: Call) -> Answer {
    service.see_through(call, Action::Do, broadcast).await
}

async fn cancel_notices(State(service): State<Shared>, call: Call) -> Answer {
    service.see_through(call, Action::Undo, cancel).await
}

async fn broadcast(database: Database, call: Call) -> Result<Value, Problem> {
    let policy = call.data("policyId").as_str().ok_or_else(|| Problem::unprocessable("data.policyId must be a text"))?;

    let mut session = database.session().await?;
    let work = match once::begin_do(&database, &mut session, &call).await? {
        Begun::Answered(reply) => return Ok(reply),
        Begun::Work(work) => work,
    };
    let batch_id: i32 =
        work.tx.query_one("insert into notice_batch (do_key, policy_id) values ($1, $2) returning id", &[&call.key, &policy]).await?.get(0);
    let queued = work
        .tx
        .execute(
            "insert into outbox_notice (batch_id, claimant_id)
             select $1::int, claimant_id from register",
            &[&batch_id],
        )
        .await?;
    work.tx.execute("update notice_batch set notices = $2 where id = $1", &[&batch_id, &i64::try_from(queued).unwrap_or(i64::MAX)]).await?;
    work.finish(json!({
        "message": format!("{} notices queued", grouped(queued)),
        "context": {"batchId": batch_id},
        "queued": queued,
    }))
    .await
}

/// Marks the batch; the sender looks at the mark, so two million rows need not be touched.
async fn cancel(database: Database, call: Call) -> Result<Value, Problem> {
    let do_key = call.do_key()?;
    let mut session = database.session().await?;
    let work = match once::begin_undo(&database, &mut session, &call, &do_key).await? {
        Begun::Answered(reply) => return Ok(reply),
        Begun::Work(work) => work,
    };
    let batch = work
        .tx
        .query_opt(
            "update notice_batch set state = 'cancelled', cancelled_at = now()
             where do_key = $1 and state = 'queued' returning notices",
            &[&do_key],
        )
        .await?
        .ok_or_else(|| Problem::conflict("the notices were queued, but their batch is gone"))?;
    let cancelled = batch.get::<_, i64>(0).unsigned_abs();
    work.finish(json!({
        "message": format!("{} notices cancelled", grouped(cancelled)),
        "cancelled": cancelled,
    }))
    .await
}
