//! A saga file's top, lowered into a definition.

use std::time::Duration;

use super::super::definition::{CancelOn, Dedupe, DedupeAfter, Definition, Hitl, Lock, LockMode, OnCompensationFailure, OnExhausted};
use super::super::expression::Root;
use super::flow;
use super::reader::{Keys, Reader, Sight};
use super::retry::RetryPart;
use super::step;
use super::tree::{Kind, Node};

/// The most steps of a saga, those in groups counted.
const STEPS_MAX: usize = 200;
/// The most events that may cancel a saga, and the most keys of its lock.
const LIST_MAX: usize = 50;

pub(super) const SAGA: Keys = Keys {
    of: "a saga",
    known: &[
        "id",
        "version",
        "trigger",
        "topics",
        "filter",
        "dedupe",
        "dedupeKey",
        "lock",
        "cancelOn",
        "steps",
        "parallel",
        "maxParallel",
        "onBranchFailure",
        "retry",
        "timeoutMs",
        "deadlineMs",
        "onExhausted",
        "compensation",
        "hitl",
    ],
    later: &["schedule", "forEach", "finally", "migrate"],
    extensible: true,
};
pub(super) const DEDUPE: Keys = Keys { of: "`dedupe`", known: &["key", "after"], later: &[], extensible: false };
pub(super) const COMPENSATION: Keys = Keys { of: "`compensation`", known: &["retry", "onFailure"], later: &[], extensible: false };
pub(super) const LOCK: Keys = Keys { of: "`lock`", known: &["key", "mode", "timeoutMs"], later: &[], extensible: false };
pub(super) const CANCEL_ON: Keys = Keys { of: "an entry of `cancelOn`", known: &["event", "match"], later: &[], extensible: false };
pub(super) const HITL: Keys = Keys { of: "`hitl`", known: &["after", "queue"], later: &[], extensible: false };

/// Variables of what is asked before there is a saga.
const EVENT_ROOTS: &[Root] = &[Root::Data, Root::Event];
/// Variables of the `match` of `cancelOn`.
const CANCEL_ROOTS: &[Root] = &[Root::Data, Root::Event, Root::Async];

/// What steps take from their saga.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inherited {
    pub(super) retry: RetryPart,
    pub(super) undo_retry: RetryPart,
    pub(super) timeout: Option<Duration>,
    pub(super) on_exhausted: OnExhausted,
}

/// Reads a saga; `None` when something is wrong, which the reader knows.
pub(super) fn read(reader: &mut Reader<'_>, node: &Node, revision: String) -> Option<Definition> {
    if !reader.map(node, SAGA) {
        return None;
    }
    let before = reader.problems.len();
    let (id, family, version) = identity(reader, node).unwrap_or_default();
    let trigger = reader.required(node, "trigger", "a saga").map(|trigger| reader.names(trigger, "trigger")).unwrap_or_default();
    let topics = reader.given(node, "topics").map(|topics| reader.names(topics, "topics")).unwrap_or_default();
    let sight = Sight { roots: EVENT_ROOTS, steps: None };
    let filter = reader.given(node, "filter").and_then(|filter| reader.expression(filter, "filter", sight));
    let dedupe = dedupe(reader, node, sight);
    let lock = reader.given(node, "lock").and_then(|lock| self::lock(reader, lock, sight));
    let cancel_on = reader.given(node, "cancelOn").map(|list| cancel_on(reader, list)).unwrap_or_default();
    let hitl = hitl(reader, node);

    let compensation = reader.given(node, "compensation").filter(|compensation| reader.map(compensation, COMPENSATION));
    let words = [("stop", OnCompensationFailure::Stop), ("continue", OnCompensationFailure::Continue)];
    let on_failure = compensation.and_then(|node| reader.given(node, "onFailure")).and_then(|node| reader.word(node, "onFailure", &words));
    let inherited = Inherited {
        retry: RetryPart::read(reader, node).or(RetryPart::DO),
        undo_retry: compensation.map(|node| RetryPart::read(reader, node)).unwrap_or_default().or(RetryPart::UNDO),
        timeout: reader.given(node, "timeoutMs").and_then(|node| reader.millis(node, "timeoutMs")),
        on_exhausted: on_exhausted(reader, node).unwrap_or(OnExhausted::Compensate),
    };
    let deadline = reader.given(node, "deadlineMs").and_then(|node| reader.millis(node, "deadlineMs"));

    let list = reader.required(node, "steps", "a saga");
    let laid_out = list.and_then(|list| flow::lay_out(reader, node, list));
    let mut steps = Vec::new();
    if let (Some((leaves, _)), Some(list)) = (&laid_out, list) {
        if leaves.len() > STEPS_MAX {
            reader.error(
                list.place,
                format!("a saga has at most {STEPS_MAX} steps, not {}", leaves.len()),
                Some("let a `saga` step do a part of it"),
            );
        } else {
            steps = step::read_all(reader, leaves, &id, inherited);
        }
    }
    if reader.problems.len() > before {
        return None;
    }
    let (_, flow) = laid_out?;
    let on_compensation_failure = on_failure.unwrap_or(OnCompensationFailure::Stop);
    Some(Definition {
        id,
        family,
        version,
        revision,
        trigger,
        topics,
        filter,
        dedupe,
        lock,
        cancel_on,
        hitl,
        steps,
        flow,
        deadline,
        on_compensation_failure,
    })
}

