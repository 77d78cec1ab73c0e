//! Doing a thing once, however often one is asked: effect and idempotency key in one transaction.
//!
//! `handled` holds one row per key. Its primary key is the lock: who inserts the row does the work,
//! everybody else with the same key waits on the index until that transaction ends, and then either
//! reads the stored reply or, if it was rolled back, does the work itself.
//!
//! An undo takes its own key and then the key of its `do`. If it gets that too, the `do` never
//! landed: the row stays as a tombstone, and a `do` that arrives late finds it and refuses. If the
//! `do` is under way at that moment, the undo waits for it, on the same index. Nothing takes the two
//! keys in the other order, so they cannot deadlock.

use deadpool_postgres::{Object, Transaction};
use serde_json::{Value, json};

use super::{
    database::Database,
    problem::Problem,
    verify::{Action, Call},
};

/// Where a call stands once its key is taken.
pub(super) enum Begun<'a> {
    /// It was handled before, or there is nothing to do: this is the reply.
    Answered(Value),
    /// The work is this caller's to do, in this transaction.
    Work(Work<'a>),
}

/// The transaction that holds the key. Dropped without `finish`, it leaves no trace.
pub(super) struct Work<'a> {
    pub(super) tx: Transaction<'a>,
    key: String,
}

impl Work<'_> {
    /// Stores the reply beside the effect and commits both.
    pub(super) async fn finish(self, reply: Value) -> Result<Value, Problem> {
        self.tx.execute("update handled set reply = $2 where key = $1", &[&self.key, &reply]).await?;
        self.tx.commit().await.map_err(|error| Problem::unknown_commit(&error))?;
        Ok(reply)
    }
}

/// Takes the key of a `do`.
///
/// # Errors
/// 409 if a younger attempt was seen, or if its undo came first.
pub(super) async fn begin_do<'a>(database: &Database, session: &'a mut Object, call: &Call) -> Result<Begun<'a>, Problem> {
    admit(database, session, call).await?;
    let work = open(database, session, call).await?;
    if take(&work.tx, &call.key, call, false).await? {
        return Ok(Begun::Work(work));
    }
    // A new statement, so it sees the row that the insert has just waited for.
    let row = work.tx.query_one("select undone, reply from handled where key = $1", &[&call.key]).await?;
    if row.get("undone") {
        return Err(Problem::conflict("its undo came first: it will not be done"));
    }
    Ok(Begun::Answered(row.get("reply")))
}

/// Takes the key of an undo and blocks its `do` for good. `Work` means that the `do` did land.
///
/// # Errors
/// 409 if a younger attempt was seen.
pub(super) async fn begin_undo<'a>(database: &Database, session: &'a mut Object, call: &Call, do_key: &str) -> Result<Begun<'a>, Problem> {
    admit(database, session, call).await?;
    let work = open(database, session, call).await?;
    if !take(&work.tx, &call.key, call, false).await? {
        let row = work.tx.query_one("select reply from handled where key = $1", &[&call.key]).await?;
        return Ok(Begun::Answered(row.get("reply")));
    }
    let never_landed = take(&work.tx, do_key, call, true).await?;
    let blocked = work.tx.execute("update handled set undone = true where key = $1 and not undone", &[&do_key]).await?;
    if never_landed || blocked == 0 {
        let reply = json!({"message": "nothing to undo"});
        return Ok(Begun::Answered(work.finish(reply).await?));
    }
    Ok(Begun::Work(work))
}

/// Lets no attempt through that is older than one already seen for this saga, step and action.
///
/// Committed on its own: the work that follows may be rolled back, what was seen stays seen.
async fn admit(database: &Database, session: &mut Object, call: &Call) -> Result<(), Problem> {
    let tx = database.begin(session).await?;
    let admitted = tx
        .execute(
            "insert into fence as f (key, highest) values ($1, $2)
             on conflict (key) do update set highest = excluded.highest
             where f.highest <= excluded.highest",
            &[&call.key, &call.fence],
        )
        .await?;
    tx.commit().await?;
    if admitted == 0 {
        return Err(Problem::conflict("a younger attempt of this step was here"));
    }
    Ok(())
}

async fn open<'a>(database: &Database, session: &'a mut Object, call: &Call) -> Result<Work<'a>, Problem> {
    Ok(Work { tx: database.begin(session).await?, key: call.key.clone() })
}

/// True if the key was free; else waits until its holder has committed.
async fn take(tx: &Transaction<'_>, key: &str, call: &Call, undone: bool) -> Result<bool, tokio_postgres::Error> {
    let action = if undone { Action::Do } else { call.action };
    let inserted = tx
        .execute(
            "insert into handled (key, action, step, undone) values ($1, $2, $3, $4)
             on conflict (key) do nothing",
            &[&key, &action.as_str(), &call.step, &undone],
        )
        .await?;
    Ok(inserted == 1)
}
