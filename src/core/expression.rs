//! Expressions: CEL, compiled and checked once, evaluated often.
//!
//! Invariant: an expression that compiles names only variables, steps and functions that exist, and its cost is bounded by its text and its data.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;

use cel::{Context, ExecutionError, Program};
use serde_json::Value;

use check::{Uses, Word};
pub use equality::Equality;
pub use scope::{ResponseScope, SagaScope, Scope, StepScope, UndoScope};
use value::to_json;

mod check;
mod equality;
pub(super) mod scan;
mod scope;
mod value;

/// The longest expression, bytes.
pub const SOURCE_BYTES_MAX: usize = 4096;
/// Turns of all loops together, as estimated from the longest list.
const TURNS_MAX: usize = 4_000_000;
/// The parser recurses: a debug build overflows 2 MiB at about a dozen levels.
const COMPILE_STACK_BYTES: usize = 64 * 1024 * 1024;

/// Building the standard library takes 30 µs, an inner scope half of one: made once.
static STANDARD: LazyLock<Context<'static, 'static>> = LazyLock::new(Context::default);

/// A variable that expressions see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Root {
    /// The event's data.
    Data,
    /// The event.
    Event,
    /// The saga itself.
    Saga,
    /// The steps by name.
    Steps,
    /// In a compensation: the step that is undone.
    Step,
    /// In `context`: the reply.
    Response,
    /// In `match`: the event that arrives.
    Async,
}

impl Root {
    /// Every variable.
    pub const ALL: [Self; 7] = [Self::Data, Self::Event, Self::Saga, Self::Steps, Self::Step, Self::Response, Self::Async];

    /// The name in an expression.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Event => "event",
            Self::Saga => "saga",
            Self::Steps => "steps",
            Self::Step => "step",
            Self::Response => "response",
            Self::Async => "async",
        }
    }

    /// The fields it has (for `steps`, those of each step); empty where they vary.
    #[must_use]
    pub const fn fields(self) -> &'static [&'static str] {
        match self {
            Self::Data => &[],
            Self::Event | Self::Async => &["id", "type", "topic", "source", "subject", "correlationId", "causationId", "depth", "time", "data"],
            Self::Saga => &["id", "definition", "version"],
            Self::Steps => &["status", "output", "context"],
            Self::Step => &["name", "context", "doKey"],
            Self::Response => &["status", "headers", "body"],
        }
    }
}

/// Why an expression or a template was refused, and where in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExpressionError {
    /// What is wrong.
    pub message: String,
    /// Byte in the text.
    pub offset: usize,
    /// Line in the text, from 1.
    pub line: usize,
    /// Character in the line, from 1.
    pub column: usize,
}

impl ExpressionError {
    pub(super) fn at(text: &str, offset: usize, message: impl Into<String>) -> Self {
        let offset = (0..=offset.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let before = &text[..offset];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Self { message: message.into(), offset, line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
    }
}

/// Why an evaluation gave nothing. Names types and fields, never values: data may be personal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EvaluationError {
    /// What is wrong.
    pub message: String,
    /// Whether a value was looked up that is not there; templates read that as null.
    pub missing: bool,
}

impl EvaluationError {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), missing: false }
    }
}

/// A compiled CEL expression.
#[derive(Debug)]
pub struct Expression {
    source: Box<str>,
    program: Program,
    uses: Uses,
}

impl Expression {
    /// Compiles an expression that may see `roots`, and in `steps` only `step_names` (`None`: any).
    ///
    /// # Errors
    /// When the text is too long, nests too deeply, is no CEL, or names a variable, field, function or step that does not exist.
    pub fn compile(source: &str, roots: &[Root], step_names: Option<&[&str]>) -> Result<Self, ExpressionError> {
        let at = |offset, message: String| ExpressionError::at(source, offset, message);
        if source.len() > SOURCE_BYTES_MAX {
            return Err(at(0, format!("the expression has {} bytes: at most {SOURCE_BYTES_MAX} are allowed", source.len())));
        }
        if source.trim().is_empty() {
            return Err(at(0, "the expression is empty".to_owned()));
        }
        if let Some(offset) = scan::too_deep(source) {
            return Err(at(offset, "the expression is too large or nests too deeply: split it".to_owned()));
        }
        // A panic of the parser must not take a deployment down with it.
        let compile = || catch_unwind(AssertUnwindSafe(|| compile(source, roots, step_names)));
        match on_big_stack(compile) {
            Ok(Ok(compiled)) => compiled,
            Ok(Err(_)) => Err(at(0, "the expression cannot be parsed".to_owned())),
            Err(reason) => Err(at(0, reason)),
        }
    }