/// The id, its family and its version: said in the id, in `version`, in both alike, or 1.
fn identity(reader: &mut Reader<'_>, node: &Node) -> Option<(String, String, u32)> {
    let id_node = reader.required(node, "id", "a saga");
    let said_node = reader.given(node, "version");
    let said = said_node.and_then(|version| reader.whole(version, "version", 1, u32::MAX.into())).and_then(|version| u32::try_from(version).ok());
    let id_node = id_node?;
    let id = reader.id(id_node, "id")?;
    let tail = id.rsplit_once(".v").filter(|(_, digits)| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()));
    let Some((family, digits)) = tail else {
        return Some((id.to_owned(), id.to_owned(), said.unwrap_or(1)));
    };
    let Some(version) = digits.parse::<u32>().ok().filter(|version| *version > 0 && !digits.starts_with('0')) else {
        reader.error(id_node.place, format!("`.v{digits}` is no version: write `.v1`, `.v2` and so on"), None);
        return None;
    };
    if let (Some(said), Some(at)) = (said, said_node)
        && said != version
    {
        reader.error(at.place, format!("`version` is {said}, but the id ends with `.v{version}`"), Some("both must agree; one of them is enough"));
        return None;
    }
    Some((id.to_owned(), family.to_owned(), version))
}

fn dedupe(reader: &mut Reader<'_>, node: &Node, sight: Sight<'_>) -> Dedupe {
    let mut dedupe = Dedupe { key: None, after: DedupeAfter::Never };
    let short = reader.given(node, "dedupeKey");
    let long = reader.given(node, "dedupe");
    if let (Some(short), Some(_)) = (short, long) {
        reader.error(short.place, "`dedupeKey` is the short form of `dedupe: {key: …}`: write one of them", None);
    }
    if let Some(short) = short {
        dedupe.key = reader.expression(short, "dedupeKey", sight);
    }
    if let Some(long) = long.filter(|long| reader.map(long, DEDUPE)) {
        dedupe.key = reader.given(long, "key").and_then(|key| reader.expression(key, "key", sight));
        let words = [("never", DedupeAfter::Never), ("failed", DedupeAfter::Failed), ("terminal", DedupeAfter::Terminal)];
        if let Some(after) = reader.given(long, "after").and_then(|after| reader.word(after, "after", &words)) {
            dedupe.after = after;
        }
    }
    dedupe
}

