//! payment-svc: raises all weekly payments, and puts them back.

use axum::{Router, extract::State, routing::post};
use serde_json::{Value, json};

use super::{
    database::{Database, Error},
    once::{self, Begun},
    problem::Problem,
    service::{Answer, Shared, grouped},
    verify::{Action, Call},
};

/// Raises beyond this are typing errors.
const PERCENT_MAX: f64 = 1000.0;

/// Two raises at once would save the same old values and multiply twice: one at a time, while
/// everybody may go on reading.
const ONE_AT_A_TIME: &str = "lock table payment in share row exclusive mode";

pub(super) fn routes() -> Router<Shared> {
    Router::new().route("/recalc", post(recalc_payments)).route("/revert", post(revert_payments))
}

/// The sum of all weekly payments, in cents.
pub(super) async fn total_cents(database: &Database) -> Result<i64, Error> {
    let mut session = database.session().await?;
    let tx = database.begin(&mut session).await?;
    let sum = "select coalesce(sum(weekly_cents), 0)::bigint from payment";
    Ok(tx.query_one(sum, &[]).await?.get(0))
}

async fn recalc_payments(State(service): State<Shared>, call: Call) -> Answer {
    service.see_through(call, Action::Do, recalc).await
}

async fn revert_payments(State(service): State<Shared>, call: Call) -> Answer {
    service.see_through(call, Action::Undo, revert).await
}

async fn recalc(database: Database, call: Call) -> Result<Value, Problem> {
    let percent = call
        .data("percent")
        .as_f64()
        .filter(|percent| (-100.0..=PERCENT_MAX).contains(percent))
        .ok_or_else(|| Problem::unprocessable("data.percent must be a number from -100 to 1000"))?;

    let mut session = database.session().await?;
    let work = match once::begin_do(&database, &mut session, &call).await? {
        Begun::Answered(reply) => return Ok(reply),
        Begun::Work(work) => work,
    };
    work.tx.batch_execute(ONE_AT_A_TIME).await?;
    let backup_id: String = work
        .tx
        .query_one(
            "insert into backup (do_key, percent) values ($1, $2::float8::numeric)
             returning id::text",
            &[&call.key, &percent],
        )
        .await?
        .get(0);
    // Both halves see the same snapshot, and nobody else writes: what is saved is what is raised.
    let updated = work
        .tx
        .execute(
            "with saved as (
               insert into payment_backup (backup_id, claimant_id, weekly_cents)
               select $1::text::uuid, claimant_id, weekly_cents from payment
             )
             update payment
             set weekly_cents = round(weekly_cents * (1 + $2::float8::numeric / 100)),
                 updated_at = now()",
            &[&backup_id, &percent],
        )
        .await?;
    work.finish(json!({
        "message": format!("{} payments updated", grouped(updated)),
        "context": {"backupId": backup_id},
        "updated": updated,
    }))
    .await
}

/// Puts back what the backup of this very `do` holds.
///
/// The backup is found by the key of the `do`: also if the orchestrator never learned how the `do`
/// ended, and so has no context to give.
async fn revert(database: Database, call: Call) -> Result<Value, Problem> {
    let do_key = call.do_key()?;
    let mut session = database.session().await?;
    let work = match once::begin_undo(&database, &mut session, &call, &do_key).await? {
        Begun::Answered(reply) => return Ok(reply),
        Begun::Work(work) => work,
    };
    work.tx.batch_execute(ONE_AT_A_TIME).await?;
    let backup = work
        .tx
        .query_opt(
            "delete from backup where do_key = $1 and id::text = coalesce($2, id::text)
             returning id::text",
            &[&do_key, &call.context("backupId")],
        )
        .await?
        .ok_or_else(|| Problem::conflict("the payments were raised, but their backup is gone"))?;
    let backup_id: String = backup.get(0);
    let restored = work
        .tx
        .execute(
            "update payment p set weekly_cents = b.weekly_cents, updated_at = now()
             from payment_backup b
             where b.backup_id = $1::text::uuid and b.claimant_id = p.claimant_id",
            &[&backup_id],
        )
        .await?;
    work.tx.execute("delete from payment_backup where backup_id = $1::text::uuid", &[&backup_id]).await?;
    work.finish(json!({
        "message": format!("{} payments restored", grouped(restored)),
        "restored": restored,
    }))
    .await
}
