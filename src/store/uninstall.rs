//! Takes everything of ours out of a database and leaves the rest as it was.
//!
//! Invariant: what others built on our schema (views, foreign keys, publications) is named first and never dropped unasked.

use std::fmt;

use tokio_postgres::Client;

use super::Error;
use super::dsn::Dsn;

/// Larger tables are not counted row by row: the planner's estimate serves.
const COUNTED_BYTES: i64 = 256 << 20;

/// What an uninstallation would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What would be executed, in this order; empty if there is nothing of ours.
    pub statements: Vec<String>,
    /// The tables that would be gone.
    pub tables: Vec<Table>,
    /// Objects of others that stand on ours and would be gone as well.
    pub dependents: Vec<String>,
    /// Workers that are alive.
    pub workers: i64,
}

/// A table with its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name without the schema.
    pub name: String,
    /// How many rows it has.
    pub rows: i64,
    /// Whether they were counted, not estimated.
    pub exact: bool,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for table in &self.tables {
            let about = if table.exact { "" } else { "about " };
            writeln!(f, "-- syncor.{}: {about}{} rows", table.name, table.rows)?;
        }
        for dependent in &self.dependents {
            writeln!(f, "-- not ours, but gone with it: {dependent}")?;
        }
        for statement in &self.statements {
            writeln!(f, "{statement};")?;
        }
        Ok(())
    }
}

/// What there is of ours and how it would be removed. Changes nothing.
///
/// # Errors
/// `Postgres` when the catalogue or a table cannot be read.
pub async fn plan(client: &Client) -> Result<Plan, Error> {
    let owned = client.query_opt(OWNED, &[]).await?;
    let statements = match owned.map(|row| row.get::<_, bool>(0)) {
        None => Vec::new(),
        Some(true) => vec!["drop schema syncor cascade".to_owned()],
        // The schema is the DBA's: they get it back as empty as they gave it.
        Some(false) => client.query(OBJECTS, &[]).await?.iter().map(|row| row.get(0)).collect(),
    };
    let mut tables = Vec::new();
    for row in client.query(TABLES, &[]).await? {
        let (name, bytes, estimate): (String, i64, i64) = (row.get(0), row.get(1), row.get(2));
        let exact = bytes <= COUNTED_BYTES;
        let count = format!("select count(*) from syncor.\"{}\"", name.replace('"', "\"\""));
        let rows = if exact { client.query_one(&count, &[]).await?.get(0) } else { estimate };
        tables.push(Table { name, rows, exact });
    }
    let dependents = client.query(DEPENDENTS, &[]).await?.iter().map(|row| row.get(0)).collect();
    let has_workers: bool = client.query_one("select pg_catalog.to_regclass('syncor.workers') is not null", &[]).await?.get(0);
    let workers = if has_workers { client.query_one("select count(*) from syncor.workers where state = 'alive'", &[]).await?.get(0) } else { 0 };
    Ok(Plan { statements, tables, dependents, workers })
}

/// Removes it all in one transaction. `force` goes on although workers are alive or objects of others depend on ours.
///
/// # Errors
/// `Refused`, saying why; `Postgres` when a statement fails, and then nothing is removed.
pub async fn uninstall(dsn: &Dsn, force: bool) -> Result<Plan, Error> {
    let mut client = dsn.connect("hms-orch uninstall").await?;
    let plan = plan(&client).await?;
    if !force && plan.workers > 0 {
        return Err(Error::Refused(format!("{} workers are alive: stop them first, or use --force", plan.workers)));
    }
    if !force && !plan.dependents.is_empty() {
        return Err(Error::Refused(format!(
            "these are not ours and would be gone with it: {}; drop them first, or use --force",
            plan.dependents.join(", ")
        )));
    }
    let transaction = client.transaction().await?;
    // Nobody migrates meanwhile; no insert of others waits long behind us.
    transaction.batch_execute("set local lock_timeout = '5s'").await?;
    transaction.batch_execute(&format!("select pg_catalog.pg_advisory_xact_lock({})", super::migrate::LOCK)).await?;
    for statement in &plan.statements {
        transaction.batch_execute(statement).await?;
    }
    transaction.commit().await?;
    Ok(plan)
}

