//! HMS-SYNCOR: a saga orchestrator for people who already run Postgres.

pub mod cli;
pub mod config;
pub mod core;
pub mod demo;
pub mod dev_postgres;
pub mod dispatch;
pub mod engine;
pub mod http;
pub mod store;
pub mod telemetry;
