//! The store of a route door: services that other programs write into a database while the door runs.
//!
//! The life of an entry: a pair of a key and a value comes out of the store ([`mod@redis`]) when the thread that
//! [follows](follow) it reads all of it, or hears that the key has changed ([`ear`]). The [key](key::Key) says that the pair is
//! a service at all; the value, in any of the forms that programs write, becomes an [`Entry`](entry::Entry). All
//! entries by their keys are a [`Reading`](reading::Reading), which changes with each key that changes; the entry that
//! counts for each name goes into a [`Listing`](reading::Listing), which never changes. The
//! [`Keeper`](keeper::Keeper) decides whether a listing is believed, or the last one stays. A believed listing becomes
//! a table of the door, and is [kept in a file](cache) for a start while the store is away.
//!
//! Invariants:
//!
//! * A pair that cannot be read costs its own service alone, and its fault is told without the value: a value may hold
//!   a secret.
//! * The size of a key, of a value, of a reading and of the file is bounded.
//! * The same pairs give the same listing, in whatever order they are read.
//!
//! * The store is asked on threads alone, and each wait for it has an end.
//!
//! The rules of names, and what becomes of two names that differ in case alone before a client asks for one of them,
//! belong to the table of the door.

pub mod cache;
mod ear;
pub mod entry;
pub mod faults;
pub mod follow;
pub mod keeper;
pub mod key;
pub mod place;
pub mod reading;
pub mod redis;
