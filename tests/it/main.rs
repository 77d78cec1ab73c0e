//! Integration tests on a real Postgres, a database per test.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a test fails by panicking")]

mod support;

// What the contract promises, seen from outside.
mod acceptance;
// Callback tokens in the database: one end, told once.
mod callbacks_sql;
// Services that are down, come back, are paused.
mod breaker;
// Real sagas, captured as scenarios that pass.
mod capture;
// Files on the command line: validated, deployed, begun with.
mod async_steps;
mod children;
mod cli_files;
// A server as people run it: started, used, stopped.
mod cli_server;
// Workers and Postgres, killed for real.
mod crash;
// Callbacks over HTTP: the token is the authority.
mod callbacks;
// Deploying: all or nothing, revisions that never change.
mod definitions;
// The demo's services on real tables.
mod demo_services;
// What `doctor` finds on a healthy and on a sick server.
mod doctor;
// Functions of the database as steps: exactly once, whatever dies.
mod functions;
// What a publisher, a reader and an operator may do, and nothing else.
mod grants;
// Roles, foreign host names and foreign pages.
mod http_access;
// Deploying over HTTP.
mod http_definitions;
// Publishing over HTTP: once, all or none, refused with a place.
mod http_events;
// What machines ask for, and the shape of every refusal.
mod http_machine;
// Looking at sagas, and waiting for their end.
mod http_sagas;
// What must be true after every test that runs sagas.
mod invariants;
// API keys and signing keys.
mod keys;
// What the views and why say of every state, and which rows the schema lets be.
mod language_sql;
// The ledger: inserts always succeed, nothing in it ever changes, sleepers are woken.
mod ledger;
mod object_locks;
mod parallel;
mod pivot;
mod waits;
// Object locks as the database keeps them.
mod locks_sql;
// The schema: made once by many, refused when it is not ours.
mod migrations;
// Orders, decisions and forks in SQL.
mod operators_sql;
// Orders over SQL, HTTP and on the command line.
mod orders;
// Orders to all sagas that match.
mod orders_bulk;
// What one publisher suffers, the others do not notice.
mod publishing;
// A dump restored elsewhere.
mod restore;
// Sagas from event to end, with every kind of failure.
mod sagas;
// Human tasks: two officers, forms, decisions.
mod tasks;
// Uninstalling leaves nothing behind.
mod uninstall;
