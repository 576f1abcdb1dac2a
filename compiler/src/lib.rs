//! Specs to graphs (being written).
pub mod fields;
