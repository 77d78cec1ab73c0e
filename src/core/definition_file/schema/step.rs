//! A step of a saga file, and groups of them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde_json::{Map, Value};

use super::expression::Cel;
use super::saga::RetryMap;

/// A step, or a group of steps.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum ItemForm {
    /// A unit of work.
    Step(Box<StepMap>),
    /// Steps side by side.
    Group(GroupMap),
    /// The marker of the list that it stands in: its steps go side by side.
    Marker(MarkerMap),
    /// Steps that follow each other, unless the list holds the marker `parallel: true`.
    List(#[schemars(length(min = 1))] Vec<Self>),
}

/// Steps side by side.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct GroupMap {
    /// Whether they go side by side.
    parallel: bool,
    /// The steps and groups in it.
    #[schemars(length(min = 1))]
    steps: Vec<ItemForm>,
    /// Branches under way at once. All of them, unless said.
    #[schemars(range(min = 1, max = 200))]
    max_parallel: Option<u32>,
    /// When a branch fails: `drain` lets what is in flight end, `wait` lets the other branches go on to their ends first.
    #[schemars(extend("default" = "drain"))]
    on_branch_failure: Option<OnBranchFailure>,
}

/// Says of the list that it stands in that its steps go side by side.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct MarkerMap {
    /// Whether they go side by side.
    parallel: bool,
    /// Branches under way at once. All of them, unless said.
    #[schemars(range(min = 1, max = 200))]
    max_parallel: Option<u32>,
    /// When a branch fails: `drain` lets what is in flight end, `wait` lets the other branches go on to their ends first.
    #[schemars(extend("default" = "drain"))]
    on_branch_failure: Option<OnBranchFailure>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
pub(super) enum OnBranchFailure {
    Drain,
    Wait,
}