    /// The expression as written.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it looks at the variable.
    #[must_use]
    pub fn uses(&self, root: Root) -> bool {
        self.uses.roots.contains_key(&root)
    }

    /// The value for `scope`.
    ///
    /// # Errors
    /// When a value is missing, types do not fit, or the lists are too long for the loops.
    pub fn evaluate(&self, scope: &Scope<'_>) -> Result<Value, EvaluationError> {
        to_json(&self.run(scope)?).map_err(|what| EvaluationError::new(format!("the result is {what}, which JSON does not know")))
    }

    /// Whether the expression holds.
    ///
    /// # Errors
    /// As [`Self::evaluate`], and when the result is neither true nor false.
    pub fn test(&self, scope: &Scope<'_>) -> Result<bool, EvaluationError> {
        match self.run(scope)? {
            cel::Value::Bool(holds) => Ok(holds),
            other => Err(EvaluationError::new(format!("the result is a {}, not true or false", other.type_of()))),
        }
    }

    /// The value as the text of a key: a string, number or bool. Whole numbers read the same as `5` and as `5.0`.
    ///
    /// # Errors
    /// As [`Self::evaluate`], and when the result is null, a list or a map.
    pub fn text(&self, scope: &Scope<'_>) -> Result<String, EvaluationError> {
        match self.run(scope)? {
            cel::Value::String(text) => Ok(text.to_string()),
            cel::Value::Int(number) => Ok(number.to_string()),
            cel::Value::UInt(number) => Ok(number.to_string()),
            cel::Value::Float(number) if number.is_finite() => Ok(number.to_string()),
            cel::Value::Bool(value) => Ok(value.to_string()),
            other => Err(EvaluationError::new(format!("a key is a string, a number or a bool, not a {}", other.type_of()))),
        }
    }

    fn run(&self, scope: &Scope<'_>) -> Result<cel::Value, EvaluationError> {
        let mut context = STANDARD.new_inner_scope();
        let mut longest = 0;
        for (root, parts) in &self.uses.roots {
            if let Some(value) = scope.bind(*root, parts, &mut longest) {
                context.add_variable_from_value(root.name(), value);
            }
        }
        let turns = longest.saturating_pow(self.uses.loop_depth).saturating_mul(self.uses.loops as usize);
        if self.uses.loops > 0 && turns > TURNS_MAX {
            return Err(EvaluationError::new(format!("a list of {longest} is too long for the loops of this expression")));
        }
        // One event must not be able to take the router down: a panic of the crate is this expression's failure.
        let run = || self.program.execute(&context).map_err(|error| describe(&error));
        catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err(EvaluationError::new("the expression cannot be evaluated")))
    }
}

