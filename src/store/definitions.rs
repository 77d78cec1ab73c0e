//! Deployed files: revisions that are activated and retired, never changed.
//!
//! Deploying is all or nothing and one at a time: the row of `syncor.catalog`, which every change raises, is the lock.

use serde_json::Value;
use tokio_postgres::{GenericClient, Row, Transaction};

use super::{Error, Store};
use crate::core::definition_file::{children, step_names};
use crate::core::nesting::{self, Families};

/// A file to deploy.
#[derive(Clone, Debug)]
pub struct NewDefinition<'a> {
    /// `saga` or `services`.
    pub kind: &'a str,
    /// Full id with its version.
    pub id: &'a str,
    /// The id without `.vN`.
    pub family: &'a str,
    /// The N of `.vN`.
    pub version: i32,
    /// SHA-256 of the file's meaning.
    pub revision: &'a str,
    /// The file as JSON.
    pub source: &'a Value,
}

/// Who orders it and how.
#[derive(Clone, Copy, Debug, Default)]
pub struct Order<'a> {
    /// The database role or the API key.
    pub by: &'a str,
    /// Why.
    pub reason: Option<&'a str>,
    /// Retire the other active versions of each family in the same transaction.
    pub replace: bool,
}

/// What became of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deployed {
    /// Full id.
    pub id: String,
    /// What was done.
    pub outcome: Outcome,
    /// The revision that was active before, if another one was.
    pub replaced: Option<String>,
    /// Other versions of the family that were retired.
    pub retired: Vec<String>,
}

/// What deploying came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The id was unknown.
    New,
    /// That revision is active already: nothing was written.
    Unchanged,
    /// The id was known with another content.
    NewRevision,
    /// That revision had been retired.
    Reactivated,
}

impl Outcome {
    /// For people: `new revision`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Unchanged => "unchanged",
            Self::NewRevision => "new revision",
            Self::Reactivated => "reactivated",
        }
    }
}

/// A deployed file.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredDefinition {
    /// Short number that sagas are pinned to.
    pub no: i32,
    /// `saga` or `services`.
    pub kind: String,
    /// Full id.
    pub id: String,
    /// The file as JSON.
    pub source: Value,
}

/// Deploys all files or none, and says what became of each, in their order. What is unchanged leaves no trace.
///
/// # Errors
/// `Refused` when a service would be defined by two files, or sagas would run each other in a circle or too deep; `Postgres` when the database refuses.
pub async fn deploy(store: &Store, definitions: &[NewDefinition<'_>], order: Order<'_>) -> Result<Vec<Deployed>, Error> {
    let mut client = store.client().await?;
    let transaction = client.transaction().await?;
    one_at_a_time(&transaction).await?;
    let mut deployed = Vec::with_capacity(definitions.len());
    for definition in definitions {
        let mut done = deploy_one(&transaction, definition, order).await?;
        if order.replace {
            done.retired = retire_family_versions(&transaction, definition, order).await?;
        }
        deployed.push(done);
    }
    check(&transaction).await?;
    transaction.commit().await?;
    Ok(deployed)
}

/// What became of activating a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activated {
    /// The revision that is active now.
    pub revision: String,
    /// Whether it was active before.
    pub unchanged: bool,
    /// The revision that was active before, if another one was.
    pub replaced: Option<String>,
}

/// Puts a revision in force again: the one that begins with `revision`, else the newest. `None` if there is none.
///
/// # Errors
/// `Refused` when several revisions begin so, and as in [`deploy`]; `Postgres` when the database refuses.
pub async fn activate(store: &Store, kind: &str, id: &str, revision: Option<&str>, order: Order<'_>) -> Result<Option<Activated>, Error> {
    let mut client = store.client().await?;
    let transaction = client.transaction().await?;
    one_at_a_time(&transaction).await?;
    let rows = transaction
        .query(
            "select no, revision, state from syncor.definition
              where kind = $1 and id = $2 and starts_with(revision, coalesce($3, '')) order by no desc limit 200",
            &[&kind, &id, &revision],
        )
        .await?;
    let Some(row) = rows.first() else { return Ok(None) };
    if revision.is_some() && rows.len() > 1 {
        return Err(Error::Refused(format!("{} revisions of {id} begin so: give more digits", rows.len())));
    }
    let (no, found): (i32, String) = (row.get(0), row.get(1));
    if row.get::<_, &str>(2) == "active" {
        return Ok(Some(Activated { revision: found, unchanged: true, replaced: None }));
    }
    let replaced = transaction.query_opt(RETIRE, &[&kind, &id]).await?.map(|row| row.get::<_, String>(0));
    transaction.execute("update syncor.definition set state = 'active', retired_at = null where no = $1", &[&no]).await?;
    check(&transaction).await?;
    let place = replaced.as_ref().map(|old| format!(" in place of {}", short(old))).unwrap_or_default();
    record(&transaction, "deploy", id, order, &format!("activated {}{place}", short(&found))).await?;
    transaction.commit().await?;
    Ok(Some(Activated { revision: found, unchanged: false, replaced }))
}

