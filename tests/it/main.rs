//! One binary on real Postgres.

#![allow(clippy::unwrap_used, reason = "a test stops where something fails")]

mod support;

mod definitions;
mod demo_services;
mod doctor;
mod grants;
mod keys;
mod migrations;
mod uninstall;
