//! Recordings that a scenario is made of, which is played again.

use super::*;
use crate::core::definition_file::File;

const SAGA: &str = include_str!("../../../../sagas/benefit-increase.yaml");

fn deployed(text: &str) -> Arc<Deployed> {
    match definition_file::read("saga.yaml", text) {
        Ok(File::Saga(definition, ..)) => Arc::new(Deployed { no: 1, definition }),
        other => panic!("{other:?}"),
    }
}

fn at(millis: i64) -> Timestamp {
    Timestamp(1_790_000_000_000_000 + millis * 1000)
}

fn attempt(seq: usize, action: Action, number: u32, times: (i64, i64), outcome: &str, status: Option<u16>, error: Option<&str>) -> Attempted {
    Attempted {
        seq,
        action,
        number,
        fence: times.0 + 1,
        started_at: at(times.0),
        finished_at: at(times.1),
        outcome: outcome.to_owned(),
        status,
        error: error.map(str::to_owned),
        output: None,
        context: None,
    }
}

fn recording() -> Recording {
    let event = Event {
        id: Uuid::from_u128(7),
        kind: "policy.changed".to_owned(),
        topic: "default".to_owned(),
        source: "agency".to_owned(),
        subject: Some("case: 1".to_owned()),
        data: Payload::from(json!({"policyId": "dol.unemployment.v3", "percent": 5})),
        correlation_id: "case: 1".to_owned(),
        causation_id: None,
        dedupe_key: None,
        depth: 0,
        created_at: at(-40),
    };
    let mut first = attempt(0, Action::Do, 1, (0, 100), "succeeded", Some(200), None);
    first.output = Some(Payload::from(json!({"context": {"batch": "b1"}, "message": "done"})));
    let attempts = vec![
        first,
        attempt(1, Action::Do, 1, (100, 130), "failed", Some(500), Some("HTTP 500: no paper")),
        attempt(1, Action::Do, 2, (2040, 3040), "lost", None, Some("the worker that made this call is gone")),
        attempt(1, Action::Do, 3, (3050, 3060), "failed", Some(503), Some("HTTP 503")),
        attempt(1, Action::Do, 4, (7200, 307_200), "unknown", None, Some("timed out: no whole reply within 300000 ms")),
        attempt(1, Action::Undo, 1, (307_210, 307_220), "failed", Some(409), Some("HTTP 409: never")),
        attempt(1, Action::Undo, 2, (900_001, 900_010), "succeeded", Some(204), None),
        attempt(0, Action::Undo, 1, (900_020, 900_030), "failed", Some(410), Some("HTTP 410")),
    ];
    let decided = Decided { decision: "retry".to_owned(), by: "ann".to_owned(), note: Some("mended: try".to_owned()), output: None, at: at(900_000) };
    Recording {
        saga: Uuid::from_u128(9),
        event,
        started_at: at(0),
        begun_at: Some(at(0)),
        state: SagaState::Failed,
        clean: true,
        reason: Some("step send_notices has an unknown outcome: timed out: no whole reply within 300000 ms (attempt 4 of 4)".to_owned()),
        steps: vec![(0, "succeeded".to_owned(), "compensated".to_owned()), (1, "unknown".to_owned(), "compensated".to_owned())],
        attempts,
        callbacks: Vec::new(),
        orders: Vec::new(),
        tasks: vec![
            Asked { seq: 1, kind: "step_failed".to_owned(), opened_at: at(307_200), decided: None },
            Asked { seq: 1, kind: "comp_failed".to_owned(), opened_at: at(307_220), decided: Some(decided) },
        ],
        cancelled_by: None,
        published: ["saga.started", "saga.compensate", "saga.compensation.failed", "saga.compensate", "saga.compensate", "saga.failed"]
            .map(str::to_owned)
            .to_vec(),
    }
}

#[test]
fn what_happened_becomes_a_scenario_that_passes() {
    let deployed = deployed(SAGA);
    let captured = capture(&deployed, &recording()).expect("a scenario");
    assert_eq!(captured.left_out, Vec::<String>::new(), "{}", captured.text);
    let suite = definition_file::scenarios("x", &captured.text, &deployed.definition).expect("valid");
    let record = run(&deployed, &suite.scenarios[0]);
    assert_eq!(judge(&deployed.definition, &suite.scenarios[0], &record), Vec::new());
    for part in [
        "      send_notices:\n        - {status: 500, body: {message: \"no paper\"}, delayMs: 30}\n        - timeout\n        - {status: 503, delayMs: 10}\n        - timeout\n",
        "worker: dies",
        "decide: retry",
        "      undone: [send_notices, recalc_payments]\n",
        "      calls: [recalc_payments, send_notices, send_notices, send_notices, send_notices, send_notices.undo, send_notices.undo, recalc_payments.undo]\n",
    ] {
        assert!(captured.text.contains(part), "{part}\n{}", captured.text);
    }
}

#[test]
fn what_does_not_come_out_is_said_and_not_expected() {
    let deployed = deployed(SAGA);
    let recording = Recording { clean: false, reason: Some("something else".to_owned()), ..recording() };
    let captured = capture(&deployed, &recording).expect("a scenario");
    assert_eq!(captured.left_out.len(), 2, "{:?}", captured.left_out);
    assert!(!captured.text.contains("      clean:") && !captured.text.contains("      reason:"), "{}", captured.text);
    assert!(captured.text.contains("# Not captured: clean does not come out as it did"), "{}", captured.text);
}