/// A unit of work.
#[derive(JsonSchema)]
#[schemars(
    rename_all = "camelCase", deny_unknown_fields,
    extend(
        "oneOf" = [
            {"required": ["call"]}, {"required": ["sql"]}, {"required": ["emit"]}, {"required": ["wait"]}, {"required": ["delayMs"]},
            {"required": ["until"]}, {"required": ["human"]}, {"required": ["saga"]}
        ],
        "dependencies" = {
            "async": ["call"], "verify": ["call"], "heartbeatTimeoutMs": ["call", "async"],
            "context": {"anyOf": [{"required": ["call"]}, {"required": ["sql"]}]},
            "retry": {"anyOf": [{"required": ["call"]}, {"required": ["sql"]}]},
            "timeoutMs": {"anyOf": [{"required": ["call"]}, {"required": ["sql"], "properties": {"timeoutMs": {"maximum": 60000}}}]},
            "compensate": {"not": {"required": ["saga"]}},
            "compensateOn": {"anyOf": [{"required": ["compensate"]}, {"required": ["saga"]}]}
        },
        "not" = {"required": ["kind", "onExhausted"], "properties": {"kind": {"const": "pivot"}, "onExhausted": {"const": "continue"}}}
    )
)]
pub(super) struct StepMap {
    /// Unique in the saga; expressions say `steps.NAME`.
    #[schemars(length(max = 255), regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]*$"))]
    name: String,
    /// The call that does it: `[METHOD ]service:/path`, or a map.
    call: Option<CallForm>,
    /// The function of the database that does it, from jsonb to jsonb: `schema.name`. Its effect and its outcome are one transaction.
    #[schemars(regex(pattern = r"^[a-z_][a-z0-9_]{0,62}\.[a-z_][a-z0-9_]{0,62}$"))]
    sql: Option<String>,
    /// The event that it publishes: its type, or a map.
    emit: Option<EmitForm>,
    /// The event that it waits for.
    wait: Option<WaitMap>,
    /// The time that it waits, milliseconds.
    #[schemars(range(min = 1, max = 315_360_000_000_u64))]
    delay_ms: Option<u64>,
    /// CEL: the point in time that it waits for, a timestamp or text in RFC 3339.
    until: Option<Cel>,
    /// The decision that it waits for.
    human: Option<HumanMap>,
    /// The saga that it runs, by its full id, with the same event.
    #[schemars(length(max = 255), regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"))]
    saga: Option<String>,
    /// CEL over `data`, `event`, `saga`, `steps`: asked before it begins; false leaves it out. Yes, unless said.
    when: Option<Cel>,
    /// `pivot`: the point of no return. `retriable`: comes after it and must succeed in the end.
    kind: Option<StepKind>,
    /// What undoes it: a call, `{sql: schema.name}`, or `event`.
    compensate: Option<CompensateForm>,
    /// The outcomes that are undone.
    #[schemars(length(min = 1), extend("uniqueItems" = true, "default" = ["succeeded", "unknown"]))]
    compensate_on: Option<Vec<CompensatedOutcome>>,
    /// What the compensation is given: names with CEL over `data`, `event`, `saga`, `steps`, `response`. The reply's `context` object or its whole body, unless said.
    context: Option<BTreeMap<String, Cel>>,
    /// The call that is asked when nobody knows whether it was done. It answers `{"outcome": "done" | "not_done" | "pending"}`.
    verify: Option<VerifyForm>,
    /// Whether the service may answer 202 and report the end by a callback.
    #[schemars(extend("default" = false))]
    r#async: Option<bool>,
    /// Its own retries; what is not said here is as in the saga's.
    retry: Option<RetryMap>,
    /// Limit of one attempt, milliseconds; for an asynchronous call until its callback; at most 60000 for a function. The saga's, unless said.
    #[schemars(range(min = 1, max = 315_360_000_000_u64))]
    timeout_ms: Option<u64>,
    /// Longest silence between two heartbeats of an asynchronous call, milliseconds.
    #[schemars(range(min = 1, max = 315_360_000_000_u64))]
    heartbeat_timeout_ms: Option<u64>,
    /// Limit of the whole step, retries and all, milliseconds. None unless said.
    #[schemars(range(min = 1, max = 315_360_000_000_u64))]
    deadline_ms: Option<u64>,
    /// What happens when its attempts are used up. The saga's, unless said.
    on_exhausted: Option<OnExhausted>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
enum StepKind {
    Pivot,
    Retriable,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
enum CompensatedOutcome {
    Succeeded,
    Unknown,
    Failed,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
enum OnExhausted {
    Compensate,
    Hitl,
    Continue,
}

/// An address, or a map.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum CallForm {
    /// `[METHOD ]service:/path`; `${ CEL }` in the path and query.
    Address(#[schemars(regex(pattern = r"^((GET|POST|PUT|PATCH|DELETE) +)?[A-Za-z0-9][A-Za-z0-9._-]*:/([^/]|$)"))] String),
    /// The parts.
    Map(CallMap),
}

/// A call in its parts.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct CallMap {
    /// `service:/path`; `${ CEL }` in the path and query.
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]*:/([^/]|$)"))]
    url: String,
    /// The HTTP method.
    #[schemars(extend("default" = "POST"))]
    method: Option<Method>,
    /// Further headers; `${ CEL }` in the values.
    headers: Option<BTreeMap<String, String>>,
    /// Replaces the standard body; `${ CEL }` in its strings.
    body: Option<Value>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "UPPERCASE")]
enum Method {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

/// An address, a map, or `event`.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum CompensateForm {
    /// `[METHOD ]service:/path`, `${ CEL }` in the path and query; or `event`: the consumer of `saga.compensate` undoes it.
    Address(#[schemars(regex(pattern = r"^(event$|((GET|POST|PUT|PATCH|DELETE) +)?[A-Za-z0-9][A-Za-z0-9._-]*:/([^/]|$))"))] String),
    /// The parts.
    Map(CompensateMap),
}

/// An undo in its parts.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend(
    "oneOf" = [{"required": ["url"]}, {"required": ["sql"]}],
    "dependencies" = {"method": ["url"], "headers": ["url"], "body": ["url"], "sql": {"properties": {"timeoutMs": {"maximum": 60000}}}}
))]
struct CompensateMap {
    /// `service:/path`; `${ CEL }` in the path and query, which sees `step` besides.
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]*:/([^/]|$)"))]
    url: Option<String>,
    /// The HTTP method.
    #[schemars(extend("default" = "POST"))]
    method: Option<Method>,
    /// Further headers; `${ CEL }` in the values.
    headers: Option<BTreeMap<String, String>>,
    /// Replaces the standard body; `${ CEL }` in its strings.
    body: Option<Value>,
    /// A function of the database, from jsonb to jsonb: `schema.name`.
    #[schemars(regex(pattern = r"^[a-z_][a-z0-9_]{0,62}\.[a-z_][a-z0-9_]{0,62}$"))]
    sql: Option<String>,
    /// Its own retries; what is not said here is as in `compensation`.
    retry: Option<RetryMap>,
    /// Limit of one attempt, milliseconds. The step's, unless said.
    #[schemars(range(min = 1, max = 315_360_000_000_u64))]
    timeout_ms: Option<u64>,
}

