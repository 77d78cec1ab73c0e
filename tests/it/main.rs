//! What needs a real Postgres, in one binary.

mod support {
    pub(crate) mod api;
    pub(crate) mod db;
}

mod http_access;
mod http_definitions;
mod http_events;
mod http_machine;
mod http_sagas;
mod publishing;