/// Whether the schema is ours; no row if there is none.
const OWNED: &str = "
select n.nspowner = r.oid
  from pg_catalog.pg_namespace n join pg_catalog.pg_roles r on r.rolname = current_user
 where n.nspname = 'syncor'";

/// Views first, then tables with what belongs to them, then what is left. Partitions go with their parent.
const OBJECTS: &str = "
select statement from (
  select case when c.relkind = 'v' then 1 when c.relkind in ('r', 'p') then 2 else 3 end as place, c.relname as name,
         format('drop %s if exists syncor.%I cascade',
                case c.relkind when 'v' then 'view' when 'S' then 'sequence' else 'table' end, c.relname) as statement
    from pg_catalog.pg_class c join pg_catalog.pg_roles r on r.oid = c.relowner and r.rolname = current_user
   where c.relnamespace = 'syncor'::regnamespace and c.relkind in ('r', 'p', 'v', 'S') and not c.relispartition
     -- The sequence of an identity column goes with its table.
     and not exists (select from pg_catalog.pg_depend d where c.relkind = 'S' and d.classid = 'pg_catalog.pg_class'::regclass
                        and d.objid = c.oid and d.deptype = 'i')
  union all
  select 4, p.proname, format('drop function if exists syncor.%I(%s) cascade', p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid))
    from pg_catalog.pg_proc p join pg_catalog.pg_roles r on r.oid = p.proowner and r.rolname = current_user
   where p.pronamespace = 'syncor'::regnamespace
) o order by place, name";

const TABLES: &str = "
select c.relname::text, pg_catalog.pg_relation_size(c.oid), greatest(c.reltuples, 0)::bigint
  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where n.nspname = 'syncor' and c.relkind = 'r'
 order by c.relname";

/// Objects outside the schema that depend on objects in it, and publications that name one of our tables.
const DEPENDENTS: &str = "
with ours as (
  select 'pg_class'::regclass as classid, c.oid from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace where n.nspname = 'syncor'
  union all
  select 'pg_proc'::regclass, p.oid from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace where n.nspname = 'syncor'
  union all
  select 'pg_type'::regclass, t.oid from pg_catalog.pg_type t join pg_catalog.pg_namespace n on n.oid = t.typnamespace where n.nspname = 'syncor'
)
select distinct pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid) as description
  from pg_catalog.pg_depend d
  join ours o on o.classid = d.refclassid and o.oid = d.refobjid
  left join pg_catalog.pg_rewrite w on d.classid = 'pg_rewrite'::regclass and w.oid = d.objid
  left join pg_catalog.pg_constraint k on d.classid = 'pg_constraint'::regclass and k.oid = d.objid
  left join pg_catalog.pg_trigger g on d.classid = 'pg_trigger'::regclass and g.oid = d.objid
  left join pg_catalog.pg_attrdef a on d.classid = 'pg_attrdef'::regclass and a.oid = d.objid
  left join pg_catalog.pg_policy y on d.classid = 'pg_policy'::regclass and y.oid = d.objid
  left join pg_catalog.pg_class c on c.oid = coalesce(w.ev_class, nullif(k.conrelid, 0), g.tgrelid, a.adrelid, y.polrelid,
                                                      case when d.classid = 'pg_class'::regclass then d.objid end)
  left join pg_catalog.pg_proc p on d.classid = 'pg_proc'::regclass and p.oid = d.objid
  left join pg_catalog.pg_type t on d.classid = 'pg_type'::regclass and t.oid = d.objid
  left join pg_catalog.pg_namespace n on n.oid = coalesce(c.relnamespace, p.pronamespace, t.typnamespace, nullif(k.connamespace, 0))
 where n.nspname is distinct from 'syncor'
   and n.nspname is distinct from 'pg_toast'
 order by description";
