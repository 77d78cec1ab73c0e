//! Integration tests on a real Postgres, a database per test.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

// The demo's services on real tables.
mod demo_services;
// Sagas from event to end, with every kind of failure.
mod sagas;
