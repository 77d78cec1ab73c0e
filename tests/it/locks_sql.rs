//! Object locks as the database keeps them: one holder a key, first come first served, whoever comes and goes at the same time.

use std::time::{Duration, Instant};

use tokio_postgres::Client;
use uuid::Uuid;

use crate::support::saga::count;
use crate::support::{db, plant};

async fn take(client: &Client, saga: Uuid, root: Option<Uuid>, keys: &[&str]) -> String {
    let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
    client.query_one("select syncor.take_locks($1, $2, $3)", &[&saga, &root, &keys]).await.unwrap().get(0)
}

async fn end(client: &Client, saga: Uuid) -> i32 {
    end_all(client, &[saga]).await
}

/// As a worker ends sagas: their rows, then their locks, in one transaction.
async fn end_all(client: &Client, sagas: &[Uuid]) -> i32 {
    client.batch_execute("begin").await.unwrap();
    let rows = "update syncor.saga set state = 'cancelled', target = 'cancelled', finished_at = now() where id = any($1)";
    client.execute(rows, &[&sagas]).await.unwrap();
    let granted = client.query_one("select syncor.release_locks($1)", &[&sagas]).await.unwrap().get(0);
    client.batch_execute("commit").await.unwrap();
    granted
}

/// As the router starts several sagas in one transaction: all keys are locked before the first is taken.
async fn take_both(client: &Client, sagas: [Uuid; 2], keys: [&[&str]; 2]) -> [String; 2] {
    let all: Vec<&str> = keys.concat();
    client.batch_execute("begin").await.unwrap();
    client.execute("select syncor.hold_keys('{}', $1)", &[&all]).await.unwrap();
    let taken = [take(client, sagas[0], None, keys[0]).await, take(client, sagas[1], None, keys[1]).await];
    client.batch_execute("commit").await.unwrap();
    taken
}

async fn sagas<const N: usize>(client: &Client) -> [Uuid; N] {
    let definition = plant::definition(client, "test.locks.v1", &["s1"]).await;
    let mut ids = [Uuid::nil(); N];
    for id in &mut ids {
        *id = plant::saga(client, definition, "").await;
    }
    ids
}

#[tokio::test]
async fn who_comes_first_holds_and_the_next_one_follows() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let [first, second, third] = sagas(&client).await;
    assert_eq!(take(&client, first, None, &["b", "a", "b"]).await, "held");
    assert_eq!(take(&client, second, None, &["b", "c"]).await, "queued");
    assert_eq!(take(&client, third, None, &["c"]).await, "queued", "nobody is overtaken, though nobody holds the key");
    assert_eq!(take(&client, second, None, &["b", "c"]).await, "queued", "asking again changes nothing");
    assert_eq!(take(&client, first, None, &["a", "b"]).await, "held");
    let seen = client.query("select key, saga_id, definition, state, place from syncor.object_locks order by key, place", &[]).await.unwrap();
    let seen: Vec<(String, Uuid, String, i32)> = seen.iter().map(|row| (row.get(0), row.get(1), row.get(3), row.get(4))).collect();
    let line = |key: &str, saga, state: &str, place| (key.to_owned(), saga, state.to_owned(), place);
    assert_eq!(
        seen,
        [
            line("a", first, "held", 0),
            line("b", first, "held", 0),
            line("b", second, "waiting", 1),
            line("c", second, "waiting", 0),
            line("c", third, "waiting", 1)
        ]
    );

    let granted: i32 = client.query_one("select syncor.release_locks(array[$1::uuid])", &[&first]).await.unwrap().get(0);
    assert_eq!(granted, 0, "a saga that has not ended lets go of nothing");
    assert_eq!(end(&client, first).await, 1);
    let told = client.query("select saga_id, kind, key from syncor.input", &[]).await.unwrap();
    let told: Vec<(Uuid, String, String)> = told.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    assert_eq!(told, [(second, "locked".to_owned(), "locked".to_owned())]);
    assert_eq!(take(&client, second, None, &["b", "c"]).await, "held");
    assert_eq!(end(&client, second).await, 1);
    assert_eq!(end(&client, third).await, 0);
    assert_eq!(count(&client, "select count(*) from syncor.lock_ticket").await, 0);
}

#[tokio::test]
async fn one_that_gives_up_lets_those_behind_it_pass() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let [first, second, third] = sagas(&client).await;
    assert_eq!(take(&client, first, None, &["a"]).await, "held");
    assert_eq!(take(&client, second, None, &["a", "b"]).await, "queued");
    assert_eq!(take(&client, third, None, &["b"]).await, "queued");
    assert_eq!(end(&client, second).await, 1, "the third need not wait for the first");
    assert_eq!(take(&client, third, None, &["b"]).await, "held");
    assert_eq!(end(&client, first).await, 0);
}

#[tokio::test]
async fn a_child_works_under_the_locks_of_its_root_and_under_no_others() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let [root, child, free] = sagas(&client).await;
    assert_eq!(take(&client, child, Some(root), &["x"]).await, "held", "the root has none: the child takes its own");
    assert_eq!(end(&client, child).await, 0);
    assert_eq!(take(&client, root, None, &["a", "b"]).await, "held");
    let [grandchild] = [plant::saga(&client, 1, "").await];
    assert_eq!(take(&client, grandchild, Some(root), &["b"]).await, "held");
    assert_eq!(take(&client, grandchild, Some(root), &["b", "c"]).await, "refused");
    assert_eq!(take(&client, free, None, &[""]).await, "refused", "a key has at least one character");
    assert_eq!(take(&client, free, None, &["k".repeat(1025).as_str()]).await, "refused", "and at most 1024 bytes");
    assert_eq!(take(&client, free, None, &[]).await, "held");
    assert_eq!(count(&client, "select count(*) from syncor.lock_ticket").await, 2);
}

