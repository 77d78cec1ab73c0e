//! The agency's data: made once, in one transaction, from nothing but row numbers.
//!
//! Nothing is random: the same sizes give the same people and the same payments on every machine.

use deadpool_postgres::Transaction;

use super::{
    Options,
    database::{Database, Error},
};

/// The comment that marks a schema as ours. A schema without it is never touched.
const MARK: &str = "HMS-SYNCOR demo agency: generated, may be dropped";

const TABLES: &str = include_str!("register.sql");

/// Names by arithmetic: 41 and 43 are coprime, so 1,763 different names come before one repeats.
const REGISTER: &str = "
insert into register (claimant_id, region, first_name, last_name)
select n, r[1 + n % 10], f[1 + n % 41], l[1 + n % 43]
from generate_series(1, $1::int) n,
  (select
    '{North,South,East,West,Harbor,Hills,Lakes,Plains,Valley,Capital}'::text[] r,
    '{Ada,Ahmed,Alice,Amara,Andre,Anh,Beatriz,Ben,Carla,Chen,Chloe,Dana,Dev,Diego,Elena,Emeka,Eva,
      Farid,Fatima,George,Grace,Hana,Hugo,Ines,Ivan,Jamal,Jin,Julia,Kofi,Lena,Liam,Luz,Mai,Marco,
      Mila,Nadia,Noah,Omar,Priya,Rosa,Tom}'::text[] f,
    '{Abbott,Alvarez,Baker,Becker,Brown,Castro,Cheng,Cohen,Costa,Diaz,Dogan,Evans,Fischer,Garcia,
      Gupta,Haddad,Hansen,Ito,Jackson,Johnson,Kaya,Kim,Kowalski,Lee,Lopez,Martin,Mensah,Meyer,
      Nguyen,Novak,Okafor,Olsen,Park,Patel,Reyes,Rossi,Santos,Singh,Smith,Tran,Walker,Weber,
      Young}'::text[] l) names";

/// Payments of 110.00 to 822.99 a week, spread evenly over the register.
const PAYMENTS: &str = "
insert into payment (claimant_id, weekly_cents)
select 1 + (n * $1::bigint / $2::bigint)::int, 11000 + n * 7919 % 71300
from generate_series(0, $2::bigint - 1) n";

const RULES: &str = r#"
insert into rule (id, title, document) values
  ('dol.unemployment.v3', 'Unemployment insurance, weekly benefit',
   '{"minWeeklyCents": 11000, "waitingWeeks": 1, "maxWeeks": 26}'),
  ('dol.shorttime.v1', 'Short-time compensation',
   '{"minHoursReducedPercent": 10, "maxHoursReducedPercent": 60}')"#;

/// Makes schema and tables unless they are there.
///
/// Services that start together make them once: the first holds the lock, the others then find them.
pub(super) async fn make(database: &Database, options: &Options) -> Result<(), Error> {
    let (claimants, payments) = (options.claimants, options.payments);
    let Ok(people) = i32::try_from(claimants) else {
        return Err(Error::Sizes { claimants, payments });
    };
    if payments > claimants {
        return Err(Error::Sizes { claimants, payments });
    }
    let mut session = database.session().await?;
    let tx = database.begin(&mut session).await?;
    lock(&tx, &database.schema).await?;
    if is_ours(&tx, &database.schema).await? {
        return same_size(&tx, database, options).await;
    }

    let schema = &database.schema;
    tx.batch_execute(&format!("create schema {schema}; comment on schema {schema} is '{MARK}';")).await?;
    tx.batch_execute(TABLES).await?;
    let (n, m) = (i64::from(claimants), i64::from(payments));
    tx.execute("insert into made values ($1, $2)", &[&n, &m]).await?;
    tx.execute(REGISTER, &[&people]).await?;
    tx.execute(PAYMENTS, &[&n, &m]).await?;
    // After the rows: sorting once is several times cheaper than two million insertions.
    tx.batch_execute(
        "alter table register add primary key (claimant_id);
         alter table payment add primary key (claimant_id);",
    )
    .await?;
    tx.batch_execute(RULES).await?;
    tx.commit().await?;
    Ok(())
}

/// Drops the schema if it is ours; fine if it is gone already.
pub(super) async fn remove(database: &Database) -> Result<(), Error> {
    let mut session = database.session().await?;
    let tx = database.begin(&mut session).await?;
    lock(&tx, &database.schema).await?;
    if is_ours(&tx, &database.schema).await? {
        let drop = format!("drop schema {} cascade", database.schema);
        tx.batch_execute(&drop).await?;
        tx.commit().await?;
    }
    Ok(())
}

async fn lock(tx: &Transaction<'_>, schema: &str) -> Result<(), Error> {
    let name = format!("syncor demo {schema}");
    tx.execute("select pg_advisory_xact_lock(hashtextextended($1, 0))", &[&name]).await?;
    Ok(())
}

/// Whether the schema exists; an error if it is not the demo's.
async fn is_ours(tx: &Transaction<'_>, schema: &str) -> Result<bool, Error> {
    let row = tx.query_opt("select obj_description(oid, 'pg_namespace') from pg_namespace where nspname = $1", &[&schema]).await?;
    match row.map(|row| row.get::<_, Option<String>>(0)) {
        None => Ok(false),
        Some(Some(mark)) if mark == MARK => Ok(true),
        Some(_) => Err(Error::ForeignSchema(schema.to_owned())),
    }
}

async fn same_size(tx: &Transaction<'_>, database: &Database, options: &Options) -> Result<(), Error> {
    let row = tx.query_one("select claimants, payments from made", &[]).await?;
    let (claimants, payments): (i64, i64) = (row.get(0), row.get(1));
    let asked = (i64::from(options.claimants), i64::from(options.payments));
    if (claimants, payments) == asked {
        return Ok(());
    }
    Err(Error::OtherSize { schema: database.schema.clone(), claimants, payments })
}