thread_local! {
    static STACK_IS_BIG: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` where the parser has room, on a thread of its own unless this is one already.
pub(super) fn on_big_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, String> {
    if STACK_IS_BIG.get() {
        return Ok(work());
    }
    std::thread::scope(|scope| {
        let work = || {
            STACK_IS_BIG.set(true);
            work()
        };
        let thread = std::thread::Builder::new().stack_size(COMPILE_STACK_BYTES).spawn_scoped(scope, work);
        let thread = thread.map_err(|error| format!("no thread to read it on: {error}"))?;
        thread.join().map_err(|_| "it cannot be read: please report this".to_owned())
    })
}

fn compile(source: &str, roots: &[Root], step_names: Option<&[&str]>) -> Result<Expression, ExpressionError> {
    let program = Program::compile(source).map_err(|errors| {
        let Some(first) = errors.errors.first() else { return ExpressionError::at(source, 0, "the expression cannot be parsed") };
        let (line, column) = (usize::try_from(first.pos.0).unwrap_or(1).max(1), usize::try_from(first.pos.1).unwrap_or(1).max(1));
        let line_start = source.split_inclusive('\n').take(line - 1).map(str::len).sum::<usize>();
        let offset = source.get(line_start..).map_or(source.len(), |rest| line_start + char_offset(rest, column - 1));
        ExpressionError::at(source, offset, plain_words(&first.msg))
    })?;
    match check::check(program.expression(), roots, step_names) {
        Ok(uses) => Ok(Expression { source: source.into(), program, uses }),
        Err(finding) => {
            let token = program.source_info().offset_for(finding.node).map_or(0, |(start, _)| start as usize);
            let offset = match finding.word {
                Word::Here => token,
                Word::Behind => token + 1,
                Word::Before(bytes) => token.saturating_sub(bytes),
            };
            Err(ExpressionError::at(source, offset, finding.message))
        }
    }
}

/// The parser's message without its table of tokens.
fn plain_words(message: &str) -> String {
    let message = message.trim();
    let short = message.split(" expecting {").next().unwrap_or(message).trim_start_matches("Syntax error: ");
    if short.contains("Recursion limit") {
        "the expression nests too deeply: split it".to_owned()
    } else if short.starts_with("token recognition error at: '= ") {
        "`=` compares nothing: write `==`".to_owned()
    } else if short.starts_with("token recognition error at: '\"") || short.starts_with("token recognition error at: ''") {
        "the string has no closing quote".to_owned()
    } else if short.contains("input '<EOF>'") {
        "the expression ends too early".to_owned()
    } else {
        format!("syntax error: {}", short.replace("'<EOF>'", "the end"))
    }
}

/// The byte of the character with this number.
fn char_offset(text: &str, chars: usize) -> usize {
    text.char_indices().nth(chars).map_or(text.len(), |(at, _)| at)
}

fn describe(error: &ExecutionError) -> EvaluationError {
    let kind = |value: &cel::Value| value.type_of().to_string();
    let missing = |message| EvaluationError { message, missing: true };
    EvaluationError::new(match error {
        ExecutionError::NoSuchKey(key) => return missing(format!("there is no `{key}`")),
        ExecutionError::IndexOutOfBounds(_) => return missing("the list is shorter than that".to_owned()),
        ExecutionError::NoSuchOverload(overload) => {
            let types = overload.argument_types();
            let name = overload.function().trim_matches(['_', '@']);
            if matches!(overload.function(), "_._" | "_[_]") {
                let message = format!("a field or element of {} was asked for", types.first().map_or("null", String::as_str));
                return EvaluationError { message, missing: types.first().is_some_and(|first| first.starts_with("null")) };
            }
            format!("`{name}` does not apply to {}", types.join(" and "))
        }
        ExecutionError::ValuesNotComparable(left, right) => format!("{} and {} cannot be compared", kind(left), kind(right)),
        ExecutionError::UnsupportedBinaryOperator(name, left, right) => {
            format!("`{}` does not apply to {} and {}", name.trim_matches('_'), kind(left), kind(right))
        }
        ExecutionError::UnsupportedTargetType { target } => format!("a {} does not have this method", kind(target)),
        ExecutionError::NotSupportedAsMethod { method, target } => format!("a {} has no method `{method}`", kind(target)),
        ExecutionError::UnsupportedIndex(index, target) => format!("a {} is no index of a {}", kind(index), kind(target)),
        ExecutionError::UnsupportedKeyType(key) => format!("a {} cannot be a key", kind(key)),
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => "division by zero".to_owned(),
        ExecutionError::Overflow(..) => "the number is too large".to_owned(),
        ExecutionError::DuplicateKey(_) => "a map has the same key twice".to_owned(),
        ExecutionError::UndeclaredReference(name) => format!("`{name}` is not known here"),
        ExecutionError::UnexpectedType { got, want } => format!("a {want} is expected, not a {got}"),
        ExecutionError::InvalidArgumentCount { expected, actual } => format!("{expected} arguments are expected, not {actual}"),
        ExecutionError::FunctionError { function, .. } => format!("`{function}` cannot read its argument"),
        _ => "the expression cannot be evaluated".to_owned(),
    })
}

#[cfg(test)]
pub(in crate::core) mod tests;