/// An address, or a map.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum VerifyForm {
    /// `[METHOD ]service:/path`; `${ CEL }` in the path and query, which sees `step` besides.
    Address(#[schemars(regex(pattern = r"^((GET|POST|PUT|PATCH|DELETE) +)?[A-Za-z0-9][A-Za-z0-9._-]*:/([^/]|$)"))] String),
    /// The parts.
    Map(VerifyMap),
}

/// A question in its parts.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct VerifyMap {
    /// `service:/path`; `${ CEL }` in the path and query, which sees `step` besides.
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]*:/([^/]|$)"))]
    url: String,
    /// The HTTP method.
    #[schemars(extend("default" = "POST"))]
    method: Option<Method>,
    /// Further headers; `${ CEL }` in the values.
    headers: Option<BTreeMap<String, String>>,
    /// Replaces the standard body; `${ CEL }` in its strings.
    body: Option<Value>,
    /// CEL over `data`, `event`, `saga`, `steps`, `response`: gives `done`, `not_done` or `pending`. The reply's `outcome`, unless said.
    outcome: Option<Cel>,
}

/// A type, or a map.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum EmitForm {
    /// The event's type.
    Type(#[schemars(length(min = 1, max = 255))] String),
    /// The parts.
    Map(EmitMap),
}

/// An event to publish.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct EmitMap {
    /// Its type.
    #[schemars(length(min = 1, max = 255))]
    r#type: String,
    /// Its topic; `${ CEL }` in it.
    #[schemars(extend("default" = "default"))]
    topic: Option<String>,
    /// Its data; `${ CEL }` in its strings. That of the saga's event, unless said.
    data: Option<Value>,
}

/// An event to wait for.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct WaitMap {
    /// Its type.
    #[schemars(length(min = 1, max = 255))]
    event: String,
    /// CEL over `data`, `event`, `saga`, `steps` and `async` (the arriving event): which of them. It holds one equality `async.<path> == …`. Any, unless said.
    #[schemars(rename = "match")]
    matching: Option<Cel>,
    /// How long to wait, milliseconds. For ever, unless said.
    #[schemars(range(min = 1, max = 315_360_000_000_u64))]
    timeout_ms: Option<u64>,
    /// What happens then.
    #[schemars(extend("default" = "fail"))]
    on_timeout: Option<Otherwise>,
}

/// A decision to wait for.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct HumanMap {
    /// The question; `${ CEL }` in it.
    #[schemars(length(min = 1))]
    prompt: String,
    /// Where it is asked. The saga's `hitl.queue`, unless said.
    #[schemars(length(min = 1, max = 255))]
    queue: Option<String>,
    /// Whom it is meant for; `${ CEL }` in it.
    assignee: Option<String>,
    /// What an approval must fill in: a JSON Schema.
    form: Option<Map<String, Value>>,
    /// Whether the one who published the event may not decide.
    #[schemars(extend("default" = false))]
    four_eyes: Option<bool>,
    /// What a rejection means.
    #[schemars(extend("default" = "fail"))]
    on_reject: Option<Otherwise>,
    /// How long to wait, milliseconds. For ever, unless said.
    #[schemars(range(min = 1, max = 315_360_000_000_u64))]
    timeout_ms: Option<u64>,
    /// What happens then.
    #[schemars(extend("default" = "fail"))]
    on_timeout: Option<Otherwise>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
enum Otherwise {
    Fail,
    Hitl,
    Continue,
}
