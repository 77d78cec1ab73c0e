//! HMS-SYNCOR: a saga orchestrator for people who already run Postgres.

pub mod core;
pub mod http;
pub mod store;
