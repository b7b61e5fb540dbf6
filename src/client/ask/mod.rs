//! `iotcpd ask ADDRESS...`: what it decides. A line becomes a question ([`input`], [`dialect`]), the asker says where and when
//! it is asked ([`core`]), and a reply becomes an answer ([`reply`]).

pub mod core;
pub mod dialect;
pub mod input;
pub mod options;
pub mod reply;

pub use options::{Mode, Options};
