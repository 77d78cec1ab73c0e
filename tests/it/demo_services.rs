//! The demo's step services on a real Postgres, asked the way the orchestrator asks.

use futures_util::future::join_all;
use serde_json::json;
use syncor::demo::{Error, Options, Services};

use agency::{Agency, Ask, Orchestrator, options};

use crate::support::db;

mod agency;

#[tokio::test]
async fn a_revert_restores_the_exact_sum() {
    let db = db::database().await;
    let agency = Agency::start(&db.url).await;
    let before = agency.total().await;

    let (status, raised) = agency.ask(&Ask::recalc("s1")).await;
    assert_eq!((status, &raised["message"]), (200, &json!("500 payments updated")));
    assert_eq!(raised["updated"], 500);
    let after = agency.total().await;
    // Each payment is rounded to a cent on its own.
    assert!((after - before - before / 20).abs() <= 500, "{before} -> {after}");

    let revert = Ask { context: raised["context"].clone(), ..Ask::revert("s1") };
    let (status, reverted) = agency.ask(&revert).await;
    assert_eq!((status, &reverted["message"]), (200, &json!("500 payments restored")));
    assert_eq!(agency.total().await, before);
    agency.services.stop().await;
}

#[tokio::test]
async fn an_undo_without_context_finds_what_its_do_did() {
    let db = db::database().await;
    let agency = Agency::start(&db.url).await;
    let before = agency.total().await;

    agency.ask(&Ask::recalc("s1")).await;
    let (status, reply) = agency.ask(&Ask::revert("s1")).await;

    assert_eq!((status, &reply["message"]), (200, &json!("500 payments restored")));
    assert_eq!(agency.total().await, before);
    // Asked again it answers the same and restores nothing twice.
    assert_eq!(agency.ask(&Ask::revert("s1")).await, (200, reply));
    agency.services.stop().await;
}

#[tokio::test]
async fn the_same_key_ten_times_at_once_acts_once() {
    let db = db::database().await;
    let agency = Agency::start(&db.url).await;

    // One fence for all: with rising ones the older attempts would be refused, as they should.
    let broadcast = Ask { fence: Some(41), ..Ask::broadcast("s1") };
    let replies = join_all((0..10).map(|_| agency.ask(&broadcast))).await;

    assert_eq!(replies[0].1["message"], "2 000 notices queued");
    assert!(replies.iter().all(|reply| *reply == replies[0]), "{replies:?}");
    assert_eq!(agency.services.notices_queued().await.unwrap(), 2000);
    agency.services.stop().await;
}

#[tokio::test]
async fn a_do_after_its_undo_is_refused() {
    let db = db::database().await;
    let agency = Agency::start(&db.url).await;
    let before = agency.total().await;

    let (status, reply) = agency.ask(&Ask::revert("s1")).await;
    assert_eq!((status, &reply["message"]), (200, &json!("nothing to undo")));
    let (status, problem) = agency.ask(&Ask::recalc("s1")).await;
    assert_eq!((status, &problem["status"]), (409, &json!(409)));
    assert_eq!(agency.total().await, before);

    // Also a late repeat of a do that did land and was undone.
    agency.ask(&Ask::recalc("s2")).await;
    agency.ask(&Ask::revert("s2")).await;
    assert_eq!(agency.ask(&Ask::recalc("s2")).await.0, 409);
    assert_eq!(agency.total().await, before);
    agency.services.stop().await;
}

#[tokio::test]
async fn a_do_and_its_undo_at_once_leave_nothing_behind() {
    let db = db::database().await;
    let agency = Agency::start(&db.url).await;
    let before = agency.total().await;

    for n in 0..20 {
        let saga = format!("s{n}");
        let (recalc, revert) = (Ask::recalc(&saga), Ask::revert(&saga));
        let (done, undone) = tokio::join!(agency.ask(&recalc), agency.ask(&revert));
        assert_eq!(undone.0, 200, "{undone:?}");
        assert!([200, 409].contains(&done.0), "{done:?}");
        assert_eq!(agency.total().await, before, "{done:?} {undone:?}");
    }
    agency.services.stop().await;
}

#[tokio::test]
async fn a_lower_fence_is_refused() {
    let db = db::database().await;
    let agency = Agency::start(&db.url).await;
    let with_fence = |fence| Ask { fence: Some(fence), ..Ask::recalc("s1") };

    assert_eq!(agency.ask(&with_fence(41)).await.0, 200);
    assert_eq!(agency.ask(&with_fence(40)).await.0, 409);
    assert_eq!(agency.ask(&with_fence(41)).await.0, 200);
    // Fences are per action: an undo may come with any.
    let revert = Ask { fence: Some(1), ..Ask::revert("s1") };
    assert_eq!(agency.ask(&revert).await.0, 200);
    agency.services.stop().await;
}