#[tokio::test]
async fn a_transaction_that_sees_an_old_queue_is_refused() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    let [first, second] = sagas(&client).await;
    let mut other = db::connect(&db.url).await;
    let open = other.build_transaction().isolation_level(tokio_postgres::IsolationLevel::RepeatableRead).start().await.unwrap();
    open.query("select * from syncor.object_locks", &[]).await.unwrap();
    assert_eq!(take(&client, first, None, &["a"]).await, "held");
    let refused = open.query_one("select syncor.take_locks($1, null, array['a'])", &[&second]).await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "25000", "its snapshot shows a free key");
}

/// Keys that overlap in every way: alone, in chains, in a ring.
const KEY_SETS: [&[&str]; 5] = [&["a"], &["a", "b"], &["b", "c"], &["c", "a"], &["d", "b", "a"]];
const SESSIONS: usize = 8;
const SAGAS: usize = 50;

/// What happened to the tickets, in the order in which it happened to each key.
const HISTORY: &str = "
create table public.history (id bigserial primary key, what text, key text, no bigint, saga_id uuid);
create function public.remember() returns trigger language plpgsql as $$
begin
  if tg_op = 'DELETE' then
    insert into public.history (what, key, no, saga_id)
    values (case when old.granted_at is null then 'left' else 'released' end, old.key, old.no, old.saga_id);
  elsif new.granted_at is not null then
    insert into public.history (what, key, no, saga_id) values ('granted', new.key, new.no, new.saga_id);
  end if;
  return null;
end $$;
create trigger remember after insert or update or delete on syncor.lock_ticket for each row execute function public.remember()";

/// One session: starts its sagas, ends those that hold their locks, and gives some up that wait.
async fn session(url: String, definition: i32, number: usize) {
    let client = db::connect(&url).await;
    let deadline = Instant::now() + Duration::from_secs(120);
    let mut waiting = Vec::new();
    let mut started = 0;
    while started < SAGAS || !waiting.is_empty() {
        if started < SAGAS {
            let keys = |n: usize| KEY_SETS[(n * 3 + number) % KEY_SETS.len()];
            let pair = [plant::saga(&client, definition, "").await, plant::saga(&client, definition, "").await];
            for (id, taken) in pair.into_iter().zip(take_both(&client, pair, [keys(started), keys(started + 1)]).await) {
                match taken.as_str() {
                    "held" => {
                        end(&client, id).await;
                    }
                    // Given up before its turn.
                    "queued" if started % 7 == 6 => {
                        end(&client, id).await;
                    }
                    "queued" => waiting.push(id),
                    other => panic!("{other}"),
                }
                started += 1;
            }
        }
        let granted = client.query("select saga_id from syncor.input where kind = 'locked' and saga_id = any($1)", &[&waiting]).await.unwrap();
        let granted: Vec<Uuid> = granted.iter().map(|row| row.get(0)).collect();
        waiting.retain(|id| !granted.contains(id));
        end_all(&client, &granted).await;
        if Instant::now() > deadline {
            let heads =
                client.query("select distinct on (key) key, no, granted_at::text from syncor.lock_ticket order by key, no", &[]).await.unwrap();
            let heads: Vec<(String, i64, Option<String>)> = heads.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
            panic!("{} were never granted their locks; at the heads: {heads:?}", waiting.len());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn under_a_crowd_no_key_has_two_holders_and_nobody_is_forgotten() {
    let db = db::database().await;
    let client = db::connect(&db.url).await;
    client.batch_execute(HISTORY).await.unwrap();
    let definition = plant::definition(&client, "test.locks.v1", &["s1"]).await;
    let sessions: Vec<_> = (0..SESSIONS).map(|number| tokio::spawn(session(db.url.clone(), definition, number))).collect();
    for session in sessions {
        session.await.unwrap();
    }
    assert_eq!(count(&client, "select count(*) from syncor.lock_ticket").await, 0);
    let all = i64::try_from(SESSIONS * SAGAS).unwrap();
    assert_eq!(count(&client, "select count(distinct saga_id) from public.history where what in ('released', 'left')").await, all);
    assert!(count(&client, "select count(distinct saga_id) from public.history where what = 'granted'").await > all / 2);

    // Between the grant of a key and its release nobody else was granted it, and numbers are granted in their order.
    let shared = "select count(*) from public.history g join public.history r on r.key = g.key and r.no = g.no and r.what = 'released'
                    join public.history o on o.key = g.key and o.what = 'granted' and o.no <> g.no and o.id between g.id and r.id
                   where g.what = 'granted'";
    assert_eq!(count(&client, shared).await, 0);
    let overtaken =
        "select count(*) from (select no, lag(no) over (partition by key order by id) as before from public.history where what = 'granted') g
                      where g.no <= g.before";
    assert_eq!(count(&client, overtaken).await, 0);
    let twice = "select count(*) from (select from public.history where what = 'granted' group by key, no having count(*) > 1) g";
    assert_eq!(count(&client, twice).await, 0);
}
