//! What the tests stand on.

pub(crate) mod api;
pub(crate) mod db;
pub(crate) mod role;
