//! The pure heart: what an event starts, what a saga does next, what a reply means.
//!
//! Invariant: nothing here is async, does I/O, asks for the time, or draws random numbers. What varies comes in as an argument.

pub mod call;
pub mod definition;
pub mod definition_file;
pub mod event;
pub mod expression;
pub mod nearest;
pub mod outcome;
pub mod payload;
pub mod service;
pub mod template;
pub mod time;
