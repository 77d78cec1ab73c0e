//! A saga file's top, lowered into a definition.

use std::time::Duration;

use super::super::definition::{Dedupe, DedupeAfter, Definition, Hitl, Node as Flow, OnCompensationFailure};
use super::super::expression::Root;
use super::reader::{Keys, Reader, Sight};
use super::retry::RetryPart;
use super::step;
use super::tree::{Kind, Node};

/// The most steps of a saga.
const STEPS_MAX: usize = 200;
/// Limit of one attempt unless said.
const TIMEOUT: Duration = Duration::from_secs(30);

pub(super) const SAGA: Keys = Keys {
    of: "a saga",
    known: &["id", "version", "trigger", "topics", "filter", "dedupe", "dedupeKey", "steps", "retry", "timeoutMs", "deadlineMs", "compensation"],
    later: &[
        "lock",
        "cancelOn",
        "onExhausted",
        "hitl",
        "parallel",
        "maxParallel",
        "onBranchFailure",
        "schedule",
        "forEach",
        "finally",
        "migrate",
        "compensateOn",
    ],
    extensible: true,
};
pub(super) const DEDUPE: Keys = Keys { of: "`dedupe`", known: &["key", "after"], later: &[], extensible: false };
pub(super) const COMPENSATION: Keys = Keys { of: "`compensation`", known: &["retry", "onFailure"], later: &[], extensible: false };

/// What steps take from their saga.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inherited {
    pub(super) retry: RetryPart,
    pub(super) undo_retry: RetryPart,
    pub(super) timeout: Duration,
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
    let sight = Sight { roots: &[Root::Data, Root::Event], steps: None };
    let filter = reader.given(node, "filter").and_then(|filter| reader.expression(filter, "filter", sight));
    let dedupe = dedupe(reader, node, sight);

    let compensation = reader.given(node, "compensation").filter(|compensation| reader.map(compensation, COMPENSATION));
    let words = [("stop", OnCompensationFailure::Stop), ("continue", OnCompensationFailure::Continue)];
    let on_failure = compensation.and_then(|node| reader.given(node, "onFailure")).and_then(|node| reader.word(node, "onFailure", &words));
    let inherited = Inherited {
        retry: RetryPart::read(reader, node).or(RetryPart::DO),
        undo_retry: compensation.map(|node| RetryPart::read(reader, node)).unwrap_or_default().or(RetryPart::UNDO),
        timeout: reader.given(node, "timeoutMs").and_then(|node| reader.millis(node, "timeoutMs")).unwrap_or(TIMEOUT),
    };
    let deadline = reader.given(node, "deadlineMs").and_then(|node| reader.millis(node, "deadlineMs"));

    let mut steps = Vec::new();
    if let Some(list) = reader.required(node, "steps", "a saga") {
        match &list.kind {
            Kind::List(items) if items.is_empty() => reader.error(list.place, "a saga needs at least one step", None),
            Kind::List(items) if items.len() > STEPS_MAX => {
                reader.error(list.place, format!("a saga has at most {STEPS_MAX} steps, not {}", items.len()), None);
            }
            Kind::List(items) => steps = step::read_all(reader, items, inherited),
            _ => reader.error(list.place, format!("`steps` must be a list, not {}", list.what()), Some("start each step with `- name:`")),
        }
    }
    if reader.problems.len() > before {
        return None;
    }
    let on_compensation_failure = on_failure.unwrap_or(OnCompensationFailure::Stop);
    let flow = Flow::Sequence((0..steps.len()).map(Flow::Step).collect());
    let hitl = Hitl { after: 3, queue: "default".to_owned() };
    Some(Definition {
        id,
        family,
        version,
        revision,
        trigger,
        topics,
        filter,
        dedupe,
        lock: None,
        cancel_on: Vec::new(),
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
