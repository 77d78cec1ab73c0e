pub mod core {}
pub mod dev_postgres;
