//! HMS-SYNCOR: a saga orchestrator for people who already run Postgres.

pub mod core;
pub mod dev_postgres;
pub mod http;
pub mod store;
