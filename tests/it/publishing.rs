//! The publisher that gathers: what one request suffers, the others do not notice.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use syncor::core::payload::Payload;
use syncor::store::events::{self, NewEvent, PublishError};
use syncor::store::publisher::Publisher;

use crate::support::api::Api;
use crate::support::db;

fn event(key: &str, data: serde_json::Value) -> NewEvent {
    NewEvent {
        kind: "t".to_owned(),
        data: Payload::from(data),
        topic: None,
        source: Some("s".to_owned()),
        subject: None,
        correlation_id: None,
        causation_id: None,
        dedupe_key: Some(key.to_owned()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_request_spoils_no_other() {
    let api = Api::open().await;
    let publisher = Publisher::start(api.store.clone());
    publisher.publish(vec![event("taken", json!(1))]).await.unwrap();
    let requests = (0..200).map(|number| {
        let events = match number % 10 {
            0 => vec![event(&format!("{number}"), json!(1)), event("taken", json!(2))],
            1 => vec![event("taken", json!(1))],
            _ => vec![event(&format!("{number}"), json!(1))],
        };
        publisher.publish(events)
    });
    for (number, result) in join_all(requests).await.into_iter().enumerate() {
        match number % 10 {
            0 => assert!(matches!(result, Err(PublishError::Conflict { key }) if key == "taken")),
            1 => assert!(!result.unwrap()[0].is_new),
            _ => assert!(result.unwrap()[0].is_new),
        }
    }
    assert_eq!(api.count("select count(*) from syncor.events").await, 161);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_an_open_transaction_holds_up_nobody_else() {
    let api = Api::open().await;
    let publisher = Publisher::start(api.store.clone());
    let other = db::connect(&api.db.url).await;
    other.batch_execute("begin; insert into syncor.events (type, data, source, dedupe_key) values ('t', '1', 's', 'held')").await.unwrap();
    let since = Instant::now();
    let held = publisher.publish(vec![event("held", json!(1))]);
    let free = join_all((0..50).map(|number| publisher.publish(vec![event(&number.to_string(), json!(1))])));
    let end = async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        other.batch_execute("commit").await.unwrap();
    };
    let free = async { (free.await, since.elapsed()) };
    let (held, (free, took), ()) = tokio::join!(held, free, end);
    assert!(free.iter().all(|result| result.as_ref().is_ok_and(|published| published[0].is_new)));
    assert!(took < Duration::from_millis(1500), "{took:?}");
    assert!(!held.unwrap()[0].is_new, "the other transaction was first");
}

#[tokio::test]
async fn publishing_is_all_or_nothing_and_repeatable() {
    let api = Api::open().await;
    let events = [event("a", json!({"n": 1})), event("b", json!(2)), event("a", json!({"n": 1}))];
    let first = events::publish(&api.store, &events).await.unwrap();
    assert_eq!(first.iter().map(|published| published.is_new).collect::<Vec<_>>(), [true, true, false]);
    assert_eq!(first[0].id, first[2].id);
    let again = events::publish(&api.store, &events).await.unwrap();
    assert!(again.iter().zip(&first).all(|(again, first)| again.id == first.id && !again.is_new));
    let large = Payload::from(json!("x".repeat(262_144)));
    let refused = events::publish(&api.store, &[event("c", json!(1)), NewEvent { data: large, ..event("d", json!(1)) }]).await;
    assert!(matches!(refused, Err(PublishError::TooLarge)));
    let unnamed = events::publish(&api.store, &[NewEvent { source: None, dedupe_key: None, ..event("", json!(1)) }]).await.unwrap();
    assert!(unnamed[0].is_new);
    assert_eq!(api.count("select count(*) from syncor.events").await, 3);
}
