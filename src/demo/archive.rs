//! archive-svc: keeps a snapshot of the rule as it was when its change was carried out.

use axum::{Router, extract::State, routing::post};
use serde_json::{Value, json};

use super::{
    database::Database,
    once::{self, Begun},
    problem::Problem,
    service::{Answer, Shared},
    verify::{Action, Call},
};

pub(super) fn routes() -> Router<Shared> {
    Router::new().route("/snapshot", post(snapshot_rule)).route("/unarchive", post(unarchive_rule))
}

async fn snapshot_rule(State(service): State<Shared>, call: Call) -> Answer {
    service.see_through(call, Action::Do, snapshot).await
}

async fn unarchive_rule(State(service): State<Shared>, call: Call) -> Answer {
    service.see_through(call, Action::Undo, unarchive).await
}

async fn snapshot(database: Database, call: Call) -> Result<Value, Problem> {
    let rule = call.data("policyId").as_str().ok_or_else(|| Problem::unprocessable("data.policyId must be a text"))?;

    let mut session = database.session().await?;
    let work = match once::begin_do(&database, &mut session, &call).await? {
        Begun::Answered(reply) => return Ok(reply),
        Begun::Work(work) => work,
    };
    let archived = work
        .tx
        .query_opt(
            "insert into rule_archive (do_key, rule_id, snapshot)
             select $1, id, to_jsonb(rule) || jsonb_build_object('percent', $3::jsonb)
             from rule where id = $2
             returning id::text",
            &[&call.key, &rule, call.data("percent")],
        )
        .await?
        .ok_or_else(|| Problem::unprocessable(format!("there is no rule {rule}")))?;
    let archive_id: String = archived.get(0);
    work.finish(json!({
        "message": format!("rule {rule} archived"),
        "context": {"archiveId": archive_id},
    }))
    .await
}

async fn unarchive(database: Database, call: Call) -> Result<Value, Problem> {
    let do_key = call.do_key()?;
    let mut session = database.session().await?;
    let work = match once::begin_undo(&database, &mut session, &call, &do_key).await? {
        Begun::Answered(reply) => return Ok(reply),
        Begun::Work(work) => work,
    };
    let removed = work
        .tx
        .query_opt("delete from rule_archive where do_key = $1 returning rule_id", &[&do_key])
        .await?
        .ok_or_else(|| Problem::conflict("the rule was archived, but its snapshot is gone"))?;
    let rule: String = removed.get(0);
    work.finish(json!({"message": format!("rule {rule} unarchived")})).await
}