/// Retires the active revision of a file; `false` if there is none. Sagas under way finish with it.
///
/// # Errors
/// `Postgres` when the database refuses.
pub async fn retire(store: &Store, kind: &str, id: &str, order: Order<'_>) -> Result<bool, Error> {
    let mut client = store.client().await?;
    let transaction = client.transaction().await?;
    one_at_a_time(&transaction).await?;
    let retired = transaction.query_opt(RETIRE, &[&kind, &id]).await?;
    if let Some(row) = &retired {
        record(&transaction, "retire", id, order, &format!("retired {}", short(row.get(0)))).await?;
    }
    transaction.commit().await?;
    Ok(retired.is_some())
}

/// `saga` or `services`, whichever has the id; `None` if nothing has.
///
/// # Errors
/// `Refused` when both have; `Postgres` when the database cannot be asked.
pub async fn kind_of(client: &impl GenericClient, id: &str) -> Result<Option<String>, Error> {
    let rows = client.query("select distinct kind from syncor.definition where id = $1", &[&id]).await?;
    match rows.as_slice() {
        [] => Ok(None),
        [row] => Ok(Some(row.get(0))),
        _ => Err(Error::Refused(format!("{id} is a saga and a services file: deploy one of them under another id"))),
    }
}

/// The revision of the catalogue and everything that is active, as of one moment.
///
/// # Errors
/// `Postgres` when the database cannot be asked.
pub async fn active(client: &impl GenericClient) -> Result<(i64, Vec<StoredDefinition>), Error> {
    let rows = client
        .query(
            "select c.revision, d.no, d.kind, d.id, d.source
               from syncor.catalog c left join syncor.definition d on d.state = 'active'
              order by d.no",
            &[],
        )
        .await?;
    let revision = rows.first().map(|row| row.get(0));
    // A catalogue without a definition is one row of nulls.
    let definitions = rows.iter().filter(|row| row.get::<_, Option<i32>>(1).is_some()).map(|row| stored(row, 1)).collect();
    Ok((revision.ok_or_else(|| Error::Unreadable("no catalogue".to_owned()))?, definitions))
}

/// Revisions by their numbers, active or not; those that do not exist are left out.
///
/// # Errors
/// `Postgres` when the database cannot be asked.
pub async fn by_no(client: &impl GenericClient, nos: &[i32]) -> Result<Vec<StoredDefinition>, Error> {
    let rows = client.query("select no, kind, id, source from syncor.definition where no = any($1) order by no", &[&nos]).await?;
    Ok(rows.iter().map(|row| stored(row, 0)).collect())
}

