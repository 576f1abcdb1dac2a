//! Checks a spec and turns it into a content-keyed execution graph, a plan, a lock and a diff.
//!
//! ```text
//! text → (compose) ast::File of every file → (check) Spec → (lower) Graph → (hash) Keyed → (plan) Plan
//! ```
//!
//! | Module | What it has |
//! |---|---|
//! | `schema` | the tables of the language: every block, field, call, unit and eval kind |
//! | `compose` | joins files, profiles, sweeps and settings to one spec |
//! | `check` | every error of a spec, or the checked spec |
//! | `spec`, `views` | the checked spec as one tree, and as typed values for lowering |
//! | `fields` | the fields of each kind of node, as they are hashed |
//! | `graph` | nodes (`Work`, `NodeOrigin`), edges (`Role`), and lowering |
//! | `hash` | keys and what they are made of |
//! | `plan`, `why`, `diff` | what runs, why, and what changed |
//! | `lock` | the lock file |
//! | `numerics_class` | which machines compute the same bits |
//! | `layout`, `machine`, `memory` | parallel layouts, the machines they are for, the memory of a rank |
//! | `schedule` | learning-rate schedules |
//! | `encodings` | labels of character encodings |
//! | `language` | languages of corpora: canonical tags, and how their text is detected |
//! | `file_source` | paths of `file:` sources, and the names of their files |
//! | `location` | addresses of the web and of objects, which have no secrets |
//! | `server` | addresses that a judge sends to, and whether they keep a secret |
//! | `json_output` | the JSON documents that commands print |
//! | `points` | the keys of a sweep |
//! | `exact`, `number`, `names`, `text` | decimal numbers, misspelt names, text for people |
//!
//! Beside it, a launch script of Megatron-LM as a spec (`megatron`). Pure: text and values in, values out; no file, clock or
//! environment.

pub mod check;
pub mod compose;
pub mod diff;
pub mod encodings;
pub mod exact;
pub mod fields;
pub mod file_source;
pub mod graph;
pub mod hash;
pub mod json_output;
pub mod language;
pub mod layout;
pub mod location;
pub mod lock;
pub mod machine;
pub mod megatron;
pub mod memory;
pub mod names;
mod number;
pub mod numerics_class;
pub mod plan;
pub mod points;
pub mod resolved;
pub mod schedule;
pub mod schema;
pub mod server;
pub mod spec;
pub mod text;
pub mod views;
pub mod why;
