//! One binary on real Postgres.

mod support;

mod definitions;
mod doctor;
mod grants;
mod keys;
mod migrations;
mod uninstall;
