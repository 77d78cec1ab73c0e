//! The policy against everything that can happen in any order.

use proptest::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp(1_000_000_000);

fn answered(status: u16) -> Reply {
    Reply::Answered { status, headers: Vec::new(), body: None, retry_after: None }
}

#[test]
fn only_silence_and_gateways_say_that_a_service_is_down() {
    for status in 100..=599 {
        let expected = if matches!(status, 502..=504) { Sign::Down } else { Sign::Alive };
        assert_eq!(Sign::of(&answered(status)), expected, "{status}");
    }
    assert_eq!(Sign::of(&Reply::NotSent(String::new())), Sign::Down);
    assert_eq!(Sign::of(&Reply::Broken(String::new())), Sign::Down);
    assert_eq!(Sign::of(&Reply::Probed(Box::new(answered(503)))), Sign::Down);
    assert_eq!(Sign::of(&Reply::Parked(Duration::ZERO)), Sign::Silent);
}

#[test]
fn five_failures_in_a_row_open_it_and_one_answer_in_between_does_not() {
    let mut breaker = Breaker::default();
    for _ in 0..100 {
        for _ in 1..FAILURES {
            assert_eq!(breaker.ended(Sign::Down, NOW), Effect { opens: false, free: false });
            // What says nothing neither counts nor forgives.
            assert_eq!(breaker.ended(Sign::Silent, NOW), Effect { opens: false, free: false });
        }
        assert_eq!(breaker.ended(Sign::Alive, NOW), Effect { opens: false, free: false });
    }
    for _ in 1..FAILURES {
        breaker.ended(Sign::Down, NOW);
    }
    assert_eq!(breaker.ended(Sign::Down, NOW), Effect { opens: true, free: false });
    assert_eq!(breaker, Breaker::Open { probes: 0, probe_at: NOW.plus(PAUSE_FIRST) });
    assert_eq!((breaker.ask(NOW), breaker.ask(NOW.plus(PAUSE_FIRST))), (Verdict::Park, Verdict::Probe));
}

#[test]
fn a_reopened_service_must_prove_itself_before_its_failures_count() {
    let mut breaker = Breaker::reopened();
    assert_eq!(breaker.ended(Sign::Down, NOW), Effect { opens: true, free: true });
    let mut breaker = Breaker::reopened();
    for _ in 0..PROVEN_AFTER {
        breaker.ended(Sign::Alive, NOW);
    }
    assert_eq!(breaker, Breaker::default());
    assert_eq!(breaker.ended(Sign::Down, NOW), Effect { opens: false, free: false });
}

#[test]
fn pauses_double_from_a_quarter_of_a_second_to_five() {
    let pauses: Vec<u128> = (0..7).map(|probes| pause(probes).as_millis()).collect();
    assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 5000, 5000]);
    assert_eq!(pause(u32::MAX), PAUSE_MAX);
}

#[test]
fn one_saga_stays_awake_for_the_probe_and_the_others_sleep() {
    let open = Breaker::Open { probes: 2, probe_at: NOW.plus(Duration::from_millis(700)) };
    assert_eq!(rest(&open, true, false, NOW, 0.5), Duration::from_millis(700));
    assert_eq!(rest(&open, false, true, NOW, 0.5), Duration::from_secs(4));
    assert_eq!(rest(&open, false, false, NOW, 0.5), REST);
    let under_way = Breaker::Open { probes: 2, probe_at: NOW.plus(PROBE_LIMIT) };
    assert_eq!(rest(&under_way, true, true, NOW, 0.5), Duration::from_secs(1), "the probe may fail long before its limit");
    assert!(rest(&Breaker::Paused, true, true, NOW, 0.5) >= REST / 2, "nobody probes");
}

fn sign() -> impl Strategy<Value = Sign> {
    prop_oneof![Just(Sign::Alive), Just(Sign::Down), Just(Sign::Silent)]
}

proptest! {
    /// Whatever comes in whatever order: it opens exactly after five failures without an answer between them, and from then on
    /// no failure is held against a step.
    #[test]
    fn it_opens_exactly_when_it_should(signs in proptest::collection::vec(sign(), 0..60)) {
        let mut breaker = Breaker::default();
        let (mut row, mut opened) = (0, false);
        for sign in signs {
            let effect = breaker.ended(sign, NOW);
            if opened {
                prop_assert_eq!(effect, Effect { opens: false, free: sign == Sign::Down });
                continue;
            }
            row = match sign {
                Sign::Alive => 0,
                Sign::Down => row + 1,
                Sign::Silent => row,
            };
            opened = row == FAILURES;
            prop_assert_eq!(effect, Effect { opens: opened, free: false });
            prop_assert_eq!(breaker.is_closed(), !opened);
        }
    }

    /// Nobody who is parked comes back at once, nor later than the longest rest with its spread.
    #[test]
    fn a_rest_is_bounded(probes in 0_u32..100, ahead in 0_u64..100_000, ready: bool, room: bool, chance in 0.0_f64..1.0) {
        let breaker = Breaker::Open { probes, probe_at: NOW.plus(Duration::from_millis(ahead)) };
        let rest = rest(&breaker, ready, room, NOW, chance);
        prop_assert!(rest >= REST_MIN && rest <= REST.mul_f64(1.25), "{rest:?}");
        if ready {
            prop_assert!(rest <= PAUSE_MAX, "{rest:?}");
        }
    }
}