/// Names of the services that active files define, sorted.
///
/// # Errors
/// `Postgres` when the database cannot be asked.
pub async fn active_services(client: &impl GenericClient) -> Result<Vec<String>, Error> {
    let rows = client
        .query(
            "select distinct s.key from syncor.definition d cross join lateral jsonb_object_keys(d.source -> 'services') s(key)
              where d.kind = 'services' and d.state = 'active' order by s.key",
            &[],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

const RETIRE: &str = "
update syncor.definition set state = 'retired', retired_at = now()
 where kind = $1 and id = $2 and state = 'active'
returning revision";

/// Every change of a definition updates this row; whoever holds it is alone.
async fn one_at_a_time(transaction: &Transaction<'_>) -> Result<(), Error> {
    transaction.query_one("select revision from syncor.catalog for update", &[]).await?;
    Ok(())
}

async fn deploy_one(transaction: &Transaction<'_>, new: &NewDefinition<'_>, order: Order<'_>) -> Result<Deployed, Error> {
    let rows = transaction.query("select no, revision, state from syncor.definition where kind = $1 and id = $2", &[&new.kind, &new.id]).await?;
    let same = rows.iter().find(|row| row.get::<_, &str>(1) == new.revision);
    let deployed = |outcome, replaced| Deployed { id: new.id.to_owned(), outcome, replaced, retired: Vec::new() };
    if same.is_some_and(|row| row.get::<_, &str>(2) == "active") {
        return Ok(deployed(Outcome::Unchanged, None));
    }
    // The old one first: only one revision of an id can be active.
    let replaced = transaction.query_opt(RETIRE, &[&new.kind, &new.id]).await?.map(|row| row.get::<_, String>(0));
    let outcome = match same {
        Some(row) => {
            let no: i32 = row.get(0);
            transaction.execute("update syncor.definition set state = 'active', retired_at = null where no = $1", &[&no]).await?;
            Outcome::Reactivated
        }
        None => {
            transaction
                .execute(
                    "insert into syncor.definition (kind, id, family, version, revision, source, steps, deployed_by)
                     values ($1, $2, $3, $4, $5, $6, $7, $8)",
                    &[&new.kind, &new.id, &new.family, &new.version, &new.revision, &new.source, &step_names(new.source), &order.by],
                )
                .await?;
            if rows.is_empty() { Outcome::New } else { Outcome::NewRevision }
        }
    };
    let result = match &replaced {
        Some(old) => format!("{} {} in place of {}", outcome.as_str(), short(new.revision), short(old)),
        None => format!("{} {}", outcome.as_str(), short(new.revision)),
    };
    record(transaction, "deploy", new.id, order, &result).await?;
    Ok(deployed(outcome, replaced))
}

/// What `--replace` asks for: of a family only the deployed version stays active.
async fn retire_family_versions(transaction: &Transaction<'_>, new: &NewDefinition<'_>, order: Order<'_>) -> Result<Vec<String>, Error> {
    let rows = transaction
        .query(
            "update syncor.definition set state = 'retired', retired_at = now()
              where kind = $1 and family = $2 and id <> $3 and state = 'active'
             returning id, revision",
            &[&new.kind, &new.family, &new.id],
        )
        .await?;
    let mut retired = Vec::new();
    for row in &rows {
        let id: String = row.get(0);
        record(transaction, "retire", &id, order, &format!("retired {}: replaced by {}", short(row.get(1)), new.id)).await?;
        retired.push(id);
    }
    retired.sort();
    Ok(retired)
}

/// What must hold of all active files together.
async fn check(transaction: &Transaction<'_>) -> Result<(), Error> {
    refuse_service_in_two_files(transaction).await?;
    let rows = transaction.query("select id, source from syncor.definition where kind = 'saga' and state = 'active'", &[]).await?;
    let sagas: Families = rows.iter().map(|row| (row.get(0), children(&row.get::<_, Value>(1)))).collect();
    nesting::check(&sagas).map_err(Error::Refused)
}

/// Children of these sagas that are not deployed, sorted.
///
/// # Errors
/// `Postgres` when the database cannot be asked.
pub async fn missing_children(client: &impl GenericClient, children: &[String]) -> Result<Vec<String>, Error> {
    let rows = client
        .query(
            "select distinct c.id from unnest($1::text[]) c(id)
              where not exists (select from syncor.definition d where d.kind = 'saga' and d.id = c.id and d.state = 'active') order by c.id",
            &[&children],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// A name in two files would mean whichever is read last.
async fn refuse_service_in_two_files(transaction: &Transaction<'_>) -> Result<(), Error> {
    let clash = transaction
        .query_opt(
            "select s.key, array_agg(d.id order by d.id)
               from syncor.definition d cross join lateral jsonb_object_keys(d.source -> 'services') s(key)
              where d.kind = 'services' and d.state = 'active'
              group by s.key having count(*) > 1 order by s.key limit 1",
            &[],
        )
        .await?;
    match clash {
        None => Ok(()),
        Some(row) => {
            let (name, files): (String, Vec<String>) = (row.get(0), row.get(1));
            Err(Error::Refused(format!("the service {name} is defined by {}: keep it in one of them", files.join(" and "))))
        }
    }
}

/// The order as people find it in `syncor.commands`.
async fn record(transaction: &Transaction<'_>, kind: &str, target: &str, order: Order<'_>, result: &str) -> Result<(), Error> {
    transaction
        .execute(
            "insert into syncor.command (kind, target, reason, requested_by, status, result, settled_at)
             values ($1, $2, $3, $4, 'applied', $5, now())",
            &[&kind, &target, &order.reason, &order.by, &result],
        )
        .await?;
    Ok(())
}

fn short(revision: &str) -> &str {
    revision.get(..12).unwrap_or(revision)
}

fn stored(row: &Row, first: usize) -> StoredDefinition {
    StoredDefinition { no: row.get(first), kind: row.get(first + 1), id: row.get(first + 2), source: row.get(first + 3) }
}
