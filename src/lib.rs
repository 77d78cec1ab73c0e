pub mod core {}
pub mod demo;