#[tokio::test]
async fn bad_tokens_are_refused_and_change_nothing() {
    let db = db::database().await;
    let agency = Agency::start(&db.url).await;
    let before = agency.total().await;
    let good = Ask::recalc("s1");
    let (headers, body) = agency.orchestrator.sign(&good);

    let without_token = headers[1..].to_vec();
    let (for_notices, _) = agency.orchestrator.sign(&Ask { service: "notice-svc", ..Ask::recalc("s1") });
    let (for_the_undo, undo_body) = agency.orchestrator.sign(&Ask::revert("s1"));
    let changed_body = body.replace("5", "50");
    for (headers, body) in [
        (without_token, &body),
        (for_notices, &body),
        (headers, &changed_body),
        (for_the_undo, &undo_body),
        (agency.orchestrator.signed_by("stranger", 9, &good).0, &body),
    ] {
        let (status, problem) = agency.send("payment-svc", "/recalc", &headers, body).await;
        assert_eq!((status, &problem["title"]), (401, &json!("Unauthorized")), "{problem}");
    }
    assert_eq!(agency.total().await, before);
    agency.services.stop().await;
}

#[tokio::test]
async fn a_key_of_a_new_worker_is_fetched() {
    let db = db::database().await;
    let agency = Agency::start(&db.url).await;
    assert_eq!(agency.ask(&Ask::recalc("s1")).await.0, 200);

    agency.orchestrator.publish("younger", 8).await;
    let ask = Ask::recalc("s2");
    let (headers, body) = agency.orchestrator.signed_by("younger", 8, &ask);
    let (status, reply) = agency.send(ask.service, ask.path, &headers, &body).await;

    assert_eq!(status, 200, "{reply}");
    agency.services.stop().await;
}

#[tokio::test]
async fn notices_and_archive_can_be_taken_back() {
    let db = db::database().await;
    let agency = Agency::start(&db.url).await;
    let snapshot = Ask::new("archive-svc", "/snapshot", "archive_rule", "do", "s1");
    let unarchive = Ask::new("archive-svc", "/unarchive", "archive_rule", "undo", "s1");
    let cancel = Ask::new("notice-svc", "/cancel", "send_notices", "undo", "s1");

    for (ask, message, queued) in [
        (&Ask::broadcast("s1"), "2 000 notices queued", 2000),
        (&snapshot, "rule dol.unemployment.v3 archived", 2000),
        (&unarchive, "rule dol.unemployment.v3 unarchived", 2000),
        (&cancel, "2 000 notices cancelled", 0),
    ] {
        let (status, reply) = agency.ask(ask).await;
        assert_eq!((status, &reply["message"]), (200, &json!(message)));
        assert_eq!(agency.services.notices_queued().await.unwrap(), queued);
    }
    agency.services.stop().await;
}

#[tokio::test]
async fn a_failing_service_says_so_and_recovers() {
    let db = db::database().await;
    let agency = Agency::start(&db.url).await;

    agency.services.set_failure("notice-svc", Some(500));
    let (status, problem) = agency.ask(&Ask::broadcast("s1")).await;
    assert_eq!(status, 500);
    assert_eq!(problem["message"], "notice system is down");
    assert_eq!(agency.ask(&Ask::recalc("s1")).await.0, 200, "the others go on");

    agency.services.set_failure("notice-svc", None);
    assert_eq!(agency.ask(&Ask::broadcast("s1")).await.0, 200);
    agency.services.stop().await;
}

#[tokio::test]
async fn only_a_schema_of_its_own_is_used_and_dropped() {
    let db = db::database().await;
    let orchestrator = Orchestrator::start().await;
    let options = options(&db.url, &orchestrator);

    // Started together, as in a compose file: one makes the tables, both find them.
    let (first, second) = tokio::join!(Services::start(options.clone()), Services::start(options.clone()));
    second.unwrap().stop().await;
    let larger = Options { claimants: 3000, ..options.clone() };
    let other_size = Services::start(larger).await.unwrap_err();
    assert!(matches!(other_size, Error::OtherSize { claimants: 2000, .. }));
    let foreign = Options { schema: "public".to_owned(), ..options.clone() };
    let foreign = Services::start(foreign).await.unwrap_err();
    assert!(matches!(foreign, Error::ForeignSchema(_)), "{foreign}");

    let first = first.unwrap();
    first.drop_tables().await.unwrap();
    assert!(first.payments_total_cents().await.is_err());
    first.drop_tables().await.unwrap();
    first.stop().await;
}
