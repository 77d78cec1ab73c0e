//! The pure heart: what an event starts, what a saga does next, what a reply means.
//!
//! Invariant: nothing here is async, does I/O, asks for the time, or draws random numbers. What varies comes in as an argument.

pub mod backoff;
pub mod breaker;
pub mod call;
pub mod definition;
pub mod definition_file;
pub mod difference;
pub mod emission;
pub mod ending;
pub mod event;
pub mod expression;
pub mod failure;
pub mod form;
pub mod graph;
pub mod human;
pub mod lint;
pub mod machine;
pub mod matching;
pub mod nearest;
pub mod nesting;
pub mod order;
pub mod outcome;
pub mod payload;
pub mod reply;
pub mod request;
pub mod saga;
pub mod scenario;
pub mod service;
pub mod story;
pub mod template;
pub mod time;
