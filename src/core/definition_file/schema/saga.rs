//! The top of a saga file.

use schemars::JsonSchema;

use super::Names;
use super::expression::Cel;
use super::step::{ItemForm, OnBranchFailure};

/// What an event starts: steps that follow each other or go side by side, each with its undo.
#[derive(JsonSchema)]
#[schemars(
    title = "Saga", rename_all = "camelCase", deny_unknown_fields,
    extend("patternProperties" = {"^x-": true}, "dependencies" = {"maxParallel": ["parallel"], "onBranchFailure": ["parallel"]}, "not" = {"required": ["dedupe", "dedupeKey"]})
)]
pub(in super::super) struct SagaFile {
    /// Dotted id; `.vN` at its end is the version: `dol.benefit.increase.v1`.
    #[schemars(length(max = 255), regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"))]
    id: String,
    /// The version, where the id does not end with it. Both must agree.
    #[schemars(range(min = 1), extend("default" = 1))]
    version: Option<u32>,
    /// Type of the events that start it, or a list of types.
    trigger: Names,
    /// Topics it listens to. All, unless said.
    topics: Option<Names>,
    /// CEL over `data` and `event`: whether an event starts it. A missing field means no. Quote the whole expression if it holds ` #`, `: ` or starts with a quote.
    filter: Option<Cel>,
    /// Which events count as the same request: one saga for each key.
    dedupe: Option<DedupeMap>,
    /// Short form of `dedupe: {key: …}`: CEL over `data` and `event`.
    #[schemars(extend("default" = "event.id"))]
    dedupe_key: Option<Cel>,
    /// The objects that no two sagas may work on at once: CEL over `data` and `event`, or a map. Taken when the saga starts, kept until it ends.
    lock: Option<LockForm>,
    /// Events that cancel it.
    #[schemars(length(min = 1, max = 50))]
    cancel_on: Option<Vec<CancelOnMap>>,
    /// The steps in their order. A list inside is a group: its steps follow each other, or go side by side if it holds `- parallel: true`.
    #[schemars(length(min = 1))]
    steps: Vec<ItemForm>,
    /// Whether all steps go side by side.
    #[schemars(extend("default" = false))]
    parallel: Option<bool>,
    /// Steps under way at once, with `parallel: true`. All of them, unless said.
    #[schemars(range(min = 1, max = 200))]
    max_parallel: Option<u32>,
    /// When one of the parallel steps fails: `drain` lets what is in flight end, `wait` lets the others go on to their ends first.
    #[schemars(extend("default" = "drain"))]
    on_branch_failure: Option<OnBranchFailure>,
    /// Retries of every step that has none of its own.
    retry: Option<RetryMap>,
    /// Limit of one attempt of every step that has none of its own, milliseconds. 30 s; 24 h for asynchronous calls, 5 s for functions, unless said.
    #[schemars(range(min = 1, max = 315_360_000_000_u64))]
    timeout_ms: Option<u64>,
    /// Limit of the whole forward run, milliseconds. None unless said.
    #[schemars(range(min = 1, max = 315_360_000_000_u64))]
    deadline_ms: Option<u64>,
    /// What happens when a step's attempts are used up: `compensate` undoes the saga, `hitl` asks a human first. A step may say otherwise.
    #[schemars(extend("default" = "compensate"))]
    on_exhausted: Option<SagaOnExhausted>,
    /// How the steps are undone.
    compensation: Option<CompensationMap>,
    /// When people are told of failures, and where.
    hitl: Option<HitlMap>,
}

/// Which events count as the same request.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct DedupeMap {
    /// CEL over `data` and `event`.
    #[schemars(extend("default" = "event.id"))]
    key: Option<Cel>,
    /// When the same key may start again: `never`, after the earlier saga `failed`, or whenever it is `terminal`.
    #[schemars(extend("default" = "never"))]
    after: Option<After>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
enum After {
    Never,
    Failed,
    Terminal,
}

/// One key, or a map.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum LockForm {
    /// CEL over `data` and `event`: the key.
    Key(Cel),
    /// The parts.
    Map(LockMap),
}

/// What is locked, and what to do when it is taken.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct LockMap {
    /// CEL over `data` and `event`, or a list: each gives a key.
    key: Cels,
    /// When another saga holds one: `wait` in line, or `abort`: be rejected.
    #[schemars(extend("default" = "wait"))]
    mode: Option<LockMode>,
    /// How long to wait, milliseconds. For ever, unless said.
    #[schemars(range(min = 1, max = 315_360_000_000_u64))]
    timeout_ms: Option<u64>,
}

/// One expression, or a list.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Cels {
    /// One.
    One(Cel),
    /// Several.
    Many(#[schemars(length(min = 1, max = 50))] Vec<Cel>),
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
enum LockMode {
    Wait,
    Abort,
}

/// An event that cancels the saga.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct CancelOnMap {
    /// Its type.
    #[schemars(length(min = 1, max = 255))]
    event: String,
    /// CEL over `data`, `event` and `async` (the arriving event): which of them. It holds one equality `async.<path> == …`. Any, unless said.
    #[schemars(rename = "match")]
    matching: Option<Cel>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
enum SagaOnExhausted {
    Compensate,
    Hitl,
}

/// How often and how fast to try again.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RetryMap {
    /// Calls in total, the first included. 3 for a step, 10 for an undo, unless said.
    #[schemars(range(min = 1, max = 10_000))]
    attempts: Option<u32>,
    /// Delay before the second call, milliseconds.
    #[schemars(range(min = 1, max = 315_360_000_000_u64), extend("default" = 1000))]
    backoff_ms: Option<u64>,
    /// Growth of the delay from call to call.
    #[schemars(range(min = 1, max = 1000), extend("default" = 2))]
    multiplier: Option<f64>,
    /// Upper limit of the delay, milliseconds.
    #[schemars(range(min = 1, max = 315_360_000_000_u64), extend("default" = 60000))]
    max_backoff_ms: Option<u64>,
    /// Share of the delay that is spread at random.
    #[schemars(range(min = 0, max = 1), extend("default" = 0.1))]
    jitter: Option<f64>,
}

/// How the steps are undone.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct CompensationMap {
    /// Retries of every undo that has none of its own: 10 attempts, unless said.
    retry: Option<RetryMap>,
    /// When an undo fails for good: `stop` and wait for a human, or `continue` with the earlier steps first.
    #[schemars(extend("default" = "stop"))]
    on_failure: Option<OnFailure>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
enum OnFailure {
    Stop,
    Continue,
}

/// When people are told of failures, and where.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct HitlMap {
    /// Failed attempts of one step that open a human task. The saga does not wait for it.
    #[schemars(range(min = 1, max = 10_000), extend("default" = 3))]
    after: Option<u32>,
    /// The queue of this saga's tasks.
    #[schemars(length(min = 1, max = 255), extend("default" = "default"))]
    queue: Option<String>,
}
