//! Two changes of one lock, joined entry by entry.
//!
//! In: the lock that both sides began with, and theirs. Out: a lock that keeps what both agree on or one side alone has
//! changed, and the pins that both have moved in different ways. What follows from pins and spec (keys, results, orders)
//! is no conflict: where the sides differ it is left out, and `aurora lock` or `aurora run` states it anew.

use std::collections::{BTreeMap, BTreeSet};

use super::Lock;
use crate::hash::digest_of;

/// Both sides have moved one thing in different ways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    pub what: String,
    pub ours: String,
    pub theirs: String,
}

/// What both sides agree on, or one of them alone has changed.
enum Chosen<T> {
    One(T),
    Differ,
}

fn choose<T: Clone + PartialEq>(base: Option<&T>, ours: Option<&T>, theirs: Option<&T>) -> Chosen<Option<T>> {
    if ours == theirs || base == theirs {
        Chosen::One(ours.cloned())
    } else if base == ours {
        Chosen::One(theirs.cloned())
    } else {
        Chosen::Differ
    }
}

type Table<T> = BTreeMap<String, T>;

/// Joins tables; `differ` hears of the entries that both sides have changed in different ways, which are left out.
fn tables<T: Clone + PartialEq>(
    [base, ours, theirs]: [&Table<T>; 3],
    mut differ: impl FnMut(&str, Option<&T>, Option<&T>),
) -> Table<T> {
    let names: BTreeSet<&String> = base.keys().chain(ours.keys()).chain(theirs.keys()).collect();
    let mut joined = Table::new();
    for name in names {
        let [base, ours, theirs] = [base, ours, theirs].map(|table| table.get(name));
        match choose(base, ours, theirs) {
            Chosen::One(Some(entry)) => drop(joined.insert(name.clone(), entry)),
            Chosen::One(None) => {}
            Chosen::Differ => differ(name, ours, theirs),
        }
    }
    joined
}

/// Joins two changes of `base`; without one, both sides have made the lock.
///
/// A pin that both sides have moved is left out, so that `aurora lock` pins it anew.
pub fn merge(base: Option<&Lock>, ours: &Lock, theirs: &Lock) -> (Lock, Vec<Conflict>) {
    let mut conflicts = Vec::new();
    let empty = Lock {
        source: Table::new(),
        order: Table::new(),
        node: Table::new(),
        result: Table::new(),
        fingerprint: None,
        ..ours.clone()
    };
    let base = base.unwrap_or(&empty);
    let all = [base, ours, theirs];
    let mut header = |what: &str, of: fn(&Lock) -> String| {
        let [base, ours, theirs] = all.map(of);
        if let Chosen::Differ = choose(Some(&base), Some(&ours), Some(&theirs)) {
            let what = what.to_owned();
            conflicts.push(Conflict { what, ours, theirs });
        }
    };
    header("experiment", |lock| lock.experiment.clone());
    header("spec", |lock| lock.spec.clone());
    header("libtorch", |lock| lock.libtorch.clone());
    let of = |of: fn(&Lock) -> &String| -> String {
        match choose(Some(of(base)), Some(of(ours)), Some(of(theirs))) {
            Chosen::One(Some(chosen)) => chosen,
            _ => of(ours).clone(),
        }
    };
    let source = tables(all.map(|lock| &lock.source), |name, ours, theirs| {
        let said = |pin: Option<&super::LockedSource>| {
            pin.map_or("no pin".to_owned(), |pin| match &pin.content {
                Some(content) => format!("{} ({})", pin.reference, content.get(..12).unwrap_or(content)),
                None => pin.reference.clone(),
            })
        };
        conflicts.push(Conflict {
            what: format!("the pin of source `{name}`"),
            ours: said(ours),
            theirs: said(theirs),
        });
    });
    let node = tables(all.map(|lock| &lock.node), |_, _, _| {});
    // Results of two kinds of machine are not comparable: those of neither stay.
    let (fingerprint, comparable) = match choose(
        base.fingerprint.as_ref(),
        ours.fingerprint.as_ref(),
        theirs.fingerprint.as_ref(),
    ) {
        Chosen::One(fingerprint) => (fingerprint, true),
        Chosen::Differ => (None, false),
    };
    let mut result = tables(all.map(|lock| &lock.result), |_, _, _| {});
    result.retain(|name, _| comparable && node.contains_key(name));
    let mut order = tables(all.map(|lock| &lock.order), |_, _, _| {});
    order.retain(|stage, _| node.contains_key(&format!("order/{stage}")));
    let mut joined = Lock {
        experiment: of(|lock| &lock.experiment),
        spec: of(|lock| &lock.spec),
        libtorch: of(|lock| &lock.libtorch),
        fingerprint,
        intent: theirs.intent,
        source,
        order,
        node,
        result,
        ..theirs.clone()
    };
    if joined != *theirs {
        joined.intent = ours.intent;
        if joined != *ours {
            // No spec's: what the joined spec asks for is not known here, so the lock counts as one to be brought up to date.
            let both = [("ours", ours.intent.to_hex()), ("theirs", theirs.intent.to_hex())];
            joined.intent = digest_of(both.iter().map(|(side, key)| (*side, 0, key.as_str())));
        }
    }
    (joined, conflicts)
}