/// `lock`: a key alone, or a map with one or several.
fn lock(reader: &mut Reader<'_>, node: &Node, sight: Sight<'_>) -> Option<Lock> {
    if let Kind::List(_) = node.kind {
        reader.error(node.place, "`lock` must be an expression or a map, not a list", Some("several keys are `lock: {key: [...]}`"));
        return None;
    }
    if !matches!(node.kind, Kind::Map(_)) {
        return Some(Lock { keys: vec![reader.expression(node, "lock", sight)?], mode: LockMode::Wait, timeout: None });
    }
    reader.map(node, LOCK);
    let words = [("wait", LockMode::Wait), ("abort", LockMode::Abort)];
    let mode = reader.given(node, "mode").and_then(|mode| reader.word(mode, "mode", &words)).unwrap_or(LockMode::Wait);
    let timeout_node = reader.given(node, "timeoutMs");
    let timeout = timeout_node.and_then(|node| reader.millis(node, "timeoutMs"));
    if let (Some(at), LockMode::Abort) = (timeout_node, mode) {
        reader.warn(at.place, "nothing is waited for with `mode: abort`: `timeoutMs` has no effect", Some("leave it out, or write `mode: wait`"));
    }
    let key = reader.required(node, "key", "`lock`")?;
    let items = if let Kind::List(items) = &key.kind { items.as_slice() } else { std::slice::from_ref(key) };
    if items.is_empty() {
        reader.error(key.place, "`key` is empty", Some("write an expression, or leave `lock` out"));
    } else if items.len() > LIST_MAX {
        reader.error(key.place, format!("a saga has at most {LIST_MAX} keys, not {}", items.len()), Some("lock what stands for all of them"));
        return None;
    }
    let keys: Vec<_> = items.iter().map(|item| expression_of(reader, item, "key", sight)).collect();
    Some(Lock { keys: keys.into_iter().collect::<Option<Vec<_>>>().filter(|keys| !keys.is_empty())?, mode, timeout })
}

/// As [`Reader::expression`], for an item of a list, where nobody has reported yet that it is empty.
fn expression_of(reader: &mut Reader<'_>, node: &Node, key: &str, sight: Sight<'_>) -> Option<super::super::expression::Expression> {
    if matches!(node.kind, Kind::Null) {
        reader.error(node.place, format!("`{key}` holds an empty item"), None);
    }
    reader.expression(node, key, sight)
}

fn cancel_on(reader: &mut Reader<'_>, node: &Node) -> Vec<CancelOn> {
    let Kind::List(items) = &node.kind else {
        let help = "write `cancelOn: [{event: TYPE, match: …}]`";
        reader.error(node.place, format!("`cancelOn` must be a list, not {}", node.what()), Some(help));
        return Vec::new();
    };
    if items.is_empty() {
        reader.error(node.place, "`cancelOn` is empty", None);
    } else if items.len() > LIST_MAX {
        reader.error(node.place, format!("`cancelOn` has at most {LIST_MAX} entries, not {}", items.len()), None);
        return Vec::new();
    }
    let mut found = Vec::new();
    for item in items {
        if !reader.map(item, CANCEL_ON) {
            continue;
        }
        let event = reader.required(item, "event", "an entry of `cancelOn`").and_then(|event| reader.name(event, "event"));
        let matching = reader.given(item, "match").and_then(|node| reader.matching(node, Sight { roots: CANCEL_ROOTS, steps: None }));
        found.extend(event.map(|event| CancelOn { event: event.to_owned(), matching }));
    }
    found
}

fn hitl(reader: &mut Reader<'_>, node: &Node) -> Hitl {
    let node = reader.given(node, "hitl").filter(|node| reader.map(node, HITL));
    let after = node.and_then(|node| reader.given(node, "after")).and_then(|after| reader.whole(after, "after", 1, 10_000));
    let queue = node.and_then(|node| reader.given(node, "queue")).and_then(|queue| reader.name(queue, "queue"));
    Hitl { after: after.and_then(|after| u32::try_from(after).ok()).unwrap_or(3), queue: queue.unwrap_or("default").to_owned() }
}

/// `onExhausted` of a saga: only a step can be gone on without.
fn on_exhausted(reader: &mut Reader<'_>, node: &Node) -> Option<OnExhausted> {
    let said = reader.given(node, "onExhausted")?;
    if matches!(&said.kind, Kind::Text(word, _) if word == "continue") {
        reader.error(
            said.place,
            "`onExhausted: continue` belongs into the steps that a saga can do without",
            Some("write `compensate` or `hitl` here"),
        );
        return None;
    }
    reader.word(said, "onExhausted", &[("compensate", OnExhausted::Compensate), ("hitl", OnExhausted::Hitl)])
}
