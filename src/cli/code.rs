//! Exit codes, and which failure gets which.

use std::fmt;
use std::io;
use std::process::ExitCode;

use crate::dev_postgres;
use crate::store::dsn::DsnError;
use crate::store::events::PublishError;
use crate::store::{self};

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// As it should.
    Ok,
    /// It did not work.
    Failed,
    /// The command itself is wrong.
    Usage,
    /// A file or a document is not valid.
    Invalid,
    /// There is no such thing, or nothing was started.
    NotFound,
    /// Something else is in the way.
    Conflict,
    /// A saga that was waited for did not complete.
    SagaFailed,
    /// The wait took too long.
    TimedOut,
    /// Nothing goes on without a human.
    NeedsHuman,
    /// Database or server cannot be reached.
    Unavailable,
    /// SIGINT.
    Interrupted,
}

impl Code {
    /// The number that the shell sees.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Invalid => 3,
            Self::NotFound => 4,
            Self::Conflict => 5,
            Self::SagaFailed => 6,
            Self::TimedOut => 7,
            Self::NeedsHuman => 8,
            Self::Unavailable => 69,
            Self::Interrupted => 130,
        }
    }
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        code.number().into()
    }
}

/// A failure that says its own code.
#[derive(Debug)]
pub struct Stop {
    code: Code,
    message: String,
}

impl Stop {
    /// A failure with this code and text.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Stop {}

/// The code of a failure, by its first cause that tells.
#[must_use]
pub fn of(error: &anyhow::Error) -> Code {
    if is_broken_pipe(error) {
        return Code::Ok;
    }
    error.chain().find_map(of_cause).unwrap_or(Code::Failed)
}

fn of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Code> {
    if let Some(stop) = cause.downcast_ref::<Stop>() {
        return Some(stop.code);
    }
    if let Some(error) = cause.downcast_ref::<store::Error>() {
        return Some(of_store(error));
    }
    if let Some(error) = cause.downcast_ref::<PublishError>() {
        return Some(match error {
            PublishError::Conflict { .. } => Code::Conflict,
            PublishError::TooLarge | PublishError::Invalid(_) => Code::Invalid,
            PublishError::Store(error) => of_store(error),
        });
    }
    if cause.is::<DsnError>() {
        return Some(Code::Usage);
    }
    cause.is::<dev_postgres::Error>().then_some(Code::Unavailable)
}

fn of_store(error: &store::Error) -> Code {
    match error {
        store::Error::Refused(_) => Code::Conflict,
        error if error.is_unreachable() => Code::Unavailable,
        _ => Code::Failed,
    }
}

/// Whether the reader of our output has gone.
#[must_use]
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe))
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn failures_have_the_codes_of_the_contract() {
        let check = |error: anyhow::Error, code: Code| assert_eq!(of(&error), code, "{error:#}");
        check(anyhow::anyhow!("something"), Code::Failed);
        check(Stop::new(Code::NotFound, "no saga").into(), Code::NotFound);
        check(store::Error::Unavailable("gone".into()).into(), Code::Unavailable);
        check(store::Error::Refused("in the way".into()).into(), Code::Conflict);
        check(store::Error::Schema("old".into()).into(), Code::Failed);
        check(PublishError::Conflict { key: "k".into() }.into(), Code::Conflict);
        check(PublishError::TooLarge.into(), Code::Invalid);
        check(PublishError::Store(store::Error::Unavailable("gone".into())).into(), Code::Unavailable);
        check(dev_postgres::Error::NoHome.into(), Code::Unavailable);
        check(DsnError::Malformed("x".into()).into(), Code::Usage);
        let wrapped: Result<(), store::Error> = Err(store::Error::Unavailable("gone".into()));
        check(wrapped.context("while looking").expect_err("an error"), Code::Unavailable);
        check(io::Error::from(io::ErrorKind::BrokenPipe).into(), Code::Ok);
    }

    #[test]
    fn the_numbers_are_the_contracts() {
        let all = [
            (Code::Ok, 0),
            (Code::Failed, 1),
            (Code::Usage, 2),
            (Code::Invalid, 3),
            (Code::NotFound, 4),
            (Code::Conflict, 5),
            (Code::SagaFailed, 6),
            (Code::TimedOut, 7),
            (Code::NeedsHuman, 8),
            (Code::Unavailable, 69),
            (Code::Interrupted, 130),
        ];
        for (code, number) in all {
            assert_eq!(code.number(), number);
        }
    }
}
