//! Outbound HTTP: the only room that calls services.
//!
//! A [`StepCall`](crate::core::call::StepCall) goes in, a [`Reply`](crate::core::call::Reply) comes out: a value, never an error, never a panic.
//!
//! Invariants:
//! - `NotSent` is said only when not one byte of the request can have left: the phase of an attempt is tracked by the code that hands the
//!   request to the connection, not guessed from an error's text. Everything after that is `Broken` until a whole reply is here.
//! - One deadline covers connect, TLS, headers and body. At most `REPLY_BYTES_MAX` bytes of a reply are kept.
//! - A call goes to an address that was checked, on a connection that belongs to its service alone. No redirect is followed, no proxy
//!   variable is read, no cookie is kept, no encoding is undone.
//! - What identifies and authorises a call (the token, the idempotency key, `Hms-*`, framing) is written here and nowhere else.
//! - Secrets are read when the registry is set. Neither they nor the signing key appear in any `Debug` output, error or log line.

pub mod address;
pub mod call;
pub mod callback;
mod connection;
mod headers;
mod key_file;
mod reply;
pub mod services;
pub mod token;

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod tls_tests;
