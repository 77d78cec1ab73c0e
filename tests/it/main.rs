//! One binary on real Postgres.

#![allow(clippy::unwrap_used, reason = "a test stops where something fails")]

mod support;

mod definitions;
mod demo_services;
mod doctor;
mod grants;
mod http_access;
mod http_definitions;
mod http_events;
mod http_machine;
mod http_sagas;
mod keys;
mod migrations;
mod publishing;
mod uninstall;
